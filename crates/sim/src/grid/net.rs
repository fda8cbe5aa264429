//! The network: links that open, live and break, what becomes of each message, and who reaches whom.
//!
//! A link has two ends, and each end has its own idea of it: under a partition, or when a machine loses its power, one
//! end goes on believing in a link that the other one has given up.

use std::time::Duration;

use bourse_wire::time::Mono;

use crate::chance::Chance;

/// Groups that a partition can make.
pub const GROUPS: usize = 4;
/// Between two messages of a link that arrive in their order.
const APART: Duration = Duration::from_micros(1);

/// What an end believes of its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The other end has it already.
    Opening,
    /// There.
    Open,
    /// Given up, or never heard of.
    Closed,
}

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Whose.
    pub node: u32,
    /// In which of its lives.
    pub life: u32,
    /// What it believes.
    pub state: State,
    /// When the last message to it arrives.
    last: Mono,
}

/// A link. End 0 has dialled.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Both ends.
    pub ends: [End; 2],
}

/// How the network treats messages, in thousandths of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mood {
    /// Are lost.
    pub lost: u64,
    /// Arrive twice.
    pub repeated: u64,
    /// May overtake others, and be overtaken.
    pub reordered: u64,
    /// Take much longer.
    pub delayed: u64,
}

/// What has become of messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fates {
    /// Sent.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost in a partition.
    pub cut: u64,
    /// Arrived twice.
    pub repeated: u64,
    /// Were late, or out of order.
    pub late: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Net {
    links: Vec<Link>,
    /// How far each node is away from the middle of the network.
    far: Vec<Duration>,
    group: Vec<u8>,
    /// What one group says does not reach the other.
    blocked: [[bool; GROUPS]; GROUPS],
    mute: Vec<bool>,
    deaf: Vec<bool>,
    /// How messages are treated.
    pub mood: Mood,
    /// What became of them.
    pub fates: Fates,
}

impl Net {
    /// One for nodes that are so far from its middle.
    pub fn new(far: Vec<Duration>) -> Self {
        let nodes = far.len();
        Self {
            links: Vec::new(),
            far,
            group: vec![0; nodes],
            blocked: Default::default(),
            mute: vec![false; nodes],
            deaf: vec![false; nodes],
            mood: Mood::default(),
            fates: Fates::default(),
        }
    }

    /// A new link, open at the end that was dialled.
    pub fn open(&mut self, dialler: (u32, u32), dialled: (u32, u32)) -> u32 {
        let end = |(node, life), state| End { node, life, state, last: Mono(0) };
        self.links.push(Link { ends: [end(dialler, State::Opening), end(dialled, State::Open)] });
        u32::try_from(self.links.len() - 1).expect("fewer links than a u32 counts are made")
    }

    /// One of the links.
    pub fn link(&self, link: u32) -> &Link {
        &self.links[link as usize]
    }

    /// How many links were ever made.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// An end believes something else.
    pub fn set(&mut self, link: u32, end: usize, state: State) {
        self.links[link as usize].ends[end].state = state;
    }

    /// Which end of a link a node has, in a life.
    pub fn end_of(&self, link: u32, node: u32, life: u32) -> Option<usize> {
        let ends = &self.links.get(link as usize)?.ends;
        ends.iter().position(|end| end.node == node && end.life == life)
    }

    /// What one says reaches the other.
    pub fn passes(&self, from: u32, to: u32) -> bool {
        let (from, to) = (from as usize, to as usize);
        let [a, b] = [from, to].map(|node| usize::from(self.group[node]));
        !self.blocked[a][b] && !self.mute[from] && !self.deaf[to]
    }

    /// Each reaches the other.
    pub fn passes_both(&self, a: u32, b: u32) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    /// All reach all.
    pub fn is_whole(&self) -> bool {
        let cut = self.blocked.as_flattened().contains(&true);
        !cut && !self.mute.contains(&true) && !self.deaf.contains(&true) && self.mood == Mood::default()
    }

