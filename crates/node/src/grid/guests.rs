//! The seller's side: a call of another node, on an instance of this one.
//!
//! ```text
//! buyer -> seller: run                     seller -> worker: invoke
//! worker -> seller: result, call, read …   seller -> buyer:  from_runner
//! buyer -> seller: to_runner               seller -> worker: reply, value, page, cancel
//! ```
//!
//! A guest has its slot already: its token is one. It waits for an instance alone. What its function calls, reads and writes is the
//! buyer's business; only that the instance waits, and has no slot meanwhile, is seen to here. Whatever becomes of it, the
//! buyer is told once: by the instance's result, or that it has ended without one.

use std::cmp::Reverse;
use std::time::Duration;

use bourse_market::links::LinkId;
use bourse_market::market::{Admitted, Lease, Token};
use bourse_market::{Lot, NodeId};
use bourse_wire::failure::Code;
use bourse_wire::id::{Attempt, CallId, FunctionName};
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::{DURATION_MAX, Mono, Now};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as FromWorker;
use bourse_wire::v1::to_worker::Message;
use bytes::Bytes;
use semver::VersionReq;

use super::Runs;
use crate::Node;
use crate::call::{Call, Phase, Place};
use crate::message::{Origin, ProcessId};
use crate::timers::Timer;

/// How long a guest waits for an instance, at most: its buyer should look elsewhere.
const GUEST_WAIT: Duration = Duration::from_secs(10);

/// What is particular about a call of another node.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub link: LinkId,
    pub buyer: NodeId,
    pub token: Token,
    pub lease: Lease,
    /// What the buyer wants the instance to be told.
    pub invoke: v1::Invoke,
}

impl Node {
    /// A buyer sends a call under a token.
    pub(super) fn on_run(
        &mut self,
        now: Now,
        link: LinkId,
        buyer: NodeId,
        token: Token,
        run: peer::Run,
        payload: Bytes,
    ) {
        let invoke = run.invoke.unwrap_or_default();
        let lease = match self.grid.market.admit(now.mono, buyer, &token.lot, token.epoch, token.seq) {
            Admitted::Run(lease) => lease,
            Admitted::Repeated => return,
            Admitted::Refused => {
                let failure = Code::NoCapacity.because("the token is not valid any more");
                return self.tell_ended((link, &token), false, failure);
            }
        };
        let guest = Guest { link, buyer, token: token.clone(), lease, invoke };
        let wait = Duration::from_millis(run.queue_wait_ms).min(GUEST_WAIT);
        if let Err(failure) = self.admit_guest(now, guest, wait, payload) {
            self.grid.market.release(now.mono, lease);
            self.tell_ended((link, &token), false, failure);
        }
    }

    fn admit_guest(
        &mut self,
        now: Now,
        guest: Guest,
        wait: Duration,
        payload: Bytes,
    ) -> Result<(), v1::Failure> {
        let (token, invoke) = (&guest.token, &guest.invoke);
        if self.draining {
            return Err(Code::ShuttingDown.because("the node is stopping"));
        }
        let id = CallId::from_wire(&invoke.call)
            .ok_or_else(|| Code::Protocol.because("a call's id has 16 bytes"))?;
        if self.calls.contains_key(&id) {
            return Err(Code::NoCapacity.because("an earlier attempt of the call still runs here"));
        }
        let lot = &token.lot;
        let name = FunctionName::new(&lot.module, &invoke.function);
        let exactly = VersionReq {
            comparators: vec![semver::Comparator {
                op: semver::Op::Exact,
                major: lot.version.major,
                minor: Some(lot.version.minor),
                patch: Some(lot.version.patch),
                pre: lot.version.pre.clone(),
            }],
        };
        if self.runs(&name, Some(&exactly)) != Some(Runs::Here) {
            return Err(Code::NotFound.because(format!("{name} {} is not served here any more", lot.version)));
        }
        if payload.len() > self.config.payload_bytes_max {
            return Err(Code::TooLarge.because(format!("the arguments have {} bytes", payload.len())));
        }
        let wire_id = |bytes: &Bytes| CallId::from_wire(bytes);
        let root = wire_id(&invoke.root).unwrap_or(id);
        let timeout = match invoke.timeout_ms {
            0 => DURATION_MAX,
            ms => Duration::from_millis(ms),
        };
        let order = self.next_order;
        self.next_order += 1;
        let origin = Origin::Buyer(order);
        let place = Place { root, depth: Reverse(invoke.depth), order };
        let call = Call {
            attempt: Attempt(invoke.attempt),
            deadline: now.mono + timeout.min(DURATION_MAX),
            queue_wait: wait,
            queue_until: now.mono + wait,
            ..Call::new(id, origin, name, payload, place, now)
        };
        self.by_origin.insert(origin, id);
        self.grid.guests.insert((guest.buyer, guest.token.clone()), id);
        let call = Call { guest: Some(Box::new(guest)), ..call };
        self.calls.insert(id, call);
        self.queue_guest(id);
        Ok(())
    }

