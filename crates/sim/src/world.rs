//! A world for one node: virtual time, a keeper, workers, a disk, a gateway. It jumps to whatever happens next.
//!
//! ```text
//! node -> world: Output      carried out, unless the node crashes at that boundary
//! world -> node: Input       frames, exits, answers of the disk, time
//! ```
//!
//! A *boundary* is a moment at which the node can crash and leave something behind that it would not have left a moment
//! before: before each output, before a batch lands, before the answer to it is handed in. That output, and all after
//! it, is not carried out. What only the node itself would see (looks at the disk, their answers, events) makes no new
//! boundary: a crash there leaves what the one before would have left.
//!
//! A crash takes all that the node has started along, and all that was on the way; then the next life begins.
//!
//! A world may be one machine of a grid ([`crate::machines`]). Then what it has in common with the others is lent to it while
//! something happens here, and what its node wants of other nodes is put aside for the grid.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bourse_durable::batch::{Batch, Op};
use bourse_durable::{StoreRequest, Token};
use bourse_node::{
    Ask, Config, Exit, Input, Mode, NewCall, Node, Origin, Output, PeerId, ProcessId, Success, Ticket,
};
use bourse_wire::failure::Code;
use bourse_wire::id::{Attempt, CallId, Incarnation};
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::Mono;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bytes::Bytes;

use crate::chance::Chance;
use crate::checkers::Books;
use crate::clock::Clock;
use crate::disk::{Disk, Happening, Keep, Mood};
use crate::gateway::Gateway;
use crate::keeper::Process;
use crate::stage::{MODULES, Stage, Step, parse};
use crate::trace::Trace;
use crate::worker::Worker;

/// How long a message to or from a worker is on its way.
const LINK: Duration = Duration::from_micros(10);
/// A timer that rings so often without time going on never stops.
const RINGS_MAX: u32 = 10;
/// How long something takes that the daemon does for a function.
const OUTSIDE: Duration = Duration::from_millis(2);

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Next {
    Input(Input),
    ToWorker(PeerId, ToWorker, Bytes),
    Wake(PeerId, u64),
    Hello(ProcessId),
    Dies(ProcessId, Exit),
    Closed(PeerId),
}

/// When the node is to crash.
#[derive(Clone, Copy, Debug)]
pub struct CrashAt {
    /// At this boundary, counted from 1.
    pub boundary: u64,
    /// What that leaves of what had not landed.
    pub keep: Keep,
}

/// How much has happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Steps of the world.
    pub steps: u64,
    /// Outputs that were carried out.
    pub outputs: u64,
    /// Crashes of the node.
    pub crashes: u64,
    /// Boundaries, once they are counted.
    pub boundaries: u64,
}

/// What the machines of a grid have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub stage: Stage,
    pub gateway: Gateway,
    pub books: Books,
    pub trace: Trace,
    pub chance: Chance,
}

/// See the module.
pub struct World {
    /// The one under test.
    pub node: Node,
    /// What time it is.
    pub clock: Clock,
    /// What the node has stored.
    pub disk: Disk,
    /// What the functions do.
    pub stage: Stage,
    /// What clients know.
    pub gateway: Gateway,
    /// What is true.
    pub books: Books,
    /// What happened.
    pub trace: Trace,
    /// All chance there is.
    pub chance: Chance,
    /// How much has happened.
    pub counts: Counts,
    /// The batches that have landed, each with the time by the wall clock, if they are kept.
    pub history: Option<Vec<(u64, Batch)>>,
    /// Where to crash, once boundaries are counted.
    pub crash_at: Option<CrashAt>,
    /// Nothing more is to be started by the node.
    pub drained: bool,
    /// The machine is there, and its node runs.
    pub(crate) is_up: bool,
    /// The modules that are found here, each with its version.
    pub(crate) served: Vec<(&'static str, &'static str)>,
    /// What the node wants of other nodes, and has to say to whoever keeps things for it.
    pub(crate) aside: Vec<Output>,
    /// Calls of other nodes that run here, or are going to.
    pub(crate) guests: BTreeSet<(CallId, Attempt)>,
    pub(crate) config: Config,
    pub(crate) next: BTreeMap<(Mono, u64), Next>,
    pub(crate) order: u64,
    /// Nothing of a connection overtakes what came over it before.
    pub(crate) last_of: BTreeMap<PeerId, Mono>,
    pub(crate) processes: BTreeMap<ProcessId, Process>,
    pub(crate) workers: BTreeMap<PeerId, Worker>,
    pub(crate) closed: BTreeSet<PeerId>,
    pub(crate) next_peer: u64,
    pub(crate) revision: u64,
    lives: u64,
    inputs: u64,
    /// The node's invariants are checked after each so manieth input.
    pub(crate) checks_each: u64,
    rings: u32,
    /// Messages take a little longer, or not.
    pub(crate) jitter: bool,
    counts_boundaries: bool,
    /// Grows with all that a crash leaves behind.
    left_behind: u64,
    /// What it was at the last boundary.
    left_behind_before: Option<u64>,
}

