//! Tests of the actor: requests in, answers out.

use super::*;
use crate::modules::kvs_watch::{KvsWatch, cancel_watch, watch_appends};
use crate::service::testing::{OWNER, Probe, TestHub, request};
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::msg::{Message, role};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;

fn hub() -> TestHub {
    let mut hub = TestHub::new(&[]);
    hub.load("kvs", Box::new(Kvs::default())).unwrap();
    hub.load("kvs-watch", Box::new(KvsWatch)).unwrap();
    hub
}

fn val(text: &str) -> Value {
    use base64::Engine;
    json!({"data": base64::engine::general_purpose::STANDARD.encode(text), "type": "val", "ver": 1})
}

fn op(key: &str, dirent: Value) -> Value {
    json!({"key": key, "flags": 0, "dirent": dirent})
}

fn append(key: &str, text: &str) -> Value {
    json!({"key": key, "flags": 32, "dirent": val(text)})
}

fn commit_body(namespace: &str, ops: &[Value]) -> Value {
    json!({"namespace": namespace, "flags": 0, "ops": ops})
}

fn put(hub: &mut TestHub, ops: &[Value]) -> Result<Value, RpcError> {
    hub.json("kvs.commit", &commit_body("primary", ops))
}

fn get(hub: &mut TestHub, key: &str, flags: u32) -> Result<Value, RpcError> {
    hub.json(
        "kvs.lookup",
        &json!({"key": key, "namespace": "primary", "flags": flags}),
    )
    .map(|mut v| v["val"].take())
}

fn errnum<T: std::fmt::Debug>(result: Result<T, RpcError>) -> u32 {
    result.unwrap_err().errnum
}

fn as_guest(mut req: Message, userid: u32) -> Message {
    req.userid = userid;
    req.rolemask = role::USER;
    req
}

#[test]
fn put_get_and_errors() {
    let mut hub = hub();
    let info = put(&mut hub, &[op("a.b.c", val("1")), op("foo", val("x"))]).unwrap();
    assert_eq!(info["rootseq"], 1);
    assert_eq!(get(&mut hub, "a.b.c", 0), Ok(val("1")));
    assert_eq!(get(&mut hub, "..a...b.c.", 0), Ok(val("1")));
    assert_eq!(errnum(get(&mut hub, "a.b", 0)), errno::EISDIR);
    assert_eq!(errnum(get(&mut hub, ".", 0)), errno::EISDIR);
    assert_eq!(errnum(get(&mut hub, "a.b.c", 1)), errno::ENOTDIR);
    assert_eq!(errnum(get(&mut hub, "a.b.c", 2)), errno::EINVAL);
    assert_eq!(errnum(get(&mut hub, "a.b", 2)), errno::EINVAL);
    assert_eq!(errnum(get(&mut hub, "nope", 0)), errno::ENOENT);
    assert_eq!(errnum(get(&mut hub, "foo.bar", 0)), errno::ENOENT);
    let dir = get(&mut hub, "a.b", 1).unwrap();
    assert_eq!(dir, json!({"data": {"c": val("1")}, "type": "dir", "ver": 1}));
    assert_eq!(get(&mut hub, "a", 16).unwrap()["type"], "dirref");
    let root = get(&mut hub, ".", 16).unwrap();
    assert_eq!(root["data"][0], info["rootref"]);
    assert_eq!(get(&mut hub, ".", 1).unwrap()["data"]["foo"], val("x"));
    // a snapshot by root
    put(
        &mut hub,
        &[
            op("foo", val("y")),
            op("a", Value::Null),
            op("zip.zap", Value::Null),
        ],
    )
    .unwrap();
    assert_eq!(errnum(get(&mut hub, "zip", 0)), errno::ENOENT);
    assert_eq!(errnum(get(&mut hub, "a.b.c", 0)), errno::ENOENT);
    let old = hub
        .json("kvs.lookup", &json!({"key": "foo", "rootdir": root, "flags": 0}))
        .unwrap();
    assert_eq!(old["val"], val("x"));
    // bad commits
    assert_eq!(errnum(put(&mut hub, &[op(".", val("1"))])), errno::EINVAL);
    assert_eq!(errnum(put(&mut hub, &[op("", val("1"))])), errno::EINVAL);
    assert_eq!(
        errnum(put(&mut hub, &[json!({"key": "a", "flags": 0})])),
        errno::EPROTO
    );
    assert!(put(&mut hub, &[json!({"key": "a", "flags": 32, "dirent": null})]).is_ok());
}

