//! `flux resource status`: which nodes are available, excluded, drained or offline?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{Handle, Message};
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::resource_set::ResourceSet;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::common::args::{flag, text, value, values};
use crate::common::catalogue::Catalogue;
use crate::common::color;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::format::{Cell, Fields, Format};
use crate::common::resources::{Queues, SchedStatus, ranks_of};

const FORMATS: Catalogue = Catalogue {
    program: "flux-resource status",
    file: "flux-resource",
    table: Some("status"),
    variable: "FLUX_RESOURCE_STATUS_FORMAT_DEFAULT",
    builtin: &[
        (
            "default",
            "Default flux-resource status format string",
            "{state:>12} {color_up}{up:>2}{color_off} {nnodes:>6} {nodelist}",
        ),
        (
            "long",
            "Extended flux-resource status format string",
            "{state:>12} {color_up}{up:>2}{color_off} {nnodes:>6} +:{reason:<30.30} {nodelist}",
        ),
    ],
};
/// States of the listing, in order.
const STATES: [&str; 11] = [
    "avail",
    "exclude",
    "draining",
    "drained",
    "torpid",
    "housekeeping",
    "drain",
    "online",
    "offline",
    "allocated",
    "all",
];
const STATES_DEFAULT: &str = "avail,exclude,draining,drained,torpid,housekeeping";

pub(super) fn args(command: Command) -> Command {
    command
        .arg(value(
            "format",
            Some('o'),
            "FORMAT",
            "Specify output format using Python's string format syntax or a defined format by name",
        ))
        .arg(value(
            "states",
            Some('s'),
            "STATE,...",
            "Output resources in given states (use 'help' for a list)",
        ))
        .arg(value(
            "include",
            Some('i'),
            "TARGETS",
            "Include only specified targets in output (ranks or hosts)",
        ))
        .arg(values(
            "queue",
            Some('q'),
            "QUEUE,...",
            "Include only specified queues in output",
        ))
        .arg(flag("no-header", Some('n'), "Suppress printing of header line"))
        .arg(color::option(Some('L')))
        .arg(flag(
            "skip-empty",
            None,
            "Skip empty lines of output even with --states",
        ))
}

/// Nodes that were drained together.
#[derive(Clone, Debug)]
pub(super) struct Drained {
    pub(super) ranks: IdSet,
    pub(super) timestamp: f64,
    pub(super) reason: String,
}

/// What the resource module, the scheduler and housekeeping say together.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) all: ResourceSet,
    pub(super) drained: Vec<Drained>,
    online: IdSet,
    exclude: IdSet,
    torpid: IdSet,
    allocated: IdSet,
    housekeeping: IdSet,
}

#[derive(Deserialize)]
struct StatusResponse {
    #[serde(rename = "R")]
    r: Value,
    #[serde(default)]
    drain: Map<String, Value>,
    #[serde(default)]
    online: IdSet,
    #[serde(default)]
    exclude: IdSet,
    #[serde(default)]
    torpid: IdSet,
}

impl View {
    /// Asks for everything at once; scheduler and housekeeping may be absent.
    pub(super) fn fetch(handle: &mut Handle) -> Result<Self, CmdError> {
        let status = handle.rpc_message(Message::request("resource.status", 0, None))?;
        let sched = SchedStatus::start(handle)?;
        let stats = handle.rpc_message(Message::request("job-manager.stats-get", 0, None))?;
        let response: StatusResponse = handle.get(&status)?;
        let sched = SchedStatus::finish(handle, &sched).unwrap_or_default();
        let stats: Value = handle.get(&stats).unwrap_or(Value::Null);
        View::new(response, &sched, &stats)
    }

