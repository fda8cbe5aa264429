//! What both ZeroMQ ends share: reading a message as a frame, and writing one.

use bytes::Bytes;
use omq_tokio::{Message, PeerInfo, PeerPublicKey};

use crate::Key;

/// Messages taken per wake. The library stops earlier once about 2 MiB were taken.
pub(crate) const MESSAGES_PER_WAKE: usize = 256;

/// A message, read as a frame.
pub(crate) enum Content {
    /// `ZMQ_PROBE_ROUTER`: says that a peer is there, which is known already.
    Probe,
    /// One or two parts.
    Frame { header: Bytes, payload: Bytes },
    /// More parts than a frame has.
    Violation { parts: usize },
}

/// Reads the parts of `message` after the first `skip` ones.
pub(crate) fn read(message: &Message, skip: usize) -> Content {
    let part = |index: usize| message.part_bytes(skip + index).unwrap_or_default();
    match message.len().saturating_sub(skip) {
        0 => Content::Probe,
        1 if part(0).is_empty() => Content::Probe,
        1 => Content::Frame { header: part(0), payload: Bytes::new() },
        2 => Content::Frame { header: part(0), payload: part(1) },
        parts => Content::Violation { parts },
    }
}

/// A frame as a message of two parts.
pub(crate) fn write(header: Bytes, payload: Bytes) -> Message {
    Message::multipart([header, payload])
}

/// A frame without a payload as a message of one part, which is read as the same frame.
pub(crate) fn write_one(part: Bytes) -> Message {
    Message::multipart([part])
}

/// What the peer says of a violation, for the log.
pub(crate) fn violation(parts: usize) -> String {
    format!("a message of {parts} parts; a frame has a header and a payload")
}

/// The key that CURVE verified.
pub(crate) fn key(peer: &PeerInfo) -> Option<Key> {
    match peer.authentication.public_key {
        Some(PeerPublicKey::Curve(key)) => Some(Key(key)),
        _ => None,
    }
}
