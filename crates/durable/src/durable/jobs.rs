//! What the wishes of [`calls`](super::calls) take, step by step: each job waits for one answer, and is followed by
//! the next one.
//!
//! ```text
//! accept      (look the idempotency key up) -> commit -> answer, and the call is in its lane
//! settle      commit -> answer -> carry what is for other partitions over -> clear it here
//! refill      read a page of a lane
//! find        read the records that a call may have, one after the other
//! recover     read outgoing records -> carry them over; then find lanes and ended calls
//! doubt       commit something, which tells that all before is decided -> read outgoing records -> look for the call
//! key         read which calls wait for an exclusive key -> read them
//! own         commit something, so that the partition of an exclusive key is ours
//! triggers    read the records of triggers; or commit something, then read one of them
//! sweep       read ended calls and idempotency keys -> delete those that are kept no longer
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bourse_wire::record::v1::outgoing::What;
use bourse_wire::time::{Mono, Now};
use bytes::Bytes;
use prost::Message as _;

mod accept;
mod carry;
mod find;
mod keys;
mod lanes;
mod recover;
mod sweep;
mod triggers;

use self::sweep::SWEEP_MIN;
use super::Durable;
use super::calls::encode;
use crate::batch::{PartitionId, ReadError};
use crate::layer::Layer;
use crate::message::{Answer, Finish, Finished, StoreAnswer, StorePage, StoreRequest, Ticket};
use crate::mutant::{self, Mutant};
use crate::outbox::{Asked, Who};
use crate::partition::Partition;
use crate::record;
use crate::work::exclusive::KeyName;
use crate::work::lane::Entry;
use crate::work::{JobId, Matter, NewCall, Next, Outgoing, Piece, Seen, key};

/// Rows of one page.
pub(crate) const PAGE_ROWS: usize = 256;
/// Bytes of one page.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Before what has failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Work that waits for an answer.
#[derive(Debug)]
pub(crate) enum Job {
    /// The idempotency key of an accept is read.
    LookUp { unique: Bytes },
    /// A call is written; and then it is carried home, if that is not where its unique key is.
    Accept { new: NewCall, unique: Option<Bytes>, by: Asker },
    /// A call that has not been run becomes another one with its key. `due`: before that.
    Replace { unique: Bytes, call: CallId, record: Box<stored::Call>, due: Option<Mono> },
    /// Another call has the unique key: that is written where the call would have been at home.
    Join { piece: Piece, from: PartitionId, cause: Cause },
    /// What becomes of a call is written, at its home or elsewhere.
    Settle { lane: String, call: CallId, next: Next, at: PartitionId, pieces: Vec<Piece>, told: Told },
    /// What a call emitted that is not durable itself is written, with what it changed.
    Emit { pieces: Vec<Piece>, at: PartitionId, ticket: Ticket },
    /// A piece of work is done at its partition.
    Carry { piece: Piece, from: PartitionId, cause: Cause },
    /// Its outgoing record is deleted.
    Clear { outgoing: Outgoing, cause: Cause },
    /// A page of a lane is read.
    Page { lane: String },
    /// A record that a call may have is read.
    Find { call: CallId, since: JobId, reading: Bytes, left: VecDeque<Bytes>, then: Then, ticket: Ticket },
    /// The same, for work that may have been done before.
    Check { piece: Piece, from: PartitionId, left: VecDeque<Bytes>, cause: Cause },
    /// Which lanes there are at the home of a call that may have been accepted before.
    CheckLanes { piece: Piece, from: PartitionId, lanes: Vec<String>, cause: Cause },
    /// A dead letter is made a call again.
    Revive { lane: String, call: CallId, record: stored::Call, ticket: Ticket },
    /// A dead letter is deleted.
    Purge { call: CallId, ended: Box<stored::Ended>, ticket: Ticket },
    /// Outgoing records are read.
    ReadOutgoing { partition: PartitionId, after: Bytes, cause: Cause },
    /// Which calls wait for an exclusive key is read, from one on.
    KeyPage { name: KeyName, from: CallId },
    /// One of them is read.
    KeyRow { name: KeyName, call: CallId, since: JobId },
    /// Something is written, so that the partition is ours.
    Own { partition: PartitionId },
    /// The next lane of a partition is found.
    FindLane { partition: PartitionId, after: String },
    /// The oldest ended call of a partition is found.
    FindEnded { partition: PartitionId },
    /// Something is written, to know that all before is decided.
    Probe { partition: PartitionId },
    /// Ended calls are read, to delete the oldest.
    SweepEnded { left: Vec<PartitionId>, partition: PartitionId },
    /// Idempotency keys are read, to delete the oldest.
    SweepKeys { left: Vec<PartitionId>, partition: PartitionId, after: Bytes },
    /// Records of triggers are read.
    FindTriggers { partition: PartitionId, kind: u8, after: Bytes },
    /// Something is written, to know that all before is decided.
    ProbeTrigger { partition: PartitionId, key: Bytes, ticket: Ticket },
    /// The record of a trigger is read.
    ReadTrigger { partition: PartitionId, key: Bytes, ticket: Ticket },
    /// They are deleted; `next` follows.
    Swept { next: Option<Box<Job>> },
}

