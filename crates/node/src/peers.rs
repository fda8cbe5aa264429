//! Who is at the other end of a connection, and what it may say.
//!
//! ```text
//! worker, client -> node: hello             node -> worker, client: welcome, or refused with the reason
//! ```
//!
//! Nothing but a hello is heard from a stranger; what asks for an answer before it is refused. An instance is known by the secret it was handed when it was
//! started, everybody else by the node's token. What breaks the protocol is refused, and a worker that does so is
//! ended; it can never reach an assertion.

use std::time::Duration;

use bourse_wire::PROTOCOL_VERSION;
use bourse_wire::failure::Code;
use bourse_wire::id::{CallId, FunctionName, HOST_MODULE};
use bourse_wire::time::{DURATION_MAX, Now, millis};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as FromPeer;
use bourse_wire::v1::to_worker::Message;
use bytes::Bytes;

use crate::Node;
use crate::governor::STOP_GRACE;
use crate::grid::Wanted;
use crate::instance::{Instance, Phase};
use crate::message::{Event, Level, Mode, NewCall, Origin, Output, PeerId, ProcessId, Success, Terms};

/// The other end of a connection that has said hello.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// An instance, ours or attached.
    Worker(ProcessId),
    /// It calls, and runs nothing.
    Client {
        /// Its calls that are not answered yet.
        open: usize,
    },
}

impl Node {
    pub(crate) fn on_frame(&mut self, now: Now, peer: PeerId, message: Option<FromPeer>, payload: Bytes) {
        let Some(message) = message else {
            if !self.peers.contains_key(&peer) {
                self.refuse(peer, Code::Protocol.because("the first message is not a hello"));
            }
            return; // Of a later version: those who send it can do without an answer.
        };
        match (self.peers.get(&peer).copied(), message) {
            (None, FromPeer::Hello(hello)) => self.on_hello(now, peer, hello),
            // A socket that reconnects sends what it still had in its queue before it knows that it has.
            (
                None,
                FromPeer::Result(_)
                | FromPeer::Pong(_)
                | FromPeer::Recalled(_)
                | FromPeer::Cancel(_)
                | FromPeer::Log(_),
            ) => {}
            (None, FromPeer::Bye(_)) => self.outputs.push_back(Output::Close { peer }),
            (
                None,
                FromPeer::Call(_)
                | FromPeer::Await(_)
                | FromPeer::Publish(_)
                | FromPeer::Wait(_)
                | FromPeer::Read(_)
                | FromPeer::Scan(_),
            ) => {
                self.refuse(peer, Code::Protocol.because("the first message is not a hello"));
            }
            (Some(Peer::Client { .. }), message) => self.on_client(now, peer, message, payload),
            (Some(Peer::Worker(process)), message) => self.on_worker(now, peer, process, message, payload),
        }
    }

    /// Whether a connection has said an acceptable hello.
    pub fn knows(&self, peer: PeerId) -> bool {
        self.peers.contains_key(&peer)
    }

    fn on_client(&mut self, now: Now, peer: PeerId, message: FromPeer, payload: Bytes) {
        match message {
            FromPeer::Call(call) => self.on_peer_call(now, peer, None, call, payload),
            FromPeer::Cancel(cancel) => self.on_cancel(now, Origin::Peer(peer, cancel.request)),
            FromPeer::Publish(publish) => self.on_peer_publish(now, peer, None, publish, payload),
            FromPeer::Await(wanted) => self.on_client_await(now, peer, &wanted),
            FromPeer::Pong(_) | FromPeer::Hello(_) => {}
            FromPeer::Bye(_) => self.outputs.push_back(Output::Close { peer }),
            FromPeer::Log(log) => self.event(Event::FunctionLog { module: "client".to_owned(), log }),
            _ => self.refuse(peer, Code::Protocol.because("a client sent what only a worker may send")),
        }
    }

