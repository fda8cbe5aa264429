//! The trade between a buyer and a seller: numbered tokens, each of which lets the buyer send one call. Both ends:
//! [`Selling`] and [`Buying`], one pair for each (buyer, seller, lot).
//!
//! ```text
//! buyer -> seller: Claim { want, known, next, open }      seller -> buyer: Grant { seen, granted, revoked, void }
//! buyer -> seller: a call with (lot, epoch, number)       seller -> buyer: its answer
//! ```
//!
//! The composition carries calls and answers, takes slots from the listener for what is granted, and gives back what
//! [`Selling::returned`] says. Neither end touches a slot.
//!
//! # The numbers
//!
//! Tokens of one epoch are 1, 2, 3, and so on. The seller has granted those up to `granted`. The buyer uses them, or gives
//! them back, in the order of their numbers: all below `next` are used or given back, and `open` are the used ones among
//! them that wait for their answers. It can use those from `next` to `known`, the greatest `granted` that it has heard of.
//! The seller wants back those up to `revoked`; the buyer gives back the unused ones among them by moving `next` past them.
//!
//! # Why nothing leaks and nothing is minted
//!
//! Each number up to `granted` stands for one slot that was taken for it, and is at the seller in one of these states:
//!
//! ```text
//!              call comes              instance free            answered, says the buyer
//!   unused ----------------> running ---------------> finished ---------------------------> over
//!     |  \                                                                                   ^
//!     |   `--- below next, not in open: given back, or nobody waits for its call any more ---|
//!     `--- below next, in open, and no call for `settle` -----------> void ------------------'
//! ```
//!
//! The slot comes back when `unused` is left for anything but `running`, and when `running` is left: each arrow is taken
//! once, so each slot comes back once. So at any time `granted = unused + running + come back`, whatever comes, and the
//! listener has counted `unused + running` as held. What arrives can only move a number along the arrows:
//!
//! 1. *No message is an addition.* `granted`, `revoked`, `next`, `known`, `seen` only grow within an epoch, and the greatest
//!    that has come counts; a repeated or late message holds nothing greater. Grants are made by the seller alone.
//! 2. *Below `next` and not in `open`* stays true once it is true, since the buyer takes numbers in order and never opens
//!    one again. So even a claim that arrives late is right about it. The contrary, *in `open`*, may be out of date; it
//!    makes a number void only if no call came with it, and that is right even then: if the buyer is past it, nobody waits
//!    for it; if not, the buyer hears that it is void.
//! 3. *A call runs at most once:* only `unused` leads to `running`. A call with a number in any other state is
//!    [`Repeated`](Admission::Repeated) or [`Refused`](Admission::Refused). So what is void has not begun and never will:
//!    its call may be sent elsewhere.
//! 4. *A revocation counts once `next` has passed it,* by rule 1 of the states: until the buyer says so, the number is
//!    `unused`, since a call with it may be on its way.
//! 5. *A claim that knows of tokens which were never granted* comes from another life of the seller, or from a liar: the
//!    channel ends. The buyer starts another epoch. What has ended admits nothing, so its unused slots can be used at once.
//!
//! Nothing leaks, since what is lost is said again while it matters (a link that is up delivers in the end; when it is
//! down, the composition drops the buyer's end and [severs](Selling::sever) the seller's):
//!
//! | lost | found by | within, at a latency of 0 |
//! |---|---|---|
//! | a claim | its revision is not `seen`: it is said again every `settle` | `settle` |
//! | a grant | the buyer's `known`, or the number of a call, is behind: said again every `settle` | `settle` |
//! | a revocation | `next` is behind: said again every `settle` | `settle` |
//! | a call | it is in `open`, which the buyer says when it is `settle` old, and does not come for `settle` more | 2 `settle` |
//! | a void | the number stays in `open`: said again every `settle` | `settle` |
//! | an answer | the call is in `open` `settle` after it has finished: [`Selling::unanswered`] | [`ASK_MAX`] + 1 `settle` |
//! | a closing by the buyer | said again every `settle` until the seller has closed | `settle` |
//! | a closing by the seller | while calls are open, as a revocation of all; then said again until the buyer has closed | `settle` |
//!
//! # How much is said
//!
//! The seller answers each claim with one grant. Besides, it says a grant when it has granted: one at most for each slot
//! that was freed, fewer if several are freed between two [polls](Selling::poll). A call acknowledges the tokens up to its
//! own; so while calls come and go, no claim is sent but one in [`SPENT_MAX`] calls, with which the seller forgets what was
//! answered. A want that cannot be met is said once. Per channel:
//!
//! - with nothing unsettled: no message at all, however many tokens are held or wanted;
//! - with only calls open, which run for long: a claim and a grant each `settle` at most, and after [`ASK_MAX`] `settle`
//!   of the oldest one only each [`ASK_MAX`] `settle`;
//! - with anything said and not acknowledged: one message of each end per `settle`;
//! - while the want grows: a claim each `coalesce`; a smaller one is said after `token_idle`, if it is still smaller then.
//!
//! # Who knows nothing of it
//!
//! A channel that one end has forgotten, or that was never there, is ended: the composition makes a [`Selling`] only for a
//! claim that [`begins`] one, of an epoch greater than all that it has seen of this buyer and lot, and otherwise says
//! [`not_sold`]; what comes for no [`Buying`] of that epoch it answers with [`not_bought`]. That claim has the revision 0,
//! which is not answered: so two ends that know nothing do not talk for ever.
//!
//! A first claim that is late must not find a seller that has forgotten its epoch: it would begin the channel anew under
//! numbers that have been used. Hence the greatest epoch is remembered while the buyer's link is up, what was sent on
//! one link never comes out of another, and who begins a new link begins new epochs. Who loses its memory loses its links:
//! no message is spent on asking whether the other end still knows.

