//! From a path to a connection that may be trusted, or to an [`OpenError`] that says what to do.
//!
//! 1. The lock: one process at a time, by a lock on `FILE.lock` that ends with the process, however it ends.
//! 2. Creation, if there is no file: made whole under another name, then renamed, so that there is never half a
//!    store, and an empty file is always a damaged one.
//! 3. The header: SQLite's mark, and whether the file is as long as it says.
//! 4. The contents: our mark, a format that we know, an intact schema, all owner records, the first and the
//!    last record. The rest is not looked at, since a full check reads the whole file. SQLite checks the structure
//!    of each page when it comes to use it; it has no checksum for what is in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::error::OpenError;
use super::schema;
use crate::StoreId;

const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What an opened store holds on to.
pub(super) struct Opened {
    pub(super) lock: Lock,
    pub(super) writer: Connection,
    pub(super) id: StoreId,
}

/// The lock on a store's file, held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not be enough: a process that is being started shares the lock until it runs its
        // program. If this fails, the end of this process does it.
        drop(self.0.unlock());
    }
}

pub(super) fn open(file: &Path, id_if_new: StoreId) -> Result<Opened, OpenError> {
    let folder = folder_of(file);
    if !folder.is_dir() {
        return Err(OpenError::FolderMissing(folder.into()));
    }
    let lock = lock(file)?;
    match fs::metadata(file) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(OpenError::NotAFile(file.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(file, folder, id_if_new)?,
        Err(error) => return Err(OpenError::io(file, &error)),
    }
    check_header(file)?;
    let (writer, id) = connect(file)?;
    Ok(Opened { lock, writer, id })
}

/// Connects to a file whose lock is held, and checks its contents. The log of an earlier run is taken in.
pub(super) fn connect(file: &Path) -> Result<(Connection, StoreId), OpenError> {
    let sqlite = |error: rusqlite::Error| OpenError::sqlite(file, &error);
    let damaged = |error: rusqlite::Error| match OpenError::sqlite(file, &error) {
        OpenError::Other { file, detail } => OpenError::Damaged { file, detail },
        known => known,
    };
    let writer = schema::connect_writer(file).map_err(sqlite)?;
    writer.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0)).map_err(sqlite)?;
    let mark: i32 = writer.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sqlite)?;
    if mark != schema::APPLICATION_ID {
        return Err(OpenError::NotAStore(file.into()));
    }
    let found = schema::format(&writer).map_err(damaged)?;
    match found {
        schema::FORMAT => {}
        newer if newer > schema::FORMAT => {
            return Err(OpenError::Newer { file: file.into(), found, known: schema::FORMAT });
        }
        _ => return Err(OpenError::Damaged { file: file.into(), detail: format!("store format {found}") }),
    }
    let id = schema::store_id(&writer).map_err(damaged)?;
    schema::probe(&writer).map_err(|error| match &error {
        rusqlite::Error::SqliteFailure(..) => sqlite(error),
        _ => damaged(error),
    })?;
    Ok((writer, id))
}

/// Takes the lock and leaves our process id in it for whoever comes second.
fn lock(file: &Path) -> Result<Lock, OpenError> {
    let name = beside(file, ".lock");
    let io = |error: io::Error| OpenError::io(&name, &error);
    let mut lock =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&name).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Without the process id, the refusal is as firm and only less helpful.
            let pid = lock.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(OpenError::Locked { file: file.into(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    let line = format!("{}\n", std::process::id());
    lock.rewind().map_err(io)?;
    lock.write_all(line.as_bytes()).and_then(|()| lock.set_len(line.len() as u64)).map_err(io)?;
    Ok(Lock(lock))
}

fn create(file: &Path, folder: &Path, id: StoreId) -> Result<(), OpenError> {
    if beside(file, "-wal").exists() {
        let detail = "it is gone, but its log (-wal) is still there".to_owned();
        return Err(OpenError::Damaged { file: file.into(), detail });
    }
    let fresh = beside(file, ".new");
    for left_over in
        [fresh.clone(), beside(&fresh, "-journal"), beside(&fresh, "-wal"), beside(&fresh, "-shm")]
    {
        match fs::remove_file(&left_over) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::io(&left_over, &error));
            }
            _ => {}
        }
    }
    schema::create(&fresh, id).map_err(|error| OpenError::sqlite(file, &error))?;
    put_in_place(&fresh, file, folder).map_err(|error| OpenError::io(file, &error))
}

/// Names a finished file, and syncs it and the name.
pub(super) fn put_in_place(fresh: &Path, file: &Path, folder: &Path) -> io::Result<()> {
    File::open(fresh)?.sync_all()?;
    fs::rename(fresh, file)?;
    File::open(folder)?.sync_all()
}

/// Looks at the file itself, while no connection is open: closing a file drops SQLite's locks on it.
fn check_header(file: &Path) -> Result<(), OpenError> {
    let io = |error: io::Error| OpenError::io(file, &error);
    let mut opened = OpenOptions::new().read(true).write(true).open(file).map_err(io)?;
    let length = opened.metadata().map_err(io)?.len();
    let damaged = |detail: String| Err(OpenError::Damaged { file: file.into(), detail });
    if length == 0 {
        return damaged("it is empty".to_owned());
    }
    let mut header = [0; HEADER_BYTES];
    match opened.read_exact(&mut header) {
        Ok(()) if header.starts_with(MAGIC) => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(io(error)),
        _ if header.starts_with(MAGIC) => return damaged(format!("it ends after {length} bytes")),
        _ => return Err(OpenError::NotAStore(file.into())),
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    // While there is a log, pages that the header counts may still be in it.
    let log_bytes = fs::metadata(beside(file, "-wal")).map_or(0, |log| log.len());
    if log_bytes == 0 && length < page_bytes * pages {
        return damaged(format!("it has {length} bytes and should have {}", page_bytes * pages));
    }
    Ok(())
}

/// The folder that holds a file.
pub(super) fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file's name with something added.
pub(super) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
