//! A copy of a store that is in use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::error::{Trouble, text};
use super::open::{beside, folder_of, put_in_place};
use super::read::SqliteReader;

/// What to do about a file that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and refuse.
    Keep,
    /// Replace it, once the backup is complete.
    Replace,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target is there already.
    #[error("{path} is there already; name another file, or ask for it to be replaced", path = .0.display())]
    Exists(PathBuf),
    /// The target is the store itself.
    #[error("{path} is the store itself; name another file", path = .0.display())]
    Itself(PathBuf),
    /// A log lies beside the target, and would be taken for the backup's own.
    #[error(
        "{path} belongs to a store that is open or was not closed, since its log (-wal) is there; \
         name another file",
        path = .0.display()
    )]
    LogBeside(PathBuf),
    /// The target's disk is full.
    #[error("the disk that holds {path} is full; the unfinished backup was removed", path = .0.display())]
    DiskFull(PathBuf),
    /// The target cannot be written, in the operating system's words.
    #[error("{path} cannot be written: {error}", path = .file.display())]
    Write {
        /// The target.
        file: PathBuf,
        /// Their words.
        error: io::Error,
    },
    /// The store cannot be read, or SQLite cannot write the target.
    #[error("the backup failed: {0}")]
    Sqlite(String),
}

impl SqliteReader {
    /// Writes all that is committed at this moment to another file; commits go on meanwhile. The file appears
    /// under its name when it is whole and synced. It is the same store, with the same id: open one or the
    /// other.
    ///
    /// While it runs, the log cannot be cut back and grows with what is committed.
    pub fn backup(&mut self, to: &Path, existing: Existing) -> Result<(), BackupError> {
        if let (Ok(target), Ok(store)) = (to.canonicalize(), self.file.canonicalize()) {
            match existing {
                _ if target == store => return Err(BackupError::Itself(to.into())),
                Existing::Keep => return Err(BackupError::Exists(to.into())),
                Existing::Replace => {}
            }
        }
        if beside(to, "-wal").exists() {
            return Err(BackupError::LogBeside(to.into()));
        }
        let partial = beside(to, ".partial");
        let written = self.write(&partial, to);
        if written.is_err() {
            // What is left of it is useless; the error at hand matters more than one from removing it.
            drop(fs::remove_file(&partial));
            drop(fs::remove_file(beside(&partial, "-journal")));
        }
        written
    }

    fn write(&self, partial: &Path, to: &Path) -> Result<(), BackupError> {
        let io = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BackupError::DiskFull(to.into()),
            _ => BackupError::Write { file: to.into(), error },
        };
        let sqlite = |error: rusqlite::Error| match Trouble::of(&error) {
            Trouble::Full => BackupError::DiskFull(to.into()),
            _ => BackupError::Sqlite(text(to, &error)),
        };
        match fs::remove_file(partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let mut target = Connection::open(partial).map_err(sqlite)?;
        let backup = Backup::new(&self.connection, &mut target).map_err(sqlite)?;
        // One step for all pages is one read transaction: one moment of the store.
        match backup.step(-1).map_err(sqlite)? {
            StepResult::Done => {}
            other => return Err(BackupError::Sqlite(format!("{} is {other:?}", self.file.display()))),
        }
        drop(backup);
        target.close().map_err(|(_, error)| sqlite(error))?;
        put_in_place(partial, to, folder_of(to)).map_err(io)
    }
}
