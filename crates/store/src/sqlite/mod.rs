//! The embedded store: one SQLite file in WAL mode, synced at every commit.
//!
//! ```text
//! FILE       the database          FILE-wal, FILE-shm   its log, and the log's index
//! FILE.lock  held while it is open, with the holder's process id
//! ```
//!
//! One connection writes, under a lock that keeps every other process out; readers have connections of their
//! own. An outcome that nobody knows closes the writing connection. Before the next commit it is opened anew
//! and the log is copied into the database and synced there: pages of the log whose sync has failed once must
//! not be built upon, since a later sync that succeeds says nothing about them.

mod backup;
mod commit;
mod error;
mod open;
mod read;
mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bourse_durable::batch::{Batch, Outcome, ReadError};
use rusqlite::Connection;

use crate::{Durability, Reader, Store, StoreId, bounds};
use commit::Ended;

pub use backup::{BackupError, Existing};
pub use error::OpenError;
pub use read::SqliteReader;
pub use schema::FORMAT;

/// The most bytes of keys and values in one transaction; a commit call with more becomes several.
pub const TRANSACTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long the log's way into the database may wait for readers after an unknown outcome.
const RECOVERY_WAIT: Duration = Duration::from_secs(2);

/// How long it may wait for them when the store is closed.
const CLOSING_WAIT: Duration = Duration::from_millis(500);

/// A store in a SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    file: PathBuf,
    id: StoreId,
    /// `None`: the outcome of a commit is unknown, and the connection was given up.
    writer: Option<Connection>,
    _lock: open::Lock,
}

impl Sqlite {
    /// Opens the store in `file`, or makes an empty one with this id if there is no file.
    pub fn open(file: impl AsRef<Path>, id_if_new: StoreId) -> Result<Self, OpenError> {
        // By its own name, so that its lock is the same whichever way it is reached.
        let file = file.as_ref().canonicalize().unwrap_or_else(|_| file.as_ref().to_owned());
        let opened = open::open(&file, id_if_new)?;
        Ok(Self { file, id: opened.id, writer: Some(opened.writer), _lock: opened.lock })
    }

    /// A reader that can also write backups.
    pub fn sqlite_reader(&self) -> Result<SqliteReader, ReadError> {
        SqliteReader::open(&self.file)
    }

    /// The writing connection, opened anew if it was given up. The text says why it cannot be.
    fn writer(&mut self) -> Result<&Connection, String> {
        if self.writer.is_none() {
            let (writer, id) = open::connect(&self.file).map_err(|error| error.to_string())?;
            if id != self.id {
                return Err(format!("{} was replaced by another store: start again", self.file.display()));
            }
            settle(&writer, RECOVERY_WAIT).map_err(|error| error::text(&self.file, &error))?;
            self.writer = Some(writer);
        }
        self.writer.as_ref().ok_or_else(|| "no connection".to_owned())
    }

    /// Commits batches that are within the bounds, in one transaction if possible.
    fn commit_group(&mut self, group: &[&Batch]) -> Vec<Outcome> {
        if group.is_empty() {
            return Vec::new();
        }
        let all = |outcome: Outcome| vec![outcome; group.len()];
        let ended = match self.writer() {
            Ok(writer) => commit::commit_group(writer, group.iter().copied()),
            Err(text) => return all(Outcome::Failed(text)),
        };
        match ended {
            Ended::Answered(outcomes) => outcomes,
            // One of them is to blame, and the others must not suffer: each gets a transaction of its own.
            Ended::Undone(_) if group.len() > 1 => {
                group.iter().flat_map(|batch| self.commit_group(&[*batch])).collect()
            }
            Ended::Undone(error) => all(Outcome::Failed(error::text(&self.file, &error))),
            Ended::Broken(error) => {
                self.writer = None;
                all(Outcome::Failed(error::text(&self.file, &error)))
            }
            Ended::Unsure(error) => {
                self.writer = None;
                all(Outcome::Unknown(error::text(&self.file, &error)))
            }
        }
    }
}

impl Drop for Sqlite {
    /// The log goes into the database, so that the file by itself is the whole store. Where that fails, or a reader
    /// holds it up for `CLOSING_WAIT`, the log stays, and the next start takes it in.
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _ = settle(&writer, CLOSING_WAIT);
        }
    }
}

impl Store for Sqlite {
    fn commit(&mut self, batches: &[Batch]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut group = Vec::new();
        let mut group_bytes = 0;
        for batch in batches {
            match bounds::check(batch) {
                Ok(bytes) if group_bytes + bytes <= TRANSACTION_BYTES_MAX => {
                    group_bytes += bytes;
                    group.push(batch);
                }
                Ok(bytes) => {
                    outcomes.extend(self.commit_group(&group));
                    group = vec![batch];
                    group_bytes = bytes;
                }
                Err(over) => {
                    outcomes.extend(self.commit_group(&group));
                    group.clear();
                    group_bytes = 0;
                    outcomes.push(over.into());
                }
            }
        }
        outcomes.extend(self.commit_group(&group));
        outcomes
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        Ok(Box::new(self.sqlite_reader()?))
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }
}

/// Brings the whole log into the database, synced, and empties it; waits so long for readers.
fn settle(writer: &Connection, wait: Duration) -> rusqlite::Result<()> {
    writer.busy_timeout(wait)?;
    let blocked = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, bool>(0))?;
    writer.busy_timeout(Duration::ZERO)?;
    if blocked { Err(busy()) } else { Ok(()) }
}

fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)
}
