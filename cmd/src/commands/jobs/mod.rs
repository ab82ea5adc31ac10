//! `flux jobs`: which jobs are there?

mod fields;
mod record;

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{Handle, NODEID_ANY};
use flux_formats::jobid::JobId;
use flux_formats::jobstate::{JobResult, JobState};
use serde::Deserialize;
use serde_json::{Value, json};

use self::fields::{JobFields, attrs};
use self::record::Record;
use crate::common::args::{flag, list, operands, parsed, text, value, values};
use crate::common::catalogue::Catalogue;
use crate::common::color;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::format::Format;
use crate::common::jobid::parse;
use crate::common::json::python;
use crate::common::time::{now, parse_datetime};
use crate::common::user;

/// Jobs listed when nobody says how many.
const COUNT_DEFAULT: u64 = 1000;
/// All results together.
const RESULTS_ALL: u32 = 15;

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
        .arg(value("count", Some('c'), "N", "Limit output to N jobs (default 1000, 0 = all)"))
        .arg(values("filter", Some('f'), "STATE|RESULT", "List jobs with specific job state or result"))
        .arg(value("since", None, "WHEN", "Include jobs that have become inactive since WHEN (implies -a if no other --filter option is specified)"))
        .arg(flag("no-header", Some('n'), "Suppress printing of header line").alias("suppress-header"))
        .arg(value("user", Some('u'), "USERNAME|UID", "Limit output to specific username or userid (Specify \"all\" for all users)"))
        .arg(value("name", None, "JOB-NAME", "Limit output to specific job name"))
        .arg(values("queue", Some('q'), "QUEUE,...", "Limit output to specific queue or queues"))
        .arg(value("include", Some('i'), "HOSTS|RANKS", "Limit output to jobs that were allocated specified hosts or ranks"))
        .arg(value("format", Some('o'), "FORMAT", "Specify output format using Python's string format syntax or a defined format by name (use 'help' to get a list of names)"))
        .arg(value("sort", None, "KEY,...", "Specify sort order"))
        .arg(value("width", Some('w'), "N", "Limit output to N columns"))
        .arg(flag("json", None, "Emit jobs in JSON format instead of formatted output"))
        .arg(color::option(None))
        .arg(flag("recursive", Some('R'), "List jobs recursively"))
        .arg(flag("stats", None, "Print job statistics before header"))
        .arg(flag("stats-only", None, "Print job statistics only and exit. Exits with non-zero status if there are no active jobs"))
        .arg(operands("jobid", 0, "Limit output to specific job ids"))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    if matches.get_flag("recursive") {
        return fail("--recursive is not available yet in this version");
    }
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
    let colored = color::wanted(matches)?;
    let mut handle = ctx.open()?;
    if matches.get_flag("stats") || matches.get_flag("stats-only") {
        let active = print_stats(&mut handle, matches, &mut out)?;
        if matches.get_flag("stats-only") {
            out.flush()?;
            return Ok(u8::from(active == 0));
        }
    }
    let wanted: Vec<&str> = if as_json {
        vec!["all"]
    } else {
        attrs(format.fields())
    };
    let ids = list(matches, "jobid");
    let (mut records, code) = if ids.is_empty() {
        (fetch_list(ctx, &mut handle, matches, &wanted)?, 0)
    } else {
        fetch_ids(ctx, &mut handle, &ids, &wanted)?
    };
    if as_json {
        print_json(&records, ids.len() == 1, fields.now(), &mut out)?;
    } else {
        let no_header = matches.get_flag("no-header");
        match parsed::<usize>(matches, "width")? {
            None => format.print(&fields, &mut records, no_header, colored, &mut out)?,
            Some(width) => {
                let mut wide = Vec::new();
                format.print(&fields, &mut records, no_header, false, &mut wide)?;
                for line in String::from_utf8_lossy(&wide).lines() {
                    let kept: String = line.chars().take(width).collect();
                    writeln!(out, "{kept}")?;
                }
            }
        }
    }
    out.flush()?;
    Ok(code)
}

