//! What must hold of the grid as a whole, once all has healed.
//!
//! * all nodes see the same authorities, as many as there should be, and those are the ones that serve;
//! * each module's orders are where placing says, and nowhere else;
//! * nobody waits while somebody who sells that has a slot to spare;
//! * when nobody wants anything, nothing runs, and each slot is free or lies as a token with a buyer that lives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bourse_market::placing;
use bourse_market::{Contact, NodeId};
use bourse_wire::time::Mono;

use super::market::{ChannelView, hosted};
use super::node::{Node, sight};
use super::world::World;

/// Nobody waits for longer than this while somebody has a slot to spare.
pub const IDLE_MAX: Duration = Duration::from_secs(8);

/// What was lost on its way is noticed within this, once nothing more is lost.
pub const NOTICED_MAX: Duration = Duration::from_secs(6);

/// Nodes that are up, see what happens, and tell the truth.
fn honest(world: &World) -> impl Iterator<Item = &Node> + Clone {
    world.nodes.iter().filter(|node| node.is_honest() && node.paused_until <= world.at)
}

/// How many authorities there should be, at least and at most: some that may be one can't be connected to.
fn target(world: &World) -> (usize, usize) {
    let nodes = world.nodes.iter().filter(|node| node.is_up()).count();
    let able = honest(world).filter(|node| node.may_serve);
    let reachable = able.clone().filter(|node| node.is_reachable()).count();
    let times = &world.times;
    let wanted =
        nodes.div_ceil(times.nodes_per_authority).clamp(times.authorities_min, times.authorities_max);
    (wanted.min(reachable).max(1), wanted.min(able.count()).max(1))
}

fn serving(world: &World) -> Vec<Contact> {
    honest(world).filter(|node| node.serves()).map(|node| node.contact.clone()).collect()
}

/// Whether all agree on who the authorities are, and who belongs to the grid; else what is not so yet.
pub fn agreement(world: &World) -> Result<(), String> {
    let serving = serving(world);
    let ids: BTreeSet<(NodeId, u64)> = serving.iter().map(|c| (c.id, c.incarnation.0)).collect();
    for node in honest(world) {
        let market = node.market.as_ref().expect("it is up");
        let seen: BTreeSet<_> = market.authorities().iter().map(|c| (c.id, c.incarnation.0)).collect();
        if seen != ids {
            return Err(format!("{} sees the authorities {seen:?}, and {ids:?} serve", node.number));
        }
    }
    let rosters = honest(world).map(|node| node.market.as_ref().expect("it is up").roster().digest());
    let different = rosters.collect::<BTreeSet<u64>>().len();
    if different > 1 {
        return Err(format!("there are {different} different lists of keys"));
    }
    let ((least, most), are) = (target(world), serving.len());
    if are < least || are > most {
        return Err(format!("there are {are} authorities, and should be from {least} to {most}"));
    }
    Ok(())
}

/// Whether each module's orders are where they should be; else what is not so yet. Who has nothing to spare sells nothing.
pub fn placement(world: &World) -> Result<(), String> {
    let serving = serving(world);
    let lied = world.nodes.iter().any(|node| node.is_up() && node.liar.is_some());
    let mut sold = BTreeMap::new();
    let has_free = |node: &&Node| node.market.as_ref().is_some_and(|market| market.slots().1 > 0);
    for node in honest(world).filter(|node| !node.is_leaving).filter(has_free) {
        for offer in node.offers.iter().filter(|offer| offer.most > 0) {
            *sold.entry(offer.lot.module.as_str()).or_insert(0usize) += 1;
        }
    }
    for node in honest(world) {
        let hosted = hosted(node.market.as_ref().expect("it is up"));
        for module in &world.catalog.modules {
            let name = module.name.as_str();
            let hosts = placing::hosts(name, &serving, world.times.replicas);
            let orders = hosted.get(name).copied().unwrap_or(0);
            let is_host = hosts.iter().any(|host| host.id == node.contact.id);
            let wanted = sold.get(name).copied().unwrap_or(0);
            // Who repeats what others have said long ago puts orders anywhere.
            if !is_host && orders > 0 && !lied {
                return Err(format!("{} has {orders} orders of {name}, and is no host of it", node.number));
            }
            if is_host && orders < wanted {
                return Err(format!("{} has {orders} orders of {name}, and {wanted} are sold", node.number));
            }
        }
    }
    Ok(())
}

