//! Layers: the state transactions of running attempts, and how one is stacked on another.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::batch::{BATCH_BYTES_MAX, BATCH_OPS_MAX, PartitionId, Seq, VALUE_BYTES_MAX};
use crate::durable::reading::ReadingId;
use crate::home::Home;
use crate::limits::Limits;
use crate::message::{Finished, LayerId, Origin, Refusal};
use crate::overlay::{Overlay, Write};
use crate::reads::{Reads, Tick};
use crate::record::{HEADER_BYTES, Record, Version};
use crate::work::NewCall;

/// The state transaction of one attempt.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The scope that it touched first.
    pub(crate) home: Home,
    pub(crate) partition: PartitionId,
    /// When it opened: it has read nothing before.
    pub(crate) opened: Tick,
    /// Its partition was lost or the layer below has ended. Kept until it ends, so that nothing of it is done anew
    /// as if the rest had never been.
    pub(crate) gone: bool,
    pub(crate) below: Option<LayerId>,
    pub(crate) above: BTreeSet<LayerId>,
    pub(crate) reads: Reads,
    pub(crate) writes: Overlay,
    /// The last batch that its reads saw something of.
    pub(crate) rests_on: Seq,
    /// Reads and scans not yet answered.
    pub(crate) readings: BTreeSet<ReadingId>,
    /// Calls that merged layers have emitted.
    pub(crate) emits: Vec<NewCall>,
}

/// Where a key was found written.
pub(crate) struct Found<'a> {
    pub(crate) write: &'a Write,
    /// By the layer that looks for it, not by one below.
    pub(crate) own: bool,
}

/// All layers that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    open: BTreeMap<LayerId, Layer>,
}

impl Layers {
    pub(crate) fn find(&self, id: LayerId) -> Option<&Layer> {
        self.open.get(&id)
    }

    pub(crate) fn find_mut(&mut self, id: LayerId) -> Option<&mut Layer> {
        self.open.get_mut(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LayerId, &Layer)> {
        self.open.iter().map(|(id, layer)| (*id, layer))
    }

    /// Opens a layer, on that of the nearest ancestor which has one at the same home.
    pub(crate) fn open(&mut self, origin: &Origin<'_>, home: Home, now: Tick) -> &Layer {
        let at_home = |id: &&LayerId| self.open.get(id).is_some_and(|layer| layer.home == home);
        let below = origin.ancestors.iter().find(at_home).copied();
        let mut gone = false;
        if let Some(layer) = below.and_then(|below| self.open.get_mut(&below)) {
            gone = layer.gone;
            if !gone {
                layer.above.insert(origin.layer);
            }
        }
        let layer = Layer {
            partition: home.partition(),
            home,
            opened: now,
            gone,
            below: below.filter(|_| !gone),
            above: BTreeSet::new(),
            reads: Reads::default(),
            writes: Overlay::default(),
            rests_on: Seq::default(),
            readings: BTreeSet::new(),
            emits: Vec::new(),
        };
        self.open.entry(origin.layer).or_insert(layer)
    }

    /// Takes a layer out, and gives the unanswered reads of those stacked on it, which are gone.
    pub(crate) fn end(&mut self, id: LayerId) -> Option<(Layer, Vec<ReadingId>)> {
        let layer = self.open.remove(&id)?;
        if let Some(below) = layer.below {
            self.open.get_mut(&below).expect("what a layer is stacked on is open").above.remove(&id);
        }
        let orphans = layer.above.iter().flat_map(|&above| self.lose(above)).collect();
        Some((layer, orphans))
    }

    /// Marks a layer and those stacked on it as gone, and gives their unanswered reads.
    pub(crate) fn lose(&mut self, id: LayerId) -> Vec<ReadingId> {
        let mut orphans = Vec::new();
        let mut lost = vec![id];
        while let Some(id) = lost.pop() {
            let layer = self.open.get_mut(&id).expect("what is stacked is open");
            layer.gone = true;
            layer.below = None;
            layer.reads = Reads::default();
            layer.writes = Overlay::default();
            layer.emits = Vec::new();
            lost.extend(std::mem::take(&mut layer.above));
            orphans.extend(std::mem::take(&mut layer.readings));
        }
        orphans
    }

    /// The newest write of `key` in the layer and those below.
    pub(crate) fn written(&self, id: LayerId, key: &Bytes) -> Option<Found<'_>> {
        self.stack(id)
            .enumerate()
            .find_map(|(depth, layer)| layer.writes.find(key).map(|write| Found { write, own: depth == 0 }))
    }

