//! Exclusive keys: whose turn it is, the store is asked who comes next, and the fence of whoever holds one.

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bytes::Bytes;
use prost::Message as _;

use super::{AGAIN, Durable, Job, JobId, next_id};
use crate::batch::{PartitionId, ReadError};
use crate::layer::Layer;
use crate::message::StorePage;
use crate::mutant::{self, Mutant};
use crate::work::exclusive::{KeyName, PARKED_PER_KEY_MAX, Turn};
use crate::work::lane::Entry;
use crate::work::{Recovery, key};

/// Fences count from a new one of these each time that a partition is acquired.
const FENCES_PER_OWNERSHIP: u32 = 40;

impl Durable {
    /// A call that is not durable wants a key. `ancestors`: the calls that wait for it, nearest first. Followed by
    /// [`Output::Granted`](crate::Output::Granted), now or later, unless it is unlocked before.
    pub fn lock(&mut self, name: &KeyName, call: CallId, ancestors: Vec<CallId>) {
        let unread = self.work.is_unread(name.partition());
        self.work.keys_held.wait(name, call, ancestors, unread);
        self.pump_keys();
    }

    /// No instance is busy with a call that holds this key; or it waits for it no longer.
    pub fn unlock(&mut self, name: &KeyName, call: CallId) {
        self.work.turns_held.retain(|(_, held)| *held != call);
        self.work.keys_held.unlock(name, call);
        self.pump_keys();
        self.grant_held(name.partition());
    }

    /// Who holds a key.
    pub fn holder_of(&self, name: &KeyName) -> Option<CallId> {
        self.work.keys_held.holder_of(name)
    }

    /// A fence for another attempt of a call that holds this key: greater than all before. `None` while there is none, or
    /// something that an earlier attempt has called still has the key as well: then [`Self::grant`] tells when.
    pub fn fence(&mut self, name: &KeyName, call: CallId) -> Option<u64> {
        if self.work.keys_held.shares(name, call) { None } else { self.next_fence(name) }
    }

    /// A number greater than all that were given out for this key before; `None` while its partition is not ours.
    pub(in crate::durable) fn next_fence(&mut self, name: &KeyName) -> Option<u64> {
        let owner = self.partitions.get(&name.partition())?.ownership.owner()?;
        self.work.fences += 1;
        Some((owner.fence.0 << FENCES_PER_OWNERSHIP) + self.work.fences)
    }

    /// Does what follows from what was done with keys.
    pub(in crate::durable) fn pump_keys(&mut self) {
        if matches!(self.work.recovery, Recovery::Waits | Recovery::Outgoing { .. }) {
            return; // Calls may be on their way to where their keys are.
        }
        for turn in self.work.keys_held.turns() {
            match turn {
                Turn::Durable(call, entry) => {
                    let lane = crate::work::lane_of(&entry.record).to_owned();
                    self.work.lane(&lane).admit(call, *entry);
                }
                Turn::Other(name, call) => self.grant(name, call),
                Turn::Deadlock(call, circle) => self.outbox.deadlock(call, circle),
                Turn::Read(name, from) => {
                    let (between, job) =
                        (key::exclusive_from(&name, from), Job::KeyPage { name: name.clone(), from });
                    self.read_page(name.partition(), between, PARKED_PER_KEY_MAX, job);
                }
            }
        }
    }

    /// A call that has its key gets a fence: followed by [`Output::Granted`](crate::Output::Granted), once the partition is
    /// ours and nothing that the call has left behind has the key.
    pub fn grant(&mut self, name: KeyName, call: CallId) {
        if self.work.keys_held.shares(&name, call) {
            return self.work.turns_held.push((name, call));
        }
        match self.next_fence(&name) {
            Some(fence) => self.outbox.granted(call, fence),
            None => {
                let partition = name.partition();
                self.work.turns_held.push((name, call));
                self.own(partition);
            }
        }
    }

    /// Makes a partition ours.
    pub(in crate::durable) fn own(&mut self, partition: PartitionId) {
        if self.work.owning.insert(partition) {
            self.begin_own(partition);
        }
    }

    pub(super) fn begin_own(&mut self, partition: PartitionId) {
        let mut layer = Layer::bare(partition);
        layer.set(key::probe(), None);
        self.commit_job(layer, Job::Own { partition });
    }

    pub(super) fn on_owned(&mut self, partition: PartitionId) {
        self.work.owning.remove(&partition);
        self.grant_held(partition);
    }

    fn grant_held(&mut self, partition: PartitionId) {
        let held = std::mem::take(&mut self.work.turns_held);
        for (name, call) in held {
            match name.partition() == partition {
                true => self.grant(name, call),
                false => self.work.turns_held.push((name, call)),
            }
        }
    }

    /// Which calls come next, of those with a key.
    pub(super) fn on_key_page(
        &mut self,
        id: JobId,
        name: &KeyName,
        from: CallId,
        page: Result<StorePage, ReadError>,
    ) {
        let Ok(page) = page else {
            return self.work.job_again(AGAIN, Job::KeyPage { name: name.clone(), from });
        };
        let last = page.rows.last().and_then(|(key, _)| key::parse_exclusive(key));
        let mut wanted = Vec::new();
        for (key, lane) in &page.rows {
            let Some(call) = key::parse_exclusive(key) else { continue };
            let known = self.work.find(call).is_some()
                || self.work.arriving.contains(&call)
                || self.work.has_left_since(call, id);
            if !known && let Ok(lane) = std::str::from_utf8(lane) {
                wanted.push((call, key::live(lane, call)));
            }
        }
        let more = last.filter(|_| page.more).and_then(next_id);
        self.work.keys_held.page_read(name, wanted.len(), more);
        for (call, key) in wanted {
            self.read_row(name.partition(), key, Job::KeyRow { name: name.clone(), call, since: id });
        }
        self.pump_keys();
    }

    pub(super) fn on_key_row(
        &mut self,
        name: &KeyName,
        (call, since): (CallId, JobId),
        row: Result<Option<Bytes>, ReadError>,
    ) {
        let Ok(row) = row else {
            // It is read again with those after it.
            self.work.keys_held.page_read(name, 0, Some(call));
            return self.pump_keys();
        };
        let known = self.work.find(call).is_some()
            || self.work.arriving.contains(&call)
            || (self.work.has_left_since(call, since) && !mutant::is(Mutant::StalePages));
        if let Some(record) = row.and_then(|row| stored::Call::decode(row).ok()).filter(|_| !known) {
            let due = self.due(&record);
            self.work.offer(call, Entry::new(record, due));
        }
        self.work.keys_held.one_read(name);
        self.pump_keys();
    }
}
