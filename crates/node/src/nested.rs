//! Functions that wait for functions: the slot goes back while they wait, and they resume within capacity.
//!
//! ```text
//! worker -> node: call (wait), wait       the invocation does nothing until replies are there
//! node -> worker: reply                   held back until the instance has a slot again
//! ```
//!
//! An instance that waits is *blocked*: it holds no slot and does not count among the living ones, so that the calls
//! that it waits for can always run. At most `blocked_max` of a module may be; past that, the calls waited for are
//! refused. Blocked instances that may go on stand in line for slots, before all new calls.

use std::collections::BTreeSet;
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::time::Now;
use bourse_wire::v1;
use bourse_wire::v1::to_worker::Message;
use bytes::Bytes;

use crate::instance::Waiting;
use crate::message::ProcessId;
use crate::{Answer, Node};

impl Node {
    /// The running call of an instance waits for these requests, and for nothing that it waited for before.
    pub(crate) fn on_wait(
        &mut self,
        now: Now,
        process: ProcessId,
        running: CallId,
        requests: &[u64],
        any: bool,
    ) {
        if self.instances[&process].runner.is_some() {
            return; // Its slot is the seller's, which sees to it.
        }
        let call = &self.calls[&running];
        let outstanding = |r: &u64| call.children.contains_key(r) || call.awaited.contains(r);
        let waited: BTreeSet<u64> = requests.iter().copied().filter(|r| outstanding(r)).collect();
        // Whatever is not outstanding has been answered, and the answer is held back or on its way.
        let answered = requests.iter().any(|r| !outstanding(r));
        let satisfied = waited.is_empty() || (any && answered);
        let instance = self.instances.get_mut(&process).expect("a frame is from an instance that exists");
        if let Some(waiting) = &mut instance.waiting {
            let before = std::mem::replace(waiting, Waiting { requests: waited, any, satisfied });
            match (before.satisfied, satisfied) {
                (false, true) => self.resumable.push_back(process),
                (true, false) => self.resumable.retain(|p| *p != process),
                (true, true) | (false, false) => {}
            }
            return;
        }
        if satisfied {
            return;
        }
        let module = self.modules.get_mut(&instance.module).expect("an instance's module exists");
        let blocked_max = self.config.of(&instance.module).blocked_max;
        if module.blocked >= blocked_max {
            let name = instance.module.clone();
            let refused: Vec<CallId> = waited.iter().filter_map(|r| call.children.get(r)).copied().collect();
            let failure = Code::BlockedExceeded
                .because(format!("{blocked_max} instances of {name} already wait for nested calls"))
                .hint("call less deeply or less widely at once, or raise `blocked` of the module in bourse.toml");
            for id in refused {
                self.abort(now, id, failure.clone());
            }
            let awaited: Vec<u64> =
                waited.into_iter().filter(|r| self.calls[&running].awaited.contains(r)).collect();
            if self.calls[&running].guest.is_some() {
                return self.refuse_guest_waits(running, process, &awaited, &failure);
            }
            for request in awaited {
                let origin = crate::Origin::Instance(process, request);
                self.calls.get_mut(&running).expect("it runs").awaited.remove(&request);
                let watched = self.unwatch(origin);
                if watched.is_some() || self.grid.forwards.has(origin) {
                    self.drop_forward(now, origin);
                    self.answer(origin, Answer { call: watched, result: Err(failure.clone()) });
                }
            }
            return;
        }
        module.blocked += 1;
        instance.waiting = Some(Waiting { requests: waited, any, satisfied: false });
        self.lend_slot(process);
        self.recall(process);
        self.watch(process);
    }

    /// Gives the answer to a nested call to its caller, now or when that has a slot.
    pub(crate) fn deliver(&mut self, process: ProcessId, request: u64, answer: Answer) {
        let (reply, payload) = reply(request, answer);
        self.deliver_reply(process, reply, payload);
    }

