//! What a partition may hold, given what was answered: a sequential model that bears not knowing.
//!
//! It keeps every state that the answers so far allow. An unknown batch may have landed or may yet land, on
//! any state whose owner record it expects; an answer and a look at the store rule states out. When none is
//! left, the store has broken its contract.

use std::collections::BTreeMap;

use bourse_durable::batch::{Batch, Op, Outcome, Owner, PartitionId};
use bytes::Bytes;

use super::{Verdict, Violation};
use crate::Reader;

/// Owner and records of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) owner: Option<Owner>,
    pub(super) records: BTreeMap<Bytes, Bytes>,
}

impl State {
    fn with(&self, batch: &Batch) -> Self {
        let mut records = self.records.clone();
        for op in &batch.ops {
            match op {
                Op::Put { key, value } => drop(records.insert(key.clone(), value.clone())),
                Op::Delete { key } => drop(records.remove(key)),
            }
        }
        Self { owner: Some(batch.owner), records }
    }
}

/// One partition.
#[derive(Debug)]
pub(super) struct Model {
    possible: Vec<State>,
    /// Batches of unknown outcome that have not landed in at least one of the possible states.
    pending: Vec<Batch>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { possible: vec![State::default()], pending: Vec::new() }
    }

    /// What the store answered to a batch.
    pub(super) fn answered(&mut self, batch: &Batch, outcome: &Outcome) -> Verdict {
        self.let_pending_land();
        match outcome {
            Outcome::Committed => {
                self.possible.retain(|state| state.owner == batch.expect);
                self.possible.iter_mut().for_each(|state| *state = state.with(batch));
            }
            Outcome::Conflict => self.possible.retain(|state| state.owner != batch.expect),
            Outcome::Failed(_) => {}
            Outcome::Unknown(_) => self.pending.push(batch.clone()),
        }
        self.still_possible(|| format!("{outcome:?} cannot be the answer to {batch:?}"))
    }

    /// What a look at the store showed.
    pub(super) fn observed(&mut self, seen: &State) -> Verdict {
        self.let_pending_land();
        self.possible.retain(|state| state == seen);
        self.still_possible(|| format!("no sequence of batches leads to {seen:?}"))
    }

    /// What was pending has landed or never will.
    pub(super) fn crashed(&mut self) {
        self.let_pending_land();
        self.pending.clear();
    }

    /// Adds every state that pending batches can make of the possible ones.
    fn let_pending_land(&mut self) {
        let mut at = 0;
        while at < self.possible.len() {
            for batch in &self.pending {
                let state = &self.possible[at];
                if state.owner == batch.expect {
                    let landed = state.with(batch);
                    if !self.possible.contains(&landed) {
                        self.possible.push(landed);
                    }
                }
            }
            at += 1;
        }
        // A batch whose expected owner record is in none of the states will not see it again: sequence
        // numbers grow.
        let possible = &self.possible;
        self.pending.retain(|batch| possible.iter().any(|state| state.owner == batch.expect));
    }

    fn still_possible(&self, why: impl FnOnce() -> String) -> Verdict {
        if self.possible.is_empty() { Err(Violation(why())) } else { Ok(()) }
    }
}

/// What the store holds of a partition now.
pub(super) fn look(reader: &mut dyn Reader, partition: PartitionId) -> Result<State, Violation> {
    let records = super::steps::rows(reader, partition)?.into_iter().collect();
    Ok(State { owner: reader.owner(partition)?, records })
}
