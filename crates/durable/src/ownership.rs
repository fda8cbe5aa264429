//! How a partition is acquired, lost, and acquired again.
//!
//! ```text
//!           touched                record read               claim committed
//!   Idle ------------> Asking --------------------> Claiming ----------------> Owned
//!    ^                   ^  |                          |                        | |
//!    |          back-off |  | failed                   | conflict, failed,      | | batch unknown
//!    | attempts_max      |  v                          | unknown                | v
//!    +---------------- BackingOff <--------------------+             Asking, in doubt of that batch
//!    ^                                                                          |
//!    +--------------------------------------------------------------------------+ batch failed or conflicted
//! ```
//!
//! A claim is a batch without operations at `fence + 1`, conditional on the record that was read. With an embedded
//! store nobody else can own a partition, so that a claim need not wait for a lease.
//!
//! After an unknown outcome the batch is *in doubt*. If the record read back is the batch's, it has landed. If a
//! claim lands, it has not and never will: the claim expected the record that the batch expects, or a later one.

use std::time::Duration;

use bourse_wire::id::Incarnation;
use bourse_wire::time::Mono;

use crate::batch::{Batch, Fence, Outcome, Owner, PartitionId, ReadError, Seq};
use crate::message::{Answer, Finished, StoreRequest};
use crate::mutant::{self, Mutant};
use crate::outbox::{Asked, Outbox, Who};

/// The first pause after a failed attempt to acquire.
pub(crate) const BACK_OFF_MIN: Duration = Duration::from_millis(10);
/// Pauses double up to this.
pub(crate) const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ownership {
    node: Incarnation,
    partition: PartitionId,
    standing: Standing,
    /// Failed attempts to acquire, since the partition was last owned or idle.
    failures: u32,
    failures_max: u32,
    doubt: Option<Doubt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Idle,
    Asking,
    /// As the record will be.
    Claiming(Owner),
    BackingOff(Mono),
    Owned(Owner),
}

/// A batch of which nobody knows whether it landed, and the finishes that wait to know.
#[derive(Debug)]
struct Doubt {
    owner: Owner,
    whose: Vec<Who>,
    text: String,
}

/// What an answer from the store came to.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Step {
    /// On its way.
    Going,
    /// Ours.
    Acquired,
    /// Tried too often. The text is for the operator.
    GaveUp(String),
}

impl Ownership {
    pub(crate) fn new(node: Incarnation, partition: PartitionId, failures_max: u32) -> Self {
        Self { node, partition, standing: Standing::Idle, failures: 0, failures_max, doubt: None }
    }

    /// Somebody needs the partition.
    pub(crate) fn touch(&mut self, outbox: &mut Outbox) {
        if self.standing == Standing::Idle {
            self.ask(outbox);
        }
    }

    pub(crate) fn on_record(
        &mut self,
        now: Mono,
        record: Result<Option<Owner>, ReadError>,
        outbox: &mut Outbox,
    ) -> Step {
        assert_eq!(self.standing, Standing::Asking, "a record comes to who asks for it");
        match record {
            Err(ReadError(text)) => self.fail(now, text, outbox),
            Ok(record) => {
                self.read_back(record, outbox);
                let (fence, seq) = record.map_or((Fence(0), Seq(0)), |owner| (owner.fence, owner.seq));
                let more = u64::from(!mutant::is(Mutant::SameFence) || fence.0 == 0);
                let owner = Owner { node: self.node.0, fence: Fence(fence.0 + more), seq: Seq(seq.0 + 1) };
                self.standing = Standing::Claiming(owner);
                let batch = Batch { partition: self.partition, expect: record, owner, ops: Vec::new() };
                outbox.ask(Asked::Claim(self.partition), StoreRequest::Commit(batch));
                Step::Going
            }
        }
    }