    fn on_worker(&mut self, now: Now, peer: PeerId, process: ProcessId, message: FromPeer, payload: Bytes) {
        let instance =
            self.instances.get_mut(&process).expect("a worker's connection ends before it is buried");
        if instance.phase == Phase::Dying {
            return; // What it has is answered when it is dead.
        }
        instance.pings_missed = 0;
        let Some((message, payload)) = self.pass_on(now, process, message, payload) else { return };
        match message {
            FromPeer::Result(result) => self.on_result(now, process, result, payload),
            FromPeer::Call(call) => self.on_peer_call(now, peer, Some(process), call, payload),
            FromPeer::Wait(wait) => {
                if let Some(running) = self.running(process, &wait.call, wait.attempt) {
                    self.on_wait(now, process, running, &wait.requests, wait.any);
                }
            }
            FromPeer::Cancel(cancel) => self.on_cancel(now, Origin::Instance(process, cancel.request)),
            FromPeer::Await(wanted) => {
                let request = wanted.request;
                let failure = Code::Protocol
                    .because("a function does not wait for the end of a durable call")
                    .hint("call it without `start`, or let it tell by a call of its own");
                self.answer(
                    Origin::Instance(process, request),
                    crate::Answer { call: None, result: Err(failure) },
                );
            }
            FromPeer::Read(read) => self.on_read(now, peer, process, read),
            FromPeer::Scan(scan) => self.on_scan(now, peer, process, scan),
            FromPeer::Recalled(recalled) => self.on_recalled(now, process, recalled),
            FromPeer::Publish(publish) => self.on_peer_publish(now, peer, Some(process), publish, payload),
            FromPeer::Log(log) => {
                let module = self.instances[&process].module.clone();
                self.event(Event::FunctionLog { module, log });
            }
            FromPeer::Bye(_) => self.on_bye(now, process),
            FromPeer::Pong(_) | FromPeer::Hello(_) => {}
        }
    }

    /// An instance leaves. What was handed to it after its last result has not started.
    fn on_bye(&mut self, now: Now, process: ProcessId) {
        let instance = self.instances.get_mut(&process).expect("a frame is from an instance that exists");
        if instance.attached {
            // Its developer has ended it, and that may be at any time.
            if instance.waiting.is_none() {
                instance.phase = Phase::Stopping;
                self.take_all_back(now, process);
            }
            let peer = self.instances[&process].peer;
            self.outputs.extend(peer.map(|peer| Output::Close { peer }));
            return;
        }
        if instance.waiting.is_some() {
            self.expel(now, process, "it said bye while its call waited for others");
            return;
        }
        instance.phase = Phase::Stopping;
        instance.kill_by(now.mono + STOP_GRACE);
        let unproven = !instance.proven && !instance.handed.is_empty();
        let module = instance.module.clone();
        self.take_all_back(now, process);
        if unproven {
            self.pause(now, &module, false);
        }
        self.watch(process);
    }

    /// The call that an instance runs, if it is the one that a message names.
    pub(crate) fn running(&self, process: ProcessId, call: &Bytes, attempt: u32) -> Option<CallId> {
        let running = self.instances[&process].running()?;
        (CallId::from_wire(call) == Some(running) && self.calls[&running].attempt.0 == attempt)
            .then_some(running)
    }

    fn on_peer_call(
        &mut self,
        now: Now,
        peer: PeerId,
        worker: Option<ProcessId>,
        call: v1::Call,
        payload: Bytes,
    ) {
        let origin = match worker {
            Some(process) => Origin::Instance(process, call.request),
            None => Origin::Peer(peer, call.request),
        };
        let refused = |failure| crate::Answer { call: None, result: Err(failure) };
        if self.is_open(origin) {
            self.refuse_or_expel(now, peer, "it used the number of a request that is not answered again");
            return;
        }
        let (wait, parent, attempt, writes) =
            (call.wait, call.parent.clone(), call.attempt, call.writes.clone());
        let request = call.request;
        let new = match NewCall::from_wire(call, payload) {
            Ok(new) => new,
            Err(failure) => return self.answer(origin, refused(failure)),
        };
        let requests = match worker {
            None => match self.peers.get(&peer) {
                Some(Peer::Client { open }) => *open,
                Some(Peer::Worker(_)) | None => 0,
            },
            Some(process) => {
                self.instances[&process].running().map_or(0, |id| self.calls[&id].children.len())
            }
        };
        if requests >= self.config.requests_max {
            let failure =
                Code::QueueFull.because(format!("{requests} calls of this caller are not answered yet"));
            self.answer(origin, refused(failure));
            return;
        }
        let Some(process) = worker else {
            self.on_call(now, origin, new);
            return;
        };
        let Some(running) = self.running(process, &parent, attempt) else {
            let failure = Code::Cancelled.because("the invocation that makes this call has ended");
            self.answer(origin, refused(failure));
            return;
        };
        if !self.keeps_store() && (!writes.is_empty() || new.mode == Mode::Async) {
            self.answer(origin, refused(crate::state::moved()));
            return self.forward_begun(now, running);
        }
        if let Err(failure) = self.write(running, writes) {
            self.answer(origin, refused(failure));
            return;
        }
        if new.mode == Mode::Async {
            let result = self.admit_emitted(&new, running).and_then(|()| self.emit(now, running, new));
            let answer = match result {
                Ok(id) => crate::Answer { call: Some(id), result: Ok(Success::default()) },
                Err(failure) => refused(failure),
            };
            self.answer(origin, answer);
            if wait {
                self.on_wait(now, process, running, &[request], false);
            }
            return;
        }
        if !new.idempotency_key.is_empty() {
            let failure = Code::BadRequest.because("a function's own calls take no idempotency key");
            self.answer(origin, refused(failure.hint("they are made once for each attempt of the caller")));
            return;
        }
        let by = self.calls[&running].layer();
        self.on_nested_call(now, origin, request, by, new);
        if wait {
            self.on_wait(now, process, running, &[request], false);
        }
    }

