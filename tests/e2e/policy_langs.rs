//! Policies of one's own in each language: new, one line edited, built, tested, loaded.

use flux_tests::{Capability, Sandbox, bindir, data_file, langs, missing};
use std::time::Duration;

/// Returns a sandbox in which the tools of all languages are found.
fn sandbox() -> Sandbox {
    let path = [
        bindir().display().to_string(),
        langs("venv/bin"),
        std::env::var("PATH").unwrap_or_default(),
    ];
    let cache = bindir().join("../wasm/langs/zig-cache").display().to_string();
    let sandbox = Sandbox::new();
    let sandbox = match std::env::var("FLUX_POLICY_COMPILE") {
        // an optimised one
        Ok(compiler) => sandbox.env("FLUX_POLICY_COMPILE", &compiler),
        Err(_) => sandbox,
    };
    sandbox
        .env("PATH", &path.join(":"))
        .env("NODE_PATH", &langs("node_modules"))
        .env("ZIG_GLOBAL_CACHE_DIR", &cache)
        // the crates that policies in Rust need were built with the standard set
        .env(
            "CARGO_TARGET_DIR",
            &bindir().join("../wasm/guests").display().to_string(),
        )
        .deadline(Duration::from_secs(300))
}

/// What a user types, from nothing to a plugin that refuses the third job of a user. `grants` is what the site allows it.
fn from_nothing_to_a_loaded_plugin(lang: &str, source: &str, grants: &str) -> Sandbox {
    let sandbox = sandbox();
    let new = [
        "policy",
        "new",
        "few",
        "--world=jobtap",
        &format!("--lang={lang}"),
    ];
    sandbox.run("flux", &new).ok().says("flux policy build few");
    sandbox
        .run(
            "sed",
            &[
                "-i",
                "s/you may have/sorry: you may have/",
                &format!("few/{source}"),
            ],
        )
        .ok();
    sandbox
        .run("flux", &["policy", "build", "few"])
        .ok()
        .says("jobtap 0.1.0");
    sandbox
        .run("flux", &["policy", "test", "few"])
        .ok()
        .says("8 passed, 0 failed");
    let config = format!("[policies.few]\ndeadline = \"5s\"\n{grants}");
    let config = sandbox.write("conf/flux.toml", &config);
    let config = format!("--config-path={}", config.parent().unwrap().display());
    let script = "flux jobtap load $PWD/few/policies/few.wasm && flux submit --cc=1-2 sleep 1000 && flux jobtap list -v; \
                  flux submit true; flux policy replay few $(flux job last) --dir=few/policies; flux cancel --all";
    let seen = sandbox.run("flux", &["start", &config, "sh", "-c", script]);
    seen.complains("sorry: you may have at most 2 active jobs")
        .says("running")
        .says("0.000 submit");
    sandbox
}

#[test]
fn rust() {
    let sandbox = from_nothing_to_a_loaded_plugin("rust", "src/lib.rs", "");
    let figures = sandbox.run(
        "flux",
        &[
            "policy",
            "bench",
            "few",
            "--dir=few/policies",
            "--calls=200",
            "--json",
        ],
    );
    let figures = figures.ok().json();
    // two jobs are let in, and stay
    assert_eq!(
        (&figures["jobs"], &figures["refused"]),
        (&200.into(), &196.into())
    );
    assert!(figures["memory_bytes"].as_u64() > Some(65535) && figures["call_p99_us"].as_f64() > Some(0.0));
    let bench = ["policy", "bench", "jobtap-history", "--calls=50"];
    sandbox
        .run("flux", &bench)
        .ok()
        .says("job p99 us")
        .says("memory bytes");
}

#[test]
fn c() {
    if missing(Capability::Zig) {
        return;
    }
    let sandbox = from_nothing_to_a_loaded_plugin("c", "policy.c", "");
    sandbox.run("flux", &["policy", "new", "hour", "--lang=c"]).ok();
    sandbox
        .run("flux", &["policy", "build", "hour"])
        .ok()
        .says("validator 0.1.0");
    sandbox
        .run("flux", &["policy", "test", "hour"])
        .ok()
        .says("3 passed, 0 failed");
    sandbox
        .run("sed", &["-i", "s/return/retrun/", "hour/policy.c"])
        .ok();
    sandbox
        .run("flux", &["policy", "build", "hour"])
        .fails()
        .complains("policy.c");
}

#[test]
fn python() {
    if missing(Capability::ComponentizePy) {
        return;
    }
    from_nothing_to_a_loaded_plugin("python", "policy.py", "memory-mib = 256\n");
}

#[test]
fn javascript() {
    if missing(Capability::ComponentizeJs) {
        return;
    }
    from_nothing_to_a_loaded_plugin("js", "policy.js", "memory-mib = 256\n");
}

/// A tool chain that is not there is named, with the way to get it.
#[test]
fn what_is_missing_is_named() {
    let sandbox = Sandbox::new().env("FLUX_POLICY_CC", "/no/such/cc");
    for (lang, text) in [
        ("c", "cannot run /no/such/cc"),
        ("python", "pip install componentize-py=="),
        ("js", "npm install @bytecodealliance/componentize-js@"),
    ] {
        let lang_option = format!("--lang={lang}");
        sandbox.run("flux", &["policy", "new", lang, &lang_option]).ok();
        sandbox
            .run("env", &["NODE_PATH=", "flux", "policy", "build", lang])
            .fails()
            .complains(text);
    }
}

/// Components of each released version of the interface run for ever. They were built by `flux policy build` of their time.
#[test]
fn released_components_still_run() {
    let sandbox = Sandbox::new().deadline(Duration::from_secs(60));
    for (version, name, passed) in [("0.1", "hour", 3), ("0.1", "few", 8)] {
        let from = data_file(&format!("components/{version}/{name}.wasm"));
        let project = format!("{name}-{version}");
        let dir = sandbox.workdir().join(&project);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(&from, dir.join(format!("{name}.wasm"))).unwrap();
        std::fs::copy(from.with_extension("json"), dir.join("test.json")).unwrap();
        sandbox
            .run("flux", &["policy", "build", &format!("{project}/{name}.wasm")])
            .ok();
        sandbox
            .run("flux", &["policy", "test", &project])
            .ok()
            .says(&format!("{passed} passed, 0 failed"));
        // a broker of another version says which ones it speaks
        let manifest = dir.join(format!("policies/{name}.json"));
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(
            &manifest,
            text.replace("\"wit\": \"0.1.0\"", "\"wit\": \"0.9.0\""),
        )
        .unwrap();
        sandbox
            .run("flux", &["policy", "test", &project])
            .fails()
            .complains("was built for flux:policy@0.9.0; this host speaks 0.1.0: build it again");
    }
}
