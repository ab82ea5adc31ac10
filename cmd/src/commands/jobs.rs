//! `flux jobs`: which jobs are there?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::Handle;
use flux_formats::jobid::JobId;
use serde_json::{Value, json};

use crate::common::args::{flag, list, operands, parsed, text, value, values};
use crate::common::catalogue::Catalogue;
use crate::common::color;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::format::{Format, Layout};
use crate::common::jobid::f58;
use crate::common::json::python;
use crate::common::time::{now, parse_datetime};
use crate::common::user;
use crate::joblist::{
    Field, Filter, JobFields, JobStats, Query, Record, attrs, fetch_ids, fetch_instances, list_each,
    list_jobs, needs_instance,
};

/// Jobs listed when nobody says how many.
const COUNT_DEFAULT: u64 = 1000;
/// Jobs of a longer list for which columns are laid out.
const LAYOUT_JOBS: usize = 1000;

/// Built-in formats: name, description, format.
const FORMATS: Catalogue = Catalogue {
    program: "flux-jobs",
    file: "flux-jobs",
    table: None,
    variable: "FLUX_JOBS_FORMAT_DEFAULT",
    builtin: &[
        (
            "default",
            "Default flux-jobs format string",
            "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} {status_abbrev:>2.2} {ntasks:>6} {nnodes:>6h} \
         {contextual_time!F:>8h} {contextual_info}",
        ),
        (
            "cute",
            "Cute flux-jobs format string (default with emojis)",
            "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} {status_emoji:>5.5} {ntasks:>6} {nnodes:>6h} \
         {contextual_time!F:>8h} {contextual_info}",
        ),
        (
            "long",
            "Extended flux-jobs format string",
            "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} {status:>9.9} {ntasks:>6} {nnodes:>6h} \
         {t_submit!d:%b%d %R::>12} {t_remaining!F:>12h} {contextual_time!F:>8h} {contextual_info}",
        ),
        (
            "deps",
            "Show job urgency, priority, and dependencies",
            "{id.f58:>12} ?:{queue:<8.8} {name:<10.10+} {urgency:<3} {priority:<12} {state:<8.8} {dependencies}",
        ),
        (
            "endreason",
            "Show why each job ended",
            "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} {status_abbrev:>2.2} \
         {t_inactive!d:%b%d %R::>12h} {inactive_reason}",
        ),
    ],
};

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag("a", Some('a'), "List jobs in all states"))
        .arg(flag("A", Some('A'), "List all jobs for all users"))
        .arg(value(
            "count",
            Some('c'),
            "N",
            "Limit output to N jobs (default 1000, 0 = all)",
        ))
        .arg(values(
            "filter",
            Some('f'),
            "STATE|RESULT",
            "List jobs with specific job state or result",
        ))
        .arg(value(
            "since",
            None,
            "WHEN",
            "Include jobs that have become inactive since WHEN (implies -a if no other --filter option is specified)",
        ))
        .arg(flag("no-header", Some('n'), "Suppress printing of header line").alias("suppress-header"))
        .arg(value(
            "user",
            Some('u'),
            "USERNAME|UID",
            "Limit output to specific username or userid (Specify \"all\" for all users)",
        ))
        .arg(value("name", None, "JOB-NAME", "Limit output to specific job name"))
        .arg(values(
            "queue",
            Some('q'),
            "QUEUE,...",
            "Limit output to specific queue or queues",
        ))
        .arg(value(
            "include",
            Some('i'),
            "HOSTS|RANKS",
            "Limit output to jobs that were allocated specified hosts or ranks, of all users unless -u is given",
        ))
        .arg(value(
            "format",
            Some('o'),
            "FORMAT",
            "Specify output format using Python's string format syntax or a defined format by name (use 'help' to get \
             a list of names, 'get-config=NAME' to show one)",
        ))
        .arg(value(
            "sort",
            None,
            "KEY,...",
            "Sort by fields; a leading - reverses the order",
        ))
        .arg(value("width", Some('w'), "N", "Limit output to N columns"))
        .arg(flag(
            "json",
            None,
            "Emit jobs in JSON format instead of formatted output",
        ))
        .arg(color::option(None))
        .arg(flag(
            "recursive",
            Some('R'),
            "List jobs of the instances that jobs run, too",
        ))
        .arg(value("level", Some('L'), "N", "With --recursive, only descend N levels"))
        .arg(flag(
            "recurse-all",
            None,
            "With --recursive, also descend into instances of other users",
        ))
        .arg(value(
            "threads",
            None,
            "N",
            "Set max number of worker threads that ask instances",
        ))
        .arg(flag("stats", None, "Print job statistics before header"))
        .arg(flag(
            "stats-only",
            None,
            "Print job statistics only and exit. Exits with non-zero status if there are no active jobs",
        ))
        .arg(operands("jobid", 0, "Limit output to specific job ids"))
}

