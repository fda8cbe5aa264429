//! Knows the other authorities, tells everybody about them, and sees to it that there are enough and not too many.
//!
//! ```text
//! authority <-> authority: mesh, resign         member -> authority: join
//! authority -> member: grid, appoint            any node -> authority: grid (of another part of the network)
//! ```
//!
//! - An authority counts only if it has said so itself, over a link that is up, within `silence_max`. What others say of it
//!   is a hint whom to ask: no rumour raises one that is gone.
//! - It tells the others about itself every `mesh`, and names those that it is connected with to whoever knows others. Who
//!   was an authority once is asked again for [`REMEMBERED`], so that a split grid finds itself again; a mere rumour for
//!   [`RUMOUR`].
//! - There should be one authority for `nodes_per_authority` nodes, within `authorities_min` and `authorities_max`. Where
//!   there are too few, half of those that are missing are appointed every [`PAUSES`] × `mesh`: by the authority that counts
//!   most nodes; the next one takes its turn if nothing comes of that. Where there have been too many for [`SURPLUS`], and all agree who is there,
//!   the ones with the least weight step down 2 × `mesh` later: one, or half of the surplus if that is more.
//!
//! There is no leader: each decides alone, by rules that give the same where the same is known.
//!
//! After faults have stopped, the lists agree within `redial_max` (to reach the others) + 2 × `mesh` + `silence_max`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bourse_wire::id::Incarnation;
use bourse_wire::time::Mono;

use crate::message::{Envelope, Grid, Join, Mesh, Message};
use crate::mutant::{self, Mutant};
use crate::name::{Contact, NodeId};
use crate::placing;
use crate::times::{CONTACTS_MAX, TEXT_BYTES_MAX, Times};

/// An authority that cannot be reached is asked again for this long.
pub const REMEMBERED: Duration = Duration::from_secs(3_600);

/// One that never was reached is asked again for this long after it was named last.
pub const RUMOUR: Duration = Duration::from_secs(60);

/// There have to be too many for this long before one steps down.
pub const SURPLUS: Duration = Duration::from_secs(10);

/// So many times `mesh` are between two appointments.
pub const PAUSES: u32 = 2;

/// Most members that are named to the others, should all authorities be gone.
const OTHERS_MAX: usize = 8;

/// What an authority wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this. If the receiver is not linked, dial it; the message is dropped then.
    Send(Envelope),
    /// An address worth having.
    Know(Contact),
    /// It is an authority no longer: drop it, and tell the member. It has told everybody else.
    StepDown,
    /// [`Authority::authorities`] has changed.
    Authorities,
}

/// One of the authorities.
#[derive(Debug)]
pub struct Authority {
    times: Arc<Times>,
    me: Contact,
    linked: BTreeSet<NodeId>,
    peers: BTreeMap<NodeId, Peer>,
    members: BTreeMap<NodeId, Member>,
    /// How many nodes count it as their first authority, itself among them.
    counted: u32,
    /// Those that are named to members, should all authorities be gone. Found out anew at each tick, and when asked for while
    /// there are few.
    others: Option<Vec<Contact>>,
    /// The next attempt to reach a peer that is not linked.
    attempt_at: Option<Mono>,
    authorities: Vec<Contact>,
    view: u64,
    /// The next time to tell the others, and to look who is silent.
    tick_at: Mono,
    /// When the members are told what has changed.
    tell_at: Option<Mono>,
    /// Since when there are too few, and since when too many.
    shortage_at: Option<Mono>,
    surplus_at: Option<Mono>,
    /// When it steps down, if there are still too many then.
    leaves_at: Option<Mono>,
    /// Those that were appointed last: somebody else's turn is next.
    appointed: BTreeSet<NodeId>,
    is_over: bool,
    out: VecDeque<Output>,
}

/// Somebody who is, was, or might be an authority.
#[derive(Debug)]
struct Peer {
    contact: Contact,
    /// When it has said itself that it is one, over the link that is up.
    heard: Option<Mono>,
    /// The last time that anything pointed to it.
    noted: Mono,
    /// It has said so once.
    is_proven: bool,
    view: u64,
    nodes: u32,
    /// The next attempt to reach it, while it is not linked.
    at: Mono,
    pause: Duration,
}

#[derive(Debug)]
struct Member {
    contact: Contact,
    may_serve: bool,
    is_first: bool,
    joined: Mono,
}

