//! Random bank transfers, nested and beside each other, over a store that is slow, fails, loses answers and delivers
//! late, by a daemon that dies. Whatever happens, the books are as if transfers had been made one after another.
//!
//! A transfer counts the rows of the ledger by a scan, moves 1 between two accounts, and writes the ledger's next row.
//! A lost update, a phantom, a dirty read or a half commit shows in accounts that differ from the ledger's sum. An
//! audit reads all of it and writes nothing: if it is done, what it saw must agree as well, and must hold what had been
//! acknowledged before it began.

use std::collections::{BTreeMap, BTreeSet};

use bourse_durable::batch::{Batch, Outcome};
use bourse_durable::message::{Answer, Finished, Page};
use bourse_durable::{Limits, StoreAnswer, StoreRequest, Ticket, Token};
use proptest::prelude::{ProptestConfig, any, prop};
use proptest::proptest;

use crate::world::World;

const ACCOUNTS: u64 = 3;
const HOMES: u64 = 2;
const ACTORS_MAX: usize = 8;
const DEPTH_MAX: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Reading,
    Children,
    Finishing,
}

/// A call that makes a transfer, or an audit.
#[derive(Debug)]
struct Actor {
    ancestors: Vec<u64>,
    home: u64,
    audit: bool,
    accounts: (u64, u64),
    /// How many nested calls it will make.
    nested: u8,
    phase: Phase,
    tickets: Vec<Ticket>,
    children: BTreeSet<u64>,
    /// The transfers that are its own by now.
    transfers: BTreeSet<u64>,
    /// What had been acknowledged when it began.
    acknowledged: BTreeSet<u64>,
}

struct Bank {
    w: World,
    limits: Limits,
    actors: BTreeMap<u64, Actor>,
    made: u64,
    /// Carried out by the store, and not delivered.
    carried_out: Vec<(Token, StoreAnswer)>,
    done: [BTreeSet<u64>; HOMES as usize],
    never: BTreeSet<u64>,
    /// Each of these either wholly or not at all.
    unknown: Vec<BTreeSet<u64>>,
    audits: u64,
}

/// Accounts and ledger, as somebody saw them.
struct Books {
    accounts: Vec<i64>,
    transfers: BTreeSet<u64>,
}

impl Books {
    /// Panics unless they agree with each other.
    fn new(ledger: &Page, accounts: Vec<i64>) -> Self {
        let mut sums = vec![0; ACCOUNTS as usize];
        let mut transfers = BTreeSet::new();
        for (number, row) in ledger.rows.iter().enumerate() {
            assert!(
                row.name.ends_with(&format!("/ledger/{number:05}")),
                "the ledger has a gap: {}",
                row.name
            );
            let text = String::from_utf8(row.value.to_vec()).unwrap();
            let parts: Vec<u64> = text.split(' ').map(|part| part.parse().unwrap()).collect();
            transfers.insert(parts[0]);
            sums[parts[1] as usize] -= 1;
            sums[parts[2] as usize] += 1;
        }
        assert_eq!(sums, accounts, "the accounts differ from the ledger's sum");
        Self { accounts, transfers }
    }
}

impl Bank {
    fn new(limits: Limits) -> Self {
        Self {
            w: World::with(limits.clone()),
            limits,
            actors: BTreeMap::new(),
            made: 0,
            carried_out: Vec::new(),
            done: Default::default(),
            never: BTreeSet::new(),
            unknown: Vec::new(),
            audits: 0,
        }
    }

    fn act(&mut self, action: u8, choice: u8) {
        match action % 32 {
            0..=3 => self.spawn(None, choice),
            4..=15 => {
                let actor = pick(self.actors.len(), choice).and_then(|at| self.actors.keys().nth(at));
                if let Some(&n) = actor {
                    self.step(n);
                }
            }
            16..=22 => self.carry_out(choice),
            23..=28 => {
                if let Some(at) = pick(self.carried_out.len(), choice) {
                    let (token, answer) = self.carried_out.remove(at);
                    self.w.deliver(token, answer);
                }
            }
            29 => {
                if let Some(at) = pick(self.w.late.len(), choice) {
                    let batch = self.w.late.remove(at);
                    self.w.store.apply(&batch);
                }
            }
            30 if self.w.durable.poll_timeout().is_some() => {
                self.w.wait();
            }
            31 if choice < 40 => self.crash(choice),
            31 if choice < 120 => {
                if let Some(&n) = pick(self.actors.len(), choice).and_then(|at| self.actors.keys().nth(at)) {
                    self.abandon(n);
                }
            }
            _ => {}
        }
    }

