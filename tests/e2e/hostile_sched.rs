//! Schedulers, validators and files of plugins that are bad on purpose: jobs run, and the log says who is to blame.

use flux_tests::Instance;

fn test_policy(name: &str) -> String {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies-test");
    format!("{dir}/{name}")
}

fn runs(flux: &Instance) {
    flux.run(&["submit", "--cc=1-6", "--wait", "--quiet", "-n1", "true"])
        .ok();
    flux.run(&["run", "--exclusive", "-N1", "true"]).ok();
}

#[test]
fn jobs_run_whatever_the_scheduler_does() {
    for (mode, said) in [
        ("loop", "exceeded its deadline"),
        ("bomb", "failed in schedule"),
        ("recurse", "failed in schedule"),
        ("trap", "failed in schedule: panic or abort"),
        ("trap-later", "failed in schedule: panic or abort"),
        ("lie", ""),
        ("numbers", ""),
        ("flood", "line 1"),
    ] {
        let flux = Instance::builder(1)
            .config(&format!(
                "[sched-simple]\npolicy = \"{}\"\n[hostile]\nsched = \"{mode}\"\n",
                test_policy("sched-hostile")
            ))
            .boot();
        runs(&flux);
        let log = flux.run(&["dmesg"]);
        let named = |line: &&str| line.contains("sched-hostile") && line.contains(said);
        assert!(log.ok().lines().iter().any(named), "{mode}: {log}");
        flux.stop();
    }
}

/// Submissions that a validator answers with a trap fail with its name; others go on.
#[test]
fn submissions_outlive_a_validator() {
    let config = format!(
        "[ingest.validator]\nplugins = [\"{}\"]\n",
        test_policy("validator-hostile")
    );
    let flux = Instance::builder(1).config(&config).boot();
    runs(&flux);
    flux.stop();
}

/// A directory of policies with one file that was changed.
#[test]
fn changed_files_are_refused_and_named() {
    let flux = Instance::boot(1);
    let dir = flux.sandbox().workdir().join("policies");
    std::fs::create_dir(&dir).unwrap();
    let file = |kind: &str| dir.join(format!("jobtap-hostile.{kind}"));
    let original = |kind: &str| std::fs::read(format!("{}.{kind}", test_policy("jobtap-hostile"))).unwrap();
    let path = file("cwasm").display().to_string();
    let (code, manifest) = (original("cwasm"), original("json"));
    let mut flipped = code.clone();
    flipped[code.len() / 3] ^= 4;
    let text = String::from_utf8(manifest.clone()).unwrap();
    let other_version = text.replace("0.1.0\"", "9.0.0\"").into_bytes();
    for (code, manifest, said) in [
        (&flipped, &manifest, "does not match its manifest"),
        (
            &code[..code.len() / 2].to_vec(),
            &manifest,
            "does not match its manifest",
        ),
        (&Vec::new(), &manifest, "does not match its manifest"),
        (&code, &manifest[..40].to_vec(), "manifest"),
        (&code, &other_version, "this host speaks 0.1.0"),
    ] {
        std::fs::write(file("cwasm"), code).unwrap();
        std::fs::write(file("json"), manifest).unwrap();
        flux.run(&["jobtap", "load", &path])
            .fails()
            .complains(said)
            .complains("jobtap-hostile");
    }
    std::fs::write(file("cwasm"), &code).unwrap();
    std::fs::write(file("json"), &manifest).unwrap();
    flux.run(&["jobtap", "load", &path]).ok();
    runs(&flux);
    flux.stop();
}

/// What the configuration names after a component that must be compiled comes after it in the stack, too.
#[test]
fn a_raw_component_keeps_its_place_in_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = dir.path().join("mine.wasm");
    std::fs::copy(format!("{}.wasm", test_policy("jobtap-empty")), &wasm).unwrap();
    let config = format!(
        "[job-manager]\nplugins = [{{ load = \"{}\" }}, {{ load = \"submit-hold.so\" }}]\n",
        wasm.display()
    );
    let flux = Instance::builder(1).config(&config).boot();
    // no job is let in before all plugins are there
    let id = flux.run(&["submit", "true"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "priority"])
        .ok()
        .says("priority=0");
    assert_eq!(
        flux.run(&["jobtap", "list"]).ok().lines(),
        ["mine", "submit-hold.so"]
    );
    flux.stop();
}

/// A component as it comes from a compiler: compiled once, kept, and refused by name when it is broken.
#[test]
fn raw_components_are_compiled_on_load() {
    let mut flux = Instance::builder(1).persistent().boot();
    let dir = flux.sandbox().workdir().join("raw");
    std::fs::create_dir(&dir).unwrap();
    let wasm = dir.join("mine.wasm");
    let good = std::fs::read(format!("{}.wasm", test_policy("jobtap-hostile"))).unwrap();
    let path = wasm.display().to_string();
    let other_version = good
        .windows(6)
        .enumerate()
        .filter(|(_, window)| *window == b"@0.1.0")
        .fold(good.clone(), |mut changed, (at, _)| {
            changed[at + 1..at + 6].copy_from_slice(b"0.7.0");
            changed
        });
    for (bad, said) in [
        (&b"no component"[..], "malformed component"),
        (&good[..good.len() / 2], "malformed component"),
        (
            &other_version,
            "built for flux:policy@0.7.0; this host speaks 0.1.0",
        ),
    ] {
        std::fs::write(&wasm, bad).unwrap();
        flux.run(&["jobtap", "load", &path])
            .fails()
            .complains(said)
            .complains("mine");
    }
    std::fs::write(&wasm, &good).unwrap();
    flux.run(&["jobtap", "load", &path]).ok();
    flux.run(&["jobtap", "list"]).ok().says("mine");
    flux.run(&["submit", "--setattr=system.hostile=validate refuse", "true"])
        .fails()
        .complains("as ordered");
    runs(&flux);
    // a changed file in the cache is found out, and where the cache is whole nothing is compiled again
    flux.crash();
    flux.boot_again();
    flux.run(&["jobtap", "load", &path]).ok();
    let cache = flux.sandbox().workdir().join("state/policy-cache");
    // the one of the other version, which was compiled and then refused, may be there as well
    let compiled = std::fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("mine.cwasm"))
        .filter(|path| path.is_file());
    let mut changed = 0;
    for code in compiled {
        let mut bytes = std::fs::read(&code).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // the broker has mapped the old one
        std::fs::remove_file(&code).unwrap();
        std::fs::write(&code, bytes).unwrap();
        changed += 1;
    }
    assert!(changed > 0, "nothing is cached");
    flux.run(&["jobtap", "load", "-r", "mine", &path])
        .fails()
        .complains("does not match its manifest");
    flux.run(&["jobtap", "list"]).ok().says("mine");
    runs(&flux);
    flux.stop();
}
