//! `flux uri`, `flux proxy` and `flux relay`: ways to an instance inside a job, or on another host.

use std::os::unix::fs::PermissionsExt;

use flux_tests::Instance;

/// A remote shell that runs the command here, after a word on standard error.
const REMOTE_SHELL: &str = "#!/bin/sh\necho \"to $1\" >&2\nshift\nexec \"$@\"\n";

fn remote_shell(flux: &Instance, text: &str) -> String {
    let path = flux.sandbox().write("rsh", text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn instance(flux: &Instance) -> String {
    flux.run(&["alloc", "-n1", "--bg"]).ok().line().to_owned()
}

#[test]
fn uris_of_jobs_and_processes() {
    let flux = Instance::boot(1);
    let id = instance(&flux);
    let uri = flux.run(&["uri", &id]).ok().line().to_owned();
    assert!(uri.starts_with("ssh://"), "{uri}");
    let local = flux.run(&["uri", "--local", &id]).ok().line().to_owned();
    assert!(local.starts_with("local:///") && uri.ends_with(&local["local://".len()..]));
    assert_eq!(
        flux.run(&["uri", "--wait", &format!("jobid:{id}?local")])
            .ok()
            .line(),
        local
    );
    assert_eq!(flux.run(&["uri", "--remote", &local]).ok().line(), uri);
    assert_eq!(flux.run(&["uri", "."]).ok().line(), flux.uri());
    assert_eq!(
        flux.run(&["uri", &format!("{id}/..")])
            .ok()
            .line()
            .rsplit('/')
            .next(),
        Some("local-0")
    );
    assert_eq!(flux.sh("flux uri pid:$$").ok().line(), flux.uri());
    // a broker is asked for what it started
    let broker = format!("pid:{}", flux.pid(0));
    assert_eq!(flux.run(&["uri", &broker]).ok().line(), flux.uri());
    flux.run(&["uri", "ƒ1"]).fails().complains("ƒ1");
    flux.run(&["uri", "nosuch:1"]).fails().complains("nosuch");
    let plain = flux.sh("flux submit sleep 100").ok().line().to_owned();
    flux.run(&["job", "wait-event", "-t", "20", &plain, "start"]).ok();
    flux.run(&["uri", &plain]).fails().complains("URI not found");
    // programs may add schemes
    let dir = flux
        .sandbox()
        .write("bin/flux-uri-site", "#!/bin/sh\necho local:///site/$1\n");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = flux.sh("FLUX_EXEC_PATH_PREPEND=$PWD/bin flux uri site:x");
    assert_eq!(output.ok().line(), "local:///site/x");
    flux.run(&["cancel", "--user=all"]).ok();
    flux.run(&["queue", "drain", "-t", "30"]).ok();
    flux.stop();
}

#[test]
fn commands_through_a_proxy() {
    let flux = Instance::boot(1);
    let id = instance(&flux);
    assert_eq!(
        flux.run(&["proxy", &id, "flux", "getattr", "instance-level"])
            .ok()
            .line(),
        "1"
    );
    flux.run(&["proxy", &id, "exit 7"]).code(7);
    // many clients, streams, events and services at the same time
    let script = "flux submit --cc=1-8 --wait --quiet true && flux run echo out &
        flux event sub -c1 proxied >event & until flux event pub proxied '{}'; test -s event; do :; done; wait; cat event";
    let output = flux.run(&["proxy", &id, script]);
    output.ok().says("out").says("proxied\t{}");
    flux.run(&["proxy", &id, "flux exec -r0 echo from-exec"])
        .ok()
        .says("from-exec");
    let output = flux.run(&["proxy", &id, "echo input | flux run cat"]);
    assert_eq!(output.ok().line(), "input");
    flux.run(&["proxy", "ƒ1", "true"]).fails().complains("ƒ1");
    flux.run(&["shutdown", &id]).ok();
    flux.stop();
}

#[test]
fn an_instance_on_another_host() {
    let flux = Instance::boot(1);
    let id = instance(&flux);
    let rsh = remote_shell(&flux, REMOTE_SHELL);
    let output = flux.sh(&format!(
        "FLUX_SSH={rsh} flux proxy {id} 'flux run echo $FLUX_PROXY_REMOTE'"
    ));
    assert!(!output.ok().line().is_empty(), "{output}");
    let uri = flux.run(&["uri", &id]).ok().line().to_owned();
    let output = flux.sh(&format!(
        "FLUX_SSH={rsh} FLUX_URI={uri} flux getattr instance-level"
    ));
    assert_eq!(output.ok().line(), "1");
    let broken = remote_shell(&flux, "#!/bin/sh\necho 'no route to host' >&2\nexit 1\n");
    flux.sh(&format!("FLUX_SSH={broken} FLUX_URI={uri} flux getattr size"))
        .fails()
        .complains("no route to host");
    let noisy = remote_shell(&flux, "#!/bin/sh\necho hello\nshift\nexec \"$@\"\n");
    flux.sh(&format!("FLUX_SSH={noisy} FLUX_URI={uri} flux getattr size"))
        .fails()
        .complains("start-up files");
    flux.sh(&format!(
        "FLUX_SSH=/no/such/shell FLUX_URI={uri} flux getattr size"
    ))
    .fails()
    .complains("/no/such/shell");
    flux.run(&["shutdown", &id]).ok();
    flux.stop();
}

#[test]
fn the_end_of_the_connection_ends_the_command() {
    let flux = Instance::boot(1);
    let id = instance(&flux);
    let output = flux.sh(&format!(
        "flux proxy {id} 'echo up; exec sleep 100' >out & pid=$!; until grep -q up out; do :; done
         flux shutdown {id} 2>/dev/null; wait $pid"
    ));
    output.code(129).complains("Lost connection to Flux");
    flux.stop();
}
