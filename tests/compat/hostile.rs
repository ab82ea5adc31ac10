//! Clients that do not keep to the rules (acceptance 9): the broker drops them, says so, and nobody else notices.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flux_client::NODEID_ANY;
use flux_tests::{Instance, Random, rss_kib, scaled, wait_for};
use serde_json::{Value, json};

/// Frame magic as it stands on the socket.
const MAGIC: [u8; 4] = [0x12, 0x00, 0xee, 0xff];

fn connect(flux: &Instance) -> UnixStream {
    let mut stream = UnixStream::connect(flux.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut byte = [1];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [0], "the connection is welcome");
    stream
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A request to `attr.get` that the broker answers.
fn good_request(matchtag: u32) -> Vec<u8> {
    let mut body = b"\0\x08attr.get\x10{\"name\":\"size\"}\0\x14\x8e\x01\x01\x0b\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff".to_vec();
    body.extend(matchtag.to_be_bytes());
    frame(&body)
}

/// Waits until the broker closes the connection.
fn expect_hangup(mut stream: UnixStream) {
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(err) if err.kind() == ErrorKind::ConnectionReset => return,
            Err(err) => panic!("the broker keeps a broken connection: {err}"),
        }
    }
}

/// The median time of a request, in microseconds.
fn latency(flux: &Instance) -> u128 {
    let mut handle = flux.handle(0);
    let mut times: Vec<u128> = (0..100)
        .map(|_| {
            let started = Instant::now();
            let _size: Value = handle
                .call("attr.get", NODEID_ANY, &json!({"name": "size"}))
                .unwrap();
            started.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[50]
}

/// Runs an attack and checks that memory, latency and connections are back afterwards.
fn attack(what: &str, run: impl FnOnce(&Instance)) -> String {
    let flux = Instance::boot(2);
    let before = (latency(&flux), rss_kib(flux.pid(0)), clients(&flux));
    run(&flux);
    wait_for(
        "the attackers' connections are gone",
        Duration::from_secs(20),
        || (clients(&flux) <= before.2).then_some(()),
    );
    let after = wait_for("latency recovers", Duration::from_secs(20), || {
        let now = latency(&flux);
        (now < 5 * before.0.max(200)).then_some(now)
    });
    let rss = memory_below(&flux, before.1 + 16 * 1024);
    eprintln!(
        "{what}: latency {} -> {after} us, memory {} -> {rss} KiB",
        before.0, before.1
    );
    flux.run(&["ping", "-c1", "1"]).ok();
    let log = flux.run(&["dmesg"]).ok().stdout.clone();
    flux.stop();
    log
}

/// Waits until the broker has given back what nobody uses, which it looks for with each heartbeat; returns its memory.
fn memory_below(flux: &Instance, limit: u64) -> u64 {
    wait_for("memory recovers", Duration::from_secs(10), || {
        Some(rss_kib(flux.pid(0))).filter(|rss| *rss < limit)
    })
}

/// Returns how many clients the broker counts.
fn clients(flux: &Instance) -> usize {
    let mut handle = flux.handle(0);
    let stats: Value = handle
        .call_empty("connector-local.stats-get", NODEID_ANY)
        .unwrap();
    stats["server"]["clients"].as_array().map_or(0, Vec::len)
}

#[test]
fn vanishing_in_mid_message() {
    attack("vanish", |flux| {
        let whole = good_request(1);
        for cut in 0..whole.len() {
            let mut stream = connect(flux);
            stream.write_all(&whole[..cut]).unwrap();
        }
        // and in the middle of a stream that is being answered
        for _ in 0..50 {
            let mut stream = connect(flux);
            for tag in 1..200 {
                stream.write_all(&good_request(tag)).unwrap();
            }
        }
    });
}

#[test]
fn four_gigabytes_announced() {
    let log = attack("4 GiB", |flux| {
        let mut stream = connect(flux);
        let mut head = MAGIC.to_vec();
        head.extend(u32::MAX.to_be_bytes());
        stream.write_all(&head).unwrap();
        expect_hangup(stream);
    });
    assert!(
        log.contains("4294967295") || log.to_lowercase().contains("large"),
        "the log tells: {log}"
    );
}

#[test]
fn an_empty_frame() {
    let log = attack("empty frame", |flux| {
        let mut stream = connect(flux);
        stream.write_all(&frame(b"")).unwrap();
        expect_hangup(stream);
    });
    assert!(log.contains("connector-local"), "the log tells: {log}");
}

#[test]
fn random_bytes() {
    let mut random = Random::from_env();
    attack("random bytes", |flux| {
        for _ in 0..scaled(2000, 200) {
            let mut stream = connect(flux);
            let count = 1 + random.below(4000);
            let noise = random.bytes(count);
            let bytes = match random.below(3) {
                0 => noise,
                1 => frame(&noise),
                _ => {
                    let mut bytes = good_request(1);
                    let at = 8 + random.below(bytes.len() - 8);
                    bytes[at] ^= 1 << random.below(8);
                    bytes
                }
            };
            // the broker may hang up in the middle of the nonsense
            let _cut = stream.write_all(&bytes);
        }
    });
}

#[test]
fn many_connections() {
    let count = 2000;
    // both ends of the sockets need descriptors
    attack("2000 connections", |flux| {
        let mut held = Vec::new();
        for _ in 0..count {
            match UnixStream::connect(flux.socket()) {
                Ok(stream) => held.push(stream),
                Err(err) => panic!("connection {} is refused: {err}", held.len()),
            }
        }
        // the broker serves the others meanwhile
        let size = flux.run(&["getattr", "size"]);
        assert_eq!(size.ok().line(), "2");
        for stream in held.iter_mut().rev().take(50) {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut byte = [1];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&good_request(1)).unwrap();
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).unwrap();
        }
    });
}

