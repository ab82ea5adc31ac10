//! Do maps match the vectors of RFC 34 in all forms?

use super::*;
use proptest::prelude::*;

const VECTORS: &[(&str, &str)] = &[
    ("0", "[[0,1,1,1]]"),
    ("0;1", "[[0,2,1,1]]"),
    ("0-1", "[[0,1,2,1]]"),
    ("0-1;2-3", "[[0,2,2,1]]"),
    ("0,2;1,3", "[[0,2,1,2]]"),
    ("1;0", "[[1,1,1,1],[0,1,1,1]]"),
    ("0-3;4-7;8-11;12-15", "[[0,4,4,1]]"),
    ("0,4,8,12;1,5,9,13;2,6,10,14;3,7,11,15", "[[0,4,1,4]]"),
    ("0-1,8-9;2-3,10-11;4-5,12-13;6-7,14-15", "[[0,4,2,2]]"),
    ("0-1;2-3;4-5;6-7;8-11;12-15", "[[0,4,2,1],[4,2,4,1]]"),
    ("0,6;1,7;2,8;3,9;4,10,12,14;5,11,13,15", "[[0,6,1,2],[4,2,1,2]]"),
    (
        "14-15;12-13;10-11;8-9;4-7;0-3",
        "[[5,1,4,1],[4,1,4,1],[3,1,2,1],[2,1,2,1],[1,1,2,1],[0,1,2,1]]",
    ),
    (
        "0-1;2-3;4-5;6-7;8-9;12-13;10-11;14-15",
        "[[0,5,2,1],[6,1,2,1],[5,1,2,1],[7,1,2,1]]",
    ),
    ("12-15;8-11;4-7;0-3", "[[3,1,4,1],[2,1,4,1],[1,1,4,1],[0,1,4,1]]"),
];

fn map(text: &str) -> Taskmap {
    text.parse().unwrap()
}

#[test]
fn rfc_vectors() {
    for (raw, json) in VECTORS {
        assert_eq!(map(raw).encode(Form::Taskmap).unwrap(), *json, "{raw}");
        assert_eq!(map(json).encode(Form::Raw).unwrap(), *raw, "{json}");
        assert_eq!(map(&map(raw).encode(Form::Wrapped).unwrap()), map(json));
        let pmi = map(raw).encode(Form::Pmi).unwrap();
        assert_eq!(map(&pmi).encode(Form::Raw).unwrap(), *raw, "{pmi}");
    }
    assert!(map("[]").is_unknown() && map(r#"{"version":1,"map":[]}"#).is_unknown());
    assert_eq!(map("[]").encode(Form::Taskmap).unwrap(), "[]");
    assert_eq!(
        serde_json::to_string(&map("0-1;2-3").to_wrapped_value()).unwrap(),
        r#"{"version":1,"map":[[0,2,2,1]]}"#
    );
}

#[test]
fn distributions() {
    let json = |map: Result<Taskmap, TaskmapError>| map.unwrap().encode(Form::Taskmap).unwrap();
    assert_eq!(json(Taskmap::block(&[4; 4])), "[[0,4,4,1]]");
    assert_eq!(json(Taskmap::cyclic(&[4; 4], 1)), "[[0,4,1,4]]");
    assert_eq!(json(Taskmap::cyclic(&[4; 4], 2)), "[[0,4,2,2]]");
    assert_eq!(json(Taskmap::block(&[2, 2, 2, 2, 4, 4])), "[[0,4,2,1],[4,2,4,1]]");
    assert_eq!(
        json(Taskmap::cyclic(&[2, 2, 2, 2, 4, 4], 1)),
        "[[0,6,1,2],[4,2,1,2]]"
    );
    assert_eq!(
        json(Taskmap::cyclic(&[2, 2, 2, 2, 4, 4], 2)),
        "[[0,6,2,1],[4,2,2,1]]"
    );
    assert_eq!(json(Taskmap::block(&[256; 4096])), "[[0,4096,256,1]]");
    assert_eq!(json(Taskmap::cyclic(&[256; 4096], 1)), "[[0,4096,1,256]]");
    assert_eq!(json(Taskmap::block(&[1, 0, 2])), "[[0,1,1,1],[2,1,2,1]]");
    assert!(Taskmap::cyclic(&[1], 0).is_err());
    assert!(Taskmap::block(&[u32::MAX, u32::MAX]).is_err());
    assert!(Taskmap::cyclic(&[u32::MAX], 1).is_err());
}

#[test]
fn pmi_form() {
    let block = Taskmap::block(&[1, 1]).unwrap();
    assert_eq!(block.pmi_process_mapping(1023), "(vector,(0,2,1))");
    let cyclic = Taskmap::cyclic(&[256; 4096], 1).unwrap();
    assert_eq!(cyclic.pmi_process_mapping(1023), "");
    assert_eq!(Taskmap::unknown().pmi_process_mapping(1023), "");
    assert_eq!(
        map("(vector, (0,4,1), (0,4,1))").encode(Form::Taskmap).unwrap(),
        "[[0,4,1,2]]"
    );
    assert_eq!(block.encode(Form::Multiline).unwrap(), "0: 0\n1: 1\n");
}

#[test]
fn refused() {
    for bad in [
        "",
        "x",
        "0;0",
        "1",
        "0;2",
        "0-4294967295",
        "[[0,1,1]]",
        "[[0,0,1,1]]",
        "[[0,1,1,1,1]]",
        "[[-1,1,1,1]]",
        "[[0,1.5,1,1]]",
        "[[0,4294967295,4294967295,4294967295]]",
        "[[4294967295,2,1,1]]",
        "{}",
        "[1]",
        "[{}]",
        r#"{"version":2,"map":[]}"#,
        r#"{"version":1}"#,
        "(vector,(0,1))",
        "(vector,(0,1,1,1))",
        "(vector,(0,1,1)",
        "(matrix)",
        "(vector,,(0,1,1))",
        "(vector(0,1,1))",
        "[[0,1,1,1]",
        "0;1-",
    ] {
        assert!(bad.parse::<Taskmap>().is_err(), "{bad}");
    }
    assert!(Taskmap::unknown().encode(Form::Raw).is_err());
}

proptest! {
    #[test]
    fn lookups_agree(counts in prop::collection::vec(0u32..6, 1..8), stride in 1u32..4) {
        for map in [Taskmap::block(&counts).unwrap(), Taskmap::cyclic(&counts, stride).unwrap()] {
            prop_assert_eq!(map.ntasks(), counts.iter().sum::<u32>());
            let mut all = IdSet::new();
            for (nodeid, count) in (0u32..).zip(&counts) {
                let tasks = map.task_ids(nodeid);
                prop_assert_eq!(tasks.count(), u64::from(*count));
                prop_assert_eq!(map.task_count(nodeid), *count);
                for task in &tasks {
                    prop_assert_eq!(map.nodeid(task), Some(nodeid));
                }
                all = all.union(&tasks);
            }
            prop_assert_eq!(all, IdSet::first_n(map.ntasks()));
            prop_assert_eq!(map.nodeid(map.ntasks()), None);
            if !map.is_unknown() {
                let raw = map.encode(Form::Raw).unwrap();
                prop_assert_eq!(raw.parse::<Taskmap>().unwrap().encode(Form::Raw).unwrap(), raw);
                let json = serde_json::to_string(&map).unwrap();
                prop_assert_eq!(serde_json::from_str::<Taskmap>(&json).unwrap(), map);
            }
        }
    }
}
