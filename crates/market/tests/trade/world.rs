//! One seller, some buyers, and a network between them. It does what a composition has to do, and checks after each step
//! what must be true.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bourse_market::Lot;
use bourse_market::chance::Chance;
use bourse_market::channel::{self, Admission, Buying, Selling};
use bourse_market::listener::Listener;
use bourse_market::message::{Claim, Grant};
use bourse_market::times::Times;
use bourse_wire::time::Mono;

pub type Buyer = usize;
pub type Call = u32;
/// A channel, at the seller.
pub type Key = (Buyer, u64);

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Claim,
    Grant,
    Call,
    Answer,
}

#[derive(Clone, Debug)]
enum Packet {
    Claim(Claim),
    Grant(Grant),
    Call { epoch: u64, seq: u64, call: Call },
    Answer { epoch: u64, seq: u64, call: Call },
}

/// What the network does, in percent, and for how long it holds up what it delivers.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    pub lost: u64,
    pub twice: u64,
    pub late: u64,
    pub latency: Duration,
    pub late_max: Duration,
}

pub const FAIR: Network =
    Network { lost: 0, twice: 0, late: 0, latency: Duration::from_millis(1), late_max: Duration::ZERO };

pub struct BuyingNode {
    pub epoch: u64,
    pub buying: Option<Buying>,
    pub queue: VecDeque<Call>,
    sent: BTreeMap<u64, Call>,
    /// It wants so many tokens more than it has calls.
    pub ahead: u32,
    /// So many calls always wait.
    pub always: usize,
}

pub struct World {
    pub now: Mono,
    pub times: Arc<Times>,
    pub chance: Chance,
    pub network: Network,
    /// The next packet of each of these kinds is lost, or comes twice.
    pub lose: Vec<Kind>,
    pub twice: Vec<Kind>,
    /// How long a call runs, at least and at most.
    pub runs: (Duration, Duration),
    pub slots: u32,
    pub listener: Listener<Key>,
    pub selling: BTreeMap<Key, Selling>,
    /// The greatest epoch of each buyer that this life of the seller has seen.
    epochs: BTreeMap<Buyer, u64>,
    pub buyers: Vec<BuyingNode>,
    instances: BTreeMap<(Buyer, u64, u64), (Mono, Call)>,
    answers: BTreeMap<(Buyer, u64, u64), Call>,
    network_order: u64,
    underway: BTreeMap<(Mono, u64), (Buyer, Packet)>,
    calls: Call,
    /// Calls that have begun.
    pub begun: BTreeSet<Call>,
    pub done: BTreeSet<Call>,
    pub given_up: BTreeSet<Call>,
    pub lost: BTreeSet<Call>,
    /// Slots that were taken when it was looked last.
    taken: u32,
    pub messages: BTreeMap<Kind, u64>,
    lines: String,
}

impl World {
    pub fn new(seed: u64, buyers: usize, slots: u32) -> Self {
        let node = || BuyingNode {
            epoch: 0,
            buying: None,
            queue: VecDeque::new(),
            sent: BTreeMap::new(),
            ahead: 0,
            always: 0,
        };
        Self {
            now: Mono(0),
            times: Arc::new(Times::default()),
            chance: Chance::new(seed),
            network: FAIR,
            lose: Vec::new(),
            twice: Vec::new(),
            runs: (ms(10), ms(10)),
            slots,
            listener: Listener::new(slots),
            selling: BTreeMap::new(),
            epochs: BTreeMap::new(),
            buyers: (0..buyers).map(|_| node()).collect(),
            instances: BTreeMap::new(),
            answers: BTreeMap::new(),
            network_order: 0,
            underway: BTreeMap::new(),
            calls: 0,
            begun: BTreeSet::new(),
            done: BTreeSet::new(),
            given_up: BTreeSet::new(),
            lost: BTreeSet::new(),
            taken: 0,
            messages: BTreeMap::new(),
            lines: String::new(),
        }
    }

    // What can be done to it.

    pub fn submit(&mut self, buyer: Buyer, calls: u32) {
        for _ in 0..calls {
            self.calls += 1;
            self.buyers[buyer].queue.push_back(self.calls);
        }
        self.settle();
    }