    /// Whether a request is not answered yet.
    pub(crate) fn is_open(&self, origin: Origin) -> bool {
        self.by_origin.contains_key(&origin)
            || self.watched.contains_key(&origin)
            || self.accepting.contains_key(&origin)
            || self.grid.forwards.has(origin)
    }

    fn on_client_await(&mut self, now: Now, peer: PeerId, wanted: &v1::Await) {
        let origin = Origin::Peer(peer, wanted.request);
        if self.is_open(origin) {
            self.refuse(
                peer,
                Code::Protocol.because("it used the number of a request that is not answered again"),
            );
            return;
        }
        let refused = |failure| crate::Answer { call: None, result: Err(failure) };
        let Some(call) = CallId::from_wire(&wanted.call) else {
            self.answer(origin, refused(Code::BadRequest.because("a call's id has 16 bytes")));
            return;
        };
        if self.watched.len() >= self.config.requests_max {
            let failure = Code::QueueFull.because("too many wait for the ends of durable calls");
            self.answer(origin, refused(failure.retry_after(Duration::from_secs(1))));
            return;
        }
        let timeout = match wanted.timeout_ms {
            0 => DURATION_MAX,
            ms => Duration::from_millis(ms),
        };
        if !self.keeps_store() {
            let timeout = (wanted.timeout_ms > 0).then_some(timeout);
            return self.forward(now, origin, Wanted::Await { call, timeout });
        }
        self.on_await(now, origin, call, timeout);
    }

    fn on_hello(&mut self, now: Now, peer: PeerId, hello: v1::Hello) {
        if !(hello.version_min..=hello.version_max).contains(&PROTOCOL_VERSION) {
            let failure = Code::ProtocolVersion
                .because(format!(
                    "this node speaks version {PROTOCOL_VERSION} of the worker protocol, {} speaks {} to {}",
                    if hello.agent.is_empty() { "the other end" } else { &hello.agent },
                    hello.version_min,
                    hello.version_max
                ))
                .hint("use a worker library and a daemon of the same release");
            self.refuse_hello(now, peer, &hello.secret, failure);
            return;
        }
        match v1::Role::try_from(hello.role) {
            Ok(v1::Role::Worker) => self.on_worker_hello(now, peer, hello),
            Ok(v1::Role::Client) if self.knows_token(&hello.secret) => {
                self.peers.insert(peer, Peer::Client { open: 0 });
                self.welcome(peer);
            }
            Ok(v1::Role::Attached) if self.knows_token(&hello.secret) => {
                self.on_attach_hello(now, peer, hello)
            }
            Ok(v1::Role::Client | v1::Role::Attached) => {
                let failure = Code::Unauthorized
                    .because("the token is not this node's")
                    .hint("read it from the file `token` in the data folder of the running daemon");
                self.refuse(peer, failure);
            }
            Ok(v1::Role::Unspecified) | Err(_) => {
                self.refuse(peer, Code::Protocol.because("the hello gives no role that this node knows"));
            }
        }
    }

