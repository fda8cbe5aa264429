//! What keeps a command from its answer.

use std::path::PathBuf;

use super::{FAILED, LOST, NO_DAEMON, USAGE};

/// Each says what to do next, and has an exit status.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line can be parsed and still makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Neither here nor in a folder above is a data folder.
    #[error(
        "no daemon was found: {} and the folders above it have no .bourse\n  \
         hint: start one with `bourse up FOLDER`, or say which one with -C FOLDER or --url URL",
        .0.display()
    )]
    NoneAround(PathBuf),
    /// The folder that was named has none.
    #[error("{} has no data of a daemon\n  hint: start one with `bourse up`, or name another folder", .0.display())]
    NoData(PathBuf),
    /// There is a data folder and no contact in it.
    #[error("no daemon runs on {}\n  hint: start it with `bourse up {folder}`", data.display())]
    NotRunning { data: PathBuf, folder: String },
    /// There is a contact, of a process that is gone.
    #[error(
        "the daemon of {folder} is not running: process {pid} has ended without saying goodbye\n  \
         hint: start it again with `bourse up {folder}`"
    )]
    Stale { folder: String, pid: u32 },
    /// A contact that cannot be read.
    #[error("{} cannot be used: {reason}\n  hint: say where the daemon is with --url URL", path.display())]
    Contact { path: PathBuf, reason: String },
    /// Not an address that can be asked.
    #[error("{url:?} is not the address of a daemon: {reason}\n  hint: write it as http://127.0.0.1:7070")]
    Url { url: String, reason: String },
    /// Nobody listens.
    #[error(
        "no daemon answers at {url}: {reason}\n  hint: start one with `bourse up FOLDER`, or check the address"
    )]
    Unreachable { url: String, reason: String },
    /// It listened, and went away.
    #[error(
        "the connection to {url} broke before the answer came: {reason}\n  \
         hint: a call may have run, or not; look with `bourse ps` and `bourse logs`"
    )]
    Lost { url: String, reason: String },
    /// Something else listens there.
    #[error(
        "what answers at {url} is not a daemon: {reason}\n  hint: check the address; `bourse ps` finds the daemon of a folder by itself"
    )]
    NotADaemon { url: String, reason: String },
    /// It says why not; the text is complete.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// The exit status that tells it to scripts.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Url { .. } => USAGE,
            Self::NoneAround(_)
            | Self::NoData(_)
            | Self::NotRunning { .. }
            | Self::Stale { .. }
            | Self::Contact { .. }
            | Self::Unreachable { .. }
            | Self::NotADaemon { .. } => NO_DAEMON,
            Self::Lost { .. } => LOST,
            Self::Refused(_) => FAILED,
        }
    }
}