    pub fn resize(&mut self, slots: u32) {
        self.line(&format!("seller has {slots} slots"));
        self.slots = slots;
        self.listener.resize(slots);
        self.settle();
    }

    /// The buyer no longer waits for its oldest call.
    pub fn give_up(&mut self, buyer: Buyer) {
        let node = &mut self.buyers[buyer];
        let Some(buying) = node.buying.as_mut() else { return };
        let Some(seq) = buying.open().next() else { return };
        assert!(buying.settle(self.now, seq));
        let call = node.sent.remove(&seq).expect("an open call was sent");
        self.given_up.insert(call);
        self.line(&format!("b{buyer} gives up c{call}"));
        self.settle();
    }

    /// The buyer has forgotten everything, and begins anew. The seller does not hear of it.
    pub fn restart(&mut self, buyer: Buyer) {
        self.line(&format!("b{buyer} restarts"));
        self.drop_buying(buyer);
        let queue = std::mem::take(&mut self.buyers[buyer].queue);
        self.lost.extend(queue);
        self.settle();
    }

    /// The link between the two is lost, and both notice. What is on its way may still arrive.
    pub fn cut(&mut self, buyer: Buyer) {
        self.line(&format!("b{buyer} and the seller lose each other"));
        self.drop_buying(buyer);
        let now = self.now;
        self.selling.range_mut((buyer, 0)..=(buyer, u64::MAX)).for_each(|(_, selling)| selling.sever(now));
        self.settle();
    }

    /// The seller has forgotten everything. The buyers do not hear of it, but what was on its way to it is lost: a link is
    /// one to a life of a node.
    pub fn seller_restarts(&mut self) {
        self.line("seller restarts");
        self.selling.clear();
        self.instances.clear();
        self.epochs.clear();
        self.underway.retain(|_, (_, packet)| matches!(packet.kind(), Kind::Grant | Kind::Answer));
        self.listener = Listener::new(self.slots);
        self.taken = 0;
        self.settle();
    }

    pub fn seller_closes(&mut self) {
        self.line("seller sells no more");
        let now = self.now;
        self.selling.values_mut().for_each(|selling| selling.close(now));
        self.settle();
    }

    pub fn buyer_closes(&mut self, buyer: Buyer) {
        if let Some(buying) = self.buyers[buyer].buying.as_mut() {
            buying.close(self.now);
            self.line(&format!("b{buyer} closes"));
            self.settle();
        }
    }

    pub fn revoke_all(&mut self) {
        let now = self.now;
        self.selling.values_mut().for_each(|selling| selling.revoke(now, u32::MAX));
        self.settle();
    }

