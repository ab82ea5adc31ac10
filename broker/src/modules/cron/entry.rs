//! What is a cron entry, and when does its command run? Pure: counters, limits and history.

use super::date::CronDate;
use flux_formats::rpc::cron::{CreateRequest, DATETIME, EVENT, INTERVAL};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;

/// What makes an entry run.
#[derive(Clone, Debug)]
pub(super) enum Trigger {
    /// Every `interval` seconds, the first time after `after`.
    Interval {
        /// In seconds.
        interval: f64,
        /// In seconds.
        after: f64,
        /// Seconds since 1970; 0 while stopped.
        next_wakeup: f64,
    },
    /// Every `nth` event from the one numbered `after`.
    Event {
        /// Topic, or a glob of topics.
        topic: String,
        /// 0 is every one.
        nth: i64,
        /// Events that do nothing.
        after: i64,
        /// Least seconds between two runs.
        min_interval: f64,
        /// Events since the start of the entry.
        counter: i64,
        /// A run is put off because of `min_interval`.
        paused: bool,
    },
    /// At matching local times.
    Datetime {
        /// The times.
        date: CronDate,
        /// Seconds since 1970; 0 when there is none.
        next_wakeup: f64,
    },
}

impl Trigger {
    /// Reads the arguments of a type; `None` for a type that does not exist.
    pub(super) fn from_json(kind: &str, args: &Map<String, Value>) -> Option<Result<Trigger, String>> {
        Some(match kind {
            INTERVAL => interval(args),
            EVENT => event(args),
            DATETIME => CronDate::from_json(args)
                .map(|date| Trigger::Datetime {
                    date,
                    next_wakeup: 0.0,
                })
                .map_err(|err| err.to_string()),
            _ => return None,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Trigger::Interval { .. } => INTERVAL,
            Trigger::Event { .. } => EVENT,
            Trigger::Datetime { .. } => DATETIME,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Trigger::Interval {
                interval,
                after,
                next_wakeup,
            } => json!({"interval": interval, "after": after, "next_wakeup": next_wakeup}),
            Trigger::Event {
                topic,
                nth,
                after,
                min_interval,
                counter,
                ..
            } => {
                json!({"topic": topic, "nth": nth, "after": after, "counter": counter, "min_interval": min_interval})
            }
            Trigger::Datetime { date, next_wakeup } => {
                let mut object = Map::new();
                object.insert("next_wakeup".to_owned(), json!(next_wakeup));
                object.extend(date.to_json());
                Value::Object(object)
            }
        }
    }
}

fn seconds(args: &Map<String, Value>, key: &str) -> Result<Option<f64>, String> {
    match args.get(key) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(secs) if secs.is_finite() && secs >= 0.0 => Ok(Some(secs)),
            _ => Err(format!("{key}: {value} is no number of seconds")),
        },
    }
}

fn count(args: &Map<String, Value>, key: &str) -> Result<i64, String> {
    match args.get(key) {
        None => Ok(0),
        Some(value) => value
            .as_i64()
            .filter(|count| *count >= 0)
            .ok_or_else(|| format!("{key}: {value} is no count")),
    }
}

fn interval(args: &Map<String, Value>) -> Result<Trigger, String> {
    let interval = seconds(args, "interval")?.ok_or("interval: missing")?;
    // the original takes a negative time for none
    let after = match args.get("after").and_then(Value::as_f64) {
        Some(after) if after < 0.0 => None,
        _ => seconds(args, "after")?,
    };
    Ok(Trigger::Interval {
        interval,
        after: after.unwrap_or(interval),
        next_wakeup: 0.0,
    })
}

fn event(args: &Map<String, Value>) -> Result<Trigger, String> {
    let topic = args.get("topic").and_then(Value::as_str);
    Ok(Trigger::Event {
        topic: topic
            .filter(|topic| !topic.is_empty())
            .ok_or("topic: missing")?
            .to_owned(),
        nth: count(args, "nth")?,
        after: count(args, "after")?,
        min_interval: seconds(args, "min_interval")?.unwrap_or(0.0),
        counter: 0,
        paused: false,
    })
}

/// What follows from an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum OnEvent {
    /// Nothing.
    Pass,
    /// The command runs.
    Run,
    /// It runs after so many seconds.
    Delay(f64),
}

