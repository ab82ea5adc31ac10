//! `flux housekeeping`: which nodes are still cleaned up after jobs, and end that.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{NODEID_ANY, attr};
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::jobid::{Encoding, JobId};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, json};
use std::collections::BTreeMap;

use super::{Entry, tagged};
use crate::common::args::{flag, text, value};
use crate::common::catalogue::Catalogue;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::format::{Cell, Fields, Format};
use crate::common::jobid::{parse, use_ascii};
use crate::common::time::now;

pub(super) static TABLE: &[Entry] = &[
    tagged("list", "List nodes in housekeeping", list_args, list),
    tagged("kill", "Send a signal to housekeeping", kill_args, kill),
];

const FORMATS: Catalogue = Catalogue {
    program: "flux-housekeeping",
    file: "flux-housekeeping",
    table: None,
    variable: "FLUX_HOUSEKEEPING_FORMAT_DEFAULT",
    builtin: &[
        (
            "default",
            "Default flux-housekeeping format string",
            "{id.f58:>12} {nnodes:>6} {pending.nnodes:>7} {runtime!F:>8} {nodelist}",
        ),
        (
            "pending",
            "flux-housekeeping format string including active nodes only",
            "{id.f58:>12} {pending.nnodes:>7} {runtime!F:>8} {pending.nodelist}",
        ),
    ],
};

fn list_args(command: Command) -> Command {
    command
        .arg(value(
            "include",
            Some('i'),
            "HOSTS|RANKS",
            "Limit output to housekeeping jobs on HOSTS|RANKS",
        ))
        .arg(flag("no-header", Some('n'), "Suppress printing of header line"))
        .arg(value(
            "format",
            Some('o'),
            "FORMAT",
            "Specify output format using Python's string format syntax or a defined format by name (use 'help' to get \
             a list of names)",
        ))
}

#[derive(Deserialize)]
struct Stats {
    #[serde(default)]
    housekeeping: Housekeeping,
}

#[derive(Default, Deserialize)]
struct Housekeeping {
    #[serde(default)]
    running: BTreeMap<String, Running>,
}

#[derive(Deserialize)]
struct Running {
    t_start: f64,
    pending: IdSet,
    allocated: IdSet,
}

/// A job whose nodes are cleaned up.
#[derive(Debug)]
struct Row {
    id: JobId,
    t_start: f64,
    pending: IdSet,
    allocated: IdSet,
}

#[derive(Debug)]
struct RowFields {
    now: f64,
    hosts: Hostlist,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Id(Encoding),
    Start,
    Runtime,
    /// Pending instead of allocated nodes, and what of them.
    Nodes(bool, &'static str),
}

impl Fields for RowFields {
    type Field = Field;
    type Row = Row;

    fn resolve(&self, name: &str) -> Option<(Field, String)> {
        let named = |field, heading: &str| Some((field, heading.to_owned()));
        if let Some(encoding) = name.strip_prefix("id.").and_then(Encoding::from_name) {
            return named(Field::Id(encoding), "JOBID");
        }
        let (pending, kind) = match name.split_once('.') {
            Some(("pending", kind)) => (true, kind),
            Some(("allocated", kind)) => (false, kind),
            _ => (false, name),
        };
        match (kind, pending) {
            ("id", _) => named(Field::Id(Encoding::F58), "JOBID"),
            ("t_start", _) => named(Field::Start, "T_START"),
            ("runtime", _) => named(Field::Runtime, "RUNTIME"),
            ("ranks", false) => named(Field::Nodes(false, "ranks"), "RANKS"),
            ("nodelist", false) => named(Field::Nodes(false, "nodelist"), "NODELIST"),
            ("nnodes", false) => named(Field::Nodes(false, "nnodes"), "NNODES"),
            ("ranks", true) => named(Field::Nodes(true, "ranks"), "ACTIVE_RANKS"),
            ("nodelist", true) => named(Field::Nodes(true, "nodelist"), "ACTIVE_NODES"),
            ("nnodes", true) => named(Field::Nodes(true, "nnodes"), "#ACTIVE"),
            _ => None,
        }
    }

