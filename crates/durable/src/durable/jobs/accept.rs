//! Accepting: a unique key is looked up where its record is, then the call is written; there, if that is its home, else
//! with a record that carries it home.

use std::collections::VecDeque;
use std::time::Duration;

use bourse_wire::id::CallId;
use bourse_wire::options::Window;
use bourse_wire::record::v1 as stored;
use bourse_wire::time::Mono;
use bytes::Bytes;
use prost::Message as _;

use super::{AGAIN, Asker, Cause, Durable, Job, Then, encode};
use crate::batch::{PartitionId, ReadError};
use crate::layer::Layer;
use crate::message::{Answer, Finished, Ticket};
use crate::mutant::{self, Mutant};
use crate::outbox::Who;
use crate::work::lane::Entry;
use crate::work::{NewCall, Piece, Seen, key, lane_of};

/// Before a key is looked up again whose call is just being stored.
const SOON: Duration = Duration::from_millis(10);

impl Durable {
    /// Accepts a call whose unique key another one may have.
    pub(in crate::durable) fn accept_unique(&mut self, new: NewCall, by: Asker) {
        let unique = key::unique_of(&new.record);
        if let Some(waiting) = self.work.keys.get_mut(&unique) {
            waiting.push_back((new, by));
            return;
        }
        let is_carried = matches!(by, Asker::Carried(..));
        if mutant::is(Mutant::KeyNotLookedUp) || (is_carried && mutant::is(Mutant::UniqueNotCarried)) {
            return self.commit_accept(new, Some(unique), by);
        }
        self.work.keys.insert(unique.clone(), VecDeque::from([(new, by)]));
        self.look_up(unique);
    }

    pub(in crate::durable) fn commit_accept(&mut self, new: NewCall, unique: Option<Bytes>, by: Asker) {
        let at = match &unique {
            Some(_) => PartitionId(key::unique_home_of(&new.record)),
            None => key::home(new.call),
        };
        let piece = Piece { unique_is_own: true, ..Piece::accept(new.clone()) };
        let mut layer = Layer::bare(at);
        self.put_piece(&mut layer, &piece);
        if let Some(unique) = &unique {
            let value = stored::Unique {
                call: new.call.to_wire(),
                accepted_ms: new.record.accepted_ms,
                unique_ms: new.record.unique_ms,
            };
            layer.set(unique.clone(), Some(encode(&value)));
            self.work.sweeping.iter_mut().for_each(|swept| _ = swept.insert(unique.clone()));
        }
        if let Err(refusal) = layer.fits() {
            self.never_arrive(&[piece], at);
            self.not_accepted(new, by, Finished::Refused(refusal));
            return;
        }
        if mutant::is(Mutant::AcceptedEarly) {
            self.is_accepted(&new, new.call, &by);
        }
        self.commit_job(layer, Job::Accept { new, unique, by });
    }

    pub(super) fn on_accept(&mut self, new: NewCall, unique: Option<Bytes>, by: Asker, finished: Finished) {
        let call = new.call;
        let at = unique.as_ref().map_or(key::home(call), |_| PartitionId(key::unique_home_of(&new.record)));
        let piece = Piece { unique_is_own: true, ..Piece::accept(new.clone()) };
        match finished {
            Finished::Done => {
                if !mutant::is(Mutant::AcceptedEarly) {
                    self.is_accepted(&new, call, &by);
                }
                if unique.is_some() {
                    self.work.note_unique(at, call, self.limits.ended_kept);
                }
                self.spread(vec![piece], at);
                if let Some(unique) = unique {
                    self.key_is(unique, call);
                }
            }
            not => {
                match &not {
                    Finished::Unknown(_) => {
                        self.doubt_pieces(vec![piece], at, Some((new.lane().to_owned(), call)))
                    }
                    _ => self.never_arrive(&[piece], at),
                }
                if !mutant::is(Mutant::AcceptedEarly) {
                    self.not_accepted(new, by, not);
                }
                if let Some(unique) = unique {
                    // Who waits for the same key tries for itself.
                    self.key_is_free(unique);
                }
            }
        }
    }

