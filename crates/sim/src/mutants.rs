//! The hunt for planted faults ([`bourse_durable::mutant`]): each must be found by a scenario or a seed.
//!
//! It needs the feature `mutants` of bourse-durable: without it, every mutant behaves as it should, and survives.

use bourse_durable::mutant::Mutant;

use crate::boundaries;
use crate::disk::Keep;
use crate::scenarios::SCENARIOS;
use crate::seeds;
use crate::trace::Trace;
use crate::world::CrashAt;

/// Seeds that are tried.
const SEEDS: u64 = 600;
/// Of each scenario, every so many boundaries are tried.
const STRIDE: usize = 5;

/// What has found a mutant.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Which.
    pub mutant: Mutant,
    /// By what: a scenario, with a crash or without, or a seed.
    pub by: String,
    /// How many runs that took.
    pub runs: u64,
    /// The first thing that was found wrong.
    pub violation: String,
}

/// Tries what finds most mutants soonest: scenarios as they are, then seeds, then crashes. `None`: it survives.
pub fn hunt(mutant: Mutant) -> Option<Catch> {
    let mut runs = 0;
    let mut found = |by: String, violations: Vec<String>| {
        runs += 1;
        violations.into_iter().next().map(|violation| Catch { mutant, by, runs, violation })
    };
    let affordable = || SCENARIOS.iter().filter(|scenario| scenario.stride == 1);
    for scenario in affordable() {
        let outcome = boundaries::run(scenario, None, false);
        if let Some(catch) = found(format!("scenario: {}", scenario.name), outcome.violations) {
            return Some(catch);
        }
    }
    for seed in 1..=SEEDS {
        if let Some(catch) = found(format!("seed {seed}"), seeds::run(seed, Trace::default()).violations) {
            return Some(catch);
        }
    }
    for scenario in affordable() {
        let boundaries = boundaries::run(scenario, None, false).boundaries;
        for boundary in (1..=boundaries).step_by(STRIDE) {
            for keep in [Keep::Nothing, Keep::All] {
                let outcome = boundaries::run(scenario, Some(CrashAt { boundary, keep }), false);
                let by = format!("scenario: {}, crash at {boundary}, unsynced: {keep:?}", scenario.name);
                if let Some(catch) = found(by, outcome.violations) {
                    return Some(catch);
                }
            }
        }
    }
    None
}
