//! A read or scan on its way: answered from memory, or by the store, or waiting until the partition is ours.
//!
//! A key that a layer of the stack has written, or that a batch on its way has, is answered at once: the store is not
//! asked. So a point read asks the store only for keys whose every write has landed and been answered. If the key is
//! written between question and answer, that write is the answer while it is pending; once it has landed as well,
//! the store may have looked before or after, and the read counts from the question, so that it is outdated.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Durable;
use crate::batch::{PartitionId, ReadError, Seq};
use crate::home::Home;
use crate::layer::newest;
use crate::message::{Answer, LayerId, Origin, Refusal, StorePage, StoreRequest, Ticket};
use crate::outbox::{Asked, Who};
use crate::overlay::rests_on;
use crate::reads::{Log, Moment, Tick};
use crate::record::{self, Record};
use crate::scan::{Progress, Scan};

/// Names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadingId(pub(crate) u64);

/// See the module.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) ticket: Ticket,
    pub(crate) layer: LayerId,
    pub(crate) partition: PartitionId,
    /// At the layer's home: it sees what is uncommitted, and is validated.
    pub(crate) guarded: bool,
    /// When the store was first asked.
    pub(crate) issued: Option<Tick>,
    pub(crate) what: What,
}

/// What is read.
#[derive(Debug)]
pub(crate) enum What {
    /// One record, by its key.
    Key(Bytes),
    /// A part of a scope.
    Scan(Box<Scan>),
}

impl Durable {
    pub(super) fn start(
        &mut self,
        origin: Origin<'_>,
        home: Home,
        ticket: Ticket,
        what: impl FnOnce() -> What,
    ) {
        let partition = home.partition();
        let entered = if self.readings.len() >= self.limits.reads_waiting_max {
            Err(Refusal::Behind)
        } else {
            self.enter(origin, home)
        };
        let guarded = match entered {
            Ok(at_home) => at_home,
            Err(refusal) => return self.outbox.answer(Who::Node(ticket), Answer::Refused(refusal)),
        };
        let layer = self.layers.find_mut(origin.layer).expect("a layer that was entered is open");
        if layer.reads.len() + layer.readings.len() >= self.limits.reads_per_layer_max {
            return self.outbox.answer(Who::Node(ticket), Answer::Refused(Refusal::TooManyReads));
        }
        self.readings_made += 1;
        let id = ReadingId(self.readings_made);
        layer.readings.insert(id);
        let reading = Reading { ticket, layer: origin.layer, partition, guarded, issued: None, what: what() };
        self.readings.insert(id, reading);
        self.go_on(id);
    }

    /// Answers a read from memory, or asks the store, or waits until the partition is ours.
    pub(super) fn go_on(&mut self, id: ReadingId) {
        let reading = self.readings.get(&id).expect("a read that goes on is known");
        match &reading.what {
            What::Key(key) => {
                let key = key.clone();
                if !self.answer_from_memory(id, &key) {
                    self.ask(id);
                }
            }
            What::Scan(scan) if scan.span().is_some() => self.ask(id),
            What::Scan(_) => self.answer_page(id, false),
        }
    }

    fn ask(&mut self, id: ReadingId) {
        let reading = self.readings.get_mut(&id).expect("a read that goes on is known");
        let partition = self.partitions.get_mut(&reading.partition);
        let pending = match partition {
            Some(partition) if reading.guarded => {
                if partition.ownership.owner().is_none() {
                    partition.wait_to_read(id);
                    return;
                }
                Some(&partition.pending)
            }
            _ => None,
        };
        reading.issued.get_or_insert(self.tick);
        let request = match &mut reading.what {
            What::Key(key) => StoreRequest::Read { partition: reading.partition, key: key.clone() },
            What::Scan(scan) => scan.request(reading.partition, pending),
        };
        if let (What::Scan(_), true) = (&reading.what, reading.guarded)
            && let Some(partition) = self.partitions.get_mut(&reading.partition)
        {
            partition.scans.insert(id);
        }
        self.outbox.ask(Asked::Reading(id), request);
    }

    /// What the layers of the stack have written, else what is pending, else what is cached.
    fn answer_from_memory(&mut self, id: ReadingId, key: &Bytes) -> bool {
        let reading = &self.readings[&id];
        let (layer, place, guarded) = (reading.layer, reading.partition, reading.guarded);
        let now = Moment::exactly(self.tick);
        if guarded {
            if let Some(found) = self.layers.written(layer, key) {
                let (record, own) = (found.write.record(), found.own);
                self.answer_value(id, key, record, (!own).then_some(now), Seq::default());
                return true;
            }
            let partition = self.partitions.get(&place);
            if let Some(write) = partition.and_then(|partition| partition.pending.find(key)) {
                let (record, seq) = (write.record(), write.version.seq());
                self.answer_value(id, key, record, Some(now), seq);
                return true;
            }
        }
        if let Some(record) = self.cache.find(key) {
            self.answer_value(id, key, record, guarded.then_some(now), Seq::default());
            return true;
        }
        false
    }

