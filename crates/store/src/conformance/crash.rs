//! What was answered `Committed` is there after a crash, and so is the store's name.

use bourse_durable::batch::PartitionId;

use super::steps::{P, after, committed, conflicts, delete, first, holds_just, put};
use super::{Harness, Verdict, same};
use crate::Durability;

pub(super) fn what_is_committed_survives_a_crash(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let (id, durability) = (store.id(), store.durability());
    let one = first(P, vec![put("a", "1"), put("b", "1")]);
    let two = after(&one, vec![delete("a"), put("c", "2")]);
    let mut last = first(PartitionId(9), vec![put("n", "0")]);
    committed(&mut *store, &one)?;
    committed(&mut *store, &two)?;
    committed(&mut *store, &last)?;
    conflicts(&mut *store, &after(&one, vec![put("d", "3")]))?;

    for round in 1..=3 {
        store = harness.crash_and_reopen(store);
        if durability == Durability::Memory && store.reader()?.owner(P)?.is_none() {
            return holds_just(&*store, P, None, &[]);
        }
        same("the store's id after a crash", &store.id(), &id)?;
        same("the durability after a crash", &store.durability(), &durability)?;
        holds_just(&*store, P, Some(two.owner), &[("b", "1"), ("c", "2")])?;
        holds_just(&*store, last.partition, Some(last.owner), &[("n", &(round - 1).to_string())])?;
        conflicts(&mut *store, &after(&one, vec![put("d", "3")]))?;
        last = after(&last, vec![put("n", round.to_string())]);
        committed(&mut *store, &last)?;
    }
    Ok(())
}
