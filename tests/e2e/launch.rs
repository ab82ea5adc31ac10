//! Other launchers: MPICH's hydra, our own `flux run`, configuration files (acceptance 5).

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

#[test]
fn a_configuration_file_bootstraps_with_a_certificate() {
    let sandbox = Sandbox::new();
    let cert = sandbox.workdir().join("cert").display().to_string();
    sandbox.run("flux", &["keygen", "--name=test", &cert]).ok();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&cert).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o400);
    let config = format!(
        "[bootstrap]\ncurve_cert = \"{cert}\"\ndefault_port = 28350\n\
         hosts = [ {{ host = \"fake[0-2]\", bind = \"tcp://127.0.0.1:%p\", connect = \"tcp://127.0.0.1:%p\" }} ]\n"
    );
    // every broker needs a port of its own on one machine
    let config = config.replace(
        "{ host = \"fake[0-2]\", bind = \"tcp://127.0.0.1:%p\", connect = \"tcp://127.0.0.1:%p\" }",
        &(0..3)
            .map(|rank| {
                let port = 28350 + rank;
                format!(
                    "{{ host = \"fake{rank}\", bind = \"tcp://127.0.0.1:{port}\", connect = \"tcp://127.0.0.1:{port}\" }}"
                )
            })
            .collect::<Vec<_>>()
            .join(", "),
    );
    sandbox.write("config/bootstrap.toml", &config);
    let dir = sandbox.workdir().join("config").display().to_string();
    let option = format!("--config-path={dir}");
    let output = sandbox.start(&[
        "-s",
        "3",
        "--test-hosts=fake[0-2]",
        &option,
        "flux lsattr -v; flux ping -c1 2",
    ]);
    output.ok().says("fake[0-2]").says("seq=0");
    // a certificate that others may read is refused
    std::fs::set_permissions(&cert, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
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
