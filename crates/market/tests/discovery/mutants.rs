//! Each planted fault is found by a scenario.
#![cfg(feature = "mutants")]

use std::panic::catch_unwind;

use bourse_market::mutant;

use crate::scenarios;

#[test]
fn each_is_found() {
    let mut missed = Vec::new();
    for mutant in mutant::DISCOVERY {
        mutant::choose(Some(*mutant));
        let found: Vec<_> = scenarios::ALL
            .iter()
            .filter(|(_, run)| catch_unwind(run).is_err())
            .map(|(name, _)| name)
            .collect();
        mutant::choose(None);
        println!("{mutant:?}: {found:?}");
        if found.is_empty() {
            missed.push(mutant);
        }
    }
    assert!(missed.is_empty(), "nobody has noticed {missed:?}");
}
