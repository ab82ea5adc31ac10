//! A multi-user system instance: three nodes, MUNGE, the setuid IMP, two guests (needs root and namespaces).
//!
//! One instance for many cases: what is expensive is the site, not the case.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use flux_tests::{ALICE, BOB, Capability, FLUX, Output, PROJECT, ROOT, Site, User, missing, wait_for};

/// Starts a job of `user` and waits until its tasks run.
fn running(site: &Site, user: User, args: &[&str]) -> String {
    let words: Vec<&str> = std::iter::once("submit").chain(args.iter().copied()).collect();
    let id = site.flux(user, &words).ok().line().to_owned();
    site.flux(user, &["job", "wait-event", "-p", "exec", &id, "shell.start"])
        .ok();
    id
}

fn refused(output: &Output) {
    output.fails();
    let text = &output.stderr;
    let why = [
        "own jobs",
        "not your job",
        "restricted",
        "Operation not permitted",
        "not permitted",
    ];
    assert!(why.iter().any(|why| text.contains(why)), "{output}");
}

/// Waits until systemd has heard something of a broker.
fn heard(socket: &UnixDatagram, wanted: &str) {
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut buffer = [0; 512];
    loop {
        let size = socket
            .recv(&mut buffer)
            .unwrap_or_else(|err| panic!("{wanted}: {err}"));
        if &buffer[..size] == wanted.as_bytes() {
            return;
        }
    }
}

fn listen(site: &Site, rank: u32) -> UnixDatagram {
    use std::os::unix::fs::PermissionsExt;
    let path = site.shared().join(format!("notify{rank}"));
    let socket = UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    socket
}

/// A guest's job runs as the guest, everywhere.
fn identity(site: &Site) {
    let here = site.run(0, ALICE, &["id"]).ok().line().to_owned();
    assert!(here.contains(&format!("{PROJECT}(project)")), "{here}");
    let output = site.flux(ALICE, &["run", "-N3", "id"]);
    assert_eq!(output.ok().lines(), [here.as_str(); 3]);
    // environment and directory are what she signed
    let script = "echo $PWD $GREETING $(hostname)";
    let output = site.flux(ALICE, &["run", "-N3", "--env=GREETING=hello", "sh", "-c", script]);
    let lines: Vec<String> = (0..3)
        .map(|rank| format!("/home/alice hello test{rank}"))
        .collect();
    assert_eq!(output.ok().sorted(), lines);
    let output = site.flux(ALICE, &["run", "sh", "-c", "exit 7"]);
    output.code(7);
    // no capability, and no way back
    let output = site.flux(ALICE, &["run", "grep", "CapEff", "/proc/self/status"]);
    output.ok().says("0000000000000000");
}

/// A guest's own instance, in a job of hers: she owns it, and nobody else gets in.
fn own_instance(site: &Site) {
    let script =
        "flux getattr size; flux getattr security.owner; flux getattr instance-level; flux run id -un";
    let output = site.flux(ALICE, &["run", "-N2", "flux", "start", script]);
    let owner = ALICE.id.to_string();
    assert_eq!(output.ok().lines(), ["2", &owner, "1", "alice"]);
    let id = site.flux(ALICE, &["alloc", "--bg", "-N1"]).ok().line().to_owned();
    let uri = site.flux(ALICE, &["uri", "--local", &id]).ok().line().to_owned();
    site.run(
        0,
        ALICE,
        &["env", &format!("FLUX_URI={uri}"), "flux", "getattr", "size"],
    )
    .ok();
    let output = site.run(
        0,
        BOB,
        &["env", &format!("FLUX_URI={uri}"), "flux", "getattr", "size"],
    );
    output.fails();
    site.flux(ALICE, &["cancel", &id]).ok();
}

