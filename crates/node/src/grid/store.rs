//! Which store is the grid's, as far as this node knows, and whether it is the one that keeps it.
//!
//! ```text
//! daemon -> node: its own store, and what it knew last       node -> daemon: GridStore, to be remembered
//! peer <-> node: store (with the hello, and when it changes)
//! ```
//!
//! The rule by which one counts more than another is [`bourse_market::store`]'s. A node whose own store has given way never uses
//! it again by itself.

use bourse_market::store::{GridStore, Verdict};
use bourse_market::{LinkId, NodeId, codec};
use bourse_wire::failure::Code;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;
use bytes::Bytes;

use super::Link;
use crate::Node;
use crate::message::{Level, Output};

/// How often the node that keeps the store hears of those that use it: often enough that the links between them stay.
const TELL: std::time::Duration = std::time::Duration::from_secs(3);

/// The store that a node has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnStore {
    /// Names it.
    pub id: [u8; 16],
    /// There are calls or state in it.
    pub used: bool,
    /// It is offered to the grid from the start. Else this node waits until it has met another, which may know of one.
    pub offered: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Known {
    own: Option<OwnStore>,
    store: Option<GridStore>,
    /// The greatest term that was heard of, whether it counted or not.
    term: u64,
    /// When the node that keeps it is told again of this one.
    tell_at: Option<Mono>,
}

impl Known {
    pub(super) fn new(own: Option<OwnStore>, remembered: Option<GridStore>) -> Self {
        let term = remembered.as_ref().map_or(0, |store| store.term);
        Self { own, store: remembered, term, tell_at: None }
    }

    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        self.tell_at
    }
}

impl Node {
    /// A node is there that knows of no store either: nothing is to be waited for any more.
    pub(super) fn offer_store(&mut self, now: Now) {
        if self.grid_store().is_none()
            && let Some(own) = &mut self.grid.known.own
        {
            own.offered = true;
            self.begin_store(now);
        }
    }

    /// Whether accepted calls and state are kept here.
    pub(crate) fn keeps_store(&self) -> bool {
        !self.grid.on || self.grid_store().is_some_and(|store| store.is_kept_by(self.grid.me.id))
    }

    /// The grid's store, if this node knows of one.
    pub fn grid_store(&self) -> Option<&GridStore> {
        self.grid.known.store.as_ref()
    }

    /// What this node has of its own comes into play.
    pub(super) fn begin_store(&mut self, now: Now) {
        let Some(own) = self.grid.known.own.filter(|own| own.offered) else {
            return self.tell_keeper_again(now);
        };
        let known = self.grid.known.store.as_ref().filter(|known| known.is_kept_by(self.grid.me.id));
        // Another one in the place of the one that was kept here is what the operator wants.
        let term = known.map_or(0, |known| known.term + u64::from(known.id != own.id));
        let store = GridStore { id: own.id, term, used: own.used, node: self.grid.me.clone() };
        match self.grid.known.store.as_ref().map(|known| known.compare(&store)) {
            None | Some(Verdict::Theirs) => self.adopt(now, store),
            Some(Verdict::Ours | Verdict::Same) => self.tell_keeper_again(now),
            // The daemon has asked its operator before.
            Some(Verdict::Two) => self.tell_keeper_again(now),
        }
    }

    /// The link with the node that keeps the store; `None` if that is this one.
    pub fn link_with_keeper(&mut self, now: Now) -> Option<Result<LinkId, v1::Failure>> {
        if self.keeps_store() {
            return None;
        }
        let keeper = self.grid_store().map(|store| store.node.id);
        let link = keeper.and_then(|keeper| self.link_with(now, keeper));
        Some(link.ok_or_else(|| self.keeper_not_reached()))
    }

    /// What is in the store from now on, nobody may pass over.
    pub(crate) fn use_store(&mut self) {
        if self.grid.on && self.keeps_store() {
            let store = self.grid.known.store.as_mut().expect("it is kept here");
            if !std::mem::replace(&mut store.used, true) {
                let store = store.clone();
                self.tell_store(&store);
            }
        }
    }

    /// This node's store is the grid's from now on, whatever was before: an operator says so.
    pub fn claim_store(&mut self, now: Now) -> Result<(), v1::Failure> {
        self.begin_grid(now);
        let Some(own) = self.grid.known.own.filter(|_| self.grid.on) else {
            return Err(match self.grid.on {
                true => Code::Conflict
                    .because("this node has no store of its own")
                    .hint("start it without --store grid"),
                false => Code::Conflict.because("this daemon is alone: it has no other nodes"),
            });
        };
        let term = (self.grid.known.term + 1).min(bourse_market::store::TERM_MAX);
        let store = GridStore { id: own.id, term, used: true, node: self.grid.me.clone() };
        self.adopt(now, store);
        self.settle(now);
        Ok(())
    }

