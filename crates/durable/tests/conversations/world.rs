//! A world for conversations with [`Durable`]: an obedient node, and a store that does as the test says.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bourse_durable::batch::{Batch, Op, Outcome, Owner, PartitionId, ReadError};
use bourse_durable::home::StateKey;
use bourse_durable::message::{Page, StorePage};
use bourse_durable::record::{self, Record, Version};
use bourse_durable::{
    Answer, Durable, Finish, Finished, LayerId, Limits, Origin, Output, Refusal, StoreAnswer, StoreRequest,
    Ticket, Token,
};
use bourse_wire::id::{Attempt, CallId, Incarnation};
use bourse_wire::time::{Mono, Now, Wall};
use bytes::Bytes;

/// The layer of call `n`, first attempt.
pub(crate) fn layer(n: u64) -> LayerId {
    LayerId { call: CallId::new(n, [0; 10]), attempt: Attempt(1) }
}

/// A key of module `shop`.
pub(crate) fn key(name: &str) -> StateKey {
    StateKey::new("shop", name).unwrap()
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it should.
    Lands,
    /// Certainly not applied.
    Fails,
    /// Applied, but nobody hears of it.
    LandsUnheard,
    /// Not applied, and nobody hears of it.
    LostUnheard,
    /// Nobody hears of it, and it lies on the way: see [`World::late`].
    Late,
}

/// Records in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) owners: BTreeMap<PartitionId, Owner>,
    pub(crate) rows: BTreeMap<(PartitionId, Bytes), Bytes>,
    /// The highest version that each key ever had.
    versions: BTreeMap<(PartitionId, Bytes), Version>,
    /// Commits and reads are refused.
    pub(crate) away: bool,
}

impl Store {
    pub(crate) fn apply(&mut self, batch: &Batch) -> Outcome {
        if self.owners.get(&batch.partition).copied() != batch.expect {
            return Outcome::Conflict;
        }
        self.owners.insert(batch.partition, batch.owner);
        for op in &batch.ops {
            match op.clone() {
                Op::Put { key, value } => {
                    let version = record::decode(&value).unwrap().version;
                    let before = self.versions.insert((batch.partition, key.clone()), version);
                    assert!(before < Some(version), "versions only grow");
                    self.rows.insert((batch.partition, key), value)
                }
                Op::Delete { key } => self.rows.remove(&(batch.partition, key)),
            };
        }
        Outcome::Committed
    }

    pub(crate) fn answer(&mut self, request: &StoreRequest) -> StoreAnswer {
        let away = || ReadError("away".to_owned());
        match request {
            StoreRequest::Commit(_) if self.away => {
                StoreAnswer::Committed(Outcome::Failed("away".to_owned()))
            }
            StoreRequest::Owner(_) if self.away => StoreAnswer::Owner(Err(away())),
            StoreRequest::Read { .. } if self.away => StoreAnswer::Read(Err(away())),
            StoreRequest::Scan { .. } if self.away => StoreAnswer::Scanned(Err(away())),
            StoreRequest::Commit(batch) => StoreAnswer::Committed(self.apply(batch)),
            StoreRequest::Owner(partition) => StoreAnswer::Owner(Ok(self.owners.get(partition).copied())),
            StoreRequest::Read { partition, key } => {
                StoreAnswer::Read(Ok(self.rows.get(&(*partition, key.clone())).cloned()))
            }
            StoreRequest::Scan { partition, start, end, rows_max, bytes_max } => {
                let mut page = StorePage::default();
                let mut bytes = 0;
                for ((_, key), value) in
                    self.rows.range((*partition, start.clone())..(*partition, end.clone()))
                {
                    if page.rows.len() == *rows_max || bytes >= *bytes_max {
                        page.more = true;
                        break;
                    }
                    bytes += key.len() + value.len();
                    page.rows.push((key.clone(), value.clone()));
                }
                StoreAnswer::Scanned(Ok(page))
            }
        }
    }
}

