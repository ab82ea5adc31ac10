//! Does a hostile or broken peer cost anybody but itself? Junk, silence, floods, peers that never read.

use std::time::{Duration, Instant};

use crate::common::{Event, heartbeat, message, next, server, until};
use flux_zmtp::Down;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn junk_costs_only_its_own_connection() {
    let mut world = server(|_| {}).await;
    let (client, _events, peer) = world.connect("honest").await;
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1];
    greeting.extend_from_slice(b"CURVE");
    greeting.resize(64, 0);
    let with = |rest: &[u8]| [greeting.as_slice(), rest].concat();
    let junk = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 1000],
        vec![0xff; 100_000],
        with(b"\x00\x05hello"),
        with(&[6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        with(b"\x04\xc8\x05HELLO\x01\x00"),
        with(&[&[4, 200][..], b"\x05HELLO\x01\x00", &[0; 192]].concat()),
        with(&[&[4, 200][..], b"\x05HELLO\x01\x00", &[7; 192]].concat()),
        with(b"\x04\x06\x05READY"),
    ];
    let count = u64::try_from(junk.len()).unwrap();
    for bytes in junk {
        let mut stream = TcpStream::connect(world.server.local_addr()).await.unwrap();
        // The server may hang up before all is written.
        stream.write_all(&bytes).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        assert!(answer.len() <= 64, "a greeting at most");
    }
    until(|| world.server.stats().handshakes_now == 0).await;
    assert_eq!(world.server.stats().failed_count, count);
    client.send(&[b"x"]).unwrap();
    assert_eq!(world.message().await.0, peer);
}

