//! Connections between machines, as tcp gives them to daemons: what is said over one arrives in order, or it ends.
//!
//! * a partition stops what is under way; a connection that has lost something carries nothing more that way, and ends at both ends,
//!   at the latest when nothing was heard for [`UNHEARD_MAX`];
//! * a machine that loses its power says nothing: the other ends notice in the same way;
//! * the market's own messages are mistreated as the mood of the network says, though tcp would not: it promises to bear that.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_market::{NodeId, codec};
use bourse_node::{Input, LinkId};
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bytes::Bytes;

use super::grid::{Event, Grid};
use crate::grid::net::{Net, State};

/// Longest that it takes to notice that an address does not answer.
const UNANSWERED_MS_MAX: u64 = 2_000;
/// How often the ends of a connection look whether the other one is there.
const BEAT: Duration = Duration::from_secs(5);
/// How often they look in vain before they give it up.
const BEATS_MISSED: u32 = 3;
/// After so long without a word a connection is over.
pub const UNHEARD_MAX: Duration = BEAT.saturating_mul(BEATS_MISSED + 1);

/// What comes over wires.
#[derive(Debug)]
pub(super) enum Wire {
    Frame { link: u32, end: usize, frame: Box<Frame>, payload: Bytes },
    Dialed { from: usize, life: u32, to: usize, node: [u8; 32] },
    Opened { link: u32 },
    Closed { link: u32, end: usize },
    NotReached { machine: usize, life: u32, node: [u8; 32] },
    Beat { link: u32 },
}

/// See the module.
pub(super) struct Wires {
    pub net: Net,
    /// Whom each machine has dialed, and over which connection, once that is known. A daemon dials nobody twice.
    dialed: Vec<BTreeMap<[u8; 32], Option<u32>>>,
    /// How often each end has missed a sign of life, and whether it has lost something that was said to it.
    health: BTreeMap<u32, [(u32, bool); 2]>,
}

impl Wires {
    pub(super) fn new(far: Vec<Duration>) -> Self {
        let dialed = vec![BTreeMap::new(); far.len()];
        Self { net: Net::new(far), dialed, health: BTreeMap::new() }
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("there are few machines")
}

impl Grid {
    /// The network: who reaches whom.
    pub fn net(&mut self) -> &mut Net {
        &mut self.wires.net
    }

    /// Something comes over a wire.
    pub(super) fn on_wire(&mut self, wire: Wire) {
        if let Some(machine) = self.wires.hears(&wire)
            && self.machines[machine].paused_until > self.at
        {
            let until = self.machines[machine].paused_until;
            return self.agenda.push(until, Event::Wire(wire));
        }
        match wire {
            Wire::Frame { link, end, frame, payload } => self.on_frame(link, end, *frame, payload),
            Wire::Dialed { from, life, to, node } => self.on_dialed((from, life), to, node),
            Wire::Opened { link } => self.on_opened(link),
            Wire::Closed { link, end } => self.on_closed(link, end),
            Wire::NotReached { machine, life, node } => self.on_not_reached(machine, life, node),
            Wire::Beat { link } => self.on_beat(link),
        }
    }

    fn on_frame(&mut self, link: u32, end: usize, frame: Frame, payload: Bytes) {
        let to = self.wires.net.link(link).ends[end];
        let machine = to.node as usize;
        if !self.is_life(machine, to.life) || to.state == State::Closed {
            // A machine that is up says that it knows no such connection.
            if self.machines[machine].world.is_up {
                self.tell_closed(link, 1 - end);
            }
            return;
        }
        if to.state == State::Opening {
            self.on_opened(link); // It has overtaken the end of its own handshake.
        }
        self.counts.frames += 1;
        let from = self.wires.net.link(link).ends[1 - end].node;
        self.common.trace.line(self.at, 101, || {
            format!("{from} -> {machine} over {link}: {}", crate::sight::to_peer(&frame))
        });
        self.with(machine, |world| {
            world.note_guest(&frame);
            world.input(Input::PeerFrame { link: LinkId(u64::from(link)), message: Some(frame), payload });
        });
    }

    // ------------------------------------------------------------ connections

    pub(super) fn dial(&mut self, from: usize, node: [u8; 32], address: &str) {
        if self.wires.dialed[from].contains_key(&node) {
            return;
        }
        self.wires.dialed[from].insert(node, None);
        let life = self.machines[from].life;
        let to = super::setup::number(address).filter(|to| *to < self.machines.len() && *to != from);
        let to = to.filter(|to| super::setup::key(*to) == node);
        let Some(to) = to.filter(|to| self.wires.net.passes_both(small(from), small(*to))) else {
            let after = Duration::from_millis(self.common.chance.between((1, UNANSWERED_MS_MAX)));
            let wire = Wire::NotReached { machine: from, life, node };
            return self.agenda.push(self.at + after, Event::Wire(wire));
        };
        let takes = self.wires.net.takes(&mut self.common.chance, small(from), small(to));
        self.agenda.push(self.at + takes, Event::Wire(Wire::Dialed { from, life, to, node }));
    }

