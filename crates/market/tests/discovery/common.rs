//! Nodes that are a member and perhaps an authority, and a network between them that loses, repeats and reorders.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bourse_market::authority::{self, Authority};
use bourse_market::member::{self, Member};
use bourse_market::message::{Envelope, Match, Order, Terms};
use bourse_market::times::Times;
use bourse_market::{Contact, Message, NodeId};
use bourse_wire::id::Incarnation;
use bourse_wire::time::Mono;

pub const LATENCY: Duration = Duration::from_millis(2);

pub fn ms(ms: u64) -> Mono {
    Mono(ms * 1_000_000)
}

pub fn id(n: u8) -> NodeId {
    let mut id = [0; 32];
    id[0] = n;
    NodeId(id)
}

pub fn contact(n: u8) -> Contact {
    Contact {
        id: id(n),
        incarnation: Incarnation(1),
        address: format!("10.0.0.{n}:7777"),
        domain: format!("rack {n}"),
    }
}

pub fn times() -> Arc<Times> {
    Arc::new(Times::default())
}

pub struct Node {
    pub contact: Contact,
    pub member: Member,
    pub authority: Option<Authority>,
}

pub struct World {
    pub now: Mono,
    pub times: Arc<Times>,
    pub nodes: BTreeMap<NodeId, Node>,
    links: BTreeSet<(NodeId, NodeId)>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// On the way: when, in which order, whence, where to.
    wire: BTreeMap<(Mono, u64), (NodeId, Envelope)>,
    dials: BTreeMap<(Mono, u64), (NodeId, NodeId)>,
    next: u64,
    pub loss_percent: u64,
    chance: u64,
    pub sent: BTreeMap<NodeId, usize>,
    /// Whom each node has written to.
    pub receivers: BTreeSet<(NodeId, NodeId)>,
    pub trace: Trace,
}

impl World {
    pub fn new() -> Self {
        Self::with(times())
    }

    pub fn with(times: Arc<Times>) -> Self {
        Self {
            now: Mono(0),
            times,
            nodes: BTreeMap::new(),
            links: BTreeSet::new(),
            cuts: BTreeSet::new(),
            wire: BTreeMap::new(),
            dials: BTreeMap::new(),
            next: 0,
            loss_percent: 0,
            chance: 1,
            sent: BTreeMap::new(),
            receivers: BTreeSet::new(),
            trace: Trace::default(),
        }
    }

    pub fn start(&mut self, n: u8, seeds: &[u8]) -> &mut Self {
        self.start_as(contact(n), seeds, true)
    }

    pub fn start_as(&mut self, me: Contact, seeds: &[u8], may_serve: bool) -> &mut Self {
        let seed = |n: &u8| Contact { incarnation: Incarnation(0), domain: String::new(), ..contact(*n) };
        let seeds = seeds.iter().map(seed).collect();
        let member =
            Member::new(self.times.clone(), me.clone(), may_serve, seeds, u64::from(me.id.0[0]), self.now);
        self.trace.line(self.now, &format!("{} starts", who(me.id)));
        let id = me.id;
        self.nodes.insert(id, Node { contact: me, member, authority: None });
        self.drain(id);
        self
    }

    /// A node finds another while it runs.
    pub fn find(&mut self, n: u8, found: u8) -> &mut Self {
        let seed = Contact { incarnation: Incarnation(0), domain: String::new(), ..contact(found) };
        let now = self.now;
        self.nodes.get_mut(&id(n)).expect("it runs").member.add_seed(now, &seed);
        self.drain(id(n));
        self
    }

    /// A node knows that one it has found is gone.
    pub fn miss(&mut self, n: u8, gone: u8) -> &mut Self {
        let now = self.now;
        self.nodes.get_mut(&id(n)).expect("it runs").member.drop_seed(now, id(gone));
        self.drain(id(n));
        self
    }

    /// A node ends without a word.
    pub fn stop(&mut self, n: u8) -> &mut Self {
        self.nodes.remove(&id(n));
        self.trace.line(self.now, &format!("{} ends", who(id(n))));
        let links: Vec<_> = self.links.iter().copied().filter(|(a, b)| *a == id(n) || *b == id(n)).collect();
        for (a, b) in links {
            self.unlink(a, b);
        }
        self
    }

    pub fn cut(&mut self, ours: &[u8], theirs: &[u8]) -> &mut Self {
        for (a, b) in ours.iter().flat_map(|a| theirs.iter().map(move |b| (id(*a), id(*b)))) {
            self.cuts.insert(pair(a, b));
            if self.links.contains(&pair(a, b)) {
                self.unlink(a, b);
            }
        }
        self.trace.line(self.now, &format!("cut between {ours:?} and {theirs:?}"));
        self
    }

