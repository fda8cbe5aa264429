//! Thousands of runs from seeds. `bourse sim --seed N` shows one of them.

use bourse_sim::cli::{Options, simulate};
use bourse_sim::many::reports;
use bourse_sim::seeds::run;
use bourse_sim::trace::Trace;

/// How many are run; `BOURSE_SEEDS` sets another number.
const SEEDS: u64 = 2_000;

#[test]
fn whatever_happens_what_is_accepted_ends_once() {
    let seeds = std::env::var("BOURSE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let began = std::time::Instant::now();
    let (mut steps, mut faults, mut simulated, mut ended) = (0, 0, 0.0, [0; 3]);
    let mut failed = Vec::new();
    for report in reports(1..=seeds, |seed| run(seed, Trace::default())) {
        steps += report.steps;
        faults += report.faults + report.disk_wrongs;
        simulated += report.simulated.as_secs_f64();
        (0..3).for_each(|at| ended[at] += report.ended[at]);
        if !report.violations.is_empty() {
            failed.push(report);
        }
    }
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
        assert_eq!(run(seed, Trace::default()).digest, run(seed, Trace::kept()).digest);
    }
    assert_ne!(run(1, Trace::default()).digest, run(2, Trace::default()).digest);
}

#[test]
fn the_command_says_that_nothing_was_found() {
    for json in [true, false] {
        let options = Options { seeds: 3, seed: None, json };
        assert!(simulate(&options).expect("standard output takes it"));
    }
}