/// What is shown of jobs, and how.
struct Listing<'a> {
    matches: &'a ArgMatches,
    query: Query,
    count: u64,
    wanted: Vec<&'static str>,
    instances: bool,
    threads: Option<usize>,
    /// Levels to descend; 0 for none.
    levels: u64,
    recurse_all: bool,
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut out = stdout();
    let fields = JobFields::new(now());
    let Some(format_text) = FORMATS.choose(text(matches, "format"), &mut out)? else {
        return Ok(0);
    };
    let mut format = Format::parse(&format_text, &fields)?;
    if let Some(keys) = text(matches, "sort") {
        format.set_sort(keys, &fields)?;
    }
    let as_json = matches.get_flag("json");
    let stats = matches.get_flag("stats") || matches.get_flag("stats-only");
    if as_json && stats {
        return fail("--json incompatible with --stats or --stats-only");
    }
    let colored = color::wanted(matches)?;
    let mut listing = Listing::new(ctx, matches, &format, colored, as_json)?;
    let mut handle = ctx.open()?;
    if stats {
        let queue = listing.query.queues.first().map(String::as_str);
        let stats = JobStats::fetch(&mut handle, queue)?;
        writeln!(
            out,
            "{}, {} inactive purged",
            stats_line(&stats),
            stats.inactive_purged
        )?;
        if matches.get_flag("stats-only") {
            out.flush()?;
            return Ok(u8::from(stats.active() == 0));
        }
    }
    let ids = list(matches, "jobid");
    if ids.is_empty() && !as_json && listing.is_long() && !format.sorts() {
        let truncated = listing.stream(&mut handle, (&format, &fields, colored), &mut out)?;
        listing.warn_when(truncated);
        return Ok(0);
    }
    let (mut records, truncated) = listing.fetch(ctx, &mut handle, &ids)?;
    if !ids.is_empty() && records.is_empty() {
        return Err(CmdError::Silent(1));
    }
    format.sort(&fields, &mut records);
    if as_json {
        let jobs = listing.json(&records, &fields, 0)?;
        print_json(jobs, ids.len() == 1, &mut out)?;
        return Ok(0);
    }
    let layout = format.layout(&fields, &records, colored);
    let no_header = matches.get_flag("no-header");
    let width: Option<usize> = parsed(matches, "width")?;
    if !no_header {
        writeln!(out, "{}", cut(layout.header(), width))?;
    }
    let shown = Shown {
        format: &format,
        layout: &layout,
        fields: &fields,
        width,
    };
    listing.print(records, &shown, "", 0, &mut out)?;
    out.flush()?;
    listing.warn_when(truncated);
    Ok(0)
}

fn stats_line(stats: &JobStats) -> String {
    format!(
        "{} running, {} completed, {} failed, {} pending",
        stats.running, stats.successful, stats.failed, stats.pending
    )
}

fn cut(line: String, width: Option<usize>) -> String {
    match width {
        None => line,
        Some(width) => line.chars().take(width).collect(),
    }
}

fn print_json(mut jobs: Vec<Value>, single: bool, out: &mut impl Write) -> Result<(), CmdError> {
    let value = match jobs.pop() {
        Some(only) if single && jobs.is_empty() => only,
        last => {
            jobs.extend(last);
            json!({ "jobs": jobs })
        }
    };
    writeln!(out, "{}", python(&value)?)?;
    out.flush()?;
    Ok(())
}

