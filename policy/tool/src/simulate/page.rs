//! How is a comparison shown as one page? (Charts as SVG, no scripts, nothing loaded from elsewhere.)

use std::fmt::Write as _;

use serde_json::json;

use super::figures::{Figures, rows, time};
use super::run::{Machine, Run};
use super::trace::Trace;

/// Points of a line; more would not be seen.
const POINTS: usize = 400;
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 12.0;
/// One for each policy, told apart by people who do not see all colours.
const COLOURS: &[&str] = &["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:56em;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
h1{font-size:1.5em}h2{font-size:1.1em;margin:2em 0 .3em}table{border-collapse:collapse}td,th{padding:.15em 1em;text-align:right}\
td:first-child{text-align:left}tr:nth-child(even){background:#f3f5f7}svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#444}\
.grid{stroke:#dde1e6}.line{fill:none;stroke-width:1.8}.good{color:#00734f}.bad{color:#b3261e}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#16181b}text{fill:#aaa}.grid{stroke:#333}tr:nth-child(even){background:#202327}}";

/// Returns the page.
pub(crate) fn page(trace: &Trace, machine: Machine, runs: &[Run], all: &[Figures]) -> String {
    let title = runs
        .iter()
        .map(|run| escape(&run.policy))
        .collect::<Vec<_>>()
        .join(" and ");
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} on {trace}</title><style>{STYLE}</style></head><body><h1>{title}</h1><p>{trace}: {count} jobs on {nodes} nodes of {cores} cores.</p>",
        trace = escape(&trace.name),
        count = trace.jobs.len(),
        nodes = machine.nodes,
        cores = machine.cores
    );
    legend(&mut out, runs);
    table(&mut out, all);
    for figures in all {
        let (class, text) = match figures.checks.first_delay.as_deref() {
            None => (
                "good",
                "never delayed the first job of the queue; checked by the simulator at every decision."
                    .to_owned(),
            ),
            Some(first) => (
                "bad",
                format!(
                    "delayed the first job {} times: {}",
                    figures.checks.head_delays,
                    escape(first)
                ),
            ),
        };
        let _ = write!(out, "<p class=\"{class}\">{} {text}</p>", escape(&figures.policy));
    }
    let end = runs
        .iter()
        .flat_map(|run| run.course.last())
        .map(|point| point.0)
        .fold(1.0, f64::max);
    let lines = |of: &dyn Fn(&Run) -> Vec<(f64, f64)>| runs.iter().map(of).collect::<Vec<_>>();
    chart(
        &mut out,
        "utilisation",
        "Cores in use",
        &lines(&|run| averages(run, end, machine)),
        (end, 1.0),
        &|v| format!("{:.0} %", v * 100.0),
        &time,
    );
    let waiting = lines(&|run| thin(&run.course, |point| as_f64(point.2)));
    let most = waiting.iter().flatten().map(|point| point.1).fold(1.0, f64::max);
    chart(
        &mut out,
        "waiting",
        "Jobs that wait",
        &waiting,
        (end, most),
        &|v| format!("{v:.0}"),
        &time,
    );
    let waits = lines(&|run| shares(run, trace));
    let longest = waits.iter().flatten().map(|point| point.0).fold(1.0, f64::max);
    chart(
        &mut out,
        "waits",
        "Part of the jobs that started within a time (logarithmic)",
        &waits,
        (longest, 1.0),
        &|v| format!("{:.0} %", v * 100.0),
        &|v| time(v.exp() - 1.0),
    );
    bars(&mut out, trace, runs);
    let data = json!({"trace": trace.name, "nodes": machine.nodes, "cores": machine.cores, "policies": all});
    // a name from a trace must not end the element
    let data = data.to_string().replace('<', "\\u003c");
    let _ = writeln!(
        out,
        "<script type=\"application/json\" id=\"data\">{data}</script></body></html>"
    );
    out
}

fn colour(at: usize) -> &'static str {
    COLOURS.get(at % COLOURS.len()).copied().unwrap_or("#000")
}

fn legend(out: &mut String, runs: &[Run]) {
    out.push_str("<p>");
    for (at, run) in runs.iter().enumerate() {
        let _ = write!(
            out,
            "<span style=\"color:{}\">&#9632;</span> {} &nbsp; ",
            colour(at),
            escape(&run.policy)
        );
    }
    out.push_str("</p>");
}

