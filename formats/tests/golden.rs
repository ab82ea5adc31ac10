//! Do the decoders read what the existing system wrote, and the encoders write the same?

use flux_formats::eventlog;
use flux_formats::ioencode;
use flux_formats::jobid::{Encoding, JobId};
use flux_formats::resource_set::ResourceSet;
use flux_formats::taskmap::Taskmap;
use serde_json::Value;

#[test]
fn job_ids_in_all_encodings() {
    let mut current = JobId(0);
    let mut seen = 0;
    for line in include_str!("data/job-ids.txt").lines() {
        let (name, text) = line.split_once(' ').unwrap();
        let encoding = Encoding::from_name(name).unwrap();
        if encoding == Encoding::Dec {
            current = text.parse().unwrap();
        }
        assert_eq!(current.encode(encoding), text);
        assert_eq!(text.parse(), Ok(current), "{text}");
        seen += 1;
    }
    assert_eq!(seen, 11 * Encoding::ALL.len());
}

#[test]
fn eventlogs_keep_their_meaning() {
    for log in [
        include_str!("data/eventlogs.jsonl"),
        include_str!("data/exec-eventlogs.jsonl"),
        include_str!("data/output-eventlogs.jsonl"),
    ] {
        let events = eventlog::decode_log(log).unwrap();
        assert_eq!(events.len(), log.lines().count());
        for (event, line) in events.iter().zip(log.lines()) {
            let ours: Value = serde_json::from_str(&event.encode()).unwrap();
            let theirs: Value = serde_json::from_str(line).unwrap();
            assert_eq!(ours, theirs);
            assert_eq!(eventlog::Event::decode(line).unwrap(), *event);
        }
    }
}

#[test]
fn output_events_encode_alike() {
    let mut data_events = 0;
    for event in eventlog::decode_iter(include_str!("data/output-eventlogs.jsonl")) {
        let event = event.unwrap();
        let context = event.context.unwrap().get();
        let ours = match event.name.as_ref() {
            "header" => serde_json::to_string(&event.context_as::<ioencode::Header>().unwrap()),
            "data" => {
                let data: ioencode::Data = event.context_as().unwrap();
                let bytes = data.decode(Some(ioencode::UTF8)).unwrap();
                data_events += 1;
                serde_json::to_string(&ioencode::Data::encode(
                    &data.stream,
                    &data.rank,
                    &bytes,
                    data.eof,
                ))
            }
            "log" => serde_json::to_string(&event.context_as::<ioencode::Log>().unwrap()),
            other => panic!("unexpected event {other}"),
        };
        assert_eq!(ours.unwrap(), context);
    }
    assert!(data_events > 20);
}

#[test]
fn task_maps_of_exec_eventlogs() {
    let mut maps = 0;
    for event in eventlog::decode_iter(include_str!("data/exec-eventlogs.jsonl")) {
        let event = event.unwrap();
        if event.name == "shell.start" {
            let context: Value = event.context_as().unwrap();
            let json = context.get("taskmap").unwrap();
            let map = Taskmap::from_value(json).unwrap();
            assert_eq!(map.to_wrapped_value(), *json);
            maps += 1;
        }
    }
    assert!(maps > 3);
}

#[test]
fn resource_sets_of_jobs() {
    for line in include_str!("data/job-R.jsonl").lines() {
        let set = ResourceSet::decode(line.as_bytes()).unwrap();
        let theirs: Value = serde_json::from_str(line).unwrap();
        // also the order of keys
        assert_eq!(set.encode(), theirs.to_string());
    }
}
