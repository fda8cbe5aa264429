//! A pretend store: in memory, with outcomes that a test can script.

use std::collections::{BTreeMap, VecDeque};

use bourse_node::durable::batch::{Batch, Op, Outcome, Owner, ReadError};
use bourse_node::durable::message::StorePage;
use bourse_node::durable::{StoreAnswer, StoreRequest};
use bytes::Bytes;

#[derive(Default)]
pub struct Store {
    owners: BTreeMap<u8, Owner>,
    rows: BTreeMap<(u8, Bytes), Bytes>,
    /// What becomes of the next batches with operations, instead of their being applied.
    pub outcomes: VecDeque<Outcome>,
    /// They are applied all the same.
    pub unheard: bool,
    /// Reads fail with this.
    pub away: Option<&'static str>,
}

impl Store {
    /// Nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many records of a kind there are.
    pub fn rows_of(&self, kind: u8) -> usize {
        self.rows.keys().filter(|(_, key)| key.first() == Some(&kind)).count()
    }

    pub fn answer(&mut self, request: StoreRequest) -> StoreAnswer {
        match request {
            StoreRequest::Commit(batch) => StoreAnswer::Committed(self.commit(batch)),
            StoreRequest::Owner(partition) => {
                StoreAnswer::Owner(self.there().map(|()| self.owners.get(&partition.0).copied()))
            }
            StoreRequest::Read { partition, key } => {
                StoreAnswer::Read(self.there().map(|()| self.rows.get(&(partition.0, key)).cloned()))
            }
            StoreRequest::Scan { partition, start, end, rows_max, .. } => {
                let all = self.rows.range((partition.0, start)..(partition.0, end));
                let rows: Vec<_> = all.map(|((_, k), v)| (k.clone(), v.clone())).collect();
                let more = rows.len() > rows_max;
                let page = StorePage { rows: rows.into_iter().take(rows_max).collect(), more };
                StoreAnswer::Scanned(self.there().map(|()| page))
            }
        }
    }

    fn there(&self) -> Result<(), ReadError> {
        self.away.map_or(Ok(()), |why| Err(ReadError(why.to_owned())))
    }

    fn commit(&mut self, batch: Batch) -> Outcome {
        if let Some(why) = self.away {
            return Outcome::Failed(why.to_owned());
        }
        if !batch.ops.is_empty()
            && let Some(outcome) = self.outcomes.pop_front()
        {
            if self.unheard {
                let heard = self.commit(batch);
                assert_eq!(heard, Outcome::Committed, "it was to land");
            }
            return outcome;
        }
        if self.owners.get(&batch.partition.0) != batch.expect.as_ref() {
            return Outcome::Conflict;
        }
        self.owners.insert(batch.partition.0, batch.owner);
        for op in batch.ops {
            match op {
                Op::Put { key, value } => {
                    self.rows.insert((batch.partition.0, key), value);
                }
                Op::Delete { key } => {
                    self.rows.remove(&(batch.partition.0, key));
                }
            }
        }
        Outcome::Committed
    }
}
