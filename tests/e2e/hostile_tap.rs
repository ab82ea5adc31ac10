//! A jobtap plugin that misbehaves on purpose: other people's jobs end, the log names it, requests are answered as fast as ever.

use flux_tests::Instance;

pub(super) const HOSTILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/policies-test/jobtap-hostile.cwasm"
);
const OPEN: &str =
    "[policies.jobtap-hostile]\non-failure = \"open\"\ndeadline = \"100ms\"\nmemory-mib = 16\n";

fn ordered(flux: &Instance, order: &str) -> String {
    let option = format!("--setattr=system.hostile={order}");
    flux.run(&["submit", &option, "true"]).ok().line().to_owned()
}

fn load(flux: &Instance) {
    load_with(flux, &[]);
}

fn load_with(flux: &Instance, args: &[&str]) {
    let words = [&["jobtap", "load", "--remove=jobtap-hostile", HOSTILE], args].concat();
    flux.run(&words).ok();
}

/// What a broker holds.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    files: usize,
    threads: usize,
    kilobytes: u64,
}

fn footprint(flux: &Instance) -> Footprint {
    let count = |dir: &str| {
        std::fs::read_dir(format!("/proc/{}/{dir}", flux.pid(0)))
            .unwrap()
            .count()
    };
    let status = std::fs::read_to_string(format!("/proc/{}/status", flux.pid(0))).unwrap();
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    Footprint {
        files: count("fd"),
        threads: count("task"),
        kilobytes: rss.split_whitespace().next().unwrap().parse().unwrap(),
    }
}

/// The job manager waits for no answer of its plugins.
fn nothing_waits(flux: &Instance) {
    flux.wait_until(
        &["module", "stats", "job-manager"],
        std::time::Duration::from_secs(20),
        |output| output.ok().json()["jobtap"]["waiting"] == 0,
    );
}

#[test]
fn each_deed_costs_its_own_job_at_most() {
    let flux = Instance::builder(1).config(OPEN).boot();
    for deed in [
        "loop",
        "bomb",
        "trap",
        "recurse",
        "huge-refusal",
        "flood",
        "many-wishes",
        "huge-state",
        "huge-wish",
        "lie",
        "timers",
    ] {
        load(&flux);
        flux.run(&["run", "true"]).ok();
        for callback in ["validate", "state.run", "state.inactive"] {
            let id = ordered(&flux, &format!("{callback} {deed}"));
            flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
                .ok();
        }
    }
    let log = flux.run(&["dmesg"]);
    // where it failed is told, by the names of its functions
    let traced = |line: &&str| {
        line.contains(": plugin jobtap-hostile failed in state: panic or abort (in ")
            && line.contains("jobtap_hostile")
    };
    assert!(log.lines().iter().any(traced), "{log}");
    log.ok()
        .says("failed in validate: exceeded its deadline of 100 ms")
        .says("failed in state: panic or abort")
        .says("jobtap-hostile.err");
    let lines = log
        .ok()
        .lines()
        .iter()
        .filter(|line| line.contains(": line "))
        .count();
    assert!((1..=700).contains(&lines), "{lines} lines of floods");
    nothing_waits(&flux);
    flux.stop();
}

/// Has a callback of a job made, or one that needs a word to the broker.
fn provoke(flux: &Instance, callback: &str) {
    let order = format!("--setattr=system.hostile={callback} trap");
    let submit = |words: &[&str]| {
        let words = [&["submit", &order], words].concat();
        flux.run(&words).ok().line().to_owned()
    };
    let clean = |id: &str| {
        flux.run(&["job", "wait-event", "--timeout=30", id, "clean"]).ok();
    };
    match callback {
        "update" => {
            let id = submit(&["--urgency=hold", "true"]);
            flux.run(&["update", &id, "attributes.system.hostile=x"])
                .fails()
                .complains("jobtap-hostile");
            flux.run(&["cancel", &id]).ok();
            clean(&id);
        }
        "dependency" => clean(&submit(&["--dependency=hostile:x", "true"])),
        "configure" | "init" => {
            let at = format!("at={callback}");
            let words = [
                "jobtap",
                "load",
                "-r",
                "jobtap-hostile",
                HOSTILE,
                &at,
                "deed=trap",
            ];
            flux.run(&words).fails().complains("jobtap-hostile");
        }
        "removed" => {
            clean(&submit(&["true"]));
            flux.run(&["job", "purge", "--force", "--num-limit=0"]).ok();
        }
        "query" => {
            flux.run(&["jobtap", "query", "jobtap-hostile"])
                .fails()
                .complains("jobtap-hostile");
        }
        "request" => {
            let mut handle = flux.handle(0);
            let none = serde_json::json!({});
            let topic = "job-manager.jobtap-hostile.anything";
            let answer = handle.call::<serde_json::Value>(topic, flux_client::NODEID_ANY, &none);
            let error = answer.unwrap_err().to_string();
            assert!(error.contains("jobtap-hostile"), "{error}");
        }
        _ => clean(&submit(&["true"])),
    }
}