#[test]
fn long_values_are_valrefs_and_appends_grow() {
    let mut hub = hub();
    let long = "0123456789".repeat(20);
    put(&mut hub, &[op("long", val(&long)), append("log", "a\n")]).unwrap();
    assert_eq!(get(&mut hub, "long", 16).unwrap()["type"], "valref");
    put(
        &mut hub,
        &[append("log", "b\n"), append("log", "c\n"), append("long", "!")],
    )
    .unwrap();
    assert_eq!(get(&mut hub, "log", 0), Ok(val("a\nb\nc\n")));
    assert_eq!(get(&mut hub, "long", 0), Ok(val(&(long + "!"))));
    put(
        &mut hub,
        &[
            op("d.e", val("1")),
            op(
                "l",
                json!({"data": {"target": "log"}, "type": "symlink", "ver": 1}),
            ),
        ],
    )
    .unwrap();
    assert_eq!(errnum(put(&mut hub, &[append("d", "x")])), errno::EISDIR);
    assert_eq!(errnum(put(&mut hub, &[append("l", "x")])), errno::ENOTSUP);
    assert_eq!(
        errnum(put(
            &mut hub,
            &[json!({"key": "d", "flags": 32, "dirent": {"data": {}, "type": "dir", "ver": 1}})]
        )),
        errno::EPROTO
    );
    assert_eq!(get(&mut hub, "l", 0), Ok(val("a\nb\nc\n")));
    assert_eq!(get(&mut hub, "l", 2).unwrap()["data"]["target"], "log");
}

#[test]
fn links_and_namespaces() {
    let mut hub = hub();
    let create = json!({"namespace": "job-1", "rootref": "", "owner": 500, "flags": 0});
    hub.json("kvs.namespace-create", &create).unwrap();
    assert_eq!(errnum(hub.json("kvs.namespace-create", &create)), errno::EEXIST);
    hub.json(
        "kvs.commit",
        &commit_body("job-1", &[op("exec.eventlog", val("e"))]),
    )
    .unwrap();
    let link = |ns: Option<&str>, target: &str| {
        let data = ns.map_or_else(
            || json!({"target": target}),
            |ns| json!({"namespace": ns, "target": target}),
        );
        json!({"data": data, "type": "symlink", "ver": 1})
    };
    put(
        &mut hub,
        &[
            op("job.guest", link(Some("job-1"), ".")),
            op("loop", link(None, "loop")),
            op("dir.x", val("1")),
        ],
    )
    .unwrap();
    put(
        &mut hub,
        &[op("to", link(None, "dir")), op("no", link(Some("nope"), "."))],
    )
    .unwrap();
    assert_eq!(get(&mut hub, "job.guest.exec.eventlog", 0), Ok(val("e")));
    assert_eq!(errnum(get(&mut hub, "loop", 0)), errno::ELOOP);
    assert_eq!(errnum(get(&mut hub, "no.x", 0)), errno::ENOTSUP);
    put(&mut hub, &[op("to.y", val("2"))]).unwrap();
    assert_eq!(get(&mut hub, "dir.y", 0), Ok(val("2")));
    assert_eq!(errnum(put(&mut hub, &[op("loop.x", val("2"))])), errno::ELOOP);
    assert_eq!(
        errnum(put(&mut hub, &[op("job.guest.x", val("2"))])),
        errno::EINVAL
    );
    let list = hub.json("kvs.namespace-list", &json!({})).unwrap();
    assert_eq!(
        list["namespaces"][1],
        json!({"namespace": "job-1", "owner": 500, "flags": 0})
    );
    // guests: only in their own namespace
    let look = |ns: &str, key: &str| request("kvs.lookup", &json!({"namespace": ns, "key": key, "flags": 0}));
    assert!(hub.rpc(as_guest(look("job-1", "exec.eventlog"), 500)).is_ok());
    assert_eq!(
        errnum(hub.rpc(as_guest(look("job-1", "exec.eventlog"), 501))),
        errno::EPERM
    );
    assert_eq!(
        errnum(hub.rpc(as_guest(look("primary", "dir.x"), 500))),
        errno::EPERM
    );
    let put_as = |ops: &[Value]| as_guest(request("kvs.commit", &commit_body("job-1", ops)), 500);
    assert!(hub.rpc(put_as(&[op("x", val("1"))])).is_ok());
    let err = hub
        .rpc(put_as(&[op("x", link(Some("primary"), "."))]))
        .unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::EPERM, "guests may not commit symlink objects")
    );
    // removal
    hub.json("kvs.namespace-remove", &json!({"namespace": "job-1"}))
        .unwrap();
    hub.json("kvs.namespace-remove", &json!({"namespace": "job-1"}))
        .unwrap();
    assert_eq!(errnum(hub.rpc(look("job-1", "x"))), errno::ENOTSUP);
    assert_eq!(
        errnum(hub.json("kvs.namespace-remove", &json!({"namespace": "primary"}))),
        errno::ENOTSUP
    );
}

