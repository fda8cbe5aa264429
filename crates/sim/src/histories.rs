//! What real processes have done, for the checkers that read simulated worlds: the same [`Books`], fed afterwards.
//!
//! ```text
//! a store's history -> History: asked, landed      every batch that was handed over; those that are in, in order
//! clients           -> History: call, question     what they wanted, and what they heard, with the time
//! functions         -> History: run                what they have begun, as they have written it down themselves
//! History -> whoever asks: violations              once all is over, with the rows that are in the store
//! ```
//!
//! Times are those of one wall clock. A batch counts as in from when the store has answered, and an answer as heard from when it came: so
//! whoever is told of what is not in the store yet is found out, to the millisecond.
//!
//! What only a world knows is not checked: when an attempt was handed to an instance, so whose turn it is of those with one
//! exclusive key, and that two of them do not run at once (where a node was killed, a function that it had sent elsewhere may run on for a
//! moment, beside its next attempt: what it changes does not count, and that is checked, by its fence). That a dead letter has had all its
//! attempts is taken from its record.

use std::collections::{BTreeMap, BTreeSet};

use bourse_durable::batch::Batch;
pub use bourse_durable::work::Seen;
use bourse_node::{Answer, Ask, Mode, Ticket};
use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::v1;
use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value as Json, json};

use crate::checkers::{Books, body, id};
use crate::disk::{Disk, Mood};
use crate::gateway::{Gateway, Heard};
use crate::stage::{End, Stage, parse};

/// More violations than these are counted only.
const SHOWN_MAX: usize = 50;

/// A run that a function has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// What it was to do.
    pub plan: u32,
    /// Whose.
    pub call: CallId,
    /// Which attempt of this step.
    pub attempt: u32,
}

/// What came of it all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// Batches that have landed.
    pub batches: usize,
    /// Durable calls that ended: done, dead letters, cancelled.
    pub ended: [usize; 3],
    /// Calls that were answered: accepted, done, refused, unknown.
    pub heard: [usize; 4],
    /// Questions that were answered.
    pub told: usize,
    /// Runs that were begun.
    pub runs: u64,
}

/// What happened, in the order in which it counts within a millisecond.
#[derive(Debug)]
enum Event {
    Landed(Batch),
    Asks(CallId, Ask),
    Answer(Ticket, Answer),
    Told(Ticket, Result<Box<Seen>, v1::Failure>),
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    stage: Stage,
    gateway: Gateway,
    books: Books,
    events: BTreeMap<(u64, u8, usize), Event>,
    runs: BTreeSet<Run>,
}

impl History {
    /// One of calls with these plans.
    pub fn new(stage: Stage) -> Self {
        Self { stage, ..Self::default() }
    }

    /// A batch was handed to the store, whether it landed or not.
    pub fn asked(&mut self, batch: &Batch) {
        self.books.asked(batch);
    }

    /// A batch is in the store, since a time in milliseconds. Batches are told in the order in which they landed.
    pub fn landed(&mut self, at_ms: u64, batch: Batch) {
        self.push(at_ms, 0, Event::Landed(batch));
    }

    /// A call of a plan was made, and answered at a time; or the connection was lost. The payload of a result is the text that it
    /// says.
    pub fn call(&mut self, plan: u32, key: &str, mode: Mode, answer: Option<(u64, Answer)>) {
        let ticket = self.gateway.makes(plan, key, mode);
        match answer {
            Some((at_ms, answer)) => self.push(at_ms, 2, Event::Answer(ticket, answer)),
            None => self.gateway.loses(ticket),
        }
    }

    /// A question was put at a time, and answered at another; or the connection was lost.
    pub fn question(
        &mut self,
        (asked_ms, call, ask): (u64, CallId, Ask),
        told: Option<(u64, Result<Seen, v1::Failure>)>,
    ) {
        let ticket = self.gateway.asks(call, ask);
        self.push(asked_ms, 1, Event::Asks(call, ask));
        match told {
            Some((at_ms, told)) => self.push(at_ms, 2, Event::Told(ticket, told.map(Box::new))),
            None => self.gateway.loses(ticket),
        }
    }

    /// A run was begun.
    pub fn run(&mut self, run: Run) {
        if run.plan < self.stage.count() {
            self.stage.begun(run.plan);
            self.stage.hands(run.call, run.plan);
            self.runs.insert(run);
        }
    }

    fn push(&mut self, at_ms: u64, kind: u8, event: Event) {
        let number = self.events.len();
        self.events.insert((at_ms, kind, number), event);
    }