    fn on_worker_hello(&mut self, now: Now, peer: PeerId, hello: v1::Hello) {
        let Some(process) = self.secrets.get(&hello.secret).copied() else {
            let failure = Code::Unauthorized
                .because("the secret is not that of an instance which this node has started");
            self.refuse(peer, failure);
            return;
        };
        let instance = self.instances.get_mut(&process).expect("a secret is forgotten with its instance");
        if instance.phase == Phase::Dying {
            self.outputs.push_back(Output::Close { peer });
            return;
        }
        if let Some(old) = instance.peer.replace(peer) {
            // The same instance on a new connection: the newer one counts.
            self.peers.remove(&old);
            self.outputs.push_back(Output::Close { peer: old });
        }
        self.peers.insert(peer, Peer::Worker(process));
        let instance = self.instances.get_mut(&process).expect("it was there above");
        instance.pid = hello.pid;
        if instance.phase != Phase::Starting {
            self.welcome_back(peer, process);
            return;
        }
        if let Some(failure) = hello.failed {
            self.failed_to_start(now, process, failure);
            self.kill(now, process, "it failed to start");
            return;
        }
        if instance.exit.is_some() {
            return; // It ended before it could be welcomed; its connection's end follows.
        }
        instance.phase = Phase::Ready;
        instance.kill_at = None;
        instance.idle_since = now.mono;
        instance.ping_at = now.mono + self.config.ping;
        let took = now.mono.since(instance.asked_for);
        let (module, revision) = (instance.module.clone(), instance.revision.clone());
        self.welcome(peer);
        self.event(Event::InstanceReady { module: module.clone(), process, took });
        if self.is_load_check(&module, &revision) {
            match hello.module {
                Some(description) => self.described(now, &module, &revision, description),
                None => {
                    let failure = Code::ModuleFailed
                        .because("its command said hello without describing a module")
                        .hint("send `module` with the functions in Hello; see docs/protocol.md");
                    self.load_failed(now, &module, &revision, failure);
                }
            }
        }
        self.watch(process);
    }

    /// An instance on a new connection: it goes on with what it was doing.
    fn welcome_back(&mut self, peer: PeerId, process: ProcessId) {
        let instance = self.instances.get_mut(&process).expect("the caller has looked it up");
        if instance.phase == Phase::HungUp {
            instance.phase = Phase::Ready;
            instance.kill_at = None;
        }
        self.welcome(peer);
        if self.instances[&process].waiting.is_none() {
            self.give_held(process);
        }
        self.watch(process);
    }

    fn on_attach_hello(&mut self, now: Now, peer: PeerId, hello: v1::Hello) {
        let Some(description) = hello.module else {
            self.refuse(peer, Code::Protocol.because("an attached worker describes its module in its hello"));
            return;
        };
        let name = description.name.clone();
        if name.is_empty() {
            self.refuse(peer, Code::Protocol.because("an attached module needs a name"));
            return;
        }
        if name == HOST_MODULE {
            self.refuse(peer, crate::host::name_is_taken());
            return;
        }
        if self.draining {
            let failure = Code::ShuttingDown.because("the daemon is stopping");
            self.refuse(peer, failure.retry_after(Duration::from_secs(1)));
            return;
        }
        let process = self.new_process();
        let revision = match self.attach(now, process, (hello.pid, hello.shared), description) {
            Ok(revision) => revision,
            Err(failure) => return self.refuse(peer, failure),
        };
        let mut instance = Instance::new(process, name, revision, Bytes::new(), now.mono, Duration::ZERO);
        instance.attached = true;
        instance.patient = hello.patient;
        instance.phase = Phase::Ready;
        instance.peer = Some(peer);
        instance.pid = hello.pid;
        instance.kill_at = None;
        self.instances.insert(process, instance);
        self.peers.insert(peer, Peer::Worker(process));
        self.welcome(peer);
    }

    fn welcome(&mut self, peer: PeerId) {
        let welcome = v1::Welcome {
            version: PROTOCOL_VERSION,
            incarnation: self.incarnation.0,
            payload_max: self.config.payload_bytes_max as u64,
            ping_ms: millis(self.config.ping),
            node: self.config.name.clone(),
        };
        self.send(peer, Message::Welcome(welcome), Bytes::new());
    }

