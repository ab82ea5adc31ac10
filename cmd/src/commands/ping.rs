//! `flux ping`: how long does a service take to answer?

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use flux_client::{Handle, Incoming, NODEID_ANY, attr};
use flux_formats::errno::strerror;
use flux_formats::hostlist::Hostlist;
use serde::{Deserialize, Serialize};

use crate::common::args::{flag, operand, parsed, required, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};

/// Most requests in flight when they are not spaced in time.
const WINDOW: usize = 4096;

#[derive(Serialize)]
struct Request<'a> {
    seq: u64,
    pad: &'a str,
}

#[derive(Deserialize)]
struct Response {
    seq: u64,
    #[serde(default)]
    route: String,
    #[serde(default)]
    userid: u32,
    #[serde(default)]
    rolemask: u32,
    #[serde(default)]
    rank: u32,
}

pub(super) fn args(command: Command) -> Command {
    command
        .arg(value(
            "rank",
            Some('r'),
            "RANK",
            "Find target on a specific broker rank",
        ))
        .arg(value(
            "pad",
            Some('p'),
            "N",
            "Include in the payload a string of N bytes",
        ))
        .arg(value(
            "interval",
            Some('i'),
            "N",
            "Seconds between requests (default 1)",
        ))
        .arg(value(
            "count",
            Some('c'),
            "N",
            "Number of requests (default: no end)",
        ))
        .arg(flag(
            "batch",
            Some('b'),
            "Begin processing responses after all requests are sent",
        ))
        .arg(flag(
            "userid",
            Some('u'),
            "Include userid and rolemask in the output",
        ))
        .arg(operand("target", "RANK, SERVICE, RANK!SERVICE or HOST"))
}

/// Where requests go.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    nodeid: u32,
    service: String,
}

impl Target {
    /// Reads a target; `hosts` is asked for a name that may be a host.
    fn parse(text: &str, rank: Option<&str>, hosts: impl Fn(&str) -> Option<u32>) -> Result<Self, CmdError> {
        let (rank_text, service) = match (rank, text.split_once('!')) {
            (Some(_), Some(_)) => {
                return usage("give a rank either with --rank or as RANK!SERVICE, not both");
            }
            (Some(rank), None) => (rank, text),
            (None, Some((rank, service))) => (rank, if service.is_empty() { "broker" } else { service }),
            (None, None) if text.parse::<u32>().is_ok() => (text, "broker"),
            (None, None) => match hosts(text) {
                Some(rank) => {
                    return Ok(Target {
                        nodeid: rank,
                        service: "broker".to_owned(),
                    });
                }
                None => ("any", text),
            },
        };
        let nodeid = match rank_text {
            "any" => NODEID_ANY,
            "upstream" => flux_client::NODEID_UPSTREAM,
            number => match number.parse().ok().or_else(|| hosts(number)) {
                Some(rank) => rank,
                None => return usage(format!("invalid rank '{number}'")),
            },
        };
        Ok(Target {
            nodeid,
            service: service.to_owned(),
        })
    }
}

struct Pinger<'a> {
    target: Target,
    topic: String,
    pad: &'a str,
    userid: bool,
    sent: u64,
    started: HashMap<u64, Instant>,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let interval: f64 = parsed(matches, "interval")?.unwrap_or(1.0);
    let count: u64 = parsed(matches, "count")?.unwrap_or(u64::MAX);
    let pad = "p".repeat(parsed(matches, "pad")?.unwrap_or(0));
    let batch = matches.get_flag("batch");
    if !(0.0..1e9).contains(&interval) {
        return usage("--interval must not be negative");
    }
    if batch && count == u64::MAX {
        return usage("--batch needs --count");
    }
    let mut handle = ctx.open()?;
    let target = {
        let word = required(matches, "target");
        let hostlist = match word.parse::<u32>() {
            Ok(_) => None,
            Err(_) => attr::get(&mut handle, "hostlist")
                .ok()
                .and_then(|text| text.parse::<Hostlist>().ok()),
        };
        Target::parse(word, text(matches, "rank"), |name| {
            hostlist
                .as_ref()?
                .find(name)
                .and_then(|at| u32::try_from(at).ok())
        })?
    };
    let mut out = stdout();
    let rank = if target.nodeid == NODEID_ANY {
        "any".to_owned()
    } else {
        target.nodeid.to_string()
    };
    writeln!(out, "flux-ping {rank}!{}", target.service)?;
    let topic = format!("{}.ping", target.service);
    let userid = matches.get_flag("userid");
    let mut pinger = Pinger {
        target,
        topic,
        pad: &pad,
        userid,
        sent: 0,
        started: HashMap::new(),
    };
    if interval > 0.0 && !batch {
        pinger.spaced(&mut handle, &mut out, Duration::from_secs_f64(interval), count)?;
    } else {
        let window = if batch { usize::MAX } else { WINDOW };
        pinger.crowded(&mut handle, &mut out, count, window)?;
    }
    out.flush()?;
    Ok(0)
}

