//! The planted faults of the trade, each of which some seed has to find.

use std::panic::catch_unwind;

use bourse_market::mutant::{self, BALANCE, Mutant, TRADE};

use crate::balance;
use crate::seeds::life;

/// The first of the seeds at which it fails, if it does.
fn found(mutant: Mutant, life: fn(u64), seeds: u64) -> Option<u64> {
    mutant::choose(Some(mutant));
    let found = (0..seeds).find(|seed| catch_unwind(|| life(*seed)).is_err());
    mutant::choose(None);
    found
}

#[test]
fn each_is_found() {
    // What a mutant says when it is found is of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    let trade = TRADE.iter().map(|m| (*m, found(*m, life, 4_000)));
    let balance = BALANCE.iter().map(|m| (*m, found(*m, balance::life, 1_000)));
    let all: Vec<_> = trade.chain(balance).collect();
    drop(std::panic::take_hook());
    all.iter().for_each(|(mutant, seed)| println!("{mutant:?}: {seed:?}"));
    let missed: Vec<_> = all.iter().filter(|(_, seed)| seed.is_none()).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
