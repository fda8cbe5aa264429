//! With whom this node speaks: the keys of the setting `allow`, those in the file `allowed` in the data folder, which
//! is read again when it changes, those on the grid's list, and those of nodes that were found and need not be on any.
//! Who was revoked on the grid's list is not spoken with, whatever else says so.
//!
//! ```text
//! # one key per line, and a name if you like
//! 4f0c…e1  alder
//! 97b2…03  birch, in the cellar
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bourse_market::roster::{Entry, Standing};
use bourse_transport::{Allowed, Key};

use crate::join::Join;

/// Which file it is.
pub const ALLOWED_FILE: &str = "allowed";

/// Keys that one node can allow.
const KEYS_MAX: usize = 10_000;
/// The file's size, at most.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What is said of a node that is dialed and not on the list.
pub(crate) const NOT_ALLOWED: &str = "its key is not allowed here";
/// What is said of a link whose key was taken off the list.
pub(crate) const REVOKED: &str = "its key is not allowed any more";

/// The list, and what it is made from.
pub struct List {
    pub(crate) allowed: Allowed,
    /// The file; `None`: there is none.
    path: Option<PathBuf>,
    /// From the settings.
    given: BTreeSet<Key>,
    /// From the file.
    written: BTreeSet<Key>,
    /// Of nodes that were found where only this user can leave a word.
    trusted: BTreeSet<Key>,
    /// From the grid: who may be here, whether as a node or with a ticket; and who may not, whatever else says so.
    members: BTreeMap<Key, bool>,
    /// What the file looked like when it was read last; `None` if it was not there.
    seen: Option<Stamp>,
}

/// Tells one state of a file from another. Whoever replaces it changes the inode, whoever writes into it the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl List {
    /// From the settings and the file, if it is there.
    pub fn load(
        data: &Path,
        given: impl IntoIterator<Item = Key>,
        members: &[Entry],
    ) -> anyhow::Result<Self> {
        let path = data.join(ALLOWED_FILE);
        let given = BTreeSet::from_iter(given);
        let seen = stamp(&path);
        let keys = match read(&path) {
            Ok(keys) => keys,
            Err(Unreadable::Missing) => BTreeSet::new(),
            Err(Unreadable::Because(why)) => anyhow::bail!(
                "{why}\n  hint: each line has the public key of a node, which `bourse init` prints there, and a name if you like; # begins a comment"
            ),
        };
        let members = members.iter().map(entry).collect();
        let allowed = Allowed::nobody();
        let path = Some(path);
        let list = Self { allowed, path, given, written: keys, trusted: BTreeSet::new(), members, seen };
        list.renew();
        Ok(list)
    }

    /// The same without a file.
    pub fn fixed(given: impl IntoIterator<Item = Key>, members: &[Entry]) -> Self {
        let list = Self {
            allowed: Allowed::nobody(),
            path: None,
            given: BTreeSet::from_iter(given),
            written: BTreeSet::new(),
            trusted: BTreeSet::new(),
            members: members.iter().map(entry).collect(),
            seen: None,
        };
        list.renew();
        list
    }

    /// The grid's list has other entries. The keys that were allowed before and are not any more.
    pub(crate) fn obey(&mut self, entries: &[Entry]) -> BTreeSet<Key> {
        self.members.extend(entries.iter().map(entry));
        self.renew()
    }

    /// A node was found that needs not be on a list. False if there are too many of them.
    pub(crate) fn trust(&mut self, key: Key) -> bool {
        if self.trusted.len() < KEYS_MAX {
            self.trusted.insert(key);
            self.renew();
        }
        self.trusted.contains(&key)
    }

    /// It is gone. Whether its key is not allowed any more.
    pub(crate) fn distrust(&mut self, key: Key) -> bool {
        self.trusted.remove(&key) && self.renew().contains(&key)
    }

    /// Makes the list anew. The keys that were on it and are not any more.
    fn renew(&self) -> BTreeSet<Key> {
        let members = self.members.iter().filter(|(_, may)| **may).map(|(key, _)| *key);
        let all = [&self.given, &self.written, &self.trusted];
        let all = all.into_iter().flatten().copied().chain(members);
        self.allowed.replace(all.filter(|key| self.members.get(key) != Some(&false)))
    }

    /// Whom this node joins has to be on the list, as everybody else: so that there is one place that says with whom it
    /// speaks.
    pub fn check_joins(&self, joins: &[Join], own: Key) -> anyhow::Result<()> {
        let path = self.path.as_deref().unwrap_or(Path::new(ALLOWED_FILE)).display();
        for Join { key, address } in joins {
            if *key == own {
                anyhow::bail!(
                    "join = {}@{address} names this node's own key\n  hint: name another node, by the key that `bourse init` prints there; the first node of a grid joins nobody",
                    key.to_hex()
                );
            }
            if self.allowed.count() == 0 {
                anyhow::bail!(
                    "there is a node to join, and no key is allowed: this node speaks with nobody\n  hint: join with a ticket (bourse join); or say --allow {}, and the same for each other node of the grid; or write the keys into {path}, one per line",
                    key.to_hex()
                );
            }
            if !self.allowed.admits(*key) {
                anyhow::bail!(
                    "join = {}@{address}: {NOT_ALLOWED}\n  hint: say --allow {0} too, or write the key into {path}",
                    key.to_hex()
                );
            }
        }
        Ok(())
    }

    /// Reads the file again if it has changed. The keys that were on the list before and are not any more.
    pub(crate) fn look(&mut self) -> BTreeSet<Key> {
        let Some(file) = &self.path else { return BTreeSet::new() };
        let now = stamp(file);
        if now == self.seen {
            return BTreeSet::new();
        }
        self.seen = now;
        let path = file.display();
        match read(file) {
            Ok(keys) => {
                self.written = keys;
                let revoked = self.renew();
                let (there, gone) = (self.allowed.count(), revoked.len());
                tracing::info!(
                    "{path} was read again: {there} allowed keys, {gone} are not allowed any more"
                );
                revoked
            }
            // An editor may remove it for a moment; who wants to allow nobody can say so.
            Err(Unreadable::Missing) => {
                tracing::warn!(
                    "{path} is gone: its keys stay allowed until it is there again, or the daemon is"
                );
                BTreeSet::new()
            }
            Err(Unreadable::Because(why)) => {
                tracing::error!("{why}; the keys that were allowed before still are");
                BTreeSet::new()
            }
        }
    }
}

