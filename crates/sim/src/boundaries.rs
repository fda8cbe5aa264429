//! A crash at every boundary of a scenario.
//!
//! A scenario runs once without a crash, which counts its boundaries. Then it runs once for each of them and for each of
//! what a crash may leave on the disk, with the node dying exactly there; the script goes on, as its clients do; and in
//! the end all is quiet and the books are closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bourse_node::Ask;

use crate::disk::{Keep, Mood};
use crate::scenarios::Scenario;
use crate::trace::Trace;
use crate::world::{CrashAt, World};

/// How long a world may take to become quiet, once nothing goes wrong any more.
const SETTLES_MAX: Duration = Duration::from_secs(900);

/// What came of one run of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many boundaries there were.
    pub boundaries: u64,
    /// How long it was, by the world's clock.
    pub simulated: Duration,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// What happened, if it was kept.
    pub trace: String,
}

/// What came of all runs of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// How many runs there were, each with one crash.
    pub runs: u64,
    /// How many boundaries the scenario has.
    pub boundaries: u64,
    /// How long all were, by the world's clock.
    pub simulated: Duration,
    /// The runs that went wrong: where they crashed, and how.
    pub failures: Vec<(CrashAt, Vec<String>)>,
}

/// Runs a scenario once, with a crash or without.
pub fn run(scenario: &Scenario, crash_at: Option<CrashAt>, kept: bool) -> Outcome {
    let trace = if kept { Trace::kept() } else { Trace::default() };
    let mut world = World::new(1, (scenario.config)(), Mood::steady(), trace);
    let mut outcome = Outcome::default();
    let whole = catch_unwind(AssertUnwindSafe(|| {
        world.run(100);
        world.crash_at = crash_at;
        world.count_boundaries();
        (scenario.script)(&mut world);
        settle(&mut world);
    }));
    outcome.violations = world.violations();
    if let Err(panic) = whole {
        outcome.violations.push(panic_text(&*panic));
    }
    outcome.boundaries = world.counts.boundaries;
    outcome.simulated = world.clock.at().since(bourse_wire::time::Mono(0));
    outcome.trace = world.trace.text().to_owned();
    outcome
}

/// Runs it with a crash at every `stride`th boundary.
pub fn sweep(scenario: &Scenario, stride: u64) -> Sweep {
    let first = run(scenario, None, false);
    let mut sweep = Sweep { boundaries: first.boundaries, simulated: first.simulated, ..Sweep::default() };
    if !first.violations.is_empty() {
        sweep.failures.push((CrashAt { boundary: 0, keep: Keep::All }, first.violations));
    }
    for boundary in (1..=first.boundaries).step_by(usize::try_from(stride).unwrap_or(1)) {
        for keep in [Keep::Nothing, Keep::All] {
            let crash_at = CrashAt { boundary, keep };
            let outcome = run(scenario, Some(crash_at), false);
            sweep.runs += 1;
            sweep.simulated += outcome.simulated;
            if !outcome.violations.is_empty() {
                sweep.failures.push((crash_at, outcome.violations));
            }
        }
    }
    sweep
}

/// Lets everything come to its end, and checks it.
pub fn settle(world: &mut World) {
    let most = world.clock.at() + SETTLES_MAX;
    if !world.run_until(most, World::is_settled) {
        let text = format!(
            "it does not come to its end: {} wait, {} calls live, {} are promised, the disk is quiet: {}",
            world.gateway.waiting(),
            world.disk.rows(b'c').count(),
            world.disk.rows(b'o').count(),
            world.disk.is_quiet(),
        );
        world.books.violations.push(text);
    }
    // Who is told of an end is told the truth.
    let joined: Vec<_> = world.books.joined().collect();
    for call in world.gateway.known.clone().into_iter().chain(joined) {
        world.ask(call, Ask::Look);
    }
    // A function that hangs has its time, and is killed after its grace.
    world.run(5_000);
    world.books.close(&world.disk, &world.gateway, &world.stage);
    world.node.check_quiet();
}

impl World {
    /// Nobody waits, nothing is on its way, and no call lives.
    pub fn is_settled(&self) -> bool {
        self.gateway.waiting() == 0
            && self.disk.is_quiet()
            && self.disk.rows(b'c').next().is_none()
            && self.disk.rows(b'o').next().is_none()
    }
}

/// What somebody panicked with.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
