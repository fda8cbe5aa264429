//! The buyer's end of a [channel](super).

use std::collections::BTreeMap;
use std::sync::Arc;

use bourse_wire::time::Mono;

use super::{ASK_MAX, SPENT_MAX};
use crate::message::{Claim, Grant};
use crate::mutant::{self, Mutant};
use crate::name::Lot;
use crate::times::{QUANTITY_MAX, Times};

/// The buyer's end of a channel.
#[derive(Clone, Debug)]
pub struct Buying {
    times: Arc<Times>,
    lot: Lot,
    epoch: u64,
    now: Mono,
    stage: Stage,
    want: u32,
    /// Tokens up to this number are granted, as far as is known here.
    known: u64,
    /// Those below this number are used or given back.
    next: u64,
    /// Those up to this number are wanted back.
    revoked: u64,
    /// The calls that are not answered, and when they were sent.
    open: BTreeMap<u64, Mono>,
    /// How many claims were said.
    revision: u64,
    /// The last one of them that the seller has seen.
    seen: u64,
    /// What the last one of them said.
    said: Option<Said>,
    /// When tokens came last.
    learnt: Mono,
    /// Since when less is wanted than was said.
    lowered: Option<Mono>,
    /// Tokens used since something was said.
    spent: u32,
    idle_since: Mono,
    /// Something is to be said at once.
    says: bool,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Mono,
    want: u32,
    known: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Nothing more is used; the seller is to hear of it.
    Closing,
    Closed,
}

impl Buying {
    /// One that holds and wants nothing. The epoch is greater than those of all channels for this lot that this node has
    /// had with this seller.
    pub fn new(times: Arc<Times>, lot: Lot, epoch: u64) -> Self {
        let now = Mono(0);
        Self {
            times,
            lot,
            epoch,
            now,
            stage: Stage::Open,
            want: 0,
            known: 0,
            next: 1,
            revoked: 0,
            open: BTreeMap::new(),
            revision: 0,
            seen: 0,
            said: None,
            learnt: now,
            lowered: None,
            spent: 0,
            idle_since: now,
            says: false,
        }
    }

    /// From now on it wants to have so many tokens that it has not used.
    pub fn set_want(&mut self, now: Mono, want: u32) {
        self.now = now;
        if self.stage != Stage::Open {
            return;
        }
        self.want = want.min(QUANTITY_MAX);
        self.lowered = if self.said.is_some_and(|said| self.want < said.want) {
            self.lowered.or(Some(now))
        } else {
            None
        };
    }

    /// The seller says how it stands. What is returned is void: these calls have not begun and never will, they can be sent
    /// elsewhere. If it [has closed](Self::is_closed) then, what is still [open](Self::open) is lost, and may have begun.
    #[must_use]
    pub fn on_grant(&mut self, now: Mono, grant: &Grant) -> Vec<u64> {
        self.now = now;
        if grant.epoch != self.epoch || grant.lot != self.lot || self.stage == Stage::Closed {
            return Vec::new();
        }
        let void: Vec<u64> =
            grant.void.iter().copied().filter(|seq| self.open.remove(seq).is_some()).collect();
        self.seen = self.seen.max(grant.seen.min(self.revision));
        // Also if nobody waits for them any more: the seller names them until it hears that they are not open.
        self.says |= !void.is_empty() || (!grant.void.is_empty() && self.seen == self.revision);
        let granted = grant.granted.min((self.next - 1).saturating_add(u64::from(QUANTITY_MAX)));
        if granted > self.known {
            self.known = granted;
            self.learnt = now;
        }
        let revoked = grant.revoked.min(self.known);
        // The seller has to hear what is given back; and if nothing is, which calls were answered before this came.
        self.says |= revoked > self.revoked;
        self.revoked = self.revoked.max(revoked);
        match self.stage {
            Stage::Open => self.next = self.next.max(self.revoked + 1),
            Stage::Closing | Stage::Closed => self.next = self.known + 1,
        }
        if grant.closed {
            // Who has not asked for it says that it knows. Who has, is answered by this.
            self.says = self.stage == Stage::Open;
            self.stage = Stage::Closed;
            if !mutant::is(Mutant::ClosedSpends) {
                self.next = self.known + 1;
            }
        }
        void
    }

