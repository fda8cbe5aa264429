//! A world for one node: virtual time, a pretend keeper, workers, a store, a gateway and clients. [`World::step`]
//! jumps to whatever happens next. Nothing sleeps, and the same seed gives the same run.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::large_enum_variant,
    clippy::unwrap_used,
    reason = "each test uses its part of it; it is a driver, and a test"
)]

pub mod asking;
pub mod grid;
pub mod program;
pub mod sight;
pub mod store;
pub mod trace;
pub mod triggers;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bourse_node::durable::work::Seen;
use bourse_node::{
    Answer, Config, Event, Exit, Found, HostFunction, Input, Kind, Mode, NewCall, Node, Origin, Output,
    PeerId, ProcessId, Ticket,
};
use bourse_wire::id::{Attempt, CallId, Incarnation};
use bourse_wire::time::{Mono, Now, Wall};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bytes::Bytes;

pub use program::{Module, Start, Step, text};
use store::Store;
use worker::{Act, Worker};

/// Something that is going to happen.
pub enum Next {
    Input(Input),
    ToWorker(PeerId, ToWorker, Bytes),
    Wake(PeerId, u64),
    Hello(ProcessId),
    Dies(ProcessId, Exit),
    Closed(PeerId),
}

pub struct Process {
    pub module: Module,
    pub template: bool,
    pub secret: Bytes,
    pub peer: Option<PeerId>,
    pub alive: bool,
}

pub struct World {
    pub node: Node,
    pub now: Mono,
    next: BTreeMap<(Mono, u64), Next>,
    order: u64,
    /// Nothing of a connection overtakes what came over it before.
    last_of: BTreeMap<PeerId, Mono>,
    pub modules: BTreeMap<String, Module>,
    known: BTreeMap<(String, String), Module>,
    pub processes: BTreeMap<ProcessId, Process>,
    pub workers: BTreeMap<PeerId, Worker>,
    next_peer: u64,
    next_ticket: u64,
    pub store: Store,
    pub answers: BTreeMap<Ticket, Answer>,
    told: BTreeMap<Ticket, Result<Box<Seen>, v1::Failure>>,
    /// How its next life is set.
    pub config: Config,
    lives: u64,
    asked: BTreeSet<Ticket>,
    /// What clients and strangers were sent.
    pub mail: BTreeMap<PeerId, Vec<(ToWorker, Bytes)>>,
    pub events: Vec<Event>,
    /// The last frames from workers.
    pub heard: std::collections::VecDeque<(PeerId, ToNode, Bytes)>,
    pub published: Vec<(String, String)>,
    /// What the daemon was asked to do: a test answers.
    pub performs: Vec<(CallId, Attempt, HostFunction, Bytes)>,
    pub desisted: Vec<CallId>,
    /// What is for other nodes: a [`Grid`](grid::Grid) carries it there.
    pub to_peers: Vec<Output>,
    pub ready: bool,
    pub drained: bool,
    pub closed: BTreeSet<PeerId>,
    pub started: usize,
    pub running_most: usize,
    pub alive_most: usize,
    pub link: Duration,
    pub store_latency: Duration,
    /// Exits are reported before (false) or after (true) the end of the connection.
    pub exits_late: bool,
    pub seed: Option<u64>,
    /// What instances were given to run, in order.
    pub invoked: Vec<v1::Invoke>,
    /// How far the wall clock has been set.
    pub wall_set_ms: i64,
    pub trace: trace::Trace,
    /// The bundles that it was told to serve.
    pub assigned: Vec<Vec<(String, Option<bourse_node::Digest>)>>,
    running_max: usize,
}

/// What the wall clock says at first: 2023-11-14T22:13:20Z.
pub const WALL_MS: u64 = 1_700_000_000_000;

pub const TOKEN: &[u8] = b"a token of 16 by";

