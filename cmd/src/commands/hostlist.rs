//! `flux hostlist`: combine and convert lists of hosts.

use std::io::{Read, Write};

use clap::{ArgMatches, Command};
use flux_client::{attr, job};
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use serde_json::Value;

use crate::common::args::{flag, list, operands, parsed, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::jobid;

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag(
            "expand",
            Some('e'),
            "Expand hostlist using defined output delimiter",
        ))
        .arg(value(
            "delimiter",
            Some('d'),
            "S",
            "Set output delimiter for expanded hostlist (default=\" \")",
        ))
        .arg(flag("count", Some('c'), "Print the total number of hosts"))
        .arg(value(
            "nth",
            Some('n'),
            "[-]IDS",
            "Output hosts at indices in idset IDS (-IDS to index from the end)",
        ))
        .arg(value(
            "find",
            Some('F'),
            "HOSTS",
            "Output a list of indices of HOSTS in the result hostlist",
        ))
        .arg(value(
            "limit",
            Some('L'),
            "N",
            "Output at most N hosts (-N for the last N hosts)",
        ))
        .arg(flag("sort", Some('S'), "Return sorted result"))
        .arg(value(
            "exclude",
            Some('x'),
            "IDS|HOSTS",
            "Exclude hosts or indices from result",
        ))
        .arg(
            flag(
                "union",
                Some('u'),
                "Return only unique hosts in the final hostlist",
            )
            .alias("unique"),
        )
        .arg(flag(
            "intersect",
            Some('i'),
            "Return the intersection of all hostlists",
        ))
        .arg(flag(
            "minus",
            Some('m'),
            "Subtract hostlists from the first argument",
        ))
        .arg(flag(
            "xor",
            Some('X'),
            "Return the symmetric difference of all hostlists",
        ))
        .arg(flag(
            "fallback",
            Some('f'),
            "Fallback to treating jobids that are not found as hostnames",
        ))
        .arg(flag(
            "local",
            Some('l'),
            "Set the default source to 'local' instead of stdin",
        ))
        .arg(flag(
            "quiet",
            Some('q'),
            "No output. Exit with nonzero exit status if hostlist is empty",
        ))
        .arg(operands(
            "sources",
            0,
            "instance, local, avail, a job id, a hostlist, or - for standard input",
        ))
}

fn parse(text: &str) -> Result<Hostlist, CmdError> {
    text.parse()
        .or_else(|err| fail(format!("Invalid hostlist '{text}': {err}")))
}

fn try_op<E: std::fmt::Display>(result: Result<Hostlist, E>) -> Result<Hostlist, CmdError> {
    result.or_else(|err| fail(err.to_string()))
}

fn stdin_hosts() -> Result<Hostlist, CmdError> {
    let mut input = String::new();
    std::io::stdin()
        .read_to_string(&mut input)
        .map_err(CmdError::file("standard input"))?;
    let mut hosts = Hostlist::new();
    for word in input.split_whitespace() {
        hosts.append_list(&parse(word)?);
    }
    Ok(hosts)
}

fn source(ctx: &Ctx, word: &str, fallback: bool) -> Result<Hostlist, CmdError> {
    match word {
        "-" | "stdin" => stdin_hosts(),
        "instance" => parse(&attr::get(&mut ctx.open()?, "hostlist")?),
        "local" => match ctx.env_str("FLUX_JOB_ID").map(str::to_owned) {
            Some(id) if ctx.env_str("FLUX_KVS_NAMESPACE").is_some() => job_hosts(ctx, &id),
            _ => parse(&attr::get(&mut ctx.open()?, "hostlist")?),
        },
        "avail" => {
            let status: Value = ctx.open()?.call_empty("resource.status", 0)?;
            let set = |key: &str| {
                status
                    .get(key)
                    .and_then(Value::as_str)
                    .and_then(|ids| ids.parse::<IdSet>().ok())
                    .unwrap_or_default()
            };
            let mut ranks = set("online").difference(&set("exclude"));
            for drained in status
                .get("drain")
                .and_then(Value::as_object)
                .into_iter()
                .flat_map(|map| map.keys())
            {
                ranks = ranks.difference(&drained.parse().unwrap_or_default());
            }
            let r = status.get("R").cloned().unwrap_or(Value::Null);
            match flux_formats::resource_set::ResourceSet::from_value(&r) {
                Ok(set) => Ok(set.hosts_of(&ranks)),
                Err(err) => fail(format!("resource.status: R: {err}")),
            }
        }
        other if looks_like_jobid(other) => match job_hosts(ctx, other) {
            Err(CmdError::Client(err)) if fallback && err.is_rpc(flux_formats::errno::ENOENT) => parse(other),
            result => result,
        },
        other => parse(other),
    }
}

/// Returns true for F58, decimal and the like, but not for names such as `foo1`.
fn looks_like_jobid(word: &str) -> bool {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let prefixed =
        word.starts_with('ƒ') || (word.starts_with('f') && word.len() > 8) || word.starts_with("0x");
    (digits || prefixed) && jobid::parse(word).is_ok()
}

fn job_hosts(ctx: &Ctx, id: &str) -> Result<Hostlist, CmdError> {
    let id = jobid::parse(id)?;
    let text = job::lookup(&mut ctx.open()?, id.0, "R", 0)?;
    match flux_formats::resource_set::ResourceSet::decode(text.as_bytes()) {
        Ok(set) => Ok(set.nodelist().clone()),
        Err(err) => fail(format!("R of job: {err}")),
    }
}

