//! A lane: the durable calls of one module that have not ended, as far as they are in memory.
//!
//! Most of a long backlog is in the store only. The lane holds the oldest calls that may be run, those that are being
//! run, and some of those that wait for another attempt; and it knows from where on each partition may hold more.
//!
//! Every call of the lane that is in the store is in memory, or at or after `beyond` or `put_off` of its partition, or
//! comes with the page that is being read.

use std::collections::{BTreeMap, BTreeSet};

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as record;
use bourse_wire::time::Mono;

use super::key;
use crate::batch::PartitionId;
use crate::durable::jobs::PAGE_ROWS;
use crate::mutant::{self, Mutant};

/// The most calls of a lane that are in memory, ready to be run.
pub const READY_MAX: usize = 1024;
/// The most bytes that these have, roughly. One call is let in whatever its size.
pub const READY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most calls of a lane that are in memory while they wait for their next attempt.
pub const LATER_MAX: usize = 1024;

/// A call in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: record::Call,
    /// The number of its last attempt in this life of the node.
    pub(crate) tries: u32,
    /// It has ended elsewhere, and its own record is about to say so.
    pub(crate) ended: Option<Box<record::Ended>>,
    /// Not to be run before that.
    pub(crate) due: Option<Mono>,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    ready: BTreeMap<CallId, Entry>,
    ready_bytes: usize,
    later: BTreeMap<CallId, (Mono, Entry)>,
    due: BTreeSet<(Mono, CallId)>,
    taken: BTreeMap<CallId, Entry>,
    /// From which call on a partition may hold more than memory does.
    beyond: BTreeMap<PartitionId, CallId>,
    /// The least of these.
    beyond_first: Option<CallId>,
    /// The same, but not worth a look before then.
    put_off: BTreeMap<PartitionId, CallId>,
    put_off_until: Mono,
    /// The page that is being read, and from which call on.
    reading: Option<(PartitionId, CallId)>,
}

