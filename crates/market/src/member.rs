//! A node's place in the grid: it finds authorities, stays with two of them, and becomes one if there is none.
//!
//! ```text
//! member -> authority: join                    authority -> member: grid, appoint
//! member -> any node: join (while it is alone) member -> who asks it: grid (where the authorities are), resign (I am none)
//! ```
//!
//! - Its homes are two authorities, chosen by [`placing::hosts`] with its own id as the name. It tells them every `join`
//!   that it is there; they tell it who the authorities are. It believes only them, and of them only what they said last:
//!   what both of them no longer say is gone. A home whose link ends has said nothing.
//! - While it has no home it asks every node that it has heard of, with a growing pause each. After `alone`, and up to as
//!   much again by chance, it serves itself, if it may, and tells all who have asked it. If others are known who would serve
//!   (an authority names some), they go first: it waits twice `alone` longer. A seed that answers goes first as well: it
//!   waits `alone` longer.
//! - A seed that is found later is asked at once, and from then on as the others.
//! - One that serves is its own first home. It goes on to ask its seeds, now and then: that heals what a split has left. While it
//!   knows no other authority, it asks them every `redial_max`.
//!
//! After faults have stopped it has homes within `redial_max`, and knows what they know within `join`.

mod hearing;
mod seeds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bourse_wire::time::Mono;

use crate::message::{Envelope, Grid, Join, Message};
use crate::mutant::{self, Mutant};
use crate::name::{Contact, NodeId};
use crate::placing;
use crate::times::{CONTACTS_MAX, TEXT_BYTES_MAX, Times};

/// How many authorities a node stays with.
const HOMES: usize = 2;

/// A seed that was reached is asked again after so many of the longest pauses between two attempts.
const SEED_PAUSES: u32 = 4;

/// What a member wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this. If the receiver is not linked, dial it; the message is dropped then.
    Send(Envelope),
    /// An address worth having.
    Know(Contact),
    /// Become an authority: make one of what [`Member::known`] has, and say so by [`Member::set_serving`].
    Serve,
    /// [`Member::authorities`] has changed.
    Authorities,
}

/// A node's place in the grid.
#[derive(Debug)]
pub struct Member {
    times: Arc<Times>,
    me: Contact,
    may_serve: bool,
    serving: bool,
    /// Its own address is one of those that it was started with.
    is_seed: bool,
    /// It lets a seed serve first.
    lets_seed: bool,
    /// Who has asked while it was no authority.
    asked: BTreeSet<NodeId>,
    seed: u64,
    /// Counts the draws from `seed`.
    draws: u64,
    linked: BTreeSet<NodeId>,
    /// Who might be an authority, or know one.
    book: BTreeMap<NodeId, Entry>,
    homes: BTreeMap<NodeId, Home>,
    authorities: Vec<Contact>,
    /// The authorities, the one that it is drawn to most first: hashed anew only when they have changed.
    ranked: Vec<Contact>,
    /// The [`placing::view`] of the authorities.
    view: u64,
    /// When something is due. Found out after each change, since it is asked for much more often.
    due: Option<Mono>,
    /// Who would serve if all authorities were gone, as a home has said.
    others: BTreeSet<NodeId>,
    nodes: u32,
    /// When it serves itself, while it has no home.
    serve_at: Option<Mono>,
    out: VecDeque<Output>,
}

#[derive(Debug)]
struct Entry {
    contact: Contact,
    kind: Kind,
    /// When it is asked next, if it is to be.
    at: Mono,
    pause: Duration,
    /// It could not be reached: until then it is not chosen as a home.
    shunned_until: Mono,
}

/// Why a node is remembered, the least reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It might know an authority, or become one.
    Other,
    /// It was an authority, as far as anybody has said.
    Authority,
    /// This node was started with its address, or has found it since.
    Seed,
}

#[derive(Debug)]
struct Home {
    contact: Contact,
    /// The authorities that it has named last, itself among them.
    said: Option<Vec<Contact>>,
    /// The next join.
    at: Mono,
    pause: Duration,
    is_first: bool,
}