impl Pinger<'_> {
    /// Sends one request per interval and prints each answer as it comes.
    fn spaced(
        &mut self,
        handle: &mut Handle,
        out: &mut impl Write,
        interval: Duration,
        count: u64,
    ) -> Result<(), CmdError> {
        let mut next = Instant::now();
        loop {
            if self.sent < count && Instant::now() >= next {
                self.send(handle)?;
                next += interval;
            }
            if self.sent == count && self.started.is_empty() {
                return Ok(());
            }
            out.flush()?;
            let deadline = (self.sent < count).then_some(next);
            if let Some(message) = handle.next_incoming(deadline)? {
                self.receive(&message, out)?;
            }
        }
    }

    /// Keeps up to `window` requests in flight.
    fn crowded(
        &mut self,
        handle: &mut Handle,
        out: &mut impl Write,
        count: u64,
        window: usize,
    ) -> Result<(), CmdError> {
        while self.sent < count || !self.started.is_empty() {
            while self.sent < count && self.started.len() < window {
                self.send(handle)?;
            }
            if let Some(message) = handle.next_incoming(None)? {
                self.receive(&message, out)?;
            }
            while let Some(message) = handle.try_incoming() {
                self.receive(&message, out)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, handle: &mut Handle) -> Result<(), CmdError> {
        let request = Request {
            seq: self.sent,
            pad: self.pad,
        };
        handle.rpc(self.topic.as_str(), self.target.nodeid, &request)?;
        self.started.insert(self.sent, Instant::now());
        self.sent += 1;
        Ok(())
    }

    fn receive(&mut self, message: &Incoming, out: &mut impl Write) -> Result<(), CmdError> {
        let Incoming::Response(message) = message else {
            return Ok(());
        };
        if message.errnum() != 0 {
            out.flush()?;
            let text = message
                .payload_str()
                .unwrap_or_else(|_| strerror(message.errnum()));
            let rank = if self.target.nodeid == NODEID_ANY {
                "any".to_owned()
            } else {
                self.target.nodeid.to_string()
            };
            return fail(format!("{rank}!{}: {text}", self.topic));
        }
        let answer: Response = message
            .payload_json()
            .map_err(|source| flux_client::Error::Payload {
                topic: message.topic.clone(),
                source,
            })?;
        let Some(started) = self.started.remove(&answer.seq) else {
            return Ok(());
        };
        let millis = started.elapsed().as_secs_f64() * 1e3;
        let credentials = if self.userid {
            format!(" userid={} rolemask=0x{:x}", answer.userid, answer.rolemask)
        } else {
            String::new()
        };
        writeln!(
            out,
            "{}!{} pad={}{credentials} seq={} time={millis:.3} ms ({})",
            answer.rank,
            self.topic,
            self.pad.len(),
            answer.seq,
            answer.route
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let hosts = |name: &str| (name == "node7").then_some(7);
        let target = |text: &str, rank| {
            Target::parse(text, rank, hosts)
                .map(|t| (t.nodeid, t.service))
                .ok()
        };
        let want = |nodeid, service: &str| Some((nodeid, service.to_owned()));
        assert_eq!(target("3", None), want(3, "broker"));
        assert_eq!(target("kvs", None), want(NODEID_ANY, "kvs"));
        assert_eq!(target("2!kvs", None), want(2, "kvs"));
        assert_eq!(target("2!", None), want(2, "broker"));
        assert_eq!(target("any!kvs", None), want(NODEID_ANY, "kvs"));
        assert_eq!(target("node7", None), want(7, "broker"));
        assert_eq!(target("node7!kvs", None), want(7, "kvs"));
        assert_eq!(target("broker", Some("3")), want(3, "broker"));
        assert_eq!(target("1!broker", Some("3")), None);
        assert_eq!(target("x!broker", None), None);
    }
}