    /// Puts a guest where it waits for an instance.
    pub(crate) fn queue_guest(&mut self, id: CallId) {
        let call = self.calls.get_mut(&id).expect("a guest that is queued exists");
        call.phase = Phase::Queued;
        self.timers.set_earliest(Timer::Call(id), call.due());
        let (name, place) = (call.function.module().to_owned(), call.place);
        let module = self.modules.get_mut(&name).expect("a guest is admitted for a module that serves");
        module.guests.insert(place, id);
        self.grid.guest_backlog.insert(name);
    }

    pub(crate) fn unqueue_guest(&mut self, id: CallId) {
        let call = &self.calls[&id];
        let name = call.function.module().to_owned();
        let module = self.modules.get_mut(&name).expect("a module stays as long as guests of it wait");
        module.guests.remove(&call.place);
        if module.guests.is_empty() {
            self.grid.guest_backlog.remove(&name);
        }
    }

    /// Gives instances to guests, which have their slots already.
    pub(crate) fn route_guests(&mut self, now: Now) {
        let modules: Vec<String> = self.grid.guest_backlog.iter().cloned().collect();
        for name in modules {
            self.turn_guests_away(now, &name);
            while let Some(id) = self.modules.get(&name).and_then(|m| m.guests.values().next().copied()) {
                let Some(process) = self.idle(&name) else { break };
                self.unqueue_guest(id);
                self.hand(now, id, process);
            }
            if self.modules.get(&name).is_some_and(|m| !m.guests.is_empty()) {
                self.scale(now, &name);
            }
        }
    }

    /// Guests that wait for a version which does not serve any more.
    fn turn_guests_away(&mut self, now: Now, name: &str) {
        let module = &self.modules[name];
        let serves = module.own_revision().filter(|_| !module.removed).and_then(|r| r.version.clone());
        let fits = |id: &CallId| {
            self.calls[id].guest.as_ref().is_some_and(|g| serves.as_ref() == Some(&g.token.lot.version))
        };
        let others: Vec<CallId> = module.guests.values().filter(|id| !fits(id)).copied().collect();
        for id in others {
            let failure =
                Code::NoCapacity.because(format!("{name} does not serve this version here any more"));
            self.end_guest(now, id, failure);
        }
    }

    /// The guest that an instance runs.
    pub(crate) fn guest_of(&self, process: ProcessId) -> Option<CallId> {
        let id = self.instances.get(&process)?.running()?;
        self.calls[&id].guest.is_some().then_some(id)
    }

    /// What the instance of a guest says goes to the buyer. Whether that was all there is to do.
    pub(crate) fn pass_on(
        &mut self,
        now: Now,
        process: ProcessId,
        message: FromWorker,
        payload: Bytes,
    ) -> Option<(FromWorker, Bytes)> {
        let Some(id) = self.guest_of(process) else { return Some((message, payload)) };
        let named = |call: &Bytes, attempt: u32| self.running(process, call, attempt).is_some();
        let (of_this_call, request, waits) = match &message {
            FromWorker::Call(call) => (named(&call.parent, call.attempt), Some(call.request), call.wait),
            FromWorker::Publish(publish) => {
                (named(&publish.parent, publish.attempt), Some(publish.request), false)
            }
            FromWorker::Await(wanted) => (true, Some(wanted.request), false),
            FromWorker::Read(read) => (named(&read.call, read.attempt), None, false),
            FromWorker::Scan(scan) => (named(&scan.call, scan.attempt), None, false),
            FromWorker::Cancel(cancel) => (self.calls[&id].awaited.contains(&cancel.request), None, false),
            FromWorker::Result(_)
            | FromWorker::Wait(_)
            | FromWorker::Pong(_)
            | FromWorker::Recalled(_)
            | FromWorker::Log(_)
            | FromWorker::Bye(_)
            | FromWorker::Hello(_) => return Some((message, payload)),
        };
        if !of_this_call {
            // Of an invocation before this one: it is told what everybody is told then.
            return Some((message, payload));
        }
        if let Some(request) = request {
            let call = self.calls.get_mut(&id).expect("it runs");
            if call.awaited.len() >= self.config.requests_max || !call.awaited.insert(request) {
                self.expel(now, process, "it used the number of a request that is not answered again");
                return None;
            }
        }
        self.tell_buyer(id, peer::from_runner::Message::Said(v1::ToNode { message: Some(message) }), payload);
        if let Some(request) = request.filter(|_| waits) {
            self.on_wait(now, process, id, &[request], false);
        }
        None
    }

