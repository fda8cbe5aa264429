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

use std::time::Duration;

use bourse_durable as durable;
use bourse_durable::mutant::{self, Mutant};
use bourse_durable::work::retry::{self, Decision};
use bourse_durable::work::{IDEMPOTENCY_KEY_BYTES_MAX, Next, Seen, Taken};
use bourse_durable::{Finish, Finished};
use bourse_wire::failure::Code;
use bourse_wire::id::{CallId, FunctionName};
use bourse_wire::record::v1 as record;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::time::{DURATION_MAX, Mono, Now, millis};
use bourse_wire::v1;

use crate::call::{Call, Phase};
use crate::message::{Ask, Event, Mode, NewCall, Origin, Output, Success, Ticket};
use crate::outcome::store_unavailable;
use crate::routing::AHEAD_TOTAL;
use crate::state::Asked;
use crate::timers::Timer;
use crate::{Answer, Node};

/// So many durable calls are at home together before the next ones go elsewhere: what is written together should be.
const INTAKE_RUN: u64 = 256;
/// Before a call is drawn again that could not be settled, or whose last attempt still is being ended.
const PAUSE: Duration = Duration::from_millis(500);
/// The most durable calls that one attempt may make.
const EMITTED_MAX: usize = 10_000;
/// The most bytes of their arguments.
const EMITTED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What is kept of a failure's texts, in bytes.
const FAILURE_TEXT_BYTES_MAX: usize = 64 * 1024;