impl World {
    /// A node begins its first life, with an empty disk and two modules.
    pub fn new(seed: u64, config: Config, mood: Mood, trace: Trace) -> Self {
        let mut world = Self {
            node: Node::new(config.clone(), Incarnation(1), seed_of(seed, 1)),
            clock: Clock::default(),
            disk: Disk::new(mood),
            stage: Stage::default(),
            gateway: Gateway::default(),
            books: Books::default(),
            trace,
            chance: Chance::new(seed),
            counts: Counts::default(),
            history: None,
            crash_at: None,
            drained: false,
            is_up: true,
            served: MODULES.map(|name| (name, "")).to_vec(),
            aside: Vec::new(),
            guests: BTreeSet::new(),
            config,
            next: BTreeMap::new(),
            order: 0,
            last_of: BTreeMap::new(),
            processes: BTreeMap::new(),
            workers: BTreeMap::new(),
            closed: BTreeSet::new(),
            next_peer: 1,
            revision: 1,
            lives: 1,
            inputs: 0,
            checks_each: 1,
            rings: 0,
            jitter: false,
            counts_boundaries: false,
            left_behind: 0,
            left_behind_before: None,
        };
        world.input(Input::Recover);
        world.deploy();
        world
    }

    /// How a node of a simulation is set: small, so that its bounds matter.
    pub fn config() -> Config {
        Config { running_max: 3, instances_max: 4, ping: Duration::from_secs(30), ..Config::new(2) }
    }

    /// From now on boundaries are counted, and `crash_at` holds.
    pub fn count_boundaries(&mut self) {
        self.counts_boundaries = true;
    }

    // ------------------------------------------------------------ what clients do

    /// Somebody calls.
    pub fn call(&mut self, plan: u32, mode: Mode, key: &str, timeout: Option<Duration>) -> Ticket {
        let ticket = self.gateway.makes(plan, key, mode);
        let call = NewCall {
            function: self.stage.plan(plan).function.parse().expect("plans name functions"),
            version: self.stage.plan(plan).version.clone(),
            payload: self.stage.plan(plan).argument(plan),
            timeout,
            queue_wait: None,
            traceparent: String::new(),
            context: BTreeMap::new(),
            mode,
            idempotency_key: key.to_owned(),
            delay: Some(self.stage.plan(plan).delay_ms).filter(|ms| *ms > 0).map(Duration::from_millis),
            trigger: None,
            depth: 0,
            terms: Default::default(),
        };
        self.stage.makes(plan, self.clock.at(), self.clock.ahead_ms());
        self.say(1, || format!("gateway -> node  {mode:?} call {} of plan {plan} {key}", ticket.0));
        self.input(Input::Call { origin: Origin::Gateway(ticket), call });
        ticket
    }

    /// A durable call without a key.
    pub fn start(&mut self, plan: u32) -> Ticket {
        self.call(plan, Mode::Async, "", None)
    }