/// Who is told of a settlement, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    /// As of a finish.
    Finished(Ticket),
    /// As of a look.
    Seen(Ticket),
}

/// What is to be done with a call that was found.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    Look,
    Cancel(Box<stored::Ended>),
    Replay,
    Purge,
    /// It has a unique key until it has ended: somebody else wants that. The ticket means nothing.
    Holds(Bytes),
}

/// Who wants a call to be accepted.
#[derive(Clone, Debug)]
pub(crate) enum Asker {
    /// The node.
    Node(Ticket),
    /// A commit elsewhere: it is carried over.
    Carried(PartitionId, Cause),
}

/// Why outgoing records are carried over: who waits until that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// They have just been written. Nobody.
    Fresh,
    /// The node has started.
    Recovery,
    /// It is not known whether a batch of this partition landed.
    Doubt(PartitionId),
}

impl Durable {
    /// Goes on with the jobs that have been answered.
    pub(super) fn pump_jobs(&mut self) -> bool {
        let Some((id, answer)) = self.outbox.poll_job() else { return false };
        let Some(job) = self.work.jobs.remove(&id) else { panic!("an answer is to a job that waits for it") };
        let Answer::Finished(finished) = answer else {
            panic!("a commit is answered with what became of it")
        };
        self.on_committed(job, finished);
        true
    }

    /// The store has answered a read or scan of a job.
    pub(super) fn on_looked(&mut self, id: JobId, answer: StoreAnswer) {
        let job = self.work.jobs.remove(&id).expect("an answer is to a job that waits for it");
        match answer {
            StoreAnswer::Read(read) => self.on_row(job, read.and_then(value)),
            StoreAnswer::Scanned(page) => self.on_page(id, job, page.and_then(values)),
            StoreAnswer::Committed(_) | StoreAnswer::Owner(_) => panic!("the driver answers what was asked"),
        }
        self.work.look_ends(id);
    }

    pub(super) fn handle_work_timeout(&mut self, now: Now) {
        self.tell_time(now);
        while let Some((&(at, _), _)) = self.work.again.first_key_value()
            && at <= now.mono
            && let Some((_, job)) = self.work.again.pop_first()
        {
            self.begin(job);
        }
        let due: Vec<_> =
            self.work.lanes.values_mut().flat_map(|lane| lane.handle_timeout(now.mono)).collect();
        due.into_iter().for_each(|(call, entry)| self.work.offer(call, entry));
        self.pump_keys();
        self.refill_all();
        if self.work.sweep_at.is_some_and(|at| at <= now.mono) {
            self.sweep();
        }
    }

    pub(super) fn poll_work_timeout(&self) -> Option<bourse_wire::time::Mono> {
        let again = self.work.again.keys().next().map(|(at, _)| *at);
        let lanes = self.work.lanes.values().filter_map(|lane| lane.poll_timeout()).min();
        [again, lanes, self.work.sweep_at].into_iter().flatten().min()
    }

    /// Begins a job, or begins it anew.
    fn begin(&mut self, job: Job) {
        match job {
            Job::Carry { piece, from, cause }
            | Job::Check { piece, from, cause, .. }
            | Job::CheckLanes { piece, from, cause, .. } => {
                self.check(piece, from, cause);
            }
            Job::Clear { outgoing, cause } => self.clear(outgoing, cause),
            Job::ReadOutgoing { partition, after, cause } => self.read_outgoing(partition, after, cause),
            Job::FindLane { partition, after } => self.find_lane(partition, after),
            Job::FindEnded { partition } => self.find_ended(partition),
            Job::Probe { partition } => self.probe(partition),
            Job::Own { partition } => self.begin_own(partition),
            Job::LookUp { unique } => self.look_up(unique),
            Job::Join { piece, from, cause } => self.join_again(piece, from, cause),
            Job::KeyPage { name, from } => {
                self.work.keys_held.page_read(&name, 0, Some(from));
                self.pump_keys();
            }
            Job::SweepEnded { left, partition } => self.sweep_ended(left, partition),
            Job::SweepKeys { left, partition, after } => self.sweep_keys(left, partition, after),
            Job::FindTriggers { partition, kind, after } => self.find_triggers(partition, kind, after),
            Job::ProbeTrigger { partition, key, ticket } => self.probe_trigger(partition, key, ticket),
            Job::ReadTrigger { partition, key, ticket } => self.read_trigger(partition, key, ticket),
            Job::Swept { next } => next.into_iter().for_each(|next| self.begin(*next)),
            once => unreachable!("{once:?} is not tried again by itself"),
        }
    }