    /// Uses a token, for a call that is to be sent with its number. `None` if none is held.
    #[must_use]
    pub fn spend(&mut self, now: Mono) -> Option<u64> {
        self.now = now;
        if self.held() == 0 {
            return None;
        }
        let seq = self.next;
        self.next += 1;
        self.open.insert(seq, now);
        self.spent += 1;
        self.says |= self.spent >= SPENT_MAX;
        self.idle_since = now;
        Some(seq)
    }

    /// A call is answered, or nobody waits for it any more. `false` if it was not open.
    pub fn settle(&mut self, now: Mono, seq: u64) -> bool {
        self.now = now;
        let open = self.open.remove(&seq).is_some();
        if open {
            self.idle_since = now;
            // A seller that wants everything back waits for the last call to be answered.
            self.says |= self.stage == Stage::Closing || (self.revoked > 0 && self.revoked >= self.known);
        }
        open
    }

    /// Nothing more is used. What is open is still waited for; when nothing is, the channel ends.
    pub fn close(&mut self, now: Mono) {
        self.now = now;
        if self.stage == Stage::Open {
            self.want = 0;
            self.lowered = None;
            self.next = self.known + 1;
            // A seller that was told nothing need not be told that it is over.
            self.stage = if self.said.is_some() { Stage::Closing } else { Stage::Closed };
            self.says = self.said.is_some();
        }
    }

    /// Says how it stands, if that is due.
    pub fn poll(&mut self) -> Option<Claim> {
        if self.due().is_none_or(|due| due > self.now) {
            return None;
        }
        let ends = self.stage == Stage::Closed;
        self.revision += 1;
        self.says = false;
        self.spent = 0;
        self.lowered = None;
        self.said = Some(Said { at: self.now, want: self.want, known: self.known });
        Some(Claim {
            lot: self.lot.clone(),
            epoch: self.epoch,
            revision: if ends { 0 } else { self.revision },
            want: if ends { 0 } else { self.want },
            known: self.known,
            next: self.next,
            open: if ends { Vec::new() } else { self.open.keys().copied().collect() },
            closed: self.stage != Stage::Open,
        })
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, and [`poll`](Self::poll) after it.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.due()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Mono) {
        self.now = now;
    }

    /// The tokens that can be used.
    pub fn held(&self) -> u32 {
        u32::try_from(self.known + 1 - self.next).unwrap_or(u32::MAX)
    }

    /// How many it wants to have.
    pub fn want(&self) -> u32 {
        self.want
    }

    /// Tokens up to this number were wanted back.
    pub fn revoked(&self) -> u64 {
        self.revoked
    }

    /// The calls that are not answered, in ascending order.
    pub fn open(&self) -> impl Iterator<Item = u64> {
        self.open.keys().copied()
    }

    /// When a token was used, or a call settled, last. 0 if none was.
    pub fn idle_since(&self) -> Mono {
        self.idle_since
    }

    /// Which life of the channel it is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is bought.
    pub fn lot(&self) -> &Lot {
        &self.lot
    }

    /// The seller has ended it, or knows that it is to end. Polled once more, it can be dropped.
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// What must be true whatever happens.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check_invariants(&self) {
        assert!(self.next <= self.known + 1, "only what is known of is used");
        assert!(self.open.range(self.next..).next().is_none(), "only what is used is open");
        assert!(self.seen <= self.revision, "only what was said is seen");
        let gives_back = self.stage != Stage::Open || self.revoked < self.next;
        assert!(gives_back, "what is wanted back is given back");
        assert!(self.stage == Stage::Open || self.want == 0 || self.is_closed());
    }

    fn due(&self) -> Option<Mono> {
        if self.says {
            return Some(self.now);
        }
        if self.stage == Stage::Closed {
            return None;
        }
        let times = &self.times;
        let Some(said) = self.said else {
            return (self.want > 0).then_some(self.now);
        };
        let unseen = self.seen < self.revision || self.stage == Stage::Closing;
        let again = unseen.then(|| said.at + times.settle);
        let more = (self.want > said.want).then(|| said.at + times.coalesce);
        let less = self.lowered.map(|since| since + times.token_idle);
        // The calls that use them will say that the tokens have come; if none is used for a while, a claim has to.
        let came = (self.known > said.known.max(self.next - 1)).then(|| self.learnt + times.settle / 2);
        let asks = self.open.first_key_value().map(|(_, sent)| {
            let pause = said.at.since(*sent).clamp(times.settle, times.settle * ASK_MAX);
            (*sent + times.settle).max(said.at + pause)
        });
        [again, more, less, came, asks].into_iter().flatten().min()
    }
}
