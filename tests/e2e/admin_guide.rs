//! The examples of the administrator's guide, word for word but for host names, paths, and what the nodes have (needs root and
//! namespaces).

use std::time::Duration;

use flux_tests::{ALICE, BOB, Capability, ROOT, Site, data_file, missing, wait_for};

/// What a site changes in the guide's examples: the first column is the guide's text, the second ours.
const OURS: [(&str, &str); 11] = [
    ("/usr/libexec/flux", "/usr/local/libexec/flux"),
    ("/etc/flux", "/usr/local/etc/flux"),
    ("\"test[1-16]\"", "\"test[0-2]\""),
    ("\"test[1-15]\"", "\"test[0-1]\""),
    ("\"test16\"", "\"test2\""),
    ("\"test[1-4]\"", "\"test[0-1]\""),
    ("\"test[5-16]\"", "\"test2\""),
    ("cores = \"0-7\"", "cores = \"0-1\""),
    ("cores = \"0-63\"", "cores = \"0-1\""),
    ("gpus = \"0\"\n", "gpus = \"\"\n"),
    ("gpus = \"0-1\"\n", "gpus = \"\"\n"),
];

fn example(name: &str) -> String {
    let path = data_file("data/admin-guide").join(name);
    let mut text = std::fs::read_to_string(path).unwrap();
    for (theirs, ours) in OURS {
        text = text.replace(theirs, ours);
    }
    text
}

/// A site of three nodes with the guide's four files.
fn site() -> Site {
    let site = Site::new(3, "", "");
    for space in ["system", "security", "imp"] {
        let file = site
            .sysconfdir()
            .join(format!("flux/{space}/conf.d/{space}.toml"));
        assert!(file.is_file(), "the site has no {}", file.display());
        std::fs::write(file, example(&format!("{space}.toml"))).unwrap();
    }
    let stack = std::fs::read_to_string(data_file("data/admin-guide/pam")).unwrap();
    site.write_pam_stack(&stack);
    site
}

/// The leader alone, then one follower, then all.
fn preflight(site: &mut Site) {
    site.start(0);
    site.wait_online("0");
    site.flux(ALICE, &["uptime"])
        .ok()
        .says("size 3")
        .says("2 offline");
    site.start(1);
    site.wait_online("0-1");
    site.flux(ALICE, &["overlay", "status"])
        .ok()
        .says("0 test0: partial")
        .says("1 test1: full")
        .says("2 test2: offline");
    let status = site.flux(
        ALICE,
        &["resource", "status", "-no", "{state} {up} {nnodes} {nodelist}"],
    );
    assert_eq!(status.ok().lines(), ["avail ✔ 2 test[0-1]", "avail* ✗ 1 test2"]);
    site.start(2);
    site.wait_online("0-2");
    site.flux(ALICE, &["overlay", "status"])
        .ok()
        .says("0 test0: full");
    let parse = "flux R parse-config /usr/local/etc/flux/system/conf.d | flux R decode";
    let decode = |how: &str| {
        site.run(0, ALICE, &["sh", "-c", &format!("{parse} {how}")])
            .ok()
            .line()
            .to_owned()
    };
    assert_eq!(decode("--short"), "rank[0-2]/core[0-1]");
    assert_eq!(decode("--nodelist"), "test[0-2]");
    site.flux(ALICE, &["resource", "list", "-no", "{properties}", "-s", "free"])
        .ok()
        .says("fatnode");
}

/// Jobs as the tables of the example want them.
fn policy(site: &Site) {
    let id = site.run(0, ALICE, &["id"]).ok().line().to_owned();
    assert!(id.starts_with("uid=64101(alice)"), "{id}");
    assert_eq!(
        site.flux(ALICE, &["run", "-N3", "id"]).ok().lines(),
        [id.as_str(); 3]
    );
    // [policy.jobspec.defaults.system], [policy.limits], [ingest.validator]
    let job = site.flux(ALICE, &["submit", "true"]).ok().line().to_owned();
    let jobspec = site.flux(ALICE, &["job", "info", &job, "jobspec"]).ok().json();
    assert_eq!(jobspec["attributes"]["system"]["duration"], 60.0);
    site.flux(ALICE, &["submit", "-t", "3h", "true"])
        .fails()
        .complains("duration");
    site.flux(ALICE, &["submit", "-N9", "true"]).fails();
    site.flux(ALICE, &["submit", "-N4", "true"])
        .fails()
        .complains("unsatisfiable");
    // [sched-fluxion-resource]: whole nodes, the first ones first
    site.flux(ALICE, &["job", "wait-event", &job, "clean"]).ok();
    let r = site.flux(ALICE, &["job", "info", &job, "R"]).ok().json();
    assert_eq!(r["execution"]["R_lite"][0]["rank"], "0");
    assert_eq!(r["execution"]["R_lite"][0]["children"]["core"], "0-1");
}

