//! Carries frames between processes and knows no protocol.
//!
//! A frame is a header and a payload, two byte strings. Frames travel on *connections*: a [`Connection`] is a
//! number for one life of one peer at one end, never used twice. Whoever speaks a protocol sits above and sees:
//!
//! ```text
//! Opened, Frame*, [Broken], Closed          for every connection, in this order
//! ```
//!
//! - `Closed` comes after every frame of its connection that will ever be handed in, and exactly once.
//! - Frames of one connection arrive in the order in which they were sent. A connection that ends may take the
//!   last frames with it, in both directions: what was sent to a peer that went is of unknown outcome.
//! - `send` never waits. What it accepts may still be lost with the connection; what it refuses was not sent.
//! - A name that a peer gives itself (its ZeroMQ identity) is used for routing alone and is not shown. When two
//!   connections claim the same one the newer wins, and the older ends.
//!
//! There are three carriers behind the one trait [`Transport`]: [`Router`] is the end that others connect to and
//! [`Dealer`] the end that connects, both ZeroMQ over ipc or tcp; [`memory::Port`] is either, inside one process.
//!
//! All of it runs on a *current-thread* tokio runtime, inside which every method must be called. Nothing here
//! reads a frame, decides who may speak (but for CURVE keys), retries, or buffers beyond [`Bounds`].
//!
//! Why it is made this way, with measurements: `docs/design/transport.md`.

mod curve;
mod dealer;
mod endpoint;
mod error;
pub mod memory;
mod message;
mod options;
mod router;

use std::future::Future;

use bytes::Bytes;

pub use curve::{Allowed, Curve, Key, KeyPair};
pub use dealer::{Dealer, DealerOptions, Line, NOT_ADMITTED};
pub use endpoint::{Carrier, Endpoint, IPC_PATH_BYTES_MAX, sweep};
pub use error::{BindError, ConnectError, EndpointError, HexError, KeyError, SendError};
pub use options::{
    Bounds, CLOSE_LINGER_MS, CONNECTIONS_MAX, HANDSHAKE_MS_MAX, HANDSHAKES_MAX, RECV_FRAMES_MAX,
    RouterOptions, SEND_FRAMES_MAX,
};
pub use router::Router;

/// One life of one peer, as one end of the transport counts it. Never used twice, so what is known about a
/// connection can be kept under this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// What happened on the connections of one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer is there and can be sent to. `key` is the CURVE key it has proved to hold, if CURVE is in use.
    Opened {
        /// The new connection.
        connection: Connection,
        /// The peer's public key, verified; `None` without CURVE.
        key: Option<Key>,
    },
    /// A frame arrived.
    Frame {
        /// Where from.
        connection: Connection,
        /// The first part of the message.
        header: Bytes,
        /// The second part; empty if there was none.
        payload: Bytes,
    },
    /// The connection ended otherwise than in order. `Closed` follows at once.
    Broken {
        /// The connection that ends.
        connection: Connection,
        /// For the operator's log: a violation of the framing, a frame beyond the bound, a reset, silence.
        reason: String,
    },
    /// The connection is gone, and nothing more will come from it.
    Closed {
        /// The connection that was.
        connection: Connection,
    },
}

/// One end of the transport.
pub trait Transport {
    /// Sends a frame, or says at once why not. Never waits.
    fn send(&mut self, connection: Connection, header: Bytes, payload: Bytes) -> Result<(), SendError>;

    /// Ends a connection. What was sent to it before has [`CLOSE_LINGER_MS`] to leave; what it sent and was not
    /// handed in yet is dropped. `Closed` is the next and last that is heard of it. Unknown ones are ignored.
    fn close(&mut self, connection: Connection);

    /// Waits until something happened and appends it to `events`, all that is there. Cancel-safe: what a
    /// dropped call had found is handed in by the next one.
    fn recv(&mut self, events: &mut Vec<Event>) -> impl Future<Output = ()>;
}
