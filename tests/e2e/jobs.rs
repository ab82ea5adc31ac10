//! `flux jobs`: formats of the user, and how they are listed.

use flux_tests::Instance;

#[test]
fn formats_of_the_user() {
    let flux = Instance::boot(1);
    flux.run(&["run", "--job-name=named", "true"]).ok();
    let file = flux.sandbox().write(
        ".config/flux/flux-jobs.toml",
        "[formats.mine]\ndescription = \"Mine\"\nformat = \"{name} {status}\"\n",
    );
    assert_eq!(
        flux.run(&["jobs", "-a", "-o", "mine"]).ok().lines(),
        ["NAME STATUS", "named COMPLETED"]
    );
    flux.run(&["jobs", "-o", "help"])
        .ok()
        .says("default")
        .says("endreason")
        .says("mine         Mine");
    flux.run(&["jobs", "-o", "get-config=mine"])
        .ok()
        .says("[formats.mine]\ndescription = \"Mine\"\nformat = \"{name} {status}\"\n");
    let output = flux.sh("FLUX_JOBS_FORMAT_DEFAULT=mine flux jobs -an");
    assert_eq!(output.ok().line(), "named COMPLETED");
    flux.run(&["jobs", "-o", "nosuch"])
        .fails()
        .complains("nosuch")
        .complains("mine");
    std::fs::write(file, "[formats.default]\nformat = \"{name}\"\n").unwrap();
    flux.run(&["jobs", "-o", "help"])
        .fails()
        .complains("override of builtin format 'default'");
    let config = "[queue.formats.x]\nformat = 1\n[list.formats.short]\nformat = \"{nnodes} {ncores}\"\n";
    flux.sandbox().write(".config/flux/flux-resource.toml", config);
    let output = flux.run(&["resource", "list", "-s", "all", "-no", "short"]);
    assert!(output.ok().line().starts_with("1 "), "{output}");
    for command in [
        ["resource", "list"],
        ["resource", "status"],
        ["resource", "drain"],
        ["queue", "list"],
    ] {
        flux.run(&[command[0], command[1], "--format=help"])
            .ok()
            .says("default");
    }
    flux.stop();
}

/// An instance in a job with three jobs of its own, of which one runs; returns its id.
fn nested(flux: &Instance) -> String {
    let id = flux.run(&["alloc", "-n1", "--bg"]).ok().line().to_owned();
    flux.run(&[
        "proxy",
        &id,
        "flux submit --quiet --job-name=inner --cc=1-3 --wait-event=priority sleep 1000",
    ])
    .ok();
    flux.wait_until(
        &["jobs", "-no", "{instance.stats}"],
        std::time::Duration::from_secs(20),
        |output| output.stdout.contains("PD:2 R:1"),
    );
    id
}

#[test]
fn jobs_of_instances_in_jobs() {
    let flux = Instance::boot(1);
    let id = nested(&flux);
    flux.run(&["submit", "--job-name=outer", "sleep", "1000"]).ok();
    let output = flux.run(&["jobs", "-Rno", "{name}"]);
    let lines = output.ok().lines();
    assert_eq!(lines[..2], ["outer", "flux"], "{output}");
    assert_eq!(
        lines[2..],
        ["", &format!("{id}:"), "inner", "inner", "inner"],
        "{output}"
    );
    assert_eq!(flux.run(&["jobs", "-RL0", "-no", "{name}"]).ok().lines().len(), 2);
    flux.run(&["jobs", "-R", "--stats"])
        .ok()
        .says("1 running, 0 completed, 0 failed, 2 pending\n");
    let json = flux.run(&["jobs", "-R", "--json", &id]).ok().json();
    assert_eq!(json["jobs"].as_array().unwrap().len(), 3);
    let format = "{instance.stats} {instance.stats.total} {instance.utilization!P} {instance.resources.free.ncores} {uri.local}";
    let output = flux.run(&["jobs", "-no", format, &id]);
    assert!(
        output
            .ok()
            .line()
            .starts_with("PD:2 R:1 CD:0 F:0 3 100% 0 local:///"),
        "{output}"
    );
    flux.run(&["cancel", "--user=all"]).ok();
    flux.run(&["queue", "drain", "-t", "30"]).ok();
    flux.stop();
}

#[test]
fn a_tree_of_jobs() {
    let flux = Instance::boot(1);
    let id = nested(&flux);
    flux.run(&[
        "submit",
        "--quiet",
        "--job-name=twin",
        "--cc=1-2",
        "sleep",
        "1000",
    ])
    .ok();
    let id_twin = flux.run(&["pgrep", "twin"]).ok().lines().len();
    assert_eq!(id_twin, 2);
    let output = flux.run(&["pstree", "-f", "active"]);
    assert_eq!(
        output.ok().lines(),
        [".", "├── 2*[twin]", "└── flux", "    └── 3*[inner]"]
    );
    let output = flux.run(&["pstree", "--ascii", "-Xp", "-f", "active"]);
    assert_eq!(output.ok().lines()[0], ". .", "{output}");
    output
        .says("|-- twin\n|-- twin\n")
        .says(&format!("`-- {id} flux"));
    let output = flux.run(&["pstree", "-x"]);
    output
        .ok()
        .says("       JOBID USER     NTASKS NNODES  RUNTIME\n")
        .says("└── inner");
    flux.run(&["pstree", "-d", "stats", &id])
        .ok()
        .says("PD:2 R:1 CD:0 F:0");
    assert_eq!(flux.run(&["pstree", "-L0", &id]).ok().line(), "flux");
    flux.run(&["pstree", "-d", "nosuch"]).fails().complains("nosuch");
    flux.run(&["cancel", "--user=all"]).ok();
    flux.run(&["queue", "drain", "-t", "30"]).ok();
    flux.stop();
}

#[test]
fn found_and_cancelled_by_name() {
    let flux = Instance::boot(1);
    let submit = |name: &str| {
        flux.run(&["submit", &format!("--job-name={name}"), "sleep", "1000"])
            .ok()
            .line()
            .to_owned()
    };
    let (alpha, beta, gamma) = (submit("alpha"), submit("beta"), submit("gamma"));
    assert_eq!(flux.run(&["pgrep", "^[ab]"]).ok().sorted(), {
        let mut ids = [alpha.as_str(), &beta];
        ids.sort_unstable();
        ids
    });
    assert_eq!(
        flux.run(&["pgrep", &format!("{beta}..{gamma}"), "a$", "-c1"])
            .ok()
            .lines()
            .len(),
        1
    );
    flux.run(&["pgrep", "-o", "full", "alpha"])
        .ok()
        .says("NAME")
        .says("alpha");
    let none = flux.run(&["pgrep", "nosuch"]);
    none.code(1);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", ""));
    flux.run(&["pgrep", "("]).code(2).complains("expression error");
    flux.run(&["pkill", "--wait", "^beta$"])
        .ok()
        .complains("Canceled 1 job\n");
    assert_eq!(
        flux.run(&["jobs", "-ano", "{status}", &beta]).ok().line(),
        "CANCELED"
    );
    flux.run(&["pkill", "--wait", "."])
        .ok()
        .complains("Canceled 2 jobs");
    flux.run(&["pkill", "alpha"]).code(1);
    assert_eq!(flux.run(&["pgrep", "-a", "."]).ok().lines().len(), 3);
    flux.stop();
}