pub fn config() -> Config {
    Config { token: Bytes::from_static(TOKEN), ..Config::new(2) }
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl World {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: Config) -> Self {
        let running_max = config.running_max;
        Self {
            node: Node::new(config.clone(), Incarnation(1), [7; 32]),
            now: Mono(0),
            next: BTreeMap::new(),
            order: 0,
            last_of: BTreeMap::new(),
            modules: BTreeMap::new(),
            known: BTreeMap::new(),
            processes: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_peer: 1,
            next_ticket: 1,
            store: Store::default(),
            answers: BTreeMap::new(),
            told: BTreeMap::new(),
            config: config.clone(),
            lives: 1,
            asked: BTreeSet::new(),
            mail: BTreeMap::new(),
            events: Vec::new(),
            heard: std::collections::VecDeque::new(),
            published: Vec::new(),
            performs: Vec::new(),
            desisted: Vec::new(),
            to_peers: Vec::new(),
            ready: false,
            drained: false,
            closed: BTreeSet::new(),
            started: 0,
            running_most: 0,
            alive_most: 0,
            link: Duration::from_micros(10),
            store_latency: ms(1),
            exits_late: false,
            seed: None,
            invoked: Vec::new(),
            wall_set_ms: 0,
            trace: trace::Trace::default(),
            assigned: Vec::new(),
            running_max,
        }
    }

    pub fn now(&self) -> Now {
        let wall = (WALL_MS + self.now.0 / 1_000_000).checked_add_signed(self.wall_set_ms).unwrap();
        Now { mono: self.now, wall: Wall(wall) }
    }

    // ------------------------------------------------------------ what a test does

    /// Puts a module into the folder, or a new revision of it, and lets it load.
    pub fn deploy(mut self, module: Module) -> Self {
        self.save(module);
        self.run(200);
        self
    }

    /// The same, without waiting.
    pub fn save(&mut self, module: Module) -> &mut Self {
        self.trace.line(self.now, &format!("save {} {}", module.name, module.revision));
        self.known.insert((module.name.clone(), module.revision.clone()), module.clone());
        self.modules.insert(module.name.clone(), module);
        self.scan()
    }

    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.trace.line(self.now, &format!("remove {name}"));
        self.modules.remove(name);
        self.scan()
    }

    pub fn scan(&mut self) -> &mut Self {
        let found = |m: &Module| Found { name: m.name.clone(), revision: m.id(), kind: m.kind };
        let modules = self.modules.values().map(found).collect();
        self.input(Input::Deploy { modules })
    }

    pub fn call(&mut self, function: &str) -> Ticket {
        self.call_with(function, "", |_| {})
    }

    pub fn call_with(&mut self, function: &str, argument: &str, change: impl FnOnce(&mut NewCall)) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let mut call = NewCall {
            function: function.parse().unwrap(),
            version: String::new(),
            payload: program::payload(argument),
            timeout: None,
            queue_wait: None,
            traceparent: String::new(),
            context: BTreeMap::new(),
            mode: Mode::Sync,
            idempotency_key: String::new(),
            delay: None,
            trigger: None,
            depth: 0,
            terms: Default::default(),
        };
        change(&mut call);
        self.trace.line(self.now, &format!("gateway -> node  call {} {function}({argument})", ticket.0));
        self.asked.insert(ticket);
        self.input(Input::Call { origin: Origin::Gateway(ticket), call });
        ticket
    }

    pub fn cancel(&mut self, ticket: Ticket) -> &mut Self {
        self.trace.line(self.now, &format!("gateway -> node  cancel {}", ticket.0));
        self.input(Input::Cancel { origin: Origin::Gateway(ticket) })
    }

    /// A new connection that has said nothing yet.
    pub fn connect(&mut self) -> PeerId {
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        self.mail.insert(peer, Vec::new());
        peer
    }

    /// A connection of a client that has said hello.
    pub fn client(&mut self) -> PeerId {
        let peer = self.connect();
        self.say(peer, ToNode::Hello(hello(v1::Role::Client, TOKEN)), "");
        peer
    }

    /// A developer's process serves a module.
    pub fn attach(&mut self, module: Module) -> PeerId {
        let pid = 5_000 + u32::try_from(self.next_peer).unwrap();
        self.attach_as(module, |hello| hello.pid = pid)
    }

    /// The same, with something to say of it.
    pub fn attach_as(&mut self, module: Module, change: impl FnOnce(&mut v1::Hello)) -> PeerId {
        let peer = self.connect();
        self.mail.remove(&peer);
        let mut hello = hello(v1::Role::Attached, TOKEN);
        hello.module = Some(module.describe());
        // Each is a process of its own, unless the test says otherwise.
        hello.pid = u32::try_from(peer.0).unwrap();
        change(&mut hello);
        let lenient = self.seed.is_some();
        self.workers.insert(peer, Worker { lenient, ..Worker::new(module) });
        self.say(peer, ToNode::Hello(hello), "");
        peer
    }

    pub fn say(&mut self, peer: PeerId, message: ToNode, payload: &str) -> &mut Self {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        self.trace.said_by(self.now, peer, &message, &payload);
        self.input(Input::Frame { peer, message: Some(message), payload })
    }

    pub fn client_call(&mut self, peer: PeerId, request: u64, function: &str) -> &mut Self {
        let call = v1::Call { request, function: function.to_owned(), ..Default::default() };
        self.say(peer, ToNode::Call(call), "")
    }

    /// The connection ends; a worker's process lives on.
    pub fn hang_up(&mut self, peer: PeerId) -> &mut Self {
        self.closed.insert(peer);
        self.workers.remove(&peer);
        self.trace.line(self.now, &format!("{} is gone", self.trace.peer(peer)));
        self.input(Input::PeerGone { peer })
    }

    /// Kills the process of a worker from outside.
    pub fn kill_9(&mut self, process: ProcessId) -> &mut Self {
        self.die(process, Exit::Signal(9), Duration::ZERO);
        self
    }

    pub fn input(&mut self, input: Input) -> &mut Self {
        self.node.handle(self.now(), input);
        self.carry_out();
        self
    }

    // ------------------------------------------------------------ time

    /// Jumps to the next thing that happens. False if nothing ever does.
    pub fn step(&mut self) -> bool {
        let next = self.next.first_key_value().map(|((at, _), _)| *at);
        let timeout = self.node.poll_timeout();
        let at = match (next, timeout) {
            (None, None) => return false,
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b).unwrap(),
        };
        self.now = self.now.max(at);
        if next.is_some_and(|at| at <= self.now) {
            let (_, next) = self.next.pop_first().unwrap();
            self.happen(next);
        } else {
            self.node.handle_timeout(self.now());
            self.carry_out();
            let again = self.node.poll_timeout();
            assert!(again.is_none_or(|at| at > self.now), "a timer rings without end");
        }
        true
    }

    /// Lets so many milliseconds pass.
    pub fn run(&mut self, for_ms: u64) -> &mut Self {
        let until = self.now + ms(for_ms);
        while self.due().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = until;
        self
    }

    pub fn due(&self) -> Option<Mono> {
        let next = self.next.first_key_value().map(|((at, _), _)| *at);
        next.into_iter().chain(self.node.poll_timeout()).min()
    }

    /// Goes on until all calls are answered, for ten minutes at most.
    pub fn settle(&mut self) -> &mut Self {
        let most = self.now + Duration::from_secs(600);
        while self.now < most && self.asked.len() > self.answers.len() {
            assert!(self.step(), "something is answered by nobody");
        }
        self.run(50)
    }

    // ------------------------------------------------------------ how it works

    pub fn random(&mut self, below: u64) -> u64 {
        let Some(seed) = &mut self.seed else { return 0 };
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed % below
    }

    pub fn later(&mut self, after: Duration, next: Next) {
        let jitter = Duration::from_micros(self.random(300));
        self.at(self.now + after + jitter, next);
    }

    fn at(&mut self, at: Mono, next: Next) {
        self.order += 1;
        self.next.insert((at, self.order), next);
    }

    /// Hands a frame over in order.
    fn over_link(&mut self, peer: PeerId, next: Next) {
        let jitter = Duration::from_micros(self.random(300));
        let at = (self.now + self.link + jitter).max(self.last_of.get(&peer).copied().unwrap_or_default());
        self.last_of.insert(peer, at);
        self.at(at, next);
    }

    fn happen(&mut self, next: Next) {
        match next {
            Next::Input(input) => {
                if let Input::Frame { peer, message: Some(message), payload } = &input {
                    if self.closed.contains(peer) {
                        return;
                    }
                    self.trace.said_by(self.now, *peer, message, payload);
                    self.heard.push_back((*peer, message.clone(), payload.clone()));
                    if self.heard.len() > 40 {
                        self.heard.pop_front();
                    }
                } else {
                    self.trace.input(self.now, &input);
                }
                self.input(input);
            }
            Next::ToWorker(peer, message, payload) => {
                if let ToWorker::Invoke(invoke) = &message {
                    self.invoked.push(invoke.clone());
                }
                if let Some(worker) = self.workers.get_mut(&peer) {
                    worker.on_message(message, payload);
                    self.acts(peer);
                }
            }
            Next::Wake(peer, wake) => {
                if let Some(worker) = self.workers.get_mut(&peer) {
                    worker.on_wake(wake);
                    self.acts(peer);
                }
            }
            Next::Hello(process) => self.says_hello(process),
            Next::Dies(process, exit) => self.die(process, exit, self.link),
            Next::Closed(peer) => {
                if self.closed.insert(peer) {
                    self.workers.remove(&peer);
                    self.input(Input::PeerGone { peer });
                }
            }
        }
    }

    fn acts(&mut self, peer: PeerId) {
        let acts = std::mem::take(&mut self.workers.get_mut(&peer).expect("it acts").acts);
        for act in acts {
            match act {
                Act::Send(message, payload) => {
                    let input = Input::Frame { peer, message: Some(message), payload };
                    self.over_link(peer, Next::Input(input));
                }
                Act::Wake(after, wake) => self.later(ms(after), Next::Wake(peer, wake)),
                Act::Exit(exit) => {
                    let exit = exit.map_or_else(Exit::Signal, Exit::Code);
                    let process =
                        self.processes.iter().find(|(_, p)| p.peer == Some(peer)).map(|(id, _)| *id);
                    match process {
                        Some(process) => self.die(process, exit, self.link),
                        None => {
                            self.workers.remove(&peer);
                            self.over_link(peer, Next::Closed(peer));
                        }
                    }
                }
            }
        }
    }

    fn die(&mut self, process: ProcessId, exit: Exit, after: Duration) {
        let Some(p) = self.processes.get_mut(&process).filter(|p| p.alive) else { return };
        p.alive = false;
        let peer = p.peer;
        if let Some(peer) = peer.filter(|p| !self.closed.contains(p)) {
            self.workers.remove(&peer);
            self.over_link(peer, Next::Closed(peer));
        }
        let after = if self.exits_late { after + ms(2) } else { after };
        self.later(after, Next::Input(Input::Exited { process, exit }));
    }

    fn says_hello(&mut self, process: ProcessId) {
        let peer = self.connect();
        self.mail.remove(&peer);
        let Some(p) = self.processes.get_mut(&process).filter(|p| p.alive) else { return };
        let mut hello = hello(v1::Role::Worker, &p.secret);
        match p.module.instances {
            Start::Never => return,
            Start::Dying(code) => {
                self.die(process, Exit::Code(code), self.link);
                return;
            }
            Start::SayingWhyNot(why) => hello.failed = Some(program::failed_with(why)),
            Start::Version(version) => (hello.version_min, hello.version_max) = (version, version),
            Start::Well => {}
        }
        if p.module.kind == Kind::Process {
            hello.module = Some(p.module.describe());
        }
        p.peer = Some(peer);
        self.trace.name(peer, process);
        let lenient = self.seed.is_some();
        self.workers.insert(peer, Worker { lenient, ..Worker::new(p.module.clone()) });
        let input = Input::Frame { peer, message: Some(ToNode::Hello(hello)), payload: Bytes::new() };
        self.over_link(peer, Next::Input(input));
    }

    pub fn carry_out(&mut self) {
        while let Some(output) = self.node.poll() {
            self.trace.output(self.now, &output);
            match output {
                Output::Send { peer, message, payload } => {
                    if let Some(mail) = self.mail.get_mut(&peer) {
                        mail.push((message, payload));
                    } else {
                        self.over_link(peer, Next::ToWorker(peer, message, payload));
                    }
                }
                Output::Close { peer } => self.over_link(peer, Next::Closed(peer)),
                Output::Reply { ticket, answer } => {
                    let twice = self.answers.insert(ticket, answer);
                    assert!(
                        twice.is_none() && self.asked.contains(&ticket),
                        "call {} is answered once",
                        ticket.0
                    );
                }
                Output::Told { ticket, told } => {
                    assert!(self.told.insert(ticket, told).is_none(), "{ticket:?} is told once");
                }
                Output::StartTemplate { process, module, revision } => {
                    let module = self.known[&(module, revision.0)].clone();
                    let (after, report) = (ms(module.load_ms), module.report());
                    let p = Process { module, template: true, secret: Bytes::new(), peer: None, alive: true };
                    self.processes.insert(process, p);
                    self.later(after, Next::Input(Input::Loaded { template: process, report }));
                }
                Output::StartInstance { process, module, revision, template, secret } => {
                    let module = self.known[&(module, revision.0)].clone();
                    let after = ms(module.start_ms);
                    let there = template.is_none_or(|t| self.processes.get(&t).is_some_and(|t| t.alive));
                    let p = Process { module, template: false, secret, peer: None, alive: there };
                    self.processes.insert(process, p);
                    if there {
                        self.started += 1;
                        self.later(after, Next::Hello(process));
                    } else {
                        let exit = Exit::NotStarted("its template is gone".to_owned());
                        self.later(self.link, Next::Input(Input::Exited { process, exit }));
                    }
                }
                Output::Kill { process } => {
                    self.at(self.now + self.link, Next::Dies(process, Exit::Signal(9)))
                }
                Output::Store { token, request } => {
                    let answer = self.store.answer(request);
                    self.later(self.store_latency, Next::Input(Input::Store { token, answer }));
                }
                Output::Published { modules, .. } => {
                    self.published = modules.into_iter().map(|(m, r)| (m.name, r.0)).collect();
                }
                Output::Perform { call, attempt, function, payload, .. } => {
                    self.performs.push((call, attempt, function, payload));
                }
                Output::Desist { call, .. } => self.desisted.push(call),
                // What is kept for the next start.
                Output::GridStore(store) => {
                    if let Some(grid) = &mut self.config.grid {
                        if let Some(own) = grid.store.as_mut().filter(|own| own.id == store.id) {
                            own.used |= store.used;
                        }
                        grid.known_store = Some(store);
                    }
                }
                Output::Deployments(all) => self.config.deployments = all,
                Output::Assigned(items) => self.assigned.push(items),
                Output::Catalogue(modules) => {
                    if let Some(grid) = &mut self.config.grid {
                        grid.catalogue = modules;
                    }
                }
                Output::Roster(_) | Output::Authorities => {}
                output @ (Output::Dial { .. } | Output::PeerSend { .. } | Output::PeerClose { .. }) => {
                    self.to_peers.push(output);
                }
                Output::Ready => self.ready = true,
                Output::Drained => self.drained = true,
                Output::Event(event) => self.events.push(event),
            }
        }
        let status = self.node.status();
        assert!(status.running <= self.running_max, "slots are never exceeded");
        self.running_most = self.running_most.max(status.running);
        let alive = self.processes.values().filter(|p| p.alive && !p.template).count();
        self.alive_most = self.alive_most.max(alive);
    }
}

pub fn hello(role: v1::Role, secret: &[u8]) -> v1::Hello {
    v1::Hello {
        version_min: 1,
        version_max: 1,
        role: role.into(),
        secret: Bytes::copy_from_slice(secret),
        pid: 1000,
        ..Default::default()
    }
}