/// Who waits though there is somebody who sells what it waits for and has had a slot in which nothing runs, ever since
/// `since`: free, or lying idle as a token with somebody else.
pub fn waits_in_vain(world: &World, since: Mono) -> Option<String> {
    for buyer in honest(world) {
        for line in buyer.lines.iter().filter(|line| !line.waiting.is_empty()) {
            let begin = line.since.max(since);
            if world.at.since(begin) <= IDLE_MAX {
                continue;
            }
            for seller in honest(world).filter(|seller| seller.number != buyer.number && !seller.is_leaving) {
                let begin = match buyer.linked_since(seller.contact.id) {
                    Some(linked) if !seller.is_reachable() => begin.max(linked),
                    None if !seller.is_reachable() => continue,
                    _ => begin,
                };
                for offer in seller.offers.iter().filter(|offer| offer.most > 0 && seller.slots > 0) {
                    let begin = begin.max(seller.busy_at).max(offer.busy_at);
                    let idle = world.at.since(begin);
                    if world.catalog.fits(line.wish, &offer.lot) && idle > IDLE_MAX {
                        let (name, requirement) = world.catalog.wish(line.wish);
                        return Some(format!(
                            "{} calls of {} wait for {name} {requirement}, and {} has had slots of {} to spare for \
                             {idle:?}",
                            line.waiting.len(),
                            buyer.number,
                            seller.number,
                            offer.lot
                        ));
                    }
                }
            }
        }
    }
    None
}

/// A call that was sent before all healed, and of which nothing was heard for much longer than it takes since then: lost calls
/// and lost answers have to be noticed.
pub fn forgotten(world: &World, healed: Mono) -> Option<String> {
    for buyer in honest(world) {
        for job in buyer.open.iter().filter(|job| job.sent < healed) {
            let waits = world.at.since(healed);
            let seller = honest(world).find(|seller| seller.contact.id == job.token.seller);
            if waits > job.takes * 2 + NOTICED_MAX && seller.is_some() && world.twin.is_none() {
                return Some(format!("{} has heard nothing of {} for {waits:?}", buyer.number, sight(job)));
            }
        }
    }
    None
}

/// Whether nothing runs, and each slot is accounted for; else what is wrong.
pub fn conservation(world: &World) -> Result<(), String> {
    let liars = world.nodes.iter().any(|node| node.liar.is_some());
    let mut out: BTreeMap<String, u32> = BTreeMap::new();
    for node in honest(world) {
        let market = node.market.as_ref().expect("it is up");
        if node.running() > 0 {
            return Err(format!("{} runs {} calls that nobody has made", node.number, node.running()));
        }
        if !node.open.is_empty() {
            return Err(format!("{} waits for calls that have ended", node.number));
        }
        let (slots, free, own) = market.slots();
        let mut held = 0;
        for ChannelView { node: buyer, lot, tokens: unused, running } in market.sold() {
            held += unused + running;
            let at = world.nodes.iter().find(|node| node.is_up() && node.contact.id == buyer);
            if at.is_some_and(|buyer| buyer.liar.is_some()) {
                continue;
            }
            if running > 0 || (at.is_none() && unused > 0) {
                let number = node.number;
                return Err(format!(
                    "{number} has {unused} tokens with {buyer:?} and {running} calls of {lot}"
                ));
            }
            *out.entry(lot.module).or_default() += unused;
        }
        if own != 0 || free + held != slots {
            let number = node.number;
            return Err(format!("{number} has {slots} slots, {free} free, {held} sold, {own} its own"));
        }
    }
    for module in world.catalog.modules.iter().filter(|_| !liars) {
        let bought = honest(world).flat_map(|node| node.market.as_ref().expect("it is up").bought());
        let held: u32 =
            bought.filter(|channel| channel.lot.module == module.name).map(|channel| channel.tokens).sum();
        let out = out.get(&module.name).copied().unwrap_or(0);
        if held != out {
            return Err(format!("{out} tokens of {} are out, and {held} are held", module.name));
        }
    }
    Ok(())
}