#[test]
fn a_client_that_never_reads() {
    attack("never reads", |flux| {
        let mut streams: Vec<_> = (0..4).map(|_| connect(flux)).collect();
        for stream in &mut streams {
            stream
                .set_write_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            let pad = "x".repeat(1 << 20);
            let payload = format!("{{\"pad\":\"{pad}\"}}\0");
            let mut body = b"\0\x0bbroker.ping\xff".to_vec();
            body.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
            body.extend(payload.as_bytes());
            body.extend(b"\x14\x8e\x01\x01\x0b\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\0\0\0\x01");
            let bytes = frame(&body);
            for _ in 0..200 {
                // the broker stops reading, or hangs up, before it has a gigabyte of answers
                if stream.write_all(&bytes).is_err() {
                    break;
                }
            }
        }
        let rss = rss_kib(flux.pid(0));
        assert!(rss < 256 * 1024, "memory while clients do not read: {rss} KiB");
        assert_eq!(flux.run(&["getattr", "size"]).ok().line(), "2");
    });
}

#[test]
fn a_subscriber_that_never_reads() {
    let log = attack("slow subscriber", |flux| {
        let mut stream = connect(flux);
        let payload = b"{\"topic\":\"\"}\0";
        let mut body = b"\0\x0fevent.subscribe".to_vec();
        body.push(u8::try_from(payload.len()).unwrap());
        body.extend(payload);
        body.extend(b"\x14\x8e\x01\x01\x0b\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\0\0\0\x01");
        stream.write_all(&frame(&body)).unwrap();
        let mut publisher = flux.handle(0);
        let text = "x".repeat(256 * 1024);
        // 400 MiB, more than the broker keeps for a client
        for _ in 0..1600 {
            publisher.publish("noise", Some(text.as_bytes()), false).unwrap();
        }
        memory_below(flux, 128 * 1024);
        assert_eq!(flux.run(&["getattr", "size"]).ok().line(), "2");
    });
    assert!(log.contains("does not read"), "the log tells: {log}");
}
