//! Do a server and its clients, in one process, exchange messages, notice each other's end, and refuse strangers?

use std::time::Duration;

use crate::common::{heartbeat, message, next, server, server_at, until};
use bytes::Bytes;
use flux_zmtp::{ConnectError, Down, Event, Expected, HandshakeError, Lane, SendError};
use proptest::prelude::*;

#[tokio::test]
async fn messages_go_both_ways_in_order() {
    for endpoint in ["tcp://127.0.0.1:*", "tcp://[::1]:*", "tcp://localhost:*"] {
        let mut world = server_at(endpoint, |_| {}).await;
        let (client, mut events, peer) = world.connect("rank-1").await;
        for number in 0..100u32 {
            let parts: [&[u8]; 3] = [b"topic", b"", &number.to_be_bytes()];
            client.send(&parts).unwrap();
            world.server.send(peer, &parts).unwrap();
        }
        for number in 0..100u32 {
            let expected = [
                Bytes::from_static(b"topic"),
                Bytes::new(),
                Bytes::copy_from_slice(&number.to_be_bytes()),
            ];
            assert_eq!(world.message().await, (peer, expected.to_vec()));
            assert_eq!(message(&mut events).await.1, expected);
        }
        assert_eq!(world.server.peer_by_identity(b"rank-1"), Some(peer));
        assert_eq!(world.server.peer_by_identity(b"rank-2"), None);
    }
}

#[tokio::test]
async fn every_size_of_message_arrives() {
    let mut world = server(|_| {}).await;
    let (client, mut events, peer) = world.connect("a").await;
    for size in [
        0,
        1,
        221,
        222,
        223,
        255,
        2047,
        2048,
        2049,
        8192,
        32_700,
        32_800,
        65_536,
        1 << 20,
        16 << 20,
    ] {
        let body: Vec<u8> = (0..=255u8).cycle().take(size).collect();
        client.send(&[&body, &body[..size.min(10)]]).unwrap();
        let (_, parts) = world.message().await;
        assert!(parts[0] == body && parts[1] == body[..size.min(10)], "{size}");
        world.server.send(peer, &parts).unwrap();
        assert!(message(&mut events).await.1 == parts, "{size}");
    }
}

#[tokio::test]
async fn a_client_that_closes_delivers_what_it_queued() {
    let mut world = server(|_| {}).await;
    let (client, _events, peer) = world.connect("a").await;
    for _ in 0..300 {
        client.send(&[&[7u8; 10_000]]).unwrap();
    }
    let (drained, ()) = tokio::join!(client.close(Duration::from_secs(10)), async {
        for _ in 0..300 {
            assert_eq!(world.message().await.1[0].len(), 10_000);
        }
    });
    assert!(drained);
    assert!(matches!(world.down(peer).await, Down::Closed));
    assert_eq!(world.server.send(peer, &[b"x"]), Err(SendError::Unknown));
}

#[tokio::test]
async fn a_server_that_closes_delivers_what_it_queued() {
    let mut world = server(|_| {}).await;
    let (_one, mut one_events, one) = world.connect("1").await;
    let (_two, mut two_events, two) = world.connect("2").await;
    for _ in 0..300 {
        world.server.send(one, &[&[1u8; 10_000]]).unwrap();
        world.server.send(two, &[&[2u8; 100]]).unwrap();
    }
    let (report, ()) = tokio::join!(world.server.close(Duration::from_secs(10)), async {
        for _ in 0..300 {
            assert_eq!(message(&mut one_events).await.1[0].len(), 10_000);
            assert_eq!(message(&mut two_events).await.1[0].len(), 100);
        }
        assert!(matches!(
            next(&mut one_events).await,
            Event::Down {
                reason: Down::Closed,
                ..
            }
        ));
    });
    assert_eq!((report.drained_count, report.cut_count), (2, 0));
}

#[tokio::test]
async fn a_close_ends_at_its_deadline() {
    let mut world = server(|_| {}).await;
    let (client, events, peer) = world.connect("a").await;
    // The client's receiver takes nothing: the queue cannot drain.
    for _ in 0..25 {
        world.server.send(peer, &[&[1u8; 1 << 20]]).unwrap();
    }
    until(|| {
        world
            .server
            .queued_bytes(peer)
            .is_some_and(|bytes| bytes < 25 << 20)
    })
    .await;
    let report = world.server.close(Duration::from_millis(200)).await;
    assert_eq!((report.drained_count, report.cut_count), (0, 1));
    drop((client, events));
}