fn table(out: &mut String, all: &[Figures]) {
    out.push_str("<table><tr><td></td>");
    for figures in all {
        let _ = write!(out, "<th>{}</th>", escape(&figures.policy));
    }
    out.push_str("</tr>");
    for (name, values) in rows(all) {
        let _ = write!(out, "<tr><td>{name}</td>");
        for value in values {
            let _ = write!(out, "<td>{value}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

/// Draws lines; `ends` are the largest values of both axes.
fn chart(
    out: &mut String,
    id: &str,
    title: &str,
    lines: &[Vec<(f64, f64)>],
    ends: (f64, f64),
    of_y: &dyn Fn(f64) -> String,
    of_x: &dyn Fn(f64) -> String,
) {
    let x = |value: f64| LEFT + value / ends.0 * (WIDTH - LEFT - 10.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / ends.1 * (HEIGHT - BOTTOM - TOP);
    let _ = write!(
        out,
        "<h2>{title}</h2><svg id=\"{id}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    );
    for step in 0..=4 {
        let part = f64::from(step) / 4.0;
        let (at, across) = (y(ends.1 * part), x(ends.0 * part));
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            of_y(ends.1 * part),
            HEIGHT - 12.0,
            of_x(ends.0 * part)
        );
    }
    for (at, line) in lines.iter().enumerate() {
        let points: Vec<String> = line
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        let _ = write!(
            out,
            "<polyline class=\"line\" stroke=\"{}\" points=\"{}\"/>",
            colour(at),
            points.join(" ")
        );
    }
    out.push_str("</svg>");
}

/// Mean waits by size, as bars beside each other.
fn bars(out: &mut String, trace: &Trace, runs: &[Run]) {
    const CLASSES: &[(u32, &str)] = &[
        (1, "1"),
        (8, "2-8"),
        (64, "9-64"),
        (512, "65-512"),
        (u32::MAX, "513 and more"),
    ];
    let class = |cores: u32| CLASSES.iter().position(|(most, _)| cores <= *most).unwrap_or(0);
    let means: Vec<Vec<f64>> = runs
        .iter()
        .map(|run| {
            let mut sums = vec![(0.0, 0.0); CLASSES.len()];
            for (job, outcome) in trace.jobs.iter().zip(&run.outcomes) {
                if let (Some(start), Some(sum)) = (outcome.start, sums.get_mut(class(job.cores))) {
                    *sum = (sum.0 + start - job.submit, sum.1 + 1.0);
                }
            }
            sums.into_iter()
                .map(|(sum, count): (f64, f64)| sum / count.max(1.0))
                .collect()
        })
        .collect();
    let most = means.iter().flatten().copied().fold(1.0, f64::max);
    let room = (WIDTH - LEFT) / as_f64(CLASSES.len());
    let each = room * 0.8 / as_f64(runs.len().max(1));
    let _ = write!(
        out,
        "<h2>Mean wait by cores of the job</h2><svg id=\"sizes\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Mean wait by size\">"
    );
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let at = HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            time(value)
        );
    }
    for (index, (_, name)) in CLASSES.iter().enumerate() {
        let left = LEFT + room * as_f64(index);
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            left + room * 0.45,
            HEIGHT - 12.0
        );
        for (at, means) in means.iter().enumerate() {
            let mean = means.get(index).copied().unwrap_or(0.0);
            let height = mean / most * (HEIGHT - BOTTOM - TOP);
            let _ = write!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{}\"><title>{}</title></rect>",
                left + room * 0.05 + each * as_f64(at),
                HEIGHT - BOTTOM - height,
                each * 0.9,
                colour(at),
                time(mean)
            );
        }
    }
    out.push_str("</svg>");
}

/// Returns the used part of all cores in equal stretches of time.
fn averages(run: &Run, end: f64, machine: Machine) -> Vec<(f64, f64)> {
    let points = as_f64(POINTS);
    let mut sums = vec![0.0; POINTS];
    for pair in run.course.windows(2) {
        let [(from, used, _), (to, _, _)] = *pair else {
            continue;
        };
        let mut at = from;
        while at < to {
            let slot = (at / end * points).floor();
            let until = ((slot + 1.0) * end / points).min(to).max(at + end * 1e-9);
            if let Some(sum) = sums.get_mut(index(slot)) {
                *sum += (until - at) * as_f64(usize::try_from(used).unwrap_or(0));
            }
            at = until;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of cores")]
    let full = machine.cores_all() as f64 * end / points;
    sums.into_iter()
        .enumerate()
        .map(|(at, sum)| ((as_f64(at) + 0.5) * end / points, (sum / full).min(1.0)))
        .collect()
}

/// Returns a few points of a course, each the largest of its stretch.
fn thin(course: &[(f64, u64, usize)], of: impl Fn(&(f64, u64, usize)) -> f64) -> Vec<(f64, f64)> {
    let size = course.len().div_ceil(POINTS).max(1);
    course
        .chunks(size)
        .filter_map(|chunk| {
            let most = chunk.iter().map(&of).fold(0.0, f64::max);
            chunk.first().map(|first| (first.0, most))
        })
        .collect()
}

/// Returns which part of the jobs had started within a time; times as logarithms.
fn shares(run: &Run, trace: &Trace) -> Vec<(f64, f64)> {
    let mut waits: Vec<f64> = trace
        .jobs
        .iter()
        .zip(&run.outcomes)
        .filter_map(|(job, outcome)| Some(outcome.start? - job.submit))
        .collect();
    waits.sort_by(f64::total_cmp);
    let size = waits.len().div_ceil(POINTS).max(1);
    let count = as_f64(waits.len().max(1));
    let mut points: Vec<_> = waits
        .iter()
        .enumerate()
        .step_by(size)
        .map(|(at, wait)| (wait.ln_1p(), as_f64(at + 1) / count))
        .collect();
    points.extend(waits.last().map(|wait| (wait.ln_1p(), 1.0)));
    points
}

#[expect(clippy::cast_precision_loss, reason = "counts that are drawn")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a small index; negative ones become 0"
)]
fn index(slot: f64) -> usize {
    slot as usize
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
