//! When to look at what again.

use std::collections::{BTreeMap, BTreeSet};

use bourse_wire::time::Mono;

/// One time for each key. Looking too early does no harm, so times are only moved forward here.
#[derive(Debug)]
pub(crate) struct Agenda<K> {
    due: BTreeSet<(Mono, K)>,
    at: BTreeMap<K, Mono>,
}

impl<K: Ord + Clone> Agenda<K> {
    pub(crate) fn new() -> Self {
        Self { due: BTreeSet::new(), at: BTreeMap::new() }
    }

    /// Looks at `key` at this time at the latest.
    pub(crate) fn by(&mut self, key: &K, at: Mono) {
        match self.at.get_mut(key) {
            Some(old) if *old <= at => {}
            Some(old) => {
                self.due.remove(&(*old, key.clone()));
                *old = at;
                self.due.insert((at, key.clone()));
            }
            None => {
                self.at.insert(key.clone(), at);
                self.due.insert((at, key.clone()));
            }
        }
    }

    pub(crate) fn forget(&mut self, key: &K) {
        if let Some(at) = self.at.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    pub(crate) fn pop_due(&mut self, now: Mono) -> Option<K> {
        if self.due.first()?.0 > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    pub(crate) fn next(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }
}
