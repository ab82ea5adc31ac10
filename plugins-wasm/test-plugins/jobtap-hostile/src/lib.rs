//! A jobtap plugin that does what jobs tell it: `attributes.system.hostile` is `CALLBACK DEED`, for example `state.run loop`. Jobs without it are left alone,
//! but counted. The arguments `at=CALLBACK deed=DEED` order a deed without a job.

use std::hint::black_box;

use flux_policy_sdk::json::{Object, string};
use flux_policy_sdk::{
    Dependency, Job, Jobtap, JobtapHost, Level, Priority, Refusal, Request, Update, export_jobtap,
};

const ORDER: &str = "attributes.system.hostile";

export_jobtap!(Hostile);

/// The plugin.
#[derive(Debug)]
pub struct Hostile {
    /// Active jobs that it was told of.
    jobs: u64,
    topics: Option<String>,
    orders: Orders,
}

/// What the arguments order.
#[derive(Debug, Default)]
struct Orders {
    at: String,
    deed: String,
}

impl Orders {
    fn read(host: &dyn JobtapHost) -> Orders {
        let text = host.args();
        let args = Object::parse(&text);
        let get = |key: &str| args.as_ref()?.get(key).and_then(string);
        Orders {
            at: get("at").unwrap_or_default(),
            deed: get("deed").unwrap_or_default(),
        }
    }

    /// Does the deed when it is for this callback.
    fn obey(&self, host: &dyn JobtapHost, callback: &str) -> Result<(), Refusal> {
        if self.at == callback {
            act(host, 0, &self.deed)?;
        }
        Ok(())
    }
}

fn order(job: &dyn Job, callback: &str) -> Option<String> {
    let order = string(&job.attribute(ORDER)?)?;
    let (when, deed) = order.split_once(' ')?;
    (when == callback).then(|| deed.to_owned())
}

/// Uses the stack until there is none.
fn recurse(depth: u64) -> u64 {
    let here = black_box([depth; 64]);
    if depth == 0 {
        return 0;
    }
    recurse(depth - 1) + u64::from(here[black_box(7)] == 3)
}

/// Does what was ordered; returns what the callback is to answer.
fn obey(host: &dyn JobtapHost, job: &dyn Job, callback: &str) -> Result<Option<String>, Refusal> {
    let Some(deed) = order(job, callback) else {
        return Ok(None);
    };
    act(host, job.id(), &deed)?;
    Ok(Some(deed))
}

/// Does a deed for a job; 0 is none.
fn act(host: &dyn JobtapHost, id: u64, deed: &str) -> Result<(), Refusal> {
    match deed {
        "loop" => loop {
            black_box(id);
        },
        "bomb" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(black_box(vec![1; 1 << 20]));
            }
        }
        "trap" => std::process::abort(),
        "recurse" => host.annotate(id, &recurse(black_box(u64::MAX)).to_string()),
        "huge-refusal" => return Err(Refusal::invalid("x".repeat(40 << 20))),
        "refuse" => return Err(Refusal::invalid("as ordered")),
        "flood" => {
            for line in 0..100_000 {
                host.log(Level::Err, &format!("line {line}\nwith a break"));
            }
        }
        "many-wishes" => {
            for number in 0..20_000 {
                host.annotate(id, &format!("{{\"n\":{number}}}"));
            }
        }
        "huge-state" => host.state_set("x", &"x".repeat(1 << 20)),
        "huge-wish" => host.annotate(id, &"x".repeat(8 << 20)),
        "timers" => {
            for number in 0..9_000 {
                host.set_timer(&format!("{id} {number}"), 0.0);
            }
        }
        "lie" => lie(host, id),
        // as often as the job is heard of: an endless talk with oneself
        "echo" => host.post(id, "echo", ""),
        other => {
            if let Some(value) = other.strip_prefix("remember ") {
                let number = remembered(host) + 1;
                host.state_set("count", &number.to_string());
                host.state_set("last", value);
                // state and event belong together
                let args = host.args();
                let tag = Object::parse(&args).and_then(|args| args.get("tag").and_then(string));
                let tag = tag.unwrap_or_default();
                host.post(
                    id,
                    "remembered",
                    &format!(r#"{{"number":{number},"by":"{tag}"}}"#),
                );
            }
        }
    }
    Ok(())
}

