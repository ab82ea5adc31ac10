//! `flux content`, `flux gc` and `flux fsck`: blobs, those that are of no use, and those that are missing.

use std::time::Duration;

use flux_tests::Instance;

#[test]
fn blobs() {
    let flux = Instance::boot(2);
    let name = flux
        .run_input(&["content", "store"], b"some bytes")
        .ok()
        .line()
        .to_owned();
    assert!(name.starts_with("sha1-"), "{name}");
    assert_eq!(flux.run(&["content", "load", &name]).ok().stdout, "some bytes");
    // through another broker, and through its cache when it is empty
    assert_eq!(flux.on(1, &["content", "load", &name]).ok().stdout, "some bytes");
    flux.run(&["content", "flush"]).ok();
    flux.on(1, &["content", "dropcache"]).ok();
    assert_eq!(flux.on(1, &["content", "load", &name]).ok().stdout, "some bytes");
    assert_eq!(
        flux.run_input(&["content", "load", "--bypass-cache"], name.as_bytes())
            .ok()
            .stdout,
        "some bytes"
    );
    let chunks = flux.run_input(&["content", "store", "--chunksize=4"], b"some bytes");
    assert_eq!(chunks.ok().lines().len(), 3);
    let words: Vec<&str> = ["content", "load"].into_iter().chain(chunks.lines()).collect();
    assert_eq!(flux.run(&words).ok().stdout, "some bytes");
    flux.run_input(&["content", "store"], b"")
        .ok()
        .says("sha1-da39a3ee");
    flux.run(&["content", "load", "sha1-0000000000000000000000000000000000000000"])
        .fails()
        .complains("sha1-000");
    flux.run(&["content", "load", "nonsense"])
        .fails()
        .complains("nonsense");
    flux.stop();
}

#[test]
fn checkpoints() {
    let flux = Instance::boot(1);
    flux.run(&["kvs", "put", "--sync", "a=1"]).ok();
    let root = flux.run(&["kvs", "getroot", "--blobref"]).ok().line().to_owned();
    let list = flux.run(&["content", "checkpoint", "list"]);
    list.ok().says("Index").says("Rootref").says(&root);
    let json = flux.run(&["content", "checkpoint", "list", "--json"]);
    let first: serde_json::Value = serde_json::from_str(json.ok().lines()[0]).unwrap();
    assert_eq!(first["rootref"], root.as_str());
    flux.run(&["content", "checkpoint", "update", &root])
        .fails()
        .complains("unload kvs");
    flux.stop();
}

/// `kvs.checkpoint-period`: a checkpoint follows a change by itself, and the period can be changed.
#[test]
fn checkpoints_come_by_themselves() {
    let flux = Instance::builder(1)
        .config("[kvs]\ncheckpoint-period = \"20ms\"\n")
        .boot();
    flux.run(&["kvs", "put", "a=1"]).ok();
    let root = flux.run(&["kvs", "getroot", "--blobref"]).ok().line().to_owned();
    flux.wait_until(
        &["content", "checkpoint", "list", "-n"],
        Duration::from_secs(20),
        |output| output.stdout.contains(&root),
    );
    flux.run_input(&["config", "load"], b"[kvs]\ncheckpoint-period = \"often\"\n")
        .fails()
        .complains("kvs.checkpoint-period");
    flux.run_input(&["config", "load"], b"[kvs]\ncheckpoint-period = \"1h\"\n")
        .ok();
    flux.stop();
}

/// Blobs of keys that are gone go away; jobs and keys that are there stay, while the instance works.
#[test]
fn garbage_is_collected() {
    let flux = Instance::builder(1).config("[kvs]\nmax-checkpoints = 2\n").boot();
    let fill = "for i in 1 2 3 4 5 6; do head -c 100000 /dev/urandom | flux kvs put --raw gone$i=-
        flux kvs put --sync keep.$i=$i; done; flux run true
        for i in 1 2 3 4 5 6; do flux kvs unlink gone$i; flux kvs put --sync x=$i; done";
    flux.sh(fill).ok();
    let count = || {
        flux.run(&[
            "module",
            "stats",
            "-p",
            "object_count",
            "-t",
            "int",
            "content-sqlite",
        ])
        .ok()
        .line()
        .parse::<u64>()
        .unwrap()
    };
    let before = count();
    let running = flux.run(&[
        "submit",
        "sh",
        "-c",
        "while ! test -e done; do sleep 0.05; done; echo end",
    ]);
    let id = running.ok().line();
    flux.run(&["job", "wait-event", "-t", "20", id, "start"]).ok();
    for _ in 0..3 {
        flux.run(&["kvs", "put", "--sync", "y=1"]).ok();
        flux.run(&["gc", "-v"])
            .ok()
            .complains("marking from")
            .complains("deleted");
    }
    assert!(count() < before, "{before} {}", count());
    flux.run(&["fsck"]).ok();
    assert_eq!(flux.run(&["kvs", "get", "keep.3"]).ok().line(), "3");
    flux.sandbox().write("done", "");
    assert_eq!(flux.run(&["job", "attach", id]).ok().line(), "end");
    flux.stop();
}