    /// How long a message takes if nothing holds it up.
    pub fn takes(&self, chance: &mut Chance, from: u32, to: u32) -> Duration {
        let way = self.far[from as usize] + self.far[to as usize];
        way + way.mul_f64(f64::from(u32::try_from(chance.below(256)).expect("it is below 256")) / 1024.0)
    }

    /// When a message that an end of a link sends now arrives at the other: never, once, or twice.
    pub fn fate(&mut self, chance: &mut Chance, at: Mono, link: u32, end: usize) -> [Option<Mono>; 2] {
        let ends = self.links[link as usize].ends;
        let (from, to) = (ends[end].node, ends[1 - end].node);
        self.fates.sent += 1;
        if !self.passes(from, to) {
            self.fates.cut += 1;
            return [None, None];
        }
        let way = self.takes(chance, from, to);
        let mood = self.mood;
        if mood == Mood::default() {
            return [Some(self.in_order(link, 1 - end, at + way)), None];
        }
        if chance.hits(mood.lost) {
            self.fates.lost += 1;
            return [None, None];
        }
        let mut arrives = at + way;
        if chance.hits(mood.delayed) {
            self.fates.late += 1;
            arrives = arrives + Duration::from_millis(chance.between((10, 1500)));
        }
        if chance.hits(mood.reordered) {
            self.fates.late += 1;
            arrives = arrives + way * 2;
        } else {
            arrives = self.in_order(link, 1 - end, arrives);
        }
        let again = chance.hits(mood.repeated).then(|| {
            self.fates.repeated += 1;
            arrives + Duration::from_millis(chance.between((0, 400)))
        });
        [Some(arrives), again]
    }

    /// The same of a message that is neither lost nor repeated, and overtakes none that was sent before it.
    pub fn in_turn(&mut self, chance: &mut Chance, at: Mono, link: u32, end: usize) -> [Option<Mono>; 2] {
        let ends = self.links[link as usize].ends;
        let (from, to) = (ends[end].node, ends[1 - end].node);
        self.fates.sent += 1;
        let mut arrives = at + self.takes(chance, from, to);
        if chance.hits(self.mood.delayed) {
            self.fates.late += 1;
            arrives = arrives + Duration::from_millis(chance.between((10, 1500)));
        }
        [Some(self.in_order(link, 1 - end, arrives)), None]
    }

    fn in_order(&mut self, link: u32, to: usize, arrives: Mono) -> Mono {
        let last = &mut self.links[link as usize].ends[to].last;
        *last = arrives.max(*last + APART);
        *last
    }

    // ------------------------------------------------------------ faults

    /// Each node is put into one of so many groups.
    pub fn split(&mut self, chance: &mut Chance, groups: usize) {
        for group in &mut self.group {
            *group = u8::try_from(chance.below(groups as u64)).expect("there are few groups");
        }
    }

    /// One node alone in a group.
    pub fn set_apart(&mut self, node: u32) {
        self.group.fill(0);
        self.group[node as usize] = 1;
    }

    /// What one group says does not reach another.
    pub fn block(&mut self, from: usize, to: usize) {
        self.blocked[from][to] = true;
    }

    /// What a node says reaches nobody.
    pub fn set_mute(&mut self, node: u32, mute: bool) {
        self.mute[node as usize] = mute;
    }

    /// Nothing reaches a node.
    pub fn set_deaf(&mut self, node: u32, deaf: bool) {
        self.deaf[node as usize] = deaf;
    }

    /// All reach all, and messages are treated well.
    pub fn heal(&mut self) {
        self.blocked = Default::default();
        self.mute.fill(false);
        self.deaf.fill(false);
        self.mood = Mood::default();
    }

    /// Only partitions end.
    pub fn join(&mut self) {
        let mood = self.mood;
        self.heal();
        self.mood = mood;
    }
}
