//! Keys of the records of durable calls; `proto/bourse/v1/record.proto` lists them and what they hold.

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as record;
use bytes::{Bytes, BytesMut};

use crate::batch::PartitionId;
use crate::work::exclusive::KeyName;
use crate::work::{Matter, Outgoing, TriggerKey};

const LIVE: u8 = b'c';
const ENDED: u8 = b't';
const DEAD: u8 = b'd';
const UNIQUE: u8 = b'u';
pub(crate) const CRON: u8 = b'k';
pub(crate) const LISTENS: u8 = b'b';
const OUTGOING: u8 = b'o';
const EXCLUSIVE: u8 = b'x';
const ID_BYTES: usize = 16;

/// A range of keys, the end excluded.
pub(crate) type Between = (Bytes, Bytes);

/// The partition that a call is at home in.
pub(crate) fn home(call: CallId) -> PartitionId {
    PartitionId(call.home())
}

/// A call that has not ended.
pub(crate) fn live(lane: &str, call: CallId) -> Bytes {
    joined(&[&[LIVE], lane.as_bytes(), &[0], call.as_bytes()])
}

/// A call that is done or cancelled.
pub(crate) fn ended(call: CallId) -> Bytes {
    joined(&[&[ENDED], call.as_bytes()])
}

/// A dead letter.
pub(crate) fn dead(call: CallId) -> Bytes {
    joined(&[&[DEAD], call.as_bytes()])
}

/// An idempotency key of a function.
pub(crate) fn unique(module: &str, function: &str, key: &str) -> Bytes {
    joined(&[&[UNIQUE], module.as_bytes(), &[0], function.as_bytes(), &[0], key.as_bytes()])
}

/// How far a cron line has come.
pub(crate) fn cron(module: &str, function: &str, line: &str) -> Bytes {
    joined(&[&[CRON], module.as_bytes(), &[0], function.as_bytes(), &[0], line.as_bytes()])
}

/// What a module listens to.
pub(crate) fn listens(module: &str) -> Bytes {
    joined(&[&[LISTENS], module.as_bytes()])
}

/// A record that is never there: deleting it changes nothing.
pub(crate) fn probe() -> Bytes {
    Bytes::from_static(b"p")
}

/// The idempotency key of a call that has one.
pub(crate) fn unique_of(record: &record::Call) -> Bytes {
    let (module, function) = record.function.rsplit_once('.').unwrap_or_default();
    unique(module, function, &record.idempotency_key)
}

/// Where its record is.
pub(crate) fn unique_home_of(record: &record::Call) -> u8 {
    let (module, function) = record.function.rsplit_once('.').unwrap_or_default();
    unique_home(module, function, &record.idempotency_key)
}

/// Where the record of an idempotency key is.
pub(crate) fn unique_home(module: &str, function: &str, key: &str) -> u8 {
    blake3::hash(&unique(module, function, key)).as_bytes()[0]
}

/// Work for another partition that concerns a call. The same partition may have several pieces for one call, one while
/// the record of the other is still being deleted.
pub(crate) fn outgoing(of: &Outgoing) -> Bytes {
    let head: [&[u8]; 2] = [&[OUTGOING, of.to.0], of.call.as_bytes()];
    match of.matter {
        Matter::Accept => joined(&[head[0], head[1], b"a"]),
        Matter::End => joined(&[head[0], head[1], b"e"]),
        Matter::Tail(step) => joined(&[head[0], head[1], b"t", &step.to_be_bytes()]),
    }
}

/// A call that waits for its exclusive key, or holds it.
pub(crate) fn exclusive(name: &KeyName, call: CallId) -> Bytes {
    joined(&[&[EXCLUSIVE], name.module().as_bytes(), &[0], name.key().as_bytes(), &[0], call.as_bytes()])
}

/// All calls with an exclusive key, from one on.
pub(crate) fn exclusive_from(name: &KeyName, call: CallId) -> Between {
    let end = joined(&[&[EXCLUSIVE], name.module().as_bytes(), &[0], name.key().as_bytes(), &[1]]);
    (exclusive(name, call), end)
}

/// The id in such a key.
pub(crate) fn parse_exclusive(key: &[u8]) -> Option<CallId> {
    let rest = key.strip_prefix(&[EXCLUSIVE])?;
    CallId::from_wire(rest.get(rest.len().checked_sub(ID_BYTES)?..)?)
}

/// The calls of a lane, from one on.
pub(crate) fn lane_from(lane: &str, call: CallId) -> Between {
    (live(lane, call), joined(&[&[LIVE], lane.as_bytes(), &[1]]))
}

/// What lies beyond a lane: the next lanes. An empty lane is before the first.
pub(crate) fn lanes_after(lane: &str) -> Between {
    let start = if lane.is_empty() { joined(&[&[LIVE]]) } else { joined(&[&[LIVE], lane.as_bytes(), &[1]]) };
    (start, joined(&[&[LIVE + 1]]))
}

/// The ended calls that were made before `call`.
pub(crate) fn ended_before(call: CallId) -> Between {
    (joined(&[&[ENDED]]), ended(call))
}

/// All ended calls, and all idempotency keys.
pub(crate) fn all_ended_and_unique() -> Between {
    (joined(&[&[ENDED]]), joined(&[&[UNIQUE + 1]]))
}

/// All ended calls.
pub(crate) fn all_ended() -> Between {
    (joined(&[&[ENDED]]), joined(&[&[ENDED + 1]]))
}

