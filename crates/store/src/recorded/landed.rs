//! Which batches of a history are in the store.
//!
//! Those that were answered `Committed` are, and those that were refused are not. Of the others, which nobody has heard of
//! because the process was killed or the store did not say, the next batch of the partition tells: it expects the owner record of
//! the last one that is in; and after the last one, the owner record in the store does.

use std::collections::BTreeMap;

use bourse_durable::batch::{Batch, Outcome, Owner, PartitionId};

use super::format::{Entry, What};

/// What a history says is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landed {
    /// All batches, in the order in which they were handed over, each with the time at which it was in: that of its answer, or,
    /// if it has none, of its being handed over. Times do not go back.
    pub batches: Vec<(u64, Batch)>,
    /// Batches that were answered `Committed`, and another is in their place.
    pub lost: Vec<Batch>,
}

struct Asked<'a> {
    batch: &'a Batch,
    at_ms: u64,
    outcome: Option<&'a Outcome>,
}

/// See the module. `owner`: the owner records that are in the store now.
pub fn landed(entries: &[Entry], owner: impl Fn(PartitionId) -> Option<Owner>) -> Landed {
    let mut all: Vec<Asked<'_>> = Vec::new();
    // By number, in this life.
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for entry in entries {
        match &entry.what {
            What::Opened => open.clear(),
            What::Asked { number, batch } => {
                open.insert(*number, all.len());
                all.push(Asked { batch, at_ms: entry.at_ms, outcome: None });
            }
            What::Answered { number, outcome } => {
                if let Some(at) = open.remove(number) {
                    all[at].at_ms = entry.at_ms;
                    all[at].outcome = Some(outcome);
                }
            }
        }
    }
    // From the end, since each batch says what it has found.
    let mut found: BTreeMap<PartitionId, Option<Owner>> = BTreeMap::new();
    let mut landed = Landed::default();
    for asked in all.iter().rev() {
        let partition = asked.batch.partition;
        let wanted = found.entry(partition).or_insert_with(|| owner(partition));
        let is_wanted = *wanted == Some(asked.batch.owner);
        match asked.outcome {
            Some(Outcome::Conflict | Outcome::Failed(_)) => continue,
            Some(Outcome::Committed) if !is_wanted => landed.lost.push(asked.batch.clone()),
            Some(Outcome::Committed) => {}
            Some(Outcome::Unknown(_)) | None if !is_wanted => continue,
            Some(Outcome::Unknown(_)) | None => {}
        }
        *wanted = asked.batch.expect;
        landed.batches.push((asked.at_ms, asked.batch.clone()));
    }
    landed.batches.reverse();
    landed.lost.reverse();
    let mut latest = 0;
    for (at_ms, _) in &mut landed.batches {
        latest = latest.max(*at_ms);
        *at_ms = latest;
    }
    landed
}

#[cfg(test)]
mod tests {
    use bourse_durable::batch::{Fence, Seq};

    use super::*;

    fn owner(fence: u64, seq: u64) -> Owner {
        Owner { node: 1, fence: Fence(fence), seq: Seq(seq) }
    }

    fn batch(expect: Option<Owner>, owner: Owner) -> Batch {
        Batch { partition: PartitionId(3), expect, owner, ops: Vec::new() }
    }

    fn history(all: Vec<What>) -> Vec<Entry> {
        (1..).zip(all).map(|(at_ms, what)| Entry { at_ms, what }).collect()
    }

    fn answered(number: u64, outcome: Outcome) -> What {
        What::Answered { number, outcome }
    }

    #[test]
    fn what_nobody_heard_of_is_in_if_the_next_one_has_found_it() {
        let [a, b, c] = [owner(1, 1), owner(1, 2), owner(2, 3)];
        let first = batch(None, a);
        let unheard = batch(Some(a), b);
        let never = batch(Some(b), owner(1, 3));
        let claim = batch(Some(b), c);
        let last = batch(Some(c), owner(2, 4));
        let entries = history(vec![
            What::Opened,
            What::Asked { number: 0, batch: first.clone() },
            answered(0, Outcome::Committed),
            What::Asked { number: 1, batch: unheard.clone() },
            answered(1, Outcome::Unknown("?".to_owned())),
            What::Asked { number: 2, batch: never },
            What::Opened,
            What::Asked { number: 0, batch: claim.clone() },
            answered(0, Outcome::Committed),
            What::Asked { number: 1, batch: last.clone() },
        ]);
        // 1. The last one is not in the store.
        let there = landed(&entries, |_| Some(c));
        let expected = vec![(3, first), (5, unheard), (9, claim)];
        assert_eq!(there, Landed { batches: expected.clone(), lost: vec![] });
        // 2. It is.
        let there = landed(&entries, |_| Some(last.owner));
        assert_eq!(there.batches, [expected, vec![(10, last)]].concat());
    }

    #[test]
    fn a_committed_batch_that_the_next_one_has_not_found_is_lost() {
        let first = batch(None, owner(1, 1));
        let second = batch(None, owner(2, 1));
        let entries = history(vec![
            What::Asked { number: 0, batch: first.clone() },
            answered(0, Outcome::Committed),
            What::Asked { number: 1, batch: second.clone() },
            answered(1, Outcome::Committed),
        ]);
        assert_eq!(landed(&entries, |_| Some(second.owner)).lost, [first]);
    }
}