    fn on_dialed(&mut self, (from, life): (usize, u32), to: usize, node: [u8; 32]) {
        let there = &self.machines[to];
        if !there.world.is_up || there.paused_until > self.at {
            let after = Duration::from_millis(self.common.chance.between((1, 50)));
            let wire = Wire::NotReached { machine: from, life, node };
            return self.agenda.push(self.at + after, Event::Wire(wire));
        }
        if !self.is_life(from, life) {
            return;
        }
        let link = self.wires.net.open((small(from), life), (small(to), there.life));
        self.wires.dialed[from].insert(node, Some(link));
        self.wires.health.insert(link, Default::default());
        self.counts.links += 1;
        self.say(113, || format!("{to} was reached by {from}: link {link}"));
        let takes = self.wires.net.takes(&mut self.common.chance, small(to), small(from));
        match self.wires.net.passes(small(to), small(from)) {
            true => self.agenda.push(self.at + takes, Event::Wire(Wire::Opened { link })),
            false => {
                self.wires.net.set(link, 0, State::Closed);
                let wire = Wire::NotReached { machine: from, life, node };
                self.agenda.push(self.at + takes, Event::Wire(wire));
            }
        }
        self.agenda.push(self.at + BEAT, Event::Wire(Wire::Beat { link }));
        let key = super::setup::key(from);
        self.with(to, |world| world.input(Input::PeerOpened { link: LinkId(u64::from(link)), key }));
    }

    fn on_opened(&mut self, link: u32) {
        let [dialer, dialed] = self.wires.net.link(link).ends;
        if !self.is_life(dialer.node as usize, dialer.life) {
            return self.tell_closed(link, 1);
        }
        if dialer.state != State::Opening {
            return;
        }
        self.wires.net.set(link, 0, State::Open);
        let key = super::setup::key(dialed.node as usize);
        self.with(dialer.node as usize, |world| {
            world.input(Input::PeerOpened { link: LinkId(u64::from(link)), key });
        });
    }

    fn on_not_reached(&mut self, machine: usize, life: u32, node: [u8; 32]) {
        if self.is_life(machine, life) {
            self.wires.dialed[machine].remove(&node);
            let why = "nobody answers".to_owned();
            self.with(machine, |world| world.input(Input::NotReached { node, why }));
        }
    }

    fn on_closed(&mut self, link: u32, end: usize) {
        let at = self.wires.net.link(link).ends[end];
        if at.state == State::Closed {
            return;
        }
        self.close_end(link, end);
        if !self.is_life(at.node as usize, at.life) {
            return;
        }
        let machine = at.node as usize;
        if at.state == State::Opening {
            let node = super::setup::key(self.wires.net.link(link).ends[1 - end].node as usize);
            return self.on_not_reached(machine, at.life, node);
        }
        self.say(112, || format!("link {link} has ended for {machine}"));
        self.with(machine, |world| world.input(Input::PeerClosed { link: LinkId(u64::from(link)) }));
    }

    /// An end believes in the connection no longer.
    fn close_end(&mut self, link: u32, end: usize) {
        self.wires.net.set(link, end, State::Closed);
        let ends = self.wires.net.link(link).ends;
        if end == 0 {
            let dialed = &mut self.wires.dialed[ends[0].node as usize];
            dialed.retain(|_, over| *over != Some(link));
        }
        if ends[1 - end].state == State::Closed {
            self.wires.health.remove(&link);
        }
    }

    /// An end hears that the other one is gone, if it hears anything.
    fn tell_closed(&mut self, link: u32, end: usize) {
        let ends = self.wires.net.link(link).ends;
        let (from, to) = (ends[1 - end].node, ends[end].node);
        if ends[end].state != State::Closed && self.wires.net.passes(from, to) {
            let takes = self.wires.net.takes(&mut self.common.chance, from, to);
            self.agenda.push(self.at + takes, Event::Wire(Wire::Closed { link, end }));
        }
    }

    pub(super) fn hang_up(&mut self, machine: usize, link: u64) {
        let Ok(link) = u32::try_from(link) else { return };
        let life = self.machines[machine].life;
        if let Some(end) = self.wires.net.end_of(link, small(machine), life) {
            self.say(114, || format!("{machine} ends link {link}"));
            self.close_end(link, end);
            self.tell_closed(link, 1 - end);
        }
    }

