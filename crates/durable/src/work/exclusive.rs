//! Exclusive keys: of the calls with one key, one runs at a time, in the order in which they came.
//!
//! ```text
//! park     a durable call wants its key; `ended` and `unlock` together give it back, in any order
//! wait     a call that is not durable wants a key; `unlock` gives it back
//! ```
//!
//! A durable call holds its key from its first turn until it has ended, also while it waits for its next attempt, and as
//! long as an instance is busy with it. It is tried again when those beneath it are gone, which it may have left behind.
//! A call that another one waits for, at any depth, may take a key that this one
//! holds: those that wait for it are *beneath* it. Siblings exclude each other.
//!
//! Few of the calls that wait for a key are in memory; the others are in the store, where an index has them in order.
//! Every one of them is in memory, or at or after `more` of its key, or at or after `beyond` of its lane.

use std::collections::{BTreeMap, BTreeSet};

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as record;

use super::lane::Entry;
use crate::batch::PartitionId;
use crate::home::{BadKey, StateKey};
use crate::mutant::{self, Mutant};

/// The most durable calls in memory that wait for a key, of one key and in all.
pub(crate) const PARKED_PER_KEY_MAX: usize = 16;
const PARKED_MAX: usize = 1024;
/// The most bytes that these have, roughly.
const PARKED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A key of a module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName {
    module: String,
    key: String,
}

impl KeyName {
    /// A key reads as a state key does: `scope/rest`.
    pub fn new(module: &str, key: &str) -> Result<Self, BadKey> {
        StateKey::new(module, key)
            .map(|key| Self { module: key.namespace().to_owned(), key: key.name().to_owned() })
    }

    /// Of a durable call; `None` for one without.
    pub fn of(record: &record::Call) -> Option<Self> {
        let (module, _) = record.function.rsplit_once('.')?;
        let module = if record.exclusive_module.is_empty() { module } else { &record.exclusive_module };
        (!record.exclusive_key.is_empty())
            .then(|| Self { module: module.to_owned(), key: record.exclusive_key.clone() })
    }

    /// The same, of one that has ended.
    pub(crate) fn of_ended(ended: &record::Ended) -> Option<Self> {
        let (module, _) = ended.function.rsplit_once('.')?;
        let module = if ended.exclusive_module.is_empty() { module } else { &ended.exclusive_module };
        (!ended.exclusive_key.is_empty())
            .then(|| Self { module: module.to_owned(), key: ended.exclusive_key.clone() })
    }

    /// The module that it belongs to.
    pub fn module(&self) -> &str {
        &self.module
    }

    /// Without its module.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where durable calls with it are at home: where the state of its scope is.
    pub fn partition(&self) -> PartitionId {
        StateKey::new(&self.module, &self.key).map_or(PartitionId(0), |key| key.home().partition())
    }
}

/// Who holds a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    call: CallId,
    /// It is durable and has not ended.
    stored: bool,
    /// An instance is busy with it, or about to be.
    running: bool,
}

#[derive(Debug, Default)]
struct Key {
    /// Each waits for the next.
    holders: Vec<Holder>,
    /// Durable calls in memory.
    parked: BTreeSet<CallId>,
    /// Calls that are not durable, and those that wait for them, nearest first.
    waiting: BTreeMap<CallId, Vec<CallId>>,
    /// From which call on the store may hold more.
    more: Option<CallId>,
    /// Reads on their way.
    reading: usize,
}

/// What has come of it.
#[derive(Debug)]
pub(crate) enum Turn {
    /// A durable call may be run.
    Durable(CallId, Box<Entry>),
    /// Another call may be.
    Other(KeyName, CallId),
    /// A call would wait for ever.
    Deadlock(CallId, String),
    /// The store is to be asked for the calls of a key, from one on.
    Read(KeyName, CallId),
}

/// All keys that somebody holds or waits for.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: BTreeMap<KeyName, Key>,
    parked: BTreeMap<CallId, Entry>,
    parked_bytes: usize,
    /// Durable calls that hold their keys, and are to be run when nobody beneath them does any more.
    stalled: BTreeMap<CallId, Entry>,
    /// Waiting calls that others wait for, and what they wait for.
    nested: BTreeMap<CallId, KeyName>,
    turns: Vec<Turn>,
}