    /// The buyer says something to the instance.
    pub(super) fn on_to_runner(
        &mut self,
        now: Now,
        buyer: NodeId,
        token: &Token,
        message: Option<Message>,
        payload: Bytes,
    ) {
        let Some(id) = self.grid.guests.get(&(buyer, token.clone())).copied() else { return };
        if self.calls[&id].origin.is_none() {
            return; // It was told the end before.
        }
        let running = match self.calls[&id].phase {
            Phase::Running(process, _) => Some(process),
            _ => None,
        };
        match (message, running) {
            (Some(Message::Reply(reply)), Some(process))
                if self.calls[&id].awaited.contains(&reply.request) =>
            {
                self.deliver_reply(process, reply, payload);
            }
            (Some(message @ (Message::Value(_) | Message::Page(_))), Some(process)) => {
                if let Some(peer) = self.instances[&process].peer {
                    self.send(peer, message, payload);
                }
            }
            (Some(Message::Cancel(cancel)), Some(process)) => self.cancel_guest(now, id, process, cancel),
            (Some(Message::Cancel(_)), None) => {
                self.end_guest(now, id, Code::Cancelled.because("nobody waits for it"));
            }
            _ => {}
        }
    }

    /// A guest is to stop. While it waits for what it has called, that is given up first.
    fn cancel_guest(&mut self, now: Now, id: CallId, process: ProcessId, cancel: v1::Cancel) {
        self.tell_to_stop(now, process, cancel);
        let waiting = self.instances.get(&process).and_then(|i| i.waiting.as_ref());
        let requests: Vec<u64> = waiting.into_iter().flat_map(|w| &w.requests).copied().collect();
        let failure = Code::Cancelled.because("the calling function was told to stop");
        self.refuse_guest_waits(id, process, &requests, &failure);
    }

    /// What a guest waits for is given up, here and at the buyer.
    pub(crate) fn refuse_guest_waits(
        &mut self,
        id: CallId,
        process: ProcessId,
        requests: &[u64],
        failure: &v1::Failure,
    ) {
        for request in requests {
            let message = FromWorker::Cancel(v1::CancelCall { request: *request });
            self.tell_buyer(
                id,
                peer::from_runner::Message::Said(v1::ToNode { message: Some(message) }),
                Bytes::new(),
            );
            let reply = v1::Reply { request: *request, failure: Some(failure.clone()), ..Default::default() };
            self.deliver_reply(process, reply, Bytes::new());
        }
    }

    /// An instance has answered a guest: the buyer sees to what follows.
    pub(crate) fn answer_guest(&mut self, now: Now, id: CallId, result: v1::Result, payload: Bytes) {
        self.tell_buyer(
            id,
            peer::from_runner::Message::Said(v1::ToNode { message: Some(FromWorker::Result(result)) }),
            payload,
        );
        self.close_guest(now, id);
    }

    /// There will be no result of a guest.
    pub(crate) fn end_guest(&mut self, now: Now, id: CallId, failure: v1::Failure) {
        let call = &self.calls[&id];
        let begun = call.started.is_some();
        let guest = call.guest.as_ref().expect("only guests are ended like this");
        let (link, token) = (guest.link, guest.token.clone());
        self.tell_ended((link, &token), begun, failure);
        match self.calls[&id].phase {
            Phase::Queued => {
                self.unqueue_guest(id);
                self.close_guest(now, id);
            }
            // The slot is the guest's until its instance is free or dead.
            Phase::Running(process, _) => {
                let call = self.calls.get_mut(&id).expect("it was there above");
                if let Some(origin) = call.origin.take() {
                    self.by_origin.remove(&origin);
                }
                let attempt = call.attempt.0;
                let reason = "nobody waits for it".to_owned();
                let cancel = v1::Cancel { call: id.to_wire(), attempt, interrupt: true, reason };
                self.cancel_guest(now, id, process, cancel);
            }
            Phase::Locked | Phase::Ahead(_) | Phase::Performing(_) | Phase::Committing { .. } => {
                unreachable!("a guest waits or runs")
            }
        }
    }

