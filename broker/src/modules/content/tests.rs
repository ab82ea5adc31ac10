//! Tests of the actor.

use super::Content;
use crate::modules::content_sqlite::ContentSqlite;
use crate::service::RpcError;
use crate::service::testing::{TestHub, body, request};
use bytes::Bytes;
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::errno;
use serde_json::{Value, json};

fn raw(hub: &mut TestHub, topic: &'static str, payload: &[u8]) -> Result<Bytes, RpcError> {
    let mut req = request(topic, &json!({}));
    req.payload = Some(Bytes::copy_from_slice(payload)).filter(|payload| !payload.is_empty());
    hub.rpc(req).map(|msg| msg.payload.unwrap_or_default())
}

#[test]
fn store_load_flush() {
    for (hash, kind) in [("sha1", HashType::Sha1), ("sha256", HashType::Sha256)] {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = TestHub::new(&[("rundir", dir.path().to_str().unwrap()), ("content.hash", hash)]);
        hub.load("content", Box::new(Content::default())).unwrap();
        assert_eq!(
            raw(&mut hub, "content.flush", b"").unwrap_err().errnum,
            errno::ENOSYS
        );
        assert_eq!(
            hub.json("content.checkpoint-get", &json!({})).unwrap_err().text,
            "checkpoint get unavailable, no backing store"
        );
        let digest = raw(&mut hub, "content.store", b"hi\n").unwrap();
        assert_eq!(digest, BlobRef::compute(kind, b"hi\n").digest());
        let empty = raw(&mut hub, "content.store", b"").unwrap();
        assert_eq!(raw(&mut hub, "content.load", &empty).unwrap(), "");
        assert_eq!(raw(&mut hub, "content.load", &digest).unwrap(), "hi\n");
        assert_eq!(
            raw(&mut hub, "content.load", &digest[1..]).unwrap_err().errnum,
            errno::EPROTO
        );
        assert_eq!(
            raw(&mut hub, "content.load", &vec![7; digest.len()])
                .unwrap_err()
                .errnum,
            errno::ENOENT
        );
        hub.load("content-sqlite", Box::new(ContentSqlite::new(&[])))
            .unwrap();
        raw(&mut hub, "content.flush", b"").unwrap();
        let stats = hub.json("content.stats-get", &json!({})).unwrap();
        assert_eq!((&stats["dirty"], &stats["count"]), (&json!(0), &json!(2)));
        raw(&mut hub, "content.dropcache", b"").unwrap();
        assert_eq!(hub.json("content.stats-get", &json!({})).unwrap()["count"], 0);
        assert_eq!(raw(&mut hub, "content.load", &digest).unwrap(), "hi\n");
        assert_eq!(raw(&mut hub, "content-backing.validate", &digest).unwrap(), "");
        assert_eq!(
            raw(&mut hub, "content-backing.validate", &vec![7; digest.len()])
                .unwrap_err()
                .errnum,
            errno::ENOENT
        );
        assert_eq!(
            hub.json("content.checkpoint-get", &json!({})).unwrap_err().errnum,
            errno::ENOENT
        );
        for n in 0..7 {
            hub.json("content.checkpoint-put", &json!({"value": {"n": n}}))
                .unwrap();
        }
        let list = hub.json("content.checkpoint-get", &json!({})).unwrap();
        assert_eq!(list["value"].as_array().unwrap().len(), 5);
        assert_eq!(list["value"][0], json!({"n": 6}));
        let err = hub
            .json("content.register-backing", &json!({"name": "content-sqlite"}))
            .unwrap_err();
        assert_eq!(
            (err.errnum, err.text.as_str()),
            (errno::EBUSY, "content backing store is already active")
        );
    }
}

#[test]
fn garbage_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = TestHub::new(&[("statedir", dir.path().to_str().unwrap())]);
    hub.load("content", Box::new(Content::default())).unwrap();
    hub.load("content-sqlite", Box::new(ContentSqlite::new(&[])))
        .unwrap();
    let keep = raw(&mut hub, "content-backing.store", b"keep").unwrap();
    let go = raw(&mut hub, "content-backing.store", b"go").unwrap();
    hub.json("content.checkpoint-put", &json!({"value": {}})).unwrap();
    let info = hub
        .json("content-backing.gc-info", &json!({"epoch": 2, "get_count": true}))
        .unwrap();
    assert_eq!(
        info,
        json!({"current_epoch": 2, "high_water": 2, "candidates": 2})
    );
    let blobref = BlobRef::from_digest(HashType::Sha1, &keep).unwrap().to_string();
    let marked = hub
        .json("content-backing.mark", &json!({"epoch": 2, "hashes": [blobref]}))
        .unwrap();
    assert_eq!(marked["marked"], 1);
    let sweep = json!({"epoch": 2, "cursor": 0, "high_water": 2, "delete_cap": 10, "window": 10});
    let swept = hub.json("content-backing.sweep", &sweep).unwrap();
    assert_eq!(swept, json!({"deleted": 1, "cursor": 2}));
    assert!(raw(&mut hub, "content-backing.load", &keep).is_ok());
    assert_eq!(
        raw(&mut hub, "content-backing.load", &go).unwrap_err().errnum,
        errno::ENOENT
    );
    let stats: Value = hub
        .rpc(request("content-sqlite.stats-get", &json!({})))
        .map(|msg| body(&msg))
        .unwrap();
    let names: Vec<&String> = stats.as_object().unwrap().keys().collect();
    let golden = [
        "object_count",
        "current_epoch",
        "dbfile_size",
        "dbfile_free",
        "load_time",
        "store_time",
        "config",
        "checkpoints",
    ];
    assert_eq!(names, golden);
}

/// Takes what a follower sends to its parent.
struct Sent(std::rc::Rc<std::cell::RefCell<Vec<flux_formats::msg::Message>>>);

impl crate::service::Link for Sent {
    fn send(&mut self, msg: &flux_formats::msg::Message) -> Result<(), RpcError> {
        self.0.borrow_mut().push(msg.clone());
        Ok(())
    }
}

#[test]
fn followers_ask_their_parent_once() {
    let mut hub = TestHub::of_rank(1, 2, &[]);
    hub.load("content", Box::new(Content::default())).unwrap();
    let sent = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let parent = Bytes::from_static(b"parent");
    hub.hub
        .core()
        .peer_up(parent.clone(), None, Box::new(Sent(sent.clone())));
    let digest = BlobRef::compute(HashType::Sha1, b"blob").digest().to_vec();
    let answers = std::rc::Rc::new(std::cell::Cell::new(0));
    for _ in 0..2 {
        let (answers, digest) = (answers.clone(), digest.clone());
        hub.with_probe(move |cx| {
            let mut req = request("content.load", &json!({}));
            req.payload = Some(digest.into());
            cx.rpc(req, move |_: &mut crate::service::testing::Probe, _, result| {
                assert_eq!(result.unwrap().payload.unwrap(), "blob");
                answers.set(answers.get() + 1);
            });
        });
    }
    let request_up = sent.borrow()[0].clone();
    assert_eq!(
        (sent.borrow().len(), request_up.topic.as_str()),
        (1, "content.load")
    );
    let resp = request_up.response(Some(Bytes::from_static(b"blob")));
    hub.hub.core().receive_from_peer(&parent, resp);
    hub.run_posts();
    assert_eq!(answers.get(), 2);
    assert_eq!(raw(&mut hub, "content.load", &digest).unwrap(), "blob");
    assert_eq!(sent.borrow().len(), 1);
}
