//! The side of a node that does not keep the grid's store: what its callers want goes to the one that does, where that needs
//! the store.
//!
//! ```text
//! node -> peer: forward        peer -> node: forwarded
//! ```
//!
//! | goes there | stays |
//! |---|---|
//! | durable calls, and what is asked about them | all other calls |
//! | calls of functions that are exclusive or throttled | |
//! | calls of functions that have been seen to use state, to publish, or to start others | |
//! | messages for queues and topics, and to WebSocket connections | |
//!
//! Whether a function uses state is not known before it does: the first call that does so here is given up, and done over there
//! from the beginning, as after a conflict. The node that keeps the store buys capacity as any other does, so calls that went
//! there may well run here.
//!
//! While there is no link, requests wait for one, as long as a call may wait for an instance. One that was on its way when the link
//! ended is sent again only if that can't do harm; else its caller is told that nobody knows what became of it. The same is said of one
//! that was sent again and came to nothing: the first time may have been in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bourse_durable::work::Seen;
use bourse_market::LinkId;
use bourse_market::name::Horizon;
use bourse_wire::failure::Code;
use bourse_wire::id::{CallId, FunctionName};
use bourse_wire::options::Channel;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::forward::What;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::{Mono, Now, millis};
use bourse_wire::v1;
use bytes::Bytes;

use crate::host::HostFunction;
use crate::message::{Ask, Message, Mode, NewCall, Origin, Output, Overflow, Success, Ticket};
use crate::timers::Timer;
use crate::{Answer, Node};

/// Most requests that are not answered.
const FORWARDS_MAX: usize = 100_000;
/// Most bytes of those that wait for a link.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Before it is looked again whether there is a link.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Default)]
pub(crate) struct Forwards {
    next: u64,
    open: BTreeMap<u64, Forward>,
    by_origin: BTreeMap<Origin, u64>,
    /// Those that are to be sent.
    waiting: BTreeSet<u64>,
    waiting_bytes: usize,
}

struct Forward {
    origin: Origin,
    what: Wanted,
    /// Where it was sent.
    link: Option<LinkId>,
    /// When it came.
    since: Mono,
    /// It waits so long for a link.
    wait: Duration,
    /// It waits no longer than that.
    until: Mono,
    /// Doing it twice is as good as once.
    harmless: bool,
    /// A link has ended over which it was sent: it may have been done.
    doubtful: bool,
}

/// What a caller of this node wants of the node that keeps the store.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Call(Box<NewCall>),
    Publish(Box<Message>),
    Await { call: CallId, timeout: Option<Duration> },
    Ask { call: CallId, ask: Ask },
    Forget(String),
}

impl Wanted {
    /// Doing it twice is as good as once.
    fn is_harmless(&self, idempotent: bool) -> bool {
        match self {
            Self::Call(call) => !call.idempotency_key.is_empty() || idempotent,
            Self::Publish(message) => !message.idempotency_key.is_empty(),
            Self::Await { .. } | Self::Forget(_) => true,
            Self::Ask { ask, .. } => matches!(ask, Ask::Look | Ask::Await),
        }
    }

    /// It is a question about a durable call.
    fn asks(&self) -> bool {
        matches!(self, Self::Ask { .. })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Call(call) => call.payload.len(),
            Self::Publish(message) => message.payload.len(),
            Self::Await { .. } | Self::Ask { .. } | Self::Forget(_) => 0,
        }
    }

    /// For the wire, where it has waited so long.
    fn to_wire(&self, request: u64, waited: Duration) -> (peer::Forward, Bytes) {
        let mut forward = peer::Forward { request, ..Default::default() };
        let mut payload = Bytes::new();
        forward.what = Some(match self {
            Self::Call(call) => {
                payload = call.payload.clone();
                forward.depth = call.depth;
                forward.trigger.clone_from(&call.trigger);
                What::Call(call.to_wire(waited))
            }
            Self::Publish(message) => {
                payload = message.payload.clone();
                What::Publish(message.to_wire())
            }
            Self::Await { call, timeout } => What::Await(v1::Await {
                request,
                call: call.to_wire(),
                timeout_ms: timeout.map_or(0, |timeout| millis(timeout.saturating_sub(waited)).max(1)),
            }),
            Self::Ask { call, ask } => {
                let what = match ask {
                    Ask::Look => peer::ask::What::Look,
                    Ask::Await => peer::ask::What::Await,
                    Ask::Cancel => peer::ask::What::Cancel,
                    Ask::Replay => peer::ask::What::Replay,
                    Ask::Purge => peer::ask::What::Purge,
                };
                What::Ask(peer::Ask { call: call.to_wire(), what: what.into() })
            }
            Self::Forget(module) => What::Forget(module.clone()),
        });
        (forward, payload)
    }
}

