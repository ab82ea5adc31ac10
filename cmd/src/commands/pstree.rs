//! `flux pstree`: the jobs of this instance, and those of the instances that they run, as a tree.

use std::io::{IsTerminal, Write};

use clap::{ArgMatches, Command};
use flux_client::{Handle, attr};
use serde_json::json;

use crate::common::args::{flag, list, operands, parsed, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, usage};
use crate::common::format::{Format, Layout};
use crate::common::time::now;
use crate::joblist::{Field, Filter, JobFields, Query, Record, fetch_ids, fetch_instances, list_jobs};

/// Jobs of one instance that are shown when nobody says how many.
const COUNT_DEFAULT: u64 = 1000;
/// Columns when standard output is no terminal and COLUMNS says nothing.
const COLUMNS_DEFAULT: usize = 80;

/// Formats of `--details`.
const DETAILS: &[(&str, &str)] = &[
    (
        "default",
        "{id.f58:>12} {username:<8.8} {ntasks:>6h} {nnodes:>6h} {runtime!F:>8h}",
    ),
    (
        "resources",
        "{id.f58:>12} {instance.resources.all.nnodes:>5} {instance.resources.allocated.nnodes:>5} \
         {instance.resources.all.ncores:>5} {instance.resources.allocated.ncores:>5} \
         {instance.resources.all.ngpus:>5} {instance.resources.allocated.ngpus:>5}",
    ),
    (
        "progress",
        "{id.f58:>12} {ntasks:>6h} {instance.stats.total:>6} {instance.progress!P:>5} {instance.utilization!P:>5} \
         {instance.gpu_utilization!P:>5} {runtime!H:>10}",
    ),
    ("stats", "{id.f58:>12} {instance.stats:^25} {runtime!H:>10}"),
];

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag("all", Some('a'), "Include all jobs for current user in all states"))
        .arg(value("count", Some('c'), "N", "Limit to N jobs per instance (default 1000)"))
        .arg(value(
            "filter",
            Some('f'),
            "STATE|RESULT",
            "List jobs with specific job state or result (default running)",
        ))
        .arg(flag("extended", Some('x'), "Print extended details before tree output"))
        .arg(flag("long", Some('l'), "Do not truncate long lines to terminal width"))
        .arg(value("level", Some('L'), "N", "Only descend N levels"))
        .arg(flag("parent-ids", Some('p'), "Include jobids in parent labels"))
        .arg(flag(
            "no-header",
            Some('n'),
            "Suppress header with -x, --extended",
        ))
        .arg(flag(
            "no-combine",
            Some('X'),
            "Disable combination of identical children",
        ))
        .arg(value(
            "label",
            Some('o'),
            "FORMAT",
            "Change label format (default='{name}')",
        ))
        .arg(value(
            "parent-label",
            None,
            "FORMAT",
            "Change label format for parent only",
        ))
        .arg(value(
            "detail-format",
            None,
            "FORMAT",
            "Specify output format for extended details (implies -x)",
        ))
        .arg(value(
            "details",
            Some('d'),
            "NAME",
            "Select a named extended details format (default, resources, progress, stats)",
        ))
        .arg(flag("compact", Some('C'), "Use compact tree connectors"))
        .arg(flag("ascii", None, "Use ASCII character tree connectors"))
        .arg(value(
            "skip-root",
            None,
            "yes|no",
            "Suppress or include the enclosing instance in output (default no, except with details or jobids)",
        ))
        .arg(operands("jobid", 0, "Limit output to specific jobs"))
}

/// What the lines of a tree begin with.
#[derive(Clone, Copy, Debug)]
struct Connectors {
    pipe: &'static str,
    tee: &'static str,
    elbow: &'static str,
    blank: &'static str,
}

const BOX: Connectors = Connectors {
    pipe: "│   ",
    tee: "├── ",
    elbow: "└── ",
    blank: "    ",
};
const ASCII: Connectors = Connectors {
    pipe: "|   ",
    tee: "|-- ",
    elbow: "`-- ",
    blank: "    ",
};
const COMPACT: Connectors = Connectors {
    pipe: "│ ",
    tee: "├─",
    elbow: "└─",
    blank: "  ",
};

/// A job with the jobs of its instance.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    details: String,
    label: String,
    /// How many jobs without jobs of their own look the same.
    count: usize,
    children: Vec<Node>,
}

