//! A call between its acceptance and its answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bourse_durable::LayerId;
use bourse_durable::work::{KeyName, NewCall};
use bourse_wire::id::{Attempt, CallId, FunctionName};
use bourse_wire::record::v1 as record;
use bourse_wire::time::{DURATION_MAX, Mono, Now};
use bourse_wire::v1;
use bytes::Bytes;

use crate::batch::Rider;
use crate::grid::Guest;
use crate::message::{self, Origin, ProcessId, Success};
use crate::tail::Tail;

/// The place of a call in its module's queue. Older trees go first, and of one tree the deepest: that finishes what
/// has begun before it begins more, and keeps natural recursion depth-first. Calls from outside are first come
/// first served, since roots are numbered as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub root: CallId,
    pub depth: std::cmp::Reverse<u32>,
    pub order: u64,
}

pub(crate) struct Call {
    pub id: CallId,
    /// Who waits for the answer; `None` once it has been given.
    pub origin: Option<Origin>,
    pub function: FunctionName,
    /// A semver requirement on the module; empty takes any.
    pub version: String,
    pub payload: Bytes,
    pub attempt: Attempt,
    /// Attempts that ended in a conflict of state.
    pub conflicts: u32,
    /// An earlier attempt may have run.
    pub redelivered: bool,
    /// The state under this attempt is gone: whatever it returns, it is run again.
    pub lost: bool,
    pub accepted: Mono,
    /// When it was handed to an instance first.
    pub started: Option<Mono>,
    pub deadline: Mono,
    /// While a patient instance runs it, its time stands still: what was left of it.
    pub left: Option<Duration>,
    /// How long it may wait for an instance, and until when that is.
    pub queue_wait: Duration,
    pub queue_until: Mono,
    /// How long it is expected to run; counts in its instance's load while it is handed over.
    pub estimate: Duration,
    pub place: Place,
    pub depth: u32,
    /// Those that wait for this call, nearest first.
    pub ancestors: Vec<LayerId>,
    pub traceparent: String,
    pub context: BTreeMap<String, String>,
    /// What tells its tree of calls from others.
    pub root: CallId,
    /// What woke it, unless that was a call.
    pub trigger: Option<v1::Trigger>,
    /// As in `Invoke`: 0 while it holds no key.
    pub fence: u64,
    /// How many functions have handed it on to this one, and after how many attempts.
    pub step: u64,
    pub attempts_before: u32,
    /// Its exclusive key, which it holds or waits for.
    pub key: Option<KeyName>,
    /// Something that it has called would have waited for ever: that is nobody's fault, and its key is given up.
    pub deadlocked: bool,
    /// How it goes on once it is committed, if it does.
    pub tail: Option<Tail>,
    /// Of a durable call: how long this attempt may run, and what a result is recorded with.
    pub durable: Option<Durable>,
    /// It is called with a list: of its own argument, and those of the durable calls that are run together with it.
    pub is_list: bool,
    pub riders: Vec<Rider>,
    /// Durable calls that this attempt has made: they are accepted together with what it changes.
    pub emitted: Vec<NewCall>,
    pub emitted_bytes: usize,
    pub phase: Phase,
    /// It waits, and can't be run here.
    pub is_abroad: bool,
    /// Where it may run, and what becomes of it if that can't be at once.
    pub terms: message::Terms,
    /// It is another node's, which has bought a slot here for it.
    pub guest: Option<Box<Guest>>,
    /// Requests of this attempt that are not answered yet.
    pub children: BTreeMap<u64, CallId>,
    /// The same, where a durable call answers.
    pub awaited: BTreeSet<u64>,
}

/// What is particular about an attempt of a durable call.
pub(crate) struct Durable {
    /// From when it is handed to an instance; `None`: as long as it wants.
    pub timeout: Option<Duration>,
    /// As it is stored.
    pub record: Box<record::Call>,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// It waits for its exclusive key.
    Locked,
    /// In its module's queue.
    Queued,
    /// On an instance's connection, behind another call.
    Ahead(ProcessId),
    /// An instance runs it.
    Running(ProcessId, Mono),
    /// The daemon itself performs it, since then.
    Performing(Mono),
    /// The function has returned; its state changes are being committed.
    Committing { result: Success, ran: Duration },
}