#[test]
fn the_examples_boot_an_instance_that_works_as_the_guide_shows() {
    if missing(Capability::Site) {
        return;
    }
    let mut site = site();
    preflight(&mut site);
    policy(&site);
    site.flux(ROOT, &["resource", "drain", "test2", "node", "is", "fubar"])
        .ok();
    site.flux(ROOT, &["resource", "drain"])
        .ok()
        .says("drained")
        .says("node is fubar")
        .says("test2");
    site.flux(ROOT, &["queue", "stop"]).ok();
    let status = site.flux(ROOT, &["queue", "status", "-v"]);
    status
        .ok()
        .says("Job submission is enabled")
        .says("Scheduling is stopped")
        .says("0 running jobs");
    let waits = site.flux(ALICE, &["submit", "id", "-un"]).ok().line().to_owned();
    let other = site
        .flux(BOB, &["submit", "--urgency=hold", "sleep", "100"])
        .ok()
        .line()
        .to_owned();
    site.flux(ROOT, &["job", "urgency", &waits, "EXPEDITE"]).ok();
    site.flux(ROOT, &["jobs", "-a", "-A"])
        .ok()
        .says("alice")
        .says("bob");
    site.flux(ALICE, &["jobs", "-a", "-no", "{id.f58} {state}"])
        .ok()
        .says(&format!("{waits} SCHED"));
    site.flux(ROOT, &["cancel", "--user=all", "--dry-run"])
        .ok()
        .complains("flux-cancel: Would cancel 2 jobs");
    site.flux(ROOT, &["shutdown"]).ok();
    let ended: Vec<_> = (0..3)
        .map(|rank| site.wait_end(rank, Duration::from_secs(60)))
        .collect();
    assert_eq!(
        ended,
        [Some(42), Some(0), Some(0)],
        "systemd starts the followers again"
    );
    site.start_all();
    // what was there is there
    site.flux(ROOT, &["resource", "drain"])
        .ok()
        .says("node is fubar")
        .says("test2");
    site.flux(ROOT, &["queue", "status"])
        .ok()
        .says("Scheduling is stopped");
    let jobs = site.flux(
        ROOT,
        &["jobs", "-A", "-no", "{id.f58} {username} {state} {urgency}"],
    );
    jobs.ok()
        .says(&format!("{waits} alice SCHED 31"))
        .says(&format!("{other} bob SCHED 0"));
    site.flux(ROOT, &["resource", "undrain", "test2"]).ok();
    site.flux(ROOT, &["queue", "start"]).ok();
    assert_eq!(site.flux(ALICE, &["job", "attach", &waits]).ok().line(), "alice");
    site.flux(ROOT, &["cancel", "--user=all"])
        .ok()
        .complains("flux-cancel: Canceled 1 job");
    wait_for("nothing is left of the queue", Duration::from_secs(20), || {
        site.flux(ROOT, &["jobs", "-A", "-no", "{id}"])
            .ok()
            .stdout
            .trim()
            .is_empty()
            .then_some(())
    });
    site.flux(ALICE, &["jobs", "-a", "-no", "{id.f58} {status}"])
        .ok()
        .says(&format!("{waits} COMPLETED"));
}

#[test]
fn the_example_with_queues() {
    if missing(Capability::Site) {
        return;
    }
    let mut site = Site::new(3, &example("queues.toml"), "");
    site.start_all();
    site.flux(ROOT, &["queue", "status"])
        .ok()
        .says("batch: Job submission is enabled")
        .says("debug: Job submission is enabled");
    // named queues are stopped at first
    let id = site
        .flux(ALICE, &["submit", "-q", "batch", "hostname"])
        .ok()
        .line()
        .to_owned();
    site.flux(ALICE, &["jobs", "-no", "{id.f58} {state}"])
        .ok()
        .says(&format!("{id} SCHED"));
    site.flux(ROOT, &["queue", "start", "--all"])
        .ok()
        .says("debug: Scheduling is started")
        .says("batch: Scheduling is started");
    assert_eq!(site.flux(ALICE, &["job", "attach", &id]).ok().line(), "test2");
    assert!(["test0", "test1"].contains(&site.flux(ALICE, &["run", "hostname"]).ok().line()));
    site.flux(ALICE, &["submit", "-t", "1h", "true"])
        .fails()
        .complains("duration");
    site.flux(ALICE, &["submit", "-q", "batch", "-t", "1h", "true"])
        .ok();
}

#[test]
fn the_example_with_prolog_and_epilog() {
    if missing(Capability::Site) {
        return;
    }
    // the table of the job archive is the 2023 guide's; there is no such module any more
    let toml = format!("{}\n[archive]\nperiod = \"1m\"\n", example("perilog.toml"));
    let mut site = Site::new(2, &toml, &example("run.toml"));
    for name in ["prolog", "epilog"] {
        let path = site.sysconfdir().join("flux/system").join(name);
        let script = format!(
            "#!/bin/sh\necho {name} $(id -u) $FLUX_JOB_USERID $FLUX_OWNER_USERID $HOME $PATH >>/usr/local/site/$(hostname)\n\
             echo an Xauth line of no interest\n"
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    site.start_all();
    let id = site
        .flux(ALICE, &["submit", "-N2", "true"])
        .ok()
        .line()
        .to_owned();
    site.flux(ALICE, &["job", "wait-event", "-t", "60", &id, "clean"])
        .ok();
    site.flux(ALICE, &["job", "status", &id]).ok();
    for node in ["test0", "test1"] {
        let text = std::fs::read_to_string(site.shared().join(node)).unwrap_or_default();
        let line = |name: &str| format!("{name} 0 64101 64100 /root /usr/sbin:/usr/bin:/sbin:/bin");
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [line("prolog"), line("epilog")],
            "{node}"
        );
    }
    let log = site.flux(ROOT, &["dmesg"]);
    assert!(!log.ok().stdout.contains("Xauth"), "{log}");
}