/// All idempotency keys after one.
pub(crate) fn all_unique(after: &Bytes) -> Between {
    let start = if after.is_empty() { joined(&[&[UNIQUE]]) } else { joined(&[after, &[0]]) };
    (start, joined(&[&[UNIQUE + 1]]))
}

/// All work for other partitions, after one.
pub(crate) fn all_outgoing(after: &Bytes) -> Between {
    let start = if after.is_empty() { joined(&[&[OUTGOING]]) } else { joined(&[after, &[0]]) };
    (start, joined(&[&[OUTGOING + 1]]))
}

/// All records of a kind of trigger, after one.
pub(crate) fn all_triggers(kind: u8, after: &Bytes) -> Between {
    let start = if after.is_empty() { joined(&[&[kind]]) } else { joined(&[after, &[0]]) };
    (start, joined(&[&[kind + 1]]))
}

/// Which trigger a record is of.
pub(crate) fn parse_trigger(key: &[u8]) -> Option<TriggerKey> {
    let (kind, rest) = key.split_first()?;
    let rest = std::str::from_utf8(rest).ok()?;
    match *kind {
        LISTENS => Some(TriggerKey::Listens { module: rest.to_owned() }),
        CRON => {
            let mut parts = rest.splitn(3, '\0').map(str::to_owned);
            Some(TriggerKey::Cron { module: parts.next()?, function: parts.next()?, line: parts.next()? })
        }
        _ => None,
    }
}

/// The lane and id in a live call's key.
pub(crate) fn parse_live(key: &[u8]) -> Option<(&str, CallId)> {
    let rest = key.strip_prefix(&[LIVE])?;
    let (lane, id) = rest.split_at_checked(rest.len().checked_sub(ID_BYTES)?)?;
    let lane = std::str::from_utf8(lane.strip_suffix(&[0])?).ok()?;
    Some((lane, CallId::from_wire(id)?))
}

/// The id in an ended call's key.
pub(crate) fn parse_ended(key: &[u8]) -> Option<CallId> {
    CallId::from_wire(key.strip_prefix(&[ENDED])?)
}

/// The id in a dead letter's key.
pub(crate) fn parse_dead(key: &[u8]) -> Option<CallId> {
    CallId::from_wire(key.strip_prefix(&[DEAD])?)
}

/// Where the work is to be done, for which call, and which.
pub(crate) fn parse_outgoing(from: PartitionId, key: &[u8]) -> Option<Outgoing> {
    let (to, rest) = key.strip_prefix(&[OUTGOING])?.split_first()?;
    let (id, matter) = rest.split_at_checked(ID_BYTES)?;
    let matter = match matter.split_first()? {
        (b'a', []) => Matter::Accept,
        (b'e', []) => Matter::End,
        (b't', step) => Matter::Tail(u64::from_be_bytes(step.try_into().ok()?)),
        _ => return None,
    };
    Some(Outgoing { from, to: PartitionId(*to), call: CallId::from_wire(id)?, matter })
}

fn joined(parts: &[&[u8]]) -> Bytes {
    let mut key = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        // Golden: a change of these loses sight of everything that is stored.
        let call = CallId::new(1, [2; 10]).at(7);
        let id = [0, 0, 0, 0, 0, 1, 0x72, 2, 0x82, 2, 2, 2, 2, 2, 2, 7];
        assert_eq!(&live("shop", call)[..], [b"cshop\0", &id[..]].concat());
        assert_eq!(&ended(call)[..], [b"t", &id[..]].concat());
        assert_eq!(&dead(call)[..], [b"d", &id[..]].concat());
        assert_eq!(&unique("shop", "pay", "k")[..], b"ushop\0pay\0k");
        let (from, to) = (PartitionId(1), PartitionId(9));
        let of = |matter| Outgoing { from, to, call, matter };
        assert_eq!(&outgoing(&of(Matter::Accept))[..], [b"o\x09", &id[..], b"a"].concat());
        assert_eq!(&outgoing(&of(Matter::End))[..], [b"o\x09", &id[..], b"e"].concat());
        let tail = of(Matter::Tail(258));
        assert_eq!(&outgoing(&tail)[..], [b"o\x09", &id[..], b"t\0\0\0\0\0\0\x01\x02"].concat());
        let name = KeyName::new("shop", "k").unwrap();
        assert_eq!(&exclusive(&name, call)[..], [b"xshop\0k\0", &id[..]].concat());
        assert_eq!(parse_exclusive(&exclusive(&name, call)), Some(call));
        assert_eq!(parse_outgoing(from, &outgoing(&tail)), Some(tail));
        assert_eq!(parse_live(&live("shop", call)), Some(("shop", call)));
        assert_eq!(parse_ended(&ended(call)), Some(call));
        assert_eq!(parse_outgoing(from, &outgoing(&of(Matter::End))), Some(of(Matter::End)));
        assert_eq!(
            (parse_live(b"cshop\0"), parse_live(b"c"), parse_outgoing(from, b"o")),
            (None, None, None)
        );
    }

    #[test]
    fn a_lane_holds_its_own_calls_only() {
        let call = |ms| CallId::new(ms, [0; 10]);
        let (start, end) = lane_from("a", call(5));
        let within = |key: Bytes| start <= key && key < end;
        assert!(within(live("a", call(5))) && within(live("a", call(u64::from(u32::MAX)))));
        assert!(!within(live("a", call(4))) && !within(live("ab", call(9))) && !within(live("b", call(9))));
        let (next, _) = lanes_after("a");
        assert!(live("a", call(9)) < next && next < live("ab", call(0)));
    }
}
