//! The world: virtual time, nodes, the network between them, and what becomes of it all. One seed is one run.
//!
//! ```text
//! seeds, scale -> world: run for so long, crash this, cut that
//! world -> nodes: what comes, by time           nodes -> world: [`Act`]s
//! ```
//!
//! It never looks into a market but through what checkers are shown, and reads no clock.

use std::sync::Arc;
use std::time::Duration;

use bourse_market::times::Times;
use bourse_market::{Contact, NodeId};
use bourse_wire::id::Incarnation;
use bourse_wire::time::Mono;

use super::agenda::Agenda;
use super::books::Books;
use super::bytes;
use super::catalog::Catalog;
use super::market::{LinkId, Settings};
use super::net::{Net, State};
use super::node::{Act, Env, Frame, Later, Node};
use super::sight;
use crate::chance::Chance;
use crate::trace::Trace;

/// Longest that it takes to notice that an address does not answer.
const UNANSWERED_MS_MAX: u64 = 2_000;
/// A node that is woken so often without time going on never rests.
const WAKES_MAX: u32 = 10_000;
/// No node of a small grid ever has a reason to send more messages of the market in a second, beyond one for each call.
pub const MESSAGES_PER_S_MAX: u32 = 600;
/// A frame that overtakes the end of its own handshake is looked at again after this.
const HANDSHAKE: Duration = Duration::from_micros(300);

/// What happens in a world.
#[derive(Debug)]
enum Event {
    Frame { link: u32, end: usize, frame: Frame },
    Opened { link: u32 },
    Closed { link: u32, end: usize },
    Dialled { from: u32, life: u32, to: u32, contact: Contact },
    NotReached { node: u32, life: u32, id: NodeId },
    Wake { node: u32, life: u32 },
    Later { node: u32, life: u32, later: Later },
    Restart { node: u32 },
    Stop { node: u32, life: u32 },
}

/// How often things happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Messages of the market that arrived.
    pub messages: u64,
    /// Links that opened.
    pub links: u64,
    /// Attempts to connect that failed.
    pub unreached: u64,
    /// Crashes.
    pub crashes: u64,
    /// Most messages of the market that a node has sent in a second: an ordinary one, and an authority.
    pub busiest: [u32; 2],
}

/// See the module.
pub struct World {
    /// The time.
    pub at: Mono,
    /// The network.
    pub net: Net,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// What becomes of calls.
    pub books: Books,
    /// All modules.
    pub catalog: Catalog,
    /// The run's chance.
    pub chance: Chance,
    /// What happened.
    pub trace: Trace,
    /// The times of the market, the same for all.
    pub times: Arc<Times>,
    /// How often things happened.
    pub counts: Counts,
    /// Each step of a node is checked.
    pub checks: bool,
    /// A node that sends more messages than this in a second is out of its mind.
    pub messages_per_s_max: u32,
    /// Two nodes have this identity.
    pub twin: Option<NodeId>,
    /// Who has this identity may lie.
    pub liar: Option<NodeId>,
    agenda: Agenda<Event>,
    acts: Vec<Act>,
    restless: u32,
}

impl World {
    /// One with these nodes, none of which is up. `far`: how far each is from the middle of the network.
    pub fn new(nodes: Vec<Node>, far: Vec<Duration>, catalog: Catalog, chance: Chance, trace: Trace) -> Self {
        assert_eq!(nodes.len(), far.len(), "each node is somewhere");
        Self {
            at: Mono(0),
            net: Net::new(far),
            nodes,
            books: Books::default(),
            catalog,
            chance,
            trace,
            times: Arc::new(Times::default()),
            counts: Counts::default(),
            checks: true,
            messages_per_s_max: MESSAGES_PER_S_MAX,
            twin: None,
            liar: None,
            agenda: Agenda::default(),
            acts: Vec::new(),
            restless: 0,
        }
    }