/// One run of a command. Times are seconds since 1970.
#[derive(Clone, Debug, Default)]
pub(super) struct Task {
    pub(super) rank: u32,
    pub(super) pid: i64,
    /// Wait status.
    pub(super) status: i32,
    pub(super) created: f64,
    pub(super) started: Option<f64>,
    pub(super) running: Option<f64>,
    pub(super) ended: Option<f64>,
    /// The process has ended with `status`.
    pub(super) exited: bool,
    pub(super) timed_out: bool,
    /// Why it could not be run, an error number.
    pub(super) failed: u32,
}

impl Task {
    /// Returns the state that lists show.
    fn state(&self) -> &'static str {
        match self {
            Task { failed: 1.., .. } => "Rexec Failure",
            Task { started: None, .. } => "Deferred",
            Task { exited: false, .. } => "Running",
            Task { timed_out: true, .. } => "Timeout",
            Task { status: 0, .. } => "Exited",
            _ => "Failed",
        }
    }

    fn to_json(&self) -> Value {
        let mut object = json!({
            "rank": self.rank, "pid": self.pid, "status": self.status, "state": self.state(), "create-time": self.created,
        });
        let mut set = |name: &str, value: Value| object[name] = value;
        if self.failed != 0 {
            set("rexec_errno", json!(self.failed));
        }
        if self.timed_out {
            set("timedout", json!(true));
        }
        if self.ended.is_some() {
            set("code", json!(flux_process::WaitStatus(self.status).exit_code()));
        }
        for (name, time) in [
            ("start-time", self.started),
            ("running-time", self.running),
            ("end-time", self.ended),
        ] {
            if let Some(time) = time {
                set(name, json!(time));
            }
        }
        object
    }
}

/// Counts of an entry. Times are seconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    pub(super) created: f64,
    pub(super) started: f64,
    pub(super) last_run: f64,
    /// Runs since the start of the entry.
    pub(super) count: i64,
    /// Failures since the start of the entry.
    pub(super) fail_count: i64,
    pub(super) total: i64,
    pub(super) success: i64,
    pub(super) failure: i64,
    pub(super) deferred: i64,
}

/// An entry.
#[derive(Clone, Debug)]
pub(super) struct CronEntry {
    pub(super) id: i64,
    pub(super) request: CreateRequest,
    pub(super) trigger: Trigger,
    pub(super) stopped: bool,
    /// Deleted while its task runs: goes away with it.
    pub(super) deleted: bool,
    pub(super) stats: Stats,
    pub(super) task: Option<Task>,
    pub(super) finished: VecDeque<Task>,
}

impl CronEntry {
    /// Returns an entry that is stopped.
    pub(super) fn new(id: i64, request: CreateRequest, trigger: Trigger, now: f64) -> Self {
        CronEntry {
            id,
            request,
            trigger,
            stopped: true,
            deleted: false,
            stats: Stats {
                created: now,
                ..Stats::default()
            },
            task: None,
            finished: VecDeque::new(),
        }
    }

    /// Begins to count anew.
    pub(super) fn start(&mut self, now: f64) {
        self.stopped = false;
        self.stats.started = now;
        (self.stats.count, self.stats.fail_count) = (0, 0);
        if let Trigger::Event { counter, .. } = &mut self.trigger {
            *counter = 0;
        }
    }

    /// Takes one matching event.
    pub(super) fn on_event(&mut self, now: f64) -> OnEvent {
        let last_run = self.stats.last_run;
        let Trigger::Event {
            nth,
            after,
            min_interval,
            counter,
            paused,
            ..
        } = &mut self.trigger
        else {
            return OnEvent::Pass;
        };
        *counter += 1;
        let skipped = *counter < *after || (*nth > 0 && (*counter - *after) % *nth != 0);
        if *paused || skipped {
            return OnEvent::Pass;
        }
        let rest = *min_interval - (now - last_run);
        if *min_interval > 0.0 && rest > 1e-5 {
            *paused = true;
            return OnEvent::Delay(rest);
        }
        OnEvent::Run
    }

    /// Counts a run; returns true when it was the last one.
    pub(super) fn count_run(&mut self) -> bool {
        self.stats.total += 1;
        self.stats.count += 1;
        self.stats.count == self.request.repeat
    }

