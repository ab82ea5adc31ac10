use flux_policy_sdk::fake::{FakeHost, FakePool};
use flux_policy_sdk::{Changes, Level, Pending};
use serde_json::{Value, json};

use crate::{Backfill, Kind};

const BOTH: Changes = Changes {
    queue: true,
    resources: true,
};
const QUEUE: Changes = Changes {
    queue: true,
    resources: false,
};

fn policy(kind: Kind, config: Value) -> Backfill {
    Backfill::configure(&FakeHost::new(config), kind).unwrap()
}

fn pool(cores: u64) -> FakePool {
    let pool = FakePool::default();
    *pool.free.borrow_mut() = cores;
    pool
}

/// Submits (id, priority, cores, seconds, queue); no seconds is no limit.
fn submit(policy: &mut Backfill, pool: &FakePool, jobs: &[(u64, u64, u64, f64, u32)]) {
    let pending: Vec<_> = jobs
        .iter()
        .map(|&(id, priority, _, duration, queue)| Pending {
            id,
            priority,
            duration,
            queue,
            ..Pending::default()
        })
        .collect();
    for &(id, _, cores, duration, _) in jobs {
        pool.needs.borrow_mut().insert(id, cores);
        if duration > 0.0 {
            pool.durations.borrow_mut().insert(id, duration);
        }
    }
    policy.submitted(&pending);
}

fn end(pool: &FakePool, now: f64) {
    *pool.now.borrow_mut() = now;
    let mut free = pool.free.borrow_mut();
    pool.running.borrow_mut().retain(|&(end, cores)| {
        let done = end <= now;
        *free += if done { cores } else { 0 };
        !done
    });
}

fn started(pool: &FakePool) -> Vec<u64> {
    std::mem::take(&mut pool.started.borrow_mut())
}

#[test]
fn fcfs_head_blocks_the_rest() {
    let (mut policy, pool) = (policy(Kind::Fcfs, json!({})), pool(4));
    let jobs = [
        (3, 16, 1, 0.0, 0),
        (1, 16, 2, 0.0, 0),
        (2, 16, 4, 0.0, 0),
        (9, 20, 1, 0.0, 0),
    ];
    submit(&mut policy, &pool, &jobs);
    assert!(!policy.schedule(&pool, BOTH));
    assert_eq!(started(&pool), [9, 1]);
    // nothing changed: the pool is not even asked
    let asked = *pool.asked.borrow();
    policy.schedule(&pool, QUEUE);
    submit(&mut policy, &pool, &[(11, 16, 1, 0.0, 0)]);
    policy.schedule(&pool, QUEUE);
    assert_eq!(*pool.asked.borrow(), asked);
    // a job that goes before the blocked one is tried at once
    submit(&mut policy, &pool, &[(10, 31, 1, 0.0, 0)]);
    policy.schedule(&pool, QUEUE);
    assert_eq!(started(&pool), [10]);
    policy.removed(&[2, 77]);
    *pool.free.borrow_mut() = 1;
    policy.schedule(&pool, QUEUE);
    assert_eq!(started(&pool), [3]);
}

#[test]
fn goes_on_after_its_budget() {
    for kind in [Kind::Fcfs, Kind::Easy, Kind::Conservative, Kind::Hybrid] {
        let (mut policy, pool) = (policy(kind, json!({})), pool(100));
        let jobs: Vec<_> = (0..10).map(|id| (id, 16, 1, 10.0, 0)).collect();
        submit(&mut policy, &pool, &jobs);
        policy.reprioritized(&[(7, 30), (50, 31)]);
        for _ in 0..2 {
            *pool.budget.borrow_mut() = Some(4);
            assert!(policy.schedule(&pool, BOTH));
        }
        *pool.budget.borrow_mut() = Some(4);
        assert!(!policy.schedule(&pool, QUEUE));
        assert_eq!(started(&pool), [7, 0, 1, 2, 3, 4, 5, 6, 8, 9]);
    }
}

