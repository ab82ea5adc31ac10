//! `flux policy`: what the command that writes, builds, tests and simulates policies does.

use flux_tests::{Capability, Sandbox, bindir, data_file, missing};
use std::process::Command;
use std::time::Duration;

#[test]
fn schedulers_are_compared_over_a_trace_and_easy_delays_nobody() {
    let sandbox = Sandbox::new().deadline(Duration::from_secs(120));
    let page = sandbox.workdir().join("page.html").display().to_string();
    let html = format!("--html={page}");
    let words = [
        "policy",
        "simulate",
        "--generate=10000",
        "--nodes=50",
        "--cores=48",
        "-p",
        "fcfs",
        "-p",
        "easy",
        "--json",
        &html,
    ];
    let report = sandbox.run("flux", &words).ok().json();
    let [fcfs, easy] = &report["policies"].as_array().unwrap()[..] else {
        panic!("{report}")
    };
    for policy in [fcfs, easy] {
        assert_eq!(policy["jobs"], 10_000);
        assert_eq!(policy["checks"]["head_delays"], 0, "{policy}");
        assert!(policy["jobs_per_second"].as_f64().unwrap() > 200.0, "{policy}");
    }
    assert_eq!(
        (&fcfs["backfilled"], &fcfs["checks"]["idle_heads"]),
        (&0.0.into(), &0.into())
    );
    assert!(easy["backfilled"].as_f64() > Some(0.1));
    assert!(easy["utilisation"].as_f64() > fcfs["utilisation"].as_f64());
    let text = std::fs::read_to_string(&page).unwrap();
    for id in ["utilisation", "waiting", "waits", "sizes"] {
        assert!(text.contains(&format!("<svg id=\"{id}\"")), "no chart {id}");
    }
    assert_eq!(text.matches("<polyline").count(), 6);
    assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("NaN"));
    look_at(&sandbox, &page);
}

/// Opens the page in a browser: it must draw the charts where it says it does.
fn look_at(sandbox: &Sandbox, page: &str) {
    if missing(Capability::Chromium) {
        return;
    }
    let picture = sandbox.workdir().join("page.png");
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=900,1900",
            "--dump-dom",
        ])
        .arg(format!(
            "--user-data-dir={}",
            sandbox.workdir().join("browser").display()
        ))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{page}"));
    let output = sandbox.finish(command, b"");
    output.ok().says("<polyline").says("<rect");
    // a white page of that size is a few KB
    assert!(
        std::fs::metadata(&picture).unwrap().len() > 40_000,
        "the picture is empty"
    );
}

#[test]
fn traces_that_cannot_be_used() {
    let sandbox = Sandbox::new();
    let simulate = |words: &[&str]| sandbox.run("flux", &[&["policy", "simulate"], words].concat());
    simulate(&[])
        .fails()
        .complains("name a trace, or make one up with --generate=JOBS");
    simulate(&["/no/such"]).fails().complains("cannot read /no/such");
    let bad = sandbox.write("bad.swf", "; a trace\n1 2 three\n");
    simulate(&[&bad.display().to_string()])
        .fails()
        .complains("line 2: not a line of numbers");
    let good = sandbox.write("good.swf", "1 0 -1 10 2 -1 -1 2 20 -1 1 1 -1 -1 -1 -1 -1 -1\n");
    let good = good.display().to_string();
    simulate(&[&good]).fails().complains("give --nodes and --cores");
    simulate(&[&good, "--nodes=2", "-p", "lottery"])
        .fails()
        .complains("cannot load policy 'lottery'");
    simulate(&[&good, "--nodes=2", "-p", "easy"])
        .ok()
        .says("utilisation")
        .says("100.0 %");
}

#[test]
fn policies_are_listed_inspected_and_measured() {
    let sandbox = Sandbox::new().deadline(Duration::from_secs(60));
    sandbox
        .run("flux", &["policy", "list"])
        .ok()
        .says("sched-easy")
        .says("validator-jobspec");
    let shown = sandbox
        .run("flux", &["policy", "inspect", "sched-easy", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&shown["world"], &shown["wit"]),
        (&"scheduler".into(), &"0.1.0".into())
    );
    let imports = shown["imports"].as_array().unwrap();
    assert!(
        imports
            .iter()
            .all(|import| import.as_str().unwrap().starts_with("flux:policy/"))
    );
    sandbox
        .run("flux", &["policy", "inspect", "nosuch"])
        .fails()
        .complains("no policy 'nosuch'")
        .complains("flux policy list");
    let figures = sandbox
        .run(
            "flux",
            &["policy", "bench", "validator-jobspec", "--calls=50", "--json"],
        )
        .ok()
        .json();
    assert_eq!((&figures["calls"], &figures["refused"]), (&50.into(), &0.into()));
    let words = [
        "policy",
        "bench",
        "sched-easy",
        "--calls=3",
        "--nodes=50",
        "--cores=16",
        "--pending=100",
        "--json",
    ];
    assert!(sandbox.run("flux", &words).ok().json()["decisions_per_second"].as_f64() > Some(0.0));
}

