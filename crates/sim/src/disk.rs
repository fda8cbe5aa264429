//! The disk: a store that takes its time, and goes wrong in the ways that stores do.
//!
//! ```text
//! world -> disk: ask           a request is handed over
//! disk  -> world: Happening    a batch lands, or does not; an answer is there
//! ```
//!
//! A batch *lands* at one moment, whole or not at all, if the owner record is as it expects; what has landed survives
//! a crash, and is what a look sees that takes place afterwards. Between being handed over and landing it is unsynced: a
//! crash loses it, or keeps it. An answer comes later than what it tells of, and answers overtake each other. A look
//! that is handed over after a batch was answered sees that batch. A batch whose outcome is unknown has landed, never
//! will, or lands late, behind newer requests; but not after the end of the process that asked for it, since the store
//! is embedded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bourse_durable::batch::{Batch, Op, Outcome, Owner, ReadError};
use bourse_durable::message::StorePage;
use bourse_durable::{StoreAnswer, StoreRequest, Token};
use bourse_wire::time::Mono;
use bytes::Bytes;

use crate::chance::Chance;

/// What a crash leaves of the batches that were handed over and have not landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All of them land.
    All,
    /// None does.
    Nothing,
    /// Each lands or not, by chance.
    Some,
}

/// How the disk feels. Chances are per mille.
#[derive(Clone, Debug)]
pub struct Mood {
    /// Between being handed over and taking place, in microseconds.
    pub takes_us: (u64, u64),
    /// Between that and the answer, in microseconds.
    pub tells_us: (u64, u64),
    /// A batch is refused.
    pub fails: u64,
    /// A batch lands and nobody is told.
    pub unheard: u64,
    /// A batch is lost and nobody is told.
    pub lost: u64,
    /// A batch lands long after its outcome was given up.
    pub late: u64,
    /// A look fails.
    pub blind: u64,
    /// Whatever it is, it takes up to `drags_ms`.
    pub drags: u64,
    /// See there.
    pub drags_ms: u64,
    /// Nothing is carried out.
    pub away: bool,
}

impl Mood {
    /// Nothing goes wrong, and everything takes the same time.
    pub fn steady() -> Self {
        Self {
            takes_us: (500, 500),
            tells_us: (500, 500),
            fails: 0,
            unheard: 0,
            lost: 0,
            late: 0,
            blind: 0,
            drags: 0,
            drags_ms: 0,
            away: false,
        }
    }

    /// Nothing goes wrong, but answers come in any order.
    pub fn fine() -> Self {
        Self { takes_us: (50, 1_500), tells_us: (20, 1_000), ..Self::steady() }
    }

    /// Everything goes wrong, now and then.
    pub fn hostile(chance: &mut Chance) -> Self {
        let mut some = |most| if chance.below(3) == 0 { 0 } else { chance.below(most) };
        Self {
            fails: some(120),
            unheard: some(250),
            lost: some(150),
            late: some(250),
            blind: some(100),
            drags: some(60),
            drags_ms: 1 + some(8_000),
            ..Self::fine()
        }
    }
}

/// What becomes of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out, and answered.
    Lands,
    /// It is carried out, and answered so long after that.
    LandsToldLate(Duration),
    /// It is refused.
    Fails,
    /// It is carried out; the outcome is unknown.
    LandsUnheard,
    /// It never will be; the outcome is unknown.
    Lost,
    /// The outcome is unknown; it is carried out so long after that was said.
    LandsLate(Duration),
}

/// What the disk has done.
#[derive(Debug)]
pub enum Happening {
    /// A batch was carried out; the second says whether its outcome had been given up before.
    Landed(Batch, bool),
    /// A batch came to nothing, or something took place that nobody sees yet.
    Nothing,
    /// To be handed to the node.
    Answer(Token, StoreAnswer),
}

/// Records of one partition.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    /// Who owns it.
    pub owner: Option<Owner>,
    /// By key.
    pub rows: BTreeMap<Bytes, Bytes>,
    /// The last request that changed it.
    last_ask: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Disk {
    shelves: BTreeMap<u8, Shelf>,
    steps: BTreeMap<(Mono, u64), Step>,
    order: u64,
    /// How it feels from now on.
    pub mood: Mood,
    /// What becomes of the next batches that change something, before chance decides.
    pub script: VecDeque<Fate>,
    /// Batches and looks that went wrong.
    pub wrongs: u64,
    commits: u64,
    /// What must never happen, and did.
    pub violations: Vec<String>,
}

#[derive(Debug)]
enum Step {
    Land { ask: u64, token: Token, batch: Batch, told: Told },
    Look { token: Token, request: StoreRequest },
    Answer { token: Token, answer: StoreAnswer },
}

