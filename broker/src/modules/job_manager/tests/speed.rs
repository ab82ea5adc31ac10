//! How long does the job manager take per job, from submission to the end?

use super::fakes::{Bench, cpu_secs};

/// Pushes jobs through; the figure is printed, and checked against a bound far above it.
#[test]
fn four_thousand_jobs() {
    const JOBS: usize = 4000;
    let mut bench = Bench::new(2, true);
    let jobs: Vec<_> = (0..JOBS).map(|_| bench.submission(16, 0)).collect();
    let start = cpu_secs();
    let results = bench.submit_all(jobs);
    let elapsed = cpu_secs() - start;
    assert_eq!(results.len(), JOBS);
    let micros = elapsed * 1e6 / JOBS as f64;
    let (commits, last) = (
        bench.world.borrow().commits,
        results.last().unwrap().clone().unwrap(),
    );
    assert_eq!(bench.events(last).last().unwrap(), "clean");
    println!(
        "{JOBS} jobs: {micros:.1} us CPU per job, {:.0} job/s, {commits} commits",
        1e6 / micros
    );
    assert!(micros < 2000.0, "{micros} us per job");
}
