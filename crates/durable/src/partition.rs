//! One partition: what its open layers read of, the batches on their way, and validation.
//!
//! One batch is in flight; layers that finish meanwhile share the next one, and when that is full the one after.
//! A layer is validated when it finishes, against every write accepted before, landed or not. So the layers of a
//! partition take effect in the order in which they finish.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bourse_wire::id::Incarnation;
use bytes::Bytes;

use crate::batch::{BATCH_BYTES_MAX, BATCH_OPS_MAX, Batch, Op, Outcome, Owner, PartitionId, Seq};
use crate::cache::Cache;
use crate::durable::reading::ReadingId;
use crate::layer::Layer;
use crate::limits::Limits;
use crate::message::{Answer, Finish, Finished, LayerId, Refusal, StoreRequest};
use crate::mutant::{self, Mutant};
use crate::outbox::{Asked, Outbox, Who};
use crate::overlay::{Overlay, Write};
use crate::ownership::Ownership;
use crate::reads::Tick;
use crate::recent::Recent;
use crate::record::{self, Record, Version};

/// The most layers that share a batch: as many as a version can tell apart.
pub(crate) const LAYERS_PER_BATCH_MAX: u64 = 1 << Version::PLACE_BITS;

/// See the module.
#[derive(Debug)]
pub(crate) struct Partition {
    id: PartitionId,
    pub(crate) ownership: Ownership,
    /// Open layers of this partition that are not stacked on another, by when they opened.
    pub(crate) roots: BTreeSet<(Tick, LayerId)>,
    /// Accepted writes that are not known to have landed.
    pub(crate) pending: Overlay,
    pub(crate) recent: Recent,
    flight: Option<Draft>,
    queue: VecDeque<Draft>,
    /// Reads that wait until the partition is ours.
    waiting_reads: BTreeSet<ReadingId>,
    /// Scans for which the store looks.
    pub(crate) scans: BTreeSet<ReadingId>,
    /// Finishes that do.
    waiting_finishes: Vec<(Layer, Who)>,
}

/// A batch that is being gathered, or in flight.
#[derive(Debug)]
struct Draft {
    seq: Seq,
    writes: BTreeMap<Bytes, (Version, Option<Bytes>)>,
    /// Of keys and values, counting a key twice that two layers write.
    bytes: usize,
    ops: usize,
    layers: u64,
    whose: Vec<Who>,
}

/// What waited for the partition.
pub(crate) struct Waiting {
    pub(crate) reads: BTreeSet<ReadingId>,
    pub(crate) finishes: Vec<(Layer, Who)>,
}

impl Partition {
    pub(crate) fn new(node: Incarnation, id: PartitionId, limits: &Limits) -> Self {
        Self {
            id,
            ownership: Ownership::new(node, id, limits.acquire_attempts_max),
            roots: BTreeSet::new(),
            pending: Overlay::default(),
            recent: Recent::default(),
            flight: None,
            queue: VecDeque::new(),
            waiting_reads: BTreeSet::new(),
            scans: BTreeSet::new(),
            waiting_finishes: Vec::new(),
        }
    }

    pub(crate) fn wait_to_read(&mut self, reading: ReadingId) {
        self.waiting_reads.insert(reading);
    }

    /// The read is no longer wanted.
    pub(crate) fn forget_read(&mut self, reading: ReadingId) {
        self.waiting_reads.remove(&reading);
        self.scans.remove(&reading);
    }

    /// The partition has become ours: nothing is known of what was written before `tick`.
    pub(crate) fn acquired(&mut self, tick: Tick) -> Waiting {
        self.recent = Recent::since(tick);
        self.waiting()
    }

    /// Takes those who wait.
    pub(crate) fn waiting(&mut self) -> Waiting {
        let reads = std::mem::take(&mut self.waiting_reads);
        Waiting { reads, finishes: std::mem::take(&mut self.waiting_finishes) }
    }

