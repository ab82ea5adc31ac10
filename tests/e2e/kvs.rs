//! `flux kvs`: values, directories, links, namespaces, watches, eventlogs, from every rank.

use std::time::Duration;

use flux_tests::{Instance, scaled};

#[test]
fn values_and_directories() {
    let flux = Instance::boot(2);
    flux.run(&["kvs", "put", "a.b.c=42", "a.name=text"]).ok();
    assert_eq!(flux.run(&["kvs", "get", "a.b.c"]).ok().line(), "42");
    assert_eq!(flux.on(1, &["kvs", "get", "a.name"]).ok().line(), "text");
    assert_eq!(
        flux.run(&["kvs", "ls", "a"])
            .ok()
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["b", "name"]
    );
    assert_eq!(
        flux.run(&["kvs", "dir", "-R", "a"]).ok().lines(),
        ["a.b.c = 42", "a.name = text"]
    );
    flux.run_input(&["kvs", "put", "--raw", "blob=-"], &[0, 1, 2, 255])
        .ok();
    let output = flux.sh("flux kvs get --raw blob | od -An -tx1");
    assert_eq!(output.ok().line().trim(), "00 01 02 ff");
    flux.run(&["kvs", "put", "--append", "a.name=more"]).ok();
    assert_eq!(
        flux.run(&["kvs", "get", "--raw", "a.name"]).ok().stdout,
        "textmore"
    );
    flux.run(&["kvs", "unlink", "a.name"]).ok();
    flux.run(&["kvs", "get", "a.name"])
        .code(1)
        .complains("No such file or directory");
    flux.run(&["kvs", "get", "a"]).code(1).complains("Is a directory");
    flux.run(&["kvs", "unlink", "a"]).fails();
    flux.run(&["kvs", "unlink", "-R", "a"]).ok();
    flux.run(&["kvs", "mkdir", "empty"]).ok();
    assert_eq!(
        flux.run(&["kvs", "ls", "-F"])
            .ok()
            .stdout
            .matches("empty.")
            .count(),
        1
    );
    flux.stop();
}

#[test]
fn links_copies_and_tree_objects() {
    let flux = Instance::boot(1);
    flux.run(&["kvs", "put", "target=1"]).ok();
    flux.run(&["kvs", "link", "target", "pointer"]).ok();
    assert_eq!(flux.run(&["kvs", "get", "pointer"]).ok().line(), "1");
    assert_eq!(flux.run(&["kvs", "readlink", "pointer"]).ok().line(), "target");
    flux.run(&["kvs", "copy", "target", "other"]).ok();
    flux.run(&["kvs", "move", "other", "third"]).ok();
    assert_eq!(flux.run(&["kvs", "get", "third"]).ok().line(), "1");
    flux.run(&["kvs", "get", "other"]).fails();
    let object = flux.run(&["kvs", "get", "--treeobj", "target"]).ok().json();
    assert_eq!(object["type"], "val");
    assert_eq!(object["ver"], 1);
    let before = flux.run(&["kvs", "getroot", "-b"]).ok().line().to_owned();
    assert!(before.starts_with("sha1-"), "{before}");
    let version: u64 = flux.run(&["kvs", "version"]).ok().line().parse().unwrap();
    flux.run(&["kvs", "put", "target=2"]).ok();
    assert_eq!(
        flux.run(&["kvs", "version"]).ok().line().parse::<u64>().unwrap(),
        version + 1
    );
    let text = format!("{}", version + 1);
    flux.run(&["kvs", "wait", &text]).ok();
    let rootdir = flux.run(&["kvs", "getroot"]).ok().line().to_owned();
    flux.run(&["kvs", "put", "target=3"]).ok();
    assert_eq!(
        flux.run(&["kvs", "get", "--at", &rootdir, "target"]).ok().line(),
        "2"
    );
    flux.stop();
}

