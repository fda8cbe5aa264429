//! What goes wrong in a run: drawn from its seed, until all heals.

use std::time::Duration;

use bourse_market::NodeId;
use bourse_market::roster::Roster;

use super::lies::LIES;
use super::lies::Lie;
use super::net::{GROUPS, Mood};
use super::world::World;
use crate::chance::Chance;

/// What kind of trouble a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// None. What there is to do is done all the same.
    Calm,
    /// Messages are lost, repeated, late, out of order; links break.
    Lossy,
    /// Not all reach all.
    Partitions,
    /// Nodes crash, or leave, and come back.
    Crashes,
    /// Nodes stand still.
    Pauses,
    /// Authorities come and go.
    Churn,
    /// All of it.
    All,
}

/// All of them.
pub const PROFILES: [Profile; 7] = [
    Profile::Calm,
    Profile::Lossy,
    Profile::Partitions,
    Profile::Crashes,
    Profile::Pauses,
    Profile::Churn,
    Profile::All,
];

impl Profile {
    /// One of them.
    pub fn draw(chance: &mut Chance) -> Self {
        chance.pick(&PROFILES)
    }

    /// What goes wrong at least.
    pub fn faults_min(self) -> u64 {
        match self {
            Self::Calm => 0,
            Self::Lossy | Self::Partitions | Self::Crashes | Self::Pauses | Self::Churn => 4,
            Self::All => 6,
        }
    }
}

/// How the run's liar lies, if it has one: one run in five.
pub fn draw_lie(chance: &mut Chance) -> Option<Lie> {
    chance.hits(200).then(|| chance.pick(&LIES))
}

/// Lets one thing go wrong.
pub fn fault(world: &mut World, profile: Profile) {
    match profile {
        Profile::Calm => {}
        Profile::Lossy => lossy(world),
        Profile::Partitions => partition(world),
        Profile::Crashes => crash(world),
        Profile::Pauses => pause(world),
        Profile::Churn => churn(world),
        Profile::All => match world.chance.below(5) {
            0 => lossy(world),
            1 => partition(world),
            2 => crash(world),
            3 => pause(world),
            _ => churn(world),
        },
    }
}

/// What is nobody's fault, and happens all the time.
pub fn happening(world: &mut World) {
    let Some(node) = any(world, |_| true) else { return };
    match world.chance.below(8) {
        0 | 1 => {
            // A rollout: one version more, another one less.
            let module = world.chance.below(world.catalog.modules.len() as u64);
            let module = &world.catalog.modules[usize::try_from(module).expect("it is small")];
            let (old, new) = (module.lots[0].clone(), module.lots[1].clone());
            let slots = world.node(node).slots;
            world.say(50, || format!("{node} goes from {old} to {new}"));
            world.act(node, |node, env| {
                node.offer(&new, slots, env);
                if node.offers.iter().any(|offer| offer.lot == old) {
                    node.offer(&old, 0, env);
                }
            });
        }
        2 => {
            let slots = u32::try_from(world.chance.between((1, 8))).expect("it is small");
            world.say(51, || format!("{node} has {slots} slots now"));
            world.act(node, |node, env| node.resize(slots, env));
        }
        3 => {
            let is_flaky = !world.node(node).is_flaky;
            world.say(52, || format!("{node} fails: {is_flaky}"));
            world.node_mut(node).is_flaky = is_flaky;
        }
        4 => {
            let key = NodeId([u8::try_from(world.chance.below(12)).expect("it is small"); 32]);
            let what = world.chance.below(3);
            world.say(53, || format!("{node} changes the key {key:?} on the list: {what}"));
            world.act(node, |node, env| {
                let change = |roster: &mut Roster| {
                    // A key that was never there can't be revoked.
                    let _ = match what {
                        0 => roster.admit(key, "somebody"),
                        1 => roster.revoke(key),
                        _ => roster.invite(key, 9, ""),
                    };
                };
                node.enter(change, env);
            });
        }
        _ => {
            let takes = Duration::from_millis(world.chance.between((1, 600)));
            world.act(node, |node, env| node.work(takes, env));
        }
    }
}

