//! Do libzmq's sockets and ours understand each other, and refuse each other when they must?
//!
//! Needs a Python with pyzmq: `python3`, or the interpreter named by `FLUX_TEST_PYTHON`. Without one, each test says in
//! one line that it was skipped.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{DEADLINE, World, heartbeat, message, server, until};
use bytes::Bytes;
use flux_zmtp::{
    Client, ClientConfig, ConnectError, Endpoint, Event, Expected, HandshakeError, Keypair, Limits, PublicKey,
};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// Cases of this run that could not be checked.
static SKIPPED_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Returns the interpreter, or says that the test is skipped.
fn python(test: &str) -> Option<String> {
    let python = std::env::var("FLUX_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = std::process::Command::new(&python)
        .args(["-c", "import zmq; assert zmq.has('curve')"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        // Past the harness's capture, so that a green run shows what it did not check.
        let count = SKIPPED_COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        writeln!(
            std::io::stderr(),
            "skipped case {count}: {test}: {python} has no pyzmq with CURVE"
        )
        .ok();
    }
    found.then_some(python)
}

/// A libzmq peer: a running script and the lines it prints.
struct Peer {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Peer {
    fn start(python: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/peer.py"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(DEADLINE, self.lines.next_line());
        line.await.expect("a line in time").unwrap().expect("a line")
    }
}

/// Starts a libzmq peer with the client keys of `config` that talks to our server.
fn dealer(python: &str, mode: &str, world: &World, config: &ClientConfig, more: &[&str]) -> Peer {
    let port = world.server.local_addr().port().to_string();
    let (server_key, secret) = (config.server_key.to_z85(), config.keypair.secret.to_z85());
    let identity = std::str::from_utf8(&config.identity).unwrap();
    let mut arguments = vec![mode, &port, &server_key, &secret, identity];
    arguments.extend_from_slice(more);
    Peer::start(python, &arguments)
}

#[tokio::test]
async fn a_libzmq_dealer_talks_to_our_server() {
    let Some(python) = python("a_libzmq_dealer_talks_to_our_server") else {
        return;
    };
    for heartbeat in [None, heartbeat(50, 2000)] {
        let mut world = server(|config| config.heartbeat = heartbeat).await;
        let config = world.admit("libzmq");
        let mut script = dealer(&python, "dealer", &world, &config, &["5000"]);
        let peer = world.up("libzmq").await;
        let echo = async {
            loop {
                match crate::common::next(&mut world.events).await {
                    Event::Message { parts, .. } => world.server.send(peer, &parts).unwrap(),
                    Event::Down { reason, .. } => break reason,
                    other => panic!("{other:?}"),
                }
            }
        };
        let (line, reason) = tokio::join!(script.line(), echo);
        assert_eq!(line, "ok 5000");
        assert!(matches!(reason, flux_zmtp::Down::Closed), "{reason:?}");
    }
}

#[tokio::test]
async fn a_libzmq_dealer_that_must_not_come_in_is_refused() {
    let Some(python) = python("a_libzmq_dealer_that_must_not_come_in_is_refused") else {
        return;
    };
    let mut world = server(|_| {}).await;
    let (honest, _events, peer) = world.connect("honest").await;

    let unknown_key = world.stranger("unknown");
    assert_eq!(
        dealer(&python, "refused", &world, &unknown_key, &[]).line().await,
        "refused"
    );
    until(|| world.server.stats().refused_count >= 1).await;

    let mut other_identity = world.admit("mine");
    other_identity.identity = Bytes::from_static(b"yours");
    let before = world.server.stats().refused_count;
    assert_eq!(
        dealer(&python, "refused", &world, &other_identity, &[])
            .line()
            .await,
        "refused"
    );
    until(|| world.server.stats().refused_count > before).await;

    let mut wrong_server = world.admit("wrong");
    wrong_server.server_key = Keypair::generate().unwrap().public;
    let before = world.server.stats().failed_count;
    assert_eq!(
        dealer(&python, "refused", &world, &wrong_server, &[])
            .line()
            .await,
        "refused"
    );
    until(|| world.server.stats().failed_count > before).await;

    let port = world.server.local_addr().port().to_string();
    let before = world.server.stats().failed_count;
    assert_eq!(Peer::start(&python, &["plain", &port]).line().await, "refused");
    until(|| world.server.stats().failed_count > before).await;

    assert_eq!(world.server.stats().established_count, 1);
    honest.send(&[b"still here"]).unwrap();
    assert_eq!(world.message().await.0, peer);
}

#[tokio::test]
async fn a_libzmq_dealer_with_a_shared_certificate_comes_in() {
    let Some(python) = python("a_libzmq_dealer_with_a_shared_certificate_comes_in") else {
        return;
    };
    let mut world = server(|_| {}).await;
    let config = world.stranger("any");
    world.table.insert(config.keypair.public, Expected::Any);
    assert_eq!(
        dealer(&python, "refused", &world, &config, &[]).line().await,
        "admitted"
    );
    world.up("any").await;
}

/// Starts a libzmq ROUTER and makes a configuration that reaches it.
async fn router(python: &str, allowed: Option<&Keypair>) -> (Peer, Endpoint, ClientConfig) {
    let (server, own) = (Keypair::generate().unwrap(), Keypair::generate().unwrap());
    let own = allowed.cloned().unwrap_or(own);
    let (secret, allowed) = (server.secret.to_z85(), allowed.map(|pair| pair.public.to_z85()));
    let mut arguments = vec!["router", secret.as_str()];
    arguments.extend(allowed.as_deref());
    let mut script = Peer::start(python, &arguments);
    let line = script.line().await;
    let port = line.strip_prefix("port ").unwrap();
    let config = ClientConfig {
        server_key: server.public,
        keypair: own,
        identity: Bytes::from_static(b"ours"),
        connect_timeout: Duration::from_secs(5),
        limits: Limits::default(),
        heartbeat: None,
        tcp_user_timeout: None,
    };
    (script, format!("tcp://127.0.0.1:{port}").parse().unwrap(), config)
}

#[tokio::test]
async fn our_client_talks_to_a_libzmq_router() {
    let Some(python) = python("our_client_talks_to_a_libzmq_router") else {
        return;
    };
    let own = Keypair::generate().unwrap();
    for (allowed, heartbeat) in [(None, None), (Some(&own), heartbeat(50, 2000))] {
        let (mut script, endpoint, config) = router(&python, allowed).await;
        let (client, mut events) = Client::connect(&endpoint, ClientConfig { heartbeat, ..config })
            .await
            .unwrap();
        assert!(matches!(crate::common::next(&mut events).await, Event::Up { .. }));
        for size in [0usize, 1, 221, 222, 223, 255, 256, 8192, 65_536, 1 << 20] {
            let parts = [vec![b'x'; size], Vec::new(), size.to_string().into_bytes()];
            client.send(&parts).unwrap();
            assert_eq!(message(&mut events).await.1, parts);
        }
        let quiet = tokio::time::timeout(Duration::from_millis(500), events.recv()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        for number in 0..5000u32 {
            client.send(&[number.to_be_bytes()]).unwrap();
        }
        for number in 0..5000u32 {
            assert_eq!(message(&mut events).await.1, [&number.to_be_bytes()[..]]);
        }
        client.send(&[b"end"]).unwrap();
        assert_eq!(message(&mut events).await.1, [&b"end"[..]]);
        assert_eq!(script.line().await, "ended");
        assert!(matches!(
            crate::common::next(&mut events).await,
            Event::Down { .. }
        ));
    }
}

#[tokio::test]
async fn our_client_is_told_by_a_libzmq_router_that_it_is_refused() {
    let Some(python) = python("our_client_is_told_by_a_libzmq_router_that_it_is_refused") else {
        return;
    };
    let (_script, endpoint, mut config) = router(&python, Some(&Keypair::generate().unwrap())).await;
    config.keypair = Keypair::generate().unwrap();
    let err = Client::connect(&endpoint, config.clone()).await.unwrap_err();
    let refused = HandshakeError::RefusedByServer { status: "400".into() };
    assert!(
        matches!(&err, ConnectError::Handshake { source, .. } if *source == refused),
        "{err:?}"
    );

    config.server_key = PublicKey::from_bytes([9; 32]);
    let err = Client::connect(&endpoint, config).await.unwrap_err();
    assert!(
        matches!(err, ConnectError::Handshake { .. } | ConnectError::Io { .. }),
        "{err:?}"
    );
}