impl NewCall {
    fn to_wire(&self, waited: Duration) -> v1::Call {
        let ms = |time: Option<Duration>| time.map_or(0, |time| millis(time).max(1));
        v1::Call {
            function: self.function.as_str().to_owned(),
            version: self.version.clone(),
            timeout_ms: ms(self.timeout.map(|timeout| timeout.saturating_sub(waited))),
            queue_wait_ms: ms(self.queue_wait),
            traceparent: self.traceparent.clone(),
            context: self.context.clone(),
            mode: match self.mode {
                Mode::Sync => v1::Mode::Sync.into(),
                Mode::Async => v1::Mode::Async.into(),
            },
            idempotency_key: self.idempotency_key.clone(),
            delay_ms: ms(self.delay),
            horizon: match self.terms.horizon {
                None => v1::Horizon::Unspecified.into(),
                Some(Horizon::Process) => v1::Horizon::Process.into(),
                Some(Horizon::Machine) => v1::Horizon::Machine.into(),
                Some(Horizon::Network) => v1::Horizon::Network.into(),
                Some(Horizon::Anywhere) => v1::Horizon::Anywhere.into(),
            },
            scale_after_ms: ms(self.terms.scale_after),
            overflow: match self.terms.overflow {
                Overflow::Queue => v1::Overflow::Queue.into(),
                Overflow::Reject => v1::Overflow::Reject.into(),
                Overflow::Remote => v1::Overflow::Remote.into(),
            },
            ..Default::default()
        }
    }
}

impl Message {
    fn to_wire(&self) -> v1::Publish {
        let to = match &self.to {
            Channel::Queue(name) => v1::publish::To::Queue(name.as_str().to_owned()),
            Channel::Topic(name) => v1::publish::To::Topic(name.as_str().to_owned()),
        };
        v1::Publish {
            to: Some(to),
            delay_ms: self.delay.map_or(0, millis),
            traceparent: self.traceparent.clone(),
            context: self.context.clone(),
            idempotency_key: self.idempotency_key.clone(),
            ..Default::default()
        }
    }
}

impl Forwards {
    /// Nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn has(&self, origin: Origin) -> bool {
        self.by_origin.contains_key(&origin)
    }

    /// Who waits for answers, of those that came over one connection.
    pub(crate) fn of_client(&self, peer: crate::PeerId) -> Vec<Origin> {
        let all = Origin::Peer(peer, 0)..=Origin::Peer(peer, u64::MAX);
        self.by_origin.range(all).map(|(origin, _)| *origin).collect()
    }

    fn wait(&mut self, request: u64) {
        if self.waiting.insert(request) {
            self.waiting_bytes += self.open[&request].what.bytes();
        }
    }

    fn waits_no_longer(&mut self, request: u64) {
        if self.waiting.remove(&request) {
            self.waiting_bytes -= self.open[&request].what.bytes();
        }
    }

    fn remove(&mut self, request: u64) -> Option<Forward> {
        if self.open.contains_key(&request) {
            self.waits_no_longer(request);
        }
        let forward = self.open.remove(&request)?;
        self.by_origin.remove(&forward.origin);
        Some(forward)
    }
}

impl Node {
    /// Whether a call has to be accepted by the node that keeps the store, and that is another one.
    pub(crate) fn belongs_elsewhere(&self, call: &NewCall) -> bool {
        // Whoever keeps the store is linked with all nodes that have connections.
        let reaches = || {
            HostFunction::of(&call.function).is_some_and(HostFunction::is_of_connections)
                && self.grid_store().is_some()
        };
        let needs_store = || self.function_of(&call.function).is_some_and(|f| f.needs_store());
        !self.keeps_store() && (self.is_durable(call) || needs_store() || reaches())
    }