#[tokio::test]
async fn disconnect_writes_the_queue_first() {
    let mut world = server(|_| {}).await;
    let (_client, mut events, peer) = world.connect("a").await;
    world.server.send(peer, &[b"goodbye"]).unwrap();
    assert!(world.server.disconnect(peer));
    assert!(!world.server.disconnect(peer));
    assert_eq!(
        world.server.send_on(Lane::Control, peer, &[b"late"]),
        Err(SendError::Unknown)
    );
    assert_eq!(world.server.peer_by_identity(b"a"), None);
    assert_eq!(message(&mut events).await.1, [&b"goodbye"[..]]);
    assert!(matches!(
        next(&mut events).await,
        Event::Down {
            reason: Down::Closed,
            ..
        }
    ));
    assert!(matches!(world.down(peer).await, Down::Disconnected));
    assert!(events.recv().await.is_none());
}

#[tokio::test]
async fn a_second_connection_with_the_identity_replaces_the_first() {
    let mut world = server(|_| {}).await;
    let config = world.admit("a");
    let (first, mut first_events) = world.connect_with(config.clone()).await.unwrap();
    let old = world.up("a").await;
    let (second, _second_events) = world.connect_with(config).await.unwrap();
    assert!(matches!(world.down(old).await, Down::Replaced));
    let new = world.up("a").await;
    assert_ne!(old, new);
    assert_eq!(world.server.peer_by_identity(b"a"), Some(new));
    assert_eq!(world.server.send(old, &[b"x"]), Err(SendError::Unknown));
    assert!(matches!(next(&mut first_events).await, Event::Down { .. }));
    assert_eq!(first.send(&[b"from the old"]), Err(SendError::Unknown));
    second.send(&[b"from the new"]).unwrap();
    assert_eq!(
        world.message().await,
        (new, vec![Bytes::from_static(b"from the new")])
    );
}

#[tokio::test]
async fn a_client_that_vanishes_is_noticed_and_may_come_back() {
    let mut world = server(|_| {}).await;
    let config = world.admit("a");
    for _ in 0..5 {
        let (client, _) = world.connect_with(config.clone()).await.unwrap();
        let peer = world.up("a").await;
        drop(client);
        assert!(matches!(world.down(peer).await, Down::Closed | Down::Io(_)));
    }
}

#[tokio::test]
async fn strangers_are_refused_and_others_served() {
    let mut world = server(|_| {}).await;
    let (client, _events, peer) = world.connect("a").await;

    let err = world.connect_with(world.stranger("b")).await.unwrap_err();
    assert!(is_refusal(&err), "unknown key: {err:?}");

    let mut other_identity = world.admit("c");
    other_identity.identity = Bytes::from_static(b"d");
    let err = world.connect_with(other_identity).await.unwrap_err();
    assert!(is_refusal(&err), "bound to another identity: {err:?}");

    let mut wrong_server = world.admit("e");
    wrong_server.server_key = flux_zmtp::Keypair::generate().unwrap().public;
    let err = world.connect_with(wrong_server).await.unwrap_err();
    assert!(matches!(
        err,
        ConnectError::Handshake {
            source: HandshakeError::Closed,
            ..
        } | ConnectError::Io { .. }
    ));

    let mut no_identity = world.admit("f");
    no_identity.identity = Bytes::new();
    assert!(matches!(
        world.connect_with(no_identity).await.unwrap_err(),
        ConnectError::Identity
    ));

    until(|| world.server.stats().handshakes_now == 0).await;
    let stats = world.server.stats();
    assert_eq!(
        (stats.refused_count, stats.failed_count, stats.established_count),
        (2, 1, 1)
    );
    client.send(&[b"still here"]).unwrap();
    assert_eq!(world.message().await.0, peer);
}

fn is_refusal(err: &ConnectError) -> bool {
    match err {
        ConnectError::Handshake {
            source: HandshakeError::RefusedByServer { status },
            ..
        } => status == "400",
        _ => false,
    }
}

