//! Writes that are not in the store yet, by record key: those of a layer, or those of a partition's batches.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::batch::Seq;
use crate::reads::{Log, Span, Tick};
use crate::record::{self, Record, Version};

/// The last write of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// `None`: deleted.
    pub(crate) value: Option<Bytes>,
    /// When.
    pub(crate) tick: Tick,
    /// [`Version::NONE`] in a layer.
    pub(crate) version: Version,
}

impl Write {
    pub(crate) fn record(&self) -> Option<Record> {
        self.value.clone().map(|value| Record { version: self.version, value })
    }
}

/// The last write of each key.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    rows: BTreeMap<Bytes, Write>,
    bytes: usize,
}

impl Overlay {
    pub(crate) fn put(&mut self, key: Bytes, write: Write) {
        self.bytes += row_bytes(&key, write.value.as_ref());
        if let Some(old) = self.rows.insert(key.clone(), write) {
            self.bytes -= row_bytes(&key, old.value.as_ref());
        }
    }

    /// Forgets the write of `key` if it is the one of `version`.
    pub(crate) fn settle(&mut self, key: &Bytes, version: Version) {
        if self.rows.get(key).is_some_and(|write| write.version == version)
            && let Some(old) = self.rows.remove(key)
        {
            self.bytes -= row_bytes(key, old.value.as_ref());
        }
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<&Write> {
        self.rows.get(key)
    }

    pub(crate) fn within(&self, span: &Span) -> impl Iterator<Item = (&Bytes, &Write)> {
        self.rows.range::<[u8], _>((Bound::Included(&span.start[..]), Bound::Excluded(&span.end[..])))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Write)> {
        self.rows.iter()
    }

    pub(crate) fn into_rows(self) -> impl Iterator<Item = (Bytes, Write)> {
        self.rows.into_iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Of keys and of values as they are stored.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn check_invariants(&self) {
        let bytes: usize = self.rows.iter().map(|(key, write)| row_bytes(key, write.value.as_ref())).sum();
        assert_eq!(bytes, self.bytes, "an overlay knows its size");
    }
}

impl Log for Overlay {
    fn wrote(&self, key: &Bytes, since: Tick) -> bool {
        self.rows.get(key).is_some_and(|write| write.tick > since)
    }

    fn wrote_within(&self, span: &Span, since: Tick) -> bool {
        self.within(span).any(|(_, write)| write.tick > since)
    }
}

/// The highest batch that a read of these writes rests on.
pub(crate) fn rests_on<'a>(writes: impl Iterator<Item = &'a Write>) -> Seq {
    writes.map(|write| write.version.seq()).max().unwrap_or_default()
}

/// What a write takes of a batch.
pub(crate) fn row_bytes(key: &Bytes, value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, |value| record::HEADER_BYTES + value.len())
}
