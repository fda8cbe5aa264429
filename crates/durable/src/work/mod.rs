//! Durable calls: accepted once, run until they end, and ended once.
//!
//! ```text
//! node -> durable: accept, take, settle, put_back       durable -> node: Answer::Accepted, Answer::Finished
//! node -> durable: look, cancel, replay, purge          durable -> node: Answer::Seen
//! ```
//!
//! A call's home is the partition that its id names. Its record changes there, in one batch with the state that an
//! attempt has written, if that is at home in the same partition. If it is not, the batch at the state's home carries
//! an *outgoing* record with what is to be done at the call's home; it is carried over, and deleted then. What it does
//! there may be done twice without harm. Before any call is run after a start, all outgoing records are carried over:
//! so an attempt that has committed anywhere is never followed by another.
//!
//! An accepted call is in the store before anybody is told. Nothing is stored when an attempt starts: a call that was
//! accepted in another life of the node counts as redelivered.
//!
//! | file | holds |
//! |---|---|
//! | `key` | keys of the records |
//! | `lane` | the calls of one module in memory, and where there are more |
//! | [`exclusive`] | whose turn it is, of those with the same exclusive key |
//! | [`retry`] | what follows from a failed attempt |
//! | [`trigger`] | records of cron lines, and of what modules listen to |
//! | `durable/calls.rs` | what the node asks for |
//! | `durable/jobs.rs` | what that takes, step by step |

pub mod exclusive;
pub(crate) mod key;
pub(crate) mod lane;
pub mod retry;
pub mod trigger;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as record;
use bourse_wire::time::{Mono, Wall};
use bytes::Bytes;
use prost::Message as _;

use crate::batch::PartitionId;
use crate::durable::jobs::{Asker, Job, Then};
use crate::message::Ticket;
use crate::mutant::{self, Mutant};

pub use exclusive::KeyName;
pub use lane::{LATER_MAX, READY_BYTES_MAX, READY_MAX};
use record::outgoing::What;
pub use trigger::{FoundTriggers, TriggerKey, TriggerWrite};

/// Names a job of the crate's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobId(pub(crate) u64);

/// The longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// A durable call that is to be accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCall {
    /// Its id, which names its home. With an exclusive key that has to be [`exclusive::KeyName::partition`].
    pub call: CallId,
    /// The rest. Its idempotency key, unless empty, is one of the function's.
    pub record: record::Call,
}

impl NewCall {
    /// Where the records of this idempotency key are, and calls with it at home unless they have an exclusive key.
    pub fn home_of_key(module: &str, function: &str, key: &str) -> u8 {
        key::unique_home(module, function, key)
    }

    pub(crate) fn lane(&self) -> &str {
        lane_of(&self.record)
    }
}

/// A call to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// Which.
    pub call: CallId,
    /// The number of this attempt.
    pub attempt: u32,
    /// An earlier attempt may have run.
    pub redelivered: bool,
    /// Of an exclusive call: greater than that of all before with the same key. Else 0.
    pub fence: u64,
    /// The rest.
    pub record: record::Call,
}

/// What becomes of a call after an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Another attempt, not before `due`.
    Again {
        /// The call as it is now. Its `due_ms` is the same time by the wall clock, for after a restart.
        record: Box<record::Call>,
        /// Until then it waits.
        due: Mono,
    },
    /// It goes on as a call of another function, which is this, and is to be run.
    Tail(Box<record::Call>),
    /// It has ended.
    Ended(Box<record::Ended>),
}

/// How a call stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// There is no such call, or none any more.
    Nothing,
    /// It has not ended.
    Live {
        /// As it is stored.
        record: Box<record::Call>,
        /// An attempt is on its way.
        running: bool,
        /// When the next attempt is due, if that is not now.
        due: Option<Mono>,
    },
    /// It has ended.
    Ended(Box<record::Ended>),
}

/// A lane, to be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneView<'a> {
    /// The module.
    pub lane: &'a str,
    /// In memory, ready to be run, or waiting for their exclusive keys.
    pub ready: usize,
    /// In memory, waiting for another attempt.
    pub later: usize,
    /// Being run.
    pub running: usize,
    /// There are more in the store.
    pub more: bool,
}

/// Work for a partition that is to be done there once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) call: CallId,
    pub(crate) what: record::outgoing::What,
    /// Its unique key is known to be its own; or it has none.
    pub(crate) unique_is_own: bool,
}

