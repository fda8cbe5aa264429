//! This node among others: links, the market, and the calls that cross machines.
//!
//! ```text
//! transport -> node: PeerOpened, PeerFrame, PeerClosed, NotReached     node -> transport: Dial, PeerSend, PeerClose
//! discovery -> node: Seed, SeedGone
//! peer <-> node:     hello, then the market's messages, and run, to_runner, from_runner; store, forward, modules, stock, …
//! ```
//!
//! | file | is |
//! |---|---|
//! | `runners` | the buyer's side: a slot of another node, which looks like an instance here |
//! | `guests` | the seller's side: a call of another node, on an instance of this one |
//! | `roster` | who belongs to the grid, and how one comes to |
//! | `store` | which node keeps the grid's store |
//! | `catalogue` | which modules other nodes serve |
//! | `deployments` | bundles of files that operators have put on it, and who serves which |
//! | `forwards` | the side of those that do not: what their callers want goes there |
//! | `clients` | the side of the one that does |
//! | `shortage` | who is told of capacity that nobody has |
//! | `trade` | what this node sells and what it is short of |
//!
//! A call that is bought stays where it was accepted: its state, its locks, its nested calls, its place among others and its
//! answer are decided there. Only the invocation goes to the seller, which passes on between the instance and the buyer what
//! the worker protocol says. So nothing about a call depends on where it runs.

mod catalogue;
mod clients;
mod deployments;
mod due;
mod forwards;
mod guests;
mod roster;
mod runners;
mod shortage;
mod store;
mod trade;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bourse_market::links::LinkId;
use bourse_market::market::{self, Market, Settings, Token};
use bourse_market::roster::Entry;
use bourse_market::store::GridStore;
use bourse_market::times::Times;
use bourse_market::{Contact, NodeId, codec};
use bourse_wire::PEER_VERSION;
use bourse_wire::failure::Code;
use bourse_wire::id::{CallId, Incarnation};
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;
use bytes::Bytes;

pub use deployments::{
    Canary, DEPLOYMENTS_MAX, DeployChange, Deployment, Digest, LABELS_MAX, PlacedView, Stage, Stocked,
};
pub use roster::RosterChange;
pub use store::OwnStore;

pub(crate) use catalogue::Runs;
pub(crate) use forwards::Wanted;
pub(crate) use guests::{Guest, invoke_of};
pub(crate) use runners::{Runner, STOP_ELSEWHERE, is_runner};

use crate::message::{Level, Output, ProcessId};
use crate::{Config, Node};

/// Who this node is among others.
#[derive(Clone, Debug)]
pub struct GridConfig {
    /// Its CURVE public key.
    pub id: [u8; 32],
    /// What it is called on the list of keys, for people.
    pub name: String,
    /// "host:port" where other nodes can connect; empty: nowhere.
    pub address: String,
    /// What fails together with it.
    pub domain: String,
    /// Nodes to begin with: key and address. The node itself may be among them, if others begin with it.
    pub seeds: Vec<([u8; 32], String)>,
    /// It may become an authority.
    pub may_serve: bool,
    /// Most slots of this node that are sold at once; `None`: all of them.
    pub sell_max: Option<usize>,
    /// The grid's list of keys, as it was kept.
    pub roster: Vec<Entry>,
    /// The store that this node has of its own; `None`: it uses that of another.
    pub store: Option<OwnStore>,
    /// The grid's store, as it was known last.
    pub known_store: Option<GridStore>,
    /// What other nodes served, as it was known last.
    pub catalogue: Vec<v1::Module>,
    /// The times of the grid.
    pub times: Arc<Times>,
}

/// A connection with another node that has not said hello for this long is closed.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// Seeds that were found of which it is said that they can't be reached, at most.
const FOUND_MAX: usize = 1024;

/// Everything of a node that has to do with others.
pub(crate) struct Grid {
    /// There is a grid; else the market is only where this node's own calls get their slots.
    pub on: bool,
    /// The market knows what time it is.
    begun: bool,
    chance: u64,
    pub market: Market,
    me: Contact,
    links: BTreeMap<LinkId, Link>,
    /// Until when each is to have said who it is.
    greeting: due::Due<LinkId>,
    /// Which runner has which token.
    runners: BTreeMap<Token, ProcessId>,
    /// Seeds that were found while this node runs.
    found: BTreeSet<NodeId>,
    /// Seeds that can't be reached, and why.
    out_of_reach: BTreeMap<NodeId, String>,
    /// Calls of other nodes here, by buyer and token.
    guests: BTreeMap<(NodeId, Token), CallId>,
    /// Modules in which guests wait for an instance.
    guest_backlog: BTreeSet<String>,
    /// Modules of which something was short last.
    short: BTreeSet<String>,
    /// Most slots that there have been.
    pub slots_before: u32,
    /// When to look next at what is short.
    short_after: Mono,
    /// What is offered may have changed.
    pub offers_stale: bool,
    known: store::Known,
    pub forwards: forwards::Forwards,
    pub catalogue: catalogue::Catalogue,
    pub deployments: deployments::Deployments,
    shortages: shortage::Shortages,
    /// Nodes with another store, of which that was said.
    strangers: BTreeSet<NodeId>,
}

