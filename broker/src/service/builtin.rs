//! Which methods does every service have without writing them? ping, stats, rusage, debug; and tracing.

use super::core::{Core, SlotId};
use super::{Access, Cx, Service};
use flux_formats::errno;
use flux_formats::msg::{Kind, Message};
use serde_json::{Map, Value, json};

/// Returns true for a method that the hub answers for every service.
pub(super) fn is_builtin(method: &str) -> bool {
    matches!(
        method,
        "ping" | "stats-get" | "stats-clear" | "rusage" | "debug" | "config-reload" | "config-update"
    )
}

/// Returns who may see a service's figures: what its own handler in flux-core says, or else everybody.
fn stats_access(service: &str) -> Access {
    match service {
        "connector-local" | "content" | "heartbeat" | "job-exec" | "job-info" | "log" => Access::Owner,
        "content-sqlite" | "groups" | "job-ingest" | "job-list" | "job-manager" | "kvs" | "kvs-watch"
        | "overlay" => Access::User,
        _ => Access::All,
    }
}

pub(super) fn handle(service: &mut dyn Service, cx: &mut Cx<'_>, req: &Message) {
    let method = req.topic.method();
    let access = match method {
        "ping" | "rusage" => Access::User,
        "stats-get" => stats_access(req.topic.service()),
        _ => Access::Owner,
    };
    if let Some(text) = access.refusal(req.rolemask) {
        cx.fail(req, errno::EPERM, text);
        return;
    }
    match method {
        "ping" => ping(cx, req),
        "stats-get" => {
            if !service.stats_later(cx, req) {
                let stats = service.stats(cx).unwrap_or_else(|| cx.counters());
                cx.respond(req, &stats);
            }
        }
        "stats-clear" => {
            service.stats_clear(cx);
            let me = cx.slot();
            if let Some(slot) = cx.slots.get_mut(me) {
                slot.counters = super::core::Counters::default();
            }
            cx.respond_empty(req);
        }
        "rusage" => rusage(cx, req),
        "config-reload" | "config-update" => cx.respond_empty(req),
        _ => debug(cx, req),
    }
}

#[derive(serde::Deserialize)]
struct DebugRequest {
    op: String,
    /// C clients send bit 31 as a negative number.
    flags: i64,
}

/// Keeps debug flags (flux-core: src/common/libflux/method.c, behaviour). No service asks for them.
fn debug(cx: &mut Cx<'_>, req: &Message) {
    let Some(DebugRequest { op, flags }) = cx.decode(req) else {
        return;
    };
    let bits = i32::try_from(flags)
        .map(i32::cast_unsigned)
        .or_else(|_| u32::try_from(flags));
    let me = cx.slot();
    let (Ok(bits), Some(slot)) = (bits, cx.slots.get_mut(me)) else {
        cx.fail(req, errno::EPROTO, "debug flags must fit into 32 bits");
        return;
    };
    slot.debug = match op.as_str() {
        "setbit" => slot.debug | bits,
        "clrbit" => slot.debug & !bits,
        "set" => bits,
        "clr" => 0,
        other => {
            let text = format!("unknown debug operation '{other}': use setbit, clrbit, set or clr");
            cx.fail(req, errno::EPROTO, &text);
            return;
        }
    };
    let flags = slot.debug;
    cx.respond(req, &json!({ "flags": flags }));
}

fn ping(cx: &mut Cx<'_>, req: &Message) {
    let Ok(mut body) = req.payload_json::<Map<String, Value>>() else {
        cx.fail(req, errno::EPROTO, "ping payload must be a JSON object");
        return;
    };
    let route: Vec<String> = req
        .routes
        .iter()
        .map(|r| String::from_utf8_lossy(r.get(..8).unwrap_or(r)).into_owned())
        .collect();
    body.insert("route".into(), Value::from(route.join("!")));
    body.insert("userid".into(), Value::from(req.userid));
    body.insert("rolemask".into(), Value::from(req.rolemask));
    body.insert("rank".into(), Value::from(cx.rank()));
    cx.respond(req, &body);
}

fn rusage(cx: &mut Cx<'_>, req: &Message) {
    let Some(body) = cx.decode::<Map<String, Value>>(req) else {
        return;
    };
    let who = match body.get("who").and_then(Value::as_str).unwrap_or("self") {
        "self" => nix::sys::resource::UsageWho::RUSAGE_SELF,
        "children" => nix::sys::resource::UsageWho::RUSAGE_CHILDREN,
        "thread" => nix::sys::resource::UsageWho::RUSAGE_THREAD,
        other => {
            cx.fail(
                req,
                errno::EINVAL,
                &format!("unknown rusage target '{other}': use self, children or thread"),
            );
            return;
        }
    };
    let Ok(usage) = nix::sys::resource::getrusage(who) else {
        cx.fail(req, errno::EINVAL, "");
        return;
    };
    let seconds = |time: nix::sys::time::TimeVal| {
        use nix::sys::time::TimeValLike;
        let micros = time.num_microseconds();
        std::time::Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64()
    };
    cx.respond(
        req,
        &json!({
            "utime": seconds(usage.user_time()), "stime": seconds(usage.system_time()),
            "maxrss": usage.max_rss(), "ixrss": usage.shared_integral(), "idrss": usage.unshared_data_integral(),
            "isrss": usage.unshared_stack_integral(), "minflt": usage.minor_page_faults(),
            "majflt": usage.major_page_faults(), "nswap": usage.full_swaps(), "inblock": usage.block_reads(),
            "oublock": usage.block_writes(), "msgsnd": usage.ipc_sends(), "msgrcv": usage.ipc_receives(),
            "nsignals": usage.signals(), "nvcsw": usage.voluntary_context_switches(),
            "nivcsw": usage.involuntary_context_switches(),
        }),
    );
}

