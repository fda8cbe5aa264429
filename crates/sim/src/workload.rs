//! What clients do in a run: drawn from its seed.
//!
//! In worlds they act by themselves; for real processes, plans are all that is drawn here.

use std::time::Duration;

use bourse_node::{Ask, Mode, Ticket};

use crate::chance::Chance;
use crate::stage::{End, MODULES, Plan, Stage, scope_in};
use crate::world::World;

/// The ledgers of a run: two at home where most calls are, and some elsewhere.
#[derive(Debug)]
pub struct Workload {
    scopes: Vec<String>,
    keys: u64,
    /// Of a thousand plans, so many have a key, or a next one.
    keyed: u64,
    tails: u64,
    /// Versions that are wanted; none: it does not matter.
    versions: &'static [&'static str],
    /// Time is real: nothing takes long.
    gentle: bool,
}

impl Workload {
    /// Where calls without a key are at home for now, and where not.
    pub(crate) fn new(chance: &mut Chance) -> Self {
        let mut scopes = vec![scope_in(0), format!("{}x", scope_in(0))];
        for _ in 0..1 + chance.below(3) {
            scopes.push(format!("z{}", chance.below(1000)));
        }
        let keys = 1 + chance.below(4);
        if let Some(name) = Plan::of("a.x").key("k0").exclusive() {
            scopes.push(scope_in(name.partition().0));
        }
        let (keyed, tails) = (chance.pick(&[0, 150, 300, 600]), chance.pick(&[0, 100, 300]));
        Self { scopes, keys, keyed, tails, versions: &[], gentle: false }
    }

    /// One for real processes: of each kind something, and nothing that takes longer than a few seconds.
    pub fn gentle(chance: &mut Chance) -> Self {
        Self { keys: 4, keyed: 350, tails: 200, gentle: true, ..Self::new(chance) }
    }

    /// A plan for a call from outside, with those of the calls that it makes. Its number.
    pub fn add(&self, chance: &mut Chance, stage: &mut Stage) -> u32 {
        let plan = self.plan(chance, stage, 0);
        stage.add(plan)
    }

    /// An idempotency key.
    pub fn key(&self, chance: &mut Chance) -> String {
        format!("k{}", chance.below(self.keys))
    }

