//! This node's connections with other nodes: who is there, who is silent, whom to dial.
//!
//! ```text
//! transport -> links: linked, unlinked, heard       links -> transport: dial, hang up
//! links <-> links of another node: beat             where nothing else was said for a while
//! ```
//!
//! Two nodes may have several links, if both have dialed; the oldest one is used. A link on which nothing is heard is given
//! up, and one on which nothing but beats was said for `link_idle`, and no channel needs, is closed: what a node beats for are
//! the links that it uses, however many nodes it has met. Nobody is dialed who is not wanted: a message to a
//! node without a link makes it wanted. The message itself is dropped, since everything is said again once a link is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bourse_wire::time::Mono;

use crate::name::{Contact, NodeId};
use crate::times::Times;

/// A connection with another node, as the transport numbers them. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// Most nodes whose addresses are remembered.
pub const BOOK_MAX: usize = 65_536;

/// What links ask of the transport, and tell the rest of the market.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Say that we are there.
    Beat(LinkId),
    /// Connect.
    Dial(Contact),
    /// Close.
    HangUp(LinkId),
    /// There is a link with this node now, and was none.
    Up(Contact),
    /// There is none any more, or could not be made.
    Down(Contact),
    /// Two nodes that live have this identity.
    Twins(Contact),
}

/// All links of a node.
#[derive(Debug)]
pub struct Links {
    times: Arc<Times>,
    me: NodeId,
    links: BTreeMap<LinkId, Link>,
    by_node: BTreeMap<NodeId, BTreeSet<LinkId>>,
    /// Where nodes can be called on.
    book: BTreeMap<NodeId, Contact>,
    dials: BTreeMap<NodeId, Dial>,
    /// When to look at a link again; it may have been used meanwhile.
    due: BTreeSet<(Mono, LinkId)>,
    outputs: Vec<Output>,
}

#[derive(Debug)]
struct Link {
    contact: Contact,
    heard: Mono,
    sent: Mono,
    /// When something other than a beat went over it, either way.
    used: Mono,
}

#[derive(Debug, Default)]
struct Dial {
    /// It is being dialed now.
    under_way: bool,
    failures: u32,
    not_before: Mono,
}

impl Links {
    /// No link yet.
    pub fn new(times: Arc<Times>, me: NodeId) -> Self {
        Self {
            times,
            me,
            links: BTreeMap::new(),
            by_node: BTreeMap::new(),
            book: BTreeMap::new(),
            dials: BTreeMap::new(),
            due: BTreeSet::new(),
            outputs: Vec::new(),
        }
    }

    /// An address that may be of use.
    pub fn learn(&mut self, contact: &Contact) {
        let known = self.book.contains_key(&contact.id);
        if contact.id == self.me || contact.address.is_empty() || (!known && self.book.len() >= BOOK_MAX) {
            return;
        }
        let older = |have: &Contact| contact.incarnation.0 == 0 && have.incarnation.0 != 0;
        if !self.book.get(&contact.id).is_some_and(older) {
            self.book.insert(contact.id, contact.clone());
        }
    }

    /// An address at which a node was found just now: what was known of it before is older, unless there is a link.
    pub fn find(&mut self, contact: &Contact) {
        self.learn(contact);
        let is_linked = self.by_node.contains_key(&contact.id);
        if let Some(known) = self.book.get_mut(&contact.id).filter(|_| !is_linked) {
            known.address.clone_from(&contact.address);
        }
    }

    /// A link has opened, and the other end has said who it is.
    pub fn linked(&mut self, now: Mono, link: LinkId, contact: Contact) {
        if contact.id == self.me || self.links.contains_key(&link) {
            self.outputs.push(Output::HangUp(link));
            return;
        }
        let node = contact.id;
        self.learn(&contact);
        self.dials.remove(&node);
        let others = self.by_node.get(&node).cloned().unwrap_or_default();
        let of_other_life: Vec<LinkId> =
            others.into_iter().filter(|l| self.links[l].contact.incarnation != contact.incarnation).collect();
        for old in of_other_life {
            // Its last life is over, unless two nodes have one identity: then it has just spoken.
            let twin = now.since(self.links[&old].heard) < self.times.beat;
            if twin {
                self.outputs.push(Output::Twins(contact.clone()));
            }
            self.outputs.push(Output::HangUp(old));
            self.unlinked(now, old);
        }
        self.links.insert(link, Link { contact: contact.clone(), heard: now, sent: now, used: now });
        let links = self.by_node.entry(node).or_default();
        let first = links.is_empty();
        links.insert(link);
        self.watch(link);
        if first {
            self.outputs.push(Output::Up(contact));
        }
    }

    /// A link has ended.
    pub fn unlinked(&mut self, now: Mono, link: LinkId) {
        let Some(Link { contact, .. }) = self.links.remove(&link) else { return };
        let links = self.by_node.get_mut(&contact.id).expect("a link is one of its node's");
        links.remove(&link);
        if links.is_empty() {
            self.by_node.remove(&contact.id);
            self.pause(now, contact.id);
            self.outputs.push(Output::Down(contact));
        }
    }