impl Call {
    /// The first attempt of a call that has all the time it wants.
    pub(crate) fn new(
        id: CallId,
        origin: Origin,
        function: FunctionName,
        payload: Bytes,
        place: Place,
        now: Now,
    ) -> Self {
        Self {
            id,
            origin: Some(origin),
            function,
            version: String::new(),
            payload,
            attempt: Attempt(1),
            conflicts: 0,
            redelivered: false,
            lost: false,
            accepted: now.mono,
            started: None,
            deadline: now.mono + DURATION_MAX,
            left: None,
            queue_wait: DURATION_MAX,
            queue_until: now.mono + DURATION_MAX,
            estimate: Duration::ZERO,
            place,
            depth: place.depth.0,
            ancestors: Vec::new(),
            traceparent: String::new(),
            context: BTreeMap::new(),
            root: place.root,
            trigger: None,
            fence: 0,
            step: 0,
            attempts_before: 0,
            key: None,
            deadlocked: false,
            tail: None,
            durable: None,
            is_list: false,
            riders: Vec::new(),
            emitted: Vec::new(),
            emitted_bytes: 0,
            phase: Phase::Queued,
            is_abroad: false,
            terms: message::Terms::default(),
            guest: None,
            children: BTreeMap::new(),
            awaited: BTreeSet::new(),
        }
    }

    /// An attempt of a durable call: it has its time from when it is handed to an instance, and waits for that as long
    /// as it takes.
    pub(crate) fn durable(
        (id, place, order): (CallId, CallId, u64),
        function: FunctionName,
        attempt: u32,
        redelivered: bool,
        timeout: Option<Duration>,
        record: Box<record::Call>,
        now: Now,
    ) -> Self {
        let place = Place { root: place, depth: Reverse(0), order };
        let first = Self::new(id, Origin::Work(id), function, record.arguments.clone(), place, now);
        Self {
            version: record.version.clone(),
            attempt: Attempt(attempt),
            redelivered,
            depth: record.depth,
            traceparent: record.traceparent.clone(),
            context: record.context.clone(),
            trigger: record.trigger.clone(),
            step: record.step,
            attempts_before: record.attempts_before,
            root: id,
            key: KeyName::of(&record),
            durable: Some(Durable { timeout, record }),
            ..first
        }
    }

    /// It is an attempt of a durable call.
    pub(crate) fn is_work(&self) -> bool {
        self.durable.is_some()
    }

    pub(crate) fn layer(&self) -> LayerId {
        LayerId { call: self.id, attempt: self.attempt }
    }

    /// When something is due of it, as it stands.
    pub(crate) fn due(&self) -> Mono {
        match self.phase {
            Phase::Locked | Phase::Queued => self.queue_until.min(self.deadline),
            Phase::Ahead(_) | Phase::Running(..) | Phase::Performing(_) | Phase::Committing { .. } => {
                self.deadline
            }
        }
    }

    pub(crate) fn again(&self, now: Now) -> message::NewCall {
        let is_limited = self.deadline < Mono::MAX;
        message::NewCall {
            function: self.function.clone(),
            version: self.version.clone(),
            payload: self.payload.clone(),
            timeout: is_limited.then(|| self.deadline.since(now.mono)),
            queue_wait: Some(self.queue_wait),
            traceparent: self.traceparent.clone(),
            context: self.context.clone(),
            mode: message::Mode::Sync,
            idempotency_key: String::new(),
            delay: None,
            trigger: self.trigger.clone(),
            depth: self.depth,
            terms: self.terms,
        }
    }

    pub(crate) fn parent(&self) -> Option<LayerId> {
        self.ancestors.first().copied()
    }
}
