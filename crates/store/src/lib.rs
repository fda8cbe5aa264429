//! Where durable state rests: the `Store` contract, its backends, and the suite that every backend passes.
//!
//! ```text
//! owner of a partition -> store: commit(batches)      each atomic, each conditional on its owner record
//! store -> owner of a partition: Outcome, one by one  only `Committed` may be built upon
//! owner of a partition -> reader: owner, read, scan   sees everything that was answered `Committed` before
//! ```
//!
//! A store is blocking and lives on a thread of its own; its readers may live on others. It decides nothing: it
//! knows no call, no lease and no clock, expires nothing, and never retries a batch whose outcome is unknown.
//! [`conformance`] says the contract as code, [`Faulty`] breaks a store in the ways that the world does, and [`Recorded`]
//! writes down what happens to one.

pub mod bounds;
pub mod conformance;
pub mod faulty;
mod memory;
pub mod recorded;
pub mod sqlite;

use std::fmt;
use std::ops::Bound;

use bourse_durable::batch::{Batch, Outcome, Owner, PartitionId, ReadError};
use bytes::Bytes;

pub use faulty::Faulty;
pub use memory::Memory;
pub use recorded::Recorded;
pub use sqlite::Sqlite;

/// Holds the records of all partitions, and changes those of one partition together or not at all.
pub trait Store: Send {
    /// Carries out batches and answers each, in their order; returns once all that is answered `Committed` is
    /// as durable as [`Store::durability`] says. Batches that are passed together may share one sync to disk.
    ///
    /// Each batch stands alone: another's conflict or failure does not touch it. Batches of one partition may
    /// be chained, each expecting the owner record that the one before it leaves.
    ///
    /// - [`Outcome::Committed`]: the owner record was as expected, and the whole batch is in.
    /// - [`Outcome::Conflict`]: it was another, and nothing of the batch is in.
    /// - [`Outcome::Failed`]: nothing of it is in, nor ever will be; beyond a bound of [`bounds`], disk full, …
    /// - [`Outcome::Unknown`]: all of it or nothing is in, or may yet come in, unless somebody else changes the
    ///   owner record first.
    #[must_use = "a batch is in only if its outcome says so"]
    fn commit(&mut self, batches: &[Batch]) -> Vec<Outcome>;

    /// Another pair of eyes on the same records, for any thread. It may outlive the store, whose lock on the
    /// data it does not hold.
    fn reader(&self) -> Result<Box<dyn Reader>, ReadError>;

    /// Which store this is; never changes. Two daemons with different ids do not share one grid.
    fn id(&self) -> StoreId;

    /// What `Committed` survives.
    fn durability(&self) -> Durability;
}

/// Reads records.
///
/// Every read sees each batch that was answered `Committed` before the read began, and of every batch all or
/// nothing. Two reads are two moments.
pub trait Reader: Send {
    /// The owner record of a partition; `None` if there never was a batch.
    fn owner(&mut self, partition: PartitionId) -> Result<Option<Owner>, ReadError>;

    /// The value of one record.
    fn read(&mut self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// The records of a range in the byte order of their keys, from its beginning, as many as the limit allows.
    fn scan(&mut self, partition: PartitionId, range: &Range, limit: Limit) -> Result<Page, ReadError>;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn commit(&mut self, batches: &[Batch]) -> Vec<Outcome> {
        (**self).commit(batches)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        (**self).reader()
    }

    fn id(&self) -> StoreId {
        (**self).id()
    }

    fn durability(&self) -> Durability {
        (**self).durability()
    }
}

/// Names one store: 16 random bytes, made when the store is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// One that no other store has, from the operating system's entropy.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().into_bytes())
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// What a batch survives once it has been answered `Committed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Loss of power: it has been synced to the disk.
    Synced,
    /// The end of the process, but not loss of power: the operating system has it.
    OsCache,
    /// Nothing: it is gone with the process.
    Memory,
    /// Loss of power, but a failover to a replica may lose it.
    FailoverMayLose,
}

/// A part of a partition's keys. One that ends before it begins is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub from: Bound<Bytes>,
    /// Where it ends.
    pub until: Bound<Bytes>,
}

impl Range {
    /// All keys.
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, until: Bound::Unbounded }
    }

    /// All keys that begin with these bytes.
    pub fn prefix(prefix: &[u8]) -> Self {
        // The first key past a prefix is the prefix with its last byte that can grow, grown, and cut there.
        let until = match prefix.iter().rposition(|byte| *byte != 0xff) {
            Some(last) => {
                let mut past = prefix[..=last].to_vec();
                past[last] += 1;
                Bound::Excluded(past.into())
            }
            None => Bound::Unbounded,
        };
        Self { from: Bound::Included(Bytes::copy_from_slice(prefix)), until }
    }

    /// What is left of the range after `key`: the next page begins after the last key of this one.
    pub fn after(self, key: Bytes) -> Self {
        Self { from: Bound::Excluded(key), ..self }
    }
}

/// How much one scan returns at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The most rows.
    pub rows: usize,
    /// The most bytes of keys and values together; a first row beyond it is returned all the same.
    pub bytes: usize,
}

impl Limit {
    /// So many rows, and at most 8 MiB.
    pub fn rows(rows: usize) -> Self {
        Self { rows, bytes: 8 * 1024 * 1024 }
    }

    /// Whether one more row fits on a page of `rows` rows and `bytes` bytes.
    fn admits(self, page: &Page, bytes: usize, row_bytes: usize) -> bool {
        let rows = page.rows.len();
        rows < self.rows && (rows == 0 || bytes + row_bytes <= self.bytes)
    }
}

/// What a scan returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and values, in the byte order of the keys.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Whether the range holds more, past the last of these rows.
    pub more: bool,
}

impl Page {
    /// Takes rows in their order for as long as the limit allows. The first that it does not allow ends it.
    fn take<E>(rows: impl IntoIterator<Item = Result<(Bytes, Bytes), E>>, limit: Limit) -> Result<Self, E> {
        let mut page = Self::default();
        let mut bytes = 0;
        for row in rows {
            let (key, value) = row?;
            let row_bytes = key.len() + value.len();
            if !limit.admits(&page, bytes, row_bytes) {
                page.more = true;
                break;
            }
            bytes += row_bytes;
            page.rows.push((key, value));
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_can_have_it() {
        let until = |prefix: &[u8]| Range::prefix(prefix).until;
        assert_eq!(until(b"ab"), Bound::Excluded(Bytes::from_static(b"ac")));
        assert_eq!(until(b"a\xff\xff"), Bound::Excluded(Bytes::from_static(b"b")));
        assert_eq!(until(b"\xff"), Bound::Unbounded);
        assert_eq!(until(b""), Bound::Unbounded);
    }

    #[test]
    fn ids_are_random_and_read_as_hex() {
        assert_ne!(StoreId::random(), StoreId::random());
        assert_eq!(StoreId([0xa0; 16]).to_string(), "a0".repeat(16));
    }
}