    /// From now on clients want these versions of what they call.
    pub(crate) fn wants(&mut self, versions: &'static [&'static str]) {
        self.versions = versions;
    }

    /// Some client does something. Gives a call whose caller goes away, and after how many milliseconds.
    pub(crate) fn act(&self, world: &mut World) -> Option<(u64, Ticket)> {
        let known = world.gateway.known.clone();
        match world.chance.below(20) {
            0..=8 => {
                let plan = self.plan(&mut world.chance, &mut world.stage, 0);
                let plan = world.stage.add(plan);
                world.call(plan, Mode::Async, "", None);
            }
            9..=11 => {
                let plan = self.plan(&mut world.chance, &mut world.stage, 1);
                // A unique function's calls have their own keys.
                let key = self.key(&mut world.chance);
                let key = if plan.is_unique() { String::new() } else { key };
                let plan = world.stage.add(plan);
                world.call(plan, Mode::Async, &key, None);
            }
            12..=14 => {
                let mut plan = self.plan(&mut world.chance, &mut world.stage, 0);
                plan.delay_ms = 0; // Only durable calls are delayed.
                let plan = world.stage.add(plan);
                let timeout = world.chance.pick(&[None, None, Some(30), Some(1_000)]);
                let ticket = world.call(plan, Mode::Sync, "", timeout.map(Duration::from_millis));
                if world.chance.hits(100) {
                    return Some((world.chance.below(20), ticket));
                }
            }
            _ if known.is_empty() => {}
            rest => {
                // Most often one of the last.
                let last = known.len().saturating_sub(6);
                let call = if world.chance.below(4) == 0 {
                    world.chance.pick(&known)
                } else {
                    world.chance.pick(&known[last..])
                };
                let ask = match rest {
                    15 => Ask::Look,
                    16 => Ask::Await,
                    17 => Ask::Cancel,
                    18 => Ask::Replay,
                    _ => world.chance.pick(&[Ask::Look, Ask::Purge, Ask::Replay]),
                };
                world.ask(call, ask);
            }
        }
        None
    }

    /// A plan, with those of the calls that it makes.
    pub(crate) fn plan(&self, chance: &mut Chance, stage: &mut Stage, depth: u32) -> Plan {
        let module = chance.pick(&MODULES);
        let function = if chance.hits(self.keyed) {
            chance.pick(&["x", "x", "x", "y", "y", "u", "v", "w", "e", "e"])
        } else {
            chance.pick(&["f", "f", "q"])
        };
        let mut plan = Plan::of(&format!("{module}.{function}"));
        if depth == 0 && !self.versions.is_empty() && chance.hits(300) {
            plan.version = chance.pick(self.versions).to_owned();
        }
        if !matches!(function, "f" | "q") {
            plan.key = format!("k{}", chance.below(self.keys));
        }
        if chance.hits(self.keyed / 4) {
            plan.delay_ms = chance.pick(&[1, 20, 300, if self.gentle { 1_000 } else { 5_000 }]);
        }
        if chance.hits(850) {
            plan.scope = Some(self.scope(chance));
        }
        if chance.hits(150) {
            plan.peek = Some(self.scope(chance));
        }
        plan.run_ms = chance.pick(&[0, 0, 0, 1, 5, 40]);
        if chance.hits(350) {
            plan.bad = chance.pick(&[1, 1, 2, 3, u32::MAX]);
            plan.end = match chance.below(12) {
                0..=4 => End::Fails,
                5 | 6 => End::Crashes,
                7 => End::Hangs,
                8 | 9 => End::Again(chance.below(200)),
                10 => End::DeadLetters,
                _ => End::Discards,
            };
            if self.gentle {
                plan.bad = self.few(&plan);
            }
        }
        if depth < 2 && chance.hits(250) {
            plan.starts_first = chance.below(2) == 0;
            for _ in 0..=chance.below(2) {
                let child = self.plan(chance, stage, depth + 1);
                plan.starts.push(stage.add(child));
            }
        }
        if depth < 2 && chance.hits(150) {
            let mut child = self.plan(chance, stage, 2);
            (child.bad, child.starts, child.nested, child.next) = (0, Vec::new(), Vec::new(), None);
            if chance.hits(self.tails) {
                let next = Plan::of(&format!("{}.f", chance.pick(&MODULES))).adds(&self.scope(chance));
                child.next = Some(stage.add(next));
            }
            child.function = format!("{}.f", chance.pick(&MODULES));
            (child.delay_ms, child.key) = (0, String::new());
            match chance.below(8) {
                0 if plan.exclusive().is_some() => {
                    (child.function, child.key) = (format!("{module}.x"), plan.key.clone());
                }
                1 | 2 if chance.hits(self.keyed) => {
                    child.function = format!("{}.x", chance.pick(&MODULES));
                    child.key = format!("k{}", chance.below(self.keys));
                }
                _ => {}
            }
            if chance.below(2) == 0 {
                child.scope.clone_from(&plan.scope);
            }
            plan.nested.push(stage.add(child));
        }
        if depth < 3 && chance.hits(self.tails) {
            let mut next = self.plan(chance, stage, depth + 1);
            next.delay_ms = 0;
            plan.next = Some(stage.add(next));
        }
        plan
    }

    /// So few runs come to a bad end that the rest of them is over soon: pauses and timeouts are short for these functions only.
    fn few(&self, plan: &Plan) -> u32 {
        let is_short = matches!(plan.function.split_once('.'), Some((_, "q" | "y")));
        match plan.end {
            End::DeadLetters | End::Discards => plan.bad,
            End::Hangs => u32::from(is_short),
            _ if is_short => plan.bad,
            _ => plan.bad.min(1),
        }
    }

    fn scope(&self, chance: &mut Chance) -> String {
        let at = chance.below(self.scopes.len() as u64);
        self.scopes[usize::try_from(at).unwrap_or_default()].clone()
    }
}
