//! Runs from seeds: a grid, trouble, and an end without trouble in which all has to come right.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bourse_wire::time::Mono;

use super::books::ENDS;
use super::checks;
use super::faults::{self, Profile};
use super::lies::Lie;
use super::setup;
use super::world::World;
use crate::boundaries::panic_text;
use crate::chance::Chance;
use crate::trace::Trace;

/// What happens in a run at least: else it tests nothing.
pub const EVENTS_MIN: u64 = 1_000;
/// Calls that are made in a run at least.
pub const CALLS_MIN: usize = 10;
/// Things that happen to the grid in a run, wrong or not.
const ACTIONS: u64 = 14;
/// All agree within this, once all has healed: the longest pause and the latest restart, and what it takes from then.
const HEALED: Duration = Duration::from_secs(12);
const AGREED: Duration = Duration::from_secs(25);
/// For each authority too many, one steps down after so long.
const STEP_DOWN: Duration = Duration::from_secs(12);
/// Between two looks.
const TICK: Duration = Duration::from_millis(250);
/// How long a grid is watched once it has healed.
const WATCHED: Duration = Duration::from_secs(4);
/// How long a grid has more to do than it can.
const GLUT: Duration = Duration::from_secs(11);
/// How long each call of that takes, and how long it may wait.
const GLUT_TAKES: Duration = Duration::from_secs(3);
const GLUT_PATIENCE: Duration = Duration::from_secs(15);
/// All calls have an end after this, once nobody makes new ones.
const ANSWERED: Duration = Duration::from_secs(45);
/// And after this, nothing runs, and each slot is accounted for.
const CALM: Duration = Duration::from_secs(8);

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
    /// What went wrong, beside messages.
    pub faults: u64,
    /// Messages that were lost, repeated or late.
    pub messages_wrong: u64,
    /// Calls that began.
    pub begun: u64,
    /// Calls that were tried again.
    pub retried: u64,
    /// How calls ended.
    pub ended: [u64; ENDS],
    /// Most messages that a node has sent in a second: an ordinary one, and an authority.
    pub busiest: [u32; 2],
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
    lie: Option<Lie>,
    faults: u64,
    agreed: Duration,
}

thread_local! {
    static PANIC: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// Panics of runs are told by their reports, with the place where they were.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| PANIC.set(Some(panic.to_string()))));
}

/// What the last panic of this thread was, if those are caught.
pub(crate) fn take_panic() -> Option<String> {
    PANIC.take()
}

/// Runs a seed.
pub fn run(seed: u64, trace: Trace) -> Report {
    let mut chance = Chance::new(seed);
    let (profile, lie) = (Profile::draw(&mut chance), faults::draw_lie(&mut chance));
    let mut run = Run { profile, lie, faults: 0, agreed: Duration::ZERO };
    let mut world = setup::grid(chance, trace, lie);
    let whole = catch_unwind(AssertUnwindSafe(|| run.story(&mut world)));
    let fates = world.net.fates;
    let mut report = Report {
        seed,
        kind: format!("{profile:?}{}", lie.map_or_else(String::new, |lie| format!(", {lie:?}"))),
        nodes: world.nodes.len(),
        events: world.counts.events,
        faults: run.faults,
        messages_wrong: fates.lost + fates.cut + fates.repeated + fates.late,
        begun: world.books.begun(),
        retried: world.books.retried(),
        ended: world.books.ended(),
        busiest: world.counts.busiest,
        agreed: run.agreed,
        simulated: world.at.since(Mono(0)),
        digest: world.trace.digest(),
        violations: world.books.take_violations(),
        trace: world.trace.text().to_owned(),
    };
    if let Err(panic) = whole {
        let told = PANIC.take().unwrap_or_else(|| panic_text(&*panic));
        report.violations.push(told.replace('\n', " "));
    } else if report.violations.is_empty() {
        let calls = world.books.len();
        let idle = report.events < EVENTS_MIN || calls < CALLS_MIN || run.faults < profile.faults_min();
        if idle {
            let Report { events, faults, .. } = report;
            report
                .violations
                .push(format!("too little happened: {events} events, {faults} faults, {calls} calls"));
        }
    }
    report
}

