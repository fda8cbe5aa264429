//! What becomes of a call: it is answered exactly once, whatever happens to it.
//!
//! ```text
//! worker  -> node: result           committed, then answered; a conflict of state runs it again
//! gateway -> node: Cancel           a call that has not started never will; one that has is told
//! timers  -> node: the call is due  waited too long: no_capacity; ran too long: timeout, interrupt, kill
//! ```
//!
//! An answered call stays known as long as an instance has it or its commit is on the way.

use bourse_durable::mutant::{self, Mutant};
use bourse_durable::{Finish, Finished};
use bourse_wire::failure::Code;
use bourse_wire::id::{Attempt, CallId};
use bourse_wire::time::Now;
use bourse_wire::v1;
use bourse_wire::v1::to_worker::Message;
use bytes::Bytes;

use crate::call::Phase;
use crate::message::{Event, Level, Origin, Output, ProcessId, Success};
use crate::peers::Peer;
use crate::timers::Timer;
use crate::{Answer, Node};

/// So many attempts may end in a conflict of state before the caller is told.
pub(crate) const CONFLICTS_MAX: u32 = 8;

/// So many attempts an idempotent call has whose instances or nodes die.
const REPEATS_MAX: u32 = 4;

/// Why an attempt is run again whose partition had to be acquired anew: a batch of it failed.
const LOST: &str = "the store's partition was lost";

impl Node {
    /// An instance has answered its running call.
    pub(crate) fn on_result(&mut self, now: Now, process: ProcessId, result: v1::Result, payload: Bytes) {
        let instance = self.instances.get_mut(&process).expect("a frame is from an instance that exists");
        let repeated = (1..=instance.acked).contains(&result.seq);
        instance.acked = instance.acked.max(result.seq);
        let running = instance.running();
        let answered = CallId::from_wire(&result.call);
        let Some(id) =
            answered.filter(|id| Some(*id) == running && self.calls[id].attempt.0 == result.attempt)
        else {
            let which = answered.map_or_else(|| "a call without an id".to_owned(), |id| format!("call {id}"));
            let text = format!(
                "instance {} of {} answered {which}, which it does not run: ignored",
                process.0, instance.module
            );
            // After a reconnect a worker sends again what was not acknowledged.
            self.note(if repeated { Level::Debug } else { Level::Warning }, text);
            return;
        };
        if instance.waiting.is_some() {
            self.expel(now, process, "it answered a call while that waited for others");
            return;
        }
        instance.handed.pop_front();
        instance.load = instance.load.saturating_sub(self.calls[&id].estimate);
        instance.proven = true;
        if instance.exit.is_none() {
            instance.kill_at = None;
        }
        if let Some(module) = self.modules.get_mut(&instance.module)
            && module.pause.failures > 0
        {
            module.pause = crate::module::Pause::default();
        }
        let call = &self.calls[&id];
        let Phase::Running(_, since) = call.phase else { unreachable!("the first of the handed calls runs") };
        let ran = now.mono.since(since);
        if self.instances[&process].runner.is_none() {
            self.learn_run_time(id, ran); // From elsewhere it would count the way there and back.
        }
        self.abort_children(now, id);
        self.advance(now, process);
        if self.calls[&id].guest.is_some() {
            return self.answer_guest(now, id, result, payload);
        }
        self.close_attempt(now, id, result, payload, ran);
    }

    fn learn_run_time(&mut self, id: CallId, ran: std::time::Duration) {
        let name = &self.calls[&id].function;
        let module = self.modules.get_mut(name.module());
        if let Some(function) = module.and_then(|m| m.function_mut(name.function())) {
            function.ran(ran);
        }
    }

