//! Seeds that are found while the node runs: on this machine, on its network, by name.

use bourse_wire::time::Mono;

use super::{Kind, Member};
use crate::name::{Contact, NodeId};

impl Member {
    /// A node was found: it is asked as those are that this one was started with, and at once. One that is known as a seed
    /// at this address already changes nothing.
    pub fn add_seed(&mut self, now: Mono, contact: &Contact) {
        let is_it = |e: &super::Entry| e.kind == Kind::Seed && e.contact.address == contact.address;
        if self.book.get(&contact.id).is_some_and(is_it) {
            return;
        }
        self.learn(now, contact, Kind::Seed);
        if let Some(entry) = self.book.get_mut(&contact.id) {
            entry.contact.address.clone_from(&contact.address);
            entry.at = now;
            entry.pause = self.times.redial_min;
            entry.shunned_until = now;
        }
        self.settle(now);
    }

    /// A seed is known to be gone: it is not asked any more, unless somebody else names it.
    pub fn drop_seed(&mut self, now: Mono, node: NodeId) {
        if self.book.get(&node).is_some_and(|entry| entry.kind == Kind::Seed) {
            self.book.remove(&node);
            self.settle(now);
        }
    }
}
