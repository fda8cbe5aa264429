//! A store that goes wrong in the ways that stores do, by script or by seed.
//!
//! ```text
//! caller -> Faulty: commit        one fault is drawn for each batch
//! Faulty -> the store within      what the fault lets through; what it holds back goes in during a later call
//! Faulty -> caller: Outcome       true, as far as it says anything: faults withhold an outcome, they do not lie
//! ```

use std::collections::VecDeque;
use std::mem;

use bourse_durable::batch::{Batch, Outcome, ReadError};

use crate::{Durability, Reader, Store, StoreId};

/// The most batches held back at once; past it, the oldest lands early.
pub const HELD_MAX: usize = 64;

/// What befalls one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is refused before anything is applied: [`Outcome::Failed`].
    Fail,
    /// It is carried out, but its outcome is lost: [`Outcome::Unknown`].
    LoseOutcome,
    /// It is lost: [`Outcome::Unknown`].
    LoseBatch,
    /// It is held back, carried out after so many later calls, and lost if a crash comes first:
    /// [`Outcome::Unknown`].
    Delay {
        /// 0: before the batches of the next call.
        calls: u32,
    },
}

/// How often a seeded store goes wrong: so many in a thousand batches meet each fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Odds {
    /// [`Fault::Fail`].
    pub fail: u16,
    /// [`Fault::LoseOutcome`].
    pub lose_outcome: u16,
    /// [`Fault::LoseBatch`].
    pub lose_batch: u16,
    /// [`Fault::Delay`].
    pub delay: u16,
    /// The longest delay, in calls.
    pub delay_calls_max: u32,
}

/// A batch that was held back, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// The batch.
    pub batch: Batch,
    /// What the store within answered; nobody was told.
    pub outcome: Outcome,
}

/// A store with faults in front of another. Its readers are those of the store within.
#[derive(Debug)]
pub struct Faulty<S> {
    within: S,
    faults: Faults,
    held: VecDeque<Held>,
    late: Vec<Late>,
}

#[derive(Debug)]
enum Faults {
    Scripted(VecDeque<Fault>),
    Seeded(Random, Odds),
}

#[derive(Debug)]
struct Held {
    batch: Batch,
    calls_left: u32,
}

impl<S: Store> Faulty<S> {
    /// The faults of the batches to come, in their order; none after the last.
    pub fn scripted(within: S, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::new(within, Faults::Scripted(faults.into_iter().collect()))
    }

    /// Faults by chance; the same seed and the same calls meet the same ones.
    pub fn seeded(within: S, seed: u64, odds: Odds) -> Self {
        Self::new(within, Faults::Seeded(Random::new(seed), odds))
    }

    fn new(within: S, faults: Faults) -> Self {
        Self { within, faults, held: VecDeque::new(), late: Vec::new() }
    }

    /// Lets all that is held back land now.
    pub fn land_held(&mut self) {
        for held in mem::take(&mut self.held) {
            self.land(held.batch);
        }
    }

    /// Ends the store as a crash does: what is held back, and so was never synced, is lost.
    pub fn crash(self) -> S {
        self.within
    }

    /// The batches that have landed late, since this was last asked.
    pub fn take_late(&mut self) -> Vec<Late> {
        mem::take(&mut self.late)
    }

    /// How many batches are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn hold(&mut self, batch: Batch, calls: u32) {
        if self.held.len() == HELD_MAX
            && let Some(oldest) = self.held.pop_front()
        {
            self.land(oldest.batch);
        }
        self.held.push_back(Held { batch, calls_left: calls });
    }

    fn land_due(&mut self) {
        for held in mem::take(&mut self.held) {
            match held.calls_left.checked_sub(1) {
                Some(calls_left) => self.held.push_back(Held { calls_left, ..held }),
                None => self.land(held.batch),
            }
        }
    }

    fn land(&mut self, batch: Batch) {
        let outcomes = self.within.commit(std::slice::from_ref(&batch));
        self.late.extend(outcomes.into_iter().map(|outcome| Late { batch: batch.clone(), outcome }));
    }
}

impl<S: Store> Store for Faulty<S> {
    fn commit(&mut self, batches: &[Batch]) -> Vec<Outcome> {
        self.land_due();
        let faults: Vec<Fault> = batches.iter().map(|_| self.faults.next()).collect();
        let mut through = Vec::new();
        for (batch, fault) in batches.iter().zip(&faults) {
            match *fault {
                Fault::None | Fault::LoseOutcome => through.push(batch.clone()),
                Fault::Delay { calls } => self.hold(batch.clone(), calls),
                Fault::Fail | Fault::LoseBatch => {}
            }
        }
        let mut answers = self.within.commit(&through).into_iter();
        // A store that answers fewer batches than it was given is passed on as it is, for the caller to notice.
        let outcome = |fault: &Fault| match fault {
            Fault::None => answers.next(),
            Fault::LoseOutcome => answers.next().map(|_| Outcome::Unknown("the outcome was lost".to_owned())),
            Fault::Fail => Some(Outcome::Failed("the store refused the batch".to_owned())),
            Fault::LoseBatch | Fault::Delay { .. } => Some(Outcome::Unknown("no answer".to_owned())),
        };
        faults.iter().map_while(outcome).collect()
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        self.within.reader()
    }

    fn id(&self) -> StoreId {
        self.within.id()
    }

    fn durability(&self) -> Durability {
        self.within.durability()
    }
}

impl Faults {
    fn next(&mut self) -> Fault {
        match self {
            Self::Scripted(script) => script.pop_front().unwrap_or(Fault::None),
            Self::Seeded(random, odds) => {
                let mut drawn = random.below(1000);
                let mut hits = |per_mille: u16| {
                    let hit = drawn < u64::from(per_mille);
                    drawn = drawn.saturating_sub(u64::from(per_mille));
                    hit
                };
                match () {
                    () if hits(odds.fail) => Fault::Fail,
                    () if hits(odds.lose_outcome) => Fault::LoseOutcome,
                    () if hits(odds.lose_batch) => Fault::LoseBatch,
                    () if hits(odds.delay) => {
                        let calls = random.below(u64::from(odds.delay_calls_max) + 1);
                        Fault::Delay { calls: u32::try_from(calls).unwrap_or(u32::MAX) }
                    }
                    () => Fault::None,
                }
            }
        }
    }
}

/// A seeded generator (splitmix64, Steele, Lea and Flood 2014): enough for choosing faults.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
