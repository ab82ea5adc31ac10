//! Does the server answer as RFC 13 says, for any order of requests?

use super::*;

fn config(ranks: u32, exchange: bool) -> ServerConfig {
    ServerConfig {
        kvsname: "f1".to_owned(),
        universe_size: ranks,
        ranks: (0..ranks).collect(),
        preput: vec![("PMI_process_mapping".to_owned(), "(vector,(0,1,2))".to_owned())],
        exchange,
        ..ServerConfig::default()
    }
}

fn lines(server: &mut Server, client: usize, line: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    server.on_line(client, line, &mut out);
    out.into_iter()
        .filter_map(|output| match output {
            Output::Reply { client, line } => Some((client, line)),
            _ => None,
        })
        .collect()
}

#[test]
fn the_handshake_of_the_manual() {
    let mut server = Server::new(config(2, false));
    let mut one = |line: &str| lines(&mut server, 0, line).remove(0).1;
    assert_eq!(
        one("cmd=init pmi_version=1 pmi_subversion=1"),
        "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1"
    );
    assert_eq!(
        one("cmd=init pmi_version=2 pmi_subversion=0").split(' ').nth(1),
        Some("rc=-1")
    );
    assert_eq!(one("cmd=get_appnum"), "cmd=appnum rc=0 appnum=0");
    assert_eq!(one("cmd=get_my_kvsname"), "cmd=my_kvsname rc=0 kvsname=f1");
    assert_eq!(one("cmd=get_universe_size"), "cmd=universe_size rc=0 size=2");
    assert_eq!(
        one("cmd=get kvsname=f1 key=PMI_process_mapping"),
        "cmd=get_result rc=0 value=(vector,(0,1,2))"
    );
    assert_eq!(
        one("cmd=get kvsname=other key=PMI_process_mapping"),
        "cmd=get_result rc=-1"
    );
    assert_eq!(one("cmd=put kvsname=f1 key=a value=b c"), "cmd=put_result rc=0");
    assert_eq!(one("cmd=get kvsname=f1 key=a"), "cmd=get_result rc=0 value=b c");
    assert_eq!(
        one(&format!("cmd=put kvsname=f1 key={} value=b", "k".repeat(65))),
        "cmd=put_result rc=-1"
    );
    assert_eq!(one("cmd=put kvsname=f1"), "cmd=put_result rc=-1");
    assert_eq!(one("cmd=lookup_name service=x"), "cmd=lookup_result rc=-1");
    assert_eq!(one("cmd=finalize"), "cmd=finalize_ack rc=0");
    assert!(server.is_finalized(0));
    assert!(!server.on_eof(0));
    assert!(server.on_eof(1));
}

#[test]
fn a_barrier_lets_everybody_out_together() {
    let mut server = Server::new(config(3, false));
    assert_eq!(lines(&mut server, 1, "cmd=barrier_in"), []);
    assert_eq!(
        lines(&mut server, 1, "cmd=barrier_in"),
        [],
        "entering twice counts once"
    );
    assert_eq!(lines(&mut server, 0, "cmd=barrier_in"), []);
    let out = lines(&mut server, 2, "cmd=barrier_in");
    let expect = "cmd=barrier_out rc=0".to_owned();
    assert_eq!(out, [(0, expect.clone()), (1, expect.clone()), (2, expect)]);
    assert_eq!(
        lines(&mut server, 0, "cmd=barrier_in"),
        [],
        "the next barrier is a new one"
    );
}

#[test]
fn an_exchange_carries_only_new_pairs() {
    let mut server = Server::new(config(1, true));
    let mut out = Vec::new();
    server.on_line(0, "cmd=put kvsname=f1 key=a value=1", &mut out);
    out.clear();
    server.on_line(0, "cmd=barrier_in", &mut out);
    assert_eq!(
        out,
        [Output::Barrier {
            puts: vec![("a".into(), "1".into())]
        }]
    );
    out.clear();
    server.merge([("b", "2")]);
    server.complete_barrier(true, &mut out);
    assert_eq!(
        out,
        [Output::Reply {
            client: 0,
            line: "cmd=barrier_out rc=0".into()
        }]
    );
    assert_eq!(server.lookup("b"), Some("2"));
    out.clear();
    server.on_line(0, "cmd=barrier_in", &mut out);
    assert_eq!(out, [Output::Barrier { puts: Vec::new() }]);
}

