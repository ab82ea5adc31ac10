//! Who may log in (feature F105)? pam_flux.so in a PAM stack of its own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]
#![expect(clippy::print_stderr, reason = "skipped cases are said")]
#![expect(unreachable_pub, reason = "several test programs share the world")]

#[expect(dead_code, reason = "the world of all tests; this program uses part of it")]
#[path = "world/mod.rs"]
mod world;

use std::fs;
use std::process::{Command, Stdio};

use world::*;

/// Asks a service's account stack about a user; the exit code is libpam's answer.
const ASK: &str = r#"
struct conv { int (*f) (int, const void **, void **, void *); void *data; };
int pam_start (const char *, const char *, const struct conv *, void **);
int pam_acct_mgmt (void *, int);
static int none (int n, const void **m, void **r, void *d) { (void)n; (void)m; (void)r; (void)d; return 19; }
int main (int argc, char **argv)
{
    void *handle = 0;
    struct conv conv = { none, 0 };
    if (argc != 3 || pam_start (argv[1], argv[2], &conv, &handle) != 0) return 99;
    return pam_acct_mgmt (handle, 0);
}
"#;

fn module() -> std::path::PathBuf {
    // Cargo leaves the module beside this program.
    let directory = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut found: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("libpam_flux") && name.ends_with(".so")
    });
    found.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    found.pop().unwrap_or_else(|| panic!("pam_flux was not built"))
}

#[test]
fn only_users_with_a_job_here_may_log_in() {
    if !std::path::Path::new("/etc/pam.d").exists() {
        return skip("pam");
    }
    // The crate is linked so that its module is built.
    assert_eq!(pam_flux::Answer::Denied.code(), 6);
    let Some(world) = World::new() else { return };
    fs::copy(module(), "/mnt/pam_flux.so").unwrap();
    world.compile("ask", ASK, &["-l:libpam.so.0"]);
    fs::write(
        "/etc/pam.d/login-test",
        format!("account required /mnt/pam_flux.so imp={IMP}\n"),
    )
    .unwrap();
    fs::write(
        "/etc/pam.d/other-imp",
        "account required /mnt/pam_flux.so imp=/mnt/other\n",
    )
    .unwrap();
    let stack = format!("account sufficient /mnt/pam_flux.so imp={IMP}\naccount required pam_deny.so\n");
    fs::write("/etc/pam.d/guide", stack).unwrap();
    let ask =
        |service: &str, user: &str| run_within(Command::new("/mnt/ask").args([service, user]), DEADLINE).code;
    assert_eq!(ask("login-test", "ali"), Some(6));
    assert_eq!(ask("login-test", "nosuchuser"), Some(10));
    // Processes of the user's own, even of flux-imp, are no job.
    let mut own = Command::new("sleep");
    std::os::unix::process::CommandExt::uid(&mut own, ALI);
    let mut own = own.arg("1000").spawn().unwrap();
    assert_eq!(ask("login-test", "ali"), Some(6));
    own.kill().unwrap();
    own.wait().unwrap();
    let input = world.input(&world.token(ALI), "sleep 1000");
    let mut command = world.exec(&input);
    let mut job = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the job", || ask("login-test", "ali") == Some(0));
    assert_eq!(ask("guide", "ali"), Some(0));
    assert_eq!(ask("login-test", "bob"), Some(6));
    assert_ne!(ask("guide", "bob"), Some(0));
    assert_eq!(ask("login-test", "own"), Some(6));
    // Somebody else's program that calls itself so does not count.
    assert_eq!(ask("other-imp", "ali"), Some(6));
    job.kill().unwrap();
    job.wait().unwrap();
    world.nothing_is_left();
    assert_eq!(ask("login-test", "ali"), Some(6));
}
