//! Does the handle behave against a broker that the test plays by hand?

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flux_formats::errno;
use flux_formats::msg::{
    FrameDecoder, Kind, Message, NODEID_ANY, flags, frame, json_payload, string_payload,
};
use serde_json::{Value, json};

use crate::{ConnectOptions, Error, Handle, Incoming, Other, attr, job, kvs};

/// The broker's end of one connection.
struct Peer {
    stream: UnixStream,
    decoder: FrameDecoder,
}

impl Peer {
    fn recv(&mut self) -> Option<Message> {
        loop {
            if let Some(msg) = self.decoder.next_message().unwrap() {
                return Some(msg);
            }
            let mut chunk = [0u8; 4096];
            let count = self.stream.read(&mut chunk).unwrap();
            if count == 0 {
                return None;
            }
            self.decoder.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    fn send(&mut self, msg: &Message) {
        self.stream.write_all(&frame(msg)).unwrap();
    }

    fn answer(&mut self, request: &Message, body: &Value) {
        self.send(&request.response(Some(json_payload(body).unwrap())));
    }
}

fn options() -> ConnectOptions {
    ConnectOptions {
        retries: 5,
        patience: None,
        userid: None,
        rolemask: None,
    }
}

/// Listens in a directory of its own and plays `script` for each of `connections` clients in turn.
fn broker(
    connections: usize,
    script: impl Fn(usize, &mut Peer) + Send + 'static,
) -> (tempfile::TempDir, String, JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("local");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        for number in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[0]).unwrap();
            script(
                number,
                &mut Peer {
                    stream,
                    decoder: FrameDecoder::new(1 << 24),
                },
            );
        }
    });
    let uri = format!("local://{}", path.display());
    (dir, uri, thread)
}

