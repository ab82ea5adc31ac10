//! What may a user who is not the instance's owner do? (needs root, to become somebody else)

use std::os::unix::fs::PermissionsExt;

use flux_tests::{Capability, Instance, Output, bindir, missing};

/// An instance whose socket others can reach, and a `flux` that they may run.
fn instance(config: &str) -> Instance {
    let builder = Instance::builder(1).config(config);
    let work = builder.sandbox().workdir();
    let dir = work.join("rundir");
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(bindir().join("flux"), work.join("flux")).unwrap();
    for path in [work.parent().unwrap(), &work, &dir, &work.join("flux")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    builder.option(&format!("--test-rundir={}", dir.display())).boot()
}

fn as_guest(flux: &Instance, args: &[&str]) -> Output {
    let mut command = flux.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "./flux"])
        .args(args);
    flux.sandbox().finish(command, b"")
}

#[test]
fn guests_are_refused_unless_allowed() {
    if missing(Capability::Root) {
        return;
    }
    let flux = instance("");
    as_guest(&flux, &["getattr", "size"])
        .fails()
        .complains("Operation not permitted");
    flux.run(&["dmesg"]).ok().says("uid=65534");
    flux.end_and_check();
}

#[test]
fn allowed_guests_have_limited_access() {
    if missing(Capability::Root) {
        return;
    }
    let flux = instance("[access]\nallow-guest-user = true\n");
    assert_eq!(as_guest(&flux, &["getattr", "size"]).ok().line(), "1");
    as_guest(&flux, &["ping", "-c1", "--userid", "0"])
        .ok()
        .says("userid=65534");
    as_guest(&flux, &["jobs", "-a"]).ok();
    as_guest(&flux, &["resource", "list"]).ok();
    as_guest(&flux, &["setattr", "log-stderr-level", "7"])
        .fails()
        .complains("owner");
    as_guest(&flux, &["resource", "drain", "0", "mine"]).fails();
    as_guest(&flux, &["module", "remove", "heartbeat"]).fails();
    as_guest(&flux, &["kvs", "put", "a=1"]).fails();
    as_guest(&flux, &["exec", "true"]).code(126).complains("owner");
    as_guest(&flux, &["dmesg"]).fails();
    let id = flux.run(&["submit", "sleep", "1000"]).ok().line().to_owned();
    as_guest(&flux, &["cancel", &id]).fails();
    // a guest's job needs a signature that this instance cannot check
    as_guest(&flux, &["submit", "true"]).fails();
    flux.run(&["cancel", &id]).ok();
    flux.end_and_check();
}