    /// Somebody asks about a durable call.
    pub fn ask(&mut self, call: CallId, ask: Ask) -> Ticket {
        let ticket = self.gateway.asks(call, ask);
        if ask == Ask::Cancel {
            self.books.cancels(call);
        }
        self.say(2, || format!("gateway -> node  {ask:?} {call}, question {}", ticket.0));
        self.input(Input::Ask { ticket, call, ask });
        ticket
    }

    /// A caller of a call that it waits for goes away.
    pub fn leave(&mut self, ticket: Ticket) {
        self.say(3, || format!("gateway -> node  cancel {}", ticket.0));
        self.gateway.leaves(ticket);
        self.input(Input::Cancel { origin: Origin::Gateway(ticket) });
    }

    // ------------------------------------------------------------ time

    /// Jumps to the next thing that happens. False if nothing ever does.
    pub fn step(&mut self) -> bool {
        let next = self.next.first_key_value().map(|((at, _), _)| *at);
        let disk = self.disk.next_at();
        let timer = self.node.poll_timeout().map(|mono| self.clock.world(mono));
        let Some(at) = [next, disk, timer].into_iter().flatten().min() else { return false };
        self.clock.advance(at);
        self.counts.steps += 1;
        let now = self.clock.at();
        if next.is_some_and(|at| at <= now) {
            let (_, next) = self.next.pop_first().expect("it was just seen");
            self.happen(next);
        } else if disk.is_some_and(|at| at <= now) {
            self.disk_step();
        } else {
            self.node.handle_timeout(self.clock.now());
            self.after_input();
            // What is over may be found out by one that rings late, and then be over at once.
            let again = self.node.poll_timeout().map(|mono| self.clock.world(mono));
            self.rings = if again.is_some_and(|at| at <= self.clock.at()) { self.rings + 1 } else { 0 };
            assert!(self.rings < RINGS_MAX, "a timer rings without end");
        }
        true
    }

    /// When something happens next.
    pub fn next_at(&self) -> Option<Mono> {
        if !self.is_up {
            return None;
        }
        let next = self.next.first_key_value().map(|((at, _), _)| *at);
        let timer = self.node.poll_timeout().map(|mono| self.clock.world(mono));
        [next, self.disk.next_at(), timer].into_iter().flatten().min()
    }

    /// Lets so many milliseconds pass.
    pub fn run(&mut self, for_ms: u64) {
        let until = self.clock.at() + Duration::from_millis(for_ms);
        self.run_until(until, |_| false);
        self.clock.advance(until);
    }

