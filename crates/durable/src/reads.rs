//! What a layer has read, and whether any of it has been written since. The one rule of validation, for a layer
//! that is committed (against the partition's recent writes) and for one that is merged (against the writes of the
//! layer below).

use std::collections::BTreeMap;

use bytes::Bytes;

/// A moment, counted in writes: every write of a layer, every merge and every accepted layer makes a new one.
/// Finer than a batch's sequence number, so that layers which share a batch can be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u64);

impl Tick {
    /// Moves on, and is the new moment.
    pub(crate) fn advance(&mut self) -> Self {
        self.0 += 1;
        *self
    }
}

/// Record keys in byte order, `start` included and `end` excluded. `start` is not above `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Bytes,
    pub(crate) end: Bytes,
}

/// Writes, as far as validation asks for them.
pub(crate) trait Log {
    /// Was `key` written after `since`, or can it not be told?
    fn wrote(&self, key: &Bytes, since: Tick) -> bool;
    /// Was any key in `span`?
    fn wrote_within(&self, span: &Span, since: Tick) -> bool;
}

/// When a value was current: at some moment from `from` to `to`. Validation counts from `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) from: Tick,
    pub(crate) to: Tick,
}

impl Moment {
    pub(crate) fn exactly(tick: Tick) -> Self {
        Self { from: tick, to: tick }
    }
}

/// The reads of one layer.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The earliest read of each key counts.
    keys: BTreeMap<Bytes, Tick>,
    spans: Vec<(Span, Tick)>,
    /// Covers every read.
    moment: Option<Moment>,
}

impl Reads {
    pub(crate) fn add_key(&mut self, key: Bytes, moment: Moment) {
        let from = self.keys.entry(key).or_insert(moment.from);
        *from = moment.from.min(*from);
        self.widen(moment);
    }

    pub(crate) fn add_span(&mut self, span: Span, moment: Moment) {
        self.spans.push((span, moment.from));
        self.widen(moment);
    }

    /// Takes over the reads of a layer that is merged, except those of keys that `below` had written: they rest on
    /// nothing underneath it.
    pub(crate) fn merge(&mut self, above: Self, below: impl Fn(&Bytes) -> bool) {
        for (key, tick) in above.keys {
            if !below(&key) {
                let from = self.keys.entry(key).or_insert(tick);
                *from = tick.min(*from);
            }
        }
        self.spans.extend(above.spans);
        if let Some(moment) = above.moment {
            self.widen(moment);
        }
    }

    /// Has anything of it been written since it was read?
    pub(crate) fn outdated(&self, log: &impl Log) -> bool {
        self.keys.iter().any(|(key, &tick)| log.wrote(key, tick))
            || self.spans.iter().any(|(span, tick)| log.wrote_within(span, *tick))
    }

    /// All of it was current at one moment: who has written nothing took effect then, whatever came later.
    pub(crate) fn of_one_moment(&self) -> bool {
        self.moment.is_none_or(|moment| moment.from == moment.to)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len() + self.spans.len()
    }

    fn widen(&mut self, moment: Moment) {
        let all = self.moment.get_or_insert(moment);
        *all = Moment { from: all.from.min(moment.from), to: all.to.max(moment.to) };
    }
}
