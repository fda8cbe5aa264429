//! What a client keeps of the grid between two lives: its keys, whom it may speak with, where it begins, and which store is the
//! grid's. In a folder, by the same files as a daemon; or in memory, where all is gone with the client.
//!
//! ```text
//! node.key, node.pub    its own keys          members    the grid's list of keys
//! seeds                 where it begins       grid-store which store is the grid's      life    which life the last one was
//! catalogue             what others serve
//! in-use                locked as long as a client lives: two with the same keys would be one node at two places
//! ```

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bourse_node::Node;
use bourse_node::market::roster::Entry;
use bourse_node::market::store::GridStore;
use bourse_peers::allowed::List;
use bourse_peers::enroll::LetIn;
use bourse_peers::join::Join;
use bourse_peers::{catalogue, grid_store, keys, members, own, seeds};
use bourse_transport::{Key, KeyPair};
use bourse_wire::time::Now;
use bourse_wire::v1;

use crate::{Error, Options};

/// Which file is locked.
const LOCK_FILE: &str = "in-use";

/// Where it is kept.
#[derive(Debug)]
pub(crate) enum Place {
    Memory,
    Folder {
        path: PathBuf,
        /// Open as long as the client lives.
        _lock: File,
    },
}

/// What is known when a client begins.
#[derive(Debug)]
pub(crate) struct Known {
    pub keys: KeyPair,
    pub members: Vec<Entry>,
    pub seeds: Vec<Join>,
    pub store: Option<GridStore>,
    /// What other nodes served.
    pub catalogue: Vec<v1::Module>,
}

impl Place {
    /// A folder, which is made if it is not there, and is this client's alone from now on.
    pub(crate) fn folder(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|e| {
            Error::Folder(format!(
                "the folder {shown} for the client's keys cannot be made: {e}\n  hint: name another"
            ))
        })?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK_FILE));
        let lock = lock.map_err(|e| {
            Error::Folder(format!(
                "the folder {shown} for the client's keys cannot be written to: {e}\n  hint: it has to belong to the user that runs this program"
            ))
        })?;
        match lock.try_lock() {
            Ok(()) => Ok(Self::Folder { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Folder(format!(
                "another client uses the keys in {shown}\n  hint: each needs a folder of its own, and a ticket to join with; one client can be shared by all tasks of a program: clone it"
            ))),
            Err(TryLockError::Error(e)) => Err(Error::Folder(format!(
                "the folder {shown} cannot be locked: {e}\n  hint: name one on a local disk"
            ))),
        }
    }

    /// The keys for a client that is to join: those that are there, else new ones.
    pub(crate) fn keys(&self) -> Result<KeyPair, Error> {
        match self {
            Self::Memory => Ok(KeyPair::generate()),
            Self::Folder { path, .. } => {
                keys::load_or_make(path).map(|loaded| loaded.keys).map_err(|e| Error::folder(&e))
            }
        }
    }

    /// What a node that has let this client in has said: kept, and what is known from then on.
    pub(crate) fn learn(&self, keys: KeyPair, let_in: LetIn) -> Result<Known, Error> {
        match self {
            Self::Memory => {
                let join = |contact: bourse_node::market::Contact| Join {
                    key: Key(contact.id.0),
                    address: contact.address,
                };
                let reached = let_in.contacts.into_iter().filter(|contact| !contact.address.is_empty());
                let seeds = reached.map(join).collect();
                Ok(Known { keys, members: let_in.entries, seeds, store: let_in.store, catalogue: Vec::new() })
            }
            Self::Folder { path, .. } => {
                let_in.keep(path).map_err(|e| Error::folder(&e))?;
                self.load()
            }
        }
    }

    /// What an earlier life has left.
    pub(crate) fn load(&self) -> Result<Known, Error> {
        let Self::Folder { path, .. } = self else { unreachable!("what is in memory is not loaded") };
        let not_joined = || {
            Error::Folder(format!(
                "the folder {} holds no keys of a client that has joined a grid\n  hint: join first, with a ticket that `bourse ticket` prints on a node of the grid",
                path.display()
            ))
        };
        if !path.join(keys::KEY_FILE).exists() {
            return Err(not_joined());
        }
        let load = || {
            Ok(Known {
                keys: keys::load_or_make(path)?.keys,
                members: members::load(path)?,
                seeds: seeds::load(path),
                store: grid_store::load(path)?,
                catalogue: catalogue::load(path),
            })
        };
        let known: Known = load().map_err(|e: anyhow::Error| Error::folder(&e))?;
        if known.seeds.is_empty() { Err(not_joined()) } else { Ok(known) }
    }

    /// With whom this client speaks.
    pub(crate) fn list(&self, known: &Known, options: &Options) -> List {
        List::fixed(options.allow.iter().copied(), &known.members)
    }

    /// A number for this life, greater than those of the lives before.
    pub(crate) fn life(&self) -> Result<u64, Error> {
        match self {
            Self::Memory => Ok(own::life()),
            Self::Folder { path, .. } => own::next_life(path).map_err(|e| Error::folder(&e)),
        }
    }

    /// The grid's list of keys has changed.
    pub(crate) fn keep_roster(&self, node: &Node) {
        self.keep("the grid's list of keys", |path| members::save(path, node.roster()));
    }

    /// It is known which store is the grid's.
    pub(crate) fn keep_store(&self, store: &GridStore) {
        self.keep("the grid's store", |path| grid_store::save(path, store));
    }

    /// What other nodes serve has changed.
    pub(crate) fn keep_catalogue(&self, modules: Vec<v1::Module>) {
        self.keep("what other nodes serve", |path| catalogue::save(path, modules));
    }

    /// Where to begin in the next life.
    pub(crate) fn keep_seeds(&self, node: &Node, now: Now) {
        self.keep("where the grid is found", |path| seeds::save(path, node.beginnings(now)));
    }

    fn keep(&self, what: &str, save: impl FnOnce(&Path) -> anyhow::Result<()>) {
        if let Self::Folder { path, .. } = self
            && let Err(error) = save(path)
        {
            tracing::error!(
                "{what} is not kept, and older news count when this client starts again: {error:#}"
            );
        }
    }
}