impl Member {
    /// A node that has just started. It has no links yet. A seed is a contact with incarnation 0; if nobody knows its id, any
    /// will do, as long as its address is the one that it tells others.
    pub fn new(
        times: Arc<Times>,
        me: Contact,
        may_serve: bool,
        seeds: Vec<Contact>,
        seed: u64,
        now: Mono,
    ) -> Self {
        let mut member = Self {
            is_seed: seeds.iter().any(|seed| seed.address == me.address),
            lets_seed: false,
            asked: BTreeSet::new(),
            times,
            me,
            may_serve,
            serving: false,
            seed,
            draws: 0,
            linked: BTreeSet::new(),
            book: BTreeMap::new(),
            homes: BTreeMap::new(),
            authorities: Vec::new(),
            ranked: Vec::new(),
            view: 0,
            due: None,
            others: BTreeSet::new(),
            nodes: 1,
            serve_at: None,
            out: VecDeque::new(),
        };
        for seed in seeds {
            member.learn(now, &seed, Kind::Seed);
        }
        if member.book.is_empty() && may_serve {
            member.out.push_back(Output::Serve);
            member.serve_at = Some(now + member.times.alone * 2);
        } else {
            member.has_lost_homes(now);
            member.ask(now);
        }
        member.due = member.next_due(now);
        member
    }

    /// A link to that node has opened, has ended, or could not be made.
    pub fn on_link(&mut self, now: Mono, node: &Contact, up: bool) {
        if node.id == self.me.id {
            return;
        }
        if up {
            self.has_opened(now, node);
        } else {
            self.has_ended(now, node.id);
        }
        self.settle(now);
    }

    /// A message has come over an open link. What is for an authority is answered while this node is none.
    pub fn on_message(&mut self, now: Mono, from: NodeId, message: &Message) {
        match message {
            Message::Grid(grid) => self.on_grid(now, from, grid),
            Message::Appoint => self.on_appoint(from),
            Message::Join(join) if !self.serving => self.on_join(now, from, join),
            Message::Mesh(mesh) if !self.serving => self.on_mesh(from, mesh),
            _ => return,
        }
        self.settle(now);
    }

    /// The node has become an authority, or is one no longer.
    pub fn set_serving(&mut self, now: Mono, serving: bool) {
        if self.serving == serving {
            return;
        }
        self.serving = serving;
        self.serve_at = None;
        if serving {
            let (contact, pause) = (self.me.clone(), self.times.redial_min);
            let said = Some(vec![self.me.clone()]);
            self.homes.insert(self.me.id, Home { contact, said, at: now, pause, is_first: true });
            let grid = Grid { authorities: vec![self.me.clone()], others: Vec::new(), nodes: self.nodes };
            let asked = std::mem::take(&mut self.asked);
            for id in asked.into_iter().filter(|id| self.linked.contains(id)).collect::<Vec<_>>() {
                self.send(id, Message::Grid(grid.clone()));
            }
        } else if let Some(home) = self.homes.remove(&self.me.id) {
            self.rest_of(now, &home);
            self.set_authorities(self.authorities.iter().filter(|a| a.id != self.me.id).cloned().collect());
        }
        self.settle(now);
    }

