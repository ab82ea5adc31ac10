//! `flux jobtap`: the standard plugins, loading, replacing, removing; what happens to jobs.

use flux_tests::Instance;

const STANDARD: [&str; 11] = [
    ".priority-default",
    ".limit-job-size",
    ".limit-duration",
    ".dependency-after",
    ".dependency-singleton",
    ".begin-time",
    ".validate-duration",
    ".update-duration",
    ".history",
    ".post-event",
    ".update-queue",
];

#[test]
fn list_load_query_remove() {
    let flux = Instance::boot(1);
    assert_eq!(flux.run(&["jobtap", "list"]).ok().lines().len(), 0);
    assert_eq!(flux.run(&["jobtap", "list", "-a"]).ok().lines(), STANDARD);
    flux.run(&["jobtap", "load", "submit-hold.so"]).ok();
    assert_eq!(flux.run(&["jobtap", "list"]).ok().lines(), ["submit-hold.so"]);
    let id = flux.run(&["submit", "true"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "priority"])
        .ok()
        .says("priority=0");
    flux.run(&["jobtap", "load", "submit-hold.so"])
        .fails()
        .complains("already loaded");
    flux.run(&["jobtap", "load", "--remove=submit-hold.so", "submit-hold.so"])
        .ok();
    flux.run(&["jobtap", "query", "submit-hold.so"])
        .ok()
        .says("jobtap-submit-hold.wasm");
    flux.run(&["jobtap", "remove", "all"]).ok();
    assert_eq!(flux.run(&["jobtap", "list"]).ok().lines().len(), 0);
    flux.run(&["jobtap", "remove", "submit-hold.so"])
        .fails()
        .complains("Failed to find plugin to remove");
    flux.run(&["run", "true"]).ok();
    let table = flux.run(&["jobtap", "list", "-av"]);
    let row = |name: &str| {
        let lines = table.ok().lines();
        let found = lines.iter().find(|line| line.starts_with(&format!("{name} ")));
        found.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let default = row(".priority-default").unwrap();
    assert!(
        default[4].parse::<u64>().unwrap() >= 1 && default[9] == "running",
        "{default:?}"
    );
    flux.run(&["job", "urgency", &id, "16"]).ok();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    flux.run(&["jobtap", "load", "site-own.so"])
        .fails()
        .complains("native plugins are not loaded");
    flux.run(&["jobtap", "load", "nosuch"])
        .fails()
        .complains("no such plugin");
    let stats = flux.run(&["module", "stats", "job-manager"]).ok().json();
    let plugins = stats["jobtap"]["plugins"].as_array().unwrap();
    let named = |name: &str| plugins.iter().find(|plugin| plugin["name"] == name).unwrap();
    let default = named(".priority-default");
    assert!(
        default["calls"].as_u64() >= Some(1) && default["p99"].as_f64() > Some(0.0),
        "{default}"
    );
    assert_eq!(named(".limit-duration")["traps"], 0);
    flux.stop();
}

#[test]
fn plugins_of_the_configuration() {
    let config = "[[job-manager.plugins]]\nremove = \".limit-duration\"\n\
                  [[job-manager.plugins]]\nload = \"submit-hold.so\"\n[policy.limits]\nduration = \"1m\"\n";
    let flux = Instance::builder(1).config(config).boot();
    assert_eq!(flux.run(&["jobtap", "list"]).ok().lines(), ["submit-hold.so"]);
    // the plugin that knows this limit is gone
    let id = flux.run(&["submit", "-t", "1h", "true"]).ok().line().to_owned();
    flux.run(&["jobs", "-no", "{urgency}", &id]).ok().says("0");
    flux.run(&["cancel", &id]).ok();
    flux.stop();
    let pin = format!("[policies.submit-hold]\nsha256 = \"{}\"\n", "0".repeat(64));
    let flux = Instance::builder(1)
        .config(&format!("{pin}[[job-manager.plugins]]\nload = \"submit-hold\"\n"))
        .boot();
    flux.run(&["submit", "true"])
        .fails()
        .complains("the configuration pins");
    flux.run(&["jobtap", "list"])
        .ok()
        .complains("submissions are refused");
    flux.stop();
}

/// Resources that a plugin gives past the scheduler are not given twice.
#[test]
fn alloc_check() {
    let flux = Instance::boot(1);
    flux.run(&["jobtap", "load", "alloc-bypass.so"]).ok();
    let all = flux
        .run(&["submit", "-n1", "sleep", "1000"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &all, "start"])
        .ok();
    // jobs that have resources already are known to it
    flux.run(&["jobtap", "load", "alloc-check.so"]).ok();
    let r = flux.run(&["job", "info", &all, "R"]).ok().line().to_owned();
    let option = format!("--setattr=system.alloc-bypass.R={r}");
    let twice = flux
        .run(&["submit", &option, "-n1", "true"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &twice, "clean"])
        .ok();
    let log = flux.run(&["job", "eventlog", &twice]);
    log.ok()
        .says("exception type=\"alloc-check\" severity=0 note=\"resources already allocated\"");
    assert!(log.ok().lines().iter().all(|line| !line.contains(" start")));
    // the first job is not disturbed, and what it leaves can be taken again
    flux.run(&["jobs", "-no", "{state}", &all]).ok().says("RUN");
    flux.run(&["cancel", &all]).ok();
    flux.run(&["job", "wait-event", "--timeout=30", &all, "clean"])
        .ok();
    flux.run(&["run", &option, "-n1", "true"]).ok();
    flux.run(&["run", "--exclusive", "-N1", "true"]).ok();
    flux.stop();
}

/// The owner may give a job resources that the scheduler does not hand out.
#[test]
fn alloc_bypass() {
    let flux = Instance::boot(1);
    flux.run(&["jobtap", "load", "alloc-bypass.so"]).ok();
    let all = flux
        .run(&["submit", "--exclusive", "-N1", "sleep", "1000"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &all, "start"])
        .ok();
    let r = flux.run(&["job", "info", &all, "R"]).ok().line().to_owned();
    let option = format!("--setattr=system.alloc-bypass.R={r}");
    flux.run(&["run", &option, "-n1", "true"]).ok();
    let id = flux.run(&["job", "last"]).ok().line().to_owned();
    let log = flux.run(&["job", "eventlog", &id]);
    log.ok()
        .says("alloc bypass=true")
        .says("set-flags flags=[\"alloc-bypass\"]");
    flux.run(&["cancel", &all]).ok();
    flux.run(&["run", "--exclusive", "-N1", "true"]).ok();
    flux.stop();
}