impl Authority {
    /// A new one. Whoever is known to have been an authority is asked. `on_link` has to be called for each link that is open.
    pub fn new(times: Arc<Times>, me: Contact, known: Vec<Contact>, seed: u64, now: Mono) -> Self {
        // Authorities that begin together do not go on talking all at once.
        let share = placing::weight(&seed.to_le_bytes(), me.id) as f64 / u64::MAX as f64;
        let mut authority = Self {
            tick_at: now + times.mesh.mul_f64(share),
            times,
            linked: BTreeSet::new(),
            peers: BTreeMap::new(),
            members: BTreeMap::new(),
            counted: 1,
            others: None,
            attempt_at: None,
            view: placing::view([&me]),
            authorities: vec![me.clone()],
            me,
            tell_at: None,
            shortage_at: None,
            surplus_at: None,
            leaves_at: None,
            appointed: BTreeSet::new(),
            is_over: false,
            out: VecDeque::new(),
        };
        for contact in &known {
            authority.note(now, contact);
        }
        authority.settle(now);
        authority
    }

    /// A link to that node has opened, has ended, or could not be made.
    pub fn on_link(&mut self, now: Mono, node: &Contact, up: bool) {
        if node.id == self.me.id {
            return;
        }
        if up {
            self.linked.insert(node.id);
            if self.peers.contains_key(&node.id) {
                self.mesh(node.id, now);
            }
        } else {
            self.linked.remove(&node.id);
            self.set_member(node.id, None);
            if let Some(peer) = self.peers.get_mut(&node.id) {
                if !mutant::is(Mutant::SilenceIsPresence) {
                    peer.heard = None;
                }
                peer.at = now + peer.pause;
            }
        }
        self.settle(now);
    }

    /// A message has come over an open link.
    pub fn on_message(&mut self, now: Mono, from: NodeId, message: &Message) {
        match message {
            // One that is told at once: it changes nothing that others see.
            Message::Join(join) => return self.on_join(now, from, join),
            Message::Mesh(mesh) => self.on_mesh(now, from, mesh),
            Message::Resign(incarnation) => self.on_resign(from, *incarnation),
            Message::Grid(grid) if from != self.me.id => self.on_grid(now, grid),
            _ => return,
        }
        self.settle(now);
    }

