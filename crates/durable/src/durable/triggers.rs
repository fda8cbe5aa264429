//! What the node asks for cron lines, queues and topics. See [`crate::work::trigger`].

use bourse_wire::time::Now;

use super::Durable;
use super::jobs::Job;
use crate::batch::PartitionId;
use crate::layer::Layer;
use crate::message::{Answer, Finish, Ticket};
use crate::mutant::{self, Mutant};
use crate::outbox::Who;
use crate::work::NewCall;
use crate::work::trigger::{FoundTriggers, TriggerKey, TriggerWrite};

impl Durable {
    /// What an earlier life has left, once it is known: some time after [`Self::recover`], given once.
    pub fn found_triggers(&mut self) -> Option<FoundTriggers> {
        std::mem::take(&mut self.work.triggers.done).then(|| std::mem::take(&mut self.work.triggers.found))
    }

    /// Changes a record and accepts calls: all of it or nothing. Answered by [`Answer::Finished`].
    pub fn trigger(&mut self, now: Now, write: Option<TriggerWrite>, calls: Vec<NewCall>, ticket: Ticket) {
        self.tell_time(now);
        let mut layer = write.map(|write| {
            let mut layer = Layer::bare(PartitionId(write.key().home()));
            layer.set(write.key().bytes(), write.value());
            layer
        });
        if mutant::is(Mutant::TickApartFromCall)
            && !calls.is_empty()
            && let Some(layer) = layer.take()
        {
            self.commit_job(layer, Job::Swept { next: None });
        }
        let mut calls = calls;
        if mutant::is(Mutant::MessageInParts) && calls.len() > 1 {
            for call in calls.split_off(1) {
                self.accept_alone(call);
            }
        }
        if let Finish::Now(finished) = self.commit_emits(layer, calls, ticket) {
            self.outbox.answer(Who::Node(ticket), Answer::Finished(finished));
        }
    }

    /// The record as it is in the store, once all earlier changes of it have landed or never will. Answered by
    /// [`Answer::Value`].
    pub fn look_trigger(&mut self, key: &TriggerKey, ticket: Ticket) {
        if mutant::is(Mutant::TickInDoubtIsLost) {
            return self.outbox.answer(Who::Node(ticket), Answer::Finished(crate::Finished::Lost));
        }
        self.probe_trigger(PartitionId(key.home()), key.bytes(), ticket);
    }
}
