//! Work for other partitions: it is carried over, then its outgoing record is deleted. And doubt, which ends with that.

use std::collections::VecDeque;

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bourse_wire::record::v1::outgoing::What;
use bytes::Bytes;
use prost::Message as _;

use super::{AGAIN, Asker, Cause, Durable, Job, PAGE_ROWS, encode};
use crate::batch::PartitionId;
use crate::layer::Layer;
use crate::message::StorePage;
use crate::mutant::{self, Mutant};
use crate::work::exclusive::KeyName;
use crate::work::{NewCall, Outgoing, Piece, Recovery, key, lane_of, lane_of_function};

impl Durable {
    pub(super) fn carry(&mut self, piece: Piece, from: PartitionId, cause: Cause) {
        self.work.carried.insert(piece.outgoing(from));
        if let What::Accept(record) = &piece.what {
            self.work.arriving.insert(piece.call);
            if !piece.unique_is_own {
                let new = NewCall { call: piece.call, record: record.clone() };
                return self.accept_unique(new, Asker::Carried(from, cause));
            }
        }
        if mutant::is(Mutant::ClearedNotCarried) {
            return self.clear(piece.outgoing(from), cause);
        }
        let mut layer = Layer::bare(key::home(piece.call));
        piece.rows().into_iter().for_each(|(key, value)| layer.set(key, value));
        self.commit_job(layer, Job::Carry { piece, from, cause });
    }

    /// Carries a piece over that may have been carried over before. Ending a call twice does no harm; accepting it
    /// twice would, and so would going back to an earlier step.
    pub(super) fn check(&mut self, piece: Piece, from: PartitionId, cause: Cause) {
        self.work.carried.insert(piece.outgoing(from));
        match piece.what {
            What::End(_) => self.carry(piece, from, cause),
            // Who looks its key up will see.
            What::Accept(_) if !piece.unique_is_own => self.carry(piece, from, cause),
            What::Accept(_) => {
                self.work.arriving.insert(piece.call);
                self.check_lanes(piece, from, Vec::new(), cause);
            }
            What::Tail(_) if mutant::is(Mutant::OldTailWins) => self.carry(piece, from, cause),
            What::Tail(ref record) => {
                let left = [&record.previous, &record.function];
                let left = left.map(|function| key::live(lane_of_function(function), piece.call));
                self.check_next(piece, from, left.into(), cause);
            }
        }
    }

    /// Finds the lanes at its home, one after the other: it may have gone on from its own to any of them.
    pub(super) fn check_lanes(&mut self, piece: Piece, from: PartitionId, lanes: Vec<String>, cause: Cause) {
        let after = lanes.last().map_or("", String::as_str);
        let (home, between) = (key::home(piece.call), key::lanes_after(after));
        self.read_page(home, between, 1, Job::CheckLanes { piece, from, lanes, cause });
    }

    pub(super) fn on_lanes(
        &mut self,
        piece: Piece,
        from: PartitionId,
        mut lanes: Vec<String>,
        cause: Cause,
        page: &StorePage,
    ) {
        let next = page.rows.first().and_then(|(key, _)| key::parse_live(key));
        if let Some((lane, _)) = next.filter(|_| !mutant::is(Mutant::OneLaneIsChecked)) {
            lanes.push(lane.to_owned());
            return self.check_lanes(piece, from, lanes, cause);
        }
        let own = piece.lane().to_owned();
        let live = lanes.iter().chain([&own]).map(|lane| key::live(lane, piece.call));
        let left = live.chain([key::ended(piece.call), key::dead(piece.call)]).collect();
        self.check_next(piece, from, left, cause);
    }

    pub(super) fn check_next(
        &mut self,
        piece: Piece,
        from: PartitionId,
        mut left: VecDeque<Bytes>,
        cause: Cause,
    ) {
        if let Some((_, entry, ..)) = self.work.find(piece.call) {
            return match piece.what {
                What::Tail(ref record) if entry.record.step < record.step => self.carry(piece, from, cause),
                _ => {
                    self.is_there(piece.call);
                    self.clear(piece.outgoing(from), cause);
                }
            };
        }
        match left.pop_front() {
            // It has gone on from there, or ended.
            None if matches!(piece.what, What::Tail(_)) => self.clear(piece.outgoing(from), cause),
            None => self.carry(piece, from, cause),
            Some(key) => self.read_row(key::home(piece.call), key, Job::Check { piece, from, left, cause }),
        }
    }

    /// There is a record of the call.
    pub(super) fn check_found(&mut self, piece: Piece, from: PartitionId, row: &Bytes, cause: Cause) {
        let step = stored::Call::decode(row.clone()).map_or(u64::MAX, |record| record.step);
        match &piece.what {
            What::Tail(record) if step < record.step => self.carry(piece, from, cause),
            _ => self.has_arrived(&piece, from, cause),
        }
    }

    /// It has been carried over before, by somebody who was not told so.
    pub(super) fn has_arrived(&mut self, piece: &Piece, from: PartitionId, cause: Cause) {
        let lane = piece.lane().to_owned();
        self.is_there(piece.call);
        self.work.lane(&lane).look_from(piece.call);
        self.refill(&lane);
        self.clear(piece.outgoing(from), cause);
    }

    pub(super) fn clear(&mut self, outgoing: Outgoing, cause: Cause) {
        let mut layer = Layer::bare(outgoing.from);
        layer.set(key::outgoing(&outgoing), None);
        self.commit_job(layer, Job::Clear { outgoing, cause });
    }

