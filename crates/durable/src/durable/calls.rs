//! What the node asks for durable calls. See [`crate::work`].

use std::time::Duration;

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as record;
use bourse_wire::time::{DURATION_MAX, Mono, Now};

use super::Durable;
use super::jobs::{Asker, Job, Then, Told};
use crate::batch::PartitionId;
use crate::layer::Layer;
use crate::message::{Answer, Finish, Finished, LayerId, Ticket};
use crate::mutant::{self, Mutant};
use crate::outbox::Who;
use crate::work::exclusive::KeyName;
use crate::work::{LaneView, NewCall, Next, Piece, Recovery, Seen, Taken, key};

impl Durable {
    /// Finds what an earlier life has left. Until that is done no call is given out. To be called once, first.
    pub fn recover(&mut self, now: Now) {
        assert!(matches!(self.work.recovery, Recovery::Waits), "recovery begins once");
        self.tell_time(now);
        self.begin_recovery();
    }

    /// Accepts a call. Answered by [`Answer::Accepted`] once it is in the store, or by [`Answer::Finished`] with the
    /// reason why not. A call whose idempotency key another one has is answered with that one's id.
    pub fn accept(&mut self, now: Now, new: NewCall, ticket: Ticket) {
        self.tell_time(now);
        match new.record.idempotency_key.is_empty() {
            true => self.commit_accept(new, None, Asker::Node(ticket)),
            false => self.accept_unique(new, Asker::Node(ticket)),
        }
    }

    /// The lanes that have calls to give out.
    pub fn ready(&self) -> impl Iterator<Item = &str> {
        let begun = matches!(self.work.recovery, Recovery::Lanes { .. } | Recovery::Done);
        self.work
            .lanes
            .iter()
            .filter(move |(_, lane)| begun && lane.head().is_some())
            .map(|(name, _)| name.as_str())
    }

    /// The oldest call of a lane that is ready, to be run now. It is to be settled or put back.
    pub fn take(&mut self, lane: &str) -> Option<Taken> {
        let node = self.node.0;
        let name = loop {
            let head = self.work.lanes.get(lane)?;
            let (call, name) = (head.head()?, KeyName::of(head.head_record()?));
            let shared = name.as_ref().is_some_and(|name| self.work.keys_held.shares(name, call));
            if !shared {
                break name;
            }
            let lane = self.work.lane(lane);
            lane.take();
            if let Some(entry) = lane.remove_taken(call) {
                self.work.keys_held.stall(call, entry);
            }
        };
        let mut fence = 0;
        if let Some(name) = &name {
            match self.next_fence(name) {
                Some(number) => fence = number,
                None => {
                    self.own(name.partition());
                    return None;
                }
            }
        }
        let (call, entry) = self.work.lanes.get_mut(lane)?.take()?;
        let redelivered = entry.record.incarnation != node || entry.tries > 0;
        entry.tries += 1;
        let taken = Taken { call, attempt: entry.tries, redelivered, fence, record: entry.record.clone() };
        if let Some(name) = name {
            self.work.keys_held.runs(&name, call);
        }
        self.refill(lane);
        Some(taken)
    }

    /// The attempt has another number now: it was begun anew.
    pub fn renumber(&mut self, lane: &str, call: CallId, attempt: u32) {
        if let Some(entry) = self.work.lanes.get_mut(lane).and_then(|lane| lane.taken_mut(call)) {
            entry.tries = attempt;
        }
    }

    /// An attempt of a taken call is over: what it changed (`None`: nothing of it counts) and emitted, and what becomes of the call, are one commit.
    /// As [`Self::finish`] otherwise. After [`Finished::Done`] and [`Finished::Unknown`] the call is no longer taken: it has
    /// what became of it, or will be found out and given out anew if need be. Else it is still taken.
    pub fn settle(
        &mut self,
        now: Now,
        layer: Option<LayerId>,
        call: CallId,
        next: Next,
        emitted: Vec<NewCall>,
        ticket: Ticket,
    ) -> Finish {
        self.settle_all(now, layer, (call, next), Vec::new(), emitted, ticket)
    }

