//! What goes into a [`Market`](super::Market) and what comes out of it.

use std::sync::Arc;

use super::Lost;
use crate::links::LinkId;
use crate::message::Message;
use crate::name::{Contact, Lot, NodeId};
use crate::roster::Entry;
use crate::times::Times;

/// What a market is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The times of the grid.
    pub times: Arc<Times>,
    /// This node.
    pub me: Contact,
    /// Nodes to begin with; their incarnation is 0.
    pub seeds: Vec<Contact>,
    /// It may become an authority.
    pub may_serve: bool,
    /// How many calls may run here at once.
    pub slots: u32,
    /// The list of keys, as it was kept.
    pub roster: Vec<Entry>,
    /// Where chance comes from.
    pub seed: u64,
}

/// Messages to the market.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A link has opened, and the other end has said who it is.
    Linked {
        /// Which.
        link: LinkId,
        /// Who.
        contact: Contact,
    },
    /// A link has ended.
    Unlinked {
        /// Which.
        link: LinkId,
    },
    /// Something came over a link.
    Message {
        /// Which.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// A node that was to be dialed can't be reached.
    NotReached {
        /// Which.
        node: NodeId,
    },
}

/// Messages from the market.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// These entries of the list of keys are new: they are to be kept, and obeyed.
    Roster(Vec<Entry>),
    /// The authorities are others now: a node that starts again begins with them.
    Authorities,
    /// Send this.
    Send {
        /// Where.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// Connect with a node; answered by `Linked` or `NotReached`.
    Dial {
        /// Which.
        contact: Contact,
    },
    /// Close a link. It has ended already, as far as the market is concerned.
    HangUp {
        /// Which.
        link: LinkId,
    },
    /// To the buyer's node: these calls get no answer.
    Lost(Lost),
    /// To the seller's node: nobody waits for the calls of this channel.
    Gone {
        /// Whose.
        buyer: NodeId,
        /// What was sold.
        lot: Lot,
        /// Which life of the channel.
        epoch: u64,
    },
    /// To the seller's node: the answer to this call did not arrive.
    Unanswered {
        /// Whose call.
        buyer: NodeId,
        /// What was sold.
        lot: Lot,
        /// Which life of the channel.
        epoch: u64,
        /// Its number.
        seq: u64,
    },
    /// To people: two nodes that live have this identity.
    Twins {
        /// The one that came last.
        contact: Contact,
    },
}
