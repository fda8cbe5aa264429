//! Sweeping: ended calls and idempotency keys are deleted when they have been kept long enough.

use std::collections::BTreeSet;
use std::time::Duration;

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bytes::Bytes;
use prost::Message as _;

use super::{Durable, Job, PAGE_ROWS};
use crate::batch::PartitionId;
use crate::layer::Layer;
use crate::message::StorePage;
use crate::work::key;

/// Between two sweeps, at least and at most.
pub(super) const SWEEP_MIN: Duration = Duration::from_secs(60);
const SWEEP_MAX: Duration = Duration::from_secs(3600);

impl Durable {
    pub(super) fn sweep(&mut self) {
        self.work.sweep_at = None;
        let over = |call: &CallId| self.is_over(call.made_ms());
        let mut left: Vec<_> = self.work.ended.iter().filter(|(_, c)| over(c)).map(|(p, _)| *p).collect();
        match left.pop() {
            Some(partition) => {
                self.work.sweeping = Some(BTreeSet::new());
                self.sweep_ended(left, partition);
            }
            None => self.sweep_later(),
        }
    }

    pub(super) fn sweep_ended(&mut self, left: Vec<PartitionId>, partition: PartitionId) {
        let kept = u64::try_from(self.limits.ended_kept.as_millis()).unwrap_or(u64::MAX);
        let before = CallId::first_of(self.work.wall.0.saturating_sub(kept) + 1);
        self.read_page(partition, key::ended_before(before), PAGE_ROWS, Job::SweepEnded { left, partition });
    }

    pub(super) fn on_sweep_ended(
        &mut self,
        left: Vec<PartitionId>,
        partition: PartitionId,
        page: &StorePage,
    ) {
        let mut layer = Layer::bare(partition);
        let mut kept = None;
        for (key, value) in &page.rows {
            let ended = stored::Ended::decode(value.clone()).map_or(0, |ended| ended.ended_ms);
            match self.is_over(ended) {
                true => layer.set(key.clone(), None),
                false => kept = kept.or(key::parse_ended(key)),
            }
        }
        let deletes = !layer.writes.is_empty();
        let next = if page.more && deletes {
            Job::SweepEnded { left, partition }
        } else {
            // What is kept is looked at again when the clock has gone on.
            let from = kept.unwrap_or_else(|| CallId::first_of(self.work.wall.0));
            self.work.ended.insert(partition, from);
            Job::SweepKeys { left, partition, after: Bytes::new() }
        };
        self.swept(layer, Some(next));
    }

    pub(super) fn sweep_keys(&mut self, left: Vec<PartitionId>, partition: PartitionId, after: Bytes) {
        let between = key::all_unique(&after);
        self.read_page(partition, between, PAGE_ROWS, Job::SweepKeys { left, partition, after });
    }

    pub(super) fn on_sweep_keys(
        &mut self,
        mut left: Vec<PartitionId>,
        partition: PartitionId,
        page: &StorePage,
    ) {
        let mut layer = Layer::bare(partition);
        for (key, value) in &page.rows {
            let unique = stored::Unique::decode(value.clone()).unwrap_or_default();
            let in_use = self.work.keys.contains_key(key)
                || self.work.sweeping.as_ref().is_some_and(|written| written.contains(key));
            if self.is_key_to_sweep(&unique) && !in_use {
                layer.set(key.clone(), None);
            }
        }
        let next = match (page.rows.last(), left.pop()) {
            (Some((last, _)), popped) if page.more => {
                left.extend(popped);
                Some(Job::SweepKeys { left, partition, after: last.clone() })
            }
            (_, Some(partition)) => Some(Job::SweepEnded { left, partition }),
            (_, None) => None,
        };
        match next {
            Some(next) => self.swept(layer, Some(next)),
            None => {
                self.work.sweeping = None;
                self.sweep_later();
                self.swept(layer, None);
            }
        }
    }

    pub(super) fn swept(&mut self, layer: Layer, next: Option<Job>) {
        match layer.writes.is_empty() {
            true => next.into_iter().for_each(|next| self.begin(next)),
            false => self.commit_job(layer, Job::Swept { next: next.map(Box::new) }),
        }
    }

    pub(super) fn sweep_later(&mut self) {
        let Some(oldest) = self.work.ended.values().map(|call| call.made_ms()).min() else { return };
        let kept = u64::try_from(self.limits.ended_kept.as_millis()).unwrap_or(u64::MAX);
        let left = Duration::from_millis(oldest.saturating_add(kept).saturating_sub(self.work.wall.0));
        self.work.sweep_at = Some(self.work.now + left.clamp(SWEEP_MIN, SWEEP_MAX));
    }
}