/// What a piece of work is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Matter {
    /// The call is to be accepted.
    Accept,
    /// It has ended.
    End,
    /// It goes on with this step.
    Tail(u64),
}

/// Which outgoing record holds a piece of work, as long as it is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outgoing {
    /// Where it is.
    pub(crate) from: PartitionId,
    /// Where it is to be done.
    pub(crate) to: PartitionId,
    pub(crate) call: CallId,
    pub(crate) matter: Matter,
}

impl Piece {
    pub(crate) fn accept(new: NewCall) -> Self {
        let unique_is_own = new.record.idempotency_key.is_empty();
        Self { call: new.call, what: What::Accept(new.record), unique_is_own }
    }

    pub(crate) fn end(call: CallId, ended: record::Ended) -> Self {
        Self { call, what: What::End(ended), unique_is_own: true }
    }

    pub(crate) fn tail(call: CallId, record: record::Call) -> Self {
        Self { call, what: What::Tail(record), unique_is_own: true }
    }

    /// Where it is to be done: a call whose unique key somebody else may have is accepted where that key is.
    pub(crate) fn to(&self) -> PartitionId {
        match &self.what {
            What::Accept(record) if !self.unique_is_own => PartitionId(key::unique_home_of(record)),
            _ => key::home(self.call),
        }
    }

    /// Whether its home does it, and this is it.
    pub(crate) fn is_at_home(&self, at: PartitionId) -> bool {
        self.unique_is_own && key::home(self.call) == at
    }

    pub(crate) fn outgoing(&self, from: PartitionId) -> Outgoing {
        let matter = match &self.what {
            What::Accept(_) => Matter::Accept,
            What::End(_) => Matter::End,
            What::Tail(record) => Matter::Tail(record.step),
        };
        Outgoing { from, to: self.to(), call: self.call, matter }
    }

    pub(crate) fn is_accept(&self) -> bool {
        matches!(self.what, What::Accept(_))
    }

    /// The lane of the call that it is about.
    pub(crate) fn lane(&self) -> &str {
        match &self.what {
            What::Accept(record) | What::Tail(record) => lane_of(record),
            What::End(ended) => lane_of_function(&ended.function),
        }
    }
}

/// All durable calls of one node.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) lanes: BTreeMap<String, lane::Lane>,
    pub(crate) keys_held: exclusive::Keys,
    /// Those whose turn it is, and that can't be told before their key's partition is ours.
    pub(crate) turns_held: Vec<(KeyName, CallId)>,
    /// Partitions that are being acquired for exclusive keys.
    pub(crate) owning: BTreeSet<PartitionId>,
    /// The last fence that was given out.
    pub(crate) fences: u64,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    jobs_made: u64,
    /// Calls that have left memory while something is being read, and the last job made by then: what earlier jobs read of
    /// them may no longer be so.
    left: BTreeMap<CallId, JobId>,
    /// Reads on their way.
    looking: BTreeSet<JobId>,
    /// Idempotency keys that are being looked up or written, and who waits for it.
    pub(crate) keys: BTreeMap<Bytes, VecDeque<(NewCall, Asker)>>,
    /// Partitions to recover, and whether their outgoing records still are to be read.
    pub(crate) recovery: Recovery,
    /// Questions about calls that were not found, before all lanes were known or while they moved.
    pub(crate) early: Vec<(CallId, Then, Ticket)>,
    /// Jobs to be tried again, each at its time.
    pub(crate) again: BTreeMap<(Mono, JobId), Job>,
    /// Partitions of which nobody knows whether a batch landed, and the calls that it concerned.
    pub(crate) unsure: BTreeMap<PartitionId, BTreeSet<(String, CallId)>>,
    /// Calls that are being stored, or of which it is not known whether they are: a page that shows one of them comes
    /// too early, since whoever stores it puts it into its lane.
    pub(crate) arriving: BTreeSet<CallId>,
    /// Outgoing records that somebody takes care of: they are being written, carried over, or deleted.
    pub(crate) carried: BTreeSet<Outgoing>,
    /// What still has to be carried over before a doubt is over.
    pub(crate) doubts_open: BTreeMap<PartitionId, usize>,
    /// Dead letters that are being replayed or purged.
    pub(crate) busy: BTreeSet<CallId>,
    /// A lower bound on the ended calls and idempotency keys of each partition that has some.
    pub(crate) ended: BTreeMap<PartitionId, CallId>,
    pub(crate) sweep_at: Option<Mono>,
    /// Idempotency keys that were written while the sweep goes on.
    pub(crate) sweeping: Option<BTreeSet<Bytes>>,
    /// What is known of triggers, as far as it is.
    pub(crate) triggers: trigger::Search,
    /// The time, as it was last told.
    pub(crate) now: Mono,
    pub(crate) wall: Wall,
}

