//! Which methods may guests call, and what can they do with messages that they make themselves?

use std::collections::HashMap;
use std::time::Instant;

use flux_client::msg::role;
use flux_client::{Handle, Incoming, Message, NODEID_ANY};
use flux_formats::errno::{ENOSYS, EPERM};
use flux_tests::{DEADLINE, Instance};
use serde_json::json;

const GUEST: u32 = 65534;
const OWNER_ONLY: &str = "Request requires owner credentials";
const REFUSED: &str = "Request rejected due to insufficient privilege";

/// The table: topic and who may.
fn table() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("../data/roles.txt").lines();
    lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .collect()
}

fn request(topic: &str, userid: u32, rolemask: u32) -> Message {
    let mut message = Message::request(topic.to_owned(), NODEID_ANY, None);
    (message.userid, message.rolemask) = (userid, rolemask);
    message
}

/// Sends a request of each topic; returns the answers that come before that of a last request.
fn answers(handle: &mut Handle, userid: u32, rolemask: u32) -> HashMap<&'static str, (u32, String)> {
    let mut sent = HashMap::new();
    for (topic, _) in table() {
        let rpc = handle.rpc_message(request(topic, userid, rolemask)).unwrap();
        sent.insert(rpc.matchtag(), topic);
    }
    let last = handle
        .rpc("broker.ping", NODEID_ANY, &json!({}))
        .unwrap()
        .matchtag();
    let mut found = HashMap::new();
    let until = Instant::now() + DEADLINE;
    while let Some(incoming) = handle.next_incoming(Some(until)).unwrap() {
        let Incoming::Response(response) = incoming else {
            continue;
        };
        if response.matchtag() == last {
            return found;
        }
        if let Some(topic) = sent.get(&response.matchtag()) {
            let text = response.payload_str().unwrap_or_default().to_owned();
            found.insert(*topic, (response.errnum(), text));
        }
    }
    panic!("no answer to the last request");
}

#[test]
fn each_method_has_the_role_that_flux_core_gives_it() {
    let flux = Instance::boot(1);
    let mut handle = flux.handle(0);
    let guest = answers(&mut handle, GUEST, role::USER);
    let admin = answers(&mut handle, GUEST, role::ADMIN);
    let refused = |answers: &HashMap<_, (u32, String)>, topic, text: &str| {
        answers
            .get(topic)
            .is_some_and(|(errnum, said)| *errnum == EPERM && said == text)
    };
    let mut wrong = Vec::new();
    for (topic, who) in table() {
        let unknown = guest.get(topic).is_some_and(|(errnum, _)| *errnum == ENOSYS);
        let (of_guest, of_admin) = (guest.get(topic), admin.get(topic));
        let good = match who {
            "OWNER" => refused(&guest, topic, OWNER_ONLY) && refused(&admin, topic, OWNER_ONLY),
            "USER" => !refused(&guest, topic, OWNER_ONLY) && refused(&admin, topic, REFUSED),
            "ALL" | "ANY" => [&guest, &admin]
                .iter()
                .all(|seen| !refused(seen, topic, OWNER_ONLY) && !refused(seen, topic, REFUSED)),
            other => panic!("{topic}: {other} is not a role"),
        };
        if !good || unknown {
            wrong.push(format!("{topic} {who}: guest {of_guest:?}, admin {of_admin:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    drop(handle);
    flux.stop();
}

#[test]
fn an_event_of_a_guest_signals_no_job() {
    let flux = Instance::boot(2);
    let id = flux
        .run(&["submit", "-N2", "sleep", "1000"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait-event", "-p", "exec", &id, "shell.start"])
        .ok();
    let dec = flux.run(&["job", "id", "--to=dec", &id]).ok().line().to_owned();
    let mut handle = flux.handle(1);
    let mut publish = |userid, rolemask, payload: &str| {
        let body = json!({"topic": format!("shell-{dec}.kill"), "flags": 0, "payload": payload});
        let payload = flux_client::msg::json_payload(&body).unwrap();
        let mut message = Message::request("event.publish".to_owned(), 0, Some(payload));
        (message.userid, message.rolemask) = (userid, rolemask);
        let rpc = handle.rpc_message(message).unwrap();
        handle.get::<serde_json::Value>(&rpc).unwrap();
    };
    // {"signum":9} and {"signum":15}: events keep their order, so the first would be seen in the status
    publish(GUEST, role::USER, "eyJzaWdudW0iOjl9AA==");
    publish(0, role::OWNER, "eyJzaWdudW0iOjE1fQA=");
    flux.run(&["job", "status", &id]).code(143);
    flux.stop();
}
