//! How fast is it? `cargo test --release -p flux-broker kvs::bench -- --ignored --nocapture` prints figures.

use super::*;
use crate::modules::content::Content;
use crate::modules::content_sqlite::ContentSqlite;
use crate::modules::kvs_watch::KvsWatch;
use crate::service::Cx;
use crate::service::testing::{Probe, TestHub, request};
use serde_json::json;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

fn hub_in(attr: &str, dir: &std::path::Path) -> TestHub {
    let mut hub = TestHub::new(&[(attr, dir.to_str().unwrap())]);
    hub.load("content", Box::new(Content::default())).unwrap();
    hub.load("content-sqlite", Box::new(ContentSqlite::new(&[])))
        .unwrap();
    hub.load("kvs", Box::new(Kvs::default())).unwrap();
    hub.load("kvs-watch", Box::new(KvsWatch)).unwrap();
    hub
}

fn report(name: &str, count: u32, start: Clock) {
    let wall = start.wall.elapsed().as_secs_f64() / f64::from(count) * 1e6;
    let cpu = (thread_time() - start.cpu).as_secs_f64() / f64::from(count) * 1e6;
    println!(
        "{name:44} {cpu:9.2} us CPU {wall:9.2} us {:10.0}/s CPU",
        1e6 / cpu
    );
}

/// Wall clock, and this thread's: other work on the machine does not count.
struct Clock {
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    fn start() -> Self {
        Clock {
            wall: Instant::now(),
            cpu: thread_time(),
        }
    }
}

fn thread_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

/// The keys of one finished job, in the commits that the job pipeline makes.
fn job(hub: &mut TestHub, id: u64, durable: bool) {
    let text = format!("{id:016x}");
    let (a, b, c, d) = (&text[0..4], &text[4..8], &text[8..12], &text[12..16]);
    let dir = format!("job.{a}.{b}.{c}.{d}");
    let line = move |n: usize, what: &str| {
        format!(
            "{{\"timestamp\":1795240138.{n:07},\"name\":\"{what}\",\"context\":{{\"userid\":1000,\"urgency\":16,\"x\":{id}}}}}\n"
        )
    };
    let ns = format!("job-{id}");
    hub.with_probe(move |cx: &mut Cx<'_>| {
        let ignore = |_: &mut Probe, _: &mut Cx<'_>, result: Result<CommitInfo, _>| drop(result.unwrap());
        let mut txn = Txn::new();
        txn.put(&format!("{dir}.J"), "J".repeat(700) + &id.to_string())
            .put(
                &format!("{dir}.jobspec"),
                "{\"resources\":[]}".repeat(60) + &id.to_string(),
            )
            .append(&format!("{dir}.eventlog"), line(1, "submit").as_bytes());
        if durable {
            commit_durable(cx, "primary", txn, ignore)
        } else {
            commit(cx, "primary", txn, ignore)
        }
        namespace_create(cx, &ns, 1000, |_: &mut Probe, _, result| result.unwrap());
        let mut txn = Txn::new();
        txn.put(
            &format!("{dir}.R"),
            "{\"version\": 1}".repeat(20) + &id.to_string(),
        )
        .symlink(&format!("{dir}.guest"), Some(&ns), ".");
        commit(cx, "primary", txn, ignore);
        for what in [
            "init",
            "starting",
            "shell.init",
            "shell.start",
            "complete",
            "done",
        ] {
            let mut txn = Txn::new();
            txn.append("exec.eventlog", line(2, what).as_bytes());
            commit(cx, &ns, txn, ignore);
        }
        let mut txn = Txn::new();
        txn.append(
            "output",
            &[line(3, "header"), line(4, "data"), line(5, "eof")]
                .concat()
                .into_bytes(),
        );
        commit(cx, &ns, txn, ignore);
        for what in [
            "depend", "priority", "alloc", "start", "finish", "release", "free", "clean",
        ] {
            let mut txn = Txn::new();
            txn.append(&format!("{dir}.eventlog"), line(6, what).as_bytes());
            if durable && what == "finish" {
                commit_durable(cx, "primary", txn, ignore);
            } else {
                commit(cx, "primary", txn, ignore);
            }
        }
        snapshot_namespace(cx, &ns, &format!("{dir}.guest"), ignore);
    });
}