    /// Numbers of nodes.
    pub fn all(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.nodes.len()).expect("fewer nodes than a u32 counts are made")
    }

    /// One of the nodes.
    pub fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    /// The same.
    pub fn node_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// Something happened that a trace shows.
    pub fn say(&mut self, kind: u64, text: impl FnOnce() -> String) {
        self.trace.line(self.at, kind, text);
    }

    /// Something is not as it should be.
    pub fn wrong(&mut self, what: String) {
        self.say(67, || format!("WRONG: {what}"));
        self.books.wrong(what);
    }

    // ------------------------------------------------------------ time

    /// Lets time go on.
    pub fn run(&mut self, time: Duration) {
        self.run_to(self.at + time);
    }

    /// Lets time go on until then.
    pub fn run_to(&mut self, to: Mono) {
        while self.agenda.next_at().is_some_and(|at| at <= to) {
            self.step();
        }
        self.at = self.at.max(to);
    }

    /// Lets time go on until something is so, at most for so long. Whether it is.
    pub fn run_while(
        &mut self,
        most: Duration,
        tick: Duration,
        mut until: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.at + most;
        loop {
            if until(self) {
                return true;
            }
            if self.at >= end {
                return false;
            }
            self.run(tick);
        }
    }

    fn step(&mut self) {
        let Some((at, event)) = self.agenda.pop() else { return };
        if at > self.at {
            self.restless = 0;
        }
        self.at = self.at.max(at);
        self.counts.events += 1;
        if let Some(until) = self.sleeps(&event) {
            self.agenda.push(until, event);
            return;
        }
        match event {
            Event::Frame { link, end, frame } => self.on_frame(link, end, frame),
            Event::Opened { link } => self.on_opened(link),
            Event::Closed { link, end } => self.on_closed(link, end),
            Event::Dialled { from, life, to, contact } => self.on_dialled((from, life), to, &contact),
            Event::NotReached { node, life, id } => {
                if self.lives(node, life) {
                    self.counts.unreached += 1;
                    self.say(10, || format!("{node} has not reached {id:?}"));
                    self.act(node, |node, env| node.not_reached(id, env));
                }
            }
            Event::Wake { node, life } => self.on_wake(node, life),
            Event::Later { node, life, later } => {
                if self.lives(node, life) {
                    self.act(node, |node, env| node.later(later, env));
                }
            }
            Event::Stop { node, life } => {
                if self.lives(node, life) {
                    self.crash(node, true);
                }
            }
            Event::Restart { node } => {
                if !self.node(node).is_up() && !self.node(node).is_over {
                    self.start(node);
                }
            }
        }
    }

    /// A paused node sees nothing until it goes on; what happens to it meanwhile waits for it.
    fn sleeps(&mut self, event: &Event) -> Option<Mono> {
        let node = match event {
            Event::Frame { link, end, .. } | Event::Closed { link, end } => {
                self.net.link(*link).ends[*end].node
            }
            Event::Opened { link } => self.net.link(*link).ends[0].node,
            Event::NotReached { node, .. } | Event::Wake { node, .. } | Event::Later { node, .. } => *node,
            Event::Dialled { .. } | Event::Restart { .. } | Event::Stop { .. } => return None,
        };
        let until = self.node(node).paused_until;
        if until <= self.at {
            return None;
        }
        if let Event::Wake { .. } = event
            && self.node(node).wakes == self.at
        {
            self.node_mut(node).wakes = until;
        }
        Some(until)
    }

    fn lives(&self, node: u32, life: u32) -> bool {
        let node = self.node(node);
        node.is_up() && node.life == life
    }

    // ------------------------------------------------------------ what happens

    fn on_wake(&mut self, node: u32, life: u32) {
        if !self.lives(node, life) || self.node(node).wakes != self.at {
            return;
        }
        self.node_mut(node).wakes = Mono::MAX;
        self.restless += 1;
        assert!(self.restless < WAKES_MAX, "node {node} is woken again and again, and time stands still");
        if self.node(node).timeout().is_some_and(|due| due <= self.at) {
            self.act(node, Node::wake);
        } else {
            self.arm(node);
        }
    }

    fn on_frame(&mut self, link: u32, end: usize, frame: Frame) {
        let to = self.net.link(link).ends[end];
        if !self.lives(to.node, to.life) || to.state == State::Closed {
            // A machine that is up says that it knows no such link.
            if self.node(to.node).is_up() {
                self.tell_closed(link, 1 - end);
            }
            return;
        }
        if to.state == State::Opening {
            self.agenda.push(self.at + HANDSHAKE, Event::Frame { link, end, frame });
            return;
        }
        if let Frame::Market(message) = &frame {
            self.counts.messages += 1;
            let from = self.net.link(link).ends[1 - end].node;
            self.trace.line(self.at, 1, || format!("{from} -> {}: {}", to.node, sight::message(message)));
            let Self { nodes, chance, .. } = self;
            if let Some(liar) = &mut nodes[to.node as usize].liar {
                liar.hears(message, chance);
            }
        }
        self.act(to.node, |node, env| node.frame(LinkId(u64::from(link)), frame, env));
    }

    fn on_opened(&mut self, link: u32) {
        let [dialler, dialled] = self.net.link(link).ends;
        if !self.lives(dialler.node, dialler.life) {
            self.tell_closed(link, 1);
            return;
        }
        if dialler.state != State::Opening {
            return;
        }
        self.net.set(link, 0, State::Open);
        let contact = self.node(dialled.node).contact.clone();
        self.say(11, || format!("{} has reached {}: link {link}", dialler.node, dialled.node));
        self.act(dialler.node, |node, env| node.linked(LinkId(u64::from(link)), &contact, env));
    }

    fn on_closed(&mut self, link: u32, end: usize) {
        let at = self.net.link(link).ends[end];
        if at.state == State::Closed {
            return;
        }
        self.net.set(link, end, State::Closed);
        if !self.lives(at.node, at.life) {
            return;
        }
        if at.state == State::Opening {
            let id = self.node(self.net.link(link).ends[1 - end].node).contact.id;
            self.act(at.node, |node, env| node.not_reached(id, env));
            return;
        }
        self.say(12, || format!("link {link} has ended for {}", at.node));
        self.act(at.node, |node, env| node.unlinked(LinkId(u64::from(link)), env));
    }

    fn on_dialled(&mut self, (from, life): (u32, u32), to: u32, contact: &Contact) {
        let there = self.node(to);
        // A seed is an address; whoever is there is who was meant. Others have to be who they were said to be.
        let is_it = contact.id == there.contact.id || contact.incarnation == Incarnation(0);
        if !there.is_up() || there.paused_until > self.at || from == to || !is_it {
            self.unreached(from, life, contact.id);
            return;
        }
        if !self.lives(from, life) {
            return;
        }
        let dialler = self.node(from).contact.clone();
        let link = self.net.open((from, life), (to, there.life));
        self.counts.links += 1;
        let takes = self.net.takes(&mut self.chance, to, from);
        if self.net.passes(to, from) {
            self.agenda.push(self.at + takes, Event::Opened { link });
        } else {
            self.net.set(link, 0, State::Closed);
            self.unreached(from, life, contact.id);
        }
        self.say(13, || format!("{to} was reached by {from}: link {link}"));
        self.act(to, |node, env| node.linked(LinkId(u64::from(link)), &dialler, env));
    }

    fn unreached(&mut self, node: u32, life: u32, id: NodeId) {
        let after = Duration::from_millis(self.chance.between((1, 50)));
        self.agenda.push(self.at + after, Event::NotReached { node, life, id });
    }

    /// An end hears that the other one is gone, if it hears anything.
    fn tell_closed(&mut self, link: u32, end: usize) {
        let ends = self.net.link(link).ends;
        let (from, to) = (ends[1 - end].node, ends[end].node);
        if ends[end].state != State::Closed && self.net.passes(from, to) {
            let takes = self.net.takes(&mut self.chance, from, to);
            self.agenda.push(self.at + takes, Event::Closed { link, end });
        }
    }

    // ------------------------------------------------------------ what nodes want

    /// A node does something, and what it wants done is done.
    pub fn act(&mut self, node: u32, does: impl FnOnce(&mut Node, &mut Env<'_>)) {
        let mut acts = std::mem::take(&mut self.acts);
        let Self { nodes, books, catalog, chance, trace, at, checks, liar, .. } = self;
        let mut env =
            Env { books, acts: &mut acts, catalog, chance, trace, at: *at, checks: *checks, liar: *liar };
        does(&mut nodes[node as usize], &mut env);
        for act in acts.drain(..) {
            self.carry_out(node, act);
        }
        self.acts = acts;
        self.arm(node);
    }

    fn carry_out(&mut self, node: u32, act: Act) {
        let life = self.node(node).life;
        match act {
            Act::Send(LinkId(link), frame) => self.on_send(node, link, frame),
            Act::Dial(contact) => self.on_dial(node, contact),
            Act::HangUp(LinkId(link)) => {
                let link = u32::try_from(link).unwrap_or(u32::MAX);
                if let Some(end) = self.net.end_of(link, node, life) {
                    self.say(14, || format!("{node} ends link {link}"));
                    self.net.set(link, end, State::Closed);
                    self.tell_closed(link, 1 - end);
                }
            }
            Act::Later(after, later) => self.agenda.push(self.at + after, Event::Later { node, life, later }),
        }
    }

    fn on_send(&mut self, node: u32, link: u64, frame: Frame) {
        let life = self.node(node).life;
        let link = u32::try_from(link).unwrap_or(u32::MAX);
        let end = self.net.end_of(link, node, life);
        let Some(end) = end.filter(|end| self.net.link(link).ends[*end].state == State::Open) else {
            self.books.wrong(format!("{node} sends over link {link}, which it does not have: {frame:?}"));
            return;
        };
        let Frame::Market(message) = frame else {
            let second = self.at.0 / 1_000_000_000;
            let traffic = &mut self.node_mut(node).traffic;
            traffic.frames += 1;
            // A slot that is freed may be granted anew.
            traffic.in_second(second, -1);
            self.transmit(link, end, frame);
            return;
        };
        let Self { nodes, chance, catalog, counts, at, messages_per_s_max, .. } = self;
        let Some(liar) = &mut nodes[node as usize].liar else {
            let node = &mut nodes[node as usize];
            let role = usize::from(node.serves());
            let traffic = &mut node.traffic;
            traffic.messages += 1;
            traffic.kinds[sight::kind(&message)] += 1;
            traffic.bytes += bytes::encoded(&message) as u64;
            let second = at.0 / 1_000_000_000;
            let sent = u32::try_from(traffic.in_second(second, 1)).unwrap_or(0);
            counts.busiest[role] = counts.busiest[role].max(sent);
            let number = node.number;
            // The run ends there: a storm would take more time than all other runs together.
            assert!(
                sent <= *messages_per_s_max,
                "{number} sends {sent} messages in a second, the last one: {message:?}"
            );
            self.transmit(link, end, Frame::Market(message));
            return;
        };
        for message in liar.says(message, chance, catalog) {
            self.transmit(link, end, Frame::Market(message));
        }
    }

    fn transmit(&mut self, link: u32, end: usize, frame: Frame) {
        let [once, again] = self.net.fate(&mut self.chance, self.at, link, end);
        if let Some(again) = again {
            self.agenda.push(again, Event::Frame { link, end: 1 - end, frame: frame.clone() });
        }
        if let Some(once) = once {
            self.agenda.push(once, Event::Frame { link, end: 1 - end, frame });
        }
    }

    fn on_dial(&mut self, node: u32, contact: Contact) {
        let life = self.node(node).life;
        let to = index(&contact.address).filter(|to| (*to as usize) < self.nodes.len());
        let reachable = to.filter(|to| !self.node(*to).is_walled && self.net.passes_both(node, *to));
        let Some(to) = reachable else {
            let after = Duration::from_millis(self.chance.between((1, UNANSWERED_MS_MAX)));
            self.agenda.push(self.at + after, Event::NotReached { node, life, id: contact.id });
            return;
        };
        // The first part of a handshake may be lost as well, and comes again later.
        let takes = self.net.takes(&mut self.chance, node, to);
        let lost = self.chance.hits(self.net.mood.lost);
        let takes = if lost { takes + Duration::from_secs(1) } else { takes };
        self.agenda.push(self.at + takes, Event::Dialled { from: node, life, to, contact });
    }

    /// Wakes a node when its market wants to be woken.
    fn arm(&mut self, number: u32) {
        let at = self.at;
        let node = self.node_mut(number);
        let Some(due) = node.timeout() else { return };
        let due = due.max(at);
        if due < node.wakes {
            node.wakes = due;
            let life = node.life;
            self.agenda.push(due, Event::Wake { node: number, life });
        }
    }

    // ------------------------------------------------------------ lives

    /// A node starts.
    pub fn start(&mut self, number: u32) {
        let seed = self.chance.word();
        let skew = Duration::from_nanos(self.chance.below(1 << 50));
        let times = Arc::clone(&self.times);
        let node = self.node_mut(number);
        node.skew = skew;
        node.paused_until = Mono(0);
        node.contact.incarnation = Incarnation(u64::from(node.life) * 1000 + seed % 1000 + 1);
        let (me, seeds, may_serve, slots) =
            (node.contact.clone(), node.seeds.clone(), node.may_serve, node.slots);
        let roster = self.node(number).kept.values().cloned().collect();
        let settings = Settings { times, me, seeds, may_serve, slots, roster, seed };
        self.say(15, || format!("{number} starts"));
        self.act(number, |node, env| node.start(settings, env));
    }

    /// A node is gone at once. `loud`: its machine goes on and tells those that it was connected with.
    pub fn crash(&mut self, number: u32, loud: bool) {
        if !self.node(number).is_up() {
            return;
        }
        self.counts.crashes += 1;
        self.say(16, || format!("{number} crashes, loud: {loud}"));
        let life = self.node(number).life;
        let links: Vec<LinkId> = self.node(number).peers.iter().map(|peer| peer.link).collect();
        self.act(number, Node::crash);
        for LinkId(link) in links {
            let link = u32::try_from(link).expect("links that nodes have are few");
            if let Some(end) = self.net.end_of(link, number, life) {
                self.net.set(link, end, State::Closed);
                if loud {
                    self.tell_closed(link, 1 - end);
                }
            }
        }
    }

    /// A node sells nothing more, and ends after a while.
    pub fn leave(&mut self, node: u32, after: Duration) {
        self.say(19, || format!("{node} leaves"));
        self.act(node, Node::leave);
        let life = self.node(node).life;
        self.agenda.push(self.at + after, Event::Stop { node, life });
    }

    /// A node that is down comes back later.
    pub fn restart_after(&mut self, node: u32, after: Duration) {
        self.agenda.push(self.at + after, Event::Restart { node });
    }

    /// A node sees nothing for so long.
    pub fn pause(&mut self, node: u32, time: Duration) {
        let until = self.at + time;
        self.say(17, || format!("{node} stands still for {time:?}"));
        self.node_mut(node).paused_until = until;
    }

    /// A link breaks, and both ends hear of it.
    pub fn break_link(&mut self, LinkId(link): LinkId) {
        let link = u32::try_from(link).expect("links that nodes have are few");
        self.say(18, || format!("link {link} breaks"));
        (0..2).for_each(|end| self.tell_closed(link, end));
    }
}

/// Which node has an address.
fn index(address: &str) -> Option<u32> {
    address.strip_prefix('n')?.strip_suffix(":7070")?.parse().ok()
}

/// The address of a node.
pub fn address(node: u32) -> String {
    format!("n{node}:7070")
}