    pub(super) fn on_read(&mut self, id: ReadingId, stored: Result<Option<Bytes>, ReadError>) {
        let Some(Reading { what: What::Key(key), partition: place, guarded, issued, .. }) =
            self.readings.get(&id)
        else {
            return;
        };
        let (key, place, guarded, issued) = (key.clone(), *place, *guarded, *issued);
        // Written meanwhile: that is newer than whatever the store saw.
        if guarded && self.answer_from_memory(id, &key) {
            return;
        }
        let record = match stored.map(|stored| stored.as_ref().map(record::decode).transpose()) {
            Err(ReadError(text)) => return self.answer(id, Answer::StoreFailed(text)),
            Ok(Err(corrupt)) => return self.answer(id, Answer::Corrupt(corrupt)),
            Ok(Ok(record)) => record,
        };
        let moment = guarded.then(|| {
            let issued = issued.expect("the store was asked");
            if self.partitions[&place].recent.wrote(&key, issued) {
                return Moment { from: issued, to: self.tick };
            }
            self.cache.put(place, &key, record.clone());
            Moment::exactly(self.tick)
        });
        self.answer_value(id, &key, record, moment, Seq::default());
    }

    /// What is in flight has landed: scans on their way may see it or not.
    pub(super) fn note_landing(&mut self, id: PartitionId) {
        let partition = &self.partitions[&id];
        for scan in &partition.scans {
            if let Some(Reading { what: What::Scan(scan), .. }) = self.readings.get_mut(scan) {
                partition.in_flight().for_each(|(key, write)| scan.note(key, write));
            }
        }
    }

    pub(super) fn on_scanned(&mut self, id: ReadingId, page: Result<StorePage, ReadError>) {
        let Some(reading) = self.readings.get_mut(&id) else { return };
        if let Some(partition) = self.partitions.get_mut(&reading.partition) {
            partition.scans.remove(&id);
        }
        let What::Scan(scan) = &mut reading.what else {
            panic!("the driver answers a scan with a page");
        };
        let page = match page {
            Ok(page) if page.more && page.rows.is_empty() => {
                return self.answer(id, Answer::StoreFailed("a page without rows promises more".to_owned()));
            }
            Ok(page) => page,
            Err(ReadError(text)) => return self.answer(id, Answer::StoreFailed(text)),
        };
        let mut newer = BTreeMap::new();
        if reading.guarded
            && let Some(span) = scan.span()
        {
            let pending = &self.partitions[&reading.partition].pending;
            let stack = self.layers.stack(reading.layer).rev().map(|layer| &layer.writes);
            newer = newest(std::iter::once(pending).chain(stack).flat_map(|writes| writes.within(span)));
            let seen = rests_on(pending.within(span).map(|(_, write)| write)).max(scan.rests_on());
            let layer = self.layers.find_mut(reading.layer).expect("a read is of an open layer");
            layer.rests_on = layer.rests_on.max(seen);
        }
        match scan.on_page(self.tick, &page, newer) {
            Err(corrupt) => self.answer(id, Answer::Corrupt(corrupt)),
            Ok(Progress::Ask) => self.ask(id),
            Ok(Progress::Done { more }) => self.answer_page(id, more),
        }
    }

    fn answer_value(
        &mut self,
        id: ReadingId,
        key: &Bytes,
        record: Option<Record>,
        moment: Option<Moment>,
        seq: Seq,
    ) {
        let reading = &self.readings[&id];
        let layer = self.layers.find_mut(reading.layer).expect("a read is of an open layer");
        layer.rests_on = layer.rests_on.max(seq);
        if let Some(moment) = moment {
            layer.reads.add_key(key.clone(), moment);
        }
        self.answer(id, Answer::Value(record));
    }

    fn answer_page(&mut self, id: ReadingId, more: bool) {
        let reading = self.readings.get_mut(&id).expect("a read that goes on is known");
        let What::Scan(scan) = std::mem::replace(&mut reading.what, What::Key(Bytes::new())) else {
            panic!("only a scan is answered with a page");
        };
        let (page, covered, since) = scan.finish(more);
        if reading.guarded {
            let now = self.tick;
            // Of several pages the first may be outdated when the last one comes.
            let since = since.unwrap_or(now);
            let partition = &self.partitions[&reading.partition];
            let below = || self.layers.stack(reading.layer).skip(1);
            let written = covered.iter().any(|span| {
                partition.recent.wrote_within(span, since)
                    || below().any(|layer| layer.writes.wrote_within(span, since))
            });
            let moment = if written { Moment { from: since, to: now } } else { Moment::exactly(now) };
            let layer = self.layers.find_mut(reading.layer).expect("a read is of an open layer");
            for span in covered {
                layer.reads.add_span(span, moment);
            }
        }
        self.answer(id, Answer::Page(page));
    }

    pub(super) fn answer(&mut self, id: ReadingId, answer: Answer) {
        let reading = self.readings.remove(&id).expect("a read that is answered is known");
        let layer = self.layers.find_mut(reading.layer).expect("a read is of an open layer");
        layer.readings.remove(&id);
        self.outbox.answer(Who::Node(reading.ticket), answer);
    }
}