    /// The same of a call with others that were run together with it, and have ended with it.
    pub fn settle_all(
        &mut self,
        now: Now,
        layer: Option<LayerId>,
        (call, next): (CallId, Next),
        others: Vec<(CallId, record::Ended)>,
        emitted: Vec<NewCall>,
        ticket: Ticket,
    ) -> Finish {
        self.tell_time(now);
        let layer = layer.and_then(|layer| self.end(layer));
        if layer.as_ref().is_some_and(|layer| layer.gone) {
            return Finish::Now(Finished::Lost);
        }
        assert!(layer.as_ref().is_none_or(|l| l.below.is_none()), "a durable call has no ancestors");
        self.commit_settle(layer, (call, next), others, emitted, Told::Finished(ticket))
    }

    /// What [`Self::take`] would give.
    pub fn peek(&self, lane: &str) -> Option<(CallId, &record::Call)> {
        let lane = self.work.lanes.get(lane)?;
        Some((lane.head()?, lane.head_record()?))
    }

    /// A taken call is not run, and that was no attempt: it waits again.
    pub fn give_back(&mut self, now: Now, lane: &str, call: CallId, pause: Duration) {
        let entry = self.work.lanes.get_mut(lane).and_then(|lane| lane.taken_mut(call));
        if let Some(entry) = entry {
            entry.tries = entry.tries.saturating_sub(1);
            if let Some(name) = KeyName::of(&entry.record) {
                self.unlock(&name, call);
            }
        }
        self.put_back(now, lane, call, pause);
    }

    /// A taken call is not run now: it waits again.
    pub fn put_back(&mut self, now: Now, lane: &str, call: CallId, pause: Duration) {
        self.tell_time(now);
        let due = (!pause.is_zero()).then(|| now.mono + pause);
        self.work.put_back(lane, call, due);
        self.pump_keys();
    }

    /// How a call stands. Answered by [`Answer::Seen`].
    pub fn look(&mut self, call: CallId, ticket: Ticket) {
        self.find(call, Then::Look, ticket);
    }

    /// Ends a call that waits. Answered by [`Answer::Seen`] with how it stands then: one that is being run goes on, and
    /// the node has to end it by itself.
    pub fn cancel(&mut self, now: Now, call: CallId, ended: record::Ended, ticket: Ticket) {
        self.tell_time(now);
        self.find(call, Then::Cancel(Box::new(ended)), ticket);
    }

    /// Gives a dead letter another chance, from its first attempt. Answered by [`Answer::Seen`]: live, if it was one.
    pub fn replay(&mut self, now: Now, call: CallId, ticket: Ticket) {
        self.tell_time(now);
        self.find(call, Then::Replay, ticket);
    }

    /// Forgets a dead letter. Answered by [`Answer::Seen`] with what it was: dead, if it was one.
    pub fn purge(&mut self, now: Now, call: CallId, ticket: Ticket) {
        self.tell_time(now);
        self.find(call, Then::Purge, ticket);
    }

    /// The partition of an open layer: what is at home there too is committed with it.
    pub fn home_of(&self, layer: LayerId) -> Option<PartitionId> {
        self.layers.find(layer).map(|layer| layer.partition)
    }

