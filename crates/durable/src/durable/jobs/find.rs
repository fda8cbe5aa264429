//! Finding a call, in memory or in the store, and doing something with it.

use std::collections::VecDeque;

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bytes::Bytes;
use prost::Message as _;

use super::{Durable, Job, JobId, Then, Told, encode};
use crate::batch::ReadError;
use crate::layer::Layer;
use crate::message::{Answer, Finish, Ticket};
use crate::outbox::Who;
use crate::record;
use crate::work::lane::Entry;
use crate::work::{Next, Seen, key, lane_of};

/// The most questions that wait until all lanes are known.
const EARLY_MAX: usize = 10_000;

impl Durable {
    pub(in crate::durable) fn find(&mut self, call: CallId, then: Then, ticket: Ticket) {
        if let Some(seen) = self.seen_in_memory(call) {
            return self.found(call, seen, then, ticket);
        }
        let left = self.records_of(call);
        self.find_next(call, self.work.next_job(), left, then, ticket);
    }

    /// The keys under which a call may be, in the order in which it moves from one to the next.
    pub(super) fn records_of(&self, call: CallId) -> VecDeque<Bytes> {
        let live = self.work.lanes.keys().map(|lane| key::live(lane, call));
        live.chain([key::ended(call), key::dead(call)]).collect()
    }

    /// `since`: the first job that looks for it.
    fn find_next(
        &mut self,
        call: CallId,
        since: JobId,
        mut left: VecDeque<Bytes>,
        then: Then,
        ticket: Ticket,
    ) {
        match left.pop_front() {
            // Its lane may not be known yet, or it is on its way from one place to another.
            None if !self.is_recovered() || self.work.busy.contains(&call) => {
                self.ask_early(call, then, ticket);
            }
            // Who has its unique key asks this so that it can be stored.
            None if self.work.arriving.contains(&call) && !matches!(then, Then::Holds(_)) => {
                self.ask_early(call, then, ticket);
            }
            None => self.found(call, Seen::Nothing, then, ticket),
            Some(key) => {
                let job = Job::Find { call, since, reading: key.clone(), left, then, ticket };
                self.read_row(key::home(call), key, job);
            }
        }
    }

    /// It is too early to say: it is asked again.
    fn ask_early(&mut self, call: CallId, then: Then, ticket: Ticket) {
        if self.work.early.len() < EARLY_MAX {
            self.work.early.push((call, then, ticket));
        } else {
            self.cannot_tell(then, ticket, "too many ask for calls that are not known yet");
        }
    }

    /// All lanes are known, or a dead letter is where it is to be: who asked before is answered.
    pub(super) fn find_early(&mut self) {
        for (call, then, ticket) in std::mem::take(&mut self.work.early) {
            self.find(call, then, ticket);
        }
    }

    /// A call is stored where it is at home, or it is known that nobody stores it now: who asked before is answered.
    pub(in crate::durable) fn is_there(&mut self, call: CallId) {
        self.work.arriving.remove(&call);
        let asked = self.work.early.extract_if(.., |(of, ..)| *of == call);
        for (call, then, ticket) in asked.collect::<Vec<_>>() {
            self.find(call, then, ticket);
        }
    }

    pub(super) fn on_found(
        &mut self,
        since: JobId,
        (call, reading, left): (CallId, Bytes, VecDeque<Bytes>),
        then: Then,
        ticket: Ticket,
        row: Result<Option<Bytes>, ReadError>,
    ) {
        if self.work.has_left_since(call, since) || self.seen_in_memory(call).is_some() {
            return self.find(call, then, ticket);
        }
        let bytes = match row {
            Err(ReadError(text)) => return self.cannot_tell(then, ticket, &text),
            Ok(None) => return self.find_next(call, since, left, then, ticket),
            Ok(Some(bytes)) => bytes,
        };
        let seen = if key::parse_live(&reading).is_some() {
            stored::Call::decode(bytes).map(|record| {
                let due = self.due(&record);
                Seen::Live { record: Box::new(record), running: false, due }
            })
        } else {
            stored::Ended::decode(bytes).map(|ended| Seen::Ended(Box::new(ended)))
        };
        match seen {
            Ok(seen) => self.found(call, seen, then, ticket),
            Err(_) if matches!(then, Then::Holds(_)) => {
                self.cannot_tell(then, ticket, "a call does not decode")
            }
            Err(_) => self.outbox.answer(Who::Node(ticket), Answer::Corrupt(record::Error::Short(0))),
        }
    }

