//! `flux queue list`: which queues are there, with which limits and resources?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_formats::resource_set::{ResourceKind, ResourceSet};
use serde_json::Value;

use super::{Status, fetch_status, list_queues};
use crate::common::args::{flag, text, value, values};
use crate::common::catalogue::Catalogue;
use crate::common::color::is_person;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdResult, fail};
use crate::common::format::{Cell, Fields, Format};
use crate::common::resources::{Queues, SchedStatus};
use crate::common::time::parse_fsd;

const FORMATS: Catalogue = Catalogue {
    program: "flux-queue list",
    file: "flux-queue",
    table: Some("list"),
    variable: "FLUX_QUEUE_LIST_FORMAT_DEFAULT",
    builtin: &[
        (
            "default",
            "Default flux-queue list format string",
            "?:{queuem:<8.8} ?:{parent:<8.8} {color_enabled}{enabled:>2}{color_off} {color_started}{started:>2}{color_off} \
         {defaults.timelimit!F:>8} {limits.timelimit!F:>8} {limits.range.effective.nnodes:>10} \
         {limits.range.effective.ncores:>10} {limits.range.effective.ngpus:>10}",
        ),
        (
            "policy",
            "Queue limits and defaults from policy",
            "?:{queuem:<8.8} {defaults.timelimit!F:>11} {limits.timelimit!F:>10} {limits.range.nnodes:>10} \
         {limits.range.ncores:>10} {limits.range.ngpus:>10}",
        ),
        (
            "nodes",
            "Nodes of each queue",
            "?:{queuem:<8.8} {resources.all.nnodes:>6} {resources.up.nnodes:>6} {resources.allocated.nnodes:>6} \
         {resources.free.nnodes:>6}",
        ),
    ],
};

pub(super) fn args(command: Command) -> Command {
    command
        .arg(values(
            "queue",
            Some('q'),
            "QUEUE,...",
            "Include only specified queues in output",
        ))
        .arg(value(
            "format",
            Some('o'),
            "FORMAT",
            "Specify output format using Python's string format syntax or a defined format by name",
        ))
        .arg(flag("no-header", Some('n'), "Suppress printing of header line"))
}

/// One queue as the table shows it.
#[derive(Debug)]
struct Row {
    name: String,
    is_default: bool,
    status: Status,
    /// The queue's own policy, else the general one.
    policies: [Value; 2],
    resources: SchedStatus,
}

impl Row {
    /// Returns a value of the queue's policy, else of the general policy.
    fn policy(&self, path: &str) -> Option<&Value> {
        self.policies.iter().find_map(|policy| policy.pointer(path))
    }

    fn seconds(&self, path: &str) -> f64 {
        let secs = match self.policy(path) {
            Some(Value::String(text)) => parse_fsd(text).unwrap_or(0.0),
            Some(number) => number.as_f64().unwrap_or(0.0),
            None => 0.0,
        };
        if secs > 0.0 { secs } else { f64::INFINITY }
    }

    fn limit(&self, side: &str, unit: &str) -> Option<i64> {
        self.policy(&format!("/limits/job-size/{side}/{unit}"))
            .and_then(Value::as_i64)
            .filter(|limit| *limit >= 0)
    }

    fn count(&self, set: &ResourceSet, unit: &str) -> i64 {
        let kind = match unit {
            "nnodes" => ResourceKind::Node,
            "ncores" => ResourceKind::Core,
            _ => ResourceKind::Gpu,
        };
        i64::try_from(set.count(kind)).unwrap_or(i64::MAX)
    }

    fn range(&self, unit: &str, effective: bool) -> String {
        let min = self.limit("min", unit).unwrap_or(0);
        let max = match (self.limit("max", unit), effective) {
            (limit, true) => {
                let total = self.count(&self.resources.all, unit);
                Some(limit.map_or(total, |limit| limit.min(total)))
            }
            (limit, false) => limit,
        };
        max.map_or_else(|| format!("{min}-inf"), |max| format!("{min}-{max}"))
    }
}

