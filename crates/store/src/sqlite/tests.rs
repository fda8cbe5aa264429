//! What the writing connection does about trouble, made from inside.

use bourse_durable::batch::{Batch, Fence, Op, Outcome, Owner, PartitionId, Seq};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

const ID: StoreId = StoreId([7; 16]);

fn store() -> (TempDir, Sqlite) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(folder.path().join("store"), ID).unwrap();
    (folder, store)
}

/// The first batch of a partition, with one value.
fn first(partition: u8, value_bytes: usize) -> Batch {
    let owner = Owner { node: 1, fence: Fence(1), seq: Seq(1) };
    let ops = vec![
        Op::Put { key: "small".into(), value: "1".into() },
        Op::Put { key: "value".into(), value: vec![1; value_bytes].into() },
    ];
    Batch { partition: PartitionId(partition), expect: None, owner, ops }
}

fn rows(store: &Sqlite, partition: u8) -> usize {
    let mut reader = store.reader().unwrap();
    let limit = crate::Limit { rows: 10, bytes: usize::MAX };
    reader.scan(PartitionId(partition), &crate::Range::all(), limit).unwrap().rows.len()
}

#[test]
fn a_batch_that_does_not_fit_leaves_its_neighbours_alone() {
    let (_folder, mut store) = store();
    store.writer().unwrap().pragma_update(None, "max_page_count", 60).unwrap();
    let outcomes = store.commit(&[first(1, 100), first(2, 1_000_000), first(3, 100), first(1, 100)]);
    assert_eq!(outcomes[0], Outcome::Committed);
    assert!(matches!(&outcomes[1], Outcome::Failed(text) if text.contains("is full")), "{outcomes:?}");
    assert_eq!(outcomes[2], Outcome::Committed);
    assert_eq!(outcomes[3], Outcome::Conflict);
    assert_eq!([1, 2, 3].map(|partition| rows(&store, partition)), [2, 0, 2]);
    assert_eq!(store.reader().unwrap().owner(PartitionId(2)), Ok(None));
}

#[test]
fn a_stranger_who_holds_the_database_is_named_and_not_waited_for() {
    let (_folder, mut store) = store();
    let shell = Connection::open(&store.file).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let outcomes = store.commit(&[first(1, 1), first(2, 1)]);
    for outcome in &outcomes {
        assert!(matches!(outcome, Outcome::Failed(text) if text.contains("another program")), "{outcomes:?}");
    }
    shell.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.commit(&[first(1, 1), first(2, 1)]), [Outcome::Committed, Outcome::Committed]);
}

#[test]
fn a_connection_that_was_given_up_is_opened_anew() {
    let (_folder, mut store) = store();
    assert_eq!(store.commit(&[first(1, 1)]), [Outcome::Committed]);
    let mut reader = store.reader().unwrap();
    store.writer = None;
    assert_eq!(store.commit(&[first(1, 1), first(2, 1)]), [Outcome::Conflict, Outcome::Committed]);
    assert!(reader.owner(PartitionId(2)).unwrap().is_some());
}

#[test]
fn a_reader_in_the_way_of_settling_is_no_success() {
    let (_folder, mut store) = store();
    let slow = store.sqlite_reader().unwrap();
    slow.connection.execute_batch("BEGIN; SELECT format FROM meta").unwrap();
    assert_eq!(store.commit(&[first(1, 1)]), [Outcome::Committed]);
    store.writer = None;
    let outcomes = store.commit(&[first(2, 1)]);
    assert!(matches!(&outcomes[0], Outcome::Failed(text) if text.contains("locked")), "{outcomes:?}");
    drop(slow);
    assert_eq!(store.commit(&[first(2, 1)]), [Outcome::Committed]);
}

#[test]
fn another_store_under_the_same_name_is_not_written_to() {
    let (folder, mut store) = store();
    let other = folder.path().join("other");
    drop(Sqlite::open(&other, StoreId([9; 16])).unwrap());
    store.writer = None;
    std::fs::rename(other, &store.file).unwrap();
    let outcomes = store.commit(&[first(1, 1)]);
    assert!(matches!(&outcomes[0], Outcome::Failed(text) if text.contains("replaced")), "{outcomes:?}");
}

#[test]
fn a_large_call_becomes_several_transactions() {
    let (_folder, mut store) = store();
    let batches: Vec<Batch> = (0..6).map(|partition| first(partition, 15 << 20)).collect();
    assert_eq!(store.commit(&batches), vec![Outcome::Committed; 6]);
    assert_eq!(rows(&store, 5), 2);
}

#[test]
fn connections_have_the_settings_that_were_meant() {
    let (_folder, mut store) = store();
    let setting = |connection: &Connection, name: &str| -> String {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| format!("{value:?}"))
            .unwrap()
    };
    let reader = store.sqlite_reader().unwrap();
    assert_eq!(setting(&reader.connection, "query_only"), "Integer(1)");
    assert_eq!(setting(&reader.connection, "mmap_size"), "Integer(0)");
    let writer = store.writer().unwrap();
    for (name, value) in [
        ("journal_mode", "Text(\"wal\")"),
        ("synchronous", "Integer(2)"),
        ("mmap_size", "Integer(0)"),
        ("busy_timeout", "Integer(0)"),
        ("wal_autocheckpoint", "Integer(4000)"),
    ] {
        assert_eq!(setting(writer, name), value, "{name}");
    }
}

#[test]
fn a_store_that_is_closed_leaves_no_log() {
    let (_folder, mut store) = store();
    let file = store.file.clone();
    assert_eq!(store.commit(&[first(1, 100)]), [Outcome::Committed]);
    // One that reads as long as the daemon lives, but not just now.
    let mut reader = store.reader().unwrap();
    assert!(reader.owner(PartitionId(1)).unwrap().is_some());
    let log = file.with_file_name("store-wal");
    let length = || log.metadata().map_or(0, |log| log.len());
    assert!(length() > 0);
    drop(store);
    assert_eq!(length(), 0);
    drop(reader);
    assert_eq!(rows(&Sqlite::open(&file, ID).unwrap(), 1), 2);
}
