//! `flux resource list`, `info`, `R`: the scheduler's view of the resources.

use std::collections::BTreeSet;
use std::io::Write;

use clap::{ArgMatches, Command};
use flux_formats::idset::IdSet;
use flux_formats::resource_set::{ResourceKind, ResourceSet};

use crate::common::args::{flag, list, text, value, values};
use crate::common::catalogue::Catalogue;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::format::{Cell, Fields, Format};
use crate::common::json::python;
use crate::common::resources::{Queues, SchedStatus, ranks_of};

const FORMATS: Catalogue = Catalogue {
    program: "flux-resource list",
    file: "flux-resource",
    table: Some("list"),
    variable: "FLUX_RESOURCE_LIST_FORMAT_DEFAULT",
    builtin: &[
        (
            "default",
            "Default flux-resource list format string",
            "{state:>10} ?+:{queue:<5} ?:{propertiesx:<10.10+} {nnodes:>6} +:{ncores:>6} ?+:{ngpus:>5} {nodelist}",
        ),
        (
            "rlist",
            "Format including resource list details",
            "{state:>10} ?+:{queue:<5} ?:{propertiesx:<10.10+} {nnodes:>6} +:{ncores:>6} +?:{ngpus:>5} {rlist}",
        ),
    ],
};

fn selection(command: Command, help: &'static str) -> Command {
    command
        .arg(value("states", Some('s'), "STATE,...", help))
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
}

pub(super) fn args(command: Command) -> Command {
    selection(
        command,
        "Output resources in given states (default free,allocated,down)",
    )
    .arg(value(
        "format",
        Some('o'),
        "FORMAT",
        "Specify output format using Python's string format syntax or a defined format by name",
    ))
    .arg(flag("skip-empty", None, "Skip empty lines of output"))
    .arg(flag("no-skip-empty", None, "Do not skip empty lines of output"))
    .arg(flag("no-header", Some('n'), "Suppress printing of header line"))
}

pub(super) fn info_args(command: Command) -> Command {
    selection(command, "Show resources in the given states (default all)")
}

/// Returns the states of `--states`, checked.
fn states<'m>(matches: &'m ArgMatches, default: &'static str) -> Result<Vec<&'m str>, CmdError> {
    let names: Vec<&str> = text(matches, "states")
        .unwrap_or(default)
        .split(',')
        .map(str::trim)
        .collect();
    for name in &names {
        if !matches!(*name, "free" | "allocated" | "down" | "up" | "all") {
            return usage(format!(
                "Invalid resource state {name} specified; use free, allocated, down, up or all"
            ));
        }
    }
    Ok(names)
}

/// Asks for the resources, limited to `--include` and `--queue`.
fn fetch(ctx: &Ctx, matches: &ArgMatches) -> Result<(SchedStatus, Queues), CmdError> {
    let mut handle = ctx.open()?;
    let rpc = SchedStatus::start(&mut handle)?;
    let queues = Queues::fetch(&mut handle)?;
    let mut status = SchedStatus::finish(&mut handle, &rpc)?;
    if let Some(include) = text(matches, "include") {
        let ranks = ranks_of(include, &status.all)?;
        status.restrict(&ranks);
    }
    let wanted: Vec<&str> = list(matches, "queue")
        .into_iter()
        .flat_map(|names| names.split(','))
        .collect();
    if !wanted.is_empty() {
        let mut ranks = IdSet::new();
        for name in wanted {
            match queues.ranks(name, &status.all) {
                Some(found) => ranks = ranks.union(&found),
                None => return fail(format!("{name}: no such queue")),
            }
        }
        status.restrict(&ranks);
    }
    Ok((status, queues))
}

#[derive(Debug)]
struct Row {
    state: String,
    queues: String,
    properties: String,
    shown_properties: String,
    set: ResourceSet,
}

#[derive(Debug)]
struct ListFields;

impl Fields for ListFields {
    type Field = &'static str;
    type Row = Row;

    fn resolve(&self, name: &str) -> Option<(&'static str, String)> {
        const HEADINGS: [(&str, &str); 10] = [
            ("state", "STATE"),
            ("queue", "QUEUE"),
            ("properties", "PROPERTIES"),
            ("propertiesx", "PROPERTIES"),
            ("nnodes", "NNODES"),
            ("ncores", "NCORES"),
            ("ngpus", "NGPUS"),
            ("nodelist", "NODELIST"),
            ("ranks", "RANKS"),
            ("rlist", "LIST"),
        ];
        HEADINGS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(known, heading)| (*known, (*heading).to_owned()))
    }

    fn value(&self, field: &&'static str, row: &Row) -> Cell {
        let count = |kind| Cell::Int(i64::try_from(row.set.count(kind)).unwrap_or(i64::MAX));
        match *field {
            "state" => row.state.as_str().into(),
            "queue" => row.queues.as_str().into(),
            "properties" => row.properties.as_str().into(),
            "propertiesx" => row.shown_properties.as_str().into(),
            "nnodes" => count(ResourceKind::Node),
            "ncores" => count(ResourceKind::Core),
            "ngpus" => count(ResourceKind::Gpu),
            "nodelist" => row.set.nodelist().to_string().into(),
            "ranks" => row.set.ranks().to_string().into(),
            _ => row.set.to_string().into(),
        }
    }
}