#[test]
fn a_spawn_is_refused_after_its_last_line() {
    let mut server = Server::new(config(1, false));
    assert_eq!(lines(&mut server, 0, "mcmd=spawn"), []);
    assert_eq!(lines(&mut server, 0, "cmd=finalize"), []);
    assert_eq!(
        lines(&mut server, 0, "endcmd"),
        [(0, "cmd=spawn_result rc=-1".to_owned())]
    );
    assert!(!server.is_finalized(0));
}

#[test]
fn an_abort_is_reported_and_not_answered() {
    let mut server = Server::new(config(1, false));
    let mut out = Vec::new();
    server.on_line(0, "cmd=abort exitcode=7 error_msg=no more", &mut out);
    assert_eq!(
        out,
        [Output::Abort {
            rank: 0,
            exit_code: 7,
            message: "no more".into()
        }]
    );
}

#[test]
fn a_deferred_key_is_looked_up_once_and_answered_to_all() {
    let mut server = Server::new(ServerConfig {
        deferred: vec!["level".into()],
        ..config(2, false)
    });
    let mut out = Vec::new();
    server.on_line(0, "cmd=get kvsname=f1 key=level", &mut out);
    server.on_line(1, "cmd=get kvsname=f1 key=level", &mut out);
    assert_eq!(out, [Output::Lookup { key: "level".into() }]);
    out.clear();
    server.resolve("level", Some("1".into()), &mut out);
    let line = "cmd=get_result rc=0 value=1".to_owned();
    assert_eq!(
        out,
        [
            Output::Reply {
                client: 0,
                line: line.clone()
            },
            Output::Reply {
                client: 1,
                line: line.clone()
            }
        ]
    );
    assert_eq!(lines(&mut server, 0, "cmd=get kvsname=f1 key=level"), [(0, line)]);
}

#[test]
fn nonsense_is_ignored() {
    let mut server = Server::new(config(1, false));
    for line in [
        "",
        "=",
        "cmd",
        "cmd=",
        "cmd=dance",
        "cmd=init pmi_version=x",
        "\0\0",
        "mcmd",
    ] {
        assert_eq!(lines(&mut server, 0, line), [], "{line:?}");
    }
    assert_eq!(
        lines(&mut server, 9, "cmd=init pmi_version=1 pmi_subversion=1"),
        []
    );
}

#[test]
fn the_trace_reads_as_the_manual_shows() {
    use std::sync::{Arc, Mutex};
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let mut server = Server::new(config(1, false));
    server.set_trace(Box::new(move |rank, direction, text| {
        sink.lock()
            .unwrap()
            .push(format!("pmi: {rank}: {direction}: {text}"));
    }));
    lines(&mut server, 0, "cmd=finalize");
    server.on_eof(0);
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "pmi: 0: C: cmd=finalize",
            "pmi: 0: S: cmd=finalize_ack rc=0",
            "pmi: 0: S: pmi finalized",
            "pmi: 0: C: pmi EOF"
        ]
    );
}

mod random {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever ranks say and in whatever order: no panic, and a barrier opens only with all inside.
        #[test]
        fn any_conversation(steps in prop::collection::vec((0_usize..4, 0_usize..6, ".{0,20}"), 0..80)) {
            let mut server = Server::new(config(4, false));
            let mut inside = [false; 4];
            for (client, what, text) in steps {
                let mut out = Vec::new();
                let line = match what {
                    0 => "cmd=barrier_in".to_owned(),
                    1 => format!("cmd=put kvsname=f1 key=k value={text}"),
                    2 => "cmd=get kvsname=f1 key=k".to_owned(),
                    3 => text,
                    4 => "cmd=get_maxes".to_owned(),
                    _ => format!("cmd={text}"),
                };
                if line == "cmd=barrier_in" { inside[client] = true; }
                server.on_line(client, &line, &mut out);
                let opened = out.iter().filter(|output| {
                    matches!(output, Output::Reply { line, .. } if line.starts_with("cmd=barrier_out"))
                }).count();
                if opened > 0 {
                    prop_assert_eq!(opened, 4);
                    prop_assert!(inside.iter().all(|is_in| *is_in));
                    inside = [false; 4];
                }
            }
        }
    }
}