fn print_json(records: &[Record], single: bool, now: f64, out: &mut impl Write) -> Result<(), CmdError> {
    let mut names = user::Names::default();
    let mut jobs: Vec<Value> = records
        .iter()
        .map(|record| record.to_json(now, &mut names))
        .collect();
    let value = match jobs.pop() {
        Some(only) if single && jobs.is_empty() => only,
        Some(last) => {
            jobs.push(last);
            json!({ "jobs": jobs })
        }
        None => json!({ "jobs": [] }),
    };
    writeln!(out, "{}", python(&value)?)?;
    Ok(())
}

/// States and results that `--filter` selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filter {
    states: u32,
    results: u32,
}

impl Filter {
    fn parse(words: &[&str]) -> Result<Self, CmdError> {
        let mut filter = Filter {
            states: 0,
            results: 0,
        };
        for name in words.iter().flat_map(|words| words.split(',')).map(str::trim) {
            let lower = name.to_ascii_lowercase();
            if let Ok(result) = lower.parse::<JobResult>() {
                filter.results |= result.bit();
            } else if let Some(mask) = JobState::mask_from_name(&lower) {
                filter.states |= mask;
            } else {
                return usage(format!(
                    "Invalid filter specified: {name} (use depend, priority, sched, run, cleanup, inactive, pending, \
                     running, active, completed, failed, canceled, timeout)"
                ));
            }
        }
        Ok(filter)
    }

    fn constraint(self) -> Value {
        match (self.states, self.results) {
            (states, 0) => json!({ "states": [states] }),
            (0, results) => json!({ "results": [results] }),
            (states, results) => json!({ "or": [{ "states": [states] }, { "results": [results] }] }),
        }
    }
}

/// Returns the constraint (RFC 43) of the options.
fn constraint(matches: &ArgMatches) -> Result<Value, CmdError> {
    let words = list(matches, "filter");
    let mut filter = Filter::parse(&words)?;
    let everything = matches.get_flag("a") || (text(matches, "since").is_some() && words.is_empty());
    if everything {
        filter = Filter {
            states: 127,
            results: 0,
        };
    } else if words.is_empty() {
        filter = Filter {
            states: JobState::ACTIVE,
            results: 0,
        };
    } else if filter.results == RESULTS_ALL {
        filter = Filter {
            states: filter.states | JobState::Inactive.bit(),
            results: 0,
        };
    }
    let mut terms = Vec::new();
    if let Some(include) = text(matches, "include") {
        let key = if include.parse::<flux_formats::idset::IdSet>().is_ok() {
            "ranks"
        } else {
            "hostlist"
        };
        terms.push(json!({ key: [include] }));
    }
    let userid = match text(matches, "user") {
        _ if matches.get_flag("A") => user::USERID_ALL,
        Some(name) => user::parse(name)?,
        None => user::own(),
    };
    if userid != user::USERID_ALL {
        terms.push(json!({ "userid": [userid] }));
    }
    if let Some(name) = text(matches, "name") {
        terms.push(json!({ "name": [name] }));
    }
    let queues: Vec<&str> = list(matches, "queue")
        .into_iter()
        .flat_map(|queues| queues.split(','))
        .collect();
    if !queues.is_empty() {
        terms.push(json!({ "queue": queues }));
    }
    terms.push(filter.constraint());
    Ok(json!({ "and": terms }))
}

fn fetch_list(
    ctx: &Ctx,
    handle: &mut Handle,
    matches: &ArgMatches,
    wanted: &[&str],
) -> Result<Vec<Record>, CmdError> {
    #[derive(Deserialize)]
    struct Response {
        #[serde(default)]
        jobs: Vec<Record>,
        #[serde(default)]
        version: u32,
    }
    let count: u64 = parsed(matches, "count")?.unwrap_or(COUNT_DEFAULT);
    let since = match text(matches, "since") {
        None => 0.0,
        Some(text) => {
            let since = parse_datetime(text, now())?;
            if since > now() {
                return usage(format!("--since={text}: the time is in the future"));
            }
            since
        }
    };
    // One more than asked for tells whether there were more.
    let request = json!({
        "max_entries": if count == 0 { 0 } else { count + 1 },
        "attrs": wanted,
        "since": since,
        "constraint": constraint(matches)?,
    });
    let stream = handle.stream("job-list.list", NODEID_ANY, &request)?;
    let mut records = Vec::new();
    let mut first = true;
    while let Some(response) = handle.next_json::<Response>(&stream)? {
        records.extend(response.jobs);
        if first && response.version == 0 {
            handle.forget(stream);
            break;
        }
        first = false;
    }
    let limit = usize::try_from(count).unwrap_or(usize::MAX);
    if count > 0 && records.len() > limit {
        records.truncate(limit);
        if text(matches, "count").is_none() {
            ctx.warn(format!(
                "WARNING: output truncated to {count} jobs, use -c 0 to see all"
            ));
        }
    }
    Ok(records)
}

