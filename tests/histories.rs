//! The same checkers read the histories of real processes: three daemons, clients at all of them, and everything that can happen to
//! a process or a cable; then what the store, the clients and the functions have written down is handed to the books of the simulator.
//!
//! `BOURSE_SEED=N` draws other calls, and `BOURSE_TEST_LONG=1` has everything go wrong several times. A test that fails leaves its folder.

mod clients;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bourse_durable::batch::{Op, Outcome, Owner, PartitionId};
use bourse_node::Ask;
use bourse_sim::chance::Chance;
use bourse_sim::histories::{History, Run, script};
use bourse_sim::stage::{MODULES, Stage};
use bourse_store::recorded::{Entry, What, landed, read};
use bourse_store::{Limit, Range, Sqlite, Store as _, StoreId};
use bytes::Bytes;
use rustix::process::Signal;
use tempfile::TempDir;

use self::clients::{Ends, Ground, Said};
use crate::support::{Grid, Hosts, python_home, signal, until, wait_for};

const PLAYS: &str = include_str!("histories/plays.py");
const SEED: u64 = 7;
/// The node that keeps the grid's store.
const KEEPER: usize = 0;
const NODES: usize = 3;
/// Clients of each node, and what each wants at most.
const CLIENTS: usize = 2;
const ACTS: usize = 2_000;
/// How long a machine stands still.
const PAUSE: Duration = Duration::from_secs(1);
/// What is to happen at least: durable calls that end, runs on nodes that do not keep the store, and questions that are answered.
const ENDED_MIN: usize = 100;
const ELSEWHERE_MIN: usize = 30;
const TOLD_MIN: usize = 50;

/// Where all is written down; kept if the test fails.
struct Place(Option<TempDir>, u64);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(place) = self.0.take().filter(|_| thread::panicking()) {
            eprintln!("BOURSE_SEED={} went wrong; see {}", self.1, place.keep().display());
        }
    }
}

/// What goes wrong.
struct Trouble<'a> {
    grid: &'a mut Grid,
    ground: &'a Ground,
    has_cables: bool,
}

impl Trouble<'_> {
    /// Waits until clients have come so much further.
    fn progress(&self, answers: usize) {
        let before = self.ground.answered();
        wait_for("clients are answered", || self.ground.answered() >= before + answers);
    }

    fn all(&mut self) {
        self.progress(60);
        self.kill(2, 20);
        self.stands_still(1);
        self.kill(KEEPER, 0);
        self.progress(40);
        self.kill_instances();
        self.cut(1);
        self.kill(KEEPER, 0);
        self.kill(1, 10);
        self.progress(20);
        for at in [2, 1, KEEPER] {
            self.grid.stop(at);
            self.grid.start(at);
            self.progress(20);
        }
        self.stands_still(KEEPER);
        self.kill_instances();
        self.progress(40);
    }

    /// A node is killed, and starts again when the others have come so much further.
    fn kill(&mut self, at: usize, answers: usize) {
        self.grid.kill(at);
        self.progress(answers);
        self.grid.start(at);
        self.progress(20);
    }

    fn stands_still(&mut self, at: usize) {
        let daemon = self.grid.daemon(at);
        let start = Instant::now();
        daemon.signal(Signal::STOP);
        wait_for("it has stood still", || start.elapsed() >= PAUSE);
        daemon.signal(Signal::CONT);
        self.progress(20);
    }

    /// Every other instance of all nodes.
    fn kill_instances(&mut self) {
        let of = |at| {
            let all = self.grid.get(at, "/v1/instances").ok();
            let pid = |instance: &serde_json::Value| {
                instance["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
            };
            all.as_array().expect("a list").iter().filter_map(pid).filter(|pid| *pid > 0).collect::<Vec<_>>()
        };
        let pids: Vec<i32> = (0..NODES).flat_map(of).collect();
        assert!(!pids.is_empty(), "there are instances");
        pids.iter().step_by(2).for_each(|pid| signal(*pid, Signal::KILL));
        self.progress(20);
    }

    /// A node is lost, and found again.
    fn cut(&mut self, at: usize) {
        if !self.has_cables {
            return;
        }
        let host = u8::try_from(at).expect("few hosts");
        self.grid.hosts().cut(host);
        wait_for("it is missed", || !self.grid.met(KEEPER).contains(&at));
        self.progress(10);
        self.grid.hosts().heal(host);
        wait_for("it is back", || self.grid.met(KEEPER).contains(&at));
        self.progress(20);
    }
}

