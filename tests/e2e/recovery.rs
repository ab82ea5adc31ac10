//! `flux start --recovery`: what an instance left is looked at by one broker that runs no jobs.

use flux_tests::Sandbox;

/// Fills a store and keeps it.
fn filled(sandbox: &Sandbox) -> String {
    let dir = sandbox.workdir().join("state");
    std::fs::create_dir(&dir).unwrap();
    let script =
        "flux kvs put a=kept && flux run -N2 true && flux resource drain 1 broken && flux dump -q dump.tar";
    sandbox
        .start(&["-s", "2", &format!("-Sstatedir={}", dir.display()), script])
        .ok();
    dir.display().to_string()
}

/// Prints what is there; a job that is submitted stays pending.
const LOOK: &str =
    "flux kvs get a; flux jobs -a -c0 -no '{ntasks} {status}'; flux resource list -no '{state} {nnodes}'
    flux resource status -no '{state} {nnodes}'; flux getattr broker.recovery-mode
    flux jobs -no 'new {state}' $(flux submit true); flux cancel --all 2>/dev/null";

#[test]
fn a_statedir_and_an_archive() {
    let sandbox = Sandbox::new();
    let state = filled(&sandbox);
    for target in [state.as_str(), "dump.tar"] {
        let option = format!("--recovery={target}");
        let output = sandbox.start(&["-s", "1", &option, "sh", "-c", LOOK]);
        output.ok().says("kept\n").says("2 COMPLETED").says("new SCHED");
        let lines = output.lines();
        assert!(
            lines.contains(&"down 2") && lines.contains(&"free 0"),
            "{target}: {output}"
        );
        assert!(lines.contains(&"1"), "{target}: {output}");
    }
    // the instance itself goes on afterwards
    let script = "flux kvs get a; flux resource list -s up -no '{nnodes}'; flux run -N1 true && echo ran";
    sandbox
        .start(&["-s", "2", &format!("-Sstatedir={state}"), "sh", "-c", script])
        .ok()
        .says("kept\n1\nran");
}

#[test]
fn errors_of_rc1_are_passed_over() {
    let sandbox = Sandbox::new();
    let state = filled(&sandbox);
    let option = format!("--recovery={state}");
    let output = sandbox.start(&["-s", "1", &option, "-Sbroker.rc1_path=exit 7", "flux kvs get a"]);
    output.ok().says("kept").complains("rc1.0: exit 7 Exited (rc=7)");
    let failing = ["-s", "1", "-Sbroker.rc1_path=exit 7", "true"];
    sandbox
        .start(&failing)
        .fails()
        .complains("rc1.0: exit 7 Exited (rc=7)");
}

#[test]
fn targets_that_cannot_be_used_are_named() {
    let sandbox = Sandbox::new();
    for (words, text) in [
        (
            ["-s", "1", "--recovery=nosuch.tar", "true"],
            "nosuch.tar: No such file",
        ),
        (
            ["-s", "1", "--recovery=.", "true"],
            "./content.sqlite: No such file",
        ),
        (
            ["-s", "2", "--recovery=.", "true"],
            "--recovery starts one broker only",
        ),
        (["-s", "1", "--recovery", "true"], "/var/lib/flux"),
    ] {
        sandbox.start(&words).fails().complains(text);
    }
    let shown = sandbox.start(&["-X", "-v", "--sysconfig", "true"]);
    shown
        .ok()
        .complains("--config-path=")
        .complains("etc/flux/system/conf.d");
}

/// A leader in recovery mode lets nobody join.
#[test]
fn peers_are_not_let_in() {
    let sandbox = Sandbox::new();
    let state = filled(&sandbox);
    let hosts = "hosts = [ { host = \"fake[0-1]\" } ]";
    let cert = sandbox.workdir().join("cert").display().to_string();
    sandbox.run("flux", &["keygen", &cert]).ok();
    let config = format!(
        "[bootstrap]\ncurve_cert = \"{cert}\"\ndefault_port = 28390\ndefault_bind = \"tcp://127.0.0.1:%p\"\n\
         default_connect = \"tcp://127.0.0.1:%p\"\n{hosts}\n"
    );
    let path = sandbox.write("config/bootstrap.toml", &config);
    let path = format!("--config-path={}", path.parent().unwrap().display());
    let option = format!("--recovery={state}");
    let script = "flux getattr size; flux getattr tbon.endpoint || echo closed";
    let output = sandbox.start(&["-s", "1", "--test-hosts=fake0", &option, &path, script]);
    output.ok().says("2\nclosed");
}
