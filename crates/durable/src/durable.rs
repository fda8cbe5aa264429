//! [`Durable`]: finds the layer and the partition of each request, and carries answers.

use std::collections::{BTreeMap, BTreeSet};

use bourse_wire::id::Incarnation;
use bourse_wire::time::{Mono, Now};
use bytes::Bytes;

use crate::batch::{Outcome, PartitionId};
use crate::cache::Cache;
use crate::home::{Home, StateKey};
use crate::layer::Layer;
use crate::layer::Layers;
use crate::limits::Limits;
use crate::message::{
    Answer, Finish, Finished, LayerId, Origin, Output, Refusal, StoreAnswer, Ticket, Token,
};
use crate::outbox::{Asked, Outbox, Who};
use crate::ownership::Step;
use crate::partition::{Partition, Waiting};
use crate::reads::Tick;
use crate::record::{self, STATE_VALUE_BYTES_MAX};
use crate::scan::Scan;

use self::reading::{Reading, ReadingId, What};
use crate::work::{NewCall, Work};

mod calls;
pub(crate) mod jobs;
pub(crate) mod reading;
mod triggers;

/// All keyed state of one node. See the crate.
#[derive(Debug)]
pub struct Durable {
    node: Incarnation,
    limits: Limits,
    tick: Tick,
    layers: Layers,
    partitions: BTreeMap<PartitionId, Partition>,
    backing_off: BTreeSet<PartitionId>,
    readings: BTreeMap<ReadingId, Reading>,
    readings_made: u64,
    cache: Cache,
    outbox: Outbox,
    work: Work,
}

impl Durable {
    /// Owns nothing yet: a partition is acquired when it is first touched.
    pub fn new(node: Incarnation, limits: Limits) -> Self {
        let cache = Cache::new(limits.cache_bytes_max, node.0);
        Self {
            node,
            limits,
            tick: Tick(0),
            layers: Layers::default(),
            partitions: BTreeMap::new(),
            backing_off: BTreeSet::new(),
            readings: BTreeMap::new(),
            readings_made: 0,
            cache,
            outbox: Outbox::default(),
            work: Work::default(),
        }
    }

    /// Reads one record. Answered by [`Answer::Value`], or by a reason why not.
    pub fn read(&mut self, origin: Origin<'_>, key: &StateKey, ticket: Ticket) {
        self.start(origin, key.home(), ticket, || What::Key(record::key(key)));
    }

    /// Lists records in byte order of their names: those that start with `prefix` and lie after `after` (empty: all),
    /// at most `limit` (0: 100; at most 1,000) and about 8 MiB of them. A prefix without a slash is a whole scope: the
    /// record of that name and all below it, not the scopes that merely start alike. Answered by [`Answer::Page`], or
    /// by a reason why not.
    pub fn scan(
        &mut self,
        origin: Origin<'_>,
        prefix: &StateKey,
        after: &str,
        limit: usize,
        keys_only: bool,
        ticket: Ticket,
    ) {
        let scan = || What::Scan(Box::new(Scan::new(prefix, after, limit, keys_only)));
        self.start(origin, prefix.home(), ticket, scan);
    }

    /// Writes a record, or deletes it (`None`), when the layer finishes. A refusal leaves the layer as it was.
    pub fn write(&mut self, origin: Origin<'_>, key: &StateKey, value: Option<Bytes>) -> Result<(), Refusal> {
        if value.as_ref().is_some_and(|value| value.len() > STATE_VALUE_BYTES_MAX) {
            return Err(Refusal::ValueTooLong);
        }
        if !self.enter(origin, key.home())? {
            let home = self.layers.find(origin.layer).expect("a layer that was entered is open").home.clone();
            return Err(Refusal::NotHome { home: Box::new(home), key: Box::new(key.clone()) });
        }
        let layer = self.layers.find_mut(origin.layer).expect("a layer that was entered is open");
        layer.write(record::key(key), value, self.tick.advance())
    }

