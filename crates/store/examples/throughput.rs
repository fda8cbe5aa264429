//! Rows per second through [`Store`], against the same statements on SQLite without it.
//!
//! `cargo run --release -p bourse-store --example throughput [--rounds N] [--only SHAPE] [FOLDER]`. The two take turns
//! in one run, since a disk's speed changes from minute to minute; the ratio is what counts.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use bourse_durable::batch::{Batch, Fence, Op, Outcome, Owner, PartitionId, Seq};
use bourse_store::{Sqlite, Store, StoreId};
use rusqlite::Connection;

const ROUNDS: usize = 12;
const ROUND: Duration = Duration::from_millis(400);
const VALUE_BYTES: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut folder, mut rounds, mut only) = (tempfile::tempdir()?, ROUNDS, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().ok_or("--rounds needs a number")?.parse()?,
            "--only" => only = Some(args.next().ok_or("--only needs a shape")?),
            place => folder = tempfile::tempdir_in(place)?,
        }
    }
    println!("{:>24} {:>12} {:>12} {:>7}", "rows per commit", "bare, rows/s", "ours, rows/s", "ratio");
    for (shape, batches, rows) in
        [("1", 1, 1), ("8 in 8 batches", 8, 1), ("64 in 64 batches", 64, 1), ("64 in 1 batch", 1, 64)]
    {
        if only.as_deref().is_some_and(|only| only != shape) {
            continue;
        }
        let mut ours = Ours::open(&folder.path().join(format!("ours {shape}")))?;
        let mut bare = Bare::open(&folder.path().join(format!("bare {shape}")))?;
        let (mut ours_rates, mut bare_rates) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            bare_rates.push(rate(batches * rows, || bare.commit(batches, rows))?);
            ours_rates.push(rate(batches * rows, || ours.commit(batches, rows))?);
        }
        let (bare, ours) = (median(bare_rates), median(ours_rates));
        println!("{shape:>24} {bare:>12.0} {ours:>12.0} {:>7.2}", ours / bare);
    }
    Ok(())
}

type Done = Result<(), Box<dyn Error>>;

/// Rows per second of one round.
fn rate(rows: usize, mut commit: impl FnMut() -> Done) -> Result<f64, Box<dyn Error>> {
    let begin = Instant::now();
    let mut commits = 0u32;
    while begin.elapsed() < ROUND {
        commit()?;
        commits += 1;
    }
    Ok(f64::from(commits) * rows as f64 / begin.elapsed().as_secs_f64())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Keys as a partition writes them: a kind, then a time-ordered id.
fn key(seq: u64, row: usize) -> [u8; 17] {
    let mut key = [b'c'; 17];
    key[1..9].copy_from_slice(&seq.to_be_bytes());
    key[9..].copy_from_slice(&row.to_be_bytes());
    key
}

struct Ours {
    store: Sqlite,
    owners: Vec<Option<Owner>>,
    commits: u64,
}

impl Ours {
    fn open(file: &Path) -> Result<Self, Box<dyn Error>> {
        let store = Sqlite::open(file, StoreId::random())?;
        Ok(Self { store, owners: vec![None; 64], commits: 0 })
    }

    fn commit(&mut self, batches: usize, rows: usize) -> Done {
        self.commits += 1;
        let mut call = Vec::with_capacity(batches);
        for (partition, expect) in self.owners.iter_mut().enumerate().take(batches) {
            let owner = Owner { node: 1, fence: Fence(1), seq: Seq(self.commits) };
            let put = |row| Op::Put {
                key: key(self.commits, row).to_vec().into(),
                value: vec![b'v'; VALUE_BYTES].into(),
            };
            let ops = (0..rows).map(put).collect();
            call.push(Batch { partition: PartitionId(partition as u8), expect: *expect, owner, ops });
            *expect = Some(owner);
        }
        let outcomes = self.store.commit(&call);
        if outcomes.iter().all(|outcome| *outcome == Outcome::Committed) {
            Ok(())
        } else {
            Err(format!("{outcomes:?}").into())
        }
    }
}

struct Bare {
    connection: Connection,
    commits: i64,
}

impl Bare {
    fn open(file: &Path) -> Result<Self, Box<dyn Error>> {
        let connection = Connection::open(file)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 4000;
             PRAGMA cache_size = -16000;
             CREATE TABLE owner (partition INTEGER PRIMARY KEY, node INTEGER NOT NULL, fence INTEGER NOT NULL,
                                 seq INTEGER NOT NULL);
             CREATE TABLE record (partition INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
                                  PRIMARY KEY (partition, key));",
        )?;
        for partition in 0..64 {
            connection.execute("INSERT INTO owner VALUES (?1, 1, 1, 0)", [partition])?;
        }
        Ok(Self { connection, commits: 0 })
    }

    fn commit(&mut self, batches: usize, rows: usize) -> Done {
        self.commits += 1;
        let value = [b'v'; VALUE_BYTES];
        let transaction = self.connection.transaction()?;
        {
            let mut owner = transaction.prepare_cached(
                "UPDATE owner SET seq = ?2 WHERE partition = ?1 AND node = 1 AND fence = 1 AND seq = ?3",
            )?;
            let mut put = transaction.prepare_cached(
                "INSERT INTO record VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = excluded.value",
            )?;
            for partition in 0..batches {
                owner.execute((partition as i64, self.commits, self.commits - 1))?;
                for row in 0..rows {
                    put.execute((partition as i64, key(self.commits.cast_unsigned(), row), value))?;
                }
            }
        }
        Ok(transaction.commit()?)
    }
}
