//! How long does the job manager take per job, from submission to the end?

use super::fakes::Bench;
use std::time::Instant;

/// Pushes jobs through; the figure is printed, and checked against a bound far above it.
#[test]
fn four_thousand_jobs() {
    const JOBS: usize = 4000;
    let mut bench = Bench::new(2, true);
    let jobs: Vec<_> = (0..JOBS).map(|_| bench.submission(16, 0)).collect();
    let start = Instant::now();
    let results = bench.submit_all(jobs);
    let elapsed = start.elapsed();
    assert_eq!(results.len(), JOBS);
    let micros = elapsed.as_secs_f64() * 1e6 / JOBS as f64;
    let (commits, last) = (bench.world.borrow().commits, results.last().unwrap().clone().unwrap());
    assert_eq!(bench.events(last).last().unwrap(), "clean");
    println!("{JOBS} jobs: {micros:.1} us per job, {:.0} job/s, {commits} commits", 1e6 / micros);
    assert!(micros < 2000.0, "{micros} us per job");
}