impl Run {
    fn story(&mut self, world: &mut World) {
        for node in world.all() {
            let after = Duration::from_millis(world.chance.pick(&[0, 1, 50, 800]));
            world.restart_after(node, after);
        }
        world.run(Duration::from_millis(2_500));
        self.trouble(world);
        if world.books.violations().is_empty() {
            self.peace(world);
        }
    }

    fn trouble(&mut self, world: &mut World) {
        for action in 0..ACTIONS {
            let pause = world.chance.pick(&[10, 50, 200, 400, 900, 1_500, 3_500]);
            world.run(Duration::from_millis(pause));
            if world.chance.hits(500) {
                faults::happening(world);
            }
            let missing = self.profile.faults_min().saturating_sub(self.faults);
            if ACTIONS - action <= missing || (self.profile != Profile::Calm && world.chance.hits(500)) {
                faults::fault(world, self.profile);
                self.faults += 1;
            }
        }
    }

    fn peace(&mut self, world: &mut World) {
        // A liar that trades badly is still there; one that is believed, or is somebody else, is not.
        let liars_stay = self.lie.is_some_and(|lie| matches!(lie, Lie::Silent | Lie::Replay | Lie::Mint));
        faults::heal(world, liars_stay);
        let healed = world.at;
        world.run(HEALED);
        if let Some(call) = checks::forgotten(world, healed) {
            world.wrong(call);
        }
        let serving = world.nodes.iter().filter(|node| node.serves()).count();
        let surplus =
            u32::try_from(serving.saturating_sub(world.times.authorities_min)).expect("it is small");
        let most = AGREED + STEP_DOWN * surplus;
        if !world.run_while(most, TICK, |world| checks::agreement(world).is_ok()) {
            let why = checks::agreement(world).expect_err("it is not so");
            world.wrong(format!("{:?} after all has healed: {why}", world.at.since(healed)));
            return;
        }
        self.agreed = world.at.since(healed);
        self.watch(world, healed, WATCHED);
        if let Err(why) = checks::agreement(world) {
            world.wrong(format!("all had agreed, and now {why}"));
        }
        glut(world);
        self.watch(world, healed, GLUT);
        self.calm(world);
    }

    /// Nobody waits in vain.
    fn watch(&mut self, world: &mut World, since: Mono, time: Duration) {
        let in_vain = world.run_while(time, TICK, |world| checks::waits_in_vain(world, since).is_some());
        if in_vain && !matches!(self.lie, Some(Lie::Silent)) {
            let who = checks::waits_in_vain(world, since).expect("it is so");
            world.wrong(who);
        }
    }

    fn calm(&self, world: &mut World) {
        let callers = world.nodes.iter_mut().flat_map(|node| &mut node.callers);
        callers.for_each(|caller| caller.gap = Duration::ZERO);
        world.say(68, || "nobody calls any more".to_owned());
        if !world.run_while(ANSWERED, TICK, |world| world.books.unanswered() == 0) {
            let calls = world.books.unanswered();
            world.wrong(format!("{calls} calls have no end"));
        }
        if !world.run_while(CALM, TICK, |world| checks::conservation(world).is_ok()) {
            let why = checks::conservation(world).expect_err("it is not so");
            world.wrong(format!("all is done, and {why}"));
        }
        if !world.run_while(CALM, TICK, |world| checks::placement(world).is_ok()) {
            let why = checks::placement(world).expect_err("it is not so");
            world.wrong(format!("all is calm, and {why}"));
        }
    }
}

/// More is wanted of each seller than it has, by somebody who can reach it.
fn glut(world: &mut World) {
    world.say(69, || "more is wanted than there is".to_owned());
    for seller in world.all() {
        if !world.node(seller).is_honest() || !world.node(seller).is_reachable() {
            continue;
        }
        for offer in world.node(seller).offers.clone() {
            let buyers: Vec<u32> =
                world.all().filter(|buyer| *buyer != seller && world.node(*buyer).is_honest()).collect();
            if offer.most == 0 || buyers.is_empty() {
                continue;
            }
            let buyer = world.chance.pick(&buyers);
            let Some(wish) = world.catalog.wish_for(&offer.lot, &mut world.chance) else { continue };
            for _ in 0..offer.most + 2 {
                world.act(buyer, |node, env| node.call(wish, GLUT_TAKES, GLUT_PATIENCE, env));
            }
        }
    }
}
