//! What must hold, checked while it happens and once more at the end.
//!
//! The books are kept by what *lands* on the disk, so that they know what is true whatever the node believes:
//!
//! * nothing accepted is lost: an accepted call has one terminal record in the end (done, dead, cancelled), or was purged;
//! * never two terminal records, nor one of a call that lives, nor a live record that vanishes;
//! * a promise to another partition (an outgoing record) is deleted only when it was kept;
//! * at most one run of a call takes effect, none of a failed or cancelled one, and the ledgers are what running the
//!   calls one after the other would have made of them;
//! * a unique key, also one of a function's own, is one call's within its window; calls that are joined with it run never;
//! * the steps of a call that hands on follow each other, each takes effect once, and none comes back;
//! * of calls with an exclusive key one runs at a time, as [`lines`] checks;
//! * what the world outside is asked to do is a call that is stored, and a call of that kind that is done was asked for;
//! * nobody is told what is not on the disk;
//! * what calls with one exclusive key change lands in the order of their fences;
//! * of two different batches no two have the same place (partition, owner, fence, sequence number).
//!
//! They are fed by worlds, and by what real processes have left behind ([`crate::histories`]). The one writes texts, the other
//! what an SDK makes of them: `said` reads both.

mod close;
pub mod lines;

use std::collections::{BTreeMap, BTreeSet};

use bourse_durable::batch::{Batch, Op};
use bourse_durable::work::Seen;
use bourse_node::Ticket;
use bourse_wire::id::CallId;
use bourse_wire::options::Window;
use bourse_wire::record::v1 as stored;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::record::v1::outgoing::What;
use bourse_wire::value::Value;
use bytes::Bytes;
use prost::Message as _;

use self::lines::Lines;
use crate::gateway::{Gateway, Heard};
use crate::stage::{Stage, parse};
use crate::trace::{mix, mix_bytes};
use crate::triggers::TriggerBook;

/// The plan of a call that has none.
const NO_PLAN: u32 = u32::MAX;

/// What has landed of a call.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The plan of each step that it has come to.
    pub steps: Vec<u32>,
    /// The step that is stored at its home, once it was stored there.
    pub stored: Option<u64>,
    /// The function and the key, of one that may be another's.
    pub unique: Option<(String, String)>,
    /// It has that key: where the key is, it is known to be its own.
    pub is_own: bool,
    /// Its end, at its home.
    pub ended: Option<(Status, String, Bytes)>,
    /// Its end, as another home has promised it.
    pub promised: Option<(Status, String)>,
    /// It was a dead letter, and is forgotten.
    pub purged: bool,
}

/// An entry of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    plan: u32,
    call: CallId,
    /// Which attempt, and what fence it had, as far as it says.
    attempt: u32,
    fence: u64,
    /// It landed with the how manieth batch, of all.
    landed: u64,
}

/// What an outgoing record promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// The call is accepted; or it is joined with another, unless its unique key is known to be its own.
    Accept {
        is_own: bool,
    },
    Tail(u64),
    End,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Books {
    calls: BTreeMap<CallId, Story>,
    ledgers: BTreeMap<String, Vec<Entry>>,
    counts: BTreeMap<String, u64>,
    /// How many batches have landed.
    batches: u64,
    /// Who has each unique key.
    keys: BTreeMap<Bytes, stored::Unique>,
    /// Outgoing records that are on the disk, by where and by their keys.
    outgoing: BTreeMap<(u8, Bytes), (CallId, Promise)>,
    /// Who holds exclusive keys, and who waits for them.
    pub lines: Lines,
    /// The latest time that the wall clock has ever shown.
    wall_most_ms: u64,
    numbers: BTreeMap<(u8, u64, u64, u64), u64>,
    cancels: BTreeSet<CallId>,
    /// What the world outside was asked to do.
    performed: BTreeSet<CallId>,
    pub(crate) triggers: TriggerBook,
    /// What must never happen, and did.
    pub violations: Vec<String>,
}

impl Books {
    /// What has landed of a call.
    pub fn story(&self, call: CallId) -> Option<&Story> {
        self.calls.get(&call)
    }

    /// All calls that were ever stored or promised.
    pub fn calls(&self) -> impl Iterator<Item = (CallId, &Story)> {
        self.calls.iter().map(|(call, story)| (*call, story))
    }

    /// How many runs a ledger has.
    pub fn ledger(&self, scope: &str) -> usize {
        self.ledgers.get(scope).map_or(0, Vec::len)
    }