#[test]
#[ignore = "prints figures"]
fn figures() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub_in("rundir", dir.path());
    let count = 20_000u32;
    let start = Clock::start();
    for n in 0..count {
        let op = json!({"key": format!("bench.a.{n:06}"), "flags": 0, "dirent": {"data": "MQ==", "type": "val", "ver": 1}});
        hub.rpc(request(
            "kvs.commit",
            &json!({"namespace": "primary", "flags": 0, "ops": [op]}),
        ))
        .unwrap();
    }
    report("client commit of a new key", count, start);
    let rounds = 50u32;
    let bodies: Vec<_> = (0..rounds)
        .map(|round| {
            let ops: Vec<_> = (0..1000)
                .map(|n| json!({"key": format!("many.{round}.k{n:04}"), "flags": 0, "dirent": {"data": "MTIzNDU2", "type": "val", "ver": 1}}))
                .collect();
            request("kvs.commit", &json!({"namespace": "primary", "flags": 0, "ops": ops}))
        })
        .collect();
    let start = Clock::start();
    for body in bodies {
        hub.rpc(body).unwrap();
    }
    report("client puts, 1000 in a commit (per put)", rounds * 1000, start);
    let start = Clock::start();
    for n in 0..count {
        let mut txn = Txn::new();
        txn.put(&format!("local.{:03}.{n:06}", n % 100), "1");
        hub.with_probe(|cx| {
            commit(cx, "primary", txn, |_: &mut Probe, _, result| {
                drop(result.unwrap())
            })
        });
    }
    report("local commit of a new key", count, start);
    let found = Rc::new(RefCell::new(0u32));
    let start = Clock::start();
    for n in 0..count {
        let key = format!("bench.a.{n:06}");
        let found = found.clone();
        hub.with_probe(move |cx| {
            lookup(cx, "primary", &key, move |_: &mut Probe, _, result| {
                *found.borrow_mut() += u32::from(result.is_ok())
            });
        });
    }
    report("local lookup", count, start);
    assert_eq!(*found.borrow(), count);
    let lookups: Vec<_> = (0..count)
        .map(|n| {
            request(
                "kvs.lookup",
                &json!({"namespace": "primary", "key": format!("bench.a.{n:06}"), "flags": 0}),
            )
        })
        .collect();
    let start = Clock::start();
    for req in lookups {
        hub.with_probe(|cx| {
            cx.rpc(req, |_: &mut Probe, _, result| drop(result.unwrap()));
        });
    }
    report("lookup by message", count, start);
    let jobs = 5000u32;
    let start = Clock::start();
    for n in 0..jobs {
        job(&mut hub, 0x9_d100_0000_u64 + (u64::from(n) << 24), false);
    }
    report("all KVS work of a job (19 commits)", jobs, start);
    let namespaces = 5000u32;
    let start = Clock::start();
    for n in 0..namespaces {
        let ns = format!("guest-{n}");
        hub.with_probe(move |cx| {
            let ignore = |_: &mut Probe, _: &mut Cx<'_>, result: Result<CommitInfo, _>| drop(result.unwrap());
            namespace_create(cx, &ns, 1000, |_: &mut Probe, _, result| result.unwrap());
            for _ in 0..5 {
                let mut txn = Txn::new();
                txn.append("exec.eventlog", &[b'x'; 120]);
                commit(cx, &ns, txn, ignore);
            }
            snapshot_namespace(cx, &ns, &format!("guests.{}.{n}", n % 64), ignore);
        });
    }
    report("guest namespace, 5 appends, snapshot", namespaces, start);
}

#[test]
#[ignore = "prints figures"]
fn durable_figures() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut hub = hub_in("statedir", dir.path());
    hub.run_idle();
    let count = 300u32;
    let start = Clock::start();
    for n in 0..count {
        let mut txn = Txn::new();
        txn.put(&format!("d.{n}"), "1");
        hub.wait(|cx, done| commit_durable(cx, "primary", txn, done))
            .unwrap();
    }
    report("durable commit, one at a time", count, start);
    let jobs = 10_000u32;
    let start = Clock::start();
    let mut slowest = Duration::ZERO;
    for n in 0..jobs {
        let before = Instant::now();
        job(&mut hub, 0x9_d100_0000_u64 + (u64::from(n) << 24), true);
        if n % 16 == 0 {
            hub.run_posts();
        }
        slowest = slowest.max(before.elapsed());
    }
    report("all KVS work of a job, durable", jobs, start);
    println!("longest turn {slowest:?}");
    for module in ["kvs-watch", "kvs", "content-sqlite", "content"] {
        hub.remove(module);
    }
    let db = rusqlite::Connection::open(dir.path().join("content.sqlite")).unwrap();
    let number = |sql: &str| {
        db.query_row(sql, [], |row| row.get::<_, u32>(0))
            .map(u64::from)
            .unwrap()
    };
    let used = number("PRAGMA page_count") - number("PRAGMA freelist_count");
    println!(
        "store per inactive job: {} bytes",
        used * number("PRAGMA page_size") / u64::from(jobs)
    );
    let (count, bytes) = (
        number("SELECT count(*) FROM blobs"),
        number("SELECT sum(length(object)) FROM blobs"),
    );
    println!(
        "blobs per job: {}, bytes in them: {}",
        count / u64::from(jobs),
        bytes / u64::from(jobs)
    );
}