    /// Has the node that keeps the store do what a caller wants. It is answered later, once.
    pub(crate) fn forward(&mut self, now: Now, origin: Origin, what: Wanted) {
        let forwards = &self.grid.forwards;
        if forwards.open.len() >= FORWARDS_MAX || forwards.waiting_bytes + what.bytes() > WAITING_BYTES_MAX {
            let failure = Code::QueueFull
                .because("too many calls are on their way to the node that keeps the grid's store")
                .retry_after(Duration::from_secs(1));
            return self.end_forward(origin, what.asks(), failure);
        }
        let idempotent = |name: &FunctionName| self.function_of(name).is_some_and(|f| f.is_harmless_twice());
        let (harmless, wait) = match &what {
            Wanted::Call(call) => {
                let own = self.function_of(&call.function).and_then(|f| f.queue_wait);
                let wait =
                    call.queue_wait.or(own).unwrap_or(self.config.of(call.function.module()).queue_wait);
                (
                    what.is_harmless(idempotent(&call.function)),
                    wait.min(call.timeout.unwrap_or(Duration::MAX)),
                )
            }
            _ => (what.is_harmless(false), self.config.module.queue_wait),
        };
        let (since, until) = (now.mono, now.mono + wait);
        let forwards = &mut self.grid.forwards;
        forwards.next += 1;
        let request = forwards.next;
        let forward = Forward { origin, what, link: None, since, wait, until, harmless, doubtful: false };
        forwards.open.insert(request, forward);
        forwards.by_origin.insert(origin, request);
        forwards.wait(request);
        self.send_forwards(now);
    }

    /// Sends what waits, if there is a link.
    fn send_forwards(&mut self, now: Now) {
        if self.grid.forwards.waiting.is_empty() {
            return;
        }
        let store = self.grid_store().map(|store| store.node.id);
        if self.keeps_store() {
            return self.do_forwards(now);
        }
        let Some(link) = store.and_then(|node| self.link_with(now, node)) else {
            return self.timers.set_earliest(Timer::Forwards, now.mono + LOOK_AGAIN);
        };
        for request in self.grid.forwards.waiting.clone() {
            self.grid.forwards.waits_no_longer(request);
            let forward = self.grid.forwards.open.get_mut(&request).expect("what waits is open");
            forward.link = Some(link);
            let (message, payload) = forward.what.to_wire(request, now.mono.since(forward.since));
            self.grid.market.used(now.mono, link, false);
            self.send_peer(link, Frame::Forward(message), payload);
        }
    }

    /// It is this node that keeps the store, which was not known before.
    fn do_forwards(&mut self, now: Now) {
        for request in self.grid.forwards.waiting.clone() {
            let forward = self.grid.forwards.remove(request);
            let Forward { origin, what, .. } = forward.expect("what waits is open");
            match what {
                Wanted::Call(call) => self.on_call(now, origin, *call),
                Wanted::Publish(message) => self.on_publish(now, origin, *message),
                Wanted::Await { call, timeout } => {
                    self.on_await(now, origin, call, timeout.unwrap_or(bourse_wire::time::DURATION_MAX));
                }
                Wanted::Ask { call, ask } => self.on_ask(now, origin, call, ask),
                Wanted::Forget(module) => self.on_forget(origin, &module),
            }
        }
    }

    /// It is time to look whether there is a link, and whether something has waited too long for one.
    pub(crate) fn on_forwards_due(&mut self, now: Now) {
        self.send_forwards(now);
        let late = |request: &u64| self.grid.forwards.open[request].until <= now.mono;
        let late: Vec<u64> = self.grid.forwards.waiting.iter().copied().filter(late).collect();
        for request in late {
            let failure = self.keeper_not_reached();
            if let Some(forward) = self.grid.forwards.remove(request) {
                let failure = if forward.doubtful { lost_with_it(Some(&failure)) } else { failure };
                self.end_forward(forward.origin, forward.what.asks(), failure);
            }
        }
        if !self.grid.forwards.waiting.is_empty() {
            self.timers.set_earliest(Timer::Forwards, now.mono + LOOK_AGAIN);
        }
    }

    /// Another node keeps the store from now on, or it is known at last who does.
    pub(super) fn forward_again(&mut self, now: Now) {
        if !self.grid.forwards.waiting.is_empty() {
            self.timers.set_earliest(Timer::Forwards, now.mono);
        }
    }

    pub(crate) fn keeper_not_reached(&self) -> v1::Failure {
        let (why, hint) = match self.grid_store() {
            None => (
                "no node of the grid is known that keeps its store".to_owned(),
                "start one node with --store sqlite, or wait until this one is linked with others; the call had no effect",
            ),
            Some(store) => (
                format!(
                    "the node {} at {:?}, which keeps the grid's store, can't be reached",
                    store.node.id.short(),
                    store.node.address
                ),
                "the call had no effect; try again when that node is back",
            ),
        };
        Code::StoreUnavailable.because(why).hint(hint).retry_after(Duration::from_secs(1))
    }

