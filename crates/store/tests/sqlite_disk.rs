//! Disks that are full, read-only or failing. The real ones need root to mount a small file system, and are
//! skipped with a reason without it.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bourse_durable::batch::{Batch, Fence, Op, Outcome, Owner, PartitionId, Seq};
use bourse_store::sqlite::{BackupError, Existing, OpenError};
use bourse_store::{Sqlite, Store, StoreId};
use bytes::Bytes;
use tempfile::TempDir;

const ID: StoreId = StoreId([7; 16]);

/// A file system in memory, unmounted when it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(kib: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={kib}k");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            Ok(output) => {
                println!("skipped: cannot mount: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: cannot run mount: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, mode: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{mode}")]).arg(self.path()).status();
        assert!(status.unwrap().success());
    }

    /// Takes all space that is left.
    fn fill(&self) -> PathBuf {
        let ballast = self.path().join("ballast");
        let mut bytes = 4 << 20;
        let mut file = fs::File::create(&ballast).unwrap();
        while bytes > 0 {
            if std::io::Write::write_all(&mut file, &vec![1; bytes]).is_err() {
                bytes /= 2;
            }
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

fn batch(expect: Option<Owner>, fence: u64, value_bytes: usize) -> Batch {
    let seq = expect.map_or(1, |owner| owner.seq.0 + 1);
    let owner = Owner { node: 1, fence: Fence(fence), seq: Seq(seq) };
    let put = |key: String, value: Vec<u8>| Op::Put { key: key.into(), value: value.into() };
    let ops = vec![
        put(format!("row{seq}"), vec![seq as u8; value_bytes]),
        put("last".into(), seq.to_string().into()),
    ];
    Batch { partition: PartitionId(3), expect, owner, ops }
}

fn commit(store: &mut Sqlite, batch: &Batch) -> Outcome {
    store.commit(std::slice::from_ref(batch)).remove(0)
}

/// What is stored is exactly the batches up to the owner record's number.
fn check_whole(store: &Sqlite, acknowledged: Owner) -> Owner {
    let mut reader = store.reader().unwrap();
    let owner = reader.owner(PartitionId(3)).unwrap().expect("an owner");
    assert!(owner.seq >= acknowledged.seq, "{owner:?} lacks what was acknowledged: {acknowledged:?}");
    let last = reader.read(PartitionId(3), b"last").unwrap();
    assert_eq!(last, Some(Bytes::from(owner.seq.0.to_string())));
    let row = |seq: u64| format!("row{seq}");
    assert!(reader.read(PartitionId(3), row(owner.seq.0).as_bytes()).unwrap().is_some());
    assert!(reader.read(PartitionId(3), row(owner.seq.0 + 1).as_bytes()).unwrap().is_none());
    owner
}

#[test]
fn a_full_disk_fails_batches_until_there_is_space() {
    let Some(disk) = SmallDisk::mount(6 * 1024) else { return };
    let file = disk.path().join("store");
    let mut store = Sqlite::open(&file, ID).unwrap();

    // 1. Commit until it is full.
    let mut acknowledged: Option<Owner> = None;
    let refused = loop {
        let next = batch(acknowledged, 1, 100_000);
        match commit(&mut store, &next) {
            Outcome::Committed => acknowledged = Some(next.owner),
            other => break other,
        }
    };
    let acknowledged = acknowledged.expect("some batches fit");
    println!("after {} batches: {refused:?}", acknowledged.seq.0);
    let (Outcome::Unknown(text) | Outcome::Failed(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("is full") && text.contains(file.to_str().unwrap()), "{text}");
    drop(disk.fill());

    // 2. Still full: refused for the same reason; reads go on.
    for _ in 0..3 {
        let owner = check_whole(&store, acknowledged);
        let refused = commit(&mut store, &batch(Some(owner), owner.fence.0 + 1, 100_000));
        println!("still full: {refused:?}");
        let (Outcome::Unknown(text) | Outcome::Failed(text)) = refused else { panic!("{refused:?}") };
        assert!(text.contains("is full"), "{text}");
    }

    // 3. Space again: a new owner takes over, and everything acknowledged is there.
    disk.remount(&format!("size={}k", 64 * 1024));
    let owner = check_whole(&store, acknowledged);
    let taken = batch(Some(owner), owner.fence.0 + 1, 100_000);
    assert_eq!(commit(&mut store, &taken), Outcome::Committed);
    drop(store);
    let store = Sqlite::open(&file, ID).unwrap();
    assert_eq!(check_whole(&store, taken.owner), taken.owner);
}

#[test]
fn a_full_disk_at_open() {
    let Some(disk) = SmallDisk::mount(1024) else { return };
    let file = disk.path().join("store");
    let ballast = disk.fill();
    let error = Sqlite::open(&file, ID).expect_err("there is no space");
    println!("{error}");
    assert!(matches!(error, OpenError::DiskFull(_)), "{error:?}");

    fs::remove_file(&ballast).unwrap();
    let mut store = Sqlite::open(&file, ID).unwrap();
    assert_eq!(commit(&mut store, &batch(None, 1, 10)), Outcome::Committed);
    drop(store);

    let ballast = disk.fill();
    let error = Sqlite::open(&file, ID).expect_err("there is no space");
    println!("{error}");
    assert!(matches!(error, OpenError::DiskFull(_)), "{error:?}");
    fs::remove_file(&ballast).unwrap();
    Sqlite::open(&file, ID).unwrap();
}

#[test]
fn a_full_disk_under_a_backup() {
    let Some(disk) = SmallDisk::mount(512) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(folder.path().join("store"), ID).unwrap();
    assert_eq!(commit(&mut store, &batch(None, 1, 1 << 20)), Outcome::Committed);
    let error = store.sqlite_reader().unwrap().backup(&disk.path().join("copy"), Existing::Keep).unwrap_err();
    println!("{error}");
    assert!(matches!(error, BackupError::DiskFull(_)), "{error:?}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn a_read_only_file_system() {
    let Some(disk) = SmallDisk::mount(1024) else { return };
    let file = disk.path().join("store");
    drop(Sqlite::open(&file, ID).unwrap());
    disk.remount("ro");
    let error = Sqlite::open(&file, ID).expect_err("it is read-only");
    println!("{error}");
    assert!(matches!(error, OpenError::ReadOnly(_)), "{error:?}");
    disk.remount("rw");
    Sqlite::open(&file, ID).unwrap();
}