#[tokio::test]
async fn a_shared_certificate_may_claim_any_identity() {
    let mut world = server(|_| {}).await;
    let mut config = world.stranger("1");
    world.table.insert(config.keypair.public, Expected::Any);
    let _one = world.connect_with(config.clone()).await.unwrap();
    world.up("1").await;
    config.identity = Bytes::from_static(b"2");
    let _two = world.connect_with(config).await.unwrap();
    world.up("2").await;
}

#[tokio::test]
async fn nobody_listens_or_nobody_answers() {
    let world = server(|_| {}).await;
    let mut config = world.stranger("a");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = flux_zmtp::Endpoint::from(listener.local_addr().unwrap());
    config.connect_timeout = Duration::from_millis(50);
    let err = flux_zmtp::Client::connect(&silent, config.clone())
        .await
        .unwrap_err();
    assert!(matches!(err, ConnectError::TimedOut { .. }));
    drop(listener);
    config.connect_timeout = Duration::from_secs(10);
    let err = flux_zmtp::Client::connect(&silent, config).await.unwrap_err();
    assert!(matches!(err, ConnectError::Io { .. }));
    let taken = flux_zmtp::Server::bind(
        &world.endpoint,
        crate::common::server_config(&flux_zmtp::Keypair::generate().unwrap(), world.table.clone()),
    );
    assert!(matches!(
        taken.await.unwrap_err(),
        flux_zmtp::BindError::Io { .. }
    ));
}

