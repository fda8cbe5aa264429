//! What must hold, checked while it happens and once more at the end.
//!
//! The books are kept by what *lands* on the disk, so that they know what is true whatever the node believes:
//!
//! * nothing accepted is lost: an accepted call has one terminal record in the end (done, dead, cancelled), or was purged;
//! * never two terminal records, nor one of a call that lives, nor a live record that vanishes;
//! * a promise to another partition (an outgoing record) is deleted only when it was kept;
//! * at most one run of a call takes effect, none of a failed or cancelled one, and the ledgers are what running the
//!   calls one after the other would have made of them;
//! * an idempotency key is one call's;
//! * what the world outside is asked to do is a call that is stored, and a call of that kind that is done was asked for;
//! * nobody is told what is not on the disk;
//! * of two different batches no two have the same place (partition, owner, fence, sequence number).

use std::collections::{BTreeMap, BTreeSet};

use bourse_durable::batch::{Batch, Op};
use bourse_durable::work::Seen;
use bourse_node::{Mode, Ticket};
use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::record::v1::outgoing::What;
use bytes::Bytes;
use prost::Message as _;

use crate::disk::Disk;
use crate::gateway::{Gateway, Heard};
use crate::stage::{End, Stage, parse};
use crate::trace::{mix, mix_bytes};
use crate::triggers::TriggerBook;

/// What has landed of a call.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// What it is to do.
    pub plan: Option<u32>,
    /// It was stored at its home.
    pub stored: bool,
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
}

/// See the module.
#[derive(Debug, Default)]
pub struct Books {
    calls: BTreeMap<CallId, Story>,
    ledgers: BTreeMap<String, Vec<Entry>>,
    counts: BTreeMap<String, u64>,
    keys: BTreeMap<Vec<u8>, CallId>,
    /// Outgoing records that are on the disk, by where: whether it is an end.
    outgoing: BTreeMap<(u8, CallId, Option<u8>), bool>,
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

