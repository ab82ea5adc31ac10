//! Do real clients, in threads of their own, get through put, barrier and get?

use super::super::client::Client;
use super::*;

fn serve(driver: &mut Driver, mut on_event: impl FnMut(&mut Driver, Event, &mut Vec<Event>)) {
    let mut set = PollSet::new();
    loop {
        set.clear();
        driver.add_to(&mut set, |client| client);
        if set.is_empty() {
            return;
        }
        set.wait(Some(std::time::Duration::from_secs(10))).unwrap();
        let ready: Vec<usize> = set.ready().map(|(client, _)| client).collect();
        assert!(!ready.is_empty(), "no progress within ten seconds");
        let mut events = Vec::new();
        for client in ready {
            driver.on_ready(client, &mut events);
        }
        while let Some(event) = events.pop() {
            let mut more = Vec::new();
            on_event(driver, event, &mut more);
            events.extend(more);
        }
    }
}

fn config(ranks: u32, exchange: bool) -> ServerConfig {
    ServerConfig {
        kvsname: "f1".to_owned(),
        universe_size: ranks,
        ranks: (0..ranks).collect(),
        exchange,
        ..ServerConfig::default()
    }
}

fn rank_main(socket: OwnedFd, rank: u32, size: u32) {
    let mut client = Client::new(socket, rank, size, None).unwrap();
    assert_eq!(client.kvsname(), "f1");
    assert_eq!(client.universe_size().unwrap(), size);
    assert_eq!(client.get("nothing").unwrap(), None);
    client.put(&format!("k{rank}"), &"v".repeat(1000)).unwrap();
    assert!(client.put("a b", "x").is_err());
    client.barrier().unwrap();
    for other in 0..size {
        assert_eq!(client.get(&format!("k{other}")).unwrap().unwrap().len(), 1000);
    }
    client.barrier().unwrap();
    client.finalize().unwrap();
}

#[test]
fn sixteen_ranks_exchange_cards() {
    let mut driver = Driver::new(config(16, false));
    let threads: Vec<_> = (0..16)
        .map(|rank| {
            let socket = driver.connect(rank as usize).unwrap();
            std::thread::spawn(move || rank_main(socket, rank, 16))
        })
        .collect();
    let mut closed = 0;
    serve(&mut driver, |_, event, _| {
        if let Event::Closed { unexpected, .. } = event {
            assert!(!unexpected);
            closed += 1;
        }
    });
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(closed, 16);
}

#[test]
fn the_owner_completes_a_barrier_with_foreign_pairs() {
    let mut driver = Driver::new(config(1, true));
    let socket = driver.connect(0).unwrap();
    let thread = std::thread::spawn(move || {
        let mut client = Client::new(socket, 0, 2, None).unwrap();
        client.put("mine", "1").unwrap();
        client.barrier().unwrap();
        let theirs = client.get("theirs").unwrap();
        drop(client);
        theirs
    });
    let mut seen = Vec::new();
    serve(&mut driver, |driver, event, more| {
        if let Event::Barrier { puts } = &event {
            assert_eq!(*puts, [("mine".to_owned(), "1".to_owned())]);
            driver.complete_barrier(true, [("theirs", "2")], more);
        }
        seen.push(event);
    });
    assert_eq!(thread.join().unwrap().as_deref(), Some("2"));
    assert_eq!(
        seen.last(),
        Some(&Event::Closed {
            rank: 0,
            unexpected: true
        })
    );
}

#[test]
fn an_endless_line_closes_the_connection() {
    let mut driver = Driver::new(config(1, false));
    let socket = driver.connect(0).unwrap();
    let thread = std::thread::spawn(move || {
        let chunk = [b'x'; 4096];
        while fd::write_all(&socket, &chunk).is_ok() {}
    });
    serve(&mut driver, |_, _, _| {});
    thread.join().unwrap();
}
