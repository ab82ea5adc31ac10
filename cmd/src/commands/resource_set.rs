//! `flux R`: make, combine and read resource sets (RFC 20).

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

use clap::{ArgMatches, Command};
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::resource_set::{Children, Group, ResourceKind, ResourceSet};
use serde_json::Value;

use super::{Entry, config, plain};
use crate::common::args::{flag, list, operand, operands, required, text, value, values};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, chain, fail, usage};
use crate::common::json::python;

/// The sub-commands of `flux R`.
pub(super) static TABLE: &[Entry] = &[
    plain("encode", "Encode simple R objects on stdout", encode_args, encode),
    plain(
        "append",
        "Append multiple RFC 20 R objects on stdin",
        none,
        append,
    ),
    plain(
        "diff",
        "Get the set difference of multiple RFC 20 R objects on stdin",
        none,
        diff,
    ),
    plain(
        "intersect",
        "Get the intersection of multiple RFC 20 R objects on stdin",
        none,
        intersect,
    ),
    plain(
        "remap",
        "Re-rank objects to zero-origin without gaps",
        none,
        remap,
    ),
    plain("rerank", "Re-rank objects by a hostlist", rerank_args, rerank),
    plain(
        "decode",
        "Read R objects and print a part or summary",
        decode_args,
        decode,
    ),
    plain("verify", "Verify R against the local machine", none, verify),
    plain(
        "set-property",
        "Set properties on resources in R",
        property_args,
        set_property,
    ),
    plain(
        "parse-config",
        "Parse config file for resource.config",
        config_args,
        parse_config,
    ),
];

fn none(command: Command) -> Command {
    command
}

fn ids(option: &str, text: &str) -> Result<IdSet, CmdError> {
    text.parse()
        .or_else(|_| usage(format!("{option}: invalid idset '{text}'")))
}

fn describe<T>(result: Result<T, impl std::error::Error>) -> Result<T, CmdError> {
    result.or_else(|err| fail(chain(&err)))
}

fn print(set: &ResourceSet) -> CmdResult {
    writeln!(stdout(), "{}", python(set)?)?;
    Ok(0)
}

/// Reads every R object on standard input.
fn read_all() -> Result<Vec<ResourceSet>, CmdError> {
    let mut input = String::new();
    std::io::stdin()
        .read_to_string(&mut input)
        .map_err(CmdError::file("standard input"))?;
    let mut sets = Vec::new();
    for value in serde_json::Deserializer::from_str(&input).into_iter::<Value>() {
        let value = value.map_err(CmdError::json("standard input"))?;
        sets.push(describe(ResourceSet::from_value(&value))?);
    }
    if sets.is_empty() {
        fail("unable to read R object from standard input")
    } else {
        Ok(sets)
    }
}

/// Reads standard input and joins what is there.
fn read_joined() -> Result<ResourceSet, CmdError> {
    let mut sets = read_all()?.into_iter();
    let mut joined = sets.next().unwrap_or_default();
    for set in sets {
        describe(joined.append(&set))?;
    }
    Ok(joined)
}

fn encode_args(command: Command) -> Command {
    command
        .arg(value(
            "ranks",
            Some('r'),
            "IDSET",
            "Assign target ranks (default: one per host)",
        ))
        .arg(value("cores", Some('c'), "IDS", "Assign core IDs to ranks"))
        .arg(value("gpus", Some('g'), "IDS", "Assign GPU IDs to ranks"))
        .arg(value("hosts", Some('H'), "HOSTS", "Set a hostlist"))
        .arg(values(
            "property",
            Some('p'),
            "NAME[:RANKS]",
            "Set a property NAME on RANKS (default: all ranks)",
        ))
        .arg(flag("local", Some('l'), "Generate R from local hardware"))
        .arg(value(
            "xml",
            Some('f'),
            "FILE",
            "Generate R from an hwloc XML file",
        ))
}