/// Reads which jobs the options choose.
fn query(ctx: &Ctx, matches: &ArgMatches) -> Result<Query, CmdError> {
    let words = list(matches, "filter");
    let since = match text(matches, "since") {
        None => 0.0,
        Some(text) => {
            let since = parse_datetime(text, now())?;
            if since > now() {
                return usage(format!("--since={text} appears to be in the future"));
            }
            since
        }
    };
    if matches.get_flag("a") && !words.is_empty() {
        ctx.warn("WARNING: Both -a and --filter specified, ignoring -a");
    }
    let filter = if !words.is_empty() {
        Filter::parse(&words)?
    } else if matches.get_flag("a") || text(matches, "since").is_some() {
        Filter::ALL
    } else {
        Filter::ACTIVE
    };
    let include = text(matches, "include").map(str::to_owned);
    let userid = match text(matches, "user") {
        _ if matches.get_flag("A") => user::USERID_ALL,
        Some(name) => user::parse(name)?,
        None if include.is_some() => user::USERID_ALL,
        None => user::own(),
    };
    let queues = list(matches, "queue")
        .into_iter()
        .flat_map(|queues| queues.split(','));
    Ok(Query {
        filter,
        userid,
        name: text(matches, "name").map(str::to_owned),
        queues: queues.map(str::to_owned).collect(),
        include,
        since,
        max_entries: 0,
    })
}

/// How rows are shown.
struct Shown<'s> {
    format: &'s Format<Field>,
    layout: &'s Layout<'s, Field>,
    fields: &'s JobFields,
    width: Option<usize>,
}

/// A table that is printed while its rows come.
struct Table<'s, F> {
    begun: Option<Layout<'s, Field>>,
    /// Rows for which the layout is made.
    waiting: Vec<Record>,
    begin: F,
    fields: &'s JobFields,
    no_header: bool,
    width: Option<usize>,
}

impl<'s, F: Fn(&[Record]) -> Layout<'s, Field>> Table<'s, F> {
    fn take(&mut self, rows: Vec<Record>, out: &mut impl Write) -> Result<(), CmdError> {
        if let Some(layout) = &self.begun {
            return print_rows(layout, self.fields, &rows, self.width, out);
        }
        self.waiting.extend(rows);
        if self.waiting.len() >= LAYOUT_JOBS {
            self.finish(out)?;
        }
        Ok(())
    }

    /// Prints what waits, with the header before it.
    fn finish(&mut self, out: &mut impl Write) -> Result<(), CmdError> {
        if self.begun.is_none() {
            let layout = (self.begin)(&self.waiting);
            if !self.no_header {
                writeln!(out, "{}", cut(layout.header(), self.width))?;
            }
            print_rows(&layout, self.fields, &self.waiting, self.width, out)?;
            self.waiting = Vec::new();
            self.begun = Some(layout);
        }
        out.flush()?;
        Ok(())
    }
}

fn print_rows(
    layout: &Layout<'_, Field>,
    fields: &JobFields,
    rows: &[Record],
    width: Option<usize>,
    out: &mut impl Write,
) -> Result<(), CmdError> {
    if width.is_none() {
        return layout.rows(fields, rows, out);
    }
    for row in rows {
        writeln!(out, "{}", cut(layout.row(fields, row), width))?;
    }
    Ok(())
}

/// What was found in the instance of a job.
struct Below {
    id: JobId,
    records: Vec<Record>,
    stats: Option<JobStats>,
}

