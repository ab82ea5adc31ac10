//! `flux resource`: what is there, what is free, and taking nodes out.

use flux_tests::{Capability, Instance, Output, Sandbox, missing};

#[test]
fn list_info_and_status() {
    let flux = Instance::boot(2);
    let info = flux.run(&["resource", "info"]).ok().line().to_owned();
    assert!(
        info.starts_with("2 Nodes, ") && info.contains(" Cores, "),
        "{info}"
    );
    let output = flux.run(&["resource", "list"]);
    let lines = output.ok().lines();
    assert!(
        lines[0]
            .split_whitespace()
            .eq(["STATE", "NNODES", "NCORES", "NGPUS", "NODELIST"]),
        "{output}"
    );
    assert!(lines[1].split_whitespace().take(2).eq(["free", "2"]), "{output}");
    flux.run(&["resource", "list", "-no", "{state} {rlist}"])
        .ok()
        .says("rank[0-1]/core");
    let output = flux.run(&["resource", "status"]);
    assert!(
        output.ok().lines()[0]
            .split_whitespace()
            .eq(["STATEUP", "NNODES", "NODELIST"]),
        "{output}"
    );
    output.says("avail");
    let id = flux
        .run(&["submit", "-N2", "--exclusive", "sleep", "1000"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait-event", "-t", "20", &id, "alloc"]).ok();
    let output = flux.run(&["resource", "list", "-s", "allocated", "-no", "{nnodes}"]);
    assert_eq!(output.ok().line(), "2");
    let r = flux.run(&["resource", "R"]).ok().json();
    assert_eq!(r["version"], 1);
    flux.run(&["cancel", &id]).ok();
    flux.stop();
}

#[test]
fn drain_and_undrain() {
    let flux = Instance::boot(2);
    flux.run(&["resource", "drain", "1", "broken fan"]).ok();
    let output = flux.run(&["resource", "drain"]);
    let header = output.ok().lines()[0].split_whitespace().collect::<Vec<_>>();
    assert_eq!(header, ["TIME", "STATE", "REASON", "NODELIST"]);
    output.says("drained").says("broken fan");
    flux.run(&["resource", "drain", "1", "again"])
        .fails()
        .complains("already drained");
    flux.run(&["run", "-N1", "true"]).ok();
    // a job that would fit but for the drained node waits for it
    let id = flux.run(&["submit", "-N2", "true"]).ok().line().to_owned();
    flux.run(&["resource", "undrain", "1"]).ok();
    flux.run(&["resource", "undrain", "1"])
        .fails()
        .complains("not drained");
    flux.run(&["job", "wait-event", "-t", "20", &id, "clean"]).ok();
    flux.run(&["resource", "drain", "7", "x"]).fails();
    let log = flux.run(&["resource", "eventlog"]);
    log.ok().says("drain").says("broken fan").says("undrain");
    flux.stop();
}

#[test]
fn configured_resources() {
    let config = "[resource]\nnoverify = true\nexclude = \"0\"\n\
                  [[resource.config]]\nhosts = \"fake[0-3]\"\ncores = \"0-7\"\n\
                  [[resource.config]]\nhosts = \"fake[2-3]\"\nproperties = [\"big\"]\n";
    let flux = Instance::builder(4)
        .config(config)
        .option("--test-hosts=fake[0-3]")
        .boot();
    let output = flux.run(&["resource", "list", "-s", "free", "-no", "{nnodes} {ncores}"]);
    let nodes: usize = output
        .ok()
        .lines()
        .iter()
        .filter_map(|l| l.split(' ').next()?.parse::<usize>().ok())
        .sum();
    assert_eq!(nodes, 3, "{output}");
    assert_eq!(
        flux.run(&["run", "--requires=big", "-n1", "flux", "getattr", "hostname"])
            .ok()
            .line(),
        "fake2"
    );
    flux.run(&["run", "--requires=nosuch", "true"]).fails();
    flux.run(&["resource", "status", "-s", "exclude"])
        .ok()
        .says("fake0");
    flux.stop();
}

/// Returns the first output line of a command in an instance of one broker.
fn alone(sandbox: &Sandbox, options: &[&str], command: &str) -> Output {
    let mut words = vec!["-s", "1", "--test-hosts=a"];
    words.extend(options);
    words.push(command);
    sandbox.start(&words)
}

#[test]
fn resources_of_a_file() {
    let sandbox = Sandbox::new();
    let r = sandbox.run(
        "flux",
        &["R", "encode", "--hosts=a", "--cores=0-999", "--ranks=0"],
    );
    let path = sandbox.write("R", &r.ok().stdout);
    let file = format!("--conf=resource.path={}", path.display());
    let output = alone(
        &sandbox,
        &[&file, "--conf=resource.noverify=true"],
        "flux resource info",
    );
    assert_eq!(output.ok().line(), "1 Nodes, 1000 Cores, 0 GPUs");
    // hosts that have less than they should are drained, unless nobody looks
    let output = alone(
        &sandbox,
        &[&file],
        "flux resource drain -no '{nodelist} {reason}'",
    );
    output
        .ok()
        .says("a rank 0 (a) missing resources: core[")
        .complains("missing resources");
    let output = alone(&sandbox, &["--conf=resource.path=/no/such/file"], "true");
    output.fails().complains("/no/such/file");
}

#[test]
fn the_binding_of_the_broker_is_respected() {
    let cores = |words: &[&str]| {
        let output = Sandbox::new().run(
            "taskset",
            &[&["-c", "0", "flux", "start", "-s", "1"], words].concat(),
        );
        output.ok().line().to_owned()
    };
    assert_eq!(cores(&["flux resource info"]), "1 Nodes, 1 Cores, 0 GPUs");
    let all = Sandbox::new().start(&["-s", "1", "flux resource info"]);
    let unbound = cores(&["--conf=resource.norestrict=true", "flux resource info"]);
    assert_eq!(unbound, all.ok().line());
}

/// GPUs are what the driver in the kernel tells of: no library that knows CUDA is needed.
#[test]
fn gpus_are_those_of_the_driver() {
    if missing(Capability::Mount) {
        return;
    }
    let initial = "flux resource info; flux run -n2 -g1 -o gpu-affinity=per-task printenv CUDA_VISIBLE_DEVICES; \
                   flux submit -g3 true; flux job attach $(flux job last)";
    let script = format!(
        "mount -t tmpfs gpus /proc/driver && mkdir -p /proc/driver/nvidia/gpus/0000:01:00.0 /proc/driver/nvidia/gpus/0000:02:00.0 && \
         exec flux start -s 1 '{initial}'"
    );
    let output = Sandbox::new().run(
        "unshare",
        &["-m", "--propagation", "private", "sh", "-c", &script],
    );
    let lines = output.lines();
    assert!(
        lines.first().is_some_and(|line| line.ends_with(" Cores, 2 GPUs")),
        "{output}"
    );
    let mut devices: Vec<_> = lines.iter().skip(1).take(2).copied().collect();
    devices.sort_unstable();
    assert_eq!(devices, ["0", "1"], "{output}");
    output.fails().complains("unsatisfiable");
}

/// Properties that only name queues are left out of the column of properties, and shown as queues.
#[test]
fn queues_are_no_properties() {
    let config = "[resource]\nnoverify = true\n\
                  [[resource.config]]\nhosts = \"a\"\ncores = \"0-1\"\nproperties = [\"batch\", \"big\"]\n\
                  [queues.batch]\nrequires = [\"batch\"]\n";
    let sandbox = Sandbox::new();
    let path = sandbox.write("q.toml", config);
    let config = format!("--config-path={}", path.display());
    let show = "flux resource list -s free -no '{properties} {propertiesx} {queue}'";
    assert_eq!(
        alone(&sandbox, &[&config], show).ok().line(),
        "batch,big big batch"
    );
    let old = "flux resource status -no '{state} {nnodes} {ranks} {nodelist}'";
    assert_eq!(alone(&sandbox, &[&config], old).ok().line(), "avail 1 0 a");
}