#[tokio::test]
async fn a_thousand_unfinished_handshakes_keep_nobody_out() {
    let mut world = server(|config| {
        config.limits.handshakes_max = 50;
        config.limits.handshake_grace = Duration::from_millis(100);
        config.limits.handshake_timeout = Duration::from_secs(60);
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..1000 {
        let connecting = TcpStream::connect(world.server.local_addr());
        // The backlog may be full: then the attacker waits like everybody.
        match tokio::time::timeout(Duration::from_millis(20), connecting).await {
            Ok(stream) => silent.push(stream.unwrap()),
            Err(_elapsed) => {}
        }
        assert!(world.server.stats().handshakes_now <= 50);
    }
    let started = Instant::now();
    let (client, _events, peer) = world.connect("honest").await;
    client.send(&[b"x"]).unwrap();
    assert_eq!(world.message().await.0, peer);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    let stats = world.server.stats();
    assert!(stats.evicted_count > 0 && stats.handshakes_now <= 50, "{stats:?}");
}

#[tokio::test]
async fn an_unfinished_handshake_ends_at_its_timeout() {
    let world = server(|config| config.limits.handshake_timeout = Duration::from_millis(50)).await;
    let mut stream = TcpStream::connect(world.server.local_addr()).await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(crate::common::DEADLINE, stream.read_to_end(&mut answer));
    assert_eq!(reading.await.unwrap().unwrap(), 64, "the greeting, then the end");
    assert_eq!(world.server.stats().timed_out_count, 1);
}

#[tokio::test]
async fn handshakes_of_many_honest_peers_at_once_all_succeed() {
    let mut world = server(|config| config.limits.handshakes_max = 8).await;
    let configs: Vec<_> = (0..100).map(|number| world.admit(&number.to_string())).collect();
    let mut connecting = tokio::task::JoinSet::new();
    for config in configs {
        let endpoint = world.endpoint.clone();
        connecting.spawn(async move { flux_zmtp::Client::connect(&endpoint, config).await.unwrap() });
    }
    let clients = connecting.join_all().await;
    for _ in 0..100 {
        assert!(matches!(next(&mut world.events).await, Event::Up { .. }));
    }
    assert_eq!((clients.len(), world.server.stats().evicted_count), (100, 0));
}

#[tokio::test]
async fn too_many_peers_are_refused() {
    let mut world = server(|config| config.limits.peers_max = 2).await;
    let one = world.connect("1").await;
    let two = world.connect("2").await;
    let config = world.admit("3");
    let (_client, mut events) = world.connect_with(config.clone()).await.unwrap();
    assert!(
        matches!(next(&mut events).await, Event::Down { .. }),
        "completes the handshake, then is cut"
    );
    drop(one);
    world.down_any().await;
    let _client = world.connect_with(config).await.unwrap();
    world.up("3").await;
    drop(two);
}

#[tokio::test]
async fn a_peer_that_never_reads_is_bounded_and_delays_nobody() {
    let mut world = server(|config| config.limits.outbound_bytes_max = 1 << 20).await;
    let (_stuck, stuck_events, stuck_peer) = world.connect("stuck").await;
    let (_client, mut events, peer) = world.connect("live").await;
    let mut worst = Duration::ZERO;
    let body = vec![0u8; 100_000];
    let mut full_count = 0;
    for _ in 0..400 {
        full_count += u32::from(world.server.send(stuck_peer, &[&body]).is_err());
        let started = Instant::now();
        world.server.send(peer, &[b"tick"]).unwrap();
        message(&mut events).await;
        worst = worst.max(started.elapsed());
    }
    assert!(full_count > 100, "{full_count}");
    assert!(world.server.queued_bytes(stuck_peer).unwrap() <= 1 << 20);
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    drop(stuck_events);
}

#[tokio::test]
async fn a_stopped_peer_is_noticed_by_its_silence() {
    let mut world = server(|config| config.heartbeat = heartbeat(50, 200)).await;
    let config = world.admit("stopped");
    // The peer's runtime stops: nothing is read, nothing answered; its sockets stay open.
    let endpoint = world.endpoint.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = runtime
            .block_on(flux_zmtp::Client::connect(&endpoint, config))
            .unwrap();
        stopped.recv().unwrap();
        drop(client);
    });
    let peer = world.up("stopped").await;
    let started = Instant::now();
    assert!(matches!(world.down(peer).await, Down::Silent(_)));
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn the_ttl_of_a_peers_ping_is_kept() {
    // Only the client sends heartbeats; its process stops, and the server, without heartbeats of its own, drops it.
    let mut world = server(|_| {}).await;
    let mut config = world.admit("stopped");
    config.heartbeat = heartbeat(50, 300);
    let endpoint = world.endpoint.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async {
            let client = flux_zmtp::Client::connect(&endpoint, config).await.unwrap();
            tokio::time::sleep(Duration::from_millis(120)).await;
            client
        });
        stopped.recv().unwrap();
        drop(client);
    });
    let peer = world.up("stopped").await;
    assert!(matches!(world.down(peer).await, Down::Silent(_)));
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test]
async fn a_flooding_peer_is_read_no_further_than_its_bound() {
    let mut world = server(|config| {
        config.limits.inbound_bytes_max = 1 << 20;
        config.limits.event_batches_max = 4;
    })
    .await;
    let (flood, _flood_events, flood_peer) = world.connect("flood").await;
    let (live, _live_events, live_peer) = world.connect("live").await;
    for _ in 0..250 {
        flood.send(&[&[0u8; 100_000]]).unwrap();
    }
    // Hold everything of the flood; the other peer still gets through.
    let mut held = Vec::new();
    live.send(&[b"x"]).unwrap();
    loop {
        let (peer, _, credit) = message(&mut world.events).await;
        if peer == live_peer {
            break;
        }
        assert_eq!(peer, flood_peer);
        held.push(credit);
    }
    let bytes: usize = held.iter().map(flux_zmtp::Credit::bytes).sum();
    assert!(bytes < (1 << 20) + 300_000, "{bytes}");
    let count = held.len();
    drop(held);
    for _ in count..250 {
        assert_eq!(message(&mut world.events).await.0, flood_peer);
    }
}