impl<'a> Listing<'a> {
    fn new(
        ctx: &Ctx,
        matches: &'a ArgMatches,
        format: &Format<Field>,
        colored: bool,
        as_json: bool,
    ) -> Result<Self, CmdError> {
        let count = parsed(matches, "count")?.unwrap_or(COUNT_DEFAULT);
        let recurse_all = matches.get_flag("recurse-all");
        let recursive = recurse_all || matches.get_flag("recursive");
        let mut query = query(ctx, matches)?;
        // One more than asked for tells whether there were more.
        query.max_entries = if count == 0 { 0 } else { count + 1 };
        let mut wanted = if as_json {
            vec!["all"]
        } else {
            attrs(format.fields(), colored)
        };
        if recursive && !as_json {
            for attr in ["annotations", "state", "userid"] {
                if !wanted.contains(&attr) {
                    wanted.push(attr);
                }
            }
        }
        Ok(Listing {
            matches,
            query,
            count,
            wanted,
            instances: !as_json && needs_instance(format.fields()),
            threads: parsed(matches, "threads")?,
            levels: match (recursive, parsed(matches, "level")?) {
                (false, _) => 0,
                (true, level) => level.unwrap_or(u64::MAX),
            },
            recurse_all,
        })
    }

    /// Returns true for a list of more jobs than a screen or a script usually wants, which is printed as it comes.
    fn is_long(&self) -> bool {
        (self.count == 0 || self.count > COUNT_DEFAULT) && self.levels == 0 && !self.instances
    }

    /// Prints the list as it comes; returns true when there are more jobs. Columns are laid out for those that come
    /// first.
    fn stream(
        &self,
        handle: &mut Handle,
        (format, fields, colored): (&Format<Field>, &JobFields, bool),
        out: &mut impl Write,
    ) -> Result<bool, CmdError> {
        let mut table = Table {
            begun: None,
            waiting: Vec::new(),
            begin: |records: &[Record]| format.layout(fields, records, colored),
            fields,
            no_header: self.matches.get_flag("no-header"),
            width: parsed(self.matches, "width")?,
        };
        let limit = usize::try_from(self.count).ok().filter(|limit| *limit > 0);
        let mut left = limit.unwrap_or(usize::MAX);
        let mut truncated = false;
        list_each(handle, &self.query, &self.wanted, |mut more: Vec<Record>| {
            truncated |= more.len() > left;
            more.truncate(left);
            left -= more.len();
            table.take(more, out)
        })?;
        table.finish(out)?;
        Ok(truncated)
    }

    /// Says that there are more jobs than were shown.
    fn warn_when(&self, truncated: bool) {
        if truncated && !self.matches.get_flag("no-header") {
            crate::common::ctx::eprint(format!(
                "warning: output truncated at {} jobs.\nUse --count to increase returned results or use filters to alter \
                 results.",
                self.count
            ));
        }
    }

    fn fetch(
        &mut self,
        ctx: &Ctx,
        handle: &mut Handle,
        ids: &[&str],
    ) -> Result<(Vec<Record>, bool), CmdError> {
        let (mut records, mut truncated) = (Vec::new(), false);
        if ids.is_empty() {
            records = list_jobs(handle, &self.query, &self.wanted)?;
            let limit = usize::try_from(self.count).unwrap_or(usize::MAX);
            if self.count > 0 && records.len() > limit {
                records.truncate(limit);
                truncated = true;
            }
        } else {
            let filtered = [
                "a", "A", "filter", "user", "queue", "name", "include", "since", "count",
            ];
            let given =
                |name: &&str| self.matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
            if filtered.iter().any(given) && self.levels == 0 {
                ctx.warn("WARNING: Filtering options ignored with jobid list");
            }
            let errors;
            (records, errors) = {
                let (found, errors) = fetch_ids(handle, ids, &self.wanted)?;
                records.extend(found);
                (records, errors)
            };
            for error in errors {
                ctx.report(&error);
            }
        }
        if self.instances {
            fetch_instances(&mut records, self.threads);
        }
        Ok((records, truncated))
    }

    /// Returns true when the jobs of a job's instance are listed too.
    fn descends(&self, record: &Record) -> bool {
        record.instance_uri().is_some() && (self.recurse_all || record.userid == Some(user::own()))
    }

