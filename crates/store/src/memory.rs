//! A store that is gone with its process: for tests, for the simulator, and for `--store memory`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bourse_durable::batch::{Batch, Op, Outcome, Owner, PartitionId, ReadError};
use bytes::Bytes;

use crate::{Durability, Limit, Page, Range, Reader, Store, StoreId, bounds};

/// A store in memory. A clone is another handle on the same records.
#[derive(Clone, Debug)]
pub struct Memory {
    id: StoreId,
    partitions: Arc<Mutex<BTreeMap<PartitionId, Partition>>>,
}

#[derive(Debug, Default)]
struct Partition {
    owner: Option<Owner>,
    records: BTreeMap<Bytes, Bytes>,
}

impl Memory {
    /// An empty store.
    pub fn new(id: StoreId) -> Self {
        Self { id, partitions: Arc::default() }
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Partition>> {
        // A thread that panicked while it held the lock left whole records: nothing below can panic half-way.
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn commit(&mut self, batches: &[Batch]) -> Vec<Outcome> {
        let mut partitions = self.partitions();
        let mut commit_one = |batch: &Batch| match bounds::check(batch) {
            Ok(_) => partitions.entry(batch.partition).or_default().commit(batch),
            Err(over) => over.into(),
        };
        batches.iter().map(&mut commit_one).collect()
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        Ok(Box::new(self.clone()))
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }
}

impl Reader for Memory {
    fn owner(&mut self, partition: PartitionId) -> Result<Option<Owner>, ReadError> {
        Ok(self.partitions().get(&partition).and_then(|partition| partition.owner))
    }

    fn read(&mut self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.partitions().get(&partition).and_then(|partition| partition.records.get(key).cloned()))
    }

    fn scan(&mut self, partition: PartitionId, range: &Range, limit: Limit) -> Result<Page, ReadError> {
        let partitions = self.partitions();
        let Some(partition) = partitions.get(&partition).filter(|_| holds_something(range)) else {
            return Ok(Page::default());
        };
        let rows = partition.records.range::<Bytes, _>((range.from.as_ref(), range.until.as_ref()));
        Page::take(rows.map(|(key, value)| Ok((key.clone(), value.clone()))), limit)
    }
}

impl Partition {
    fn commit(&mut self, batch: &Batch) -> Outcome {
        if self.owner != batch.expect {
            return Outcome::Conflict;
        }
        self.owner = Some(batch.owner);
        for op in &batch.ops {
            match op {
                Op::Put { key, value } => drop(self.records.insert(key.clone(), value.clone())),
                Op::Delete { key } => drop(self.records.remove(key)),
            }
        }
        Outcome::Committed
    }
}

/// `BTreeMap::range` panics on a range that ends before it begins.
fn holds_something(range: &Range) -> bool {
    match (&range.from, &range.until) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Excluded(from), Bound::Excluded(until)) => from < until,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(until) | Bound::Excluded(until)) => {
            from <= until
        }
    }
}
