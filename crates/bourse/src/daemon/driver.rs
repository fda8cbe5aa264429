//! The loop. Everything from outside becomes one [`Input`] after the other; everything the node says is carried out
//! before the next one.

mod bundles;
mod elsewhere;
mod messages;
mod meters;
mod modules;
mod others;
mod perform;
mod processes;
mod publish;
mod reach;
mod roster;

pub(super) use bundles::{Deploying, Done};
pub(super) use reach::connections_of;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bourse_durable::{StoreAnswer, Token};
use bourse_gateway::{Event as HttpEvent, Gateway, Held, Inspect, Listing, Standing};
use bourse_node::{
    Ask, Exit, Input, LinkId, Mode, NewCall, Node, Origin, Output, PeerId, ProcessId, Report, RevisionId,
    Terms, Ticket,
};
use bourse_peers::Peers;
use bourse_peers::clock::Clock;
use bourse_transport::{Connection, Event as Arrival, Router, Transport};
use bourse_wire::failure::Code;
use bourse_wire::keeper::v1::{Exited, FromTemplate, Loaded, Signal, from_keeper, from_template, to_keeper};
use bourse_wire::{header, v1};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::deploy::{FromDeployer, Places, Planned, Source};
use super::discovery::Discovery;
use super::events::Meters;
use super::files::Contact;
use super::keeper::KeeperLine;
use super::lister::List;
use super::outside::{Outside, Performed, Task};
use super::store::StoreThreads;
use super::{logs, views};
use crate::config::Config;

pub(super) struct Driver {
    pub node: Node,
    pub clock: Clock,
    pub transport: Router,
    /// The lines to other nodes; `None`: this one is alone.
    pub peers: Option<Peers>,
    /// Where others are found; `None` once it is over, and if this one is alone.
    pub discovery: Option<Discovery>,
    pub keeper: KeeperLine,
    /// `None` once it has been ended.
    pub store: Option<StoreThreads>,
    pub store_answers: mpsc::UnboundedReceiver<(Token, StoreAnswer)>,
    pub gateway: Gateway,
    pub http_events: mpsc::UnboundedReceiver<HttpEvent>,
    pub outside: Outside,
    pub performed: mpsc::UnboundedReceiver<Performed>,
    /// Where modules come from.
    pub sources: BTreeMap<Source, Deploying>,
    pub from_deployers: mpsc::UnboundedSender<(Source, FromDeployer)>,
    pub deployed: mpsc::UnboundedReceiver<(Source, FromDeployer)>,
    /// What threads have done with bundles.
    pub done: mpsc::UnboundedReceiver<Done>,
    pub to_done: mpsc::UnboundedSender<Done>,
    pub places: Places,
    pub config: Config,
    pub contact: Contact,
    pub ready_file: Option<PathBuf>,
    pub state: State,
    pub meters: Meters,
    /// What other nodes have asked to be shown, and where that is put.
    pub looked: mpsc::UnboundedReceiver<Looked>,
    pub to_looked: mpsc::UnboundedSender<Looked>,
}

/// What another node has asked to be shown: over which link, its number, and what there is.
pub(super) type Looked = (LinkId, u64, Result<serde_json::Value, v1::Failure>);

/// What the driver has to remember between an order and its answer.
#[derive(Default)]
pub(super) struct State {
    replies: BTreeMap<Ticket, oneshot::Sender<bourse_gateway::Answer>>,
    /// Who asked about durable calls.
    told: BTreeMap<Ticket, oneshot::Sender<Result<Standing, v1::Failure>>>,
    /// What the node that keeps the store was asked to show.
    looks: elsewhere::Looks,
    /// Which connections of other nodes are being reached.
    reaches: reach::Reaches,
    /// What was deployed here.
    bundles: bundles::Bundles,
    /// How to start every revision that the node knows.
    plans: BTreeMap<(String, RevisionId), Planned>,
    /// Which revision a template loads.
    templates: BTreeMap<ProcessId, (String, RevisionId)>,
    /// Templates that have not reported.
    loading: BTreeSet<ProcessId>,
    /// What is served, as the node has said last.
    published: Vec<v1::Module>,
    /// What only other nodes serve.
    elsewhere: Vec<v1::Module>,
    /// Which of them has which route.
    held: Held,
    /// What was said about settings and routes, so that it is not said again.
    reported: BTreeSet<(String, String)>,
    /// It was found out what modules there are.
    looked: bool,
    /// They are loaded, or reported.
    loaded: bool,
    ready: bool,
    drained: bool,
    /// It was told to stop.
    stopping: Option<Stopping>,
    cut_short: bool,
    /// Processes that the keeper knows of: their end has to be told if it dies.
    processes: BTreeSet<ProcessId>,
}

