//! `flux dump` and `flux restore`, also at the end and the start of an instance; `flux shutdown --gc`.

use flux_tests::{Instance, Sandbox};

/// Keys of several kinds, a value of many blobs among them.
const FILL: &str = "flux kvs put a.b=1 a.c=two && flux kvs put --raw big=- <big
    flux kvs mkdir empty && flux kvs link a.b link && flux run true
    for i in 1 2 3; do flux kvs put --append log=line$i; flux content flush; done";
const SHOW: &str = "flux kvs get a.b a.c link && flux kvs dir empty && flux kvs get log | tr '\\n' ' '
    flux kvs get --raw big | cmp - big && echo same && flux jobs -an";

fn big(sandbox: &Sandbox) {
    let text: String = (0..60_000).map(|n| format!("line {n}\n")).collect();
    sandbox.write("big", &text);
}

#[test]
fn a_snapshot_travels() {
    let flux = Instance::boot(1);
    big(flux.sandbox());
    flux.sh(FILL).ok();
    for name in ["dump.tar", "dump.tgz"] {
        flux.run(&["dump", name]).ok().complains("archived");
        let listing = flux.sh(&format!("tar tf {name}"));
        listing.ok().says("a/b\n").says("link").says("empty/");
        flux.run(&["restore", "--quiet", "--key=copy", name]).ok();
        assert_eq!(flux.run(&["kvs", "get", "copy.a.c"]).ok().line(), "two");
        flux.sh("flux kvs get --raw copy.big | cmp - big").ok();
        flux.run(&["kvs", "dir", "copy.empty"]).ok();
        flux.run(&["kvs", "readlink", "copy.link"]).ok().says("a.b");
        flux.run(&["kvs", "unlink", "-R", "copy"]).ok();
    }
    // through a pipe
    flux.sh("flux dump -q - | flux restore -q --key=piped -").ok();
    assert_eq!(flux.run(&["kvs", "get", "piped.a.b"]).ok().line(), "1");
    flux.run(&["restore", "--size-limit=100K", "--key=small", "dump.tar"])
        .ok()
        .complains("big size");
    flux.run(&["kvs", "get", "small.big"]).fails();
    flux.run(&["restore", "dump.tar"])
        .fails()
        .complains("--checkpoint or --key");
    flux.run(&["restore", "--checkpoint", "dump.tar"])
        .fails()
        .complains("unload kvs");
    flux.run(&["restore", "--key=x", "/no/such.tar"])
        .fails()
        .complains("/no/such.tar");
    flux.run(&["restore", "--key=x", "big"]).fails().complains("big");
    flux.run(&["dump", "x.tar.xz"]).fails().complains(".xz");
    flux.run(&["dump", "/no/such/dir/x.tar"])
        .fails()
        .complains("/no/such/dir");
    flux.stop();
}

/// The jobs of the first instance are those of the second.
#[test]
fn an_archive_at_the_end_and_the_start() {
    let sandbox = Sandbox::new();
    big(&sandbox);
    sandbox
        .start(&[
            "-s",
            "1",
            "-Scontent.dump=dump.tgz",
            &format!("sh -c '{}'", FILL.replace('\n', ";")),
        ])
        .ok();
    let output = sandbox.start(&["-s", "1", "-Scontent.restore=dump.tgz", "sh", "-c", SHOW]);
    output
        .ok()
        .says("1\ntwo\n1\n")
        .says("line1")
        .says("line3")
        .says("same")
        .says(" CD ");
    sandbox
        .start(&["-s", "1", "-Scontent.restore=/no/such.tgz", "true"])
        .fails()
        .complains("/no/such.tgz");
    sandbox
        .start(&["-s", "1", "-Scontent.dump=/no/such/dir/x.tgz", "true"])
        .fails()
        .complains("/no/such/dir");
}

/// Offline garbage collection: what nothing refers to is gone after the next start.
#[test]
fn shutdown_with_gc() {
    let sandbox = Sandbox::new();
    big(&sandbox);
    let dir = sandbox.workdir().join("state");
    std::fs::create_dir(&dir).unwrap();
    let state = format!("-Sstatedir={}", dir.display());
    let script = format!("{FILL}; flux kvs put big=; flux shutdown --gc 2>/dev/null; sleep 100");
    sandbox.start(&["-s", "1", &state, "sh", "-c", &script]);
    let size = || std::fs::metadata(dir.join("content.sqlite")).unwrap().len();
    let before = size();
    let link = std::fs::read_link(dir.join("dump/RESTORE")).unwrap();
    assert!(dir.join("dump").join(&link).is_file() && link.to_string_lossy().ends_with(".tgz"));
    let show = "flux kvs get a.b a.c link && flux jobs -an && flux fsck";
    let output = sandbox.start(&["-s", "1", &state, "-Scontent.restore=auto", "sh", "-c", show]);
    output.ok().says("1\ntwo\n1\n").says(" CD ");
    assert!(!dir.join("dump/RESTORE").exists());
    assert!(size() < before / 2, "{before} {}", size());
}

/// `kvs.gc-threshold`: a shutdown asks, or is told, whether to collect.
#[test]
fn the_threshold_asks() {
    let sandbox = Sandbox::new();
    let dir = sandbox.workdir().join("state");
    std::fs::create_dir(&dir).unwrap();
    let state = format!("-Sstatedir={}", dir.display());
    let run = |answer: &str| {
        let script =
            format!("for i in 1 2 3 4 5; do flux kvs put a=$i; done; flux shutdown {answer}; sleep 100");
        sandbox.start(&[
            "-s",
            "1",
            &state,
            "--conf=kvs.gc-threshold=4",
            "sh",
            "-c",
            &script,
        ])
    };
    run("-n");
    assert!(!dir.join("dump").exists());
    run("--skip-gc");
    assert!(!dir.join("dump").exists());
    run("-y");
    assert!(dir.join("dump/RESTORE").exists());
}
