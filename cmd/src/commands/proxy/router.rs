//! Where does a message of a client or of the broker go?
//!
//! A request gets the client's name on top of its route stack, and its response comes back with it. Subscriptions and
//! services of clients are those of the one connection upstream, counted; a client that goes away is said to the
//! services it used, as a broker would.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use flux_client::msg::{flags, json_payload};
use flux_client::{Kind, Message};
use flux_formats::errno::{self, Errnum};
use serde::Deserialize;

/// Number of a client, never used twice.
pub(super) type ClientId = u64;

/// What is to be done with a message.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Sends it upstream.
    Upstream(Message),
    /// Sends it to a client.
    Client(ClientId, Message),
    /// Subscribes upstream; the answer to the client's request follows.
    Subscribe(ClientId, String, Message),
    /// Takes a subscription back.
    Unsubscribe(String),
    /// Registers a service upstream; the answer to the client's request follows.
    AddService(ClientId, String, Message),
    /// Takes a service back.
    RemoveService(String),
}

#[derive(Debug, Default)]
struct Client {
    subscriptions: Vec<String>,
    /// Services that it sent requests to: name, nodeid, flags of addressing.
    used: BTreeSet<(String, u32, u8)>,
    /// Requests not answered yet, by matchtag; for a lost connection.
    pending: HashMap<u32, Message>,
}

/// Clients and what they hold.
#[derive(Debug, Default)]
pub(super) struct Router {
    clients: BTreeMap<ClientId, Client>,
    subscriptions: HashMap<String, usize>,
    services: HashMap<String, ClientId>,
}

#[derive(Deserialize)]
struct TopicRequest {
    topic: String,
}

#[derive(Deserialize)]
struct ServiceRequest {
    service: String,
}

fn hop(client: ClientId) -> Bytes {
    Bytes::from(format!("proxy-{client}"))
}

fn client_of(hop: &[u8]) -> Option<ClientId> {
    std::str::from_utf8(hop)
        .ok()?
        .strip_prefix("proxy-")?
        .parse()
        .ok()
}

impl Router {
    /// Adds a client.
    pub(super) fn add(&mut self, id: ClientId) {
        self.clients.insert(id, Client::default());
    }