    pub(super) fn commit_job(&mut self, layer: Layer, job: Job) {
        let id = self.work.job(job);
        if let Finish::Now(finished) = self.finish_root(layer, Who::Job(id)) {
            self.outbox.answer(Who::Job(id), Answer::Finished(finished));
        }
    }

    fn read_page(&mut self, partition: PartitionId, (start, end): key::Between, rows_max: usize, job: Job) {
        let id = self.work.look(job);
        let request = StoreRequest::Scan { partition, start, end, rows_max, bytes_max: PAGE_BYTES };
        self.outbox.ask(Asked::Job(id), request);
    }

    fn read_row(&mut self, partition: PartitionId, key: Bytes, job: Job) {
        let id = self.work.look(job);
        self.outbox.ask(Asked::Job(id), StoreRequest::Read { partition, key });
    }

    // ------------------------------------------------------------ what becomes of commits

    fn on_committed(&mut self, job: Job, finished: Finished) {
        let done = finished == Finished::Done;
        match job {
            Job::Replace { unique, call, record, due } => {
                self.on_replaced(unique, (call, *record), due, &finished);
            }
            Job::Accept { new, unique, by } => self.on_accept(new, unique, by, finished),
            Job::Settle { lane, call, next, at, pieces, told } => {
                let ended = match &next {
                    Next::Ended(ended) => Some(ended.clone()),
                    Next::Again { .. } | Next::Tail(_) => None,
                };
                self.on_settled(lane, call, next, at, pieces, &finished);
                match (told, ended) {
                    (Told::Seen(ticket), Some(ended)) if done => self.answer_seen(ticket, Seen::Ended(ended)),
                    _ => self.tell(told, call, finished),
                }
            }
            Job::Emit { pieces, at, ticket } => {
                match &finished {
                    Finished::Done => self.spread(pieces, at),
                    Finished::Unknown(_) => self.doubt_pieces(pieces, at, None),
                    _ => self.never_arrive(&pieces, at),
                }
                self.outbox.answer(Who::Node(ticket), Answer::Finished(finished));
            }
            Job::Carry { piece, from, cause } if done => {
                let outgoing = piece.outgoing(from);
                self.arrived(piece);
                if outgoing.matter == Matter::End && cause != Cause::Fresh {
                    self.outbox.known(outgoing.call);
                }
                if mutant::is(Mutant::CarriedNotCleared) {
                    self.work.carried.remove(&outgoing);
                    return self.carried(cause);
                }
                self.clear(outgoing, cause);
            }
            Job::Clear { outgoing, cause } if done => {
                self.work.carried.remove(&outgoing);
                self.carried(cause);
            }
            Job::Revive { lane, call, ticket, record } => {
                self.work.busy.remove(&call);
                self.find_early();
                if done {
                    // Who is looking for it may have missed it where it was, and where it is.
                    self.work.leaves(call);
                    self.work.lane(&lane).look_from(call);
                    self.refill(&lane);
                    self.answer_seen(
                        ticket,
                        Seen::Live { record: Box::new(record), running: false, due: None },
                    );
                } else {
                    self.outbox.answer(Who::Node(ticket), Answer::Finished(finished));
                }
            }
            Job::Purge { call, ended, ticket } => {
                self.work.busy.remove(&call);
                self.find_early();
                match done {
                    true => self.answer_seen(ticket, Seen::Ended(ended)),
                    false => self.outbox.answer(Who::Node(ticket), Answer::Finished(finished)),
                }
            }
            Job::Probe { partition } if done => {
                self.open(Cause::Doubt(partition));
                self.read_outgoing(partition, Bytes::new(), Cause::Doubt(partition));
            }
            Job::Own { partition } if done => self.on_owned(partition),
            Job::Join { piece, from, cause } if done => self.on_joined(&piece, from, cause),
            Job::ProbeTrigger { partition, key, ticket } if done => self.read_trigger(partition, key, ticket),
            Job::Swept { next } if done => next.into_iter().for_each(|next| self.begin(*next)),
            failed @ (Job::Carry { .. }
            | Job::Clear { .. }
            | Job::Probe { .. }
            | Job::Own { .. }
            | Job::Join { .. }
            | Job::ProbeTrigger { .. }
            | Job::Swept { .. }) => {
                self.work.job_again(AGAIN, failed);
            }
            other => unreachable!("{other:?} commits nothing"),
        }
    }

