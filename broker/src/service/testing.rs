//! How do unit tests drive services? A hub with a probe in it that sends requests and keeps the answers.

use super::{Cx, Hub, Interface, RpcError, Service};
use crate::attrs::Attrs;
use crate::log::LogRing;
use crate::overlay::topology::Topology;
use flux_formats::msg::{Message, NODEID_ANY, Topic, json_payload};
use serde::Serialize;
use serde_json::Value;
use std::cell::RefCell;
use std::rc::Rc;

/// User id of the instance owner in tests.
pub(crate) const OWNER: u32 = 1000;

/// A service that only sends.
pub(crate) struct Probe;

impl Service for Probe {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: "probe",
            methods: &[],
        }]
    }
    fn start(&mut self, _cx: &mut Cx<'_>) -> Result<(), RpcError> {
        Ok(())
    }
    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        cx.fail(&req, flux_formats::errno::ENOSYS, "");
    }
}

/// Answers of a streaming RPC, in order.
pub(crate) type Answers = Rc<RefCell<Vec<Result<Value, RpcError>>>>;

/// A broker of rank 0 without sockets.
pub(crate) struct TestHub {
    pub(crate) hub: Hub,
    runtime: tokio::runtime::Runtime,
    local: tokio::task::LocalSet,
}

/// Returns a request with a JSON payload.
pub(crate) fn request<T: Serialize>(topic: &'static str, body: &T) -> Message {
    Message::request(
        Topic::from_static(topic),
        NODEID_ANY,
        Some(json_payload(body).unwrap()),
    )
}

/// Returns the JSON of a response, null when it has no payload.
pub(crate) fn body(msg: &Message) -> Value {
    if msg.payload.is_none() {
        Value::Null
    } else {
        msg.payload_json().unwrap()
    }
}

impl TestHub {
    /// Returns a hub with a probe and these attributes.
    pub(crate) fn new(attributes: &[(&str, &str)]) -> Self {
        TestHub::of_rank(0, 1, attributes)
    }

    /// Returns a hub of another rank, without links.
    pub(crate) fn of_rank(rank: u32, size: u32, attributes: &[(&str, &str)]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut attrs = Attrs::new();
        for (name, value) in attributes {
            attrs.set_internal(name, *value);
        }
        let topology = Topology::kary(2, rank, size).unwrap();
        let ring = LogRing::new(crate::log::LogConfig {
            stderr_level: -1,
            ..crate::log::LogConfig::default()
        });
        let hub = Hub::new(attrs, ring, Rc::new(serde_json::json!({})), topology, OWNER);
        let mut hub = TestHub {
            hub,
            runtime,
            local: tokio::task::LocalSet::new(),
        };
        hub.load("probe", Box::new(Probe)).unwrap();
        hub
    }

    /// Loads a module.
    pub(crate) fn load(&mut self, name: &str, service: Box<dyn Service>) -> Result<(), RpcError> {
        let (_guard, _local) = (self.runtime.enter(), self.local.enter());
        self.hub.load(name, service, true)?;
        self.hub.run_queue();
        Ok(())
    }

    /// Calls into the probe's context, then does all queued work.
    pub(crate) fn with_probe<T: 'static>(&mut self, call: impl FnOnce(&mut Cx<'_>) -> T + 'static) -> T {
        let (_guard, _local) = (self.runtime.enter(), self.local.enter());
        let out = Rc::new(RefCell::new(None));
        let slot = out.clone();
        self.hub.call_probe(move |cx| *slot.borrow_mut() = Some(call(cx)));
        self.hub.run_queue();
        out.take().unwrap()
    }

    /// Runs the hub until `done` returns true; panics after ten seconds.
    pub(crate) fn run_until(&mut self, done: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        while !done() {
            assert!(start.elapsed() < std::time::Duration::from_secs(10), "timed out");
            self.local.block_on(&self.runtime, self.hub.run_turn());
        }
    }

    /// Calls with a typed local function whose last argument is a continuation and waits for its result.
    pub(crate) fn wait<T: 'static>(
        &mut self,
        call: impl FnOnce(&mut Cx<'_>, Box<dyn FnOnce(&mut Probe, &mut Cx<'_>, T)>) + 'static,
    ) -> T {
        let out = Rc::new(RefCell::new(None));
        let slot = out.clone();
        self.with_probe(move |cx| {
            call(
                cx,
                Box::new(move |_: &mut Probe, _: &mut Cx<'_>, value| *slot.borrow_mut() = Some(value)),
            );
        });
        self.run_until(|| out.borrow().is_some());
        out.take().unwrap()
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn rpc(&mut self, req: Message) -> Result<Message, RpcError> {
        self.wait(move |cx, done| {
            cx.rpc(req, move |probe: &mut Probe, cx, result| done(probe, cx, result));
        })
    }

    /// Sends a request and waits for its JSON answer.
    pub(crate) fn json<T: Serialize>(&mut self, topic: &'static str, body_of: &T) -> Result<Value, RpcError> {
        self.rpc(request(topic, body_of)).map(|msg| body(&msg))
    }

    /// Sends a streaming request; the answers so far are in what is returned.
    pub(crate) fn stream(&mut self, req: Message) -> (Answers, u32) {
        let answers = Answers::default();
        let sink = answers.clone();
        let tag = self.with_probe(move |cx| {
            let rpc = cx.rpc_stream(req, move |_: &mut Probe, _, result| {
                sink.borrow_mut().push(result.map(|msg| body(&msg)));
            });
            cx.matchtag(rpc)
        });
        (answers, tag)
    }

    /// Unloads a module and waits until it is gone.
    pub(crate) fn remove(&mut self, name: &str) {
        let name = name.to_owned();
        self.wait(move |cx, done| {
            cx.remove_module(&name, move |probe: &mut Probe, cx| done(probe, cx, ()))
                .unwrap();
        });
    }

    /// Runs for some turns, so that threads and tasks can answer.
    pub(crate) fn run_idle(&mut self) {
        for _ in 0..10 {
            self.local.block_on(&self.runtime, self.hub.run_turn());
        }
    }

    /// Takes what threads and tasks have posted, without waiting.
    pub(crate) fn run_posts(&mut self) {
        self.local.block_on(&self.runtime, self.hub.run_posts());
    }
}