    /// Steps down, whoever is left: the node is about to end.
    pub fn resign(&mut self) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        let grid = self.grid_of(self.authorities.iter().filter(|a| a.id != self.me.id).cloned().collect());
        let peers: Vec<NodeId> = self.peers.keys().copied().filter(|id| self.linked.contains(id)).collect();
        for id in peers {
            self.send(id, Message::Resign(self.me.incarnation));
        }
        let members: Vec<NodeId> = self.members.keys().copied().filter(|id| *id != self.me.id).collect();
        for id in members {
            self.send(id, Message::Grid(grid.clone()));
        }
        self.out.push_back(Output::StepDown);
    }

    /// Tells what is due to be told, and looks who is silent.
    pub fn handle_timeout(&mut self, now: Mono) {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        if self.tick_at <= now {
            self.on_tick(now);
        }
        self.settle(now);
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            let members: Vec<NodeId> = self.members.keys().copied().collect();
            let grid = self.grid_of(self.authorities.clone());
            for id in members {
                self.send(id, Message::Grid(grid.clone()));
            }
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Mono> {
        if self.is_over {
            return None;
        }
        self.attempt_at.into_iter().chain(self.tell_at).chain([self.tick_at]).min()
    }

    /// Itself, and those that have said over a link that is up that they are there; by id.
    pub fn authorities(&self) -> &[Contact] {
        &self.authorities
    }

    /// How many nodes count it as their first authority, itself among them.
    pub fn members(&self) -> usize {
        self.counted as usize
    }

    /// How many nodes there are, roughly.
    pub fn nodes(&self) -> u32 {
        let peers = self.present().map(|(_, peer)| peer.nodes);
        peers.fold(self.counted, u32::saturating_add)
    }

    /// Panics if the authority contradicts itself.
    pub fn check_invariants(&self) {
        assert!(self.authorities.is_sorted_by_key(|a| a.id), "authorities are in order");
        assert!(self.authorities.iter().any(|a| a.id == self.me.id), "it is one itself");
        assert!(!self.peers.contains_key(&self.me.id));
        for authority in self.authorities.iter().filter(|a| a.id != self.me.id) {
            assert!(self.linked.contains(&authority.id), "{} counts, and has no link", authority.id);
            assert!(
                self.peers[&authority.id].heard.is_some(),
                "{} counts, and has said nothing",
                authority.id
            );
        }
        assert!(self.peers.len() <= CONTACTS_MAX, "too many are remembered");
        assert_eq!(self.view, placing::view(&self.authorities));
        let counted =
            self.members.iter().filter(|(id, member)| member.is_first && **id != self.me.id).count();
        assert_eq!(self.counted as usize, 1 + counted, "those that count it are counted");
    }

    fn on_join(&mut self, now: Mono, from: NodeId, join: &Join) {
        let known = self.members.get(&from).map(|member| member.contact.incarnation);
        let is_late = known.is_some_and(|known| join.contact.incarnation < known);
        if join.contact.id != from || !is_sound(&join.contact) || is_late || self.is_over {
            return;
        }
        let (contact, may_serve, is_first) = (join.contact.clone(), join.may_serve, join.first);
        self.linked.insert(from);
        let is_new = self.set_member(from, Some(Member { contact, may_serve, is_first, joined: now }));
        if is_new && self.others.as_ref().is_some_and(|others| others.len() < OTHERS_MAX) {
            self.others = None;
        }
        if join.view != self.view {
            let grid = self.grid_of(self.authorities.clone());
            self.send(from, Message::Grid(grid));
        }
    }

    /// A member comes, changes or goes. Whether it was none before.
    fn set_member(&mut self, id: NodeId, member: Option<Member>) -> bool {
        let counts = |member: &Option<Member>| {
            u32::from(member.as_ref().is_some_and(|m| m.is_first) && id != self.me.id)
        };
        let new = counts(&member);
        let before = match member {
            Some(member) => self.members.insert(id, member),
            None => self.members.remove(&id),
        };
        self.counted = self.counted + new - counts(&before);
        before.is_none()
    }

    fn on_mesh(&mut self, now: Mono, from: NodeId, mesh: &Mesh) {
        if mesh.contact.id != from || from == self.me.id || !is_sound(&mesh.contact) || self.is_over {
            return;
        }
        self.linked.insert(from);
        self.note(now, &mesh.contact);
        let view = self.view;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if mesh.contact.incarnation < peer.contact.incarnation {
            return;
        }
        let is_new = peer.heard.is_none();
        peer.heard = Some(now);
        peer.noted = now;
        peer.is_proven = true;
        peer.pause = self.times.redial_min;
        peer.view = mesh.view;
        peer.nodes = mesh.nodes;
        for contact in mesh.authorities.iter().take(CONTACTS_MAX) {
            self.note(now, contact);
        }
        if is_new || (mesh.view != view && mesh.authorities.is_empty()) {
            self.mesh(from, now);
        }
    }

    fn on_resign(&mut self, from: NodeId, incarnation: Incarnation) {
        if self.peers.get(&from).is_some_and(|peer| peer.contact.incarnation <= incarnation) {
            self.peers.remove(&from);
        }
    }

    /// Somebody says who the authorities are, as it sees it.
    fn on_grid(&mut self, now: Mono, grid: &Grid) {
        for contact in grid.authorities.iter().take(CONTACTS_MAX) {
            self.note(now, contact);
        }
    }

    fn on_tick(&mut self, now: Mono) {
        self.tick_at = now + self.times.mesh;
        let kept = self.times.join * 3;
        let is_gone = |(_, member): &(&NodeId, &Member)| now.since(member.joined) > kept;
        let gone: Vec<NodeId> = self.members.iter().filter(is_gone).map(|(id, _)| *id).collect();
        for id in gone {
            self.set_member(id, None);
        }
        self.others = None;
        for peer in self.peers.values_mut() {
            let is_silent = peer.heard.is_some_and(|heard| now.since(heard) > self.times.silence_max);
            if is_silent && !mutant::is(Mutant::SilenceIsPresence) {
                peer.heard = None;
            }
        }
        self.peers.retain(|_, peer| {
            let kept = if peer.is_proven { REMEMBERED } else { RUMOUR };
            peer.heard.is_some() || now.since(peer.noted) <= kept
        });
        self.refresh(now);
        let linked: Vec<NodeId> = self.peers.keys().copied().filter(|id| self.linked.contains(id)).collect();
        for id in linked {
            self.mesh(id, now);
        }
        self.balance(now);
    }

    /// Somebody might be an authority: it is asked, at once if it was not known.
    fn note(&mut self, now: Mono, contact: &Contact) {
        if contact.id == self.me.id || !is_sound(contact) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&contact.id) {
            if peer.contact.incarnation < contact.incarnation {
                peer.contact = contact.clone();
                peer.heard = None;
                (peer.at, peer.noted) = (now, now);
                peer.pause = self.times.redial_min;
                self.out.push_back(Output::Know(contact.clone()));
            }
            if !peer.is_proven {
                peer.noted = now;
            }
            return;
        }
        if self.peers.len() >= CONTACTS_MAX {
            let gone = self.peers.iter().filter(|(_, peer)| peer.heard.is_none());
            let Some((id, _)) = gone.min_by_key(|(_, peer)| (peer.is_proven, peer.noted)) else { return };
            let id = *id;
            self.peers.remove(&id);
        }
        let heard = mutant::is(Mutant::RumourRaises).then_some(now);
        self.out.push_back(Output::Know(contact.clone()));
        let (id, contact, pause) = (contact.id, contact.clone(), self.times.redial_min);
        let peer = Peer { contact, heard, noted: now, is_proven: false, view: 0, nodes: 1, at: now, pause };
        self.peers.insert(id, peer);
        if self.linked.contains(&id) {
            self.mesh(id, now);
        }
    }

    /// Those that are there, apart from itself.
    fn present(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter().filter(|(id, peer)| {
            let is_linked = self.linked.contains(*id)
                || mutant::is(Mutant::RumourRaises)
                || mutant::is(Mutant::SilenceIsPresence);
            peer.heard.is_some() && is_linked
        })
    }

    /// Asks who is to be asked, and notes what has changed.
    fn settle(&mut self, now: Mono) {
        self.refresh(now);
        let is_due = |(id, peer): &(&NodeId, &Peer)| !self.linked.contains(*id) && peer.at <= now;
        let due: Vec<NodeId> = self.peers.iter().filter(is_due).map(|(id, _)| *id).collect();
        for id in due {
            self.mesh(id, now);
        }
        let attempts = self.peers.iter().filter(|(id, _)| !self.linked.contains(id)).map(|(_, peer)| peer.at);
        self.attempt_at = attempts.min();
    }

    fn refresh(&mut self, now: Mono) {
        let present = || self.present().map(|(_, peer)| &peer.contact);
        let is_known = |c: &Contact| {
            self.authorities.binary_search_by_key(&c.id, |a| a.id).is_ok_and(|at| self.authorities[at] == *c)
        };
        if self.is_over || (present().count() + 1 == self.authorities.len() && present().all(is_known)) {
            return;
        }
        let mut authorities: Vec<Contact> = present().chain([&self.me]).cloned().collect();
        authorities.sort_unstable_by_key(|contact| contact.id);
        self.others = None;
        self.view = placing::view(&authorities);
        self.authorities = authorities;
        self.shortage_at = None;
        self.surplus_at = None;
        self.tell_at = self.tell_at.or(Some(now + self.times.coalesce));
        self.out.push_back(Output::Authorities);
    }

    /// Tells a peer about this authority. If it is not linked, that dials it.
    fn mesh(&mut self, to: NodeId, now: Mono) {
        let peer = self.peers.get_mut(&to).expect("only peers are told");
        let is_linked = self.linked.contains(&to);
        if !is_linked {
            peer.at = now + peer.pause;
            peer.pause = (peer.pause * 2).min(self.times.redial_max);
            if peer.contact.address.is_empty() {
                // It has to connect itself.
                return;
            }
        }
        let knows_all = peer.view == self.view || !is_linked;
        let authorities = if knows_all { Vec::new() } else { self.authorities.clone() };
        let nodes = self.counted;
        let mesh = Mesh { contact: self.me.clone(), view: self.view, nodes, authorities, roster: 0 };
        self.send(to, Message::Mesh(mesh));
    }

    /// Appoints somebody if there are too few, steps down if there are too many.
    fn balance(&mut self, now: Mono) {
        let there = self.authorities.len();
        let nodes = self.nodes() as usize;
        let enough = nodes.div_ceil(self.times.nodes_per_authority.max(1));
        let wanted = enough.max(self.times.authorities_min).min(self.times.authorities_max).max(1);
        self.shortage_at = (there < wanted).then(|| self.shortage_at.unwrap_or(now));
        self.surplus_at = (there > wanted).then(|| self.surplus_at.unwrap_or(now));
        if self.shortage_at.is_some_and(|since| now.since(since) >= self.turn()) {
            self.shortage_at = Some(now);
            self.appoint(wanted - there);
        }
        let are_too_many = there > wanted || mutant::is(Mutant::AllStepDown);
        if self.leaves_at.is_some_and(|at| at <= now) && are_too_many {
            self.resign();
        } else if self.leaves_at.is_none() && self.surplus_at.is_some_and(|at| now.since(at) >= SURPLUS) {
            self.consider_leaving(now, there - wanted);
        }
        if !are_too_many {
            self.leaves_at = None;
        }
    }

    /// How long after the beginning of a shortage it is this authority's turn: first comes who counts most nodes.
    fn turn(&self) -> Duration {
        let own = (self.counted, std::cmp::Reverse(self.me.id));
        let before = self.present().filter(|(id, peer)| (peer.nodes, std::cmp::Reverse(**id)) > own);
        self.times.mesh * PAUSES * (1 + u32::try_from(before.count()).unwrap_or(u32::MAX / 4))
    }

    /// Half of those that are missing, since another authority may appoint some as well: those that fail with as few
    /// authorities as possible; among those the ones that would step down last.
    fn appoint(&mut self, missing: usize) {
        let mut domains: BTreeSet<&str> = self.authorities.iter().map(|a| a.domain.as_str()).collect();
        let members = self.members.iter().filter(|(id, member)| {
            member.may_serve
                && self.linked.contains(*id)
                && !member.contact.address.is_empty()
                && self.authorities.binary_search_by_key(*id, |a| a.id).is_err()
        });
        let mut able: Vec<(bool, u64, &Contact)> = members
            .map(|(id, member)| (!self.appointed.contains(id), weight(*id), &member.contact))
            .collect();
        let mut appointed = BTreeSet::new();
        for _ in 0..missing.div_ceil(2) {
            let fails_alone =
                |contact: &Contact| !contact.domain.is_empty() && !domains.contains(contact.domain.as_str());
            let ranks =
                able.iter().map(|(is_next, weight, contact)| (*is_next, fails_alone(contact), *weight));
            let Some((at, _)) = ranks.enumerate().max_by_key(|(_, rank)| *rank) else { break };
            let (.., contact) = able.swap_remove(at);
            domains.insert(&contact.domain);
            appointed.insert(contact.id);
        }
        for id in &appointed {
            self.send(*id, Message::Appoint);
        }
        self.appointed = appointed;
    }

    /// Who is among the lightest leaves, but only after the others could come to the same end: each leaves by itself, and
    /// together they must not be more than there is surplus.
    fn consider_leaving(&mut self, now: Mono, surplus: usize) {
        let do_agree = self.present().all(|(_, peer)| peer.view == self.view);
        let lighter = self.authorities.iter().filter(|a| weight(a.id) < weight(self.me.id)).count();
        let is_light = lighter < (surplus / 2).max(1) || mutant::is(Mutant::AllStepDown);
        if do_agree && is_light {
            self.leaves_at = Some(now + self.times.mesh * 2);
        }
    }

    fn grid_of(&mut self, authorities: Vec<Contact>) -> Grid {
        let others = self.others.take().unwrap_or_else(|| self.heaviest());
        let grid = Grid { authorities, others: others.clone(), nodes: self.nodes() };
        self.others = Some(others);
        grid
    }

    /// The members that would be the last to step down, if they served.
    fn heaviest(&self) -> Vec<Contact> {
        let may_serve = self.members.values().filter(|m| m.may_serve && !m.contact.address.is_empty());
        let mut others: Vec<&Contact> = may_serve.map(|member| &member.contact).collect();
        others.retain(|other| self.authorities.binary_search_by_key(&other.id, |a| a.id).is_err());
        others.sort_by_cached_key(|other| std::cmp::Reverse(weight(other.id)));
        others.into_iter().take(OTHERS_MAX).cloned().collect()
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.out.push_back(Output::Send(Envelope { to, message }));
    }
}

/// Who has the least steps down first.
fn weight(id: NodeId) -> u64 {
    placing::weight(b"authority", id)
}

fn is_sound(contact: &Contact) -> bool {
    contact.address.len() <= TEXT_BYTES_MAX && contact.domain.len() <= TEXT_BYTES_MAX
}
