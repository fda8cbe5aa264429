//! What grids have found in the market, kept by the seeds that have found it.

use bourse_sim::grid::seeds::{catch_panics, run};
use bourse_sim::trace::Trace;

fn ends_well(seed: u64) {
    catch_panics();
    assert_eq!(run(seed, Trace::default()).violations, Vec::<String>::new(), "seed {seed}");
}

/// A buy order that was filled in part kept its place in the line: what was offered bit by bit went to the same buyer
/// again and again, which had a channel with that seller already, and the others waited.
#[test]
fn what_is_offered_bit_by_bit_goes_to_one_buyer_after_the_other() {
    ends_well(3);
    ends_well(368);
}

/// An authority asked a seed again only a minute after it had answered, even if the link with it had ended since: where
/// the seeds came back together, knowing nobody, there were two grids until then.
#[test]
fn an_authority_looks_for_the_seeds_that_it_has_lost() {
    ends_well(100);
}

/// A node with the identity of another one came back after all had healed. That is the simulator's own mistake: twins that
/// live take each other's links for ever.
#[test]
fn who_is_gone_for_good_does_not_come_back() {
    ends_well(118);
}
