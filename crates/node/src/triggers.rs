//! What wakes functions besides calls: cron lines, queues and topics.
//!
//! ```text
//! gateway, client, worker -> node: publish      each message becomes durable calls of who listens (`work/publishing`)
//! gateway -> node: forget                       a module that is gone listens no longer
//! ```
//!
//! | file | decides |
//! |---|---|
//! | `crons` | which ticks are due, which of those that were missed are made up for |
//! | `listening` | who listens to what, and who may not |
//! | `view` | what is shown |
//!
//! The store holds how far each cron line has come and what each module listens to: see [`bourse_durable::work::trigger`].
//! Nothing is decided before that is known. What counts is the revision that serves; a module that serves none listens to
//! what it did last, and its cron lines rest.

mod crons;
mod listening;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bourse_durable as durable;
use bourse_durable::Finished;
use bourse_durable::work::{TriggerKey, TriggerWrite};
use bourse_wire::id::{CallId, FunctionName};
use bourse_wire::record::v1 as record;
use bourse_wire::time::Now;
use bourse_wire::v1;

use crate::Node;
use crate::message::{Event, Origin, RevisionId};
use crate::state::Asked;
use crate::timers::Timer;

pub use view::TriggerView;

/// Before a record is written again that the store did not take.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub(crate) struct Triggers {
    /// What an earlier life has left is known.
    known: bool,
    /// What serves has changed, or a record is written.
    dirty: bool,
    /// The cron lines of what serves.
    lines: BTreeMap<TriggerKey, crons::Line>,
    /// How far cron lines have come, as stored.
    ticked: BTreeMap<TriggerKey, record::Cron>,
    /// What modules listen to, as stored.
    stored: BTreeMap<String, record::Triggers>,
    /// What modules listen to.
    listens: BTreeMap<String, Vec<record::Subscription>>,
    /// Records that are being written.
    busy: BTreeSet<TriggerKey>,
    /// Those that could not be, and wait to be written again.
    paused: BTreeSet<TriggerKey>,
    /// Modules that are to be forgotten, how many records they had, and who asked.
    forgotten: BTreeMap<String, (u64, Vec<Origin>)>,
    /// Revisions that said what they offer before it was known who listens to what.
    early: Vec<(String, RevisionId, v1::Module)>,
}

/// A record that is being written, with the calls that come of it.
pub(crate) struct Writing {
    write: TriggerWrite,
    calls: Vec<(CallId, FunctionName)>,
}

impl Node {
    /// What serves has changed.
    pub(crate) fn triggers_changed(&mut self) {
        self.triggers.dirty = true;
    }

    /// Whether it is known who listens to what.
    pub(crate) fn knows_triggers(&self) -> bool {
        self.triggers.known
    }

    /// Goes on with what has become due or known.
    pub(crate) fn pump_triggers(&mut self, now: Now) {
        if !self.triggers.known {
            let Some(found) = self.durable.found_triggers() else { return };
            self.triggers.known = true;
            self.triggers.dirty = true;
            self.triggers.ticked = found.crons.into_iter().collect();
            for (key, record) in found.listens {
                self.triggers.listens.insert(key.module().to_owned(), record.subscriptions.clone());
                self.triggers.stored.insert(key.module().to_owned(), record);
            }
            self.describe_early(now);
            if self.keeps_store() {
                self.sync_listening(now);
            }
            self.publish_waiting(now);
        }
        if !self.keeps_store() {
            return self.rest_triggers();
        }
        if std::mem::take(&mut self.triggers.dirty) && !self.draining {
            self.sync_listening(now);
            self.sync_crons(now);
            self.end_forgetting();
        }
    }

    /// Another node keeps the store, and with it what wakes functions.
    fn rest_triggers(&mut self) {
        self.triggers.lines.clear();
        self.timers.clear(&Timer::Cron);
    }

    /// It is time for a tick, or to look at the clock, or to write again what could not be written.
    pub(crate) fn on_triggers_due(&mut self) {
        self.triggers.paused.clear();
        self.triggers.dirty = true;
    }

    /// Has a record written, and calls accepted with it.
    fn write_trigger(&mut self, now: Now, write: TriggerWrite, calls: Vec<durable::work::NewCall>) {
        if !calls.is_empty() {
            self.use_store();
        }
        self.triggers.busy.insert(write.key().clone());
        let named = |new: &durable::work::NewCall| {
            Some((new.call, new.record.function.parse::<FunctionName>().ok()?))
        };
        let writing = Writing { write: write.clone(), calls: calls.iter().filter_map(named).collect() };
        let ticket = self.ask(Asked::Trigger(Box::new(writing)));
        self.durable.trigger(now, Some(write), calls, ticket);
    }

    pub(crate) fn on_trigger_written(&mut self, now: Now, writing: Writing, answer: durable::Answer) {
        let key = writing.write.key().clone();
        match answer {
            durable::Answer::Finished(Finished::Done) => {
                for (call, function) in writing.calls {
                    self.event(Event::Accepted { call, function, first: true });
                }
                self.triggers.busy.remove(&key);
                self.triggers.store(writing.write);
            }
            durable::Answer::Finished(Finished::Unknown(_)) => {
                let ticket = self.ask(Asked::TriggerLook(Box::new(key.clone())));
                self.durable.look_trigger(&key, ticket);
            }
            _ => {
                self.triggers.busy.remove(&key);
                self.triggers.paused.insert(key);
                self.timers.set_earliest(Timer::Triggers, now.mono + AGAIN);
            }
        }
        self.triggers.dirty = true;
    }

    /// It is known what has become of a record.
    pub(crate) fn on_trigger_looked(&mut self, key: TriggerKey, answer: durable::Answer) {
        self.triggers.busy.remove(&key);
        self.triggers.dirty = true;
        let durable::Answer::Value(found) = answer else { return };
        let stands = TriggerWrite::of(key, found.map(|record| record.value));
        stands.into_iter().for_each(|write| self.triggers.store(write));
    }

    /// Panics if something is left although nothing goes on any more.
    pub(crate) fn check_triggers_quiet(&self) {
        assert!(self.triggers.busy.is_empty(), "records of triggers are left");
        assert!(self.triggers.forgotten.is_empty(), "those who forget are left");
    }
}

impl Triggers {
    /// A record can be written now.
    fn is_free(&self, key: &TriggerKey) -> bool {
        !self.busy.contains(key) && !self.paused.contains(key)
    }

    /// It has been written.
    fn store(&mut self, write: TriggerWrite) {
        match write {
            TriggerWrite::Cron(key, record) => _ = self.ticked.insert(key, record),
            TriggerWrite::Listens(key, record) => _ = self.stored.insert(key.module().to_owned(), record),
            TriggerWrite::Delete(key @ TriggerKey::Cron { .. }) => _ = self.ticked.remove(&key),
            TriggerWrite::Delete(TriggerKey::Listens { module }) => _ = self.stored.remove(&module),
        }
    }
}