/// Whatever a trap ends: other jobs run, the log names plugin and callback, nothing is left waiting.
#[test]
fn a_trap_at_each_callback() {
    let flux = Instance::builder(1)
        .config(&format!("{OPEN}grants = [\"service\"]\n"))
        .boot();
    for (callback, function) in [
        ("create", "create"),
        ("validate", "validate"),
        ("dependency", "dependency"),
        ("new", "new-job"),
        ("destroy", "destroy"),
        ("state.depend", "state"),
        ("state.priority", "state"),
        ("state.sched", "state"),
        ("state.run", "state"),
        ("state.cleanup", "state"),
        ("state.inactive", "state"),
        ("event.start", "event"),
        ("event.clean", "event"),
        ("priority", "priority"),
        ("update", "update"),
        ("added", "added"),
        ("removed", "removed"),
        ("looked-up", "looked-up"),
        ("expired", "expired"),
        ("request", "request"),
        ("query", "query"),
        ("configure", "configure"),
        ("init", "init"),
    ] {
        let own = ["removed", "looked-up", "expired", "request", "query"].contains(&callback);
        let at = format!("at={callback}");
        let mut args = vec!["topics=job.new"];
        if own {
            args = vec![&at, "deed=trap"];
        } else if !["configure", "init"].contains(&callback) {
            args = Vec::new();
        }
        if callback == "request" {
            args.push("topics=service.anything");
        }
        load_with(&flux, &args);
        flux.run(&["dmesg", "--clear"]).ok();
        provoke(&flux, callback);
        flux.run(&["run", "true"]).ok();
        let said = format!("failed in {function}: panic or abort");
        if !["configure", "init"].contains(&callback) {
            flux.wait_until(&["dmesg"], std::time::Duration::from_secs(20), |log| {
                let named = |line: &&str| line.contains("jobtap-hostile") && line.contains(&said);
                log.ok().lines().iter().any(named)
            });
        }
        nothing_waits(&flux);
    }
    flux.stop();
}

/// A plugin that runs a program for each job, and traps when it is told of the end.
#[test]
fn a_trap_at_the_end_of_a_program() {
    let exited = HOSTILE.replace("jobtap-hostile", "jobtap-exited");
    let config = "[policies.jobtap-exited]\non-failure = \"open\"\ngrants = [\"exec\"]\n";
    let flux = Instance::builder(1).config(config).boot();
    flux.run(&["jobtap", "load", &exited]).ok();
    flux.run(&["run", "true"]).ok();
    flux.wait_until(&["dmesg"], std::time::Duration::from_secs(20), |log| {
        let told =
            |line: &&str| line.contains("jobtap-exited") && line.contains("failed in exited: panic or abort");
        log.ok().lines().iter().any(told)
    });
    flux.run(&["run", "true"]).ok();
    nothing_waits(&flux);
    flux.stop();
}