    /// Calls that have ended in a way.
    pub fn ended(&self, status: Status) -> usize {
        self.calls.values().filter(|s| s.ended.as_ref().is_some_and(|(is, ..)| *is == status)).count()
    }

    fn wrong(&mut self, what: String) {
        self.violations.push(what);
    }

    // ------------------------------------------------------------ while it happens

    /// The node hands a batch to the disk.
    pub fn asked(&mut self, batch: &Batch) {
        let owner = batch.owner;
        let place = (batch.partition.0, owner.node, owner.fence.0, owner.seq.0);
        let mut digest = batch.expect.map_or(1, |o| mix(mix(mix(2, o.node), o.fence.0), o.seq.0));
        for op in &batch.ops {
            digest = match op {
                Op::Put { key, value } => mix_bytes(mix_bytes(mix(digest, 1), key), value),
                Op::Delete { key } => mix_bytes(mix(digest, 2), key),
            };
        }
        if self.numbers.insert(place, digest).is_some_and(|before| before != digest) {
            self.wrong(format!("two different batches have the place {place:?}"));
        }
    }

    /// A batch has landed. `wall_ms`: what time it is by the wall clock.
    pub fn landed(&mut self, batch: &Batch, wall_ms: u64) {
        self.wall_most_ms = self.wall_most_ms.max(wall_ms);
        self.batches += 1;
        let partition = batch.partition.0;
        let deleted = |kind: u8| {
            batch.ops.iter().filter_map(move |op| match op {
                Op::Delete { key } if key.first() == Some(&kind) => Some(key),
                _ => None,
            })
        };
        let put = |kind: u8| {
            batch.ops.iter().filter_map(move |op| match op {
                Op::Put { key, value } if key.first() == Some(&kind) => Some((key, body(value))),
                _ => None,
            })
        };
        for (key, value) in put(b'u') {
            self.key_is(key, &value);
        }
        for (key, value) in put(b'o') {
            if let (Some(call), Ok(outgoing)) = (concerned(key), stored::Outgoing::decode(value)) {
                self.promises((partition, key.clone()), call, outgoing);
            }
        }
        let revived: BTreeSet<CallId> = deleted(b'd').filter_map(|key| id(key)).collect();
        for (key, value) in put(b'c') {
            if let (Some(call), Ok(record)) = (id(key), stored::Call::decode(value)) {
                self.lives(call, &record, revived.contains(&call));
            }
        }
        let mut over = BTreeSet::new();
        for (key, value) in put(b't').chain(put(b'd')) {
            if let (Some(call), Ok(ended)) = (id(key), stored::Ended::decode(value.clone())) {
                over.insert(call);
                self.ends(call, &ended, value);
            }
        }
        // A step of another module's function moves the call from one lane to the other.
        let lives: BTreeSet<CallId> = put(b'c').filter_map(|(key, _)| id(key)).collect();
        let gone = deleted(b'c').filter_map(|key| id(key)).filter(|call| !lives.contains(call));
        for call in gone {
            if !over.contains(&call) && self.calls.get(&call).is_some_and(|story| story.ended.is_none()) {
                self.wrong(format!("call {call} vanishes"));
            }
        }
        for call in revived {
            let story = self.calls.entry(call).or_default();
            story.purged |= story.ended.is_some();
        }
        for key in deleted(b'o') {
            let Some((call, promise)) = self.outgoing.remove(&(partition, key.clone())) else { continue };
            if !self.is_kept(call, promise) {
                self.wrong(format!("what another partition has promised of call {call} is forgotten"));
            }
        }
        put(b'x').for_each(|(key, _)| self.lines.indexed(key, true));
        deleted(b'x').for_each(|key| self.lines.indexed(key, false));
        for call in lives.union(&over) {
            let story = &self.calls[call];
            self.lines.check_index(*call, story.ended.is_none() || lives.contains(call));
        }
        for (key, value) in put(b's') {
            self.state(key, &value);
        }
        self.triggers_landed(batch);
        self.count();
    }

    fn is_kept(&self, call: CallId, promise: Promise) -> bool {
        let Some(story) = self.calls.get(&call) else { return false };
        let over = story.ended.is_some() || story.purged;
        match promise {
            Promise::Accept { is_own } => story.stored.is_some() || over || (!is_own && story.is_own),
            Promise::Tail(step) => over || story.stored.is_some_and(|stored| stored >= step),
            Promise::End => over,
        }
    }