    /// The attempt returned: its layer takes effect, with the calls that it has emitted, or does not, and ends. Those stacked on it that have not ended
    /// are gone, and reads of it that were not answered are refused. An attempt that never touched state is done at
    /// once.
    pub fn finish(&mut self, layer: LayerId, emitted: Vec<NewCall>, ticket: Ticket) -> Finish {
        let Some(layer) = self.end(layer) else {
            return self.commit_emits(None, emitted, ticket);
        };
        if layer.gone {
            return Finish::Now(Finished::Lost);
        }
        if let Some(below) = layer.below {
            let layer = Layer { emits: [layer.emits, emitted].concat(), ..layer };
            return Finish::Now(self.layers.merge(layer, below, &mut self.tick, &self.limits));
        }
        self.commit_emits(Some(layer), emitted, ticket)
    }

    /// The attempt failed: nothing of its layer takes effect. Those stacked on it are gone, and reads of it that were
    /// not answered are refused. Nothing happens if it never touched state, or has finished.
    pub fn abandon(&mut self, layer: LayerId) {
        self.end(layer);
    }

    /// The store has answered.
    pub fn store_answer(&mut self, now: Now, token: Token, answer: StoreAnswer) {
        self.tell_time(now);
        match (self.outbox.answered(token), answer) {
            (Asked::Owner(id), StoreAnswer::Owner(record)) => {
                let partition = self.partitions.get_mut(&id).expect("who asked is known");
                let step = partition.ownership.on_record(now.mono, record, &mut self.outbox);
                self.on_step(id, step);
            }
            (Asked::Claim(id), StoreAnswer::Committed(outcome)) => {
                let partition = self.partitions.get_mut(&id).expect("who asked is known");
                let step = partition.ownership.on_claim(now.mono, outcome, &mut self.outbox);
                self.on_step(id, step);
            }
            (Asked::Commit(id), StoreAnswer::Committed(outcome)) => {
                if outcome == Outcome::Committed {
                    self.note_landing(id);
                }
                let partition = self.partitions.get_mut(&id).expect("who asked is known");
                for root in partition.on_outcome(outcome, &mut self.cache, &mut self.outbox) {
                    let orphans = self.layers.lose(root);
                    self.drop_readings(orphans);
                }
            }
            (Asked::Reading(id), StoreAnswer::Read(record)) => self.on_read(id, record),
            (Asked::Reading(id), StoreAnswer::Scanned(page)) => self.on_scanned(id, page),
            (Asked::Job(id), answer) => self.on_looked(id, answer),
            (asked, answer) => panic!("the driver answered {asked:?} with {answer:?}"),
        }
    }

