//! What has become of each call, kept by the world, whatever the nodes believe.
//!
//! * a call is answered once: done, refused, late, lost, or gone with the node that has made it;
//! * a call begins once: what may have begun is never tried again;
//! * what is said to have certainly not begun has not, and never does;
//! * a call begins only where what runs is what was wished for, and while there is a slot for it.

use bourse_market::{Lot, NodeId};
use bourse_wire::time::Mono;

use super::catalog::{Catalog, Wish};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was run, and its answer has come.
    Done,
    /// Its time was over while it waited.
    Refused,
    /// Its time was over while it was somewhere.
    Late,
    /// Who had it is gone; it may have begun.
    Lost,
    /// The node that made it is gone.
    Gone,
}

/// Ways to end.
pub const ENDS: usize = 5;
/// Most violations that are kept: the first ones tell enough.
const VIOLATIONS_MAX: usize = 20;

/// What is known of a call.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The node that has made it.
    pub by: u32,
    /// What it wants.
    pub wish: Wish,
    /// When its time is over.
    pub deadline: Mono,
    /// How often it was sent.
    pub attempts: u8,
    /// Which attempt has begun.
    begun: Option<u8>,
    /// The last attempt that is certainly not begun.
    denied: u8,
    ended: Option<End>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Books {
    calls: Vec<Record>,
    ended: [u64; ENDS],
    begun: u64,
    retried: u64,
    violations: Vec<String>,
}

impl Books {
    /// Somebody makes a call. Gives its number.
    pub fn made(&mut self, by: u32, wish: Wish, deadline: Mono) -> u32 {
        self.calls.push(Record { by, wish, deadline, attempts: 0, begun: None, denied: 0, ended: None });
        u32::try_from(self.calls.len() - 1).expect("fewer calls than a u32 counts are made")
    }

    /// What is known of a call.
    pub fn call(&self, call: u32) -> &Record {
        &self.calls[call as usize]
    }

    /// How many were made.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// None was made.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// How many ended in each way.
    pub fn ended(&self) -> [u64; ENDS] {
        self.ended
    }

    /// How many have no end yet.
    pub fn unanswered(&self) -> usize {
        self.calls.iter().filter(|call| call.ended.is_none()).count()
    }

    /// How many have begun.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// How many attempts were made anew.
    pub fn retried(&self) -> u64 {
        self.retried
    }

    /// A call is sent to a seller. Gives the number of the attempt, from 1.
    pub fn sent(&mut self, call: u32, catalog: &Catalog, lot: &Lot) -> u8 {
        let record = &mut self.calls[call as usize];
        record.attempts = record.attempts.saturating_add(1);
        let (attempt, wish, begun, ended) = (record.attempts, record.wish, record.begun, record.ended);
        if !catalog.fits(wish, lot) {
            self.wrong(format!("call {call} wants {:?} and is sent to {lot}", catalog.wish(wish)));
        }
        if begun.is_some() || ended.is_some() {
            self.wrong(format!("call {call} is tried again: begun {begun:?}, ended {ended:?}"));
        }
        attempt
    }

    /// A seller begins a call.
    pub fn begins(&mut self, call: u32, attempt: u8, catalog: &Catalog, lot: &Lot) {
        let record = &mut self.calls[call as usize];
        let (before, denied, wish) = (record.begun.replace(attempt), record.denied, record.wish);
        self.begun += 1;
        if let Some(before) = before {
            self.wrong(format!("call {call} begins twice: attempts {before} and {attempt}"));
        }
        if denied >= attempt {
            self.wrong(format!("call {call} begins by attempt {attempt}, which was said to be void"));
        }
        if !catalog.fits(wish, lot) {
            self.wrong(format!("call {call} wants {:?} and runs as {lot}", catalog.wish(wish)));
        }
    }

    /// The buyer is told that an attempt has certainly not begun.
    pub fn denied(&mut self, call: u32, attempt: u8) {
        let record = &mut self.calls[call as usize];
        record.denied = attempt;
        let begun = record.begun;
        self.retried += 1;
        if begun == Some(attempt) {
            self.wrong(format!("attempt {attempt} of call {call} is said to be void, and has begun"));
        }
    }

    /// A call is answered.
    pub fn ends(&mut self, call: u32, end: End) {
        let record = &mut self.calls[call as usize];
        let before = record.ended.replace(end);
        self.ended[end as usize] += 1;
        if let Some(before) = before {
            self.wrong(format!("call {call} is answered twice: {before:?} and {end:?}"));
        }
    }

    /// A seller runs calls.
    pub fn runs(&mut self, seller: NodeId, running: usize, ceiling: u32) {
        if running as u64 > u64::from(ceiling) {
            self.wrong(format!("{seller:?} runs {running} calls and has {ceiling} slots"));
        }
    }

    /// Something must never happen, and did.
    pub fn wrong(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    /// What must never happen, and did.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// The same, to be taken away.
    pub fn take_violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }
}