    pub fn heal(&mut self) -> &mut Self {
        self.cuts.clear();
        self.trace.line(self.now, "healed");
        self
    }

    pub fn run(&mut self, millis: u64) -> &mut Self {
        let end = Mono(self.now.0 + millis * 1_000_000);
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
        self
    }

    fn next_event(&self) -> Option<Mono> {
        let wire = self.wire.keys().next().map(|(at, _)| *at);
        let dials = self.dials.keys().next().map(|(at, _)| *at);
        let timers = self.nodes.values().flat_map(|node| {
            [node.member.poll_timeout(), node.authority.as_ref().and_then(Authority::poll_timeout)]
        });
        timers.chain([wire, dials]).flatten().min()
    }

    fn step(&mut self) {
        let is_due = |key: &(Mono, u64), now: Mono| key.0 <= now;
        while let Some(entry) = self.dials.first_entry().filter(|e| is_due(e.key(), self.now)) {
            let (a, b) = entry.remove();
            self.dialed(a, b);
        }
        while let Some(entry) = self.wire.first_entry().filter(|e| is_due(e.key(), self.now)) {
            let (from, envelope) = entry.remove();
            self.deliver(from, envelope);
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).unwrap();
            if node.member.poll_timeout().is_some_and(|at| at <= self.now) {
                node.member.handle_timeout(self.now);
            }
            if let Some(authority) = node.authority.as_mut().filter(|a| a.poll_timeout() <= Some(self.now)) {
                authority.handle_timeout(self.now);
            }
            self.drain(id);
        }
    }

    fn dialed(&mut self, a: NodeId, b: NodeId) {
        let is_there = self.nodes.contains_key(&a) && self.nodes.contains_key(&b);
        if self.links.contains(&pair(a, b)) {
            return;
        }
        if !is_there || self.cuts.contains(&pair(a, b)) {
            let unreached = Contact { id: b, ..contact(b.0[0]) };
            self.say_link(a, &unreached, false);
            return;
        }
        self.links.insert(pair(a, b));
        for (x, y) in [(a, b), (b, a)] {
            let contact = self.nodes[&y].contact.clone();
            self.say_link(x, &contact, true);
        }
    }

    fn unlink(&mut self, a: NodeId, b: NodeId) {
        self.links.remove(&pair(a, b));
        self.wire.retain(|_, (from, e)| pair(*from, e.to) != pair(a, b));
        for (x, y) in [(a, b), (b, a)] {
            self.say_link(x, &contact(y.0[0]), false);
        }
    }

    fn say_link(&mut self, at: NodeId, other: &Contact, up: bool) {
        if let Some(node) = self.nodes.get_mut(&at) {
            node.member.on_link(self.now, other, up);
            if let Some(authority) = &mut node.authority {
                authority.on_link(self.now, other, up);
            }
            self.drain(at);
        }
    }

    fn deliver(&mut self, from: NodeId, envelope: Envelope) {
        let to = envelope.to;
        if from != to && !self.links.contains(&pair(from, to)) {
            return;
        }
        self.trace.message(self.now, from, to, &envelope.message);
        let Some(node) = self.nodes.get_mut(&to) else { return };
        node.member.on_message(self.now, from, &envelope.message);
        if let Some(authority) = &mut node.authority {
            authority.on_message(self.now, from, &envelope.message);
        }
        self.drain(to);
    }

    fn drain(&mut self, id: NodeId) {
        loop {
            let node = self.nodes.get_mut(&id).unwrap();
            if let Some(output) = node.member.poll() {
                match output {
                    member::Output::Send(envelope) => self.send(id, envelope),
                    member::Output::Serve => self.serve(id),
                    member::Output::Know(_) | member::Output::Authorities => {}
                }
                continue;
            }
            match node.authority.as_mut().and_then(Authority::poll) {
                Some(authority::Output::Send(envelope)) => self.send(id, envelope),
                Some(authority::Output::StepDown) => {
                    node.authority = None;
                    node.member.set_serving(self.now, false);
                    self.trace.line(self.now, &format!("{} steps down", who(id)));
                }
                Some(_) => {}
                None => break,
            }
        }
        let node = &self.nodes[&id];
        node.member.check_invariants();
        node.authority.iter().for_each(Authority::check_invariants);
    }

    fn serve(&mut self, id: NodeId) {
        let linked: Vec<NodeId> = self
            .links
            .iter()
            .filter(|(a, b)| *a == id || *b == id)
            .map(|(a, b)| if *a == id { *b } else { *a })
            .collect();
        let contacts: Vec<Contact> =
            linked.iter().filter_map(|l| self.nodes.get(l)).map(|n| n.contact.clone()).collect();
        let node = self.nodes.get_mut(&id).unwrap();
        if node.authority.is_some() {
            return;
        }
        self.trace.line(self.now, &format!("{} serves", who(id)));
        let known = node.member.known();
        let mut authority = Authority::new(self.times.clone(), node.contact.clone(), known, 1, self.now);
        for contact in &contacts {
            authority.on_link(self.now, contact, true);
        }
        node.authority = Some(authority);
        node.member.set_serving(self.now, true);
    }

    fn send(&mut self, from: NodeId, envelope: Envelope) {
        self.next += 1;
        let to = envelope.to;
        if from != to {
            *self.sent.entry(from).or_default() += 1;
            self.receivers.insert((from, to));
        }
        if from != to && !self.links.contains(&pair(from, to)) {
            self.dials.insert((self.now + LATENCY, self.next), (from, to));
            return;
        }
        if from != to && self.draw(100) < self.loss_percent {
            return;
        }
        // Where some is lost, some is late, and some comes twice.
        let copies = if self.loss_percent > 0 && self.draw(10) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            self.next += 1;
            let late = if self.loss_percent > 0 { self.draw(50) } else { 0 };
            let at =
                self.now + if from == to { Duration::ZERO } else { LATENCY } + Duration::from_millis(late);
            self.wire.insert((at, self.next), (from, envelope.clone()));
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }

    pub fn with_chance(mut self, chance: u64) -> Self {
        self.chance = chance;
        self
    }

    pub fn serving(&self) -> Vec<u8> {
        self.nodes.values().filter(|n| n.authority.is_some()).map(|n| n.contact.id.0[0]).collect()
    }

    pub fn believed(&self, n: u8) -> Vec<u8> {
        self.nodes[&id(n)].member.authorities().iter().map(|a| a.id.0[0]).collect()
    }

    /// Everybody knows exactly the authorities that there are.
    pub fn assert_agreed(&self) {
        for n in self.nodes.keys() {
            assert_eq!(self.believed(n.0[0]), self.serving(), "what {} believes", who(*n));
        }
        assert!(!self.serving().is_empty(), "somebody serves");
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

pub fn who(id: NodeId) -> String {
    format!("n{}", id.0[0])
}

#[derive(Default)]
pub struct Trace {
    pub lines: String,
}

impl Trace {
    pub fn line(&mut self, now: Mono, line: &str) {
        writeln!(self.lines, "{:>12}  {line}", now.to_string()).unwrap();
    }

    pub fn message(&mut self, now: Mono, from: NodeId, to: NodeId, message: &Message) {
        self.line(now, &format!("{} -> {}  {}", who(from), who(to), said(message)));
    }

    /// Compares with `testdata/{name}.trace`; with `BOURSE_BLESS=1` in the environment, writes it.
    pub fn check(&self, name: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{name}.trace"));
        if std::env::var_os("BOURSE_BLESS").is_some() {
            std::fs::write(&path, &self.lines).unwrap();
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            expected == self.lines,
            "{} differs: look at it, and refresh it with BOURSE_BLESS=1. Now it is:\n{}",
            path.display(),
            self.lines
        );
    }
}

fn names(contacts: &[Contact]) -> String {
    let names: Vec<_> = contacts.iter().map(|c| who(c.id)).collect();
    format!("[{}]", names.join(" "))
}

pub fn order(o: &Order) -> String {
    match &o.terms {
        Terms::Sell(version) => format!("sells {} {}@{version} r{}", o.quantity, o.module, o.revision),
        Terms::Buy(requirement) => format!("buys {} {}@{requirement} r{}", o.quantity, o.module, o.revision),
    }
}

pub fn found(m: &Match) -> String {
    let seller = who(m.seller.id);
    format!("{} of {} by {seller} r{} for {} r{}", m.quantity, m.lot, m.offered, m.requirement, m.revision)
}

fn said(message: &Message) -> String {
    match message {
        Message::Join(j) => format!("join{}", if j.first { ", first" } else { "" }),
        Message::Grid(g) => {
            format!("grid {} others {} nodes {}", names(&g.authorities), names(&g.others), g.nodes)
        }
        Message::Mesh(m) => format!("mesh nodes {} {}", m.nodes, names(&m.authorities)),
        Message::Orders(o) => {
            let orders: Vec<_> = o.orders.iter().map(order).collect();
            format!("orders{} {}", if o.all { ", all:" } else { ":" }, orders.join(", "))
        }
        Message::Matches(all) => format!("matches {}", all.iter().map(found).collect::<Vec<_>>().join(", ")),
        other => format!("{other:?}").to_lowercase(),
    }
}