    /// A piece has been carried over, or a page of them read: who waits for it goes on.
    pub(super) fn carried(&mut self, cause: Cause) {
        match cause {
            Cause::Fresh => {}
            Cause::Recovery => self.recover_more(true),
            Cause::Doubt(partition) => {
                let open = self.work.doubts_open.get_mut(&partition).expect("a doubt counts what is open");
                *open -= 1;
                if *open == 0 {
                    self.work.doubts_open.remove(&partition);
                    self.end_doubt(partition);
                }
            }
        }
    }

    pub(super) fn open(&mut self, cause: Cause) {
        match cause {
            Cause::Fresh => {}
            Cause::Recovery => {
                if let Recovery::Outgoing { open, .. } = &mut self.work.recovery {
                    *open += 1;
                }
            }
            Cause::Doubt(partition) => *self.work.doubts_open.entry(partition).or_default() += 1,
        }
    }

    pub(super) fn read_outgoing(&mut self, partition: PartitionId, after: Bytes, cause: Cause) {
        let between = key::all_outgoing(&after);
        self.read_page(partition, between, PAGE_ROWS, Job::ReadOutgoing { partition, after, cause });
    }

    pub(super) fn on_outgoing(&mut self, partition: PartitionId, cause: Cause, page: &StorePage) {
        let mut on_its_way = false;
        for (key, value) in &page.rows {
            let parsed = key::parse_outgoing(partition, key);
            let stored = stored::Outgoing::decode(value.clone()).ok();
            let stored = stored.and_then(|outgoing| Some((outgoing.what?, outgoing.unique_is_own)));
            let (Some(outgoing), Some((what, unique_is_own))) = (parsed, stored) else { continue };
            let own = match &what {
                What::Accept(record) => unique_is_own || record.idempotency_key.is_empty(),
                What::End(_) | What::Tail(_) => true,
            };
            if self.work.carried.contains(&outgoing) {
                on_its_way |= own;
                continue;
            }
            // Who has its unique key may not be known before recovery is over: nobody waits for that.
            let cause = if own { cause } else { Cause::Fresh };
            self.open(cause);
            self.check(Piece { call: outgoing.call, what, unique_is_own: own }, partition, cause);
        }
        match page.rows.last() {
            // Somebody else carries it: whoever waits for that looks until it is done.
            _ if on_its_way => {
                self.work.job_again(AGAIN, Job::ReadOutgoing { partition, after: Bytes::new(), cause });
            }
            Some((last, _)) if page.more => self.read_outgoing(partition, last.clone(), cause),
            _ => self.carried(cause),
        }
    }

    /// Nobody knows whether a batch of this partition landed, which concerned these calls.
    pub(in crate::durable) fn begin_doubt(
        &mut self,
        at: PartitionId,
        calls: impl IntoIterator<Item = (String, CallId)>,
    ) {
        if mutant::is(Mutant::DoubtIsForgotten) {
            return;
        }
        let new = !self.work.unsure.contains_key(&at);
        for (lane, call) in calls {
            self.work.arriving.insert(call);
            self.work.unsure.entry(at).or_default().insert((lane, call));
        }
        self.work.unsure.entry(at).or_default();
        if new {
            self.probe(at);
        }
    }

    /// A batch that lands tells that no earlier one is still on its way.
    pub(super) fn probe(&mut self, partition: PartitionId) {
        let mut layer = Layer::bare(partition);
        layer.set(key::probe(), None);
        self.commit_job(layer, Job::Probe { partition });
    }

    /// What the partition had for others has been carried over: the store says how each call stands.
    pub(super) fn end_doubt(&mut self, partition: PartitionId) {
        for (lane, call) in self.work.unsure.remove(&partition).unwrap_or_default() {
            self.work.leaves(call);
            self.is_there(call);
            self.work.lose(&lane, call);
            self.work.lane(&lane).look_from(call);
            self.refill(&lane);
            self.outbox.known(call);
        }
        self.pump_keys();
    }
}

impl Piece {
    /// What it changes at the call's home.
    pub(in crate::durable) fn rows(&self) -> Vec<(Bytes, Option<Bytes>)> {
        let (lane, call) = (self.lane(), self.call);
        match &self.what {
            What::Accept(record) => {
                let live = (key::live(lane, call), Some(encode(record)));
                std::iter::once(live).chain(index(record, call)).collect()
            }
            What::Tail(record) => {
                let before = lane_of_function(&record.previous);
                let old = (before != lane).then(|| (key::live(before, call), None));
                let live = (key::live(lane, call), Some(encode(record)));
                old.into_iter().chain([live]).chain(index(record, call)).collect()
            }
            What::End(ended) => {
                let key = match ended.status() {
                    stored::ended::Status::Dead => key::dead(call),
                    _ => key::ended(call),
                };
                let index = KeyName::of_ended(ended).map(|name| (key::exclusive(&name, call), None));
                let index = index.filter(|_| !mutant::is(Mutant::IndexNotCleared));
                let rows = [(key::live(lane, call), None), (key, Some(encode(ended)))];
                rows.into_iter().chain(index).collect()
            }
        }
    }
}

/// By which a call with an exclusive key is found.
pub(in crate::durable) fn index(record: &stored::Call, call: CallId) -> Option<(Bytes, Option<Bytes>)> {
    let lane = Bytes::copy_from_slice(lane_of(record).as_bytes());
    KeyName::of(record).map(|name| (key::exclusive(&name, call), Some(lane)))
}