#[test]
fn versions() {
    let mut hub = hub();
    let root = hub.json("kvs.getroot", &json!({"namespace": "primary"})).unwrap();
    assert_eq!((&root["owner"], &root["rootseq"]), (&json!(OWNER), &json!(0)));
    let waits = Rc::new(RefCell::new(None));
    let out = waits.clone();
    hub.with_probe(move |cx| {
        let req = request("kvs.wait-version", &json!({"namespace": "primary", "rootseq": 2}));
        cx.rpc(req, move |_: &mut Probe, _, result| {
            *out.borrow_mut() = Some(result.map(|m| m.payload_json::<Value>().unwrap()))
        });
    });
    put(&mut hub, &[op("a", val("1"))]).unwrap();
    assert!(waits.borrow().is_none());
    put(&mut hub, &[op("b", val("1"))]).unwrap();
    assert_eq!(waits.borrow().as_ref().unwrap().as_ref().unwrap()["rootseq"], 2);
    // same turn, merged unless asked not to
    let seqs: Vec<u64> = hub.wait(|cx: &mut Cx<'_>, done| {
        let seqs = Rc::new(RefCell::new(Vec::new()));
        let done = Rc::new(RefCell::new(Some(done)));
        for (index, flags) in [0, 0, 1, 0, 0].into_iter().enumerate() {
            let (seqs, done) = (seqs.clone(), done.clone());
            let body =
                json!({"namespace": "primary", "flags": flags, "ops": [op(&format!("m{index}"), val("1"))]});
            cx.rpc(
                request("kvs.commit", &body),
                move |probe: &mut Probe, cx, result| {
                    seqs.borrow_mut().push(
                        result.unwrap().payload_json::<Value>().unwrap()["rootseq"]
                            .as_u64()
                            .unwrap(),
                    );
                    if seqs.borrow().len() == 5 {
                        (done.take().unwrap())(probe, cx, seqs.borrow().clone());
                    }
                },
            );
        }
    });
    assert_eq!(seqs, [3, 3, 4, 5, 5]);
}