impl Entry {
    pub(crate) fn new(record: record::Call, due: Option<Mono>) -> Self {
        let bytes = 200 + record.arguments.len();
        Self { tries: record.attempts, record, ended: None, due, bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// As the store knows it, it has failed and waits for its next attempt, or has gone on from an earlier step: it had its
    /// turn.
    pub(crate) fn has_begun(&self) -> bool {
        let record = &self.record;
        let tried_again = record.attempts > record.attempts_before && record.pause_ms > 0;
        tried_again || (record.step > 0 && record.attempts == record.attempts_before)
    }

    /// It is not due, and until then it wants no key: it has never been run, or has given its key up.
    pub(crate) fn is_delayed(&self) -> bool {
        let is_new = self.record.delayed && self.record.attempts == 0;
        self.due.is_some() && (is_new || self.record.frees_key)
    }
}

impl Lane {
    /// The oldest call that may be run now, if none that is older may still be in the store.
    pub(crate) fn head(&self) -> Option<CallId> {
        let (&head, _) = self.ready.first_key_value()?;
        let unread = self.beyond_first.into_iter().chain(self.reading.map(|(_, from)| from));
        unread.min().is_none_or(|from| head < from).then_some(head)
    }

    pub(crate) fn head_record(&self) -> Option<&record::Call> {
        Some(&self.ready.get(&self.head()?)?.record)
    }

    /// Takes it, to be run.
    pub(crate) fn take(&mut self) -> Option<(CallId, &mut Entry)> {
        let head = self.head()?;
        let entry = self.remove_ready(head)?;
        Some((head, self.taken.entry(head).or_insert(entry)))
    }

    /// Takes a certain call that waits, to do something with it.
    pub(crate) fn seize(&mut self, call: CallId) -> bool {
        let entry = self.remove_ready(call).or_else(|| self.remove_later(call));
        let found = entry.is_some();
        self.taken.extend(entry.map(|entry| (call, entry)));
        found
    }

    /// Takes a call that is not in memory, to do something with it.
    pub(crate) fn seize_new(&mut self, call: CallId, entry: Entry) {
        self.taken.insert(call, entry);
    }

    /// A taken call goes elsewhere.
    pub(crate) fn remove_taken(&mut self, call: CallId) -> Option<Entry> {
        self.taken.remove(&call)
    }

    /// A taken call waits again, until `due`.
    pub(crate) fn put_back(&mut self, call: CallId, due: Option<Mono>) {
        if let Some(entry) = self.taken.remove(&call) {
            if mutant::is(Mutant::PutBackTwice) && due.is_some() {
                self.add_ready(call, Entry::new(entry.record.clone(), None));
            }
            self.wait(call, entry, due);
        }
    }

    /// A call has ended, or nobody knows: it is no longer in memory, wherever it was.
    pub(crate) fn forget(&mut self, call: CallId) -> Option<Entry> {
        self.taken.remove(&call).or_else(|| self.remove_ready(call)).or_else(|| self.remove_later(call))
    }

    pub(crate) fn taken_mut(&mut self, call: CallId) -> Option<&mut Entry> {
        self.taken.get_mut(&call)
    }

    /// A call in memory, and whether it is being run and when it is due.
    pub(crate) fn find(&self, call: CallId) -> Option<(&Entry, bool, Option<Mono>)> {
        let ready = || self.ready.get(&call).map(|entry| (entry, false, None));
        let later = || self.later.get(&call).map(|(due, entry)| (entry, false, Some(*due)));
        self.taken.get(&call).map(|entry| (entry, true, None)).or_else(ready).or_else(later)
    }

    /// Whether a call that is new in the store, and so younger than all others, may come into memory.
    pub(crate) fn welcomes(&self) -> bool {
        self.beyond.is_empty() && self.reading.is_none() && self.has_room()
    }

    /// A call that may be run now, or when it is due.
    pub(crate) fn admit(&mut self, call: CallId, entry: Entry) {
        let due = entry.due;
        self.wait(call, entry, due);
    }

    /// Whether calls of a partition may be in the store only.
    pub(crate) fn is_unread(&self, partition: PartitionId) -> bool {
        let reads = self.reading.is_some_and(|(read, _)| read == partition);
        reads || self.beyond.contains_key(&partition) || self.put_off.contains_key(&partition)
    }

    /// The call may be in the store: it is to be looked for.
    pub(crate) fn look_from(&mut self, call: CallId) {
        least(&mut self.beyond, key::home(call), call);
        self.beyond_first = Some(self.beyond_first.map_or(call, |first| first.min(call)));
    }

    /// The same, but not now.
    pub(crate) fn look_later(&mut self, call: CallId, at: Mono) {
        if mutant::is(Mutant::PutOffIsForgotten) {
            return;
        }
        self.put_off_until = if self.put_off.is_empty() { at } else { self.put_off_until.min(at) };
        least(&mut self.put_off, key::home(call), call);
    }

    /// The page to read next, if one should be read.
    pub(crate) fn next_page(&mut self) -> Option<(PartitionId, CallId)> {
        let (&partition, &from) = self.beyond.iter().min_by_key(|(_, from)| **from)?;
        let full = self.ready.len() > READY_MAX / 2 || self.ready_bytes > READY_BYTES_MAX / 2;
        // What may be older than all that is ready keeps that waiting, and so is read however full memory is.
        let oldest = self.ready.first_key_value().is_none_or(|(head, _)| from <= *head);
        if self.reading.is_some() || (full && !oldest) {
            return None;
        }
        self.beyond.remove(&partition);
        self.beyond_first = self.beyond.values().min().copied();
        self.reading = Some((partition, from));
        self.reading
    }

    /// It has been read. `more`: the first call after it.
    pub(crate) fn page_read(&mut self, more: Option<CallId>) {
        self.reading = None;
        if let Some(more) = more {
            self.look_from(more);
        }
    }

    /// It could not be read.
    pub(crate) fn page_failed(&mut self, again: Mono) {
        if let Some((_, from)) = self.reading.take() {
            self.look_later(from, again);
        }
    }

    /// A call of the page that was read; `false` if there is no room for it, or for any after it.
    pub(crate) fn load(&mut self, call: CallId, entry: Entry) -> bool {
        if entry.due.is_none() && !self.make_room(call) {
            return false;
        }
        self.admit(call, entry);
        true
    }

    /// Time has passed. Gives the calls that want a key now.
    pub(crate) fn handle_timeout(&mut self, now: Mono) -> Vec<(CallId, Entry)> {
        let mut wanting = Vec::new();
        while let Some(&(due, call)) = self.due.first()
            && due <= now
        {
            let entry = self.remove_later(call).expect("what is due is there");
            match entry.is_delayed() && !entry.record.exclusive_key.is_empty() {
                true => wanting.push((call, Entry { due: None, ..entry })),
                false => self.add_ready(call, entry),
            }
        }
        if !self.put_off.is_empty() && self.put_off_until <= now {
            for (_, call) in std::mem::take(&mut self.put_off) {
                self.look_from(call);
            }
        }
        wanting
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        let put_off = (!self.put_off.is_empty()).then_some(self.put_off_until);
        self.due.first().map(|(due, _)| *due).into_iter().chain(put_off).min()
    }

    /// How many calls are in memory: ready, waiting for another attempt, being run.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.ready.len(), self.later.len(), self.taken.len())
    }

    /// Whether the store holds more.
    pub(crate) fn has_more(&self) -> bool {
        !self.beyond.is_empty() || self.reading.is_some() || !self.put_off.is_empty()
    }

    pub(crate) fn check_invariants(&self) {
        // A retried call, or one that gets its key, may come on top of a full lane.
        let most = READY_MAX + LATER_MAX + self.taken.len() + 2 * PAGE_ROWS;
        assert!(self.ready.len() <= most, "ready calls are bounded");
        assert_eq!(self.beyond_first, self.beyond.values().min().copied(), "the first beyond is known");
        assert!(self.later.len() <= LATER_MAX, "waiting calls are bounded");
        assert_eq!(self.due.len(), self.later.len(), "each waiting call is due once");
        assert_eq!(
            self.ready_bytes,
            self.ready.values().map(|e| e.bytes).sum::<usize>(),
            "a lane knows its size"
        );
        for (due, call) in &self.due {
            assert_eq!(self.later.get(call).map(|(at, _)| at), Some(due), "due is who waits");
        }
        for call in self.taken.keys() {
            assert!(
                !self.ready.contains_key(call) && !self.later.contains_key(call),
                "a call is in one place"
            );
        }
    }

    fn has_room(&self) -> bool {
        self.ready.is_empty() || (self.ready.len() < READY_MAX && self.ready_bytes < READY_BYTES_MAX)
    }

    /// Makes room for a call: younger ones are left to the store. `false` if there are none.
    fn make_room(&mut self, call: CallId) -> bool {
        while !self.has_room() {
            // Those that hold a key stay.
            let mut others =
                self.ready.iter().rev().filter(|(_, entry)| entry.record.exclusive_key.is_empty());
            let Some((&youngest, _)) = others.next() else { return true };
            if youngest < call {
                return false;
            }
            self.remove_ready(youngest);
            self.look_from(youngest);
        }
        true
    }

    fn wait(&mut self, call: CallId, mut entry: Entry, due: Option<Mono>) {
        entry.due = due;
        let due = due.filter(|_| !entry.is_delayed() || !mutant::is(Mutant::DelayIsForgotten));
        match due {
            None => self.add_ready(call, entry),
            Some(due) if self.later.len() < LATER_MAX => {
                self.due.insert((due, call));
                self.later.insert(call, (due, entry));
            }
            Some(due) => self.look_later(call, due),
        }
    }

    fn add_ready(&mut self, call: CallId, entry: Entry) {
        self.ready_bytes += entry.bytes;
        let twice = self.ready.insert(call, entry);
        assert!(twice.is_none(), "a call is loaded once");
    }

    fn remove_ready(&mut self, call: CallId) -> Option<Entry> {
        let entry = self.ready.remove(&call)?;
        self.ready_bytes -= entry.bytes;
        Some(entry)
    }

    fn remove_later(&mut self, call: CallId) -> Option<Entry> {
        let (due, entry) = self.later.remove(&call)?;
        self.due.remove(&(due, call));
        Some(entry)
    }
}

fn least(map: &mut BTreeMap<PartitionId, CallId>, partition: PartitionId, call: CallId) {
    let from = map.entry(partition).or_insert(call);
    *from = call.min(*from);
}
