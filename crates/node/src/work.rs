//! Durable calls: accepted, drawn from their lanes, tried again, ended.
//!
//! ```text
//! gateway, client -> node: call (async, or of a function with `retry`)    accepted once it is stored
//! worker -> node: call (async)                accepted with what the calling attempt changes
//! gateway -> node: Ask                        look, await, cancel, replay, purge
//! node -> gateway: Told                       how it stands
//! ```
//!
//! The partition ([`bourse_durable::work`]) keeps them. The node draws as many as its instances can take, and runs each
//! as any other call, with [`Origin::Work`] in the caller's place: whatever would be answered to a caller decides what
//! becomes of the call. Nested calls that are waited for are not durable: they are tried again with their caller.

mod publishing;
mod watching;

use std::time::Duration;

use bourse_durable as durable;
use bourse_durable::mutant::{self, Mutant};
use bourse_durable::work::retry::{self, Decision};
use bourse_durable::work::{IDEMPOTENCY_KEY_BYTES_MAX, Next, Taken};
use bourse_durable::{Finish, Finished, LayerId};
use bourse_wire::failure::Code;
use bourse_wire::id::{Attempt, CallId, FunctionName};
use bourse_wire::record::v1 as record;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::time::{DURATION_MAX, Mono, Now, millis};
use bourse_wire::v1;

use crate::batch::Rider;
use crate::call::{Call, Phase};
use crate::host::HostFunction;
use crate::keys::CallKeys;
use crate::message::{Event, Mode, NewCall, Origin, Success};
use crate::module::Module;
use crate::outcome::store_unavailable;
use crate::routing::AHEAD_TOTAL;
use crate::state::Asked;
use crate::timers::Timer;
use crate::{Answer, Node};

pub(crate) use self::publishing::{Publishing, Waiting};
pub(crate) use self::watching::Watcher;

/// So many durable calls are at home together before the next ones go elsewhere: what is written together should be.
const INTAKE_RUN: u64 = 256;
/// Before a call is drawn again that could not be settled, or whose last attempt still is being ended.
const PAUSE: Duration = Duration::from_millis(500);
/// Before a call is tried again that had to give its key up.
const DEADLOCK_PAUSE: Duration = Duration::from_millis(100);
/// The most durable calls that one attempt may make.
const EMITTED_MAX: usize = 10_000;
/// The most bytes of their arguments.
const EMITTED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most durable calls that are on their way into the store.
const ACCEPTING_MAX: usize = 10_000;
/// The most bytes of their arguments.
const ACCEPTING_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What is kept of a failure's texts, in bytes.
const FAILURE_TEXT_BYTES_MAX: usize = 64 * 1024;

/// A call on its way into the store.
pub(crate) struct Accepting {
    pub origin: Origin,
    pub function: FunctionName,
    /// The caller waits for the result: so long.
    pub wait: Option<Duration>,
}

/// An attempt that failed, on its way into the store.
pub(crate) struct Settling {
    pub lane: String,
    /// As it is, if it has ended with that.
    pub ended: Option<Box<record::Ended>>,
}

impl Node {
    /// Whether a call is to outlive whatever happens to its caller and to this node.
    pub(crate) fn is_durable(&self, call: &NewCall) -> bool {
        call.mode == Mode::Async
            || !call.idempotency_key.is_empty()
            || self.function_of(&call.function).is_some_and(|f| {
                f.retry.is_some() || f.unique.is_some() || f.debounce.is_some() || f.batch.is_some()
            })
    }