/// What is said of a batch when it has been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Outcome(Duration),
    Unknown,
    Already,
}

impl Disk {
    /// An empty one.
    pub fn new(mood: Mood) -> Self {
        Self {
            shelves: BTreeMap::new(),
            steps: BTreeMap::new(),
            order: 0,
            mood,
            script: VecDeque::new(),
            wrongs: 0,
            commits: 0,
            violations: Vec::new(),
        }
    }

    /// A request is handed over.
    pub fn ask(&mut self, now: Mono, token: Token, request: StoreRequest, chance: &mut Chance) {
        let takes = self.takes(chance);
        match request {
            StoreRequest::Commit(batch) => {
                let fate = self.fate(&batch, chance);
                self.wrongs += u64::from(fate != Fate::Lands);
                let unknown = || StoreAnswer::Committed(Outcome::Unknown("no answer in time".to_owned()));
                let ask = self.order;
                let land = |told| Step::Land { ask, token, batch, told };
                match fate {
                    Fate::Lands => self.at(now + takes, land(Told::Outcome(Duration::ZERO))),
                    Fate::LandsToldLate(after) => self.at(now + takes, land(Told::Outcome(after))),
                    Fate::LandsUnheard => self.at(now + takes, land(Told::Unknown)),
                    Fate::Fails => {
                        let answer = StoreAnswer::Committed(Outcome::Failed("disk full".to_owned()));
                        self.at(now + takes, Step::Answer { token, answer });
                    }
                    Fate::Lost => self.at(now + takes, Step::Answer { token, answer: unknown() }),
                    Fate::LandsLate(after) => {
                        let late = land(Told::Already);
                        self.at(now + takes, Step::Answer { token, answer: unknown() });
                        self.at(now + takes + after, late);
                    }
                }
            }
            look => self.at(now + takes, Step::Look { token, request: look }),
        }
    }