/// Who waits for the end of a durable call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watcher {
    /// A caller, for its result.
    Caller(Origin),
    /// The gateway, for how it stands then.
    Ticket(Ticket),
}

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
        call.mode == Mode::Async || self.function_of(&call.function).is_some_and(|f| f.retry.is_some())
    }

    /// Accepts a call from outside: it is answered when it is in the store, or when it has ended.
    pub(crate) fn accept_durable(&mut self, now: Now, origin: Origin, call: NewCall) {
        if call.idempotency_key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let failure = Code::BadRequest
                .because(format!("an idempotency key has at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes"));
            self.answer(origin, Answer { call: None, result: Err(failure) });
            return;
        }
        let function = call.function.clone();
        let wait = (call.mode == Mode::Sync).then(|| self.timeout_of(&call));
        let home = if call.idempotency_key.is_empty() {
            self.intake_home()
        } else {
            durable::work::NewCall::home_of_key(function.module(), function.function(), &call.idempotency_key)
        };
        let new = self.new_record(now, home, call, None);
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
        let with = self.durable.home_of(caller.layer()).map(|partition| partition.0);
        let own = || caller.is_work().then(|| by.home());
        let first = || caller.emitted.first().map(|first| first.call.home());
        let home = with.or_else(own).or_else(first).unwrap_or_else(|| self.intake_home());
        let new = self.new_record(now, home, call, Some(by));
        let id = new.call;
        let caller = self.calls.get_mut(&by).expect("it was just looked at");
        caller.emitted_bytes += new.record.arguments.len();
        caller.emitted.push(new);
        Ok(id)
    }

    fn new_record(
        &mut self,
        now: Now,
        home: u8,
        call: NewCall,
        by: Option<CallId>,
    ) -> durable::work::NewCall {
        let id = self.entropy.call_id(now.wall).at(home);
        let caller = by.and_then(|by| self.calls.get(&by));
        let mut context = caller.map(|c| c.context.clone()).unwrap_or_default();
        context.extend(call.context);
        let inherited = caller.map(|c| c.traceparent.clone()).unwrap_or_default();
        let record = record::Call {
            function: call.function.as_str().to_owned(),
            version: call.version,
            arguments: call.payload,
            traceparent: if call.traceparent.is_empty() { inherited } else { call.traceparent },
            context,
            accepted_ms: now.wall.0,
            timeout_ms: call.timeout.filter(|_| call.mode == Mode::Async).map_or(0, millis),
            incarnation: self.incarnation.0,
            idempotency_key: call.idempotency_key,
            depth: caller.map_or(0, |c| c.depth + 1),
            parent: by.map(CallId::to_wire).unwrap_or_default(),
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
        let failure = match answer {
            durable::Answer::Accepted { call, first } => {
                self.event(Event::Accepted { call, function, first });
                match wait {
                    None => self.answer(origin, Answer { call: Some(call), result: Ok(Success::default()) }),
                    Some(wait) => self.watch_call(call, Watcher::Caller(origin), now.mono + wait),
                }
                return;
            }
            durable::Answer::Finished(Finished::Unknown(why)) => Code::StoreUnavailable
                .because(format!("the store did not say whether the call was accepted: {why}"))
                .hint("call again with the same idempotency key, so that it is not run twice"),
            durable::Answer::Finished(Finished::Refused(refusal)) => Code::StoreUnavailable
                .because(refusal.to_string())
                .hint(refusal.hint())
                .retry_after(Duration::from_secs(1)),
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
        if self.draining {
            return;
        }
        let lanes: Vec<String> = self.durable.ready().map(str::to_owned).collect();
        for lane in lanes {
            let Some(module) = self.modules.get(&lane).filter(|m| !m.removed && m.serving().is_some()) else {
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

    fn begin_attempt(&mut self, now: Now, taken: Taken) {
        let Taken { call: id, attempt, redelivered, record } = taken;
        let Ok(function) = record.function.parse::<FunctionName>() else {
            unreachable!("only calls of functions are accepted")
        };
        if self.calls.contains_key(&id) {
            // The attempt before is being ended.
            self.durable.put_back(now, function.module(), id, PAUSE);
            return;
        }
        let limit = Some(Duration::from_millis(record.timeout_ms)).filter(|t| !t.is_zero());
        let timeout = limit.or_else(|| self.function_of(&function).and_then(|f| f.timeout));
        let order = self.next_order;
        self.next_order += 1;
        let place = self.entropy.call_id(now.wall);
        let call =
            Call::durable((id, place, order), function, attempt, redelivered, timeout, Box::new(record), now);
        self.by_origin.insert(Origin::Work(id), id);
        let (function, version) = (call.function.clone(), call.version.clone());
        self.calls.insert(id, call);
        self.queue(id);
        if let Err(failure) = self.check_function(&function, &version) {
            self.abort(now, id, failure);
        }
    }

    /// An attempt has ended. What it changed has been committed with its result, or dropped.
    pub(crate) fn on_attempt_over(&mut self, now: Now, id: CallId, result: Result<Success, v1::Failure>) {
        match result {
            Ok(success) => self.tell_result(id, &Ok(success)),
            Err(failure) => self.settle_failure(now, id, failure),
        }
    }

    /// Decides what follows from a failed attempt, and has it written.
    fn settle_failure(&mut self, now: Now, id: CallId, failure: v1::Failure) {
        let call = &self.calls[&id];
        let function = call.function.clone();
        let lane = function.module().to_owned();
        let details = call.durable.as_ref().expect("an attempt of a durable call has its record");
        let before = &details.record;
        let policy = self.function_of(&function).and_then(|f| f.retry.clone()).unwrap_or_default();
        let attempt = call.attempt.0;
        let layer = call.layer();
        let chance = self.entropy.upto(u64::MAX - 1);
        let decision = match failure.kind() {
            Code::Cancelled => Decision::Discard,
            _ => retry::decide(&policy, &failure, before.failures + 1, attempt, chance),
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
                ..(**before).clone()
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
                let mut ended = self.ended(now, id, Status::Dead);
                ended.failure = Some(failure.clone());
                ended.call = Some(*call);
                let event = Event::DeadLettered { call: id, function, attempt, failure: failure.clone() };
                (Next::Ended(Box::new(ended)), Some(event))
            }
            Decision::Discard => {
                let mut ended = self.ended(now, id, Status::Cancelled);
                ended.failure = Some(failure.clone());
                (Next::Ended(Box::new(ended)), None)
            }
        };
        event.into_iter().for_each(|event| self.event(event));
        if !mutant::is(Mutant::FailedAttemptCommits) {
            self.durable.abandon(layer);
        }
        let ended = match &next {
            Next::Ended(ended) => Some(ended.clone()),
            Next::Again { .. } => None,
        };
        let asked = Asked::Settle(id, Box::new(Settling { lane, ended }));
        let ticket = self.ask(asked);
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
        let mut ended = self.ended(now, id, Status::Done);
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        let Phase::Committing { result, .. } = &call.phase else {
            unreachable!("a result is being committed")
        };
        ended.result = result.payload.clone();
        ended.content_type.clone_from(&result.content_type);
        ended.http.clone_from(&result.http);
        call.deadline = Mono::MAX; // What is decided takes the time it takes.
        let (layer, emitted) = (call.layer(), std::mem::take(&mut call.emitted));
        let ticket = durable::Ticket(self.next_ticket);
        let finish = self.durable.settle(now, layer, id, Next::Ended(Box::new(ended)), emitted, ticket);
        if matches!(finish, Finish::Later) {
            self.ask(Asked::Finish(id));
        }
        finish
    }

    fn ended(&self, now: Now, id: CallId, status: Status) -> record::Ended {
        let call = &self.calls[&id];
        let record = &call.durable.as_ref().expect("a durable call has its record").record;
        record::Ended {
            status: status.into(),
            function: record.function.clone(),
            accepted_ms: record.accepted_ms,
            ended_ms: now.wall.0,
            attempts: call.attempt.0,
            idempotency_key: record.idempotency_key.clone(),
            ..Default::default()
        }
    }

    /// It is not known whether a call has ended: it will be run again if not, and nobody here has it any more.
    pub(crate) fn lose_sight(&mut self, id: CallId, why: &str) {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        call.origin = None;
        self.by_origin.remove(&Origin::Work(id));
        self.forget(id);
        self.tell_unknown(id, why);
    }

    /// A durable call that has not started goes back to its lane.
    pub(crate) fn put_back_work(&mut self, now: Now, id: CallId, pause: Duration) {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        let lane = call.function.module().to_owned();
        call.origin = None;
        self.by_origin.remove(&Origin::Work(id));
        self.forget(id);
        self.durable.put_back(now, &lane, id, pause);
    }

    // ------------------------------------------------------------ those who wait

    fn watch_call(&mut self, call: CallId, watcher: Watcher, until: Mono) {
        let origin = watcher.origin();
        self.watchers.entry(call).or_default().push(watcher);
        self.watched.insert(origin, call);
        self.timers.set(Timer::Caller(origin), until);
    }

    /// Nobody waits there any more.
    pub(crate) fn unwatch(&mut self, origin: Origin) -> Option<CallId> {
        let call = self.watched.remove(&origin)?;
        self.timers.clear(&Timer::Caller(origin));
        if let Some(watchers) = self.watchers.get_mut(&call) {
            watchers.retain(|watcher| watcher.origin() != origin);
            if watchers.is_empty() {
                self.watchers.remove(&call);
            }
        }
        Some(call)
    }

    /// Who waits for a durable call has waited long enough. The call goes on.
    pub(crate) fn on_caller_due(&mut self, origin: Origin) {
        let Some(call) = self.watched.get(&origin).copied() else { return };
        let watchers = self.watchers.get(&call).expect("who is watched has watchers");
        let watcher = watchers.iter().find(|w| w.origin() == origin).copied();
        self.unwatch(origin);
        if let Some(Watcher::Caller(origin)) = watcher {
            let failure = Code::Timeout
                .because(format!(
                    "call {call} has not ended in the time that its caller gives it; it goes on"
                ))
                .hint(format!("GET /v1/calls/{call} tells what becomes of it"));
            self.answer(origin, Answer { call: Some(call), result: Err(failure) });
        }
    }

    fn tell_result(&mut self, id: CallId, result: &Result<Success, v1::Failure>) {
        for watcher in self.watchers_of(id) {
            match watcher {
                Watcher::Caller(origin) => {
                    self.answer(origin, Answer { call: Some(id), result: result.clone() })
                }
                // It is asked for as it is stored.
                Watcher::Ticket(ticket) => self.look(ticket, id, false),
            }
        }
    }

    fn tell_end(&mut self, id: CallId, ended: Box<record::Ended>) {
        for watcher in self.watchers_of(id) {
            match watcher {
                Watcher::Caller(origin) => {
                    self.answer(origin, Answer { call: Some(id), result: result_of(&ended) });
                }
                Watcher::Ticket(ticket) => {
                    let told = Ok(Box::new(Seen::Ended(ended.clone())));
                    self.outputs.push_back(Output::Told { ticket, told });
                }
            }
        }
    }

    fn tell_unknown(&mut self, id: CallId, why: &str) {
        let failure = Code::StoreUnavailable
            .because(format!("the store does not say how call {id} stands: {why}"))
            .hint(format!("it is found out and done; GET /v1/calls/{id} tells what becomes of it"));
        for watcher in self.watchers_of(id) {
            let failure = failure.clone();
            match watcher {
                Watcher::Caller(origin) => {
                    self.answer(origin, Answer { call: Some(id), result: Err(failure) })
                }
                Watcher::Ticket(ticket) => {
                    self.outputs.push_back(Output::Told { ticket, told: Err(failure) })
                }
            }
        }
    }

    fn watchers_of(&mut self, id: CallId) -> Vec<Watcher> {
        let watchers = self.watchers.remove(&id).unwrap_or_default();
        for watcher in &watchers {
            self.watched.remove(&watcher.origin());
            self.timers.clear(&Timer::Caller(watcher.origin()));
        }
        watchers
    }

    // ------------------------------------------------------------ questions

    pub(crate) fn on_ask(&mut self, now: Now, ticket: Ticket, call: CallId, ask: Ask) {
        match ask {
            Ask::Look => self.look(ticket, call, false),
            Ask::Await => {
                self.watch_call(call, Watcher::Ticket(ticket), Mono::MAX);
                self.look(ticket, call, true);
            }
            Ask::Cancel => self.cancel_work(now, ticket, call),
            Ask::Replay => {
                let asked = self.ask(Asked::Seen { ticket, call, awaits: false });
                self.durable.replay(now, call, asked);
            }
            Ask::Purge => {
                let asked = self.ask(Asked::Seen { ticket, call, awaits: false });
                self.durable.purge(now, call, asked);
            }
        }
    }

    /// A client wants to know how a call ends.
    pub(crate) fn on_await(&mut self, now: Now, origin: Origin, call: CallId, timeout: Duration) {
        self.watch_call(call, Watcher::Caller(origin), now.mono + timeout);
        let asked = self.ask(Asked::Awaited { origin, call });
        self.durable.look(call, asked);
    }

    /// It can be told now how a call stands: whoever waits for its end may have missed that.
    pub(crate) fn look_again(&mut self, call: CallId) {
        for watcher in self.watchers.get(&call).cloned().unwrap_or_default() {
            match watcher {
                Watcher::Ticket(ticket) => self.look(ticket, call, true),
                Watcher::Caller(origin) => {
                    let asked = self.ask(Asked::Awaited { origin, call });
                    self.durable.look(call, asked);
                }
            }
        }
    }

    fn look(&mut self, ticket: Ticket, call: CallId, awaits: bool) {
        let asked = self.ask(Asked::Seen { ticket, call, awaits });
        self.durable.look(call, asked);
    }

    fn cancel_work(&mut self, now: Now, ticket: Ticket, id: CallId) {
        let why = Code::Cancelled.because("it was cancelled by request");
        if self.by_origin.contains_key(&Origin::Work(id)) && !self.is_committing(id) {
            self.watch_call(id, Watcher::Ticket(ticket), Mono::MAX);
            self.abort(now, id, why);
            return;
        }
        let ended = record::Ended {
            status: Status::Cancelled.into(),
            ended_ms: now.wall.0,
            failure: Some(why),
            ..Default::default()
        };
        let asked = self.ask(Asked::Seen { ticket, call: id, awaits: false });
        self.durable.cancel(now, id, ended, asked);
    }

    /// Whether a durable call's result is being written, so that nothing else can become of it.
    pub(crate) fn is_committing(&self, id: CallId) -> bool {
        self.calls.get(&id).is_some_and(|c| matches!(c.phase, Phase::Committing { .. }))
    }

    pub(crate) fn on_seen(&mut self, ticket: Ticket, call: CallId, awaits: bool, answer: durable::Answer) {
        let origin = Origin::Gateway(ticket);
        if awaits && !self.watched.contains_key(&origin) {
            return; // It has been told, or has gone.
        }
        let told = match answer {
            durable::Answer::Seen(seen) if awaits && matches!(*seen, Seen::Live { .. }) => {
                return; // It is told when it has ended.
            }
            durable::Answer::Seen(seen) => Ok(seen),
            other => Err(ask_failed(&other)),
        };
        self.unwatch(origin);
        if let Ok(seen) = &told
            && let Seen::Ended(ended) = &**seen
        {
            // Others may wait for it as well: it was cancelled, or had ended before.
            if !mutant::is(Mutant::WaitersNotTold) {
                self.tell_end(call, ended.clone());
            }
        }
        self.outputs.push_back(Output::Told { ticket, told });
    }

    pub(crate) fn on_awaited(&mut self, origin: Origin, call: CallId, answer: durable::Answer) {
        let result = match answer {
            durable::Answer::Seen(seen) => match *seen {
                Seen::Live { .. } => return,
                Seen::Ended(ended) => result_of(&ended),
                Seen::Nothing => Err(Code::NotFound
                    .because(format!("there is no durable call {call}"))
                    .hint("ended calls are kept for a day")),
            },
            other => Err(ask_failed(&other)),
        };
        if self.unwatch(origin).is_some() {
            self.answer(origin, Answer { call: Some(call), result });
        }
    }
}

impl Watcher {
    fn origin(self) -> Origin {
        match self {
            Self::Caller(origin) => origin,
            Self::Ticket(ticket) => Origin::Gateway(ticket),
        }
    }
}

/// How a call ended, as a caller is told.
fn result_of(ended: &record::Ended) -> Result<Success, v1::Failure> {
    match ended.status() {
        Status::Done => Ok(Success {
            payload: ended.result.clone(),
            content_type: ended.content_type.clone(),
            http: ended.http.clone(),
        }),
        _ => Err(ended.failure.clone().unwrap_or_else(|| Code::Cancelled.because("the call was cancelled"))),
    }
}

fn ask_failed(answer: &durable::Answer) -> v1::Failure {
    match answer {
        durable::Answer::StoreFailed(why) | durable::Answer::Finished(Finished::StoreFailed(why)) => {
            store_unavailable(why)
        }
        durable::Answer::Corrupt(e) => Code::Internal.because(format!("what is stored does not decode: {e}")),
        other => store_unavailable(&format!("{other:?}")),
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
