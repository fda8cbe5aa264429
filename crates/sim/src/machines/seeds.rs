//! Runs from seeds: a grid of whole nodes, clients and trouble, and an end without trouble in which all has to come right.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bourse_node::Ask;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::time::Mono;

use super::checks;
use super::faults::{self, KEEPER, PROFILES, Profile};
use super::grid::Grid;
use super::setup::{self, WANTED};
use crate::boundaries::panic_text;
use crate::chance::Chance;
use crate::gateway::Heard;
use crate::trace::Trace;
use crate::workload::Workload;

/// What clients do in a run.
pub const ACTIONS: u64 = 40;
/// What goes wrong in a run that is not calm, at least.
pub const FAULTS_MIN: u64 = 5;
/// What happens in a run, at least: else it tests nothing.
pub const EVENTS_MIN: u64 = 2_000;
/// Durable calls of a run that end, at least.
pub const ENDED_MIN: usize = 3;
/// All nodes have found each other within this.
const BEGINS: Duration = Duration::from_secs(10);
/// All agree within this, once all has healed: the longest pause, and what it takes to notice a connection that is none.
const AGREED: Duration = Duration::from_secs(70);
/// All has come to its end within this.
const SETTLES: Duration = Duration::from_secs(2 * 3_600);
/// Between two looks.
const TICK: Duration = Duration::from_millis(250);

/// What came of a seed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What kind of run it was.
    pub kind: String,
    /// How many nodes.
    pub nodes: usize,
    /// What happened.
    pub events: u64,
    /// What went wrong, beside messages and the disk.
    pub faults: u64,
    /// Runs of functions.
    pub runs: u64,
    /// Calls that one node has bought a slot of another for.
    pub bought: u64,
    /// Requests that went to the node that keeps the store.
    pub forwarded: u64,
    /// Durable calls that ended: done, dead letters, cancelled.
    pub ended: [usize; 3],
    /// Calls that were waited for: done, refused, unknown.
    pub heard: [usize; 3],
    /// How long it took until all agreed, once all had healed.
    pub agreed: Duration,
    /// How long it was, by the world's clock.
    pub simulated: Duration,
    /// Equal for equal runs.
    pub digest: u64,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// What happened, if it was kept.
    pub trace: String,
}

struct Run {
    profile: Profile,
    faults: u64,
    agreed: Duration,
}

/// Runs a seed, with a few machines.
pub fn run(seed: u64, trace: Trace) -> Report {
    run_with(seed, None, trace)
}

/// Runs a seed with so many machines.
pub fn run_with(seed: u64, machines: Option<usize>, trace: Trace) -> Report {
    let mut chance = Chance::new(seed);
    let mut run = Run { profile: chance.pick(&PROFILES), faults: 0, agreed: Duration::ZERO };
    let mut grid = setup::grid(chance, machines, trace);
    let whole = catch_unwind(AssertUnwindSafe(|| run.story(&mut grid)));
    grid.take_back();
    let heard = |of: fn(&Heard) -> bool| grid.gateway().made().filter(|(_, made)| of(&made.heard)).count();
    let mut report = Report {
        seed,
        kind: format!("{:?}", run.profile),
        nodes: grid.machines.len(),
        events: grid.counts.events,
        faults: run.faults,
        runs: grid.common.stage.runs_made,
        bought: grid.counts.bought,
        forwarded: grid.counts.forwarded,
        ended: [Status::Done, Status::Dead, Status::Cancelled].map(|status| grid.books().ended(status)),
        heard: [
            heard(|heard| matches!(heard, Heard::Done(_))),
            heard(|heard| matches!(heard, Heard::Refused(_))),
            heard(|heard| matches!(heard, Heard::Unknown(_))),
        ],
        agreed: run.agreed,
        simulated: grid.at.since(Mono(0)),
        digest: grid.trace().digest(),
        violations: grid.violations(),
        trace: grid.trace().text().to_owned(),
    };
    if let Err(panic) = whole {
        let told = crate::grid::seeds::take_panic().unwrap_or_else(|| panic_text(&*panic));
        report.violations.push(told.replace('\n', " "));
    } else if report.violations.is_empty() {
        report.violations.extend(report.is_idle(run.profile));
    }
    report
}