#[test]
fn call_and_error_text() {
    let (_dir, uri, thread) = broker(1, |_, peer| {
        let request = peer.recv().unwrap();
        assert_eq!(
            (request.topic.as_str(), request.matchtag(), request.nodeid()),
            ("attr.get", 1, NODEID_ANY)
        );
        assert_eq!(request.payload_str().unwrap(), r#"{"name":"size"}"#);
        assert!(request.has_flag(flags::ROUTE) && request.routes.is_empty());
        peer.answer(&request, &json!({"value": "4", "flags": 1}));
        let request = peer.recv().unwrap();
        assert_eq!(request.matchtag(), 1, "the lowest free tag is used again");
        peer.send(&request.error_response(errno::ENOENT, ""));
        let request = peer.recv().unwrap();
        peer.send(&request.error_response(errno::EINVAL, "no such thing"));
    });
    let mut handle = Handle::open_with(Some(&uri), &options()).unwrap();
    assert_eq!(attr::get_u32(&mut handle, "size").unwrap(), 4);
    let err = attr::get(&mut handle, "foo").unwrap_err();
    assert!(err.is_rpc(errno::ENOENT));
    assert_eq!(err.to_string(), "No such file or directory");
    assert_eq!(
        attr::set(&mut handle, "a", "b", false).unwrap_err().to_string(),
        "no such thing"
    );
    thread.join().unwrap();
    assert!(matches!(attr::get(&mut handle, "size"), Err(Error::Closed)));
}

#[test]
fn pipelined_out_of_order_and_large() {
    let (_dir, uri, thread) = broker(1, |_, peer| {
        let requests: Vec<Message> = (0..50).map(|_| peer.recv().unwrap()).collect();
        assert_eq!(
            requests.iter().map(Message::matchtag).collect::<Vec<_>>(),
            (1..=50).collect::<Vec<_>>()
        );
        for request in requests.iter().rev() {
            let body: Value = request.payload_json().unwrap();
            peer.answer(request, &body);
        }
    });
    let mut handle = Handle::open_with(Some(&uri), &options()).unwrap();
    let pad = "x".repeat(100_000);
    let rpcs: Vec<_> = (0..50)
        .map(|n| {
            handle
                .rpc("echo.it", NODEID_ANY, &json!({"n": n, "pad": pad}))
                .unwrap()
        })
        .collect();
    for (n, rpc) in rpcs.iter().enumerate() {
        let body: Value = handle.get(rpc).unwrap();
        assert_eq!(
            (body["n"].as_u64(), body["pad"].as_str().map(str::len)),
            (Some(n as u64), Some(100_000))
        );
    }
    thread.join().unwrap();
}

#[test]
fn stream_ends_and_frees_its_tag() {
    let (_dir, uri, thread) = broker(1, |_, peer| {
        let request = peer.recv().unwrap();
        assert!(request.is_streaming());
        peer.answer(&request, &json!({"event": "a\n"}));
        peer.send(&request.response(None));
        let cancel = peer.recv().unwrap();
        assert_eq!(cancel.topic.as_str(), "job-info.eventlog-watch-cancel");
        assert_eq!(cancel.payload_str().unwrap(), r#"{"matchtag":1}"#);
        assert!(!cancel.wants_response() && cancel.matchtag() == 0);
        peer.send(&request.error_response(errno::ENODATA, ""));
        assert_eq!(peer.recv().unwrap().matchtag(), 1);
    });
    let mut handle = Handle::open_with(Some(&uri), &options()).unwrap();
    let watch = job::eventlog_watch(&mut handle, 7, "eventlog", 0).unwrap();
    assert_eq!(
        job::watch_next(&mut handle, &watch).unwrap(),
        Some(job::WatchEvent::Event("a\n".to_owned()))
    );
    assert_eq!(
        job::watch_next(&mut handle, &watch).unwrap(),
        Some(job::WatchEvent::Sentinel)
    );
    job::watch_cancel(&mut handle, &watch).unwrap();
    assert_eq!(job::watch_next(&mut handle, &watch).unwrap(), None);
    handle.rpc("a.b", NODEID_ANY, &json!({})).unwrap();
    handle.flush().unwrap();
    thread.join().unwrap();
}

#[test]
fn forgotten_rpcs_are_absorbed() {
    let (_dir, uri, thread) = broker(1, |_, peer| {
        let first = peer.recv().unwrap();
        let second = peer.recv().unwrap();
        assert_eq!(
            second.matchtag(),
            2,
            "a forgotten tag stays in use until its answer"
        );
        peer.answer(&first, &json!({"late": true}));
        peer.answer(&second, &json!({"n": 2}));
        let mut stray = second.response(None);
        stray.aux2 = 99;
        peer.send(&stray);
        let third = peer.recv().unwrap();
        assert_eq!(third.matchtag(), 1);
        peer.answer(&third, &json!({"n": 3}));
    });
    let mut handle = Handle::open_with(Some(&uri), &options()).unwrap();
    let rpc = handle.rpc("a.b", NODEID_ANY, &json!({})).unwrap();
    handle.forget(rpc);
    assert_eq!(
        handle.call::<Value>("a.c", NODEID_ANY, &json!({})).unwrap(),
        json!({"n": 2})
    );
    assert_eq!(
        handle.call::<Value>("a.d", NODEID_ANY, &json!({})).unwrap(),
        json!({"n": 3})
    );
    assert!(!handle.has_incoming());
    thread.join().unwrap();
}

#[test]
fn events_services_and_other_descriptors() {
    let (_dir, uri, thread) = broker(1, |_, peer| {
        for topic in ["event.subscribe", "service.add"] {
            let request = peer.recv().unwrap();
            assert_eq!(request.topic.as_str(), topic);
            peer.send(&request.response(None));
        }
        peer.send(&Message::event("a.b", Some(string_payload("{}"))));
        let mut request = Message::request("svc.do", NODEID_ANY, None);
        request.aux2 = 5;
        request.routes = vec![bytes::Bytes::from_static(b"someone")];
        peer.send(&request);
        let response = peer.recv().unwrap();
        assert_eq!(
            (response.kind, response.matchtag(), response.routes.len()),
            (Kind::Response, 5, 1)
        );
        let barrier = peer.recv().unwrap();
        assert!(!barrier.wants_response() && barrier.matchtag() == 0);
        peer.send(&barrier.error_response(errno::EIO, "barrier failed"));
        assert!(peer.recv().is_none());
    });
    let mut handle = Handle::open_with(Some(&uri), &options()).unwrap();
    handle.subscribe("a.").unwrap();
    handle.service_add("svc").unwrap();
    assert_eq!(handle.next_event(None).unwrap().topic.as_str(), "a.b");
    let Some(Incoming::Request(request)) = handle.next_incoming(None).unwrap() else {
        panic!("no request")
    };
    handle.respond(&request, Some(&json!({"ok": 1}))).unwrap();
    let err = handle
        .call_untagged("job-exec.shell-barrier", NODEID_ANY, &json!({}))
        .unwrap_err();
    assert_eq!(
        (err.errnum(), err.to_string().as_str()),
        (errno::EIO, "barrier failed")
    );

    let (reader, mut writer) = std::io::pipe().unwrap();
    let soon = Instant::now() + Duration::from_millis(5);
    let mut others = [Other::input(reader.as_fd())];
    handle.poll(&mut others, Some(soon)).unwrap();
    assert!(!others[0].is_readable() && Instant::now() >= soon);
    writer.write_all(b"x").unwrap();
    handle.poll(&mut others, None).unwrap();
    assert!(others[0].is_readable());
    let past = Instant::now();
    assert!(handle.next_incoming(Some(past)).unwrap().is_none());
    drop(handle);
    thread.join().unwrap();
}

#[test]
fn refused_missing_and_retried() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("local");
    let uri = format!("local://{}", path.display());
    let none = ConnectOptions {
        retries: 0,
        ..options()
    };
    assert!(matches!(
        Handle::open_with(Some(&uri), &none),
        Err(Error::SocketNotFound(_))
    ));
    let late = path.clone();
    let thread = std::thread::spawn(move || {
        crate::tests::wait_some();
        let listener = UnixListener::bind(&late).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[1]).unwrap();
        drop(listener.accept().unwrap());
    });
    let err = Handle::open_with(Some(&uri), &options()).unwrap_err();
    assert!(
        matches!(
            err,
            Error::Refused {
                errnum: errno::EPERM,
                ..
            }
        ),
        "{err:?}"
    );
    let err = Handle::open_with(Some(&uri), &options()).unwrap_err();
    assert_eq!(err.errnum(), errno::ECONNRESET);
    thread.join().unwrap();
    let long = format!("local:///{}", "x".repeat(200));
    assert!(matches!(
        Handle::open_with(Some(&long), &options()),
        Err(Error::Connect { .. })
    ));
}