    fn on_settled(
        &mut self,
        lane: String,
        call: CallId,
        next: Next,
        at: PartitionId,
        pieces: Vec<Piece>,
        finished: &Finished,
    ) {
        match finished {
            Finished::Done => {
                match next {
                    Next::Again { record, due } => {
                        if (record.frees_key || mutant::is(Mutant::BackOffFreesKey))
                            && let Some(name) = KeyName::of(&record)
                        {
                            self.work.keys_held.ended(&name, call);
                        }
                        if let Some(entry) = self.work.lane(&lane).taken_mut(call) {
                            (entry.record, entry.due) = (*record, Some(due));
                        }
                        self.work.put_back(&lane, call, Some(due));
                        self.pump_keys();
                    }
                    // Its home is about to say so; here, or when that is carried over.
                    Next::Tail(_) => {}
                    Next::Ended(ended) => {
                        if let Some(entry) = self.work.lane(&lane).taken_mut(call) {
                            entry.ended = Some(ended);
                        }
                    }
                }
                self.spread(pieces, at);
            }
            Finished::Unknown(_) => self.doubt_pieces(pieces, at, Some((lane, call))),
            _ => self.never_arrive(&pieces, at),
        }
    }

    /// Nobody knows whether a commit with pieces of work has landed: the calls that would be at home there are looked
    /// for, once that is known.
    fn doubt_pieces(&mut self, pieces: Vec<Piece>, at: PartitionId, of: Option<(String, CallId)>) {
        // What ends is in memory, wherever its home is.
        let here = pieces.iter().filter(|piece| !piece.is_accept() || piece.is_at_home(at));
        let here: Vec<_> = here.map(|piece| (piece.lane().to_owned(), piece.call)).collect();
        self.never_arrive(&pieces, at);
        self.begin_doubt(at, of.into_iter().chain(here));
    }

    /// Nobody takes care of these pieces of work any more: the commit with them has not landed, or it is to be found out.
    pub(in crate::durable) fn never_arrive(&mut self, pieces: &[Piece], at: PartitionId) {
        for piece in pieces {
            if !piece.is_at_home(at) {
                self.work.carried.remove(&piece.outgoing(at));
            }
            if piece.is_accept() {
                self.is_there(piece.call);
            }
        }
    }

    /// A commit with pieces of work has landed: those that are at home there are done, the others are carried over.
    fn spread(&mut self, pieces: Vec<Piece>, at: PartitionId) {
        for piece in pieces {
            if piece.is_at_home(at) { self.arrived(piece) } else { self.carry(piece, at, Cause::Fresh) }
        }
    }

    /// A piece of work is done: memory follows.
    fn arrived(&mut self, piece: Piece) {
        let (lane, call) = (piece.lane().to_owned(), piece.call);
        self.is_there(call);
        match piece.what {
            What::Accept(record) => self.came(call, record),
            What::Tail(record) => self.went_on(call, record),
            What::End(ended) => {
                self.work.leaves(call);
                if mutant::is(Mutant::DoneIsRetried) {
                    return self.work.put_back(&lane, call, None);
                }
                self.work.forget(&lane, call, KeyName::of_ended(&ended).as_ref());
                if ended.status() != stored::ended::Status::Dead {
                    self.work.note_ended(call, self.limits.ended_kept);
                }
            }
        }
        self.refill(&lane);
        self.pump_keys();
    }

    /// A call has become one of another function: it is to be run.
    fn went_on(&mut self, call: CallId, record: stored::Call) {
        let before = self.work.find(call).map(|(lane, entry, ..)| (lane.to_owned(), entry.tries));
        let mut entry = Entry::new(record, None);
        if let Some((lane, tries)) = before {
            self.work.lane(&lane).forget(call);
            entry.tries = tries;
        }
        self.work.leaves(call);
        self.work.offer(call, entry);
    }

    fn tell(&mut self, told: Told, call: CallId, finished: Finished) {
        match (told, finished) {
            (Told::Finished(ticket), finished) => {
                self.outbox.answer(Who::Node(ticket), Answer::Finished(finished));
            }
            (Told::Seen(ticket), Finished::Done) => self.find(call, Then::Look, ticket),
            (Told::Seen(ticket), finished) => {
                if !matches!(finished, Finished::Unknown(_)) {
                    // It waits as before.
                    let lane = self.work.find(call).map(|(lane, entry, ..)| (lane.to_owned(), entry.due));
                    if let Some((lane, due)) = lane {
                        self.work.put_back(&lane, call, due);
                        self.pump_keys();
                    }
                }
                self.outbox.answer(Who::Node(ticket), Answer::Finished(finished));
            }
        }
    }