fn combine(matches: &ArgMatches, lists: Vec<Hostlist>) -> Result<Hostlist, CmdError> {
    let mut lists = lists.into_iter();
    let Some(mut result) = lists.next() else {
        return Ok(Hostlist::new());
    };
    for next in lists {
        result = if matches.get_flag("intersect") {
            try_op(result.intersection(&next))?
        } else if matches.get_flag("minus") {
            try_op(result.difference(&next))?
        } else if matches.get_flag("xor") {
            try_op(result.symmetric_difference(&next))?
        } else {
            result.append_list(&next);
            result
        };
    }
    if let Some(exclude) = text(matches, "exclude") {
        result = match exclude.parse::<IdSet>() {
            Ok(ids) => {
                let all = IdSet::first_n(u32::try_from(result.count()).unwrap_or(u32::MAX));
                result.select(&all.difference(&ids))
            }
            Err(_) => {
                let mut kept = result;
                if let Err(err) = kept.delete(&parse(exclude)?) {
                    return fail(err.to_string());
                }
                kept
            }
        };
    }
    if matches.get_flag("union") {
        result = try_op(result.unique())?;
    }
    if matches.get_flag("sort") {
        result = try_op(result.sorted())?;
    }
    if let Some(limit) = parsed::<i64>(matches, "limit")? {
        result = take(&result, limit);
    }
    Ok(result)
}

/// Returns the first `limit` hosts, or the last ones when it is negative.
fn take(hosts: &Hostlist, limit: i64) -> Hostlist {
    let count = u32::try_from(hosts.count()).unwrap_or(u32::MAX);
    let wanted = u32::try_from(limit.unsigned_abs()).unwrap_or(u32::MAX).min(count);
    if wanted == 0 {
        return Hostlist::new();
    }
    let ids = if limit > 0 {
        IdSet::first_n(wanted)
    } else {
        IdSet::from_range(count - wanted, count - 1)
    };
    hosts.select(&ids)
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let words = list(matches, "sources");
    let default = if matches.get_flag("local") { "local" } else { "-" };
    let words = if words.is_empty() { vec![default] } else { words };
    let fallback = matches.get_flag("fallback");
    let lists = words
        .into_iter()
        .map(|word| source(ctx, word, fallback))
        .collect::<Result<Vec<_>, _>>()?;
    let mut hosts = combine(matches, lists)?;
    if let Some(nth) = text(matches, "nth") {
        let (ids, reverse) = nth.strip_prefix('-').map_or((nth, false), |ids| (ids, true));
        let Ok(ids) = ids.parse::<IdSet>() else {
            return usage(format!("invalid idset '{nth}'"));
        };
        let count = hosts.count();
        let mut picked = IdSet::new();
        for id in ids.iter() {
            let at = if reverse {
                count.checked_sub(u64::from(id))
            } else {
                Some(u64::from(id))
            };
            match at.filter(|at| *at < count).and_then(|at| u32::try_from(at).ok()) {
                Some(at) => {
                    picked.insert(at);
                }
                None => return fail(format!("Invalid index: {nth}")),
            }
        }
        hosts = hosts.select(&picked);
    }
    if matches.get_flag("quiet") {
        return Ok(u8::from(hosts.is_empty()));
    }
    let output = if let Some(wanted) = text(matches, "find") {
        let mut found = Vec::new();
        for host in parse(wanted)?.iter() {
            match hosts.find(&host) {
                Some(at) => found.push(at.to_string()),
                None => return fail(format!("host '{host}' not found in hostlist")),
            }
        }
        found.join(",")
    } else if matches.get_flag("count") {
        hosts.count().to_string()
    } else if matches.get_flag("expand") || text(matches, "delimiter").is_some() {
        let names: Vec<String> = hosts.iter().collect();
        names.join(&text(matches, "delimiter").unwrap_or(" ").replace("\\n", "\n"))
    } else {
        hosts.to_string()
    };
    if !output.is_empty() {
        writeln!(stdout(), "{output}")?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(words: &[&str], lists: &[&str]) -> String {
        let matches = args(Command::new("hostlist"))
            .get_matches_from(std::iter::once("hostlist").chain(words.iter().copied()));
        combine(&matches, lists.iter().map(|list| parse(list).unwrap()).collect())
            .unwrap()
            .to_string()
    }

    #[test]
    fn set_operations() {
        assert_eq!(apply(&[], &["a[1-2]", "a2"]), "a[1-2,2]");
        assert_eq!(apply(&["-u"], &["a[1-2]", "a2"]), "a[1-2]");
        assert_eq!(apply(&["-i"], &["a[1-3]", "a[2-5]"]), "a[2-3]");
        assert_eq!(apply(&["-m"], &["a[1-3]", "a2"]), "a[1,3]");
        assert_eq!(apply(&["-X"], &["a[1-2]", "a[2-3]"]), "a[1,3]");
        assert_eq!(apply(&["-x", "0"], &["a[1-3]"]), "a[2-3]");
        assert_eq!(apply(&["-x", "a3"], &["a[1-3]"]), "a[1-2]");
        assert_eq!(apply(&["-S"], &["a3,a1"]), "a[1,3]");
        assert_eq!(apply(&["-L", "2"], &["a[1-3]"]), "a[1-2]");
        assert_eq!(apply(&["-L", "-1"], &["a[1-3]"]), "a3");
        assert!(looks_like_jobid("123") && looks_like_jobid("f2BNosqRxx") && !looks_like_jobid("foo1"));
    }
}
