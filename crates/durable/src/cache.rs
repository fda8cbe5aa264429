//! Committed records of owned partitions, least recently used out first, so that hot reads need no store.
//!
//! A cached record is what the store has, as far as answered commits go: each commit is written through, a read
//! from the store is kept only if the record has not been written since it was asked for, and a partition that is
//! lost is forgotten.

use bytes::Bytes;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use lru::LruCache;

use crate::batch::PartitionId;
use crate::record::Record;

/// What an entry takes beside its key and value, roughly.
const ENTRY_BYTES: usize = 200;
/// A record may take at most this share of the cache.
const SHARE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache {
    /// By record key, which belongs to one partition.
    entries: LruCache<Bytes, Entry, SeedableRandomState>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    partition: PartitionId,
    /// `None`: known to be absent.
    record: Option<Record>,
}

impl Cache {
    /// `seed` should be hard to guess: those who choose keys could make them collide.
    pub(crate) fn new(bytes_max: usize, seed: u64) -> Self {
        let hasher = SeedableRandomState::with_seed(seed, SharedSeed::global_fixed());
        Self { entries: LruCache::unbounded_with_hasher(hasher), bytes: 0, bytes_max }
    }

    /// The record, or `Some(None)` if it is known to be absent.
    pub(crate) fn find(&mut self, key: &Bytes) -> Option<Option<Record>> {
        self.entries.get(key).map(|entry| entry.record.clone())
    }

    pub(crate) fn put(&mut self, partition: PartitionId, key: &Bytes, record: Option<Record>) {
        let bytes = entry_bytes(key, record.as_ref());
        if bytes > self.bytes_max / SHARE {
            self.remove(key);
            return;
        }
        // The value may be a slice of something larger, such as a whole batch from a socket: keep no more than it.
        let record =
            record.map(|Record { version, value }| Record { version, value: Bytes::copy_from_slice(&value) });
        self.bytes += bytes;
        if let Some((key, old)) = self.entries.push(key.clone(), Entry { partition, record }) {
            self.bytes -= entry_bytes(&key, old.record.as_ref());
        }
        while self.bytes > self.bytes_max
            && let Some((key, oldest)) = self.entries.pop_lru()
        {
            self.bytes -= entry_bytes(&key, oldest.record.as_ref());
        }
    }

    /// Walks all of it: a partition is rarely lost.
    pub(crate) fn forget(&mut self, partition: PartitionId) {
        let lost = self.entries.iter().filter(|(_, entry)| entry.partition == partition);
        let lost: Vec<Bytes> = lost.map(|(key, _)| key.clone()).collect();
        for key in lost {
            self.remove(&key);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PartitionId, &Bytes)> {
        self.entries.iter().map(|(key, entry)| (entry.partition, key))
    }

    pub(crate) fn check_invariants(&self) {
        let bytes: usize =
            self.entries.iter().map(|(key, entry)| entry_bytes(key, entry.record.as_ref())).sum();
        assert_eq!(bytes, self.bytes, "a cache knows its size");
        assert!(self.bytes <= self.bytes_max, "a cache keeps its bound");
    }

    fn remove(&mut self, key: &Bytes) {
        if let Some(entry) = self.entries.pop(key) {
            self.bytes -= entry_bytes(key, entry.record.as_ref());
        }
    }
}

fn entry_bytes(key: &Bytes, record: Option<&Record>) -> usize {
    ENTRY_BYTES + key.len() + record.map_or(0, |record| record.value.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Version;

    #[test]
    fn the_least_recently_used_goes_first() {
        let (here, there) = (PartitionId(1), PartitionId(2));
        let record = || Some(Record { version: Version(1), value: Bytes::from(vec![0; 50]) });
        let mut cache = Cache::new(16 * 260, 7);
        let keys: Vec<Bytes> = (0..17u8).map(|n| Bytes::from(vec![n])).collect();
        for key in &keys[..16] {
            cache.put(here, key, record());
        }
        assert!(cache.find(&keys[0]).is_some());
        cache.put(here, &keys[16], None);
        assert!(cache.find(&keys[0]).is_some(), "just used");
        assert_eq!(cache.find(&keys[16]), Some(None));
        assert_eq!(cache.find(&keys[1]), None, "the oldest made room");
        cache.put(there, &Bytes::from_static(b"more"), record());
        cache.put(here, &keys[0], Some(Record { version: Version(2), value: Bytes::from(vec![0; 5000]) }));
        assert_eq!(cache.find(&keys[0]), None, "too large to keep, and the old one is outdated");
        cache.forget(here);
        assert_eq!(cache.iter().count(), 1);
        cache.check_invariants();
    }
}