    /// Asks the instance of a job; one that does not answer, or whose services are not up, has no jobs.
    fn below(&self, record: &Record) -> Below {
        let mut below = Below {
            id: JobId(record.id),
            records: Vec::new(),
            stats: None,
        };
        let opened = record
            .instance_uri()
            .and_then(|uri| Handle::open(Some(&uri)).ok());
        if let Some(mut handle) = opened {
            below.records = list_jobs(&mut handle, &self.query, &self.wanted).unwrap_or_default();
            if self.matches.get_flag("stats") {
                below.stats = JobStats::fetch(&mut handle, None).ok();
            }
        }
        below
    }

    /// Asks the instances of several jobs at the same time.
    fn all_below(&self, records: &[&Record]) -> Vec<Below> {
        let threads = self.threads.unwrap_or(16).max(1);
        let mut all = Vec::with_capacity(records.len());
        for group in records.chunks(threads) {
            std::thread::scope(|scope| {
                let asked: Vec<_> = group
                    .iter()
                    .map(|record| scope.spawn(|| self.below(record)))
                    .collect();
                // a thread that panicked has said so; its instance is left out
                all.extend(asked.into_iter().filter_map(|thread| thread.join().ok()));
            });
        }
        all
    }

    fn print(
        &self,
        records: Vec<Record>,
        shown: &Shown<'_>,
        path: &str,
        level: u64,
        out: &mut impl Write,
    ) -> Result<(), CmdError> {
        match shown.width {
            None => shown.layout.rows(shown.fields, &records, out)?,
            Some(_) => {
                for record in &records {
                    writeln!(
                        out,
                        "{}",
                        cut(shown.layout.row(shown.fields, record), shown.width)
                    )?;
                }
            }
        }
        if level >= self.levels {
            return Ok(());
        }
        let children: Vec<&Record> = records.iter().filter(|record| self.descends(record)).collect();
        for mut below in self.all_below(&children) {
            let path = if path.is_empty() {
                f58(below.id)
            } else {
                format!("{path}/{}", f58(below.id))
            };
            writeln!(out, "\n{path}:")?;
            if let Some(stats) = &below.stats {
                writeln!(out, "{}", stats_line(stats))?;
            }
            if self.instances {
                fetch_instances(&mut below.records, self.threads);
            }
            shown.format.sort(shown.fields, &mut below.records);
            self.print(below.records, shown, &path, level + 1, out)?;
        }
        Ok(())
    }

