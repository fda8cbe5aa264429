//! The seller's end of a [channel](super).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bourse_wire::time::Mono;

use super::{Admission, FINISHED_MAX};
use crate::message::{Claim, Grant};
use crate::mutant::{self, Mutant};
use crate::name::Lot;
use crate::times::{QUANTITY_MAX, Times};

/// The seller's end of a channel.
#[derive(Clone, Debug)]
pub struct Selling {
    times: Arc<Times>,
    lot: Lot,
    epoch: u64,
    now: Mono,
    stage: Stage,
    /// Tokens up to this number are granted.
    granted: u64,
    /// Those up to this number are wanted back.
    revoked: u64,
    /// Those below it are used or given back, as the buyer has said.
    next: u64,
    /// The buyer has heard of those up to this number.
    known: u64,
    /// The greatest number of a call that has come.
    called: u64,
    want: u32,
    seen: u64,
    /// The numbers that are neither unused beyond `next`, nor over.
    calls: BTreeMap<u64, Call>,
    unused: u32,
    running: u32,
    /// How many of the calls are [`Call::Finished`].
    finished: usize,
    /// How many of them are [`Call::Void`].
    voids: usize,
    /// The missing ones, in the order in which they were missed first. Some are missing no longer.
    missed: VecDeque<(Mono, u64)>,
    /// When the unused tokens up to a number were granted, ascending.
    ages: VecDeque<(u64, Mono)>,
    unanswered: BTreeSet<u64>,
    /// Slots that came back, and nobody has asked for yet.
    returned: u32,
    /// All that ever came back.
    returned_ever: u64,
    idle_since: Mono,
    /// Something is to be said at once.
    says: bool,
    /// When something was said last.
    said: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Nothing more is granted; what is open is still run and answered. `known`: the buyer has closed.
    Closing {
        known: bool,
    },
    /// Nothing is open. `known`: the buyer knows it.
    Ended {
        known: bool,
    },
    /// The buyer cannot be reached, or has begun another epoch: nothing is said any more.
    Severed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// It has the slot. `waited`: for all we know, the buyer waits for its answer.
    Running { waited: bool },
    /// Its slot is back, and the buyer may not have its answer.
    Finished { at: Mono },
    /// The buyer waits for it, and it did not come. Its token still counts as unused.
    Missing,
    /// It did not come, and never will be run.
    Void,
}

impl Selling {
    /// One with nothing granted.
    pub fn new(times: Arc<Times>, lot: Lot, epoch: u64) -> Self {
        let now = Mono(0);
        Self {
            times,
            lot,
            epoch,
            now,
            stage: Stage::Open,
            granted: 0,
            revoked: 0,
            next: 1,
            known: 0,
            called: 0,
            want: 0,
            seen: 0,
            calls: BTreeMap::new(),
            unused: 0,
            running: 0,
            finished: 0,
            voids: 0,
            missed: VecDeque::new(),
            ages: VecDeque::new(),
            unanswered: BTreeSet::new(),
            returned: 0,
            returned_ever: 0,
            idle_since: now,
            says: false,
            said: now,
        }
    }

    /// The buyer says how it stands. A claim of another lot or epoch is ignored.
    pub fn on_claim(&mut self, now: Mono, claim: &Claim) {
        self.now = now;
        if claim.epoch != self.epoch || claim.lot != self.lot {
            return;
        }
        match &mut self.stage {
            Stage::Severed => return,
            Stage::Ended { known } => {
                *known |= claim.closed;
                self.says = claim.revision > 0;
                return;
            }
            Stage::Open | Stage::Closing { .. } => {}
        }
        if claim.known > self.granted || claim.next.saturating_sub(1) > self.granted {
            self.end();
            (self.stage, self.says) = (Stage::Ended { known: true }, claim.revision > 0);
            return;
        }
        self.known = self.known.max(claim.known).max(claim.next.saturating_sub(1));
        if claim.revision > self.seen || mutant::is(Mutant::OldWantTaken) {
            self.want = claim.want.min(QUANTITY_MAX);
        } else if mutant::is(Mutant::ClaimMints) {
            (self.granted, self.unused) = (self.granted + 1, self.unused + 1);
        }
        self.seen = self.seen.max(claim.revision);
        let open: BTreeSet<u64> = claim.open.iter().copied().filter(|seq| *seq < claim.next).collect();
        // Who has closed uses nothing more: not even tokens of which it has not heard yet.
        self.pass(if claim.closed { self.granted + 1 } else { claim.next }, &open);
        if claim.closed {
            self.stage = Stage::Closing { known: true };
        }
        self.wind_up();
        self.says = claim.revision > 0;
    }