    /// Takes a message from a client.
    pub(super) fn on_client(&mut self, id: ClientId, mut msg: Message, actions: &mut Vec<Action>) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        match msg.kind {
            Kind::Request => {
                if self.own_request(id, &msg, actions) {
                    return;
                }
                let Some(client) = self.clients.get_mut(&id) else {
                    return;
                };
                let addressing = msg.flags & flags::UPSTREAM;
                client
                    .used
                    .insert((msg.topic.service().to_owned(), msg.nodeid(), addressing));
                if msg.wants_response() {
                    client.pending.insert(msg.matchtag(), header(&msg));
                }
                msg.flags |= flags::ROUTE;
                msg.routes.push(hop(id));
                actions.push(Action::Upstream(msg));
            }
            Kind::Response | Kind::Event => actions.push(Action::Upstream(msg)),
            Kind::Control => {
                // nobody sends one to a broker's socket
                client.pending.remove(&u32::MAX);
            }
        }
    }

    /// Handles the requests that a connection makes about itself.
    fn own_request(&mut self, id: ClientId, msg: &Message, actions: &mut Vec<Action>) -> bool {
        match msg.topic.as_str() {
            "event.subscribe" => match msg.payload_json::<TopicRequest>() {
                Ok(TopicRequest { topic }) => self.subscribe(id, topic, msg, actions),
                Err(_) => refuse(id, msg, errno::EPROTO, actions),
            },
            "event.unsubscribe" => match msg.payload_json::<TopicRequest>() {
                Ok(TopicRequest { topic }) => self.unsubscribe(id, &topic, msg, actions),
                Err(_) => refuse(id, msg, errno::EPROTO, actions),
            },
            "service.add" => match msg.payload_json::<ServiceRequest>() {
                Ok(ServiceRequest { service }) if self.services.contains_key(&service) => {
                    refuse(id, msg, errno::EEXIST, actions);
                }
                Ok(ServiceRequest { service }) => {
                    actions.push(Action::AddService(id, service, header(msg)));
                }
                Err(_) => refuse(id, msg, errno::EPROTO, actions),
            },
            "service.remove" => match msg.payload_json::<ServiceRequest>() {
                Ok(ServiceRequest { service }) if self.services.get(&service) == Some(&id) => {
                    self.services.remove(&service);
                    actions.push(Action::RemoveService(service));
                    answer(id, msg, actions);
                }
                Ok(_) => refuse(id, msg, errno::ENOENT, actions),
                Err(_) => refuse(id, msg, errno::EPROTO, actions),
            },
            _ => return false,
        }
        true
    }

    fn subscribe(&mut self, id: ClientId, topic: String, msg: &Message, actions: &mut Vec<Action>) {
        if self.subscriptions.contains_key(&topic) {
            self.subscribed(id, &topic);
            answer(id, msg, actions);
        } else {
            actions.push(Action::Subscribe(id, topic, header(msg)));
        }
    }

    fn unsubscribe(&mut self, id: ClientId, topic: &str, msg: &Message, actions: &mut Vec<Action>) {
        let held = self.clients.get_mut(&id).and_then(|client| {
            let at = client.subscriptions.iter().position(|held| held == topic)?;
            Some(client.subscriptions.swap_remove(at))
        });
        match held {
            Some(topic) => {
                self.release(topic, actions);
                answer(id, msg, actions);
            }
            None => refuse(id, msg, errno::ENOENT, actions),
        }
    }

    /// Counts a subscription down.
    fn release(&mut self, topic: String, actions: &mut Vec<Action>) {
        if let Some(count) = self.subscriptions.get_mut(&topic) {
            *count -= 1;
            if *count == 0 {
                self.subscriptions.remove(&topic);
                actions.push(Action::Unsubscribe(topic));
            }
        }
    }

    /// Notes a subscription that is there upstream.
    pub(super) fn subscribed(&mut self, id: ClientId, topic: &str) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.subscriptions.push(topic.to_owned());
            *self.subscriptions.entry(topic.to_owned()).or_default() += 1;
        }
    }

    /// Notes a service that is there upstream.
    pub(super) fn service_added(&mut self, id: ClientId, service: String) {
        self.services.insert(service, id);
    }

    /// Takes a message from the broker.
    pub(super) fn on_broker(&mut self, mut msg: Message, actions: &mut Vec<Action>) {
        match msg.kind {
            Kind::Response => {
                let Some(id) = msg.routes.pop().as_deref().and_then(client_of) else {
                    return;
                };
                let last = msg.errnum() != 0 || !msg.is_streaming();
                if let Some(client) = self.clients.get_mut(&id) {
                    if last && msg.routes.is_empty() {
                        client.pending.remove(&msg.matchtag());
                    }
                    actions.push(Action::Client(id, msg));
                }
            }
            Kind::Request => match self.services.get(msg.topic.service()) {
                Some(id) => actions.push(Action::Client(*id, msg)),
                None if msg.wants_response() => {
                    actions.push(Action::Upstream(msg.error_response(errno::ENOSYS, "")));
                }
                None => {}
            },
            Kind::Event => {
                let topic = msg.topic.as_str();
                for (id, client) in &self.clients {
                    if client
                        .subscriptions
                        .iter()
                        .any(|held| topic.starts_with(held.as_str()))
                    {
                        actions.push(Action::Client(*id, msg.clone()));
                    }
                }
            }
            Kind::Control => {}
        }
    }

    /// Removes a client; what it held is given back and the services it used are told.
    pub(super) fn remove(&mut self, id: ClientId, actions: &mut Vec<Action>) {
        let Some(client) = self.clients.remove(&id) else {
            return;
        };
        for topic in client.subscriptions {
            self.release(topic, actions);
        }
        let gone: HashSet<String> = self
            .services
            .extract_if(|_, owner| *owner == id)
            .map(|(service, _)| service)
            .collect();
        actions.extend(gone.into_iter().map(Action::RemoveService));
        for (service, nodeid, addressing) in client.used {
            let mut msg = Message::request(format!("{service}.disconnect"), nodeid, None);
            msg.flags |= flags::NORESPONSE | flags::ROUTE | addressing;
            msg.routes.push(hop(id));
            actions.push(Action::Upstream(msg));
        }
    }

    /// Fails every request that is not answered, after the connection was lost and made again.
    pub(super) fn reconnected(&mut self, actions: &mut Vec<Action>) {
        for (id, client) in &mut self.clients {
            for (_, request) in client.pending.drain() {
                actions.push(Action::Client(
                    *id,
                    request.error_response(errno::ECONNRESET, "RPC aborted due to broker reconnect"),
                ));
            }
        }
    }
}

/// Returns a request without its payload, for a later answer.
fn header(msg: &Message) -> Message {
    Message {
        payload: None,
        ..msg.clone()
    }
}

/// Answers a client's request with success.
pub(super) fn answer(id: ClientId, request: &Message, actions: &mut Vec<Action>) {
    if request.wants_response() {
        let payload = json_payload(&serde_json::json!({})).ok();
        actions.push(Action::Client(id, request.response(payload)));
    }
}

