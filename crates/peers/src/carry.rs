//! Between the lines and a node: what comes over a line as the node's inputs, and what the node says to another as a frame. Whoever
//! drives a node, the daemon or a client, does the rest.
//!
//! ```text
//! lines -> driver: PeerEvent -> Came            driver -> lines: a message -> frame
//! ```
//!
//! A message of a later version reads as none: the node knows what to make of that.

use bourse_node::{Input, LinkId, Node};
use bourse_transport::SendError;
use bourse_wire::header;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message;
use bytes::Bytes;

use crate::{HEADER_BYTES_MAX, PeerEvent, Peers};

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
                Ok(peer::ToPeer { message }) => Came::Frame { link, message, payload, bytes },
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

impl Peers {
    /// Sends what a node says to another: how many bytes that were. If it can't be sent, and why, the line is of no use any more,
    /// and is to be hung up. What is said over a line that has just ended is lost with it.
    pub fn say(&mut self, link: LinkId, message: Message, payload: Bytes) -> Result<usize, &'static str> {
        let header = header::encode(&peer::ToPeer { message: Some(message) });
        let bytes = header.len() + payload.len();
        match header.len() > HEADER_BYTES_MAX || self.send(link.0, header, payload) == Err(SendError::Full) {
            true => Err(UNREAD),
            false => Ok(bytes),
        }
    }
}