#[test]
fn easy_lets_pass_what_does_not_delay_the_first() {
    let (mut policy, pool) = (policy(Kind::Easy, json!({})), pool(4));
    submit(&mut policy, &pool, &[(1, 16, 3, 100.0, 0), (2, 16, 4, 50.0, 0)]);
    policy.schedule(&pool, BOTH);
    assert_eq!(started(&pool), [1]);
    assert_eq!(*pool.plans.borrow(), [(2, Some(100.0), 4)]);
    // too long, no limit, just right
    submit(
        &mut policy,
        &pool,
        &[(3, 16, 1, 101.0, 0), (4, 16, 1, 0.0, 0), (5, 16, 1, 100.0, 0)],
    );
    policy.schedule(&pool, QUEUE);
    assert_eq!(started(&pool), [5]);
    end(&pool, 100.0);
    policy.schedule(&pool, BOTH);
    assert_eq!(started(&pool), [2]);
    assert_eq!(*pool.plans.borrow(), [(3, Some(150.0), 1)]);
    // the plan goes with its job
    policy.removed(&[3]);
    pool.needs.borrow_mut().remove(&3);
    policy.schedule(&pool, QUEUE);
    assert_eq!(*pool.plans.borrow(), [(4, Some(150.0), 1)]);
}

#[test]
fn who_has_a_plan() {
    let plans = |kind, config| {
        let (mut policy, pool) = (policy(kind, config), pool(4));
        submit(&mut policy, &pool, &[(1, 16, 4, 100.0, 0)]);
        let jobs: Vec<_> = (2..12).map(|id| (id, 16, 4, 10.0, 0)).collect();
        submit(&mut policy, &pool, &jobs);
        while policy.schedule(&pool, BOTH) {}
        pool.plans.borrow().len()
    };
    assert_eq!(plans(Kind::Fcfs, json!({})), 0);
    assert_eq!(plans(Kind::Easy, json!({})), 1);
    assert_eq!(plans(Kind::Conservative, json!({})), 10);
    assert_eq!(
        plans(Kind::Hybrid, json!({"sched-simple": {"reservation-depth": 3}})),
        3
    );
    assert_eq!(
        plans(Kind::Conservative, json!({"sched-simple": {"queue-depth": 4}})),
        4
    );
    let fluxion = json!({"sched-fluxion-qmanager": {"queue-policy": "hybrid", "queue-params": {"queue-depth": 8192},
        "policy-params": {"reservation-depth": 64, "max-reservation-depth": 5}}});
    assert_eq!(plans(Kind::Hybrid, fluxion), 5);
}

#[test]
fn queues_do_not_block_each_other_but_keep_one_order() {
    let config = json!({"sched-fluxion-qmanager": {"queue-policy-per-queue": "queue1:fcfs queue2:easy"}});
    let (mut policy, pool) = (policy(Kind::Easy, config), pool(4));
    submit(
        &mut policy,
        &pool,
        &[
            (1, 16, 3, 100.0, 1),
            (2, 16, 4, 10.0, 1),
            (3, 16, 1, 10.0, 2),
            (4, 16, 1, 10.0, 1),
        ],
    );
    policy.schedule(&pool, BOTH);
    assert_eq!(started(&pool), [1, 3], "the fcfs queue waits, the other goes on");
    assert!(pool.plans.borrow().is_empty());
    submit(&mut policy, &pool, &[(5, 16, 4, 10.0, 2), (6, 16, 1, 1.0, 2)]);
    end(&pool, 10.0);
    policy.schedule(&pool, BOTH);
    assert_eq!(started(&pool), [6]);
    assert_eq!(*pool.plans.borrow(), [(5, Some(100.0), 4)]);
}

#[test]
fn bad_settings_are_named() {
    for (config, text) in [
        (
            json!({"sched-simple": {"queue-depth": 0}}),
            "sched-simple.queue-depth must be a positive",
        ),
        (
            json!({"sched-simple": {"queues": {"a": {"policy": "best"}}}}),
            "sched-simple.queues.a.policy: unknown policy 'best'",
        ),
        (
            json!({"sched-simple": {"queues": {"a": {"speed": 1}}}}),
            "sched-simple.queues.a.speed is not known",
        ),
        (json!({"sched-simple": {"queues": 1}}), "must be a table"),
        (
            json!({"sched-fluxion-qmanager": {"queue-policy": "lottery"}}),
            "unknown policy 'lottery'",
        ),
        (
            json!({"sched-fluxion-qmanager": {"queue-params": {"width": 1}}}),
            "queue-params.width is not supported",
        ),
        (
            json!({"sched-fluxion-qmanager": {"policy-params": "reservation-depth"}}),
            "has no '='",
        ),
        (
            json!({"sched-fluxion-qmanager": {"queue-policy-per-queue": "a"}}),
            "has no ':'",
        ),
    ] {
        let error = Backfill::configure(&FakeHost::new(config), Kind::Easy).unwrap_err();
        assert!(error.text.contains(text), "{}", error.text);
    }
    let host = FakeHost::new(
        json!({"sched-fluxion-qmanager": {"fair-share": true, "queue-params": "queue-depth=5"}}),
    );
    assert!(Backfill::configure(&host, Kind::Easy).is_ok());
    let logged = host.logged.borrow();
    assert!(logged[0].0 == Level::Warning && logged[0].1.contains("fair-share is not supported"));
}