/// A connection with another node.
enum Link {
    /// It has not said who it is.
    Greeting { key: [u8; 32] },
    /// It has.
    Open { node: NodeId },
}

/// What is known of a node before it has said anything.
fn seed_contact((id, address): ([u8; 32], String)) -> Contact {
    Contact { id: NodeId(id), incarnation: Incarnation(0), address, domain: String::new() }
}

impl Grid {
    pub(crate) fn new(config: &Config, incarnation: Incarnation, seed: u64, now: Mono) -> Self {
        let grid = config.grid.clone();
        let on = grid.is_some();
        let grid = grid.unwrap_or_else(|| GridConfig {
            id: [0; 32],
            name: String::new(),
            address: String::new(),
            domain: String::new(),
            seeds: Vec::new(),
            may_serve: false,
            sell_max: None,
            roster: Vec::new(),
            store: None,
            known_store: None,
            catalogue: Vec::new(),
            times: Arc::new(Times::default()),
        });
        let me = Contact { id: NodeId(grid.id), incarnation, address: grid.address, domain: grid.domain };
        let settings = Settings {
            times: grid.times,
            me: me.clone(),
            seeds: grid.seeds.into_iter().map(seed_contact).collect(),
            may_serve: grid.may_serve,
            slots: u32::try_from(config.running_max).unwrap_or(u32::MAX),
            roster: grid.roster,
            seed,
        };
        Self {
            slots_before: settings.slots,
            on,
            begun: !on,
            chance: seed,
            market: Market::new(settings, now),
            me,
            links: BTreeMap::new(),
            greeting: due::Due::default(),
            runners: BTreeMap::new(),
            found: BTreeSet::new(),
            out_of_reach: BTreeMap::new(),
            guests: BTreeMap::new(),
            guest_backlog: BTreeSet::new(),
            short: BTreeSet::new(),
            short_after: now,
            offers_stale: true,
            known: store::Known::new(grid.store, grid.known_store),
            forwards: forwards::Forwards::default(),
            catalogue: catalogue::Catalogue::default(),
            deployments: deployments::Deployments::new(config.deployments.clone()),
            shortages: shortage::Shortages::default(),
            strangers: BTreeSet::new(),
        }
    }

    /// Nothing of another node is here, and nothing of this one elsewhere.
    pub(crate) fn is_quiet(&self) -> bool {
        self.runners.is_empty()
            && self.guests.is_empty()
            && self.guest_backlog.is_empty()
            && self.forwards.is_empty()
    }

    fn node_of(&self, link: LinkId) -> Option<NodeId> {
        match self.links.get(&link)? {
            Link::Open { node } => Some(*node),
            Link::Greeting { .. } => None,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        let market = if self.on { self.market.poll_timeout() } else { None };
        let all = [
            self.greeting.next(),
            market,
            self.known.poll_timeout(),
            self.catalogue.poll_timeout(),
            self.deployments.poll_timeout(),
        ];
        all.into_iter().flatten().min()
    }
}

impl Node {
    /// The market's times count from the first thing that happens.
    pub(crate) fn begin_grid(&mut self, now: Now) {
        if !self.grid.begun {
            self.grid = Grid::new(&self.config, self.incarnation, self.grid.chance, now.mono);
            self.grid.begun = true;
            if self.grid.on {
                self.begin_store(now);
                self.begin_catalogue(now);
            }
        }
    }

    /// A connection with another node has opened, in either direction. It has proved to hold this key.
    pub(crate) fn on_peer_opened(&mut self, now: Now, link: LinkId, key: [u8; 32]) {
        self.grid.links.insert(link, Link::Greeting { key });
        self.grid.greeting.note(now.mono + HELLO_MAX, link);
        let hello = peer::Hello {
            version_min: PEER_VERSION,
            version_max: PEER_VERSION,
            contact: Some(codec::contact_to_wire(&self.grid.me)),
            name: self.config.name.clone(),
            agent: concat!("bourse ", env!("CARGO_PKG_VERSION")).to_owned(),
            store: self.grid_store().map(codec::store_to_wire),
        };
        self.send_peer(link, Frame::Hello(hello), Bytes::new());
    }