    /// A call, or the one that has its unique key, is in the store.
    fn is_accepted(&mut self, new: &NewCall, call: CallId, by: &Asker) {
        match *by {
            Asker::Node(ticket) => {
                let first = new.call == call;
                self.outbox.answer(Who::Node(ticket), Answer::Accepted { call, first });
            }
            Asker::Carried(from, cause) => {
                let piece = Piece::accept(new.clone());
                match new.call == call {
                    true => self.clear(piece.outgoing(from), cause),
                    false => self.join(piece, call, from, cause),
                }
            }
        }
    }

    fn not_accepted(&mut self, new: NewCall, by: Asker, finished: Finished) {
        match by {
            Asker::Node(ticket) => self.outbox.answer(Who::Node(ticket), Answer::Finished(finished)),
            Asker::Carried(from, cause) => {
                self.work.job_again(AGAIN, Job::Carry { piece: Piece::accept(new), from, cause });
            }
        }
    }

    /// Another call has the unique key of this one, which a function has made: whoever asks for this one is told of that.
    fn join(&mut self, piece: Piece, other: CallId, from: PartitionId, cause: Cause) {
        let stored::outgoing::What::Accept(record) = &piece.what else { return };
        let ended = stored::Ended {
            status: stored::ended::Status::Joined.into(),
            function: record.function.clone(),
            accepted_ms: record.accepted_ms,
            ended_ms: self.work.wall.0,
            joined: other.to_wire(),
            ..Default::default()
        };
        let mut layer = Layer::bare(key::home(piece.call));
        layer.set(key::ended(piece.call), Some(encode(&ended)));
        self.commit_job(layer, Job::Join { piece, from, cause });
    }

    pub(super) fn on_joined(&mut self, piece: &Piece, from: PartitionId, cause: Cause) {
        self.is_there(piece.call);
        self.work.note_ended(piece.call, self.limits.ended_kept);
        self.outbox.known(piece.call);
        self.clear(piece.outgoing(from), cause);
    }

    /// A call that is carried over was not joined with another: all over again.
    pub(super) fn join_again(&mut self, piece: Piece, from: PartitionId, cause: Cause) {
        if let stored::outgoing::What::Accept(record) = piece.what {
            self.accept_unique(NewCall { call: piece.call, record }, Asker::Carried(from, cause));
        }
    }

    /// Reads which call has the key.
    pub(super) fn look_up(&mut self, unique: Bytes) {
        let (first, _) = self.work.keys[&unique].front().expect("a key is looked up for somebody");
        let home = PartitionId(key::unique_home_of(&first.record));
        self.read_row(home, unique.clone(), Job::LookUp { unique });
    }

    pub(super) fn on_key(&mut self, unique: Bytes, found: Result<Option<Bytes>, ReadError>) {
        let found = match found {
            Err(ReadError(text)) => return self.key_failed(unique, &text),
            Ok(found) => found.and_then(|bytes| stored::Unique::decode(bytes).ok()),
        };
        let holder = found.filter(|row| !self.is_key_over(row));
        match holder.and_then(|row| Some((CallId::from_wire(&row.call)?, row.unique_ms))) {
            Some((call, Window::UNTIL_RUN_MS..)) => self.find(call, Then::Holds(unique), Ticket(0)),
            Some((call, _)) => self.key_is(unique, call),
            None => self.key_goes_on(unique),
        }
    }

    /// How the call stands that has a key until it is run, or has ended.
    pub(super) fn on_holder(&mut self, unique: Bytes, call: CallId, seen: Seen) {
        let (first, _) = self.work.keys[&unique].front().expect("a key is looked up for somebody");
        // A call that is carried over twice has its own key.
        let is_own = first.call == call;
        let until_run = first.record.unique_ms == Window::UNTIL_RUN_MS;
        let arrives = self.work.arriving.contains(&call);
        match seen {
            _ if is_own => self.key_is(unique, call),
            _ if until_run && arrives => self.work.job_again(SOON, Job::LookUp { unique }),
            Seen::Live { record, running: false, due } if until_run && record.attempts == 0 => {
                self.replace(unique, call, *record, due);
            }
            Seen::Live { .. } if until_run => self.key_goes_on(unique),
            Seen::Live { .. } => self.key_is(unique, call),
            // It is on its way home.
            Seen::Nothing if self.work.arriving.contains(&call) => self.key_is(unique, call),
            Seen::Ended(_) | Seen::Nothing => self.key_goes_on(unique),
        }
    }

