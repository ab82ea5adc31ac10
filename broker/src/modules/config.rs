//! Service `config`: what is the configuration, and how does it change? Prepare on all, then commit (DESIGN §4).

use crate::config_file;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::msg::{Message, NODEID_UPSTREAM};
use serde_json::Value;
use std::path::PathBuf;

/// The `config` module.
#[derive(Debug, Default)]
pub struct Config {
    /// Where the configuration was read from; reload reads it again.
    path: Option<PathBuf>,
    /// `--conf` values, applied over the files at each reload.
    overrides: Vec<String>,
    watchers: Vec<Message>,
}

impl Config {
    /// Returns the module for a configuration read from `path` (a directory or a file) and `--conf` values.
    pub fn new(path: Option<PathBuf>, overrides: Vec<String>) -> Self {
        Config {
            path,
            overrides,
            watchers: Vec::new(),
        }
    }

    fn replace(&mut self, cx: &mut Cx<'_>, req: &Message, config: Value) {
        if cx.rank() != 0 {
            cx.fail(req, errno::EPERM, "configuration can only be changed on rank 0");
            return;
        }
        if !config.is_object() {
            cx.fail(req, errno::EPROTO, "configuration must be a JSON object");
            return;
        }
        let req = req.clone();
        cx.reconfigure(config, move |me: &mut Config, cx, result| match result {
            Ok(()) => {
                me.tell_watchers(cx);
                cx.respond_empty(&req);
            }
            Err(err) => cx.fail_with(&req, &err),
        });
    }

    fn reload(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let loaded = match &self.path {
            Some(path) => config_file::load(path),
            None => Ok(Value::Object(serde_json::Map::new())),
        };
        let loaded = loaded.and_then(|base| config_file::apply_overrides(base, &self.overrides));
        match loaded {
            Ok(config) => self.replace(cx, req, config),
            Err(err) => cx.fail(req, errno::EINVAL, &err.to_string()),
        }
    }

    fn tell_watchers(&mut self, cx: &mut Cx<'_>) {
        let config = cx.config.clone();
        for request in self.watchers.clone() {
            cx.respond(&request, &*config);
        }
    }

    /// Follows the parent's configuration; `first` hears when the first one is in place.
    fn follow(&mut self, cx: &mut Cx<'_>, first: impl FnOnce(&mut Cx<'_>, Result<(), RpcError>) + 'static) {
        let mut first = Some(first);
        let req = cx.request("config.get", NODEID_UPSTREAM, &serde_json::json!({}));
        cx.rpc_stream_upstream(req, move |_: &mut Config, cx, result| {
            let done = first.take();
            let config = match result.and_then(|msg| Ok(msg.payload_json::<Value>()?)) {
                Ok(config) => config,
                Err(err) => {
                    if let Some(done) = done {
                        done(cx, Err(err));
                    }
                    return;
                }
            };
            cx.reconfigure(config, move |me: &mut Config, cx, result| {
                if let Err(err) = &result {
                    cx.log_as_me(3, &format!("configuration from the leader was refused: {err}"));
                }
                me.tell_watchers(cx);
                if let Some(done) = done {
                    done(cx, result);
                }
            });
        });
    }
}

/// Takes the leader's configuration on a follower; `done` hears when it is in place.
pub fn sync(cx: &mut Cx<'_>, done: impl FnOnce(&mut Cx<'_>, Result<(), RpcError>) + 'static) {
    cx.to::<Config>("config", move |config, cx| config.follow(cx, done));
}

impl Service for Config {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[
            Method::user("get"),
            Method::owner("load"),
            Method::owner("reload"),
        ];
        vec![Interface {
            service: "config",
            methods: METHODS,
        }]
    }

    fn start(&mut self, _cx: &mut Cx<'_>) -> Result<(), RpcError> {
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "get" => {
                let config = cx.config.clone();
                cx.respond(&req, &*config);
                if req.is_streaming() {
                    self.watchers.push(Message { payload: None, ..req });
                }
            }
            "load" => {
                let Some(config) = cx.decode::<Value>(&req) else {
                    return;
                };
                self.replace(cx, &req, config);
            }
            _ if cx.rank() != 0 => {
                cx.fail(&req, errno::EPERM, "configuration can only be changed on rank 0");
            }
            _ => self.reload(cx, &req),
        }
    }

    fn on_disconnect(&mut self, _cx: &mut Cx<'_>, msg: &Message) {
        self.watchers.retain(|request| request.sender() != msg.sender());
    }
}
