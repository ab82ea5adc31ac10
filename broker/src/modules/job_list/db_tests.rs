//! What the database answers is what memory would answer.

use super::super::apply::tests::{job, life};
use super::super::constraint::tests::arbitrary;
use super::super::job::Job;
use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::rc::Rc;

/// What differs between the jobs of a test.
#[derive(Clone, Debug)]
struct Case {
    userid: u32,
    steps: usize,
    name: String,
    queue: Option<String>,
    t_inactive: u32,
    place: Option<(u32, u32)>,
    exception: Option<(String, u8)>,
}

fn case() -> impl Strategy<Value = Case> {
    let exception = prop::option::of(("cancel|timeout|oops", 0u8..2));
    (
        6u32..9,
        2usize..9,
        "sleep|true|x'y",
        prop::option::of("batch|debug"),
        1u32..12,
        prop::option::of((0u32..3, 0u32..3)),
        exception,
    )
        .prop_map(
            |(userid, steps, name, queue, t_inactive, place, exception)| Case {
                userid,
                steps,
                name,
                queue,
                t_inactive,
                place,
                exception,
            },
        )
}

fn inactive(id: u64, case: &Case) -> Job {
    let mut steps = life();
    steps.truncate(case.steps);
    if let Some((kind, severity)) = &case.exception {
        let context = json!({"type": kind, "severity": severity, "note": "a \"note\"", "userid": 7});
        steps.push(("exception", context));
    }
    steps.push(("clean", json!({})));
    let mut job = job(id, &steps);
    job.userid = case.userid;
    job.t_inactive = f64::from(case.t_inactive);
    let mut spec = (*job.spec).clone();
    spec.name = case.name.as_str().into();
    spec.queue = case.queue.as_deref().map(Into::into);
    job.spec = Rc::new(spec);
    job.alloc = case.place.map(|(first, count)| {
        let ranks = format!("{first}-{}", first + count);
        Rc::new(super::super::job::Alloc {
            nnodes: count + 1,
            ncores: 4,
            nodelist: format!("n[{ranks}]").into(),
            ranks: ranks.into(),
        })
    });
    job
}

fn query(constraint: &serde_json::Value, since: f64, only: Option<u32>) -> Query {
    Query {
        attrs: Attrs::parse(&["all".to_owned()]).unwrap(),
        constraint: Constraint::parse(constraint).unwrap(),
        since,
        only,
    }
}

fn all(db: &Db, query: &Query, window: usize, limit: usize) -> Vec<Bytes> {
    let (mut out, mut after) = (Vec::new(), Some(Rank::FIRST));
    while let Some(rank) = after {
        let part = Part {
            after: rank,
            seq_max: i64::MAX,
            window,
            limit,
            without: Arc::default(),
        };
        let found = db.select(query, &part).unwrap();
        assert!(found.jobs.len() <= limit);
        out.extend(found.jobs.into_iter().map(|(_, job)| job));
        after = found.next;
    }
    out
}

fn filled(jobs: &[Job]) -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let mut db = Db::open(&dir.path().join("jobs.sqlite"), false).unwrap();
    let rows: Vec<Arc<Row>> = jobs.iter().map(|job| Arc::new(Row::of(job))).collect();
    for (at, rows) in rows.chunks(3).enumerate() {
        db.insert(rows, 1 + 3 * integer(at)).unwrap();
    }
    (dir, db)
}

