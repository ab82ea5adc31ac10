//! What happens to a message that a client of the local connector sends, and when the client goes away? (RFC 3)

use super::clients::{Client, ClientId};
use super::core::{Core, Hop, Provider};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::msg::{Kind, Message, flags, role};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct TopicBody {
    topic: String,
}

#[derive(Deserialize)]
struct ServiceBody {
    service: String,
}

impl Core {
    /// Takes one message from a client, as flux-core's router does in front of the broker.
    ///
    /// `event.subscribe`, `event.unsubscribe`, `service.add` and `service.remove` are answered here, because
    /// they belong to the connection; other requests get the client's route and go on.
    pub fn client_message(&mut self, id: &ClientId, mut msg: Message) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        client.rx_count += 1;
        client.stamp(&mut msg);
        match msg.kind {
            Kind::Request => {
                msg.flags |= flags::ROUTE;
                msg.routes.push(id.clone());
                match msg.topic.as_str() {
                    "event.subscribe" | "event.unsubscribe" => self.client_subscription(id, &msg),
                    "service.add" | "service.remove" => self.client_service(id, &msg),
                    _ => {
                        client.arm_disconnect(&msg);
                        self.route_request(msg);
                    }
                }
            }
            Kind::Response if client.may_answer(&msg) => self.route_response(msg),
            Kind::Response => {
                tracing::warn!(userid = msg.userid, topic = %msg.topic, "dropped a response that nobody asked for");
            }
            Kind::Event => {
                // only rank 0 numbers events
                msg.aux1 = 0;
                self.receive_event(msg);
            }
            Kind::Control => {}
        }
    }

    /// Answers a request that was handled at the connection.
    fn client_answer(&mut self, req: &Message, errnum: u32, text: &str) {
        if errnum != 0 {
            self.refuse(req, errnum, text);
        } else if req.wants_response() {
            let mut resp = req.response(None);
            self.sign_response(&mut resp);
            self.route_response(resp);
        }
    }

    fn client_subscription(&mut self, id: &ClientId, req: &Message) {
        let Ok(TopicBody { topic }) = req.payload_json() else {
            self.client_answer(req, errno::EPROTO, "");
            return;
        };
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        let mut errnum = 0;
        if req.topic.method() == "subscribe" {
            *client.subscriptions.entry(topic).or_insert(0) += 1;
        } else {
            match client.subscriptions.get_mut(&topic) {
                Some(count) if *count > 1 => *count -= 1,
                Some(_) => {
                    client.subscriptions.remove(&topic);
                }
                None => errnum = errno::ENOENT,
            }
        }
        self.client_answer(req, errnum, "");
    }

    fn client_service(&mut self, id: &ClientId, req: &Message) {
        let Ok(ServiceBody { service }) = req.payload_json() else {
            self.client_answer(req, errno::EPROTO, "");
            return;
        };
        let own = format!("{}-", req.userid);
        if req.rolemask & role::OWNER == 0 && !service.starts_with(&own) {
            self.client_answer(req, errno::EPERM, "");
            return;
        }
        if req.topic.method() == "add" {
            match self.register_provider(&service, Provider::Client(id.clone())) {
                Ok(()) => {
                    if let Some(client) = self.clients.get_mut(id) {
                        client.services.insert(service);
                    }
                    self.client_answer(req, 0, "");
                }
                Err(err) => self.client_answer(req, err.errnum, ""),
            }
            return;
        }
        match self.providers.get(&service) {
            Some(Provider::Client(owner)) if owner == id => {
                self.providers.remove(&service);
                if let Some(client) = self.clients.get_mut(id) {
                    client.services.remove(&service);
                }
                self.client_answer(req, 0, "");
            }
            Some(_) => {
                let text = format!("requestor did not register {service}");
                self.client_answer(req, errno::EINVAL, &text);
            }
            None => self.client_answer(req, errno::ENOENT, &format!("{service} is not registered")),
        }
    }

    /// A client's connection ended: its services go, and every service it talked to gets a disconnect.
    pub fn client_down(&mut self, id: &ClientId) {
        let Some(client) = self.clients.remove(id) else {
            return;
        };
        self.routes.remove(id);
        for service in &client.services {
            self.providers.remove(service);
        }
        for bye in client.disconnects.into_values() {
            self.route_request(bye);
        }
    }

    /// Returns what `flux module stats connector-local` shows of the clients.
    pub fn clients_stats(&self) -> Value {
        let one = |(id, client): (&Bytes, &Client)| {
            json!({
                "uuid": String::from_utf8_lossy(id), "userid": client.info.userid, "pid": client.info.pid,
                "txcount": client.tx_count, "rxcount": client.rx_count, "rxbacklog": client.output.len(),
            })
        };
        json!({"clients": self.clients.iter().map(one).collect::<Vec<_>>(), "connects": self.client_connects})
    }

    /// Returns the services that clients registered, for `flux module list`.
    pub fn client_services(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .clients
            .values()
            .flat_map(|c| c.services.iter().cloned())
            .collect();
        names.sort();
        names
    }

    /// Returns true when a route id belongs to a service of this broker.
    pub fn is_local_module(&self, route: &Bytes) -> bool {
        matches!(self.routes.get(route), Some(Hop::Slot(_)))
    }
}