/// The lines of the guide, from nothing to a loaded policy.
#[test]
fn the_authors_guide_leads_to_a_loaded_policy() {
    let guide = std::fs::read_to_string(data_file("../docs/guide/policies.md")).unwrap();
    let block = guide
        .split("```console\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let lines: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(lines.len() <= 8, "{} commands are too many", lines.len());
    // the crates that policies need were built with the standard set
    let built = bindir().join("../wasm/guests").display().to_string();
    let sandbox = Sandbox::new()
        .env("CARGO_TARGET_DIR", &built)
        .deadline(Duration::from_secs(180));
    let (last, before) = lines.split_last().unwrap();
    for line in before {
        sandbox.run("sh", &["-c", line]).ok();
    }
    let refused = sandbox.run("sh", &["-c", last]);
    refused
        .fails()
        .complains("set a time limit with -t: above 0 and at most 3600 s");
    let allowed = last.replace("submit -t 2h", "run -t 1h");
    sandbox.run("sh", &["-c", &allowed]).ok();
    sandbox
        .run("flux", &["policy", "new", "hour"])
        .fails()
        .complains("hour exists already");
    sandbox
        .run("flux", &["policy", "new", "Hour"])
        .fails()
        .complains("lower-case letters");
    sandbox
        .run("flux", &["policy", "new", "day", "--lang=ada"])
        .fails()
        .complains("unknown language 'ada'; there are templates for rust, c, python, js");
    sandbox
        .run(
            "flux",
            &["policy", "new", "day", "--lang=js", "--world=scheduler"],
        )
        .fails()
        .complains("no template for a scheduler in JavaScript");
    sandbox
        .run("flux", &["policy", "build", "conf"])
        .fails()
        .complains("neither a project");
}

#[test]
fn a_scheduler_of_ones_own_runs_and_is_found_out() {
    let built = bindir().join("../wasm/guests").display().to_string();
    let sandbox = Sandbox::new()
        .env("CARGO_TARGET_DIR", &built)
        .deadline(Duration::from_secs(180));
    sandbox
        .run("flux", &["policy", "new", "sched-smallest", "--world=scheduler"])
        .ok();
    sandbox
        .run("flux", &["policy", "build", "sched-smallest"])
        .ok()
        .says("scheduler 0.1.0");
    sandbox
        .run("flux", &["policy", "test", "sched-smallest"])
        .ok()
        .says("7 passed, 0 failed");
    let words = [
        "policy",
        "simulate",
        "--generate=500",
        "--nodes=10",
        "--cores=8",
        "-p",
        "sched-smallest",
        "--dir=sched-smallest/policies",
    ];
    sandbox
        .run("flux", &words)
        .fails()
        .says("backfilled")
        .complains("sched-smallest delayed the first job");
    let path = sandbox
        .workdir()
        .join("sched-smallest/policies/sched-smallest")
        .display()
        .to_string();
    let config = sandbox.write(
        "conf/flux.toml",
        &format!("[sched-simple]\npolicy = \"{path}\"\n"),
    );
    let config = format!("--config-path={}", config.parent().unwrap().display());
    // it is there when a job has run
    let script = "flux run true && flux dmesg";
    sandbox
        .run("flux", &["start", &config, "sh", "-c", script])
        .ok()
        .says("loaded scheduler 0.1.0");
}

/// `flux job-validator` and `flux job-frobnicator`, outside of an instance.
#[test]
fn ingest_over_standard_input() {
    let sandbox = Sandbox::new();
    let list = sandbox.run("flux", &["job-validator", "--list-plugins"]);
    let names: Vec<String> = list
        .ok()
        .lines()
        .iter()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert_eq!(
        names,
        [
            "Available",
            "feasibility",
            "jobspec",
            "require-instance",
            "schema"
        ]
    );
    let good = sandbox
        .run("flux", &["submit", "--dry-run", "-n1", "true"])
        .ok()
        .json();
    let job =
        |jobspec: &serde_json::Value| serde_json::json!({"jobspec": jobspec, "userid": 1, "urgency": 16});
    let mut bad = good.clone();
    bad["version"] = 9.into();
    let input = format!("{}\n\n{}\n", job(&good), job(&bad));
    let plugins = "--plugins=jobspec,schema";
    let answers = sandbox.run_input("flux", &["job-validator", plugins], input.as_bytes());
    let answers = answers.ok().lines();
    assert_eq!(answers[0], r#"{"errnum":0}"#);
    let refused: serde_json::Value = serde_json::from_str(answers[1]).unwrap();
    assert!(
        refused["errnum"] == 22 && refused["errstr"].is_string(),
        "{refused}"
    );
    let alone = sandbox.run_input(
        "flux",
        &["job-frobnicator", "--jobspec-only", "--plugins=defaults"],
        good.to_string().as_bytes(),
    );
    let answer = alone.ok().json();
    assert!(
        answer["errnum"] == 0 && answer["data"]["version"] == 1,
        "{answer}"
    );
    sandbox
        .run_input("flux", &["job-validator"], b"{}\n")
        .fails()
        .complains("line 1: a job must be an object with a jobspec");
}