    /// The layer, and those below it.
    pub(crate) fn stack(&self, id: LayerId) -> impl DoubleEndedIterator<Item = &Layer> {
        let mut stack = Vec::new();
        let mut next = Some(id);
        while let Some(layer) = next.and_then(|id| self.open.get(&id)) {
            stack.push(layer);
            next = layer.below;
        }
        stack.into_iter()
    }

    /// A finished layer becomes part of the one that it was stacked on.
    pub(crate) fn merge(
        &mut self,
        layer: Layer,
        below: LayerId,
        tick: &mut Tick,
        limits: &Limits,
    ) -> Finished {
        let below = self.open.get_mut(&below).expect("what a layer is stacked on is open");
        if layer.reads.outdated(&below.writes) {
            return Finished::Conflict;
        }
        if let Err(refusal) = room(&below.writes, layer.writes.len(), layer.writes.bytes()) {
            return Finished::Refused(refusal);
        }
        if below.reads.len() + layer.reads.len() > limits.reads_per_layer_max {
            return Finished::Refused(Refusal::TooManyReads);
        }
        below.reads.merge(layer.reads, |key| below.writes.find(key).is_some());
        below.rests_on = below.rests_on.max(layer.rests_on);
        below.emits.extend(layer.emits);
        let tick = tick.advance();
        for (key, Write { value, .. }) in layer.writes.into_rows() {
            below.writes.put(key, Write { value, tick, version: Version::NONE });
        }
        Finished::Done
    }

    pub(crate) fn check_invariants(&self) {
        for (id, layer) in &self.open {
            layer.writes.check_invariants();
            assert!(
                layer.writes.len() <= BATCH_OPS_MAX && layer.writes.bytes() <= BATCH_BYTES_MAX,
                "writes are bounded"
            );
            if let Some(below) = layer.below {
                let below = self.open.get(&below).expect("what a layer is stacked on is open");
                assert!(below.above.contains(id) && !below.gone, "stacking is mutual, and on what is there");
                assert!(below.home == layer.home && below.opened <= layer.opened, "a stack has one home");
            }
            for above in &layer.above {
                assert_eq!(
                    self.open.get(above).and_then(|above| above.below),
                    Some(*id),
                    "stacking is mutual"
                );
            }
            assert!(!layer.gone || layer.readings.is_empty(), "who is gone waits for nothing");
        }
    }
}

impl Layer {
    /// Writes of our own, which are no attempt's.
    pub(crate) fn bare(partition: PartitionId) -> Self {
        Self {
            home: Home::none(),
            partition,
            opened: Tick(0),
            gone: false,
            below: None,
            above: BTreeSet::new(),
            reads: Reads::default(),
            writes: Overlay::default(),
            rests_on: Seq::default(),
            readings: BTreeSet::new(),
            emits: Vec::new(),
        }
    }

    /// Writes a record that is not state.
    pub(crate) fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        self.writes.put(key, Write { value, tick: Tick(0), version: Version::NONE });
    }

    /// Whether it fits into a batch.
    pub(crate) fn fits(&self) -> Result<(), Refusal> {
        // State has a bound of its own, which is smaller.
        let longest = self.writes.iter().filter_map(|(_, write)| write.value.as_ref()).map(Bytes::len).max();
        if let Some(longest) = longest.filter(|bytes| bytes + HEADER_BYTES > VALUE_BYTES_MAX) {
            return Err(Refusal::RecordTooLong(longest));
        }
        room(&self.writes, 0, 0)
    }

    pub(crate) fn write(&mut self, key: Bytes, value: Option<Bytes>, tick: Tick) -> Result<(), Refusal> {
        room(&self.writes, 1, crate::overlay::row_bytes(&key, value.as_ref()))?;
        self.writes.put(key, Write { value, tick, version: Version::NONE });
        Ok(())
    }
}

/// Is there room for so many more writes? A key that is written again counts again.
fn room(writes: &Overlay, more: usize, bytes: usize) -> Result<(), Refusal> {
    match () {
        () if writes.len() + more > BATCH_OPS_MAX => Err(Refusal::TooManyWrites),
        () if writes.bytes() + bytes > BATCH_BYTES_MAX => Err(Refusal::TooManyBytes),
        () => Ok(()),
    }
}

/// What the layers of a stack have written in a range, newest last: the topmost wins.
pub(crate) fn newest<'a>(
    writes: impl Iterator<Item = (&'a Bytes, &'a Write)>,
) -> BTreeMap<Bytes, Option<Record>> {
    writes.map(|(key, write)| (key.clone(), write.record())).collect()
}