    /// A connection with another node has ended.
    pub(crate) fn on_peer_closed(&mut self, now: Now, link: LinkId) {
        self.forget_modules_of(now, link);
        self.lose_shelf(now, link);
        match self.grid.links.remove(&link) {
            None => {}
            // If it was dialed, that was in vain.
            Some(Link::Greeting { key, .. }) => {
                self.grid.market.handle(now.mono, market::Input::NotReached { node: NodeId(key) });
            }
            Some(Link::Open { .. }) => {
                self.grid.market.handle(now.mono, market::Input::Unlinked { link });
                self.dismiss_clients(now, link);
                self.lose_forwards(now, link);
            }
        }
    }

    /// A node that was to be dialed can't be reached.
    pub(crate) fn on_not_reached(&mut self, now: Now, node: [u8; 32], why: &str) {
        let is_given = self.config.grid.iter().flat_map(|g| &g.seeds).any(|(id, _)| *id == node);
        let node = NodeId(node);
        let is_found = self.grid.found.contains(&node);
        // Whoever gave a node to join, or where to find some, wants to know, once, that it is not there; it is tried again
        // and again.
        let is_new = self.grid.out_of_reach.get(&node).is_none_or(|said| said != why);
        let level = match is_new {
            true if is_given => Level::Warning,
            true if is_found => Level::Info,
            _ => Level::Debug,
        };
        if is_given || is_found {
            self.grid.out_of_reach.insert(node, why.to_owned());
        }
        self.note(level, format!("the node {} can't be reached: {why}", node.short()));
        self.grid.market.handle(now.mono, market::Input::NotReached { node });
    }

    /// A node was found.
    pub(crate) fn on_seed(&mut self, now: Now, node: [u8; 32], address: String) {
        if self.grid.on {
            if self.grid.found.len() < FOUND_MAX {
                self.grid.found.insert(NodeId(node));
            }
            self.grid.market.add_seed(now.mono, &seed_contact((node, address)));
        }
    }

    /// A node that was found is gone.
    pub(crate) fn on_seed_gone(&mut self, now: Now, node: [u8; 32]) {
        if let Some(grid) = &mut self.config.grid {
            grid.seeds.retain(|(id, _)| *id != node);
            self.grid.found.remove(&NodeId(node));
            self.grid.out_of_reach.remove(&NodeId(node));
            self.grid.market.drop_seed(now.mono, NodeId(node));
        }
    }

    /// Another node says something.
    pub(crate) fn on_peer_frame(&mut self, now: Now, link: LinkId, message: Option<Frame>, payload: Bytes) {
        let Some(message) = message else { return }; // Of a later version, and it does without an answer.
        let node = match self.grid.links.get(&link) {
            None => return, // It was closed from here.
            Some(Link::Greeting { key, .. }) => {
                let key = *key;
                return self.on_peer_hello(now, link, key, message);
            }
            Some(Link::Open { node }) => *node,
        };
        match codec::decode(message) {
            Ok(Ok(message)) => self.grid.market.handle(now.mono, market::Input::Message { link, message }),
            Ok(Err(message)) => {
                self.grid.market.used(now.mono, link, true);
                self.on_peer_message(now, (link, node), message, payload);
            }
            Err(error) => self.leave_peer(now, link, &error.to_string()),
        }
    }

    fn on_peer_message(&mut self, now: Now, from: (LinkId, NodeId), message: Frame, payload: Bytes) {
        let (link, node) = from;
        let result = match message {
            Frame::Run(run) => codec::token(self.grid.me.id, run.token.clone())
                .map(|token| self.on_run(now, link, node, token, run, payload)),
            Frame::ToRunner(said) => codec::token(self.grid.me.id, said.token).map(|token| {
                self.on_to_runner(now, node, &token, said.message.and_then(|m| m.message), payload)
            }),
            Frame::FromRunner(said) => codec::token(node, said.token)
                .map(|token| self.on_from_runner(now, &token, said.message, payload)),
            Frame::Store(store) => return self.on_store(now, link, store),
            Frame::Modules(modules) => return self.on_modules(now, link, node, modules),
            Frame::Stock(stock) => return self.on_stock(link, node, stock),
            Frame::Assign(assign) => return self.on_assign(node, assign),
            Frame::Forward(forward) => return self.on_forward(now, link, forward, payload),
            Frame::Forwarded(forwarded) => return self.on_forwarded(now, link, forwarded, payload),
            // The daemon's own, which has read it.
            Frame::Look(_)
            | Frame::Looked(_)
            | Frame::Reach(_)
            | Frame::Reached(_)
            | Frame::Fetch(_)
            | Frame::Bundle(_)
            | Frame::Deploy(_)
            | Frame::Deployed(_) => return,
            Frame::Refused(refused) => {
                let why = refused.failure.unwrap_or_default().message;
                return self.leave_peer(now, link, &format!("it refuses us: {why}"));
            }
            _ => return self.leave_peer(now, link, "it said hello twice"),
        };
        if let Err(error) = result {
            self.leave_peer(now, link, &error.to_string());
        }
    }

