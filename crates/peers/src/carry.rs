//! Between the lines and a node: what comes over a line as the node's inputs, and what the node says to another as a frame. Whoever
//! drives a node, the daemon or a client, does the rest.
//!
//! ```text
//! lines -> driver: PeerEvent -> Came            driver -> lines: a message -> frame
//! ```
//!
//! A message of a later version reads as none: the node knows what to make of that.
//!
//! What is said to a node at the same moment travels together: a short message waits for [`Peers::flush`], and those that follow ride with it.

use bourse_node::{Input, LinkId, Node};
use bourse_transport::SendError;
use bourse_wire::header;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message;
use bytes::Bytes;

use crate::{HEADER_BYTES_MAX, Link, PeerEvent, Peers};

/// Most messages that ride with another.
const RIDERS_MAX: usize = 64;
/// Most bytes of a message with which others ride, and of all of those.
const RIDDEN_BYTES_MAX: usize = 16 * 1024;

/// What is said of a line over which nothing more can be sent.
const UNREAD: &str = "it does not read what it is sent";

/// What came over a line, or became of it.
#[derive(Debug)]
pub enum Came {
    /// The node is to have it as it is.
    Input(Input),
    /// A message: for the node, or for what drives it.
    Frame {
        /// From where.
        link: LinkId,
        /// Its header; `None` is a message of a later version.
        message: Option<Message>,
        /// Its payload.
        payload: Bytes,
        /// How many bytes came.
        bytes: usize,
        /// What came with it, in order, each without a payload.
        more: Vec<Option<Message>>,
    },
    /// The line is over. The node has to hear of it.
    Closed {
        /// Which.
        link: LinkId,
    },
    /// No node says that: the line is to be hung up, and the node to hear of it when it is.
    Nonsense {
        /// From where.
        link: LinkId,
        /// For the log.
        why: String,
    },
}

/// Reads what a line has brought, for this node.
pub fn read(node: &Node, event: PeerEvent) -> Came {
    match event {
        PeerEvent::Opened { link, key, dialed: _ } => {
            Came::Input(Input::PeerOpened { link: LinkId(link), key })
        }
        PeerEvent::Frame { link, header, payload } => {
            let link = LinkId(link);
            let bytes = header.len() + payload.len();
            if header.len() > header::HEADER_PLAIN_BYTES_MAX && !node.knows_peer(link) {
                return Came::Nonsense { link, why: "its first message is too long".to_owned() };
            }
            match header::decode::<peer::ToPeer>(header) {
                Ok(peer::ToPeer { more, .. }) if more.len() > RIDERS_MAX => {
                    Came::Nonsense { link, why: "it says too much at once".to_owned() }
                }
                Ok(peer::ToPeer { message, more }) => {
                    let more = more.into_iter().map(|rider| rider.message).collect();
                    Came::Frame { link, message, payload, bytes, more }
                }
                Err(error) => Came::Nonsense { link, why: error.to_string() },
            }
        }
        PeerEvent::Closed { link, why } => {
            tracing::debug!(link, "the line to a node is over: {why}");
            Came::Closed { link: LinkId(link) }
        }
        PeerEvent::NotReached { node, why } => Came::Input(Input::NotReached { node, why }),
    }
}

/// A frame's messages, one after the other, each with its payload.
pub fn in_order(
    first: Option<Message>,
    payload: Bytes,
    more: Vec<Option<Message>>,
) -> impl Iterator<Item = (Option<Message>, Bytes)> {
    let more = more.into_iter().map(|message| (message, Bytes::new()));
    std::iter::once((first, payload)).chain(more)
}

/// A message that waits for others to ride with it.
#[derive(Debug)]
pub(crate) struct Held {
    link: Link,
    frame: peer::ToPeer,
    payload: Bytes,
    bytes: usize,
}

impl Held {
    pub(crate) fn is_for(&self, link: Link) -> bool {
        self.link == link
    }
}

impl Peers {
    /// Sends what a node says to another, at the next [`flush`](Self::flush) at the latest: how many bytes that are. What is said over
    /// a line that has just ended is lost with it; a line whose other end does not read is hung up.
    pub fn say(&mut self, link: LinkId, message: Message, payload: Bytes) -> usize {
        let frame = peer::ToPeer { message: Some(message), more: Vec::new() };
        let bytes = header::encoded_len(&frame) + payload.len();
        match &mut self.held {
            Some(held)
                if held.link == link.0
                    && payload.is_empty()
                    && held.frame.more.len() < RIDERS_MAX
                    && held.bytes + bytes <= RIDDEN_BYTES_MAX =>
            {
                held.bytes += bytes;
                held.frame.more.push(frame);
            }
            _ => {
                self.flush();
                self.held = Some(Held { link: link.0, frame, payload, bytes });
            }
        }
        bytes
    }

    /// Sends what waits. To be called when nothing more is to be said for now.
    pub fn flush(&mut self) {
        let Some(Held { link, frame, payload, .. }) = self.held.take() else { return };
        let header = header::encode(&frame);
        if header.len() > HEADER_BYTES_MAX || self.send(link, header, payload) == Err(SendError::Full) {
            tracing::warn!(link, "the line to a node is closed: {UNREAD}");
            self.end(link, UNREAD);
        }
    }
}
