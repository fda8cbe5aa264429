//! Each planted fault is found, and nothing is found where none is planted.

use std::sync::atomic::{AtomicUsize, Ordering};

use bourse_durable::mutant::{self, ALL};
use bourse_sim::{boundaries, mutants, scenarios::SCENARIOS, seeds, trace::Trace};

#[test]
fn every_planted_mutant_is_found() {
    // What they break is told by the test, not by each panic.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let survivors: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let mut survivors = Vec::new();
            while let Some(mutant) = ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                mutant::choose(Some(*mutant));
                match mutants::hunt(*mutant) {
                    Some(catch) => {
                        println!("{mutant:?}: run {}, {}: {}", catch.runs, catch.by, catch.violation);
                    }
                    None => survivors.push(*mutant),
                }
            }
            survivors
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("runs catch their panics")).collect()
    });
    assert!(survivors.is_empty(), "these are not found: {survivors:?}");
    assert!(ALL.len() >= 10);
}

#[test]
fn without_a_mutant_nothing_is_found() {
    mutant::choose(None);
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.stride == 1) {
        assert_eq!(
            boundaries::run(scenario, None, false).violations,
            Vec::<String>::new(),
            "{}",
            scenario.name
        );
    }
    for seed in 1..=20 {
        assert_eq!(seeds::run(seed, Trace::default()).violations, Vec::<String>::new(), "seed {seed}");
    }
}