    fn on_peer_hello(&mut self, now: Now, link: LinkId, key: [u8; 32], message: Frame) {
        if let Frame::Enroll(enroll) = message {
            return self.on_enroll(now, link, key, &enroll);
        }
        let hello = match message {
            Frame::Hello(hello) => hello,
            Frame::Refused(refused) => {
                let why = refused.failure.unwrap_or_default().message;
                return self.leave_peer(now, link, &format!("it refuses us: {why}"));
            }
            _ => return self.leave_peer(now, link, "its first message is not a hello"),
        };
        let agent = if hello.agent.is_empty() { "the other node" } else { &hello.agent };
        if !(hello.version_min..=hello.version_max).contains(&PEER_VERSION) {
            let failure = Code::ProtocolVersion.because(format!(
                "this node speaks version {PEER_VERSION} of the peer protocol, {agent} speaks {} to {}",
                hello.version_min, hello.version_max
            ));
            return self.refuse_peer(now, link, failure);
        }
        let contact = match codec::contact(hello.contact) {
            Ok(contact) => contact,
            Err(error) => return self.refuse_peer(now, link, Code::Protocol.because(error.to_string())),
        };
        if self.is_ticket(NodeId(key)) {
            let failure =
                Code::Unauthorized.because("a ticket is no key of a node").hint("join with it: bourse join");
            return self.refuse_peer(now, link, failure);
        }
        if contact.id.0 != key {
            let failure =
                Code::Unauthorized.because("the node says that it is another one than it has proved to be");
            return self.refuse_peer(now, link, failure);
        }
        if contact.id == self.grid.me.id {
            let failure = Code::Conflict
                .because("two nodes have the same key, or this one has connected with itself")
                .hint(
                    "each node needs a key of its own: remove `node.key` of one of them and run bourse init",
                );
            return self.refuse_peer(now, link, failure);
        }
        if let Err(failure) = self.meet_store(now, hello.store.clone()) {
            return self.refuse_store(now, link, contact.id, failure);
        }
        self.grid.out_of_reach.remove(&contact.id);
        self.grid.strangers.remove(&contact.id);
        self.note(
            Level::Info,
            format!("linked with the node {} at {:?}", contact.id.short(), contact.address),
        );
        self.grid.links.insert(link, Link::Open { node: contact.id });
        self.grid.market.handle(now.mono, market::Input::Linked { link, contact });
        self.offer_store(now);
        self.answer_store(link, hello.store);
        self.forward_again(now);
    }

    /// New settings. Who this node is among others stays as it is until it starts again.
    pub(crate) fn on_configure(&mut self, now: Now, config: Config) {
        let grid = self.config.grid.take();
        self.config = Config { grid, ..config };
        let slots = u32::try_from(self.config.running_max).unwrap_or(u32::MAX);
        self.grid.slots_before = self.grid.slots_before.max(slots);
        self.grid.market.resize(now.mono, slots);
        self.grid.offers_stale = true;
    }

    fn refuse_peer(&mut self, now: Now, link: LinkId, failure: v1::Failure) {
        let why = failure.message.clone();
        self.send_peer(link, Frame::Refused(peer::Refused { failure: Some(failure) }), Bytes::new());
        self.leave_peer(now, link, &why);
    }

    /// Another node has another store. That is said once, however often it comes again.
    fn refuse_store(&mut self, now: Now, link: LinkId, node: NodeId, failure: v1::Failure) {
        let is_new = self.grid.strangers.len() < FOUND_MAX && self.grid.strangers.insert(node);
        let (why, hint) = (failure.message.clone(), failure.hint.clone());
        self.send_peer(link, Frame::Refused(peer::Refused { failure: Some(failure) }), Bytes::new());
        let level = if is_new { Level::Error } else { Level::Debug };
        self.note(level, format!("no link with the node {}: {why}\n  hint: {hint}", node.short()));
        self.close_peer(now, link);
    }

