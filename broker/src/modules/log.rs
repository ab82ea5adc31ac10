//! Service `log`: who appends to and reads the log ring? (flux-core: broker/log.c, behaviour)

use crate::log::Entry;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::msg::{self, Message};
use serde::Deserialize;
use serde_json::{Value, json};

/// The `log` service; the ring lives in the hub.
#[derive(Debug, Default)]
pub struct Log;

#[derive(Deserialize)]
struct DmesgRequest {
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    nobacklog: bool,
}

#[derive(Deserialize)]
struct CancelRequest {
    matchtag: u32,
}

#[derive(Deserialize)]
struct SetattrRequest {
    name: String,
    value: String,
}

impl Log {
    fn append(cx: &mut Cx<'_>, req: &Message) {
        let text = req
            .payload
            .as_ref()
            .map(|p| String::from_utf8_lossy(p).into_owned())
            .unwrap_or_default();
        let Some(entry) = Entry::parse(&text) else {
            cx.fail(req, errno::EPROTO, "not an RFC 5424 line");
            return;
        };
        cx.log.append_remote(&entry);
        cx.log_dispatch(&entry);
        cx.respond_empty(req);
    }

    fn dmesg(cx: &mut Cx<'_>, req: &Message) {
        if !cx.require_streaming(req) {
            return;
        }
        let Some(DmesgRequest { follow, nobacklog }) = cx.decode(req) else {
            return;
        };
        if !nobacklog {
            let lines: Vec<_> = cx.log.entries().map(|e| msg::string_payload(&e.line)).collect();
            for line in lines {
                cx.respond_payload(req, Some(line));
            }
        }
        if follow {
            let mut header = req.clone();
            header.payload = None;
            cx.log.followers.push(header);
        } else {
            cx.fail(req, errno::ENODATA, "");
        }
    }

    fn cancel(cx: &mut Cx<'_>, req: &Message) {
        let Some(CancelRequest { matchtag }) = cx.decode(req) else {
            return;
        };
        let of = |f: &Message| f.sender() == req.sender() && f.matchtag() == matchtag;
        let followers = std::mem::take(&mut cx.log.followers);
        let (ended, kept): (Vec<_>, Vec<_>) = followers.into_iter().partition(of);
        cx.log.followers = kept;
        for follower in ended {
            cx.fail(&follower, errno::ENODATA, "");
        }
    }

    fn setattr(cx: &mut Cx<'_>, req: &Message) {
        let Some(SetattrRequest { name, value }) = cx.decode(req) else {
            return;
        };
        match cx.attrs.set_runtime(&name, &value, false) {
            Ok(()) => {
                cx.apply_log_attrs();
                cx.respond_empty(req);
            }
            Err(err) => cx.fail(req, err.errnum(), &err.to_string()),
        }
    }
}

impl Service for Log {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[
            Method::owner("append"),
            Method::owner("dmesg"),
            Method::owner("clear"),
            Method::owner("cancel"),
            Method::owner("setattr"),
        ];
        vec![Interface {
            service: "log",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        cx.apply_log_attrs();
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "append" => Self::append(cx, &req),
            "dmesg" => Self::dmesg(cx, &req),
            "clear" => {
                cx.log.clear();
                cx.respond_empty(&req);
            }
            "cancel" => Self::cancel(cx, &req),
            _ => Self::setattr(cx, &req),
        }
    }

    fn on_disconnect(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        cx.log.followers.retain(|f| f.sender() != msg.sender());
    }

    fn stats(&mut self, cx: &mut Cx<'_>) -> Option<Value> {
        let log = &cx.log;
        Some(json!({
            "ring-used": log.used(), "count": log.local_count + log.remote_count,
            "local": log.local_count, "remote": log.remote_count,
        }))
    }
}