/// How far recovery has come.
#[derive(Debug, Default)]
pub(crate) enum Recovery {
    /// Not begun.
    #[default]
    Waits,
    /// Outgoing records are being carried over: partitions to be read, and those being read or carried.
    Outgoing { left: Vec<PartitionId>, open: usize },
    /// Lanes are being found.
    Lanes { left: Vec<PartitionId>, open: usize },
    /// Over.
    Done,
}

/// Where records of calls are in a partition: ranges of keys, their ends excluded.
pub fn ranges() -> [(Bytes, Bytes); 3] {
    let all_dead = (Bytes::from_static(b"d"), Bytes::from_static(b"e"));
    [key::lanes_after(""), key::all_ended(), all_dead]
}

/// Whether a record of a partition is one of a trigger.
pub fn is_trigger(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(key::CRON | key::LISTENS)))
}

/// A record of a call as it is stored; `None` if it is none, or of a release that this one does not know.
pub fn read_row(key: &[u8], stored: &Bytes) -> Option<(CallId, Seen)> {
    let value = crate::record::decode(stored).ok()?.value;
    if let Some((_, call)) = key::parse_live(key) {
        let record = Box::new(record::Call::decode(value).ok()?);
        return Some((call, Seen::Live { record, running: false, due: None }));
    }
    let call = key::parse_ended(key).or_else(|| key::parse_dead(key))?;
    Some((call, Seen::Ended(Box::new(record::Ended::decode(value).ok()?))))
}

/// The call that a record is of, by its key alone.
pub fn call_of(key: &[u8]) -> Option<CallId> {
    let live = key::parse_live(key).map(|(_, call)| call);
    live.or_else(|| key::parse_ended(key)).or_else(|| key::parse_dead(key))
}

/// So many calls that have left are remembered before those are forgotten that no read needs any more.
const LEFT_TRIMMED: usize = 1024;

/// What a call stands in line with.
pub(crate) fn lane_of(record: &record::Call) -> &str {
    bourse_wire::id::lane_of(&record.function)
}

pub(crate) fn lane_of_function(function: &str) -> &str {
    bourse_wire::id::lane_of(function)
}

impl Work {
    pub(crate) fn job(&mut self, job: Job) -> JobId {
        self.jobs_made += 1;
        let id = JobId(self.jobs_made);
        self.jobs.insert(id, job);
        id
    }

    /// What the next one will be called.
    pub(crate) fn next_job(&self) -> JobId {
        JobId(self.jobs_made + 1)
    }

    /// Does a job over, later.
    pub(crate) fn job_again(&mut self, after: Duration, job: Job) {
        self.jobs_made += 1;
        self.again.insert((self.now + after, JobId(self.jobs_made)), job);
    }

    pub(crate) fn lane(&mut self, name: &str) -> &mut lane::Lane {
        if !self.lanes.contains_key(name) {
            self.lanes.insert(name.to_owned(), lane::Lane::default());
        }
        self.lanes.get_mut(name).expect("it was just put there")
    }

    /// A job that reads.
    pub(crate) fn look(&mut self, job: Job) -> JobId {
        let id = self.job(job);
        self.looking.insert(id);
        id
    }

    /// It is over, and what it said has been dealt with.
    pub(crate) fn look_ends(&mut self, id: JobId) {
        self.looking.remove(&id);
        match self.looking.first() {
            Some(&oldest) if self.left.len() > LEFT_TRIMMED => self.left.retain(|_, last| *last >= oldest),
            Some(_) => {}
            None => self.left.clear(),
        }
    }

    /// A call is no longer in memory.
    pub(crate) fn leaves(&mut self, call: CallId) {
        if !self.looking.is_empty() {
            self.left.insert(call, JobId(self.jobs_made));
        }
    }

    /// Whether a call has left memory since this job began to read.
    pub(crate) fn has_left_since(&self, call: CallId, job: JobId) -> bool {
        !mutant::is(Mutant::StalePages) && self.left.get(&call).is_some_and(|last| *last >= job)
    }

