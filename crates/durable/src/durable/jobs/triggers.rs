//! Records of what wakes functions: they are found after a start, and looked at when it is in doubt how they are.

use bytes::Bytes;

use super::{AGAIN, Cause, Durable, Job, PAGE_ROWS};
use crate::batch::{PartitionId, ReadError};
use crate::layer::Layer;
use crate::message::{Answer, StorePage, Ticket};
use crate::outbox::Who;
use crate::record::{Record, Version};
use crate::work::{NewCall, Piece, key};

/// Partitions that are looked through at once.
const SEARCHED_AT_ONCE: usize = 16;

impl Durable {
    pub(super) fn begin_trigger_search(&mut self) {
        self.work.triggers.left = (0..=u8::MAX).map(PartitionId).collect();
        self.search_triggers();
    }

    fn search_triggers(&mut self) {
        while self.work.triggers.open < SEARCHED_AT_ONCE
            && let Some(partition) = self.work.triggers.left.pop()
        {
            self.work.triggers.open += 1;
            self.find_triggers(partition, key::LISTENS, Bytes::new());
        }
        self.work.triggers.done = self.work.triggers.open == 0;
    }

    pub(super) fn find_triggers(&mut self, partition: PartitionId, kind: u8, after: Bytes) {
        let between = key::all_triggers(kind, &after);
        self.read_page(partition, between, PAGE_ROWS, Job::FindTriggers { partition, kind, after });
    }

    pub(super) fn on_triggers(&mut self, partition: PartitionId, kind: u8, page: StorePage) {
        let last = page.rows.last().map(|(key, _)| key.clone());
        for (key, value) in page.rows {
            self.work.triggers.found.add(&key, value);
        }
        match last {
            Some(last) if page.more => self.find_triggers(partition, kind, last),
            _ if kind == key::LISTENS => self.find_triggers(partition, key::CRON, Bytes::new()),
            _ => {
                self.work.triggers.open -= 1;
                self.search_triggers();
            }
        }
    }

    /// As a planted fault has it: by a commit of its own.
    pub(in crate::durable) fn accept_alone(&mut self, call: NewCall) {
        let home = key::home(call.call);
        self.carry(Piece::accept(call), home, Cause::Fresh);
    }

    /// What lands tells that nothing before it is still on its way.
    pub(in crate::durable) fn probe_trigger(&mut self, partition: PartitionId, key: Bytes, ticket: Ticket) {
        let mut layer = Layer::bare(partition);
        layer.set(key::probe(), None);
        self.commit_job(layer, Job::ProbeTrigger { partition, key, ticket });
    }

    pub(super) fn read_trigger(&mut self, partition: PartitionId, key: Bytes, ticket: Ticket) {
        self.read_row(partition, key.clone(), Job::ReadTrigger { partition, key, ticket });
    }

    pub(super) fn on_trigger(
        &mut self,
        (partition, key, ticket): (PartitionId, Bytes, Ticket),
        row: Result<Option<Bytes>, ReadError>,
    ) {
        match row {
            Err(_) => self.work.job_again(AGAIN, Job::ReadTrigger { partition, key, ticket }),
            Ok(row) => {
                let record = row.map(|value| Record { version: Version::NONE, value });
                self.outbox.answer(Who::Node(ticket), Answer::Value(record));
            }
        }
    }
}
