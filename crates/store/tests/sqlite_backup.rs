//! Backups of a store that is in use.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bourse_durable::batch::{Batch, Fence, Op, Outcome, Owner, PartitionId, Seq};
use bourse_store::sqlite::{BackupError, Existing};
use bourse_store::{Limit, Range, Sqlite, Store, StoreId};

const ID: StoreId = StoreId([7; 16]);
const P: PartitionId = PartitionId(0);

/// Each batch adds one row.
fn commit(store: &mut Sqlite, seq: u64) {
    let owner = |seq| Owner { node: 1, fence: Fence(1), seq: Seq(seq) };
    let put = Op::Put { key: seq.to_be_bytes().to_vec().into(), value: vec![seq as u8; 3000].into() };
    let expect = seq.checked_sub(1).filter(|before| *before > 0).map(owner);
    let batch = Batch { partition: P, expect, owner: owner(seq), ops: vec![put] };
    assert_eq!(store.commit(&[batch]), [Outcome::Committed]);
}

/// How many batches a store holds; each of them whole.
fn batches(file: &Path) -> u64 {
    let store = Sqlite::open(file, StoreId([8; 16])).unwrap();
    assert_eq!(store.id(), ID);
    let mut reader = store.reader().unwrap();
    let rows = reader.scan(P, &Range::all(), Limit::rows(100_000)).unwrap().rows.len() as u64;
    assert_eq!(reader.owner(P).unwrap().map_or(0, |owner| owner.seq.0), rows);
    rows
}

#[test]
fn a_backup_is_one_moment_of_a_running_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(folder.path().join("store"), ID).unwrap();
    (1..=500).for_each(|seq| commit(&mut store, seq));
    let mut reader = store.sqlite_reader().unwrap();
    let copies: Vec<_> = (0..5).map(|n| folder.path().join(format!("copy{n}"))).collect();

    let done = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        scope.spawn(|| {
            copies.iter().for_each(|copy| reader.backup(copy, Existing::Keep).unwrap());
            done.store(true, Ordering::Release);
        });
        let mut seq = 500;
        while !done.load(Ordering::Acquire) {
            seq += 1;
            commit(&mut store, seq);
        }
        seq
    });
    let held: Vec<u64> = copies.iter().map(|copy| batches(copy)).collect();
    println!("backups of {held:?} batches while {last} were committed");
    assert!(held.is_sorted() && held[0] >= 500 && held[4] <= last, "{held:?} of {last}");
}

#[test]
fn a_backup_replaces_only_what_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    let copy = folder.path().join("copy");
    let mut store = Sqlite::open(&file, ID).unwrap();
    let mut reader = store.sqlite_reader().unwrap();
    fs::write(&copy, "precious").unwrap();
    assert!(matches!(reader.backup(&copy, Existing::Keep), Err(BackupError::Exists(_))));
    assert_eq!(fs::read(&copy).unwrap(), b"precious");
    assert!(matches!(reader.backup(&file, Existing::Replace), Err(BackupError::Itself(_))));
    let nowhere = folder.path().join("nowhere/copy");
    let error = reader.backup(&nowhere, Existing::Keep).unwrap_err();
    println!("{error}");

    commit(&mut store, 1);
    reader.backup(&copy, Existing::Replace).unwrap();
    assert_eq!(batches(&copy), 1);

    let mut open = Sqlite::open(&copy, ID).unwrap();
    commit(&mut open, 2);
    assert!(matches!(reader.backup(&copy, Existing::Replace), Err(BackupError::LogBeside(_))));
}
