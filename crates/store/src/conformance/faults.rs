//! Outcomes that are lost or late: an owner who keeps to the fence stays right, and the store must let it.

use std::collections::BTreeMap;

use bourse_durable::batch::{Batch, Fence, Op, Outcome, Owner, PartitionId, Seq};

use super::model::{Model, look};
use super::steps::{P, after, commit, committed, delete, first, holds_just, next, owner, put};
use super::{Harness, Verdict, Violation, holds, same};
use crate::faulty::{Fault, Faulty, Odds, Random};
use crate::{Durability, Store};

const SEEDS: u64 = 12;
const CALLS: u32 = 120;
const PARTITIONS: u8 = 5;
const ODDS: Odds = Odds { fail: 40, lose_outcome: 60, lose_batch: 60, delay: 120, delay_calls_max: 6 };

pub(super) fn a_late_batch_lands(harness: &mut dyn Harness) -> Verdict {
    let one = first(P, vec![put("a", "1")]);
    let elsewhere = first(PartitionId(8), vec![]);
    let late = after(&one, vec![put("a", "2"), put("b", "2")]);
    let mut store =
        Faulty::scripted(harness.open(), [Fault::None, Fault::Delay { calls: 1 }, Fault::None, Fault::None]);
    committed(&mut store, &one)?;
    unknown(&mut store, &late)?;
    committed(&mut store, &elsewhere)?;
    holds_just(&store, P, Some(one.owner), &[("a", "1")])?;
    committed(&mut store, &after(&elsewhere, vec![]))?;
    holds_just(&store, P, Some(late.owner), &[("a", "2"), ("b", "2")])
}

pub(super) fn no_late_batch_lands_behind_a_newer_one(harness: &mut dyn Harness) -> Verdict {
    let one = first(P, vec![put("a", "1")]);
    let late = after(&one, vec![put("a", "late"), delete("a"), put("b", "late")]);
    let taken = Batch { owner: owner(1, 2, 2), ..after(&one, vec![put("taken", "")]) };
    let newer = after(&taken, vec![put("a", "2")]);
    let mut store = Faulty::scripted(harness.open(), [Fault::None, Fault::Delay { calls: 2 }]);
    committed(&mut store, &one)?;
    unknown(&mut store, &late)?;
    committed(&mut store, &taken)?;
    committed(&mut store, &newer)?;
    store.land_held();
    let outcomes: Vec<_> = store.take_late().into_iter().map(|late| late.outcome).collect();
    same("the late batch", &outcomes, &vec![Outcome::Conflict])?;
    holds_just(&store, P, Some(newer.owner), &[("a", "2"), ("taken", "")])
}

fn unknown(store: &mut dyn Store, batch: &Batch) -> Verdict {
    let outcome = commit(store, batch)?;
    holds(matches!(outcome, Outcome::Unknown(_)), format!("{outcome:?} though the outcome was withheld"))
}

/// What must have happened for the check to have meant something.
#[derive(Debug, Default)]
struct Events {
    unknown: u32,
    landed_late: u32,
    refused_late: u32,
    takeovers: u32,
    crashes: u32,
}

pub(super) fn an_owner_survives_every_fault(harness: &mut dyn Harness) -> Verdict {
    let mut events = Events::default();
    for seed in 0..SEEDS {
        one_seed(harness, seed, &mut events)
            .map_err(|Violation(why)| Violation(format!("seed {seed}: {why}")))?;
    }
    let Events { unknown, landed_late, refused_late, takeovers, crashes } = events;
    let crashed = crashes >= 5 || !survives(&*harness.open());
    let enough = unknown >= 100 && landed_late >= 20 && refused_late >= 20 && takeovers >= 100 && crashed;
    holds(enough, format!("too little has happened: {events:?}"))
}

/// Whether the model may expect anything after a crash.
fn survives(store: &dyn Store) -> bool {
    store.durability() != Durability::Memory
}