    /// A node that was to be dialed was not reached.
    pub fn not_reached(&mut self, now: Mono, node: NodeId) {
        let under_way = self.dials.get(&node).is_some_and(|dial| dial.under_way);
        if !under_way || self.by_node.contains_key(&node) {
            return;
        }
        self.pause(now, node);
        if let Some(contact) = self.book.get(&node) {
            self.outputs.push(Output::Down(contact.clone()));
        }
    }

    /// Something came over a link. The node at its other end; `None` if there is no such link.
    pub fn heard(&mut self, now: Mono, link: LinkId, is_beat: bool) -> Option<NodeId> {
        let link = self.links.get_mut(&link)?;
        link.heard = now;
        if !is_beat {
            link.used = now;
        }
        Some(link.contact.id)
    }

    /// The link to send to a node by. If there is none, the node is dialed, as far as that is possible and not too soon.
    pub fn to_send(&mut self, now: Mono, node: NodeId) -> Option<LinkId> {
        if let Some(link) = self.by_node.get(&node).and_then(|links| links.first()).copied() {
            self.sent(now, link);
            return Some(link);
        }
        let contact = self.book.get(&node)?;
        let dial = self.dials.entry(node).or_default();
        if !dial.under_way && dial.not_before <= now {
            dial.under_way = true;
            self.outputs.push(Output::Dial(contact.clone()));
        }
        None
    }

    /// Something other than a beat was sent over a link.
    pub fn sent(&mut self, now: Mono, link: LinkId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.sent = now;
            link.used = now;
        }
    }

    /// The other end of a link.
    pub fn contact(&self, link: LinkId) -> Option<&Contact> {
        self.links.get(&link).map(|link| &link.contact)
    }

    /// The link with a node that is used.
    pub fn link_of(&self, node: NodeId) -> Option<LinkId> {
        self.by_node.get(&node).and_then(|links| links.first()).copied()
    }

    /// All nodes that there is a link with, and when they were last heard.
    pub fn nodes(&self) -> impl Iterator<Item = (&Contact, Mono)> {
        self.by_node.values().filter_map(|links| links.first()).map(|l| {
            let link = &self.links[l];
            (&link.contact, link.heard)
        })
    }

    /// How many links there are.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Does what is due. `has_channels`: with this node, so that a link with it is kept although it is hardly used.
    pub fn handle_timeout(&mut self, now: Mono, has_channels: impl Fn(NodeId) -> bool) {
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let Some(link) = self.links.get_mut(&id) else { continue };
            let silent = now.since(link.heard) >= self.times.silence_max;
            let unused_for = now.since(link.used);
            let unused = unused_for >= self.times.link_idle
                && (unused_for >= self.times.channel_idle || !has_channels(link.contact.id));
            if silent || unused {
                self.outputs.push(Output::HangUp(id));
                self.unlinked(now, id);
                continue;
            }
            if now.since(link.sent) >= self.times.beat {
                link.sent = now;
                self.outputs.push(Output::Beat(id));
            }
            self.watch(id);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What is to be done, in order.
    pub fn poll(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    fn watch(&mut self, id: LinkId) {
        let link = &self.links[&id];
        let at = (link.sent + self.times.beat).min(link.heard + self.times.silence_max);
        self.due.insert((at, id));
    }

    fn pause(&mut self, now: Mono, node: NodeId) {
        let dial = self.dials.entry(node).or_default();
        let pause =
            self.times.redial_min.saturating_mul(1 << dial.failures.min(10)).min(self.times.redial_max);
        *dial = Dial { under_way: false, failures: dial.failures + 1, not_before: now + pause };
        // Who is not wanted any more is forgotten in time, else this would grow with every node that ever was.
        if self.dials.len() > DIALS_MAX {
            let over = |dial: &Dial| !dial.under_way && now.since(dial.not_before) > Duration::from_secs(60);
            self.dials.retain(|_, dial| !over(dial));
        }
    }

    /// Panics if what must hold does not.
    pub fn check_invariants(&self) {
        let listed: usize = self.by_node.values().map(BTreeSet::len).sum();
        assert_eq!(listed, self.links.len(), "each link is one of its node's");
        for (node, links) in &self.by_node {
            assert!(!links.is_empty(), "a node is listed for its links");
            for link in links {
                assert_eq!(self.links[link].contact.id, *node, "a link is its own node's");
            }
        }
        let watched: BTreeSet<LinkId> = self.due.iter().map(|(_, link)| *link).collect();
        assert!(self.links.keys().all(|link| watched.contains(link)), "each link is looked at again");
    }
}

/// So many nodes that could not be reached are remembered before the old ones are forgotten.
const DIALS_MAX: usize = 1_024;