#[test]
fn watches() {
    let mut hub = hub();
    let watch = |key: &str, flags: u32| {
        request(
            "kvs-watch.lookup",
            &json!({"namespace": "primary", "key": key, "flags": flags}),
        )
    };
    assert_eq!(errnum(hub.rpc(watch("a", 4))), errno::EPROTO);
    let (missing, _) = hub.stream(watch("a", 4));
    assert_eq!(missing.borrow()[0].as_ref().unwrap_err().errnum, errno::ENOENT);
    let (plain, tag) = hub.stream(watch("a.b", 4 | 8));
    let (uniq, _) = hub.stream(watch("a.b", 4 | 8 | 128));
    let (full, _) = hub.stream(watch("a", 4 | 8 | 64 | 1));
    let (grow, _) = hub.stream(watch("log", 4 | 8 | 256 | 1024));
    assert_eq!(grow.borrow().as_slice(), [Ok(Value::Null)]);
    put(&mut hub, &[op("a.b", val("1"))]).unwrap();
    put(&mut hub, &[op("a.b", val("1"))]).unwrap();
    put(&mut hub, &[op("other", val("1"))]).unwrap();
    put(&mut hub, &[op("a.c", val("2"))]).unwrap();
    put(&mut hub, &[append("log", "x\n")]).unwrap();
    put(&mut hub, &[append("log", "y\n"), append("log", "z\n")]).unwrap();
    let got = |value: &str| Ok(json!({ "val": val(value) }));
    assert_eq!(plain.borrow().as_slice(), [got("1"), got("1")]);
    assert_eq!(uniq.borrow().as_slice(), [got("1")]);
    assert_eq!(full.borrow().len(), 2);
    assert_eq!(
        grow.borrow().as_slice(),
        [Ok(Value::Null), got("x\n"), got("y\nz\n")]
    );
    let stats = hub.json("kvs-watch.stats-get", &json!({})).unwrap();
    assert_eq!(
        (&stats["watchers"], &stats["namespaces"]["primary"]["watchers"]),
        (&json!(4), &json!(4))
    );
    hub.with_probe(move |cx| cx.notify(request("kvs-watch.cancel", &json!({ "matchtag": tag }))));
    assert_eq!(
        plain.borrow().last().unwrap().as_ref().unwrap_err().errnum,
        errno::ENODATA
    );
    put(&mut hub, &[op("a.b", Value::Null), op("log", val("new"))]).unwrap();
    assert_eq!(
        uniq.borrow().last().unwrap().as_ref().unwrap_err().errnum,
        errno::ENOENT
    );
    assert_eq!(
        grow.borrow().last().unwrap().as_ref().unwrap_err().errnum,
        errno::EINVAL
    );
    let (stream, _) = hub.stream(watch("log", 512));
    assert_eq!(stream.borrow()[0], got("new"));
    assert_eq!(stream.borrow()[1].as_ref().unwrap_err().errnum, errno::ENODATA);
    // a namespace that comes and goes
    let (ns, _) = hub.stream(request(
        "kvs-watch.lookup",
        &json!({"namespace": "n", "key": "k", "flags": 12}),
    ));
    hub.json(
        "kvs.namespace-create",
        &json!({"namespace": "n", "rootref": "", "owner": 1, "flags": 0}),
    )
    .unwrap();
    hub.json("kvs.commit", &commit_body("n", &[op("k", val("v"))]))
        .unwrap();
    hub.json("kvs.namespace-remove", &json!({"namespace": "n"}))
        .unwrap();
    assert_eq!(ns.borrow()[0], got("v"));
    assert_eq!(ns.borrow()[1].as_ref().unwrap_err().errnum, errno::ENOTSUP);
}

#[test]
fn typed_calls() {
    let mut hub = hub();
    hub.wait(|cx, done| namespace_create(cx, "job-7", 42, done))
        .unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let sink = seen.clone();
    let id = hub.with_probe(move |cx| {
        watch_appends(
            cx,
            "job-7",
            "exec.eventlog",
            true,
            move |_: &mut Probe, _, result| sink.borrow_mut().push(result),
        )
    });
    for line in ["init\n", "start\n"] {
        let mut txn = Txn::new();
        txn.append("exec.eventlog", line.as_bytes());
        hub.wait(|cx, done| commit(cx, "job-7", txn, done)).unwrap();
    }
    let mut txn = Txn::new();
    txn.put("job.x.R", "{}")
        .symlink("job.x.guest", Some("job-7"), ".");
    let info = hub
        .wait(|cx, done| commit_durable(cx, "primary", txn, done))
        .unwrap();
    assert_eq!(info.rootseq, 1);
    assert_eq!(
        info.rootref().to_string(),
        hub.json("kvs.getroot", &json!({"namespace": "primary"})).unwrap()["rootref"]
    );
    let value = hub
        .wait(|cx, done| lookup(cx, "primary", "job.x.guest.exec.eventlog", done))
        .unwrap();
    assert_eq!(value, Bytes::from_static(b"init\nstart\n"));
    hub.wait(|cx, done| snapshot_namespace(cx, "job-7", "job.x.guest", done))
        .unwrap();
    let names = hub
        .wait(|cx, done| lookup_dir(cx, "primary", "job.x.guest", done))
        .unwrap();
    assert_eq!(names, ["exec"]);
    assert_eq!(
        errnum(hub.wait(|cx, done| lookup_dir(cx, "job-7", ".", done))),
        errno::ENOTSUP
    );
    let pieces: Vec<_> = seen.borrow().iter().filter_map(|r| r.clone().ok()).collect();
    assert_eq!(pieces, ["init\n", "start\n"]);
    assert_eq!(
        seen.borrow().last().unwrap().as_ref().unwrap_err().errnum,
        errno::ENOTSUP
    );
    hub.with_probe(move |cx| cancel_watch(cx, id));
}