fn entry(entry: &Entry) -> (Key, bool) {
    (Key(entry.key.0), entry.standing != Standing::Revoked)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some(Stamp { inode: file.ino(), bytes: file.len(), changed: (file.mtime(), file.mtime_nsec()) })
}

#[derive(Debug)]
enum Unreadable {
    Missing,
    Because(String),
}

fn read(path: &Path) -> Result<BTreeSet<Key>, Unreadable> {
    let because = |why: String| Unreadable::Because(format!("{} {why}", path.display()));
    let unread = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => Unreadable::Missing,
        _ => because(format!("cannot be read: {e}")),
    };
    if fs::metadata(path).map_err(unread)?.len() > FILE_BYTES_MAX {
        return Err(because(format!("is longer than {FILE_BYTES_MAX} bytes")));
    }
    parse(&fs::read_to_string(path).map_err(unread)?)
        .map_err(|why| Unreadable::Because(format!("{}, {why}", path.display())))
}

fn parse(text: &str) -> Result<BTreeSet<Key>, String> {
    let mut keys = BTreeSet::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let Some(word) = line.split_whitespace().next() else { continue };
        let key = Key::from_hex(word)
            .map_err(|_| format!("line {}: {word:?} is not a key of 64 hexadecimal digits", at + 1))?;
        keys.insert(key);
        if keys.len() > KEYS_MAX {
            return Err(format!("line {}: {KEYS_MAX} keys are the most", at + 1));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: u8) -> Key {
        Key([digit; 32])
    }

    #[test]
    fn lines_have_a_key_a_name_and_a_comment() {
        let [one, two] = [key(1).to_hex(), key(0xab).to_hex().to_uppercase()];
        let text = format!("# ours\n\n  {one}\talder, the first # in the cellar\n{two}#no name\n{one}\n");
        assert_eq!(parse(&text).unwrap(), [key(1), key(0xab)].into());
        let bad = parse(&format!("{one}\n\n# x\nalder {one}\n")).unwrap_err();
        assert!(bad.starts_with("line 4: \"alder\" is not a key"), "{bad}");
        assert!(parse(&format!("{one}0")).unwrap_err().starts_with("line 1"));
    }

    #[test]
    fn a_changed_file_counts_and_a_bad_one_does_not() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(ALLOWED_FILE);
        let mut list = List::load(data.path(), [key(1)], &[]).unwrap();
        assert_eq!(list.allowed.count(), 1);
        // 1. It comes.
        fs::write(&path, key(2).to_hex()).unwrap();
        assert_eq!(list.look(), [].into());
        assert!(list.allowed.admits(key(1)) && list.allowed.admits(key(2)));
        // 2. It is wrong, or gone: all stays as it was.
        for text in [Some("nonsense"), None] {
            match text {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            assert_eq!(list.look(), [].into());
            assert!(list.allowed.admits(key(2)));
        }
        // 3. It allows another; what the settings allow stays.
        fs::write(&path, format!("{} birch", key(3).to_hex())).unwrap();
        assert_eq!(list.look(), [key(2)].into());
        assert_eq!(list.look(), [].into());
        assert!(list.allowed.admits(key(1)) && list.allowed.admits(key(3)));
        // 4. Nobody.
        fs::write(&path, "# nobody").unwrap();
        assert_eq!(list.look(), [key(3)].into());
        // 5. At a start, a bad one is an error.
        fs::write(&path, "\nnonsense").unwrap();
        let refused = List::load(data.path(), [], &[]).err().expect("it is refused").to_string();
        assert!(refused.contains("line 2: \"nonsense\" is not a key"), "{refused}");
    }

    #[test]
    fn who_is_found_is_trusted_until_it_is_gone() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(ALLOWED_FILE);
        let mut list = List::load(data.path(), [key(1)], &[]).unwrap();
        // 1. It needs no list, and a list that is read meanwhile does not shut it out.
        assert!(list.trust(key(2)) && list.trust(key(3)));
        fs::write(&path, format!("{}\n{}\n", key(3).to_hex(), key(4).to_hex())).unwrap();
        assert_eq!(list.look(), [].into());
        assert!((1..=4).all(|at| list.allowed.admits(key(at))));
        // 2. It is gone: whoever is listed stays.
        assert!(list.distrust(key(2)) && !list.distrust(key(3)) && !list.distrust(key(1)));
        assert!(!list.allowed.admits(key(2)) && list.allowed.admits(key(3)) && list.allowed.admits(key(1)));
    }

    #[test]
    fn a_list_without_a_file_obeys_the_grids() {
        let entry = |digit: u8, standing| Entry {
            key: bourse_market::NodeId([digit; 32]),
            revision: 1,
            standing,
            name: String::new(),
        };
        let mut list = List::fixed([key(1)], &[entry(2, Standing::Member), entry(3, Standing::Revoked)]);
        assert!(
            [(1, true), (2, true), (3, false)].iter().all(|(k, may)| list.allowed.admits(key(*k)) == *may)
        );
        assert_eq!(list.look(), [].into());
        assert_eq!(list.obey(&[entry(1, Standing::Revoked), entry(3, Standing::Member)]), [key(1)].into());
        assert!(!list.allowed.admits(key(1)) && list.allowed.admits(key(3)));
    }

    #[test]
    fn who_is_joined_has_to_be_allowed() {
        let data = tempfile::tempdir().unwrap();
        let joins = [Join { key: key(2), address: "there:7071".to_owned() }];
        let check = |allowed: &[Key], own: Key| {
            let list = List::load(data.path(), allowed.iter().copied(), &[]).unwrap();
            list.check_joins(&joins, own).map_err(|e| e.to_string())
        };
        assert_eq!(check(&[key(2)], key(1)), Ok(()));
        let nobody = check(&[], key(1)).unwrap_err();
        assert!(nobody.contains("no key is allowed") && nobody.contains("--allow 0202"), "{nobody}");
        let other = check(&[key(3)], key(1)).unwrap_err();
        assert!(other.contains(NOT_ALLOWED) && other.contains("--allow 0202"), "{other}");
        let own = check(&[key(2)], key(2)).unwrap_err();
        assert!(own.contains("this node's own key"), "{own}");
    }
}