fn remembered(host: &dyn JobtapHost) -> u64 {
    let count = host.state_get("count").and_then(|text| text.parse().ok());
    count.unwrap_or(0)
}

/// Asks for everything that must not be.
fn lie(host: &dyn JobtapHost, id: u64) {
    for unknown in [0, 1, u64::MAX] {
        host.dependency_remove(unknown, "x");
        host.dependency_add(unknown, "x");
        host.prioritize(unknown, 5);
        host.raise(unknown, "cancel", 0, "");
        host.post(unknown, "clean", "");
        host.subscribe(unknown);
        host.prolog_finish(unknown, "x", 0);
    }
    for event in [
        "alloc", "free", "clean", "start", "finish", "release", "submit", "validate", "priority", "depend",
    ] {
        host.post(id, event, "{}");
    }
    host.post(id, "exception", "not json");
    host.post(id, "a b\nc", "{}");
    host.prioritize(id, u64::MAX);
    host.annotate(id, "[1,2");
    host.annotate(id, "5");
    host.raise(id, "two words", 0, "");
    host.raise(id, "test", 200, "");
    host.set_flag(id, "root");
    host.update_jobspec(id, r#"{"tasks":[]}"#);
    host.update_jobspec(id, "nonsense");
    host.epilog_finish(id, "never started", 0);
    for at in [f64::NAN, f64::NEG_INFINITY, f64::INFINITY, -1.0, 1e300] {
        host.set_timer("x", at);
    }
}

impl Jobtap for Hostile {
    fn configure(host: &dyn JobtapHost) -> Result<Self, Refusal> {
        let args = host.args();
        let topics = Object::parse(&args).and_then(|args| args.get("topics").and_then(string));
        let orders = Orders::read(host);
        orders.obey(host, "configure")?;
        Ok(Hostile {
            jobs: 0,
            topics,
            orders,
        })
    }

    fn topics(&self) -> Vec<String> {
        if self.orders.at == "init" {
            std::process::abort();
        }
        if let Some(topics) = &self.topics {
            return topics.split(',').map(str::to_owned).collect();
        }
        let states = ["depend", "priority", "sched", "run", "cleanup", "inactive"];
        let mut topics: Vec<String> = states
            .iter()
            .map(|state| format!("job.state.{state} {ORDER}"))
            .collect();
        topics.extend(
            [
                "job.create",
                "job.validate",
                "job.new",
                "job.destroy",
                "job.priority.get",
                "job.inactive-add",
                "job.inactive-remove",
                "job.update.attributes.system.hostile",
                "job.dependency.hostile",
                "job.event.start",
                "job.event.clean",
                "job.event.echo",
                "plugin.query",
            ]
            .map(|topic| {
                if matches!(
                    topic,
                    "job.new" | "job.destroy" | "plugin.query" | "job.inactive-remove"
                ) {
                    topic.to_owned()
                } else {
                    format!("{topic} {ORDER}")
                }
            }),
        );
        topics
    }

    fn create(&mut self, host: &dyn JobtapHost, job: &dyn Job, _: bool) -> Result<(), Refusal> {
        obey(host, job, "create").map(|_| ())
    }

    fn validate(&mut self, host: &dyn JobtapHost, job: &dyn Job) -> Result<(), Refusal> {
        obey(host, job, "validate").map(|_| ())
    }

    fn dependency(
        &mut self,
        host: &dyn JobtapHost,
        job: &dyn Job,
        _: &Dependency<'_>,
    ) -> Result<(), Refusal> {
        obey(host, job, "dependency").map(|_| ())
    }

    fn new_job(&mut self, host: &dyn JobtapHost, job: &dyn Job, replay: bool) {
        self.jobs += 1;
        if !replay {
            let _said = obey(host, job, "new");
        }
    }

    fn destroy(&mut self, host: &dyn JobtapHost, job: &dyn Job) {
        self.jobs = self.jobs.saturating_sub(1);
        let _said = obey(host, job, "destroy");
    }

    fn state(&mut self, host: &dyn JobtapHost, job: &dyn Job, state: &str) {
        let _said = obey(host, job, &format!("state.{state}"));
        let listens = ["event.start", "event.clean", "event.echo"];
        if state == "sched" && listens.iter().any(|event| order(job, event).is_some()) {
            host.subscribe(job.id());
            if order(job, "event.echo").is_some() {
                host.post(job.id(), "echo", "");
            }
        }
        if state == "sched" && order(job, "looked-up").is_some() {
            host.look_up(job.id());
        }
        if state == "sched" && order(job, "expired").is_some() {
            host.set_timer("x", 0.0);
        }
    }

    fn event(&mut self, host: &dyn JobtapHost, job: &dyn Job, name: &str, _: &str) {
        let _said = obey(host, job, &format!("event.{name}"));
    }

    fn priority(&mut self, host: &dyn JobtapHost, job: &dyn Job) -> Priority {
        match obey(host, job, "priority") {
            Ok(Some(deed)) if deed == "never" => Priority::Unavailable,
            Ok(Some(deed)) => deed.parse().map_or(Priority::Pass, Priority::Value),
            _ => Priority::Pass,
        }
    }

    fn update(
        &mut self,
        host: &dyn JobtapHost,
        job: &dyn Job,
        _: &Update<'_>,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let said = obey(host, job, "update")?;
        let nonsense = ("updates".to_owned(), "[1".to_owned());
        Ok(if said.is_some() {
            vec![nonsense]
        } else {
            Vec::new()
        })
    }

    fn added(&mut self, host: &dyn JobtapHost, job: &dyn Job) {
        let _said = obey(host, job, "added");
    }

    fn removed(&mut self, host: &dyn JobtapHost, _: u64) {
        let _said = self.orders.obey(host, "removed");
    }

    fn expired(&mut self, host: &dyn JobtapHost, key: &str) {
        let _said = self.orders.obey(host, "expired");
        // never ends
        host.set_timer(key, 0.0);
    }

    fn looked_up(&mut self, host: &dyn JobtapHost, _: u64, _: Option<&dyn Job>) {
        let _said = self.orders.obey(host, "looked-up");
    }

    fn request(&mut self, host: &dyn JobtapHost, request: &Request<'_>) -> Result<String, Refusal> {
        self.orders.obey(host, "request")?;
        match request.method {
            // everything that has this plugin called again while it is in a call
            "reenter" => {
                let id = Object::parse(request.payload).and_then(|all| all.get("id")?.parse().ok());
                let id: u64 = id.unwrap_or(0);
                host.subscribe(id);
                host.post(id, "echo", "");
                host.reprioritize(id);
                host.reprioritize_all();
                host.look_up(id);
                host.set_timer("reenter", 0.0);
                host.update_jobspec(id, r#"{"attributes.system.hostile":"event.echo echo"}"#);
                Ok("{}".to_owned())
            }
            "loop" => loop {
                black_box(0);
            },
            "nonsense" => Ok("[1".to_owned()),
            method => Ok(format!("{{\"method\":\"{method}\"}}")),
        }
    }

    fn query(&mut self, host: &dyn JobtapHost) -> String {
        let _said = self.orders.obey(host, "query");
        let get = |key: &str| host.state_get(key).unwrap_or_default();
        format!(
            r#"{{"jobs":{},"count":"{}","last":"{}"}}"#,
            self.jobs,
            get("count"),
            get("last")
        )
    }
}
