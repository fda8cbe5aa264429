//! Runs from seeds: clients and faults by chance, then an end without faults, in which everything has to converge.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bourse_node::Config;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::time::Mono;

use crate::boundaries::{panic_text, settle};
use crate::disk::{Keep, Mood};
use crate::faults;
use crate::trace::Trace;
use crate::workload::Workload;
use crate::world::World;

/// What clients do in a run.
pub const ACTIONS: u64 = 40;
/// What goes wrong in a run, at least.
pub const FAULTS_MIN: u64 = 6;
/// What happens in a run, at least: else it tests nothing.
pub const STEPS_MIN: u64 = 2_000;
/// Durable calls of a run that end, at least.
pub const ENDED_MIN: usize = 3;

/// What came of a seed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Steps of the world.
    pub steps: u64,
    /// What went wrong: crashes, moods of the disk, killed processes, jumps of the clock.
    pub faults: u64,
    /// Batches and looks of the disk that went wrong.
    pub disk_wrongs: u64,
    /// Crashes of the node.
    pub crashes: u64,
    /// Runs of functions.
    pub runs: u64,
    /// Durable calls that ended: done, dead letters, cancelled.
    pub ended: [usize; 3],
    /// How long it was, by the world's clock.
    pub simulated: Duration,
    /// Equal for equal runs.
    pub digest: u64,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// What happened, if it was kept.
    pub trace: String,
}

/// Runs a seed.
pub fn run(seed: u64, trace: Trace) -> Report {
    let mut world = World::new(seed, World::config(), Mood::fine(), trace);
    world.jitter = true;
    let mut faults_made = 0;
    let whole = catch_unwind(AssertUnwindSafe(|| story(&mut world, &mut faults_made)));
    let mut report = Report {
        seed,
        steps: world.counts.steps,
        faults: faults_made,
        disk_wrongs: world.disk.wrongs,
        crashes: world.counts.crashes,
        runs: world.stage.runs_made,
        ended: [Status::Done, Status::Dead, Status::Cancelled].map(|status| world.books.ended(status)),
        simulated: world.clock.at().since(Mono(0)),
        digest: world.trace.digest(),
        violations: world.violations(),
        trace: world.trace.text().to_owned(),
    };
    if let Err(panic) = whole {
        report.violations.push(panic_text(&*panic));
    } else if report.violations.is_empty() {
        report.violations.extend(report.is_idle());
    }
    report
}

fn story(world: &mut World, faults_made: &mut u64) {
    world.config = Config { running_max: 1 + usize::from(world.chance.below(2) == 0) * 2, ..World::config() };
    world.run(100);
    let workload = Workload::new(&mut world.chance);
    // Some runs are calm, some are not.
    let often = world.chance.between((100, 300));
    for action in 0..ACTIONS {
        let pause = world.chance.pick(&[0, 0, 1, 1, 3, 10, 40, 400]);
        world.run(pause);
        if let Some((after, ticket)) = workload.act(world) {
            world.run(after);
            world.leave(ticket);
        }
        let due = *faults_made < FAULTS_MIN && ACTIONS - action <= FAULTS_MIN - *faults_made;
        if due || world.chance.hits(often) {
            faults::fault(world);
            *faults_made += 1;
        }
    }
    faults::stop(world);
    for _ in 0..ENDED_MIN {
        let plan = workload.plan(&mut world.chance, &mut world.stage, 2);
        let plan = world.stage.add(plan);
        world.start(plan);
        world.run(5);
    }
    settle(world);
    // What has ended stays so, and nothing is begun again.
    let runs = world.stage.runs_made;
    world.crash(Keep::All);
    settle(world);
    if world.stage.runs_made != runs {
        world.books.violations.push("something runs again that had ended".to_owned());
    }
}

impl Report {
    /// A run that finds nothing because nothing happens is worth nothing.
    fn is_idle(&self) -> Option<String> {
        let ended: usize = self.ended.iter().sum();
        let idle = self.steps < STEPS_MIN || self.faults < FAULTS_MIN || ended < ENDED_MIN;
        idle.then(|| {
            format!("too little happened: {} steps, {} faults, {ended} ended", self.steps, self.faults)
        })
    }
}
