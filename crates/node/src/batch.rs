//! Durable calls that are run several at a time: the function gets a list of what each was called with.
//!
//! Calls that were accepted one after the other make a list; the first one waits for others as long as the function says.
//! What becomes of the list is committed at once, and each call ends by itself, wherever its home is: with its own item,
//! where the function returns a list that is as long. A list that fails is taken apart: each of its calls is tried again alone, so
//! that one which always fails holds up no other.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_durable::work::{KeyName, Taken};
use bourse_wire::arguments::Arguments;
use bourse_wire::failure::Code;
use bourse_wire::id::{CallId, FunctionName};
use bourse_wire::options::Batch;
use bourse_wire::record::v1 as record;
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;
use bourse_wire::value::Value;
use bytes::Bytes;

use crate::Node;
use crate::message::Success;
use crate::timers::Timer;

/// The most bytes of arguments in a list. One call is let in whatever its size.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Calls that wait for others to make a list, by function.
pub(crate) type Rooms = BTreeMap<String, Room>;

#[derive(Debug)]
pub(crate) struct Room {
    taken: Vec<Taken>,
    bytes: usize,
    until: Mono,
}

/// A call that is run in the list of another one.
#[derive(Clone, Debug)]
pub(crate) struct Rider {
    pub id: CallId,
    pub attempt: u32,
    pub record: Box<record::Call>,
    /// What the function returned for it.
    pub result: Bytes,
}

impl Node {
    /// A call of a function that takes lists is to be run.
    pub(crate) fn join_batch(&mut self, now: Now, taken: Taken, function: &FunctionName, batch: &Batch) {
        if taken.record.failures > 0 {
            return self.run_list(now, vec![taken]);
        }
        let key = function.as_str().to_owned();
        let left = taken.record.accepted_ms.saturating_add(bourse_wire::time::millis(batch.wait));
        let left = Duration::from_millis(left.saturating_sub(now.wall.0)).min(batch.wait);
        let new = || Room { taken: Vec::new(), bytes: 0, until: now.mono + left };
        let room = self.rooms.entry(key.clone()).or_insert_with(new);
        room.bytes += taken.record.arguments.len();
        room.taken.push(taken);
        while let Some(room) = self.rooms.get_mut(&key)
            && room.taken.len() < batch.max
            && room.bytes < LIST_BYTES_MAX
            && let Some((_, next)) = self.durable.peek(function.module())
            && room.goes_with(next)
            && let Some(next) = self.durable.take(function.module())
        {
            room.bytes += next.record.arguments.len();
            room.taken.push(next);
        }
        let room = &self.rooms[&key];
        let full = room.taken.len() >= batch.max || room.bytes >= LIST_BYTES_MAX;
        if full || room.until <= now.mono {
            self.open_room(now, &key);
        } else {
            self.timers.set_earliest(Timer::Batches, room.until);
        }
    }

    /// Lists have waited long enough.
    pub(crate) fn on_batches_due(&mut self, now: Now) {
        let due: Vec<_> =
            self.rooms.iter().filter(|(_, r)| r.until <= now.mono).map(|(key, _)| key.clone()).collect();
        due.iter().for_each(|key| self.open_room(now, key));
        if let Some(next) = self.rooms.values().map(|room| room.until).min() {
            self.timers.set(Timer::Batches, next);
        }
    }

    fn open_room(&mut self, now: Now, key: &str) {
        let Some(room) = self.rooms.remove(key) else { return };
        if self.rooms.is_empty() {
            self.timers.clear(&Timer::Batches);
        }
        self.run_list(now, room.taken);
    }