/// Jobs alike are not tried one by one, and nothing comes out differently for it.
#[test]
fn what_a_busy_class_waits_for() {
    let run = |kind, depth: u64, classes: bool| {
        let config = json!({"sched-simple": {"queue-depth": depth, "reservation-depth": 3}});
        let (mut policy, pool) = (policy(kind, config), pool(64));
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut history = Vec::new();
        for turn in 0..150_u32 {
            let jobs: Vec<Pending> = (0..random(8))
                .map(|at| {
                    let (id, cores) = (u64::from(turn) * 10 + at, 1 + random(3) * 5);
                    let duration = f64::from(u32::try_from(random(40)).unwrap());
                    pool.needs.borrow_mut().insert(id, cores);
                    if duration > 0.0 {
                        pool.durations.borrow_mut().insert(id, duration);
                    }
                    Pending {
                        id,
                        priority: if random(20) == 0 { 17 } else { 16 },
                        duration,
                        queue: u32::try_from(random(2)).unwrap(),
                        class: if classes { u32::try_from(cores).unwrap() } else { 0 },
                        ..Pending::default()
                    }
                })
                .collect();
            policy.submitted(&jobs);
            if random(10) == 0 {
                let id = random(u64::from(turn) * 10 + 1);
                if pool.needs.borrow_mut().remove(&id).is_some() {
                    policy.removed(&[id]);
                }
            }
            if random(10) == 0 {
                policy.reprioritized(&[(random(u64::from(turn) * 10 + 1), 20)]);
            }
            let ends = random(3) == 0;
            if ends {
                end(&pool, f64::from(turn));
                // what has no limit ends, too, sometimes
                let mut running = pool.running.borrow_mut();
                if let Some(at) = running.iter().position(|(end, _)| end.is_infinite()) {
                    *pool.free.borrow_mut() += running.remove(at).1;
                }
            }
            let changes = if ends { BOTH } else { QUEUE };
            while policy.schedule(&pool, changes) {}
            history.push((started(&pool), pool.plans.borrow().clone()));
        }
        let asked = *pool.asked.borrow();
        (history, asked)
    };
    for kind in [Kind::Fcfs, Kind::Easy, Kind::Conservative, Kind::Hybrid] {
        for depth in [5, 100, 100_000] {
            let (wanted, asked) = run(kind, depth, false);
            let (found, asked_by_class) = run(kind, depth, true);
            assert!(asked_by_class <= asked);
            assert!(wanted.iter().filter(|turn| !turn.0.is_empty()).count() > 20);
            assert_eq!(found, wanted, "{kind:?}, depth {depth}");
        }
    }
}

#[test]
fn jobs_that_were_not_tried_one_by_one_count() {
    for (depth, wanted) in [(100, vec![]), (1000, vec![900])] {
        let config = json!({"sched-simple": {"queue-depth": depth}});
        let (mut policy, pool) = (policy(Kind::Easy, config), pool(4));
        let job = |id, class, duration| Pending {
            id,
            priority: if class == 1 { 16 } else { 17 },
            duration,
            class,
            ..Pending::default()
        };
        let mut jobs = vec![job(1, 3, 100.0), job(2, 4, 50.0)];
        jobs.extend((3..203).map(|id| job(id, 1, 200.0)));
        for job in &jobs {
            pool.needs.borrow_mut().insert(job.id, u64::from(job.class));
            pool.durations.borrow_mut().insert(job.id, job.duration);
        }
        policy.submitted(&jobs);
        policy.schedule(&pool, BOTH);
        assert_eq!(started(&pool), [1]);
        assert!(*pool.asked.borrow() < 5);
        submit(&mut policy, &pool, &[(900, 16, 1, 10.0, 0)]);
        policy.schedule(&pool, QUEUE);
        assert_eq!(started(&pool), wanted);
    }
}
