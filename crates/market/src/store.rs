//! Which store is the grid's: the one in which accepted calls and state are kept, by one of its nodes.
//!
//! ```text
//! node -> node: what it knows, with its hello, and when that changes
//! ```
//!
//! A node begins with a store of its own, in which there is nothing. Where it meets others, all but one of these give way, by a
//! rule that all follow alike; a store with calls or state in it gives way to none. Two such stores are two truths: their
//! nodes don't join, and an operator says which one is the grid's, by its *term*. So what a node knows only ever changes for
//! what counts more, and all nodes that can hear of each other end with the same.

use std::cmp::{Ordering, Reverse};

use crate::name::{Contact, NodeId};

/// A term beyond this is nonsense: nobody moves a store so often.
pub const TERM_MAX: u64 = 1 << 40;

/// A store, and who keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridStore {
    /// Names it: made when the store was.
    pub id: [u8; 16],
    /// How often an operator has said which store is the grid's.
    pub term: u64,
    /// There are calls or state in it.
    pub used: bool,
    /// Who keeps it.
    pub node: Contact,
}

/// What follows from two nodes' knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They agree.
    Same,
    /// The other one's counts.
    Theirs,
    /// One's own counts.
    Ours,
    /// They are two truths.
    Two,
}

impl GridStore {
    /// What counts of what two nodes know.
    pub fn compare(&self, theirs: &Self) -> Verdict {
        let ours = self;
        if ours.used && theirs.used && ours.term == theirs.term && ours.node.id != theirs.node.id {
            return Verdict::Two;
        }
        // Of two that are empty it does not matter which one counts, only that all say the same.
        let weight =
            |store: &Self| (store.term, store.used, Reverse(store.node.id), store.node.incarnation.0);
        match weight(ours).cmp(&weight(theirs)) {
            Ordering::Less => Verdict::Theirs,
            Ordering::Greater => Verdict::Ours,
            Ordering::Equal => Verdict::Same,
        }
    }

    /// Whether a node keeps it.
    pub fn is_kept_by(&self, node: NodeId) -> bool {
        self.node.id == node
    }

    /// The first digits of its id, for people.
    pub fn short(&self) -> String {
        self.id[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use bourse_wire::id::Incarnation;

    use super::*;

    fn store(node: u8, life: u64, term: u64, used: bool) -> GridStore {
        let contact = Contact {
            id: NodeId([node; 32]),
            incarnation: Incarnation(life),
            address: String::new(),
            domain: String::new(),
        };
        GridStore { id: [node; 16], term, used, node: contact }
    }

    fn all() -> Vec<GridStore> {
        let mut all = Vec::new();
        for node in 1..4 {
            for life in [1, 2] {
                for term in [0, 1] {
                    all.extend([false, true].map(|used| store(node, life, term, used)));
                }
            }
        }
        all
    }

    #[test]
    fn both_sides_come_to_the_same_verdict() {
        for a in all() {
            for b in all() {
                let mirrored = match b.compare(&a) {
                    Verdict::Theirs => Verdict::Ours,
                    Verdict::Ours => Verdict::Theirs,
                    same => same,
                };
                assert_eq!(a.compare(&b), mirrored, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn what_counts_more_than_another_counts_more_than_what_that_counts_more_than() {
        // Of what is not two truths: else the order in which nodes meet would decide.
        for a in all() {
            for b in all().iter().filter(|b| a.compare(b) == Verdict::Theirs) {
                for c in all().iter().filter(|c| b.compare(c) == Verdict::Theirs) {
                    assert!(matches!(a.compare(c), Verdict::Theirs | Verdict::Two), "{a:?} {b:?} {c:?}");
                }
            }
        }
    }

    #[test]
    fn only_a_term_decides_between_two_that_are_used() {
        let (a, b) = (store(1, 1, 0, true), store(2, 9, 0, true));
        assert_eq!(a.compare(&b), Verdict::Two);
        assert_eq!(a.compare(&GridStore { term: 1, ..b }), Verdict::Theirs);
    }

    #[test]
    fn an_empty_store_gives_way() {
        assert_eq!(store(1, 1, 0, false).compare(&store(2, 9, 0, true)), Verdict::Theirs);
        assert_eq!(store(1, 9, 0, false).compare(&store(2, 1, 0, false)), Verdict::Ours, "one of them does");
    }

    #[test]
    fn a_node_that_starts_again_is_believed() {
        let before = store(1, 1, 0, true);
        assert_eq!(before.compare(&store(1, 2, 0, true)), Verdict::Theirs);
        assert_eq!(before.compare(&store(1, 2, 0, false)), Verdict::Ours, "what was used is not empty again");
    }
}
