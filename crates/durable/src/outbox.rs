//! What leaves, and what was asked of the store and by whom.

use std::collections::{BTreeMap, VecDeque};

use crate::batch::PartitionId;
use crate::durable::reading::ReadingId;
use crate::message::{Answer, Output, StoreRequest, Ticket, Token};

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
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    outputs: VecDeque<Output>,
    asked: BTreeMap<Token, Asked>,
    tokens: u64,
}

impl Outbox {
    pub(crate) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.outputs.push_back(Output::Answer { ticket, answer });
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
