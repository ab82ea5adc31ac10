//! Case 56: the PAM session.

use std::fs;

use crate::world::*;

/// A module that notes its calls in /mnt/pam.log and fails, changes the user, asks, or sets limits, as its words say.
const MODULE: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
struct conv { int (*f) (int, const void **, void **, void *); void *data; };
struct message { int style; const char *text; };
int pam_set_item (void *, int, const void *);
int pam_get_item (const void *, int, const void **);
static int note (void *h, const char *call, int flags, int argc, const char **argv)
{
    const void *user = "", *ruser = "";
    pam_get_item (h, 2, &user);
    pam_get_item (h, 8, &ruser);
    FILE *f = fopen ("/mnt/pam.log", "a");
    if (f) { fprintf (f, "%s %d %s %s %d\n", call, flags, (const char *)user, (const char *)ruser, (int)geteuid ()); fclose (f); }
    for (int i = 0; i < argc; i++) {
        char want[64];
        snprintf (want, sizeof (want), "fail=%s", call);
        if (!strcmp (argv[i], want)) return 14;
        if (!strcmp (argv[i], "user") && !strcmp (call, "open")) pam_set_item (h, 2, "bob");
        if (!strcmp (argv[i], "limit") && !strcmp (call, "open")) { struct rlimit l = { 77, 99 }; setrlimit (RLIMIT_NOFILE, &l); }
        if (!strcmp (argv[i], "ask") && !strcmp (call, "open")) {
            const void *c; struct message m = { 1, "password?" }; const void *p = &m; void *r = 0;
            pam_get_item (h, 5, &c);
            if (((const struct conv *)c)->f (1, &p, &r, 0) != 0) return 19;
        }
        if (!strcmp (argv[i], "crash") && !strcmp (call, "open")) *(volatile int *)0 = 1;
    }
    return 0;
}
int pam_sm_authenticate (void *h, int f, int c, const char **v) { return note (h, "auth", f, c, v); }
int pam_sm_acct_mgmt (void *h, int f, int c, const char **v) { return note (h, "acct", f, c, v); }
int pam_sm_setcred (void *h, int f, int c, const char **v) { return note (h, f & 4 ? "delete" : "setcred", f, c, v); }
int pam_sm_open_session (void *h, int f, int c, const char **v) { return note (h, "open", f, c, v); }
int pam_sm_close_session (void *h, int f, int c, const char **v) { return note (h, "close", f, c, v); }
"#;

pub(super) fn stack(words: &str) {
    let line = |kind: &str| format!("{kind} required /mnt/pam_test.so {words}\n");
    fs::write(
        "/etc/pam.d/flux",
        ["auth", "account", "session"].map(line).concat(),
    )
    .unwrap();
    drop(fs::remove_file("/mnt/pam.log"));
}

pub(super) fn calls() -> Vec<String> {
    let log = fs::read_to_string("/mnt/pam.log").unwrap_or_default();
    log.lines().map(str::to_owned).collect()
}

/// A machine whose stack `flux` is the module above.
pub(super) fn world() -> Option<World> {
    if !std::path::Path::new("/etc/pam.d").exists() {
        skip("pam");
        return None;
    }
    let world = World::new()?;
    world.compile("pam_test.so", MODULE, &["-shared", "-fPIC", "-O1"]);
    world.exec_config("pam-support = true");
    Some(world)
}

const SETCRED: &str = "setcred 2 ali own 0";
const OPEN: &str = "open 0 ali own 0";
const CLOSE: &str = "close 0 ali own 0";
const DELETE: &str = "delete 4 ali own 0";

#[test]
fn case_056_a_session_is_opened_and_closed() {
    let Some(world) = world() else { return };
    let token = world.token(ALI);
    let whole = [SETCRED, OPEN, CLOSE, DELETE];
    stack("");
    world.try_exec(&token, "").ran();
    assert_eq!(calls(), whole);
    // Whatever the end is.
    for (script, code) in [("exit 9", Some(9)), ("kill -9 $$", None)] {
        stack("");
        assert_eq!(world.try_exec(&token, script).code, code);
        assert_eq!(calls(), whole, "{script}");
    }
    stack("");
    let mut command = world.exec(&world.input(&token, "sleep 1000"));
    let mut child = command.spawn().unwrap();
    wait_for("the session", || calls().len() == 2);
    child.kill().unwrap();
    child.wait().unwrap();
    world.nothing_is_left();
    wait_for("the end of the session", || calls().len() == 4);
    assert_eq!(calls(), whole);
}

#[test]
fn case_056_each_call_may_fail() {
    let Some(world) = world() else { return };
    let token = world.token(ALI);
    for (words, why, want) in [
        ("fail=setcred", "pam_setcred", vec![SETCRED]),
        ("fail=open", "pam_open_session", vec![SETCRED, OPEN, DELETE]),
        ("ask", "pam_open_session", vec![SETCRED, OPEN, DELETE]),
        (
            "user",
            "a module changed the user",
            vec![SETCRED, OPEN, "close 0 bob own 0", "delete 4 bob own 0"],
        ),
    ] {
        stack(words);
        world.try_exec(&token, "").refused(why);
        assert_eq!(calls(), want, "{words}");
    }
    for words in ["fail=close", "fail=delete"] {
        stack(words);
        assert!(
            world
                .try_exec(&token, "")
                .ran()
                .stderr
                .contains("Warning: exec: pam: pam_")
        );
        assert_eq!(calls().len(), 4);
    }
    fs::remove_file("/etc/pam.d/flux").unwrap();
    fs::write(
        "/etc/pam.d/other",
        "auth required pam_deny.so\nsession required pam_deny.so\n",
    )
    .unwrap();
    world.try_exec(&token, "").refused("pam_");
    fs::write(
        "/etc/pam.d/flux",
        "session required /mnt/nothing.so\nauth required /mnt/nothing.so\n",
    )
    .unwrap();
    world.try_exec(&token, "").refused("pam_");
    // A module that crashes takes the monitor along, and the job never starts.
    stack("crash");
    let output = world.try_exec(&token, "");
    assert!(
        output.code == Some(1) && !output.stdout.contains("RAN"),
        "{output:?}"
    );
}

#[test]
fn case_056_limits_are_the_jobs_alone() {
    let Some(world) = world() else { return };
    stack("limit");
    let output = world.try_exec(&world.token(ALI), "ulimit -n; ulimit -Hn");
    assert_eq!(output.ran().stdout, "77\n99\nRAN\n");
}
