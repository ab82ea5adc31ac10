//! `flux batch`: scripts that run in instances of their own.

use flux_tests::{Instance, Sandbox};

#[test]
fn a_script_with_directives() {
    let flux = Instance::boot(2);
    flux.sandbox().write(
        "job.sh",
        "#!/bin/sh\n# flux: -N2 --job-name='named in the script'\n# flux: --output=out.txt # a comment\n\n\
         echo $(flux getattr size) $(flux getattr instance-level) \"$@\"\nflux resource info\nflux run -N2 echo ran\n\
         flux config get test.key\n",
    );
    let id = flux
        .run(&["batch", "--conf=test.key=\"value\"", "job.sh", "one", "two words"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "status", &id]).ok();
    let output = flux.sh("cat out.txt");
    let lines = output.ok().lines();
    assert_eq!(lines[0], "2 1 one two words", "{output}");
    assert!(lines[1].starts_with("2 Nodes, "), "{output}");
    assert_eq!(lines[2..], ["ran", "ran", "value"], "{output}");
    let name = flux.run(&["jobs", "-a", "-no", "{name}"]);
    assert_eq!(name.ok().line(), "named in the script");
    flux.stop();
}

#[test]
fn the_instance_has_the_resources_of_its_job() {
    let flux = Instance::builder(2)
        .config("[[resource.config]]\nhosts = \"n[0-1]\"\ncores = \"0-3\"\ngpus = \"0-1\"\nproperties = [\"fast\"]\n[resource]\nnoverify = true\n")
        .boot();
    let script = "flux resource list -s all -no '{nnodes} {ncores} {ngpus} {properties}'";
    let id = flux
        .run(&["batch", "-n2", "-c1", "-g1", "--output=out.txt", "--wrap", script])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "status", &id]).ok();
    assert_eq!(flux.sh("cat out.txt").ok().line(), "1 2 2 fast");
    flux.stop();
}

/// The state of the job's instance outlives it, and can be looked at later.
#[test]
fn a_dump_is_left_behind() {
    let flux = Instance::boot(1);
    let id = flux
        .run(&[
            "batch",
            "-n1",
            "--dump",
            "--output=out.txt",
            "--wrap",
            "flux run --job-name=inner true",
        ])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "status", &id]).ok();
    let file = format!("flux-{id}-dump.tgz");
    assert!(flux.sandbox().workdir().join(&file).is_file(), "{file}");
    let restore = format!("-Scontent.restore={file}");
    let output = flux.run(&["start", &restore, "flux", "jobs", "-ano", "{name} {status}"]);
    assert_eq!(output.ok().line(), "inner COMPLETED");
    flux.stop();
}

#[test]
fn the_command_line_prevails() {
    let sandbox = Sandbox::new();
    sandbox.write("job.sh", "#!/bin/sh\n# flux: -N2 -c2 --queue=inside\ntrue\n");
    let jobspec = sandbox
        .run("flux", &["batch", "--dry-run", "-N4", "job.sh", "arg"])
        .ok()
        .json();
    assert_eq!(jobspec["resources"][0]["count"], 4);
    assert_eq!(jobspec["resources"][0]["with"][0]["with"][0]["count"], 2);
    let system = &jobspec["attributes"]["system"];
    assert_eq!(system["queue"], "inside");
    assert_eq!(
        system["files"]["script"]["data"],
        "#!/bin/sh\n# flux: -N2 -c2 --queue=inside\ntrue\n"
    );
    assert_eq!(system["shell"]["options"]["per-resource"]["type"], "node");
    assert_eq!(
        system["shell"]["options"]["output"]["stdout"]["path"],
        "flux-{{id}}.out"
    );
    assert_eq!(
        jobspec["tasks"][0]["command"],
        serde_json::json!(["flux", "broker", "{{tmpdir}}/script", "arg"])
    );
}

#[test]
fn what_is_wrong_is_named() {
    let sandbox = Sandbox::new();
    let batch = |script: &str, options: &[&str]| {
        sandbox.write("job.sh", script);
        let words: Vec<&str> = ["batch", "--dry-run"]
            .into_iter()
            .chain(options.iter().copied())
            .chain(["job.sh"])
            .collect();
        sandbox.run("flux", &words)
    };
    batch("echo no interpreter\n", &["-n1"]).fails().complains("#!");
    batch("#!/bin/sh\n", &[]).fails().complains("Number of slots");
    batch("#!/bin/sh\n# flux: --no-such\n", &["-n1"])
        .fails()
        .complains("job.sh line 2")
        .complains("--no-such");
    batch("#!/bin/sh\n# flux: -n1\ntrue\n# flux: -n2\n", &[])
        .fails()
        .complains("line 4: orphan");
    batch("#!/bin/sh\n", &["-n1", "--conf=nowhere"])
        .fails()
        .complains("nowhere");
    sandbox
        .run("flux", &["batch", "-n1", "/no/such/script"])
        .fails()
        .complains("/no/such/script");
}
