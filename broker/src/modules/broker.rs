//! Services `broker`, `event` and `service`: what the broker itself answers on every rank.

use crate::service::{Cx, Interface, Method, RpcError, Service};
use base64::Engine;
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::msg::{Message, flags};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The broker-internal services that need no state of their own.
#[derive(Debug, Default)]
pub struct Broker;

#[derive(Deserialize)]
struct PublishRequest {
    topic: String,
    flags: u32,
    payload: Option<String>,
}

#[derive(Deserialize)]
struct BuiltinRequest {
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct GetenvRequest {
    names: Vec<String>,
}

fn publish(cx: &mut Cx<'_>, req: &Message) -> Result<Value, RpcError> {
    if cx.rank() != 0 {
        return Err(RpcError::new(
            errno::EPROTO,
            "this service is only available on rank 0",
        ));
    }
    let PublishRequest {
        topic,
        flags: bits,
        payload,
    } = req.payload_json()?;
    if bits & !u32::from(flags::PRIVATE) != 0 {
        return Err(RpcError::bare(errno::EPROTO));
    }
    let payload = match payload {
        Some(text) => Some(Bytes::from(
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|err| RpcError::new(errno::EPROTO, format!("payload is not base64: {err}")))?,
        )),
        None => None,
    };
    let mut event = Message::event(topic, payload);
    event.userid = req.userid;
    event.rolemask = req.rolemask;
    if bits != 0 {
        event.flags |= flags::PRIVATE;
    }
    let seq = cx.publish_now(event);
    Ok(json!({ "seq": seq }))
}

fn conf_builtin(req: &Message) -> Result<Value, RpcError> {
    let BuiltinRequest { keys } = req.payload_json()?;
    let mut values = Map::new();
    for key in keys {
        let value = flux_formats::paths::builtin(&key)
            .ok_or_else(|| RpcError::new(errno::EINVAL, format!("{key}: invalid key")))?;
        values.insert(key, Value::from(value));
    }
    Ok(json!({ "values": values }))
}

fn getenv(req: &Message) -> Result<Value, RpcError> {
    let GetenvRequest { names } = req.payload_json()?;
    let env: Map<String, Value> = names
        .into_iter()
        .filter_map(|name| std::env::var(&name).ok().map(|value| (name, Value::from(value))))
        .collect();
    Ok(json!({ "env": env }))
}

impl Service for Broker {
    fn interfaces(&self) -> Vec<Interface> {
        const BROKER: &[Method] = &[
            Method::owner("getenv"),
            Method::owner("setenv"),
            Method::all("conf-builtin"),
        ];
        const EVENT: &[Method] = &[
            Method::user("publish"),
            Method::owner("subscribe"),
            Method::owner("unsubscribe"),
        ];
        const SERVICE: &[Method] = &[Method::user("add"), Method::user("remove")];
        vec![
            Interface {
                service: "broker",
                methods: BROKER,
            },
            Interface {
                service: "event",
                methods: EVENT,
            },
            Interface {
                service: "service",
                methods: SERVICE,
            },
        ]
    }

    fn start(&mut self, _cx: &mut Cx<'_>) -> Result<(), RpcError> {
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.as_str() {
            "event.publish" => {
                let answer = publish(cx, &req);
                cx.answer(&req, answer);
            }
            "broker.conf-builtin" => cx.answer(&req, conf_builtin(&req)),
            "broker.getenv" => cx.answer(&req, getenv(&req)),
            "broker.setenv" => cx.fail(
                &req,
                errno::ENOSYS,
                "broker.setenv is not available: a running broker's environment does not change",
            ),
            // a connection's own subscriptions and services never get here: the connector answers them
            "service.add" | "service.remove" => cx.fail(&req, errno::EINVAL, "requestor is not local"),
            _ => cx.fail(&req, errno::EPROTO, "subscriptions belong to a local connection"),
        }
    }
}