/// See the module.
pub(crate) struct World {
    pub(crate) durable: Durable,
    pub(crate) store: Store,
    /// Asked of the store and not answered yet.
    pub(crate) asked: VecDeque<(Token, StoreRequest)>,
    /// Batches that lie on the way.
    pub(crate) late: Vec<Batch>,
    pub(crate) now: Now,
    ancestors: BTreeMap<LayerId, Vec<LayerId>>,
    answers: BTreeMap<Ticket, Answer>,
    tickets: u64,
    lives: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self {
            durable: Durable::new(Incarnation(1), limits),
            store: Store::default(),
            asked: VecDeque::new(),
            late: Vec::new(),
            now: Now { mono: Mono(0), wall: Wall(0) },
            ancestors: BTreeMap::new(),
            answers: BTreeMap::new(),
            tickets: 0,
            lives: 1,
        }
    }

    /// Call `child` was made by `parent`.
    pub(crate) fn nest(&mut self, child: u64, parent: u64) {
        let mut ancestors = vec![layer(parent)];
        ancestors.extend(self.ancestors.get(&layer(parent)).into_iter().flatten());
        self.ancestors.insert(layer(child), ancestors);
    }

    // ---- the node

    pub(crate) fn read(&mut self, n: u64, name: &str) -> Ticket {
        let ticket = self.ticket();
        let ancestors = self.ancestors_of(n);
        self.durable.read(Origin { layer: layer(n), ancestors: &ancestors }, &key(name), ticket);
        self.pump();
        ticket
    }

    pub(crate) fn scan(&mut self, n: u64, prefix: &str, after: &str, limit: usize) -> Ticket {
        let ticket = self.ticket();
        let ancestors = self.ancestors_of(n);
        let origin = Origin { layer: layer(n), ancestors: &ancestors };
        self.durable.scan(origin, &key(prefix), after, limit, false, ticket);
        self.pump();
        ticket
    }

    pub(crate) fn try_write(&mut self, n: u64, name: &str, value: Option<Bytes>) -> Result<(), Refusal> {
        let ancestors = self.ancestors_of(n);
        let written =
            self.durable.write(Origin { layer: layer(n), ancestors: &ancestors }, &key(name), value);
        self.pump();
        written
    }

    /// The same, but checks nothing: for many of them.
    pub(crate) fn durable_write(&mut self, n: u64, name: &str, value: Option<Bytes>) -> Result<(), Refusal> {
        self.durable.write(Origin { layer: layer(n), ancestors: &[] }, &key(name), value)
    }

    pub(crate) fn write(&mut self, n: u64, name: &str, value: &str) {
        self.try_write(n, name, Some(Bytes::copy_from_slice(value.as_bytes()))).unwrap();
    }

    pub(crate) fn delete(&mut self, n: u64, name: &str) {
        self.try_write(n, name, None).unwrap();
    }

    pub(crate) fn finish(&mut self, n: u64) -> Ticket {
        let ticket = self.ticket();
        if let Finish::Now(finished) = self.durable.finish(layer(n), Vec::new(), ticket) {
            self.answers.insert(ticket, Answer::Finished(finished));
        }
        self.pump();
        ticket
    }

    pub(crate) fn abandon(&mut self, n: u64) {
        self.durable.abandon(layer(n));
        self.pump();
    }

    /// Is there an answer?
    pub(crate) fn answered(&self, ticket: Ticket) -> bool {
        self.answers.contains_key(&ticket)
    }

    pub(crate) fn answer(&self, ticket: Ticket) -> Answer {
        self.answers.get(&ticket).cloned().unwrap_or_else(|| panic!("{ticket:?} is not answered"))
    }

    pub(crate) fn record(&self, ticket: Ticket) -> Option<Record> {
        match self.answer(ticket) {
            Answer::Value(record) => record,
            other => panic!("not a value: {other:?}"),
        }
    }

    /// A read's value; "-" if there is none.
    pub(crate) fn value(&self, ticket: Ticket) -> String {
        self.record(ticket).map_or("-".to_owned(), |record| String::from_utf8(record.value.to_vec()).unwrap())
    }

    pub(crate) fn page(&self, ticket: Ticket) -> Page {
        match self.answer(ticket) {
            Answer::Page(page) => page,
            other => panic!("not a page: {other:?}"),
        }
    }

    /// A page as text: `a=1 b=2 …`, with the dots where there is more.
    pub(crate) fn rows(&self, ticket: Ticket) -> String {
        let Page { rows, more } = self.page(ticket);
        let row = |row: &bourse_durable::message::Row| {
            format!("{}={}", row.name, String::from_utf8_lossy(&row.value))
        };
        let mut texts: Vec<String> = rows.iter().map(row).collect();
        texts.extend(more.then(|| "…".to_owned()));
        texts.join(" ")
    }

    pub(crate) fn finished(&self, ticket: Ticket) -> Finished {
        match self.answer(ticket) {
            Answer::Finished(finished) => finished,
            other => panic!("not the answer to a finish: {other:?}"),
        }
    }

    // ---- the store

    /// Answers all that is asked, as it should be, until nothing is.
    pub(crate) fn serve(&mut self) {
        while let Some((token, request)) = self.asked.pop_front() {
            let answer = self.store.answer(&request);
            self.deliver(token, answer);
        }
    }

    /// Answers the reads and scans that are asked, and leaves the commits.
    pub(crate) fn serve_reads(&mut self) {
        while self.asked.iter().any(|(_, request)| !matches!(request, StoreRequest::Commit(_))) {
            let (token, request) = self.take_look();
            let answer = self.store.answer(&request);
            self.deliver(token, answer);
        }
    }

    /// Hands an answer over.
    pub(crate) fn deliver(&mut self, token: Token, answer: StoreAnswer) {
        self.durable.store_answer(self.now, token, answer);
        self.pump();
    }

    /// Takes the first request out that is a commit.
    pub(crate) fn take_commit(&mut self) -> (Token, Batch) {
        let is_commit = |(_, request): &(Token, StoreRequest)| matches!(request, StoreRequest::Commit(_));
        let at = self.asked.iter().position(is_commit).expect("a batch is in flight");
        match self.asked.remove(at) {
            Some((token, StoreRequest::Commit(batch))) => (token, batch),
            _ => unreachable!(),
        }
    }

    /// Takes the first request out that is a read or a scan.
    pub(crate) fn take_look(&mut self) -> (Token, StoreRequest) {
        let is_look = |(_, request): &(Token, StoreRequest)| {
            matches!(request, StoreRequest::Read { .. } | StoreRequest::Scan { .. })
        };
        let at = self.asked.iter().position(is_look).expect("something is looked up");
        self.asked.remove(at).unwrap()
    }

    pub(crate) fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Decides the first batch in flight.
    pub(crate) fn commit(&mut self, fate: Fate) {
        let (token, batch) = self.take_commit();
        let unheard = Outcome::Unknown("nobody heard".to_owned());
        let outcome = match fate {
            Fate::Lands => self.store.apply(&batch),
            Fate::Fails => Outcome::Failed("disk full".to_owned()),
            Fate::LandsUnheard => match self.store.apply(&batch) {
                Outcome::Committed => unheard,
                conflict => conflict,
            },
            Fate::LostUnheard => unheard,
            Fate::Late => {
                self.late.push(batch);
                unheard
            }
        };
        self.deliver(token, StoreAnswer::Committed(outcome));
    }

    /// The batches on the way arrive at the store.
    pub(crate) fn arrive(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.late).iter().map(|batch| self.store.apply(batch)).collect()
    }

    // ---- time, and the end of it

    /// Goes on to the next wake-up, and says how long that was.
    pub(crate) fn wait(&mut self) -> Duration {
        let until = self.durable.poll_timeout().expect("somebody waits");
        let waited = until.since(self.now.mono);
        self.now.mono = until.max(self.now.mono);
        self.durable.handle_timeout(self.now);
        self.pump();
        waited
    }

    /// The daemon dies and starts again. What it had asked of the store and was not done never is.
    pub(crate) fn crash(&mut self, limits: Limits) {
        self.lives += 1;
        self.durable = Durable::new(Incarnation(self.lives), limits);
        self.asked.clear();
    }

    /// One transaction that writes, served at once.
    pub(crate) fn put(&mut self, n: u64, rows: &[(&str, &str)]) {
        for (name, value) in rows {
            self.write(n, name, value);
        }
        let finish = self.finish(n);
        self.serve();
        assert_eq!(self.finished(finish), Finished::Done);
    }

    /// One transaction that reads, served at once.
    pub(crate) fn look(&mut self, n: u64, name: &str) -> (String, Version) {
        let read = self.read(n, name);
        self.serve();
        self.abandon(n);
        (self.value(read), self.record(read).map_or(Version::NONE, |record| record.version))
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn ancestors_of(&self, n: u64) -> Vec<LayerId> {
        self.ancestors.get(&layer(n)).cloned().unwrap_or_default()
    }

    fn pump(&mut self) {
        while let Some(output) = self.durable.poll() {
            match output {
                Output::Store { token, request } => self.asked.push_back((token, request)),
                Output::Known { .. } | Output::Granted { .. } | Output::Deadlock { .. } => {}
                Output::Answer { ticket, answer } => {
                    assert!(self.answers.insert(ticket, answer).is_none(), "{ticket:?} is answered twice");
                }
            }
        }
        self.durable.check_invariants();
    }
}