    /// One more token: a slot was taken for it. If the channel is closing, the slot comes straight back.
    pub fn grant(&mut self, now: Mono) {
        self.now = now;
        if self.stage != Stage::Open {
            self.returned += 1;
            return;
        }
        self.granted += 1;
        self.unused += 1;
        self.ages.push_back((self.granted, now));
        self.idle_since = now;
        self.says = true;
    }

    /// Wants unused tokens back: so many altogether, those whose turn it would be first. The buyer may use some of them
    /// before it hears of it.
    pub fn revoke(&mut self, now: Mono, tokens: u32) {
        self.now = now;
        let through = (self.first_unused() - 1 + u64::from(tokens)).min(self.granted);
        if self.is_live() && through > self.revoked {
            if mutant::is(Mutant::RevokedCountsEarly) {
                self.give_back(u32::try_from(through + 1 - self.first_unused()).expect("tokens are 32 bits"));
            }
            self.revoked = through;
            self.says = true;
        }
    }

    /// A call with this number has come.
    pub fn admit(&mut self, now: Mono, seq: u64) -> Admission {
        self.now = now;
        match self.calls.get(&seq) {
            Some(Call::Running { .. } | Call::Finished { .. }) if !mutant::is(Mutant::RepeatedAdmitted) => {
                return Admission::Repeated;
            }
            Some(Call::Void) if !mutant::is(Mutant::VoidAdmitted) => return Admission::Refused,
            Some(Call::Missing) => self.unused -= 1,
            Some(_) => return Admission::New,
            None if mutant::is(Mutant::EndedAdmits) && !self.is_live() && seq >= self.next => {}
            None if !self.is_live() || seq < self.next || seq > self.granted => return Admission::Refused,
            None => self.unused -= 1,
        }
        self.calls.insert(seq, Call::Running { waited: self.is_live() });
        self.running += 1;
        self.called = self.called.max(seq);
        // Who uses a token has heard of it.
        self.known = self.known.max(seq);
        while self.ages.front().is_some_and(|(through, _)| *through <= self.called) {
            self.ages.pop_front();
        }
        self.idle_since = now;
        Admission::New
    }

    /// The instance of a call is free or dead: the slot comes back.
    ///
    /// # Panics
    ///
    /// If the call is not running.
    pub fn finish(&mut self, now: Mono, seq: u64) {
        self.now = now;
        let Some(Call::Running { waited }) = self.calls.get(&seq).copied() else {
            panic!("call {seq} of {} is finished, but does not run", self.lot);
        };
        self.running -= 1;
        if waited || !mutant::is(Mutant::SlotFreeAtTimeout) {
            self.come_back(1);
        }
        if waited {
            self.calls.insert(seq, Call::Finished { at: now });
            self.finished += 1;
        } else {
            self.calls.remove(&seq);
        }
        self.idle_since = now;
        self.wind_up();
    }

    /// Nothing more is granted, and what is unused is wanted back. When nothing is open any more, the channel ends.
    pub fn close(&mut self, now: Mono) {
        self.now = now;
        if self.stage == Stage::Open {
            self.stage = Stage::Closing { known: false };
            self.revoked = self.granted;
            self.says = true;
            self.wind_up();
        }
    }

    /// The buyer cannot be reached, or has begun another epoch: nothing is admitted or said any more. What is unused comes
    /// back at once, what runs when it is finished.
    pub fn sever(&mut self, now: Mono) {
        self.now = now;
        self.end();
        (self.stage, self.says) = (Stage::Severed, false);
    }

    /// The slots that came back since this was asked last. They are the listener's.
    #[must_use]
    pub fn returned(&mut self) -> u32 {
        std::mem::take(&mut self.returned)
    }

