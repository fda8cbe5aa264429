//! The keeper's part of the world: processes, their connections, and how they end.

use std::time::Duration;

use bourse_node::{Exit, Found, Input, Kind, Output, PeerId, ProcessId, Report, RevisionId};
use bourse_wire::id::{Attempt, CallId};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bytes::Bytes;
use semver::{Version, VersionReq};

use crate::checkers::lines::Run;
use crate::stage::{describe, parse};
use crate::worker::{Act, Worker};
use crate::world::{Next, World};

/// How long a module takes to load.
const LOADS: Duration = Duration::from_millis(50);
/// How long an instance takes to say hello.
const STARTS: Duration = Duration::from_millis(3);
/// So much too early is early: what the store knows of times is whole milliseconds.
const EARLY: Duration = Duration::from_millis(2);
/// How long a signal takes.
const SIGNAL: Duration = Duration::from_micros(10);

/// A process that the node has started.
#[derive(Debug)]
pub(crate) struct Process {
    module: String,
    template: bool,
    secret: Bytes,
    peer: Option<PeerId>,
    alive: bool,
    /// A template that has not loaded its module. One that dies then is a module that does not load, for good.
    loads: bool,
}

impl World {
    /// The scanner finds the modules, in their present revision.
    pub fn deploy(&mut self) {
        let found = |(name, _): &(&str, &str)| Found {
            name: (*name).to_owned(),
            revision: RevisionId(format!("r{}", self.revision)),
            kind: Kind::Python,
        };
        let modules = self.served.iter().map(found).collect();
        self.input(Input::Deploy { modules });
    }

    /// All modules are saved anew.
    pub fn save(&mut self) {
        self.revision += 1;
        let revision = self.revision;
        self.say(20, || format!("the modules are saved, as r{revision}"));
        self.deploy();
    }

    /// The processes that live, but for those that are loading a module.
    pub fn living(&self) -> Vec<ProcessId> {
        self.processes.iter().filter(|(_, p)| p.alive && !p.loads).map(|(id, _)| *id).collect()
    }

    /// The connections of workers.
    pub fn connected(&self) -> Vec<PeerId> {
        self.workers.keys().copied().collect()
    }

    /// Workers that run a function.
    pub fn busy(&self) -> usize {
        self.workers.values().filter(|worker| worker.running().is_some()).count()
    }

    /// Kills a process from outside.
    pub fn kill(&mut self, process: ProcessId) {
        self.say(21, || format!("process {} is killed", process.0));
        self.die(process, Exit::Signal(9), Duration::ZERO);
    }

    /// Kills a process whose call waits for another, if there is one.
    pub fn kill_one_that_waits(&mut self) {
        let peer = self.workers.iter().find(|(_, worker)| worker.waits_for_call()).map(|(peer, _)| *peer);
        let of = |p: &Process| peer.is_some() && p.peer == peer;
        let process = self.processes.iter().find(|(_, p)| of(p)).map(|(process, _)| *process);
        process.into_iter().for_each(|process| self.kill(process));
    }

    /// A worker's connection ends; its process lives on.
    pub fn hang_up(&mut self, peer: PeerId) {
        self.say(22, || format!("the connection {} breaks", peer.0));
        self.closed.insert(peer);
        self.workers.remove(&peer);
        self.input(Input::PeerGone { peer });
    }

    pub(crate) fn happen(&mut self, next: Next) {
        match next {
            Next::Input(input) => {
                if let Input::Frame { peer, message: Some(message), .. } = &input {
                    if self.closed.contains(peer) {
                        return;
                    }
                    let at = self.clock.at();
                    self.trace.line(at, 23, || crate::sight::said(*peer, message));
                } else {
                    if let Input::Loaded { template, .. } = &input
                        && let Some(p) = self.processes.get_mut(template)
                    {
                        p.loads = false;
                    }
                    self.trace.line(self.clock.at(), 24, || crate::sight::input(&input));
                }
                self.input(input);
            }
            Next::ToWorker(peer, message, payload) => {
                if let Some(worker) = self.workers.get_mut(&peer) {
                    worker.on_message(message, payload, &mut self.stage);
                    self.acts(peer);
                }
            }
            Next::Wake(peer, wake) => {
                if let Some(worker) = self.workers.get_mut(&peer) {
                    worker.on_wake(wake, &mut self.stage);
                    self.acts(peer);
                }
            }
            Next::Hello(process) => self.says_hello(process),
            Next::Dies(process, exit) => self.die(process, exit, SIGNAL),
            Next::Closed(peer) => {
                if self.closed.insert(peer) {
                    self.workers.remove(&peer);
                    self.input(Input::PeerGone { peer });
                }
            }
        }
    }

    /// Carries out what concerns processes and connections.
    pub(crate) fn keep(&mut self, output: Output) {
        match output {
            Output::Send { peer, message, payload } => {
                if let ToWorker::Invoke(invoke) = &message {
                    self.begins(invoke, &payload);
                }
                self.over_link(peer, Next::ToWorker(peer, message, payload));
            }
            Output::Close { peer } => self.over_link(peer, Next::Closed(peer)),
            Output::StartTemplate { process, module, .. } => {
                let version = self.version_of(&module);
                let report = Report::Ready {
                    module: describe(&module, version, self.stage.offers),
                    not_forkable: String::new(),
                };
                let p = Process {
                    module,
                    template: true,
                    secret: Bytes::new(),
                    peer: None,
                    alive: true,
                    loads: true,
                };
                self.processes.insert(process, p);
                self.later(LOADS, Next::Input(Input::Loaded { template: process, report }));
            }
            Output::StartInstance { process, module, template, secret, .. } => {
                let there = template.is_none_or(|t| self.processes.get(&t).is_some_and(|t| t.alive));
                let p = Process { module, template: false, secret, peer: None, alive: there, loads: false };
                self.processes.insert(process, p);
                if there {
                    self.later(STARTS, Next::Hello(process));
                } else {
                    let exit = Exit::NotStarted("its template is gone".to_owned());
                    self.later(SIGNAL, Next::Input(Input::Exited { process, exit }));
                }
            }
            Output::Kill { process } => {
                self.at(self.clock.at() + SIGNAL, Next::Dies(process, Exit::Signal(9)));
            }
            other => unreachable!("{other:?} concerns no process"),
        }
    }

