//! Every byte format of Bourse, and the few types that all crates share.
//!
//! | module | holds |
//! |---|---|
//! | [`v1`] | the worker protocol, generated from `proto/bourse/v1/worker.proto` |
//! | [`keeper`] | the daemon's protocol with its keeper, from `keeper.proto` |
//! | [`record`] | what a store holds of durable calls, from `record.proto` |
//! | [`peer`] | the protocol between nodes, from `peer.proto` |
//! | [`header`] | header frames: bounded decoding and encoding |
//! | [`beacon`] | what nodes say to find each other, in a datagram each |
//! | [`id`] | call ids and the other names of things |
//! | [`value`] | CBOR and JSON, and the way between them |
//! | [`arguments`] | a call's arguments: positional and named |
//! | [`failure`] | the typed errors that a caller can see |
//! | [`time`] | the two clocks, as numbers, and durations as text |
//! | [`options`] | options of functions that have a shape of their own |
//! | [`nearest`] | names that were perhaps meant |
//!
//! Pure: nothing here does I/O, reads a clock or draws entropy. Bytes from outside never panic; they decode
//! or they give an [`header::Error`] or [`value::Error`].

pub mod arguments;
pub mod beacon;
pub mod failure;
pub mod header;
pub mod id;
pub mod nearest;
pub mod options;
pub mod time;
pub mod value;

/// The worker protocol (`proto/bourse/v1/worker.proto`).
#[expect(missing_docs, clippy::all, reason = "generated; documented in the .proto")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/bourse.v1.rs"));
}

/// The keeper's protocol (`proto/bourse/v1/keeper.proto`).
pub mod keeper {
    /// Version 1.
    #[expect(missing_docs, reason = "generated; documented in the .proto")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bourse.keeper.v1.rs"));
    }
}

/// Records of durable calls (`proto/bourse/v1/record.proto`).
pub mod record {
    /// Version 1.
    #[expect(missing_docs, clippy::all, reason = "generated; documented in the .proto")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bourse.record.v1.rs"));
    }
}

/// The peer protocol (`proto/bourse/v1/peer.proto`).
pub mod peer {
    /// Version 1.
    #[expect(missing_docs, reason = "generated; documented in the .proto")]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bourse.peer.v1.rs"));
    }
}

/// The version of the peer protocol that this release speaks.
pub const PEER_VERSION: u32 = 1;

/// The version of the worker protocol that this release speaks.
pub const PROTOCOL_VERSION: u32 = 1;
