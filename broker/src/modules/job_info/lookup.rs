//! How are keys of a job read, with later updates applied when asked for?

use super::JobInfo;
use crate::modules::kvs::local as kvs;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::eventlog;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_info as rpc;
use serde_json::{Map, Value};

/// A look-up whose values come in.
#[derive(Debug)]
struct Lookup {
    request: Message,
    id: JobId,
    flags: u32,
    keys: Vec<String>,
    values: Map<String, Value>,
    eventlog: Option<Bytes>,
}

impl JobInfo {
    pub(super) fn on_lookup(&mut self, cx: &mut Cx<'_>, req: Message) {
        let Some(body) = cx.decode::<rpc::LookupRequest>(&req) else {
            return;
        };
        if body.flags & !(rpc::LOOKUP_JSON_DECODE | rpc::LOOKUP_CURRENT) != 0 {
            cx.fail(
                &req,
                errno::EPROTO,
                &format!("lookup request rejected with invalid flag {}", body.flags),
            );
            return;
        }
        self.lookups += 1;
        self.authorize(cx, req, body.id, move |me, cx, mut request| {
            request.payload = None;
            let mut values = Map::new();
            values.insert("id".into(), Value::from(body.id.0));
            let updated = body.keys.iter().any(|key| key == "R" || key == "jobspec");
            let lookup = Lookup {
                request,
                id: body.id,
                flags: body.flags,
                keys: body.keys,
                values,
                eventlog: None,
            };
            if body.flags & rpc::LOOKUP_CURRENT != 0 && updated {
                let key = body.id.kvs_key("eventlog");
                kvs::lookup(cx, "primary", &key, move |me: &mut JobInfo, cx, result| {
                    let lookup = Lookup {
                        eventlog: result.ok(),
                        ..lookup
                    };
                    me.lookup_next(cx, lookup, 0);
                });
            } else {
                me.lookup_next(cx, lookup, 0);
            }
        });
    }

    /// Reads one key after the other; calls of one service are answered in order, so this costs no waiting.
    fn lookup_next(&mut self, cx: &mut Cx<'_>, lookup: Lookup, index: usize) {
        let Some(key) = lookup.keys.get(index) else {
            cx.respond(&lookup.request, &lookup.values);
            return;
        };
        let path = lookup.id.kvs_key(key);
        kvs::lookup(cx, "primary", &path, move |me: &mut JobInfo, cx, result| {
            let mut lookup = lookup;
            match result.and_then(|data| lookup.take(index, &data)) {
                Ok(()) => me.lookup_next(cx, lookup, index + 1),
                Err(err) if err.errnum == errno::ENOENT => Self::missing(cx, &lookup, index),
                Err(err) => cx.fail_with(&lookup.request, &err),
            }
        });
    }

    /// Says what is missing: the key, or the whole job, which would have an eventlog.
    fn missing(cx: &mut Cx<'_>, lookup: &Lookup, index: usize) {
        let key = lookup.keys.get(index).cloned().unwrap_or_default();
        let request = lookup.request.clone();
        let path = lookup.id.kvs_key("eventlog");
        kvs::lookup(cx, "primary", &path, move |_: &mut JobInfo, cx, eventlog| {
            let unknown = eventlog.is_err_and(|err| err.errnum == errno::ENOENT);
            let text = if unknown {
                "invalid job id".to_owned()
            } else {
                format!("{key}: key not found")
            };
            cx.fail(&request, errno::ENOENT, &text);
        });
    }
}

impl Lookup {
    fn take(&mut self, index: usize, data: &[u8]) -> Result<(), RpcError> {
        let Some(key) = self.keys.get(index).cloned() else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(data);
        let value = if key == "R" || key == "jobspec" {
            let current = self.flags & rpc::LOOKUP_CURRENT != 0;
            let decode = self.flags & rpc::LOOKUP_JSON_DECODE != 0;
            if current || decode {
                let mut value: Value = serde_json::from_str(&text)
                    .map_err(|err| RpcError::new(errno::EPROTO, format!("{key}: {err}")))?;
                if let Some(log) = self.eventlog.as_ref().filter(|_| current) {
                    apply_updates(&mut value, &key, log);
                }
                if decode {
                    value
                } else {
                    Value::from(value.to_string())
                }
            } else {
                Value::from(text.into_owned())
            }
        } else {
            Value::from(text.into_owned())
        };
        self.values.insert(key, value);
        Ok(())
    }
}

/// Applies the updates that a job's eventlog holds to its R or jobspec.
pub(super) fn apply_updates(value: &mut Value, key: &str, log: &[u8]) {
    let wanted = if key == "R" {
        "resource-update"
    } else {
        "jobspec-update"
    };
    let Ok(text) = std::str::from_utf8(log) else {
        return;
    };
    for event in eventlog::decode_iter(text)
        .flatten()
        .filter(|event| event.name == wanted)
    {
        let Ok(context) = event.context_as::<Map<String, Value>>() else {
            continue;
        };
        for (path, new) in context {
            if key == "R" {
                set_path(value, &format!("execution.{path}"), new);
            } else {
                set_path(value, &path, new);
            }
        }
    }
}

/// Sets a value at a dotted path, making objects on the way.
fn set_path(value: &mut Value, path: &str, new: Value) {
    let mut at = value;
    for name in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Some(map) = at.as_object_mut() else { return };
        at = map.entry(name).or_insert(Value::Null);
    }
    *at = new;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn updates_are_applied_in_order() {
        let log = br#"{"timestamp":1.0,"name":"jobspec-update","context":{"attributes.system.duration":60}}
{"timestamp":2.0,"name":"resource-update","context":{"expiration":99.5}}
{"timestamp":3.0,"name":"jobspec-update","context":{"attributes.system.duration":90,"attributes.system.queue":"q"}}
"#;
        let mut jobspec = json!({"attributes": {"system": {"duration": 0}}});
        apply_updates(&mut jobspec, "jobspec", log);
        assert_eq!(
            jobspec,
            json!({"attributes": {"system": {"duration": 90, "queue": "q"}}})
        );
        let mut r = json!({"execution": {"expiration": 0.0}});
        apply_updates(&mut r, "R", log);
        assert_eq!(r, json!({"execution": {"expiration": 99.5}}));
    }
}
