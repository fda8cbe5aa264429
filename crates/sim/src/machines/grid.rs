//! The driver of a grid of whole nodes: virtual time, whose turn it is, and the lives of machines.
//!
//! ```text
//! seeds -> grid: run for so long, crash this, cut that
//! grid -> machine: its turn, what comes over wires          machine -> grid: what its node wants of others
//! ```

use std::time::Duration;

use bourse_node::{Config, LinkId, Output, Ticket};
use bourse_wire::time::Mono;

use super::wires::{Wire, Wires};
use crate::chance::Chance;
use crate::checkers::Books;
use crate::disk::{Keep, Mood};
use crate::gateway::Gateway;
use crate::grid::agenda::Agenda;
use crate::stage::Stage;
use crate::trace::Trace;
use crate::world::{Common, World};

/// A machine that has so many turns without time going on never rests.
const TURNS_MAX: u32 = 100_000;

/// What happens in a grid.
#[derive(Debug)]
pub(super) enum Event {
    /// Something comes over a wire.
    Wire(Wire),
    /// It is a machine's turn.
    Turn { machine: usize },
    /// A machine that is down starts.
    Start { machine: usize },
    /// A machine that was told to stop is ended, if that life of it has not ended by itself.
    Stop { machine: usize, life: u32 },
    /// A caller goes away.
    Leave { machine: usize, ticket: Ticket },
}

/// A machine of a grid.
pub struct Machine {
    /// Its node, and what that has there.
    pub world: World,
    /// Counts its lives.
    pub life: u32,
    /// It does nothing until then.
    pub paused_until: Mono,
    /// When its turn is.
    turn: Mono,
    turns: u32,
}

/// How much has happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Frames that have arrived.
    pub frames: u64,
    /// Connections that were made.
    pub links: u64,
    /// Calls that one machine has sent to another.
    pub bought: u64,
    /// Requests that one machine has sent to the one that keeps the store.
    pub forwarded: u64,
}

/// See the module.
pub struct Grid {
    /// The time.
    pub at: Mono,
    /// All machines.
    pub machines: Vec<Machine>,
    /// How much has happened.
    pub counts: Counts,
    pub(super) common: Common,
    /// The machine that has it now.
    lent_to: Option<usize>,
    pub(super) wires: Wires,
    pub(super) agenda: Agenda<Event>,
}

impl Grid {
    /// One of machines with these settings, each so far from the middle of the network. None has started.
    pub fn new(machines: Vec<Config>, far: Vec<Duration>, mut chance: Chance, trace: Trace) -> Self {
        // What takes longer the more machines there are is not done at each step of each.
        let checks_each = (machines.len() / 8).max(1) as u64;
        let machine = |config: Config| {
            let seed = chance.word();
            let mut world = World::new(seed, config, Mood::fine(), Trace::default());
            world.jitter = true;
            world.checks_each = checks_each;
            world.end_life(Keep::Nothing);
            Machine { world, life: 0, paused_until: Mono(0), turn: Mono::MAX, turns: 0 }
        };
        let machines: Vec<Machine> = machines.into_iter().map(machine).collect();
        let common = Common {
            stage: Stage::default(),
            gateway: Gateway::default(),
            books: Books::default(),
            trace,
            chance,
        };
        Self {
            at: Mono(0),
            machines,
            counts: Counts::default(),
            common,
            lent_to: None,
            wires: Wires::new(far),
            agenda: Agenda::default(),
        }
    }

