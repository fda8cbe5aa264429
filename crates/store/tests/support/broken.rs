//! Stores that break the contract, each in one way.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bourse_durable::batch::{Batch, Op, Outcome, Owner, PartitionId, ReadError};
use bourse_store::{Durability, Limit, Memory, Page, Range, Reader, Store, StoreId, bounds};
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fraud {
    None,
    IgnoresCondition,
    ComparesFenceOnly,
    AppliesBeforeComparing,
    AppliesRowByRow,
    AnswersBeforeApplying,
    ForgetsTheLastBatch,
    ScansInTextOrder,
    TakesAnySize,
    FailsTogether,
}

type Partitions = BTreeMap<PartitionId, (Option<Owner>, BTreeMap<Bytes, Bytes>)>;

/// What is on the "disks" of all stores, by their id.
static DISKS: Mutex<BTreeMap<StoreId, Arc<Mutex<Disk>>>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct Disk {
    partitions: Partitions,
    /// As it was before the last batch.
    before: Partitions,
    /// Answered, but not applied.
    waiting: Vec<Batch>,
}

#[derive(Clone)]
pub(crate) struct Broken {
    fraud: Fraud,
    id: StoreId,
    disk: Arc<Mutex<Disk>>,
}

impl Fraud {
    pub(crate) fn store(self) -> Broken {
        self.reopened(StoreId::random())
    }

    pub(crate) fn reopened(self, id: StoreId) -> Broken {
        let disk = locked(&DISKS).entry(id).or_default().clone();
        {
            let mut disk = locked(&disk);
            disk.waiting.clear();
            if self == Self::ForgetsTheLastBatch {
                disk.partitions = disk.before.clone();
            }
        }
        Broken { fraud: self, id, disk }
    }
}

impl Broken {
    fn apply(&self, batch: &Batch) -> Outcome {
        let mut disk = locked(&self.disk);
        if self.fraud == Fraud::ForgetsTheLastBatch {
            disk.before = disk.partitions.clone();
        }
        let (owner, records) = disk.partitions.entry(batch.partition).or_default();
        let as_expected = match self.fraud {
            Fraud::IgnoresCondition => true,
            Fraud::ComparesFenceOnly => owner.map(|it| it.fence) == batch.expect.map(|it| it.fence),
            _ => *owner == batch.expect,
        };
        if !as_expected && self.fraud != Fraud::AppliesBeforeComparing {
            return Outcome::Conflict;
        }
        if as_expected {
            *owner = Some(batch.owner);
        }
        if self.fraud == Fraud::AppliesRowByRow {
            drop(disk);
            for op in &batch.ops {
                let mut disk = locked(&self.disk);
                apply_op(&mut disk.partitions.entry(batch.partition).or_default().1, op);
                drop(disk);
                thread::yield_now();
            }
        } else {
            batch.ops.iter().for_each(|op| apply_op(records, op));
        }
        if as_expected { Outcome::Committed } else { Outcome::Conflict }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn apply_op(records: &mut BTreeMap<Bytes, Bytes>, op: &Op) {
    match op {
        Op::Put { key, value } => drop(records.insert(key.clone(), value.clone())),
        Op::Delete { key } => drop(records.remove(key)),
    }
}

impl Store for Broken {
    fn commit(&mut self, batches: &[Batch]) -> Vec<Outcome> {
        let waiting = mem::take(&mut locked(&self.disk).waiting);
        waiting.iter().for_each(|batch| drop(self.apply(batch)));

        let answer = |batch: &Batch| match bounds::check(batch) {
            Err(over) if self.fraud != Fraud::TakesAnySize => over.into(),
            _ if self.fraud == Fraud::AnswersBeforeApplying => {
                locked(&self.disk).waiting.push(batch.clone());
                Outcome::Committed
            }
            _ => self.apply(batch),
        };
        let outcomes: Vec<Outcome> = batches.iter().map(answer).collect();
        let spoilt = self.fraud == Fraud::FailsTogether && outcomes.contains(&Outcome::Conflict);
        if spoilt { vec![Outcome::Conflict; batches.len()] } else { outcomes }
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        Ok(Box::new(self.clone()))
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }
}

impl Reader for Broken {
    fn owner(&mut self, partition: PartitionId) -> Result<Option<Owner>, ReadError> {
        Ok(locked(&self.disk).partitions.get(&partition).and_then(|(owner, _)| *owner))
    }

    fn read(&mut self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let disk = locked(&self.disk);
        Ok(disk.partitions.get(&partition).and_then(|(_, records)| records.get(key).cloned()))
    }

    /// Borrowed from the store in memory, which is known to be right.
    fn scan(&mut self, partition: PartitionId, range: &Range, limit: Limit) -> Result<Page, ReadError> {
        let records = match locked(&self.disk).partitions.get(&partition) {
            Some((_, records)) => records.clone(),
            None => return Ok(Page::default()),
        };
        let ops: Vec<Op> = records.into_iter().map(|(key, value)| Op::Put { key, value }).collect();
        let owner = Owner { node: 0, fence: Default::default(), seq: Default::default() };
        let mut memory = Memory::new(self.id);
        let mut expect = None;
        for ops in ops.chunks(1000) {
            let batch = Batch { partition, expect, owner, ops: ops.to_vec() };
            assert_eq!(memory.commit(&[batch]), [Outcome::Committed]);
            expect = Some(owner);
        }
        let mut page = memory.scan(partition, range, limit)?;
        if self.fraud == Fraud::ScansInTextOrder {
            page.rows.sort_by_key(|(key, _)| String::from_utf8_lossy(key).to_lowercase());
        }
        Ok(page)
    }
}
