//! What does the command line say to those who ask, or mistype?

use flux_tests::Sandbox;

#[test]
fn help_version_and_suggestions() {
    let sandbox = Sandbox::new();
    sandbox.run("flux", &["help"]).ok().says("Commands").says("start");
    sandbox
        .run("flux", &["--version"])
        .ok()
        .says("commands:")
        .says("0.88.0");
    for command in [
        "start", "run", "submit", "jobs", "ping", "dmesg", "queue", "resource", "kvs", "job", "module",
    ] {
        sandbox.run("flux", &[command, "--help"]).ok().says("Usage");
        sandbox.run("flux", &["help", command]).ok().says("Usage");
    }
    sandbox
        .run("flux", &["sumbit"])
        .fails()
        .complains("Did you mean")
        .complains("flux submit");
    sandbox
        .run("flux", &["module", "lsit"])
        .fails()
        .complains("'list'");
    sandbox
        .run("flux", &["ping", "--cuont=3", "0"])
        .fails()
        .complains("--cuont");
    sandbox.run("flux", &[]).fails();
}

#[test]
fn commands_that_are_not_there_yet_say_so() {
    let sandbox = Sandbox::new();
    let absent = ["archive", "python", "terminus", "top"];
    for command in absent {
        let output = sandbox.run("flux", &[command]);
        output.fails().complains(command).complains("not available yet");
    }
}

#[test]
fn without_an_instance_the_socket_is_named() {
    let sandbox = Sandbox::new().env("FLUX_URI", "local:///no/such/socket");
    sandbox
        .run("flux", &["getattr", "size"])
        .fails()
        .complains("/no/such/socket");
    sandbox
        .run("flux", &["run", "true"])
        .fails()
        .complains("/no/such/socket");
}

#[test]
fn the_system_socket_is_the_default() {
    let sandbox = Sandbox::new();
    sandbox
        .run("flux", &["getattr", "size"])
        .fails()
        .complains("/run/flux/local");
}

#[test]
fn packages_may_add_commands() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let path = sandbox.write("bin/flux-hello", "#!/bin/sh\necho hello $1\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let dir = path.parent().unwrap().display().to_string();
    let sandbox = Sandbox::new().env("FLUX_EXEC_PATH_PREPEND", &dir);
    assert_eq!(sandbox.run("flux", &["hello", "you"]).ok().line(), "hello you");
}