/// Who attaches just when a job ends sees what it said last, whatever must be read from the store for it.
#[test]
fn the_last_words_of_a_job_are_seen() {
    let flux = Instance::builder(1).config("[kvs]\nmax-checkpoints = 2\n").boot();
    for round in 0..10 {
        let script = format!("while ! test -e done{round}; do sleep 0.01; done; echo end");
        let submitted = flux.run(&["submit", "sh", "-c", &script]);
        let id = submitted.ok().line();
        flux.run(&["job", "wait-event", "-t", "20", id, "start"]).ok();
        flux.run(&["gc"]).ok();
        flux.run(&["kvs", "put", "--sync", "x=1"]).ok();
        flux.sandbox().write(&format!("done{round}"), "");
        assert_eq!(flux.run(&["job", "attach", id]).ok().line(), "end");
    }
    flux.stop();
}

/// Damages a store with the sqlite3 program's help of the broker's own tools: a blob is stored under a foreign root.
#[test]
fn damage_is_found_and_mended() {
    let flux = Instance::boot(1);
    flux.run(&["kvs", "put", "good=1"]).ok();
    let missing = "sha1-1111111111111111111111111111111111111111";
    let there = flux
        .run_input(&["content", "store", "-b"], b"first part")
        .ok()
        .line()
        .to_owned();
    let damaged = format!(r#"{{"ver":1,"type":"valref","data":["{there}","{missing}"]}}"#);
    flux.run(&["kvs", "put", "--treeobj", &format!("dir.damaged={damaged}")])
        .ok();
    let nodir = format!(r#"{{"ver":1,"type":"dirref","data":["{missing}"]}}"#);
    flux.run(&["kvs", "put", "--treeobj", &format!("dir.lost={nodir}")])
        .ok();
    let job = format!("job.0000.0123.4567.89ab.damaged={damaged}");
    flux.run(&["kvs", "put", "--treeobj", &job]).ok();
    flux.run(&["kvs", "put", "--sync", "job.0000.0123.4567.89ab.fine=2"])
        .ok();
    let report = flux.run(&["fsck"]);
    report
        .code(1)
        .complains("dir.damaged: missing blobref")
        .complains("dir.lost: ")
        .complains("Total errors: 3");
    flux.run(&["fsck", "--repair"]).fails().complains("unload kvs");
    let repair = "flux queue stop -q; for m in sched-simple job-exec job-ingest job-list job-info job-manager resource kvs-watch kvs; do
        flux module remove -f $m || exit 9; done
        flux fsck --repair --job-aware; echo code $?; flux fsck; flux module load kvs";
    let output = flux.sh(repair);
    output
        .ok()
        .says("code 1")
        .complains("Total repairs: 2")
        .complains("Total unlinked directories: 1")
        .complains("moved to lost+found")
        .complains("Total errors: 0");
    assert_eq!(flux.run(&["kvs", "get", "good"]).ok().line(), "1");
    flux.run(&["kvs", "get", "dir.damaged"]).fails();
    flux.run(&["kvs", "dir", "dir.lost"]).fails();
    let rest = flux.run(&["kvs", "get", "--raw", "lost+found.dir.damaged"]);
    assert_eq!(rest.ok().stdout, "first part");
    assert_eq!(
        flux.run(&["kvs", "get", "lost+found.job.0000.0123.4567.89ab.fine"])
            .ok()
            .line(),
        "2"
    );
    flux.run(&["kvs", "get", "job.0000.0123.4567.89ab.fine"]).fails();
}