    /// Somebody has a unique key now.
    fn key_is(&mut self, key: &Bytes, value: &Bytes) {
        let Ok(row) = stored::Unique::decode(value.clone()) else { return };
        let Some(call) = CallId::from_wire(&row.call) else { return };
        self.calls.entry(call).or_default().is_own = true;
        let Some(before) =
            self.keys.insert(key.clone(), row).filter(|before| before.call != call.as_bytes()[..])
        else {
            return;
        };
        let Some(holder) = CallId::from_wire(&before.call) else { return };
        let has_ended = || self.calls.get(&holder).is_none_or(|s| s.ended.is_some() || s.promised.is_some());
        let is_over = match before.unique_ms {
            0 => false, // No run is as long as that.
            Window::UNTIL_ENDED_MS => has_ended(),
            ms => before.accepted_ms.saturating_add(ms) <= self.wall_most_ms,
        };
        if !is_over {
            self.wrong(format!("the unique key of call {holder} becomes that of {call}"));
        }
    }

    fn promises(&mut self, at: (u8, Bytes), call: CallId, outgoing: stored::Outgoing) {
        let Some(what) = outgoing.what else { return };
        let promise = match &what {
            What::Accept(_) => Promise::Accept { is_own: outgoing.unique_is_own },
            What::Tail(record) => Promise::Tail(record.step),
            What::End(_) => Promise::End,
        };
        if self.outgoing.insert(at, (call, promise)).is_some() {
            self.wrong(format!("what another partition has promised of call {call} is overwritten"));
        }
        let story = self.calls.entry(call).or_default();
        let over = story.promised.is_some() || story.ended.is_some();
        let came_to = story.steps.len();
        match what {
            What::Accept(record) => story.is_to_do(&record),
            What::Tail(record) if record.step == came_to as u64 && !over => story.is_to_do(&record),
            What::Tail(record) => {
                self.wrong(format!("call {call} goes on to step {} after {came_to} others", record.step));
            }
            What::End(ended) => {
                let end = (ended.status(), said(&ended.result));
                if story.promised.as_ref().is_some_and(|before| *before != end) || story.ended.is_some() {
                    self.wrong(format!("call {call} ends a second time, elsewhere"));
                } else {
                    story.promised = Some(end);
                }
            }
        }
    }

    fn lives(&mut self, call: CallId, record: &stored::Call, revived: bool) {
        let story = self.calls.entry(call).or_default();
        let ended = story.ended.is_some() || story.promised.is_some();
        if revived {
            (story.ended, story.promised) = (None, None);
        }
        story.is_to_do(record);
        let (came_to, is_new) = (story.steps.len() as u64, story.stored.is_none());
        let stored = story.stored.replace(record.step);
        let is_own = story.is_own || record.idempotency_key.is_empty();
        if ended && !revived {
            self.wrong(format!("call {call} has ended and lives again"));
        }
        if record.step + 1 != came_to || stored.is_some_and(|stored| stored > record.step) {
            self.wrong(format!("call {call} is stored with step {}, of {came_to}", record.step));
        }
        if !is_own {
            self.wrong(format!("call {call} is stored, and its unique key is another's"));
        }
        self.lines.lives(call, record, is_new || revived);
    }

    fn ends(&mut self, call: CallId, ended: &stored::Ended, bytes: Bytes) {
        self.lines.ends(call);
        if ended.status() == Status::Joined {
            return self.joins(call, ended, bytes);
        }
        let end = (ended.status(), said(&ended.result), bytes);
        let Some(story) = self.calls.get_mut(&call).filter(|story| story.stored.is_some()) else {
            return self.wrong(format!("call {call} ends and was never stored"));
        };
        let before = story.ended.replace(end.clone());
        let promised = story.promised.clone();
        let came_to = story.steps.len() as u64;
        if before.is_some_and(|before| before != end) {
            self.wrong(format!("call {call} ends a second time"));
        }
        if promised.is_some_and(|promised| promised != (end.0, end.1)) {
            self.wrong(format!("call {call} ends otherwise than was promised"));
        }
        if ended.step + 1 != came_to {
            self.wrong(format!("call {call} ends with step {}, of {came_to}", ended.step));
        }
    }

