//! What a partition asks of a store, and what the store answers. `bourse-store` carries it out.
//!
//! ```text
//! partition -> store: Batch          one partition's next change, conditional on its owner record
//! store -> partition: Outcome        committed, not committed, or nobody knows
//! ```

use bytes::Bytes;

/// One of the 256 shards of durable state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionId(pub u8);

/// Grows with every change of a partition's owner. A batch of an older fence never lands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// Grows by one with every batch of a partition, across owners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(pub u64);

/// Who owns a partition, and how far it has come. The one record that every batch expects and replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The incarnation of the owning node.
    pub node: u64,
    /// Since which change of owner.
    pub fence: Fence,
    /// The last batch that landed.
    pub seq: Seq,
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write a record, whether or not there is one.
    Put {
        /// At most [`KEY_BYTES_MAX`] bytes.
        key: Bytes,
        /// At most [`VALUE_BYTES_MAX`] bytes.
        value: Bytes,
    },
    /// Remove a record, if there is one.
    Delete {
        /// The record's key.
        key: Bytes,
    },
}

/// One atomic, conditional change of one partition: if the owner record is `expect`, it becomes `owner` and all
/// `ops` are applied in order; else nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which partition.
    pub partition: PartitionId,
    /// The owner record as it must be; `None`: there is none yet.
    pub expect: Option<Owner>,
    /// The owner record as it becomes.
    pub owner: Owner,
    /// The changes, in order.
    pub ops: Vec<Op>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the store, as durably as the store promises.
    Committed,
    /// The owner record was another; nothing was changed.
    Conflict,
    /// It certainly was not applied and never will be. The text is for the operator.
    Failed(String),
    /// It may have been applied, or may still be: only a batch of a higher fence makes it certain.
    Unknown(String),
}

/// A store could not read. The text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store could not read: {0}")]
pub struct ReadError(pub String);

/// The longest record key, in bytes.
pub const KEY_BYTES_MAX: usize = 2048;
/// The longest record value, in bytes.
pub const VALUE_BYTES_MAX: usize = 17 * 1024 * 1024;
/// The most operations of one batch.
pub const BATCH_OPS_MAX: usize = 10_000;
/// The most bytes of keys and values of one batch.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