/// A hub with all four modules over a directory.
fn hub_in(attr: &str, dir: &std::path::Path) -> TestHub {
    let mut hub = TestHub::new(&[(attr, dir.to_str().unwrap())]);
    hub.load("content", Box::new(crate::modules::content::Content::default()))
        .unwrap();
    hub.load(
        "content-sqlite",
        Box::new(crate::modules::content_sqlite::ContentSqlite::new(&[])),
    )
    .unwrap();
    hub.load("kvs", Box::new(Kvs::default())).unwrap();
    hub.load("kvs-watch", Box::new(KvsWatch)).unwrap();
    hub
}

fn stop(hub: &mut TestHub) {
    for module in ["kvs-watch", "kvs", "content-sqlite", "content"] {
        hub.remove(module);
    }
}

fn load_blob(hub: &mut TestHub, blobref: &str) -> Result<Bytes, RpcError> {
    let blobref: flux_formats::blobref::BlobRef = blobref.parse().unwrap();
    let mut req = request("content.load", &json!({}));
    req.payload = Some(Bytes::copy_from_slice(blobref.digest()));
    hub.rpc(req).map(|msg| msg.payload.unwrap_or_default())
}

#[test]
fn durable_commits_survive_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub_in("statedir", dir.path());
    hub.wait(|cx, done| namespace_create(cx, "job-1", 5, done))
        .unwrap();
    hub.wait(|cx, done| namespace_create(cx, "job-2", 5, done))
        .unwrap();
    let mut txn = Txn::new();
    txn.append("log", b"guest\n");
    let same = txn.clone();
    hub.wait(|cx, done| commit(cx, "job-1", same, done)).unwrap();
    hub.wait(|cx, done| commit(cx, "job-2", txn, done)).unwrap();
    for n in 0..100 {
        let mut txn = Txn::new();
        txn.put(&format!("job.{n}.R"), "x".repeat(100))
            .append("log", b"line\n");
        hub.wait(|cx, done| commit(cx, "primary", txn, done)).unwrap();
    }
    hub.wait(|cx, done| snapshot_namespace(cx, "job-1", "job.1.guest", done))
        .unwrap();
    let mut txn = Txn::new();
    txn.put("last", "durable");
    let info = hub
        .wait(|cx, done| commit_durable(cx, "primary", txn, done))
        .unwrap();
    let rootref = info.rootref();
    drop(hub); // nothing is stopped: as after kill -9
    let mut hub = hub_in("statedir", dir.path());
    hub.run_idle();
    let root = hub.json("kvs.getroot", &json!({"namespace": "primary"})).unwrap();
    assert_eq!(
        (&root["rootref"], &root["rootseq"]),
        (&json!(rootref.to_string()), &json!(info.rootseq))
    );
    let value = hub
        .wait(|cx, done| lookup(cx, "primary", "job.1.guest.log", done))
        .unwrap();
    assert_eq!(value, Bytes::from_static(b"guest\n"));
    let value = hub.wait(|cx, done| lookup(cx, "job-2", "log", done)).unwrap();
    assert_eq!(value, Bytes::from_static(b"guest\n"));
    // a clean stop, then a start from the checkpoint
    stop(&mut hub);
    let mut hub = hub_in("statedir", dir.path());
    let root = hub.json("kvs.getroot", &json!({"namespace": "primary"})).unwrap();
    assert_eq!(root["rootref"], rootref.to_string());
    let list = hub.json("content.checkpoint-get", &json!({})).unwrap();
    assert_eq!(list["value"][0]["rootref"], rootref.to_string());
    assert_eq!(
        hub.wait(|cx, done| lookup(cx, "primary", "log", done))
            .unwrap()
            .len(),
        500
    );
    assert_eq!(
        hub.wait(|cx, done| lookup(cx, "primary", "last", done)).unwrap(),
        "durable"
    );
    let stats = hub.json("content-sqlite.stats-get", &json!({})).unwrap();
    assert_eq!(stats["checkpoints"][0]["value"]["rootref"], rootref.to_string());
}

