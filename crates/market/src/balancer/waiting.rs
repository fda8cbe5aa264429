//! Those who wait for a token: first come, first served, each until its deadline.

use std::collections::{BTreeMap, BTreeSet};

use bourse_wire::time::Mono;

/// A line of those who wait. Everything is O(log n).
#[derive(Clone, Debug)]
pub struct Waiting<T> {
    line: BTreeMap<Place, Waiter<T>>,
    deadlines: BTreeSet<(Mono, Place)>,
    next: u64,
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

#[derive(Clone, Debug)]
struct Waiter<T> {
    since: Mono,
    deadline: Mono,
    what: T,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { line: BTreeMap::new(), deadlines: BTreeSet::new(), next: 0 }
    }
}

impl<T> Waiting<T> {
    /// Waits behind all others, until its turn or the deadline.
    pub fn push(&mut self, now: Mono, deadline: Mono, what: T) -> Place {
        let place = Place(self.next);
        self.next += 1;
        self.line.insert(place, Waiter { since: now, deadline, what });
        self.deadlines.insert((deadline, place));
        place
    }

    /// Who has waited longest, and waits no longer. Those whose deadlines are over are among them until they are taken out
    /// by [`expired`](Self::expired).
    pub fn pop(&mut self) -> Option<T> {
        let place = *self.line.first_key_value()?.0;
        self.remove(place)
    }

    /// Waits no longer. `None` if nobody waits there.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let waiter = self.line.remove(&place)?;
        self.deadlines.remove(&(waiter.deadline, place));
        Some(waiter.what)
    }

    /// Those whose deadlines are over wait no longer: the earliest deadline first.
    pub fn expired(&mut self, now: Mono) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some((deadline, place)) = self.deadlines.first().copied()
            && deadline <= now
        {
            expired.extend(self.remove(place));
        }
        expired
    }

    /// The earliest deadline.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Whose turn it is.
    pub fn first(&self) -> Option<&T> {
        self.line.first_key_value().map(|(_, waiter)| &waiter.what)
    }

    /// Since when who has waited longest has been waiting.
    pub fn since(&self) -> Option<Mono> {
        self.line.first_key_value().map(|(_, waiter)| waiter.since)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_until_the_deadline() {
        let mut waiting = Waiting::default();
        assert!(waiting.is_empty() && waiting.pop().is_none());
        waiting.push(Mono(1), Mono(30), "a");
        let b = waiting.push(Mono(2), Mono(10), "b");
        waiting.push(Mono(3), Mono(20), "c");
        waiting.push(Mono(4), Mono(10), "d");
        assert_eq!(
            (waiting.first(), waiting.since(), waiting.poll_timeout()),
            (Some(&"a"), Some(Mono(1)), Some(Mono(10)))
        );
        assert_eq!((waiting.remove(b), waiting.remove(b)), (Some("b"), None));
        assert_eq!(waiting.expired(Mono(9)), Vec::<&str>::new());
        assert_eq!(waiting.expired(Mono(20)), ["d", "c"]);
        assert_eq!((waiting.pop(), waiting.len(), waiting.poll_timeout()), (Some("a"), 0, None));
    }
}
