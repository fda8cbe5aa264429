//! Records come back in the byte order of their keys, within the range, as many as the limit allows.

use std::ops::Bound;

use bourse_durable::batch::PartitionId;
use bytes::Bytes;

use super::steps::{P, committed, first, holds_just, put, rows};
use super::{Harness, Verdict, holds, same};
use crate::{Limit, Range, Reader};

/// Keys in byte order that other orders (text, locale, numbers, ends cut at NUL) get wrong.
const ORDERED: &[&[u8]] = &[
    b"\x00",
    b"\x00\x00",
    b"\x00\x01",
    b"\x00\xff",
    b"\x01",
    b"10",
    b"9",
    b"A",
    b"B",
    b"a",
    b"a\x00",
    b"a\x00b",
    b"a\x01",
    b"a ",
    b"a/",
    b"a/b",
    b"aa",
    b"a\xff",
    b"a\xff\xff",
    b"b",
    b"\x7f",
    b"\x80",
    b"\xc3\xa4",
    b"\xfe\xff",
    b"\xff",
    b"\xff\x00",
    b"\xff\xff",
    b"\xff\xff\xff",
];

fn keys(reader: &mut dyn Reader, range: &Range) -> Result<Vec<Bytes>, super::Violation> {
    Ok(reader.scan(P, range, Limit::rows(1000))?.rows.into_iter().map(|(key, _)| key).collect())
}

fn key(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(key)
}

pub(super) fn scans_are_in_byte_order(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    // Written backwards in two halves, so that the order of arrival is of no use.
    let (even, odd): (Vec<_>, Vec<_>) =
        ORDERED.iter().rev().enumerate().partition(|(place, _)| place % 2 == 0);
    committed(&mut *store, &first(P, even.iter().chain(&odd).map(|(_, key)| put(key, key)).collect()))?;

    let mut reader = store.reader()?;
    let expected: Vec<_> = ORDERED.iter().map(|it| (key(it), key(it))).collect();
    same("all keys", &rows(&mut *reader, P)?, &expected)?;
    for it in ORDERED {
        same("a single read", &reader.read(P, it)?, &Some(key(it)))?;
        let with_prefix: Vec<_> =
            ORDERED.iter().filter(|other| other.starts_with(it)).map(|it| key(it)).collect();
        same(
            &format!("keys that begin with {it:?}"),
            &keys(&mut *reader, &Range::prefix(it))?,
            &with_prefix,
        )?;
    }
    same("a key that is not there", &reader.read(P, b"a\x00a")?, &None)
}

pub(super) fn ranges_end_where_they_say(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    committed(&mut *store, &first(P, ["b", "d", "f"].map(|key| put(key, "")).into()))?;
    let mut reader = store.reader()?;

    let ends = ["a", "b", "c", "d", "e", "f", "g"].map(|end| key(end.as_bytes()));
    let bounds = || {
        let given = ends.iter().flat_map(|end| [Bound::Included(end.clone()), Bound::Excluded(end.clone())]);
        given.chain([Bound::Unbounded])
    };
    for from in bounds() {
        for until in bounds() {
            let range = Range { from: from.clone(), until };
            let after_from = |key: &Bytes| match &range.from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            };
            let before_until = |key: &Bytes| match &range.until {
                Bound::Included(until) => key <= until,
                Bound::Excluded(until) => key < until,
                Bound::Unbounded => true,
            };
            let inside = |key: &Bytes| after_from(key) && before_until(key);
            let expected: Vec<_> =
                ["b", "d", "f"].map(|it| key(it.as_bytes())).into_iter().filter(inside).collect();
            same(&format!("{range:?}"), &keys(&mut *reader, &range)?, &expected)?;
        }
    }
    Ok(())
}

pub(super) fn pages_hold_what_the_limit_allows(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let ten: Vec<_> = (0..10).map(|n| put(format!("key{n}"), "sixbig")).collect();
    committed(&mut *store, &first(P, ten))?;
    committed(&mut *store, &first(PartitionId(8), vec![put("key10", "of another partition")]))?;

    let mut reader = store.reader()?;
    let mut scan = |range: &Range, rows: usize, bytes: usize| reader.scan(P, range, Limit { rows, bytes });
    let all = Range::all;
    for (rows, bytes, expected, more) in [
        (0, 1000, 0, true),
        (1, 1000, 1, true),
        (9, 1000, 9, true),
        (10, 1000, 10, false),
        (11, 1000, 10, false),
        (10, 100, 10, false),
        (10, 99, 9, true),
        (10, 25, 2, true),
        (10, 9, 1, true),
        (10, 0, 1, true),
    ] {
        let page = scan(&all(), rows, bytes)?;
        let what = format!("rows and whether there are more, with a limit of {rows} rows and {bytes} bytes");
        same(&what, &(page.rows.len(), page.more), &(expected, more))?;
    }
    let rest = scan(&all().after(key(b"key6")), 3, 1000)?;
    same("the last page", &(rest.rows.len(), rest.more), &(3, false))?;
    let beyond = scan(&all().after(key(b"key9")), 3, 1000)?;
    holds(beyond.rows.is_empty() && !beyond.more, "there is something past the last key")
}

pub(super) fn an_empty_store_answers(harness: &mut dyn Harness) -> Verdict {
    let store = harness.open();
    holds_just(&*store, P, None, &[])?;
    same("a read", &store.reader()?.read(P, b"a")?, &None)?;
    let other = harness.open();
    holds(store.id() != other.id(), "two stores have the same id")
}
