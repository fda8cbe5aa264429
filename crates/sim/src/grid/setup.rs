//! A grid by chance: how many nodes, who sells what, who calls what, who can be reached by whom.

use std::sync::Arc;
use std::time::Duration;

use bourse_market::times::Times;
use bourse_market::{Contact, NodeId};
use bourse_wire::id::Incarnation;
use bourse_wire::time::Mono;

use super::catalog::{Catalog, Wish};
use super::lies::{Liar, Lie};
use super::node::{Caller, Node, Offer};
use super::world::{World, address};
use crate::chance::Chance;
use crate::trace::Trace;

/// Nodes that everybody knows from the beginning.
const SEEDS_MAX: u64 = 3;
/// What the times of the market are in runs from seeds, where they differ from what they are by default: waits that would
/// be most of a run.
const BREAKER_MAX: Duration = Duration::from_secs(3);
const CHANNEL_IDLE: Duration = Duration::from_secs(12);

/// A node's identity.
pub fn identity(chance: &mut Chance, number: u32) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&chance.word().to_le_bytes());
    id[8..12].copy_from_slice(&number.to_le_bytes());
    NodeId(id)
}

/// A grid of a run from a seed. No node is up yet. The last node lies, if `lie` says how.
pub fn grid(mut chance: Chance, trace: Trace, lie: Option<Lie>) -> World {
    let nodes = size(&mut chance).max(if lie.is_some() { 4 } else { 3 });
    let catalog = Catalog::new(usize::try_from(chance.between((1, 4))).expect("it is small"));
    let seeds = chance.between((1, SEEDS_MAX)).min(u64::from(nodes) - 1);
    let mut all: Vec<Node> =
        (0..nodes).map(|number| node(&mut chance, number, u64::from(number) < seeds)).collect();
    for node in &mut all {
        sells(&mut chance, node, &catalog);
        calls(&mut chance, node, &catalog);
    }
    let known: Vec<Contact> =
        all.iter().take(usize::try_from(seeds).expect("it is small")).map(seed).collect();
    all.iter_mut().for_each(|node| node.seeds.clone_from(&known));
    if all.iter().all(|node| node.callers.is_empty()) {
        all[0].callers.push(caller(&mut chance, &catalog));
    }
    if let Some(lie) = lie {
        let other = all[1].contact.id;
        let liar = all.last_mut().expect("there are nodes");
        liar.liar = Some(Liar::new(lie));
        liar.may_serve = false;
        if lie == Lie::Double {
            liar.contact.id = other;
        }
        // Somebody has to be deceived.
        if liar.callers.is_empty() {
            liar.callers.push(caller(&mut chance, &catalog));
        }
    }
    let liar = all.iter().find(|node| node.liar.is_some()).map(|node| node.contact.id);
    let far = (0..nodes).map(|_| distance(&mut chance)).collect();
    let twin = (lie == Some(Lie::Double)).then(|| all[1].contact.id);
    let mut world = World::new(all, far, catalog, chance, trace);
    (world.twin, world.liar) = (twin, liar);
    world.times =
        Arc::new(Times { breaker_max: BREAKER_MAX, channel_idle: CHANNEL_IDLE, ..Times::default() });
    world
}

fn size(chance: &mut Chance) -> u32 {
    let most = match chance.below(100) {
        0 => 50,
        1..=9 => 24,
        10..=49 => 12,
        _ => 7,
    };
    u32::try_from(chance.between((3, most))).expect("it is small")
}

fn node(chance: &mut Chance, number: u32, is_seed: bool) -> Node {
    let contact = Contact {
        id: identity(chance, number),
        incarnation: Incarnation(0),
        address: address(number),
        domain: format!("rack {}", chance.below(3)),
    };
    let mut node = Node::new(number, contact);
    node.may_serve = is_seed || chance.hits(800);
    if !is_seed {
        match chance.below(12) {
            0 => node.contact.address.clear(),
            1 => node.is_walled = true,
            _ => {}
        }
        // What can't be connected to can't be an authority: two of them would never meet.
        node.may_serve &= node.is_reachable();
    }
    node.is_stubborn = chance.hits(200);
    node.slots = u32::try_from(chance.between((1, 8))).expect("it is small");
    node
}

fn sells(chance: &mut Chance, node: &mut Node, catalog: &Catalog) {
    if chance.hits(250) {
        return;
    }
    for _ in 0..chance.between((1, 3)) {
        let module = chance.below(catalog.modules.len() as u64);
        let module = &catalog.modules[usize::try_from(module).expect("it is small")];
        let lots: Vec<_> = module.lots.iter().collect();
        let lot = chance.pick(&lots).clone();
        let most = u32::try_from(chance.between((1, u64::from(node.slots)))).expect("it is small");
        if node.offers.iter().all(|offer| offer.lot != lot) {
            node.offers.push(Offer { lot, most, busy_at: Mono(0) });
        }
    }
}

fn calls(chance: &mut Chance, node: &mut Node, catalog: &Catalog) {
    if chance.hits(350) {
        return;
    }
    node.callers = (0..chance.between((1, 2))).map(|_| caller(chance, catalog)).collect();
}

fn caller(chance: &mut Chance, catalog: &Catalog) -> Caller {
    Caller {
        wish: wish(chance, catalog),
        gap: Duration::from_millis(chance.pick(&[30, 60, 120, 250, 500])),
        takes: Duration::from_millis(chance.pick(&[1, 10, 50, 200, 800])),
        patience: Duration::from_millis(chance.pick(&[500, 2_000, 6_000, 30_000])),
    }
}

/// Something that may be wanted.
pub fn wish(chance: &mut Chance, catalog: &Catalog) -> Wish {
    let module = chance.below(catalog.modules.len() as u64);
    let requirements = catalog.modules[usize::try_from(module).expect("it is small")].requirements.len();
    let small = |n: u64| u32::try_from(n).expect("it is small");
    Wish { module: small(module), requirement: small(chance.below(requirements as u64)) }
}

fn distance(chance: &mut Chance) -> Duration {
    let micros = match chance.below(20) {
        0 => (20_000, 60_000),
        1..=3 => (1_000, 8_000),
        _ => (20, 400),
    };
    Duration::from_micros(chance.between(micros))
}

/// What others know of a node before they have met it.
pub fn seed(node: &Node) -> Contact {
    Contact { incarnation: Incarnation(0), ..node.contact.clone() }
}
