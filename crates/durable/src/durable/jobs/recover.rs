//! Recovery: what an earlier life of the node has left is found.

use bytes::Bytes;

use super::{Cause, Durable, Job};
use crate::batch::PartitionId;
use crate::message::StorePage;
use crate::mutant::{self, Mutant};
use crate::work::{Recovery, key};

/// Partitions that are recovered at once.
const RECOVERED_AT_ONCE: usize = 16;

impl Durable {
    pub(in crate::durable) fn begin_recovery(&mut self) {
        let all = if mutant::is(Mutant::NoOutgoingAtRecovery) { Vec::new() } else { all_partitions() };
        self.work.recovery = Recovery::Outgoing { left: all, open: 0 };
        self.recover_more(false);
    }

    /// Reads further partitions, of this stage or the next; `one_is_done` if that is why.
    pub(super) fn recover_more(&mut self, one_is_done: bool) {
        let outgoing = matches!(self.work.recovery, Recovery::Outgoing { .. });
        let (Recovery::Outgoing { left, open } | Recovery::Lanes { left, open }) = &mut self.work.recovery
        else {
            return;
        };
        *open -= usize::from(one_is_done);
        let room = RECOVERED_AT_ONCE.saturating_sub(*open).min(left.len());
        let begun = left.split_off(left.len() - room);
        *open += begun.len();
        if *open == 0 {
            if outgoing {
                self.work.recovery = Recovery::Lanes { left: all_partitions(), open: 0 };
                self.pump_keys();
                return self.recover_more(false);
            }
            self.work.recovery = Recovery::Done;
            self.find_early();
            return self.begin_trigger_search();
        }
        for partition in begun {
            match outgoing {
                true => self.read_outgoing(partition, Bytes::new(), Cause::Recovery),
                false => self.find_lane(partition, String::new()),
            }
        }
    }

    pub(super) fn find_lane(&mut self, partition: PartitionId, after: String) {
        self.read_page(partition, key::lanes_after(&after), 1, Job::FindLane { partition, after });
    }

    pub(super) fn on_lane(&mut self, partition: PartitionId, page: &StorePage) {
        match page.rows.first().and_then(|(key, _)| key::parse_live(key)) {
            Some((lane, call)) => {
                self.work.lane(lane).look_from(call);
                self.refill(lane);
                self.find_lane(partition, lane.to_owned());
            }
            None => self.find_ended(partition),
        }
    }

    pub(super) fn find_ended(&mut self, partition: PartitionId) {
        self.read_page(partition, key::all_ended_and_unique(), 1, Job::FindEnded { partition });
    }
}

fn all_partitions() -> Vec<PartitionId> {
    (0..=u8::MAX).map(PartitionId).collect()
}