    pub(crate) fn on_claim(&mut self, now: Mono, outcome: Outcome, outbox: &mut Outbox) -> Step {
        let Standing::Claiming(owner) = self.standing else {
            panic!("a claim's outcome comes to who claims");
        };
        match outcome {
            Outcome::Committed => {
                self.decide(|_| Finished::Lost, outbox);
                self.failures = 0;
                self.standing = Standing::Owned(owner);
                Step::Acquired
            }
            Outcome::Conflict => self.fail(now, "another node took the partition".to_owned(), outbox),
            Outcome::Failed(text) | Outcome::Unknown(text) => self.fail(now, text, outbox),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Mono, outbox: &mut Outbox) {
        if let Standing::BackingOff(until) = self.standing
            && until <= now
        {
            self.ask(outbox);
        }
    }

    /// A batch of ours landed.
    pub(crate) fn advance(&mut self, owner: Owner) {
        assert!(self.owner().is_some(), "only an owner writes batches");
        self.standing = Standing::Owned(owner);
    }

    /// A batch of ours did not land, or somebody else's did.
    pub(crate) fn lose(&mut self) {
        self.standing = Standing::Idle;
    }

    /// Nobody knows whether the batch that makes `owner` the record landed. Those in `whose` are answered when it is known.
    pub(crate) fn doubt(&mut self, owner: Owner, whose: Vec<Who>, text: String, outbox: &mut Outbox) {
        self.doubt = Some(Doubt { owner, whose, text });
        self.ask(outbox);
    }

    pub(crate) fn owner(&self) -> Option<Owner> {
        match self.standing {
            Standing::Owned(owner) => Some(owner),
            _ => None,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.standing == Standing::Idle
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        match self.standing {
            Standing::BackingOff(until) => Some(until),
            _ => None,
        }
    }

    pub(crate) fn check_invariants(&self) {
        let settled = matches!(self.standing, Standing::Idle | Standing::Owned(_));
        assert!(!settled || self.doubt.is_none(), "a doubt is settled before all is quiet");
        assert!(!settled || self.failures == 0, "failures count while acquiring");
        assert!(self.failures < self.failures_max, "attempts are bounded");
    }

    fn ask(&mut self, outbox: &mut Outbox) {
        self.standing = Standing::Asking;
        outbox.ask(Asked::Owner(self.partition), StoreRequest::Owner(self.partition));
    }

    fn fail(&mut self, now: Mono, text: String, outbox: &mut Outbox) -> Step {
        self.failures += 1;
        if self.failures >= self.failures_max {
            self.failures = 0;
            self.standing = Standing::Idle;
            self.decide(|text| Finished::Unknown(text.to_owned()), outbox);
            return Step::GaveUp(text);
        }
        let pause = BACK_OFF_MIN * 2u32.saturating_pow(self.failures - 1);
        self.standing = Standing::BackingOff(now + pause.min(BACK_OFF_MAX));
        Step::Going
    }

    /// Does the record that was read settle the doubt?
    fn read_back(&mut self, record: Option<Owner>, outbox: &mut Outbox) {
        let (Some(doubt), Some(record)) = (&self.doubt, record) else { return };
        let batch = doubt.owner;
        if record.fence == batch.fence && record.node == batch.node {
            if record.seq >= batch.seq {
                self.decide(|_| Finished::Done, outbox);
            }
            // Else it has not landed so far: a claim will tell.
        } else if record.node == self.node.0 {
            // A claim of ours whose outcome was unknown as well; we claim only what the batch has not changed.
            self.decide(|_| Finished::Lost, outbox);
        } else {
            self.decide(|text| Finished::Unknown(text.to_owned()), outbox);
        }
    }

    fn decide(&mut self, finished: impl Fn(&str) -> Finished, outbox: &mut Outbox) {
        if let Some(Doubt { whose, text, .. }) = self.doubt.take() {
            for who in whose {
                outbox.answer(who, Answer::Finished(finished(&text)));
            }
        }
    }
}
