//! One machine's decisions, as a state machine: which instance runs which call, when instances start and stop,
//! and what becomes of every call, whatever dies.
//!
//! Driven from outside: [`Node::handle`] takes an [`Input`], [`Node::poll`] gives [`Output`]s until there is none,
//! [`Node::poll_timeout`] says when to call [`Node::handle_timeout`]. It does no I/O, reads no clock, draws no
//! entropy (the seed is an argument) and never waits; the same inputs give the same outputs.
//!
//! ```text
//! gateway  -> node: Call, Cancel, Ask, Publish, Forget  node -> gateway: Reply, Told
//! worker   -> node: hello result call wait …         node -> worker:  welcome invoke reply …  (Frame, Send)
//! keeper   -> node: Exited, Loaded                   node -> keeper:  Start, Fork, Signal
//! scanner  -> node: Deploy                           node -> scanner: Published, Rejected
//! store    -> node: Store                            node -> store:   Store
//! peer     -> node: PeerFrame, …                     node -> peer:    PeerSend, Dial
//! daemon   -> node: Performed                        node -> daemon:  Perform, Desist
//! ```
//!
//! | file | decides |
//! |---|---|
//! | `accept` | whether a call is taken, its deadline, its place in the tree of calls |
//! | `routing` | which instance runs it, what is handed ahead and what is taken back |
//! | `nested` | giving the slot back while waiting, and resuming within capacity |
//! | `outcome` | results, failures, reruns: every call is answered exactly once |
//! | `governor` | starting, stopping, pinging and replacing instances |
//! | `host` | what the daemon itself performs: webhooks, mails, messages to WebSocket connections |
//! | `grid` | links with other nodes, what is bought and sold, and the calls that cross machines |
//! | `deploy` | revisions: loading, switching over, draining |
//! | `peers` | who is at the other end of a connection, and what it may say |
//! | `state` | the way between functions and the partitions |
//! | `keys` | exclusive keys, which calls wait for, and unique ones, which make them one |
//! | `batch` | durable calls that are run several at a time |
//! | `throttle` | how often a function is run |
//! | `tail` | calls that go on as calls of other functions |
//! | `work` | durable calls: accepted, drawn, tried again, ended; messages |
//! | `triggers` | cron lines, queues and topics |
//!
//! What a stranger sends can be refused, never reach an assertion. [`Node::check_invariants`] states what must
//! hold between any two inputs.

mod accept;
mod batch;
mod call;
mod config;
mod deploy;
mod entropy;
mod function;
mod governor;
mod grid;
mod host;
mod inspect;
mod instance;
mod invariants;
mod keys;
mod message;
mod module;
mod nested;
mod outcome;
mod peers;
mod routing;
mod state;
mod tail;
mod terms;
mod throttle;
mod timers;
mod triggers;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bourse_durable::Durable;
use bourse_wire::id::{CallId, Incarnation};
use bourse_wire::time::{Mono, Now};

pub use bourse_durable as durable;
pub use bourse_market as market;
pub use bourse_market::links::LinkId;
pub use config::{Config, ModuleConfig};
pub use grid::{
    Canary, DEPLOYMENTS_MAX, DeployChange, Deployment, Digest, GridConfig, LABELS_MAX, OwnStore, PlacedView,
    RosterChange, Stage, Stocked,
};
pub use host::{HostFunction, PERFORMED_MAX, WAITED_MAX, description as host_module};
pub use inspect::{InstanceView, ModuleView, Status};
pub use instance::{Exit, Phase};
pub use message::{
    Answer, Ask, Event, Found, Input, Kind, Level, Message, Mode, NewCall, Origin, Output, Overflow, PeerId,
    ProcessId, Report, RevisionId, Success, Terms, Ticket,
};
pub use triggers::TriggerView;

use call::Call;
use entropy::Entropy;
use instance::Instance;
use module::Module;
use peers::Peer;
use timers::{Timer, Timers};

/// What rings without end by a mistake of ours must not hold up the rest.
const RING_AGAIN: std::time::Duration = std::time::Duration::from_millis(1);

