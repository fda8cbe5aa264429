//! The keyed partition: state that changes in transactions. Pure.
//!
//! ```text
//! node -> durable: read, scan, write         by one attempt of one call (its *layer*)
//! node -> durable: finish, abandon           the attempt returned, or failed
//! durable -> node: Answer                    a value, a page, what became of a finish, or a refusal
//! durable -> store: StoreRequest             commit, owner, read, scan
//! store -> durable: StoreAnswer
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`message`] | what goes in and out |
//! | [`batch`] | what a store is asked to change |
//! | [`home`] | state keys, scopes, and their partitions |
//! | [`record`] | the bytes of a state record |
//! | [`limits`] | every bound, by name |
//! | `durable` | [`Durable`]: finds the layer and the partition, carries answers; reads on their way |
//! | `layer` | transactions, and how one is stacked on another |
//! | `ownership` | how a partition is acquired, lost and acquired again |
//! | `partition` | validation and the batches on their way |
//! | [`work`] | durable calls |
//! | `reads`, `recent`, `overlay`, `scan`, `cache` | the parts of these |
//!
//! # What holds
//!
//! * **Serialisable within a home.** A layer's reads are remembered and compared, when it finishes, with what has
//!   been written since. [`Finished::Done`] means that the layer took effect at that moment, alone.
//! * **Persist before acknowledge.** `Done` of a layer that is not stacked on another is said only when the batch
//!   with its writes, and every batch that its reads rest on, is in the store.
//! * **A nested call at an ancestor's home joins the ancestor.** Its layer is stacked on the ancestor's: it sees
//!   what that has written, and its own reads and writes become the ancestor's when it finishes. Siblings are
//!   validated against each other. An ancestor's own requests are not validated against its descendants': it is
//!   expected to wait for a call before it builds on what the call changes.
//! * **Reads of another home are plain reads of what is committed there.** They are not validated, see nothing
//!   uncommitted, and two of them may be of different moments.
//!
//! # What it never does
//!
//! No I/O, no clock, no entropy, no waiting. Its back-off has no jitter. It does not rerun anything: a conflict is
//! the node's to count. It never answers a ticket twice, nor leaves one unanswered.

pub mod batch;
mod cache;
mod durable;
pub mod home;
mod layer;
pub mod limits;
pub mod message;
#[doc(hidden)]
pub mod mutant;
mod outbox;
mod overlay;
mod ownership;
mod partition;
mod reads;
mod recent;
pub mod record;
mod scan;
pub mod work;

pub use durable::Durable;
pub use limits::Limits;
pub use message::{
    Answer, Finish, Finished, LayerId, Origin, Output, Refusal, StoreAnswer, StoreRequest, Ticket, Token,
};
pub use scan::{SCAN_BYTES_MAX, SCAN_ROWS_DEFAULT, SCAN_ROWS_MAX};
