//! What clients do in a run: drawn from its seed.

use std::time::Duration;

use bourse_node::{Ask, Mode};

use crate::stage::{End, MODULES, Plan, scope_in};
use crate::world::World;

/// The ledgers of a run: two at home where most calls are, and some elsewhere.
#[derive(Debug)]
pub(crate) struct Workload {
    scopes: Vec<String>,
    keys: u64,
}

impl Workload {
    /// Where calls without a key are at home for now, and where not.
    pub(crate) fn new(world: &mut World) -> Self {
        let mut scopes = vec![scope_in(0), format!("{}x", scope_in(0))];
        for _ in 0..1 + world.chance.below(3) {
            scopes.push(format!("z{}", world.chance.below(1000)));
        }
        Self { scopes, keys: 1 + world.chance.below(4) }
    }

    /// Some client does something.
    pub(crate) fn act(&self, world: &mut World) {
        let known = world.gateway.known.clone();
        match world.chance.below(20) {
            0..=8 => {
                let plan = self.plan(world, 0);
                let plan = world.stage.add(plan);
                world.call(plan, Mode::Async, "", None);
            }
            9..=11 => {
                let plan = self.plan(world, 1);
                let plan = world.stage.add(plan);
                let key = format!("k{}", world.chance.below(self.keys));
                world.call(plan, Mode::Async, &key, None);
            }
            12..=14 => {
                let plan = self.plan(world, 0);
                let plan = world.stage.add(plan);
                let timeout = world.chance.pick(&[None, None, Some(30), Some(1_000)]);
                let ticket = world.call(plan, Mode::Sync, "", timeout.map(Duration::from_millis));
                if world.chance.hits(100) {
                    let pause = world.chance.below(20);
                    world.run(pause);
                    world.leave(ticket);
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
    }

    /// A plan, with those of the calls that it makes.
    pub(crate) fn plan(&self, world: &mut World, depth: u32) -> Plan {
        let module = world.chance.pick(&MODULES);
        let function = world.chance.pick(&["f", "f", "q"]);
        let mut plan = Plan::of(&format!("{module}.{function}"));
        if world.chance.hits(850) {
            plan.scope = Some(self.scope(world));
        }
        if world.chance.hits(150) {
            plan.peek = Some(self.scope(world));
        }
        plan.run_ms = world.chance.pick(&[0, 0, 0, 1, 5, 40]);
        if world.chance.hits(350) {
            plan.bad = world.chance.pick(&[1, 1, 2, 3, u32::MAX]);
            plan.end = match world.chance.below(12) {
                0..=4 => End::Fails,
                5 | 6 => End::Crashes,
                7 => End::Hangs,
                8 | 9 => End::Again(world.chance.below(200)),
                10 => End::DeadLetters,
                _ => End::Discards,
            };
        }
        if depth < 2 && world.chance.hits(250) {
            plan.starts_first = world.chance.below(2) == 0;
            for _ in 0..=world.chance.below(2) {
                let child = self.plan(world, depth + 1);
                plan.starts.push(world.stage.add(child));
            }
        }
        if depth < 2 && world.chance.hits(150) {
            let mut child = self.plan(world, 2);
            (child.bad, child.starts, child.nested) = (0, Vec::new(), Vec::new());
            child.function = format!("{}.f", world.chance.pick(&MODULES));
            if world.chance.below(2) == 0 {
                child.scope.clone_from(&plan.scope);
            }
            plan.nested.push(world.stage.add(child));
        }
        plan
    }

    fn scope(&self, world: &mut World) -> String {
        let at = world.chance.below(self.scopes.len() as u64);
        self.scopes[usize::try_from(at).unwrap_or_default()].clone()
    }
}