    /// A layer that is not stacked on another has finished. It is no longer among [`Self::roots`].
    pub(crate) fn finish(
        &mut self,
        layer: Layer,
        who: Who,
        tick: &mut Tick,
        limits: &Limits,
        outbox: &mut Outbox,
    ) -> Finish {
        if layer.writes.is_empty() && layer.reads.len() == 0 {
            return Finish::Now(Finished::Done);
        }
        let Some(owner) = self.ownership.owner() else {
            if self.waiting_finishes.len() >= limits.finishes_waiting_max {
                return Finish::Now(Finished::Refused(Refusal::Behind));
            }
            self.ownership.touch(outbox);
            self.waiting_finishes.push((layer, who));
            return Finish::Later;
        };
        if layer.writes.is_empty() {
            return self.finish_reader(&layer, who, owner);
        }
        if layer.reads.outdated(&self.recent) && !mutant::is(Mutant::NoValidation) {
            return Finish::Now(Finished::Conflict);
        }
        let Some(draft) = self.draft_for(&layer, owner, limits) else {
            return Finish::Now(Finished::Refused(Refusal::Behind));
        };
        let (version, writes) = draft.take(layer, who);
        let tick = tick.advance();
        for (key, Write { value, .. }) in writes.into_rows() {
            if record::is_state(&key) {
                self.recent.note(&key, tick);
            }
            self.pending.put(key, Write { value, tick, version });
        }
        self.recent.trim(self.roots.first().map(|(tick, _)| *tick), limits.recent_writes_max);
        self.send(outbox);
        Finish::Later
    }

    /// The batch in flight landed, or did not. Gives the roots that are lost with the partition, if it is.
    pub(crate) fn on_outcome(
        &mut self,
        outcome: Outcome,
        cache: &mut Cache,
        outbox: &mut Outbox,
    ) -> Vec<LayerId> {
        let owner = self.ownership.owner().expect("only an owner has a batch in flight");
        let draft = self.flight.take().expect("an outcome is that of the batch in flight");
        let landed = Owner { seq: draft.seq, ..owner };
        let outcome = match outcome {
            Outcome::Unknown(_) if mutant::is(Mutant::UnknownIsDone) => Outcome::Committed,
            Outcome::Unknown(_) if mutant::is(Mutant::UnknownIsLost) => Outcome::Conflict,
            told => told,
        };
        match outcome {
            Outcome::Committed => {
                self.ownership.advance(landed);
                self.settle(draft, cache, outbox);
                self.send(outbox);
                return Vec::new();
            }
            Outcome::Conflict => {
                self.ownership.lose();
                answer_all(draft.whose, &Finished::Lost, outbox);
            }
            Outcome::Failed(text) => {
                self.ownership.lose();
                answer_all(draft.whose, &Finished::StoreFailed(text), outbox);
            }
            Outcome::Unknown(text) => self.ownership.doubt(landed, draft.whose, text, outbox),
        }
        for draft in std::mem::take(&mut self.queue) {
            answer_all(draft.whose, &Finished::Lost, outbox);
        }
        self.pending = Overlay::default();
        cache.forget(self.id);
        std::mem::take(&mut self.roots).into_iter().map(|(_, layer)| layer).collect()
    }

