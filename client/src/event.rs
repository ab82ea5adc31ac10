//! How does a client hear and publish events, and offer a service of its own?

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flux_formats::msg::{Kind, Message, NODEID_ANY, flags};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::{Error, Handle};

#[derive(Serialize)]
struct TopicRequest<'a> {
    topic: &'a str,
}

#[derive(Serialize)]
struct ServiceRequest<'a> {
    service: &'a str,
}

#[derive(Serialize)]
struct PublishRequest<'a> {
    topic: &'a str,
    flags: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

#[derive(Deserialize)]
struct PublishResponse {
    seq: u32,
}

impl Handle {
    /// Subscribes to events whose topic begins with `topic` ("" is every event).
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub fn subscribe(&mut self, topic: &str) -> Result<(), Error> {
        self.call::<IgnoredAny>("event.subscribe", NODEID_ANY, &TopicRequest { topic })?;
        self.subscriptions.push(topic.to_owned());
        Ok(())
    }

    /// Takes back one subscription.
    ///
    /// # Errors
    /// As [`Handle::call`]; ENOENT when there is none.
    pub fn unsubscribe(&mut self, topic: &str) -> Result<(), Error> {
        self.call::<IgnoredAny>("event.unsubscribe", NODEID_ANY, &TopicRequest { topic })?;
        if let Some(at) = self.subscriptions.iter().position(|t| t == topic) {
            self.subscriptions.swap_remove(at);
        }
        Ok(())
    }

    /// Waits for the next event until `deadline`; other messages stay queued.
    ///
    /// # Errors
    /// [`Error::Timeout`] and those of the connection.
    pub fn next_event(&mut self, deadline: Option<Instant>) -> Result<Message, Error> {
        self.wait_for(deadline, |msg| msg.kind == Kind::Event)
    }

    /// Publishes an event through rank 0 and returns its sequence number. The payload is sent as it is: JSON text
    /// must end with NUL (see [`crate::msg::json_payload`]).
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub fn publish(&mut self, topic: &str, payload: Option<&[u8]>, private: bool) -> Result<u32, Error> {
        let request = PublishRequest {
            topic,
            flags: if private { flags::PRIVATE } else { 0 },
            payload: payload.map(|bytes| BASE64.encode(bytes)),
        };
        Ok(self.call::<PublishResponse>("event.publish", 0, &request)?.seq)
    }

    /// Registers this client as the service `name`; its requests then come as
    /// [`Incoming::Request`](crate::Incoming::Request).
    ///
    /// # Errors
    /// As [`Handle::call`]; EEXIST when taken, EINVAL for a name with a dot, EPERM for a guest's foreign name.
    pub fn service_add(&mut self, name: &str) -> Result<(), Error> {
        self.call::<IgnoredAny>("service.add", NODEID_ANY, &ServiceRequest { service: name })?;
        self.services.push(name.to_owned());
        Ok(())
    }

    /// Gives up the service `name`.
    ///
    /// # Errors
    /// As [`Handle::call`]; ENOENT when it is not registered.
    pub fn service_remove(&mut self, name: &str) -> Result<(), Error> {
        self.call::<IgnoredAny>("service.remove", NODEID_ANY, &ServiceRequest { service: name })?;
        self.services.retain(|service| service != name);
        Ok(())
    }
}