    /// Goes on until something is so, but not beyond a time. Whether it is so.
    pub fn run_until(&mut self, most: Mono, mut done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            if self.next_at().is_none_or(|at| at > most) {
                return false;
            }
            self.step();
        }
    }

    // ------------------------------------------------------------ crashes

    /// The node dies, and all that it has started; then its next life begins, with what the disk has.
    pub fn crash(&mut self, keep: Keep) {
        self.end_life(keep);
        self.begin();
    }

    /// The node dies, and all that it has started.
    pub(crate) fn end_life(&mut self, keep: Keep) {
        self.counts.crashes += 1;
        self.is_up = false;
        self.trace.line(self.clock.at(), 4, || format!("the node dies; unsynced: {keep:?}"));
        let keeps = self.keeps_store();
        for batch in self.disk.crash(keep, &mut self.chance) {
            self.trace
                .line(self.clock.at(), 5, || format!("disk: {}", crate::sight::batch(&batch, "landed")));
            self.lands(keeps, &batch);
        }
        self.gateway.on_crash();
        if keeps {
            self.books.lines.on_crash();
        }
        self.next.clear();
        self.last_of.clear();
        self.processes.clear();
        self.workers.clear();
        self.guests.clear();
        self.aside.clear();
        self.drained = false;
    }

    /// The next life begins, with what the disk has.
    pub(crate) fn begin(&mut self) {
        self.lives += 1;
        self.is_up = true;
        self.trace.line(self.clock.at(), 9, || "the node starts again".to_owned());
        let mut seed = self.chance.clone();
        self.node = Node::new(self.config.clone(), Incarnation(self.lives), seed_of(seed.word(), self.lives));
        self.input(Input::Recover);
        self.deploy();
    }

    /// Whether the node crashes here. `inert`: nothing but the node itself would have seen what comes next.
    fn is_crash(&mut self, inert: bool) -> bool {
        if !self.counts_boundaries || (inert && self.left_behind_before == Some(self.left_behind)) {
            return false;
        }
        self.left_behind_before = Some(self.left_behind);
        self.counts.boundaries += 1;
        let Some(CrashAt { boundary, keep }) = self.crash_at else { return false };
        if boundary == self.counts.boundaries {
            self.crash(keep);
            return true;
        }
        false
    }

    // ------------------------------------------------------------ how it works

    pub(crate) fn say(&mut self, kind: u64, text: impl FnOnce() -> String) {
        self.trace.line(self.clock.at(), kind, text);
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.node.handle(self.clock.now(), input);
        self.after_input();
    }

    fn after_input(&mut self) {
        self.inputs += 1;
        if !cfg!(debug_assertions) && self.inputs.is_multiple_of(self.checks_each) {
            self.node.check_invariants();
        }
        while let Some(output) = self.node.poll() {
            let inert = match &output {
                Output::Event(_) => true,
                Output::Store { request, .. } => !matches!(request, StoreRequest::Commit(_)),
                _ => false,
            };
            if self.is_crash(inert) {
                return; // The outputs that are left were the old life's.
            }
            self.left_behind += u64::from(!inert);
            self.counts.outputs += 1;
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let at = self.clock.at();
        self.trace.line(at, 6, || crate::sight::output(&output));
        match output {
            Output::Reply { ticket, answer } => {
                self.gateway.on_reply(ticket, &answer);
                self.books.message_answered(ticket, &answer);
                self.books.replied(ticket, &self.gateway, &self.stage);
            }
            Output::Told { ticket, told } => {
                self.gateway.on_told(ticket, told);
                self.books.told(ticket, &self.gateway);
            }
            Output::Store { token, request } => {
                if let StoreRequest::Commit(batch) = &request
                    && self.keeps_store()
                {
                    self.books.asked(batch);
                    self.books.lines.asked(token, batch);
                }
                self.disk.ask(at, token, request, &mut self.chance);
            }
            Output::Perform { call, attempt, payload, .. } => self.perform(call, attempt, &payload),
            Output::Desist { .. } => {}
            Output::Drained => self.drained = true,
            Output::Ready | Output::Published { .. } | Output::Event(_) => {}
            Output::Dial { .. }
            | Output::PeerSend { .. }
            | Output::PeerClose { .. }
            | Output::Roster(_)
            | Output::GridStore(_)
            | Output::Catalogue(_)
            | Output::Deployments(_)
            | Output::Assigned(_)
            | Output::Authorities => self.aside.push(output),
            other => self.keep(other),
        }
    }

    /// The world outside does what it is asked, and is heard a little later; or fails, as the plan says.
    fn perform(&mut self, call: CallId, attempt: Attempt, payload: &[u8]) {
        self.books.performed(call);
        self.stage.hands(call, parse(payload).unwrap_or_default());
        let fails = matches!(self.stage.begin(payload).last(), Some(Step::End(_)));
        let failure = || Code::FunctionError.because("it could not be done");
        let result = if fails { Err(failure()) } else { Ok(Success::default()) };
        self.later(OUTSIDE, Next::Input(Input::Performed { call, attempt, result }));
    }

    fn disk_step(&mut self) {
        if self.is_crash(self.disk.next_is_inert()) {
            return;
        }
        self.left_behind += u64::from(!self.disk.next_is_inert());
        match self.disk.step(&mut self.chance) {
            Happening::Nothing => {}
            Happening::Landed(batch, late) => {
                let how = if late { "landed late" } else { "landed" };
                self.say(7, || format!("disk: {}", crate::sight::batch(&batch, how)));
                let keeps = self.keeps_store();
                self.lands(keeps, &batch);
            }
            Happening::Answer(token, answer) => {
                self.say(8, || {
                    format!("disk -> node  {} {}", crate::sight::answer(&answer), token_text(token))
                });
                if self.keeps_store() {
                    self.books.lines.heard(token, &answer);
                }
                self.input(Input::Store { token, answer });
            }
        }
    }

    /// Whether what is in this disk counts: a grid has one store.
    pub(crate) fn keeps_store(&self) -> bool {
        match self.node.grid_key() {
            None => true,
            Some(key) => self.node.grid_store().is_some_and(|store| store.node.id.0 == key),
        }
    }

    /// A batch has landed. Only triggers are kept where the store is not.
    fn lands(&mut self, keeps: bool, batch: &Batch) {
        let wall_ms = self.clock.now().wall.0;
        if let Some(history) = &mut self.history {
            history.push((wall_ms, batch.clone()));
        }
        if keeps {
            return self.books.landed(batch, wall_ms);
        }
        let key = |op: &Op| match op {
            Op::Put { key, .. } | Op::Delete { key } => key.clone(),
        };
        if batch.ops.iter().map(key).any(|key| !bourse_durable::work::is_trigger(&key)) {
            let text = crate::sight::batch(batch, "landed in a store that is not the grid's");
            self.books.violations.push(text);
        }
    }

    /// What its daemon finds out about the node's own store when it starts.
    pub(crate) fn own_store_again(&mut self) {
        let is_used = self.disk.is_used();
        let Some(grid) = &mut self.config.grid else { return };
        let is_keeper = grid.known_store.as_ref().is_some_and(|store| store.node.id.0 == grid.id);
        if let Some(own) = &mut grid.store {
            own.used |= is_used;
            own.offered |= own.used || is_keeper;
        }
    }

    /// Another node sends a call to be run here.
    pub(crate) fn note_guest(&mut self, frame: &Frame) {
        if let Frame::Run(run) = frame
            && let Some(invoke) = &run.invoke
            && let Some(call) = CallId::from_wire(&invoke.call)
        {
            self.guests.insert((call, Attempt(invoke.attempt)));
        }
    }

    /// What machines have in common comes here, and what was here goes back.
    pub(crate) fn trade(&mut self, common: &mut Common) {
        std::mem::swap(&mut self.stage, &mut common.stage);
        std::mem::swap(&mut self.gateway, &mut common.gateway);
        std::mem::swap(&mut self.books, &mut common.books);
        std::mem::swap(&mut self.trace, &mut common.trace);
        std::mem::swap(&mut self.chance, &mut common.chance);
    }

    pub(crate) fn later(&mut self, after: Duration, next: Next) {
        let jitter = self.jitter_us();
        self.at(self.clock.at() + after + jitter, next);
    }

    pub(crate) fn at(&mut self, at: Mono, next: Next) {
        self.order += 1;
        self.next.insert((at, self.order), next);
    }

    /// Hands something over a connection, in order.
    pub(crate) fn over_link(&mut self, peer: PeerId, next: Next) {
        let jitter = self.jitter_us();
        let before = self.last_of.get(&peer).copied().unwrap_or_default();
        let at = (self.clock.at() + LINK + jitter).max(before);
        self.last_of.insert(peer, at);
        self.at(at, next);
    }

    fn jitter_us(&mut self) -> Duration {
        Duration::from_micros(if self.jitter { self.chance.below(300) } else { 0 })
    }

    /// All that must never happen, and did.
    pub fn violations(&self) -> Vec<String> {
        let books = self.books.violations.iter().chain(&self.books.lines.violations);
        let all = books.chain(&self.gateway.violations).chain(&self.disk.violations);
        all.cloned().collect()
    }
}

fn token_text(token: Token) -> u64 {
    token.0
}

fn seed_of(seed: u64, life: u64) -> [u8; 32] {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&life.to_le_bytes());
    bytes
}
