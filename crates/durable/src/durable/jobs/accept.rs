//! Accepting: an idempotency key is looked up, then the call is written.

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bytes::Bytes;
use prost::Message as _;

use super::{Durable, Job, encode};
use crate::batch::ReadError;
use crate::layer::Layer;
use crate::message::{Answer, Finished, Ticket};
use crate::mutant::{self, Mutant};
use crate::outbox::Who;
use crate::work::{NewCall, key};

impl Durable {
    pub(in crate::durable) fn commit_accept(&mut self, new: NewCall, unique: Option<Bytes>, ticket: Ticket) {
        let mut layer = Layer::bare(key::home(new.call));
        layer.set(key::live(new.lane(), new.call), Some(encode(&new.record)));
        if let Some(unique) = &unique {
            let value = stored::Unique {
                call: new.call.to_wire(),
                accepted_ms: new.record.accepted_ms,
                unique_ms: new.record.unique_ms,
            };
            layer.set(unique.clone(), Some(encode(&value)));
            self.work.sweeping.iter_mut().for_each(|swept| _ = swept.insert(unique.clone()));
        }
        if let Err(refusal) = layer.fits() {
            self.outbox.answer(Who::Node(ticket), Answer::Finished(Finished::Refused(refusal)));
            return;
        }
        self.work.arriving.insert(new.call);
        if mutant::is(Mutant::AcceptedEarly) {
            self.outbox.answer(Who::Node(ticket), Answer::Accepted { call: new.call, first: true });
        }
        self.commit_job(layer, Job::Accept { new, unique, ticket });
    }

    /// Reads which call has the key.
    pub(in crate::durable) fn look_up(&mut self, unique: Bytes) {
        let (first, _) = self.work.keys[&unique].front().expect("a key is looked up for somebody");
        let home = key::home(first.call);
        self.read_row(home, unique.clone(), Job::LookUp { unique });
    }

    pub(super) fn on_key(&mut self, unique: Bytes, found: Result<Option<Bytes>, ReadError>) {
        match found {
            Err(ReadError(text)) => {
                for (_, ticket) in self.work.keys.remove(&unique).unwrap_or_default() {
                    self.outbox.answer(Who::Node(ticket), Answer::StoreFailed(text.clone()));
                }
            }
            Ok(found) => {
                let found = found.and_then(|bytes| stored::Unique::decode(bytes).ok());
                let holder =
                    found.filter(|u| !self.is_over(u.accepted_ms)).and_then(|u| CallId::from_wire(&u.call));
                match holder {
                    Some(call) => self.key_is(unique, call),
                    None => {
                        let waiting =
                            self.work.keys.get_mut(&unique).expect("a key is looked up for somebody");
                        if let Some((new, ticket)) = waiting.pop_front() {
                            self.commit_accept(new, Some(unique), ticket);
                        }
                    }
                }
            }
        }
    }

    /// The key is a call's: all who wait for it are told.
    pub(super) fn key_is(&mut self, unique: Bytes, call: CallId) {
        for (_, ticket) in self.work.keys.remove(&unique).unwrap_or_default() {
            self.outbox.answer(Who::Node(ticket), Answer::Accepted { call, first: false });
        }
    }

    /// Nobody got it, as far as is known: the next one tries.
    pub(super) fn key_is_free(&mut self, unique: Bytes) {
        match self.work.keys.get(&unique) {
            Some(waiting) if !waiting.is_empty() => self.look_up(unique),
            _ => _ = self.work.keys.remove(&unique),
        }
    }

    pub(super) fn is_over(&self, since_ms: u64) -> bool {
        let kept = u64::try_from(self.limits.ended_kept.as_millis()).unwrap_or(u64::MAX);
        since_ms.saturating_add(kept) <= self.work.wall.0
    }
}