/// Answers a client's request with an error.
pub(super) fn refuse(id: ClientId, request: &Message, errnum: Errnum, actions: &mut Vec<Action>) {
    if request.wants_response() {
        actions.push(Action::Client(id, request.error_response(errnum, "")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_client::NODEID_ANY;
    use serde_json::json;

    fn request(topic: &str, body: &serde_json::Value, tag: u32) -> Message {
        let mut msg = Message::request(topic.to_owned(), NODEID_ANY, json_payload(body).ok());
        msg.aux2 = tag;
        msg
    }

    #[test]
    fn responses_find_their_client() {
        let (mut router, mut actions) = (Router::default(), Vec::new());
        router.add(1);
        router.add(2);
        router.on_client(2, request("kvs.get", &json!({}), 7), &mut actions);
        let Some(Action::Upstream(sent)) = actions.pop() else {
            panic!("not sent")
        };
        assert_eq!(sent.routes, [hop(2)]);
        router.on_broker(sent.response(None), &mut actions);
        let Some(Action::Client(2, response)) = actions.pop() else {
            panic!("not delivered")
        };
        assert!(response.routes.is_empty() && response.matchtag() == 7);
        router.reconnected(&mut actions);
        assert!(actions.is_empty(), "answered: {actions:?}");
        router.on_client(2, request("kvs.get", &json!({}), 8), &mut actions);
        actions.clear();
        router.reconnected(&mut actions);
        assert!(matches!(&actions[..], [Action::Client(2, msg)] if msg.errnum() == errno::ECONNRESET));
        actions.clear();
        router.remove(2, &mut actions);
        assert!(
            matches!(&actions[..], [Action::Upstream(msg)] if msg.topic.as_str() == "kvs.disconnect" && !msg.wants_response())
        );
    }

    #[test]
    fn subscriptions_are_shared() {
        let (mut router, mut actions) = (Router::default(), Vec::new());
        router.add(1);
        router.add(2);
        let subscribe = request("event.subscribe", &json!({"topic": "a"}), 1);
        router.on_client(1, subscribe.clone(), &mut actions);
        assert!(matches!(&actions[..], [Action::Subscribe(1, topic, _)] if topic == "a"));
        actions.clear();
        router.subscribed(1, "a");
        router.on_client(2, subscribe, &mut actions);
        assert!(matches!(&actions[..], [Action::Client(2, msg)] if msg.errnum() == 0));
        actions.clear();
        router.on_broker(Message::event("a.b", None), &mut actions);
        assert_eq!(actions.len(), 2);
        actions.clear();
        router.remove(1, &mut actions);
        assert!(actions.is_empty(), "{actions:?}");
        router.on_client(
            2,
            request("event.unsubscribe", &json!({"topic": "a"}), 2),
            &mut actions,
        );
        assert_eq!(actions[0], Action::Unsubscribe("a".to_owned()));
        actions.clear();
        router.on_client(
            2,
            request("event.unsubscribe", &json!({"topic": "a"}), 3),
            &mut actions,
        );
        assert!(matches!(&actions[..], [Action::Client(2, msg)] if msg.errnum() == errno::ENOENT));
        router.on_broker(Message::event("a.b", None), &mut actions);
        assert_eq!(actions.len(), 1);
    }

    #[test]
    fn services_belong_to_one_client() {
        let (mut router, mut actions) = (Router::default(), Vec::new());
        router.add(1);
        router.add(2);
        router.service_added(1, "mine".to_owned());
        router.on_client(
            2,
            request("service.add", &json!({"service": "mine"}), 1),
            &mut actions,
        );
        assert!(matches!(&actions[..], [Action::Client(2, msg)] if msg.errnum() == errno::EEXIST));
        actions.clear();
        let mut call = request("mine.do", &json!({}), 9);
        call.routes.push("x".into());
        router.on_broker(call.clone(), &mut actions);
        assert!(matches!(&actions[..], [Action::Client(1, msg)] if *msg == call));
        actions.clear();
        router.on_client(1, call.response(None), &mut actions);
        assert!(matches!(&actions[..], [Action::Upstream(msg)] if msg.routes == call.routes));
        actions.clear();
        router.remove(1, &mut actions);
        assert_eq!(actions, [Action::RemoveService("mine".to_owned())]);
        actions.clear();
        router.on_broker(call, &mut actions);
        assert!(matches!(&actions[..], [Action::Upstream(msg)] if msg.errnum() == errno::ENOSYS));
    }
}