fn fetch_ids(
    ctx: &Ctx,
    handle: &mut Handle,
    ids: &[&str],
    wanted: &[&str],
) -> Result<(Vec<Record>, u8), CmdError> {
    #[derive(Deserialize)]
    struct Response {
        job: Record,
    }
    let mut pending = Vec::with_capacity(ids.len());
    for name in ids {
        let id: JobId = parse(name)?;
        pending.push((
            name,
            handle.rpc(
                "job-list.list-id",
                NODEID_ANY,
                &json!({ "id": id.0, "attrs": wanted }),
            )?,
        ));
    }
    let (mut records, mut code) = (Vec::new(), 0);
    for (name, rpc) in &pending {
        match handle.get::<Response>(rpc) {
            Ok(response) => records.push(response.job),
            Err(flux_client::Error::Rpc(err)) if err.errnum == flux_formats::errno::ENOENT => {
                ctx.report(&format!("JobID {name} unknown"));
                code = 1;
            }
            Err(flux_client::Error::Rpc(err)) => {
                ctx.report(&format!("{name}: {}", err.message()));
                code = 1;
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok((records, code))
}

/// Prints the line of `--stats` and returns the number of active jobs.
fn print_stats(handle: &mut Handle, matches: &ArgMatches, out: &mut impl Write) -> Result<u64, CmdError> {
    let all: Value = handle.call_empty("job-list.job-stats", NODEID_ANY)?;
    let queue = text(matches, "queue");
    let stats = match queue {
        None => &all,
        Some(name) => {
            let queues = all.get("queues").and_then(Value::as_array);
            let found = queues
                .into_iter()
                .flatten()
                .find(|queue| queue.get("name").and_then(Value::as_str) == Some(name));
            match found {
                Some(found) => found,
                None => return fail(format!("no stats for queue '{name}'")),
            }
        }
    };
    let number = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let state = |name: &str| number(&format!("/job_states/{name}"));
    let pending = state("depend") + state("priority") + state("sched");
    let running = state("run") + state("cleanup");
    let failed = number("/failed") + number("/canceled") + number("/timeout");
    writeln!(
        out,
        "{running} running, {} completed, {failed} failed, {pending} pending, {} inactive purged",
        number("/successful"),
        number("/inactive_purged")
    )?;
    Ok(pending + running)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_args(words: &[&str]) -> ArgMatches {
        args(Command::new("jobs")).get_matches_from(std::iter::once("jobs").chain(words.iter().copied()))
    }

    #[test]
    fn constraints() {
        let own = user::own();
        let show = |words: &[&str]| constraint(&parse_args(words)).unwrap().to_string();
        assert_eq!(
            show(&[]),
            format!(r#"{{"and":[{{"userid":[{own}]}},{{"states":[62]}}]}}"#)
        );
        assert_eq!(show(&["-a", "-A"]), r#"{"and":[{"states":[127]}]}"#);
        assert_eq!(
            show(&["-A", "-f", "pending,failed", "-q", "a,b", "--name=x", "-i", "0-3"]),
            r#"{"and":[{"ranks":["0-3"]},{"name":["x"]},{"queue":["a","b"]},{"or":[{"states":[14]},{"results":[2]}]}]}"#
        );
        assert_eq!(
            show(&["-A", "-i", "node[1-2]", "--since=-1h"]),
            r#"{"and":[{"hostlist":["node[1-2]"]},{"states":[127]}]}"#
        );
        assert!(constraint(&parse_args(&["-f", "zz"])).is_err());
    }

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
