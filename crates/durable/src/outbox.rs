//! What leaves, and what was asked of the store and by whom.
//!
//! Answers to the crate's own jobs do not leave: they wait here until [`crate::Durable`] goes on with the job.

use std::collections::{BTreeMap, VecDeque};

use bourse_wire::id::CallId;

use crate::batch::PartitionId;
use crate::durable::reading::ReadingId;
use crate::message::{Answer, Output, StoreRequest, Ticket, Token};
use crate::work::JobId;

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// The node.
    Node(Ticket),
    /// A job of our own.
    Job(JobId),
}

/// Who asked the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A partition, for its owner record.
    Owner(PartitionId),
    /// A partition, to make us its owner.
    Claim(PartitionId),
    /// A partition, to write a batch.
    Commit(PartitionId),
    /// A read or scan.
    Reading(ReadingId),
    /// A job of our own, for a record or a page.
    Job(JobId),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    outputs: VecDeque<Output>,
    asked: BTreeMap<Token, Asked>,
    tokens: u64,
    /// Answers for jobs.
    done: VecDeque<(JobId, Answer)>,
}

impl Outbox {
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn answer(&mut self, who: Who, answer: Answer) {
        match who {
            Who::Node(ticket) => self.outputs.push_back(Output::Answer { ticket, answer }),
            Who::Job(job) => self.done.push_back((job, answer)),
        }
    }

    /// A look can tell now how a call stands.
    pub(crate) fn known(&mut self, call: CallId) {
        self.outputs.push_back(Output::Known { call });
    }

    /// A call that is not durable has its key.
    pub(crate) fn granted(&mut self, call: CallId, fence: u64) {
        self.outputs.push_back(Output::Granted { call, fence });
    }

    /// A call would wait for ever.
    pub(crate) fn deadlock(&mut self, call: CallId, circle: String) {
        self.outputs.push_back(Output::Deadlock { call, circle });
    }

    /// The next answer that is for a job.
    pub(crate) fn poll_job(&mut self) -> Option<(JobId, Answer)> {
        self.done.pop_front()
    }

    pub(crate) fn ask(&mut self, asked: Asked, request: StoreRequest) {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.asked.insert(token, asked);
        self.outputs.push_back(Output::Store { token, request });
    }

    /// Who asked. Each question is answered once.
    pub(crate) fn answered(&mut self, token: Token) -> Asked {
        self.asked.remove(&token).expect("the driver answers what was asked of the store, once")
    }

    pub(crate) fn asked(&self) -> impl Iterator<Item = Asked> {
        self.asked.values().copied()
    }
}