#[test]
fn namespaces_are_apart() {
    let flux = Instance::boot(2);
    flux.run(&["kvs", "namespace", "create", "mine"]).ok();
    flux.run(&["kvs", "namespace", "create", "mine"])
        .fails()
        .complains("exists");
    flux.run(&["kvs", "put", "--namespace=mine", "a=1"]).ok();
    flux.run(&["kvs", "get", "a"]).fails();
    assert_eq!(
        flux.on(1, &["kvs", "get", "--namespace=mine", "a"]).ok().line(),
        "1"
    );
    flux.run(&["kvs", "namespace", "list"])
        .ok()
        .says("mine")
        .says("primary");
    flux.run(&["kvs", "namespace", "remove", "mine"]).ok();
    flux.run(&["kvs", "get", "--namespace=mine", "a"]).fails();
    flux.run(&["kvs", "namespace", "remove", "primary"]).fails();
    flux.stop();
}

#[test]
fn watching_sees_every_change() {
    let flux = Instance::boot(2);
    let output = flux.sh("flux kvs get --waitcreate --watch --count=4 w >out & pid=$!
         flux kvs put w=1; until grep -q 1 out; do :; done
         flux kvs put w=2; until grep -q 2 out; do :; done
         flux kvs put x=9 w=3; until grep -q 3 out; do :; done
         flux kvs put w=4; wait $pid; cat out");
    assert_eq!(output.ok().lines(), ["1", "2", "3", "4"]);
    flux.stop();
}

#[test]
fn eventlogs() {
    let flux = Instance::boot(1);
    flux.run(&[
        "kvs",
        "eventlog",
        "append",
        "-t",
        "1.5",
        "log",
        "first",
        r#"{"a":1}"#,
    ])
    .ok();
    flux.run(&["kvs", "eventlog", "append", "-t", "2.5", "log", "second"])
        .ok();
    let output = flux.run(&["kvs", "eventlog", "get", "log"]);
    assert_eq!(output.ok().lines(), ["1.500000 first a=1", "2.500000 second"]);
    let output = flux.run(&["kvs", "eventlog", "get", "-u", "log"]);
    assert_eq!(
        output.lines()[0],
        r#"{"timestamp":1.5,"name":"first","context":{"a":1}}"#
    );
    flux.run(&["kvs", "eventlog", "wait-event", "-t", "5", "log", "second"])
        .ok()
        .says("second");
    flux.run(&["kvs", "eventlog", "wait-event", "-t", "0.2", "log", "never"])
        .fails();
    flux.stop();
}

#[test]
fn large_values_and_many_keys() {
    let flux = Instance::boot(2);
    let big = vec![b'y'; scaled(64, 8) << 20];
    let output = flux.run_input(&["kvs", "put", "--raw", "big=-"], &big);
    output.ok();
    let count = flux.sh("flux kvs get --raw big | wc -c");
    assert_eq!(count.ok().line().trim(), big.len().to_string());
    let keys: Vec<String> = (0..1000).map(|n| format!("many.k{n}={n}")).collect();
    let mut args = vec!["kvs", "put"];
    args.extend(keys.iter().map(String::as_str));
    flux.run(&args).ok();
    assert_eq!(flux.on(1, &["kvs", "ls", "-1", "many"]).ok().lines().len(), 1000);
    flux.stop();
}

#[test]
fn content_survives_with_a_statedir() {
    let builder = Instance::builder(1);
    let dir = builder.sandbox().workdir().join("state");
    std::fs::create_dir(&dir).unwrap();
    let option = format!("-Sstatedir={}", dir.display());
    let sandbox = builder.sandbox();
    sandbox
        .start(&["-s", "1", &option, "flux kvs put keep=this; flux kvs get keep"])
        .ok();
    let output = sandbox.start(&["-s", "1", &option, "flux", "kvs", "get", "keep"]);
    assert_eq!(output.ok().line(), "this");
    assert!(output.elapsed < Duration::from_secs(30));
}