    /// A link is over. What went over it comes to nothing, or goes again.
    pub(super) fn lose_forwards(&mut self, now: Now, link: LinkId) {
        let over = |(request, forward): (&u64, &Forward)| (forward.link == Some(link)).then_some(*request);
        let lost: Vec<u64> = self.grid.forwards.open.iter().filter_map(over).collect();
        for request in lost {
            let forward = self.grid.forwards.open.get_mut(&request).expect("it was just found");
            if forward.harmless {
                forward.doubtful = true;
                forward.until = now.mono + forward.wait;
                self.forward_once_more(now, request);
                continue;
            }
            let forward = self.grid.forwards.remove(request).expect("it was just found");
            self.end_forward(forward.origin, forward.what.asks(), lost_with_it(None));
        }
    }

    /// What was sent had no effect, or does no harm when it is done twice.
    fn forward_once_more(&mut self, now: Now, request: u64) {
        let forward = self.grid.forwards.open.get_mut(&request).expect("the caller has looked it up");
        forward.link = None;
        self.grid.forwards.wait(request);
        self.timers.set_earliest(Timer::Forwards, now.mono + LOOK_AGAIN);
    }

    /// The node that keeps the store stops: what it has not begun waits until it is back, and what it has accepted is awaited
    /// then. Or it has just started, and does not know yet what others serve: it is asked again.
    fn outlast(&mut self, now: Now, request: u64, reply: &v1::Reply) -> bool {
        let forward = self.grid.forwards.open.get_mut(&request).expect("the caller has looked it up");
        let is_out = match reply.failure.as_ref().map(|failure| failure.kind()) {
            Some(Code::ShuttingDown) => {
                forward.until = now.mono + forward.wait;
                true
            }
            Some(Code::Starting) => now.mono < forward.until,
            _ => false,
        };
        if !is_out || self.draining {
            return false;
        }
        if let (Wanted::Call(call), Some(id)) = (&forward.what, CallId::from_wire(&reply.call)) {
            forward.what = Wanted::Await { call: id, timeout: call.timeout };
            forward.harmless = true;
        }
        self.forward_once_more(now, request);
        true
    }

    /// The node that keeps the store has answered.
    pub(super) fn on_forwarded(
        &mut self,
        now: Now,
        link: LinkId,
        forwarded: peer::Forwarded,
        payload: Bytes,
    ) {
        let peer::Forwarded { request, how } = forwarded;
        if self.grid.forwards.open.get(&request).is_none_or(|forward| forward.link != Some(link)) {
            return; // Nobody waits for it any more.
        }
        if let Some(peer::forwarded::How::Reply(reply)) = &how
            && self.outlast(now, request, reply)
        {
            return;
        }
        let forward = self.grid.forwards.remove(request).expect("it was just looked at");
        match how {
            Some(peer::forwarded::How::Told(told)) if forward.what.asks() => {
                self.tell(forward.origin, seen(now, told));
            }
            Some(peer::forwarded::How::Reply(reply)) if !forward.what.asks() => {
                let call = CallId::from_wire(&reply.call);
                let result = match reply.failure {
                    Some(failure) if forward.doubtful && call.is_none() => Err(lost_with_it(Some(&failure))),
                    Some(failure) => Err(failure),
                    None => Ok(Success { payload, content_type: reply.content_type, http: reply.http }),
                };
                self.answer(forward.origin, Answer { call, result });
            }
            _ => {
                let failure =
                    Code::Internal.because("the node that keeps the grid's store did not say how it went");
                self.end_forward(forward.origin, forward.what.asks(), failure);
            }
        }
    }

    fn end_forward(&mut self, origin: Origin, asks: bool, failure: v1::Failure) {
        match asks {
            true => self.tell(origin, Err(failure)),
            false => self.answer(origin, Answer { call: None, result: Err(failure) }),
        }
    }

    /// The node stops: who asks, or waits for what goes on without it, waits no longer. Whether nothing is left that is waited for.
    pub(crate) fn drain_forwards(&mut self, over: bool) -> bool {
        let ends = |forward: &Forward| over || !matches!(forward.what, Wanted::Call(_) | Wanted::Publish(_));
        let open = &self.grid.forwards.open;
        let ended: Vec<u64> = open.iter().filter(|(_, f)| ends(f)).map(|(request, _)| *request).collect();
        for request in ended {
            let failure = Code::ShuttingDown
                .because("the daemon is stopping; what was accepted goes on")
                .retry_after(Duration::from_secs(1));
            let forward = self.grid.forwards.remove(request).expect("it was just found");
            self.end_forward(forward.origin, forward.what.asks(), failure);
        }
        self.grid.forwards.is_empty()
    }

