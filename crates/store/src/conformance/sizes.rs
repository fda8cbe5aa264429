//! What is within the bounds fits, what is beyond them is refused, and nothing is too small.

use bourse_durable::batch::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, KEY_BYTES_MAX, Op, PartitionId, VALUE_BYTES_MAX,
};
use bytes::Bytes;

use super::steps::{P, after, committed, conflicts, delete, fails, first, holds_just, put};
use super::{Harness, Verdict, same};
use crate::{Limit, Range};

fn put_bytes(key: &'static str, value: &Bytes) -> Op {
    Op::Put { key: Bytes::from_static(key.as_bytes()), value: value.clone() }
}

fn large_value(bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}

pub(super) fn the_largest_batch_fits(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let value = large_value(VALUE_BYTES_MAX);
    let rest = value.slice(..BATCH_BYTES_MAX - 3 * (VALUE_BYTES_MAX + 1) - 1);
    let ops =
        vec![put_bytes("a", &value), put_bytes("b", &value), put_bytes("c", &value), put_bytes("d", &rest)];
    committed(&mut *store, &first(P, ops))?;
    let mut reader = store.reader()?;
    for (key, expected) in [("a", &value), ("c", &value), ("d", &rest)] {
        same(&format!("the large value {key}"), &reader.read(P, key.as_bytes())?.as_ref(), &Some(expected))?;
    }
    let page = reader.scan(P, &Range::all(), Limit { rows: 10, bytes: VALUE_BYTES_MAX + 1 })?;
    same("large rows of one page", &(page.rows.len(), page.more), &(1, true))?;

    let longest_key = vec![0xff; KEY_BYTES_MAX];
    let most_ops: Vec<_> =
        (1..BATCH_OPS_MAX).map(|n| put(n.to_be_bytes(), "")).chain([put(&longest_key, "x")]).collect();
    let many = PartitionId(8);
    committed(&mut *store, &first(many, most_ops))?;
    same("the longest key", &reader.read(many, &longest_key)?, &Some(Bytes::from_static(b"x")))
}

pub(super) fn larger_batches_are_refused(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let one = first(P, vec![put("a", "1")]);
    committed(&mut *store, &one)?;

    let value = large_value(VALUE_BYTES_MAX + 1);
    let fits = value.slice(1..);
    let four: Vec<_> = ["a", "b", "c", "d"].map(|key| put_bytes(key, &fits)).into();
    let many = (0..=BATCH_OPS_MAX).map(|_| delete("a")).collect();
    let beyond = [
        (vec![put("a", "2"), put("k".repeat(KEY_BYTES_MAX + 1), "")], "key"),
        (vec![delete("a"), delete("k".repeat(KEY_BYTES_MAX + 1))], "key"),
        (vec![put("b", "2"), put_bytes("a", &value)], "value"),
        (four, "batch"),
        (many, "operations"),
    ];
    for (ops, why) in beyond {
        fails(&mut *store, &after(&one, ops), why)?;
    }
    holds_just(&*store, P, Some(one.owner), &[("a", "1")])?;
    committed(&mut *store, &after(&one, vec![put("a", "2")]))?;
    conflicts(&mut *store, &after(&one, vec![put("a", "3")]))
}

pub(super) fn empty_keys_and_values_are_records(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let one = first(P, vec![put("", "of the empty key"), put("empty", ""), put("\0", "\0")]);
    committed(&mut *store, &one)?;
    holds_just(&*store, P, Some(one.owner), &[("", "of the empty key"), ("\0", "\0"), ("empty", "")])?;
    same("an empty value", &store.reader()?.read(P, b"empty")?, &Some(Bytes::new()))?;

    let two = after(&one, vec![delete("")]);
    committed(&mut *store, &two)?;
    let no_ops = after(&two, vec![]);
    committed(&mut *store, &no_ops)?;
    holds_just(&*store, P, Some(no_ops.owner), &[("\0", "\0"), ("empty", "")])
}