/// What is shown of jobs.
struct Forester<'a> {
    fields: JobFields,
    label: Layout<'a, Field>,
    parent: Layout<'a, Field>,
    details: Option<Layout<'a, Field>>,
    filter: Filter,
    count: u64,
    levels: u64,
    combine: bool,
    wants_instances: bool,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    if matches.get_flag("ascii") && matches.get_flag("compact") {
        return usage("Choose only one of --ascii, --compact");
    }
    let fields = JobFields::new(now());
    let formats = Formats::new(matches, &fields)?;
    let ids = list(matches, "jobid");
    let filter = match text(matches, "filter") {
        _ if matches.get_flag("all") => Filter::ALL,
        Some(words) => Filter::parse(&[words])?,
        None => Filter::RUNNING,
    };
    let skip_root = match text(matches, "skip-root") {
        None => formats.details.is_some() || !ids.is_empty(),
        Some("yes") => true,
        Some("no") => false,
        Some(_) => return usage("--skip-root requires either 'yes' or 'no'"),
    };
    let mut handle = ctx.open()?;
    let forester = Forester {
        label: formats.label.layout(&fields, &[], false),
        parent: formats.parent.layout(&fields, &[], false),
        details: formats
            .details
            .as_ref()
            .map(|format| format.layout(&fields, &[], false)),
        wants_instances: formats.details.is_some() || formats.text.contains("{instance."),
        fields,
        filter,
        count: parsed(matches, "count")?.unwrap_or(COUNT_DEFAULT),
        levels: parsed(matches, "level")?.unwrap_or(u64::MAX),
        combine: !matches.get_flag("no-combine"),
    };
    let mut root = if skip_root {
        Node {
            details: String::new(),
            label: ".".to_owned(),
            count: 1,
            children: Vec::new(),
        }
    } else {
        forester.node(&root_record(&mut handle)?, true)
    };
    let jobs = if ids.is_empty() {
        list_jobs(&mut handle, &forester.query(0, skip_root), &["all"])?
    } else {
        let (records, errors) = fetch_ids(&mut handle, &ids, &["all"])?;
        for error in errors {
            ctx.report(&error);
        }
        records
    };
    root.children = forester.grow(jobs, 0);
    let connectors = if matches.get_flag("ascii") {
        ASCII
    } else if matches.get_flag("compact") {
        COMPACT
    } else {
        BOX
    };
    let mut lines = Vec::new();
    if let Some(details) = forester
        .details
        .as_ref()
        .filter(|_| !matches.get_flag("no-header"))
    {
        lines.push(details.header());
    }
    if skip_root {
        for child in &root.children {
            child.render(connectors, "", "", &mut lines);
        }
    } else {
        root.render(connectors, "", "", &mut lines);
    }
    let columns = (!matches.get_flag("long")).then(columns);
    let mut out = stdout();
    for line in lines {
        writeln!(out, "{}", cut(&line, columns))?;
    }
    out.flush()?;
    Ok(0)
}

/// The formats of the command line.
struct Formats {
    label: Format<Field>,
    parent: Format<Field>,
    details: Option<Format<Field>>,
    /// All of them, to see what they use.
    text: String,
}

impl Formats {
    fn new(matches: &ArgMatches, fields: &JobFields) -> Result<Self, CmdError> {
        let all = matches.get_flag("all");
        let given = text(matches, "label");
        let label = given
            .unwrap_or(if all { "{name}:{status_abbrev}" } else { "{name}" })
            .to_owned();
        let mut parent = text(matches, "parent-label")
            .or(given)
            .unwrap_or("{name}")
            .to_owned();
        if matches.get_flag("parent-ids") {
            parent = format!("{{id.f58}} {parent}");
        }
        let name = text(matches, "details");
        let own = text(matches, "detail-format");
        let details = match own {
            Some(format) => Some(format),
            None if name.is_some() || matches.get_flag("extended") => {
                let name = name.unwrap_or("default");
                match DETAILS.iter().find(|(known, _)| *known == name) {
                    Some((_, format)) => Some(*format),
                    None => {
                        return usage(format!(
                            "Unknown --details format '{name}' (use default, resources, progress or stats)"
                        ));
                    }
                }
            }
            None => None,
        };
        let text = format!("{label}{parent}{}", details.unwrap_or(""));
        Ok(Formats {
            label: Format::parse(&label, fields)?,
            parent: Format::parse(&parent, fields)?,
            details: details.map(|format| Format::parse(format, fields)).transpose()?,
            text,
        })
    }
}

/// Returns the enclosing instance as a job: what its parent knows of it, or a stand-in.
fn root_record(handle: &mut Handle) -> Result<Record, CmdError> {
    let get = |handle: &mut Handle, name: &str| attr::get(handle, name).ok();
    let size: i64 = get(handle, "size")
        .and_then(|size| size.parse().ok())
        .unwrap_or(1);
    let known = match (get(handle, "jobid"), get(handle, "parent-uri")) {
        (Some(id), Some(uri)) => Handle::open(Some(&uri))
            .ok()
            .and_then(|mut parent| fetch_ids(&mut parent, &[&id], &["all"]).ok())
            .and_then(|(records, _)| records.into_iter().next()),
        _ => None,
    };
    let mut record = match known {
        Some(record) => record,
        None => Record {
            userid: get(handle, "security.owner").and_then(|uid| uid.parse().ok()),
            state: Some(flux_formats::jobstate::JobState::Run.bit()),
            name: Some(".".to_owned()),
            ntasks: Some(size),
            nnodes: Some(size),
            nodelist: get(handle, "hostlist"),
            t_run: get(handle, "broker.starttime").and_then(|time| time.parse().ok()),
            annotations: json!({"user": {"uri": handle.uri()}}).as_object().cloned(),
            ..Record::default()
        },
    };
    record.ranks = Some(format!("0-{}", size - 1));
    Ok(record)
}