    /// Another call has the unique key of this one.
    fn joins(&mut self, call: CallId, ended: &stored::Ended, bytes: Bytes) {
        let other = CallId::from_wire(&ended.joined).filter(|other| *other != call);
        let other = other.and_then(|other| self.calls.get(&other));
        let key = other.filter(|other| other.is_own).and_then(|other| other.unique.clone());
        let story = self.calls.entry(call).or_default();
        let ran = story.stored.is_some() || story.is_own;
        story.ended = Some((Status::Joined, String::new(), bytes));
        if key.is_none() || key != story.unique {
            self.wrong(format!("call {call} is joined with one that has not its key"));
        }
        if ran {
            self.wrong(format!("call {call} has a key of its own, and is joined with another"));
        }
    }

    /// Rows come in byte order: the count before the places.
    fn state(&mut self, key: &[u8], value: &[u8]) {
        let name = key.split(|b| *b == 0).nth(1).unwrap_or_default();
        let (name, value) = (String::from_utf8_lossy(name), said(value));
        if let Some(scope) = name.strip_suffix("/n") {
            self.counts.insert(scope.to_owned(), value.parse().unwrap_or_default());
        } else if let Some((scope, place)) = name.split_once("/l/") {
            let mut words = value.split(' ');
            let plan = words.next().and_then(|plan| plan.parse().ok());
            let call = words.next().and_then(|call| call.parse().ok());
            let (Some(plan), Some(call)) = (plan, call) else {
                return self.wrong(format!("{name} is {value:?}"));
            };
            let attempt = words.next().and_then(|attempt| attempt.parse().ok()).unwrap_or_default();
            let fence = words.next().and_then(|fence| fence.parse().ok()).unwrap_or_default();
            let landed = self.batches;
            let ledger = self.ledgers.entry(scope.to_owned()).or_default();
            let is_next = place.parse() == Ok(ledger.len() + 1);
            let twice = ledger.iter().any(|entry| (entry.call, entry.plan) == (call, plan));
            ledger.push(Entry { plan, call, attempt, fence, landed });
            if !is_next {
                self.wrong(format!("{name} is written out of order: an update is lost"));
            }
            if twice {
                self.wrong(format!("call {call} takes effect twice, in {scope}"));
            }
        }
    }

    fn count(&mut self) {
        for scope in self.counts.keys().chain(self.ledgers.keys()) {
            let count = self.counts.get(scope).copied().unwrap_or_default();
            let there = self.ledgers.get(scope).map_or(0, Vec::len);
            if there as u64 != count {
                self.violations.push(format!("{scope} counts {count} and lists {there}"));
            }
        }
    }

    /// Somebody is told that a call is accepted, or what came of it.
    pub fn replied(&mut self, ticket: Ticket, gateway: &Gateway, stage: &Stage) {
        let Some(made) = gateway.call(ticket) else { return };
        match (&made.heard, made.call) {
            (Heard::Accepted, Some(call)) if self.is_durable(call) => {}
            (Heard::Accepted, Some(call)) => {
                self.wrong(format!("call {call} is said to be accepted, and is not stored"));
            }
            (Heard::Accepted, None) => self.wrong("a call is accepted without an id".to_owned()),
            (Heard::Done(result), Some(call)) if self.is_durable(call) => {
                let end = self.calls.get(&call).and_then(Story::end);
                if end != Some((Status::Done, result.clone())) {
                    self.wrong(format!("call {call} is said to be done, and what is stored is {end:?}"));
                }
            }
            (Heard::Done(result), _) => {
                let last = stage.last_of(made.plan);
                let Some(scope) = &stage.plan(last).scope else { return };
                let place: usize = result.parse().unwrap_or_default();
                let entry = self.ledgers.get(scope).and_then(|ledger| ledger.get(place.wrapping_sub(1)));
                if entry.is_none_or(|entry| entry.plan != last) {
                    self.wrong(format!("call {} is said to be done, and is not in the ledger", ticket.0));
                }
            }
            _ => {}
        }
    }

    fn is_durable(&self, call: CallId) -> bool {
        self.calls.get(&call).is_some_and(|story| story.stored.is_some() || story.is_own)
    }

    /// The world outside is asked to do something.
    pub fn performed(&mut self, call: CallId) {
        self.performed.insert(call);
        if !self.is_durable(call) {
            self.wrong(format!("call {call} goes out, and is not stored"));
        }
    }

    /// Somebody asks that a call ends.
    pub fn cancels(&mut self, call: CallId) {
        self.lines.leaves(call);
        self.cancels.insert(call);
    }