#[derive(Debug)]
struct QueueFields;

/// Names of fields with fixed headings.
const HEADINGS: &[(&str, &str)] = &[
    ("queue", "QUEUE"),
    ("queuem", "QUEUE"),
    ("parent", "PARENT"),
    ("submission", "SUBMIT"),
    ("scheduling", "SCHED"),
    ("enabled", "EN"),
    ("enabled.ascii", "EN"),
    ("started", "ST"),
    ("started.ascii", "ST"),
    ("color_enabled", ""),
    ("color_started", ""),
    ("color_off", ""),
    ("defaults.timelimit", "TDEFAULT"),
    ("limits.timelimit", "TLIMIT"),
];

impl Fields for QueueFields {
    type Field = String;
    type Row = Row;

    fn resolve(&self, name: &str) -> Option<(String, String)> {
        if let Some((_, heading)) = HEADINGS.iter().find(|(known, _)| *known == name) {
            return Some((name.to_owned(), (*heading).to_owned()));
        }
        let (path, unit) = name.rsplit_once('.')?;
        if !matches!(unit, "nnodes" | "ncores" | "ngpus") {
            return None;
        }
        let unit_heading = unit.to_uppercase();
        let heading = match path {
            "limits.range" | "limits.range.effective" => unit_heading,
            "limits.min" => format!("MIN{}", unit_heading.trim_start_matches('N')),
            "limits.max" => format!("MAX{}", unit_heading.trim_start_matches('N')),
            "resources.all" => "TOTAL".to_owned(),
            "resources.free" => "FREE".to_owned(),
            "resources.allocated" => "ALLOC".to_owned(),
            "resources.up" => "UP".to_owned(),
            "resources.down" => "DOWN".to_owned(),
            _ => return None,
        };
        Some((name.to_owned(), heading))
    }

    fn value(&self, field: &String, row: &Row) -> Cell {
        let mark = |on: bool| Cell::from(if on { "✔" } else { "✗" });
        let letter = |on: bool| Cell::from(if on { "y" } else { "n" });
        let paint = |on: bool| Cell::from(if on { "\x1b[01;32m" } else { "\x1b[01;31m" });
        match field.as_str() {
            "queue" => row.name.as_str().into(),
            "queuem" if row.is_default => format!("{}*", row.name).into(),
            "queuem" => row.name.as_str().into(),
            "parent" => row.status.parent.as_deref().unwrap_or("").into(),
            "submission" => if row.status.enable { "enabled" } else { "disabled" }.into(),
            "scheduling" => if row.status.start { "started" } else { "stopped" }.into(),
            "enabled" => mark(row.status.enable),
            "started" => mark(row.status.start),
            "enabled.ascii" => letter(row.status.enable),
            "started.ascii" => letter(row.status.start),
            "color_enabled" => paint(row.status.enable),
            "color_started" => paint(row.status.start),
            "color_off" => "\x1b[0;0m".into(),
            "defaults.timelimit" => Cell::Float(row.seconds("/jobspec/defaults/system/duration")),
            "limits.timelimit" => Cell::Float(row.seconds("/limits/duration")),
            other => row.counted(other),
        }
    }
}

