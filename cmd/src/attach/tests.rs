//! Does following recorded eventlogs print what the original printed?

use flux_formats::jobid::JobId;

use super::follow::{Action, Follow, Log, Options, describe_exit};
use super::output::Sink;

/// Plays three logs in the order in which they arrive at a client.
fn play(options: Options, main: &str, exec: &str, output: &str) -> (Follow, Sink, Vec<Action>) {
    let mut follow = Follow::new(JobId(44_879_052_800), options);
    let (mut sink, mut actions) = (Sink::default(), Vec::new());
    let (before, after) = main.split_once("{\"timestamp\":3").unwrap_or((main, ""));
    let after = if after.is_empty() {
        String::new()
    } else {
        format!("{{\"timestamp\":3{after}")
    };
    for (log, text) in [
        (Log::Main, before),
        (Log::Exec, exec),
        (Log::Output, output),
        (Log::Main, &*after),
    ] {
        for line in text.lines() {
            follow.line(log, line, &mut sink, &mut actions).unwrap();
        }
    }
    (follow, sink, actions)
}

const MAIN: &str = r#"{"timestamp":1.0,"name":"submit","context":{"userid":0,"urgency":16,"flags":0,"version":1}}
{"timestamp":1.25,"name":"validate"}
{"timestamp":1.5,"name":"start"}
{"timestamp":3.0,"name":"finish","context":{"status":768}}
{"timestamp":3.1,"name":"release","context":{"ranks":"all","final":true}}
{"timestamp":3.2,"name":"free"}
{"timestamp":3.3,"name":"clean"}
"#;
const EXEC: &str = r#"{"timestamp":1.5,"name":"init"}
{"timestamp":1.6,"name":"shell.init","context":{"service":"0-shell-f2BNosqR","leader-rank":2,"size":1}}
{"timestamp":1.7,"name":"starting"}
{"timestamp":2.9,"name":"complete","context":{"status":768}}
{"timestamp":2.9,"name":"done"}
"#;
const OUTPUT: &str = r#"{"timestamp":1.6,"name":"header","context":{"version":1,"encoding":{"stdout":"UTF-8","stderr":"UTF-8"},"count":{"stdout":2,"stderr":2},"options":{}}}
{"timestamp":1.7,"name":"data","context":{"stream":"stdout","rank":"1","data":"b\nc\n"}}
{"timestamp":1.7,"name":"log","context":{"rank":0,"level":0,"message":"it broke","file":"shell.c","line":2036}}
{"timestamp":1.8,"name":"data","context":{"stream":"stderr","rank":"0","data":"/w==","encoding":"base64"}}
{"timestamp":1.8,"name":"data","context":{"stream":"stdout","rank":"0-1","eof":true}}
{"timestamp":1.8,"name":"data","context":{"stream":"stderr","rank":"0","eof":true}}
{"timestamp":1.8,"name":"data","context":{"stream":"stderr","rank":"1","eof":true}}
"#;

#[test]
fn a_job_that_fails() {
    let (follow, sink, actions) = play(Options::default(), MAIN, EXEC, OUTPUT);
    assert_eq!(sink.out, b"b\nc\n");
    assert_eq!(
        sink.err,
        b"0.700s: flux-shell[0]: FATAL: it broke\n\xffflux-job: task(s) exited with exit code 3\n"
    );
    assert!(follow.is_done());
    assert_eq!((follow.exit_code(), follow.status()), (3, Some(768)));
    assert_eq!(actions[0], Action::Watch(Log::Exec));
    assert_eq!(actions[1], Action::Watch(Log::Output));
    assert!(matches!(&actions[2], Action::Shell(shell) if shell.leader_rank == 2));
    assert_eq!(actions[3], Action::Cancel(Log::Main));
}

#[test]
fn done_only_after_all_output() {
    let (follow, _, _) = play(
        Options::default(),
        MAIN,
        EXEC,
        OUTPUT.split_once("{\"timestamp\":1.8").unwrap().0,
    );
    assert!(!follow.is_done());
    let (mut follow, _, _) = play(Options::default(), MAIN, EXEC, "");
    assert!(!follow.is_done());
    follow.ended(Log::Output);
    assert!(follow.is_done());
}

#[test]
fn labels_and_events() {
    let options = Options {
        label: true,
        show_events: true,
        show_exec: true,
        quiet: true,
        ..Options::default()
    };
    let (_, sink, _) = play(options, MAIN, EXEC, OUTPUT);
    assert_eq!(sink.out, b"1: b\n1: c\n");
    let err = String::from_utf8_lossy(&sink.err);
    assert!(err.starts_with(
        "0.000s: job.submit {\"userid\":0,\"urgency\":16,\"flags\":0,\"version\":1}\n0.250s: job.validate\n"
    ));
    assert!(err.contains("0.500s: exec.init\n0.600s: exec.shell.init {\"service\":\"0-shell-f2BNosqR\""));
    assert!(err.ends_with("2.300s: job.clean\n"));
}

#[test]
fn cancelled_before_it_ran() {
    let main = concat!(
        r#"{"timestamp":1.0,"name":"submit","context":{"userid":0,"urgency":16,"flags":0,"version":1}}"#,
        "\n",
        r#"{"timestamp":1.227,"name":"exception","context":{"type":"cancel","severity":0,"note":"","userid":0}}"#,
        "\n",
        r#"{"timestamp":3.0,"name":"clean"}"#,
        "\n"
    );
    let (follow, sink, actions) = play(Options::default(), main, "", "");
    let id = crate::common::jobid::f58(JobId(44_879_052_800));
    assert_eq!(
        String::from_utf8(sink.err).unwrap(),
        format!("0.227s: job.exception {id} type=cancel severity=0 \n")
    );
    assert_eq!(follow.exit_code(), 1);
    assert!(follow.is_done());
    assert!(actions.contains(&Action::Cancel(Log::Exec)));
    assert_eq!(follow.fatal().map(|e| e.kind.as_str()), Some("cancel"));
}

#[test]
fn waiting_for_an_earlier_event() {
    let options = Options {
        wait_event: Some("start".to_owned()),
        ..Options::default()
    };
    let mut follow = Follow::new(JobId(1), options);
    let (mut sink, mut actions) = (Sink::default(), Vec::new());
    for line in MAIN.lines().take(3) {
        assert!(!follow.is_done());
        follow.line(Log::Main, line, &mut sink, &mut actions).unwrap();
    }
    assert!(follow.is_done());
    assert_eq!(
        actions,
        [
            Action::Watch(Log::Exec),
            Action::Cancel(Log::Main),
            Action::Cancel(Log::Exec)
        ]
    );
}

#[test]
fn words_for_exits() {
    for (status, want) in [
        (768, "exited with exit code 3"),
        (36_608, "Terminated"),
        (15, "Terminated"),
        (36_352, "Alarm clock"),
        (11, "Segmentation fault"),
        (127 << 8, "exited with exit code 127"),
        (0, "exited with exit code 0"),
    ] {
        assert_eq!(describe_exit(status), want);
    }
}