    /// A call in memory.
    pub(crate) fn find(&self, call: CallId) -> Option<(&str, &lane::Entry, bool, Option<Mono>)> {
        let in_lane = self.lanes.iter().find_map(|(name, lane)| {
            lane.find(call).map(|(entry, running, due)| (name.as_str(), entry, running, due))
        });
        let parked =
            || self.keys_held.find(call).map(|entry| (lane_of(&entry.record), entry, false, entry.due));
        in_lane.or_else(parked)
    }

    /// Whether calls at home there may be in the store only.
    pub(crate) fn is_unread(&self, partition: PartitionId) -> bool {
        !matches!(self.recovery, Recovery::Done) || self.lanes.values().any(|lane| lane.is_unread(partition))
    }

    /// A call that is new in the store.
    pub(crate) fn add(&mut self, call: CallId, entry: lane::Entry) {
        let lane = self.lane(lane_of(&entry.record));
        match lane.welcomes() {
            true => self.offer(call, entry),
            false => lane.look_from(call),
        }
    }

    /// A call that is in the store comes into memory, whatever room there is: it may be run, or it waits for its time or
    /// its key.
    pub(crate) fn offer(&mut self, call: CallId, entry: lane::Entry) {
        match KeyName::of(&entry.record) {
            Some(name) if !entry.is_delayed() && !self.keys_held.holds(&name, call) => {
                self.keys_held.park(&name, call, entry, self.is_unread(name.partition()));
            }
            _ => self.lane(lane_of(&entry.record)).admit(call, entry),
        }
    }

    /// The same, of a page. `false`: there is no room for it, or for any after it.
    pub(crate) fn load(&mut self, call: CallId, entry: lane::Entry) -> bool {
        match KeyName::of(&entry.record) {
            Some(name) if !entry.is_delayed() && !self.keys_held.holds(&name, call) => {
                self.keys_held.park(&name, call, entry, self.is_unread(name.partition()));
                true
            }
            _ => self.lane(lane_of(&entry.record)).load(call, entry),
        }
    }

    /// A taken call waits again, until `due`.
    pub(crate) fn put_back(&mut self, lane: &str, call: CallId, due: Option<Mono>) {
        let entry = self.lanes.get_mut(lane).and_then(|lane| lane.taken_mut(call));
        let Some(name) = entry.map(|entry| KeyName::of(&entry.record)) else { return };
        if name.is_none_or(|name| self.keys_held.holds(&name, call)) {
            return self.lane(lane).put_back(call, due);
        }
        // It was taken for something else than to be run.
        if let Some(entry) = self.lane(lane).remove_taken(call) {
            self.offer(call, entry);
        }
    }

    /// Takes a certain call that waits, to do something with it.
    pub(crate) fn seize(&mut self, lane: &str, call: CallId) -> bool {
        if let Some(entry) = self.keys_held.take_parked(call) {
            self.lane(lane).seize_new(call, entry);
            return true;
        }
        self.lane(lane).seize(call)
    }

    /// A call has ended: it is no longer in memory, wherever it was, and its key is free.
    pub(crate) fn forget(&mut self, lane: &str, call: CallId, name: Option<&KeyName>) {
        self.lane(lane).forget(call);
        if let Some(name) = name {
            self.keys_held.ended(name, call);
        }
    }

    /// Nobody knows whether it has ended: the store is asked.
    pub(crate) fn lose(&mut self, lane: &str, call: CallId) {
        let name = self.find(call).and_then(|(_, entry, ..)| KeyName::of(&entry.record));
        self.lane(lane).forget(call);
        if let Some(name) = name {
            self.keys_held.lose(&name, call);
        }
    }

    /// Something has ended in this call's home.
    pub(crate) fn note_ended(&mut self, call: CallId, kept: Duration) {
        self.note_unique(key::home(call), call, kept);
    }

    /// This partition has a record that is to be deleted some time after the call was made.
    pub(crate) fn note_unique(&mut self, partition: PartitionId, call: CallId, kept: Duration) {
        let oldest = self.ended.entry(partition).or_insert(call);
        *oldest = call.min(*oldest);
        let at = self.now + kept;
        self.sweep_at = Some(self.sweep_at.map_or(at, |old| old.min(at)));
    }

    /// A wall clock time as a monotonic one: `None` if it is over. No clock that jumps makes it longer than `most`.
    pub(crate) fn due(&self, due_ms: u64, most: Duration) -> Option<Mono> {
        let left = Duration::from_millis(due_ms.saturating_sub(self.wall.0)).min(most);
        (!left.is_zero()).then(|| self.now + left)
    }
}
