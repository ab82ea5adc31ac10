//! Tools that need no jobs: `flux R`, `hostlist`, `keygen`, `pmi`, `env`, `uptime`, `startlog`.

use flux_tests::{Capability, Instance, Sandbox, missing};

#[test]
fn resource_sets() {
    let sandbox = Sandbox::new();
    let encoded = sandbox.run(
        "flux",
        &[
            "R",
            "encode",
            "--hosts=test[0-7]",
            "--cores=0-3",
            "--property=big:6-7",
        ],
    );
    let r = encoded.ok().json();
    assert_eq!(r["execution"]["nodelist"][0], "test[0-7]");
    let decode = |options: &[&str]| {
        let mut words = vec!["R", "decode"];
        words.extend(options);
        sandbox
            .run_input("flux", &words, encoded.stdout.as_bytes())
            .ok()
            .line()
            .to_owned()
    };
    assert_eq!(decode(&["--short"]), "rank[0-7]/core[0-3]");
    assert_eq!(decode(&["--nodelist"]), "test[0-7]");
    assert_eq!(decode(&["--count=core"]), "32");
    let set = sandbox.run_input(
        "flux",
        &["R", "set-property", "fast:0-1"],
        encoded.stdout.as_bytes(),
    );
    assert_eq!(set.ok().json()["execution"]["properties"]["fast"], "0-1");
    sandbox.write(
        "config/r.toml",
        "[[resource.config]]\nhosts = \"a[0-1]\"\ncores = \"0-1\"\n",
    );
    let parsed = sandbox.run("flux", &["R", "parse-config", "config"]);
    assert_eq!(parsed.ok().json()["execution"]["nodelist"][0], "a[0-1]");
}

#[test]
fn hostlists() {
    let sandbox = Sandbox::new();
    assert_eq!(
        sandbox.run("flux", &["hostlist", "a1", "a2", "a3"]).ok().line(),
        "a[1-3]"
    );
    assert_eq!(
        sandbox
            .run("flux", &["hostlist", "--count", "a[1-20]"])
            .ok()
            .line(),
        "20"
    );
    assert_eq!(
        sandbox
            .run("flux", &["hostlist", "--expand", "a[1-3]"])
            .ok()
            .line(),
        "a1 a2 a3"
    );
}

#[test]
fn environment() {
    let sandbox = Sandbox::new();
    let output = sandbox.run("flux", &["env", "sh", "-c", "echo $FLUX_EXEC_PATH"]);
    assert!(!output.ok().line().is_empty());
}

#[test]
fn uptime_tells_state_and_queues() {
    let flux = Instance::boot(2);
    let output = flux.run(&["uptime"]);
    output
        .ok()
        .says(" run ")
        .says("owner ")
        .says("depth 0")
        .says("size 2");
    flux.run(&["queue", "stop"]).ok();
    flux.run(&["queue", "disable", "--message=maintenance"]).ok();
    flux.run(&["uptime"])
        .ok()
        .says("submit disabled")
        .says("scheduler stopped");
    flux.stop();
}

#[test]
fn startlog_shows_starts_and_ends() {
    let sandbox = Sandbox::new();
    let dir = sandbox.workdir().join("state");
    std::fs::create_dir(&dir).unwrap();
    let option = format!("-Sstatedir={}", dir.display());
    sandbox.start(&["-s", "1", &option, "true"]).ok();
    let output = sandbox.start(&["-s", "1", &option, "flux startlog; flux startlog --check"]);
    assert_eq!(output.ok().lines().len(), 2, "{output}");
    output.says("running");
}

#[test]
fn pmi_explores_a_launcher() {
    let flux = Instance::boot(2);
    flux.run(&["run", "-n2", "flux", "pmi", "barrier"]).ok();
    let output = flux.run(&["run", "-n2", "flux", "pmi", "get", "PMI_process_mapping"]);
    output.ok().says("(vector,");
    flux.run(&["run", "-n2", "flux", "pmi", "exchange"]).ok();
    flux.stop();
    if missing(Capability::Hydra) {
        return;
    }
    let sandbox = Sandbox::new();
    let flux = flux_tests::bindir().join("flux").display().to_string();
    sandbox
        .run("mpiexec.hydra", &["-n", "2", &flux, "pmi", "barrier"])
        .ok();
}