    /// The other end of a link that is being made says what it knows. Why the link is not made, if it is not.
    pub(super) fn meet_store(&mut self, now: Now, theirs: Option<peer::Store>) -> Result<(), v1::Failure> {
        let Some(theirs) = theirs else { return Ok(()) };
        let theirs = codec::store(theirs).map_err(|error| Code::Protocol.because(error.to_string()))?;
        self.grid.known.term = self.grid.known.term.max(theirs.term);
        match self.grid_store().map(|ours| (ours.compare(&theirs), ours.clone())) {
            None | Some((Verdict::Theirs, _)) => self.adopt(now, theirs),
            Some((Verdict::Ours | Verdict::Same, _)) => {}
            Some((Verdict::Two, ours)) => return Err(two_stores(&ours, &theirs)),
        }
        Ok(())
    }

    /// A linked node says what it knows.
    pub(super) fn on_store(&mut self, now: Now, link: LinkId, store: peer::Store) {
        match (self.meet_store(now, Some(store.clone())), self.grid.node_of(link)) {
            (Err(failure), Some(node)) => self.refuse_store(now, link, node, failure),
            _ => self.answer_store(link, Some(store)),
        }
    }

    /// Tells a node that it knows something older.
    pub(super) fn answer_store(&mut self, link: LinkId, theirs: Option<peer::Store>) {
        let Some(ours) = self.grid_store() else { return };
        let theirs = theirs.and_then(|theirs| codec::store(theirs).ok());
        if theirs.is_none_or(|theirs| ours.compare(&theirs) == Verdict::Ours) {
            let frame = Frame::Store(codec::store_to_wire(ours));
            self.send_peer(link, frame, Bytes::new());
        }
    }

    fn adopt(&mut self, now: Now, store: GridStore) {
        let before = self.grid_store().map(|before| before.node.id);
        let me = self.grid.me.id;
        self.grid.known.term = self.grid.known.term.max(store.term);
        self.grid.known.store = Some(store.clone());
        if store.node.id != me {
            self.grid.market.learn(&store.node);
        }
        self.tell_store(&store);
        self.tell_keeper_again(now);
        if before != Some(store.node.id) {
            let text = match (store.node.id == me, before.is_some()) {
                (true, false) => format!("this node keeps the grid's store, {}", store.short()),
                (true, true) => format!("this node keeps the grid's store from now on: {}", store.short()),
                (false, _) => {
                    format!(
                        "the grid's store {} is kept by the node {}",
                        store.short(),
                        store.node.id.short()
                    )
                }
            };
            self.note(Level::Info, text);
            self.triggers_changed();
            self.change_catalogue(now);
            self.forward_again(now);
        }
    }

    /// Tells everybody, and has it remembered.
    fn tell_store(&mut self, store: &GridStore) {
        self.outputs.push_back(Output::GridStore(store.clone()));
        let open = |(link, state): (&LinkId, &Link)| matches!(state, Link::Open { .. }).then_some(*link);
        let links: Vec<LinkId> = self.grid.links.iter().filter_map(open).collect();
        for link in links {
            self.send_peer(link, Frame::Store(codec::store_to_wire(store)), Bytes::new());
        }
    }

    fn tell_keeper_again(&mut self, now: Now) {
        let elsewhere = self.grid_store().is_some_and(|store| !store.is_kept_by(self.grid.me.id));
        self.grid.known.tell_at = elsewhere.then(|| now.mono + TELL);
    }

    /// A node that uses the store stays linked with the one that keeps it.
    pub(super) fn on_store_due(&mut self, now: Now) {
        if self.grid.known.tell_at.is_none_or(|at| at > now.mono) {
            return;
        }
        self.tell_keeper_again(now);
        let Some(store) = self.grid_store().cloned() else { return };
        if let Some(link) = self.link_with(now, store.node.id) {
            self.send_peer(link, Frame::Store(codec::store_to_wire(&store)), Bytes::new());
        }
    }

    /// The link with a node, once both ends have said who they are. If there is none, one is made, and comes later.
    pub(super) fn link_with(&mut self, now: Now, node: NodeId) -> Option<LinkId> {
        let link = self.grid.market.reach(now.mono, node)?;
        (self.grid.node_of(link) == Some(node)).then_some(link)
    }
}

fn two_stores(ours: &GridStore, theirs: &GridStore) -> v1::Failure {
    Code::Conflict
        .because(format!(
            "there are two stores: {} at the node {}, and {} at the node {}. A grid has one, and both have calls or state in them",
            ours.short(),
            ours.node.id.short(),
            theirs.short(),
            theirs.node.id.short()
        ))
        .hint(
            "start the node whose store is not to be used with --store grid: its own stays as it is, unused; or keep the nodes apart",
        )
}