    fn value(&self, field: &Field, row: &Row) -> Cell {
        match *field {
            Field::Id(Encoding::F58) => row.id.f58(use_ascii()).into(),
            Field::Id(encoding) => row.id.encode(encoding).into(),
            Field::Start => Cell::Float(row.t_start),
            Field::Runtime => Cell::Float((self.now - row.t_start).max(0.0)),
            Field::Nodes(pending, kind) => {
                let set = if pending { &row.pending } else { &row.allocated };
                match kind {
                    "ranks" => set.to_string().into(),
                    "nnodes" => Cell::Int(i64::try_from(set.count()).unwrap_or(i64::MAX)),
                    _ => hosts_of(&self.hosts, set).into(),
                }
            }
        }
    }
}

fn hosts_of(hosts: &Hostlist, ranks: &IdSet) -> String {
    let mut names = Hostlist::default();
    for host in ranks.iter().filter_map(|rank| hosts.nth(u64::from(rank))) {
        // it stands in a hostlist already
        let _known = names.push(&host);
    }
    names.to_string()
}

/// Reads ranks, or hosts of the instance.
fn targets(word: &str, hosts: &Hostlist) -> Result<IdSet, CmdError> {
    if let Ok(ranks) = word.parse() {
        return Ok(ranks);
    }
    let Ok(wanted) = word.parse::<Hostlist>() else {
        return usage(format!("'{word}' must be a valid Idset or Hostlist"));
    };
    let mut ranks = IdSet::new();
    for host in wanted.iter() {
        match hosts
            .iter()
            .position(|known| known == host)
            .and_then(|at| u32::try_from(at).ok())
        {
            Some(rank) => ranks.insert(rank),
            None => return fail(format!("didn't find {host} in instance hostlist")),
        };
    }
    Ok(ranks)
}

fn list(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut out = stdout();
    let Some(format_text) = FORMATS.choose(text(matches, "format"), &mut out)? else {
        return Ok(0);
    };
    let mut handle = ctx.open()?;
    let hosts = attr::get(&mut handle, "hostlist")?;
    let fields = RowFields {
        now: now(),
        hosts: hosts
            .parse()
            .or_else(|err| fail(format!("attribute hostlist: {err}")))?,
    };
    let format = Format::parse(&format_text, &fields)?;
    let limit = text(matches, "include")
        .map(|word| targets(word, &fields.hosts))
        .transpose()?;
    let stats: Stats = handle.call("job-manager.stats-get", NODEID_ANY, &json!({}))?;
    let mut rows = Vec::new();
    for (name, running) in stats.housekeeping.running {
        let mut row = Row {
            id: parse(&name)?,
            t_start: running.t_start,
            pending: running.pending,
            allocated: running.allocated,
        };
        if let Some(limit) = &limit {
            row.pending = row.pending.intersection(limit);
            row.allocated = row.allocated.intersection(limit);
        }
        if !row.allocated.is_empty() {
            rows.push(row);
        }
    }
    format.print(&fields, &mut rows, matches.get_flag("no-header"), false, &mut out)?;
    out.flush()?;
    Ok(0)
}

fn kill_args(command: Command) -> Command {
    command
        .arg(value(
            "signal",
            Some('s'),
            "SIGNUM",
            "Specify signal to send to housekeeping task (default SIGTERM)",
        ))
        .arg(value(
            "targets",
            Some('t'),
            "RANKS|HOSTS",
            "Only target specific ranks or hostnames",
        ))
        .arg(value(
            "jobid",
            Some('j'),
            "JOBID",
            "Target housekeeping tasks for this jobid",
        ))
        .arg(flag("all", None, "Kill all active housekeeping tasks"))
}

fn kill(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let word = text(matches, "signal").unwrap_or("SIGTERM");
    let Some(signum) = flux_formats::signal::number(word) else {
        return usage(format!("--signal={word}: invalid signal"));
    };
    let (jobid, nodes) = (text(matches, "jobid"), text(matches, "targets"));
    let all = matches.get_flag("all");
    if jobid.is_none() && nodes.is_none() && !all {
        return usage("specify at least one of --targets, --jobid, or --all");
    }
    if all && jobid.is_some() {
        return usage("do not specify --jobid with --all");
    }
    let mut handle = ctx.open()?;
    let mut request = Map::new();
    request.insert("signum".to_owned(), json!(signum));
    if let Some(word) = jobid {
        request.insert("jobid".to_owned(), json!(parse(word)?.0));
    }
    if let Some(word) = nodes {
        let hosts = attr::get(&mut handle, "hostlist")?;
        let hosts = hosts
            .parse()
            .or_else(|err| fail(format!("attribute hostlist: {err}")))?;
        request.insert("ranks".to_owned(), json!(targets(word, &hosts)?.to_string()));
    }
    handle
        .call::<IgnoredAny>("job-manager.housekeeping-kill", NODEID_ANY, &request)
        .map_err(CmdError::doing("kill"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_targets() {
        let hosts: Hostlist = "n[0-3]".parse().unwrap();
        assert_eq!(targets("n[1,3]", &hosts).unwrap().to_string(), "1,3");
        assert_eq!(targets("0-1", &hosts).unwrap().to_string(), "0-1");
        assert!(targets("x9", &hosts).is_err());
        let fields = RowFields { now: 100.0, hosts };
        let format = Format::parse(FORMATS.builtin[0].2, &fields).unwrap();
        let mut rows = [Row {
            id: JobId(1),
            t_start: 40.0,
            pending: "2".parse().unwrap(),
            allocated: "1-2".parse().unwrap(),
        }];
        let mut out = Vec::new();
        format.print(&fields, &mut rows, false, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("       JOBID NNODES #ACTIVE  RUNTIME NODELIST\n"),
            "{text}"
        );
        assert!(text.ends_with("      2       1       1m n[1-2]\n"), "{text}");
    }
}