/// The plugin has itself called from within a call, and talks with itself about a job without end.
#[test]
fn reentrance_through_a_service_ends() {
    let flux = Instance::builder(1)
        .config(&format!("{OPEN}grants = [\"service\"]\n"))
        .boot();
    load_with(
        &flux,
        &["topics=service.reenter,job.event.echo,job.priority.get,job.state.sched"],
    );
    let id = flux
        .run(&[
            "submit",
            "--setattr=system.hostile=event.echo echo",
            "sleep",
            "inf",
        ])
        .ok()
        .line()
        .to_owned();
    let number: u64 = flux.run(&["job", "id", &id]).ok().line().parse().unwrap();
    let mut handle = flux.handle(0);
    for _ in 0..3 {
        let topic = "job-manager.jobtap-hostile.reenter";
        let about = serde_json::json!({"id": number});
        handle
            .call::<serde_json::Value>(topic, flux_client::NODEID_ANY, &about)
            .unwrap();
    }
    flux.run(&["run", "true"]).ok();
    flux.wait_until(&["dmesg"], std::time::Duration::from_secs(30), |log| {
        log.ok().stdout.contains("more than 1000 events of plugins")
    });
    nothing_waits(&flux);
    let log = flux.run(&["job", "eventlog", &id]);
    let echoes = |line: &&&str| line.split(' ').nth(1) == Some("echo");
    assert_eq!(log.ok().lines().iter().filter(echoes).count(), 1000);
    flux.run(&["cancel", &id]).ok();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    flux.stop();
}

/// Instances come and go; their memory, files and threads go with them.
#[test]
fn nothing_leaks() {
    let flux = Instance::builder(1).config(OPEN).boot();
    let round = || {
        for deed in ["trap", "bomb", "recurse"] {
            load(&flux);
            let id = ordered(&flux, &format!("state.run {deed}"));
            flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
                .ok();
        }
        flux.run(&["jobtap", "remove", "jobtap-hostile"]).ok();
        nothing_waits(&flux);
    };
    (0..3).for_each(|_| round());
    let before = footprint(&flux);
    (0..10).for_each(|_| round());
    let after = footprint(&flux);
    println!("{before:?} {after:?}");
    assert!(after.files <= before.files + 2 && after.threads <= before.threads + 1);
    // 30 instances with 16 MiB each were there in between
    assert!(after.kilobytes < before.kilobytes + 8192, "{before:?} {after:?}");
    flux.stop();
}

/// R that names what is not there, or what others have: its own job fails, the others run.
#[test]
fn resources_that_are_not_there() {
    let flux = Instance::boot(1);
    flux.run(&["jobtap", "load", "alloc-bypass.so"]).ok();
    let busy = flux
        .run(&["submit", "-N1", "--exclusive", "sleep", "inf"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &busy, "start"])
        .ok();
    let r = |rank: &str, core: &str| {
        format!(
            r#"{{"version":1,"execution":{{"R_lite":[{{"rank":"{rank}","children":{{"core":"{core}"}}}}],"starttime":0,"expiration":0,"nodelist":["x"]}}}}"#
        )
    };
    for bad in [
        r("7", "0"),
        r("0", "100000"),
        r("0-4000000000", "0"),
        r("-1", "x"),
        "{}".to_owned(),
    ] {
        let option = format!("--setattr=system.alloc-bypass.R={bad}");
        let submitted = flux.run(&["submit", &option, "-n1", "true"]);
        if submitted.code == 0 {
            let id = submitted.line();
            flux.run(&["cancel", id]);
            flux.run(&["job", "wait-event", "--timeout=30", id, "clean"]).ok();
        }
    }
    flux.run(&["jobs", "-no", "{state}", &busy]).ok().says("RUN");
    flux.run(&["cancel", &busy]).ok();
    flux.run(&["run", "--exclusive", "-N1", "true"]).ok();
    flux.stop();
}

#[test]
fn quarantine_and_reload() {
    let flux = Instance::boot(1);
    load(&flux);
    for _ in 0..5 {
        flux.run(&["submit", "--setattr=system.hostile=validate trap", "true"])
            .fails()
            .complains("panic or abort");
    }
    flux.run(&["jobtap", "list", "-v"]).ok().says("quarantined");
    flux.run(&["submit", "--setattr=system.hostile=x y", "true"])
        .fails()
        .complains("quarantine");
    // it never asked to see this one
    flux.run(&["run", "true"]).ok();
    load(&flux);
    flux.run(&["run", "--setattr=system.hostile=x y", "true"]).ok();
    // a successor that cannot be loaded leaves it in place
    flux.run(&[
        "jobtap",
        "load",
        "-r",
        "jobtap-hostile",
        HOSTILE,
        "topics=job.fly",
    ])
    .fails()
    .complains("no callback of the world jobtap");
    flux.run(&["jobtap", "list"]).ok().says("jobtap-hostile");
    flux.stop();
}
