//! The actor: requests, triggers and the sync event.

use super::entry::{CronEntry, OnEvent, Task, Trigger};
use super::run::Running;
use crate::service::{Cx, Interface, Method, RpcError, Service, TimerId, glob_matches};
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use flux_formats::msg::Message;
use flux_formats::rpc::cron as rpc;
use flux_process::local_time;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Service name of the module.
pub(super) const SERVICE: &str = "cron";
/// Least time between two runs of an `interval` entry.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Longest wait before the wall clock is looked at again, for it may be set.
const CLOCK_STEP: Duration = Duration::from_secs(60);
/// Longest timer.
const TIMER_MAX_SECS: f64 = 100.0 * 366.0 * 86_400.0;
/// How long after a sync event tasks do not wait for the next one, unless set otherwise.
const EPSILON_SECS: f64 = 0.015;

const METHODS: &[Method] = &[
    Method::owner("create"),
    Method::owner("delete"),
    Method::owner("list"),
    Method::owner("stop"),
    Method::owner("start"),
    Method::owner("sync"),
];

/// The `cron` module.
#[derive(Debug)]
pub struct Cron {
    /// Arguments of the module.
    args: Vec<String>,
    pub(super) entries: BTreeMap<i64, CronEntry>,
    last_id: i64,
    /// Timers of entries, with when those of intervals are due.
    timers: HashMap<i64, (TimerId, Instant)>,
    pub(super) running: HashMap<i64, Running>,
    /// Subscribed topics with how many want them.
    topics: BTreeMap<String, usize>,
    sync_event: Option<String>,
    epsilon_secs: f64,
    last_sync: f64,
    /// Entries whose task waits for the sync event.
    deferred: Vec<i64>,
}

/// Returns the time now in seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Returns a timer's length; what is out of range becomes a century.
pub(super) fn duration(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs.clamp(0.0, TIMER_MAX_SECS)).unwrap_or(Duration::ZERO)
}

/// Returns the part of a topic glob before its first wildcard: what must be subscribed to.
fn prefix(topic: &str) -> &str {
    topic.split(['*', '?']).next().unwrap_or("")
}

impl Cron {
    /// Returns a module with arguments `sync=TOPIC` and `sync_epsilon=FSD`.
    pub fn new(args: &[String]) -> Self {
        Cron {
            args: args.to_vec(),
            entries: BTreeMap::new(),
            last_id: 0,
            timers: HashMap::new(),
            running: HashMap::new(),
            topics: BTreeMap::new(),
            sync_event: None,
            epsilon_secs: EPSILON_SECS,
            last_sync: 0.0,
            deferred: Vec::new(),
        }
    }