#[test]
fn what_real_processes_have_done_is_what_the_checkers_want() {
    let seed = std::env::var("BOURSE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let place = Place(Some(tempfile::Builder::new().prefix("b-history-").tempdir().expect("a folder")), seed);
    let path = |name: &str| place.0.as_ref().expect("it is there").path().join(name);
    // 1. What is wanted, and who plays it. Hosts have no way to a package index: the environment is made before.
    python_home();
    let mut chance = Chance::new(seed);
    let mut stage = Stage::default();
    let acts = clients::drawn(&mut chance, &mut stage, NODES * CLIENTS, ACTS);
    fs::write(path("plans.json"), script(&stage).to_string()).expect("a file");
    let (mut grid, has_cables) = planned(&path("plans.json"), &path("runs"), &path("history"));
    let addresses: Vec<SocketAddr> = (0..NODES).map(|at| http(&grid, at, has_cables)).collect();
    grid.start_all();
    for at in 1..NODES {
        wait_for("it knows who keeps the store", || grid.get(at, "/v1/store").ok()["here"] == false);
    }
    // 2. Clients, and trouble.
    let start = Instant::now();
    let doors: Vec<_> = (0..NODES).map(|at| grid.door(at)).collect();
    let ground = Ground::default();
    let mut said: Vec<Said> = Vec::new();
    thread::scope(|scope| {
        let ends = Ends(&ground);
        let mut running = Vec::new();
        for (number, acts) in acts.into_iter().enumerate() {
            let (ground, stage, door, at) =
                (&ground, &stage, &doors[number % NODES], addresses[number % NODES]);
            let chance = Chance::new(chance.word());
            running.push(scope.spawn(move || door.inside(|| clients::run(ground, at, stage, acts, chance))));
        }
        let mut trouble = Trouble { grid: &mut grid, ground: &ground, has_cables };
        (0..rounds()).for_each(|_| trouble.all());
        drop(ends);
        for client in running {
            said.extend(client.join().expect("a client goes on"));
        }
    });
    // 3. Peace. Who asks is told the truth, wherever the question is put.
    let trouble = start.elapsed();
    wait_for("no call lives any more", || live(&read(&path("history")).expect("a history")).is_empty());
    for (number, call) in ground.known().into_iter().enumerate() {
        let at = number % NODES;
        let asked = doors[at].inside(|| clients::question(addresses[at], call, Ask::Look));
        said.push(asked.expect("all nodes are there"));
    }
    let peace = start.elapsed() - trouble;
    let data = grid.daemon(KEEPER).data();
    for at in (0..NODES).rev() {
        grid.stop(at);
    }
    // 4. The books.
    let (runs, elsewhere) = runs(&path("runs"));
    let (rows, owners) = stored(&data);
    fs::write(path("said.txt"), format!("{said:#?}")).expect("a file");
    let entries = read(&path("history")).expect("a history");
    let there = landed(&entries, |partition| owners.get(&partition).copied());
    assert_eq!(there.lost, [], "what was committed is in the store");
    let mut history = History::new(stage);
    for entry in &entries {
        if let What::Asked { batch, .. } = &entry.what {
            history.asked(batch);
        }
    }
    for (at_ms, batch) in there.batches {
        history.landed(at_ms, batch);
    }
    clients::feed(&mut history, said);
    runs.into_iter().for_each(|run| history.run(run));
    let verdict = history.close(&rows);
    println!(
        "seed {seed}: trouble {trouble:.1?}, peace {peace:.1?}, {elsewhere} runs elsewhere, {verdict:?}"
    );
    assert_eq!(verdict.violations, Vec::<String>::new());
    let ended: usize = verdict.ended.iter().sum();
    assert!(
        ended >= ENDED_MIN && elsewhere >= ELSEWHERE_MIN && verdict.told >= TOLD_MIN,
        "too little happened"
    );
    assert!(
        verdict.ended.iter().chain(&verdict.heard).all(|count| *count > 0),
        "something of each kind happens"
    );
}

/// How often all of it goes wrong.
fn rounds() -> usize {
    if std::env::var_os("BOURSE_TEST_LONG").is_some() { 5 } else { 1 }
}

/// Three nodes with two slots each, on hosts of their own where there can be any.
fn planned(plans: &Path, runs: &Path, history: &Path) -> (Grid, bool) {
    let text = |path: &Path| path.to_str().expect("a name").to_owned();
    let plays = PLAYS.replace("PLANS_FILE", &text(plans)).replace("RUNS_FILE", &text(runs));
    let names = MODULES.map(|module| format!("{module}.py"));
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), plays.as_str())).collect();
    let slots = [2; NODES];
    let (mut grid, has_cables) = match Hosts::new(u8::try_from(NODES).expect("few")) {
        Ok(hosts) => (Grid::planned_on(hosts, &slots, &files), true),
        Err(why) => {
            println!("no cable is cut: {why}");
            (Grid::planned(&slots, &files), false)
        }
    };
    for at in 0..NODES {
        let http = http(&grid, at, has_cables).to_string();
        grid.change(at, |setup| {
            let setup = setup.http(&http).set("queue_wait", "4s");
            if at == KEEPER { setup.argument("--history").argument(&text(history)) } else { setup }
        });
    }
    (grid, has_cables)
}