#[test]
fn processes_of_brokers() {
    let flux = Instance::boot(2);
    let pid = flux.run(&[
        "exec",
        "-r1",
        "--bg",
        "--label=mine",
        "--waitable",
        "sleep",
        "1000",
    ]);
    pid.ok();
    let output = flux.run(&["sproc", "ps", "-r1", "-o", "{rank} {label} {state} {cmd}"]);
    output.ok().says("RANK LABEL ST COMMAND").says("1 mine R");
    flux.run(&["sproc", "kill", "-r1", "--wait", "TERM", "mine"])
        .code(143);
    flux.run(&["sproc", "kill", "-r1", "TERM", "mine"]).fails();
    flux.run(&[
        "exec",
        "-r0",
        "--bg",
        "--label=three",
        "--waitable",
        "sh",
        "-c",
        "exit 3",
    ])
    .ok();
    flux.run(&["sproc", "wait", "-r0", "three"]).code(3);
    flux.run(&["sproc", "wait", "12345678"]).fails();
    flux.stop();
}

#[test]
fn housekeeping_has_nothing_to_do() {
    let flux = Instance::boot(1);
    let output = flux.run(&["housekeeping", "list"]);
    assert_eq!(
        output.ok().line(),
        "       JOBID NNODES #ACTIVE  RUNTIME NODELIST"
    );
    flux.run(&["housekeeping", "kill"]).fails().complains("--all");
    flux.run(&["housekeeping", "kill", "--all"]).ok();
    flux.run(&["housekeeping", "kill", "-t", "nohost"])
        .fails()
        .complains("nohost");
    flux.stop();
}

#[test]
fn commands_before_the_end() {
    let sandbox = Sandbox::new();
    let script = "echo program; flux admin cleanup-push echo last; printf 'echo one\\necho two\\n' | flux admin cleanup-push";
    let output = sandbox.start(&["-s", "1", "sh", "-c", script]);
    assert_eq!(output.ok().lines(), ["program", "one", "two", "last"]);
}

#[test]
fn events_posted_by_hand() {
    let flux = Instance::boot(1);
    let id = flux.run(&["submit", "sleep", "1000"]).ok().line().to_owned();
    flux.run(&["post-job-event", &id, "test", "a.b=1", "c=text"]).ok();
    flux.run(&["job", "wait-event", "-t", "20", &id, "test"])
        .ok()
        .says("a={\"b\":1} c=\"text\"");
    flux.run(&["post-job-event", "ƒ1", "test"])
        .fails()
        .complains("ƒ1");
    flux.run(&["cancel", &id]).ok();
    flux.stop();
}

#[test]
fn mock_jobs_start_and_finish_when_told() {
    let flux = Instance::boot(1);
    let option = "--setattr=system.exec.test.override=1";
    let id = flux.run(&["submit", option, "true"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "-t", "20", &id, "alloc"]).ok();
    flux.run(&["job-exec-override", "start", &id]).ok();
    flux.run(&["job", "wait-event", "-t", "20", &id, "start"]).ok();
    flux.run(&["job-exec-override", "finish", &id, "256"]).ok();
    flux.run(&["job", "status", &id]).code(1);
    flux.run(&["job-exec-override", "finish", &id, "0"])
        .fails()
        .complains(&id);
    flux.stop();
}

#[test]
fn test_patterns_and_control_groups() {
    let sandbox = Sandbox::new();
    let output = sandbox.run("flux", &["lptest", "5", "3"]);
    assert_eq!(output.ok().lines(), ["!\"#$%", "\"#$%&", "#$%&'"]);
    assert_eq!(sandbox.run("flux", &["lptest"]).ok().lines().len(), 200);
    let output = sandbox.run("flux", &["cgroup", "path"]);
    assert!(
        output.code == 0 && output.stdout.starts_with("/sys/fs/cgroup")
            || output.stderr.contains("cgroup version 2")
    );
}
