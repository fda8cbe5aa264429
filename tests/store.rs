//! Stores that cannot be used, and disks that are full.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{Daemon, Setup, python_home, skipped, wait_for};
use bourse_store::recorded::{Entry, What, read};

const KEEP: (&str, &str) = (
    "keep.py",
    "
    from bourse import function, state
    @function
    def put(key: str, value: str):
        state(key).set(value)
    @function
    def get(key: str):
        return state(key).get()
    @function
    def count(key: str):
        record = state(key)
        n = (record.get() or 0) + 1
        record.set(n)
        return n
    @function
    def fails(key: str):
        state(key).set('never')
        raise ValueError('no')
    ",
);

#[track_caller]
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
}

/// A daemon that has written something, and was killed.
fn written() -> Setup {
    let daemon = Daemon::start(&[KEEP]);
    daemon.call("keep.put", json!({"key": "a", "value": "1"})).ok();
    let setup = daemon.kill();
    setup.wait_gone();
    setup
}

fn store(setup: &Setup) -> std::path::PathBuf {
    setup.folder().join(".bourse/store.sqlite")
}

#[test]
fn a_store_that_another_daemon_uses() {
    let daemon = Daemon::start(&[KEEP]);
    let second = Setup::new(&[KEEP]).argument("--data").argument(&daemon.data().display().to_string());
    says(&second.refused(), &["error: ", "is served already, by process", "--data"]);
    // One that left no word of where it is.
    fs::remove_file(daemon.data().join("daemon.json")).expect("it is removed");
    let third = Setup::new(&[KEEP]).argument("--data").argument(&daemon.data().display().to_string());
    says(&third.refused(), &["error: ", "store.sqlite is in use by process", "--data"]);
    daemon.call("keep.put", json!({"key": "a", "value": "1"})).ok();
}

#[test]
fn a_store_that_is_truncated_or_none() {
    let setup = written();
    let bytes = fs::read(store(&setup)).expect("a store");
    for file in fs::read_dir(setup.folder().join(".bourse")).expect("a folder").flatten() {
        if file.file_name().to_string_lossy().starts_with("store.sqlite-") {
            fs::remove_file(file.path()).expect("it is removed");
        }
    }
    fs::write(store(&setup), &bytes[..bytes.len().min(5000)]).expect("a file");
    says(&setup.refused(), &["store.sqlite is damaged", "restore a backup"]);
    let setup = written();
    fs::write(store(&setup), "this is a letter to my aunt, and no database at all".repeat(100))
        .expect("a file");
    says(&setup.refused(), &["store.sqlite"]);
}

#[test]
fn a_store_of_a_newer_version() {
    let setup = written();
    let (python, _) = python_home();
    let script = "import sqlite3, sys\nd = sqlite3.connect(sys.argv[1])\nd.execute('UPDATE meta SET format = 999')\nd.commit()\n";
    let done = Command::new(python).args(["-c", script]).arg(store(&setup)).status().expect("Python runs");
    assert!(done.success());
    says(&setup.refused(), &["store.sqlite", "999", "newer"]);
}

#[test]
fn a_data_folder_that_cannot_be_written() {
    let setup = Setup::new(&[KEEP]).argument("--data").argument("/proc/bourse");
    says(&setup.refused(), &["/proc/bourse", "hint: name another with --data"]);
    // Permissions do not hold up root, a read-only mount does.
    let setup = written();
    let data = setup.folder().join(".bourse");
    if !mount(&["-t", "tmpfs", "-o", "size=4m", "none"], &data) {
        return skipped("nothing can be mounted here");
    }
    let mounted = Mounted(data.clone());
    let read_only = Command::new("mount").args(["-o", "remount,ro"]).arg(&data).status();
    assert!(read_only.is_ok_and(|s| s.success()));
    says(&setup.refused(), &["error: ", ".bourse", "ead-only"]);
    drop(mounted);
}

#[test]
fn a_store_that_is_read_only() {
    let setup = written();
    let path = store(&setup);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("a mode");
    if fs::OpenOptions::new().append(true).open(&path).is_ok() {
        return skipped("permissions do not hold up this user");
    }
    says(&setup.refused(), &["store.sqlite", "hint:"]);
}

#[test]
fn a_full_disk_refuses_writes_and_is_well_again_with_room() {
    let setup = Setup::new(&[KEEP]);
    let data = setup.folder().join("../data");
    fs::create_dir(&data).expect("a folder");
    let data = data.canonicalize().expect("a path");
    if !mount(&["-t", "tmpfs", "-o", "size=8m", "none"], &data) {
        return skipped("nothing can be mounted here");
    }
    let mounted = Mounted(data.clone());
    let daemon = setup.argument("--data").argument(&data.display().to_string()).up();
    daemon.call("keep.put", json!({"key": "a", "value": "before"})).ok();

    // 1. The disk fills up; a write is refused, and says so.
    // To be well again, the store copies its log into the database: that needs as much room as the log has.
    fs::write(data.join("ballast"), vec![0; 5 << 20]).expect("a file");
    let value = "x".repeat(200_000);
    let mut refused = None;
    for n in 0..100 {
        let response = daemon.call("keep.put", json!({"key": format!("k{n}"), "value": value}));
        if response.status != 200 {
            refused = Some((n, response));
            break;
        }
    }
    let (full_at, refused) = refused.expect("the disk is full at some time");
    let said = refused.problem(503, "store_unavailable");
    assert!(!said.contains("spread the writes"), "{said}");

    // 2. What was acknowledged can be read; the refused one is not there.
    assert_eq!(daemon.call("keep.get", json!({"key": "a"})).ok(), "before");
    for n in 0..full_at {
        assert_eq!(daemon.call("keep.get", json!({"key": format!("k{n}")})).ok(), value.as_str());
    }

    // 3. With room it is well again, by itself.
    fs::remove_file(data.join("ballast")).expect("it is removed");
    let last = json!({"key": "z", "value": "after"});
    wait_for("it writes again", || daemon.call("keep.put", last.clone()).status == 200);
    assert_eq!(daemon.call("keep.get", json!({"key": "z"})).ok(), "after");
    drop(daemon);
    drop(mounted);
}

