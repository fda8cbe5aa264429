//! The commands that talk to a running daemon, or look at what it has left on disk.
//!
//! ```text
//! locate    -> the daemon that is meant: its address, token and data folder
//! http      -> one request, one answer
//! commands  -> stdout: results, nothing else    stderr: everything for people    exit status: `Error::exit`
//! ```
//!
//! Nothing here retries: whether a call that got no answer may run twice is for its caller to say.

pub(crate) mod arguments;
pub(crate) mod backup;
pub(crate) mod call;
pub(crate) mod calls;
pub(crate) mod deploy;
mod error;
mod http;
pub(crate) mod init;
mod json;
pub(crate) mod locate;
pub(crate) mod logs;
pub(crate) mod map;
pub(crate) mod market;
pub(crate) mod members;
pub(crate) mod new;
pub(crate) mod ps;
pub(crate) mod settings;
pub(crate) mod store;
mod table;
pub(crate) mod top;
pub(crate) mod triggers;

pub(crate) use error::Error;
pub(crate) use locate::{Place, Reach, serving};

/// Everything went well.
pub(crate) const OK: u8 = 0;
/// A call failed, or what was asked for could not be done.
pub(crate) const FAILED: u8 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// No daemon was found, or none answers.
pub(crate) const NO_DAEMON: u8 = 3;
/// The connection broke before the answer: a call may have run, or not.
pub(crate) const LOST: u8 = 4;
