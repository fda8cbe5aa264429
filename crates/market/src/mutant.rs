//! Planted faults, for the simulator to find. There are none without the feature `mutants`, and with it none unless one
//! is chosen, for the current thread.
//!
//! A checker that finds nothing is worth something only if it finds these.

/// A fault that somebody might make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    // Trade: listener, channel, balancer.
    /// A claim that comes again is granted again, with no slot for it.
    ClaimMints,
    /// Of two claims in the wrong order, the older one's want is taken.
    OldWantTaken,
    /// A revoked token's slot is free before the buyer has given the token back.
    RevokedCountsEarly,
    /// A call with a token of a channel that has ended is admitted.
    EndedAdmits,
    /// A call that comes again is a new one.
    RepeatedAdmitted,
    /// A call that was said to be void is admitted when it comes after all.
    VoidAdmitted,
    /// A slot is free when the buyer no longer waits for the call, not when its instance is free.
    SlotFreeAtTimeout,
    /// A slot comes back when the call has ended, and again when the buyer says so.
    SlotBackTwice,
    /// A call that was lost on the way is waited for without end.
    LostCallAwaited,
    /// A grant is said once, whether or not it arrives.
    GrantSaidOnce,
    /// Tokens of a channel that its seller has ended are used.
    ClosedSpends,
    /// A lost answer is not noticed.
    LostAnswerIgnored,
    /// A listener that has been made smaller grants as many as before.
    ShrinkIgnored,
    /// A freed slot goes to who holds most.
    MostFirst,
    /// A seller that has failed once is left out for ever.
    BreakerNeverCloses,
    /// A seller that has failed is chosen all the same.
    BreakerNeverOpens,
    /// A half open breaker lets all calls through.
    HalfOpenLetsAll,
    /// What a channel held when it was removed is still chosen from.
    RemovedIsChosen,
    // Discovery: member, authority, exchange, broker.
    /// An authority of which another one has said that it is there counts, though it has said nothing itself.
    RumourRaises,
    /// An authority that says nothing any more counts.
    SilenceIsPresence,
    /// Every authority steps down when there are too many.
    AllStepDown,
    /// A node goes on with what a home has said that is gone.
    LostHomeBelieved,
    /// A node that reaches nobody waits for ever.
    AloneForEver,
    /// An order takes the place of a newer one.
    StaleOrderAccepted,
    /// The orders of a lost node stay.
    LostOrdersStay,
    /// What was promised of an order and never used is not offered again.
    PromiseNeverExpires,
    /// A version is sold that does not fit.
    WrongRequirementMatched,
    /// A node is matched with itself.
    SoldToItself,
    /// A buyer gets everything from the first failure domain.
    NotSpread,
    /// A buyer that has got a place in line is matched with nothing that comes free.
    LineFills,
    /// Who has waited longest is served last.
    LastComeFirstServed,
    /// What two replicas have found alike counts twice.
    DoublesCount,
    /// Orders are said once.
    NoRestatement,
    /// A buy order that stays unfilled keeps its revision.
    UnfilledNotRepeated,
    /// An exchange host that is one no longer is not told so.
    OldHostKeepsOrders,
    /// An entry of the list of keys takes the place of a newer one.
    OldEntryTaken,
    /// Lists of keys that differ are left so.
    DigestIgnored,
}

/// Those of channels and the listener.
pub const TRADE: &[Mutant] = &[
    Mutant::ClaimMints,
    Mutant::OldWantTaken,
    Mutant::RevokedCountsEarly,
    Mutant::EndedAdmits,
    Mutant::RepeatedAdmitted,
    Mutant::VoidAdmitted,
    Mutant::SlotFreeAtTimeout,
    Mutant::SlotBackTwice,
    Mutant::LostCallAwaited,
    Mutant::GrantSaidOnce,
    Mutant::ClosedSpends,
    Mutant::LostAnswerIgnored,
    Mutant::ShrinkIgnored,
    Mutant::MostFirst,
];

/// Those of the balancer.
pub const BALANCE: &[Mutant] = &[
    Mutant::BreakerNeverCloses,
    Mutant::BreakerNeverOpens,
    Mutant::HalfOpenLetsAll,
    Mutant::RemovedIsChosen,
];

/// Those of discovery: member, authority, exchange, broker.
pub const DISCOVERY: &[Mutant] = &[
    Mutant::RumourRaises,
    Mutant::SilenceIsPresence,
    Mutant::AllStepDown,
    Mutant::LostHomeBelieved,
    Mutant::AloneForEver,
    Mutant::StaleOrderAccepted,
    Mutant::LostOrdersStay,
    Mutant::PromiseNeverExpires,
    Mutant::WrongRequirementMatched,
    Mutant::SoldToItself,
    Mutant::NotSpread,
    Mutant::LineFills,
    Mutant::LastComeFirstServed,
    Mutant::DoublesCount,
    Mutant::NoRestatement,
    Mutant::UnfilledNotRepeated,
    Mutant::OldHostKeepsOrders,
];

/// Those of the list of keys.
pub const ROSTER: &[Mutant] = &[Mutant::OldEntryTaken, Mutant::DigestIgnored];

/// All of them.
pub fn all() -> impl Iterator<Item = Mutant> {
    [TRADE, BALANCE, DISCOVERY, ROSTER].into_iter().flatten().copied()
}

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