/// Splits the resources of a state into rows whose nodes have the same properties.
fn rows_of(state: &str, set: &ResourceSet, all: &ResourceSet, queues: &Queues) -> Vec<Row> {
    let mut kinds: Vec<(BTreeSet<&str>, IdSet)> = Vec::new();
    for rank in set.ranks().iter() {
        let properties: BTreeSet<&str> = all
            .properties()
            .filter(|(_, ranks)| ranks.contains(rank))
            .map(|(name, _)| name)
            .collect();
        match kinds.iter_mut().find(|(known, _)| *known == properties) {
            Some((_, ranks)) => {
                ranks.insert(rank);
            }
            None => kinds.push((properties, IdSet::from(rank))),
        }
    }
    if kinds.is_empty() {
        kinds.push((BTreeSet::new(), IdSet::new()));
    }
    kinds
        .into_iter()
        .map(|(properties, ranks)| {
            let names: Vec<&str> = properties.into_iter().collect();
            let shown: Vec<&str> = names
                .iter()
                .copied()
                .filter(|name| !queues.is_queue_property(name))
                .collect();
            Row {
                state: state.to_owned(),
                queues: ranks
                    .first()
                    .map_or_else(String::new, |rank| queues.of_rank(all, rank).join(",")),
                properties: names.join(","),
                shown_properties: shown.join(","),
                set: set.copy_ranks(&ranks),
            }
        })
        .collect()
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut out = stdout();
    let Some(format_text) = FORMATS.choose(text(matches, "format"), &mut out)? else {
        return Ok(0);
    };
    let format = Format::parse(&format_text, &ListFields)?;
    let names = states(matches, "free,allocated,down")?;
    let (status, queues) = fetch(ctx, matches)?;
    let skip_empty = matches.get_flag("skip-empty") && !matches.get_flag("no-skip-empty");
    let mut rows = Vec::new();
    for name in names {
        let set = status.state(name).unwrap_or_default();
        rows.extend(rows_of(name, &set, &status.all, &queues));
    }
    if skip_empty {
        rows.retain(|row| !row.set.is_empty());
    }
    format.print(
        &ListFields,
        &mut rows,
        matches.get_flag("no-header"),
        false,
        &mut out,
    )?;
    out.flush()?;
    Ok(0)
}

fn selected(ctx: &Ctx, matches: &ArgMatches) -> Result<ResourceSet, CmdError> {
    let names = states(matches, "all")?;
    let (status, _) = fetch(ctx, matches)?;
    let mut set = ResourceSet::new();
    for name in names {
        set = set.union(&status.state(name).unwrap_or_default());
    }
    Ok(set)
}

pub(super) fn info(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let set = selected(ctx, matches)?;
    writeln!(
        stdout(),
        "{} Nodes, {} Cores, {} GPUs",
        set.count(ResourceKind::Node),
        set.count(ResourceKind::Core),
        set.count(ResourceKind::Gpu)
    )?;
    Ok(0)
}

pub(super) fn print_r(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    writeln!(stdout(), "{}", python(&selected(ctx, matches)?)?)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(ranks: &str, hosts: &str) -> ResourceSet {
        ResourceSet::from_value(&json!({"version": 1, "execution": {
            "R_lite": [{"rank": ranks, "children": {"core": "0-1"}}],
            "starttime": 0.0, "expiration": 0.0, "nodelist": [hosts]}}))
        .unwrap()
    }

    fn show(status: &SchedStatus, format: &str, queues: &Queues) -> String {
        let format = Format::parse(
            &FORMATS
                .choose(Some(format), &mut std::io::sink())
                .unwrap()
                .unwrap(),
            &ListFields,
        )
        .unwrap();
        let mut rows = Vec::new();
        for name in ["free", "allocated", "down"] {
            rows.extend(rows_of(name, &status.state(name).unwrap(), &status.all, queues));
        }
        let mut out = Vec::new();
        format
            .print(&ListFields, &mut rows, false, false, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_like_the_original() {
        let all = set("0-3", "vm,vm,vm,vm");
        let status = SchedStatus {
            allocated: all.clone(),
            all,
            ..SchedStatus::default()
        };
        assert_eq!(
            show(&status, "default", &Queues::default()),
            "     STATE NNODES NCORES NGPUS NODELIST\n      free      0      0     0 \n \
             allocated      4      8     0 vm,vm,vm,vm\n      down      0      0     0 \n"
        );
        assert_eq!(
            show(&status, "rlist", &Queues::default()),
            "     STATE NNODES NCORES +NGPUS LIST\n      free      0      0 +    0 \n \
             allocated      4      8 +    0 rank[0-3]/core[0-1]\n      down      0      0 +    0 \n"
        );
    }

    #[test]
    fn rows_by_queue_and_property() {
        let mut all = set("0-3", "n0,n1,n2,n3");
        all.add_property("batch", &"0-2".parse().unwrap()).unwrap();
        all.add_property("fast", &"2-3".parse().unwrap()).unwrap();
        let config: Value = json!({"queues": {"batch": {"requires": ["batch"]}}});
        let status = SchedStatus {
            all,
            ..SchedStatus::default()
        };
        let table = show(&status, "default", &Queues::from_config(config));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[0],
            "     STATE QUEUE PROPERTIES NNODES NCORES NGPUS NODELIST"
        );
        assert_eq!(lines[1], "      free batch                 2      4     0 n[0-1]");
        assert_eq!(lines[2], "      free batch fast            1      2     0 n2");
        assert_eq!(lines[3], "      free       fast            1      2     0 n3");
    }
}
