//! `flux job`: eventlogs, ids, info, status, waiting.

use flux_tests::Instance;
use serde_json::Value;

/// Event names of a job that runs well (acceptance 6), as the original writes them.
const EVENTS: &[&str] = &[
    "submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean",
];

#[test]
fn the_eventlog_is_golden() {
    let flux = Instance::boot(1);
    let id = flux.sh("flux run true; flux job last").ok().line().to_owned();
    let output = flux.run(&["job", "eventlog", "--time-format=offset", &id]);
    let names: Vec<_> = output
        .ok()
        .lines()
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(names, EVENTS, "{output}");
    assert!(
        output.lines()[0].starts_with("0.000000 submit userid="),
        "{output}"
    );
    output
        .says("release ranks=\"all\" final=true")
        .says("finish status=0");
    let output = flux.run(&["job", "eventlog", "--path=guest.exec.eventlog", &id]);
    let mut names: Vec<_> = output
        .ok()
        .lines()
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    // flux-core 0.88 writes this one, older releases do not
    names.retain(|name| *name != "shell-exit");
    let expected = [
        "init",
        "starting",
        "shell.init",
        "shell.start",
        "shell.task-exit",
        "complete",
        "done",
    ];
    assert_eq!(names, expected, "{output}");
    flux.run(&["job", "eventlog", "-f", "json", &id]).ok();
    flux.stop();
}

#[test]
fn ids_round_trip() {
    let flux = Instance::boot(1);
    let id = flux.run(&["submit", "true"]).ok().line().to_owned();
    for form in ["dec", "hex", "dothex", "kvs", "words", "f58"] {
        let other = flux
            .run(&["job", "id", &format!("--to={form}"), &id])
            .ok()
            .line()
            .to_owned();
        assert_eq!(
            flux.run(&["job", "id", "--to=f58", &other]).ok().line(),
            id,
            "{form}"
        );
    }
    let words = flux
        .sh("flux submit true | flux job id --to=words")
        .ok()
        .line()
        .to_owned();
    assert_eq!(words.split("--").count(), 2, "{words}");
    flux.run(&["job", "wait-event", "-t", "20", &words, "clean"]).ok();
    flux.run(&["job", "id", "not-an-id"])
        .fails()
        .complains("not-an-id");
    let output = flux.sh("FLUX_F58_FORCE_ASCII=1 flux submit true");
    assert!(output.ok().line().starts_with('f'), "{output}");
    flux.stop();
}

#[test]
fn info_and_status() {
    let flux = Instance::boot(2);
    let id = flux.sh("flux run -N2 true; flux job last").ok().line().to_owned();
    let r = flux.run(&["job", "info", &id, "R"]).ok().json();
    assert_eq!(r["version"], 1);
    assert_eq!(r["execution"]["R_lite"][0]["rank"], "0-1");
    let jobspec = flux.run(&["job", "info", &id, "jobspec"]).ok().json();
    assert_eq!(jobspec["tasks"][0]["command"][0], "true");
    flux.run(&["job", "info", &id, "nosuch"]).fails();
    flux.run(&["job", "status", &id]).ok();
    let failed = flux.run(&["submit", "false"]).ok().line().to_owned();
    flux.run(&["job", "status", &failed]).code(1);
    flux.run(&["job", "attach", &failed]).code(1);
    flux.run(&["job", "eventlog", "ƒ2"]).fails();
    flux.run(&["job", "taskmap", &id]).ok().says("[[0,2,1,1]]");
    let stats = flux.run(&["job", "stats"]).ok().json();
    assert!(stats["job_states"]["total"].as_u64().unwrap() >= 2, "{stats}");
    flux.stop();
}

