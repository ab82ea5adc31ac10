//! Service `attr`: who reads and changes broker attributes? (services.md of flux-core: broker/attr.c, behaviour)

use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::msg::Message;
use serde::Deserialize;
use serde_json::json;

/// The `attr` service; the values live in the hub.
#[derive(Debug, Default)]
pub struct Attr;

#[derive(Deserialize)]
struct GetRequest<'a> {
    name: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct SetRequest {
    name: String,
    value: String,
    #[serde(default)]
    force: bool,
}

impl Attr {
    fn get(cx: &mut Cx<'_>, req: &Message) -> Result<serde_json::Value, RpcError> {
        let text = req.payload_str().map_err(RpcError::from)?;
        let GetRequest { name } =
            serde_json::from_str(text).map_err(|err| RpcError::new(errno::EPROTO, err.to_string()))?;
        match cx.attrs.get(&name) {
            Some(value) => Ok(json!({"value": value, "flags": cx.attrs.wire_flags(&name)})),
            None => Err(RpcError::bare(errno::ENOENT)),
        }
    }

    fn set(cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let SetRequest { name, value, force } = req.payload_json()?;
        cx.check_attr(&name, &value)?;
        cx.attrs
            .set_runtime(&name, &value, force)
            .map_err(|err| RpcError::new(err.errnum(), err.to_string()))?;
        cx.apply_log_attrs();
        Ok(())
    }
}

impl Service for Attr {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[
            Method::all("get"),
            Method::all("list"),
            Method::owner("set"),
            Method::owner("rm"),
        ];
        vec![Interface {
            service: "attr",
            methods: METHODS,
        }]
    }

    fn start(&mut self, _cx: &mut Cx<'_>) -> Result<(), RpcError> {
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "get" => {
                let answer = Self::get(cx, &req);
                cx.answer(&req, answer);
            }
            "list" => {
                let names: Vec<&str> = cx.attrs.names().collect();
                let body = json!({ "names": names });
                cx.respond(&req, &body);
            }
            "set" => match Self::set(cx, &req) {
                Ok(()) => cx.respond_empty(&req),
                Err(err) => cx.fail_with(&req, &err),
            },
            _ => {
                let Some(GetRequest { name }) = cx.decode(&req) else {
                    return;
                };
                match cx.attrs.remove(&name) {
                    Ok(()) => cx.respond_empty(&req),
                    Err(err) => cx.fail(&req, err.errnum(), &err.to_string()),
                }
            }
        }
    }
}

impl crate::service::Core {
    /// Refuses values of run-time attributes that would be ignored.
    fn check_attr(&self, name: &str, value: &str) -> Result<(), RpcError> {
        if name == "log-stderr-level"
            && value
                .parse::<i8>()
                .ok()
                .filter(|v| (-1..=7).contains(v))
                .is_none()
        {
            return Err(RpcError::new(
                errno::EINVAL,
                format!("{name}: '{value}' is not a level from -1 to 7"),
            ));
        }
        Ok(())
    }

    /// Takes the log attributes into the ring's rules; a value that is no number keeps the rule as it was.
    pub fn apply_log_attrs(&mut self) {
        let level = |attrs: &crate::attrs::Attrs, name: &str, old: i8| {
            attrs
                .get(name)
                .and_then(|v| v.parse::<i8>().ok())
                .map_or(old, |v| v.clamp(-1, 7))
        };
        let config = &mut self.log.config;
        config.forward_level = level(&self.attrs, "log-forward-level", config.forward_level);
        config.stderr_level = level(&self.attrs, "log-stderr-level", config.stderr_level);
        let keep = level(&self.attrs, "log-level", 7);
        config.level = u8::try_from(keep).unwrap_or(0);
        config.stderr_local = self.attrs.get("log-stderr-mode") == Some("local");
        if let Some(size) = self.attrs.get("log-ring-size").and_then(|v| v.parse().ok()) {
            config.ring_size = size;
        }
    }
}