    fn json(&self, records: &[Record], fields: &JobFields, level: u64) -> Result<Vec<Value>, CmdError> {
        let mut names = user::Names::default();
        let mut jobs: Vec<Value> = records
            .iter()
            .map(|record| record.to_json(fields.now(), &mut names))
            .collect();
        if level >= self.levels {
            return Ok(jobs);
        }
        for (job, record) in jobs.iter_mut().zip(records) {
            if !self.descends(record) {
                continue;
            }
            let below = self.below(record);
            let inner = self.json(&below.records, fields, level + 1)?;
            if let Some(job) = job.as_object_mut() {
                job.insert("jobs".to_owned(), Value::Array(inner));
            }
        }
        Ok(jobs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records and tables that flux-core 0.88 printed for the same jobs.
    const RECORDS: &str = concat!(
        r#"[{"id":64441286656,"userid":0,"urgency":16,"priority":16,"t_submit":1795240139.8168368,"state":8,"name":"sleep","ntasks":8,"duration":0.0},"#,
        r#"{"id":59911438336,"userid":0,"urgency":0,"priority":0,"t_submit":1795240139.5468037,"state":8,"name":"true","ntasks":1,"duration":0.0},"#,
        r#"{"id":62058921984,"userid":0,"urgency":16,"priority":16,"t_submit":1795240139.674893,"t_run":1795240139.7172003,"state":16,"name":"sleep","ntasks":8,"nnodes":4,"nodelist":"vm,vm,vm,vm","ranks":"[0-3]","expiration":0.0,"duration":0.0},"#,
        r#"{"id":52663681024,"userid":0,"urgency":16,"priority":16,"t_submit":1795240139.1,"t_run":1795240139.139,"t_cleanup":1795240139.639,"t_inactive":1795240139.65,"state":64,"name":"sleep","ntasks":1,"nnodes":1,"nodelist":"vm","ranks":"0","duration":0.5,"success":false,"exception_occurred":true,"exception_type":"timeout","exception_severity":0,"exception_note":"resource allocation expired","result":8,"waitstatus":36352,"annotations":{"sched":{"resource_summary":"rank0/core0"}}},"#,
        r#"{"id":49899634688,"userid":0,"urgency":16,"priority":16,"t_submit":1795240139.0,"t_run":1795240139.0,"t_cleanup":1795240139.02,"t_inactive":1795240139.03,"state":64,"name":"nosuchcommand","ntasks":1,"nnodes":1,"nodelist":"vm","ranks":"1","duration":0.0,"success":false,"exception_occurred":true,"exception_type":"exec","exception_severity":0,"exception_note":"start failed","result":2,"waitstatus":32512}]"#
    );

    fn table(format: &str, now: f64) -> String {
        let fields = JobFields::new(now);
        let format = Format::parse(
            &FORMATS
                .choose(Some(format), &mut std::io::sink())
                .unwrap()
                .unwrap(),
            &fields,
        )
        .unwrap();
        let mut records: Vec<Record> = serde_json::from_str(RECORDS).unwrap();
        let mut out = Vec::new();
        format
            .print(&fields, &mut records, false, false, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_like_the_original() {
        let name = user::name(0);
        let ascii = crate::common::jobid::use_ascii();
        let f = if ascii { "f" } else { "ƒ" };
        let want = [
            "       JOBID USER     NAME       ST NTASKS NNODES     TIME INFO".to_owned(),
            format!("    {f}2hBTSRV {name:<8} sleep       S      8      -        - "),
            format!("    {f}2aHAnLP {name:<8} true        S      1      -        - held"),
            format!("    {f}2dYwCQX {name:<8} sleep       R      8      4   22.14s vm,vm,vm,vm"),
            format!("    {f}2PEi8bR {name:<8} sleep      TO      1      1   0.500s vm"),
            format!("    {f}2K2Tfv7 {name:<8} nosuchcom+  F      1      1   0.020s vm"),
        ];
        assert_eq!(
            table("default", 1_795_240_161.86).lines().collect::<Vec<_>>(),
            want
        );
        let deps = table("deps", 0.0);
        assert!(
            deps.starts_with("       JOBID NAME       URG PRI          STATE    DEPENDENCIES\n"),
            "{deps}"
        );
        assert!(deps.contains(" sleep      16  16           SCHED    \n"));
        let reasons = table("{inactive_reason}", 0.0);
        assert_eq!(
            reasons.lines().skip(4).collect::<Vec<_>>(),
            ["Timeout", "command not found"]
        );
        let custom = table(
            "{status_abbrev} {returncode} {exception.type} {exception.note} {duration!F} {ranks}",
            0.0,
        );
        assert_eq!(
            custom.lines().skip(1).collect::<Vec<_>>(),
            [
                "S    0s ",
                "S    0s ",
                "R    0s [0-3]",
                "TO 142 timeout resource allocation expired 0.500s 0",
                "F 127 exec start failed 0s 1"
            ]
        );
    }

    #[test]
    fn json_like_the_original() {
        let records: Vec<Record> = serde_json::from_str(RECORDS).unwrap();
        let json = records[3].to_json(0.0, &mut user::Names::default());
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        let want = [
            "t_run",
            "t_cleanup",
            "t_inactive",
            "duration",
            "name",
            "ntasks",
            "nnodes",
            "priority",
            "ranks",
            "nodelist",
            "success",
            "result",
            "waitstatus",
            "id",
            "t_submit",
            "state",
            "username",
            "userid",
            "urgency",
            "runtime",
            "status",
            "returncode",
            "dependencies",
            "jobid",
            "annotations",
            "exception",
        ];
        assert_eq!(keys, want);
        assert_eq!(json["exception"]["type"], "timeout");
        assert_eq!(
            (
                json["state"].as_str(),
                json["result"].as_str(),
                json["returncode"].as_i64()
            ),
            (Some("INACTIVE"), Some("TIMEOUT"), Some(142))
        );
    }
}
