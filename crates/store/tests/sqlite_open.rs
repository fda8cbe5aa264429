//! Files that cannot be opened, and what the operator reads about them.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bourse_durable::batch::{Batch, Fence, Op, Outcome, Owner, PartitionId, Seq};
use bourse_store::sqlite::OpenError;
use bourse_store::{Sqlite, Store, StoreId};
use rusqlite::Connection;
use tempfile::TempDir;

const ID: StoreId = StoreId([7; 16]);

/// A store with enough in it to have many pages, closed.
fn closed_store() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    let mut store = Sqlite::open(&file, ID).unwrap();
    let ops = (0..200u32)
        .map(|n| Op::Put { key: n.to_be_bytes().to_vec().into(), value: vec![n as u8; 1000].into() });
    let owner = Owner { node: 1, fence: Fence(1), seq: Seq(1) };
    let batch = Batch { partition: PartitionId(0), expect: None, owner, ops: ops.collect() };
    assert_eq!(store.commit(&[batch]), [Outcome::Committed]);
    (folder, file)
}

fn refusal(file: &Path) -> OpenError {
    let error = Sqlite::open(file, StoreId([8; 16])).expect_err("it must not open");
    println!("{error}");
    error
}

fn write_at(file: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn the_id_is_the_one_it_was_made_with() {
    let (_folder, file) = closed_store();
    assert_eq!(Sqlite::open(&file, StoreId([8; 16])).unwrap().id(), ID);
}

#[test]
fn a_second_opener_is_refused_at_once() {
    let (_folder, file) = closed_store();
    let first = Sqlite::open(&file, ID).unwrap();
    let error = refusal(&file);
    assert!(
        matches!(&error, OpenError::Locked { pid: Some(pid), .. } if *pid == std::process::id()),
        "{error:?}"
    );
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    #[cfg(unix)]
    {
        let link = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&file, link.path().join("store")).unwrap();
        assert!(matches!(refusal(&link.path().join("store")), OpenError::Locked { .. }));
    }
    drop(first);
    Sqlite::open(&file, ID).unwrap();
}

#[test]
fn a_missing_folder() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(&folder.path().join("nowhere/store"));
    assert!(matches!(&error, OpenError::FolderMissing(path) if path.ends_with("nowhere")), "{error:?}");
}

#[test]
fn a_folder_in_place_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("store")).unwrap();
    assert!(matches!(refusal(&folder.path().join("store")), OpenError::NotAFile(_)));
}

#[test]
fn garbage() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    fs::write(&file, "a shopping list\n".repeat(1000)).unwrap();
    assert!(matches!(refusal(&file), OpenError::NotAStore(_)));
    fs::write(&file, "a list").unwrap();
    assert!(matches!(refusal(&file), OpenError::NotAStore(_)));
}

#[test]
fn a_database_of_another_application() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE meta (name TEXT)").unwrap();
    assert!(matches!(refusal(&file), OpenError::NotAStore(_)));
}

#[test]
fn truncated_anywhere() {
    let (_folder, file) = closed_store();
    let whole = fs::read(&file).unwrap();
    for length in [0, 10, 60, 100, 4096, 5000, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let error = refusal(&file);
        let expected = match length {
            10 => matches!(error, OpenError::NotAStore(_)),
            _ => matches!(error, OpenError::Damaged { .. }),
        };
        assert!(expected, "{length} bytes: {error:?}");
    }
    fs::write(&file, &whole).unwrap();
    Sqlite::open(&file, ID).unwrap();
}

#[test]
fn damaged_where_the_probe_looks() {
    let (_folder, file) = closed_store();
    write_at(&file, 4096, &[0x5a; 4096]);
    assert!(matches!(refusal(&file), OpenError::Damaged { .. }));
}

#[test]
fn gone_but_for_its_log() {
    let (_folder, file) = closed_store();
    fs::rename(&file, format!("{}-wal", file.display())).unwrap();
    let error = refusal(&file);
    assert!(error.to_string().contains("its log (-wal) is still there"), "{error}");
}

#[test]
fn what_is_left_of_an_interrupted_creation_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    for suffix in [".new", ".new-journal", ".new-wal"] {
        fs::write(format!("{}{suffix}", file.display()), "half of something").unwrap();
    }
    assert_eq!(Sqlite::open(&file, ID).unwrap().id(), ID);
}

#[test]
fn a_newer_format_names_both() {
    let (_folder, file) = closed_store();
    Connection::open(&file).unwrap().execute_batch("UPDATE meta SET format = 12").unwrap();
    let error = refusal(&file);
    assert!(matches!(error, OpenError::Newer { found: 12, known: 1, .. }), "{error:?}");
    assert!(
        error.to_string().contains("store format 12") && error.to_string().contains("up to 1"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_read_only_file() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, file) = closed_store();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    if OpenOptions::new().write(true).open(&file).is_ok() {
        println!(
            "skipped: this user may write what is read-only (root); see sqlite_disk.rs for a read-only mount"
        );
        return;
    }
    assert!(matches!(refusal(&file), OpenError::ReadOnly(_)));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(format!("{}.lock", file.display())).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    assert!(matches!(refusal(&file), OpenError::ReadOnly(_)));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
}
