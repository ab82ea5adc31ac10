//! How do the tasks of a parallel program find each other through the shell? (PMI-1, RFC 13)
//!
//! Each shell serves its own tasks. For a barrier the shells exchange what was put since the last one along a
//! k-ary tree: a shell waits for its children, sends the sum to its parent, and passes the answer down.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use flux_client::msg::PayloadError;
use flux_client::{Message, NODEID_ANY};
use flux_formats::errno::{EPROTO, Errnum, strerror};
use flux_formats::pmi::VALLEN_MAX;
use flux_process::pmi::{Driver, Event, ServerConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ctx::{Ctx, Purpose};
use crate::log::{Level, log};
use crate::options::OptionError;

/// Number of the descriptor in the task: the lowest free one, since some shells know only one digit.
pub(crate) const TASK_FD: RawFd = 3;
/// PMI keys whose values are attributes of the broker, asked for when a task wants them.
const ATTRIBUTES: [(&str, &str); 2] = [
    ("flux.instance-level", "instance-level"),
    ("flux.tbon-interface-hint", "tbon.interface-hint"),
];

/// Traced lines that wait to be logged: (task rank, text).
type TraceQueue = Arc<Mutex<Vec<(u32, String)>>>;

/// The PMI server of this shell.
#[derive(Debug)]
pub(crate) struct Pmi {
    driver: Driver,
    exchange: Exchange,
    trace: TraceQueue,
}

/// One barrier across the shells.
#[derive(Debug)]
struct Exchange {
    parent: Option<u32>,
    child_count: usize,
    /// What the local tasks have put; `None` until all of them are in the barrier.
    own: Option<Map<String, Value>>,
    /// What children have sent, and how they are answered.
    children: Vec<(Child, Map<String, Value>)>,
    in_progress: bool,
}

/// How a child shell is told the result of an exchange.
#[derive(Debug)]
enum Child {
    /// It waits for the answer to this request.
    Request(Message),
    /// The shell of this rank waits for a message.
    Rank(u32),
}

/// The result of an exchange, as a message to a child shell.
#[derive(Debug, Serialize, Deserialize)]
struct Down {
    errnum: Errnum,
    pairs: Map<String, Value>,
}

impl Pmi {
    /// Makes the server, or returns `None` when the `pmi` option excludes it.
    ///
    /// # Errors
    /// [`OptionError`].
    pub(crate) fn new(ctx: &mut Ctx) -> Result<Option<Self>, OptionError> {
        let options = &ctx.info.options;
        let wanted = options.text("pmi")?.unwrap_or_else(|| "simple".to_owned());
        let mut served = false;
        for name in wanted.split(',').map(str::trim) {
            match name {
                "off" | "none" => return Ok(None),
                "simple" | "pmi1" | "pmi2" => served = true,
                other => {
                    let other = other.to_owned();
                    log!(ctx, Warn, "pmi-simple", "pmi={other} is not available");
                }
            }
        }
        if !served {
            return Ok(None);
        }
        let options = &ctx.info.options;
        let nomap = options.flag("pmi-simple.nomap")?;
        let arity = options.number("pmi-simple.exchange.k")?.unwrap_or(2);
        let arity = u32::try_from(arity)
            .ok()
            .filter(|arity| *arity > 0)
            .ok_or_else(|| OptionError {
                name: "pmi-simple.exchange.k".to_owned(),
                value: arity.to_string(),
            })?;
        let (rank, size) = (ctx.info.shell_rank, ctx.info.shell_size());
        let taskmap = &ctx.info.taskmap;
        let mut preput = Vec::new();
        if !nomap {
            let text = Some(taskmap.to_wrapped_value().to_string()).filter(|text| text.len() < VALLEN_MAX);
            preput.push(("flux.taskmap".to_owned(), text.unwrap_or_default()));
            let vector = taskmap.pmi_process_mapping(VALLEN_MAX - 1);
            preput.push(("PMI_process_mapping".to_owned(), vector));
        }
        let config = ServerConfig {
            kvsname: ctx.info.id_text.clone(),
            universe_size: taskmap.ntasks(),
            appnum: 0,
            ranks: ctx.info.local_tasks.clone(),
            preput,
            exchange: size > 1,
            deferred: ATTRIBUTES.iter().map(|(key, _)| (*key).to_owned()).collect(),
        };
        let mut driver = Driver::new(config);
        let trace = TraceQueue::default();
        if ctx.logs(Level::Trace) {
            let sink = Arc::clone(&trace);
            driver.set_trace(Box::new(move |rank, direction, text| {
                let mut queue = sink.lock().unwrap_or_else(PoisonError::into_inner);
                queue.push((rank, format!("{rank}: {direction}: {text}")));
            }));
        }
        Ok(Some(Pmi {
            driver,
            exchange: Exchange::new(rank, size, arity),
            trace,
        }))
    }

    /// Makes the connection of a task; the environment that goes with it is added to `env`.
    ///
    /// # Errors
    /// Those of `socketpair(2)`.
    pub(crate) fn connect(&mut self, local_id: u32, env: &mut crate::env::Env) -> std::io::Result<OwnedFd> {
        let socket = self
            .driver
            .connect(usize::try_from(local_id).unwrap_or(usize::MAX))?;
        env.set("PMI_FD", TASK_FD.to_string());
        env.set("PMI_SPAWNED", "0");
        Ok(socket)
    }

    pub(crate) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Serves a task whose connection is ready.
    pub(crate) fn on_ready(&mut self, ctx: &mut Ctx, client: usize) {
        let mut events = Vec::new();
        self.driver.on_ready(client, &mut events);
        self.perform(ctx, events);
    }

    fn perform(&mut self, ctx: &mut Ctx, events: Vec<Event>) {
        self.log_trace(ctx);
        for event in events {
            match event {
                Event::Barrier { puts } => {
                    self.exchange.own = Some(
                        puts.into_iter()
                            .map(|(key, value)| (key, Value::String(value)))
                            .collect(),
                    );
                    self.advance(ctx);
                }
                Event::Lookup { key } => {
                    if let Some((key, attribute)) = ATTRIBUTES.into_iter().find(|(known, _)| *known == key) {
                        let body = serde_json::json!({"name": attribute});
                        ctx.rpc("attr.get", NODEID_ANY, &body, Purpose::PmiAttr { key });
                    }
                }
                Event::Abort {
                    rank,
                    exit_code,
                    message,
                } => {
                    let colon = if message.is_empty() { "" } else { ": " };
                    ctx.raise("exec", 0, &format!("MPI_Abort: task {rank}{colon}{message}"));
                    ctx.exit_code = ctx.exit_code.max(exit_code & 0xff);
                }
                Event::Finalized { .. } | Event::Closed { .. } => {}
            }
        }
    }

    fn log_trace(&mut self, ctx: &mut Ctx) {
        let lines = std::mem::take(&mut *self.trace.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, text) in lines {
            log!(ctx, Trace, "pmi-simple", "{text}");
        }
    }

    /// Takes the broker's answer about an attribute.
    pub(crate) fn on_attribute(&mut self, ctx: &mut Ctx, key: &str, response: &Message) {
        #[derive(Deserialize)]
        struct Attribute {
            value: String,
        }
        let value = match response.errnum() {
            0 => response
                .payload_json::<Attribute>()
                .ok()
                .map(|attribute| attribute.value),
            _ => None,
        };
        let value = if key == "flux.instance-level" {
            // The program that asks is one level below the instance that runs it.
            value
                .and_then(|level| level.parse::<u32>().ok())
                .map(|level| (level + 1).to_string())
        } else {
            value
        };
        let mut events = Vec::new();
        self.driver.resolve(key, value, &mut events);
        self.perform(ctx, events);
    }

    /// Takes a child shell's `pmi-exchange` request.
    pub(crate) fn on_exchange(&mut self, ctx: &mut Ctx, request: Message) {
        match request.payload_json() {
            Ok(pairs) => {
                self.exchange.children.push((Child::Request(request), pairs));
                self.advance(ctx);
            }
            Err(_) => drop(ctx.handle.respond_error(&request, EPROTO, "")),
        }
    }

    /// Takes what a child shell sends that outlives its broker.
    ///
    /// # Errors
    /// The payload is not an object.
    pub(crate) fn on_child(
        &mut self,
        ctx: &mut Ctx,
        rank: u32,
        message: &Message,
    ) -> Result<(), PayloadError> {
        let pairs = message.payload_json()?;
        self.exchange.children.push((Child::Rank(rank), pairs));
        self.advance(ctx);
        Ok(())
    }

    /// Takes the result that the parent shell sends.
    ///
    /// # Errors
    /// The payload is not a result.
    pub(crate) fn on_parent(&mut self, ctx: &mut Ctx, message: &Message) -> Result<(), PayloadError> {
        let down: Down = message.payload_json()?;
        let result = if down.errnum == 0 {
            Ok(down.pairs)
        } else {
            Err(down.errnum)
        };
        self.complete(ctx, result);
        Ok(())
    }

    /// Takes the parent shell's answer.
    pub(crate) fn on_exchanged(&mut self, ctx: &mut Ctx, response: &Message) {
        let errnum = response.errnum();
        match response.payload_json::<Map<String, Value>>() {
            Ok(pairs) if errnum == 0 => self.complete(ctx, Ok(pairs)),
            _ => {
                let errnum = if errnum == 0 { EPROTO } else { errnum };
                log!(
                    ctx,
                    Error,
                    "pmi-simple",
                    "exchange with the parent shell: {}",
                    strerror(errnum)
                );
                self.complete(ctx, Err(errnum));
            }
        }
    }

    /// Goes on when this shell's tasks and all child shells have arrived.
    fn advance(&mut self, ctx: &mut Ctx) {
        let exchange = &mut self.exchange;
        if exchange.in_progress || exchange.children.len() < exchange.child_count {
            return;
        }
        let Some(mut pairs) = exchange.own.take() else {
            return;
        };
        exchange.in_progress = true;
        for (_, from_child) in &mut exchange.children {
            pairs.append(from_child);
        }
        match exchange.parent {
            None => self.complete(ctx, Ok(pairs)),
            Some(parent) if ctx.reconnects => ctx.relay(parent, "pmi-up", &pairs),
            Some(parent) => {
                let topic = format!("{}.pmi-exchange", ctx.info.service);
                let nodeid = ctx.info.broker_rank_of(parent);
                ctx.rpc(topic, nodeid, &pairs, Purpose::Exchange);
            }
        }
    }

    fn complete(&mut self, ctx: &mut Ctx, result: Result<Map<String, Value>, u32>) {
        self.exchange.in_progress = false;
        for (child, _) in self.exchange.children.drain(..) {
            // A child that is gone needs no answer.
            match (&result, child) {
                (Ok(pairs), Child::Request(request)) => drop(ctx.handle.respond(&request, Some(pairs))),
                (Err(errnum), Child::Request(request)) => {
                    drop(ctx.handle.respond_error(&request, *errnum, ""));
                }
                (result, Child::Rank(rank)) => {
                    let down = Down {
                        errnum: result.as_ref().err().copied().unwrap_or(0),
                        pairs: result.clone().unwrap_or_default(),
                    };
                    ctx.relay(rank, "pmi-down", &down);
                }
            }
        }
        let ok = result.is_ok();
        let pairs = result
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(key, value)| match value {
                Value::String(text) => Some((key, text)),
                _ => None,
            });
        let mut events = Vec::new();
        self.driver.complete_barrier(ok, pairs, &mut events);
        self.perform(ctx, events);
    }
}

impl Exchange {
    fn new(rank: u32, size: u32, arity: u32) -> Self {
        let first = rank.saturating_mul(arity).saturating_add(1);
        let last = first.saturating_add(arity).min(size);
        Exchange {
            parent: (rank > 0).then(|| (rank - 1) / arity),
            child_count: usize::try_from(last.saturating_sub(first)).unwrap_or(0),
            own: None,
            children: Vec::new(),
            in_progress: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_shells() {
        let tree: Vec<_> = (0..6)
            .map(|rank| Exchange::new(rank, 6, 2))
            .map(|e| (e.parent, e.child_count))
            .collect();
        assert_eq!(
            tree,
            [
                (None, 2),
                (Some(0), 2),
                (Some(0), 1),
                (Some(1), 0),
                (Some(1), 0),
                (Some(2), 0)
            ]
        );
        assert_eq!(Exchange::new(0, 1, 2).child_count, 0);
        assert_eq!(Exchange::new(0, 9, 16).child_count, 8);
    }
}