/// What a guest may not do to another guest's job, or to the instance.
fn separation(site: &Site) {
    let of_bob = running(site, BOB, &["--env=SECRET=for-bob", "-N3", "sleep", "1000"]);
    let dec = site
        .flux(BOB, &["job", "id", "--to=dec", &of_bob])
        .ok()
        .line()
        .to_owned();
    for args in [
        &["cancel", &of_bob][..],
        &["job", "kill", "-s", "TERM", &of_bob],
        &["job", "raise", &of_bob],
        &["job", "attach", &of_bob],
        &["job", "eventlog", &of_bob],
        &["job", "eventlog", "-p", "output", &of_bob],
        &["job", "info", &of_bob, "J"],
        &["job", "info", &of_bob, "jobspec"],
        &["job", "info", &of_bob, "R"],
        &["job", "urgency", &of_bob, "0"],
        &["job", "memo", &of_bob, "a=1"],
        &["update", &of_bob, "duration=1h"],
        &["kvs", "--namespace", &format!("job-{dec}"), "dir"],
        &[
            "kvs",
            "--namespace",
            &format!("job-{dec}"),
            "get",
            "exec.eventlog",
        ],
        &["kvs", "--namespace", &format!("job-{dec}"), "put", "a=1"],
        &["kvs", "get", "resource.R"],
        &["kvs", "namespace", "list"],
        &["exec", "-r", "0", "true"],
        &["resource", "drain", "test1", "mine"],
        &["queue", "stop"],
        &["module", "remove", "heartbeat"],
        &["config", "reload"],
        &["shutdown"],
        &["dmesg"],
        &["content", "flush"],
    ] {
        let output = site.flux(ALICE, args);
        assert_ne!(output.code, 0, "{output}");
        assert!(
            !output.stdout.contains("for-bob") && !output.stderr.contains("for-bob"),
            "{output}"
        );
    }
    refused(&site.flux(ALICE, &["cancel", &of_bob]));
    refused(&site.flux(ALICE, &["job", "kill", &of_bob]));
    // nor on the node itself
    let of_his: Vec<u32> = site.processes(BOB).iter().map(|(pid, _)| *pid).collect();
    assert!(
        of_his.len() >= 6,
        "three shells and three tasks: {:?}",
        site.processes(BOB)
    );
    for pid in &of_his {
        let pid = pid.to_string();
        site.run(0, ALICE, &["cat", &format!("/proc/{pid}/environ")])
            .fails();
        site.run(0, ALICE, &["kill", "-9", &pid]).fails();
    }
    // `flux cancel --user=all` of a guest is about her own jobs, of which she has none
    assert_eq!(site.flux(ALICE, &["cancel", "--user=bob"]).code, 1);
    // everybody may look at the queue, and the jobs' owners act on them
    site.flux(ALICE, &["jobs", "-A", "-no", "{username} {name} {state}"])
        .ok()
        .says("bob sleep RUN");
    assert_eq!(
        site.processes(BOB).len(),
        of_his.len(),
        "nothing has happened to his job"
    );
    site.flux(BOB, &["job", "kill", "-s", "USR2", &of_bob]).ok();
    site.flux(BOB, &["job", "status", &of_bob]).code(128 + 12);
    let again = running(site, BOB, &["-N3", "sleep", "1000"]);
    site.flux(FLUX, &["cancel", &again]).ok();
    site.flux(BOB, &["job", "wait-event", &again, "clean"]).ok();
    wait_for("nothing of his is left", Duration::from_secs(20), || {
        site.processes(BOB).is_empty().then_some(())
    });
}

/// Requests that somebody else signed, or nobody.
fn signatures(site: &Site) {
    let jobspec = site.flux(ALICE, &["run", "--dry-run", "id"]).ok().stdout.clone();
    let submit = |user: User, args: &str| {
        let script = format!("printf %s '{}' | flux job submit {args}", jobspec.trim());
        site.run(0, user, &["sh", "-c", &script])
    };
    submit(ALICE, "").ok();
    submit(ALICE, "--sign-type=none")
        .fails()
        .complains("only instance owner can use sign-type=none");
    submit(ALICE, "--sign-type=nonsense")
        .fails()
        .complains("sign-wrap: unknown mechanism: nonsense");
    submit(ALICE, "--urgency=20").fails().complains("urgency >16");
    submit(ALICE, "--flags=waitable").fails();
    submit(ALICE, "--flags=novalidate").fails();
    // the owner needs no signature, and may use one
    submit(FLUX, "--sign-type=munge").ok();
    assert_eq!(site.flux(FLUX, &["run", "id", "-un"]).ok().line(), "flux");
}

/// Root is a guest with this configuration, and no job runs as root.
fn root_is_a_guest(site: &Site) {
    site.flux(ROOT, &["getattr", "size"]).ok();
    site.flux(ROOT, &["queue", "stop"]).fails().complains("owner");
    site.flux(ROOT, &["run", "id"])
        .fails()
        .complains("submission of jobs as user root not supported");
}

#[test]
fn guests_run_jobs_as_themselves_and_nothing_else() {
    if missing(Capability::Site) {
        return;
    }
    let mut site = Site::new(3, "[access]\nallow-root-owner = false\n", "");
    let systemd = [listen(&site, 0), listen(&site, 1)];
    site.start_all();
    heard(&systemd[0], "READY=1");
    heard(&systemd[0], "STATUS=Running as leader of 3 node Flux instance");
    heard(&systemd[1], "STATUS=Running as member of 3 node Flux instance");
    identity(&site);
    own_instance(&site);
    separation(&site);
    signatures(&site);
    root_is_a_guest(&site);
}

