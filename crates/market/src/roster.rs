//! Who belongs to the grid: one list of keys, the same on all nodes.
//!
//! ```text
//! node -> roster: admit, revoke, invite            roster -> node: changed (to be kept, and obeyed)
//! roster <-> roster of another node: entries       joins and meshes carry its digest
//! ```
//!
//! - There is one entry for each key that ever was on the list. What has the greater revision counts; of two with the same
//!   revision, the one that lets less in. So entries may come in any order, twice or late, and all nodes end with the same.
//! - What changes here is told over all links at once, and passed on by whoever it is news for. Where something was lost,
//!   a node and its authorities see by their digests that their lists differ: then one tells all that it has, and asks for
//!   what the other one has.
//! - A ticket is a key pair that whoever has it may use to have one's own key put on the list, until its time is over. The
//!   time is that of the clock of the node that is asked.
//!
//! Whoever is on the list may change it. It never looks at a clock: its entries are kept for ever, since an entry that one
//! node has forgotten would come back from another.

use std::collections::{BTreeMap, BTreeSet};

use crate::mutant::{self, Mutant};
use crate::name::NodeId;

/// Most entries. Who would need more has to make another grid.
pub const ENTRIES_MAX: usize = 10_000;
/// Most entries in one message.
pub const ENTRIES_PER_MESSAGE: usize = 500;
/// Longest name in an entry, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// An entry with a greater revision is nonsense: nobody changes one so often.
const REVISION_MAX: u64 = 1 << 40;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: NodeId,
    /// Grows with each change.
    pub revision: u64,
    /// What its holder may do.
    pub standing: Standing,
    /// For people.
    pub name: String,
}

/// What the holder of a key may do. In the order in which one counts more than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Be a node of the grid.
    Member,
    /// Put a key on the list, until this time, in milliseconds since 1970 (UTC).
    Ticket(u64),
    /// Nothing any more.
    Revoked,
}

/// Entries from another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The [`digest`](Roster::digest) of all that the sender has.
    pub digest: u64,
    /// The receiver is to tell what it has, if its digest is another one once it has read this.
    pub asks: bool,
    /// Some of them, or all.
    pub entries: Vec<Entry>,
}

/// Why an entry can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are [`ENTRIES_MAX`].
    Full,
    /// The name has more than [`NAME_BYTES_MAX`] bytes.
    LongName,
    /// There is no such key on the list.
    Unknown,
}

/// The list.
#[derive(Debug, Default)]
pub struct Roster {
    entries: BTreeMap<NodeId, Entry>,
    digest: u64,
    /// What others have not been told yet.
    news: BTreeSet<NodeId>,
    /// What the node has not been told yet.
    changed: BTreeSet<NodeId>,
}

impl Entry {
    fn is_sound(&self) -> bool {
        self.name.len() <= NAME_BYTES_MAX && (1..=REVISION_MAX).contains(&self.revision)
    }

    fn counts_more_than(&self, other: &Self) -> bool {
        (self.revision, self.standing, &self.name) > (other.revision, other.standing, &other.name)
    }

    fn digest(&self) -> u64 {
        let (rank, until) = match self.standing {
            Standing::Member => (0, 0),
            Standing::Ticket(until) => (1, until),
            Standing::Revoked => (2, 0),
        };
        let mut hash = blake3::Hasher::new();
        hash.update(&self.key.0);
        [self.revision, rank, until].iter().for_each(|number| _ = hash.update(&number.to_le_bytes()));
        hash.update(self.name.as_bytes());
        u64::from_le_bytes(hash.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    }
}

impl Roster {
    /// What was kept when the node ran last.
    pub fn new(kept: Vec<Entry>) -> Self {
        let mut roster = Self::default();
        for entry in kept {
            roster.take(entry);
        }
        roster.changed.clear();
        roster
    }

    /// Its holder may be a node from now on.
    pub fn admit(&mut self, key: NodeId, name: &str) -> Result<(), Refused> {
        self.change(key, Standing::Member, Some(name))
    }

    /// Its holder may do nothing any more.
    pub fn revoke(&mut self, key: NodeId) -> Result<(), Refused> {
        match self.entries.contains_key(&key) {
            true => self.change(key, Standing::Revoked, None),
            false => Err(Refused::Unknown),
        }
    }

