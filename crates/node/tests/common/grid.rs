//! Several worlds and the network between them. A connection is as one over tcp: what is sent arrives in order, or the
//! connection ends. A cut connection carries nothing, and nobody is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bourse_node::market::times::Times;
use bourse_node::{Config, GridConfig, Input, LinkId, Output, OwnStore};
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::Mono;
use bytes::Bytes;

use super::{World, config};

/// One end of a connection.
type End = (usize, LinkId);

enum Wire {
    Frame(End, Frame, Bytes),
    Opened(End, [u8; 32]),
    Closed(End),
    NotReached(usize, [u8; 32]),
}

pub struct Grid {
    pub nodes: Vec<World>,
    pub now: Mono,
    wires: BTreeMap<(Mono, u64), Wire>,
    order: u64,
    /// Both ends of each connection that is open.
    ends: BTreeMap<End, End>,
    next_link: u64,
    /// From one node to another: nothing gets there.
    cut: BTreeSet<(usize, usize)>,
    pub latency: Duration,
    /// The calls that nodes have sent to others: by whom, over which link, under which token.
    pub runs: Vec<(usize, LinkId, peer::Token)>,
    /// Frames that have crossed, for those who count.
    pub frames: u64,
}

/// The key of the node with this number.
pub fn key(node: usize) -> [u8; 32] {
    let mut key = [0; 32];
    key[0] = u8::try_from(node).unwrap() + 1;
    key
}

/// Settings of the node with this number, with so many slots. Node 0 is everybody's seed.
pub fn grid_config(node: usize, slots: usize) -> Config {
    let seeds = if node == 0 { Vec::new() } else { vec![(key(0), "n0:7071".to_owned())] };
    Config {
        running_max: slots,
        grid: Some(GridConfig {
            id: key(node),
            name: format!("n{node}"),
            address: format!("n{node}:7071"),
            domain: format!("n{node}"),
            seeds,
            may_serve: true,
            sell_max: None,
            roster: Vec::new(),
            store: Some(OwnStore { id: [u8::try_from(node).unwrap() + 1; 16], used: false, offered: true }),
            known_store: None,
            catalogue: Vec::new(),
            times: Arc::new(Times::default()),
        }),
        ..config()
    }
}

impl Grid {
    /// Nodes with so many slots each.
    pub fn new(slots: &[usize]) -> Self {
        Self::of(slots.iter().enumerate().map(|(n, slots)| grid_config(n, *slots)))
    }

    /// Nodes with these settings.
    pub fn of(configs: impl Iterator<Item = Config>) -> Self {
        let mut nodes: Vec<World> = configs.map(World::with).collect();
        for node in &mut nodes {
            node.input(Input::Recover);
        }
        Self {
            nodes,
            now: Mono(0),
            wires: BTreeMap::new(),
            order: 0,
            ends: BTreeMap::new(),
            next_link: 1,
            cut: BTreeSet::new(),
            latency: Duration::from_micros(50),
            runs: Vec::new(),
            frames: 0,
        }
    }

    /// Lets so many milliseconds pass.
    pub fn run(&mut self, ms: u64) -> &mut Self {
        let until = self.now + Duration::from_millis(ms);
        self.collect();
        while self.due().is_some_and(|at| at <= until) {
            self.step();
        }
        self.set_time(until);
        self
    }

    /// Goes on until `done`, for a minute at most.
    pub fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> &mut Self {
        let most = self.now + Duration::from_secs(60);
        while !done(self) {
            assert!(self.now < most && self.step(), "{what} does not happen");
        }
        self
    }

    /// Nothing gets from one node to the other any more, in both directions.
    pub fn cut(&mut self, a: usize, b: usize) -> &mut Self {
        self.cut.extend([(a, b), (b, a)]);
        self
    }

    pub fn heal(&mut self) -> &mut Self {
        self.cut.clear();
        self
    }

    /// A node's process dies: its connections end at once, and it is not heard again.
    pub fn crash(&mut self, node: usize) -> &mut Self {
        let ends: Vec<(End, End)> =
            self.ends.iter().map(|(a, b)| (*a, *b)).filter(|(a, _)| a.0 == node).collect();
        for (mine, other) in ends {
            self.ends.remove(&mine);
            self.ends.remove(&other);
            self.later(Wire::Closed(other));
        }
        self.cut.extend((0..self.nodes.len()).flat_map(|other| [(node, other), (other, node)]));
        self
    }