fn one_seed(harness: &mut dyn Harness, seed: u64, events: &mut Events) -> Verdict {
    let mut random = Random::new(seed);
    let mut faulty = Faulty::seeded(harness.open(), seed ^ 0xfa_17, ODDS);
    let mut partitions: BTreeMap<_, _> = (0..PARTITIONS).map(|p| (PartitionId(p), Home::new())).collect();
    let survives = survives(&faulty);
    for call in 0..CALLS {
        let mut batches = Vec::new();
        for (partition, home) in &partitions {
            if random.below(3) > 0 {
                batches.push(home.propose(*partition, &mut random, faulty.reader()?.owner(*partition)?));
            }
        }
        let outcomes = faulty.commit(&batches);
        same("outcomes of a call", &outcomes.len(), &batches.len())?;
        for late in faulty.take_late() {
            match late.outcome {
                Outcome::Committed => events.landed_late += 1,
                Outcome::Conflict => events.refused_late += 1,
                outcome => return Err(Violation(format!("a late batch: {outcome:?}"))),
            }
        }
        for (batch, outcome) in batches.iter().zip(&outcomes) {
            events.unknown += u32::from(matches!(outcome, Outcome::Unknown(_)));
            if let Some(home) = partitions.get_mut(&batch.partition) {
                events.takeovers += u32::from(home.owner.is_none() && *outcome == Outcome::Committed);
                home.answered(batch, outcome)?;
            }
        }
        let crash = survives && random.below(40) == 0;
        if crash {
            let within = harness.crash_and_reopen(faulty.crash());
            faulty = Faulty::seeded(within, seed ^ u64::from(call), ODDS);
            events.crashes += 1;
            partitions.values_mut().for_each(Home::crashed);
        }
        if crash || call % 4 == 0 {
            observe(&faulty, &mut partitions)?;
        }
    }
    faulty.land_held();
    observe(&faulty, &mut partitions)
}

fn observe(store: &dyn Store, partitions: &mut BTreeMap<PartitionId, Home>) -> Verdict {
    let mut reader = store.reader()?;
    partitions
        .iter_mut()
        .try_for_each(|(partition, home)| home.model.observed(&look(&mut *reader, *partition)?))
}

/// A partition, and its owner's view of it.
struct Home {
    model: Model,
    /// The owner record, while the owner knows it.
    owner: Option<Owner>,
}

impl Home {
    fn new() -> Self {
        Self { model: Model::new(), owner: None }
    }

    /// The owner's next batch, or, while it does not know where it stands, a takeover of what is in the store.
    fn propose(&self, partition: PartitionId, random: &mut Random, stored: Option<Owner>) -> Batch {
        let (expect, owner) = match (self.owner, stored) {
            (Some(owner), _) => (Some(owner), next(owner)),
            (None, None) => (None, owner(1, 1, 1)),
            (None, Some(stored)) => {
                let taken = Owner {
                    node: random.below(3),
                    fence: Fence(stored.fence.0 + 1),
                    seq: Seq(stored.seq.0 + 1),
                };
                (Some(stored), taken)
            }
        };
        // No two batches write the same: whichever lands can be told by what it leaves.
        let stamp = format!("{}/{}/{}", owner.fence.0, owner.seq.0, random.below(u64::MAX));
        let ops = (0..1 + random.below(4)).map(|_| {
            let key = format!("key{}", random.below(6));
            if random.below(4) == 0 { delete(key) } else { put(key, &stamp) }
        });
        let ops: Vec<Op> = ops.chain([put("last", &stamp)]).collect();
        Batch { partition, expect, owner, ops }
    }

    fn answered(&mut self, batch: &Batch, outcome: &Outcome) -> Verdict {
        self.owner = match outcome {
            Outcome::Committed => Some(batch.owner),
            _ => None,
        };
        self.model.answered(batch, outcome)
    }

    fn crashed(&mut self) {
        self.owner = None;
        self.model.crashed();
    }
}
