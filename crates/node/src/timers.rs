//! What is due when. Each timer has one time at most; setting it again moves it.

use std::collections::{BTreeMap, BTreeSet};

use bourse_wire::id::CallId;
use bourse_wire::time::Mono;

use crate::message::{Origin, ProcessId};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A call has waited or run for too long.
    Call(CallId),
    /// An instance is to be looked at.
    Instance(ProcessId),
    /// Calls of a module have waited long enough for another instance, or its pause is over.
    Scale(String),
    /// A template has not reported.
    Template(ProcessId),
    /// Who waits for a durable call has waited long enough.
    Caller(Origin),
    /// A cron line has a tick, or the wall clock is to be looked at.
    Cron,
    /// A record of a trigger is to be written again.
    Triggers,
    /// A message has waited long enough.
    Publishing,
    /// Requests wait for a link with the node that keeps the store.
    Forwards,
    /// Lists that wait for more calls.
    Batches,
    /// The time for draining is over.
    Drain,
}

#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Mono, Timer)>,
    at: BTreeMap<Timer, Mono>,
}

impl Timers {
    /// Sets or moves a timer.
    pub(crate) fn set(&mut self, timer: Timer, at: Mono) {
        match self.at.insert(timer.clone(), at) {
            Some(old) if old == at => {}
            old => {
                if let Some(old) = old {
                    self.due.remove(&(old, timer.clone()));
                }
                self.due.insert((at, timer));
            }
        }
    }

    /// Sets a timer, unless it rings earlier anyway.
    pub(crate) fn set_earliest(&mut self, timer: Timer, at: Mono) {
        if self.at.get(&timer).is_none_or(|old| *old > at) {
            self.set(timer, at);
        }
    }

    pub(crate) fn clear(&mut self, timer: &Timer) {
        if let Some(at) = self.at.remove(timer) {
            self.due.remove(&(at, timer.clone()));
        }
    }

    pub(crate) fn pop_due(&mut self, now: Mono) -> Option<Timer> {
        if self.due.first()?.0 > now {
            return None;
        }
        let (_, timer) = self.due.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }

    /// When the timers of calls ring.
    pub(crate) fn calls(&self) -> BTreeMap<CallId, Mono> {
        let call = |(timer, at): (&Timer, &Mono)| match timer {
            Timer::Call(id) => Some((*id, *at)),
            _ => None,
        };
        self.at.iter().filter_map(call).collect()
    }

    /// Panics if a timer is left of something that is no more.
    pub(crate) fn check_quiet(&self, instances: &BTreeSet<ProcessId>, templates: &BTreeSet<ProcessId>) {
        assert_eq!(self.due.len(), self.at.len(), "each timer has one time");
        for timer in self.at.keys() {
            let known = match timer {
                Timer::Call(_) | Timer::Caller(_) | Timer::Batches | Timer::Publishing | Timer::Drain => {
                    false
                }
                Timer::Instance(process) => instances.contains(process),
                Timer::Template(process) => templates.contains(process),
                Timer::Scale(_) | Timer::Cron | Timer::Triggers | Timer::Forwards => true,
            };
            assert!(known, "the timer {timer:?} is left");
        }
    }

    pub(crate) fn next(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }
}
