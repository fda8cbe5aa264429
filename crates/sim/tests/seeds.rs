//! Thousands of runs from seeds. `bourse sim --seed N` shows one of them.

use std::sync::atomic::{AtomicU64, Ordering};

use bourse_sim::seeds::run;

/// How many are run; `BOURSE_SEEDS` sets another number.
const SEEDS: u64 = 2_000;

#[test]
fn whatever_happens_what_is_accepted_ends_once() {
    let seeds = std::env::var("BOURSE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let began = std::time::Instant::now();
    let next = AtomicU64::new(1);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (mut steps, mut faults, mut simulated, mut ended) = (0, 0, 0.0, [0; 3]);
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        let work = || {
            let mut reports = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > seeds {
                    return reports;
                }
                reports.push(run(seed, false));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for report in workers.into_iter().flat_map(|worker| worker.join().expect("a run catches its panics"))
        {
            steps += report.steps;
            faults += report.faults + report.disk_wrongs;
            simulated += report.simulated.as_secs_f64();
            (0..3).for_each(|at| ended[at] += report.ended[at]);
            if !report.violations.is_empty() {
                failed.push(report);
            }
        }
    });
    let took = began.elapsed().as_secs_f64();
    let speed = simulated / took;
    println!("{seeds} seeds in {took:.1} s: {steps} steps, {faults} faults, {speed:.0} × real time");
    println!("{} done, {} dead letters, {} cancelled", ended[0], ended[1], ended[2]);
    failed.sort_by_key(|report| report.seed);
    for report in failed.iter().take(10) {
        println!("bourse sim --seed {}: {:#?}", report.seed, report.violations);
    }
    assert_eq!(failed.len(), 0, "seeds went wrong");
}

#[test]
fn a_seed_is_a_run() {
    for seed in [1, 77] {
        assert_eq!(run(seed, false).digest, run(seed, true).digest);
    }
    assert_ne!(run(1, false).digest, run(2, false).digest);
}
