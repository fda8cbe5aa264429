//! The task behind a client: one loop on a thread of its own, which drives a node that serves nothing. What the program asks for
//! and what comes from other nodes become the node's inputs; what it says is carried out. No policy here.
//!
//! ```text
//! handle -> driver: Request, dropped (a number)       driver -> handle: an answer for each request, once
//! ```
//!
//! It has a thread because the lines to other nodes want a current-thread runtime; a program has whichever it likes.
//!
//! A handle is given out once the node that keeps the grid's store has told which modules there are, so that no call is told that there is
//! no such function because it came early. From then on it is the node that knows, whoever can be reached.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_node::durable::work::Seen;
use bourse_node::market::roster::Standing;
use bourse_node::{
    Answer, Ask, Event, GridConfig, Input, Level, Message, NewCall, Node, Origin, Output, Ticket,
};
use bourse_peers::carry::{self, Came};
use bourse_peers::clock::Clock;
use bourse_peers::{Peers, own};
use bourse_wire::failure::Code;
use bourse_wire::id::{CallId, Incarnation};
use bourse_wire::peer::v1::to_peer::Message as Said;
use bourse_wire::time::Now;
use bourse_wire::v1;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::place::{Known, Place};
use crate::{Error, Options};

/// Requests that the loop has not taken: whoever makes more waits.
pub(crate) const REQUESTS_MAX: usize = 1_024;
/// Nodes of which it is remembered why they can't be reached.
const TROUBLES_MAX: usize = 8;
/// Requests that are taken before the node's outputs are carried out.
const REQUESTS_PER_TURN: usize = 256;

/// What a program wants.
pub(crate) enum Request {
    Call {
        ticket: u64,
        call: Box<NewCall>,
        reply: oneshot::Sender<Result<Answer, Error>>,
    },
    Publish {
        ticket: u64,
        message: Box<Message>,
        reply: oneshot::Sender<Result<Answer, Error>>,
    },
    Ask {
        ticket: u64,
        call: CallId,
        ask: Ask,
        reply: oneshot::Sender<Result<Box<Seen>, Error>>,
    },
    /// To look at the node.
    Look(Look),
    /// Finish what is under way, leave the grid, end.
    Close,
}

/// Looks at the node, and tells whoever asked.
pub(crate) type Look = Box<dyn FnOnce(&Node, Now) + Send>;

pub(crate) struct Driver {
    node: Node,
    clock: Clock,
    peers: Peers,
    place: Place,
    patience: Duration,
    requests: mpsc::Receiver<Request>,
    dropped: mpsc::UnboundedReceiver<u64>,
    replies: BTreeMap<Ticket, oneshot::Sender<Result<Answer, Error>>>,
    told: BTreeMap<Ticket, oneshot::Sender<Result<Box<Seen>, Error>>>,
    /// Why other nodes can't be reached, by their keys.
    troubles: BTreeMap<[u8; 32], String>,
    /// Why a node that was reached does not speak with this client.
    refused: Option<String>,
    revoked: bool,
    closing: bool,
    drained: bool,
}

impl Driver {
    /// A node that knows of the grid, and has not spoken with it yet.
    pub(crate) async fn new(
        known: Known,
        place: Place,
        options: &Options,
        requests: mpsc::Receiver<Request>,
        dropped: mpsc::UnboundedReceiver<u64>,
    ) -> Result<Self, Error> {
        let failed = |e: anyhow::Error| Error::folder(&e);
        let list = place.list(&known, options);
        let lines = bourse_peers::Options {
            own: known.keys.clone(),
            list,
            listen: None,
            ipc: Some(bourse_peers::ipc::folder()),
            payload_bytes_max: options.payload_bytes_max,
        };
        let peers = Peers::start(lines).await.map_err(failed)?;
        let life = place.life()?;
        let entropy = own::entropy().map_err(failed)?;
        let node = Node::new(config(known, options), Incarnation(life), entropy);
        Ok(Self {
            node,
            clock: Clock::start(),
            peers,
            place,
            patience: options.patience,
            requests,
            dropped,
            replies: BTreeMap::new(),
            told: BTreeMap::new(),
            troubles: BTreeMap::new(),
            refused: None,
            revoked: false,
            closing: false,
            drained: false,
        })
    }

