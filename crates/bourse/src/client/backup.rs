//! `bourse store backup`: a copy of the store, whether or not a daemon uses it.
//!
//! The file is opened here, not by the daemon: SQLite lets readers of other processes in, and a daemon that hangs
//! must not keep anybody from a backup. When no daemon has it open it is checked first, as a daemon would.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bourse_store::sqlite::{BackupError, Existing, OpenError, SqliteReader};
use bourse_store::{Sqlite, StoreId};
use serde_json::json;

use super::{Error, OK, Place, serving};
use crate::daemon::files::STORE_FILE;

/// Writes a copy of the store to a file, while the daemon works or when there is none.
#[derive(clap::Args)]
#[command(after_help = "\
The copy is one moment of the store: what calls that were answered before have
written is in it, whole. The file appears under its name once it is complete and
synced to disk. To go back to it: stop the daemon, put the file in the place of
store.sqlite in the data folder, and remove store.sqlite-wal and
store.sqlite-shm there.

Examples:
  bourse store backup monday.sqlite
  bourse store backup /backups/shop.sqlite --replace -C ~/shop")]
pub(crate) struct Backup {
    /// The file to write
    to: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    replace: bool,
    /// Print {file, bytes, store} as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(backup: &Backup) -> anyhow::Result<u8> {
    let data = backup.place.data()?;
    let store = data.join(STORE_FILE);
    let in_memory = "state is kept in memory (store = memory), and ends with the daemon";
    if !store.exists() {
        let text =
            format!("{} has no store\n  hint: nothing was ever stored there, or {in_memory}", data.display());
        return Err(Error::Refused(text).into());
    }
    let existing = if backup.replace { Existing::Replace } else { Existing::Keep };
    let written = match Sqlite::open(&store, StoreId::random()) {
        Ok(open) => {
            if let Ok(contact) = serving(&data) {
                let text = format!(
                    "the daemon of {} does not use {}: {in_memory}\n  \
                     hint: what lies there is of an earlier run; stop the daemon to back that up",
                    contact.folder.display(),
                    store.display()
                );
                return Err(Error::Refused(text).into());
            }
            // The lock stays held meanwhile: a daemon that starts now would find the log being read.
            let mut reader = open.sqlite_reader().map_err(|e| Error::Refused(e.to_string()))?;
            reader.backup(&backup.to, existing)
        }
        Err(OpenError::Locked { .. }) => {
            let mut reader = SqliteReader::open(&store).map_err(|e| Error::Refused(e.to_string()))?;
            reader.backup(&backup.to, existing)
        }
        Err(other) => return Err(Error::Refused(other.to_string()).into()),
    };
    written.map_err(|e| match e {
        BackupError::Exists(path) => Error::Refused(format!(
            "{} is there already\n  hint: name another file, or replace it with --replace",
            path.display()
        )),
        other => Error::Refused(other.to_string()),
    })?;
    report(&backup.to, &store, backup.json)?;
    Ok(OK)
}

fn report(to: &Path, store: &Path, as_json: bool) -> io::Result<()> {
    let file = to.canonicalize()?;
    let bytes = file.metadata()?.len();
    let mut out = io::stdout().lock();
    if as_json {
        return writeln!(out, "{}", json!({"file": file, "bytes": bytes, "store": store}));
    }
    writeln!(out, "{}: {bytes} bytes, a copy of {}", file.display(), store.display())
}