/// What is waited for before the daemon ends.
#[derive(Clone, Copy)]
enum Stopping {
    /// That WebSocket connections are closed, until then.
    Sockets(tokio::time::Instant),
    /// That the node has finished what it has.
    Node,
}

/// How long WebSocket connections have to close when the daemon stops.
const SOCKETS_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// How often it is looked whether they have.
const SOCKETS_TICK: std::time::Duration = std::time::Duration::from_millis(20);

/// Events of one source that are taken before the node's outputs are carried out.
const EVENTS_PER_TURN: usize = 256;

impl Driver {
    /// Runs until it was told to stop and everything has come to an end.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = hangup()?;
        let mut arrivals = Vec::new();
        let mut http = Vec::with_capacity(EVENTS_PER_TURN);
        let mut from_peers = Vec::new();
        let mut found = Vec::new();
        let mut stored = Vec::with_capacity(EVENTS_PER_TURN);
        let mut upkeep = tokio::time::interval(UPKEEP);
        let mut looks = tokio::time::interval(METER);
        let timer = tokio::time::sleep_until(self.clock.instant(bourse_wire::time::Mono::MAX));
        tokio::pin!(timer);
        self.set_routes();
        self.begin_bundles();
        self.handle(Input::Recover);
        self.carry_out();
        while !self.state.drained {
            let timeout = self.node.poll_timeout().map(|at| self.clock.instant(at));
            if let Some(at) = timeout.filter(|at| timer.deadline() != *at) {
                timer.as_mut().reset(at);
            }
            let timer_set = timeout.is_some();
            tokio::select! {
                () = self.transport.recv(&mut arrivals) => {
                    for arrival in arrivals.drain(..) {
                        self.on_arrival(arrival);
                    }
                }
                () = others::recv(&mut self.peers, &mut from_peers) => {
                    for event in from_peers.drain(..) {
                        self.on_peer(event);
                    }
                }
                () = others::look(&mut self.discovery, &self.node, &mut found) => self.on_found(&mut found),
                _ = self.http_events.recv_many(&mut http, EVENTS_PER_TURN) => {
                    for event in http.drain(..) {
                        self.on_http(event);
                    }
                }
                _ = self.store_answers.recv_many(&mut stored, EVENTS_PER_TURN) => {
                    for (token, answer) in stored.drain(..) {
                        self.handle(Input::Store { token, answer });
                    }
                }
                Some(Performed { call, attempt, result }) = self.performed.recv() => {
                    self.handle(Input::Performed { call, attempt, result });
                }
                message = self.keeper.recv() => match message {
                    Some(message) => self.on_keeper(message),
                    None => self.on_keeper_gone()?,
                },
                Some((source, message)) = self.deployed.recv() => self.on_deployer(source, message),
                Some(done) = self.done.recv() => self.on_done(done),
                Some((link, request, found)) = self.looked.recv() => self.tell_looked(link, request, found),
                () = tokio::time::sleep(SOCKETS_TICK), if matches!(self.state.stopping, Some(Stopping::Sockets(_))) => {}
                _ = looks.tick(), if self.peers.is_some() => meters::look(&self.node, self.peers.as_ref()),
                _ = upkeep.tick() => logs::trim_all(&self.config.data()),
                () = &mut timer, if timer_set => self.node.handle_timeout(self.clock.now()),
                _ = terminate.recv() => self.stop("terminated"),
                _ = interrupt.recv() => self.stop("interrupted"),
                // It comes from the shell and the kernel both, so a second one says nothing.
                () = hangup.recv() => if self.state.stopping.is_none() {
                    self.stop("the terminal is gone");
                },
            }
            self.stop_further();
            self.carry_out();
        }
        Ok(())
    }

    /// Ends what is left. Everything has been answered before.
    pub(super) async fn end(mut self) {
        drop(self.discovery.take());
        self.keeper.send(to_keeper::Message::Shutdown(Default::default()));
        while self.keeper.recv().await.is_some() {}
        if let Err(error) = self.keeper.process.wait() {
            tracing::warn!("the keeper's end was not seen: {error}");
        }
        if let Some(store) = self.store.take() {
            store.finish();
        }
        if let Some(peers) = self.peers.take() {
            peers.shut_down().await;
        }
        self.transport.shut_down().await;
    }

    /// The first signal lets calls finish; the second one does not.
    fn stop(&mut self, why: &str) {
        if self.state.stopping.is_some() {
            tracing::warn!("{why} again: what still runs is dropped");
            self.state.drained = true;
            self.state.cut_short = true;
            self.dismiss();
            return;
        }
        tracing::info!("{why}: finishing the calls in flight (again to stop at once)");
        self.gateway.set_ready(false);
        self.keep_seeds();
        // The ends of connections are calls, which have to be accepted while that is possible.
        self.gateway.sockets().shut();
        self.state.stopping = Some(Stopping::Sockets(tokio::time::Instant::now() + SOCKETS_MAX));
        self.stop_further();
    }

    /// Once the last connection has told its end, or that takes too long, the node stops.
    fn stop_further(&mut self) {
        if let Some(Stopping::Sockets(until)) = self.state.stopping
            && (self.gateway.sockets().is_closed() || tokio::time::Instant::now() >= until)
        {
            self.state.stopping = Some(Stopping::Node);
            self.handle(Input::Drain);
        }
    }

    /// Whoever still waits is told that nothing will come.
    fn dismiss(&mut self) {
        let failure = || Code::ShuttingDown.because("the daemon was stopped before the call ended");
        for (_, reply) in std::mem::take(&mut self.state.replies) {
            let _ = reply.send(bourse_gateway::Answer { call: None, result: Err(failure()) });
        }
        for (_, reply) in std::mem::take(&mut self.state.told) {
            let _ = reply.send(Err(failure()));
        }
    }

    /// Whether it was told twice to stop.
    pub(super) fn is_cut_short(&self) -> bool {
        self.state.cut_short
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(self.clock.now(), input);
    }

    fn on_arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Opened { .. } => {}
            Arrival::Frame { connection, header, payload } => {
                let peer = PeerId(connection.0);
                let known = self.node.knows(peer);
                if !header::is_length_of_node(&header)
                    || (!known && header.len() > header::HEADER_PLAIN_BYTES_MAX)
                {
                    tracing::warn!(
                        connection = connection.0,
                        "a connection is closed: its message is too long"
                    );
                    self.transport.close(connection);
                    return;
                }
                match header::decode::<v1::ToNode>(header) {
                    Ok(message) => self.handle(Input::Frame { peer, message: message.message, payload }),
                    Err(error) => {
                        tracing::warn!(connection = connection.0, "a connection is closed: {error}");
                        self.transport.close(connection);
                    }
                }
            }
            Arrival::Broken { connection, reason } => {
                tracing::debug!(connection = connection.0, "a connection broke: {reason}");
            }
            Arrival::Closed { connection } => self.handle(Input::PeerGone { peer: PeerId(connection.0) }),
        }
    }

    fn on_http(&mut self, event: HttpEvent) {
        match event {
            HttpEvent::Call { call, ticket, reply } => {
                let ticket = Ticket(ticket.0);
                self.state.replies.insert(ticket, reply);
                let call = NewCall {
                    function: call.function,
                    version: call.version,
                    payload: call.arguments,
                    timeout: call.timeout,
                    queue_wait: call.queue_wait,
                    traceparent: call.traceparent,
                    context: call.context,
                    mode: if call.asynchronous { Mode::Async } else { Mode::Sync },
                    idempotency_key: call.idempotency_key,
                    delay: call.delay,
                    trigger: call.trigger.map(|trigger| *trigger),
                    depth: 0,
                    terms: Terms::new(call.horizon, call.scale_after, call.overflow),
                };
                self.handle(Input::Call { origin: Origin::Gateway(ticket), call });
            }
            HttpEvent::Ask { call, ask, ticket, reply } => {
                let ticket = Ticket(ticket.0);
                self.state.told.insert(ticket, reply);
                let ask = match ask {
                    bourse_gateway::Ask::Look => Ask::Look,
                    bourse_gateway::Ask::Await => Ask::Await,
                    bourse_gateway::Ask::Cancel => Ask::Cancel,
                    bourse_gateway::Ask::Replay => Ask::Replay,
                    bourse_gateway::Ask::Purge => Ask::Purge,
                };
                self.handle(Input::Ask { ticket, call, ask });
            }
            HttpEvent::Publish { message, ticket, reply } => self.on_publish(message, ticket, reply),
            HttpEvent::Forget { module, ticket, reply } => self.on_forget(module, ticket, reply),
            HttpEvent::Cancel { ticket } => {
                // Its answer comes all the same, or never: nobody reads it.
                self.state.told.remove(&Ticket(ticket.0));
                let origin = Origin::Gateway(Ticket(ticket.0));
                self.handle(Input::Cancel { origin });
            }
            HttpEvent::Deploy { name, deploy, reply } => self.on_deploy(name, deploy, reply),
            HttpEvent::Grid { change, reply } => drop(reply.send(self.change_grid(change))),
            HttpEvent::Inspect { what, reply } => {
                let Some(reply) = self.look_elsewhere(&what, reply) else { return };
                let now = self.clock.now();
                let json = match what {
                    Inspect::Calls(listing) => return self.list(listing, reply),
                    Inspect::Modules => views::modules(&self.node),
                    Inspect::Instances => views::instances(&self.node, now),
                    Inspect::Status => views::status(&self.node, &self.contact, self.keeper.process.pid()),
                    Inspect::Queues => views::queues(&self.node, now),
                    Inspect::Triggers => views::triggers(&self.node, now),
                    Inspect::Nodes => views::nodes(&self.node, self.peers.as_ref(), now),
                    Inspect::Market => views::market(&self.node),
                    Inspect::Members => views::members(&self.node),
                    Inspect::Store => views::store(&self.node),
                    Inspect::Deployments => views::deployments(&self.node),
                };
                // Whoever asked may have gone.
                let _ = reply.send(Ok(json));
            }
        }
    }

    /// Makes a list of durable calls.
    fn list(&self, listing: Listing, reply: elsewhere::Reply) {
        let running = self.node.running_work().collect();
        let store = self.store.as_ref().expect("the store ends after the loop");
        store.list(List { listing, running, reply });
    }

    fn on_keeper(&mut self, message: from_keeper::Message) {
        match message {
            from_keeper::Message::Started(_) => {}
            from_keeper::Message::Exited(Exited { process, code, signal, error }) => {
                let exit = match (code, signal) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::NotStarted(error),
                };
                let process = ProcessId(process);
                if self.state.loading.remove(&process) {
                    self.tell_failed(process);
                }
                self.state.templates.remove(&process);
                self.state.processes.remove(&process);
                self.handle(Input::Exited { process, exit });
            }
            from_keeper::Message::Loaded(Loaded { template, report }) => {
                let template = ProcessId(template);
                if !matches!(&report, Some(FromTemplate { message: Some(from_template::Message::Forked(_)) }))
                {
                    self.state.loading.remove(&template);
                }
                match report.and_then(|FromTemplate { message }| message) {
                    Some(from_template::Message::Ready(ready)) => {
                        let report = self.check_ready(template, ready);
                        self.handle(Input::Loaded { template, report });
                    }
                    Some(from_template::Message::Failed(failure)) => {
                        self.tell_failed(template);
                        self.handle(Input::Loaded { template, report: Report::Failed(failure) });
                    }
                    Some(from_template::Message::Forked(_)) | None => {}
                }
            }
        }
    }

    /// The keeper died. What it has started was orphaned to us: it is ended, and another keeper takes over.
    fn on_keeper_gone(&mut self) -> anyhow::Result<()> {
        let status = self.keeper.process.wait();
        tracing::error!(?status, "the keeper has died: all instances are started anew");
        let orphans = bourse_worker::keeper::Keeper::reap_orphans(std::time::Duration::from_secs(5))?;
        if orphans.left > 0 {
            tracing::error!("{} processes of the dead keeper do not end", orphans.left);
        }
        self.keeper = KeeperLine::start()?;
        self.state.templates.clear();
        self.state.loading.clear();
        for process in std::mem::take(&mut self.state.processes) {
            self.handle(Input::Exited { process, exit: Exit::Signal(9) });
        }
        Ok(())
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Send { peer, message, payload } => {
                    let header = header::encode(&v1::ToWorker { message: Some(message) });
                    if let Err(error) = self.transport.send(Connection(peer.0), header, payload)
                        && error == bourse_transport::SendError::Full
                    {
                        // It does not read: whatever it is, it must not grow here.
                        tracing::warn!(
                            connection = peer.0,
                            "a connection is closed: it does not read what it is sent"
                        );
                        self.transport.close(Connection(peer.0));
                    }
                }
                Output::Close { peer } => self.transport.close(Connection(peer.0)),
                Output::Reply { ticket, answer } => {
                    if let Some(reply) = self.state.replies.remove(&ticket) {
                        // The client may have gone.
                        let _ = reply.send(views::answer(answer));
                    }
                }
                Output::Told { ticket, told } => {
                    if let Some(reply) = self.state.told.remove(&ticket) {
                        let now = self.clock.now();
                        let _ = reply.send(told.map(|seen| views::standing(*seen, now)));
                    }
                }
                Output::Store { token, request } => {
                    self.store.as_ref().expect("the store ends after the loop").ask(token, request)
                }
                Output::Perform { call, attempt, function, payload, traceparent } => {
                    self.perform(Task { call, attempt, function, payload, traceparent });
                }
                Output::Desist { call, attempt } => {
                    self.state.reaches.forget(call, attempt);
                    self.outside.desist(call, attempt);
                }
                Output::StartTemplate { process, module, revision } => {
                    self.start_template(process, module, revision)
                }
                Output::StartInstance { process, module, revision, template, secret } => {
                    self.start_instance(process, &(module, revision), template, secret);
                }
                Output::Kill { process } => {
                    self.keeper.send(to_keeper::Message::Signal(Signal {
                        process: process.0,
                        signal: 9,
                        tree: true,
                    }));
                }
                Output::Published { modules, elsewhere } => self.publish(modules, elsewhere),
                Output::Dial { node, address } => self.dial(node, &address),
                Output::PeerSend { link, message, payload } => self.send_peer(link, message, payload),
                Output::PeerClose { link } => self.hang_up(link),
                Output::Roster(entries) => self.keep_roster(&entries),
                Output::GridStore(store) => self.keep_grid_store(&store),
                Output::Catalogue(modules) => self.keep_catalogue(modules),
                Output::Deployments(all) => self.keep_deployments(&all),
                Output::Assigned(items) => self.on_assigned(items),
                Output::Authorities => self.keep_seeds(),
                Output::Ready => {
                    self.state.loaded = true;
                    self.check_all_ready();
                }
                Output::Drained => self.state.drained = true,
                Output::Event(event) => {
                    self.meters.on_event(&event);
                    if let bourse_node::Event::RevisionServes { .. }
                    | bourse_node::Event::RevisionFailed { .. } = event
                    {
                        self.tell_stock();
                    }
                    if let bourse_node::Event::RevisionFailed { .. } = event {
                        self.set_routes(); // calls of it are told why
                    }
                }
            }
        }
        if let Some(peers) = &mut self.peers {
            peers.flush();
        }
    }
}

/// The signal that comes when the terminal goes; nothing where whoever started us has it ignored, as `nohup` does.
struct Hangup(Option<tokio::signal::unix::Signal>);

fn hangup() -> std::io::Result<Hangup> {
    const FIRST: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    if ignored & FIRST != 0 {
        Ok(Hangup(None))
    } else {
        signal(SignalKind::hangup()).map(|s| Hangup(Some(s)))
    }
}

impl Hangup {
    async fn recv(&mut self) {
        match &mut self.0 {
            Some(signal) => _ = signal.recv().await,
            None => std::future::pending().await,
        }
    }
}

/// How often it is metered how the market stands.
const METER: std::time::Duration = std::time::Duration::from_secs(5);
/// How often the logs of running instances are looked at.
const UPKEEP: std::time::Duration = std::time::Duration::from_secs(30);