#[test]
fn what_clients_are_told_can_be_loaded() {
    for with_store in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = if with_store {
            hub_in("rundir", dir.path())
        } else {
            let mut hub = TestHub::new(&[]);
            hub.load("content", Box::new(crate::modules::content::Content::default()))
                .unwrap();
            hub.load("kvs", Box::new(Kvs::default())).unwrap();
            hub
        };
        let many: Vec<Value> = (0..500)
            .map(|n| op(&format!("big.{n:04}"), val(&"v".repeat(n))))
            .collect();
        put(&mut hub, &many).unwrap();
        put(&mut hub, &[op("small", val("1"))]).unwrap();
        let big = get(&mut hub, "big", 16).unwrap();
        let json = load_blob(&mut hub, big["data"][0].as_str().unwrap()).unwrap();
        let dir = flux_formats::treeobj::TreeObj::decode_dir(&json).unwrap();
        assert_eq!(dir.len(), 500);
        assert_eq!(
            serde_json::from_slice::<Value>(&json).unwrap(),
            get(&mut hub, "big", 1).unwrap()
        );
        let flux_formats::treeobj::TreeObj::ValRef(refs) = dir.get("0499").unwrap() else {
            panic!()
        };
        assert_eq!(
            load_blob(&mut hub, &refs[0].to_string()).unwrap(),
            "v".repeat(499)
        );
        let info = put(&mut hub, &[op("small", val("2"))]).unwrap();
        let root = load_blob(&mut hub, info["rootref"].as_str().unwrap()).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&root).unwrap()["data"]["small"],
            val("2")
        );
        assert_eq!(
            errnum(load_blob(
                &mut hub,
                "sha1-55ca6286e3e4f4fba5d0448333fa99fc5a404a73"
            )),
            errno::ENOENT
        );
    }
}

#[test]
fn memory_is_left_to_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub_in("rundir", dir.path());
    for round in 0..8 {
        for part in 0..8 {
            let mut txn = Txn::new();
            for n in 0..50 {
                txn.put(&format!("d.{round}.{part}.{n}"), vec![b'x'; 20_000]);
            }
            hub.wait(|cx, done| commit(cx, "primary", txn, done)).unwrap();
        }
        hub.run_idle();
    }
    let stats = hub.json("kvs.stats-get", &json!({})).unwrap();
    assert!(
        stats["cache"]["obj size total (MiB)"].as_f64().unwrap() < 40.0,
        "{stats}"
    );
    for round in 0..8 {
        let key = format!("d.{round}.3.17");
        assert_eq!(
            hub.wait(move |cx, done| lookup(cx, "primary", &key, done))
                .unwrap()
                .len(),
            20_000
        );
        let mut txn = Txn::new();
        txn.append(&format!("d.{round}.3.17"), b"more")
            .unlink(&format!("d.{round}.4"));
        hub.wait(|cx, done| commit(cx, "primary", txn, done)).unwrap();
        let key = format!("d.{round}.3.17");
        assert_eq!(
            hub.wait(move |cx, done| lookup(cx, "primary", &key, done))
                .unwrap()
                .len(),
            20_004
        );
    }
    assert!(
        hub.json("kvs.stats-get", &json!({})).unwrap()["cache"]["#faults"]
            .as_u64()
            .unwrap()
            > 0
    );
    stop(&mut hub);
    assert!(!dir.path().join("content.sqlite").exists());
}

fn limit_pages(hub: &mut TestHub, pages: u32) {
    use crate::modules::content_sqlite::local as store;
    // the pragma cannot run in a transaction that writes, but does when the connection has one
    hub.wait(move |cx, done| {
        store::write(
            cx,
            false,
            move |db| {
                db.limit_pages(pages);
                Ok(())
            },
            move |probe: &mut Probe, cx, result| {
                done(probe, cx, result);
            },
        );
    })
    .unwrap();
}

