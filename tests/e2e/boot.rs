//! `flux start`: does every size come up, and does it end with the right exit code and nothing left behind?

use std::time::Duration;

use flux_tests::{Instance, Sandbox, full_scale};

#[test]
fn sizes_come_up_and_leave_nothing() {
    let sizes: &[u32] = if full_scale() {
        &[1, 2, 4, 16, 64]
    } else {
        &[1, 4, 16]
    };
    for size in sizes {
        let text = size.to_string();
        let sandbox = Sandbox::new();
        let output = sandbox.start(&["-s", &text, "flux", "getattr", "size"]);
        assert_eq!(output.ok().line(), text);
    }
}

#[test]
fn exit_code_is_that_of_the_initial_program() {
    let sandbox = Sandbox::new();
    sandbox.start(&["-s", "2", "sh", "-c", "exit 3"]).code(3);
    sandbox.start(&["-s", "1", "true"]).ok();
    sandbox.start(&["-s", "1", "sh", "-c", "kill -TERM $$"]).code(143);
    sandbox.start(&["-s", "1", "no-such-program-here"]).code(127);
}

#[test]
fn one_word_is_a_shell_line_and_input_reaches_it() {
    let sandbox = Sandbox::new();
    assert_eq!(
        sandbox.start(&["-s", "1", "echo one; echo two"]).ok().lines(),
        ["one", "two"]
    );
    let output = sandbox.run_input("flux", &["start", "-s", "1", "cat"], b"through\n");
    assert_eq!(output.ok().line(), "through");
    sandbox.nothing_left("cat");
}

#[test]
fn a_singleton_needs_no_launcher() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.start(&["flux", "getattr", "size"]).ok().line(), "1");
    assert_eq!(
        sandbox
            .start(&["flux", "getattr", "broker.boot-method"])
            .ok()
            .line(),
        "single"
    );
}

#[test]
fn verbose_shows_the_commands_and_noexec_runs_none() {
    let sandbox = Sandbox::new();
    let output = sandbox.start(&["-s", "2", "-v", "-X", "true"]);
    output
        .ok()
        .complains("-Slocal-uri=local://")
        .complains("flux-broker");
    assert_eq!(output.stderr.matches("flux-broker").count(), 2, "{output}");
}

#[test]
fn options_reach_the_brokers() {
    let sandbox = Sandbox::new();
    let value = |args: &[&str], name: &str| {
        let mut words = args.to_vec();
        words.extend(["flux", "getattr", name]);
        sandbox.start(&words).ok().line().to_owned()
    };
    assert_eq!(value(&["-s", "3", "-Stbon.topo=kary:2"], "tbon.topo"), "kary:2");
    assert_eq!(value(&["-s", "3", "-o,-Stbon.topo=kary:1"], "tbon.maxlevel"), "2");
    assert_eq!(value(&["-s", "3", "--test-hosts=a[0-2]"], "hostlist"), "a[0-2]");
    assert_eq!(value(&["-s", "1", "--wrap=env,FLUX_TEST_WRAPPED=1"], "size"), "1");
    assert_eq!(
        value(&["-s", "1", "--setattr=broker.quorum=1"], "broker.quorum"),
        "1"
    );
}

#[test]
fn rundir_of_the_user_is_kept_unless_cleanup_is_asked_for() {
    let sandbox = Sandbox::new();
    let dir = sandbox.workdir().join("rundir");
    std::fs::create_dir(&dir).unwrap();
    let option = format!("--test-rundir={}", dir.display());
    let output = sandbox.start(&["-s", "1", &option, "flux", "getattr", "rundir"]);
    assert_eq!(output.ok().line(), dir.display().to_string());
    assert!(dir.is_dir());
    let left: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().starts_with("local")),
        "{left:?}"
    );
    sandbox
        .start(&["-s", "1", &option, "--test-rundir-cleanup", "true"])
        .ok();
    assert!(!dir.exists());
    // the name that the option had in older releases
    std::fs::create_dir(&dir).unwrap();
    let option = format!("--rundir={}", dir.display());
    assert_eq!(
        sandbox
            .start(&["-s", "1", &option, "flux", "getattr", "rundir"])
            .ok()
            .line(),
        dir.display().to_string()
    );
}

#[test]
fn bad_options_are_named() {
    let sandbox = Sandbox::new();
    let refused = |args: &[&str], text: &str| {
        sandbox.start(args).fails().complains(text);
    };
    refused(&["-s", "0", "true"], "test-size");
    refused(&["-s", "x", "true"], "x");
    refused(&["--frobnicate", "true"], "--frobnicate");
    refused(
        &["--test-hosts=a,b", "true"],
        "--test-hosts only works with --test-size",
    );
    refused(&["-s", "3", "--test-hosts=a,b", "true"], "incorrect size");
    refused(
        &["-s", "1", "--test-exit-mode=maybe", "true"],
        "--test-exit-mode only accepts",
    );
    refused(&["-s", "1", "--test-rundir=/no/such/dir", "true"], "/no/such/dir");
    refused(&["-s", "1", "-Stbon.topo=square", "true"], "square");
    refused(
        &["-s", "1", "--config-path=/no/such/config", "true"],
        "/no/such/config",
    );
    refused(&["-s", "1", "--test-pmi-clique=foo", "true"], "foo");
}