    /// Closes a connection with another node, for this reason.
    fn leave_peer(&mut self, now: Now, link: LinkId, why: &str) {
        let who = self
            .grid
            .node_of(link)
            .map_or_else(|| "a node".to_owned(), |n| format!("the node {}", n.short()));
        self.note(Level::Warning, format!("the connection with {who} is closed: {why}"));
        self.close_peer(now, link);
    }

    fn close_peer(&mut self, now: Now, link: LinkId) {
        self.on_peer_closed(now, link);
        self.grid.links.remove(&link);
        self.outputs.push_back(Output::PeerClose { link });
    }

    /// The key by which other nodes know this one; `None`: it is alone.
    pub fn grid_key(&self) -> Option<[u8; 32]> {
        self.grid.on.then_some(self.grid.me.id.0)
    }

    /// Whether any other node is linked with this one.
    pub fn is_linked(&self) -> bool {
        self.grid.links.values().any(|link| matches!(link, Link::Open { .. }))
    }

    /// The nodes that are linked with this one.
    pub fn linked(&self) -> impl Iterator<Item = (LinkId, NodeId)> {
        self.grid.links.iter().filter_map(|(link, state)| match state {
            Link::Open { node } => Some((*link, *node)),
            Link::Greeting { .. } => None,
        })
    }

    /// Whether another node has said who it is on a connection.
    pub fn knows_peer(&self, link: LinkId) -> bool {
        self.grid.node_of(link).is_some()
    }

    pub(crate) fn send_peer(&mut self, link: LinkId, message: Frame, payload: Bytes) {
        self.outputs.push_back(Output::PeerSend { link, message, payload });
    }

    pub(crate) fn handle_grid_timeout(&mut self, now: Now) {
        while let Some(link) = self.grid.greeting.take(now.mono) {
            if let Some(Link::Greeting { .. }) = self.grid.links.get(&link) {
                self.leave_peer(now, link, "it does not say who it is");
            }
        }
        self.on_store_due(now);
        self.on_catalogue_due(now);
        self.on_deployments_due(now);
        if self.grid.on && self.grid.market.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.grid.market.handle_timeout(now.mono);
        }
    }

    /// Carries out what the market says. Whether it said anything that calls may follow from.
    pub(crate) fn pump_market(&mut self, now: Now) -> bool {
        if !self.grid.on {
            return false;
        }
        self.offer_modules(now);
        self.grid.market.settle(now.mono);
        let mut moved = false;
        while let Some(output) = self.grid.market.poll() {
            match output {
                market::Output::Send { link, message } => {
                    self.send_peer(link, codec::encode(&message), Bytes::new());
                }
                market::Output::Dial { contact } => {
                    self.outputs.push_back(Output::Dial { node: contact.id.0, address: contact.address });
                }
                market::Output::Roster(entries) => self.on_roster(entries),
                market::Output::Authorities => self.outputs.push_back(Output::Authorities),
                market::Output::HangUp { link } => {
                    moved = true;
                    self.forget_modules_of(now, link);
                    self.lose_shelf(now, link);
                    self.grid.links.remove(&link);
                    self.dismiss_clients(now, link);
                    self.lose_forwards(now, link);
                    self.outputs.push_back(Output::PeerClose { link });
                }
                market::Output::Lost(lost) => {
                    moved = true;
                    for seq in &lost.seqs {
                        let token = Token {
                            seller: lost.seller,
                            lot: lost.lot.clone(),
                            epoch: lost.epoch,
                            seq: *seq,
                        };
                        self.lose_runner(now, &token, lost.begun);
                    }
                }
                market::Output::Gone { buyer, lot, epoch } => {
                    moved = true;
                    self.dismiss_guests(now, buyer, &lot, epoch);
                }
                market::Output::Unanswered { buyer, lot, epoch, seq } => {
                    let token = Token { seller: self.grid.me.id, lot, epoch, seq };
                    self.tell_lost_answer(buyer, &token);
                }
                market::Output::Twins { contact } => {
                    let text = format!(
                        "two nodes that live have the key {}: one of them is at {:?}\n  hint: each node needs a key of its own: \
                         remove `node.key` of one of them and run bourse init",
                        contact.id.short(),
                        contact.address
                    );
                    self.note(Level::Error, text);
                }
            }
        }
        moved
    }
}