    /// A batch has landed.
    pub fn landed(&mut self, batch: &Batch) {
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
        for (key, value) in put(b'o') {
            let outgoing = stored::Outgoing::decode(value).ok().and_then(|outgoing| outgoing.what);
            if let (Some(call), Some(what)) = (concerned(key), outgoing) {
                let is_end = matches!(what, What::End(_));
                if self.outgoing.insert((batch.partition.0, call, key.last().copied()), is_end).is_some() {
                    self.wrong(format!("what another partition has promised of call {call} is overwritten"));
                }
                self.promised(call, what);
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
        for call in deleted(b'c').filter_map(|key| id(key)).filter(|call| !over.contains(call)) {
            if self.calls.get(&call).is_some_and(|story| story.ended.is_none()) {
                self.wrong(format!("call {call} vanishes"));
            }
        }
        for call in revived {
            let story = self.calls.entry(call).or_default();
            story.purged |= story.ended.is_some();
        }
        for (call, last) in deleted(b'o').filter_map(|key| Some((concerned(key)?, key.last().copied()))) {
            let Some(is_end) = self.outgoing.remove(&(batch.partition.0, call, last)) else { continue };
            let story = self.calls.entry(call).or_default();
            let kept = if is_end { story.ended.is_some() || story.purged } else { story.stored };
            if !kept {
                self.wrong(format!("what another partition has promised of call {call} is forgotten"));
            }
        }
        for (key, value) in put(b'u') {
            let holder = stored::Unique::decode(value).ok().and_then(|u| CallId::from_wire(&u.call));
            if let Some(holder) = holder
                && let Some(before) = self.keys.insert(key.to_vec(), holder)
                && before != holder
            {
                self.wrong(format!("an idempotency key of call {before} becomes that of {holder}"));
            }
        }
        for (key, value) in put(b's') {
            self.state(key, &value);
        }
        self.triggers_landed(batch);
        self.count();
    }

    fn promised(&mut self, call: CallId, what: What) {
        let story = self.calls.entry(call).or_default();
        match what {
            What::Accept(record) => story.plan = parse(&record.arguments),
            What::Tail(_) => {}
            What::End(ended) => {
                let end = (ended.status(), text(&ended.result));
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
        (story.stored, story.plan) = (true, parse(&record.arguments));
        if ended && !revived {
            self.wrong(format!("call {call} has ended and lives again"));
        }
    }

    fn ends(&mut self, call: CallId, ended: &stored::Ended, bytes: Bytes) {
        let end = (ended.status(), text(&ended.result), bytes);
        let Some(story) = self.calls.get_mut(&call).filter(|story| story.stored) else {
            return self.wrong(format!("call {call} ends and was never stored"));
        };
        let before = story.ended.replace(end.clone());
        let promised = story.promised.clone();
        if before.is_some_and(|before| before != end) {
            self.wrong(format!("call {call} ends a second time"));
        }
        if promised.is_some_and(|promised| promised != (end.0, end.1)) {
            self.wrong(format!("call {call} ends otherwise than was promised"));
        }
    }

    /// Rows come in byte order: the count before the places.
    fn state(&mut self, key: &[u8], value: &[u8]) {
        let name = key.split(|b| *b == 0).nth(1).unwrap_or_default();
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        if let Some(scope) = name.strip_suffix("/n") {
            self.counts.insert(scope.to_owned(), value.parse().unwrap_or_default());
        } else if let Some((scope, place)) = name.split_once("/l/") {
            let mut words = value.split(' ');
            let plan = words.next().and_then(|plan| plan.parse().ok());
            let call = words.next().and_then(|call| call.parse().ok());
            let (Some(plan), Some(call)) = (plan, call) else {
                return self.wrong(format!("{name} is {value:?}"));
            };
            let ledger = self.ledgers.entry(scope.to_owned()).or_default();
            let is_next = place.parse() == Ok(ledger.len() + 1);
            let twice = ledger.iter().any(|entry| entry.call == call);
            ledger.push(Entry { plan, call });
            if !is_next {
                self.wrong(format!("{name} is written out of order: an update is lost"));
            }
            if twice {
                self.wrong(format!("call {call} takes effect twice, in {scope}"));
            }
        }
    }

    fn count(&mut self) {
        for (scope, count) in &self.counts {
            let there = self.ledgers.get(scope).map_or(0, Vec::len);
            if there as u64 != *count {
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
                let story = self.calls.get(&call);
                let end = story.and_then(|story| {
                    let promised = story.promised.clone();
                    story.ended.clone().map(|(status, result, _)| (status, result)).or(promised)
                });
                if end != Some((Status::Done, result.clone())) {
                    self.wrong(format!("call {call} is said to be done, and what is stored is {end:?}"));
                }
            }
            (Heard::Done(result), _) => {
                let plan = stage.plan(made.plan);
                let Some(scope) = &plan.scope else { return };
                let place: usize = result.parse().unwrap_or_default();
                let entry = self.ledgers.get(scope).and_then(|ledger| ledger.get(place.wrapping_sub(1)));
                if entry.is_none_or(|entry| entry.plan != made.plan) {
                    self.wrong(format!("call {} is said to be done, and is not in the ledger", ticket.0));
                }
            }
            _ => {}
        }
    }

    fn is_durable(&self, call: CallId) -> bool {
        self.calls.get(&call).is_some_and(|story| story.stored)
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
        self.cancels.insert(call);
    }

    /// Somebody is told how a call stands.
    pub fn told(&mut self, ticket: Ticket, gateway: &Gateway) {
        let Some((asked, Ok(seen))) = gateway.question(ticket).and_then(|a| Some((a, a.told.as_ref()?)))
        else {
            return;
        };
        let call = asked.call;
        let Some(story) = self.calls.get(&call) else { return };
        match &**seen {
            Seen::Live { .. } => {}
            Seen::Nothing if story.purged => {}
            Seen::Nothing => self.wrong(format!("call {call} is said not to be there")),
            Seen::Ended(_) if story.purged => {}
            Seen::Ended(ended) => {
                let end = (ended.status(), text(&ended.result));
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

    // ------------------------------------------------------------ at the end

    /// Everything is quiet, and no fault is left.
    pub fn close(&mut self, disk: &Disk, gateway: &Gateway, stage: &Stage) {
        for (kind, what) in [(b'c', "lives"), (b'o', "is promised elsewhere")] {
            for (partition, key, _) in disk.rows(kind) {
                let call = if kind == b'o' { CallId::from_wire(&key[1..17]) } else { id(key) };
                let call = call.map_or_else(String::new, |call| call.to_string());
                self.violations.push(format!("call {call} still {what}, in partition {partition}"));
            }
        }
        let rows: Vec<CallId> =
            [b't', b'd'].into_iter().flat_map(|kind| disk.rows(kind)).filter_map(|row| id(row.1)).collect();
        for (call, story) in self.calls.clone() {
            let ends = rows.iter().filter(|row| **row == call).count();
            let expected = usize::from(!story.purged);
            if ends != expected {
                self.wrong(format!("call {call} has {ends} terminal records"));
            }
            if let (Some(plan), Some((status, result, bytes))) = (story.plan, &story.ended)
                && !story.purged
            {
                self.close_call(call, plan, *status, result, bytes, stage);
            }
        }
        self.close_plans(gateway, stage);
        self.close_triggers();
    }

    fn close_call(
        &mut self,
        call: CallId,
        number: u32,
        status: Status,
        result: &str,
        bytes: &Bytes,
        stage: &Stage,
    ) {
        let plan = stage.plan(number);
        match status {
            Status::Done => {
                let place = plan.scope.as_ref().and_then(|scope| {
                    let at = self.ledgers.get(scope)?.iter().position(|entry| entry.call == call)?;
                    Some((at + 1).to_string())
                });
                if plan.scope.is_some() && place.as_deref() != Some(result) {
                    self.wrong(format!("call {call} is done as number {result}, and is at {place:?}"));
                }
                if plan.function.starts_with("bourse.") && !self.performed.contains(&call) {
                    self.wrong(format!("call {call} is done, and never went out"));
                }
                if plan.bad == u32::MAX {
                    self.wrong(format!("call {call} is done, though each run of it fails"));
                }
            }
            Status::Dead => {
                let itself = plan.bad > 0 && plan.end == End::DeadLetters;
                let handed = stage.handed(call);
                if !itself && handed < plan.attempts_max() {
                    let why = stored::Ended::decode(bytes.clone()).ok().and_then(|ended| ended.failure);
                    let why = why.map(|failure| format!("{}: {}", failure.code, failure.message));
                    self.wrong(format!("call {call} is a dead letter after {handed} attempts: {why:?}"));
                }
            }
            _ => {
                let itself = plan.bad > 0 && plan.end == End::Discards;
                if !itself && !self.cancels.contains(&call) {
                    self.wrong(format!("call {call} is cancelled, and nobody wanted that"));
                }
            }
        }
    }

    fn close_plans(&mut self, gateway: &Gateway, stage: &Stage) {
        let mut keyed: BTreeMap<(&str, &str), BTreeSet<CallId>> = BTreeMap::new();
        for (ticket, made) in gateway.made() {
            let calls = self.of_plan(made.plan);
            let plan = stage.plan(made.plan);
            if let (true, Some(call)) = (!made.key.is_empty(), made.call) {
                keyed.entry((&plan.function, &made.key)).or_default().insert(call);
            }
            // One that comes while its module is loading is not yet known to be of a function with retry.
            let durable = made.mode == Mode::Async || calls.first().is_some_and(Option::is_some);
            match &made.heard {
                Heard::Nothing => self.wrong(format!("call {} is answered by nobody", ticket.0)),
                Heard::Accepted if made.key.is_empty() && Some(&made.call) != calls.first() => {
                    self.wrong(format!("call {} was accepted as another", ticket.0));
                }
                Heard::Refused(why) if durable && made.call.is_none() && !calls.is_empty() => {
                    self.wrong(format!("call {} was refused ({why}), and is stored", ticket.0));
                }
                _ => {}
            }
            if calls.len() > 1 {
                self.wrong(format!("call {} was accepted {} times", ticket.0, calls.len()));
            }
            let effects = self.effects(made.plan, stage);
            let (least, most) = match (&made.heard, durable) {
                (_, true) => self.done(&calls),
                (Heard::Done(_), false) => (1, 1),
                (Heard::Refused(_), false) => (0, 0),
                _ => (0, 1),
            };
            if plan.scope.is_some() && !(least..=most).contains(&effects) {
                self.wrong(format!("call {} has taken effect {effects} times: {:?}", ticket.0, made.heard));
            }
            self.close_children(made.plan, (least, most), stage);
        }
        for ((function, key), calls) in keyed {
            if calls.len() > 1 {
                self.wrong(format!("{} calls of {function} have the key {key:?}", calls.len()));
            }
        }
        for (ticket, asked) in gateway.asked() {
            if asked.told.is_none() && !asked.over {
                self.wrong(format!("question {} ({:?}) is answered by nobody", ticket.0, asked.ask));
            }
        }
    }

    /// What a plan's call has made others do, if it took effect so often.
    fn close_children(&mut self, number: u32, (least, most): (usize, usize), stage: &Stage) {
        let plan = stage.plan(number);
        for child in &plan.starts {
            let calls = self.of_plan(*child);
            if !(least..=most).contains(&calls.len()) {
                self.wrong(format!("plan {child} was accepted {} times, of {least}", calls.len()));
            }
            let done = self.done(&calls);
            let effects = self.effects(*child, stage);
            if stage.plan(*child).scope.is_some() && effects != done.0 {
                self.wrong(format!("plan {child} has taken effect {effects} times, and is done {}", done.0));
            }
            self.close_children(*child, done, stage);
        }
        for child in &plan.nested {
            let effects = self.effects(*child, stage);
            let joins = stage.plan(*child).scope == plan.scope;
            let range = if joins { (least, most) } else { (least, stage.runs(*child) as usize) };
            if stage.plan(*child).scope.is_some() && !(range.0..=range.1).contains(&effects) {
                self.wrong(format!("nested plan {child} has taken effect {effects} times, of {range:?}"));
            }
        }
    }

    fn of_plan(&self, plan: u32) -> Vec<Option<CallId>> {
        let of = self.calls.iter().filter(|(_, story)| story.plan == Some(plan) && story.stored);
        of.map(|(call, _)| Some(*call)).collect()
    }

    /// How often these calls are done, as a range of one.
    fn done(&self, calls: &[Option<CallId>]) -> (usize, usize) {
        let is_done = |call: &&Option<CallId>| {
            let story = call.and_then(|call| self.calls.get(&call));
            let end = story.and_then(|story| story.ended.as_ref());
            end.is_some_and(|(status, ..)| *status == Status::Done)
        };
        let done = calls.iter().filter(is_done).count();
        (done, done)
    }

    fn effects(&self, plan: u32, stage: &Stage) -> usize {
        let scope = stage.plan(plan).scope.as_ref();
        let ledger = scope.and_then(|scope| self.ledgers.get(scope));
        ledger.map_or(0, |ledger| ledger.iter().filter(|entry| entry.plan == plan).count())
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

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