    /// A node's process dies, and it starts again with what its store has.
    pub fn restart(&mut self, node: usize) -> &mut Self {
        let cut = self.cut.clone();
        self.crash(node);
        self.cut = cut;
        self.set_time(self.now);
        self.nodes[node].restart();
        self
    }

    /// A message of a stranger on a new connection to a node, with this key.
    pub fn stranger(&mut self, node: usize, key: [u8; 32], frames: Vec<Frame>) -> &mut Self {
        let link = self.link();
        self.later(Wire::Opened((node, link), key));
        for frame in frames {
            self.later(Wire::Frame((node, link), frame, Bytes::new()));
        }
        self
    }

    fn due(&self) -> Option<Mono> {
        let wires = self.wires.first_key_value().map(|((at, _), _)| *at);
        self.nodes.iter().filter_map(World::due).chain(wires).min()
    }

    fn set_time(&mut self, at: Mono) {
        self.now = at;
        self.nodes.iter_mut().for_each(|n| n.now = n.now.max(at));
    }

    /// Jumps to the next thing that happens anywhere.
    pub fn step(&mut self) -> bool {
        self.collect();
        let Some(at) = self.due() else { return false };
        self.set_time(at.max(self.now));
        if self.wires.first_key_value().is_some_and(|((at, _), _)| *at <= self.now) {
            let (_, wire) = self.wires.pop_first().unwrap();
            self.happen(wire);
        } else {
            let node = self.nodes.iter_mut().find(|n| n.due().is_some_and(|at| at <= self.now)).unwrap();
            node.step();
        }
        self.collect();
        true
    }

    fn happen(&mut self, wire: Wire) {
        match wire {
            Wire::Opened((node, link), key) => {
                self.nodes[node].input(Input::PeerOpened { link, key });
            }
            Wire::Frame((node, link), frame, payload) => {
                self.frames += 1;
                self.nodes[node].input(Input::PeerFrame { link, message: Some(frame), payload });
            }
            Wire::Closed((node, link)) => {
                self.nodes[node].input(Input::PeerClosed { link });
            }
            Wire::NotReached(node, key) => {
                self.nodes[node].input(Input::NotReached { node: key, why: "nobody answers".to_owned() });
            }
        }
    }

    /// Takes what the nodes say to each other.
    pub fn collect(&mut self) {
        for node in 0..self.nodes.len() {
            for output in std::mem::take(&mut self.nodes[node].to_peers) {
                match output {
                    Output::Dial { node: wanted, address } => self.dial(node, wanted, &address),
                    Output::PeerSend { link, message, payload } => {
                        if let Frame::Run(peer::Run { token: Some(token), .. }) = &message {
                            self.runs.push((node, link, token.clone()));
                        }
                        if let Some(other) = self.ends.get(&(node, link)).copied()
                            && !self.cut.contains(&(node, other.0))
                        {
                            self.later(Wire::Frame(other, message, payload));
                        }
                    }
                    Output::PeerClose { link } => {
                        if let Some(other) = self.ends.remove(&(node, link)) {
                            self.ends.remove(&other);
                            if !self.cut.contains(&(node, other.0)) {
                                self.later(Wire::Closed(other));
                            }
                        }
                    }
                    _ => unreachable!("only what is for other nodes is kept"),
                }
            }
        }
    }

    fn dial(&mut self, from: usize, wanted: [u8; 32], address: &str) {
        let to = (0..self.nodes.len()).find(|n| address == format!("n{n}:7071") && key(*n) == wanted);
        match to.filter(|to| !self.cut.contains(&(from, *to)) && !self.cut.contains(&(*to, from))) {
            Some(to) => {
                let (a, b) = ((from, self.link()), (to, self.link()));
                self.ends.insert(a, b);
                self.ends.insert(b, a);
                self.later(Wire::Opened(a, key(to)));
                self.later(Wire::Opened(b, key(from)));
            }
            None => self.later(Wire::NotReached(from, wanted)),
        }
    }

    fn link(&mut self) -> LinkId {
        self.next_link += 1;
        LinkId(self.next_link)
    }

    fn later(&mut self, wire: Wire) {
        self.order += 1;
        self.wires.insert((self.now + self.latency, self.order), wire);
    }
}