    fn spawn(&mut self, parent: Option<u64>, choice: u8) {
        if self.actors.len() >= ACTORS_MAX {
            return;
        }
        self.made += 1;
        let n = self.made;
        let mut ancestors = Vec::new();
        if let Some(parent) = parent {
            self.w.nest(n, parent);
            let actor = self.actors.get_mut(&parent).unwrap();
            actor.children.insert(n);
            ancestors.push(parent);
            ancestors.extend(&actor.ancestors);
        }
        let (choice, from) = (u64::from(choice), u64::from(choice) % ACCOUNTS);
        let actor = Actor {
            home: if parent.is_some() && choice % 4 < 3 {
                self.actors[&ancestors[0]].home
            } else {
                choice / 4 % HOMES
            },
            audit: parent.is_none() && choice % 5 == 0,
            accounts: (from, (from + 1 + choice / 3 % (ACCOUNTS - 1)) % ACCOUNTS),
            nested: if ancestors.len() < DEPTH_MAX { (choice / 8 % 3) as u8 } else { 0 },
            ancestors,
            phase: Phase::Start,
            tickets: Vec::new(),
            children: BTreeSet::new(),
            transfers: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
        };
        self.actors.insert(n, actor);
    }

    /// One step of one actor, if it can make one.
    fn step(&mut self, n: u64) {
        let actor = self.actors.get_mut(&n).unwrap();
        if !actor.tickets.iter().all(|ticket| self.w.answered(*ticket)) {
            return;
        }
        let home = actor.home;
        match actor.phase {
            Phase::Start => {
                actor.acknowledged = self.done[home as usize].clone();
                actor.tickets = vec![self.w.scan(n, &format!("h{home}/ledger/"), "", 1000)];
                let accounts =
                    (0..ACCOUNTS).map(|account| self.w.read(n, &format!("h{home}/account/{account}")));
                actor.tickets.extend(accounts);
                actor.phase = Phase::Reading;
            }
            Phase::Reading => {
                let Some((ledger, accounts)) = seen(&self.w, &actor.tickets) else { return self.abandon(n) };
                if actor.audit {
                    actor.phase = Phase::Finishing;
                    let finish = self.w.finish(n);
                    actor.tickets.push(finish);
                } else if self.transfer(n, ledger.rows.len(), &accounts).is_none() {
                    self.abandon(n);
                }
            }
            Phase::Children if !actor.children.is_empty() => {}
            Phase::Children if n.is_multiple_of(2) && actor.nested > 0 => {
                // Builds on what its children have done.
                actor.nested = 0;
                actor.phase = Phase::Start;
                actor.tickets.clear();
            }
            Phase::Children => {
                actor.phase = Phase::Finishing;
                actor.tickets = vec![self.w.finish(n)];
            }
            Phase::Finishing => self.end(n),
        }
    }

    fn transfer(&mut self, n: u64, number: usize, accounts: &[i64]) -> Option<()> {
        let actor = self.actors.get_mut(&n).unwrap();
        let (home, (from, to)) = (actor.home, actor.accounts);
        self.made += 1;
        actor.transfers.insert(self.made);
        let mut put = |name: String, value: String| self.w.try_write(n, &name, Some(value.into())).ok();
        put(format!("h{home}/account/{from}"), (accounts[from as usize] - 1).to_string())?;
        put(format!("h{home}/account/{to}"), (accounts[to as usize] + 1).to_string())?;
        put(format!("h{home}/ledger/{number:05}"), format!("{} {from} {to}", self.made))?;
        actor.phase = Phase::Children;
        for child in 0..actor.nested {
            self.spawn(Some(n), (n as u8).wrapping_mul(37).wrapping_add(child.wrapping_mul(91)));
        }
        Some(())
    }

