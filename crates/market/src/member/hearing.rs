//! What a member makes of what it hears: from its homes, from authorities that are not its homes, and from those who take
//! it for one.

use bourse_wire::time::Mono;

use super::{Home, Kind, Member, Output, SEED_PAUSES, is_sound};
use crate::message::{Grid, Join, Mesh, Message};
use crate::name::{Contact, NodeId};
use crate::placing;
use crate::times::CONTACTS_MAX;

impl Member {
    pub(super) fn on_grid(&mut self, now: Mono, from: NodeId, grid: &Grid) {
        let sound = grid.authorities.iter().filter(|contact| is_sound(contact)).take(CONTACTS_MAX);
        let mut said: Vec<Contact> = sound.cloned().collect();
        said.sort_unstable_by_key(|contact| contact.id);
        said.dedup_by_key(|contact| contact.id);
        if let Some(entry) = self.book.get_mut(&from) {
            entry.shunned_until = now;
            if !said.is_empty() {
                entry.at = now + self.times.redial_max * SEED_PAUSES;
                entry.pause = self.times.redial_min;
            }
        }
        let Some(contact) = said.iter().find(|contact| contact.id == from).cloned() else {
            self.on_hint(now, from, &said);
            if said.is_empty() && grid.others.iter().any(|other| other.id == from) {
                self.let_serve(from);
            }
            return;
        };
        for contact in &said {
            self.out.push_back(Output::Know(contact.clone()));
        }
        let home = self.homes.get(&from);
        if home.is_none() && self.has_home() {
            // Somebody else's authority. It is known now; an authority of this node will hear of it.
            return;
        }
        if home.is_some_and(|home| contact.incarnation < home.contact.incarnation) {
            return;
        }
        self.nodes = grid.nodes;
        if from != self.me.id {
            // What its own authority names is no way out of an island.
            self.others = grid.others.iter().take(CONTACTS_MAX).map(|contact| contact.id).collect();
        }
        for other in grid.others.iter().filter(|contact| is_sound(contact)).take(CONTACTS_MAX) {
            self.learn(now, other, Kind::Other);
        }
        let (at, pause) = (now + self.times.join, self.times.redial_min);
        let home = self.homes.entry(from).or_insert_with(|| Home {
            contact: contact.clone(),
            said: None,
            at: now,
            pause,
            is_first: false,
        });
        home.contact = contact;
        if home.said.replace(said).is_none() {
            home.at = at;
            home.pause = pause;
        }
    }

    /// Somebody who is no authority says who is one.
    pub(super) fn on_hint(&mut self, now: Mono, from: NodeId, said: &[Contact]) {
        if from != self.me.id && self.homes.contains_key(&from) {
            // It was an authority. Its link stays up, but what it has said is void.
            let home = self.homes.remove(&from).expect("it was there just now");
            if !self.has_home() {
                self.rest_of(now, &home);
            }
            // Others may go on naming it until they have noticed: it is not taken at their word again at once.
            self.learn(now, &home.contact, Kind::Authority);
            if let Some(entry) = self.book.get_mut(&from) {
                entry.shunned_until = now + self.times.mesh;
            }
        }
        if self.has_home() {
            return;
        }
        for contact in said {
            self.learn(now, contact, Kind::Authority);
            // It may have been asked before it was one.
            if let Some(entry) = self.book.get_mut(&contact.id) {
                entry.at = entry.at.min(now + entry.pause);
            }
        }
    }

    /// A node that knows no authority either would serve. If it is a seed it goes first, since all others ask it as well:
    /// else many that start together would all serve. Among seeds, the one that would step down last.
    pub(super) fn let_serve(&mut self, from: NodeId) {
        let is_seed = self.book.get(&from).is_some_and(|entry| entry.kind == Kind::Seed);
        let weight = |id| placing::weight(b"authority", id);
        let is_before = !self.is_seed || weight(from) > weight(self.me.id);
        if let Some(at) =
            self.serve_at.filter(|_| is_seed && is_before && !self.lets_seed && !self.has_home())
        {
            self.lets_seed = true;
            self.serve_at = Some(at + self.times.alone);
        }
    }

    pub(super) fn on_appoint(&mut self, from: NodeId) {
        if self.may_serve && !self.serving && self.authorities.iter().any(|a| a.id == from) {
            self.out.push_back(Output::Serve);
        }
    }

    /// Somebody takes this node for an authority: it is told where the authorities are.
    pub(super) fn on_join(&mut self, now: Mono, from: NodeId, join: &Join) {
        if join.contact.id != from || !is_sound(&join.contact) {
            return;
        }
        let authorities = self.authorities.iter().filter(|a| a.id != self.me.id).cloned().collect();
        let is_alone = !self.has_home();
        let others = if is_alone && self.may_serve { vec![self.me.clone()] } else { Vec::new() };
        let grid = Grid { authorities, others, nodes: self.nodes };
        self.send(from, Message::Grid(grid));
        if is_alone {
            if self.asked.len() < CONTACTS_MAX {
                self.asked.insert(from);
            }
            self.learn(now, &join.contact, Kind::Other);
        }
    }

    pub(super) fn on_mesh(&mut self, from: NodeId, mesh: &Mesh) {
        if mesh.contact.id == from {
            self.send(from, Message::Resign(self.me.incarnation));
        }
    }
}
