//! Exclusive keys: who holds them, and who stands in line.
//!
//! * of the calls with one key, one runs at a time; but one that waits for a call may share its key with that;
//! * one that has failed and is to be tried again, or has handed on, holds its key until it has ended, over all lives;
//! * each attempt that is handed out with a key has a fence greater than all before, over all lives of the node;
//! * of durable calls that were accepted in a life of the node, the older one has its first turn before the younger;
//! * the index of a key lists exactly the calls that live.

use std::collections::BTreeMap;

use bourse_durable::batch::{Batch, Op, Outcome};
use bourse_durable::work::KeyName;
use bourse_durable::{StoreAnswer, Token};
use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bytes::Bytes;

use super::id;
use crate::stage::Plan;

/// A call that an instance runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub call: CallId,
    /// It waits for a call that it has made.
    pub waits: bool,
}

/// A durable call with a key, that lives.
#[derive(Clone, Debug)]
struct Stands {
    name: KeyName,
    /// It was stored as the how manieth, of all.
    came: u64,
    /// It stands where it does for the others: it was accepted in this life, and the node has heard that it was.
    in_line: bool,
    /// It is not to be run yet, or perhaps never.
    aside: bool,
    /// It had its first turn.
    begun: bool,
    /// As the store knows.
    holds: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Lines {
    standing: BTreeMap<CallId, Stands>,
    /// The index, by call.
    index: BTreeMap<CallId, Bytes>,
    came: u64,
    /// Calls that batches on their way accept.
    unheard: BTreeMap<Token, Vec<CallId>>,
    /// The key of each call that was handed out, and who waits for that call.
    handed: BTreeMap<CallId, (Option<KeyName>, Option<CallId>)>,
    /// The last fence of each key, and what had it.
    fences: BTreeMap<KeyName, (u64, CallId, u32)>,
    /// How often a call was handed out with a key.
    pub turns: u64,
    /// What must never happen, and did.
    pub violations: Vec<String>,
}

impl Lines {
    /// The node hands a batch to the disk.
    pub(crate) fn asked(&mut self, token: Token, batch: &Batch) {
        let accepts = batch.ops.iter().filter_map(|op| match op {
            Op::Put { key, .. } if key.first() == Some(&b'c') => id(key),
            _ => None,
        });
        self.unheard.insert(token, accepts.collect());
    }

    /// It hears of it.
    pub(crate) fn heard(&mut self, token: Token, answer: &StoreAnswer) {
        let accepts = self.unheard.remove(&token).unwrap_or_default();
        if matches!(answer, StoreAnswer::Committed(Outcome::Committed)) {
            for call in accepts {
                if let Some(stands) = self.standing.get_mut(&call) {
                    stands.in_line = true;
                }
            }
        }
    }

    /// The node is gone, and what it knew.
    pub(crate) fn on_crash(&mut self) {
        self.unheard.clear();
        self.standing.values_mut().for_each(|stands| (stands.in_line, stands.aside) = (false, true));
    }

    /// A call is stored, or changes.
    pub(crate) fn lives(&mut self, call: CallId, record: &stored::Call, is_new: bool) {
        if let Some(name) = KeyName::of(record)
            && is_new
        {
            self.came += 1;
            let (came, aside) = (self.came, record.delayed);
            let stands = Stands { name, came, in_line: false, aside, begun: false, holds: false };
            self.standing.insert(call, stands);
        } else if let Some(stands) = self.standing.get_mut(&call) {
            stands.holds = true;
        }
    }

    /// A call has ended.
    pub(crate) fn ends(&mut self, call: CallId) {
        self.standing.remove(&call);
    }

    /// Somebody wants a call to end: others may pass it meanwhile.
    pub(crate) fn leaves(&mut self, call: CallId) {
        if let Some(stands) = self.standing.get_mut(&call) {
            (stands.aside, stands.holds) = (true, false);
        }
    }

    /// A row of the index is written, or deleted.
    pub(crate) fn indexed(&mut self, key: &Bytes, is_there: bool) {
        let Some(call) = id(key) else { return };
        match is_there {
            true => _ = self.index.insert(call, key.clone()),
            false => _ = self.index.remove(&call),
        }
    }