    fn run_list(&mut self, now: Now, list: Vec<Taken>) {
        let Some(first) = list.first() else { return };
        let Ok(function) = first.record.function.parse::<FunctionName>() else {
            unreachable!("only calls of functions are accepted")
        };
        let serves = self.modules.get(function.module()).is_some_and(|m| !m.removed && m.serving().is_some());
        if !serves || self.draining {
            return self.give_list_back(now, &function, list, Duration::ZERO);
        }
        if let Some(pause) = self.throttled(now, first.call, &function, &first.record.arguments) {
            return self.give_list_back(now, &function, list, pause);
        }
        let (mut items, mut good) = (Vec::new(), Vec::new());
        for taken in list {
            match only_argument(&taken.record.arguments) {
                Some(item) => {
                    items.push(item);
                    good.push(taken);
                }
                None => {
                    let id = taken.call;
                    self.run_attempt(now, taken, &function, None);
                    let failure = Code::BadArguments
                        .because(format!("{function} takes lists (`batch`), of calls with one argument each"))
                        .hint("call it with one argument");
                    self.abort(now, id, failure);
                }
            }
        }
        let mut good = good.into_iter();
        let Some(first) = good.next() else { return };
        let riders = good.map(|taken| Rider {
            id: taken.call,
            attempt: taken.attempt,
            record: Box::new(taken.record),
            result: Bytes::new(),
        });
        let riders: Vec<Rider> = riders.collect();
        let arguments = Arguments { positional: vec![Value::Array(items)], named: Vec::new() }.to_cbor();
        self.run_attempt(now, first, &function, Some((arguments, riders)));
    }

    /// Calls that wait in rooms go back to their lanes.
    pub(crate) fn clear_rooms(&mut self, now: Now) {
        self.timers.clear(&Timer::Batches);
        for (function, room) in std::mem::take(&mut self.rooms) {
            if let Ok(function) = function.parse() {
                self.give_list_back(now, &function, room.taken, Duration::ZERO);
            }
        }
    }

    /// A call leaves the room that it waits in, if it does.
    pub(crate) fn leave_room(&mut self, now: Now, call: CallId) {
        let found = self.rooms.values_mut().find_map(|room| {
            let at = room.taken.iter().position(|taken| taken.call == call)?;
            Some(room.taken.remove(at))
        });
        if let Some(taken) = found
            && let Ok(function) = taken.record.function.parse()
        {
            self.give_list_back(now, &function, vec![taken], Duration::ZERO);
        }
        self.rooms.retain(|_, room| !room.taken.is_empty());
        if self.rooms.is_empty() {
            self.timers.clear(&Timer::Batches);
        }
    }

    fn give_list_back(&mut self, now: Now, function: &FunctionName, list: Vec<Taken>, pause: Duration) {
        for taken in list {
            self.durable.give_back(now, function.module(), taken.call, pause);
        }
    }

    /// Tells the result of a list apart. The first call's own is given back.
    pub(crate) fn split_result(&mut self, id: CallId, success: Success) -> Result<Success, v1::Failure> {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        let calls = 1 + call.riders.len();
        let is_cbor = success.content_type.is_empty() || success.content_type == "application/cbor";
        let value = match success.payload.is_empty() {
            true => Some(Value::Null),
            false => Value::from_cbor(&success.payload).ok().filter(|_| is_cbor),
        };
        match value {
            Some(Value::Null) => {
                call.riders.iter_mut().for_each(|rider| rider.result = success.payload.clone());
                Ok(success)
            }
            Some(Value::Array(items)) if items.len() == calls => {
                let mut items = items.into_iter().map(|item| item.to_cbor());
                let first = items.next().unwrap_or_default();
                call.riders.iter_mut().zip(items).for_each(|(rider, item)| rider.result = item);
                Ok(Success { payload: first, ..success })
            }
            _ => Err(Code::FunctionError
                .because(format!(
                    "{} was called with a list of {calls}, and returned neither None nor a list as long",
                    call.function
                ))
                .hint("return one result for each item, in the same order, or nothing")),
        }
    }
}

impl Room {
    /// Whether a call belongs into the same list.
    fn goes_with(&self, record: &record::Call) -> bool {
        self.taken.first().is_some_and(|first| {
            first.record.function == record.function
                && first.record.version == record.version
                && record.failures == 0
                && KeyName::of(record).is_none()
        })
    }
}

fn only_argument(payload: &[u8]) -> Option<Value> {
    let Arguments { mut positional, mut named } = Arguments::from_cbor(payload).ok()?;
    match (positional.len(), named.len()) {
        (1, 0) => positional.pop(),
        (0, 1) => named.pop().map(|(_, value)| value),
        _ => None,
    }
}