/// What `flux.service` sets is in force.
fn attributes_of_the_unit(site: &Site) {
    let text = include_str!("../../etc/systemd/flux.service");
    let mut seen = 0;
    for word in text.split_whitespace().filter_map(|word| word.strip_prefix("-S")) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let value = value.replace("@SYSCONFDIR@", "/usr/local/etc");
        let found = site.flux(FLUX, &["getattr", name]);
        assert_eq!(found.ok().line(), value, "{name}");
        seen += 1;
    }
    assert!(seen >= 16, "{seen}");
}

#[test]
fn an_administrator_works_as_the_guide_says() {
    if missing(Capability::Site) {
        return;
    }
    let mut site = Site::new(3, "", "");
    site.start_all();
    attributes_of_the_unit(&site);
    // root has the owner's role here
    site.flux(ROOT, &["resource", "drain", "test1", "node", "is", "fubar"])
        .ok();
    site.flux(ROOT, &["resource", "drain"])
        .ok()
        .says("node is fubar")
        .says("test1");
    site.flux(ROOT, &["queue", "stop"]).ok();
    let waits = site
        .flux(ALICE, &["submit", "--urgency=hold", "-N1", "id", "-un"])
        .ok()
        .line()
        .to_owned();
    site.flux(BOB, &["submit", "--cc=1-2", "sleep", "1000"]).ok();
    site.flux(ROOT, &["cancel", "--user=all", "--dry-run"])
        .ok()
        .complains("Would cancel 3 jobs");
    site.flux(ROOT, &["cancel", "--user=bob"])
        .ok()
        .complains("Canceled 2 jobs (0 errors)");
    site.flux(ROOT, &["jobs", "-a", "-A"]).ok().says("alice");
    // what an administrator compares between nodes
    for space in ["system", "security", "imp"] {
        let get = ["flux", "config", "get", &format!("--config-path={space}")];
        let of = |rank| site.run(rank, ALICE, &get).ok().stdout.clone();
        assert!(of(0).len() > 20 && of(0) == of(2), "{space}: {}", of(0));
    }
    site.flux(ROOT, &["config", "reload"]).ok();
    // the IMP reads its configuration for each job
    let file = site.sysconfdir().join("flux/imp/conf.d/imp.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("flux-shell", "flux-shell-of-old")).unwrap();
    site.flux(ROOT, &["queue", "start"]).ok();
    site.flux(BOB, &["run", "true"])
        .fails()
        .complains("not in allowed-shells list");
    std::fs::write(&file, text).unwrap();
    site.flux(BOB, &["run", "true"]).ok();
    site.flux(ROOT, &["queue", "stop"]).ok();
    // `systemctl stop flux` on one node
    site.signal(2, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(site.wait_end(2, Duration::from_secs(60)), Some(0));
    site.wait_online("0-1");
    site.start(2);
    site.wait_online("0-2");
    site.flux(ROOT, &["shutdown"]).ok();
    assert_eq!(
        site.wait_end(0, Duration::from_secs(60)),
        Some(42),
        "systemd is not to start it again"
    );
    for rank in 1..3 {
        assert_eq!(
            site.wait_end(rank, Duration::from_secs(60)),
            Some(0),
            "systemd starts it again"
        );
    }
    site.start_all();
    site.flux(ROOT, &["resource", "drain"]).ok().says("node is fubar");
    site.flux(ALICE, &["jobs", "-no", "{id.f58} {state}"])
        .ok()
        .says(&format!("{waits} SCHED"));
    site.flux(ROOT, &["queue", "start"]).ok();
    site.flux(ALICE, &["job", "urgency", &waits, "default"]).ok();
    let output = site.flux(ALICE, &["job", "attach", &waits]);
    assert_eq!(output.ok().line(), "alice");
}

#[test]
fn jobs_of_guests_end_with_their_broker_and_say_so() {
    if missing(Capability::Site) {
        return;
    }
    let mut site = Site::new(2, "", "");
    site.start_all();
    let id = running(&site, ALICE, &["-N2", "sh", "-c", "sleep 1001 & sleep 1000"]);
    site.signal(1, nix::sys::signal::Signal::SIGKILL);
    site.wait_end(1, Duration::from_secs(10));
    let on_node = |site: &Site| site.processes(ALICE).len();
    let killed_at = Instant::now();
    site.start(1);
    site.flux(ALICE, &["job", "wait-event", "-t", "60", &id, "clean"])
        .ok();
    wait_for("nothing of her job is left", Duration::from_secs(20), || {
        (on_node(&site) == 0).then_some(())
    });
    println!("gone {:?} after the broker", killed_at.elapsed());
    // the leader, and with it all
    site.wait_online("0-1");
    let id = running(&site, ALICE, &["-N2", "sleep", "1000"]);
    for rank in [0, 1] {
        site.signal(rank, nix::sys::signal::Signal::SIGKILL);
        site.wait_end(rank, Duration::from_secs(10));
    }
    wait_for("nothing of her job is left", Duration::from_secs(20), || {
        (on_node(&site) == 0).then_some(())
    });
    site.start_all();
    site.flux(ALICE, &["job", "wait-event", "-t", "60", &id, "clean"])
        .ok();
    site.flux(ALICE, &["job", "eventlog", &id])
        .ok()
        .says("not followed");
}

#[test]
fn without_a_state_directory_jobs_of_guests_end_with_their_broker() {
    if missing(Capability::Site) {
        return;
    }
    let imp =
        "[exec]\nallowed-users = [ \"flux\" ]\nallowed-shells = [ \"/usr/local/libexec/flux/flux-shell\" ]\n";
    let mut site = Site::new(1, "", imp);
    let no_state = |word: &String| !word.starts_with("-Sstatedir") && !word.starts_with("-Scontent.");
    let limited = || ["prlimit", "--nofile=700:700"].map(str::to_owned).into_iter();
    site.start_as(0, |words| {
        limited().chain(words.into_iter().filter(no_state)).collect()
    });
    site.wait_online("0");
    // without PAM the broker's limits are the job's
    assert_eq!(
        site.flux(ALICE, &["run", "sh", "-c", "ulimit -Hn"]).ok().line(),
        "700"
    );
    assert_eq!(site.flux(FLUX, &["getattr", "statedir"]).code, 1);
    running(
        &site,
        ALICE,
        &["sh", "-c", "setsid sleep 1001 & trap '' TERM HUP; sleep 1000"],
    );
    site.signal(0, nix::sys::signal::Signal::SIGKILL);
    site.wait_end(0, Duration::from_secs(10));
    let killed_at = Instant::now();
    wait_for("nothing of her job is left", Duration::from_secs(20), || {
        site.processes(ALICE).is_empty().then_some(())
    });
    println!("gone {:?} after the broker", killed_at.elapsed());
}

#[test]
fn the_unit_is_that_of_the_guide() {
    let unit = include_str!("../../etc/systemd/flux.service");
    let has = |line: &str| assert!(unit.lines().any(|found| found.trim() == line), "{line}");
    // what the guide shows and the site's tests start with
    for line in [
        "Type=notify",
        "KillMode=process",
        "Restart=always",
        "RestartPreventExitStatus=42",
        "Delegate=yes",
        "User=flux",
        "StateDirectory=flux",
        "-Slog-stderr-level=6 \\",
        "-Slog-stderr-mode=local \\",
        "SyslogIdentifier=flux",
    ] {
        has(line);
    }
    // standard error goes to the journal unless somebody says otherwise
    assert!(!unit.contains("StandardError") && !unit.contains("StandardOutput"));
}

#[test]
fn a_thousand_signed_jobs() {
    if missing(Capability::Site) {
        return;
    }
    let count = flux_tests::scaled(1000, 100);
    let mut site = Site::new(1, "", "");
    site.start_all();
    let cc = format!("--cc=1-{count}");
    let began = Instant::now();
    let output = site.flux(ALICE, &["submit", "--quiet", &cc, "--wait", "true"]);
    output.ok();
    let spent = began.elapsed();
    let cpu = |who: &str| {
        let stats = site
            .flux(FLUX, &["module", "stats", &format!("--rusage={who}"), "kvs"])
            .ok()
            .json();
        ["utime", "stime"]
            .iter()
            .map(|key| stats[*key].as_f64().unwrap())
            .sum::<f64>()
    };
    let per_job = |secs: f64| 1000.0 * secs / count as f64;
    let (own, started) = (per_job(cpu("self")), per_job(cpu("children")));
    println!(
        "{count} signed jobs in {spent:?}: {:.0} job/s; a job takes {own:.2} ms of the broker and {started:.2} ms of IMP, \
         shell and task",
        count as f64 / spent.as_secs_f64()
    );
}