    /// Takes the end of the current task; returns true when the entry has failed too often.
    pub(super) fn finish(&mut self, now: f64) -> bool {
        let Some(mut task) = self.task.take() else {
            return false;
        };
        task.ended = Some(now);
        let failed = task.failed != 0 || task.status != 0;
        self.finished.push_front(task);
        let keep = usize::try_from(self.request.task_history_count).unwrap_or(0);
        self.finished.truncate(keep);
        if !failed {
            self.stats.success += 1;
            return false;
        }
        self.stats.failure += 1;
        self.stats.fail_count += 1;
        let limit = self.request.stop_on_failure;
        limit > 0 && self.stats.fail_count >= limit
    }

    /// Returns the entry as responses show it.
    pub(super) fn to_json(&self) -> Value {
        let request = &self.request;
        let mut object = json!({
            "id": self.id, "rank": request.rank, "name": request.name, "command": request.command,
            "repeat": request.repeat, "stopped": self.stopped, "type": self.trigger.name(),
        });
        if request.timeout >= 0.0 {
            object["timeout"] = json!(request.timeout);
        }
        let stats = &self.stats;
        object["stats"] = json!({
            "ctime": stats.created, "starttime": stats.started, "lastrun": stats.last_run, "count": stats.count,
            "failcount": stats.fail_count, "total": stats.total, "success": stats.success, "failure": stats.failure,
            "deferred": stats.deferred,
        });
        object["typedata"] = self.trigger.to_json();
        let tasks = self.task.iter().chain(&self.finished).map(Task::to_json);
        object["tasks"] = Value::Array(tasks.collect());
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(request: Value) -> CronEntry {
        let request: CreateRequest = serde_json::from_value(request).unwrap();
        let trigger = Trigger::from_json(&request.r#type, &request.args)
            .unwrap()
            .unwrap();
        let mut entry = CronEntry::new(1, request, trigger, 10.0);
        entry.start(10.0);
        entry
    }

    fn events(args: Value) -> CronEntry {
        entry(json!({"type": "event", "name": "x", "command": "x", "args": args}))
    }

    #[test]
    fn every_third_event_after_the_second() {
        let mut entry = events(json!({"topic": "a", "nth": 3, "after": 2}));
        let runs: Vec<usize> = (1..=9).filter(|_| entry.on_event(20.0) == OnEvent::Run).collect();
        assert_eq!(runs, [2, 5, 8]);
    }

    #[test]
    fn runs_keep_their_distance() {
        let mut entry = events(json!({"topic": "a", "min_interval": 5.0}));
        assert_eq!(entry.on_event(100.0), OnEvent::Run);
        entry.stats.last_run = 100.0;
        assert_eq!(entry.on_event(102.0), OnEvent::Delay(3.0));
        // the delayed run answers for these
        assert_eq!(entry.on_event(103.0), OnEvent::Pass);
    }

    #[test]
    fn limits_of_runs_failures_and_history() {
        let mut entry = entry(
            json!({"type": "interval", "name": "x", "command": "x", "args": {"interval": 1},
            "repeat": 3, "stop-on-failure": 2, "task-history-count": 2}),
        );
        for (status, last, too_many) in [(0, false, false), (256, false, false), (9, true, true)] {
            entry.task = Some(Task {
                status,
                started: Some(1.0),
                exited: true,
                ..Task::default()
            });
            assert_eq!((entry.count_run(), entry.finish(2.0)), (last, too_many));
        }
        let shown = entry.to_json();
        assert_eq!(shown["stats"]["failure"], 2);
        assert_eq!(shown["tasks"][0]["code"], 137);
        assert_eq!(shown["tasks"][1]["state"], "Failed");
        assert_eq!(shown["tasks"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn bad_arguments_are_named() {
        let text = |kind: &str, args: Value| {
            let args = args.as_object().unwrap().clone();
            Trigger::from_json(kind, &args).unwrap().unwrap_err()
        };
        assert_eq!(text("interval", json!({})), "interval: missing");
        assert_eq!(
            text("interval", json!({"interval": -1})),
            "interval: -1 is no number of seconds"
        );
        assert_eq!(text("event", json!({"topic": ""})), "topic: missing");
        assert_eq!(
            text("event", json!({"topic": "a", "nth": -2})),
            "nth: -2 is no count"
        );
        assert_eq!(text("datetime", json!({"hour": 24})), "hour: '24' is not in 0-23");
        assert!(Trigger::from_json("moon", &Map::new()).is_none());
    }
}