    /// Compares in constant time, as far as the length goes.
    fn knows_token(&self, given: &[u8]) -> bool {
        let token = &self.config.token;
        !token.is_empty()
            && token.len() == given.len()
            && token.iter().zip(given).fold(0, |d, (a, b)| d | (a ^ b)) == 0
    }

    fn refuse(&mut self, peer: PeerId, failure: v1::Failure) {
        self.note(Level::Warning, format!("a connection was refused: {}", failure.message));
        self.send(peer, Message::Refused(v1::Refused { failure: Some(failure) }), Bytes::new());
        self.outputs.push_back(Output::Close { peer });
    }

    /// A hello that is not accepted; if it is an instance's, that one does not start.
    fn refuse_hello(&mut self, now: Now, peer: PeerId, secret: &Bytes, failure: v1::Failure) {
        self.refuse(peer, failure.clone());
        if let Some(process) = self.secrets.get(secret).copied() {
            if self.instances[&process].phase == Phase::Starting {
                self.failed_to_start(now, process, failure);
            }
            self.kill(now, process, "its hello was not accepted");
        }
    }

    pub(crate) fn refuse_or_expel(&mut self, now: Now, peer: PeerId, why: &'static str) {
        match self.peers.get(&peer).copied() {
            Some(Peer::Worker(process)) => self.expel(now, process, why),
            _ => self.refuse(peer, Code::Protocol.because(why)),
        }
    }

    /// A connection has ended.
    pub(crate) fn on_peer_gone(&mut self, now: Now, peer: PeerId) {
        match self.peers.remove(&peer) {
            None => {}
            Some(Peer::Client { .. }) => {
                let all = Origin::Peer(peer, 0)..=Origin::Peer(peer, u64::MAX);
                let open: Vec<Origin> = self.by_origin.range(all).map(|(origin, _)| *origin).collect();
                for origin in open {
                    self.on_cancel(now, origin);
                }
                let watching: Vec<Origin> = self
                    .watched
                    .range(Origin::Peer(peer, 0)..=Origin::Peer(peer, u64::MAX))
                    .map(|(o, _)| *o)
                    .collect();
                for origin in watching {
                    self.unwatch(origin);
                }
                for origin in self.grid.forwards.of_client(peer) {
                    self.drop_forward(now, origin);
                }
            }
            Some(Peer::Worker(process)) => {
                let instance =
                    self.instances.get_mut(&process).expect("a worker's connection ends before it is buried");
                instance.peer = None;
                if instance.exit.is_some() || instance.attached {
                    self.bury(now, process);
                } else if instance.phase == Phase::Stopping {
                    instance.kill_by(now.mono + STOP_GRACE);
                    self.watch(process);
                } else if instance.phase == Phase::Ready {
                    // It lives and has hung up, or its end is about to be reported.
                    self.note(Level::Debug, format!("instance {} hung up", process.0));
                    self.hung_up(now, process);
                }
            }
        }
    }

    /// An instance without a connection is of no use, but it may be dying by itself: how it ends is worth knowing.
    fn hung_up(&mut self, now: Now, process: ProcessId) {
        let instance = self.instances.get_mut(&process).expect("the caller has looked it up");
        instance.phase = Phase::HungUp;
        instance.kill_by(now.mono + self.config.interrupt_grace);
        self.watch(process);
    }
}

impl NewCall {
    /// A call as a worker, a client or another node makes it.
    pub(crate) fn from_wire(call: v1::Call, payload: Bytes) -> Result<Self, v1::Failure> {
        let Ok(function) = call.function.parse::<FunctionName>() else {
            return Err(Code::BadRequest
                .because(format!("{:?} is not a function's name: write module.function", call.function)));
        };
        let some = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        let terms = Terms::new(call.horizon(), some(call.scale_after_ms), call.overflow());
        Ok(Self {
            function,
            version: call.version,
            payload,
            timeout: some(call.timeout_ms),
            queue_wait: some(call.queue_wait_ms),
            traceparent: call.traceparent,
            context: call.context,
            mode: if call.mode == i32::from(v1::Mode::Async) { Mode::Async } else { Mode::Sync },
            idempotency_key: call.idempotency_key,
            delay: some(call.delay_ms),
            trigger: None,
            depth: 0,
            terms,
        })
    }
}