impl Run {
    fn story(&mut self, grid: &mut Grid) {
        for machine in 0..grid.machines.len() {
            let after = Duration::from_millis(grid.chance().pick(&[0, 1, 50, 800]));
            grid.start_after(machine, after);
        }
        if !grid.run_while(BEGINS, TICK, |grid| checks::agreement(grid).is_ok()) {
            let why = checks::agreement(grid).expect_err("it is not so");
            return grid.wrong(format!("{:?} after all have started: {why}", grid.at));
        }
        let mut workload = Workload::new(grid.chance());
        workload.wants(&WANTED);
        self.trouble(grid, &workload);
        self.peace(grid, &workload);
    }

    fn trouble(&mut self, grid: &mut Grid, workload: &Workload) {
        let often = match self.profile {
            Profile::Calm => 0,
            _ => grid.chance().between((100, 300)),
        };
        for action in 0..ACTIONS {
            let pause = grid.chance().pick(&[0, 0, 1, 3, 10, 40, 400, 2_000]);
            grid.run(Duration::from_millis(pause));
            act(grid, workload);
            let due = self.profile != Profile::Calm
                && self.faults < FAULTS_MIN
                && ACTIONS - action <= FAULTS_MIN - self.faults;
            if due || grid.chance().hits(often) {
                faults::fault(grid, self.profile);
                self.faults += 1;
            }
        }
    }

    fn peace(&mut self, grid: &mut Grid, workload: &Workload) {
        faults::heal(grid);
        let healed = grid.at;
        if !grid.run_while(AGREED, TICK, |grid| checks::agreement(grid).is_ok()) {
            let why = checks::agreement(grid).expect_err("it is not so");
            return grid.wrong(format!("{:?} after all has healed: {why}", grid.at.since(healed)));
        }
        self.agreed = grid.at.since(healed);
        for _ in 0..ENDED_MIN {
            let machine = any(grid);
            grid.at_machine(machine, |world| {
                let plan = workload.plan(&mut world.chance, &mut world.stage, 2);
                let plan = world.stage.add(plan);
                world.start(plan);
            });
            grid.run(Duration::from_millis(5));
        }
        settle(grid);
    }
}

fn any(grid: &mut Grid) -> usize {
    let up = grid.up();
    grid.chance().pick(&up)
}

/// Some client does something, at a machine that is there.
fn act(grid: &mut Grid, workload: &Workload) {
    if grid.up().is_empty() {
        return;
    }
    let machine = any(grid);
    let leaves = grid.at_machine(machine, |world| workload.act(world));
    if let Some((after, ticket)) = leaves {
        grid.leave_after(machine, ticket, Duration::from_millis(after));
    }
}

/// Lets everything come to its end, and checks it.
fn settle(grid: &mut Grid) {
    if !grid.run_while(SETTLES, TICK, |grid| checks::settled(grid).is_ok()) {
        let why = checks::settled(grid).expect_err("it is not so");
        return grid.wrong(format!("it does not come to its end: {why}"));
    }
    // Who is told of an end is told the truth, wherever the question is put.
    let joined: Vec<_> = grid.books().joined().collect();
    for call in grid.gateway().known.clone().into_iter().chain(joined) {
        let machine = any(grid);
        grid.at_machine(machine, |world| world.ask(call, Ask::Look));
    }
    // A function that hangs has its time, and is killed after its grace, also elsewhere.
    grid.run(Duration::from_secs(20));
    let Grid { machines, common, .. } = grid;
    common.books.close(&machines[KEEPER].world.disk, &common.gateway, &common.stage);
    for machine in &grid.machines {
        machine.world.node.check_quiet();
    }
    if let Err(why) = checks::agreement(grid) {
        grid.wrong(format!("all had agreed, and now {why}"));
    }
}

impl Report {
    /// A run that finds nothing because nothing happens is worth nothing.
    fn is_idle(&self, profile: Profile) -> Option<String> {
        let ended: usize = self.ended.iter().sum();
        let few = profile != Profile::Calm && self.faults < FAULTS_MIN;
        let idle = self.events < EVENTS_MIN || few || ended < ENDED_MIN || self.forwarded == 0;
        idle.then(|| {
            format!("too little happened: {} events, {} faults, {ended} ended", self.events, self.faults)
        })
    }
}