/// A `module.trace` request: copies of messages that services receive and send.
#[derive(Debug)]
pub struct Trace {
    /// The streaming request to answer.
    pub request: Message,
    /// Bits of message kinds wanted.
    pub typemask: u32,
    /// Glob of topics wanted.
    pub glob: String,
    /// Module names wanted.
    pub names: Vec<String>,
    /// Send payloads too.
    pub full: bool,
}

/// Matches a topic against a shell glob with `*` and `?`.
pub fn glob_matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut g, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(c) if *c == '?' || Some(c) == text.get(t) => {
                g += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    g = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    glob.iter().skip(g).all(|c| *c == '*')
}

impl Trace {
    fn wants(&self, name: &str, msg: &Message) -> bool {
        self.typemask & msg.kind as u32 != 0
            && (self.names.is_empty() || self.names.iter().any(|n| n == name))
            && glob_matches(&self.glob, &msg.topic)
            // a trace of its own messages would never end
            && !matches!(msg.topic.as_str(), "module.trace" | "overlay.trace")
    }

    fn record(&self, prefix: &str, rank: u32, name: Option<&str>, msg: &Message) -> Value {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let mut record = json!({"timestamp": now.as_secs_f64(), "prefix": prefix, "rank": rank});
        if let Some(name) = name {
            record["name"] = Value::from(name);
        }
        record["type"] = Value::from(msg.kind as u32);
        record["topic"] = Value::from(msg.topic.as_str());
        record["payload_size"] = Value::from(msg.payload.as_ref().map_or(0, bytes::Bytes::len));
        if self.full
            && let Ok(payload) = msg.payload_json::<Value>()
        {
            record["payload"] = payload;
        }
        let errnum = if msg.kind == Kind::Response {
            msg.errnum()
        } else {
            0
        };
        record["errnum"] = Value::from(errnum);
        record["errstr"] = Value::from(if errnum == 0 { "" } else { errno::strerror(errnum) });
        record
    }
}

impl Core {
    /// Returns true while somebody traces modules.
    pub(super) fn traces_modules(&self) -> bool {
        !self.traces.is_empty()
    }

    /// Copies a message that a service is about to get (`rx`), or has sent (`tx`), to those who trace modules.
    pub(super) fn trace(&mut self, slot: SlotId, prefix: &str, msg: &Message) {
        if self.traces.is_empty() {
            return;
        }
        let name = self.slots.get(slot).map(|s| s.name.clone()).unwrap_or_default();
        let rank = self.rank();
        let wanting = self.traces.iter().filter(|trace| trace.wants(&name, msg));
        let records: Vec<_> = wanting
            .map(|t| (t.request.clone(), t.record(prefix, rank, Some(&name), msg)))
            .collect();
        self.send_records(records);
    }

    /// Copies a message that crosses a peer to those who trace the overlay.
    pub(super) fn trace_link(&mut self, prefix: &str, peer: &bytes::Bytes, msg: &Message) {
        if self.link_traces.is_empty() {
            return;
        }
        let child = self
            .children
            .iter()
            .find(|(_, uuid)| *uuid == peer)
            .map(|(rank, _)| *rank);
        let rank = child.or(self.topology.parent()).unwrap_or(0);
        let wanting = self.link_traces.iter().filter(|trace| trace.wants("", msg));
        let records: Vec<_> = wanting
            .map(|t| (t.request.clone(), t.record(prefix, rank, None, msg)))
            .collect();
        self.send_records(records);
    }

    fn send_records(&mut self, records: Vec<(Message, Value)>) {
        for (request, record) in records {
            if let Ok(payload) = flux_formats::msg::json_payload(&record) {
                let mut resp = request.response(Some(payload));
                self.sign_response(&mut resp);
                self.route_response(resp);
            }
        }
    }
}

impl Cx<'_> {
    /// Returns the default statistics: messages sent and received by kind.
    pub fn counters(&self) -> Value {
        let counters = self
            .core
            .slots
            .get(self.me)
            .map(|s| s.counters)
            .unwrap_or_default();
        let side = |c: [u64; 4]| json!({"request": c[0], "response": c[1], "event": c[2], "control": c[3]});
        json!({"tx": side(counters.tx), "rx": side(counters.rx)})
    }
}

#[cfg(test)]
mod tests {
    use super::glob_matches;

    #[test]
    fn globs() {
        assert!(glob_matches("*", "kvs.lookup"));
        assert!(glob_matches("kvs.*", "kvs.lookup"));
        assert!(glob_matches("*.look?p", "kvs.lookup"));
        assert!(!glob_matches("kvs", "kvs.lookup"));
        assert!(!glob_matches("kvs.*.x", "kvs.lookup"));
    }
}