    fn read_args(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        for arg in std::mem::take(&mut self.args) {
            let bad = || RpcError::new(errno::EINVAL, format!("cron: unknown option '{arg}'"));
            match arg.split_once('=').ok_or_else(bad)? {
                ("sync", topic) => self.set_sync(cx, Some(topic.to_owned())),
                ("sync_epsilon", text) => {
                    let epsilon = text.parse::<Fsd>().map_err(|_| bad())?;
                    self.epsilon_secs = epsilon.to_duration().ok_or_else(bad)?.as_secs_f64();
                }
                _ => return Err(bad()),
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, cx: &mut Cx<'_>, topic: &str) {
        let wanted = self.topics.entry(prefix(topic).to_owned()).or_insert(0);
        *wanted += 1;
        if *wanted == 1 {
            cx.subscribe(prefix(topic));
        }
    }

    fn unsubscribe(&mut self, cx: &mut Cx<'_>, topic: &str) {
        if let Some(wanted) = self.topics.get_mut(prefix(topic)) {
            *wanted -= 1;
            if *wanted == 0 {
                self.topics.remove(prefix(topic));
                cx.unsubscribe(prefix(topic));
            }
        }
    }

    // ---- entries ----------------------------------------------------------------------------------------

    /// Adds an entry and starts it; returns it as responses show it.
    ///
    /// # Errors
    /// ENOSYS for an unknown type, EINVAL for arguments that cannot be used.
    pub(crate) fn create(&mut self, cx: &mut Cx<'_>, request: rpc::CreateRequest) -> Result<Value, RpcError> {
        let trigger = Trigger::from_json(&request.r#type, &request.args)
            .ok_or_else(|| {
                let text = format!("type '{}' is none of interval, event, datetime", request.r#type);
                RpcError::new(errno::ENOSYS, text)
            })?
            .map_err(|text| RpcError::new(errno::EINVAL, text))?;
        self.last_id += 1;
        let id = self.last_id;
        if let Trigger::Event { topic, .. } = &trigger {
            self.subscribe(cx, &topic.clone());
        }
        self.entries
            .insert(id, CronEntry::new(id, request, trigger, now()));
        self.start_entry(cx, id);
        self.shown(id)
    }

    fn shown(&self, id: i64) -> Result<Value, RpcError> {
        self.entry(id).map(CronEntry::to_json)
    }

    fn entry(&self, id: i64) -> Result<&CronEntry, RpcError> {
        let entry = self.entries.get(&id);
        entry.ok_or_else(|| RpcError::new(errno::ENOENT, format!("cron-{id}: no such entry")))
    }

    fn start_entry(&mut self, cx: &mut Cx<'_>, id: i64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.start(now());
        match &entry.trigger {
            Trigger::Interval { after, .. } => {
                let due = Instant::now() + duration(*after);
                self.arm_interval(cx, id, due);
            }
            Trigger::Datetime { .. } => self.arm_date(cx, id, now()),
            Trigger::Event { .. } => {}
        }
    }

    /// Stops an entry; a task that runs goes on.
    pub(super) fn stop_entry(&mut self, cx: &mut Cx<'_>, id: i64) {
        if let Some((timer, _)) = self.timers.remove(&id) {
            cx.cancel_timer(timer);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.stopped = true;
        match &mut entry.trigger {
            Trigger::Interval { next_wakeup, .. } | Trigger::Datetime { next_wakeup, .. } => {
                *next_wakeup = 0.0
            }
            Trigger::Event { paused, .. } => *paused = false,
        }
    }

    /// Removes an entry; one whose task runs goes away with the task.
    pub(super) fn remove_entry(&mut self, cx: &mut Cx<'_>, id: i64) {
        self.stop_entry(cx, id);
        self.deferred.retain(|other| *other != id);
        if self.running.contains_key(&id) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.deleted = true;
            }
            return;
        }
        if let Some(CronEntry {
            trigger: Trigger::Event { topic, .. },
            ..
        }) = self.entries.remove(&id)
        {
            self.unsubscribe(cx, &topic);
        }
    }

    // ---- triggers ---------------------------------------------------------------------------------------

    fn arm_interval(&mut self, cx: &mut Cx<'_>, id: i64, due: Instant) {
        let delay = due.saturating_duration_since(Instant::now());
        if let Some(CronEntry {
            trigger: Trigger::Interval { next_wakeup, .. },
            ..
        }) = self.entries.get_mut(&id)
        {
            *next_wakeup = now() + delay.as_secs_f64();
        }
        let timer = cx.timer(delay, move |me: &mut Cron, cx| me.on_interval(cx, id));
        self.timers.insert(id, (timer, due));
    }

    fn on_interval(&mut self, cx: &mut Cx<'_>, id: i64) {
        let due = self.timers.remove(&id).map(|(_, due)| due);
        let interval = match self.entries.get(&id).map(|entry| &entry.trigger) {
            Some(Trigger::Interval { interval, .. }) => *interval,
            _ => return,
        };
        // no interval: once only
        if let Some(due) = due.filter(|_| interval > 0.0) {
            let step = duration(interval).max(INTERVAL_MIN);
            // runs that the clock has passed are not made up for
            let next = (due + step).max(Instant::now());
            self.arm_interval(cx, id, next);
        }
        self.schedule(cx, id);
    }

    /// Waits for the next date after `from`, in seconds since 1970.
    fn arm_date(&mut self, cx: &mut Cx<'_>, id: i64, from: f64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Trigger::Datetime { date, next_wakeup } = &mut entry.trigger else {
            return;
        };
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 fit")]
        let whole = from.floor() as i64;
        let Some(next) = date.next(whole, local_time) else {
            let repeat = entry.request.repeat;
            if repeat == 0 || entry.stats.count < repeat {
                cx.log_as_me(3, &format!("cron-{id}: its date never comes again: stopping"));
            }
            self.stop_entry(cx, id);
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact")]
        let next = next as f64;
        *next_wakeup = next;
        self.wait_for_date(cx, id, next);
    }

    fn wait_for_date(&mut self, cx: &mut Cx<'_>, id: i64, next: f64) {
        let delay = duration(next - now()).min(CLOCK_STEP);
        let timer = cx.timer(delay, move |me: &mut Cron, cx| {
            me.timers.remove(&id);
            if now() < next {
                me.wait_for_date(cx, id, next);
                return;
            }
            // the clock may have been set far ahead: what it passed is not made up for
            me.arm_date(cx, id, now().max(next));
            me.schedule(cx, id);
        });
        self.timers.insert(id, (timer, Instant::now()));
    }

    fn on_matching_event(&mut self, cx: &mut Cx<'_>, id: i64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match entry.on_event(now()) {
            OnEvent::Pass => {}
            OnEvent::Run => self.schedule(cx, id),
            OnEvent::Delay(secs) => {
                cx.log_as_me(7, &format!("cron-{id}: delaying {secs:.3}s due to min interval"));
                let timer = cx.timer(duration(secs), move |me: &mut Cron, cx| {
                    me.timers.remove(&id);
                    if let Some(CronEntry {
                        trigger: Trigger::Event { paused, .. },
                        ..
                    }) = me.entries.get_mut(&id)
                    {
                        *paused = false;
                    }
                    me.schedule(cx, id);
                });
                self.timers.insert(id, (timer, Instant::now()));
            }
        }
    }

    /// Runs an entry's command now, or after the sync event when there is one.
    fn schedule(&mut self, cx: &mut Cx<'_>, id: i64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.task.is_some() {
            let text = format!(
                "cron-{id}: {}: task still running or scheduled",
                entry.request.name
            );
            cx.log_as_me(6, &text);
            return;
        }
        entry.task = Some(Task {
            rank: entry.request.rank,
            created: now(),
            ..Task::default()
        });
        if entry.count_run() {
            self.stop_entry(cx, id);
        }
        let waits = self
            .sync_event
            .clone()
            .filter(|_| now() - self.last_sync >= self.epsilon_secs);
        let Some(event) = waits else {
            self.run(cx, id);
            return;
        };
        cx.log_as_me(7, &format!("deferring cron-{id} to next {event} event"));
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stats.deferred += 1;
        }
        self.deferred.push(id);
    }

