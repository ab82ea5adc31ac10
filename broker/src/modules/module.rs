//! Service `module`: how are modules loaded, removed, listed and traced? (RFC 5)

use super::registry;
use crate::service::{Cx, Interface, Method, RpcError, Service, Trace};
use flux_formats::errno;
use flux_formats::msg::Message;
use serde::Deserialize;
use serde_json::json;

/// The `module` service.
#[derive(Debug, Default)]
pub struct Module;

#[derive(Deserialize)]
struct LoadRequest {
    path: String,
    name: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    exec: bool,
}

#[derive(Deserialize)]
struct RemoveRequest {
    name: String,
}

#[derive(Deserialize)]
struct TraceRequest {
    typemask: u32,
    topic_glob: String,
    names: Vec<String>,
    #[serde(default)]
    full: bool,
}

impl Module {
    fn load(cx: &mut Cx<'_>, req: &Message) {
        let Some(LoadRequest {
            path,
            name,
            args,
            exec,
        }) = cx.decode(req)
        else {
            return;
        };
        let base = path.rsplit('/').next().unwrap_or(&path);
        let base = base.strip_suffix(".so").unwrap_or(base);
        if exec || base.ends_with(".py") {
            let text = format!("{path}: modules in processes of their own are not available yet");
            cx.fail(req, errno::ENOSYS, &text);
            return;
        }
        let Some(service) = registry::create(base, &args) else {
            cx.fail(
                req,
                errno::ENOENT,
                &format!("{base}: module not found; 'flux module list' shows loaded ones"),
            );
            return;
        };
        let req = req.clone();
        let name = name.unwrap_or_else(|| base.to_owned());
        cx.load_module(&name, service, move |_: &mut Module, cx, result| match result {
            Ok(()) => cx.respond_empty(&req),
            Err(err) => cx.fail_with(&req, &err),
        });
    }

    fn remove(cx: &mut Cx<'_>, req: &Message) {
        let Some(RemoveRequest { name }) = cx.decode(req) else {
            return;
        };
        let answer = req.clone();
        let result = cx.remove_module(&name, move |_: &mut Module, cx| cx.respond_empty(&answer));
        if let Err(err) = result {
            cx.fail_with(req, &err);
        }
    }

    fn list(cx: &mut Cx<'_>, req: &Message) {
        let client_services = cx.client_services();
        let mods: Vec<_> = cx
            .modules()
            .into_iter()
            .map(|mut module| {
                if module.name == "connector-local" {
                    module.services.extend(client_services.iter().cloned());
                }
                json!({
                    "name": module.name, "path": "builtin", "idle": module.idle_secs,
                    "status": module.status as u8, "services": module.services,
                    "sendqueue": 0, "recvqueue": 0,
                })
            })
            .collect();
        cx.respond(req, &json!({ "mods": mods }));
    }

    fn trace(cx: &mut Cx<'_>, req: &Message) {
        if !cx.require_streaming(req) {
            return;
        }
        let Some(TraceRequest {
            typemask,
            topic_glob,
            names,
            full,
        }) = cx.decode(req)
        else {
            return;
        };
        let mut request = req.clone();
        request.payload = None;
        cx.add_trace(Trace {
            request,
            typemask,
            glob: topic_glob,
            names,
            full,
        });
    }
}

impl Service for Module {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[
            Method::owner("load"),
            Method::owner("remove"),
            Method::user("list"),
            Method::owner("status"),
            Method::owner("debug"),
            Method::owner("trace"),
        ];
        vec![Interface {
            service: "module",
            methods: METHODS,
        }]
    }

    fn start(&mut self, _cx: &mut Cx<'_>) -> Result<(), RpcError> {
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "load" => Self::load(cx, &req),
            "remove" => Self::remove(cx, &req),
            "list" => Self::list(cx, &req),
            "trace" => Self::trace(cx, &req),
            method => {
                let text = format!("module.{method} is not available: modules share the broker's thread");
                cx.fail(&req, errno::ENOSYS, &text);
            }
        }
    }

    fn on_disconnect(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        cx.drop_traces(msg.sender());
    }
}