#[test]
fn waitable_jobs() {
    let flux = Instance::boot(1);
    let id = flux
        .run(&["submit", "--flags=waitable", "true"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait", &id]).ok();
    flux.run(&["job", "wait", &id]).fails();
    flux.run(&["submit", "--flags=waitable", "--cc=1-3", "false"])
        .ok();
    flux.run(&["job", "wait", "--all"]).code(1);
    flux.stop();
}

#[test]
fn exceptions_memos_and_purging() {
    let flux = Instance::boot(1);
    let id = flux.run(&["submit", "sleep", "1000"]).ok().line().to_owned();
    flux.run(&[
        "job",
        "raise",
        "--severity=2",
        "--type=test",
        "--message=mild",
        &id,
    ])
    .ok();
    flux.run(&["job", "memo", &id, "colour=blue"]).ok();
    assert_eq!(
        flux.run(&["jobs", "-no", "{annotations.user.colour}"])
            .ok()
            .line(),
        "blue"
    );
    flux.run(&[
        "job",
        "raise",
        "--severity=0",
        "--type=test",
        "--message=fatal",
        &id,
    ])
    .ok();
    flux.run(&["job", "wait-event", "-t", "20", &id, "clean"]).ok();
    let log = flux.run(&["job", "eventlog", &id]);
    log.ok()
        .says("exception type=\"test\" severity=2")
        .says("exception type=\"test\" severity=0")
        .says("memo");
    flux.run(&["job", "purge", "--force", "--num-limit=0"]).ok();
    assert_eq!(flux.run(&["jobs", "-a", "-n"]).ok().stdout, "");
    flux.run(&["job", "raiseall", "--severity=0", "cancel"]).ok();
    flux.stop();
}

/// Events of flux-core 0.88 that our formats' tests know as well: those of eleven jobs, one after another.
const GOLDEN: &str = include_str!("../../formats/tests/data/eventlogs.jsonl");

/// Returns name and context of each event, with what differs from run to run made equal.
fn plain_events(lines: &[&str], first: &str) -> Vec<(String, Value)> {
    let plain = |line: &&str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let mut context = event["context"].take();
        if let Some(userid) = context.get_mut("userid") {
            *userid = "userid".into();
        }
        if let Some(note) = context["note"].as_str() {
            let host = note
                .split_once("(host ")
                .and_then(|(_, rest)| rest.split_once(')'));
            let plain = host.map(|(host, _)| note.replace(&format!("(host {host})"), "(host)"));
            context["note"] = plain.unwrap_or_else(|| note.to_owned()).into();
        }
        if let Some(description) = context["description"].as_str() {
            context["description"] = description.replace(first, "FIRST").into();
        }
        (event["name"].as_str().unwrap().to_owned(), context)
    };
    lines.iter().map(plain).collect()
}

/// With the whole standard set of plugins in their way, jobs have the events of the original: order, names and contexts.
#[test]
fn events_with_the_standard_set_are_golden() {
    let config = "[resource]\nnoverify = true\n[[resource.config]]\nhosts = \"vm[0-3]\"\ncores = \"0-1\"\n\
        [ingest.frobnicator]\nplugins = [\"defaults\", \"constraints\"]\n\
        [ingest.validator]\nplugins = [\"jobspec\", \"feasibility\"]\n\
        [[job-manager.plugins]]\nload = \"perilog.so\"\n[[job-manager.plugins]]\nload = \"alloc-bypass.so\"\n";
    let flux = Instance::builder(4)
        .config(config)
        .option("--test-hosts=vm[0-3]")
        .boot();
    let submit = |words: &[&str]| {
        let words = [&["submit"], words].concat();
        flux.run(&words).ok().line().to_owned()
    };
    let wait = |id: &str, event: &str| {
        flux.run(&["job", "wait-event", "--timeout=30", id, event]).ok();
    };
    let hello = "echo hello stdout $FLUX_TASK_RANK; echo hello stderr >&2; exit 0";
    let mut ids = vec![submit(&["-n4", "sh", "-c", hello])];
    wait(&ids[0], "clean");
    ids.push(submit(&["sh", "-c", "exit 3"]));
    wait(&ids[1], "clean");
    ids.push(submit(&["sleep", "300"]));
    wait(&ids[2], "start");
    flux.run(&[
        "job",
        "wait-event",
        "--timeout=30",
        "-p",
        "exec",
        &ids[2],
        "shell.start",
    ])
    .ok();
    ids.push(submit(&["nosuchcommand"]));
    wait(&ids[3], "clean");
    flux.run(&["cancel", &ids[2]]).ok();
    wait(&ids[2], "clean");
    ids.push(submit(&["-t0.5s", "sleep", "100"]));
    wait(&ids[4], "alloc");
    ids.push(submit(&["-n2", "sh", "-c", "kill -SEGV $$"]));
    ids.push(submit(&["-N4", "--exclusive", "hostname"]));
    let after = format!("--dependency=afterok:{}", ids[0]);
    ids.push(submit(&[&after, "true"]));
    for id in &ids[4..] {
        wait(id, "clean");
    }
    ids.push(submit(&["--urgency=hold", "true"]));
    wait(&ids[8], "priority");
    ids.push(submit(&["-n8", "sleep", "60"]));
    wait(&ids[9], "start");
    ids.push(submit(&["-n8", "sleep", "60"]));
    wait(&ids[10], "priority");
    let golden: Vec<&str> = GOLDEN.lines().filter(|line| !line.is_empty()).collect();
    let mut golden: Vec<_> = golden.chunk_by(|_, next| !next.contains("\"submit\"")).collect();
    let time = |job: &[&str]| serde_json::from_str::<Value>(job[0]).unwrap()["timestamp"].as_f64();
    golden.sort_by(|one, other| time(one).partial_cmp(&time(other)).unwrap());
    assert_eq!(golden.len(), ids.len());
    for (number, (id, golden)) in ids.iter().zip(golden).enumerate() {
        let log = flux.run(&["job", "eventlog", "--format=json", id]);
        assert_eq!(
            plain_events(&log.ok().lines(), &ids[0]),
            plain_events(golden, "\u{192}27EdtBZ"),
            "job {}",
            number + 1
        );
    }
    flux.run(&["cancel", "--all"]).ok();
    flux.run(&["queue", "idle"]).ok();
    flux.stop();
}