/// The composition of all state machines of one daemon.
pub struct Node {
    config: Config,
    incarnation: Incarnation,
    entropy: Entropy,
    calls: BTreeMap<CallId, Call>,
    by_origin: BTreeMap<Origin, CallId>,
    modules: BTreeMap<String, Module>,
    /// Modules whose queue is not empty.
    backlog: BTreeSet<String>,
    instances: BTreeMap<ProcessId, Instance>,
    /// Templates that live or are being started, and the revision each serves.
    templates: BTreeMap<ProcessId, (String, RevisionId)>,
    peers: BTreeMap<PeerId, Peer>,
    /// What instances say hello with.
    secrets: BTreeMap<bytes::Bytes, ProcessId>,
    /// Instances that wait no longer for anything but a slot, in the order in which they became so.
    resumable: VecDeque<ProcessId>,
    /// Other nodes, and who has this one's slots: a slot is the right to run a call and not be blocked in a nested one.
    grid: grid::Grid,
    durable: Durable,
    /// Who waits for which answer of the partitions.
    asked: BTreeMap<u64, state::Asked>,
    /// Who waits for the end of a durable call.
    watchers: BTreeMap<CallId, Vec<work::Watcher>>,
    /// The same, by whom.
    watched: BTreeMap<Origin, CallId>,
    /// Counts the durable calls that have no home of their own.
    intake: u64,
    /// Durable calls on their way into the store, with their sizes.
    accepting: BTreeMap<Origin, usize>,
    accepting_bytes: usize,
    /// Durable calls of modules that are being loaded.
    door: Vec<(Origin, NewCall)>,
    throttles: throttle::Throttles,
    rooms: batch::Rooms,
    /// Calls that were queued before their functions were known.
    unkeyed: BTreeSet<CallId>,
    /// What the daemon is asked to do.
    host: host::Performing,
    triggers: triggers::Triggers,
    /// Messages that wait until it is known who listens.
    publishing: Vec<work::Waiting>,
    timers: Timers,
    outputs: VecDeque<Output>,
    draining: bool,
    drained: bool,
    /// The time for draining is over, whatever still hangs.
    drain_over: bool,
    ready: bool,
    /// What time it was when something came last.
    seen: Mono,
    /// The last revision of a module that has the daemon's own name.
    refused_name: Option<RevisionId>,
    next_process: u64,
    next_ticket: u64,
    next_nonce: u64,
    next_order: u64,
}

impl Node {
    /// A node with nothing deployed. `seed` is 32 bytes of real entropy in production: call ids and the secrets
    /// of instances come from it.
    pub fn new(config: Config, incarnation: Incarnation, seed: [u8; 32]) -> Self {
        let chance = u64::from_le_bytes(seed[..8].try_into().expect("a seed has 32 bytes"));
        Self {
            grid: grid::Grid::new(&config, incarnation, chance, Mono(0)),
            durable: Durable::new(
                incarnation,
                bourse_durable::Limits { ended_kept: config.calls_kept, ..Default::default() },
            ),
            config,
            incarnation,
            entropy: Entropy::new(seed),
            calls: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            modules: BTreeMap::new(),
            backlog: BTreeSet::new(),
            instances: BTreeMap::new(),
            templates: BTreeMap::new(),
            peers: BTreeMap::new(),
            secrets: BTreeMap::new(),
            resumable: VecDeque::new(),
            asked: BTreeMap::new(),
            watchers: BTreeMap::new(),
            watched: BTreeMap::new(),
            intake: 0,
            accepting: BTreeMap::new(),
            accepting_bytes: 0,
            door: Vec::new(),
            throttles: throttle::Throttles::default(),
            rooms: batch::Rooms::new(),
            unkeyed: BTreeSet::new(),
            host: host::Performing::default(),
            triggers: triggers::Triggers::default(),
            publishing: Vec::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            draining: false,
            drained: false,
            drain_over: false,
            ready: false,
            seen: Mono(0),
            refused_name: None,
            next_process: 1,
            next_ticket: 1,
            next_nonce: 1,
            next_order: 1,
        }
    }