#[test]
fn a_history_is_begun_gone_on_with_and_nothing_else_is_written_over() {
    let setup = Setup::new(&[]);
    let place = tempfile::tempdir().expect("a folder");
    let file = place.path().join("history");
    let text = file.to_str().expect("a name").to_owned();
    // 1. Two lives are one history.
    let daemon = setup.argument("--history").argument(&text).up();
    let daemon = daemon.kill().up();
    let lives = read(&file).expect("a history");
    let opened = |entry: &&Entry| entry.what == What::Opened;
    assert_eq!(lives.iter().filter(opened).count(), 2);
    // 2. What is none is left as it is.
    let setup = daemon.stop();
    std::fs::write(&file, "notes").expect("a file");
    let refused = setup.refused();
    assert!(refused.contains("history") && refused.contains("hint:"), "{refused}");
    assert_eq!(std::fs::read(&file).expect("it is there"), b"notes");
}

#[test]
fn durable_calls_outlast_a_full_disk() {
    let setup = Setup::new(&[(
        "work.py",
        "
        from bourse import function, state
        @function(retry=1000)
        def add(n: int, ballast: str = ''):
            done = state(f'done{n % 4}/{n}')
            done.set((done.get() or 0) + 1)
        @function
        def of(n: int):
            return state(f'done{n % 4}/{n}').get()
        ",
    )]);
    let data = setup.folder().join("../data");
    fs::create_dir(&data).expect("a folder");
    let data = data.canonicalize().expect("a path");
    if !mount(&["-t", "tmpfs", "-o", "size=12m", "none"], &data) {
        return skipped("cannot mount: not root, or not allowed");
    }
    let mounted = Mounted(data.clone());
    let daemon = setup.argument("--data").argument(&data.display().to_string()).up();
    let add = |n: usize| {
        let body = json!({"n": n, "ballast": "x".repeat(100_000)}).to_string();
        daemon.post("/v1/call/work.add?mode=async", body)
    };
    let mut accepted = Vec::new();
    for n in 0..10 {
        assert_eq!(add(n).status, 202);
        accepted.push(n);
    }
    fs::write(data.join("ballast"), vec![0; 7 << 20]).expect("a file");
    let mut refused = 0;
    for n in 10..150 {
        let answer = add(n);
        match answer.status {
            202 => accepted.push(n),
            _ => {
                answer.problem(503, "store_unavailable");
                refused += 1;
            }
        }
        if refused > 5 {
            break;
        }
    }
    assert!(refused > 0, "the store took everything");
    fs::remove_file(data.join("ballast")).expect("it is removed");
    wait_for("it accepts again", || add(1_000).status == 202);
    for n in &accepted {
        let of = json!({"n": n});
        wait_for("what was accepted is done", || daemon.call("work.of", of.clone()).ok() == json!(1));
    }
    drop(daemon);
    drop(mounted);
}

#[test]
fn a_store_whose_files_are_made_read_only_while_it_runs_loses_nothing() {
    let daemon = Setup::new(&[KEEP]).up();
    daemon.call("keep.put", json!({"key": "a", "value": "before"})).ok();
    let modes = |mode: u32| {
        for entry in fs::read_dir(daemon.data()).expect("a folder").flatten() {
            if entry.file_name().to_string_lossy().starts_with("store.sqlite") {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).expect("a mode");
            }
        }
    };
    // Its files are open: it goes on, or refuses. What it says is so, also after the next start.
    modes(0o400);
    let later = daemon.call("keep.put", json!({"key": "b", "value": "after"})).status == 200;
    modes(0o600);
    let daemon = daemon.kill().up();
    assert_eq!(daemon.call("keep.get", json!({"key": "a"})).ok(), "before");
    if later {
        assert_eq!(daemon.call("keep.get", json!({"key": "b"})).ok(), "after");
    }
}

#[test]
fn state_is_counted_right_by_many_at_once_and_failures_write_nothing() {
    let daemon = Daemon::start(&[KEEP]);
    let client = daemon.client();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    loop {
                        let counted = client.call("keep.count", &json!({"key": "n"}));
                        if counted.status == 200 {
                            break;
                        }
                        counted.problem(409, "conflict");
                    }
                }
            });
        }
    });
    assert_eq!(daemon.call("keep.get", json!({"key": "n"})).ok(), 100);
    daemon.call("keep.fails", json!({"key": "f"})).problem(500, "function_error");
    assert_eq!(daemon.call("keep.get", json!({"key": "f"})).ok(), json!(null));
}

#[test]
fn a_store_in_memory_forgets() {
    let daemon = Setup::new(&[KEEP]).set("store", "memory").up();
    daemon.call("keep.put", json!({"key": "a", "value": "1"})).ok();
    assert_eq!(daemon.call("keep.get", json!({"key": "a"})).ok(), "1");
    assert!(!store(&daemon).exists());
}

fn mount(options: &[&str], at: &Path) -> bool {
    rustix::process::getuid().is_root()
        && Command::new("mount").args(options).arg(at).output().is_ok_and(|done| done.status.success())
}

/// Unmounted when dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