    /// The same, as it is said to a worker.
    pub(crate) fn deliver_reply(&mut self, process: ProcessId, reply: v1::Reply, payload: Bytes) {
        let request = reply.request;
        let Some(instance) = self.instances.get_mut(&process) else { return };
        if let Some(call) = instance.running().and_then(|id| self.calls.get_mut(&id)) {
            call.awaited.remove(&request);
        }
        let waiting = match (&mut instance.waiting, instance.peer) {
            (Some(waiting), _) => waiting,
            (None, Some(peer)) => return self.send(peer, Message::Reply(reply), payload),
            // Its connection has ended; it may come back.
            (None, None) => return instance.held.push((reply, payload)),
        };
        let expected = waiting.requests.remove(&request);
        instance.held.push((reply, payload));
        if expected && !waiting.satisfied && (waiting.any || waiting.requests.is_empty()) {
            waiting.satisfied = true;
            self.resumable.push_back(process);
        }
    }

    /// Lets blocked instances go on, as far as there are slots.
    pub(crate) fn resume(&mut self, now: Now) {
        while let Some(process) = self.resumable.front().copied() {
            if !self.take_slot_again(process) {
                return;
            }
            self.resumable.pop_front();
            self.unblock(process);
            self.give_held(process);
            let instance = self.instances.get_mut(&process).expect("it is still there");
            if let Some(cancel) = instance.cancel.take() {
                self.tell_to_stop(now, process, cancel);
            }
            self.watch(process);
        }
    }

    /// Sends the replies that were held back.
    pub(crate) fn give_held(&mut self, process: ProcessId) {
        let instance = self.instances.get_mut(&process).expect("the caller has looked it up");
        let Some(peer) = instance.peer else { return };
        for (reply, payload) in std::mem::take(&mut instance.held) {
            self.send(peer, Message::Reply(reply), payload);
        }
    }

    /// An instance no longer waits.
    pub(crate) fn unblock(&mut self, process: ProcessId) {
        let instance = self.instances.get_mut(&process).expect("an instance that is unblocked exists");
        if instance.waiting.take().is_some() {
            let module = self.modules.get_mut(&instance.module).expect("an instance's module exists");
            module.blocked -= 1;
        }
    }

    /// Tells a worker that nobody waits for its running call, or that the call's time is over. One that is blocked
    /// is told when it has a slot again: what it waits for is ended, so that this does not take long.
    pub(crate) fn tell_to_stop(&mut self, now: Now, process: ProcessId, cancel: v1::Cancel) {
        let instance = self.instances.get_mut(&process).expect("an instance that is told to stop exists");
        if let Some(waiting) = &instance.waiting {
            let call = &self.calls[&instance.handed[0]];
            let waited: Vec<CallId> =
                waiting.requests.iter().filter_map(|r| call.children.get(r)).copied().collect();
            let awaited: Vec<u64> =
                waiting.requests.iter().copied().filter(|r| call.awaited.contains(r)).collect();
            if instance.cancel.as_ref().is_none_or(|c| !c.interrupt) {
                instance.cancel = Some(cancel);
            }
            for child in waited {
                self.abort(now, child, Code::Cancelled.because("the calling function was told to stop"));
            }
            for request in awaited {
                let origin = crate::Origin::Instance(process, request);
                self.stop_waiting(origin);
                self.cancel_forward(now, origin);
            }
            return;
        }
        if cancel.interrupt && !instance.attached {
            let more = if instance.runner.is_some() { crate::grid::STOP_ELSEWHERE } else { Duration::ZERO };
            instance.kill_by(now.mono + self.config.interrupt_grace + more);
        }
        if let Some(peer) = instance.peer {
            self.send(peer, Message::Cancel(cancel), Bytes::new());
        }
        self.watch(process);
    }
}

pub(crate) fn reply(request: u64, answer: Answer) -> (v1::Reply, Bytes) {
    let call = answer.call.map_or_else(Bytes::new, CallId::to_wire);
    match answer.result {
        Ok(success) => {
            let reply = v1::Reply {
                request,
                call,
                failure: None,
                content_type: success.content_type,
                http: success.http,
            };
            (reply, success.payload)
        }
        Err(failure) => {
            (v1::Reply { request, call, failure: Some(failure), ..Default::default() }, Bytes::new())
        }
    }
}