    /// The numbers of those that are up.
    pub fn up(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|machine| self.machines[*machine].world.is_up).collect()
    }

    /// What clients have asked for, of all machines.
    pub fn gateway(&self) -> &Gateway {
        &self.common.gateway
    }

    /// What is true.
    pub fn books(&self) -> &Books {
        &self.common.books
    }

    /// What functions are to do.
    pub fn stage(&mut self) -> &mut Stage {
        &mut self.common.stage
    }

    /// The network, and the run's chance.
    pub(super) fn net_and_chance(&mut self) -> (&mut crate::grid::net::Net, &mut Chance) {
        (&mut self.wires.net, &mut self.common.chance)
    }

    /// The run's chance.
    pub fn chance(&mut self) -> &mut Chance {
        &mut self.common.chance
    }

    /// What happened.
    pub fn trace(&self) -> &Trace {
        &self.common.trace
    }

    /// Something happened that a trace shows.
    pub fn say(&mut self, kind: u64, text: impl FnOnce() -> String) {
        self.common.trace.line(self.at, kind, text);
    }

    /// Something is not as it should be.
    pub fn wrong(&mut self, what: String) {
        self.say(167, || format!("WRONG: {what}"));
        self.common.books.violations.push(what);
    }

    /// All that must never happen, and did.
    pub fn violations(&self) -> Vec<String> {
        let books = &self.common.books;
        let common = books.violations.iter().chain(&books.lines.violations);
        let disks = self.machines.iter().flat_map(|machine| &machine.world.disk.violations);
        common.chain(&self.common.gateway.violations).chain(disks).cloned().collect()
    }

    // ------------------------------------------------------------ time

    /// Lets time go on.
    pub fn run(&mut self, time: Duration) {
        let until = self.at + time;
        while self.agenda.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.at = self.at.max(until);
    }

    /// Lets time go on until something is so, at most for so long. Whether it is.
    pub fn run_while(
        &mut self,
        most: Duration,
        tick: Duration,
        mut until: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.at + most;
        while !until(self) {
            if self.at >= end {
                return false;
            }
            self.run(tick);
        }
        true
    }

    fn step(&mut self) {
        let Some((at, event)) = self.agenda.pop() else { return };
        self.at = self.at.max(at);
        if let Event::Turn { machine } = event {
            return self.turn(machine);
        }
        self.counts.events += 1;
        match event {
            Event::Turn { .. } => unreachable!("it was just seen to"),
            Event::Wire(wire) => self.on_wire(wire),
            Event::Start { machine } => self.start(machine),
            Event::Stop { machine, life } => {
                if self.is_life(machine, life) {
                    self.crash(machine, Keep::All, true);
                }
            }
            Event::Leave { machine, ticket } => {
                let waits = self.common.gateway.call(ticket).is_some_and(|made| made.machine == machine);
                if waits && self.machines[machine].world.is_up {
                    self.with(machine, |world| world.leave(ticket));
                }
            }
        }
    }

    /// Whether a machine still lives that life.
    pub(super) fn is_life(&self, machine: usize, life: u32) -> bool {
        self.machines[machine].world.is_up && self.machines[machine].life == life
    }

    fn turn(&mut self, number: usize) {
        let at = self.at;
        let machine = &mut self.machines[number];
        if machine.turn != at {
            return; // It has another one.
        }
        machine.turn = Mono::MAX;
        if machine.due().is_some_and(|due| due <= at) {
            self.counts.events += 1;
            machine.turns += 1;
            assert!(machine.turns < TURNS_MAX, "machine {number} has turn after turn, and time stands still");
            self.with(number, |world| {
                world.step();
            });
        } else {
            self.arm(number);
        }
    }

    /// Something happens at a machine, which has meanwhile what all have in common.
    pub(super) fn with<T>(&mut self, number: usize, act: impl FnOnce(&mut World) -> T) -> T {
        let world = &mut self.machines[number].world;
        world.trade(&mut self.common);
        self.lent_to = Some(number);
        world.gateway.machine = number;
        if world.clock.at() < self.at {
            self.machines[number].turns = 0;
        }
        let world = &mut self.machines[number].world;
        world.clock.advance(self.at);
        let result = act(world);
        world.trade(&mut self.common);
        self.lent_to = None;
        let aside = std::mem::take(&mut world.aside);
        for output in aside {
            self.carry_out(number, output);
        }
        self.arm(number);
        result
    }

    /// Somebody does something at a machine.
    pub fn at_machine<T>(&mut self, number: usize, act: impl FnOnce(&mut World) -> T) -> T {
        self.with(number, act)
    }

    /// After a panic: what all have in common comes back from where it happened.
    pub(super) fn take_back(&mut self) {
        if let Some(machine) = self.lent_to.take() {
            self.machines[machine].world.trade(&mut self.common);
        }
    }

    /// Sees to it that a machine has its turn.
    fn arm(&mut self, number: usize) {
        let at = self.at;
        let machine = &mut self.machines[number];
        let Some(due) = machine.due() else { return };
        let due = due.max(at);
        if due < machine.turn {
            machine.turn = due;
            self.agenda.push(due, Event::Turn { machine: number });
        }
    }

    fn carry_out(&mut self, number: usize, output: Output) {
        match output {
            Output::Dial { node, address } => self.dial(number, node, &address),
            Output::PeerSend { link, message, payload } => self.send(number, link, message, payload),
            Output::PeerClose { link: LinkId(link) } => self.hang_up(number, link),
            kept => self.keep(number, kept),
        }
    }

    /// What a daemon keeps for the next life of its node.
    fn keep(&mut self, number: usize, output: Output) {
        let world = &mut self.machines[number].world;
        match output {
            Output::Deployments(all) => world.config.deployments = all,
            Output::Assigned(_) => {}
            Output::Authorities => {
                let now = world.clock.now();
                let known = world.node.beginnings(now).map(|contact| (contact.id.0, contact.address));
                let known: Vec<_> = known.collect();
                let grid = world.config.grid.as_mut().expect("it is one of a grid");
                for seed in known {
                    if !grid.seeds.contains(&seed) {
                        grid.seeds.push(seed);
                    }
                }
            }
            Output::GridStore(store) => {
                let grid = world.config.grid.as_mut().expect("it is one of a grid");
                grid.known_store = Some(store);
            }
            Output::Catalogue(modules) => {
                let grid = world.config.grid.as_mut().expect("it is one of a grid");
                grid.catalogue = modules;
            }
            Output::Roster(entries) => {
                let grid = world.config.grid.as_mut().expect("it is one of a grid");
                for entry in entries {
                    grid.roster.retain(|old| old.key != entry.key);
                    grid.roster.push(entry);
                }
            }
            other => unreachable!("{other:?} is nothing that a daemon keeps"),
        }
    }

    // ------------------------------------------------------------ lives

    /// A machine starts.
    pub fn start(&mut self, number: usize) {
        if self.machines[number].world.is_up {
            return;
        }
        self.say(115, || format!("machine {number} starts"));
        let machine = &mut self.machines[number];
        machine.life += 1;
        machine.paused_until = Mono(0);
        machine.world.own_store_again();
        self.with(number, World::begin);
    }

    /// A machine is gone at once. `loud`: what was connected with it hears that.
    pub fn crash(&mut self, number: usize, keep: Keep, loud: bool) {
        if !self.machines[number].world.is_up {
            return;
        }
        self.say(116, || format!("machine {number} crashes, loud: {loud}"));
        self.with(number, |world| world.end_life(keep));
        self.lose_links(number, loud);
    }

    /// A machine that is down comes back later.
    pub fn start_after(&mut self, machine: usize, after: Duration) {
        self.agenda.push(self.at + after, Event::Start { machine });
    }

    /// A machine is told to stop, and is ended after a while in any case.
    pub fn drain(&mut self, machine: usize, most: Duration) {
        if !self.machines[machine].world.is_up {
            return;
        }
        self.say(119, || format!("machine {machine} is told to stop"));
        self.with(machine, |world| world.input(bourse_node::Input::Drain));
        let life = self.machines[machine].life;
        self.agenda.push(self.at + most, Event::Stop { machine, life });
    }

    /// A machine sees nothing for so long.
    pub fn pause(&mut self, machine: usize, time: Duration) {
        let until = self.at + time;
        self.say(117, || format!("machine {machine} stands still for {time:?}"));
        self.machines[machine].paused_until = until;
    }

    /// The caller of a call goes away later.
    pub fn leave_after(&mut self, machine: usize, ticket: Ticket, after: Duration) {
        self.agenda.push(self.at + after, Event::Leave { machine, ticket });
    }

    /// The wall clock of a machine is set.
    pub fn jump(&mut self, number: usize, by_ms: i64) {
        let went = self.machines[number].world.clock.jump(by_ms);
        self.say(144, || format!("the wall clock of machine {number} jumps by {went} ms"));
        let ahead = u64::try_from(went).unwrap_or(0);
        for other in (0..self.machines.len()).filter(|other| *other != number) {
            self.machines[other].world.clock.note_ahead(ahead);
        }
    }
}

impl Machine {
    /// When something happens here next.
    fn due(&self) -> Option<Mono> {
        Some(self.world.next_at()?.max(self.paused_until))
    }
}
