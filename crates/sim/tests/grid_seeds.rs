//! Thousands of grids from seeds. `bourse sim --grid --seed N` shows one of them.

use std::collections::BTreeMap;

use bourse_sim::grid::seeds::{Report, catch_panics, run};
use bourse_sim::many::reports;
use bourse_sim::trace::Trace;

/// How many are run: as many as take half a minute on two processors that have nothing else to do. `BOURSE_GRID_SEEDS` sets
/// another number, and `BOURSE_GRID_FIRST` the first one. `cargo xtask test --only seeds` runs 5,000, optimised.
const SEEDS: u64 = 200;

#[test]
fn whatever_happens_to_the_grid_nothing_runs_twice_and_all_comes_right() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let seeds = number("BOURSE_GRID_SEEDS").unwrap_or(SEEDS);
    let first: u64 = number("BOURSE_GRID_FIRST").unwrap_or(1);
    let began = std::time::Instant::now();
    catch_panics();
    let reports = reports(first..=first + seeds - 1, |seed| {
        let report = run(seed, Trace::default());
        if !report.violations.is_empty() {
            let Report { seed, kind, nodes, violations, .. } = &report;
            println!("bourse sim --grid --seed {seed} ({kind}, {nodes} nodes): {}", violations[0]);
        }
        report
    });
    _ = std::panic::take_hook();
    let took = began.elapsed().as_secs_f64();
    let sum = |of: fn(&bourse_sim::grid::seeds::Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (events, faults, begun) = (sum(|r| r.events), sum(|r| r.faults), sum(|r| r.begun));
    println!("{seeds} seeds in {took:.1} s: {events} events, {faults} faults, {begun} calls ran");
    let mut kinds: BTreeMap<&str, (u32, f64)> = BTreeMap::new();
    for report in &reports {
        let kind = kinds.entry(&report.kind).or_default();
        *kind = (kind.0 + 1, kind.1.max(report.agreed.as_secs_f64()));
    }
    for (kind, (runs, agreed)) in kinds {
        println!("  {kind}: {runs} runs, agreed after {agreed:.1} s at the latest");
    }
    let mut busy: Vec<_> = reports.iter().map(|r| (r.events, r.seed, r.busiest)).collect();
    busy.sort();
    println!(
        "  most events, of which seed, most messages of a node per second: {:?}",
        &busy[busy.len().saturating_sub(8)..]
    );
    let mut busiest: Vec<_> = reports.iter().map(|r| (r.busiest, r.seed, r.nodes)).collect();
    busiest.sort();
    println!("  {:?}", &busiest[busiest.len().saturating_sub(6)..]);
    let mut failed: Vec<_> =
        reports.iter().filter(|report| !report.violations.is_empty()).map(|report| report.seed).collect();
    failed.sort();
    assert!(failed.is_empty(), "of {seeds} seeds, these went wrong: {failed:?}");
}

#[test]
fn a_seed_is_a_run() {
    for seed in 1..=20 {
        assert_eq!(run(seed, Trace::default()).digest, run(seed, Trace::kept()).digest, "seed {seed}");
    }
    assert_ne!(run(1, Trace::default()).digest, run(2, Trace::default()).digest);
}