    /// Calls that have been finished for `settle` and longer, and that the buyer still waits for: their answers were lost.
    /// They are sent again, or said to be lost. Each is named again each time that the buyer says that it waits.
    #[must_use]
    pub fn unanswered(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unanswered).into_iter().collect()
    }

    /// Says how it stands, if that is due.
    pub fn poll(&mut self) -> Option<Grant> {
        if self.due().is_none_or(|due| due > self.now) {
            return None;
        }
        self.says = false;
        self.said = self.now;
        let void = |(seq, call): (&u64, &Call)| (*call == Call::Void).then_some(*seq);
        Some(Grant {
            lot: self.lot.clone(),
            epoch: self.epoch,
            seen: self.seen,
            granted: self.granted,
            revoked: self.revoked,
            void: if self.voids > 0 { self.calls.iter().filter_map(void).collect() } else { Vec::new() },
            closed: matches!(self.stage, Stage::Ended { .. }),
        })
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, and [`poll`](Self::poll) after it.
    pub fn poll_timeout(&self) -> Option<Mono> {
        let missed = self.missed.front().map(|(since, _)| *since + self.times.settle);
        self.due().into_iter().chain(missed).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Mono) {
        self.now = now;
        while let Some((since, seq)) = self.missed.front().copied()
            && since + self.times.settle <= now
        {
            self.missed.pop_front();
            if self.calls.get(&seq) == Some(&Call::Missing) && !mutant::is(Mutant::LostCallAwaited) {
                self.calls.insert(seq, Call::Void);
                self.voids += 1;
                self.give_back(1);
                self.says = true;
            }
        }
        self.wind_up();
    }

    /// How many more tokens could be granted.
    pub fn wants(&self) -> u32 {
        let takes = self.stage == Stage::Open && self.finished < FINISHED_MAX;
        if takes { self.want.saturating_sub(self.unused) } else { 0 }
    }

    /// The tokens that are granted, and with which no call has come.
    pub fn unused(&self) -> u32 {
        self.unused
    }

    /// The calls that have a slot.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Unused tokens that were granted longer than `token_idle` ago, and are not wanted back yet.
    pub fn stale(&self, now: Mono) -> u32 {
        let idle = |(_, at): &&(u64, Mono)| *at + self.times.token_idle <= now;
        let through = self.ages.iter().take_while(idle).last().map_or(0, |(through, _)| *through);
        let from = self.first_unused().max(self.revoked + 1);
        u32::try_from((through + 1).saturating_sub(from)).unwrap_or(u32::MAX)
    }

    /// When the oldest unused token that is not wanted back will be [stale](Self::stale).
    pub fn stale_at(&self) -> Option<Mono> {
        let from = self.first_unused().max(self.revoked + 1);
        self.ages.iter().find(|(through, _)| *through >= from).map(|(_, at)| *at + self.times.token_idle)
    }

    /// When something was granted, admitted or finished last. 0 if nothing was.
    pub fn idle_since(&self) -> Mono {
        self.idle_since
    }

    /// Slots that came back and were not [asked for](Self::returned) yet.
    pub fn owed(&self) -> u32 {
        self.returned
    }

    /// Which life of the channel it is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is sold.
    pub fn lot(&self) -> &Lot {
        &self.lot
    }

    /// Nothing more will be granted: it is closing, or has ended.
    pub fn is_closing(&self) -> bool {
        self.stage != Stage::Open
    }

    /// It can be dropped: it has ended, the buyer knows or cannot be told, and all slots are back and asked for.
    pub fn is_over(&self) -> bool {
        let ended = matches!(self.stage, Stage::Ended { known: true } | Stage::Severed);
        ended && !self.says && self.running == 0 && self.returned == 0
    }

    /// What must be true whatever happens.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check_invariants(&self) {
        let count = |which: fn(&Call) -> bool| self.calls.values().filter(|call| which(call)).count();
        assert_eq!(count(|c| matches!(c, Call::Running { .. })), self.running as usize, "calls that run");
        assert_eq!(count(|c| matches!(c, Call::Finished { .. })), self.finished, "calls that are finished");
        assert_eq!(count(|c| *c == Call::Void), self.voids, "void calls");
        let slots = u64::from(self.unused) + u64::from(self.running) + self.returned_ever;
        assert_eq!(self.granted, slots, "each token is unused, running, or its slot came back");
        assert!(self.known <= self.granted && self.revoked <= self.granted && self.called <= self.granted);
        assert!(self.next <= self.granted + 1, "the buyer has used only what was granted");
        if self.is_live() {
            let missing = count(|c| *c == Call::Missing) as u64;
            let ahead = self.calls.range(self.next..).count() as u64;
            let unused = self.granted + 1 - self.next - ahead + missing;
            assert_eq!(
                unused,
                u64::from(self.unused),
                "unused is what is beyond the buyer's next, and missing"
            );
        } else {
            assert!(self.unused == 0 && self.calls.len() == self.running as usize, "only what runs is left");
        }
    }

    /// The buyer has passed all numbers below `next`, and waits for the `open` ones of them.
    fn pass(&mut self, next: u64, open: &BTreeSet<u64>) {
        for seq in self.next..next {
            if self.calls.contains_key(&seq) {
                continue;
            }
            if open.contains(&seq) {
                self.calls.insert(seq, Call::Missing);
                self.missed.push_back((self.now, seq));
            } else {
                self.give_back(1);
            }
        }
        self.next = self.next.max(next);
        while self.ages.front().is_some_and(|(through, _)| *through < self.next) {
            self.ages.pop_front();
        }
        let over = self.calls.range(..next).map(|(seq, _)| *seq).filter(|seq| !open.contains(seq));
        for seq in over.collect::<Vec<_>>() {
            match self.calls.remove(&seq).expect("it was found there") {
                Call::Running { waited } => {
                    // Whoever waited has given up. The instance is busy until it is free.
                    self.calls.insert(seq, Call::Running { waited: false });
                    if waited && mutant::is(Mutant::SlotFreeAtTimeout) {
                        self.come_back(1);
                    }
                }
                Call::Finished { .. } => {
                    self.finished -= 1;
                    if mutant::is(Mutant::SlotBackTwice) {
                        self.come_back(1);
                    }
                }
                Call::Missing => self.give_back(1),
                Call::Void => self.voids -= 1,
            }
        }
        for seq in open {
            if let Some(Call::Finished { at }) = self.calls.get(seq)
                && *at + self.times.settle <= self.now
                && !mutant::is(Mutant::LostAnswerIgnored)
            {
                self.unanswered.insert(*seq);
            }
        }
    }

    /// Ends at once: what is unused is void, and what runs is waited for by nobody.
    fn end(&mut self) {
        self.give_back(self.unused);
        self.calls.retain(|_, call| matches!(call, Call::Running { .. }));
        self.calls.values_mut().for_each(|call| *call = Call::Running { waited: false });
        (self.finished, self.voids, self.want) = (0, 0, 0);
        self.missed.clear();
        self.ages.clear();
        self.unanswered.clear();
    }

    /// Ends if it is closing and nothing is open.
    fn wind_up(&mut self) {
        let Stage::Closing { known } = self.stage else { return };
        let waited = |call: &Call| *call != Call::Running { waited: false };
        if self.unused == 0 && !self.calls.values().any(waited) {
            self.end();
            (self.stage, self.says) = (Stage::Ended { known }, true);
        }
    }

    fn give_back(&mut self, unused: u32) {
        self.unused -= unused;
        self.come_back(unused);
    }

    fn come_back(&mut self, slots: u32) {
        self.returned += slots;
        self.returned_ever += u64::from(slots);
    }

    fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Closing { .. })
    }

    /// The least number that may be unused, as far as is known here.
    fn first_unused(&self) -> u64 {
        self.next.max(self.called + 1)
    }

    fn due(&self) -> Option<Mono> {
        if self.says {
            return Some(self.now);
        }
        let behind = self.known < self.granted && !mutant::is(Mutant::GrantSaidOnce);
        // A buyer that has not heard of the closing does not say which calls are answered.
        let unheard = self.stage != Stage::Open && self.finished > 0;
        let unsettled = match self.stage {
            Stage::Open | Stage::Closing { .. } => {
                behind || unheard || self.revoked >= self.next || self.voids > 0
            }
            Stage::Ended { known } => !known,
            Stage::Severed => false,
        };
        unsettled.then(|| self.said + self.times.settle)
    }
}