mod buying;
mod selling;

pub use buying::Buying;
pub use selling::Selling;

use crate::message::{Claim, Grant};

/// A buyer says how it stands after so many calls, if nothing else made it say so: until then the seller remembers them.
pub const SPENT_MAX: u32 = 1_024;
/// A seller that remembers so many calls that have ended, of which the buyer has not said that they are answered, grants
/// nothing more until it does.
pub const FINISHED_MAX: usize = 16 * SPENT_MAX as usize;
/// While calls are open for long, the buyer says so after so many times `settle` at the latest.
pub const ASK_MAX: u32 = 8;

/// What a seller says to a call that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Run it: its token's slot is its own until it is finished.
    New,
    /// It was admitted before: it is running, or has run and its answer may be sent again.
    Repeated,
    /// Never run it: its token was not granted, is given back, void, or of a channel that has ended. Nobody waits for it, or
    /// who does is told by the channel.
    Refused,
}

/// Whether a claim is the first of a channel. Another one, for a channel that is not known, is of one that was forgotten.
pub fn begins(claim: &Claim) -> bool {
    !claim.closed && claim.known == 0 && claim.next <= 1 && claim.open.is_empty()
}

/// The answer to a claim for a channel that is not there. `None`: none is needed.
pub fn not_sold(claim: &Claim) -> Option<Grant> {
    (claim.revision > 0).then(|| Grant {
        lot: claim.lot.clone(),
        epoch: claim.epoch,
        seen: claim.revision,
        granted: 0,
        revoked: 0,
        void: Vec::new(),
        closed: true,
    })
}

/// The answer to a grant for a channel that is not there: nothing of it will be used.
pub fn not_bought(grant: &Grant) -> Claim {
    Claim {
        lot: grant.lot.clone(),
        epoch: grant.epoch,
        revision: 0,
        want: 0,
        known: 0,
        next: 1,
        open: Vec::new(),
        closed: true,
    }
}