    fn end(&mut self, n: u64) {
        let actor = self.remove(n);
        let home = actor.home as usize;
        match self.w.finished(*actor.tickets.last().unwrap()) {
            Finished::Done if actor.audit => {
                let (ledger, accounts) = seen(&self.w, &actor.tickets[..actor.tickets.len() - 1]).unwrap();
                let books = Books::new(&ledger, accounts);
                assert!(
                    books.transfers.is_superset(&actor.acknowledged),
                    "an audit misses what was acknowledged"
                );
                assert!(books.transfers.is_disjoint(&self.never), "an audit saw what never was");
                self.audits += 1;
            }
            Finished::Done => {
                let at_home =
                    |ancestor: &&u64| self.actors.get(ancestor).is_some_and(|a| a.home == actor.home);
                match actor.ancestors.iter().find(at_home).copied() {
                    Some(below) => self.actors.get_mut(&below).unwrap().transfers.extend(actor.transfers),
                    None => self.done[home].extend(actor.transfers),
                }
            }
            Finished::Unknown(_) => self.unknown.push(actor.transfers),
            _ => self.never.extend(actor.transfers),
        }
    }

    /// As a node would: with all that it has called. One that is finishing cannot be called back.
    fn abandon(&mut self, n: u64) {
        if self.actors[&n].phase == Phase::Finishing {
            return;
        }
        let family: Vec<u64> =
            self.actors.iter().filter(|(_, actor)| actor.ancestors.contains(&n)).map(|(n, _)| *n).collect();
        if family.iter().any(|n| self.actors[n].phase == Phase::Finishing) {
            return;
        }
        for n in family.into_iter().chain([n]) {
            let actor = self.remove(n);
            self.never.extend(actor.transfers);
            self.w.abandon(n);
        }
    }

    fn remove(&mut self, n: u64) -> Actor {
        let actor = self.actors.remove(&n).unwrap();
        if let Some(parent) = actor.ancestors.first().and_then(|parent| self.actors.get_mut(parent)) {
            parent.children.remove(&n);
        }
        actor
    }

    /// The store does one of the things asked of it, in any order.
    fn carry_out(&mut self, choice: u8) {
        let Some(at) = pick(self.w.asked.len(), choice) else { return };
        let (token, request) = self.w.asked.remove(at).unwrap();
        let unknown = || StoreAnswer::Committed(Outcome::Unknown("unheard".to_owned()));
        let answer = match (&request, choice / 16) {
            (StoreRequest::Commit(_), 0) => StoreAnswer::Committed(Outcome::Failed("disk full".to_owned())),
            (StoreRequest::Commit(batch), 1) => match self.w.store.apply(batch) {
                Outcome::Committed => unknown(),
                other => StoreAnswer::Committed(other),
            },
            (StoreRequest::Commit(_), 2) => unknown(),
            (StoreRequest::Commit(batch), 3) => {
                self.w.late.push(batch.clone());
                unknown()
            }
            (_, 4) => {
                self.w.store.away = true;
                let answer = self.w.store.answer(&request);
                self.w.store.away = false;
                answer
            }
            _ => self.w.store.answer(&request),
        };
        self.carried_out.push((token, answer));
    }

    fn crash(&mut self, choice: u8) {
        // What was asked of the store may still arrive there.
        let asked: Vec<Batch> = self.w.asked.drain(..).filter_map(|(_, request)| commit(request)).collect();
        self.w.late.extend(asked.into_iter().filter(|_| choice.is_multiple_of(2)));
        self.carried_out.clear();
        for (_, actor) in std::mem::take(&mut self.actors) {
            // A root that is finishing may have landed, and nothing else.
            if actor.phase == Phase::Finishing {
                self.unknown.push(actor.transfers);
            } else {
                self.never.extend(actor.transfers);
            }
        }
        self.w.crash(self.limits.clone());
    }

