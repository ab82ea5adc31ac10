//! `flux dmesg` and `flux logger`: the ring buffer, its formats, following and clearing.

use flux_tests::{Instance, Sandbox};

#[test]
fn lines_have_the_known_shape() {
    let flux = Instance::boot(2);
    flux.run(&["logger", "hello from the test"]).ok();
    flux.run(&["logger", "--severity=warning", "--appname=tester", "careful"])
        .ok();
    let output = flux.run(&["dmesg"]);
    let line = output
        .ok()
        .lines()
        .into_iter()
        .find(|line| line.contains("hello from the test"))
        .unwrap();
    let (stamp, rest) = line.split_once(' ').unwrap();
    assert!(stamp.len() == 27 && stamp.ends_with('Z'), "{line}");
    assert_eq!(rest, "logger.notice[0]: hello from the test");
    output.says("tester.warning[0]: careful").says("broker.info[0]: ");
    let human = flux.run(&["dmesg", "-H"]);
    assert!(human.ok().lines()[0].starts_with('['), "{human}");
    human.says("tester[0]: careful");
    flux.stop();
}

#[test]
fn clear_follow_and_new() {
    let flux = Instance::boot(1);
    flux.run(&["logger", "before"]).ok();
    flux.run(&["dmesg", "--read-clear"]).ok().says("before");
    assert!(!flux.run(&["dmesg"]).ok().stdout.contains("before"));
    let output = flux.sh("flux logger old
         flux dmesg --new --follow >out & pid=$!
         n=0; until grep -q later out; do flux logger later; n=$((n+1)); test $n -lt 200 || break; done
         kill $pid; cat out");
    output.says("later");
    assert!(!output.stdout.contains("old"), "{output}");
    flux.run(&["dmesg", "--clear"]).ok();
    assert_eq!(flux.run(&["dmesg"]).ok().stdout, "");
    flux.stop();
}

#[test]
fn followers_log_to_the_leader_by_severity() {
    let flux = Instance::boot(2);
    flux.on(1, &["logger", "--severity=err", "bad thing on one"]).ok();
    flux.wait_until(&["dmesg"], flux_tests::DEADLINE, |output| {
        output.stdout.contains("logger.err[1]: bad thing on one")
    });
    flux.on(1, &["logger", "--severity=debug", "chatter on one"]).ok();
    flux.on(1, &["dmesg"]).ok().says("chatter on one");
    assert!(!flux.run(&["dmesg"]).stdout.contains("chatter on one"));
    flux.stop();
}

#[test]
fn stderr_level_forwards_the_log() {
    let output = Sandbox::new().start(&["-s", "1", "-o,-Slog-stderr-level=7", "true"]);
    output.ok().complains("broker.info[0]: ").complains("->run");
}

/// The end of a job by force is in the log, with the signal.
#[test]
fn a_cancelled_job_is_logged() {
    let flux = Instance::boot(1);
    let id = flux.run(&["submit", "sleep", "1000"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "-t", "20", &id, "start"]).ok();
    flux.run(&["cancel", &id]).ok();
    flux.run(&["job", "wait-event", "-t", "20", &id, "clean"]).ok();
    flux.run(&["dmesg"])
        .ok()
        .says(&format!("job-exec.debug[0]: exec aborted: id={id}"))
        .says(&format!("job-exec.debug[0]: exec_kill: {id}: signal 15"));
    flux.stop();
}