    /// A call that has not been run becomes the last of those that want its key.
    fn replace(&mut self, unique: Bytes, call: CallId, record: stored::Call, due: Option<Mono>) {
        let (last, _) = self.work.keys[&unique].back().expect("a key is looked up for somebody");
        let most = match record.debounce_max_ms {
            0 => u64::MAX,
            max => record.accepted_ms.saturating_add(max),
        };
        let due_ms = if due.is_some() { last.record.due_ms.min(most) } else { record.due_ms };
        let new = stored::Call {
            due_ms,
            pause_ms: due_ms.saturating_sub(self.work.wall.0).max(1),
            ..last.record.clone()
        };
        let new = stored::Call { accepted_ms: record.accepted_ms, ..new };
        let lane = lane_of(&record).to_owned();
        if !self.work.seize(&lane, call) {
            self.work.lane(&lane).seize_new(call, Entry::new(record, due));
        }
        let mut layer = Layer::bare(key::home(call));
        layer.set(key::live(&lane, call), Some(encode(&new)));
        self.commit_job(layer, Job::Replace { unique, call, record: Box::new(new), due });
    }

    pub(super) fn on_replaced(
        &mut self,
        unique: Bytes,
        (call, record): (CallId, stored::Call),
        before: Option<Mono>,
        finished: &Finished,
    ) {
        let lane = lane_of(&record).to_owned();
        let due = if *finished == Finished::Done { self.due(&record) } else { before };
        if let Some(entry) = self.work.lane(&lane).taken_mut(call) {
            entry.due = due;
            if *finished == Finished::Done {
                entry.record = record;
            }
        }
        match finished {
            Finished::Unknown(_) => self.begin_doubt(key::home(call), [(lane, call)]),
            _ => self.work.put_back(&lane, call, due),
        }
        match finished {
            Finished::Done => self.key_is(unique, call),
            not => self.key_failed(unique, &format!("{not:?}")),
        }
        self.pump_keys();
    }

    /// Nobody has the key: the first who waits for it is accepted.
    fn key_goes_on(&mut self, unique: Bytes) {
        let waiting = self.work.keys.get_mut(&unique).expect("a key is looked up for somebody");
        if let Some((new, by)) = waiting.pop_front() {
            self.commit_accept(new, Some(unique), by);
        }
    }

    /// It is not known who has the key.
    pub(super) fn key_failed(&mut self, unique: Bytes, why: &str) {
        for (new, by) in self.work.keys.remove(&unique).unwrap_or_default() {
            self.not_accepted(new, by, Finished::StoreFailed(why.to_owned()));
        }
    }

    /// The key is a call's: all who wait for it are told.
    fn key_is(&mut self, unique: Bytes, call: CallId) {
        for (new, by) in self.work.keys.remove(&unique).unwrap_or_default() {
            match by {
                Asker::Carried(from, cause) if new.call == call => {
                    self.has_arrived(&Piece::accept(new), from, cause);
                }
                by => self.is_accepted(&new, call, &by),
            }
        }
    }

    /// Nobody got it, as far as is known: the next one tries.
    fn key_is_free(&mut self, unique: Bytes) {
        match self.work.keys.get(&unique) {
            Some(waiting) if !waiting.is_empty() => self.look_up(unique),
            _ => _ = self.work.keys.remove(&unique),
        }
    }

    fn is_key_over(&self, row: &stored::Unique) -> bool {
        match row.unique_ms {
            0 => self.is_over(row.accepted_ms),
            Window::UNTIL_RUN_MS.. => false,
            ms => row.accepted_ms.saturating_add(ms) <= self.work.wall.0,
        }
    }

    /// Whether the record of a unique key is of no use any more.
    pub(super) fn is_key_to_sweep(&self, row: &stored::Unique) -> bool {
        let lives = || CallId::from_wire(&row.call).is_some_and(|call| self.work.find(call).is_some());
        match row.unique_ms {
            Window::UNTIL_RUN_MS.. => self.is_over(row.accepted_ms) && !lives(),
            _ => self.is_key_over(row),
        }
    }

    pub(super) fn is_over(&self, since_ms: u64) -> bool {
        let kept = u64::try_from(self.limits.ended_kept.as_millis()).unwrap_or(u64::MAX);
        since_ms.saturating_add(kept) <= self.work.wall.0
    }

    /// A call that is new in the store comes into memory, or is looked for later.
    pub(super) fn came(&mut self, call: CallId, record: stored::Call) {
        let due = self.due(&record);
        self.work.add(call, Entry::new(record, due));
    }
}