    /// The version of a module that is served here.
    fn version_of(&self, module: &str) -> &'static str {
        self.served.iter().find(|(name, _)| *name == module).map_or("", |(_, version)| *version)
    }

    /// A call is handed to an instance of this machine.
    fn begins(&mut self, invoke: &v1::Invoke, payload: &Bytes) {
        let Some(call) = CallId::from_wire(&invoke.call) else { return };
        if let Some(plan) = parse(payload)
            && let Ok(wanted) = VersionReq::parse(&self.stage.plan(plan).version)
        {
            let (module, _) = self.stage.plan(plan).function.split_once('.').unwrap_or_default();
            let version = self.version_of(module);
            if !Version::parse(version).is_ok_and(|version| wanted.matches(&version)) {
                self.books
                    .violations
                    .push(format!("call {call} wants {module} {wanted}, and runs on {version:?}"));
            }
        }
        if !self.guests.contains(&(call, Attempt(invoke.attempt))) {
            self.hands(invoke, payload);
        }
    }

    /// A call of this node is handed to an instance, here or elsewhere.
    pub(crate) fn hands(&mut self, invoke: &v1::Invoke, payload: &Bytes) {
        let Some(call) = CallId::from_wire(&invoke.call) else { return };
        let Some(plan) = parse(payload) else { return };
        self.stage.hands(call, plan);
        let parent = CallId::from_wire(&invoke.parent);
        let attempt = (call, invoke.attempt, invoke.fence);
        let is_durable = self.books.story(call).is_some();
        self.books.lines.hands(attempt, parent, self.stage.plan(plan), is_durable);
        let delay = Duration::from_millis(self.stage.plan(plan).delay_ms);
        if let Some((made, ahead_ms)) = self.stage.made(plan)
            && ahead_ms == self.clock.ahead_ms()
            && self.clock.at() + EARLY < made + delay
        {
            self.books.violations.push(format!("call {call} is run before its time"));
        }
    }

    fn acts(&mut self, peer: PeerId) {
        self.carry_out_acts(peer);
        if self.config.grid.is_some() {
            return; // A machine that is cut off runs what has been begun anew elsewhere, in vain.
        }
        let runs = self.workers.values().filter_map(|worker| {
            let call = CallId::from_wire(worker.running()?)?;
            Some(Run { call, waits: worker.waits_for_call() })
        });
        let runs: Vec<Run> = runs.collect();
        self.books.lines.run(&runs);
    }

    fn carry_out_acts(&mut self, peer: PeerId) {
        let Some(worker) = self.workers.get_mut(&peer) else { return };
        for act in std::mem::take(&mut worker.acts) {
            match act {
                Act::Send(message, payload) => {
                    if let ToNode::Call(_) = *message
                        && let Some(plan) = parse(&payload)
                    {
                        self.stage.makes(plan, self.clock.at(), self.clock.ahead_ms());
                    }
                    let input = Input::Frame { peer, message: Some(*message), payload };
                    self.over_link(peer, Next::Input(input));
                }
                Act::Wake(after, wake) => {
                    self.later(Duration::from_millis(after), Next::Wake(peer, wake));
                }
                Act::Exit(exit) => {
                    let exit = exit.map_or_else(Exit::Signal, Exit::Code);
                    let process =
                        self.processes.iter().find(|(_, p)| p.peer == Some(peer)).map(|(id, _)| *id);
                    if let Some(process) = process {
                        self.die(process, exit, SIGNAL);
                    }
                }
            }
        }
    }

    fn die(&mut self, process: ProcessId, exit: Exit, after: Duration) {
        let Some(p) = self.processes.get_mut(&process).filter(|p| p.alive) else { return };
        p.alive = false;
        if let Some(peer) = p.peer.filter(|p| !self.closed.contains(p)) {
            self.workers.remove(&peer);
            self.over_link(peer, Next::Closed(peer));
        }
        self.later(after, Next::Input(Input::Exited { process, exit }));
    }

    fn says_hello(&mut self, process: ProcessId) {
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        let Some(p) = self.processes.get_mut(&process).filter(|p| p.alive) else { return };
        p.peer = Some(peer);
        let hello = v1::Hello {
            version_min: 1,
            version_max: 1,
            role: v1::Role::Worker.into(),
            secret: p.secret.clone(),
            pid: 1000,
            ..Default::default()
        };
        self.workers.insert(peer, Worker::default());
        let input = Input::Frame { peer, message: Some(ToNode::Hello(hello)), payload: Bytes::new() };
        self.over_link(peer, Next::Input(input));
    }

    /// What processes there are, for who debugs a run.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessId, &str, bool)> {
        self.processes.iter().filter(|(_, p)| p.alive).map(|(id, p)| (*id, p.module.as_str(), p.template))
    }
}
