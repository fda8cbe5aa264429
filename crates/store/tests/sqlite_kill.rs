//! A process that is killed while it commits, or whose disk fails, loses nothing that it was told was
//! committed.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bourse_durable::batch::{Batch, Fence, Op, Outcome, Owner, PartitionId, Seq};
use bourse_store::{Limit, Range, Sqlite, Store, StoreId};
use bytes::Bytes;

const ID: StoreId = StoreId([7; 16]);
const CHILD_FILE: &str = "BOURSE_STORE_TEST_CHILD_FILE";
const PARTITIONS: u8 = 3;
const ROUNDS: u64 = 20;
/// How many rows of each partition are kept.
const ROWS: u64 = 40;

/// The batch of a number, which rewrites what the one before it left.
fn batch(partition: PartitionId, expect: Option<Owner>) -> Batch {
    let seq = expect.map_or(1, |owner| owner.seq.0 + 1);
    let key = |seq: u64| Bytes::copy_from_slice(&seq.to_be_bytes());
    let owner = Owner { node: 1, fence: Fence(1), seq: Seq(seq) };
    let mut ops = vec![Op::Put { key: key(seq), value: value(seq) }];
    ops.extend(seq.checked_sub(ROWS).map(|old| Op::Delete { key: key(old) }));
    Batch { partition, expect, owner, ops }
}

fn value(seq: u64) -> Bytes {
    vec![seq as u8; 1 + (seq * 7919 % 30_000) as usize].into()
}

/// Not a test by itself: what the killed process runs. It prints every outcome, after it is told.
#[test]
fn child() {
    let Ok(file) = env::var(CHILD_FILE) else { return };
    let mut store = Sqlite::open(file, ID).unwrap();
    let mut reader = store.reader().unwrap();
    let mut out = std::io::stdout();
    loop {
        let next = |p| batch(PartitionId(p), reader.owner(PartitionId(p)).unwrap());
        let batches: Vec<Batch> = (0..PARTITIONS).map(next).collect();
        for (batch, outcome) in batches.iter().zip(store.commit(&batches)) {
            let line = match outcome {
                Outcome::Committed => format!("committed {} {}\n", batch.partition.0, batch.owner.seq.0),
                Outcome::Failed(text) => format!("refused: {text}\n"),
                Outcome::Unknown(text) => format!("unknown: {text}\n"),
                Outcome::Conflict => "conflict\n".to_owned(),
            };
            out.write_all(line.as_bytes()).unwrap();
        }
        out.flush().unwrap();
    }
}

/// Everything acknowledged is there, and all that is there is whole. Returns how far each partition has come.
fn check(file: &Path, acknowledged: &[u64]) -> Vec<u64> {
    let store = Sqlite::open(file, ID).unwrap();
    let mut reader = store.reader().unwrap();
    let mut stored = Vec::new();
    for (partition, acknowledged) in (0..PARTITIONS).map(PartitionId).zip(acknowledged) {
        let seq = reader.owner(partition).unwrap().map_or(0, |owner| owner.seq.0);
        assert!(seq >= *acknowledged, "{partition:?}: {acknowledged} were acknowledged, {seq} are there");
        let rows = reader.scan(partition, &Range::all(), Limit::rows(1000)).unwrap().rows;
        let expected: Vec<_> = (seq.saturating_sub(ROWS) + 1..=seq)
            .map(|seq| (Bytes::copy_from_slice(&seq.to_be_bytes()), value(seq)))
            .collect();
        assert!(rows == expected, "{partition:?} at {seq} holds parts of batches");
        stored.push(seq);
    }
    stored
}

fn acknowledge(line: &str, acknowledged: &mut [u64]) -> bool {
    let Some((_, committed)) = line.split_once("committed ") else { return false };
    let (partition, seq) = committed.split_once(' ').expect("a partition and a number");
    acknowledged[partition.parse::<usize>().unwrap()] = seq.parse().unwrap();
    true
}

fn this_binary() -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[test]
fn a_killed_process_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    let mut acknowledged = vec![0; PARTITIONS.into()];
    for round in 0..ROUNDS {
        let mut child = this_binary().env(CHILD_FILE, &file).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // 1. It runs until it has told so much, so that no round ends before it began.
        let mut told = 0;
        while told < 20 + 13 * round {
            let line = lines.next().expect("the child ended by itself").unwrap();
            told += u64::from(acknowledge(&line, &mut acknowledged));
        }
        // 2. It is killed in the middle of whatever it does now; what it had still said counts.
        child.kill().unwrap();
        let _ = lines.map_while(Result::ok).filter(|line| acknowledge(line, &mut acknowledged)).count();
        child.wait().unwrap();
        // 3. Its lock is gone, its batches are not.
        check(&file, &acknowledged);
    }
    assert!(acknowledged.iter().all(|seq| *seq > 100), "{acknowledged:?}");
}

/// Writes beyond a limit on the size of files are I/O errors to SQLite: outcomes become unknown, and stay safe.
#[cfg(target_os = "linux")]
#[test]
fn an_io_error_leaves_the_outcome_open() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store");
    let child = this_binary();
    let mut shell = Command::new("sh");
    // Blocks of 512 or 1024 bytes, as the shell likes; the signal for exceeding the limit is ignored.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 2000; exec \"$@\"", "sh"]).arg(child.get_program());
    shell.args(child.get_args()).env(CHILD_FILE, &file);
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();

    let mut acknowledged = vec![0; PARTITIONS.into()];
    let mut refusals = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if !acknowledge(&line, &mut acknowledged)
            && (line.contains("unknown: ") || line.contains("refused: "))
        {
            refusals.push(line);
        }
        if refusals.len() >= 30 {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let first = refusals.first().expect("a limit was reached");
    println!("{first}");
    assert!(first.contains("unknown: ") && first.contains("reports an error"), "{refusals:?}");
    assert!(acknowledged[0] > 10, "{acknowledged:?}");
    check(&file, &acknowledged);
}