    /// Takes one message.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.seen = now.mono;
        self.begin_grid(now);
        match input {
            Input::Call { origin, call } => self.on_call(now, origin, call),
            Input::Cancel { origin } => self.on_cancel(now, origin),
            Input::Publish { origin, message } => self.on_publish(now, origin, message),
            Input::Forget { origin, module } => match self.keeps_store() {
                true => self.on_forget(origin, &module),
                false => self.forward(now, origin, grid::Wanted::Forget(module)),
            },
            Input::Ask { ticket, call, ask } => self.on_gateway_ask(now, ticket, call, ask),
            Input::Frame { peer, message, payload } => self.on_frame(now, peer, message, payload),
            Input::PeerGone { peer } => self.on_peer_gone(now, peer),
            Input::Exited { process, exit } => self.on_exited(now, process, exit),
            Input::Loaded { template, report } => self.on_loaded(now, template, report),
            Input::Deploy { modules } => self.on_deploy(now, modules),
            Input::Store { token, answer } => self.durable.store_answer(now, token, answer),
            Input::Performed { call, attempt, result } => self.on_performed(now, call, attempt, result),
            Input::PeerOpened { link, key } => self.on_peer_opened(now, link, key),
            Input::PeerFrame { link, message, payload } => self.on_peer_frame(now, link, message, payload),
            Input::PeerClosed { link } => self.on_peer_closed(now, link),
            Input::NotReached { node, why } => self.on_not_reached(now, node, &why),
            Input::Seed { node, address } => self.on_seed(now, node, address),
            Input::SeedGone { node } => self.on_seed_gone(now, node),
            Input::Configure { config } => self.on_configure(now, *config),
            Input::Recover => self.durable.recover(now),
            Input::Drain => self.on_drain(now),
        }
        self.settle(now);
    }

    /// Does what is due. Call it at or after the time that [`poll_timeout`](Self::poll_timeout) gave.
    pub fn handle_timeout(&mut self, now: Now) {
        self.seen = now.mono;
        self.durable.handle_timeout(now);
        self.handle_grid_timeout(now);
        let mut rung = BTreeSet::new();
        while let Some(timer) = self.timers.pop_due(now.mono) {
            if !rung.insert(timer.clone()) {
                debug_assert!(false, "{timer:?} was set to a time that is over, while it rang");
                self.timers.set(timer, now.mono + RING_AGAIN);
                continue;
            }
            match timer {
                Timer::Call(call) => self.on_call_due(now, call),
                Timer::Instance(process) => self.on_instance_due(now, process),
                Timer::Scale(module) => self.on_scale_due(now, &module),
                Timer::Template(process) => self.on_template_due(now, process),
                Timer::Caller(origin) => self.on_caller_due(origin),
                Timer::Batches => self.on_batches_due(now),
                Timer::Cron | Timer::Triggers => self.on_triggers_due(),
                Timer::Publishing => self.on_publishing_due(now),
                Timer::Forwards => self.on_forwards_due(now),
                Timer::Drain => self.on_drain_due(now),
            }
        }
        self.settle(now);
    }

    /// The next thing to carry out. Call it until it gives `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Mono> {
        let all = [self.timers.next(), self.durable.poll_timeout(), self.grid.poll_timeout()];
        all.into_iter().flatten().min()
    }

    /// Carries on until nothing more follows from what has happened.
    fn settle(&mut self, now: Now) {
        self.pump_catalogue(now);
        self.pump_deployments(now);
        self.open_door(now);
        self.pump_durable(now);
        self.pump_triggers(now);
        self.pump_durable(now);
        loop {
            self.draw_work(now);
            self.route(now);
            let moved = self.pump_market(now);
            if !self.pump_durable(now) && !moved {
                break;
            }
        }
        self.finish_drain(now);
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    /// What this node buys and sells, and whom it knows.
    pub fn market(&self) -> &bourse_market::Market {
        &self.grid.market
    }

    fn send(&mut self, peer: PeerId, message: bourse_wire::v1::to_worker::Message, payload: bytes::Bytes) {
        if grid::is_runner(peer) {
            return self.send_to_runner(peer, message, payload);
        }
        self.outputs.push_back(Output::Send { peer, message, payload });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
