//! All of a batch or nothing, and nothing of another.

use bourse_durable::batch::{Outcome, PartitionId};

use super::steps::{P, after, committed, conflicts, delete, first, holds_just, owner, put};
use super::{Harness, Verdict, same};

pub(super) fn a_conflict_leaves_no_trace(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let one = first(P, vec![put("a", "1"), put("b", "1")]);
    committed(&mut *store, &one)?;

    let mut stale = after(&one, vec![put("a", "2"), delete("b"), put("c", "2")]);
    stale.expect = Some(owner(1, 1, 9));
    stale.owner = owner(1, 1, 10);
    conflicts(&mut *store, &stale)?;
    holds_just(&*store, P, Some(one.owner), &[("a", "1"), ("b", "1")])
}

pub(super) fn operations_apply_in_order(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let one = first(
        P,
        vec![
            put("put, deleted", "1"),
            delete("put, deleted"),
            delete("deleted, put"),
            put("deleted, put", "2"),
            put("put twice", "3"),
            put("put twice", "4"),
            delete("never there"),
        ],
    );
    committed(&mut *store, &one)?;
    holds_just(&*store, P, Some(one.owner), &[("deleted, put", "2"), ("put twice", "4")])?;

    let two = after(&one, vec![delete("put twice"), put("put twice", "5"), delete("deleted, put")]);
    committed(&mut *store, &two)?;
    holds_just(&*store, P, Some(two.owner), &[("put twice", "5")])
}

pub(super) fn batches_of_a_call_stand_alone(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let [left, middle, right, large] = [1, 2, 3, 4].map(PartitionId);
    let taken = first(middle, vec![put("a", "1")]);
    committed(&mut *store, &taken)?;

    let too_long_a_key = put("k".repeat(5000), "");
    let call = [
        first(left, vec![put("a", "2")]),
        first(middle, vec![put("a", "2"), put("b", "2")]),
        first(large, vec![put("a", "2"), too_long_a_key]),
        first(right, vec![put("a", "2")]),
    ];
    let outcomes = store.commit(&call);
    same("one outcome for each batch", &outcomes.len(), &4)?;
    same("the first", &outcomes[0], &Outcome::Committed)?;
    same("the one with a wrong expectation", &outcomes[1], &Outcome::Conflict)?;
    same("the one that is too large has failed", &matches!(outcomes[2], Outcome::Failed(_)), &true)?;
    same("the last", &outcomes[3], &Outcome::Committed)?;

    holds_just(&*store, left, Some(owner(1, 1, 1)), &[("a", "2")])?;
    holds_just(&*store, middle, Some(owner(1, 1, 1)), &[("a", "1")])?;
    holds_just(&*store, large, None, &[])?;
    holds_just(&*store, right, Some(owner(1, 1, 1)), &[("a", "2")])?;
    same("a call without batches", &store.commit(&[]), &vec![])
}

pub(super) fn partitions_are_apart(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let partitions = || (0..=255).map(PartitionId);
    let name = |partition: PartitionId| partition.0.to_string();
    let call: Vec<_> =
        partitions().map(|p| first(p, vec![put("same key", name(p)), put(name(p), "")])).collect();
    same("outcomes of 256 partitions", &store.commit(&call), &vec![Outcome::Committed; 256])?;

    let emptied = after(&call[128], vec![delete("same key"), delete("128"), delete("129")]);
    committed(&mut *store, &emptied)?;
    holds_just(&*store, PartitionId(128), Some(emptied.owner), &[])?;
    for p in partitions().filter(|p| p.0 != 128) {
        let name = name(p);
        holds_just(&*store, p, Some(owner(1, 1, 1)), &[(&name, ""), ("same key", &name)])?;
    }
    Ok(())
}
