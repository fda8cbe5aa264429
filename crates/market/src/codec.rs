//! The market's messages as the wire has them (`proto/bourse/v1/peer.proto`), and the way back. What comes from outside is
//! checked here: names, versions, lengths and numbers of things. Nothing panics.

use bourse_wire::header;
use bourse_wire::id::{Incarnation, NAME_BYTES_MAX};
use bourse_wire::peer::v1 as wire;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use semver::{Version, VersionReq};

use crate::market::Token;
use crate::message::{Claim, Grant, Grid, Join, Match, Mesh, Message, Order, Orders, Terms};
use crate::name::{Contact, Lot, NodeId};
use crate::roster::{ENTRIES_PER_MESSAGE, Entry, Standing, Told};
use crate::store::{GridStore, TERM_MAX};
use crate::times::{CONTACTS_MAX, ORDERS_MAX, QUANTITY_MAX, TEXT_BYTES_MAX};

/// Most tokens that are named in one message.
pub const TOKENS_NAMED_MAX: usize = 100_000;

/// Why a peer's message is not heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something that has to be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An id that is none.
    #[error("a node's id has 32 bytes, not {0}")]
    Id(usize),
    /// An id that is none.
    #[error("a store's id has 16 bytes, not {0}")]
    StoreId(usize),
    /// A number beyond its bound.
    #[error("{0} is beyond what there can be")]
    Number(&'static str),
    /// A text beyond its bound.
    #[error("{what} has {bytes} bytes, at most {max} are allowed")]
    Long {
        /// What it is.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// Too many of something.
    #[error("{count} {what}, at most {max} are allowed")]
    Many {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// Not a semantic version, or not a requirement of one.
    #[error("{text:?} is not a version: {why}")]
    Version {
        /// What was said.
        text: String,
        /// What is wrong.
        why: String,
    },
}

/// A message for the wire.
pub fn encode(message: &Message) -> Frame {
    match message {
        Message::Beat => Frame::Beat(wire::Beat {}),
        Message::Join(join) => Frame::Join(wire::Join {
            contact: Some(contact_to_wire(&join.contact)),
            may_serve: join.may_serve,
            first: join.first,
            view: join.view,
            roster: join.roster,
        }),
        Message::Grid(grid) => Frame::Grid(wire::Grid {
            authorities: grid.authorities.iter().map(contact_to_wire).collect(),
            others: grid.others.iter().map(contact_to_wire).collect(),
            nodes: grid.nodes,
        }),
        Message::Appoint => Frame::Appoint(wire::Appoint {}),
        Message::Mesh(mesh) => Frame::Mesh(wire::Mesh {
            contact: Some(contact_to_wire(&mesh.contact)),
            view: mesh.view,
            nodes: mesh.nodes,
            authorities: mesh.authorities.iter().map(contact_to_wire).collect(),
            roster: mesh.roster,
        }),
        Message::Resign(incarnation) => Frame::Resign(wire::Resign { incarnation: incarnation.0 }),
        Message::Orders(orders) => Frame::Orders(wire::Orders {
            contact: Some(contact_to_wire(&orders.contact)),
            all: orders.all,
            orders: orders.orders.iter().map(order_to_wire).collect(),
        }),
        Message::Matches(matches) => {
            Frame::Matches(wire::Matches { matches: matches.iter().map(match_to_wire).collect() })
        }
        Message::Claim(claim) => Frame::Claim(wire::Claim {
            lot: Some(lot_to_wire(&claim.lot)),
            epoch: claim.epoch,
            revision: claim.revision,
            known: claim.known,
            want: claim.want,
            next: claim.next,
            open: claim.open.clone(),
            closed: claim.closed,
        }),
        Message::Grant(grant) => Frame::Grant(wire::Grant {
            lot: Some(lot_to_wire(&grant.lot)),
            epoch: grant.epoch,
            seen: grant.seen,
            granted: grant.granted,
            revoked: grant.revoked,
            void: grant.void.clone(),
            closed: grant.closed,
        }),
        Message::Roster(told) => Frame::Roster(wire::Roster {
            digest: told.digest,
            asks: told.asks,
            entries: told.entries.iter().map(entry_to_wire).collect(),
        }),
    }
}

/// A message of a peer. `Ok(Err(frame))`: it is none of the market's, and comes back.
pub fn decode(frame: Frame) -> Result<Result<Message, Frame>, Error> {
    Ok(Ok(match frame {
        Frame::Beat(_) => Message::Beat,
        Frame::Join(join) => Message::Join(Join {
            contact: contact(join.contact)?,
            may_serve: join.may_serve,
            first: join.first,
            view: join.view,
            roster: join.roster,
        }),
        Frame::Grid(grid) => Message::Grid(Grid {
            authorities: contacts(grid.authorities)?,
            others: contacts(grid.others)?,
            nodes: grid.nodes,
        }),
        Frame::Appoint(_) => Message::Appoint,
        Frame::Mesh(mesh) => Message::Mesh(Mesh {
            contact: contact(mesh.contact)?,
            view: mesh.view,
            nodes: mesh.nodes,
            authorities: contacts(mesh.authorities)?,
            roster: mesh.roster,
        }),
        Frame::Resign(resign) => Message::Resign(Incarnation(resign.incarnation)),
        Frame::Orders(orders) => {
            few("orders", orders.orders.len(), ORDERS_MAX)?;
            Message::Orders(Orders {
                contact: contact(orders.contact)?,
                all: orders.all,
                orders: orders.orders.into_iter().map(order).collect::<Result<_, _>>()?,
            })
        }
        Frame::Matches(matches) => {
            few("matches", matches.matches.len(), ORDERS_MAX)?;
            Message::Matches(matches.matches.into_iter().map(found).collect::<Result<_, _>>()?)
        }
        Frame::Claim(claim) => {
            few("open calls", claim.open.len(), TOKENS_NAMED_MAX)?;
            Message::Claim(Claim {
                lot: lot(claim.lot)?,
                epoch: claim.epoch,
                revision: claim.revision,
                known: claim.known,
                want: claim.want.min(QUANTITY_MAX),
                next: claim.next,
                open: claim.open,
                closed: claim.closed,
            })
        }
        Frame::Grant(grant) => {
            few("void calls", grant.void.len(), TOKENS_NAMED_MAX)?;
            Message::Grant(Grant {
                lot: lot(grant.lot)?,
                epoch: grant.epoch,
                seen: grant.seen,
                granted: grant.granted,
                revoked: grant.revoked,
                void: grant.void,
                closed: grant.closed,
            })
        }
        Frame::Roster(roster) => Message::Roster(Told {
            digest: roster.digest,
            asks: roster.asks,
            entries: entries(roster.entries)?,
        }),
        other @ (Frame::Hello(_)
        | Frame::Refused(_)
        | Frame::Enroll(_)
        | Frame::Enrolled(_)
        | Frame::Run(_)
        | Frame::ToRunner(_)
        | Frame::FromRunner(_)
        | Frame::Store(_)
        | Frame::Forward(_)
        | Frame::Forwarded(_)
        | Frame::Look(_)
        | Frame::Looked(_)
        | Frame::Reach(_)
        | Frame::Reached(_)
        | Frame::Modules(_)
        | Frame::Stock(_)
        | Frame::Assign(_)
        | Frame::Fetch(_)
        | Frame::Bundle(_)
        | Frame::Deploy(_)
        | Frame::Deployed(_)) => return Ok(Err(other)),
    }))
}

/// How many bytes a message has on the wire, without what the transport adds.
pub fn encoded_len(message: &Message) -> usize {
    header::encoded_len(&wire::ToPeer { message: Some(encode(message)), more: Vec::new() })
}

/// A node, as it says who it is.
pub fn contact(contact: Option<wire::Contact>) -> Result<Contact, Error> {
    let contact = contact.ok_or(Error::Missing("the contact"))?;
    let id = key(&contact.id)?;
    short("an address", &contact.address, TEXT_BYTES_MAX)?;
    short("a domain", &contact.domain, TEXT_BYTES_MAX)?;
    Ok(Contact {
        id,
        incarnation: Incarnation(contact.incarnation),
        address: contact.address,
        domain: contact.domain,
    })
}

/// A node, for the wire.
pub fn contact_to_wire(contact: &Contact) -> wire::Contact {
    wire::Contact {
        id: contact.id.0.to_vec().into(),
        incarnation: contact.incarnation.0,
        address: contact.address.clone(),
        domain: contact.domain.clone(),
    }
}

/// What a call is sent under. `seller` is who sells it.
pub fn token(seller: NodeId, token: Option<wire::Token>) -> Result<Token, Error> {
    let token = token.ok_or(Error::Missing("the token"))?;
    Ok(Token { seller, lot: lot(token.lot)?, epoch: token.epoch, seq: token.seq })
}

/// The same for the wire.
pub fn token_to_wire(token: &Token) -> wire::Token {
    wire::Token { lot: Some(lot_to_wire(&token.lot)), epoch: token.epoch, seq: token.seq }
}

/// Entries of the list of keys, at most as many as fit into one message.
pub fn entries(all: Vec<wire::Entry>) -> Result<Vec<Entry>, Error> {
    few("entries", all.len(), ENTRIES_PER_MESSAGE)?;
    all.into_iter().map(entry).collect()
}

fn entry(entry: wire::Entry) -> Result<Entry, Error> {
    short("a name", &entry.name, crate::roster::NAME_BYTES_MAX)?;
    let standing = match entry.standing() {
        wire::Standing::Member => Standing::Member,
        wire::Standing::Ticket => Standing::Ticket(entry.until_ms),
        // What a later version means by another one is not known: it lets nobody in.
        wire::Standing::Revoked | wire::Standing::Unspecified => Standing::Revoked,
    };
    Ok(Entry { key: key(&entry.key)?, revision: entry.revision, standing, name: entry.name })
}

/// The same for the wire.
pub fn entry_to_wire(entry: &Entry) -> wire::Entry {
    let (standing, until_ms) = match entry.standing {
        Standing::Member => (wire::Standing::Member, 0),
        Standing::Ticket(until) => (wire::Standing::Ticket, until),
        Standing::Revoked => (wire::Standing::Revoked, 0),
    };
    wire::Entry {
        key: entry.key.0.to_vec().into(),
        revision: entry.revision,
        standing: standing.into(),
        until_ms,
        name: entry.name.clone(),
    }
}

/// A key of 32 bytes.
pub fn key(bytes: &[u8]) -> Result<NodeId, Error> {
    bytes.try_into().map(NodeId).map_err(|_| Error::Id(bytes.len()))
}

fn contacts(all: Vec<wire::Contact>) -> Result<Vec<Contact>, Error> {
    few("contacts", all.len(), CONTACTS_MAX)?;
    all.into_iter().map(|c| contact(Some(c))).collect()
}

fn lot(lot: Option<wire::Lot>) -> Result<Lot, Error> {
    let lot = lot.ok_or(Error::Missing("the lot"))?;
    Ok(Lot { module: module(lot.module)?, version: version(&lot.version)? })
}

fn lot_to_wire(lot: &Lot) -> wire::Lot {
    wire::Lot { module: lot.module.clone(), version: lot.version.to_string() }
}

fn order(order: wire::Order) -> Result<Order, Error> {
    let terms = match order.terms.ok_or(Error::Missing("what an order offers or wants"))? {
        wire::order::Terms::Sell(text) => Terms::Sell(version(&text)?),
        wire::order::Terms::Buy(text) => Terms::Buy(requirement(&text)?),
    };
    Ok(Order {
        module: module(order.module)?,
        terms,
        revision: order.revision,
        quantity: order.quantity.min(QUANTITY_MAX),
        in_line: order.in_line,
    })
}

/// The grid's store, as the wire has it.
pub fn store_to_wire(store: &GridStore) -> wire::Store {
    wire::Store {
        id: store.id.to_vec().into(),
        term: store.term,
        used: store.used,
        node: Some(contact_to_wire(&store.node)),
    }
}

/// The grid's store, from the wire.
pub fn store(store: wire::Store) -> Result<GridStore, Error> {
    let id = store.id.as_ref().try_into().map_err(|_| Error::StoreId(store.id.len()))?;
    if store.term > TERM_MAX {
        return Err(Error::Number("a store's term"));
    }
    Ok(GridStore { id, term: store.term, used: store.used, node: contact(store.node)? })
}

fn order_to_wire(order: &Order) -> wire::Order {
    wire::Order {
        module: order.module.clone(),
        terms: Some(match &order.terms {
            Terms::Sell(version) => wire::order::Terms::Sell(version.to_string()),
            Terms::Buy(requirement) => wire::order::Terms::Buy(requirement.to_string()),
        }),
        revision: order.revision,
        quantity: order.quantity,
        in_line: order.in_line,
    }
}

fn found(found: wire::Match) -> Result<Match, Error> {
    Ok(Match {
        requirement: requirement(&found.requirement)?,
        revision: found.revision,
        lot: lot(found.lot)?,
        seller: contact(found.seller)?,
        offered: found.offered,
        quantity: found.quantity.min(QUANTITY_MAX),
        in_line: found.in_line,
    })
}

fn match_to_wire(found: &Match) -> wire::Match {
    wire::Match {
        requirement: found.requirement.to_string(),
        revision: found.revision,
        lot: Some(lot_to_wire(&found.lot)),
        seller: Some(contact_to_wire(&found.seller)),
        offered: found.offered,
        quantity: found.quantity,
        in_line: found.in_line,
    }
}

fn module(name: String) -> Result<String, Error> {
    if name.is_empty() {
        return Err(Error::Missing("the module's name"));
    }
    short("a module's name", &name, NAME_BYTES_MAX)?;
    Ok(name)
}

fn version(text: &str) -> Result<Version, Error> {
    short("a version", text, TEXT_BYTES_MAX)?;
    Version::parse(text).map_err(|e| Error::Version { text: text.to_owned(), why: e.to_string() })
}

fn requirement(text: &str) -> Result<VersionReq, Error> {
    short("a version requirement", text, TEXT_BYTES_MAX)?;
    VersionReq::parse(text).map_err(|e| Error::Version { text: text.to_owned(), why: e.to_string() })
}

fn short(what: &'static str, text: &str, max: usize) -> Result<(), Error> {
    if text.len() > max { Err(Error::Long { what, bytes: text.len(), max }) } else { Ok(()) }
}

fn few(what: &'static str, count: usize, max: usize) -> Result<(), Error> {
    if count > max { Err(Error::Many { what, count, max }) } else { Ok(()) }
}
