//! Planted faults, for the simulator to find. There are none without the feature `mutants`, and with it none unless one
//! is chosen, for the current thread.
//!
//! A checker that finds nothing is worth something only if it finds these.

/// A fault that somebody might make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A call is said to be accepted before it is stored.
    AcceptedEarly,
    /// What an earlier life has left for other partitions is not looked for.
    NoOutgoingAtRecovery,
    /// What was carried over to another partition is not deleted where it was.
    CarriedNotCleared,
    /// What is to be carried over to another partition is deleted instead.
    ClearedNotCarried,
    /// A call's end and the state that it has changed are two commits.
    EndApartFromState,
    /// A page shows calls that have left memory since it was read.
    StalePages,
    /// A page loads calls that are still being stored.
    PagesOvertakeAccepts,
    /// After a page of a lane, the next one is looked for at another partition.
    NextPageElsewhere,
    /// A call that has ended stays in its lane.
    DoneIsRetried,
    /// A call that waits for its next attempt is ready as well.
    PutBackTwice,
    /// A partition is claimed without a new fence.
    SameFence,
    /// A commit of which nobody knows whether it landed is taken for one that has.
    UnknownIsDone,
    /// The same is taken for one that never will.
    UnknownIsLost,
    /// What a commit in doubt concerned is not looked for.
    DoubtIsForgotten,
    /// An idempotency key is written without being looked up.
    KeyNotLookedUp,
    /// What is put off until later is forgotten.
    PutOffIsForgotten,
    /// What a transaction has read is not validated.
    NoValidation,
    /// Failed attempts are not counted.
    FailuresNotCounted,
    /// What a failed attempt has written is committed with its failure.
    FailedAttemptCommits,
    /// What an attempt has emitted is kept for the next one.
    EmittedIsKept,
    /// Who waits for a call that is cancelled while it waits is not told.
    WaitersNotTold,
    /// Which calls wait in the store for an exclusive key is not looked for.
    KeyNotRead,
    /// A call gives its exclusive key back while it waits for its next attempt.
    BackOffFreesKey,
    /// A call that has handed on is carried over to its home even if it has come further there.
    OldTailWins,
    /// A unique key is not looked up where a function's call arrives.
    UniqueNotCarried,
    /// A cron line's tick and the call that it makes are two commits.
    TickApartFromCall,
    /// A tick of which nobody knows whether it landed is taken for one that never will.
    TickInDoubtIsLost,
    /// Each function that a message is for gets it by a commit of its own.
    MessageInParts,
    /// An attempt that holds an exclusive key has the fence of the one before.
    FenceNotRenewed,
    /// An exclusive key is free as soon as its call has ended, though an instance is still busy with it.
    KeyFreedEarly,
    /// The index of exclusive keys still lists a call that has ended.
    IndexNotCleared,
    /// Who has begun before the node ended does not still hold its exclusive key.
    HolderIsForgotten,
    /// A call is tried again while something that it has called still runs with its exclusive key.
    OrphansNotAwaited,
    /// A call that was accepted before is looked for in the lane only in which it was accepted.
    OneLaneIsChecked,
    /// A delayed call is not delayed once it is in the store.
    DelayIsForgotten,
}

/// All of them.
pub const ALL: &[Mutant] = &[
    Mutant::AcceptedEarly,
    Mutant::NoOutgoingAtRecovery,
    Mutant::CarriedNotCleared,
    Mutant::ClearedNotCarried,
    Mutant::EndApartFromState,
    Mutant::StalePages,
    Mutant::PagesOvertakeAccepts,
    Mutant::NextPageElsewhere,
    Mutant::DoneIsRetried,
    Mutant::PutBackTwice,
    Mutant::SameFence,
    Mutant::UnknownIsDone,
    Mutant::UnknownIsLost,
    Mutant::DoubtIsForgotten,
    Mutant::KeyNotLookedUp,
    Mutant::PutOffIsForgotten,
    Mutant::NoValidation,
    Mutant::FailuresNotCounted,
    Mutant::FailedAttemptCommits,
    Mutant::EmittedIsKept,
    Mutant::WaitersNotTold,
    Mutant::KeyNotRead,
    Mutant::BackOffFreesKey,
    Mutant::OldTailWins,
    Mutant::UniqueNotCarried,
    Mutant::TickApartFromCall,
    Mutant::TickInDoubtIsLost,
    Mutant::MessageInParts,
    Mutant::FenceNotRenewed,
    Mutant::KeyFreedEarly,
    Mutant::IndexNotCleared,
    Mutant::HolderIsForgotten,
    Mutant::OrphansNotAwaited,
    Mutant::OneLaneIsChecked,
    Mutant::DelayIsForgotten,
];

#[cfg(feature = "mutants")]
mod chosen {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// From now on this thread behaves as the mutant, or as it should.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }

    /// Whether this thread behaves as the mutant.
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{choose, is};

/// Never.
#[cfg(not(feature = "mutants"))]
pub const fn is(_: Mutant) -> bool {
    false
}
