//! What nodes say to each other about the market. Everything is absolute, never a difference to something that may have
//! been lost: a message that comes twice changes nothing, and one that comes late is told by its numbers.

use bourse_wire::id::Incarnation;
use semver::VersionReq;

use crate::name::{Contact, Lot, NodeId};
use crate::roster::Told;

/// One message from one node to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The sender is there. Sent where nothing else was to be sent for a while.
    Beat,
    /// node -> authority: I am there.
    Join(Join),
    /// authority -> node: these are the authorities.
    Grid(Grid),
    /// authority -> node: there are too few of us, become one.
    Appoint,
    /// authority -> authority: I am one.
    Mesh(Mesh),
    /// authority -> authority: I am one no longer.
    Resign(Incarnation),
    /// broker -> exchanges of one host: what I sell and what I want.
    Orders(Orders),
    /// exchanges of one host -> broker of a buyer: who sells it.
    Matches(Vec<Match>),
    /// buyer -> seller: opens a channel, and says how it stands.
    Claim(Claim),
    /// seller -> buyer: how the channel stands.
    Grant(Grant),
    /// any node <-> any other: entries of the list of keys.
    Roster(Told),
}

/// A node tells an authority that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Who.
    pub contact: Contact,
    /// It may become an authority.
    pub may_serve: bool,
    /// Of the authorities that it stays with, this is the first one: the one that counts it.
    pub first: bool,
    /// [`view`](crate::placing::view) of the authorities that it knows. If it differs, it wants a [`Grid`].
    pub view: u64,
    /// [`digest`](crate::roster::Roster::digest) of its list of keys.
    pub roster: u64,
}

/// An authority tells a node about the grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The authorities that it is connected with, itself among them, by id.
    pub authorities: Vec<Contact>,
    /// Some other nodes, to be asked should all authorities be gone.
    pub others: Vec<Contact>,
    /// How many nodes there are, roughly.
    pub nodes: u32,
}

/// An authority tells another one about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Who.
    pub contact: Contact,
    /// [`view`](crate::placing::view) of the authorities that it is connected with.
    pub view: u64,
    /// How many nodes count it as their first authority.
    pub nodes: u32,
    /// The authorities that it is connected with, where the receiver's last view was another one. Else empty.
    pub authorities: Vec<Contact>,
    /// [`digest`](crate::roster::Roster::digest) of its list of keys.
    pub roster: u64,
}

/// Orders of one node, for exchanges of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    /// Whose.
    pub contact: Contact,
    /// These are all that the sender has with the receiver: others of it are void.
    pub all: bool,
    /// Those that are new, changed, or said again.
    pub orders: Vec<Order>,
}

/// An order. What has a greater revision takes the place of what has a smaller one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which module.
    pub module: String,
    /// What is offered or wanted.
    pub terms: Terms,
    /// Grows with every change, and with every repetition that wants to be matched anew.
    pub revision: u64,
    /// How many slots. 0 withdraws the order.
    pub quantity: u32,
    /// Of a sell order: all slots are in use, and what is offered are places in line.
    pub in_line: bool,
}

/// What an order offers or wants. A node has one order for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Terms {
    /// Slots of this version are free.
    Sell(semver::Version),
    /// Slots of a version that fits are wanted.
    Buy(VersionReq),
}

/// A hint that somebody sells what the receiver wants. Several exchanges may give the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The buyer's requirement, as in its order.
    pub requirement: VersionReq,
    /// The buyer's revision that was matched.
    pub revision: u64,
    /// What is sold.
    pub lot: Lot,
    /// Who sells it.
    pub seller: Contact,
    /// The seller's revision that was matched.
    pub offered: u64,
    /// How many slots.
    pub quantity: u32,
    /// They are places in line, since the seller's slots are in use.
    pub in_line: bool,
}

/// A buyer's end of a channel. Tokens have numbers from 1, and are used or given back in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which channel of the two nodes.
    pub lot: Lot,
    /// Which life of it; a greater one ends those before it. 0 is none.
    pub epoch: u64,
    /// Grows with every claim: of two that arrive in the wrong order, the one with the greater revision is right about
    /// `want`. 0 is a claim of somebody who knows no such channel: see [`channel`](crate::channel).
    pub revision: u64,
    /// How many tokens it wants to have that it has not used yet.
    pub want: u32,
    /// The tokens that it has heard of: all up to this number.
    pub known: u64,
    /// All tokens below this number are used, or given back.
    pub next: u64,
    /// Of those, the ones whose calls are not answered, in ascending order.
    pub open: Vec<u64>,
    /// The channel ends: nothing more will be used.
    pub closed: bool,
}

/// A seller's end of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// As in the claim.
    pub lot: Lot,
    /// As in the claim.
    pub epoch: u64,
    /// The greatest revision of a claim that has come: what that one said need not be said again.
    pub seen: u64,
    /// Tokens up to this number are granted.
    pub granted: u64,
    /// Tokens up to this number are wanted back, if they are not used yet.
    pub revoked: u64,
    /// Of the tokens that the buyer says it has used and waits for, those with which no call came: none ever will. Their
    /// calls have not begun.
    pub void: Vec<u64>,
    /// The seller knows no such channel, or ends it: nothing more is granted, and what is open is lost.
    pub closed: bool,
}

/// A message and where it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// To whom.
    pub to: NodeId,
    /// What.
    pub message: Message,
}
