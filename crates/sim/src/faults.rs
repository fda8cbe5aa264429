//! What goes wrong in a run: drawn from its seed, until the faults stop.

use std::time::Duration;

use bourse_node::Input;

use crate::clock::HOUR_MS;
use crate::disk::{Keep, Mood};
use crate::world::World;

/// How long a drain may take before the node is ended anyway.
const DRAINS_MAX: Duration = Duration::from_secs(5);

/// Lets one thing go wrong.
pub(crate) fn fault(world: &mut World) {
    match world.chance.below(20) {
        0..=3 => {
            let keep = world.chance.pick(&[Keep::All, Keep::Nothing, Keep::Some, Keep::Some]);
            crash(world, keep);
        }
        4 => {
            let keep = world.chance.pick(&[Keep::Nothing, Keep::Some]);
            crash(world, keep);
            // And again, while it is recovering.
            for _ in 0..world.chance.below(600) {
                world.step();
            }
            crash(world, Keep::Some);
        }
        5 => {
            world.say(40, || "the node is told to stop".to_owned());
            world.input(Input::Drain);
            let most = world.clock.at() + DRAINS_MAX;
            world.run_until(most, |w| w.drained && w.disk.is_quiet());
            crash(world, Keep::All);
        }
        6..=9 => {
            world.disk.mood = Mood::hostile(&mut world.chance);
            world.say(41, || "the disk turns hostile".to_owned());
        }
        10 => {
            world.disk.mood.away = true;
            world.say(42, || "the disk is away".to_owned());
        }
        11 | 12 => {
            world.disk.mood = Mood::fine();
            world.say(43, || "the disk is fine".to_owned());
        }
        13 | 14 => {
            let living = world.living();
            if !living.is_empty() {
                let process = world.chance.pick(&living);
                world.kill(process);
            }
        }
        15 => {
            let peers = world.connected();
            if !peers.is_empty() {
                let peer = world.chance.pick(&peers);
                world.hang_up(peer);
            }
        }
        16..=18 => {
            let by = world.chance.between((0, 2 * HOUR_MS.unsigned_abs())).cast_signed() - HOUR_MS;
            let went = world.clock.jump(by);
            world.say(44, || format!("the wall clock jumps by {went} ms"));
        }
        _ => world.save(),
    }
}

fn crash(world: &mut World, keep: Keep) {
    if world.chance.below(3) == 0 {
        world.clock.reboot();
    }
    world.crash(keep);
}

/// The faults stop.
pub(crate) fn stop(world: &mut World) {
    world.disk.mood = Mood::fine();
    world.say(45, || "the faults stop".to_owned());
}