    /// Runs until it is told to close, or nobody is there any more who could ask for something. `reached` is told once whether the
    /// grid was.
    pub(crate) async fn run(mut self, reached: oneshot::Sender<Result<(), Error>>) {
        // It serves nothing, and wants to know what others do.
        self.handle(Input::Deploy { modules: Vec::new() });
        self.carry_out();
        let mut reached = Some(reached);
        let give_up = Instant::now() + self.patience;
        let mut from_peers = Vec::new();
        let mut asked = Vec::with_capacity(REQUESTS_PER_TURN);
        let timer = tokio::time::sleep_until(give_up);
        tokio::pin!(timer);
        while !self.drained {
            let due = self.node.poll_timeout().map(|at| self.clock.instant(at));
            let due = due.into_iter().chain(reached.is_some().then_some(give_up)).min();
            if let Some(due) = due.filter(|due| timer.deadline() != *due) {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                () = self.peers.recv(&mut from_peers) => {
                    for event in from_peers.drain(..) {
                        self.on_peer(event);
                    }
                }
                count = self.requests.recv_many(&mut asked, REQUESTS_PER_TURN), if !self.closing => match count {
                    0 => self.close(),
                    _ => asked.drain(..).for_each(|request| self.on_request(request)),
                },
                Some(ticket) = self.dropped.recv() => self.on_dropped(ticket),
                () = &mut timer, if due.is_some() => self.on_due(),
            }
            self.carry_out();
            if let Some(first) = reached.take() {
                reached = self.report(first, Instant::now() >= give_up);
            }
        }
        self.leave().await;
    }

    /// Whether the grid was reached, once that is known.
    fn report(
        &mut self,
        reached: oneshot::Sender<Result<(), Error>>,
        late: bool,
    ) -> Option<oneshot::Sender<Result<(), Error>>> {
        let outcome = match self.node.knows_modules() {
            true => Ok(()),
            // It knows from its last life what there is, and some are there.
            false if late && self.node.is_linked() && self.node.catalogue().next().is_some() => Ok(()),
            false if late || self.revoked => Err(self.unreachable()),
            false => return Some(reached),
        };
        let failed = outcome.is_err();
        // Who does not wait for it any more wants no client.
        if reached.send(outcome).is_err() || failed {
            self.close();
        }
        None
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(self.clock.now(), input);
    }