    /// Accepts a call from outside, or one that its caller (`by`) waits for and may share with others: it is answered when
    /// it is in the store, or when it has ended.
    pub(crate) fn accept_durable(
        &mut self,
        now: Now,
        origin: Origin,
        call: NewCall,
        keys: CallKeys,
        by: Option<CallId>,
    ) {
        if call.idempotency_key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let failure = Code::BadRequest
                .because(format!("an idempotency key has at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes"));
            self.answer(origin, Answer { call: None, result: Err(failure) });
            return;
        }
        if self.accepting.len() >= ACCEPTING_MAX
            || self.accepting_bytes + call.payload.len() > ACCEPTING_BYTES_MAX
        {
            let failure = Code::QueueFull
                .because(format!("{} durable calls are on their way into the store", self.accepting.len()))
                .hint("the store is slower than its callers: try again later")
                .retry_after(Duration::from_secs(1));
            self.answer(origin, Answer { call: None, result: Err(failure) });
            return;
        }
        self.use_store();
        self.accepting.insert(origin, call.payload.len());
        self.accepting_bytes += call.payload.len();
        let function = call.function.clone();
        if by.is_none() && self.modules.get(function.module()).is_some_and(|m| m.is_loading()) {
            self.door.push((origin, call));
            return;
        }
        let wait = (call.mode == Mode::Sync).then(|| self.timeout_of(&call));
        let wait = wait.map(|wait| match by.and_then(|by| self.calls.get(&by)) {
            Some(caller) => wait.min(caller.deadline.since(now.mono)),
            None => wait,
        });
        let home = keys.home(&call).unwrap_or_else(|| self.intake_home());
        let new = self.new_record(now, home, call, keys, by);
        let asked = Asked::Accept(Box::new(Accepting { origin, function, wait }));
        let ticket = self.ask(asked);
        self.durable.accept(now, new, ticket);
    }

    /// A running function makes a durable call: it is accepted when that takes effect.
    pub(crate) fn emit(&mut self, now: Now, by: CallId, call: NewCall) -> Result<CallId, v1::Failure> {
        if !call.idempotency_key.is_empty() {
            return Err(Code::BadRequest
                .because("a function's own calls take no idempotency key")
                .hint("they are accepted together with what the function changes, once"));
        }
        let caller = &self.calls[&by];
        if caller.emitted.len() >= EMITTED_MAX
            || caller.emitted_bytes + call.payload.len() > EMITTED_BYTES_MAX
        {
            return Err(Code::TooLarge
                .because(format!(
                    "one call makes at most {EMITTED_MAX} durable calls, of {EMITTED_BYTES_MAX} bytes in all"
                ))
                .hint("start some that start the others"));
        }
        let keys = self.keys_of(&call)?;
        self.use_store();
        let caller = &self.calls[&by];
        let with = self.durable.home_of(caller.layer()).map(|partition| partition.0);
        let own = || caller.is_work().then(|| by.home());
        let first = || caller.emitted.first().map(|first| first.call.home());
        let home = keys.home(&call).or(with).or_else(own).or_else(first);
        let home = home.unwrap_or_else(|| self.intake_home());
        let new = self.new_record(now, home, call, keys, Some(by));
        let id = new.call;
        let caller = self.calls.get_mut(&by).expect("it was just looked at");
        caller.emitted_bytes += new.record.arguments.len();
        caller.emitted.push(new);
        Ok(id)
    }

    pub(crate) fn new_record(
        &mut self,
        now: Now,
        home: u8,
        call: NewCall,
        keys: CallKeys,
        by: Option<CallId>,
    ) -> durable::work::NewCall {
        let id = self.entropy.call_id(now.wall).at(home);
        let caller = by.and_then(|by| self.calls.get(&by));
        let mut context = caller.map(|c| c.context.clone()).unwrap_or_default();
        context.extend(call.context);
        let inherited = caller.map(|c| c.traceparent.clone()).unwrap_or_default();
        let debounce = self.function_of(&call.function).and_then(|f| f.debounce.as_ref());
        let debounce_max_ms = debounce.and_then(|d| d.max).map_or(0, millis);
        let delay = debounce.map(|d| d.wait).or(call.delay).map(millis).filter(|ms| *ms > 0);
        let record = record::Call {
            function: call.function.as_str().to_owned(),
            version: call.version,
            arguments: call.payload,
            traceparent: if call.traceparent.is_empty() { inherited } else { call.traceparent },
            context,
            accepted_ms: now.wall.0,
            timeout_ms: call.timeout.filter(|_| call.mode == Mode::Async).map_or(0, millis),
            incarnation: self.incarnation.0,
            unique_ms: keys.unique.as_ref().map_or(0, |(_, window)| window.to_ms()),
            idempotency_key: keys.unique.map_or(call.idempotency_key, |(key, _)| key),
            exclusive_key: keys.exclusive.map(|name| name.key().to_owned()).unwrap_or_default(),
            depth: caller.map_or(call.depth, |c| c.depth + 1),
            parent: by.map(CallId::to_wire).unwrap_or_default(),
            trigger: call.trigger,
            due_ms: delay.map_or(0, |delay| now.wall.0.saturating_add(delay)),
            pause_ms: delay.unwrap_or_default(),
            delayed: delay.is_some(),
            debounce_max_ms,
            ..Default::default()
        };
        durable::work::NewCall { call: id, record }
    }

    fn intake_home(&mut self) -> u8 {
        self.intake += 1;
        ((self.intake / INTAKE_RUN) % 256) as u8
    }

    fn timeout_of(&self, call: &NewCall) -> Duration {
        let function = self.function_of(&call.function);
        let own = || function.and_then(|f| f.timeout);
        call.timeout.or_else(own).unwrap_or(self.config.of(call.function.module()).timeout).min(DURATION_MAX)
    }

    pub(crate) fn on_accept_answer(&mut self, now: Now, accepting: Accepting, answer: durable::Answer) {
        let Accepting { origin, function, wait } = accepting;
        self.accepting_bytes -= self.accepting.remove(&origin).unwrap_or_default();
        let failure = match answer {
            durable::Answer::Accepted { call, first } => {
                self.event(Event::Accepted { call, function, first });
                if let Some(failure) = self.waits_no_longer(origin, call) {
                    self.answer(origin, Answer { call: Some(call), result: Err(failure) });
                    return;
                }
                match wait {
                    None => self.answer(origin, Answer { call: Some(call), result: Ok(Success::default()) }),
                    Some(_) if self.draining => self.dismiss(Watcher::Caller(origin), call),
                    Some(wait) if first => self.watch_call(call, Watcher::Caller(origin), now.mono + wait),
                    // It may have ended long ago.
                    Some(wait) => self.on_await(now, origin, call, wait),
                }
                return;
            }
            durable::Answer::Finished(Finished::Unknown(why)) => Code::StoreUnavailable
                .because(format!("the store did not say whether the call was accepted: {why}"))
                .hint("call again with the same idempotency key, so that it is not run twice"),
            durable::Answer::Finished(Finished::Refused(refusal)) => crate::state::refused(&refusal),
            durable::Answer::Finished(Finished::StoreFailed(why)) | durable::Answer::StoreFailed(why) => {
                store_unavailable(&why)
            }
            _ => store_unavailable("the partition was lost"),
        };
        self.event(Event::CallRefused { function, failure: failure.clone() });
        self.answer(origin, Answer { call: None, result: Err(failure) });
    }

    // ------------------------------------------------------------ attempts

    /// Takes calls from the lanes, as many as instances can begin with soon.
    pub(crate) fn draw_work(&mut self, now: Now) {
        if self.draining || !self.keeps_store() {
            return;
        }
        let lanes: Vec<String> = self.durable.ready().map(str::to_owned).collect();
        for lane in lanes {
            if lane.parse::<FunctionName>().is_ok_and(|name| name.is_host()) {
                self.draw_host(now, &lane);
                continue;
            }
            // What is being loaded here may be just the version that a call needs.
            let serves = |m: &&Module| !m.removed && m.serving().is_some() && !m.is_loading();
            let Some(module) = self.modules.get(&lane).filter(serves) else {
                continue; // They wait until it is there again.
            };
            if let Some(until) = module.pause.until.filter(|until| *until > now.mono) {
                self.timers.set_earliest(Timer::Scale(lane), until);
                continue;
            }
            while self.wants_work(&lane)
                && let Some(taken) = self.durable.take(&lane)
            {
                self.begin_attempt(now, taken);
            }
        }
    }

    /// Whether few enough durable calls of a module stand in its queue: they are not to be in others' way.
    fn wants_work(&self, module: &str) -> bool {
        let Some((entry, revision)) = self.modules.get(module).and_then(|m| Some((m, m.serving_revision()?)))
        else {
            return false;
        };
        let quick =
            revision.functions.values().filter_map(|f| f.run_time).max().is_some_and(|t| t <= AHEAD_TOTAL);
        let each = if quick { 1 + self.config.ahead_max } else { 1 };
        entry.work_queued < (revision.instances.len() + 1) * each
    }

    pub(crate) fn begin_attempt(&mut self, now: Now, taken: Taken) {
        let Taken { call: id, attempt, redelivered, fence, record } = taken;
        let Ok(function) = record.function.parse::<FunctionName>() else {
            unreachable!("only calls of functions are accepted")
        };
        if self.calls.contains_key(&id) {
            // The attempt before is being ended.
            self.durable.put_back(now, function.lane(), id, PAUSE);
            return;
        }
        let batch = self.function_of(&function).and_then(|f| f.batch.clone());
        let taken = Taken { call: id, attempt, redelivered, fence, record };
        if let Some(batch) = batch {
            return self.join_batch(now, taken, &function, &batch);
        }
        if let Some(pause) = self.throttled(now, id, &function, &taken.record.arguments) {
            self.durable.give_back(now, function.lane(), id, pause);
            return;
        }
        self.run_attempt(now, taken, &function, None);
    }

    /// Runs a call, or a list of calls: then with these arguments, and the others of the list.
    pub(crate) fn run_attempt(
        &mut self,
        now: Now,
        taken: Taken,
        function: &FunctionName,
        list: Option<(bytes::Bytes, Vec<Rider>)>,
    ) {
        let Taken { call: id, attempt, redelivered, fence, record } = taken;
        let function = function.clone();
        let limit = Some(Duration::from_millis(record.timeout_ms)).filter(|t| !t.is_zero());
        let timeout = limit.or_else(|| self.function_of(&function).and_then(|f| f.timeout));
        let order = self.next_order;
        self.next_order += 1;
        let place = self.entropy.call_id(now.wall);
        let mut call =
            Call::durable((id, place, order), function, attempt, redelivered, timeout, Box::new(record), now);
        call.fence = fence;
        if let Some((arguments, riders)) = list {
            (call.is_list, call.payload, call.riders) = (true, arguments, riders);
        }
        self.by_origin.insert(Origin::Work(id), id);
        let (function, version) = (call.function.clone(), call.version.clone());
        self.calls.insert(id, call);
        match self.late_key(id) {
            Ok(Some(name)) => self.lock(id, name),
            Ok(None) => self.enter(now, id),
            Err(failure) => {
                self.enter(now, id);
                return self.abort(now, id, failure);
            }
        }
        if let Err(failure) = self.check_function(&function, &version) {
            self.abort(now, id, failure);
        }
    }

    /// The key of a durable call that was accepted before its function was known to be exclusive.
    fn late_key(&self, id: CallId) -> Result<Option<durable::work::KeyName>, v1::Failure> {
        let call = &self.calls[&id];
        let template = self.function_of(&call.function).and_then(|f| f.exclusive.as_ref());
        let Some(template) = template.filter(|_| call.key.is_none()) else { return Ok(None) };
        let arguments = crate::keys::read(&call.payload)?;
        crate::keys::exclusive(&call.function, template, &arguments).map(Some)
    }

    /// Whether the function that waits for a call can't any more, and why.
    fn waits_no_longer(&self, origin: Origin, call: CallId) -> Option<v1::Failure> {
        let Origin::Instance(process, request) = origin else { return None };
        let instance = self.instances.get(&process);
        let waits =
            instance.and_then(|i| i.running()).is_some_and(|id| self.calls[&id].awaited.contains(&request));
        let is_told_to_stop = instance.is_some_and(|i| i.cancel.is_some());
        (!waits || is_told_to_stop).then(|| {
            Code::Cancelled
                .because(format!("its caller does not wait for call {call} any more, which goes on"))
        })
    }

    /// An attempt has ended. What it changed has been committed with its result, or dropped.
    pub(crate) fn on_attempt_over(&mut self, now: Now, id: CallId, result: Result<Success, v1::Failure>) {
        match result {
            Ok(success) => {
                let call = self.calls.get_mut(&id).expect("the caller has looked it up");
                for rider in std::mem::take(&mut call.riders) {
                    let own = Success { payload: rider.result, ..success.clone() };
                    self.tell_result(rider.id, &Ok(own));
                }
                self.tell_result(id, &Ok(success));
            }
            Err(failure) => self.settle_failures(now, id, failure),
        }
    }

    /// What follows from a failed attempt, for each call that was run by it.
    fn settle_failures(&mut self, now: Now, id: CallId, failure: v1::Failure) {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        let riders = std::mem::take(&mut call.riders);
        let attempt = call.attempt.0;
        let record =
            call.durable.as_ref().expect("an attempt of a durable call has its record").record.clone();
        let module = call.function.lane().to_owned();
        for rider in riders {
            match failure.kind() {
                // Not this one was.
                Code::Cancelled => self.durable.put_back(now, &module, rider.id, Duration::ZERO),
                _ => self.settle_failure(now, rider.id, (rider.attempt, &rider.record), failure.clone()),
            }
        }
        self.settle_failure(now, id, (attempt, &record), failure);
    }

    /// Decides what follows from a failed attempt, and has it written.
    fn settle_failure(
        &mut self,
        now: Now,
        id: CallId,
        (attempt, before): (u32, &record::Call),
        failure: v1::Failure,
    ) {
        let Ok(function) = before.function.parse::<FunctionName>() else {
            unreachable!("only calls of functions are accepted")
        };
        let lane = function.lane().to_owned();
        let policy = match HostFunction::of(&function) {
            Some(host) => host.retry(),
            None => self.function_of(&function).and_then(|f| f.retry.clone()).unwrap_or_default(),
        };
        let layer = LayerId { call: id, attempt: Attempt(attempt) };
        let chance = self.entropy.upto(u64::MAX - 1);
        let deadlocked = self.calls.get(&id).is_some_and(|call| call.deadlocked);
        let tries = attempt.saturating_sub(before.attempts_before);
        let decision = match failure.kind() {
            Code::Cancelled => Decision::Discard,
            // The others go first.
            _ if deadlocked => Decision::Again { after: DEADLOCK_PAUSE * tries.clamp(1, 50), counts: false },
            _ => retry::decide(&policy, &failure, before.failures + 1, tries, chance),
        };
        let failure = shortened(failure);
        let record = |failures, after| {
            Box::new(record::Call {
                attempts: attempt,
                failures,
                due_ms: now.wall.0.saturating_add(millis(after)),
                pause_ms: millis(after).max(1),
                incarnation: self.incarnation.0,
                last_failure: Some(failure.clone()),
                frees_key: deadlocked,
                ..before.clone()
            })
        };
        let (next, event) = match decision {
            Decision::Again { after, counts } => {
                let counts = counts && !mutant::is(Mutant::FailuresNotCounted);
                let record = record(before.failures + u32::from(counts), after);
                let event = Event::Retried { call: id, function, attempt, failure: failure.clone(), after };
                (Next::Again { record, due: now.mono + after }, Some(event))
            }
            Decision::Dead => {
                let call = record(before.failures + 1, Duration::ZERO);
                let mut ended = ended(now, before, attempt, Status::Dead);
                ended.failure = Some(failure.clone());
                ended.call = Some(*call);
                let event = Event::DeadLettered { call: id, function, attempt, failure: failure.clone() };
                (Next::Ended(Box::new(ended)), Some(event))
            }
            Decision::Discard => {
                let mut ended = ended(now, before, attempt, Status::Cancelled);
                ended.failure = Some(failure.clone());
                (Next::Ended(Box::new(ended)), None)
            }
        };
        event.into_iter().for_each(|event| self.event(event));
        let ended = match &next {
            Next::Ended(ended) => Some(ended.clone()),
            Next::Again { .. } | Next::Tail(_) => None,
        };
        let asked = Asked::Settle(id, Box::new(Settling { lane, ended }));
        let ticket = self.ask(asked);
        // What the attempt has written stays with it, and goes when its instance is done with it: until then, what it calls
        // at its own home joins that.
        let layer = mutant::is(Mutant::FailedAttemptCommits).then_some(layer);
        match self.durable.settle(now, layer, id, next, Vec::new(), ticket) {
            Finish::Later => {}
            Finish::Now(finished) => {
                if let Some(Asked::Settle(id, settling)) = self.asked.remove(&ticket.0) {
                    self.on_failure_settled(now, id, *settling, finished);
                }
            }
        }
    }

    pub(crate) fn on_failure_settled(
        &mut self,
        now: Now,
        id: CallId,
        settling: Settling,
        finished: Finished,
    ) {
        match (finished, settling.ended) {
            (Finished::Done, Some(ended)) => self.tell_end(id, ended),
            (Finished::Done, None) => {}
            (Finished::Unknown(why), _) => self.tell_unknown(id, &why),
            // Nothing was written: it is tried again as if the attempt had not been.
            (_, _) => self.durable.put_back(now, &settling.lane, id, PAUSE),
        }
    }

    /// Has the result of a durable call written, together with what the attempt has changed.
    pub(crate) fn settle_result(&mut self, now: Now, id: CallId) -> Finish {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        let record = &call.durable.as_ref().expect("a durable call has its record").record;
        let mut ended = ended(now, record, call.attempt.0, Status::Done);
        let Phase::Committing { result, .. } = &call.phase else {
            unreachable!("a result is being committed")
        };
        ended.result = result.payload.clone();
        ended.content_type.clone_from(&result.content_type);
        ended.http.clone_from(&result.http);
        let others = call.riders.iter().map(|rider| {
            let own = self::ended(now, &rider.record, rider.attempt, Status::Done);
            let content_type = ended.content_type.clone();
            (rider.id, record::Ended { result: rider.result.clone(), content_type, ..own })
        });
        let others: Vec<_> = others.collect();
        self.settle_attempt(now, id, Next::Ended(Box::new(ended)), others)
    }

    /// Has what follows from an attempt that returned written, together with what it has changed and emitted.
    pub(crate) fn settle_attempt(
        &mut self,
        now: Now,
        id: CallId,
        next: Next,
        others: Vec<(CallId, record::Ended)>,
    ) -> Finish {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        call.deadline = Mono::MAX; // What is decided takes the time it takes.
        let (layer, emitted) = (call.layer(), std::mem::take(&mut call.emitted));
        let ticket = durable::Ticket(self.next_ticket);
        let finish = self.durable.settle_all(now, Some(layer), (id, next), others, emitted, ticket);
        if matches!(finish, Finish::Later) {
            self.ask(Asked::Finish(id));
        }
        finish
    }

    /// It is not known whether a call has ended: it will be run again if not, and nobody here has it any more.
    pub(crate) fn lose_sight(&mut self, id: CallId, why: &str) {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        call.origin = None;
        let riders = std::mem::take(&mut call.riders);
        self.by_origin.remove(&Origin::Work(id));
        self.forget(id);
        self.tell_unknown(id, why);
        riders.iter().for_each(|rider| self.tell_unknown(rider.id, why));
    }

    /// A durable call that has not started goes back to its lane.
    pub(crate) fn put_back_work(&mut self, now: Now, id: CallId, pause: Duration) {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        let lane = call.function.lane().to_owned();
        call.origin = None;
        let riders = std::mem::take(&mut call.riders);
        self.by_origin.remove(&Origin::Work(id));
        self.forget(id);
        self.durable.put_back(now, &lane, id, pause);
        riders.iter().for_each(|rider| self.durable.put_back(now, &lane, rider.id, pause));
    }
}

fn ended(now: Now, record: &record::Call, attempt: u32, status: Status) -> record::Ended {
    record::Ended {
        status: status.into(),
        function: record.function.clone(),
        accepted_ms: record.accepted_ms,
        ended_ms: now.wall.0,
        attempts: attempt.saturating_sub(record.attempts_before),
        idempotency_key: record.idempotency_key.clone(),
        exclusive_key: record.exclusive_key.clone(),
        exclusive_module: record.exclusive_module.clone(),
        step: record.step,
        ..Default::default()
    }
}

/// A failure's texts can be as long as a function likes.
fn shortened(mut failure: v1::Failure) -> v1::Failure {
    for text in [&mut failure.message, &mut failure.traceback, &mut failure.hint, &mut failure.r#type] {
        if text.len() > FAILURE_TEXT_BYTES_MAX {
            let cut = text.floor_char_boundary(FAILURE_TEXT_BYTES_MAX);
            text.truncate(cut);
            text.push('…');
        }
    }
    failure
}
