//! The seller's door: who has this node's slots, and whose turn it is when one is free. The last arbiter of capacity.
//!
//! ```text
//! claimant -> listener: claims so many more, takes one, gives one back
//! listener -> claimant: the next free slot is yours
//! ```
//!
//! A claimant is a module of this node, which runs calls of its own, or a channel, which sells to a buyer; both are dealt
//! with alike. Who holds fewest goes first; among those who hold as many, who has waited longest since it was last
//! granted a slot or gave one back. So a freed slot is nobody's by habit: its last user stands behind the others that hold
//! as few. Everything is O(log n) in the number of claimants.
//!
//! It never grants a slot past those it has, whatever is asked. Made smaller than what is held, it takes nothing away: it
//! grants nothing until enough has come back. It does not know what a slot is used for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bourse_wire::time::Mono;

use crate::mutant::{self, Mutant};

/// Slots, and those who hold and want them.
#[derive(Clone, Debug)]
pub struct Listener<C> {
    slots: u32,
    taken: u32,
    /// What all want together.
    wanted: u64,
    accounts: BTreeMap<C, Account>,
    /// Those who want something, in the order in which they are served.
    queue: BTreeSet<(u32, u64, C)>,
    /// The last turn that was given out.
    turn: u64,
}

/// One claimant. There is none without something held or wanted.
#[derive(Clone, Copy, Debug)]
struct Account {
    held: u32,
    wants: u32,
    since: Mono,
    turn: u64,
}

impl<C: Ord + Clone + Debug> Listener<C> {
    /// One with so many slots, all free.
    pub fn new(slots: u32) -> Self {
        Self { slots, taken: 0, wanted: 0, accounts: BTreeMap::new(), queue: BTreeSet::new(), turn: 0 }
    }

    /// From now on there are so many. If more are held, they are kept until they are given back.
    pub fn resize(&mut self, slots: u32) {
        if mutant::is(Mutant::ShrinkIgnored) && slots < self.slots {
            return;
        }
        self.slots = slots;
    }

    /// Takes a free slot, whoever else waits; for what goes before new calls. `false` if none is free.
    #[must_use]
    pub fn take(&mut self, c: &C) -> bool {
        if self.free() == 0 {
            return false;
        }
        self.taken += 1;
        self.change(c, |account| account.held += 1);
        true
    }

    /// A slot that `c` held is free again.
    ///
    /// # Panics
    ///
    /// If it held none: somebody has counted wrong, and capacity would be sold twice.
    pub fn give_back(&mut self, c: &C) {
        assert!(self.held(c) > 0, "{c:?} gives back a slot that it does not hold");
        self.taken -= 1;
        self.turn += 1;
        let turn = self.turn;
        self.change(c, |account| {
            account.held -= 1;
            account.turn = turn;
        });
    }

    /// `c` would take so many more. Its waiting time counts from when it last wanted none, or was granted one.
    pub fn claim(&mut self, now: Mono, c: &C, wants: u32) {
        let begins = self.accounts.get(c).is_none_or(|account| account.wants == 0);
        self.turn += u64::from(begins);
        let turn = self.turn;
        self.change(c, |account| {
            account.wants = wants;
            if begins {
                (account.since, account.turn) = (now, turn);
            }
        });
    }

    /// Grants a free slot to whose turn it is. `None` if none is free, or nobody wants one.
    #[must_use]
    pub fn next(&mut self, now: Mono) -> Option<C> {
        if self.free() == 0 {
            return None;
        }
        let first = if mutant::is(Mutant::MostFirst) { self.queue.last() } else { self.queue.first() };
        let c = first?.2.clone();
        self.taken += 1;
        self.turn += 1;
        let turn = self.turn;
        self.change(&c, |account| {
            account.held += 1;
            account.wants -= 1;
            (account.since, account.turn) = (now, turn);
        });
        Some(c)
    }

    /// Whose turn it is, whether or not a slot is free.
    pub fn first(&self) -> Option<&C> {
        self.queue.first().map(|(_, _, c)| c)
    }

    /// How many slots are waited for, by all together.
    pub fn wanted(&self) -> u32 {
        u32::try_from(self.wanted).unwrap_or(u32::MAX)
    }

    /// `c` wants nothing any more. What it holds it has still to give back.
    pub fn forget(&mut self, c: &C) {
        self.change(c, |account| account.wants = 0);
    }

    /// How many there are.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// How many can be taken now.
    pub fn free(&self) -> u32 {
        self.slots.saturating_sub(self.taken)
    }