    fn cannot_tell(&mut self, then: Then, ticket: Ticket, why: &str) {
        match then {
            Then::Holds(unique) => self.key_failed(unique, why),
            _ => self.outbox.answer(Who::Node(ticket), Answer::StoreFailed(why.to_owned())),
        }
    }

    pub(super) fn seen_in_memory(&self, call: CallId) -> Option<Seen> {
        let (_, entry, running, due) = self.work.find(call)?;
        Some(match &entry.ended {
            Some(ended) => Seen::Ended(ended.clone()),
            None => Seen::Live { record: Box::new(entry.record.clone()), running, due },
        })
    }

    pub(super) fn found(&mut self, call: CallId, seen: Seen, then: Then, ticket: Ticket) {
        if self.work.arriving.contains(&call) && matches!(then, Then::Cancel(_)) {
            // Whoever stores it would put it into its lane in spite of that.
            let why = format!("call {call} is being stored, or found out about");
            return self.outbox.answer(Who::Node(ticket), Answer::StoreFailed(why));
        }
        let is_dead = |ended: &stored::Ended| ended.status() == stored::ended::Status::Dead;
        match (then, seen) {
            (Then::Holds(unique), seen) => self.on_holder(unique, call, seen),
            (then @ Then::Look, Seen::Ended(ended)) if ended.status() == stored::ended::Status::Joined => {
                match CallId::from_wire(&ended.joined) {
                    Some(other) if other != call => self.find(other, then, ticket),
                    _ => self.answer_seen(ticket, Seen::Ended(ended)),
                }
            }
            // It may have ended at another partition, which is not known before recovery is over.
            (then @ Then::Cancel(_), Seen::Live { running: false, .. }) if !self.is_recovered() => {
                self.ask_early(call, then, ticket);
            }
            (Then::Cancel(ended), Seen::Live { record, running: false, .. }) => {
                let lane = lane_of(&record).to_owned();
                if !self.work.seize(&lane, call) {
                    let due = self.due(&record);
                    self.work.lane(&lane).seize_new(call, Entry::new((*record).clone(), due));
                }
                let ended = stored::Ended {
                    function: record.function,
                    accepted_ms: record.accepted_ms,
                    attempts: record.attempts,
                    idempotency_key: record.idempotency_key,
                    exclusive_key: record.exclusive_key,
                    exclusive_module: record.exclusive_module,
                    step: record.step,
                    ..*ended
                };
                let told = Told::Seen(ticket);
                if let Finish::Now(finished) = self.commit_settle(
                    None,
                    (call, Next::Ended(Box::new(ended))),
                    Vec::new(),
                    Vec::new(),
                    told,
                ) {
                    self.tell(told, call, finished);
                }
            }
            (Then::Replay, Seen::Ended(ended)) if is_dead(&ended) && self.work.busy.insert(call) => {
                let Some(record) = ended.call.clone() else {
                    self.work.busy.remove(&call);
                    return self.answer_seen(ticket, Seen::Ended(ended));
                };
                let record =
                    stored::Call { failures: 0, due_ms: 0, pause_ms: 0, incarnation: self.node.0, ..record };
                let lane = lane_of(&record).to_owned();
                let mut layer = Layer::bare(key::home(call));
                layer.set(key::dead(call), None);
                layer.set(key::live(&lane, call), Some(encode(&record)));
                super::carry::index(&record, call).into_iter().for_each(|(key, value)| layer.set(key, value));
                self.commit_job(layer, Job::Revive { lane, call, record, ticket });
            }
            (Then::Purge, Seen::Ended(ended)) if is_dead(&ended) && self.work.busy.insert(call) => {
                let mut layer = Layer::bare(key::home(call));
                layer.set(key::dead(call), None);
                self.commit_job(layer, Job::Purge { call, ended, ticket });
            }
            (_, seen) => self.answer_seen(ticket, seen),
        }
    }
}