    /// After a batch that concerned a call.
    pub(crate) fn check_index(&mut self, call: CallId, lives: bool) {
        let row = |stands: &Stands| {
            let parts: [&[u8]; 6] = [
                b"x",
                stands.name.module().as_bytes(),
                b"\0",
                stands.name.key().as_bytes(),
                b"\0",
                call.as_bytes(),
            ];
            Bytes::from(parts.concat())
        };
        let wanted = self.standing.get(&call).filter(|_| lives).map(row);
        if self.index.get(&call) != wanted.as_ref() {
            self.violations.push(format!("the index of exclusive keys is wrong about call {call}"));
        }
    }

    /// An attempt is handed to an instance. `is_durable`: it is in the store; then that knows which key it holds.
    pub(crate) fn hands(
        &mut self,
        (call, attempt, fence): (CallId, u32, u64),
        parent: Option<CallId>,
        plan: &Plan,
        is_durable: bool,
    ) {
        let stored = self.standing.get(&call).map(|stands| stands.name.clone());
        let before = self.handed.get(&call).and_then(|(name, _)| name.clone()).filter(|_| !is_durable);
        let name = stored.or(before).or_else(|| plan.exclusive());
        self.handed.insert(call, (name.clone(), parent));
        let Some(name) = name else {
            if fence != 0 {
                self.violations.push(format!("call {call} has a fence, and no key"));
            }
            return;
        };
        self.turns += 1;
        let last = self.fences.insert(name.clone(), (fence, call, attempt));
        // An attempt may be taken back and handed out anew.
        if fence == 0
            || last.is_some_and(|last| fence < last.0 || (fence == last.0 && (fence, call, attempt) != last))
        {
            let last = last.map_or(0, |last| last.0);
            self.violations.push(format!("call {call} gets the fence {fence} after {last}, of {name:?}"));
        }
        self.turn(&name, call);
        let holds = |(other, stands): &(&CallId, &Stands)| {
            stands.holds && stands.name == name && **other != call && !self.waits_for(call, **other)
        };
        if let Some((other, _)) = self.standing.iter().find(holds) {
            self.violations.push(format!("call {call} has its turn while {other} holds {name:?}"));
        }
    }

    fn turn(&mut self, name: &KeyName, call: CallId) {
        let Some(stands) = self.standing.get_mut(&call) else { return };
        if std::mem::replace(&mut stands.begun, true) || stands.aside {
            return;
        }
        let came = stands.came;
        let is_passed = |(_, other): &(&CallId, &Stands)| {
            other.name == *name && other.in_line && !other.aside && !other.begun && other.came < came
        };
        if let Some((other, _)) = self.standing.range(..call).find(is_passed) {
            self.violations.push(format!("call {call} has its turn before {other}, of {name:?}"));
        }
    }

    /// These are being run, at once.
    pub(crate) fn run(&mut self, runs: &[Run]) {
        let key = |run: &Run| self.handed.get(&run.call).and_then(|(name, _)| name.as_ref());
        for (at, one) in runs.iter().enumerate() {
            for other in &runs[at + 1..] {
                let (Some(name), Some(same)) = (key(one), key(other)) else { continue };
                let share = self.is_beneath(one, other) || self.is_beneath(other, one);
                if name == same && !share {
                    let (one, other) = (one.call, other.call);
                    self.violations.push(format!("calls {one} and {other} run at once, of {name:?}"));
                    return;
                }
            }
        }
    }

    /// Whether a call is one that another waits for.
    fn is_beneath(&self, run: &Run, above: &Run) -> bool {
        above.waits && self.waits_for(run.call, above.call)
    }

    /// Whether a call was made by another, at any depth, as one that it waits for.
    fn waits_for(&self, mut call: CallId, above: CallId) -> bool {
        while let Some((_, Some(parent))) = self.handed.get(&call) {
            if *parent == above {
                return true;
            }
            call = *parent;
        }
        false
    }
}