fn encode(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    if text(matches, "xml").is_some() {
        return fail("--xml is not available yet in this version");
    }
    let own = || {
        nix::unistd::gethostname().map_or_else(
            |_| "localhost".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let local = matches.get_flag("local");
    let hosts = match text(matches, "hosts") {
        Some(hosts) => describe(hosts.parse::<Hostlist>())?,
        None => describe(own().parse::<Hostlist>())?,
    };
    let count = u32::try_from(hosts.count()).unwrap_or(u32::MAX);
    let ranks =
        text(matches, "ranks").map_or_else(|| Ok(IdSet::first_n(count)), |text| ids("--ranks", text))?;
    let core = match text(matches, "cores") {
        Some(text) => ids("--cores", text)?,
        None if local => local_cores(),
        None if text(matches, "gpus").is_some() => IdSet::new(),
        None => IdSet::from(0),
    };
    let gpu = text(matches, "gpus").map_or_else(|| Ok(IdSet::new()), |text| ids("--gpus", text))?;
    let mut set = describe(ResourceSet::uniform(ranks.clone(), hosts, Children { core, gpu }))?;
    for property in list(matches, "property") {
        let (name, on) = match property.split_once(':') {
            Some((name, on)) => (name, ids("--property", on)?),
            None => (property, ranks.clone()),
        };
        describe(set.add_property(name, &on))?;
    }
    print(&set)
}

/// Returns the logical numbers of this machine's usable cores; threads of one core count once.
fn local_cores() -> IdSet {
    let allowed = flux_process::affinity::allowed_cpus().unwrap_or_default();
    let read = |cpu: u32, file: &str| -> Option<u32> {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/{file}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let mut cores = BTreeSet::new();
    for cpu in allowed {
        cores.insert((
            read(cpu, "physical_package_id").unwrap_or(0),
            read(cpu, "core_id").unwrap_or(cpu),
        ));
    }
    IdSet::first_n(u32::try_from(cores.len()).unwrap_or(1).max(1))
}

fn append(_ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    print(&read_joined()?)
}

fn fold(with: impl Fn(&ResourceSet, &ResourceSet) -> ResourceSet) -> CmdResult {
    let sets = read_all()?;
    let mut sets = sets.iter();
    let mut result = sets.next().cloned().unwrap_or_default();
    for set in sets {
        result = with(&result, set);
    }
    print(&result)
}

fn diff(_ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    fold(ResourceSet::difference)
}

fn intersect(_ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    fold(ResourceSet::intersection)
}

fn remap(_ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    print(&read_joined()?.remap())
}

fn rerank_args(command: Command) -> Command {
    command.arg(operand("hostlist", "Hosts in the order of their new ranks"))
}

fn rerank(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let hosts = describe(required(matches, "hostlist").parse::<Hostlist>())?;
    print(&describe(read_joined()?.rerank(&hosts))?)
}

fn decode_args(command: Command) -> Command {
    command
        .arg(flag("short", Some('s'), "Print short-form list of resources"))
        .arg(flag("nodelist", Some('n'), "Print nodelist"))
        .arg(flag("ranks", Some('r'), "Print list of ranks"))
        .arg(value(
            "count",
            Some('c'),
            "TYPE",
            "Print count of resource TYPE (node, core, gpu)",
        ))
        .arg(value(
            "include",
            Some('i'),
            "RANKS",
            "Include only specified ranks",
        ))
        .arg(value("exclude", Some('x'), "RANKS", "Exclude specified ranks"))
        .arg(value(
            "properties",
            Some('p'),
            "LIST",
            "Include only ranks with properties in LIST",
        ))
}

fn decode(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let set = read_joined()?;
    let mut ranks = set.ranks();
    if let Some(include) = text(matches, "include") {
        ranks = ranks.intersection(&ids("--include", include)?);
    }
    if let Some(exclude) = text(matches, "exclude") {
        ranks = ranks.difference(&ids("--exclude", exclude)?);
    }
    for property in text(matches, "properties")
        .into_iter()
        .flat_map(|names| names.split(','))
    {
        let (name, negated) = property
            .strip_prefix('^')
            .map_or((property, false), |name| (name, true));
        let having = set.property_ranks(name).cloned().unwrap_or_default();
        ranks = if negated {
            ranks.difference(&having)
        } else {
            ranks.intersection(&having)
        };
    }
    let set = set.copy_ranks(&ranks);
    let line = if let Some(kind) = text(matches, "count") {
        let kind = match kind {
            "node" | "nodes" => ResourceKind::Node,
            "core" | "cores" => ResourceKind::Core,
            "gpu" | "gpus" => ResourceKind::Gpu,
            other => return usage(format!("--count: unknown type '{other}' (use node, core or gpu)")),
        };
        set.count(kind).to_string()
    } else if matches.get_flag("nodelist") {
        set.nodelist().to_string()
    } else if matches.get_flag("ranks") {
        set.ranks().to_string()
    } else if matches.get_flag("short") {
        set.to_string()
    } else {
        return print(&set);
    };
    writeln!(stdout(), "{line}")?;
    Ok(0)
}

fn verify(_ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    let set = read_joined()?;
    let name =
        nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned());
    let Some(at) = set.nodelist().find(&name) else {
        return fail(format!("host {name} is not in R"));
    };
    let rank = set.ranks().nth(at).unwrap_or(0);
    let expected = set
        .children(rank)
        .map(|children| children.core.clone())
        .unwrap_or_default();
    let missing = expected.difference(&local_cores());
    if missing.is_empty() {
        return Ok(0);
    }
    fail(format!("rank {rank} ({name}) missing resources: core[{missing}]"))
}

fn property_args(command: Command) -> Command {
    command.arg(operands("property", 1, "NAME:RANKS"))
}

fn set_property(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut set = read_joined()?;
    for property in list(matches, "property") {
        let (name, ranks) = match property.split_once(':') {
            Some((name, ranks)) => (name, ids("set-property", ranks)?),
            None => (property, set.ranks()),
        };
        describe(set.add_property(name, &ranks))?;
    }
    print(&set)
}

fn config_args(command: Command) -> Command {
    command.arg(operand(
        "path",
        "TOML file or directory with a resource.config array",
    ))
}

fn parse_config(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let path = required(matches, "path");
    let value = match config::read_path(Path::new(path)) {
        Err(CmdError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return fail(format!(
                "flux_conf_parse: stat: {path}: No such file or directory"
            ));
        }
        other => other?,
    };
    let Some(entries) = value.pointer("/resource/config").and_then(Value::as_array) else {
        return fail(format!("{path}: resource.config is not an array"));
    };
    print(&from_config(entries)?)
}

/// Makes R of `[{hosts, cores, gpus, properties}]`; hosts get ranks in the order in which they first appear.
fn from_config(entries: &[Value]) -> Result<ResourceSet, CmdError> {
    let mut hosts = Hostlist::new();
    let mut groups = Vec::new();
    let mut properties: Vec<(String, IdSet)> = Vec::new();
    for entry in entries {
        let field = |name: &str| entry.get(name).and_then(Value::as_str);
        let Some(names) = field("hosts") else {
            return fail("resource.config: entry without hosts");
        };
        let mut ranks = IdSet::new();
        for host in describe(names.parse::<Hostlist>())?.iter() {
            let rank = match hosts.find(&host) {
                Some(rank) => rank,
                None => {
                    describe(hosts.push(&host))?;
                    hosts.count() - 1
                }
            };
            ranks.insert(u32::try_from(rank).unwrap_or(u32::MAX));
        }
        let set = |name: &str| field(name).map_or_else(|| Ok(IdSet::new()), |text| ids(name, text));
        groups.push(Group {
            ranks: ranks.clone(),
            children: Children {
                core: set("cores")?,
                gpu: set("gpus")?,
            },
        });
        for name in entry
            .get("properties")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            match properties.iter_mut().find(|(known, _)| known == name) {
                Some((_, on)) => *on = on.union(&ranks),
                None => properties.push((name.to_owned(), ranks.clone())),
            }
        }
    }
    let mut set = describe(ResourceSet::from_groups(groups, hosts))?;
    for (name, ranks) in &properties {
        describe(set.add_property(name, ranks))?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn configured_resources() {
        let entries = json!([
            {"hosts": "n[0-3]", "cores": "0-1", "properties": ["all"]},
            {"hosts": "n[2-3]", "gpus": "0", "properties": ["gpu"]},
        ]);
        let set = from_config(entries.as_array().unwrap()).unwrap();
        assert_eq!(set.to_string(), "rank[0-1]/core[0-1] rank[2-3]/core[0-1],gpu0");
        assert_eq!(set.property_ranks("gpu").unwrap().to_string(), "2-3");
        assert_eq!(set.nodelist().to_string(), "n[0-3]");
        assert!(from_config(&[json!({"cores": "0"})]).is_err());
        assert!(!local_cores().is_empty());
    }
}