    fn new(response: StatusResponse, sched: &SchedStatus, stats: &Value) -> Result<Self, CmdError> {
        let all = match ResourceSet::from_value(&response.r) {
            Ok(all) => all,
            Err(err) => return fail(format!("resource.status: R: {err}")),
        };
        let mut drained = Vec::new();
        for (ranks, about) in &response.drain {
            let Ok(ranks) = ranks.parse::<IdSet>() else {
                return fail(format!("resource.status: drain: '{ranks}'"));
            };
            drained.push(Drained {
                ranks,
                timestamp: about.get("timestamp").and_then(Value::as_f64).unwrap_or(0.0),
                reason: about
                    .get("reason")
                    .and_then(Value::as_str)
                    .unwrap_or("")
                    .to_owned(),
            });
        }
        let mut housekeeping = IdSet::new();
        for job in stats
            .pointer("/housekeeping/running")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::values)
        {
            let ranks = job
                .get("pending")
                .or_else(|| job.get("allocated"))
                .and_then(Value::as_str)
                .unwrap_or("");
            housekeeping = housekeeping.union(&ranks.parse().unwrap_or_default());
        }
        Ok(View {
            all,
            drained,
            online: response.online,
            exclude: response.exclude,
            torpid: response.torpid,
            allocated: sched.allocated.ranks(),
            housekeeping,
        })
    }

    fn drained_ranks(&self) -> IdSet {
        self.drained
            .iter()
            .fold(IdSet::new(), |all, drained| all.union(&drained.ranks))
    }

    /// Returns true for drained nodes on which something still runs.
    fn busy(&self) -> IdSet {
        self.allocated.union(&self.housekeeping)
    }

    /// Returns the ranks of a state that holds no drained nodes' details.
    fn ranks(&self, state: &str) -> IdSet {
        let all = self.all.ranks();
        match state {
            "avail" => all.difference(&self.exclude).difference(&self.drained_ranks()),
            "exclude" => self.exclude.clone(),
            "torpid" => self.torpid.clone(),
            "housekeeping" => self.housekeeping.clone(),
            "online" => self.online.clone(),
            "offline" => all.difference(&self.online),
            "allocated" => self.allocated.clone(),
            _ => all,
        }
    }

    /// Returns the rows of a state: drained nodes by reason, others as one; nodes that are offline apart.
    fn rows(&self, state: &'static str, limit: &IdSet, detail: bool, out: &mut Vec<Row>) {
        let groups: Vec<Drained> = match state {
            "drain" | "draining" | "drained" => self
                .drained
                .iter()
                .map(|drained| Drained {
                    ranks: match state {
                        "draining" => drained.ranks.intersection(&self.busy()),
                        "drained" => drained.ranks.difference(&self.busy()),
                        _ => drained.ranks.clone(),
                    },
                    ..drained.clone()
                })
                .collect(),
            _ => vec![Drained {
                ranks: self.ranks(state),
                timestamp: 0.0,
                reason: String::new(),
            }],
        };
        let groups = if detail { groups } else { merge(groups) };
        let first = out.len();
        for online in [true, false] {
            for group in &groups {
                let ranks = group.ranks.intersection(limit);
                let ranks = if online {
                    ranks.intersection(&self.online)
                } else {
                    ranks.difference(&self.online)
                };
                if ranks.is_empty() {
                    continue;
                }
                out.push(Row {
                    state,
                    online,
                    hosts: self.all.hosts_of(&ranks),
                    ranks,
                    timestamp: group.timestamp,
                    reason: group.reason.clone(),
                });
            }
        }
        if out.len() == first {
            out.push(Row {
                state,
                online: true,
                ranks: IdSet::new(),
                hosts: Hostlist::new(),
                timestamp: 0.0,
                reason: String::new(),
            });
        }
    }

    /// Returns the rows of the drained nodes, for `flux resource drain` without targets.
    pub(super) fn drain_rows(&self, limit: &IdSet) -> Vec<Row> {
        let mut rows = Vec::new();
        for state in ["draining", "drained"] {
            self.rows(state, limit, true, &mut rows);
        }
        rows.retain(|row| !row.ranks.is_empty());
        rows.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
        rows
    }
}

fn merge(groups: Vec<Drained>) -> Vec<Drained> {
    let mut ranks = IdSet::new();
    for group in &groups {
        ranks = ranks.union(&group.ranks);
    }
    vec![Drained {
        ranks,
        timestamp: 0.0,
        reason: String::new(),
    }]
}

/// One line of the listing.
#[derive(Clone, Debug)]
pub(super) struct Row {
    state: &'static str,
    online: bool,
    ranks: IdSet,
    hosts: Hostlist,
    timestamp: f64,
    reason: String,
}

/// The fields of status and drain listings.
#[derive(Debug)]
pub(super) struct StatusFields;

impl Fields for StatusFields {
    type Field = &'static str;
    type Row = Row;

    fn resolve(&self, name: &str) -> Option<(&'static str, String)> {
        const HEADINGS: [(&str, &str); 12] = [
            ("state", "STATE"),
            ("statex", "STATE"),
            ("nnodes", "NNODES"),
            ("ranks", "RANKS"),
            ("nodelist", "NODELIST"),
            ("reason", "REASON"),
            ("timestamp", "TIME"),
            ("status", "STATUS"),
            ("up", "UP"),
            ("up.ascii", "UP"),
            ("color_up", ""),
            ("color_off", ""),
        ];
        HEADINGS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(known, heading)| (*known, (*heading).to_owned()))
    }

    fn value(&self, field: &&'static str, row: &Row) -> Cell {
        match *field {
            "state" if !row.online && row.state != "offline" => format!("{}*", row.state).into(),
            "state" | "statex" => row.state.into(),
            "nnodes" => Cell::Int(i64::try_from(row.ranks.count()).unwrap_or(i64::MAX)),
            "ranks" => row.ranks.to_string().into(),
            "nodelist" => row.hosts.to_string().into(),
            "reason" => row.reason.as_str().into(),
            "timestamp" if row.timestamp > 0.0 => Cell::Float(row.timestamp),
            "timestamp" => Cell::None,
            "status" => if row.online { "online" } else { "offline" }.into(),
            "up" => if row.online { "✔" } else { "✗" }.into(),
            "up.ascii" => if row.online { "y" } else { "n" }.into(),
            "color_up" => if row.online { "\x1b[01;32m" } else { "\x1b[01;31m" }.into(),
            _ => "\x1b[0;0m".into(),
        }
    }
}

