//! Each planted fault is found by a scenario.
#![cfg(feature = "mutants")]

use std::panic::catch_unwind;

use bourse_market::mutant::{self, Mutant};

use crate::scenarios;

/// Those of the roles that are tried here.
const ROLES: &[Mutant] = &[
    Mutant::RumourRaises,
    Mutant::SilenceIsPresence,
    Mutant::AllStepDown,
    Mutant::LostHomeBelieved,
    Mutant::AloneForEver,
    Mutant::StaleOrderAccepted,
    Mutant::LostOrdersStay,
    Mutant::PromiseNeverExpires,
    Mutant::WrongRequirementMatched,
    Mutant::SoldToItself,
    Mutant::NotSpread,
    Mutant::LastComeFirstServed,
    Mutant::DoublesCount,
    Mutant::NoRestatement,
    Mutant::UnfilledNotRepeated,
    Mutant::OldHostKeepsOrders,
];

#[test]
fn each_is_found() {
    let mut missed = Vec::new();
    for mutant in ROLES {
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