    /// The attempt has ended with a result; what it wrote is committed or dropped.
    pub(crate) fn close_attempt(
        &mut self,
        now: Now,
        id: CallId,
        result: v1::Result,
        payload: Bytes,
        ran: std::time::Duration,
    ) {
        self.limit_again(now, id);
        let call = &self.calls[&id];
        let layer = call.layer();
        if call.origin.is_none() {
            self.durable.abandon(layer);
            self.forget(id);
            return;
        }
        let mut tail = None;
        let refused = match (result.failure, result.tail) {
            (Some(failure), _) => Some(failure),
            (None, next) if payload.len() > self.config.payload_bytes_max => {
                let what = if next.is_some() { "arguments" } else { "result" };
                let (has, most) = (payload.len(), self.config.payload_bytes_max);
                let verb = if next.is_some() { "have" } else { "has" };
                Some(
                    Code::TooLarge
                        .because(format!("the {what} {verb} {has} bytes, at most {most} are allowed")),
                )
            }
            (None, Some(_)) if self.calls[&id].is_list => Some(
                Code::BadState
                    .because("a function that takes lists hands nothing on")
                    .hint("start calls of the next function instead"),
            ),
            (None, _) if !result.writes.is_empty() && !self.keeps_store() => {
                // No instance has it any more.
                let call = self.calls.get_mut(&id).expect("it was there above");
                call.phase = Phase::Committing { result: Success::default(), ran };
                self.durable.abandon(layer);
                self.forward_begun(now, id);
                self.forget(id);
                return;
            }
            (None, next) => {
                let admitted = next.map(|next| self.admit_tail(next)).transpose();
                admitted.map(|next| tail = next).and_then(|()| self.write(id, result.writes)).err()
            }
        };
        if self.calls[&id].lost {
            self.durable.abandon(layer);
            self.rerun(now, id, LOST);
            return;
        }
        if let Some(failure) = refused {
            if !mutant::is(Mutant::FailedAttemptCommits) || !self.calls[&id].is_work() {
                self.durable.abandon(layer);
            }
            self.conclude(now, id, Err(failure));
            self.forget(id);
            return;
        }
        let success = Success { payload, content_type: result.content_type, http: result.http };
        let success = match self.calls[&id].is_list {
            false => success,
            true => match self.split_result(id, success) {
                Ok(success) => success,
                Err(failure) => {
                    self.durable.abandon(layer);
                    self.conclude(now, id, Err(failure));
                    self.forget(id);
                    return;
                }
            },
        };
        let call = self.calls.get_mut(&id).expect("it was there above");
        call.phase = Phase::Committing { result: success, ran };
        call.tail.clone_from(&tail);
        let finish = match (self.calls[&id].is_work(), tail) {
            (true, Some(tail)) => self.settle_tail(now, id, &tail),
            (true, None) => self.settle_result(now, id),
            (false, _) => self.finish(id),
        };
        match finish {
            Finish::Now(finished) => self.on_finished(now, id, finished),
            Finish::Later => {}
        }
    }