/// Returns the ranks of `--include` and `--queue`.
pub(super) fn limit(handle: &mut Handle, matches: &ArgMatches, all: &ResourceSet) -> Result<IdSet, CmdError> {
    let mut ranks = all.ranks();
    if let Some(include) = text(matches, "include") {
        ranks = ranks.intersection(&ranks_of(include, all)?);
    }
    let names: Vec<&str> = crate::common::args::list(matches, "queue")
        .into_iter()
        .flat_map(|names| names.split(','))
        .collect();
    if !names.is_empty() {
        let queues = Queues::fetch(handle)?;
        let mut usable = IdSet::new();
        for name in names {
            match queues.ranks(name, all) {
                Some(found) => usable = usable.union(&found),
                None => return fail(format!("{name}: no such queue")),
            }
        }
        ranks = ranks.intersection(&usable);
    }
    Ok(ranks)
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut out = stdout();
    let given = text(matches, "states");
    if given == Some("help") {
        writeln!(out, "valid states: {}", STATES.join(","))?;
        out.flush()?;
        return Ok(0);
    }
    let mut wanted = Vec::new();
    for name in given.unwrap_or(STATES_DEFAULT).split(',').map(str::trim) {
        match STATES.iter().find(|state| **state == name) {
            Some(state) => wanted.push(*state),
            None => {
                return usage(format!(
                    "Invalid resource state {name} specified; use {}",
                    STATES.join(",")
                ));
            }
        }
    }
    let Some(format_text) = FORMATS.choose(text(matches, "format"), &mut out)? else {
        return Ok(0);
    };
    let format = Format::parse(&format_text, &StatusFields)?;
    let detail = format
        .fields()
        .any(|field| matches!(*field, "reason" | "timestamp"));
    let colored = color::wanted(matches)?;
    let mut handle = ctx.open()?;
    let view = View::fetch(&mut handle)?;
    let limit = limit(&mut handle, matches, &view.all)?;
    let mut rows = Vec::new();
    for state in wanted {
        view.rows(state, &limit, detail, &mut rows);
    }
    let keep_empty = given.is_some() && !matches.get_flag("skip-empty");
    rows.retain(|row| keep_empty || !row.ranks.is_empty() || row.state == "avail");
    format.print(
        &StatusFields,
        &mut rows,
        matches.get_flag("no-header"),
        colored,
        &mut out,
    )?;
    out.flush()?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view() -> View {
        let r = json!({"version": 1, "execution": {"R_lite": [{"rank": "0-3", "children": {"core": "0-1"}}],
            "starttime": 0.0, "expiration": 0.0, "nodelist": ["n[0-3]"]}});
        let response: StatusResponse = serde_json::from_value(
            json!({"R": r, "drain": {"3": {"timestamp": 1.0, "reason": "bad node"}},
            "online": "0-1,3", "offline": "2", "exclude": "0", "torpid": ""}),
        )
        .unwrap();
        View::new(
            response,
            &SchedStatus::default(),
            &json!({"housekeeping": {"running": {"f1": {"pending": "3"}}}}),
        )
        .unwrap()
    }

    fn show(format: &str, states: &[&'static str]) -> String {
        let view = view();
        let format = Format::parse(
            &FORMATS
                .choose(Some(format), &mut std::io::sink())
                .unwrap()
                .unwrap(),
            &StatusFields,
        )
        .unwrap();
        let mut rows = Vec::new();
        for state in states {
            view.rows(state, &view.all.ranks(), true, &mut rows);
        }
        rows.retain(|row| !row.ranks.is_empty());
        let mut out = Vec::new();
        format
            .print(&StatusFields, &mut rows, false, false, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn table_like_the_original() {
        assert_eq!(
            show(
                "default",
                &["avail", "exclude", "draining", "drained", "housekeeping"]
            ),
            "       STATEUP NNODES NODELIST\n       avail ✔      1 n1\n      avail* ✗      1 n2\n     exclude ✔      1 n0\n    \
             draining ✔      1 n3\nhousekeeping ✔      1 n3\n"
        );
        assert!(show("long", &["draining"]).contains(" bad node                       n3\n"));
        assert!(show("default", &["offline"]).ends_with("     offline ✗      1 n2\n"));
        assert_eq!(view().drain_rows(&view().all.ranks()).len(), 1);
    }
}