/// A node that starts again is asked where it was.
fn http(grid: &Grid, at: usize, has_hosts: bool) -> SocketAddr {
    if has_hosts { ([127, 0, 0, 1], 7070).into() } else { (grid.address(at).ip(), 7070).into() }
}

/// Records of calls that live, or are promised, by what was committed so far.
fn live(entries: &[Entry]) -> BTreeSet<(PartitionId, Bytes)> {
    let mut committed: BTreeMap<PartitionId, Owner> = BTreeMap::new();
    let mut open = BTreeMap::new();
    for entry in entries {
        match &entry.what {
            What::Opened => open.clear(),
            What::Asked { number, batch } => _ = open.insert(*number, (batch.partition, batch.owner)),
            What::Answered { number, outcome: Outcome::Committed } => {
                committed.extend(open.remove(number));
            }
            What::Answered { .. } => {}
        }
    }
    let mut live = BTreeSet::new();
    for (_, batch) in landed(entries, |partition| committed.get(&partition).copied()).batches {
        for op in batch.ops {
            match op {
                Op::Put { key, .. } if matches!(key.first(), Some(b'c' | b'o')) => {
                    live.insert((batch.partition, key));
                }
                Op::Put { .. } => {}
                Op::Delete { key } => _ = live.remove(&(batch.partition, key)),
            }
        }
    }
    live
}

/// What functions say that they have begun, and how often that was where the store is not kept.
fn runs(path: &Path) -> (Vec<Run>, usize) {
    let text = fs::read_to_string(path).expect("functions have run");
    let mut elsewhere = 0;
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [plan, call, attempt, _fence, node, _] = words[..] else { panic!("no run: {line:?}") };
        elsewhere += usize::from(node != KEEPER.to_string());
        let number = |text: &str| text.parse().expect("a number");
        Run { plan: number(plan), call: call.parse().expect("an id"), attempt: number(attempt) }
    };
    let runs = text.lines().map(run).collect();
    (runs, elsewhere)
}

/// What is in the store of a daemon that has stopped.
fn stored(data: &Path) -> (BTreeMap<(u8, Bytes), Bytes>, BTreeMap<PartitionId, Owner>) {
    let store =
        until("the store is free", || Sqlite::open(data.join("store.sqlite"), StoreId::random()).ok());
    let mut reader = store.reader().expect("it can be read");
    let (mut rows, mut owners) = (BTreeMap::new(), BTreeMap::new());
    for partition in (0..=u8::MAX).map(PartitionId) {
        owners.extend(reader.owner(partition).expect("it can be read").map(|owner| (partition, owner)));
        let mut range = Range::all();
        loop {
            let page = reader.scan(partition, &range, Limit::rows(1_000)).expect("it can be read");
            let last = page.rows.last().map(|(key, _)| key.clone());
            rows.extend(page.rows.into_iter().map(|(key, value)| ((partition.0, key), value)));
            match last {
                Some(last) if page.more => range = range.after(last),
                _ => break,
            }
        }
    }
    (rows, owners)
}
