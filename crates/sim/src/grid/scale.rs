//! How the market's traffic grows with the grid: the same load per node on grids of several sizes, without faults.
//!
//! What a node says per second must depend on its own modules, not on how many nodes there are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bourse_market::Contact;
use bourse_market::times::Times;
use bourse_wire::id::Incarnation;
use bourse_wire::time::Mono;

use super::catalog::{Catalog, Wish};
use super::node::{Caller, Node, Offer, Traffic};
use super::setup;
use super::sight::KINDS;
use super::world::{World, address};
use crate::chance::Chance;
use crate::trace::Trace;

/// Sizes that are tried, up to the one that is asked for.
const SIZES: [u32; 5] = [100, 300, 1_000, 3_000, 10_000];
/// Nodes that everybody knows from the beginning.
const SEEDS: usize = 3;
/// All nodes have started by then.
const STARTED: Duration = Duration::from_secs(5);
/// Before this, what is said is not counted: all find each other.
const SETTLED: Duration = Duration::from_secs(20);
/// Slots of a node.
const SLOTS: u32 = 8;
/// Mean time between two calls of a node, and how long each runs at most.
const GAP: Duration = Duration::from_secs(1);
const TAKES: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many nodes.
    pub nodes: u32,
    /// How many modules.
    pub modules: u32,
    /// How long is measured.
    pub time: Duration,
    /// Where chance comes from.
    pub seed: u64,
}

/// What some nodes say, per node and second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// How many nodes.
    pub nodes: usize,
    /// Mean.
    pub mean: f64,
    /// Of a hundred, 99 say no more.
    pub p99: f64,
    /// Most.
    pub most: f64,
}

/// What came of one size.
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// Nodes.
    pub nodes: u32,
    /// Modules.
    pub modules: u32,
    /// Messages of the market: ordinary nodes, and authorities.
    pub messages: [Rate; 2],
    /// Messages of one node per second in the mean, by kind: ordinary nodes, and authorities.
    pub kinds: [[f64; KINDS.len()]; 2],
    /// Their bytes.
    pub bytes: [Rate; 2],
    /// Links of one node in the mean: ordinary nodes, and authorities.
    pub links: [f64; 2],
    /// From a first call to the token for it: of a hundred, 50; and the longest, in milliseconds.
    pub first_ms: [f64; 2],
    /// Callers that have never found a token.
    pub unmatched: usize,
    /// Calls that were done per second, and of a hundred how many were not.
    pub calls_per_s: f64,
    /// See above.
    pub failed_percent: f64,
    /// Memory of the process, in MiB.
    pub memory_mib: f64,
    /// Events, and how many per second.
    pub events: u64,
    /// See above.
    pub events_per_s: f64,
    /// How long it took.
    pub seconds: f64,
    /// What must never happen, and did.
    pub violations: Vec<String>,
}

/// The sizes of a plan.
pub fn sizes(plan: &Plan) -> Vec<u32> {
    let mut sizes: Vec<u32> = SIZES.into_iter().filter(|size| *size < plan.nodes).collect();
    sizes.push(plan.nodes);
    sizes
}

/// Runs one size. `progress` is told how much of it is done, from 0 to 1.
pub fn measure(plan: &Plan, progress: impl Fn(f64)) -> Point {
    let began = Instant::now();
    // Each module has somebody who sells it.
    let plan = &Plan { modules: plan.modules.min(plan.nodes), ..*plan };
    let mut world = grid(plan);
    let whole = STARTED + SETTLED + plan.time;
    let step = Duration::from_millis(100);
    let advance = |world: &mut World, time: Duration| {
        let end = world.at + time;
        while world.at < end {
            world.run(step);
            progress(world.at.since(Mono(0)).as_secs_f64() / whole.as_secs_f64());
        }
    };
    advance(&mut world, STARTED + SETTLED);
    let before: Vec<Traffic> = world.nodes.iter().map(|node| node.traffic).collect();
    let ended = world.books.ended();
    advance(&mut world, plan.time);
    let seconds = plan.time.as_secs_f64();
    let mut point = Point { nodes: plan.nodes, modules: plan.modules, ..Point::default() };
    for (role, serves) in [false, true].into_iter().enumerate() {
        let of_role = || world.nodes.iter().zip(&before).filter(move |(node, _)| node.serves() == serves);
        point.messages[role] = rate(of_role().map(|(n, b)| n.traffic.messages - b.messages), seconds);
        let count = of_role().count().max(1) as f64;
        for (kind, mean) in point.kinds[role].iter_mut().enumerate() {
            let sent: u64 = of_role().map(|(n, b)| n.traffic.kinds[kind] - b.kinds[kind]).sum();
            *mean = sent as f64 / seconds / count;
        }
        point.links[role] = of_role().map(|(n, _)| n.peers.len()).sum::<usize>() as f64 / count;
        point.bytes[role] = rate(of_role().map(|(n, b)| n.traffic.bytes - b.bytes), seconds);
    }
    let firsts = world.nodes.iter().flat_map(|node| &node.lines).filter_map(|line| line.first);
    let mut waits: Vec<f64> =
        firsts.clone().filter_map(|(at, found)| Some(found?.since(at).as_secs_f64() * 1e3)).collect();
    waits.sort_by(f64::total_cmp);
    point.unmatched = firsts.filter(|(_, found)| found.is_none()).count();
    point.first_ms = [share(&waits, 0.5), share(&waits, 1.0)];
    let [done, others] = ends(world.books.ended(), ended);
    point.calls_per_s = done / seconds;
    point.failed_percent = 100.0 * others / (done + others).max(1.0);
    point.memory_mib = memory_mib();
    point.events = world.counts.events;
    point.seconds = began.elapsed().as_secs_f64();
    point.events_per_s = world.counts.events as f64 / point.seconds;
    point.violations = world.books.take_violations();
    point
}