    /// All is over and quiet. `rows`: what is in the store, by partition and key; it is to be what has landed.
    pub fn close(mut self, rows: &BTreeMap<(u8, Bytes), Bytes>) -> Verdict {
        let mut disk = Disk::new(Mood::steady());
        let mut batches = 0;
        for ((at_ms, ..), event) in std::mem::take(&mut self.events) {
            match event {
                Event::Landed(batch) => {
                    batches += 1;
                    if !disk.replay(&batch) {
                        let owner = batch.owner;
                        let text = format!(
                            "a batch does not fit what is in partition {}: {owner:?}",
                            batch.partition.0
                        );
                        self.books.violations.push(text);
                    }
                    self.books.landed(&batch, at_ms);
                }
                Event::Asks(call, ask) => {
                    if ask == Ask::Cancel {
                        self.books.cancels(call);
                    }
                }
                Event::Answer(ticket, answer) => {
                    self.gateway.on_reply(ticket, &answer);
                    self.books.replied(ticket, &self.gateway, &self.stage);
                }
                Event::Told(ticket, told) => {
                    self.gateway.on_told(ticket, told);
                    self.books.told(ticket, &self.gateway);
                }
            }
        }
        self.compare(&disk, rows);
        self.take_attempts(&disk);
        self.books.close_runs(&self.runs);
        self.books.close(&disk, &self.gateway, &self.stage);
        self.verdict(batches)
    }

    /// The store has what has landed, and nothing else.
    fn compare(&mut self, disk: &Disk, rows: &BTreeMap<(u8, Bytes), Bytes>) {
        let mut count = 0;
        for (partition, key, value) in disk.all_rows() {
            count += 1;
            if rows.get(&(partition, key.clone())) != Some(value) {
                let text = format!("what has landed of {:?} is not in partition {partition}", lossy(key));
                self.books.violations.push(text);
            }
        }
        if count != rows.len() {
            let text = format!("{count} records have landed, and {} are in the store", rows.len());
            self.books.violations.push(text);
        }
    }

    /// An attempt may have been taken by an instance that died before its function began: then nobody else knows of it.
    fn take_attempts(&mut self, disk: &Disk) {
        for (_, key, value) in disk.rows(b'd') {
            let Some(call) = id(key) else { continue };
            let Ok(ended) = stored::Ended::decode(body(value)) else { continue };
            let plan = ended.call.as_ref().and_then(|record| parse(&record.arguments));
            let Some(plan) = plan.filter(|plan| *plan < self.stage.count()) else { continue };
            for _ in self.stage.handed(call, plan)..ended.attempts {
                self.stage.hands(call, plan);
            }
        }
    }

    fn verdict(self, batches: usize) -> Verdict {
        let Self { stage, gateway, books, .. } = self;
        let all = books.violations.iter().chain(&books.lines.violations).chain(&gateway.violations);
        let mut violations: Vec<String> = all.take(SHOWN_MAX).cloned().collect();
        let count = books.violations.len() + books.lines.violations.len() + gateway.violations.len();
        if count > SHOWN_MAX {
            violations.push(format!("and {} more", count - SHOWN_MAX));
        }
        let heard = |of: fn(&Heard) -> bool| gateway.made().filter(|(_, made)| of(&made.heard)).count();
        Verdict {
            violations,
            batches,
            ended: [Status::Done, Status::Dead, Status::Cancelled].map(|status| books.ended(status)),
            heard: [
                heard(|heard| matches!(heard, Heard::Accepted)),
                heard(|heard| matches!(heard, Heard::Done(_))),
                heard(|heard| matches!(heard, Heard::Refused(_))),
                heard(|heard| matches!(heard, Heard::Unknown(_))),
            ],
            told: gateway.asked().filter(|(_, asked)| asked.told.is_some()).count(),
            runs: stage.runs_made,
        }
    }
}

/// All plans, for functions that are to play them: an array, in which a plan's number is its place.
pub fn script(stage: &Stage) -> Json {
    let plans = stage.plans().map(|(_, plan)| {
        let (end, end_ms) = match plan.end {
            End::Fails => ("fails", 0),
            End::Crashes => ("crashes", 0),
            End::Hangs => ("hangs", 0),
            End::Again(ms) => ("again", ms),
            End::DeadLetters => ("dead letters", 0),
            End::Discards => ("discards", 0),
        };
        json!({
            "function": plan.function, "key": plan.key, "delay_ms": plan.delay_ms, "run_ms": plan.run_ms,
            "scope": plan.scope, "peek": plan.peek, "bad": plan.bad, "end": end, "end_ms": end_ms,
            "starts": plan.starts, "starts_first": plan.starts_first, "nested": plan.nested, "next": plan.next,
        })
    });
    Json::Array(plans.collect())
}

fn lossy(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
