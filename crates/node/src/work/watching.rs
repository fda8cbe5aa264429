//! Who waits for the end of a durable call, and what is asked about one.
//!
//! ```text
//! gateway -> node: Ask           look, await, cancel, replay, purge        node -> gateway: Told
//! client -> node: await                                                    node -> client: reply
//! ```
//!
//! A call goes on without those who wait for it.

use std::time::Duration;

use bourse_durable as durable;
use bourse_durable::Finished;
use bourse_durable::mutant::{self, Mutant};
use bourse_durable::work::Seen;
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::record::v1 as record;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;

use crate::call::Phase;
use crate::message::{Ask, Origin, Success};
use crate::outcome::store_unavailable;
use crate::state::Asked;
use crate::timers::Timer;
use crate::{Answer, Node};

/// Who waits for the end of a durable call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watcher {
    /// A caller, for its result.
    Caller(Origin),
    /// The gateway, here or at another node, for how it stands then.
    Asker(Origin),
}

impl Node {
    pub(super) fn watch_call(&mut self, call: CallId, watcher: Watcher, until: Mono) {
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

    /// Whoever waits there does not want to any more. A caller is answered all the same, as every caller is, once; who
    /// has only asked is not.
    pub(crate) fn stop_waiting(&mut self, origin: Origin) {
        let Some(call) = self.watched.get(&origin).copied() else { return };
        let is_caller = self.watchers[&call].contains(&Watcher::Caller(origin));
        self.unwatch(origin);
        if is_caller {
            let failure = Code::Cancelled
                .because(format!("its caller waits no longer for call {call}, which goes on"))
                .hint(format!("DELETE /v1/calls/{call} ends it"));
            self.answer(origin, Answer { call: Some(call), result: Err(failure) });
        }
    }

    /// The node stops: whoever still waits is told that the call goes on without it.
    pub(crate) fn dismiss_watchers(&mut self) {
        let calls: Vec<CallId> = self.watchers.keys().copied().collect();
        for call in calls {
            for watcher in self.watchers_of(call) {
                self.dismiss(watcher, call);
            }
        }
    }

    pub(super) fn dismiss(&mut self, watcher: Watcher, call: CallId) {
        let failure = Code::ShuttingDown
            .because(format!(
                "the daemon stopped before call {call} ended; it is done when the daemon is back"
            ))
            .hint(format!("GET /v1/calls/{call} tells what becomes of it"))
            .retry_after(Duration::from_secs(1));
        match watcher {
            Watcher::Caller(origin) => self.answer(origin, Answer { call: Some(call), result: Err(failure) }),
            Watcher::Asker(origin) => self.tell(origin, Err(failure)),
        }
    }

    pub(super) fn tell_result(&mut self, id: CallId, result: &Result<Success, v1::Failure>) {
        for watcher in self.watchers_of(id) {
            match watcher {
                Watcher::Caller(origin) => {
                    self.answer(origin, Answer { call: Some(id), result: result.clone() })
                }
                // It is asked for as it is stored.
                Watcher::Asker(origin) => self.look(origin, id, false),
            }
        }
    }

    pub(super) fn tell_end(&mut self, id: CallId, ended: Box<record::Ended>) {
        for watcher in self.watchers_of(id) {
            match watcher {
                Watcher::Caller(origin) => {
                    self.answer(origin, Answer { call: Some(id), result: result_of(&ended) });
                }
                Watcher::Asker(origin) => {
                    self.tell(origin, Ok(Box::new(Seen::Ended(ended.clone()))));
                }
            }
        }
    }

    pub(super) fn tell_unknown(&mut self, id: CallId, why: &str) {
        let failure = Code::StoreUnavailable
            .because(format!("the store does not say how call {id} stands: {why}"))
            .hint(format!("it is found out and done; GET /v1/calls/{id} tells what becomes of it"));
        for watcher in self.watchers_of(id) {
            let failure = failure.clone();
            match watcher {
                Watcher::Caller(origin) => {
                    self.answer(origin, Answer { call: Some(id), result: Err(failure) })
                }
                Watcher::Asker(origin) => self.tell(origin, Err(failure)),
            }
        }
    }

    pub(super) fn watchers_of(&mut self, id: CallId) -> Vec<Watcher> {
        let watchers = self.watchers.remove(&id).unwrap_or_default();
        for watcher in &watchers {
            self.watched.remove(&watcher.origin());
            self.timers.clear(&Timer::Caller(watcher.origin()));
        }
        watchers
    }

    pub(crate) fn on_ask(&mut self, now: Now, origin: Origin, call: CallId, ask: Ask) {
        match ask {
            Ask::Look => self.look(origin, call, false),
            Ask::Await => {
                self.watch_call(call, Watcher::Asker(origin), Mono::MAX);
                self.look(origin, call, true);
            }
            Ask::Cancel => self.cancel_work(now, origin, call),
            Ask::Replay => {
                let asked = self.ask(Asked::Seen { origin, call, awaits: false });
                self.durable.replay(now, call, asked);
            }
            Ask::Purge => {
                let asked = self.ask(Asked::Seen { origin, call, awaits: false });
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
                Watcher::Asker(origin) => self.look(origin, call, true),
                Watcher::Caller(origin) => {
                    let asked = self.ask(Asked::Awaited { origin, call });
                    self.durable.look(call, asked);
                }
            }
        }
    }

    pub(super) fn look(&mut self, origin: Origin, call: CallId, awaits: bool) {
        let asked = self.ask(Asked::Seen { origin, call, awaits });
        self.durable.look(call, asked);
    }

    pub(super) fn cancel_work(&mut self, now: Now, origin: Origin, id: CallId) {
        let why = Code::Cancelled.because("it was cancelled by request");
        self.leave_room(now, id);
        if self.by_origin.contains_key(&Origin::Work(id)) && !self.is_committing(id) {
            self.watch_call(id, Watcher::Asker(origin), Mono::MAX);
            self.abort(now, id, why);
            return;
        }
        let ended = record::Ended {
            status: Status::Cancelled.into(),
            ended_ms: now.wall.0,
            failure: Some(why),
            ..Default::default()
        };
        let asked = self.ask(Asked::Seen { origin, call: id, awaits: false });
        self.durable.cancel(now, id, ended, asked);
    }

    /// Whether a durable call's result is being written, so that nothing else can become of it.
    pub(crate) fn is_committing(&self, id: CallId) -> bool {
        self.calls.get(&id).is_some_and(|c| matches!(c.phase, Phase::Committing { .. }))
    }

    pub(crate) fn on_seen(&mut self, origin: Origin, call: CallId, awaits: bool, answer: durable::Answer) {
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
        self.tell(origin, told);
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
            Self::Caller(origin) | Self::Asker(origin) => origin,
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