    fn on_due(&mut self) {
        let now = self.clock.now();
        if self.node.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.node.handle_timeout(now);
        }
    }

    // ------------------------------------------------------------ what the program wants

    fn on_request(&mut self, request: Request) {
        match request {
            // Its end may have been told before it came here.
            Request::Call { reply, .. } | Request::Publish { reply, .. } if reply.is_closed() => {}
            Request::Ask { reply, .. } if reply.is_closed() => {}
            Request::Call { reply, .. } | Request::Publish { reply, .. } if self.revoked => {
                drop(reply.send(Err(self.unreachable())));
            }
            Request::Ask { reply, .. } if self.revoked => drop(reply.send(Err(self.unreachable()))),
            Request::Call { ticket, call, reply } => {
                self.replies.insert(Ticket(ticket), reply);
                self.handle(Input::Call { origin: Origin::Gateway(Ticket(ticket)), call: *call });
            }
            Request::Publish { ticket, message, reply } => {
                self.replies.insert(Ticket(ticket), reply);
                self.handle(Input::Publish { origin: Origin::Gateway(Ticket(ticket)), message: *message });
            }
            Request::Ask { ticket, call, ask, reply } => {
                self.told.insert(Ticket(ticket), reply);
                self.handle(Input::Ask { ticket: Ticket(ticket), call, ask });
            }
            Request::Look(look) => look(&self.node, self.clock.now()),
            Request::Close => self.close(),
        }
    }

    /// Nobody waits for it any more.
    fn on_dropped(&mut self, ticket: u64) {
        let ticket = Ticket(ticket);
        if self.replies.remove(&ticket).is_some() | self.told.remove(&ticket).is_some() {
            self.handle(Input::Cancel { origin: Origin::Gateway(ticket) });
        }
    }

    /// Finishes what is under way, takes nothing new.
    fn close(&mut self) {
        if std::mem::replace(&mut self.closing, true) {
            return;
        }
        self.requests.close();
        self.place.keep_seeds(&self.node, self.clock.now());
        self.handle(Input::Drain);
    }

    /// Hangs up on all, in order.
    async fn leave(self) {
        let Self { peers, replies, told, requests, .. } = self;
        // Whoever waits still is told so by that.
        drop((replies, told, requests));
        peers.shut_down().await;
    }

    // ------------------------------------------------------------ other nodes

    fn on_peer(&mut self, event: bourse_peers::PeerEvent) {
        match carry::read(&self.node, event) {
            Came::Input(input) => {
                match &input {
                    Input::NotReached { node, why } => self.trouble(*node, why.clone()),
                    Input::PeerOpened { key, .. } => _ = self.troubles.remove(key),
                    _ => {}
                }
                self.handle(input);
            }
            // A client has nothing that could be looked at, fetched or deployed, and asks for none of that: the node leaves it.
            Came::Frame { link, message, payload, more, .. } => {
                for (message, payload) in carry::in_order(message, payload, more) {
                    if let Some(Said::Refused(refused)) = &message {
                        self.refused = refused.failure.as_ref().map(|failure| failure.message.clone());
                    }
                    self.handle(Input::PeerFrame { link, message, payload });
                }
            }
            Came::Closed { link } => self.handle(Input::PeerClosed { link }),
            Came::Nonsense { link, why } => {
                tracing::warn!(link = link.0, "the line to a node is closed: {why}");
                self.peers.hang_up(link.0);
            }
        }
    }

    fn trouble(&mut self, node: [u8; 32], why: String) {
        if self.troubles.len() < TROUBLES_MAX || self.troubles.contains_key(&node) {
            self.troubles.insert(node, why);
        }
    }

    /// Why nothing can be asked of the grid.
    fn unreachable(&self) -> Error {
        let key = bourse_transport::Key(self.peers.key()).to_hex();
        let mut whys: Vec<&str> = self.troubles.values().map(String::as_str).collect();
        whys.extend(self.refused.as_deref());
        if whys.is_empty() {
            whys.push("none has answered so far");
        }
        let whys: String = whys.iter().map(|why| format!("\n  {why}")).collect();
        if self.revoked {
            return Error::NotAdmitted(format!(
                "this client's key was revoked, {key}: the grid does not speak with it any more\n  hint: if that was a mistake, on a node of the grid: bourse admit {key}; else join with a ticket, with new keys in another folder"
            ));
        }
        let admits = |why: &String| !why.contains(bourse_transport::NOT_ADMITTED);
        if !self.troubles.is_empty() && !self.troubles.values().any(admits) {
            return Error::NotAdmitted(format!(
                "the grid does not admit this client's key, {key}{whys}\n  hint: it was revoked, or never let in. On a node of the grid: bourse admit {key}; or join with a ticket"
            ));
        }
        match self.node.is_linked() {
            false => Error::Unreachable(format!(
                "no node of the grid can be reached{whys}\n  hint: one of those that this client knew last has to run, and to be reached from here; else join again, with a ticket from one that does"
            )),
            true => Error::Unreachable(format!(
                "the node that keeps the grid's store can't be reached, which knows what can be called{whys}\n  hint: it is tried again and again; `bourse nodes` shows which it is"
            )),
        }
    }

    // ------------------------------------------------------------ what the node says

    fn carry_out(&mut self) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Reply { ticket, answer } => self.reply(ticket, answer),
                Output::Told { ticket, told } => {
                    if let Some(reply) = self.told.remove(&ticket) {
                        // Whoever asked may have gone.
                        let _ = reply.send(told.map_err(|failure| Error::failed(None, failure)));
                    }
                }
                Output::Dial { node, address } => self.peers.dial(node, &address),
                Output::PeerSend { link, message, payload } => {
                    self.peers.say(link, message, payload);
                }
                Output::PeerClose { link } => self.peers.hang_up(link.0),
                Output::Roster(entries) => {
                    let own = self.node.grid_key();
                    let revoked = |standing: Standing| standing == Standing::Revoked;
                    if let Some(entry) = entries.iter().find(|entry| Some(entry.key.0) == own) {
                        self.revoked = revoked(entry.standing);
                    }
                    self.place.keep_roster(&self.node);
                    self.peers.obey(&entries);
                }
                Output::GridStore(store) => self.place.keep_store(&store),
                Output::Catalogue(modules) => self.place.keep_catalogue(modules),
                Output::Authorities => self.place.keep_seeds(&self.node, self.clock.now()),
                Output::Perform { call, attempt, function, .. } => {
                    let failure = Code::BadRequest
                        .because(format!("a client does not perform {function:?}: nodes of the grid do"))
                        .hint("make it a durable call: start() instead of waiting for it");
                    self.handle(Input::Performed { call, attempt, result: Err(failure) });
                }
                Output::Drained => self.drained = true,
                Output::Event(event) => self.on_event(event),
                // It has no workers, no instances, no store, and is sent no bundles.
                Output::Send { .. }
                | Output::Close { .. }
                | Output::Desist { .. }
                | Output::Deployments(_)
                | Output::Assigned(_)
                | Output::StartTemplate { .. }
                | Output::StartInstance { .. }
                | Output::Kill { .. }
                | Output::Published { .. }
                | Output::Ready
                | Output::Store { .. } => {}
            }
        }
        self.peers.flush();
    }

    fn reply(&mut self, ticket: Ticket, answer: Answer) {
        let Some(reply) = self.replies.remove(&ticket) else { return };
        let lacks = |failure: &v1::Failure| failure.kind() == Code::NoCapacity;
        let alone = !self.node.is_linked() || self.revoked;
        // That nobody has a slot is another thing than that nobody is there.
        let answer = match &answer.result {
            Err(failure) if alone && lacks(failure) => Err(self.unreachable()),
            _ => Ok(answer),
        };
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    }

    fn on_event(&mut self, event: Event) {
        let Event::Note { level, text } = event else { return };
        match level {
            Level::Debug => tracing::debug!("{text}"),
            Level::Info => tracing::info!("{text}"),
            Level::Warning => tracing::warn!("{text}"),
            Level::Error => tracing::error!("{text}"),
        }
    }
}

/// A node that serves nothing, sells nothing, keeps nothing, and is nobody's authority.
fn config(known: Known, options: &Options) -> bourse_node::Config {
    let name = match options.name.as_str() {
        "" => own::hostname().unwrap_or_default(),
        given => given.to_owned(),
    };
    let grid = GridConfig {
        id: known.keys.public().0,
        name: name.clone(),
        address: String::new(),
        domain: own::machine(),
        seeds: known.seeds.into_iter().map(|join| (join.key.0, join.address)).collect(),
        may_serve: false,
        sell_max: Some(0),
        roster: known.members,
        store: None,
        known_store: known.store,
        catalogue: known.catalogue,
        times: Default::default(),
    };
    let mut config = bourse_node::Config::new(1);
    config.name = name;
    config.payload_bytes_max = options.payload_bytes_max;
    config.drain = options.drain;
    config.module.queue_wait = options.queue_wait;
    config.module.timeout = options.timeout;
    // Nothing here could run it: nothing is to be waited for before capacity is asked for.
    config.module.scale_after = Duration::ZERO;
    config.grid = Some(grid);
    config
}