    /// Until nothing more is to be done before then.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(next) = self.next_wake_up().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.wake_up();
        }
        self.now = until;
    }

    // What must be true.

    fn check(&mut self) {
        self.listener.check_invariants();
        let taken = self.listener.taken();
        assert!(taken <= self.slots || taken <= self.taken, "nothing is granted past the slots");
        self.taken = taken;
        let mut running = BTreeMap::new();
        self.instances
            .keys()
            .for_each(|(buyer, epoch, _)| *running.entry((*buyer, *epoch)).or_insert(0) += 1);
        for (key, selling) in &self.selling {
            selling.check_invariants();
            assert_eq!(selling.unused() + selling.running(), self.listener.held(key), "a token is a slot");
            assert_eq!(selling.running(), running.remove(key).unwrap_or(0), "a running call has a slot");
        }
        assert!(running.is_empty(), "an instance runs for a channel");
        for (buyer, node) in self.buyers.iter().enumerate() {
            let Some(buying) = &node.buying else { continue };
            buying.check_invariants();
            if let Some(selling) = self.selling.get(&(buyer, node.epoch)).filter(|s| !s.is_closing()) {
                assert!(buying.held() <= selling.unused(), "nobody holds what was not granted");
            }
            assert!(!buying.is_closed() || buying.held() == 0, "nothing is held of what has closed");
        }
    }

    /// Whether everything that was wanted is done, or known to be lost.
    pub fn is_settled(&self) -> Result<(), String> {
        let open: Vec<_> =
            self.buyers.iter().filter_map(|b| b.buying.as_ref()).flat_map(Buying::open).collect();
        let queued: Vec<_> = self.buyers.iter().flat_map(|b| &b.queue).collect();
        if !open.is_empty() || !queued.is_empty() || !self.instances.is_empty() {
            return Err(format!("open {open:?}, waiting {queued:?}, running {:?}", self.instances));
        }
        let lost = (1..=self.calls)
            .filter(|c| [&self.done, &self.given_up, &self.lost].iter().all(|set| !set.contains(c)));
        match lost.collect::<Vec<_>>() {
            lost if lost.is_empty() => Ok(()),
            lost => Err(format!("{lost:?} are gone")),
        }
    }

    // How it goes.

    fn next_wake_up(&self) -> Option<Mono> {
        let buying = self.buyers.iter().filter_map(|b| b.buying.as_ref()?.poll_timeout());
        let selling = self.selling.values().filter_map(Selling::poll_timeout);
        let idle = |(key, selling): (&Key, &Selling)| {
            selling.stale_at().filter(|at| *at > self.now && self.listener.is_wanted(key))
        };
        let stale = self.selling.iter().filter_map(idle);
        let net = self.underway.first_key_value().map(|((at, _), _)| *at);
        let ends = self.instances.values().map(|(end, _)| *end);
        buying.chain(selling).chain(stale).chain(net).chain(ends).min()
    }

    fn wake_up(&mut self) {
        let now = self.now;
        while let Some(((at, order), _)) = self.underway.first_key_value()
            && *at <= now
        {
            let key = (*at, *order);
            let (buyer, packet) = self.underway.remove(&key).expect("it was found there");
            self.deliver(buyer, packet);
        }
        let ended =
            self.instances.iter().filter(|(_, (end, _))| *end <= now).map(|(k, (_, call))| (*k, *call));
        for ((buyer, epoch, seq), call) in ended.collect::<Vec<_>>() {
            self.instances.remove(&(buyer, epoch, seq));
            let selling = self.selling.get_mut(&(buyer, epoch)).expect("what runs keeps its channel");
            selling.finish(now, seq);
            self.answers.insert((buyer, epoch, seq), call);
            self.send(buyer, Packet::Answer { epoch, seq, call });
        }
        self.selling.values_mut().for_each(|selling| selling.handle_timeout(now));
        self.buyers
            .iter_mut()
            .filter_map(|b| b.buying.as_mut())
            .for_each(|buying| buying.handle_timeout(now));
        self.settle();
    }

    fn deliver(&mut self, buyer: Buyer, packet: Packet) {
        let now = self.now;
        match packet {
            Packet::Claim(claim) => self.on_claim(buyer, &claim),
            Packet::Grant(grant) => self.on_grant(buyer, &grant),
            Packet::Call { epoch, seq, call } => {
                let Some(selling) = self.selling.get_mut(&(buyer, epoch)) else { return };
                match selling.admit(now, seq) {
                    Admission::New => {
                        assert!(self.begun.insert(call), "c{call} runs twice");
                        let (min, max) = self.runs;
                        let end = now + min + self.chance.up_to(max - min);
                        self.instances.insert((buyer, epoch, seq), (end, call));
                    }
                    Admission::Repeated => self.line(&format!("seller has had c{call}")),
                    Admission::Refused => self.line(&format!("seller refuses c{call}")),
                }
            }
            Packet::Answer { epoch, seq, call } => {
                let node = &mut self.buyers[buyer];
                let Some(buying) = node.buying.as_mut().filter(|b| b.epoch() == epoch) else { return };
                if buying.settle(now, seq) {
                    assert_eq!(node.sent.remove(&seq), Some(call), "an answer is that of its call");
                    assert!(self.done.insert(call), "c{call} is answered twice");
                }
            }
        }
        self.settle();
    }

    fn on_claim(&mut self, buyer: Buyer, claim: &Claim) {
        let now = self.now;
        let newest = self.epochs.entry(buyer).or_insert(0);
        let key = (buyer, claim.epoch);
        if channel::begins(claim) && *newest < claim.epoch {
            *newest = claim.epoch;
            self.selling.range_mut((buyer, 0)..key).for_each(|(_, selling)| selling.sever(now));
            let selling = Selling::new(Arc::clone(&self.times), claim.lot.clone(), claim.epoch);
            self.selling.insert(key, selling);
        }
        match self.selling.get_mut(&key) {
            Some(selling) => {
                selling.on_claim(now, claim);
                for seq in selling.unanswered() {
                    let call = self.answers[&(buyer, claim.epoch, seq)];
                    self.send(buyer, Packet::Answer { epoch: claim.epoch, seq, call });
                }
            }
            None => {
                if let Some(grant) = channel::not_sold(claim) {
                    self.send(buyer, Packet::Grant(grant));
                }
            }
        }
    }

    fn on_grant(&mut self, buyer: Buyer, grant: &Grant) {
        let node = &mut self.buyers[buyer];
        let Some(buying) = node.buying.as_mut().filter(|b| b.epoch() == grant.epoch && !b.is_closed()) else {
            self.send(buyer, Packet::Claim(channel::not_bought(grant)));
            return;
        };
        let void = buying.on_grant(self.now, grant);
        let closed = buying.is_closed();
        for seq in &void {
            let call = node.sent.remove(seq).expect("a void call was sent");
            assert!(!self.begun.contains(&call), "c{call} is void, and has begun");
            node.queue.push_front(call);
        }
        if !void.is_empty() {
            self.line(&format!("b{buyer} has to send {void:?} elsewhere"));
        }
        if closed {
            self.settle();
            self.drop_buying(buyer);
        }
    }

    fn drop_buying(&mut self, buyer: Buyer) {
        let node = &mut self.buyers[buyer];
        node.buying = None;
        let lost = std::mem::take(&mut node.sent);
        if !lost.is_empty() {
            let calls: Vec<_> = lost.values().map(|call| format!("c{call}")).collect();
            self.line(&format!("b{buyer} loses {}", calls.join(", ")));
        }
        self.lost.extend(lost.into_values());
    }

    /// What each side does after something has happened.
    fn settle(&mut self) {
        (0..self.buyers.len()).for_each(|buyer| self.buy(buyer));
        self.sell();
        self.check();
    }

    fn buy(&mut self, buyer: Buyer) {
        let now = self.now;
        let node = &mut self.buyers[buyer];
        let top_up = |queue: &mut VecDeque<Call>, always: usize, calls: &mut Call| {
            while queue.len() < always {
                *calls += 1;
                queue.push_back(*calls);
            }
        };
        top_up(&mut node.queue, node.always, &mut self.calls);
        if node.buying.is_none() && !node.queue.is_empty() {
            node.epoch += 1;
            let lot = Lot { module: "m".to_owned(), version: semver::Version::new(1, 0, 0) };
            node.buying = Some(Buying::new(Arc::clone(&self.times), lot, node.epoch));
        }
        let Some(buying) = node.buying.as_mut() else { return };
        let mut packets = Vec::new();
        while !node.queue.is_empty()
            && let Some(seq) = buying.spend(now)
        {
            let call = node.queue.pop_front().expect("the queue is not empty");
            node.sent.insert(seq, call);
            top_up(&mut node.queue, node.always, &mut self.calls);
            packets.push(Packet::Call { epoch: node.epoch, seq, call });
        }
        buying.set_want(now, u32::try_from(node.queue.len()).unwrap() + node.ahead);
        packets.extend(buying.poll().map(Packet::Claim));
        assert!(buying.poll().is_none(), "all is said");
        packets.into_iter().for_each(|packet| self.send(buyer, packet));
    }

    fn sell(&mut self) {
        let now = self.now;
        for (key, selling) in &mut self.selling {
            (0..selling.returned()).for_each(|_| self.listener.give_back(key));
            self.listener.claim(now, key, selling.wants());
        }
        loop {
            let wanting =
                self.selling.iter().filter(|(_, s)| s.wants() > 0).map(|(k, _)| self.listener.held(k));
            let fewest = wanting.min();
            let Some(key) = self.listener.next(now) else { break };
            assert_eq!(Some(self.listener.held(&key) - 1), fewest, "who holds fewest goes first");
            let selling = self.selling.get_mut(&key).expect("only channels claim");
            selling.grant(now);
            self.listener.claim(now, &key, selling.wants());
        }
        let mut packets = Vec::new();
        for (key, selling) in &mut self.selling {
            let stale = selling.stale(now);
            if stale > 0 && self.listener.is_wanted(key) {
                selling.revoke(now, stale);
            }
            packets.extend(selling.poll().map(|grant| (key.0, Packet::Grant(grant))));
            assert!(selling.poll().is_none(), "all is said");
        }
        packets.into_iter().for_each(|(buyer, packet)| self.send(buyer, packet));
        self.selling.retain(|_, selling| !selling.is_over());
    }

    fn send(&mut self, buyer: Buyer, packet: Packet) {
        let kind = packet.kind();
        *self.messages.entry(kind).or_insert(0) += 1;
        let chance = &mut self.chance;
        let lost = take(&mut self.lose, kind) || chance.below(100) < self.network.lost;
        let twice = take(&mut self.twice, kind) || chance.below(100) < self.network.twice;
        let how = if lost {
            "   (lost)"
        } else if twice {
            "   (twice)"
        } else {
            ""
        };
        self.line(&format!("{}{how}", packet.text(buyer)));
        let copies = if lost { 0 } else { 1 + u32::from(twice) };
        for _ in 0..copies {
            let late = self.chance.below(100) < self.network.late;
            let delay = if late { self.chance.up_to(self.network.late_max) } else { Duration::ZERO };
            self.network_order += 1;
            let key = (self.now + self.network.latency + delay, self.network_order);
            self.underway.insert(key, (buyer, packet.clone()));
        }
    }

    // The trace.

    fn line(&mut self, line: &str) {
        writeln!(self.lines, "{:>12}  {line}", self.now.to_string()).unwrap();
    }

    pub fn text(&self) -> &str {
        &self.lines
    }

    /// Compares what was said with `testdata/{name}.trace`; with `BOURSE_BLESS=1` in the environment, writes it.
    pub fn compare(&self, name: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{name}.trace"));
        if std::env::var_os("BOURSE_BLESS").is_some() {
            write_file(&path, &self.lines);
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

#[expect(clippy::disallowed_methods, reason = "a test may write the file that it compares with")]
fn write_file(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn take(kinds: &mut Vec<Kind>, kind: Kind) -> bool {
    kinds.iter().position(|k| *k == kind).map(|at| kinds.remove(at)).is_some()
}

impl Packet {
    fn kind(&self) -> Kind {
        match self {
            Self::Claim(_) => Kind::Claim,
            Self::Grant(_) => Kind::Grant,
            Self::Call { .. } => Kind::Call,
            Self::Answer { .. } => Kind::Answer,
        }
    }

    fn text(&self, buyer: Buyer) -> String {
        let closed = |closed| if closed { ", closed" } else { "" };
        match self {
            Self::Claim(c) => {
                let open = if c.open.is_empty() { String::new() } else { format!(", open {:?}", c.open) };
                format!(
                    "b{buyer} -> seller  claim {}#{}: want {}, known {}, next {}{open}{}",
                    c.epoch,
                    c.revision,
                    c.want,
                    c.known,
                    c.next,
                    closed(c.closed)
                )
            }
            Self::Grant(g) => {
                let revoked = if g.revoked == 0 { String::new() } else { format!(", revoked {}", g.revoked) };
                let void = if g.void.is_empty() { String::new() } else { format!(", void {:?}", g.void) };
                format!(
                    "seller -> b{buyer}  grant {}#{}: granted {}{revoked}{void}{}",
                    g.epoch,
                    g.seen,
                    g.granted,
                    closed(g.closed)
                )
            }
            Self::Call { epoch, seq, call } => format!("b{buyer} -> seller  call {epoch}.{seq}: c{call}"),
            Self::Answer { epoch, seq, call } => format!("seller -> b{buyer}  answer {epoch}.{seq}: c{call}"),
        }
    }
}