    /// The writes of the batch in flight.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = (&Bytes, impl FnOnce() -> Write)> {
        self.flight.iter().flat_map(|draft| &draft.writes).map(|(key, (version, value))| {
            (key, move || Write { value: value.clone(), tick: Tick(0), version: *version })
        })
    }

    pub(crate) fn check_invariants(&self, limits: &Limits) {
        self.ownership.check_invariants();
        self.pending.check_invariants();
        self.recent.check_invariants();
        assert!(self.recent.len() <= limits.recent_writes_max, "recent writes are bounded");
        assert!(self.queue.len() <= limits.batches_waiting_max, "waiting batches are bounded");
        assert!(self.flight.is_some() || self.queue.is_empty(), "nothing waits where nothing is in flight");
        let acquiring = self.ownership.owner().is_none() && !self.ownership.is_idle();
        assert!(
            acquiring || self.waiting_finishes.is_empty(),
            "who waits for a partition waits for an answer"
        );
        let Some(owner) = self.ownership.owner() else {
            assert!(
                self.flight.is_none() && self.pending.is_empty(),
                "only an owner has writes on their way"
            );
            return;
        };
        let mut seq = owner.seq;
        let mut newest = BTreeMap::new();
        for draft in self.flight.iter().chain(&self.queue) {
            seq = Seq(seq.0 + 1);
            assert_eq!(draft.seq, seq, "batches are numbered without gaps");
            assert!(
                draft.writes.len() <= draft.ops && draft.ops <= BATCH_OPS_MAX,
                "a batch keeps its bounds"
            );
            assert!(draft.bytes <= BATCH_BYTES_MAX, "a batch keeps its bounds");
            newest.extend(draft.writes.iter().map(|(key, (version, _))| (key, *version)));
        }
        let pending: BTreeMap<_, _> = self.pending.iter().map(|(key, write)| (key, write.version)).collect();
        assert_eq!(newest, pending, "what is pending is what is on its way");
        for (key, write) in self.pending.iter().filter(|(key, _)| record::is_state(key)) {
            assert!(self.recent.covers(key, write.tick), "a pending write is a recent one");
        }
    }

    /// Nothing was written: only what was read counts, and that it lands.
    fn finish_reader(&mut self, layer: &Layer, who: Who, owner: Owner) -> Finish {
        if !layer.reads.of_one_moment() && layer.reads.outdated(&self.recent) {
            return Finish::Now(Finished::Conflict);
        }
        if layer.rests_on <= owner.seq {
            return Finish::Now(Finished::Done);
        }
        let mut drafts = self.flight.iter_mut().chain(&mut self.queue);
        let draft = drafts.find(|draft| draft.seq == layer.rests_on);
        draft.expect("what was read and has not landed is on its way").whose.push(who);
        Finish::Later
    }

    /// The batch being gathered, or a new one if that is full; `None` if too many wait.
    fn draft_for(&mut self, layer: &Layer, owner: Owner, limits: &Limits) -> Option<&mut Draft> {
        if !self.queue.back().is_some_and(|draft| draft.has_room_for(&layer.writes)) {
            if self.queue.len() >= limits.batches_waiting_max {
                return None;
            }
            let last = self.queue.back().or(self.flight.as_ref()).map_or(owner.seq, |draft| draft.seq);
            self.queue.push_back(Draft::new(Seq(last.0 + 1)));
        }
        self.queue.back_mut()
    }

    /// Sends the next batch, if there is one and none is in flight.
    fn send(&mut self, outbox: &mut Outbox) {
        if self.flight.is_some() {
            return;
        }
        let (Some(owner), Some(draft)) = (self.ownership.owner(), self.queue.pop_front()) else { return };
        let op = |(key, (version, value)): (&Bytes, &(Version, Option<Bytes>))| match value {
            Some(value) => Op::Put { key: key.clone(), value: record::encode(*version, value) },
            None => Op::Delete { key: key.clone() },
        };
        let batch = Batch {
            partition: self.id,
            expect: Some(owner),
            owner: Owner { seq: draft.seq, ..owner },
            ops: draft.writes.iter().map(op).collect(),
        };
        outbox.ask(Asked::Commit(self.id), StoreRequest::Commit(batch));
        self.flight = Some(draft);
    }

    /// A batch has landed.
    fn settle(&mut self, draft: Draft, cache: &mut Cache, outbox: &mut Outbox) {
        for (key, (version, value)) in draft.writes {
            self.pending.settle(&key, version);
            if record::is_state(&key) {
                cache.put(self.id, &key, value.map(|value| Record { version, value }));
            }
        }
        answer_all(draft.whose, &Finished::Done, outbox);
    }
}

impl Draft {
    fn new(seq: Seq) -> Self {
        Self { seq, writes: BTreeMap::new(), bytes: 0, ops: 0, layers: 0, whose: Vec::new() }
    }

    fn has_room_for(&self, writes: &Overlay) -> bool {
        self.layers < LAYERS_PER_BATCH_MAX
            && self.ops + writes.len() <= BATCH_OPS_MAX
            && self.bytes + writes.bytes() <= BATCH_BYTES_MAX
    }

    /// Takes a layer in, and gives the version of its writes, and them.
    fn take(&mut self, layer: Layer, who: Who) -> (Version, Overlay) {
        let version = Version::new(self.seq, self.layers);
        self.layers += 1;
        self.ops += layer.writes.len();
        self.bytes += layer.writes.bytes();
        self.whose.push(who);
        let writes = layer.writes.iter().map(|(key, write)| (key.clone(), (version, write.value.clone())));
        self.writes.extend(writes);
        (version, layer.writes)
    }
}

fn answer_all(whose: Vec<Who>, finished: &Finished, outbox: &mut Outbox) {
    for who in whose {
        outbox.answer(who, Answer::Finished(finished.clone()));
    }
}
