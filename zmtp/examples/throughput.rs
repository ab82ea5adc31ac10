//! How many messages per second go through one connection, and how does libzmq compare in the same run?
//!
//! `cargo run --release -p flux-zmtp --example throughput -- [COUNT [SIZE]]` (default 1,000,000 messages of 200 bytes).
//! Two threads with a current-thread runtime each, over loopback TCP with CURVE and heartbeats. With pyzmq
//! (`FLUX_TEST_PYTHON` or `python3`) libzmq's own figure is printed, too: its sender and receiver are driven by Python,
//! which costs it about a microsecond per message and lock switches between the two threads.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measuring program for developers"
)]

use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flux_zmtp::{
    Client, ClientConfig, Endpoint, Event, Expected, Heartbeat, KeyTable, Keypair, Limits, PublicKey,
    SendError, Server, ServerConfig,
};

const HEARTBEAT: Heartbeat = Heartbeat {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(5),
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().map_or(1_000_000, |text| text.parse().unwrap());
    let size: usize = arguments.next().map_or(200, |text| text.parse().unwrap());
    println!(
        "flux-zmtp: {} KiB per idle peer, both ends (1000 peers)",
        idle_peers(1000) / 1000
    );
    let ours = (0..3).map(|_| pipeline(count, size)).fold(0.0, f64::max);
    let megabytes = |rate: f64| rate * f64::from(u32::try_from(size).unwrap()) / 1e6;
    println!(
        "flux-zmtp: {ours:.0} msg/s of {size} B, {:.0} MB/s (best of 3)",
        megabytes(ours)
    );
    let echo = round_trips(20_000.min(count));
    println!("flux-zmtp: round trip {:.1} us (mean)", echo.as_secs_f64() * 1e6);
    match libzmq(count.min(500_000), size) {
        Some(theirs) => println!("libzmq by pyzmq: {theirs:.0} msg/s, ratio {:.2}", ours / theirs),
        None => println!("libzmq by pyzmq: skipped, no pyzmq"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn serve(own: &Keypair, client: PublicKey) -> (Server, flux_zmtp::Events) {
    let config = ServerConfig {
        keypair: own.clone(),
        authorizer: Arc::new(KeyTable::from_iter([(client, Expected::Any)])),
        limits: Limits::default(),
        heartbeat: Some(HEARTBEAT),
        tcp_user_timeout: None,
    };
    Server::bind(&"tcp://127.0.0.1:*".parse().unwrap(), config)
        .await
        .unwrap()
}

async fn connect(endpoint: &Endpoint, server_key: PublicKey, own: Keypair) -> (Client, flux_zmtp::Events) {
    let config = ClientConfig {
        server_key,
        keypair: own,
        identity: Bytes::from_static(b"bench"),
        connect_timeout: Duration::from_secs(5),
        limits: Limits::default(),
        heartbeat: Some(HEARTBEAT),
        tcp_user_timeout: None,
    };
    let (client, mut events) = Client::connect(endpoint, config).await.unwrap();
    assert!(matches!(events.recv().await, Some(Event::Up { .. })));
    (client, events)
}

/// Returns messages per second from the first to the last that the server receives.
fn pipeline(count: u64, size: usize) -> f64 {
    let (server_keys, client_keys) = (Keypair::generate().unwrap(), Keypair::generate().unwrap());
    let (server_key, client_key) = (server_keys.public, client_keys.public);
    let (tell, told) = mpsc::channel();
    let sender = std::thread::spawn(move || {
        let endpoint: Endpoint = told.recv().unwrap();
        runtime().block_on(async {
            let (client, _events) = connect(&endpoint, server_key, client_keys).await;
            let body = vec![7u8; size];
            let mut sent = 0;
            while sent < count {
                // Yield as a broker does between events, and when the queue is long.
                for _ in 0..64.min(count - sent) {
                    match client.send(&[&body]) {
                        Ok(()) => sent += 1,
                        Err(SendError::Full) => break,
                        Err(err) => panic!("{err}"),
                    }
                }
                while client.queued_bytes() > 2 << 20 {
                    tokio::task::yield_now().await;
                }
                tokio::task::yield_now().await;
            }
            assert!(client.close(Duration::from_secs(60)).await);
        });
    });
    let elapsed = runtime().block_on(async {
        let (server, mut events) = serve(&server_keys, client_key).await;
        tell.send(Endpoint::from(server.local_addr())).unwrap();
        let (mut started, mut received) = (Instant::now(), 0);
        while received < count {
            match events.recv().await {
                Some(Event::Message { .. }) => {
                    if received == 0 {
                        started = Instant::now();
                    }
                    received += 1;
                }
                Some(Event::Up { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        let elapsed = started.elapsed();
        while !matches!(events.recv().await, Some(Event::Down { .. })) {}
        elapsed
    });
    sender.join().unwrap();
    f64::from(u32::try_from(count - 1).unwrap()) / elapsed.as_secs_f64()
}

/// Returns the mean time of a message there and back, one at a time.
fn round_trips(count: u64) -> Duration {
    let (server_keys, client_keys) = (Keypair::generate().unwrap(), Keypair::generate().unwrap());
    let (server_key, client_key) = (server_keys.public, client_keys.public);
    let (tell, told) = mpsc::channel();
    let echo = std::thread::spawn(move || {
        runtime().block_on(async {
            let (server, mut events) = serve(&server_keys, client_key).await;
            tell.send(Endpoint::from(server.local_addr())).unwrap();
            loop {
                match events.recv().await {
                    Some(Event::Message { peer, parts, .. }) => server.send(peer, &parts).unwrap(),
                    Some(Event::Up { .. }) => {}
                    _ => return,
                }
            }
        });
    });
    let elapsed = runtime().block_on(async {
        let (client, mut events) = connect(&told.recv().unwrap(), server_key, client_keys).await;
        let started = Instant::now();
        for _ in 0..count {
            client.send(&[[7u8; 200]]).unwrap();
            assert!(matches!(events.recv().await, Some(Event::Message { .. })));
        }
        started.elapsed()
    });
    echo.join().unwrap();
    elapsed / u32::try_from(count).unwrap()
}

/// Returns by how many KiB that many idle peers and the server's ends of them make this process larger.
fn idle_peers(count: usize) -> usize {
    let (server_keys, client_keys) = (Keypair::generate().unwrap(), Keypair::generate().unwrap());
    runtime().block_on(async {
        let (server, mut events) = serve(&server_keys, client_keys.public).await;
        let endpoint = Endpoint::from(server.local_addr());
        let before = resident_kib();
        let mut clients = Vec::new();
        for number in 0..count {
            let config = ClientConfig {
                server_key: server_keys.public,
                keypair: client_keys.clone(),
                identity: Bytes::from(number.to_string()),
                connect_timeout: Duration::from_secs(5),
                limits: Limits::default(),
                heartbeat: Some(HEARTBEAT),
                tcp_user_timeout: None,
            };
            clients.push(Client::connect(&endpoint, config).await.unwrap());
            assert!(matches!(events.recv().await, Some(Event::Up { .. })));
        }
        resident_kib().saturating_sub(before)
    })
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or_default()
}

/// Returns libzmq's messages per second, or `None` without pyzmq.
fn libzmq(count: u64, size: usize) -> Option<f64> {
    let python = std::env::var("FLUX_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/peer.py"))
        .args(["pipeline", &count.to_string(), &size.to_string()])
        .output()
        .ok()?;
    String::from_utf8(output.stdout)
        .ok()?
        .trim()
        .strip_prefix("rate ")?
        .parse()
        .ok()
}