    /// No more faults: everything comes to an end, and the books agree with each other and with what was said.
    fn settle(mut self) {
        for _ in 0..10_000 {
            for (token, answer) in std::mem::take(&mut self.carried_out) {
                self.w.deliver(token, answer);
            }
            self.w.serve();
            let actors: Vec<u64> = self.actors.keys().copied().collect();
            for n in actors {
                if self.actors.contains_key(&n) {
                    self.step(n);
                }
            }
            if self.w.durable.poll_timeout().is_some() {
                self.w.wait();
            }
            if self.actors.is_empty() {
                break;
            }
        }
        assert!(self.actors.is_empty(), "without faults, everything ends");
        self.w.arrive();
        self.w.crash(self.limits.clone());
        for home in 0..HOMES {
            self.made += 1;
            let mut tickets = vec![self.w.scan(self.made, &format!("h{home}/ledger/"), "", 1000)];
            let accounts =
                (0..ACCOUNTS).map(|account| self.w.read(self.made, &format!("h{home}/account/{account}")));
            tickets.extend(accounts);
            self.w.serve();
            let (ledger, accounts) = seen(&self.w, &tickets).unwrap();
            let books = Books::new(&ledger, accounts);
            assert_eq!(books.accounts.iter().sum::<i64>(), 0);
            assert!(books.transfers.is_superset(&self.done[home as usize]), "what was acknowledged is lost");
            assert!(books.transfers.is_disjoint(&self.never), "what was refused is there");
            for transfers in &self.unknown {
                let found = transfers.intersection(&books.transfers).count();
                assert!(found == 0 || found == transfers.len(), "half a transaction is there");
            }
            let unknown: BTreeSet<u64> = self.unknown.iter().flatten().copied().collect();
            let known: BTreeSet<u64> = books.transfers.difference(&unknown).copied().collect();
            assert_eq!(
                known,
                self.done[home as usize].difference(&unknown).copied().collect(),
                "who made these?"
            );
        }
    }
}

/// What a transfer or an audit has read, unless something was refused.
fn seen(w: &World, tickets: &[Ticket]) -> Option<(Page, Vec<i64>)> {
    let Answer::Page(ledger) = w.answer(tickets[0]) else { return None };
    let accounts = tickets[1..].iter().map(|ticket| match w.answer(*ticket) {
        Answer::Value(None) => Some(0),
        Answer::Value(Some(record)) => Some(std::str::from_utf8(&record.value).unwrap().parse().unwrap()),
        _ => None,
    });
    Some((ledger, accounts.collect::<Option<_>>()?))
}

fn commit(request: StoreRequest) -> Option<Batch> {
    match request {
        StoreRequest::Commit(batch) => Some(batch),
        _ => None,
    }
}

fn pick(count: usize, choice: u8) -> Option<usize> {
    (count > 0).then(|| usize::from(choice) % count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn books_agree(
        actions in prop::collection::vec(any::<(u8, u8)>(), 50..800),
        cache in any::<bool>(),
        memory in any::<bool>(),
    ) {
        let mut bank = Bank::new(Limits {
            cache_bytes_max: if cache { 64 * 1024 } else { 0 },
            recent_writes_max: if memory { 1000 } else { 4 },
            acquire_attempts_max: 3,
            ..Limits::default()
        });
        for (action, choice) in actions {
            bank.act(action, choice);
        }
        bank.settle();
    }
}

/// A test that finds nothing because nothing happens is worth nothing.
#[test]
fn enough_happens() {
    let mut bank = Bank::new(Limits { acquire_attempts_max: 3, ..Limits::default() });
    let mut state = 1u64;
    for _ in 0..100_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (action, choice) = ((state >> 33) as u8, (state >> 41) as u8);
        // Fewer crashes than in the short ones; the ledger must fit into one page.
        if action % 32 != 31 || choice >= 4 {
            bank.act(action, choice);
        }
        if bank.done.iter().any(|done| done.len() > 900) {
            break;
        }
    }
    let done: usize = bank.done.iter().map(BTreeSet::len).sum();
    let (never, unknown) = (bank.never.len(), bank.unknown.len());
    let counts = format!("done {done} never {never} unknown {unknown} audits {}", bank.audits);
    assert!(done > 300 && never > 300 && unknown > 20 && bank.audits > 100, "{counts}");
    bank.settle();
}