#[test]
fn a_full_disk_refuses_durable_work_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub_in("statedir", dir.path());
    let big = |n: usize| {
        let mut txn = Txn::new();
        txn.put(&format!("big.{n}"), vec![b'x'; 100_000]);
        txn
    };
    hub.wait(move |cx, done| commit_durable(cx, "primary", big(0), done))
        .unwrap();
    limit_pages(&mut hub, 0);
    let err = hub
        .wait(move |cx, done| commit_durable(cx, "primary", big(1), done))
        .unwrap_err();
    assert_eq!(err.errnum, errno::ENOSPC);
    assert!(
        err.text.contains("content.sqlite") && err.text.contains("full"),
        "{err}"
    );
    // refused before it has an effect
    let seq = hub.json("kvs.getroot", &json!({"namespace": "primary"})).unwrap()["rootseq"].clone();
    let err = hub
        .wait(move |cx, done| commit_durable(cx, "primary", big(2), done))
        .unwrap_err();
    assert_eq!(err.errnum, errno::ENOSPC);
    assert_eq!(
        errnum(hub.wait(|cx, done| lookup(cx, "primary", "big.2", done))),
        errno::ENOENT
    );
    // what runs goes on
    let mut txn = Txn::new();
    txn.append("log", b"still here\n");
    let info = hub.wait(|cx, done| commit(cx, "primary", txn, done)).unwrap();
    assert_eq!(info.rootseq, seq.as_u64().unwrap() + 1);
    limit_pages(&mut hub, 1_000_000);
    let mut tries = 0;
    while hub
        .wait(move |cx, done| commit_durable(cx, "primary", big(3), done))
        .is_err()
    {
        hub.run_idle();
        tries += 1;
        assert!(tries < 100, "does not recover");
    }
    drop(hub);
    let mut hub = hub_in("statedir", dir.path());
    for key in ["big.0", "big.1", "big.3", "log"] {
        assert!(
            hub.wait(move |cx, done| lookup(cx, "primary", key, done)).is_ok(),
            "{key}"
        );
    }
    assert_eq!(
        errnum(hub.wait(|cx, done| lookup(cx, "primary", "big.2", done))),
        errno::ENOENT
    );
}

#[test]
fn sync_makes_a_checkpoint() {
    for attr in ["statedir", "rundir"] {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = hub_in(attr, dir.path());
        let body = json!({"namespace": "primary", "flags": 4, "ops": [op("a", val("1"))]});
        let info = hub.json("kvs.commit", &body).unwrap();
        let list = hub.json("content.checkpoint-get", &json!({})).unwrap();
        assert_eq!(list["value"][0]["rootref"], info["rootref"]);
        assert_eq!(list["value"][0]["sequence"], info["rootseq"]);
        hub.json(
            "kvs.namespace-create",
            &json!({"namespace": "n", "rootref": "", "owner": 1, "flags": 0}),
        )
        .unwrap();
        let body = json!({"namespace": "n", "flags": 4, "ops": [op("a", val("1"))]});
        assert_eq!(errnum(hub.json("kvs.commit", &body)), errno::EINVAL);
    }
}

#[test]
fn a_checkpoint_made_without_a_kvs_is_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = TestHub::new(&[("statedir", dir.path().to_str().unwrap())]);
    hub.load("content", Box::new(crate::modules::content::Content::default()))
        .unwrap();
    hub.load(
        "content-sqlite",
        Box::new(crate::modules::content_sqlite::ContentSqlite::new(&[])),
    )
    .unwrap();
    // more entries than one leaf, as flux restore writes them
    let entries: serde_json::Map<String, Value> = (0..200)
        .map(|n| (format!("k{n:03}"), val(&n.to_string())))
        .collect();
    let object = json!({"data": entries, "type": "dir", "ver": 1}).to_string();
    let mut req = request("content.store", &json!({}));
    req.payload = Some(object.into_bytes().into());
    let digest = hub.rpc(req).unwrap().payload.unwrap();
    let root =
        flux_formats::blobref::BlobRef::from_digest(flux_formats::blobref::HashType::Sha1, &digest).unwrap();
    let value = json!({"version": 1, "rootref": root.to_string(), "sequence": 7, "timestamp": 1.0});
    hub.json("content.checkpoint-put", &json!({ "value": value }))
        .unwrap();
    hub.load("kvs", Box::new(Kvs::default())).unwrap();
    let now = hub.json("kvs.getroot", &json!({"namespace": "primary"})).unwrap();
    assert_eq!(
        (&now["rootref"], &now["rootseq"]),
        (&json!(root.to_string()), &json!(7))
    );
    assert_eq!(get(&mut hub, "k123", 0), Ok(val("123")));
    put(&mut hub, &[op("k123", Value::Null), op("new", val("x"))]).unwrap();
    assert_eq!(
        get(&mut hub, ".", 1).unwrap()["data"].as_object().unwrap().len(),
        200
    );
    assert_eq!(
        load_blob(&mut hub, &root.to_string()).unwrap()[..8],
        b"{\"data\":"[..]
    );
}
