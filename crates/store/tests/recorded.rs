//! What is written down of a store, and that it is all.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

use std::fs::{self, File};
use std::io::Write as _;

use bourse_durable::batch::{Batch, Fence, Op, Outcome, Owner, PartitionId, Seq, VALUE_BYTES_MAX};
use bourse_store::faulty::Fault;
use bourse_store::recorded::{Error, What, landed, read};
use bourse_store::{Faulty, Memory, Recorded, Store, StoreId};
use bytes::Bytes;

fn owner(seq: u64) -> Owner {
    Owner { node: 1, fence: Fence(1), seq: Seq(seq) }
}

/// The so manieth batch of a partition, with a value of so many bytes.
fn batch(seq: u64, bytes: usize) -> Batch {
    let op = Op::Put { key: Bytes::from_static(b"k"), value: vec![7; bytes].into() };
    let expect = (seq > 1).then(|| owner(seq - 1));
    Batch { partition: PartitionId(5), expect, owner: owner(seq), ops: vec![op] }
}

#[test]
fn all_that_is_in_is_written_and_goes_on_after_a_crash() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("history");
    let memory = Memory::new(StoreId::random());
    // 1. Two land, one of them unheard; one is refused by its size, and one since another is there.
    let faulty = Faulty::scripted(memory.clone(), [Fault::None, Fault::LoseOutcome]);
    let mut store = Recorded::open(faulty, &path, || 1).unwrap();
    let outcomes = store.commit(&[batch(1, 1), batch(2, 2), batch(3, VALUE_BYTES_MAX + 1), batch(9, 1)]);
    assert!(matches!(
        &outcomes[..],
        [Outcome::Committed, Outcome::Unknown(_), Outcome::Failed(_), Outcome::Conflict]
    ));
    drop(store);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "nobody else reads it: {mode:o}");
    // 2. The process was killed while it wrote.
    let whole = fs::metadata(&path).unwrap().len();
    File::options().append(true).open(&path).unwrap().write_all(&[200, 0, 0, 0, 1, 2]).unwrap();
    assert_eq!(read(&path).unwrap().len(), 1 + 3 + 3);
    // 3. The next one goes on behind what is whole.
    let mut store = Recorded::open(memory.clone(), &path, || 2).unwrap();
    assert_eq!(store.commit(&[batch(3, 3)]), [Outcome::Committed]);
    let entries = read(&path).unwrap();
    assert!(fs::metadata(&path).unwrap().len() > whole);
    assert_eq!(entries.iter().filter(|entry| entry.what == What::Opened).count(), 2);
    let mut reader = memory.reader().unwrap();
    let there = landed(&entries, |partition| reader_owner(&memory, partition));
    assert_eq!(there.batches, [(1, batch(1, 1)), (1, batch(2, 2)), (2, batch(3, 3))]);
    assert_eq!(there.lost, []);
    assert_eq!(reader.read(PartitionId(5), b"k").unwrap(), Some(Bytes::from_static(&[7, 7, 7])));
}

fn reader_owner(store: &Memory, partition: PartitionId) -> Option<Owner> {
    store.reader().unwrap().owner(partition).unwrap()
}

#[test]
fn what_is_no_history_is_left_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notes.txt");
    fs::write(&path, "not to be lost").unwrap();
    let refused = Recorded::open(Memory::new(StoreId::random()), &path, || 1);
    assert!(matches!(refused, Err(Error::Head)), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), b"not to be lost");
    // One that was begun and not even headed is a history.
    let path = place.path().join("begun");
    fs::write(&path, "bourse hist").unwrap();
    drop(Recorded::open(Memory::new(StoreId::random()), &path, || 1).unwrap());
    assert_eq!(read(&path).unwrap().len(), 1);
}

#[test]
fn a_full_disk_takes_no_history() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("history");
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        return println!("skipped: there is no /dev/full");
    }
    std::os::unix::fs::symlink(full, &path).unwrap();
    let memory = Memory::new(StoreId::random());
    assert!(Recorded::open(memory, &path, || 1).is_err(), "a disk that is full takes no history");
}
