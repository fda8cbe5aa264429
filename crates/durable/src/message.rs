//! What goes in and out of [`crate::Durable`].

use bourse_wire::id::{Attempt, CallId};
use bytes::Bytes;

use crate::batch::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, Batch, Outcome, Owner, PartitionId, ReadError, VALUE_BYTES_MAX,
};
use crate::home::{Home, StateKey};
use crate::record::{self, Record, STATE_VALUE_BYTES_MAX, Version};
use crate::work::Seen;

/// The state transaction of one attempt of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerId {
    /// The call.
    pub call: CallId,
    /// Which attempt of it.
    pub attempt: Attempt,
}

/// Who makes a request.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The attempt that makes it. Its layer opens with its first request.
    pub layer: LayerId,
    /// The attempts that wait for it, nearest first. Only looked at when the layer opens.
    pub ancestors: &'a [LayerId],
}

/// Names a read, scan or finish, so that its answer is known. Chosen by the node; answered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names a request to the store, so that its answer is known. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// For the store. Answer each with [`crate::Durable::store_answer`], in any order; a read or scan that is handed
    /// to the store after a commit was answered must see that commit.
    Store {
        /// To be given back with the answer.
        token: Token,
        /// What is asked.
        request: StoreRequest,
    },
    /// For the node: a call has ended without any of its attempts knowing, or it was not known how it stands. Now a look
    /// can tell.
    Known {
        /// Which.
        call: CallId,
    },
    /// For the node: a call that is not durable holds the key that it waited for.
    Granted {
        /// Which.
        call: CallId,
        /// Greater than that of all before with the same key.
        fence: u64,
    },
    /// For the node: this call waits for a key whose holder waits for it. It is to be given up.
    Deadlock {
        /// Which.
        call: CallId,
        /// Who waits for whom, as a sentence.
        circle: String,
    },
    /// For the node.
    Answer {
        /// Of the read, scan or finish.
        ticket: Ticket,
        /// What came of it.
        answer: Answer,
    },
}

/// What a store is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRequest {
    /// Answered by [`StoreAnswer::Committed`].
    Commit(Batch),
    /// The partition's owner record. Answered by [`StoreAnswer::Owner`].
    Owner(PartitionId),
    /// One record. Answered by [`StoreAnswer::Read`].
    Read {
        /// Where.
        partition: PartitionId,
        /// The record's key.
        key: Bytes,
    },
    /// Records in byte order, `start` included and `end` excluded. Answered by [`StoreAnswer::Scanned`].
    Scan {
        /// Where.
        partition: PartitionId,
        /// The first key that may be there.
        start: Bytes,
        /// The first key that is too far.
        end: Bytes,
        /// At most so many, and at least 1.
        rows_max: usize,
        /// No further row once keys and values have so many bytes. The first row comes whatever its size.
        bytes_max: usize,
    },
}

/// What a store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// What became of a batch.
    Committed(Outcome),
    /// The owner record, if there is one.
    Owner(Result<Option<Owner>, ReadError>),
    /// The record, if there is one.
    Read(Result<Option<Bytes>, ReadError>),
    /// Records, in order.
    Scanned(Result<StorePage, ReadError>),
}

/// A part of a range of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorePage {
    /// Keys and values, in byte order of the keys.
    pub rows: Vec<(Bytes, Bytes)>,
    /// A bound was reached: there may be more after the last row. Never set without a row.
    pub more: bool,
}

/// What comes of a read, a scan or a finish.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of a read: the record, or that there is none.
    Value(Option<Record>),
    /// Of a scan.
    Page(Page),
    /// Of a finish, and of what could not be accepted.
    Finished(Finished),
    /// Of an accept: it is in the store.
    Accepted {
        /// The call; another one, if that has the same idempotency key.
        call: CallId,
        /// It is this one.
        first: bool,
    },
    /// Of a look, a cancel, a replay or a purge: how the call stands.
    Seen(Box<Seen>),
    /// Of a read or scan: not allowed, or no room.
    Refused(Refusal),
    /// Of a read or scan: the store is away. The text is for the operator.
    StoreFailed(String),
    /// Of a read or scan: what is stored does not decode.
    Corrupt(record::Error),
}