/// Whether a client has joined a grid, and can be opened there.
pub(crate) fn has_joined(folder: &Path) -> bool {
    folder.join(keys::KEY_FILE).exists() && fs::metadata(folder.join(seeds::SEEDS_FILE)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_clients_alone_and_says_what_is_missing() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        // 1. It is made, and taken.
        let first = Place::folder(&folder).unwrap();
        let second = Place::folder(&folder).unwrap_err().to_string();
        assert!(second.contains("another client uses the keys"), "{second}");
        // 2. There is nothing in it; its keys alone are not enough.
        let missing = first.load().unwrap_err().to_string();
        assert!(missing.contains("join first") && !has_joined(&folder), "{missing}");
        let keys = first.keys().unwrap();
        assert!(first.load().unwrap_err().to_string().contains("join first"));
        // 3. It is free again, and the keys are the same.
        drop(first);
        let again = Place::folder(&folder).unwrap();
        assert_eq!(again.keys().unwrap().public(), keys.public());
        assert!(again.life().unwrap() < again.life().unwrap());
        // 4. A key that is none is told, and left alone.
        fs::write(folder.join(keys::KEY_FILE), "nonsense").unwrap();
        let refused = again.keys().unwrap_err().to_string();
        assert!(refused.contains("does not hold a key") && refused.contains("hint"), "{refused}");
        // 5. What is no folder is refused.
        fs::write(place.path().join("file"), "").unwrap();
        let refused = Place::folder(&place.path().join("file")).unwrap_err().to_string();
        assert!(refused.contains("cannot be made") || refused.contains("cannot be written"), "{refused}");
    }
}