#[tokio::test]
async fn heartbeats_keep_a_quiet_connection_and_cross_in_both_directions() {
    let mut world = server(|config| config.heartbeat = heartbeat(20, 400)).await;
    let mut config = world.admit("a");
    config.heartbeat = heartbeat(20, 400);
    let (client, mut events) = world.connect_with(config).await.unwrap();
    let peer = world.up("a").await;
    let quiet = tokio::time::timeout(Duration::from_millis(1200), world.events.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    client.send(&[b"x"]).unwrap();
    world.server.send(peer, &[b"y"]).unwrap();
    assert_eq!(world.message().await.0, peer);
    message(&mut events).await;
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_is_not_taken_for_a_silent_peer() {
    let mut world = server(|config| {
        config.heartbeat = heartbeat(20, 200);
        config.limits.inbound_bytes_max = 1000;
    })
    .await;
    let (client, _events, _) = world.connect("a").await;
    for _ in 0..100 {
        client.send(&[&[0u8; 100_000]]).unwrap();
    }
    let (_, _, held) = message(&mut world.events).await;
    let mut credits = vec![held];
    let quiet = tokio::time::timeout(Duration::from_millis(600), async {
        loop {
            credits.push(message(&mut world.events).await.2);
        }
    });
    assert!(quiet.await.is_err());
    assert!(
        credits.len() < 20,
        "{} messages were read beyond the bound",
        credits.len()
    );
    let mut received = credits.len();
    drop(credits);
    while received < 100 {
        message(&mut world.events).await;
        received += 1;
    }
}

#[tokio::test]
async fn the_control_lane_has_room_when_bulk_is_full() {
    let mut world = server(|config| {
        config.limits.outbound_bytes_max = 100_000;
        config.limits.control_reserve_bytes = 1000;
    })
    .await;
    let (_client, mut events, peer) = world.connect("a").await;
    let mut bulk_count = 0;
    while world.server.send(peer, &[&[0u8; 900]]).is_ok() {
        bulk_count += 1;
    }
    assert_eq!(world.server.send(peer, &[&[0u8; 900]]), Err(SendError::Full));
    assert!((95..=107).contains(&bulk_count), "{bulk_count}");
    world.server.send_on(Lane::Control, peer, &[b"goodbye"]).unwrap();
    let mut control_count = 1;
    while world.server.send_on(Lane::Control, peer, &[&[0u8; 100]]).is_ok() {
        control_count += 1;
    }
    assert!(
        (3..25).contains(&control_count),
        "the reserve is bounded too: {control_count}"
    );
    for _ in 0..bulk_count {
        assert_eq!(message(&mut events).await.1[0].len(), 900);
    }
    assert_eq!(message(&mut events).await.1, [&b"goodbye"[..]]);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_whole() {
    let mut world = server(|config| {
        config.limits.message_bytes_max = 1000;
        config.limits.parts_max = 3;
    })
    .await;
    let (client, _events, peer) = world.connect("a").await;
    assert_eq!(world.server.send::<&[u8]>(peer, &[]), Err(SendError::TooLarge));
    assert_eq!(
        world.server.send(peer, &[[0u8; 501], [0u8; 501]]),
        Err(SendError::TooLarge)
    );
    assert_eq!(world.server.send(peer, &[[0u8; 1]; 4]), Err(SendError::TooLarge));
    assert_eq!(world.server.queued_bytes(peer), Some(0));
    // The client's own limits allow more; the server drops it and nobody else.
    client.send(&[[0u8; 1001]]).unwrap();
    assert!(matches!(world.down(peer).await, Down::Protocol(_)));
}

#[derive(Clone, Debug)]
enum Step {
    Connect(u8),
    Drop(u8),
    Disconnect(u8),
    ToServer(u8, u8),
    ToClient(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..3u8;
    prop_oneof![
        who.clone().prop_map(Step::Connect),
        who.clone().prop_map(Step::Drop),
        who.clone().prop_map(Step::Disconnect),
        (who.clone(), any::<u8>()).prop_map(|(who, value)| Step::ToServer(who, value)),
        (who, any::<u8>()).prop_map(|(who, value)| Step::ToClient(who, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens: each peer is seen as one Up, then messages, then one Down, and never two peers of one identity.
    #[test]
    fn events_of_every_peer_are_up_messages_down(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = server(|_| {}).await;
            let configs: Vec<_> = ["0", "1", "2"].iter().map(|identity| world.admit(identity)).collect();
            let mut clients: Vec<Option<(flux_zmtp::Client, flux_zmtp::Events)>> = vec![None, None, None];
            for step in steps {
                match step {
                    Step::Connect(who) => {
                        let config = configs[usize::from(who)].clone();
                        clients[usize::from(who)] = Some(world.connect_with(config).await.unwrap());
                    }
                    Step::Drop(who) => clients[usize::from(who)] = None,
                    Step::Disconnect(who) => {
                        if let Some(peer) = world.server.peer_by_identity(&[b'0' + who]) {
                            world.server.disconnect(peer);
                        }
                    }
                    Step::ToServer(who, value) => {
                        if let Some((client, _)) = &clients[usize::from(who)] {
                            let _ = client.send(&[[value]]);
                        }
                    }
                    Step::ToClient(who, value) => {
                        if let Some(peer) = world.server.peer_by_identity(&[b'0' + who]) {
                            let _ = world.server.send(peer, &[[value]]);
                        }
                    }
                }
                tokio::task::yield_now().await;
            }
            drop(clients);
            let ups = world.server.stats().established_count;
            let (mut up, mut seen_up, mut seen_down) = (std::collections::HashMap::new(), 0, 0);
            while seen_down < ups {
                match next(&mut world.events).await {
                    Event::Up { peer, identity, .. } => {
                        assert!(!up.values().any(|other| *other == identity), "two of one identity");
                        assert!(up.insert(peer, identity).is_none());
                        seen_up += 1;
                    }
                    Event::Message { peer, .. } => assert!(up.contains_key(&peer)),
                    Event::Down { peer, .. } => {
                        assert!(up.remove(&peer).is_some());
                        seen_down += 1;
                    }
                }
            }
            assert_eq!((seen_up, up.len()), (ups, 0));
        });
    }
}

#[tokio::test]
async fn down_of_a_client_is_the_last_event() {
    let mut world = server(|_| {}).await;
    let (client, mut events, _) = world.connect("a").await;
    drop(world.server);
    let Event::Down { reason, .. } = next(&mut events).await else {
        panic!("not the end")
    };
    assert!(matches!(reason, Down::Closed | Down::Io(_)), "{reason:?}");
    assert!(events.recv().await.is_none());
    assert_eq!(client.send(&[b"x"]), Err(SendError::Unknown));
}

#[tokio::test]
async fn messages_sent_before_a_vanished_end_still_arrive() {
    let mut world = server(|_| {}).await;
    let (client, _events, peer) = world.connect("a").await;
    client.send(&[b"last words"]).unwrap();
    until(|| client.queued_bytes() == 0).await;
    drop(client);
    assert_eq!(
        world.message().await,
        (peer, vec![Bytes::from_static(b"last words")])
    );
    assert!(matches!(world.down(peer).await, Down::Closed | Down::Io(_)));
}
