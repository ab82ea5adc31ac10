//! Are golden and hand-made job descriptions understood as the original understands them?

use super::*;

const ID: JobId = JobId(1234);

fn document(
    broker_rank: u32,
    slot: &str,
    count: &str,
    options: &str,
    r_lite: &str,
    nodelist: &str,
) -> String {
    format!(
        r#"{{"version":1,"id":1234,"broker_rank":{broker_rank},"jobspec":{{"resources":{slot},
        "tasks":[{{"command":["hostname"],"slot":"task","count":{count}}}],
        "attributes":{{"system":{{"duration":0,"cwd":"/tmp","shell":{{"options":{options}}}}}}},"version":1}},
        "R":{{"version":1,"execution":{{"R_lite":{r_lite},"starttime":1.5,"expiration":0.0,"nodelist":{nodelist}}}}}}}"#
    )
}

const SLOT4: &str = r#"[{"type":"slot","count":4,"with":[{"type":"core","count":1}],"label":"task"}]"#;
const TWO_NODES: &str = r#"[{"rank":"0-1","children":{"core":"0-1"}}]"#;

#[test]
fn golden_job_one_runs_two_tasks_on_each_node() {
    let text = document(1, SLOT4, r#"{"per_slot":1}"#, "{}", TWO_NODES, r#"["vm,vm"]"#);
    let info = JobInfo::from_json(&text, ID).unwrap();
    assert_eq!((info.shell_rank, info.shell_size()), (1, 2));
    assert_eq!(info.taskmap.to_value().to_string(), "[[0,2,2,1]]");
    assert_eq!(info.local_tasks, [2, 3]);
    assert!(!info.is_leader());
    assert_eq!(info.service, format!("1000-shell-{}", ID.f58(true)));
}

#[test]
fn exclusive_nodes_get_their_slots_only() {
    let slot = r#"[{"type":"node","count":2,"exclusive":true,"with":[{"type":"slot","count":2,"label":"task",
        "with":[{"type":"core","count":1}]}]}]"#;
    let r_lite =
        r#"[{"rank":"0","children":{"core":"0-3"}},{"rank":"5","children":{"core":"0-1","gpu":"0"}}]"#;
    let text = document(5, slot, r#"{"total":3}"#, "{}", r_lite, r#"["a[0-1]"]"#);
    let info = JobInfo::from_json(&text, ID).unwrap();
    assert_eq!(info.taskmap.to_value().to_string(), "[[0,1,2,1],[1,1,1,1]]");
    assert_eq!(info.node().unwrap().host, "a1");
    assert_eq!(info.broker_rank_of(1), 5);
}

#[test]
fn taskmaps_and_per_resource() {
    let with = |options| {
        let text = document(0, SLOT4, r#"{"per_slot":1}"#, options, TWO_NODES, r#"["vm,vm"]"#);
        JobInfo::from_json(&text, ID).map(|info| info.taskmap.to_value().to_string())
    };
    assert_eq!(with(r#"{"taskmap":{"scheme":"cyclic"}}"#).unwrap(), "[[0,2,1,2]]");
    assert_eq!(
        with(r#"{"taskmap":{"scheme":"cyclic","value":""}}"#).unwrap(),
        "[[0,2,1,2]]"
    );
    assert_eq!(
        with(r#"{"taskmap":{"scheme":"cyclic","value":"2"}}"#).unwrap(),
        "[[0,2,2,1]]"
    );
    assert_eq!(
        with(r#"{"taskmap":{"scheme":"manual","value":"0-2;3"}}"#).unwrap(),
        "[[0,1,3,1],[1,1,1,1]]"
    );
    assert_eq!(
        with(r#"{"taskmap":{"scheme":"manual","value":[[0,2,2,1]]}}"#).unwrap(),
        "[[0,2,2,1]]"
    );
    assert_eq!(
        with(r#"{"per-resource":{"type":"node","count":3}}"#).unwrap(),
        "[[0,2,3,1]]"
    );
    assert_eq!(
        with(r#"{"per-resource":{"type":"core"}}"#).unwrap(),
        "[[0,2,2,1]]"
    );
    let text = with(r#"{"taskmap":{"scheme":"manual","value":"0-2"}}"#)
        .unwrap_err()
        .to_string();
    assert_eq!(text, "taskmap: map has 3 tasks, the job 4");
    assert!(
        with(r#"{"taskmap":{"scheme":"spiral"}}"#)
            .unwrap_err()
            .to_string()
            .contains("spiral")
    );
    assert!(with(r#"{"taskmap":{"scheme":"cyclic","value":"0"}}"#).is_err());
}

#[test]
fn wrong_documents_are_refused() {
    let good = document(0, SLOT4, r#"{"per_slot":1}"#, "{}", TWO_NODES, r#"["vm,vm"]"#);
    assert!(matches!(
        JobInfo::from_json(&good, JobId(1)),
        Err(InfoError::OtherJob { .. })
    ));
    let text = document(7, SLOT4, r#"{"per_slot":1}"#, "{}", TWO_NODES, r#"["vm,vm"]"#);
    assert!(matches!(JobInfo::from_json(&text, ID), Err(InfoError::NotInR(7))));
    let twice = r#"[{"rank":"0","children":{"core":"0"}},{"rank":"0-1","children":{"core":"1"}}]"#;
    let text = document(0, SLOT4, r#"{"per_slot":1}"#, "{}", twice, r#"["vm,vm"]"#);
    assert!(matches!(
        JobInfo::from_json(&text, ID),
        Err(InfoError::Resources(_))
    ));
    let text = document(0, SLOT4, r#"{"total":9}"#, "{}", TWO_NODES, r#"["vm,vm"]"#);
    assert!(matches!(
        JobInfo::from_json(&text, ID),
        Err(InfoError::Distribute(_))
    ));
}
