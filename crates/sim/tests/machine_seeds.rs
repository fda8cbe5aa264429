//! Grids of whole nodes from seeds. `bourse sim --machines --seed N` shows one of them.

use std::collections::BTreeMap;

use bourse_sim::grid::seeds::catch_panics;
use bourse_sim::machines::seeds::{Report, run};
use bourse_sim::many::reports;
use bourse_sim::trace::Trace;

/// How many are run. `BOURSE_MACHINE_SEEDS` sets another number, and `BOURSE_MACHINE_FIRST` the first one.
const SEEDS: u64 = 100;

#[test]
fn whatever_happens_to_machines_what_is_accepted_ends_once_and_all_comes_right() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let seeds = number("BOURSE_MACHINE_SEEDS").unwrap_or(SEEDS);
    let first: u64 = number("BOURSE_MACHINE_FIRST").unwrap_or(1);
    let began = std::time::Instant::now();
    catch_panics();
    let reports = reports(first..=first + seeds - 1, |seed| {
        let report = run(seed, Trace::default());
        if !report.violations.is_empty() {
            let Report { seed, kind, nodes, violations, .. } = &report;
            println!("bourse sim --machines --seed {seed} ({kind}, {nodes} nodes): {}", violations[0]);
        }
        report
    });
    _ = std::panic::take_hook();
    let took = began.elapsed().as_secs_f64();
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{seeds} seeds in {took:.1} s: {} events, {} faults, {} runs, {} bought, {} forwarded",
        sum(|r| r.events),
        sum(|r| r.faults),
        sum(|r| r.runs),
        sum(|r| r.bought),
        sum(|r| r.forwarded)
    );
    let mut kinds: BTreeMap<&str, (u32, f64)> = BTreeMap::new();
    for report in &reports {
        let kind = kinds.entry(&report.kind).or_default();
        *kind = (kind.0 + 1, kind.1.max(report.agreed.as_secs_f64()));
    }
    for (kind, (runs, agreed)) in kinds {
        println!("  {kind}: {runs} runs, agreed after {agreed:.1} s at the latest");
    }
    let mut failed: Vec<u64> =
        reports.iter().filter(|report| !report.violations.is_empty()).map(|report| report.seed).collect();
    failed.sort_unstable();
    assert!(failed.is_empty(), "of {seeds} seeds, these went wrong: {failed:?}");
}

#[test]
fn a_seed_is_a_run() {
    for seed in 1..=5 {
        assert_eq!(run(seed, Trace::default()).digest, run(seed, Trace::kept()).digest, "seed {seed}");
    }
    assert_ne!(run(1, Trace::default()).digest, run(2, Trace::default()).digest);
}