    /// Asks again what is due; serves if nobody answers.
    pub fn handle_timeout(&mut self, now: Mono) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        if self.serve_at.is_some_and(|at| at <= now) {
            self.serve_at = Some(now + self.times.alone * 2);
            if !mutant::is(Mutant::AloneForEver) {
                self.out.push_back(Output::Serve);
            }
        }
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.due
    }

    /// The authorities, by id: all that its homes say, itself among them if it serves. While it has no home, those that it
    /// had last, but for the ones that it could not reach.
    pub fn authorities(&self) -> &[Contact] {
        &self.authorities
    }

    /// The authorities that it stays with.
    pub fn homes(&self) -> impl Iterator<Item = NodeId> {
        self.homes.keys().copied()
    }

    /// How many nodes there are, roughly.
    pub fn nodes(&self) -> u32 {
        self.nodes
    }

    /// Who was an authority when it heard of them last, or might be: what a new authority begins with.
    pub fn known(&self) -> Vec<Contact> {
        let known = self.book.values().filter(|e| e.kind == Kind::Authority).map(|e| e.contact.clone());
        // One that was met as something else, and is an authority by now, is one that is listed.
        let is_noted = |a: &&Contact| self.book.get(&a.id).is_some_and(|e| e.kind == Kind::Authority);
        let listed = self.authorities.iter().filter(|a| !is_noted(a)).cloned();
        known.chain(listed).filter(|contact| contact.id != self.me.id).take(CONTACTS_MAX).collect()
    }

    /// Panics if the member contradicts itself.
    pub fn check_invariants(&self) {
        assert!(self.authorities.is_sorted_by_key(|a| a.id), "authorities are in order");
        assert!(self.book.len() <= CONTACTS_MAX, "too many are remembered");
        assert!(!self.book.contains_key(&self.me.id), "a node does not ask itself");
        assert_eq!(self.serving, self.homes.contains_key(&self.me.id), "who serves is its own home");
        assert!(self.homes.values().filter(|home| home.is_first).count() <= 1, "one home counts the node");
        assert!(!self.serving || self.authorities.iter().any(|a| a.id == self.me.id), "it is an authority");
        let is_alone = !self.has_home();
        assert!(!is_alone || self.serve_at.is_some() || !self.may_serve, "who is alone serves in the end");
    }

    fn has_opened(&mut self, now: Mono, node: &Contact) {
        self.linked.insert(node.id);
        self.reach_seed(now, node);
        if let Some(home) = self.homes.get_mut(&node.id) {
            if home.contact.incarnation < node.incarnation {
                home.contact = node.clone();
                home.said = None;
            }
            home.at = now;
            home.pause = self.times.redial_min;
        } else if !self.has_home() {
            self.learn(now, node, Kind::Other);
        }
        if let Some(entry) = self.book.get_mut(&node.id) {
            entry.at = now;
            entry.pause = self.times.redial_min;
            entry.shunned_until = now;
        }
    }

    fn has_ended(&mut self, now: Mono, id: NodeId) {
        self.linked.remove(&id);
        let had_home = self.has_home();
        if mutant::is(Mutant::LostHomeBelieved) {
            return;
        }
        let serving = self.serving;
        if let Some(entry) = self.book.get_mut(&id) {
            entry.at = if serving && entry.kind == Kind::Seed {
                // What it has said is void: perhaps it comes back as one that knows nobody, and this node is cut off from it.
                now + entry.pause
            } else {
                entry.at.max(now + self.times.redial_min)
            };
            entry.shunned_until = now + entry.pause;
            entry.pause = (entry.pause * 2).min(self.times.redial_max);
        }
        if let Some(home) = self.homes.remove(&id) {
            self.learn(now, &home.contact, Kind::Authority);
            let entry = self.book.get_mut(&id).expect("it was noted just now");
            entry.at = entry.at.max(now + self.times.redial_min);
            entry.shunned_until = entry.shunned_until.max(entry.at);
            if had_home && !self.has_home() {
                self.rest_of(now, &home);
            }
        }
        if !self.has_home() && self.authorities.iter().any(|a| a.id == id) {
            // Nobody is left who could say so.
            self.set_authorities(self.authorities.iter().filter(|a| a.id != id).cloned().collect());
        }
    }

    /// The last home is gone: those that it has named are asked, except for itself.
    fn rest_of(&mut self, now: Mono, home: &Home) {
        let said = self.authorities.clone().into_iter().chain(home.said.iter().flatten().cloned());
        for contact in said.filter(|contact| contact.id != home.contact.id) {
            self.learn(now, &contact, Kind::Authority);
        }
        if !self.has_home() {
            self.has_lost_homes(now);
        }
    }

    fn has_lost_homes(&mut self, now: Mono) {
        let alone = self.times.alone;
        self.draws += 1;
        let draw = placing::weight(&[self.seed.to_le_bytes(), self.draws.to_le_bytes()].concat(), self.me.id);
        let chance = alone.mul_f64(draw as f64 / u64::MAX as f64);
        let after_others = if self.others.is_empty() || self.others.contains(&self.me.id) {
            Duration::ZERO
        } else {
            alone * 2
        };
        self.serve_at = self.may_serve.then_some(now + alone + chance + after_others);
        self.lets_seed = false;
        for (at, entry) in self.book.values_mut().enumerate() {
            // A few at a time: one that answers is enough.
            let turn = u32::try_from(at / 8).unwrap_or(u32::MAX);
            entry.at = entry.at.min(now + self.times.redial_min.saturating_mul(turn));
        }
    }

    /// Tells what has changed, chooses its homes, and says what is due.
    fn settle(&mut self, now: Mono) {
        if self.has_home() {
            self.serve_at = None;
            self.unite();
            if self.choose_homes(now) {
                // A home that was left says nothing any more.
                self.unite();
            }
        } else if self.serve_at.is_none() && self.may_serve {
            self.has_lost_homes(now);
        }
        if self.is_island() {
            // Whatever they have said before, and however long ago they were to be asked again.
            let soon = now + self.times.redial_max;
            self.book.values_mut().filter(|e| e.kind == Kind::Seed).for_each(|e| e.at = e.at.min(soon));
        }
        self.ask(now);
        self.due = self.next_due(now);
    }

    /// The next join, the next time to serve, and the next time that an authority can be chosen again.
    fn next_due(&self, now: Mono) -> Option<Mono> {
        let homes = self.homes.values().map(|home| home.at);
        let asked = self.book.iter().filter(|(id, e)| self.is_to_be_asked(**id, e)).map(|(_, e)| e.at);
        let shunned = self.ranked.iter().filter_map(|a| self.book.get(&a.id)).map(|e| e.shunned_until);
        homes.chain(asked).chain(self.serve_at).chain(shunned.filter(|until| *until > now)).min()
    }

    /// The authorities are those that any home has named.
    fn unite(&mut self) {
        let mut united: BTreeMap<NodeId, &Contact> = BTreeMap::new();
        for contact in self.homes.values().filter_map(|home| home.said.as_ref()).flatten() {
            let known = united.entry(contact.id).or_insert(contact);
            if known.incarnation < contact.incarnation {
                *known = contact;
            }
        }
        if !self.serving {
            // A home that has not heard yet that this node has stepped down.
            united.remove(&self.me.id);
        }
        if !united.values().copied().eq(&self.authorities) {
            self.set_authorities(united.into_values().cloned().collect());
        }
    }

    fn set_authorities(&mut self, authorities: Vec<Contact>) {
        self.view = placing::view(&authorities);
        let ranked = placing::hosts(&self.me.id.to_string(), &authorities, authorities.len());
        self.ranked = ranked.into_iter().cloned().collect();
        self.authorities = authorities;
        self.out.push_back(Output::Authorities);
    }

    /// Whether a home was left for it.
    fn choose_homes(&mut self, now: Mono) -> bool {
        if !self.has_home() {
            return false;
        }
        let is_reached = |a: &&Contact| self.book.get(&a.id).is_none_or(|e| e.shunned_until <= now);
        let own = self.serving.then_some(&self.me);
        let others = self.ranked.iter().filter(|contact| contact.id != self.me.id).filter(is_reached);
        let wanted: Vec<Contact> = own.into_iter().chain(others).take(HOMES).cloned().collect();
        for contact in &wanted {
            let pause = self.times.redial_min;
            let contact = contact.clone();
            let home = Home { contact, said: None, at: now, pause, is_first: false };
            self.homes.entry(home.contact.id).or_insert(home);
        }
        let is_wanted = |id: &NodeId| wanted.iter().any(|contact| contact.id == *id);
        let are_settled =
            !wanted.is_empty() && wanted.iter().all(|contact| self.homes[&contact.id].said.is_some());
        let before = self.homes.len();
        self.homes.retain(|id, home| is_wanted(id) || (!are_settled && home.said.is_some()));
        let has_left = self.homes.len() < before;
        let has_said = |contact: &&Contact| self.homes[&contact.id].said.is_some();
        let kept = self.homes.iter().find(|(_, home)| home.said.is_some()).map(|(id, _)| *id);
        let first = wanted.iter().find(has_said).map(|contact| contact.id).or(kept);
        for (id, home) in &mut self.homes {
            let is_first = first == Some(*id);
            if home.is_first != is_first {
                home.is_first = is_first;
                home.at = now;
            }
        }
        has_left
    }

    /// Sends the joins that are due.
    fn ask(&mut self, now: Mono) {
        let view = self.view;
        let mut joins = Vec::new();
        for (id, home) in &mut self.homes {
            if home.at > now {
                continue;
            }
            let (view, after) = match &home.said {
                Some(_) => (view, self.times.join),
                None => (0, home.pause),
            };
            home.at = now + after;
            home.pause = (home.pause * 2).min(self.times.redial_max);
            joins.push((*id, view, home.is_first));
        }
        let due: Vec<NodeId> = self
            .book
            .iter()
            .filter(|(id, e)| e.at <= now && self.is_to_be_asked(**id, e))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let entry = self.book.get_mut(&id).expect("it was there just now");
            entry.at = now + entry.pause;
            entry.pause = (entry.pause * 2).min(self.times.redial_max);
            joins.push((id, 0, false));
        }
        for (id, view, first) in joins {
            self.join(id, view, first);
        }
    }

    /// All while there is no home; after that, one that serves asks its seeds, and while it knows no other authority those
    /// that might have become one when it did.
    fn is_to_be_asked(&self, id: NodeId, entry: &Entry) -> bool {
        let is_lead =
            (self.serving && entry.kind == Kind::Seed) || (self.is_island() && self.others.contains(&id));
        !self.homes.contains_key(&id) && (!self.has_home() || is_lead)
    }

    /// It serves, and knows nobody else who does.
    fn is_island(&self) -> bool {
        self.serving && self.authorities.len() == 1
    }

    fn join(&mut self, to: NodeId, view: u64, first: bool) {
        let join = Join { contact: self.me.clone(), may_serve: self.may_serve, first, view, roster: 0 };
        self.send(to, Message::Join(join));
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.out.push_back(Output::Send(Envelope { to, message }));
    }

    fn has_home(&self) -> bool {
        self.homes.values().any(|home| home.said.is_some())
    }

    /// A node that might be an authority, or know one.
    fn learn(&mut self, now: Mono, contact: &Contact, kind: Kind) {
        let is_me = contact.id == self.me.id || (kind == Kind::Seed && contact.address == self.me.address);
        if is_me || !is_sound(contact) {
            return;
        }
        if let Some(entry) = self.book.get_mut(&contact.id) {
            entry.kind = entry.kind.max(kind);
            if entry.contact.incarnation < contact.incarnation {
                entry.contact = contact.clone();
                entry.at = now;
                entry.pause = self.times.redial_min;
                self.out.push_back(Output::Know(contact.clone()));
            }
            return;
        }
        self.make_room();
        let pause = self.times.redial_min;
        let entry = Entry { contact: contact.clone(), kind, at: now, pause, shunned_until: now };
        self.book.insert(contact.id, entry);
        self.out.push_back(Output::Know(contact.clone()));
    }

    /// A seed may turn out to have another id than the one it was given.
    fn reach_seed(&mut self, now: Mono, node: &Contact) {
        let is_seed =
            |e: &Entry| e.kind == Kind::Seed && e.contact.address == node.address && e.contact.id != node.id;
        let ids: Vec<NodeId> = self.book.iter().filter(|(_, e)| is_seed(e)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.book.remove(id);
        }
        if !ids.is_empty() {
            self.learn(now, node, Kind::Seed);
        }
    }

    /// Forgets the one that could not be reached for longest, but no seed.
    fn make_room(&mut self) {
        while self.book.len() >= CONTACTS_MAX {
            let worst = |(_, e): &(&NodeId, &Entry)| (e.kind != Kind::Seed, e.pause, e.at);
            let id = *self.book.iter().max_by_key(worst).expect("there are many").0;
            self.book.remove(&id);
        }
    }
}

fn is_sound(contact: &Contact) -> bool {
    contact.address.len() <= TEXT_BYTES_MAX && contact.domain.len() <= TEXT_BYTES_MAX
}