    /// The call that this one is joined with, or itself.
    fn is_really(&self, call: CallId) -> CallId {
        let ended = self.calls.get(&call).and_then(|story| story.ended.as_ref());
        let joined = ended.filter(|(status, ..)| *status == Status::Joined);
        let ended = joined.and_then(|(.., bytes)| stored::Ended::decode(bytes.clone()).ok());
        ended.and_then(|ended| CallId::from_wire(&ended.joined)).unwrap_or(call)
    }

    /// The calls that were joined with others.
    pub fn joined(&self) -> impl Iterator<Item = CallId> {
        let is = |story: &Story| story.ended.as_ref().is_some_and(|(status, ..)| *status == Status::Joined);
        self.calls.iter().filter(move |(_, story)| is(story)).map(|(call, _)| *call)
    }

    /// Somebody is told how a call stands.
    pub fn told(&mut self, ticket: Ticket, gateway: &Gateway) {
        let Some((asked, Ok(seen))) = gateway.question(ticket).and_then(|a| Some((a, a.told.as_ref()?)))
        else {
            return;
        };
        let call = self.is_really(asked.call);
        let Some(story) = self.calls.get(&call) else { return };
        match &**seen {
            Seen::Live { .. } => {}
            Seen::Nothing if story.purged => {}
            Seen::Nothing => self.wrong(format!("call {call} is said not to be there")),
            Seen::Ended(_) if story.purged => {}
            Seen::Ended(ended) => {
                let end = (ended.status(), said(&ended.result));
                let real = story.ended.as_ref().map(|(status, result, _)| (*status, result.clone()));
                // A dead letter may be revived while somebody is being told of it.
                if real.as_ref() != Some(&end)
                    && story.promised.as_ref() != Some(&end)
                    && end.0 != Status::Dead
                {
                    self.wrong(format!("call {call} is said to have ended {end:?}, and has {real:?}"));
                }
            }
        }
    }
}

impl Story {
    /// What it is to do next is known.
    fn is_to_do(&mut self, record: &stored::Call) {
        if record.step == self.steps.len() as u64 {
            self.steps.push(parse(&record.arguments).unwrap_or(NO_PLAN));
        }
        if !record.idempotency_key.is_empty() && record.step == 0 {
            self.unique = Some((record.function.clone(), record.idempotency_key.clone()));
        }
    }

    /// Its end, or that which another home has promised.
    fn end(&self) -> Option<(Status, String)> {
        let ended = self.ended.clone().map(|(status, result, _)| (status, result));
        ended.or_else(|| self.promised.clone())
    }
}

/// The call in an outgoing record's key: after the kind and the partition.
fn concerned(key: &[u8]) -> Option<CallId> {
    CallId::from_wire(key.get(2..18)?)
}

/// The call in the last bytes of a record's key.
pub(crate) fn id(key: &[u8]) -> Option<CallId> {
    CallId::from_wire(key.get(key.len().checked_sub(16)?..)?)
}

pub(crate) fn body(value: &Bytes) -> Bytes {
    bourse_durable::record::decode(value).map(|record| record.value).unwrap_or_default()
}

/// What a value or a result says, as text: of what an SDK has written, the text or number in it; else the bytes themselves.
///
/// No text that a simulated function writes is a whole item of CBOR of these kinds: they begin with a digit, or are "done".
pub(crate) fn said(bytes: &[u8]) -> String {
    const NUMBERS: std::ops::RangeInclusive<u8> = 0x00..=0x1b;
    const TEXTS: std::ops::RangeInclusive<u8> = 0x60..=0x7b;
    let is_item = bytes.first().is_some_and(|first| NUMBERS.contains(first) || TEXTS.contains(first));
    match is_item.then(|| Value::from_cbor(bytes)) {
        Some(Ok(Value::Text(text))) => text,
        Some(Ok(Value::Int(number))) => number.to_string(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_say_the_same() {
        for text in ["7", "17", "123456", "done", "3 019ab1c2-7d3e-7000-8000-1234567890ab 1 77", ""] {
            assert_eq!(said(text.as_bytes()), text);
            assert_eq!(said(&Value::Text(text.to_owned()).to_cbor()), text);
        }
        for number in [0, 7, 23, 24, 1_000, 100_000] {
            assert_eq!(said(&Value::Int(number).to_cbor()), number.to_string());
        }
    }
}
