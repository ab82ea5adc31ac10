//! `flux getattr`, `lsattr`, `setattr`: are the attributes there, typed and guarded?

use flux_tests::Instance;

/// reference: attributes every broker has.
const ALWAYS: &[&str] = &[
    "broker.boot-method",
    "broker.pid",
    "broker.quorum",
    "broker.starttime",
    "broker.uuid",
    "content.backing-module",
    "content.hash",
    "hostlist",
    "hostname",
    "instance-level",
    "local-uri",
    "log-level",
    "log-ring-size",
    "log-stderr-level",
    "log-stderr-mode",
    "rank",
    "rundir",
    "security.owner",
    "size",
    "tbon.descendants",
    "tbon.endpoint",
    "tbon.level",
    "tbon.maxlevel",
    "tbon.topo",
    "version",
];

#[test]
fn the_known_attributes_are_listed() {
    let flux = Instance::boot(2);
    let output = flux.run(&["lsattr"]);
    let names = output.ok().lines();
    for name in ALWAYS {
        assert!(names.contains(name), "{name} is missing: {names:?}");
    }
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted);
    let output = flux.run(&["lsattr", "-v"]);
    assert!(
        output.lines().contains(&format!("{:<40}2", "size").as_str()),
        "{output}"
    );
    assert!(
        flux.on(1, &["getattr", "tbon.parent-endpoint"])
            .ok()
            .line()
            .starts_with("tcp://")
    );
    assert_eq!(flux.run(&["getattr", "version"]).line(), "0.88.0");
    assert_eq!(flux.run(&["getattr", "instance-level"]).line(), "0");
    flux.stop();
}

#[test]
fn set_is_guarded() {
    let flux = Instance::boot(1);
    flux.run(&["getattr", "no.such"])
        .code(1)
        .complains("no.such: No such file or directory");
    flux.run(&["setattr", "size", "5"]).code(1).complains("size");
    flux.run(&["setattr", "no.such", "5"])
        .code(1)
        .complains("no.such");
    flux.run(&["setattr", "log-stderr-level", "5"]).ok();
    assert_eq!(flux.run(&["getattr", "log-stderr-level"]).line(), "5");
    flux.run(&["setattr", "log-stderr-level", "many"]).fails();
    assert_eq!(flux.run(&["getattr", "log-stderr-level"]).line(), "5");
    flux.stop();
}

#[test]
fn messages_of_a_connection_can_be_traced() {
    let flux = Instance::boot(1);
    let output = flux.sh("FLUX_HANDLE_TRACE=1 flux getattr size");
    assert_eq!(output.ok().line(), "1");
    output
        .complains("> attr.get")
        .complains("{\"name\":\"size\"}")
        .complains("< attr.get")
        .complains("errnum=0 matchtag=");
    flux.stop();
}
