//! A batch lands on the owner record that it expects, and on no other.

use bourse_durable::batch::{Batch, Outcome};

use super::steps::{P, after, committed, conflicts, first, holds_just, next, owner, put};
use super::{Harness, Verdict, same};

pub(super) fn the_first_batch_expects_no_owner(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let mut early = first(P, vec![put("a", "0")]);
    early.expect = Some(owner(0, 0, 0));
    conflicts(&mut *store, &early)?;
    holds_just(&*store, P, None, &[])?;

    let one = first(P, vec![put("a", "1")]);
    committed(&mut *store, &one)?;
    let mut second_first = first(P, vec![put("a", "2")]);
    second_first.owner = owner(2, 2, 1);
    conflicts(&mut *store, &second_first)?;
    holds_just(&*store, P, Some(one.owner), &[("a", "1")])
}

pub(super) fn each_field_of_the_owner_counts(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    // Beyond 2^63, and beyond what a double holds: numbers that a backend may confuse.
    let (node, fence, seq) = (u64::MAX - 1, (1 << 63) + 1, (1 << 53) + 1);
    let mut one = first(P, vec![put("a", "1")]);
    one.owner = owner(node, fence, seq);
    committed(&mut *store, &one)?;

    let wrong = [
        owner(node + 1, fence, seq),
        owner(node - 1, fence, seq),
        owner(node, fence + 1, seq),
        owner(node, fence - 1, seq),
        owner(node, fence, seq + 1),
        owner(node, fence, seq - 1),
        owner(node, seq, fence),
        owner(0, 0, 0),
    ];
    for expect in wrong {
        let stale =
            Batch { partition: P, expect: Some(expect), owner: next(one.owner), ops: vec![put("a", "2")] };
        conflicts(&mut *store, &stale)?;
    }
    holds_just(&*store, P, Some(one.owner), &[("a", "1")])?;
    let two = after(&one, vec![put("a", "2")]);
    committed(&mut *store, &two)?;
    holds_just(&*store, P, Some(two.owner), &[("a", "2")])
}

pub(super) fn batches_of_a_partition_chain(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let one = first(P, vec![put("a", "1")]);
    let two = after(&one, vec![put("a", "2"), put("b", "2")]);
    let beside_two = after(&one, vec![put("a", "other"), put("c", "other")]);
    let three = after(&two, vec![put("a", "3")]);
    let skips_four = Batch { expect: Some(next(three.owner)), ..after(&three, vec![put("a", "5")]) };

    let outcomes = store.commit(&[one, two, beside_two, three.clone(), skips_four]);
    let (yes, no) = (Outcome::Committed, Outcome::Conflict);
    same("a chain with two strays", &outcomes, &vec![yes.clone(), yes.clone(), no.clone(), yes, no])?;
    holds_just(&*store, P, Some(three.owner), &[("a", "3"), ("b", "2")])
}

pub(super) fn a_repeated_batch_conflicts(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let one = first(P, vec![put("a", "1")]);
    let two = after(&one, vec![put("a", "2")]);
    committed(&mut *store, &one)?;
    committed(&mut *store, &two)?;
    conflicts(&mut *store, &one)?;
    conflicts(&mut *store, &two)?;

    // A new owner takes over; what the old one still has under way must not land.
    let mut taken = after(&two, vec![]);
    taken.owner = owner(2, 2, two.owner.seq.0 + 1);
    committed(&mut *store, &taken)?;
    conflicts(&mut *store, &after(&two, vec![put("a", "3")]))?;
    holds_just(&*store, P, Some(taken.owner), &[("a", "2")])
}