/// Lets the first attempt fail; how long it takes does not matter to the test.
fn wait_some() {
    crate::connector::pause(Duration::from_millis(20));
}

#[test]
fn reconnect_subscribes_again() {
    let (_dir, uri, thread) = broker(2, |number, peer| {
        let request = peer.recv().unwrap();
        assert_eq!(request.topic.as_str(), "event.subscribe");
        peer.send(&request.response(None));
        if number == 0 {
            assert_eq!(peer.recv().unwrap().topic.as_str(), "kvs.lookup");
        } else {
            let request = peer.recv().unwrap();
            peer.answer(&request, &json!({"val": kvs::val_object(b"v")}));
        }
    });
    let mut handle = Handle::open_with(Some(&uri), &options()).unwrap();
    handle.subscribe("x").unwrap();
    let rpc = kvs::lookup_start(&mut handle, kvs::From::Namespace("primary"), "a", 0).unwrap();
    assert!(matches!(handle.wait(&rpc), Err(Error::Closed)));
    handle.reconnect().unwrap();
    assert!(matches!(handle.wait(&rpc), Err(Error::Reconnected)));
    assert_eq!(kvs::get(&mut handle, "primary", "a").unwrap(), b"v");
    thread.join().unwrap();
}

#[test]
fn timeout_ends_a_wait() {
    let (_dir, uri, thread) = broker(1, |_, peer| while peer.recv().is_some() {});
    let mut handle = Handle::open_with(Some(&uri), &options()).unwrap();
    handle.set_timeout(Some(Duration::from_millis(5)));
    assert!(matches!(attr::get(&mut handle, "size"), Err(Error::Timeout)));
    drop(handle);
    thread.join().unwrap();
}