    /// A caller does not want the answer any more. It is answered all the same, unless it has only asked.
    pub(crate) fn cancel_forward(&mut self, now: Now, origin: Origin) {
        let Some(request) = self.grid.forwards.by_origin.get(&origin).copied() else { return };
        let forward = &self.grid.forwards.open[&request];
        let (asks, link) = (forward.what.asks(), forward.link);
        if let Some(link) = link {
            self.send_cancel(now, link, request);
        }
        if asks || link.is_none() {
            self.grid.forwards.remove(request);
            if !asks {
                let failure = Code::Cancelled.because("the caller cancelled the call, or went away");
                self.answer(origin, Answer { call: None, result: Err(failure) });
            }
        }
    }

    /// Nobody is there any more to be answered.
    pub(crate) fn drop_forward(&mut self, now: Now, origin: Origin) {
        let Some(request) = self.grid.forwards.by_origin.get(&origin).copied() else { return };
        if let Some(Forward { link: Some(link), .. }) = self.grid.forwards.remove(request) {
            self.send_cancel(now, link, request);
        }
    }

    fn send_cancel(&mut self, now: Now, link: LinkId, request: u64) {
        self.grid.market.used(now.mono, link, false);
        let cancel = peer::Forward { request, what: Some(What::Cancel(true)), ..Default::default() };
        self.send_peer(link, Frame::Forward(cancel), Bytes::new());
    }

    /// A call that has begun here turns out to need the store: it is done from its beginning by the node that keeps it.
    pub(crate) fn forward_begun(&mut self, now: Now, id: CallId) {
        let call = &self.calls[&id];
        let (name, again, parent) = (call.function.clone(), call.again(now), call.parent());
        self.learn_needs_store(&name);
        let Some(origin) = self.release(id) else { return };
        if let (Some(parent), Origin::Instance(_, request)) = (parent, origin)
            && let Some(parent) = self.calls.get_mut(&parent.call)
        {
            parent.awaited.insert(request);
        }
        let moved = Code::Cancelled.because("the call goes on at the node that keeps the grid's store");
        self.abort(now, id, moved);
        self.forward(now, origin, Wanted::Call(Box::new(again)));
    }

    fn learn_needs_store(&mut self, name: &FunctionName) {
        let module = self.modules.get_mut(name.module());
        if let Some(function) = module.and_then(|m| m.function_mut(name.function())) {
            function.stateful = true;
        }
    }

    /// How a durable call stands, for whoever has asked.
    pub(crate) fn tell(&mut self, origin: Origin, told: Result<Box<Seen>, v1::Failure>) {
        match origin {
            Origin::Gateway(ticket) => self.outputs.push_back(Output::Told { ticket, told }),
            Origin::Node(link, request) => self.tell_node(link, request, told),
            Origin::Peer(..) | Origin::Instance(..) | Origin::Work(_) | Origin::Buyer(_) | Origin::Own(_) => {
                unreachable!("only the gateway asks, here or at another node")
            }
        }
    }

    /// The gateway asks about a durable call.
    pub(crate) fn on_gateway_ask(&mut self, now: Now, ticket: Ticket, call: CallId, ask: Ask) {
        let origin = Origin::Gateway(ticket);
        match self.keeps_store() {
            true => self.on_ask(now, origin, call, ask),
            false => self.forward(now, origin, Wanted::Ask { call, ask }),
        }
    }
}

/// Nobody knows what became of a request. `again`: why it has come to nothing when it was sent once more.
fn lost_with_it(again: Option<&v1::Failure>) -> v1::Failure {
    let mut text =
        "the node that keeps the grid's store was lost while it had the call: nobody knows whether it took \
                    effect"
            .to_owned();
    if let Some(v1::Failure { code, message, .. }) = again {
        text.push_str(&format!(". It was sent again, in vain: {code}: {message}"));
    }
    Code::StoreUnavailable
        .because(text)
        .hint("find out before you call again; with an idempotency key, or of an `idempotent` function, it is sent again by itself")
        .retry_after(Duration::from_secs(1))
}

fn seen(now: Now, told: peer::Told) -> Result<Box<Seen>, v1::Failure> {
    let peer::Told { failure, live, running, due_ms, ended } = told;
    match (failure, live, ended) {
        (Some(failure), ..) => Err(failure),
        (None, Some(record), _) => {
            let due = (due_ms > 0).then(|| now.mono + Duration::from_millis(due_ms));
            Ok(Box::new(Seen::Live { record, running, due }))
        }
        (None, None, Some(ended)) => Ok(Box::new(Seen::Ended(ended))),
        (None, None, None) => Ok(Box::new(Seen::Nothing)),
    }
}