#[test]
fn exit_mode_and_timeout_rule_the_others() {
    let sandbox = Sandbox::new();
    // the leader's code counts in leader mode, the highest in any mode
    let started = std::time::Instant::now();
    let script = "kill -KILL $(flux exec -r 1 flux getattr broker.pid); sleep 60";
    let output = sandbox.start(&[
        "-s",
        "2",
        "--test-exit-timeout=0.5s",
        "--killer-timeout=0.5s",
        "sh",
        "-c",
        script,
    ]);
    assert!(output.code != 0 && output.code != 124, "{output}");
    assert!(started.elapsed() < Duration::from_secs(20), "{output}");
}

#[test]
fn broker_verbose_prints_rank_size_and_endpoint() {
    let output = Sandbox::new().start(&["-s", "2", "-o,-v", "true"]);
    output.ok().complains("tcp://");
}

#[test]
fn followers_see_the_same_instance() {
    let flux = Instance::boot(4);
    for rank in 0..4 {
        assert_eq!(flux.on(rank, &["getattr", "rank"]).ok().line(), rank.to_string());
        assert_eq!(flux.on(rank, &["getattr", "size"]).ok().line(), "4");
    }
    flux.stop();
}

#[test]
fn the_initial_program_is_a_shell_by_default() {
    let sandbox = Sandbox::new().env("SHELL", "/bin/sh");
    let output = sandbox.run_input("flux", &["start", "-s", "1"], b"flux getattr size; exit 4\n");
    assert_eq!(output.code(4).line(), "1");
    sandbox.nothing_left("an interactive shell");
}

#[test]
fn the_clique_mode_sets_the_mapping() {
    let sandbox = Sandbox::new();
    for (mode, mapping) in [("single", "[[0,1,4,1]]"), ("per-broker", "[[0,4,1,1]]")] {
        let option = format!("--test-pmi-clique={mode}");
        let output = sandbox.start(&["-s", "4", &option, "flux", "getattr", "broker.mapping"]);
        assert_eq!(output.ok().line(), mapping, "{mode}");
    }
}

#[test]
fn what_is_not_there_yet_says_so() {
    let sandbox = Sandbox::new();
    sandbox
        .start(&["-s", "1", "--caliper-profile=x", "true"])
        .fails()
        .complains("--caliper-profile");
}

#[test]
fn an_instance_without_initial_program_runs_until_shutdown() {
    let sandbox = Sandbox::new();
    let dir = sandbox.workdir().join("rundir");
    std::fs::create_dir(&dir).unwrap();
    let script = format!(
        "flux start -s 2 --test-rundir={dir} -Sbroker.rc2_none=1 & pid=$!
         export FLUX_URI=local://{dir}/local-0
         n=0; until flux uptime 2>/dev/null | grep -q ' run '; do n=$((n+1)); test $n -lt 500 || break; done
         flux uptime; flux shutdown --skip-gc --quiet; wait $pid; echo code $?",
        dir = dir.display()
    );
    let output = sandbox.run("sh", &["-c", &script]);
    output.ok().says(" run ").says("size 2").says("code 0");
}

#[test]
fn gpus_of_the_configuration_are_counted() {
    let config =
        "[resource]\nnoverify = true\n[[resource.config]]\nhosts = \"a\"\ncores = \"0-3\"\ngpus = \"0-1\"\n";
    let flux = Instance::builder(1)
        .config(config)
        .option("--test-hosts=a")
        .boot();
    assert_eq!(
        flux.run(&["resource", "info"]).ok().line(),
        "1 Nodes, 4 Cores, 2 GPUs"
    );
    // by default all tasks of a node see all its GPUs of the job
    let show = "echo $CUDA_VISIBLE_DEVICES";
    let output = flux.run(&["run", "-n2", "-g1", "sh", "-c", show]);
    assert_eq!(output.ok().sorted(), ["0,1"; 2]);
    let output = flux.run(&[
        "run",
        "-n2",
        "-g1",
        "-o",
        "gpu-affinity=per-task",
        "sh",
        "-c",
        show,
    ]);
    assert_eq!(output.ok().sorted(), ["0", "1"]);
    flux.stop();
}

/// The stages of an instance's life are logged with their commands, codes and times.
#[test]
fn stages_are_logged() {
    let sandbox = Sandbox::new();
    let script = "echo 'true cleaning' | flux admin cleanup-push; exit 3";
    let output = sandbox.start(&["-s", "1", "-Slog-stderr-level=6", script]);
    output
        .code(3)
        .complains("broker.info[0]: rc1.0: flux modprobe rc1 Exited (rc=0) 0.")
        .complains(&format!("broker.err[0]: rc2.0: {script} Exited (rc=3) 0."))
        .complains("broker.info[0]: cleanup.0: true cleaning Exited (rc=0) 0.")
        .complains("broker.info[0]: rc3.0: flux modprobe rc3 Exited (rc=0) 0.");
}