    /// How many batches have landed.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// When it does something next.
    pub fn next_at(&self) -> Option<Mono> {
        self.steps.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whether what it does next is seen by nobody but the node, which only has asked.
    pub fn next_is_inert(&self) -> bool {
        match self.steps.first_key_value() {
            Some((_, Step::Land { .. })) | None => false,
            Some((_, Step::Answer { answer, .. })) => !matches!(answer, StoreAnswer::Committed(_)),
            Some((_, Step::Look { .. })) => true,
        }
    }

    /// Does it.
    pub fn step(&mut self, chance: &mut Chance) -> Happening {
        let Some(((now, _), step)) = self.steps.pop_first() else { return Happening::Nothing };
        match step {
            Step::Answer { token, answer } => Happening::Answer(token, answer),
            Step::Look { token, request } => {
                let answer = self.look(request, chance);
                let tells = Duration::from_micros(chance.between(self.mood.tells_us));
                self.at(now + tells, Step::Answer { token, answer });
                Happening::Nothing
            }
            Step::Land { ask, token, batch, told } => {
                let outcome = self.land(ask, &batch);
                let landed = outcome == Outcome::Committed;
                let said = match told {
                    Told::Outcome(late) => Some((outcome, late)),
                    Told::Unknown => {
                        Some((Outcome::Unknown("the answer was lost".to_owned()), Duration::ZERO))
                    }
                    Told::Already => None,
                };
                if let Some((outcome, late)) = said {
                    let tells = self.tells(chance) + late;
                    self.at(now + tells, Step::Answer { token, answer: StoreAnswer::Committed(outcome) });
                }
                if landed { Happening::Landed(batch, told == Told::Already) } else { Happening::Nothing }
            }
        }
    }

    /// The process that asked is gone. Gives the batches that landed in its last moment.
    pub fn crash(&mut self, keep: Keep, chance: &mut Chance) -> Vec<Batch> {
        let mut landed = Vec::new();
        for step in std::mem::take(&mut self.steps).into_values() {
            let Step::Land { ask, batch, .. } = step else { continue };
            let kept = match keep {
                Keep::All => true,
                Keep::Nothing => false,
                Keep::Some => chance.below(2) == 0,
            };
            if kept && self.land(ask, &batch) == Outcome::Committed {
                landed.push(batch);
            }
        }
        landed
    }

    /// Whether anything was handed over that has not been answered, or may still land.
    pub fn is_quiet(&self) -> bool {
        self.steps.is_empty()
    }

    /// A batch that has landed elsewhere lands here, at once. Whether it fits what is there.
    pub fn replay(&mut self, batch: &Batch) -> bool {
        self.order += 1;
        self.land(self.order, batch) == Outcome::Committed
    }

    /// All records: partition, key, value.
    pub fn all_rows(&self) -> impl Iterator<Item = (u8, &Bytes, &Bytes)> {
        self.shelves.iter().flat_map(|(partition, shelf)| {
            shelf.rows.iter().map(move |(key, value)| (*partition, key, value))
        })
    }

    /// There is something in it that a node would not make anew by itself.
    pub fn is_used(&self) -> bool {
        let all = self.shelves.values().flat_map(|shelf| shelf.rows.keys());
        all.into_iter().any(|key| !bourse_durable::work::is_trigger(key))
    }

    /// Batches that have not landed.
    pub fn unsynced(&self) -> usize {
        self.steps.values().filter(|step| matches!(step, Step::Land { .. })).count()
    }

    /// All records of a kind: partition, key without the kind, value.
    pub fn rows(&self, kind: u8) -> impl Iterator<Item = (u8, &[u8], &Bytes)> {
        self.shelves.iter().flat_map(move |(partition, shelf)| {
            let rows = shelf.rows.range(Bytes::copy_from_slice(&[kind])..Bytes::copy_from_slice(&[kind + 1]));
            rows.map(|(key, value)| (*partition, &key[1..], value))
        })
    }

    fn fate(&mut self, batch: &Batch, chance: &mut Chance) -> Fate {
        if !batch.ops.is_empty()
            && let Some(fate) = self.script.pop_front()
        {
            return fate;
        }
        let mood = &self.mood;
        match () {
            () if mood.away => Fate::Fails,
            () if chance.hits(mood.fails) => Fate::Fails,
            () if chance.hits(mood.unheard) => Fate::LandsUnheard,
            () if chance.hits(mood.lost) => Fate::Lost,
            () if chance.hits(mood.late) => {
                let most = chance.pick(&[5_000, 200_000, 5_000_000]);
                Fate::LandsLate(Duration::from_micros(chance.below(most)))
            }
            () => Fate::Lands,
        }
    }

    fn look(&mut self, request: StoreRequest, chance: &mut Chance) -> StoreAnswer {
        let blind = self.mood.away || chance.hits(self.mood.blind);
        self.wrongs += u64::from(blind);
        let there = || if blind { Err(ReadError("input/output error".to_owned())) } else { Ok(()) };
        let shelf = |partition: u8| self.shelves.get(&partition);
        match request {
            StoreRequest::Commit(_) => unreachable!("a batch is carried out, not looked at"),
            StoreRequest::Owner(partition) => {
                StoreAnswer::Owner(there().map(|()| shelf(partition.0).and_then(|shelf| shelf.owner)))
            }
            StoreRequest::Read { partition, key } => StoreAnswer::Read(
                there().map(|()| shelf(partition.0).and_then(|shelf| shelf.rows.get(&key).cloned())),
            ),
            StoreRequest::Scan { partition, start, end, rows_max, bytes_max } => {
                StoreAnswer::Scanned(there().map(|()| {
                    let mut page = StorePage::default();
                    let Some(shelf) = shelf(partition.0) else { return page };
                    let mut bytes = 0;
                    for (key, value) in shelf.rows.range(start..end) {
                        if page.rows.len() >= rows_max || (bytes >= bytes_max && !page.rows.is_empty()) {
                            page.more = true;
                            break;
                        }
                        bytes += key.len() + value.len();
                        page.rows.push((key.clone(), value.clone()));
                    }
                    page
                }))
            }
        }
    }

    fn land(&mut self, ask: u64, batch: &Batch) -> Outcome {
        let shelf = self.shelves.entry(batch.partition.0).or_default();
        if shelf.owner != batch.expect {
            return Outcome::Conflict;
        }
        if shelf.last_ask > ask {
            let text = format!("a late batch landed behind a newer one in partition {}", batch.partition.0);
            self.violations.push(text);
        }
        shelf.last_ask = ask;
        shelf.owner = Some(batch.owner);
        for op in &batch.ops {
            match op {
                Op::Put { key, value } => _ = shelf.rows.insert(key.clone(), value.clone()),
                Op::Delete { key } => _ = shelf.rows.remove(key),
            }
        }
        self.commits += 1;
        Outcome::Committed
    }

    fn takes(&mut self, chance: &mut Chance) -> Duration {
        let drags = if chance.hits(self.mood.drags) { chance.below(self.mood.drags_ms) } else { 0 };
        Duration::from_micros(chance.between(self.mood.takes_us) + 1_000 * drags)
    }

    fn tells(&mut self, chance: &mut Chance) -> Duration {
        let drags = if chance.hits(self.mood.drags) { chance.below(self.mood.drags_ms) } else { 0 };
        Duration::from_micros(chance.between(self.mood.tells_us) + 1_000 * drags)
    }

    fn at(&mut self, at: Mono, step: Step) {
        self.order += 1;
        self.steps.insert((at, self.order), step);
    }
}