    /// The lanes, as they are now.
    pub fn lanes(&self) -> impl Iterator<Item = LaneView<'_>> {
        self.work.lanes.iter().map(|(name, lane)| {
            let (ready, later, running) = lane.counts();
            let keys = &self.work.keys_held;
            let more = lane.has_more() || keys.has_more(name);
            LaneView { lane: name, ready: ready + keys.parked_of(name), later, running, more }
        })
    }

    /// Whether all that an earlier life has left is known.
    pub fn is_recovered(&self) -> bool {
        matches!(self.work.recovery, Recovery::Done)
    }

    /// Nothing of an accepted call is on its way to the store, or from one partition to another.
    pub fn is_quiet(&self) -> bool {
        self.work.jobs.is_empty() && self.work.again.is_empty() && self.work.unsure.is_empty()
    }

    pub(super) fn tell_time(&mut self, now: Now) {
        self.work.now = now.mono;
        self.work.wall = now.wall;
    }

    /// One commit: the layer, the call's own record, and what was emitted.
    pub(super) fn commit_settle(
        &mut self,
        layer: Option<Layer>,
        (call, next): (CallId, Next),
        others: Vec<(CallId, record::Ended)>,
        emitted: Vec<NewCall>,
        told: Told,
    ) -> Finish {
        let home = key::home(call);
        let lane = self.work.find(call).map(|(lane, ..)| lane.to_owned()).expect("what is settled is taken");
        let mut layer = layer.unwrap_or_else(|| Layer::bare(home));
        if mutant::is(Mutant::EndApartFromState) {
            let state = std::mem::replace(&mut layer, Layer::bare(home));
            self.commit_job(state, Job::Swept { next: None });
        }
        let mut pieces = Vec::new();
        match &next {
            Next::Again { record, .. } => {
                assert_eq!(layer.partition, home, "an attempt that failed changes nothing");
                layer.set(key::live(&lane, call), Some(encode(&**record)));
            }
            Next::Tail(record) => pieces.push(Piece::tail(call, (**record).clone())),
            Next::Ended(ended) => pieces.push(Piece::end(call, (**ended).clone())),
        }
        pieces.extend(others.into_iter().map(|(call, ended)| Piece::end(call, ended)));
        pieces.extend(layer.emits.drain(..).chain(emitted).map(Piece::accept));
        let job = |at, pieces| Job::Settle { lane, call, next, at, pieces, told };
        self.commit_pieces(layer, pieces, job)
    }

    /// One commit of a layer and of what was emitted, where the caller is not a durable call.
    pub(super) fn commit_emits(
        &mut self,
        layer: Option<Layer>,
        emitted: Vec<NewCall>,
        ticket: Ticket,
    ) -> Finish {
        let first = emitted.first().map(|new| new.call);
        let mut layer = match (layer, first) {
            (Some(layer), _) => layer,
            (None, Some(first)) => Layer::bare(key::home(first)),
            (None, None) => return Finish::Now(Finished::Done),
        };
        let all: Vec<NewCall> = layer.emits.drain(..).chain(emitted).collect();
        if all.is_empty() {
            return self.finish_root(layer, Who::Node(ticket));
        }
        let pieces = all.into_iter().map(Piece::accept).collect();
        self.commit_pieces(layer, pieces, |at, pieces| Job::Emit { pieces, at, ticket })
    }

    /// Writes what each piece of work takes, here or as an outgoing record, and commits.
    fn commit_pieces(
        &mut self,
        mut layer: Layer,
        pieces: Vec<Piece>,
        job: impl FnOnce(PartitionId, Vec<Piece>) -> Job,
    ) -> Finish {
        let at = layer.partition;
        pieces.iter().for_each(|piece| self.put_piece(&mut layer, piece));
        if let Err(refusal) = layer.fits() {
            self.never_arrive(&pieces, at);
            return Finish::Now(Finished::Refused(refusal));
        }
        let job = self.work.job(job(at, pieces));
        match self.finish_root(layer, Who::Job(job)) {
            Finish::Later => Finish::Later,
            now => {
                if let Some(Job::Settle { pieces, .. } | Job::Emit { pieces, .. }) =
                    self.work.jobs.remove(&job)
                {
                    self.never_arrive(&pieces, at);
                }
                now
            }
        }
    }

    /// Writes what a piece of work takes, here or as an outgoing record.
    pub(super) fn put_piece(&mut self, layer: &mut Layer, piece: &Piece) {
        let at = layer.partition;
        if piece.is_at_home(at) {
            if piece.is_accept() {
                self.work.arriving.insert(piece.call);
            }
            piece.rows().into_iter().for_each(|(key, value)| layer.set(key, value));
            return;
        }
        let unique_is_own = piece.unique_is_own;
        let outgoing = record::Outgoing { what: Some(piece.what.clone()), unique_is_own };
        layer.set(key::outgoing(&piece.outgoing(at)), Some(encode(&outgoing)));
        self.work.carried.insert(piece.outgoing(at));
        if piece.is_accept() {
            self.work.arriving.insert(piece.call);
        }
    }

    /// Answers the node with how a call stands.
    pub(super) fn answer_seen(&mut self, ticket: Ticket, seen: Seen) {
        self.outbox.answer(Who::Node(ticket), Answer::Seen(Box::new(seen)));
    }
}

pub(super) fn encode(message: &impl prost::Message) -> bytes::Bytes {
    bourse_wire::header::encode(message)
}

/// How long a call may wait for its next attempt, whatever the clocks say; one that is delayed, as long as was asked.
pub(super) const PAUSE_MOST: Duration = Duration::from_secs(24 * 3600);

impl Durable {
    pub(super) fn due(&self, record: &record::Call) -> Option<Mono> {
        let pause = Some(Duration::from_millis(record.pause_ms)).filter(|pause| !pause.is_zero());
        let most = if record.delayed { DURATION_MAX } else { PAUSE_MOST };
        self.work.due(record.due_ms, pause.unwrap_or(PAUSE_MOST).min(most))
    }
}