    /// What is to be done next, until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outbox.poll() {
                return Some(output);
            }
            if !self.pump_jobs() {
                return None;
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.handle_work_timeout(now);
        for id in std::mem::take(&mut self.backing_off) {
            let partition = self.partitions.get_mut(&id).expect("who backs off is known");
            partition.ownership.handle_timeout(now.mono, &mut self.outbox);
            if partition.ownership.poll_timeout().is_some() {
                self.backing_off.insert(id);
            }
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Mono> {
        let backing_off =
            self.backing_off.iter().filter_map(|id| self.partitions[id].ownership.poll_timeout());
        backing_off.chain(self.poll_work_timeout()).min()
    }

    /// Panics if we have broken what must hold.
    pub fn check_invariants(&self) {
        self.layers.check_invariants();
        self.cache.check_invariants();
        self.work.lanes.values().for_each(|lane| lane.check_invariants());
        self.work.keys_held.check_invariants();
        assert!(self.layers.len() <= self.limits.layers_max, "layers are bounded");
        assert!(self.readings.len() <= self.limits.reads_waiting_max, "reads are bounded");
        for (id, partition) in &self.partitions {
            partition.check_invariants(&self.limits);
            let waits = partition.ownership.poll_timeout().is_some();
            assert_eq!(waits, self.backing_off.contains(id), "who backs off is woken");
            for (_, root) in &partition.roots {
                assert!(self.layers.find(*root).is_some_and(|layer| !layer.gone), "a root is open");
            }
        }
        for (id, layer) in self.layers.iter() {
            let partition = self.partitions.get(&layer.partition);
            let rooted = partition.is_some_and(|partition| partition.roots.contains(&(layer.opened, id)));
            assert_eq!(
                rooted,
                !layer.gone && layer.below.is_none(),
                "a layer is a root, or stacked, or gone"
            );
            for reading in &layer.readings {
                assert!(
                    self.readings.get(reading).is_some_and(|reading| reading.layer == id),
                    "a read is known"
                );
            }
        }
        for (id, reading) in &self.readings {
            let layer = self.layers.find(reading.layer).expect("a read is of an open layer");
            assert!(layer.readings.contains(id), "a layer knows its reads");
        }
        for (partition, _) in self.cache.iter() {
            let owner = self.partitions.get(&partition).and_then(|partition| partition.ownership.owner());
            assert!(owner.is_some(), "only what is ours is cached");
        }
        for asked in self.outbox.asked() {
            let (Asked::Owner(id) | Asked::Claim(id) | Asked::Commit(id)) = asked else { continue };
            assert!(self.partitions.contains_key(&id), "who asked is known");
        }
    }

    /// Finds or opens the layer that a request comes from, and says whether the request is at the layer's home.
    fn enter(&mut self, origin: Origin<'_>, home: Home) -> Result<bool, Refusal> {
        let layer = match self.layers.find(origin.layer) {
            Some(layer) => layer,
            None if self.layers.len() >= self.limits.layers_max => return Err(Refusal::TooManyLayers),
            None => {
                let layer = self.layers.open(&origin, home.clone(), self.tick);
                if !layer.gone && layer.below.is_none() {
                    let new = || Partition::new(self.node, layer.partition, &self.limits);
                    let partition = self.partitions.entry(layer.partition).or_insert_with(new);
                    partition.roots.insert((layer.opened, origin.layer));
                }
                layer
            }
        };
        if layer.gone {
            return Err(Refusal::Gone);
        }
        let at_home = layer.home == home;
        if at_home {
            let partition = self.partitions.get_mut(&layer.partition).expect("a layer's partition is known");
            partition.ownership.touch(&mut self.outbox);
        }
        Ok(at_home)
    }

    /// Takes a layer out, and refuses what it and those stacked on it wait for.
    fn end(&mut self, id: LayerId) -> Option<Layer> {
        let (mut layer, orphans) = self.layers.end(id)?;
        self.drop_readings(orphans);
        self.drop_readings(std::mem::take(&mut layer.readings));
        if let Some(partition) = self.partitions.get_mut(&layer.partition) {
            partition.roots.remove(&(layer.opened, id));
        }
        Some(layer)
    }

    fn drop_readings(&mut self, ids: impl IntoIterator<Item = ReadingId>) {
        for id in ids {
            let reading = self.readings.remove(&id).expect("a layer's unanswered reads are known");
            if let Some(partition) = self.partitions.get_mut(&reading.partition) {
                partition.forget_read(id);
            }
            self.outbox.answer(Who::Node(reading.ticket), Answer::Refused(Refusal::Gone));
        }
    }

    fn on_step(&mut self, id: PartitionId, step: Step) {
        let partition = self.partitions.get_mut(&id).expect("who asked is known");
        match partition.ownership.poll_timeout() {
            Some(_) => self.backing_off.insert(id),
            None => self.backing_off.remove(&id),
        };
        match step {
            Step::Going => {}
            Step::Acquired => {
                let Waiting { reads, finishes } = partition.acquired(self.tick);
                // Writes first: the reads then see them, instead of being outdated by them.
                for (layer, who) in finishes {
                    let finish = partition.finish(layer, who, &mut self.tick, &self.limits, &mut self.outbox);
                    if let Finish::Now(finished) = finish {
                        self.outbox.answer(who, Answer::Finished(finished));
                    }
                }
                for id in reads {
                    self.go_on(id);
                }
            }
            Step::GaveUp(text) => {
                let Waiting { reads, finishes } = partition.waiting();
                for (_, who) in finishes {
                    self.outbox.answer(who, Answer::Finished(Finished::StoreFailed(text.clone())));
                }
                for id in reads {
                    self.answer(id, Answer::StoreFailed(text.clone()));
                }
            }
        }
    }
}