proptest! {
    /// Rows are selected, ordered and written as the jobs in memory would be, in parts of any size.
    #[test]
    fn the_database_answers_as_memory_does(
        cases in prop::collection::vec(case(), 0..24),
        constraints in prop::collection::vec(arbitrary(), 1..12),
        since in 0u32..8,
        only in prop::option::of(6u32..9),
        (window, limit) in (1usize..9, 1usize..9),
    ) {
        let jobs: Vec<Job> = (1u64..).zip(&cases).map(|(id, case)| inactive(id, case)).collect();
        let (_dir, db) = filled(&jobs);
        for constraint in constraints {
            let query = query(&constraint, f64::from(since), only);
            let mut expected: Vec<&Job> = jobs
                .iter()
                .filter(|job| query.constraint.matches(&job.view()))
                .filter(|job| job.t_inactive > query.since && only.is_none_or(|id| job.userid == id))
                .collect();
            expected.sort_by(|a, b| b.t_inactive.total_cmp(&a.t_inactive).then(b.id.cmp(&a.id)));
            let texts: Vec<Bytes> = expected
                .iter()
                .map(|job| {
                    let mut out = Vec::new();
                    encode(&mut out, &job.view(), query.attrs);
                    out.into()
                })
                .collect();
            prop_assert_eq!(all(&db, &query, window, limit), texts, "{}", constraint);
        }
    }

    /// What the condition selects is never too little, and exactly right when it says so.
    #[test]
    fn conditions_are_bounds(cases in prop::collection::vec(case(), 1..12), constraint in arbitrary()) {
        let jobs: Vec<Job> = (1u64..).zip(&cases).map(|(id, case)| inactive(id, case)).collect();
        let (_dir, db) = filled(&jobs);
        let constraint = Constraint::parse(&constraint).unwrap();
        let condition = sql::condition(&constraint);
        let text = format!("SELECT id FROM jobs WHERE {}", condition.text);
        let mut statement = db.connection.prepare(&text).unwrap();
        let selected: HashSet<JobId> = statement
            .query_map(params_from_iter(condition.values), |row| Ok(unsigned(row.get(0)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        for job in &jobs {
            let matches = constraint.matches(&job.view());
            prop_assert!(!matches || selected.contains(&job.id), "{}", condition.text);
            prop_assert!(!condition.exact || matches == selected.contains(&job.id), "{}", condition.text);
        }
    }
}

fn some_case() -> Case {
    Case {
        userid: 7,
        steps: 8,
        name: "sleep".into(),
        queue: Some("batch".into()),
        t_inactive: 5,
        place: None,
        exception: None,
    }
}

#[test]
fn counts_follow_what_is_there() {
    let cancelled = Case {
        steps: 5,
        queue: None,
        exception: Some(("cancel".into(), 0)),
        ..some_case()
    };
    let jobs = [
        inactive(1, &some_case()),
        inactive(2, &some_case()),
        inactive(3, &cancelled),
    ];
    let (_dir, mut db) = filled(&jobs);
    let count = |queue: &str, result, jobs| Count {
        queue: queue.into(),
        result,
        jobs,
    };
    let (done, gone) = (
        count("batch", JobResult::Completed, 2),
        count("", JobResult::Canceled, 1),
    );
    assert_eq!(db.counts().unwrap(), [gone.clone(), done]);
    // the same job again, with another end
    let again = Case {
        steps: 5,
        exception: Some(("timeout".into(), 0)),
        ..some_case()
    };
    db.insert(&[Arc::new(Row::of(&inactive(2, &again)))], 9).unwrap();
    let (one, late) = (
        count("batch", JobResult::Completed, 1),
        count("batch", JobResult::Timeout, 1),
    );
    assert_eq!(db.counts().unwrap(), [gone.clone(), one.clone(), late]);
    let removed = db.remove(&[JobId(1), JobId(3), JobId(77)]).unwrap();
    assert_eq!(removed, [one, gone]);
    assert_eq!(db.counts().unwrap().len(), 1);
}

#[test]
fn what_differs_from_the_truth() {
    let jobs: Vec<Job> = (1..6).map(|id| inactive(id, &some_case())).collect();
    let (_dir, mut db) = filled(&jobs);
    // 2 is gone, 3 ended at another time, 8 and 9 are new
    let truth = vec![(9, 1.0), (5, 5.0), (1, 5.0), (3, 6.0), (4, 5.0), (8, 7.0)];
    let truth = truth.into_iter().map(|(id, end)| (JobId(id), end)).collect();
    let Comparison {
        mut missing,
        removed,
        counts,
        seq,
    } = db.compare(truth).unwrap();
    missing.sort_unstable();
    assert_eq!(missing, [JobId(3), JobId(8), JobId(9)]);
    assert_eq!((removed, counts[0].jobs, seq), (2, 3, 5));
}

#[test]
fn one_job_and_what_is_left_out() {
    let jobs: Vec<Job> = (1..6).map(|id| inactive(id, &some_case())).collect();
    let (_dir, db) = filled(&jobs);
    let attrs = Attrs::parse(&["queue".to_owned()]).unwrap();
    let (userid, text) = db.find(JobId(2), attrs).unwrap().unwrap();
    assert_eq!((userid, &*text), (7, &br#"{"id":2,"queue":"batch"}"#[..]));
    assert!(db.find(JobId(6), attrs).unwrap().is_none());
    let part = Part {
        after: Rank::FIRST,
        seq_max: 4,
        window: 100,
        limit: 100,
        without: Arc::new(HashSet::from([JobId(3)])),
    };
    let found = db.select(&query(&json!({}), 0.0, None), &part).unwrap();
    let ids: Vec<i64> = found.jobs.iter().map(|(rank, _)| rank.id).collect();
    assert_eq!(ids, [4, 2, 1]);
    assert_eq!(found.next, None);
}

/// Windows and users are read from indexes, in order, without sorting.
#[test]
fn queries_use_indexes() {
    let (_dir, db) = filled(&[inactive(1, &some_case())]);
    let plan = |filter: &str| -> String {
        let text = format!(
            "EXPLAIN QUERY PLAN SELECT {COLUMNS} FROM jobs WHERE (t_inactive, id) < (9, 9) AND (t_inactive, id) >= (1, 1)
             AND t_inactive > 0 AND seq <= 9 AND {filter} ORDER BY t_inactive DESC, id DESC"
        );
        let mut statement = db.connection.prepare(&text).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        rows.collect::<Result<Vec<_>, _>>().unwrap().join("; ")
    };
    let by_end = plan("(name IN ('x'))");
    assert!(
        by_end.contains("jobs_by_end") && !by_end.contains("TEMP B-TREE"),
        "{by_end}"
    );
    let by_user = plan("(userid IN (7))");
    assert!(
        by_user.contains("jobs_by_user") && !by_user.contains("TEMP B-TREE"),
        "{by_user}"
    );
}