    /// Its holder may put keys on the list until then.
    pub fn invite(&mut self, key: NodeId, until: u64, name: &str) -> Result<(), Refused> {
        self.change(key, Standing::Ticket(until), Some(name))
    }

    /// What another node has told. What is to be told to it.
    pub fn on_told(&mut self, told: &Told) -> Vec<Told> {
        for entry in told.entries.iter().take(ENTRIES_PER_MESSAGE) {
            if self.take(entry.clone()) {
                self.news.insert(entry.key);
            }
        }
        if told.asks && told.digest != self.digest { self.all(false) } else { Vec::new() }
    }

    /// Another node has this digest. What is to be told to it.
    pub fn on_digest(&self, digest: u64) -> Vec<Told> {
        if digest == self.digest || mutant::is(Mutant::DigestIgnored) { Vec::new() } else { self.all(true) }
    }

    /// What is to be told to all others. `None`: nothing.
    pub fn news(&mut self) -> Option<Told> {
        let mut entries = Vec::new();
        while entries.len() < ENTRIES_PER_MESSAGE
            && let Some(key) = self.news.pop_first()
        {
            entries.push(self.entries[&key].clone());
        }
        (!entries.is_empty()).then_some(Told { digest: self.digest, asks: false, entries })
    }

    /// What the node is to keep and obey, since it was asked last.
    pub fn changed(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.changed).iter().map(|key| self.entries[key].clone()).collect()
    }

    /// A number for all that is on the list: who has the same has the same list.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// What is known of a key.
    pub fn get(&self, key: NodeId) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// All of it, by key.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Panics if the list contradicts itself.
    pub fn check_invariants(&self) {
        assert!(self.entries.len() <= ENTRIES_MAX, "there are too many entries");
        assert!(self.entries.iter().all(|(key, entry)| entry.key == *key && entry.is_sound()));
        let digest = self.entries.values().map(Entry::digest).fold(0, u64::wrapping_add);
        assert_eq!(digest, self.digest, "the digest is that of the entries");
    }

    fn change(&mut self, key: NodeId, standing: Standing, name: Option<&str>) -> Result<(), Refused> {
        let known = self.entries.get(&key);
        if known.is_none() && self.entries.len() >= ENTRIES_MAX {
            return Err(Refused::Full);
        }
        let name = match (name, known) {
            (Some(name), _) if name.len() > NAME_BYTES_MAX => return Err(Refused::LongName),
            (Some(""), Some(known)) | (None, Some(known)) => known.name.clone(),
            (name, _) => name.unwrap_or_default().to_owned(),
        };
        if known.is_some_and(|known| known.standing == standing && known.name == name) {
            return Ok(());
        }
        let revision = known.map_or(0, |known| known.revision) + 1;
        self.take(Entry { key, revision: revision.min(REVISION_MAX), standing, name });
        self.news.insert(key);
        Ok(())
    }

    /// Whether it was news.
    fn take(&mut self, entry: Entry) -> bool {
        let key = entry.key;
        let known = self.entries.get(&key);
        let is_stale = known.is_some_and(|known| !entry.counts_more_than(known));
        let is_old = is_stale && !mutant::is(Mutant::OldEntryTaken);
        if is_old || !entry.is_sound() || (known.is_none() && self.entries.len() >= ENTRIES_MAX) {
            return false;
        }
        self.digest = self.digest.wrapping_add(entry.digest());
        if let Some(before) = self.entries.insert(key, entry) {
            self.digest = self.digest.wrapping_sub(before.digest());
        }
        self.changed.insert(key);
        true
    }

    fn all(&self, asks: bool) -> Vec<Told> {
        let all: Vec<Entry> = self.entries.values().cloned().collect();
        let digest = self.digest;
        let mut told: Vec<Told> = all
            .chunks(ENTRIES_PER_MESSAGE)
            .map(|entries| Told { digest, asks: false, entries: entries.to_vec() })
            .collect();
        if asks {
            match told.last_mut() {
                Some(last) => last.asks = true,
                None => told.push(Told { digest, asks, entries: Vec::new() }),
            }
        }
        told
    }
}
