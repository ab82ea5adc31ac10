//! Other launchers: MPICH's hydra, our own `flux run`, configuration files (acceptance 5).

use std::os::unix::fs::PermissionsExt;

use flux_tests::{Capability, Instance, Sandbox, missing};

#[test]
fn hydra_starts_an_instance() {
    if missing(Capability::Hydra) {
        return;
    }
    let sandbox = Sandbox::new();
    let flux = flux_tests::bindir().join("flux").display().to_string();
    let output = sandbox.run(
        "mpiexec.hydra",
        &["-n", "3", &flux, "start", &flux, "getattr", "size"],
    );
    assert_eq!(output.ok().line(), "3");
    sandbox.nothing_left("mpiexec.hydra");
    let output = sandbox.run("mpiexec.hydra", &["-n", "3", &flux, "start", "exit 5"]);
    output.code(5);
}

#[test]
fn an_instance_in_a_job() {
    let flux = Instance::boot(4);
    let output = flux.run(&["run", "-N4", "-n4", "flux", "start", "flux", "getattr", "size"]);
    assert_eq!(output.ok().line(), "4");
    let output = flux.run(&[
        "run",
        "-N2",
        "-n2",
        "flux",
        "start",
        "flux",
        "getattr",
        "instance-level",
    ]);
    assert_eq!(output.ok().line(), "1");
    let output = flux.run(&["run", "-n1", "flux", "start", "flux", "getattr", "parent-uri"]);
    assert!(output.ok().line().starts_with("local://"), "{output}");
    flux.stop();
}

/// Writes a configuration for brokers `fake0`… with a certificate; returns the option for it and the certificate.
fn configured(sandbox: &Sandbox, size: u16, first_port: u16) -> (String, String) {
    let cert = sandbox.workdir().join("cert").display().to_string();
    sandbox.run("flux", &["keygen", "--name=test", &cert]).ok();
    // every broker needs a port of its own on one machine
    let host = |rank| {
        let port = first_port + rank;
        format!(
            "{{ host = \"fake{rank}\", bind = \"tcp://127.0.0.1:{port}\", connect = \"tcp://127.0.0.1:{port}\" }}"
        )
    };
    let hosts: Vec<_> = (0..size).map(host).collect();
    let config = format!(
        "[bootstrap]\ncurve_cert = \"{cert}\"\nhosts = [ {} ]\n",
        hosts.join(", ")
    );
    let path = sandbox.write("config/bootstrap.toml", &config);
    (
        format!("--config-path={}", path.parent().unwrap().display()),
        cert,
    )
}

#[test]
fn a_configuration_file_bootstraps_with_a_certificate() {
    let sandbox = Sandbox::new();
    let (option, cert) = configured(&sandbox, 3, 28350);
    let mode = std::fs::metadata(&cert).unwrap().permissions().mode();
    assert_eq!(mode & 0o77, 0, "others may not read it");
    let output = sandbox.start(&[
        "-s",
        "3",
        "--test-hosts=fake[0-2]",
        &option,
        "flux lsattr -v; flux ping -c1 2",
    ]);
    output.ok().says("fake[0-2]").says("seq=0");
    // a certificate that others may read is refused
    std::fs::set_permissions(&cert, std::fs::Permissions::from_mode(0o444)).unwrap();
    let output = sandbox.start(&[
        "-s",
        "3",
        "--test-hosts=fake[0-2]",
        "--test-exit-timeout=1s",
        &option,
        "true",
    ]);
    output.fails().complains(&cert);
}

#[test]
fn the_leader_alone_runs_with_a_quorum_of_one() {
    let sandbox = Sandbox::new();
    let (option, _) = configured(&sandbox, 2, 28360);
    let leader = ["--test-start-mode=leader", "-Sbroker.quorum=1"];
    let script = "flux getattr size; flux overlay status --no-pretty";
    let output = sandbox.start(&[
        "-s",
        "2",
        "--test-hosts=fake[0-1]",
        leader[0],
        leader[1],
        &option,
        script,
    ]);
    assert_eq!(output.ok().lines()[0], "2");
    output.says("offline");
}

/// Who is asked for peers, and in which words.
#[test]
fn ways_to_a_launcher_can_be_chosen_and_watched() {
    let debug = Sandbox::new().env("FLUX_PMI_DEBUG", "1");
    debug
        .start(&["-s", "2", "true"])
        .ok()
        .complains("pmi: Client cmd=init pmi_version=1 pmi_subversion=1")
        .complains("pmi: Server cmd=finalize_ack");
    let run = |methods: &str| {
        let sandbox = Sandbox::new().env("FLUX_PMI_CLIENT_METHODS", methods);
        sandbox.start(&["-s", "1", "flux", "getattr", "broker.boot-method"])
    };
    assert_eq!(run("libpmi2,simple,single").ok().line(), "simple");
    assert_eq!(run("single simple").ok().line(), "single");
    run("nosuch")
        .fails()
        .complains("FLUX_PMI_CLIENT_METHODS: 'nosuch' is not known");
}

/// Brokers on several nodes listen where others can reach them.
#[test]
fn addresses_for_other_nodes() {
    let run = |sandbox: &Sandbox, more: &[&str]| {
        let mut words = vec![
            "-s",
            "2",
            "--test-pmi-clique=per-broker",
            "--test-exit-timeout=0.1s",
        ];
        words.extend(more);
        words.extend(["flux", "getattr", "tbon.endpoint"]);
        sandbox.start(&words)
    };
    let sandbox = Sandbox::new();
    for hint in ["lo", "127.0.0.0/8"] {
        let output = run(&sandbox, &[&format!("-Stbon.interface-hint={hint}")]);
        assert!(
            output.ok().line().starts_with("tcp://127.0.0.1:"),
            "{hint}: {output}"
        );
    }
    assert!(run(&sandbox, &[]).ok().line().starts_with("tcp://"));
    // the other broker is ended by a signal
    run(&sandbox, &["-Stbon.interface-hint=nosuch0"])
        .code(143)
        .complains("tbon.interface-hint=nosuch0: this host has no IPv4 address for it");
    let named = Sandbox::new().env("FLUX_IPADDR_INTERFACE", "lo");
    assert!(run(&named, &[]).ok().line().starts_with("tcp://127.0.0.1:"));
}