    // ---- sync event -------------------------------------------------------------------------------------

    fn set_sync(&mut self, cx: &mut Cx<'_>, topic: Option<String>) {
        if let Some(topic) = &topic {
            cx.log_as_me(6, &format!("synchronizing cron tasks to event {topic}"));
            self.subscribe(cx, topic);
        }
        if let Some(old) = std::mem::replace(&mut self.sync_event, topic) {
            self.unsubscribe(cx, &old);
        }
        if self.sync_event.is_none() {
            // the event that they wait for will not come
            self.run_deferred(cx);
        }
    }

    fn run_deferred(&mut self, cx: &mut Cx<'_>) {
        for id in std::mem::take(&mut self.deferred) {
            self.run(cx, id);
        }
    }

    fn on_sync(&mut self, cx: &mut Cx<'_>, body: rpc::SyncRequest) -> Result<Value, RpcError> {
        if let Some(epsilon) = body.sync_epsilon {
            if !(epsilon.is_finite() && epsilon >= 0.0) {
                let text = format!("sync_epsilon: {epsilon} is no number of seconds");
                return Err(RpcError::new(errno::EINVAL, text));
            }
            self.epsilon_secs = epsilon;
        }
        if body.topic.is_some() || body.disable {
            self.set_sync(cx, body.topic);
        }
        Ok(match &self.sync_event {
            Some(event) => json!({"sync_event": event, "sync_epsilon": self.epsilon_secs}),
            None => json!({"sync_disabled": true}),
        })
    }

    // ---- requests ---------------------------------------------------------------------------------------

    fn on_entry_request(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<Value, RpcError> {
        let rpc::EntryRequest { id, kill } = req.payload_json()?;
        let stopped = self.entry(id)?.stopped;
        let shown = self.shown(id);
        match (req.topic.method(), stopped) {
            ("delete", _) => {
                if kill {
                    self.kill(cx, id);
                }
                self.remove_entry(cx, id);
                return shown;
            }
            ("stop", false) => self.stop_entry(cx, id),
            ("start", true) => self.start_entry(cx, id),
            (_, _) => {
                let state = if stopped { "is stopped" } else { "is not stopped" };
                return Err(RpcError::new(errno::EINVAL, format!("cron-{id} {state}")));
            }
        }
        self.shown(id)
    }
}

impl Service for Cron {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: SERVICE,
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        self.read_args(cx)
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        let result = match req.topic.method() {
            "create" => match req.payload_json() {
                Ok(body) => self.create(cx, body),
                Err(err) => Err(err.into()),
            },
            "list" => {
                let entries = self.entries.values().map(CronEntry::to_json);
                Ok(json!({ "entries": entries.collect::<Vec<_>>() }))
            }
            "sync" => match req.payload_json() {
                Ok(body) => self.on_sync(cx, body),
                Err(err) => Err(err.into()),
            },
            _ => self.on_entry_request(cx, &req),
        };
        cx.answer(&req, result);
    }

    fn on_event(&mut self, cx: &mut Cx<'_>, event: &Message) {
        let topic = event.topic.as_str();
        if self
            .sync_event
            .as_ref()
            .is_some_and(|glob| glob_matches(glob, topic))
        {
            self.last_sync = now();
            self.run_deferred(cx);
        }
        let matching = self
            .entries
            .values()
            .filter(|entry| !entry.stopped)
            .filter_map(|entry| {
                let Trigger::Event { topic: glob, .. } = &entry.trigger else {
                    return None;
                };
                glob_matches(glob, topic).then_some(entry.id)
            });
        for id in matching.collect::<Vec<_>>() {
            self.on_matching_event(cx, id);
        }
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        Some(
            json!({"entries": self.entries.len(), "running": self.running.len(), "deferred": self.deferred.len()}),
        )
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        for (timer, _) in self.timers.drain().map(|(_, timer)| timer) {
            cx.cancel_timer(timer);
        }
        true
    }
}
