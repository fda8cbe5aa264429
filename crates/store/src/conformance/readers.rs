//! A reader sees all that was answered before it looked, and of each batch all or nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bourse_durable::batch::Batch;
use bytes::Bytes;

use super::steps::{P, after, committed, delete, first, put};
use super::{Harness, Verdict, Violation, holds, same};
use crate::{Limit, Range, Reader};

const ROUNDS: u32 = 300;
const ROWS: usize = 20;

pub(super) fn a_reader_sees_what_was_committed(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    // One reader from before the first batch, and a new one after each.
    let mut old = store.reader()?;
    same("the owner of nothing", &old.owner(P)?, &None)?;
    let mut batch = first(P, vec![put("n", "0")]);
    for round in 1..20 {
        committed(&mut *store, &batch)?;
        let mut new = store.reader()?;
        let value = Some(Bytes::from((round - 1).to_string()));
        for reader in [&mut old, &mut new] {
            same("the owner", &reader.owner(P)?, &Some(batch.owner))?;
            same("the value", &reader.read(P, b"n")?, &value)?;
            let page = reader.scan(P, &Range::all(), Limit::rows(2))?;
            same("the scan", &page.rows.first().map(|(_, value)| value.clone()), &value)?;
        }
        batch = after(&batch, vec![put("n", round.to_string())]);
    }
    Ok(())
}

pub(super) fn a_reader_sees_whole_batches(harness: &mut dyn Harness) -> Verdict {
    let mut store = harness.open();
    let readers = [store.reader()?, store.reader()?];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watchers = readers.map(|reader| scope.spawn(|| watch(reader, &done)));
        let written = write(&mut *store);
        done.store(true, Ordering::Release);
        let watched = watchers
            .map(|watcher| watcher.join().unwrap_or_else(|_| Err(Violation("a reader panicked".to_owned()))));
        written.and(watched.into_iter().collect())
    })
}

/// Rewrites all rows again and again, under keys that move.
fn write(store: &mut dyn crate::Store) -> Verdict {
    let mut batch: Option<Batch> = None;
    for round in 0..ROUNDS {
        let key = |round: u32, row: usize| format!("{row:03}/{}", round % 7);
        let mut ops: Vec<_> =
            (0..ROWS).map(|row| put(key(round, row), round.to_string().repeat(50))).collect();
        if let Some(before) = round.checked_sub(1) {
            ops.extend((0..ROWS).map(|row| delete(key(before, row))));
        }
        let next = match &batch {
            None => first(P, ops),
            Some(batch) => after(batch, ops),
        };
        committed(store, &next)?;
        batch = Some(next);
    }
    Ok(())
}

fn watch(mut reader: Box<dyn Reader>, done: &AtomicBool) -> Verdict {
    let mut seen_before = 0;
    loop {
        let last = done.load(Ordering::Acquire);
        let rows = reader.scan(P, &Range::all(), Limit::rows(1000))?.rows;
        holds(rows.is_empty() || rows.len() == ROWS, format!("a scan saw {} of {ROWS} rows", rows.len()))?;
        let alike = rows.windows(2).all(|pair| pair[0].1 == pair[1].1);
        holds(alike, "a scan saw parts of two batches")?;
        let seen = reader.owner(P)?.map_or(0, |owner| owner.seq.0);
        holds(seen >= seen_before, format!("a reader saw batch {seen} after batch {seen_before}"))?;
        seen_before = seen;
        if last {
            return same("the last batch", &seen, &u64::from(ROUNDS));
        }
    }
}
