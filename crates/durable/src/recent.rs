//! The writes that a partition has accepted lately, whether committed or not: what a finishing layer's reads are
//! compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use crate::reads::{Log, Span, Tick};

/// The last write of each key since a floor.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    writes: BTreeMap<Bytes, Tick>,
    /// The same, oldest first.
    order: BTreeSet<(Tick, Bytes)>,
    /// Writes up to here may be missing: nothing can be said of reads before it.
    floor: Tick,
}

impl Recent {
    /// Knows of no write before `floor`.
    pub(crate) fn since(floor: Tick) -> Self {
        Self { floor, ..Self::default() }
    }

    pub(crate) fn note(&mut self, key: &Bytes, tick: Tick) {
        if let Some(old) = self.writes.insert(key.clone(), tick) {
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((tick, key.clone()));
    }

    /// Forgets what no layer needs, since all of them read later than `oldest`; and the oldest writes beyond `max`,
    /// at the expense of the layers that have read before these.
    pub(crate) fn trim(&mut self, oldest: Option<Tick>, max: usize) {
        while let Some((tick, _)) = self.order.first() {
            if self.order.len() <= max && oldest.is_some_and(|oldest| *tick > oldest) {
                break;
            }
            if let Some((tick, key)) = self.order.pop_first() {
                self.writes.remove(&key);
                self.floor = tick;
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }

    /// The write of `key` at `tick` is known, or would be without having been trimmed.
    pub(crate) fn covers(&self, key: &Bytes, tick: Tick) -> bool {
        tick <= self.floor || self.writes.get(key) == Some(&tick)
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.writes.len(), self.order.len(), "each write has one place in the order");
        for (tick, key) in &self.order {
            assert_eq!(self.writes.get(key), Some(tick), "the order is that of the writes");
            assert!(*tick >= self.floor, "nothing is kept from before the floor");
        }
    }
}

impl Log for Recent {
    fn wrote(&self, key: &Bytes, since: Tick) -> bool {
        since < self.floor || self.writes.get(key).is_some_and(|&tick| tick > since)
    }

    fn wrote_within(&self, span: &Span, since: Tick) -> bool {
        since < self.floor
            || self
                .writes
                .range::<[u8], _>((Bound::Included(&span.start[..]), Bound::Excluded(&span.end[..])))
                .any(|(_, &tick)| tick > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn only_later_writes_count() {
        let mut recent = Recent::since(Tick(1));
        recent.note(&key("a"), Tick(3));
        recent.note(&key("a"), Tick(5));
        assert!(recent.wrote(&key("a"), Tick(4)));
        assert!(!recent.wrote(&key("a"), Tick(5)));
        assert!(!recent.wrote(&key("b"), Tick(1)));
        assert!(recent.wrote(&key("b"), Tick(0)), "before the floor nothing is known");
        let span = |start, end| Span { start: key(start), end: key(end) };
        assert!(recent.wrote_within(&span("a", "b"), Tick(4)));
        assert!(!recent.wrote_within(&span("b", "c"), Tick(4)));
        recent.check_invariants();
    }

    #[test]
    fn trimming_raises_the_floor() {
        let mut recent = Recent::since(Tick(0));
        for (text, tick) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            recent.note(&key(text), Tick(tick));
        }
        recent.trim(Some(Tick(2)), 10);
        assert_eq!(recent.len(), 2, "a layer that began at 2 needs what came after");
        assert!(!recent.wrote(&key("a"), Tick(2)));
        assert!(recent.wrote(&key("c"), Tick(2)));
        recent.trim(Some(Tick(2)), 1);
        assert!(recent.wrote(&key("a"), Tick(2)), "beyond the bound, early readers pay");
        assert!(!recent.wrote(&key("a"), Tick(3)));
        recent.trim(None, 10);
        assert_eq!(recent.len(), 0, "nobody is open, nobody asks");
        recent.check_invariants();
    }
}
