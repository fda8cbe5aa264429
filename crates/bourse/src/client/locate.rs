//! Finding the daemon that a command is for.
//!
//! | the first of these that is given | means |
//! |---|---|
//! | `--url` | the daemon at this address |
//! | `--data` | the one with this data folder |
//! | `-C FOLDER` | the one that serves this folder, by its `bourse.toml` or `FOLDER/.bourse` |
//! | `BOURSE_URL`, `BOURSE_DATA` | as the flags |
//! | nothing | the one that serves the current folder, or the nearest one above |

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::Error;
use crate::config::{Config, Given};
use crate::daemon::files::{CONTACT_FILE, Contact};

/// Which data folder is meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Place {
    /// The served folder [default: the current one, or the nearest above that is served]
    #[arg(short = 'C', long, value_name = "FOLDER", help_heading = "Which daemon")]
    folder: Option<PathBuf>,
    /// The data folder of the daemon [env: BOURSE_DATA]
    #[arg(long, value_name = "DIR", conflicts_with = "folder", help_heading = "Which daemon")]
    data: Option<PathBuf>,
}

/// Which daemon is meant, and how it is asked.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Reach {
    #[command(flatten)]
    place: Place,
    /// The daemon's address, such as http://127.0.0.1:7070 [env: BOURSE_URL]
    #[arg(long, value_name = "URL", conflicts_with_all = ["folder", "data"], help_heading = "Which daemon")]
    url: Option<String>,
    /// The bearer token it asks for [env: BOURSE_TOKEN] [default: that of the served folder's bourse.toml]
    #[arg(long, value_name = "TOKEN", help_heading = "Which daemon")]
    token: Option<String>,
}

/// A daemon that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub url: String,
    pub token: Option<String>,
}

impl Reach {
    /// The daemon; whether it answers is not known yet.
    pub(super) fn find(&self) -> Result<Found, Error> {
        let token = self.token.clone().or_else(|| variable("BOURSE_TOKEN"));
        let url = self.url.clone().or_else(|| variable("BOURSE_URL").filter(|_| !self.place.is_given()));
        if let Some(url) = url {
            return Ok(Found { url, token });
        }
        let data = self.place.data()?;
        let contact = serving(&data)?;
        let token = token.or_else(|| {
            let token = settings_of(&contact.folder)?.text("token").to_owned();
            Some(token).filter(|t| !t.is_empty())
        });
        Ok(Found { url: contact.http, token })
    }
}

impl Place {
    fn is_given(&self) -> bool {
        self.folder.is_some() || self.data.is_some()
    }

    /// The data folder, which is there.
    pub(crate) fn data(&self) -> Result<PathBuf, Error> {
        let given = match (&self.data, &self.folder) {
            (Some(data), _) => Some(data.clone()),
            (None, Some(folder)) => Some(data_of(folder)),
            (None, None) => variable("BOURSE_DATA").map(PathBuf::from),
        };
        if let Some(data) = given {
            return if is_data(&data) {
                Ok(absolute(&data))
            } else {
                Err(Error::NoData(self.folder.clone().unwrap_or(data)))
            };
        }
        let here = env::current_dir()
            .map_err(|e| Error::Usage(format!("the current folder cannot be read: {e}")))?;
        here.ancestors().map(data_of).find(|data| is_data(data)).ok_or(Error::NoneAround(here))
    }
}

/// The daemon that runs on a data folder.
pub(crate) fn serving(data: &Path) -> Result<Contact, Error> {
    let path = data.join(CONTACT_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let above = data.parent().filter(|_| data.file_name().is_some_and(|n| n == ".bourse"));
            let folder = above
                .map_or_else(|| format!("FOLDER --data {}", data.display()), |f| f.display().to_string());
            return Err(Error::NotRunning { data: data.to_owned(), folder });
        }
        Err(e) => return Err(Error::Contact { path, reason: e.to_string() }),
    };
    let contact: Contact =
        serde_json::from_str(&text).map_err(|e| Error::Contact { path, reason: e.to_string() })?;
    if is_alive(contact.pid) {
        return Ok(contact);
    }
    Err(Error::Stale { folder: contact.folder.display().to_string(), pid: contact.pid })
}

/// A process that may not be signalled is there all the same.
fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    !matches!(test_kill_process(pid), Err(Errno::SRCH))
}

/// Whether a daemon has ever used it.
fn is_data(data: &Path) -> bool {
    data.join("logs").is_dir() || data.join(CONTACT_FILE).exists()
}

/// Where the daemon that serves a folder keeps its data, unless it was told otherwise.
fn data_of(folder: &Path) -> PathBuf {
    let folder = absolute(folder);
    settings_of(&folder).map_or_else(|| folder.join(".bourse"), |config| config.data())
}

/// What a folder's `bourse.toml` says; nothing if it is broken, which is for others to report.
fn settings_of(folder: &Path) -> Option<Config> {
    Config::resolve(folder, &Given::new(), std::iter::empty()).ok()
}

fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
