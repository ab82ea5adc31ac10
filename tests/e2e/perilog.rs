//! Prolog and epilog of the instance.

use std::time::Duration;

use flux_tests::{ALICE, BOB, Capability, FLUX, Instance, Site, bindir, missing, wait_for};

const DEADLINE: Duration = Duration::from_secs(60);

fn events(flux: &Instance, id: &str) -> Vec<String> {
    let output = flux.run(&["job", "eventlog", "--format=json", id]);
    let event = |line: &&str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let name = |event: serde_json::Value| event["name"].as_str().unwrap_or_default().to_owned();
    output.ok().lines().iter().map(event).map(name).collect()
}

#[test]
fn before_and_after_each_job() {
    let config = "[[job-manager.plugins]]\nload = \"perilog.so\"\n\
                  [job-manager.prolog]\nper-rank = true\n\
                  command = [\"sh\", \"-c\", \"echo noise; echo prolog of $FLUX_JOB_ID for $FLUX_JOB_USERID\"]\n\
                  [job-manager.epilog]\ncommand = [\"sh\", \"-c\", \"echo epilog >&2; exit 3\"]\n\
                  [job-manager.perilog]\nlog-ignore = [\"^noise\"]\n";
    let flux = Instance::builder(2).config(config).boot();
    flux.run(&["run", "-N2", "true"]).ok();
    let id = flux.run(&["job", "last"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    let names = events(&flux, &id);
    let at = |name: &str| {
        names
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| panic!("{name}: {names:?}"))
    };
    assert!(
        at("alloc") < at("prolog-start") && at("prolog-finish") < at("start"),
        "{names:?}"
    );
    assert!(
        at("finish") < at("epilog-start") && at("epilog-finish") < at("free"),
        "{names:?}"
    );
    flux.run(&["job", "eventlog", &id])
        .ok()
        .says("prolog-start description=\"job-manager.prolog\"")
        .says("prolog-finish description=\"job-manager.prolog\" status=0")
        .says("epilog exited with code=3")
        .says("epilog-finish description=\"job-manager.epilog\" status=768");
    // an epilog that fails does not make the job fail
    flux.run(&["job", "status", &id]).ok();
    let log = flux.run(&["dmesg"]);
    log.ok()
        .says("(rank 0): stdout: prolog of")
        .says("(rank 1): stdout: prolog of")
        .says("stderr: epilog");
    assert!(
        !log.ok().lines().iter().any(|line| line.contains("noise")),
        "{log}"
    );
    flux.run(&["jobtap", "query", "perilog.so"])
        .ok()
        .says("\"per-rank\":true");
    flux.stop();
}

#[test]
fn a_prolog_that_fails_or_hangs() {
    let config = "[[job-manager.plugins]]\nload = \"perilog.so\"\n\
                  [job-manager.prolog]\ncommand = [\"sh\", \"-c\", \"exec sleep 1000\"]\n";
    let flux = Instance::builder(1).config(config).boot();
    let id = flux.run(&["submit", "true"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "prolog-start"])
        .ok();
    flux.run(&["why", &id]).ok().says("prologs or epilogs run");
    flux.run(&["cancel", &id]).ok();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    let names = events(&flux, &id);
    assert!(
        names.contains(&"prolog-finish".to_owned()) && !names.contains(&"start".to_owned()),
        "{names:?}"
    );
    let bad = "{\"job-manager\":{\"prolog\":{\"command\":[\"sh\",\"-c\",\"exit 7\"]}}}";
    flux.run_input(&["config", "load"], bad.as_bytes()).ok();
    flux.run(&["run", "true"])
        .fails()
        .complains("prolog exited with code=7 on");
    flux.stop();
}

#[test]
fn nodes_on_which_it_fails_are_drained() {
    // it fails on the second broker only; the epilog runs all the same
    let config = "[[job-manager.plugins]]\nload = \"perilog.so\"\n\
                  [job-manager.prolog]\nper-rank = true\n\
                  command = [\"sh\", \"-c\", \"echo ranks $FLUX_JOB_RANKS; test ${FLUX_URI##*-} != 1\"]\n\
                  [job-manager.epilog]\ncommand = [\"sh\", \"-c\", \"echo cleaned\"]\n";
    let flux = Instance::builder(3).config(config).boot();
    flux.run(&["run", "-N3", "true"])
        .fails()
        .complains("prolog exited with code=1 on");
    let id = flux.run(&["job", "last"]).ok().line().to_owned();
    let reason = format!("prolog failed for job {id}");
    flux.run(&["resource", "drain", "-no", "{ranks} {reason}"])
        .ok()
        .says(&format!("1 {reason}"));
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    let names = events(&flux, &id);
    let at = |name: &str| names.iter().position(|known| known == name);
    assert!(
        at("epilog-start") < at("prolog-finish") && at("prolog-finish") < at("epilog-finish"),
        "{names:?}"
    );
    assert_eq!(at("start"), None);
    flux.run(&["dmesg"]).ok().says("ranks 0-2").says("cleaned");
    // what was cancelled and does not end is drained, and does not hold up the job
    let deaf = "{\"job-manager\":{\"prolog\":{\"per-rank\":true,\"kill-timeout\":0.2,\
                \"command\":[\"sh\",\"-c\",\"trap '' TERM; while :; do read x < /dev/zero; done\"]}}}";
    flux.run_input(&["config", "load"], deaf.as_bytes()).ok();
    flux.run(&["resource", "undrain", "1"]).ok();
    let id = flux.run(&["submit", "-N2", "true"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "prolog-start"])
        .ok();
    flux.run(&["cancel", &id]).ok();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    flux.run(&["resource", "drain", "-no", "{ranks} {reason}"])
        .ok()
        .says(&format!("prolog canceled then timed out for job {id}"));
    flux.stop();
}

/// The command that configurations of before `per-rank` have.
#[test]
fn the_command_for_all_ranks() {
    let builder = Instance::builder(3);
    let dir = builder.sandbox().workdir();
    let flux = bindir().join("flux");
    builder.sandbox().write(
        "scripts/20-second",
        "#!/bin/sh\necho second here ${FLUX_URI##*-}\n",
    );
    builder
        .sandbox()
        .write("scripts/10-first", "#!/bin/sh\necho first\n");
    builder.sandbox().write("scripts/README", "echo not run\n");
    for name in ["10-first", "20-second"] {
        let path = dir.join("scripts").join(name);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let (flux, dir) = (flux.display(), dir.display());
    let config = format!(
        "[[job-manager.plugins]]\nload = \"perilog.so\"\n[job-manager.prolog]\n\
         command = [\"{flux}\", \"perilog-run\", \"prolog\", \"-d\", \"{dir}/scripts\", \"-e\", \
         \"sh,-c,echo at ${{FLUX_URI##*-}} && test ! -e {dir}/bad.${{FLUX_URI##*-}}\"]\n"
    );
    let dir = builder.sandbox().workdir();
    let flux = builder.config(&config).boot();
    flux.run(&["run", "-N2", "--requires=rank:1-2", "true"]).ok();
    let log = flux.run(&["dmesg"]);
    log.ok().says("stdout: at 1").says("stdout: at 2");
    let text = &log.stdout;
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {log}"));
    assert!(at("stdout: at 1") < at("stdout: first") && at("stdout: first") < at("stdout: second here 0"));
    assert!(
        !text.contains("stdout: at 0") && !text.contains("not run"),
        "{log}"
    );
    std::fs::write(dir.join("bad.2"), "").unwrap();
    flux.run(&["run", "-N2", "--requires=rank:1-2", "true"])
        .fails()
        .complains("prolog exited with code=1 on");
    let id = flux.run(&["job", "last"]).ok().line().to_owned();
    flux.run(&["resource", "drain", "-no", "{ranks} {reason}"])
        .ok()
        .says(&format!("2 prolog failed for job {id}"));
    flux.run(&["perilog-run", "epilog"])
        .fails()
        .complains("FLUX_JOB_ID is not set");
    flux.stop();
}

/// A node of a site may run jobs as root before and after a guest's: through `flux-imp run`, on all nodes of the job.
#[test]
fn as_root_on_each_node() {
    if missing(Capability::Site) {
        return;
    }
    let config = "[[job-manager.plugins]]\nload = \"perilog.so\"\n\
                  [job-manager.prolog]\nper-rank = true\n\
                  [job-manager.epilog]\nper-rank = true\n\
                  [job-manager.housekeeping]\nrelease-after = \"0\"\n";
    let mut site = Site::new(3, config, "");
    let note = |name: &str| {
        format!(
            "#!/bin/sh\necho \"{name} $(id -u) $FLUX_JOB_USERID $(hostname)\" >> /usr/local/site/notes.$(hostname)\n\
             test ! -e /usr/local/site/fail-{name}.$(hostname)\n"
        )
    };
    for name in ["prolog", "epilog", "housekeeping"] {
        site.write_script(&format!("{name}.d/note"), &note(name));
    }
    site.start_all();
    let id = site
        .flux(ALICE, &["submit", "-N3", "true"])
        .ok()
        .line()
        .to_owned();
    site.flux(ALICE, &["job", "status", &id]).ok();
    site.flux(ALICE, &["job", "wait-event", "--timeout=60", &id, "clean"])
        .ok();
    let housekeeping = || site.flux(FLUX, &["housekeeping", "list", "-n"]);
    let housekeeping_ended = || {
        wait_for("housekeeping has ended", DEADLINE, || {
            housekeeping().ok().stdout.is_empty().then_some(())
        });
    };
    housekeeping_ended();
    for rank in 0..3 {
        let notes = std::fs::read_to_string(site.shared().join(format!("notes.test{rank}"))).unwrap();
        let wanted =
            ["prolog", "epilog", "housekeeping"].map(|name| format!("{name} 0 {} test{rank}\n", ALICE.id));
        assert_eq!(notes, wanted.concat());
    }
    // one node is not fit for jobs
    std::fs::write(site.shared().join("fail-prolog.test1"), "").unwrap();
    site.flux(BOB, &["run", "-N3", "true"])
        .fails()
        .complains("prolog exited with code=1 on test1 (rank 1)");
    site.flux(FLUX, &["resource", "drain", "-no", "{nodelist} {reason}"])
        .ok()
        .says("test1 prolog failed for job");
    site.flux(ALICE, &["run", "-N2", "id", "-un"]).ok();
    // the owner may run them, too (with nothing of that job behind it)
    let last = site.flux(ALICE, &["job", "last"]).ok().line().to_owned();
    site.flux(ALICE, &["job", "wait-event", "--timeout=60", &last, "clean"])
        .ok();
    housekeeping_ended();
    let script = format!("FLUX_JOB_ID={id} flux exec --with-imp -r 2 epilog");
    site.run(0, FLUX, &["sh", "-c", &script]).ok();
    let notes = std::fs::read_to_string(site.shared().join("notes.test2")).unwrap();
    assert!(notes.contains("epilog 0 "), "{notes}");
    let last = notes.lines().next_back().unwrap();
    assert!(last.starts_with("epilog 0 "), "{last}");
}
