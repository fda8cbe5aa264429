//! The daemons of this user on this machine: each keeps a file in a folder that only the user can enter.
//!
//! ```text
//! $XDG_RUNTIME_DIR/bourse/nodes/4f0c…e1     {"key": "4f0c…e1", "address": "127.0.0.1:40123", "grid": "shop", "pid": 17, "version": "0.1.0"}
//! ```
//!
//! A daemon holds a lock on its file as long as it lives, so a file that nobody holds a lock on is that of a daemon which was
//! killed: whoever sees it removes it. A process id would not tell, since another process may have it by now.
//!
//! The folder is looked at by its time of change alone, and read when that has changed; and every [`FULL`] looks, because
//! the end of a lock changes no time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use bourse_peers::own;
use bourse_transport::Key;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{Found, Lead};

/// After so many looks the folder is read, whether it has changed or not.
const FULL: u32 = 10;
/// Files that are read, at most.
const NODES_MAX: usize = 1024;
/// The size of a file, at most.
const FILE_BYTES_MAX: u64 = 4096;
/// A folder that has changed this short a time ago may change again without another time of change.
const SETTLED_NANOS: i128 = 50_000_000;
/// A file takes its name within this, unless its writer was killed.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Card {
    key: String,
    address: String,
    grid: String,
    pid: u32,
    version: String,
}

/// This node's file, and those of others.
pub(super) struct Machine {
    folder: PathBuf,
    card: Card,
    /// This node's file; its lock is held while this is open.
    own: File,
    /// When the folder had changed last when it was read; `None`: read it again.
    seen: Option<(i64, i64)>,
    /// Looks since it was read.
    looks: u32,
    /// The nodes of the same grid, and where they are.
    nodes: BTreeMap<Key, String>,
}

/// Where the files are.
pub(super) fn folder() -> PathBuf {
    own::runtime_folder().join("nodes")
}