    /// What became of an attempt's state changes.
    pub(crate) fn on_finished(&mut self, now: Now, id: CallId, finished: Finished) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.origin.is_none() {
            self.forget(id);
            return;
        }
        let failure = match finished {
            Finished::Done => {
                let Phase::Committing { result, .. } = &mut call.phase else {
                    unreachable!("only a committing call is finished")
                };
                let result = std::mem::take(result);
                if let Some(tail) = call.tail.take() {
                    return self.hand_on(now, id, tail, result.payload);
                }
                self.conclude(now, id, Ok(result));
                self.forget(id);
                return;
            }
            Finished::Conflict => return self.rerun(now, id, "the state that it read was changed meanwhile"),
            Finished::Lost => return self.rerun(now, id, LOST),
            Finished::StoreFailed(why) => store_unavailable(&why),
            Finished::Unknown(why) if call.is_work() => return self.lose_sight(id, &why),
            Finished::Unknown(why) => Code::StoreUnavailable
                .because(format!("the store did not say whether the call took effect: {why}"))
                .hint("read the state before you call again"),
            Finished::Refused(refusal) => crate::state::refused(&refusal),
        };
        self.conclude(now, id, Err(failure));
        self.forget(id);
    }

    /// Another attempt, at the call's old place in the queue.
    fn rerun(&mut self, now: Now, id: CallId, why: &str) {
        let call = self.calls.get_mut(&id).expect("a call that is run again exists");
        call.conflicts += 1;
        call.lost = false;
        call.queue_until = now.mono + call.queue_wait;
        if call.conflicts >= CONFLICTS_MAX {
            let text = format!("{why}, in each of {CONFLICTS_MAX} attempts");
            let failure = if why == LOST {
                store_unavailable(&text)
            } else {
                let hint = "spread the writes over more keys, or do less between reading and writing";
                Code::Conflict.because(text).hint(hint)
            };
            self.conclude(now, id, Err(failure));
            self.forget(id);
            return;
        }
        self.another_attempt(id);
        self.queue_again(now, id);
    }

    /// Whether a call whose instance or node is gone is tried again: it is `idempotent`, and somebody waits. A durable call is
    /// tried again by its own rules.
    pub(crate) fn may_repeat(&self, id: CallId) -> bool {
        let call = &self.calls[&id];
        let idempotent = self.function_of(&call.function).is_some_and(|f| f.idempotent);
        idempotent && call.origin.is_some() && !call.is_work() && call.attempt.0 < REPEATS_MAX
    }

    /// Another attempt of a call whose instance or node is gone.
    pub(crate) fn repeat(&mut self, now: Now, id: CallId) {
        self.abort_children(now, id);
        self.durable.abandon(self.calls[&id].layer());
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        call.queue_until = now.mono + call.queue_wait;
        self.another_attempt(id);
        self.queue_again(now, id);
    }

    /// Whatever still comes of the attempt before is not heard.
    pub(crate) fn another_attempt(&mut self, id: CallId) {
        let call = self.calls.get_mut(&id).expect("a call that is tried again exists");
        call.attempt = Attempt(call.attempt.0 + 1);
        call.redelivered = true;
        if !mutant::is(Mutant::EmittedIsKept) {
            call.emitted.clear();
        }
        call.emitted_bytes = 0;
        call.tail = None;
        if call.is_work() {
            let (lane, attempt) = (call.function.lane().to_owned(), call.attempt.0);
            self.durable.renumber(&lane, id, attempt);
            for rider in &mut call.riders {
                rider.attempt += 1;
                self.durable.renumber(&lane, rider.id, rider.attempt);
            }
        }
        self.renew_fence(id);
    }

    /// Ends a call early, wherever it is.
    pub(crate) fn abort(&mut self, now: Now, id: CallId, failure: v1::Failure) {
        if self.calls[&id].is_work() && self.is_committing(id) {
            return; // Its end is being written: nothing else can become of it.
        }
        if self.calls[&id].guest.is_some() {
            return self.end_guest(now, id, failure);
        }
        let interrupt = failure.kind() == Code::Timeout;
        let reason = failure.message.clone();
        self.conclude(now, id, Err(failure));
        let call = &self.calls[&id];
        match call.phase {
            Phase::Locked => self.forget(id),
            Phase::Queued => {
                self.unqueue(id);
                self.forget(id);
            }
            Phase::Ahead(process) => self.recall(process),
            Phase::Performing(_) => {
                self.desist(id);
                self.forget(id);
            }
            Phase::Running(process, _) => {
                let cancel = v1::Cancel { call: id.to_wire(), attempt: call.attempt.0, interrupt, reason };
                // Children that it does not wait for stay as they are: it may want to clean up with their help.
                self.tell_to_stop(now, process, cancel);
            }
            Phase::Committing { .. } => {}
        }
    }

    /// The calls that an attempt leaves behind are of no use to anybody.
    pub(crate) fn abort_children(&mut self, now: Now, id: CallId) {
        let call = self.calls.get_mut(&id).expect("an attempt that ends exists");
        let children = std::mem::take(&mut call.children);
        let awaited = std::mem::take(&mut call.awaited);
        if let Phase::Running(process, _) = call.phase {
            for request in awaited {
                self.unwatch(Origin::Instance(process, request));
                self.drop_forward(now, Origin::Instance(process, request));
            }
        }
        for child in children.into_values() {
            self.abort(now, child, Code::Cancelled.because("the calling function has ended"));
        }
    }

    /// The caller does not want the answer any more.
    pub(crate) fn on_cancel(&mut self, now: Now, origin: Origin) {
        // A durable call goes on without its caller.
        self.stop_waiting(origin);
        self.cancel_forward(now, origin);
        if let Some(id) = self.by_origin.get(&origin).copied() {
            self.abort(now, id, Code::Cancelled.because("the caller cancelled the call, or went away"));
        }
    }

    /// A call has waited or run for too long.
    pub(crate) fn on_call_due(&mut self, now: Now, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        if call.due() > now.mono {
            self.timers.set(Timer::Call(id), call.due());
            return;
        }
        let late = now.mono >= call.deadline;
        match call.phase {
            Phase::Locked | Phase::Queued if !late => {
                let failure = self.no_capacity(id, now);
                self.abort(now, id, failure);
            }
            // Nobody waits for it, but it has had its time all the same.
            Phase::Running(process, _) if call.origin.is_none() => {
                let cancel = v1::Cancel {
                    call: id.to_wire(),
                    attempt: call.attempt.0,
                    interrupt: true,
                    reason: "its time is over".to_owned(),
                };
                self.tell_to_stop(now, process, cancel);
            }
            Phase::Locked
            | Phase::Queued
            | Phase::Ahead(_)
            | Phase::Running(..)
            | Phase::Performing(_)
            | Phase::Committing { .. } => {
                let what = match call.phase {
                    Phase::Locked => format!("waited for {}", self.key_not_free(id)),
                    Phase::Queued | Phase::Ahead(_) => "waited for an instance".to_owned(),
                    Phase::Running(..) | Phase::Performing(_) => "ran".to_owned(),
                    Phase::Committing { .. } => "waited for the store".to_owned(),
                };
                let took = now.mono.since(call.accepted);
                let failure = Code::Timeout
                    .because(format!(
                        "{} {what} until its time was over, after {}",
                        call.function,
                        seconds(took)
                    ))
                    .hint("raise the function's `timeout`, or make it shorter");
                if call.origin.is_some() {
                    self.abort(now, id, failure);
                }
            }
        }
    }

    pub(crate) fn no_capacity(&self, id: CallId, now: Now) -> v1::Failure {
        let call = &self.calls[&id];
        let name = call.function.module();
        let module = &self.modules[name];
        let waited = seconds(now.mono.since(call.accepted));
        if let (None, Some(failure)) = (module.serving(), &module.failure) {
            return failure.clone();
        }
        if matches!(call.phase, Phase::Locked) {
            return Code::NoCapacity
                .because(format!("{} waited {waited} for {}", call.function, self.key_not_free(id)))
                .hint("raise `queue_wait`, make it durable (`async`), or hold the key for less long")
                .retry_after(std::time::Duration::from_secs(1));
        }
        if call.is_abroad {
            let versions = self.versions_elsewhere(&call.function);
            return Code::NoCapacity
                .because(format!(
                    "{} waited {waited} for a node that runs it: this one does not, and no other had a slot free (versions: {versions})",
                    call.function
                ))
                .hint("`bourse market` shows who sells what; raise `queue_wait`, or have more nodes serve it")
                .retry_after(std::time::Duration::from_secs(1));
        }
        let instances = module.serving_revision().map_or(0, |r| r.instances.len());
        Code::NoCapacity
            .because(format!(
                "{} waited {waited} for an instance of {name}: there are {instances}, and {} {} for them",
                call.function,
                module.waiting(),
                if module.waiting() == 1 { "call waits" } else { "calls wait" }
            ))
            .hint("raise `queue_wait`, or `instances_max` of the module, or `running` of the daemon")
            .retry_after(std::time::Duration::from_secs(1))
    }

    /// Gives the answer, once.
    pub(crate) fn conclude(&mut self, now: Now, id: CallId, result: Result<Success, v1::Failure>) {
        let Some(origin) = self.release(id) else { return };
        let call = &self.calls[&id];
        let started = call.started.unwrap_or(now.mono);
        let ran = match &call.phase {
            Phase::Committing { ran, .. } => *ran,
            _ => now.mono.since(started),
        };
        let event = Event::CallDone {
            call: id,
            function: call.function.clone(),
            failure: result.as_ref().err().cloned(),
            waited: started.since(call.accepted),
            ran,
        };
        self.event(event);
        match origin {
            Origin::Work(_) => self.on_attempt_over(now, id, result),
            _ => self.answer(origin, Answer { call: Some(id), result }),
        }
    }

    /// From now on the call is not the one that answers its caller; who that is.
    pub(crate) fn release(&mut self, id: CallId) -> Option<Origin> {
        let call = self.calls.get_mut(&id).expect("a call that is answered exists");
        let origin = call.origin.take()?;
        let parent = call.parent();
        self.by_origin.remove(&origin);
        if let Origin::Peer(peer, _) = origin
            && let Some(Peer::Client { open }) = self.peers.get_mut(&peer)
        {
            *open -= 1;
        }
        if let (Some(parent), Origin::Instance(_, request)) = (parent, origin)
            && let Some(parent) = self.calls.get_mut(&parent.call)
        {
            parent.children.remove(&request);
        }
        Some(origin)
    }

    /// Sends an answer to wherever it is wanted.
    pub(crate) fn answer(&mut self, origin: Origin, answer: Answer) {
        match origin {
            Origin::Gateway(ticket) => self.outputs.push_back(Output::Reply { ticket, answer }),
            Origin::Instance(process, request) => self.deliver(process, request, answer),
            Origin::Work(_) => unreachable!("a durable call's end is settled, not answered"),
            Origin::Buyer(_) => unreachable!("a guest's end is the buyer's business"),
            Origin::Node(link, request) => self.answer_node(link, request, answer),
            Origin::Own(_) => {
                if let Err(failure) = answer.result {
                    let what = "the function that is to be told of a shortage was not called";
                    self.note(Level::Warning, format!("{what}: {}", failure.message));
                }
            }
            Origin::Peer(peer, request) => {
                if self.peers.contains_key(&peer) {
                    let (reply, payload) = crate::nested::reply(request, answer);
                    self.send(peer, Message::Reply(reply), payload);
                }
            }
        }
    }

    /// An answered call that no instance has any more.
    pub(crate) fn forget(&mut self, id: CallId) {
        if matches!(self.calls[&id].phase, Phase::Locked) {
            self.leave_lock(id);
        }
        let call = self.calls.remove(&id).expect("a call that is forgotten exists");
        assert!(call.children.is_empty(), "an attempt's calls end with the attempt");
        assert!(call.origin.is_none(), "a call is answered before it is forgotten");
        self.timers.clear(&Timer::Call(id));
        self.unkeyed.remove(&id);
        if let Some(name) = &call.key {
            self.durable.unlock(name, id);
        }
    }
}

pub(crate) fn store_unavailable(why: &str) -> v1::Failure {
    Code::StoreUnavailable
        .because(format!("the store does not answer: {why}"))
        .hint("the call had no effect; try again when the store is back")
        .retry_after(std::time::Duration::from_secs(1))
}

fn seconds(d: std::time::Duration) -> String {
    format!("{:.3} s", d.as_secs_f64())
}