/// One of the nodes that are up.
fn any(world: &mut World, which: impl Fn(u32) -> bool) -> Option<u32> {
    let up: Vec<u32> = world.all().filter(|node| world.node(*node).is_up() && which(*node)).collect();
    (!up.is_empty()).then(|| world.chance.pick(&up))
}

fn lossy(world: &mut World) {
    if world.chance.hits(300) {
        let Some(node) = any(world, |_| true) else { return };
        let links: Vec<_> = world.node(node).peers.iter().map(|peer| peer.link).collect();
        if !links.is_empty() {
            let link = world.chance.pick(&links);
            world.break_link(link);
        }
        return;
    }
    let chance = &mut world.chance;
    let mut most = |most: u64| if chance.hits(600) { chance.below(most) } else { 0 };
    world.net.mood = Mood { lost: most(250), repeated: most(250), reordered: most(400), delayed: most(80) };
    let mood = world.net.mood;
    world.say(60, || format!("the network: {mood:?}"));
}

fn partition(world: &mut World) {
    let Some(node) = any(world, |_| true) else { return };
    match world.chance.below(8) {
        0 | 1 => {
            let groups = usize::try_from(world.chance.between((2, 3))).expect("it is small");
            world.net.join();
            world.net.split(&mut world.chance, groups);
            for (from, to) in pairs() {
                world.net.block(from, to);
            }
            world.say(61, || format!("the network falls into {groups} parts"));
        }
        2 => {
            world.net.join();
            world.net.split(&mut world.chance, 2);
            world.net.block(0, 1);
            world.say(62, || "one half does not hear the other".to_owned());
        }
        3 => {
            world.net.join();
            world.net.set_apart(node);
            world.net.block(0, 1);
            world.net.block(1, 0);
            world.say(63, || format!("{node} is cut off"));
        }
        4 => {
            world.net.set_mute(node, true);
            world.say(64, || format!("nobody hears {node}"));
        }
        5 => {
            world.net.set_deaf(node, true);
            world.say(65, || format!("{node} hears nobody"));
        }
        _ => {
            world.net.join();
            world.say(66, || "all reach all".to_owned());
        }
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..GROUPS).flat_map(|from| (0..GROUPS).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

fn crash(world: &mut World) {
    let Some(node) = any(world, |_| true) else { return };
    down(world, node);
}

fn down(world: &mut World, node: u32) {
    let back = Duration::from_millis(world.chance.pick(&[0, 50, 500, 2_000, 4_000, 9_000]));
    if world.chance.hits(250) {
        let leaves = Duration::from_millis(world.chance.between((0, 2_000)));
        world.leave(node, leaves);
        world.restart_after(node, leaves + back);
    } else {
        let loud = world.chance.hits(500);
        world.crash(node, loud);
        // Some come back when all heals, or never.
        if world.chance.hits(850) {
            world.restart_after(node, back);
        }
    }
}

fn pause(world: &mut World) {
    let Some(node) = any(world, |_| true) else { return };
    let time = Duration::from_millis(world.chance.pick(&[20, 200, 1_000, 2_600, 3_000, 6_000]));
    world.pause(node, time);
}

fn churn(world: &mut World) {
    let serving: Vec<u32> = world.all().filter(|node| world.node(*node).serves()).collect();
    if !serving.is_empty() {
        let node = world.chance.pick(&serving);
        down(world, node);
    } else {
        crash(world);
    }
}

/// All heals: who is down comes back, but for some, and liars fall silent.
pub fn heal(world: &mut World, liars_stay: bool) {
    world.net.heal();
    world.say(67, || "all heals".to_owned());
    for node in world.all() {
        world.node_mut(node).is_flaky = false;
        let is_seed =
            world.node(node).seeds.iter().any(|seed| seed.address == world.node(node).contact.address);
        if world.node(node).liar.is_some() && !liars_stay {
            // Not even if it was to come back.
            world.node_mut(node).is_over = true;
            world.crash(node, true);
        } else if !world.node(node).is_up() && (is_seed || world.chance.hits(800)) {
            let after = Duration::from_millis(world.chance.below(1_000));
            world.restart_after(node, after);
        }
    }
}