impl Forester<'_> {
    /// Returns which jobs of an instance at a level are shown; the root itself is always asked for what runs there.
    fn query(&self, level: u64, skip_root: bool) -> Query {
        Query {
            filter: if level == 0 && skip_root {
                self.filter.or(Filter::RUNNING)
            } else {
                self.filter
            },
            max_entries: self.count,
            ..Query::default()
        }
    }

    fn node(&self, record: &Record, parent: bool) -> Node {
        let label = if parent { &self.parent } else { &self.label };
        let details = self
            .details
            .as_ref()
            .map_or_else(String::new, |details| details.row(&self.fields, record));
        Node {
            details,
            label: label.row(&self.fields, record),
            count: 1,
            children: Vec::new(),
        }
    }

    /// Makes nodes of jobs, and asks the instances among them for theirs.
    fn grow(&self, mut records: Vec<Record>, level: u64) -> Vec<Node> {
        if level > self.levels {
            return Vec::new();
        }
        if self.wants_instances {
            fetch_instances(&mut records, None);
        }
        let mut nodes: Vec<Node> = Vec::new();
        std::thread::scope(|scope| {
            let grown: Vec<_> = records
                .iter()
                .map(|record| {
                    let uri = record.instance_uri();
                    let is_parent = uri.is_some();
                    let below = uri
                        .filter(|_| level < self.levels)
                        .map(|uri| scope.spawn(move || self.below(&uri, level + 1)));
                    (record, is_parent, below)
                })
                .collect();
            for (record, is_parent, below) in grown {
                let mut node = self.node(record, is_parent);
                // a thread that panicked has said so
                node.children = below.and_then(|thread| thread.join().ok()).unwrap_or_default();
                self.add(&mut nodes, node);
            }
        });
        nodes
    }

    /// Returns the jobs of an instance; none when it does not answer.
    fn below(&self, uri: &str, level: u64) -> Vec<Node> {
        let jobs = Handle::open(Some(uri))
            .and_then(|mut handle| list_jobs(&mut handle, &self.query(level, true), &["all"]));
        jobs.map_or_else(|_| Vec::new(), |jobs| self.grow(jobs, level))
    }

    fn add(&self, nodes: &mut Vec<Node>, node: Node) {
        if self.combine && node.children.is_empty() {
            let same = |other: &&mut Node| {
                other.children.is_empty() && other.label == node.label && other.details == node.details
            };
            if let Some(twin) = nodes.iter_mut().find(same) {
                twin.count += 1;
                return;
            }
        }
        nodes.push(node);
    }
}

impl Node {
    fn render(&self, with: Connectors, own: &str, below: &str, lines: &mut Vec<String>) {
        let label = if self.count > 1 {
            format!("{}*[{}]", self.count, self.label)
        } else {
            self.label.clone()
        };
        let gap = if self.details.is_empty() { "" } else { " " };
        lines.push(format!("{}{gap}{own}{label}", self.details));
        for (at, child) in self.children.iter().enumerate() {
            let last = at + 1 == self.children.len();
            let (own, next) = if last {
                (with.elbow, with.blank)
            } else {
                (with.tee, with.pipe)
            };
            child.render(with, &format!("{below}{own}"), &format!("{below}{next}"), lines);
        }
    }
}

/// Returns how many columns a line may have.
fn columns() -> usize {
    if std::io::stdout().is_terminal()
        && let Ok(size) = flux_process::pty::winsize(std::io::stdout())
        && size.cols > 0
    {
        return size.cols.into();
    }
    std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(COLUMNS_DEFAULT)
}

/// Ends a line that is too long with a plus sign.
fn cut(line: &str, columns: Option<usize>) -> String {
    match columns {
        Some(columns) if line.chars().count() > columns => {
            let mut kept: String = line.chars().take(columns.saturating_sub(1)).collect();
            kept.push('+');
            kept
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(label: &str, count: usize) -> Node {
        Node {
            details: String::new(),
            label: label.to_owned(),
            count,
            children: Vec::new(),
        }
    }

    #[test]
    fn drawing() {
        let mut inner = leaf("flux", 1);
        inner.children = vec![leaf("sleep", 3), leaf("app", 1)];
        let mut root = leaf(".", 1);
        root.children = vec![inner, leaf("run", 1)];
        let draw = |with| {
            let mut lines = Vec::new();
            root.render(with, "", "", &mut lines);
            lines
        };
        assert_eq!(
            draw(BOX),
            [".", "├── flux", "│   ├── 3*[sleep]", "│   └── app", "└── run"]
        );
        assert_eq!(draw(COMPACT)[2], "│ ├─3*[sleep]");
        assert_eq!(draw(ASCII)[4], "`-- run");
        assert_eq!(cut("0123456789", Some(5)), "0123+");
        assert_eq!(cut("01234", Some(5)), "01234");
    }
}
