//! Each fault that is planted in the market is found by a grid from a seed, or is one that only the tests of its role see.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use bourse_market::mutant::{self, Mutant};
use bourse_sim::grid::{mutants, seeds};

/// The seed that has found each. Where it finds nothing any more, others are tried.
const FOUND: &[(Mutant, u64)] = &[
    (Mutant::ClaimMints, 9),
    (Mutant::RevokedCountsEarly, 1),
    (Mutant::EndedAdmits, 9),
    (Mutant::RepeatedAdmitted, 10),
    (Mutant::VoidAdmitted, 18),
    (Mutant::SlotFreeAtTimeout, 2),
    (Mutant::SlotBackTwice, 1),
    (Mutant::LostCallAwaited, 12),
    (Mutant::LostAnswerIgnored, 3),
    (Mutant::ShrinkIgnored, 2),
    (Mutant::BreakerNeverCloses, 2),
    (Mutant::AllStepDown, 2),
    (Mutant::AloneForEver, 1),
    (Mutant::PromiseNeverExpires, 38),
    (Mutant::NoRestatement, 1),
    (Mutant::DigestIgnored, 1),
];

/// What these do wrong costs a grid so little that it comes right all the same, or does so seldom. The tests of
/// bourse-market find them.
const ONLY_BY_ROLES: &[Mutant] = &[
    Mutant::OldWantTaken,
    Mutant::GrantSaidOnce,
    Mutant::ClosedSpends,
    Mutant::MostFirst,
    Mutant::BreakerNeverOpens,
    Mutant::HalfOpenLetsAll,
    Mutant::RemovedIsChosen,
    Mutant::RumourRaises,
    Mutant::SilenceIsPresence,
    Mutant::LostHomeBelieved,
    Mutant::StaleOrderAccepted,
    Mutant::LostOrdersStay,
    Mutant::WrongRequirementMatched,
    Mutant::SoldToItself,
    Mutant::NotSpread,
    Mutant::LineFills,
    Mutant::LastComeFirstServed,
    Mutant::DoublesCount,
    Mutant::UnfilledNotRepeated,
    Mutant::OldHostKeepsOrders,
    Mutant::OldEntryTaken,
];

/// Seeds that are tried if the recorded one finds nothing; `BOURSE_MUTANT_SEEDS` sets another number, and then those of
/// `ONLY_BY_ROLES` are hunted as well.
const SEEDS: u64 = 20;

#[test]
fn the_planted_mutants_of_the_market_are_found() {
    seeds::catch_panics();
    let more = std::env::var("BOURSE_MUTANT_SEEDS").ok().and_then(|n| n.parse().ok());
    let others = ONLY_BY_ROLES.iter().filter(|_| more.is_some()).map(|mutant| (*mutant, 1));
    let all: Vec<(Mutant, u64)> = FOUND.iter().copied().chain(others).collect();
    let next = AtomicUsize::new(0);
    let survivors: Vec<Mutant> = std::thread::scope(|scope| {
        let work = || {
            let mut survivors = Vec::new();
            while let Some((mutant, seed)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                let seeds = std::iter::once(*seed).chain(1..=more.unwrap_or(SEEDS));
                match mutants::hunt(*mutant, seeds, mutant::choose) {
                    Some(catch) => println!("{mutant:?}: seed {}: {}", catch.seed, catch.violation),
                    None => survivors.push(*mutant),
                }
            }
            survivors
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("runs catch their panics")).collect()
    });
    _ = std::panic::take_hook();
    let missed: Vec<_> = survivors.iter().filter(|mutant| !ONLY_BY_ROLES.contains(mutant)).collect();
    assert!(missed.is_empty(), "these are not found: {missed:?}");
}

#[test]
fn no_mutant_is_left_out() {
    let listed: BTreeSet<Mutant> =
        FOUND.iter().map(|(mutant, _)| *mutant).chain(ONLY_BY_ROLES.iter().copied()).collect();
    assert_eq!(listed, mutant::all().collect());
    assert_eq!(FOUND.len() + ONLY_BY_ROLES.len(), mutant::all().count(), "none is listed twice");
    assert!(FOUND.len() >= 15);
}