    /// A machine is gone. `loud`: its system goes on, and ends its connections.
    pub(super) fn lose_links(&mut self, machine: usize, loud: bool) {
        let life = self.machines[machine].life;
        self.wires.dialed[machine].clear();
        for link in self.links_of(machine) {
            let end = self.wires.net.end_of(link, small(machine), life).expect("it is one of its links");
            self.close_end(link, end);
            if loud {
                self.tell_closed(link, 1 - end);
            }
        }
    }

    /// Connections that one end at least believes in, at a machine in its present life.
    pub fn links_of(&self, machine: usize) -> Vec<u32> {
        let life = self.machines[machine].life;
        let open = |link: &u32| {
            let end = self.wires.net.end_of(*link, small(machine), life);
            end.is_some_and(|end| self.wires.net.link(*link).ends[end].state != State::Closed)
        };
        self.wires.health.keys().copied().filter(open).collect()
    }

    /// A connection breaks, and both ends hear of it.
    pub fn break_link(&mut self, link: u32) {
        self.say(118, || format!("link {link} breaks"));
        (0..2).for_each(|end| self.tell_closed(link, end));
    }

    /// The ends of a connection look whether the other one is there.
    fn on_beat(&mut self, link: u32) {
        let ends = self.wires.net.link(link).ends;
        for end in 0..2 {
            let (me, other) = (ends[end], ends[1 - end]);
            if me.state == State::Closed {
                continue;
            }
            let is_there = other.state != State::Closed
                && self.is_life(other.node as usize, other.life)
                && self.machines[other.node as usize].paused_until <= self.at
                && self.wires.net.passes(other.node, me.node);
            let Some(health) = self.wires.health.get_mut(&link) else { return };
            let (missed, is_deaf) = &mut health[end];
            *missed = if is_there && !*is_deaf { 0 } else { *missed + 1 };
            if *missed >= BEATS_MISSED {
                self.agenda.push(self.at, Event::Wire(Wire::Closed { link, end }));
                self.tell_closed(link, 1 - end);
            }
        }
        if self.wires.health.contains_key(&link) {
            self.agenda.push(self.at + BEAT, Event::Wire(Wire::Beat { link }));
        }
    }

    // ------------------------------------------------------------ what is said

    pub(super) fn send(&mut self, from: usize, link: LinkId, frame: Frame, payload: Bytes) {
        let life = self.machines[from].life;
        let number = u32::try_from(link.0).unwrap_or(u32::MAX);
        let end = self.wires.net.end_of(number, small(from), life);
        let Some(end) = end.filter(|end| self.wires.net.link(number).ends[*end].state == State::Open) else {
            return; // It has just ended, and the node has not heard of it.
        };
        match &frame {
            Frame::Run(run) => {
                self.counts.bought += 1;
                if let Some(invoke) = run.invoke.clone() {
                    let payload = payload.clone();
                    self.with(from, |world| world.hands(&invoke, &payload));
                }
            }
            Frame::Forward(_) => self.counts.forwarded += 1,
            _ => {}
        }
        let is_markets = matches!(codec::decode(frame.clone()), Ok(Ok(_)));
        let to = 1 - end;
        let Some(health) = self.wires.health.get_mut(&number) else { return };
        if health[to].1 {
            return; // Nothing more comes through.
        }
        let ends = self.wires.net.link(number).ends;
        if !self.wires.net.passes(ends[end].node, ends[to].node) {
            health[to].1 |= !is_markets;
            return;
        }
        let arrives = match is_markets {
            true => self.wires.net.fate(&mut self.common.chance, self.at, number, end),
            false => self.wires.net.in_turn(&mut self.common.chance, self.at, number, end),
        };
        for at in arrives.into_iter().flatten() {
            let (frame, payload) = (Box::new(frame.clone()), payload.clone());
            self.agenda.push(at, Event::Wire(Wire::Frame { link: number, end: to, frame, payload }));
        }
    }

    /// Both ends of the connection with a node believe in it.
    pub fn is_linked(&self, a: usize, b: usize) -> bool {
        let node = NodeId(super::setup::key(b));
        let world = &self.machines[a].world;
        world.node.linked().any(|(_, other)| other == node)
    }
}

impl Wires {
    /// Which machine is to hear of it.
    fn hears(&self, wire: &Wire) -> Option<usize> {
        let node = |link: &u32, end: usize| self.net.link(*link).ends[end].node as usize;
        match wire {
            Wire::Frame { link, end, .. } | Wire::Closed { link, end } => Some(node(link, *end)),
            Wire::Opened { link } => Some(node(link, 0)),
            Wire::NotReached { machine, .. } => Some(*machine),
            Wire::Dialed { .. } | Wire::Beat { .. } => None,
        }
    }
}