impl Card {
    /// Of the daemon that runs this.
    pub(super) fn new(key: Key, address: std::net::SocketAddr, grid: &str) -> Self {
        Self {
            key: key.to_hex(),
            address: address.to_string(),
            grid: grid.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Machine {
    /// Leaves this node's file in the folder, which is made if it is not there.
    pub(super) fn start(folder: &Path, card: Card) -> anyhow::Result<Self> {
        let parent = folder.parent().unwrap_or(folder);
        make_own(parent)?;
        make_own(folder)?;
        if let Ok(Some(other)) = read(&folder.join(&card.key)) {
            anyhow::bail!(
                "a daemon with this node's key runs already, as process {}\n  hint: each node needs a key of its own: stop that daemon, or remove `node.key` in the data folder of one of them",
                other.pid
            );
        }
        let own = write(folder, &card).with_context(|| {
            format!(
                "this node's file in {} cannot be written: other nodes would not find it",
                folder.display()
            )
        })?;
        let folder = folder.to_owned();
        Ok(Self { folder, card, own, seen: None, looks: 0, nodes: BTreeMap::new() })
    }

    /// Reads the folder, if it may have changed, and tells what has.
    pub(super) fn look(&mut self, found: &mut Vec<Found>) {
        self.looks += 1;
        let changed = fs::metadata(&self.folder).map(|m| (m.mtime(), m.mtime_nsec())).ok();
        if changed.is_some() && changed == self.seen && self.looks < FULL {
            return;
        }
        self.looks = 0;
        self.seen = changed.filter(|at| is_settled(*at));
        if !self.is_there()
            && let Err(error) = self.come_back()
        {
            tracing::warn!("{} is not to be used any more: {error:#}", self.folder.display());
        }
        let mut nodes = self.read_all();
        nodes.retain(|key, card| card.grid == self.card.grid && key.to_hex() != self.card.key);
        for key in self.nodes.keys().filter(|key| !nodes.contains_key(key)) {
            found.push(Found::Gone { key: *key, trusted: true });
        }
        let nodes: BTreeMap<Key, String> = nodes.into_iter().map(|(key, card)| (key, card.address)).collect();
        for (key, address) in nodes.iter().filter(|(key, address)| self.nodes.get(key) != Some(address)) {
            found.push(Found::Lead(Lead { key: *key, address: address.clone(), trusted: true }));
        }
        self.nodes = nodes;
    }

    /// Whether that node is one of this machine.
    pub(super) fn knows(&self, key: Key) -> bool {
        self.nodes.contains_key(&key)
    }

    /// Whether this node's file is the one that it has written.
    fn is_there(&self) -> bool {
        let there = fs::symlink_metadata(self.folder.join(&self.card.key)).map(|m| (m.dev(), m.ino()));
        let own = self.own.metadata().map(|m| (m.dev(), m.ino()));
        matches!((there, own), (Ok(there), Ok(own)) if there == own)
    }

    /// Somebody has tidied up, perhaps the whole folder.
    fn come_back(&mut self) -> anyhow::Result<()> {
        make_own(self.folder.parent().unwrap_or(&self.folder))?;
        make_own(&self.folder)?;
        self.own = write(&self.folder, &self.card)?;
        self.seen = None;
        Ok(())
    }

    /// The files of daemons that live.
    fn read_all(&self) -> BTreeMap<Key, Card> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut cards = BTreeMap::new();
        for entry in entries.take(NODES_MAX) {
            let name = entry.file_name();
            // What is being written has another name, and is not locked from its first moment on.
            let key = name.to_str().and_then(|name| Key::from_hex(name).ok());
            match (read(&entry.path()), key) {
                (Ok(Some(card)), Some(key)) if card.key == key.to_hex() => drop(cards.insert(key, card)),
                (Ok(None), Some(_)) => drop(fs::remove_file(entry.path())),
                (Ok(None), None) if is_old(&entry) => drop(fs::remove_file(entry.path())),
                (Err(error), Some(_)) => {
                    tracing::debug!("{} says nothing: {error:#}", entry.path().display());
                }
                (Ok(_) | Err(_), _) => {}
            }
        }
        cards
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.is_there() {
            // If it stays, the lock that is gone tells that it is old.
            let _ = fs::remove_file(self.folder.join(&self.card.key));
        }
    }
}

/// Whether a folder that has changed at that time would show another change by another time.
fn is_settled((seconds, nanos): (i64, i64)) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    i128::try_from(now).is_ok_and(|now| now > changed + SETTLED_NANOS)
}

/// Whether a file was written a while ago.
fn is_old(entry: &fs::DirEntry) -> bool {
    let written = entry.metadata().and_then(|m| m.modified());
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > WRITTEN_WITHIN))
}

/// Makes a folder that nobody else can enter, or makes sure that it is one.
fn make_own(folder: &Path) -> anyhow::Result<()> {
    own::make_private_folder(folder).map_err(|why| {
        anyhow::anyhow!(
            "{why:#}: whoever writes there would be trusted\n  hint: remove it, and it is made anew (mode 700, owned by you); or leave `machine` out of `discover`"
        )
    })
}

/// Writes a node's file, whole or not at all. The file, on which a lock is held from before others can see it.
fn write(folder: &Path, card: &Card) -> anyhow::Result<File> {
    let temporary = folder.join(format!("{}.{}", card.key, std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let mut write = || {
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(&serde_json::to_vec(card)?)?;
        fs::rename(&temporary, folder.join(&card.key))?;
        anyhow::Ok(())
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    Ok(file)
}

/// What a file says; `None` if the daemon that wrote it is gone.
fn read(path: &Path) -> anyhow::Result<Option<Card>> {
    let no_waiting = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(no_waiting.bits()).expect("the flags of open are an int");
    let mut file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let is = file.metadata()?;
    anyhow::ensure!(is.is_file(), "it is no file");
    anyhow::ensure!(is.uid() == rustix::process::getuid().as_raw(), "it belongs to another user");
    // Taken together with others who look; its owner lets nobody have it.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => return Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(e) => return Err(e.into()),
    }
    let mut text = String::new();
    (&mut file).take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(serde_json::from_str(&text)?))
}