    /// How many are held. May be more than there are, after they have become fewer.
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// How many `c` holds.
    pub fn held(&self, c: &C) -> u32 {
        self.accounts.get(c).map_or(0, |account| account.held)
    }

    /// Since when `c` has been waiting, if it wants something.
    pub fn waits(&self, c: &C) -> Option<Mono> {
        self.accounts.get(c).filter(|account| account.wants > 0).map(|account| account.since)
    }

    /// Whether anybody but `but` waits for a slot.
    pub fn is_wanted(&self, but: &C) -> bool {
        self.queue.len() > usize::from(self.waits(but).is_some())
    }

    /// What must be true whatever happens.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check_invariants(&self) {
        let held: u64 = self.accounts.values().map(|account| u64::from(account.held)).sum();
        assert_eq!(held, u64::from(self.taken), "the slots that are taken are those that are held");
        let wanted: u64 = self.accounts.values().map(|account| u64::from(account.wants)).sum();
        assert_eq!(wanted, self.wanted, "what is wanted is counted");
        let waiting = self.accounts.iter().filter(|(_, account)| account.wants > 0);
        let queue: BTreeSet<_> =
            waiting.map(|(c, account)| (account.held, account.turn, c.clone())).collect();
        assert_eq!(queue, self.queue, "who wants something waits for it");
        assert!(self.accounts.values().all(|a| a.held > 0 || a.wants > 0), "nobody is kept for nothing");
    }

    /// Changes an account, and keeps the queue as the accounts are.
    fn change(&mut self, c: &C, change: impl FnOnce(&mut Account)) {
        let before = self.accounts.get(c).copied();
        let mut account = before.unwrap_or(Account { held: 0, wants: 0, since: Mono(0), turn: 0 });
        change(&mut account);
        self.wanted -= before.map_or(0, |before| u64::from(before.wants));
        self.wanted += u64::from(account.wants);
        if let Some(before) = before.filter(|before| before.wants > 0) {
            self.queue.remove(&(before.held, before.turn, c.clone()));
        }
        if account.wants > 0 {
            self.queue.insert((account.held, account.turn, c.clone()));
        }
        if account.held > 0 || account.wants > 0 {
            self.accounts.insert(c.clone(), account);
        } else {
            self.accounts.remove(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(listener: &mut Listener<&'static str>) -> String {
        let mut all = String::new();
        while let Some(c) = listener.next(Mono(9)) {
            all.push_str(c);
            listener.check_invariants();
        }
        all
    }

    #[test]
    fn fewest_held_first_then_longest_waiting() {
        let mut l = Listener::new(5);
        l.claim(Mono(1), &"a", 10);
        l.claim(Mono(2), &"b", 2);
        assert_eq!(granted(&mut l), "ababa");
        // 1. One who comes later, and holds nothing, goes before both.
        l.claim(Mono(3), &"c", 1);
        l.give_back(&"a");
        assert_eq!(granted(&mut l), "c");
        assert_eq!((l.held(&"a"), l.held(&"b"), l.held(&"c"), l.free()), (2, 2, 1, 0));
        assert_eq!((l.waits(&"a"), l.waits(&"b")), (Some(Mono(9)), None));
        assert!(!l.is_wanted(&"a") && l.is_wanted(&"b"));
    }

    #[test]
    fn a_freed_slot_is_not_its_last_users() {
        let mut l = Listener::new(1);
        l.claim(Mono(1), &"a", 9);
        assert_eq!(granted(&mut l), "a");
        l.claim(Mono(2), &"b", 9);
        l.give_back(&"a");
        assert_eq!(granted(&mut l), "b");
        l.give_back(&"b");
        assert_eq!(granted(&mut l), "a");
    }

    #[test]
    fn smaller_than_what_is_held() {
        let mut l = Listener::new(3);
        l.claim(Mono(1), &"a", 9);
        assert_eq!(granted(&mut l), "aaa");
        l.resize(1);
        l.give_back(&"a");
        l.give_back(&"a");
        assert_eq!((granted(&mut l), l.take(&"b"), l.taken(), l.free()), (String::new(), false, 1, 0));
        l.give_back(&"a");
        assert!(l.take(&"b"));
        l.forget(&"a");
        assert_eq!((granted(&mut l), l.taken()), (String::new(), 1));
        l.check_invariants();
    }

    #[test]
    #[should_panic(expected = "does not hold")]
    fn nobody_gives_back_what_it_does_not_hold() {
        Listener::new(1).give_back(&"a");
    }
}
