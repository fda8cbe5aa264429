//! Nodes that are there, and whose keys are not allowed: each is said once, for the one who forgot to allow it.

use std::collections::BTreeSet;

use bourse_transport::Key;

/// Keys that are said, at most: others may invent them.
const SAID_MAX: usize = 64;

/// The keys that were said.
#[derive(Default)]
pub(super) struct Strangers(BTreeSet<Key>);

impl Strangers {
    /// Says it, unless it was said before.
    pub(super) fn say(&mut self, key: Key, place: &str) {
        if self.0.len() >= SAID_MAX || !self.0.insert(key) {
            return;
        }
        tracing::info!(
            "a node was found at {place}; its key is not allowed here: {0}\n  hint: if it is yours, say --allow {0}, or write the key into the file `allowed` in the data folder",
            key.to_hex()
        );
    }

    /// How many were said.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}
