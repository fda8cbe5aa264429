//! The words in which the checks are written.

use bourse_durable::batch::{Batch, Fence, Op, Outcome, Owner, PartitionId, Seq};
use bytes::Bytes;

use super::{Verdict, Violation, holds, same};
use crate::{Limit, Range, Reader, Store};

pub(super) const P: PartitionId = PartitionId(7);

pub(super) fn owner(node: u64, fence: u64, seq: u64) -> Owner {
    Owner { node, fence: Fence(fence), seq: Seq(seq) }
}

pub(super) fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op {
    Op::Put { key: Bytes::copy_from_slice(key.as_ref()), value: Bytes::copy_from_slice(value.as_ref()) }
}

pub(super) fn delete(key: impl AsRef<[u8]>) -> Op {
    Op::Delete { key: Bytes::copy_from_slice(key.as_ref()) }
}

/// The first batch of a partition.
pub(super) fn first(partition: PartitionId, ops: Vec<Op>) -> Batch {
    Batch { partition, expect: None, owner: owner(1, 1, 1), ops }
}

/// The batch that follows another in its partition.
pub(super) fn after(batch: &Batch, ops: Vec<Op>) -> Batch {
    Batch { expect: Some(batch.owner), owner: next(batch.owner), partition: batch.partition, ops }
}

pub(super) fn next(owner: Owner) -> Owner {
    Owner { seq: Seq(owner.seq.0 + 1), ..owner }
}

pub(super) fn commit(store: &mut dyn Store, batch: &Batch) -> Result<Outcome, Violation> {
    let [outcome]: [Outcome; 1] = store
        .commit(std::slice::from_ref(batch))
        .try_into()
        .map_err(|outcomes: Vec<_>| Violation(format!("one batch, {} outcomes", outcomes.len())))?;
    Ok(outcome)
}

pub(super) fn committed(store: &mut dyn Store, batch: &Batch) -> Verdict {
    same("a batch that must be committed", &commit(store, batch)?, &Outcome::Committed)
}

pub(super) fn conflicts(store: &mut dyn Store, batch: &Batch) -> Verdict {
    same("a batch that must conflict", &commit(store, batch)?, &Outcome::Conflict)
}

pub(super) fn fails(store: &mut dyn Store, batch: &Batch, why: &str) -> Verdict {
    match commit(store, batch)? {
        Outcome::Failed(text) => {
            holds(text.contains(why), format!("the failure {text:?} does not say {why:?}"))
        }
        outcome => Err(Violation(format!("a batch that must fail: {outcome:?}"))),
    }
}

/// All rows of a partition, page by page.
pub(super) fn rows(
    reader: &mut dyn Reader,
    partition: PartitionId,
) -> Result<Vec<(Bytes, Bytes)>, Violation> {
    let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
    let mut range = Range::all();
    loop {
        let page = reader.scan(partition, &range, Limit::rows(1000))?;
        rows.extend(page.rows);
        match rows.last() {
            Some((key, _)) if page.more => range = Range::all().after(key.clone()),
            _ => return Ok(rows),
        }
    }
}

/// Owner and rows of a partition are these.
pub(super) fn holds_just(
    store: &dyn Store,
    partition: PartitionId,
    owner: Option<Owner>,
    expected: &[(&str, &str)],
) -> Verdict {
    let mut reader = store.reader()?;
    same("the owner record", &reader.owner(partition)?, &owner)?;
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let expected: Vec<_> = expected.iter().map(|(key, value)| (bytes(key), bytes(value))).collect();
    same("the records", &rows(&mut *reader, partition)?, &expected)
}
