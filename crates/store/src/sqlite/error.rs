//! What can go wrong with a file, said so that the operator knows what to do.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another store in this one, has it open.
    #[error(
        "{file} is in use by {holder}; stop that one first, or give this one a data folder of its own (--data)",
        file = .file.display(),
        holder = .pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The store's file.
        file: PathBuf,
        /// Who has it open, if it could be read.
        pid: Option<u32>,
    },
    /// The file, its folder or its file system may not be written.
    #[error(
        "{path} may not be written; change its owner or permissions (and those of its folder), \
         or remount the file system writable",
        path = .0.display()
    )]
    ReadOnly(PathBuf),
    /// There is no such folder.
    #[error("the folder {path} does not exist; make it, or name another with --data", path = .0.display())]
    FolderMissing(PathBuf),
    /// The name belongs to a folder or a device.
    #[error("{path} is not a regular file; name another with --data", path = .0.display())]
    NotAFile(PathBuf),
    /// No space is left.
    #[error(
        "the disk that holds {path} is full; free some space and start again, nothing was lost",
        path = .0.display()
    )]
    DiskFull(PathBuf),
    /// Not a SQLite database, or one of another application.
    #[error(
        "{path} is not a bourse store; move it away to start with an empty one, \
         or name another with --data",
        path = .0.display()
    )]
    NotAStore(PathBuf),
    /// A part of the data is missing or not as it was written.
    #[error(
        "{path} is damaged: {detail}; keep a copy, then restore a backup \
         or try `sqlite3 {path} .recover`",
        path = .file.display()
    )]
    Damaged {
        /// The store's file.
        file: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Written by a later version of bourse.
    #[error(
        "{path} has store format {found}, and this version of bourse reads formats up to {known}; \
         run the newer bourse that wrote it, or restore a backup from before the upgrade",
        path = .file.display()
    )]
    Newer {
        /// The store's file.
        file: PathBuf,
        /// The format of the file.
        found: i64,
        /// The newest format that this version knows.
        known: i64,
    },
    /// Anything else that the operating system or SQLite reports.
    #[error("{path} cannot be opened: {detail}", path = .file.display())]
    Other {
        /// The file concerned.
        file: PathBuf,
        /// Their words.
        detail: String,
    },
}

impl OpenError {
    /// What an error of the operating system about `file` means.
    pub(super) fn io(file: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly(file.into())
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(file.into()),
            io::ErrorKind::IsADirectory => Self::NotAFile(file.into()),
            _ => Self::Other { file: file.into(), detail: error.to_string() },
        }
    }

    /// What an error of SQLite about `file` means.
    pub(super) fn sqlite(file: &Path, error: &rusqlite::Error) -> Self {
        let damaged = || Self::Damaged { file: file.into(), detail: error.to_string() };
        match Trouble::of(error) {
            Trouble::Full => Self::DiskFull(file.into()),
            Trouble::ReadOnly => Self::ReadOnly(file.into()),
            Trouble::NotADatabase => Self::NotAStore(file.into()),
            Trouble::Corrupt => damaged(),
            Trouble::Busy => Self::Locked { file: file.into(), pid: None },
            Trouble::Io | Trouble::Other => Self::Other { file: file.into(), detail: error.to_string() },
        }
    }
}

/// The kinds of SQLite errors that are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Full,
    ReadOnly,
    NotADatabase,
    Corrupt,
    Busy,
    Io,
    Other,
}

impl Trouble {
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        // The log's index could not be given its size: an I/O error by name, a full disk by cause.
        if error
            .sqlite_error()
            .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
        {
            return Self::Full;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(ErrorCode::NotADatabase) => Self::NotADatabase,
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::SystemIoFailure) => Self::Io,
            _ => Self::Other,
        }
    }
}

/// An error while a store is in use, in the operator's words.
pub(super) fn text(file: &Path, error: &rusqlite::Error) -> String {
    let file = file.display();
    let code = error.sqlite_error().map_or(0, |error| error.extended_code);
    let said = format!("SQLite says: {error}, code {code}");
    match Trouble::of(error) {
        Trouble::Full => format!("the disk that holds {file} is full; free some space ({said})"),
        Trouble::ReadOnly => {
            format!("{file} may no longer be written; has its disk been remounted? ({said})")
        }
        Trouble::NotADatabase | Trouble::Corrupt => {
            format!("{file} is damaged; stop, keep a copy, and restore a backup ({said})")
        }
        Trouble::Busy => format!("{file} is locked by another program, such as a sqlite3 shell ({said})"),
        Trouble::Io => format!("the disk that holds {file} reports an error; see the system's log ({said})"),
        Trouble::Other => format!("{file} cannot be used ({said})"),
    }
}