    /// An instance leaves without having begun a guest: the buyer finds it another place. It knows better if something was said.
    pub(crate) fn give_guest_back(&mut self, now: Now, id: CallId) {
        let call = &self.calls[&id];
        if call.origin.is_some() {
            let guest = call.guest.as_ref().expect("only guests are given back like this");
            let (link, token) = (guest.link, guest.token.clone());
            let failure = Code::NoCapacity.because("the instance that was to run it has left");
            self.tell_ended((link, &token), false, failure);
        }
        self.close_guest(now, id);
    }

    /// The instance of a guest has died.
    pub(crate) fn bury_guest(&mut self, now: Now, id: CallId, failure: v1::Failure) {
        let call = &self.calls[&id];
        if call.origin.is_some() {
            let guest = call.guest.as_ref().expect("only guests are buried like this");
            let (link, token) = (guest.link, guest.token.clone());
            self.tell_ended((link, &token), true, failure);
        }
        self.close_guest(now, id);
    }

    /// The instance of a guest is free or dead, or it never had one.
    pub(crate) fn close_guest(&mut self, now: Now, id: CallId) {
        let call = self.calls.get_mut(&id).expect("a guest that is closed exists");
        if let Some(origin) = call.origin.take() {
            self.by_origin.remove(&origin);
        }
        call.awaited.clear();
        let guest = call.guest.take().expect("only guests are closed like this");
        self.grid.guests.remove(&(guest.buyer, guest.token.clone()));
        self.grid.market.release(now.mono, guest.lease);
        self.forget(id);
    }

    /// Nobody waits for the calls of a channel.
    pub(super) fn dismiss_guests(&mut self, now: Now, buyer: NodeId, lot: &Lot, epoch: u64) {
        let of_channel = |((b, token), _): &(&(NodeId, Token), &CallId)| {
            *b == buyer && token.lot == *lot && token.epoch == epoch
        };
        let ids: Vec<CallId> = self.grid.guests.iter().filter(of_channel).map(|(_, id)| *id).collect();
        for id in ids {
            if self.calls[&id].origin.is_some() {
                self.end_guest(now, id, Code::Cancelled.because("the buyer is gone"));
            }
        }
    }

    fn tell_buyer(&mut self, id: CallId, message: peer::from_runner::Message, payload: Bytes) {
        let call = &self.calls[&id];
        let guest = call.guest.as_ref().expect("it is a guest");
        if call.origin.is_none() {
            return; // It was told the end before.
        }
        let token = Some(bourse_market::codec::token_to_wire(&guest.token));
        self.send_peer(
            guest.link,
            Frame::FromRunner(peer::FromRunner { token, message: Some(message) }),
            payload,
        );
    }

    /// The answer to a guest has left long ago, and the buyer still waits for it.
    pub(super) fn tell_lost_answer(&mut self, buyer: NodeId, token: &Token) {
        let failure = Code::InstanceCrashed.because("its answer was lost on the way");
        if let Some(link) = self.grid.market.link_of(buyer) {
            self.tell_ended((link, token), true, failure);
        }
    }

    fn tell_ended(&mut self, (link, token): (LinkId, &Token), begun: bool, failure: v1::Failure) {
        let token = Some(bourse_market::codec::token_to_wire(token));
        let ended = peer::from_runner::Message::Ended(peer::Ended { failure: Some(failure), begun });
        self.send_peer(
            link,
            Frame::FromRunner(peer::FromRunner { token, message: Some(ended) }),
            Bytes::new(),
        );
    }
}

/// What a guest's instance is told; the times are what is left of them here.
pub(crate) fn invoke_of(guest: &Guest, deadline: Mono, now: Mono, acked: u64) -> v1::Invoke {
    let mut invoke = guest.invoke.clone();
    invoke.acked = acked;
    if invoke.timeout_ms > 0 {
        invoke.timeout_ms = bourse_wire::time::millis(deadline.since(now)).max(1);
    }
    invoke
}