fn ends(after: [u64; super::books::ENDS], before: [u64; super::books::ENDS]) -> [f64; 2] {
    let all: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    [all[0] as f64, all[1..].iter().sum::<u64>() as f64]
}

fn rate(all: impl Iterator<Item = u64>, seconds: f64) -> Rate {
    let mut all: Vec<f64> = all.map(|n| n as f64 / seconds).collect();
    all.sort_by(f64::total_cmp);
    let mean = all.iter().sum::<f64>() / (all.len() as f64).max(1.0);
    Rate { nodes: all.len(), mean, p99: share(&all, 0.99), most: share(&all, 1.0) }
}

/// The value that this share of the sorted ones does not exceed.
fn share(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = ((last as f64) * share).ceil() as usize;
    sorted.get(at.min(last)).copied().unwrap_or(0.0)
}

/// What the process has in memory, as Linux says; 0 elsewhere.
fn memory_mib() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
    resident.unwrap_or(0.0) * 4096.0 / f64::from(1 << 20)
}

/// Each node sells two modules and calls one.
fn grid(plan: &Plan) -> World {
    let mut chance = Chance::new(plan.seed);
    let catalog = Catalog::new(plan.modules as usize);
    let contact = |chance: &mut Chance, number: u32| Contact {
        id: setup::identity(chance, number),
        incarnation: Incarnation(0),
        address: address(number),
        domain: format!("rack {}", number % 16),
    };
    let mut nodes: Vec<Node> =
        (0..plan.nodes).map(|number| Node::new(number, contact(&mut chance, number))).collect();
    let known: Vec<Contact> = nodes.iter().take(SEEDS).map(setup::seed).collect();
    for (number, node) in (0..plan.nodes).zip(&mut nodes) {
        node.seeds.clone_from(&known);
        node.slots = SLOTS;
        // Each module is sold by somebody.
        for module in [number % plan.modules, module(&mut chance, plan)] {
            let lot = catalog.modules[module as usize].lots[1].clone();
            if node.offers.iter().all(|offer| offer.lot != lot) {
                node.offers.push(Offer { lot, most: SLOTS, busy_at: Mono(0) });
            }
        }
        let wish = Wish { module: module(&mut chance, plan), requirement: 1 };
        node.callers.push(Caller { wish, gap: GAP, takes: TAKES, patience: PATIENCE });
    }
    let far = nodes.iter().map(|_| Duration::from_micros(chance.between((50, 500)))).collect();
    let mut world = World::new(nodes, far, catalog, chance, Trace::default());
    world.times = Arc::new(Times::default());
    world.checks = false;
    // An authority of a large grid has much to say, and this is where it is measured.
    world.messages_per_s_max = u32::MAX;
    for node in world.all() {
        let micros = u64::try_from(STARTED.as_micros()).expect("it is short");
        let after = if (node as usize) < SEEDS { 0 } else { world.chance.below(micros) };
        world.restart_after(node, Duration::from_micros(after));
    }
    world
}

fn module(chance: &mut Chance, plan: &Plan) -> u32 {
    u32::try_from(chance.below(u64::from(plan.modules))).expect("it is below a u32")
}