    // ------------------------------------------------------------ what the store says

    fn on_row(&mut self, job: Job, row: Result<Option<Bytes>, ReadError>) {
        match job {
            Job::LookUp { unique } => self.on_key(unique, row),
            Job::Find { call, since, reading, left, then, ticket } => {
                self.on_found(since, (call, reading, left), then, ticket, row);
            }
            Job::Check { piece, from, left, cause } => match row {
                Err(_) => self.work.job_again(AGAIN, Job::Check { piece, from, left, cause }),
                Ok(None) => self.check_next(piece, from, left, cause),
                Ok(Some(row)) => self.check_found(piece, from, &row, cause),
            },
            Job::KeyRow { name, call, since } => self.on_key_row(&name, (call, since), row),
            Job::ReadTrigger { partition, key, ticket } => self.on_trigger((partition, key, ticket), row),
            other => unreachable!("{other:?} reads no record"),
        }
    }

    fn on_page(&mut self, id: JobId, job: Job, page: Result<StorePage, ReadError>) {
        match (job, page) {
            (Job::Page { lane }, page) => self.on_lane_page(id, lane, page),
            (Job::KeyPage { name, from }, page) => self.on_key_page(id, &name, from, page),
            (job, Err(_)) => self.work.job_again(AGAIN, job),
            (Job::ReadOutgoing { partition, cause, .. }, Ok(page)) => {
                self.on_outgoing(partition, cause, &page)
            }
            (Job::CheckLanes { piece, from, lanes, cause }, Ok(page)) => {
                self.on_lanes(piece, from, lanes, cause, &page);
            }
            (Job::FindLane { partition, .. }, Ok(page)) => self.on_lane(partition, &page),
            (Job::FindEnded { partition }, Ok(page)) => {
                let unique =
                    |value: &Bytes| CallId::from_wire(&stored::Unique::decode(value.clone()).ok()?.call);
                let first = page.rows.first();
                let call = first.and_then(|(key, value)| key::parse_ended(key).or_else(|| unique(value)));
                if let Some(call) = call {
                    self.work.ended.insert(partition, call);
                    self.work.sweep_at.get_or_insert(self.work.now + SWEEP_MIN);
                }
                self.recover_more(true);
            }
            (Job::FindTriggers { partition, kind, .. }, Ok(page)) => self.on_triggers(partition, kind, page),
            (Job::SweepEnded { left, partition }, Ok(page)) => self.on_sweep_ended(left, partition, &page),
            (Job::SweepKeys { left, partition, .. }, Ok(page)) => self.on_sweep_keys(left, partition, &page),
            (other, Ok(_)) => unreachable!("{other:?} reads no page"),
        }
    }

    pub(super) fn finish_root(&mut self, layer: Layer, who: Who) -> Finish {
        let id = layer.partition;
        let new = || Partition::new(self.node, id, &self.limits);
        let partition = self.partitions.entry(id).or_insert_with(new);
        partition.finish(layer, who, &mut self.tick, &self.limits, &mut self.outbox)
    }
}

/// The least id above this one, at the same home: that is the last byte.
fn next_id(call: CallId) -> Option<CallId> {
    let step = if mutant::is(Mutant::NextPageElsewhere) { 1 } else { 1 << 8 };
    let next = u128::from_be_bytes(*call.as_bytes()).checked_add(step)?;
    CallId::from_wire(&next.to_be_bytes())
}

/// A stored value without its header.
fn value(stored: Option<Bytes>) -> Result<Option<Bytes>, ReadError> {
    let decoded = stored.as_ref().map(record::decode).transpose();
    decoded.map(|record| record.map(|record| record.value)).map_err(|corrupt| ReadError(corrupt.to_string()))
}

fn values(page: StorePage) -> Result<StorePage, ReadError> {
    let StorePage { rows, more } = page;
    let rows: Result<Vec<_>, ReadError> =
        rows.into_iter().map(|(key, stored)| Ok((key, value(Some(stored))?.unwrap_or_default()))).collect();
    Ok(StorePage { rows: rows?, more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_id_is_at_the_same_home() {
        let call = CallId::new(1_000, [7; 10]).at(255);
        let next = next_id(call).unwrap();
        assert!(next > call);
        assert_eq!((next.home(), next.made_ms()), (255, 1_000));
    }
}