impl Keys {
    /// What has come of what was done.
    pub(crate) fn turns(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.turns)
    }

    pub(crate) fn holds(&self, name: &KeyName, call: CallId) -> bool {
        self.keys.get(name).is_some_and(|key| key.holders.iter().any(|h| h.call == call))
    }

    /// Whether a call that holds its key shares it with one that it has called.
    pub(crate) fn shares(&self, name: &KeyName, call: CallId) -> bool {
        self.holds(name, call) && self.holder_of(name) != Some(call) && !mutant::is(Mutant::OrphansNotAwaited)
    }

    /// A durable call that does is to be run again.
    pub(crate) fn stall(&mut self, call: CallId, entry: Entry) {
        self.stalled.insert(call, entry);
    }

    /// A durable call in memory that waits for its key, or for those beneath it.
    pub(crate) fn find(&self, call: CallId) -> Option<&Entry> {
        self.parked.get(&call).or_else(|| self.stalled.get(&call))
    }

    /// A durable call that is in the store wants its key. `unread`: the store may hold others of which nothing is known.
    pub(crate) fn park(&mut self, name: &KeyName, call: CallId, entry: Entry, unread: bool) {
        let key = Self::key(&mut self.keys, name, unread);
        let waits = !key.holders.is_empty() || !key.parked.is_empty();
        let no_room = self.parked.len() >= PARKED_MAX
            || self.parked_bytes >= PARKED_BYTES_MAX
            || key.parked.len() >= PARKED_PER_KEY_MAX;
        let last = key.parked.last().copied();
        // One that was delayed comes late, though it may be older than all that wait: then the youngest makes room.
        let goes = if waits && no_room { Some(last.map_or(call, |last| last.max(call))) } else { None };
        if goes != Some(call) && key.parked.insert(call) {
            self.parked_bytes += entry.bytes();
            self.parked.insert(call, entry);
        }
        if let Some(goes) = goes {
            key.more = Some(key.more.map_or(goes, |more| more.min(goes)));
            self.remove_parked(name, goes);
        }
        self.pump(name);
    }

    /// A call that is not in the store wants a key. `unread`: the store may hold older ones of which nothing is known.
    pub(crate) fn wait(&mut self, name: &KeyName, call: CallId, ancestors: Vec<CallId>, unread: bool) {
        let key = Self::key(&mut self.keys, name, unread);
        if !ancestors.is_empty() {
            self.nested.insert(call, name.clone());
        }
        key.waiting.insert(call, ancestors);
        self.pump(name);
        if self.nested.contains_key(&call) {
            self.look_for_deadlock(call);
        }
    }

    fn key<'a>(keys: &'a mut BTreeMap<KeyName, Key>, name: &KeyName, unread: bool) -> &'a mut Key {
        if !keys.contains_key(name) {
            let more = (unread && !mutant::is(Mutant::KeyNotRead)).then(|| CallId::first_of(0));
            keys.insert(name.clone(), Key { more, ..Key::default() });
        }
        keys.get_mut(name).expect("it was just put there")
    }

    /// A call that holds its key is being run.
    pub(crate) fn runs(&mut self, name: &KeyName, call: CallId) {
        if let Some(holder) = self.holder(name, call) {
            holder.running = true;
        }
    }

    /// No instance is busy with a call any more; or it waits no longer.
    pub(crate) fn unlock(&mut self, name: &KeyName, call: CallId) {
        if let Some(key) = self.keys.get_mut(name) {
            key.waiting.remove(&call);
        }
        self.nested.remove(&call);
        if let Some(holder) = self.holder(name, call) {
            holder.running = false;
        }
        self.release(name);
    }

    /// A durable call has ended.
    pub(crate) fn ended(&mut self, name: &KeyName, call: CallId) {
        self.remove_parked(name, call);
        self.stalled.remove(&call);
        if let Some(holder) = self.holder(name, call) {
            holder.stored = false;
            holder.running &= !mutant::is(Mutant::KeyFreedEarly);
        }
        self.release(name);
    }

    /// Whether a durable call has ended is to be found out: the store says who is next.
    pub(crate) fn lose(&mut self, name: &KeyName, call: CallId) {
        if let Some(key) = self.keys.get_mut(name) {
            key.more = Some(key.more.map_or(call, |more| more.min(call)));
        }
        self.ended(name, call);
    }

    /// Takes a durable call that waits for its key, to do something with it.
    pub(crate) fn take_parked(&mut self, call: CallId) -> Option<Entry> {
        if let Some(entry) = self.stalled.remove(&call) {
            return Some(entry);
        }
        let name = KeyName::of(&self.parked.get(&call)?.record)?;
        self.remove_parked(&name, call)
    }

    /// Of the calls that the store was asked for, these are to be read, and there may be more from one on.
    pub(crate) fn page_read(&mut self, name: &KeyName, calls: usize, more: Option<CallId>) {
        if let Some(key) = self.keys.get_mut(name) {
            key.reading += calls;
            key.more = key.more.into_iter().chain(more).min();
        }
        self.one_read(name);
    }

    /// One more read is done.
    pub(crate) fn one_read(&mut self, name: &KeyName) {
        if let Some(key) = self.keys.get_mut(name) {
            key.reading = key.reading.saturating_sub(1);
        }
        self.pump(name);
    }

    /// Whether some call with a key that waits may be in the store only.
    pub(crate) fn has_more(&self, module: &str) -> bool {
        self.keys.iter().any(|(name, key)| name.module == module && (key.more.is_some() || key.reading > 0))
    }

    /// How many durable calls of a lane wait in memory.
    pub(crate) fn parked_of(&self, lane: &str) -> usize {
        self.parked
            .values()
            .chain(self.stalled.values())
            .filter(|entry| super::lane_of(&entry.record) == lane)
            .count()
    }

    /// Who holds a key now: the innermost.
    pub(crate) fn holder_of(&self, name: &KeyName) -> Option<CallId> {
        self.keys.get(name)?.holders.last().map(|holder| holder.call)
    }

    pub(crate) fn check_invariants(&self) {
        let parked: usize = self.keys.values().map(|key| key.parked.len()).sum();
        assert_eq!(parked, self.parked.len(), "who is parked waits for a key");
        assert_eq!(
            self.parked_bytes,
            self.parked.values().map(Entry::bytes).sum::<usize>(),
            "sizes are known"
        );
        for (name, key) in &self.keys {
            let idle = key.holders.is_empty() && key.reading == 0;
            let wanted = !key.parked.is_empty() || !key.waiting.is_empty() || key.more.is_some();
            assert!(!idle || !wanted, "{name:?} is free while somebody waits for it");
            assert!(!idle || wanted, "a key that nobody wants is forgotten");
            assert!(key.holders.iter().all(|h| h.stored || h.running), "a holder has a reason");
            assert!(key.holders.iter().filter(|h| h.stored).count() <= 1, "one durable call holds a key");
        }
    }

    fn holder(&mut self, name: &KeyName, call: CallId) -> Option<&mut Holder> {
        self.keys.get_mut(name)?.holders.iter_mut().find(|holder| holder.call == call)
    }

    fn release(&mut self, name: &KeyName) {
        if let Some(key) = self.keys.get_mut(name) {
            key.holders.retain(|holder| holder.stored || holder.running);
            if let Some(top) = key.holders.last()
                && let Some(entry) = self.stalled.remove(&top.call)
            {
                self.turns.push(Turn::Durable(top.call, Box::new(entry)));
            }
        }
        self.pump(name);
    }

    fn remove_parked(&mut self, name: &KeyName, call: CallId) -> Option<Entry> {
        let key = self.keys.get_mut(name)?;
        if !key.parked.remove(&call) {
            return None;
        }
        let entry = self.parked.remove(&call)?;
        self.parked_bytes -= entry.bytes();
        Some(entry)
    }

    /// Gives the key to whoever is next.
    fn pump(&mut self, name: &KeyName) {
        let Some(key) = self.keys.get_mut(name) else { return };
        if let Some(top) = key.holders.last().map(|holder| holder.call) {
            let beneath = key.waiting.iter().find(|(_, ancestors)| ancestors.contains(&top));
            if let Some(call) = beneath.map(|(call, _)| *call) {
                self.give(name, call);
            }
            return;
        }
        if key.reading > 0 {
            return;
        }
        // One that held the key when the node ended still does.
        let held = key.parked.iter().find(|call| self.parked[call].has_begun()).copied();
        let held = held.filter(|_| !mutant::is(Mutant::HolderIsForgotten));
        let parked = held.or(key.parked.first().copied());
        let waiting = key.waiting.keys().next().copied();
        let first = held.or(parked.into_iter().chain(waiting).min());
        match (key.more, first) {
            (Some(more), first) if first.is_none_or(|first| more < first) => {
                key.more = None;
                key.reading = 1;
                self.turns.push(Turn::Read(name.clone(), more));
            }
            (_, None) => _ = self.keys.remove(name),
            (_, Some(first)) if parked == Some(first) => {
                key.holders.push(Holder { call: first, stored: true, running: false });
                let entry = self.remove_parked(name, first).expect("who is parked is in memory");
                self.turns.push(Turn::Durable(first, Box::new(entry)));
            }
            (_, Some(first)) => self.give(name, first),
        }
    }

    fn give(&mut self, name: &KeyName, call: CallId) {
        let key = self.keys.get_mut(name).expect("the caller has looked it up");
        key.waiting.remove(&call);
        key.holders.push(Holder { call, stored: false, running: true });
        self.nested.remove(&call);
        self.turns.push(Turn::Other(name.clone(), call));
    }

    /// A call has begun to wait. If those that hold its key wait for it in turn, the youngest that waits in this circle is
    /// told so.
    fn look_for_deadlock(&mut self, call: CallId) {
        let mut circle = Vec::new();
        if !self.leads_back(call, call, &mut circle) {
            return;
        }
        let root = |call: &CallId| {
            let name = &self.nested[call];
            self.keys[name].waiting.get(call).and_then(|ancestors| ancestors.last()).copied()
        };
        let victim =
            circle.iter().copied().max_by_key(|call| (root(call), *call)).expect("a circle has members");
        let told: Vec<String> = circle
            .iter()
            .map(|call| {
                let name = &self.nested[call];
                let holder = self.holder_of(name).expect("who waits, waits for somebody");
                format!("call {call} waits for {:?}, which call {holder} holds", name.key)
            })
            .collect();
        self.turns.push(Turn::Deadlock(victim, told.join("; ")));
    }

    /// Whether what `waiter` waits for cannot go on before `start` does. `path`: by whom, from one to the next.
    fn leads_back(&self, waiter: CallId, start: CallId, path: &mut Vec<CallId>) -> bool {
        let Some(key) = self.nested.get(&waiter).and_then(|name| self.keys.get(name)) else { return false };
        path.push(waiter);
        let above = &self.keys[&self.nested[&start]].waiting[&start];
        let own = &key.waiting[&waiter];
        for holder in key.holders.iter().filter(|holder| !own.contains(&holder.call)) {
            if above.contains(&holder.call) {
                return true;
            }
            // Those beneath the holder that wait themselves.
            for (next, name) in &self.nested {
                let ancestors = self.keys.get(name).and_then(|key| key.waiting.get(next));
                if ancestors.is_some_and(|a| a.contains(&holder.call))
                    && !path.contains(next)
                    && self.leads_back(*next, start, path)
                {
                    return true;
                }
            }
        }
        path.pop();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> CallId {
        CallId::new(n, [0; 10])
    }

    fn name(key: &str) -> KeyName {
        KeyName::new("shop", key).unwrap()
    }

    fn entry(key: &str) -> Entry {
        let (function, exclusive_key) = ("shop.pay".to_owned(), key.to_owned());
        Entry::new(record::Call { function, exclusive_key, ..Default::default() }, None)
    }

    fn told(keys: &mut Keys) -> Vec<String> {
        keys.check_invariants();
        let one = |turn| match turn {
            Turn::Durable(call, _) => format!("durable {}", call.made_ms()),
            Turn::Other(name, call) => format!("{} {}", name.key(), call.made_ms()),
            Turn::Deadlock(call, _) => format!("deadlock {}", call.made_ms()),
            Turn::Read(name, from) => format!("read {} from {}", name.key(), from.made_ms()),
        };
        keys.turns().into_iter().map(one).collect()
    }

    #[test]
    fn first_come_first_served() {
        let (mut keys, a) = (Keys::default(), name("a"));
        keys.park(&a, id(1), entry("a"), false);
        keys.wait(&a, id(3), vec![], false);
        keys.park(&a, id(2), entry("a"), false);
        assert_eq!(told(&mut keys), ["durable 1"]);
        keys.runs(&a, id(1));
        keys.ended(&a, id(1));
        assert!(told(&mut keys).is_empty(), "an instance is still busy with it");
        keys.unlock(&a, id(1));
        assert_eq!(told(&mut keys), ["durable 2"]);
        keys.ended(&a, id(2));
        assert_eq!(told(&mut keys), ["a 3"]);
        keys.unlock(&a, id(3));
        assert!(told(&mut keys).is_empty() && keys.keys.is_empty());
    }

    #[test]
    fn one_that_waits_for_its_next_attempt_keeps_its_key() {
        let (mut keys, a) = (Keys::default(), name("a"));
        keys.park(&a, id(1), entry("a"), false);
        keys.runs(&a, id(1));
        keys.park(&a, id(2), entry("a"), false);
        keys.unlock(&a, id(1));
        assert_eq!(told(&mut keys), ["durable 1"]);
    }

    #[test]
    fn a_long_line_is_read_from_the_store() {
        let (mut keys, a) = (Keys::default(), name("a"));
        for n in 1..=40 {
            keys.park(&a, id(n), entry("a"), false);
        }
        for n in 1..=17 {
            assert_eq!(told(&mut keys), [format!("durable {n}")]);
            keys.ended(&a, id(n));
        }
        assert_eq!(told(&mut keys), ["read a from 18"]);
        keys.page_read(&a, 2, Some(id(20)));
        keys.park(&a, id(18), entry("a"), false);
        keys.one_read(&a);
        assert!(told(&mut keys).is_empty(), "the other one is still being read");
        keys.park(&a, id(19), entry("a"), false);
        keys.one_read(&a);
        assert_eq!(told(&mut keys), ["durable 18"]);
    }

    #[test]
    fn one_that_comes_late_though_it_is_old_finds_room() {
        let (mut keys, a) = (Keys::default(), name("a"));
        for n in 2..=18 {
            keys.park(&a, id(n), entry("a"), false);
        }
        keys.park(&a, id(1), entry("a"), false);
        keys.park(&a, id(19), entry("a"), false);
        assert_eq!(told(&mut keys), ["durable 2"]);
        keys.ended(&a, id(2));
        assert_eq!(told(&mut keys), ["durable 1"]);
        for n in 3..=17 {
            keys.ended(&a, if n == 3 { id(1) } else { id(n - 1) });
            assert_eq!(told(&mut keys), [format!("durable {n}")]);
        }
        keys.ended(&a, id(17));
        assert_eq!(told(&mut keys), ["read a from 18"], "the youngest made room for it");
    }

    #[test]
    fn what_is_in_the_store_was_there_before() {
        let (mut keys, a) = (Keys::default(), name("a"));
        keys.wait(&a, id(5), vec![], true);
        assert_eq!(told(&mut keys), ["read a from 0"]);
        keys.page_read(&a, 0, None);
        assert_eq!(told(&mut keys), ["a 5"]);
    }

    #[test]
    fn a_key_is_shared_along_the_path_of_callers_only() {
        let (mut keys, a) = (Keys::default(), name("a"));
        keys.wait(&a, id(1), vec![], false);
        keys.wait(&a, id(2), vec![id(1)], false);
        keys.wait(&a, id(3), vec![id(1)], false);
        keys.wait(&a, id(4), vec![id(2), id(1)], false);
        keys.wait(&a, id(9), vec![id(8)], false);
        assert_eq!(told(&mut keys), ["a 1", "a 2", "a 4"]);
        keys.unlock(&a, id(4));
        assert!(told(&mut keys).is_empty(), "siblings exclude each other");
        keys.unlock(&a, id(2));
        assert_eq!(told(&mut keys), ["a 3"]);
        keys.unlock(&a, id(3));
        keys.unlock(&a, id(1));
        assert_eq!(told(&mut keys), ["a 9"]);
    }

    #[test]
    fn who_would_wait_for_ever_is_told() {
        let (mut keys, a, b) = (Keys::default(), name("a"), name("b"));
        keys.wait(&a, id(1), vec![], false);
        keys.wait(&b, id(2), vec![], false);
        keys.wait(&b, id(3), vec![id(1)], false);
        assert_eq!(told(&mut keys), ["a 1", "b 2"]);
        keys.wait(&a, id(4), vec![id(2)], false);
        assert_eq!(told(&mut keys), ["deadlock 4"]);
        keys.unlock(&a, id(4));
        keys.unlock(&b, id(2));
        assert_eq!(told(&mut keys), ["b 3"]);
    }

    #[test]
    fn who_waits_for_one_that_goes_on_waits() {
        let (mut keys, a, b) = (Keys::default(), name("a"), name("b"));
        keys.wait(&a, id(1), vec![], false);
        keys.wait(&b, id(2), vec![], false);
        keys.wait(&b, id(3), vec![id(1)], false);
        keys.wait(&a, id(5), vec![id(4)], false);
        assert_eq!(told(&mut keys), ["a 1", "b 2"]);
    }
}