impl Row {
    fn counted(&self, field: &str) -> Cell {
        let Some((path, unit)) = field.rsplit_once('.') else {
            return Cell::None;
        };
        let limit = |value: Option<i64>| value.map_or(Cell::from("inf"), Cell::Int);
        match path {
            "limits.range" => self.range(unit, false).into(),
            "limits.range.effective" => self.range(unit, true).into(),
            "limits.min" => Cell::Int(self.limit("min", unit).unwrap_or(0)),
            "limits.max" => limit(self.limit("max", unit)),
            other => other
                .strip_prefix("resources.")
                .and_then(|state| self.resources.state(state))
                .map_or(Cell::None, |set| Cell::Int(self.count(&set, unit))),
        }
    }
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut out = stdout();
    let Some(mut format_text) = FORMATS.choose(text(matches, "format"), &mut out)? else {
        return Ok(0);
    };
    if !is_person() {
        // Without colours their columns would take the space between the others along.
        for name in ["color_enabled", "color_started", "color_off"] {
            format_text = format_text.replace(&format!("{{{name}}}"), "");
        }
    }
    let format = Format::parse(&format_text, &QueueFields)?;
    let mut handle = ctx.open()?;
    let status_rpc = SchedStatus::start(&mut handle)?;
    let queues = Queues::fetch(&mut handle)?;
    let mut names = list_queues(&mut handle)?;
    let wanted: Vec<&str> = crate::common::args::list(matches, "queue")
        .into_iter()
        .flat_map(|names| names.split(','))
        .collect();
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !names.iter().any(|known| known == *name))
    {
        return fail(format!("No such queue: {unknown}"));
    }
    if !wanted.is_empty() {
        names.retain(|name| wanted.contains(&name.as_str()));
    }
    let states = fetch_status(&mut handle, &names)?;
    let resources = SchedStatus::finish(&mut handle, &status_rpc)?;
    let general = queues.config.get("policy").cloned().unwrap_or(Value::Null);
    let default = general
        .pointer("/jobspec/defaults/system/queue")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let mut rows = Vec::new();
    for (at, status) in states.into_iter().enumerate() {
        let name = names.get(at).cloned().unwrap_or_default();
        let own = queues
            .config
            .pointer(&format!("/queues/{name}/policy"))
            .cloned()
            .unwrap_or(Value::Null);
        let mut usable = resources.clone();
        if let Some(ranks) = queues.ranks(&name, &resources.all) {
            usable.restrict(&ranks);
        }
        let is_default = default.as_deref() == Some(name.as_str());
        rows.push(Row {
            name,
            is_default,
            status,
            policies: [own, general.clone()],
            resources: usable,
        });
    }
    format.print(
        &QueueFields,
        &mut rows,
        matches.get_flag("no-header"),
        is_person(),
        &mut out,
    )?;
    out.flush()?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn table_like_the_original() {
        let all = json!({"version": 1, "execution": {"R_lite": [{"rank": "0-3", "children": {"core": "0-1"}}],
            "starttime": 0.0, "expiration": 0.0, "nodelist": ["vm,vm,vm,vm"]}});
        let row = |name: &str| Row {
            name: name.to_owned(),
            is_default: !name.is_empty(),
            status: serde_json::from_value(json!({"enable": true, "start": false})).unwrap(),
            policies: [
                json!({"limits": {"duration": "1h", "job-size": {"max": {"nnodes": 2}}}}),
                Value::Null,
            ],
            resources: SchedStatus {
                all: ResourceSet::from_value(&all).unwrap(),
                ..SchedStatus::default()
            },
        };
        let show = |name: &str, format: &str, colored| {
            let format = Format::parse(
                &FORMATS
                    .choose(Some(format), &mut std::io::sink())
                    .unwrap()
                    .unwrap(),
                &QueueFields,
            )
            .unwrap();
            let mut out = Vec::new();
            format
                .print(&QueueFields, &mut [row(name)], false, colored, &mut out)
                .unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            show("", "default", true),
            " EN ST TDEFAULT   TLIMIT     NNODES     NCORES      NGPUS\n \
             \x1b[01;32m ✔\x1b[0;0m \x1b[01;31m ✗\x1b[0;0m      inf       1h        0-2        0-8        0-0\n"
        );
        assert!(
            show("batch", "policy", false)
                .ends_with("batch*           inf         1h        0-2      0-inf      0-inf\n")
        );
        assert!(show("batch", "nodes", false).ends_with("batch*        4      4      0      4\n"));
    }
}
