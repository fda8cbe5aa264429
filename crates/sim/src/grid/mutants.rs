//! The hunt for planted faults ([`bourse_market::mutant`]): each must be found by a seed.
//!
//! It needs the feature `mutants` of bourse-market: without it, every mutant behaves as it should, and survives.

use bourse_market::mutant::Mutant;

use super::seeds;
use crate::trace::Trace;

/// What has found a mutant.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Which.
    pub mutant: Mutant,
    /// By which seed.
    pub seed: u64,
    /// The first thing that was found wrong.
    pub violation: String,
}

/// Tries one seed after the other. `choose` lets this thread behave as a mutant, or as it should: a seed that goes wrong
/// without one finds nothing. `None`: it survives.
pub fn hunt(
    mutant: Mutant,
    seeds: impl IntoIterator<Item = u64>,
    choose: impl Fn(Option<Mutant>),
) -> Option<Catch> {
    let found = seeds.into_iter().find_map(|seed| {
        choose(Some(mutant));
        let violation = seeds::run(seed, Trace::default()).violations.into_iter().next()?;
        choose(None);
        let is_sound = seeds::run(seed, Trace::default()).violations.is_empty();
        is_sound.then_some(Catch { mutant, seed, violation })
    });
    choose(None);
    found
}