/// A part of a scope's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In byte order of their names.
    pub rows: Vec<Row>,
    /// There is more after the last row.
    pub more: bool,
}

/// One record of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The state key's name: scope and rest.
    pub name: String,
    /// As in [`Record::version`].
    pub version: Version,
    /// Empty where only keys were asked for.
    pub value: Bytes,
}

/// What a finish comes to.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It is decided; no answer will come.
    Now(Finished),
    /// The answer will come, with the ticket.
    Later,
}

/// What became of a layer.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It took effect: it is in the store, or in the ancestor's layer that it was stacked on.
    Done,
    /// Something that it read has changed since. Nothing took effect: run the call again.
    Conflict,
    /// The partition was lost underneath, or the ancestor's layer ended. Nothing took effect: run the call again.
    Lost,
    /// The store does not take it, or cannot be reached. Nothing took effect. The text is for the operator.
    StoreFailed(String),
    /// It may have taken effect or not, and nobody can tell yet. The text is for the operator.
    Unknown(String),
    /// Not allowed, or no room. Nothing took effect.
    Refused(Refusal),
}

/// A request that is not allowed, or for which there is no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The layer has its home elsewhere, and writes go to one home only.
    #[error("{key} cannot be written by a call whose home is {home}")]
    NotHome {
        /// The layer's home: the scope of the first key that it touched.
        home: Box<Home>,
        /// The key that was to be written.
        key: Box<StateKey>,
    },
    /// The layer's partition was lost, or the layer that it was stacked on has ended, or it has ended itself.
    #[error("this attempt's state is gone")]
    Gone,
    /// [`Limits::layers_max`](crate::Limits::layers_max) was reached.
    #[error("too many calls use state at once")]
    TooManyLayers,
    /// [`Limits::reads_per_layer_max`](crate::Limits::reads_per_layer_max) was reached.
    #[error("one call reads too many state records")]
    TooManyReads,
    /// More than [`BATCH_OPS_MAX`] writes in one layer.
    #[error("one call writes more than {BATCH_OPS_MAX} state records")]
    TooManyWrites,
    /// More than [`BATCH_BYTES_MAX`] of keys and values in one layer.
    #[error("one call writes more than {BATCH_BYTES_MAX} bytes of state")]
    TooManyBytes,
    /// A durable call, or its result, with a record longer than a store takes.
    #[error("a durable call and its result have at most {VALUE_BYTES_MAX} bytes each, this one has {0}")]
    RecordTooLong(usize),
    /// A value longer than [`STATE_VALUE_BYTES_MAX`].
    #[error("a state value has at most {STATE_VALUE_BYTES_MAX} bytes")]
    ValueTooLong,
    /// [`Limits::reads_waiting_max`](crate::Limits::reads_waiting_max),
    /// [`Limits::finishes_waiting_max`](crate::Limits::finishes_waiting_max) or
    /// [`Limits::batches_waiting_max`](crate::Limits::batches_waiting_max) was reached: the store is behind.
    #[error("the store is behind: too much waits for it")]
    Behind,
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotHome { .. } => {
                "A call writes the scope that it touches first, and no other: call a function that writes the other one."
            }
            Self::Gone => "The call is run again by itself.",
            Self::TooManyLayers => "Run fewer calls at once.",
            Self::TooManyReads => "Read less in one call: split the work into nested calls of other scopes.",
            Self::TooManyWrites | Self::TooManyBytes => {
                "Write less in one call: split the work into several calls."
            }
            Self::RecordTooLong(_) => {
                "Keep large arguments and results in state, or elsewhere, and pass where they are."
            }
            Self::ValueTooLong => "Split the value into several keys of the same scope.",
            Self::Behind => "Try again later; if it persists, the store is slower than the work.",
        }
    }
}
