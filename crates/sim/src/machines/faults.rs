//! What goes wrong in a run: drawn from its seed, until all heals.

use std::time::Duration;

use super::grid::Grid;
use crate::clock::HOUR_MS;
use crate::disk::{Keep, Mood as DiskMood};
use crate::grid::net::{GROUPS, Mood};

/// What kind of trouble a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// None. What there is to do is done all the same.
    Calm,
    /// Messages of the market are lost, repeated, late, out of order; connections break.
    Lossy,
    /// Not all reach all.
    Partitions,
    /// Machines crash, or are stopped, and come back.
    Crashes,
    /// The one with the store crashes, and its disk fails.
    Keeper,
    /// Machines stand still, and their clocks jump.
    Pauses,
    /// Processes are killed, modules are saved.
    Processes,
    /// All of it.
    All,
}

/// All of them.
pub const PROFILES: [Profile; 8] = [
    Profile::Calm,
    Profile::Lossy,
    Profile::Partitions,
    Profile::Crashes,
    Profile::Keeper,
    Profile::Pauses,
    Profile::Processes,
    Profile::All,
];

/// The machine with the store.
pub const KEEPER: usize = 0;

/// Lets one thing go wrong.
pub fn fault(grid: &mut Grid, profile: Profile) {
    match profile {
        Profile::Calm => {}
        Profile::Lossy => lossy(grid),
        Profile::Partitions => partition(grid),
        Profile::Crashes => crash(grid),
        Profile::Keeper => keeper(grid),
        Profile::Pauses => pause(grid),
        Profile::Processes => processes(grid),
        Profile::All => match grid.chance().below(6) {
            0 => lossy(grid),
            1 => partition(grid),
            2 => crash(grid),
            3 => keeper(grid),
            4 => pause(grid),
            _ => processes(grid),
        },
    }
}

fn any(grid: &mut Grid) -> Option<usize> {
    let up = grid.up();
    (!up.is_empty()).then(|| grid.chance().pick(&up))
}

fn lossy(grid: &mut Grid) {
    if grid.chance().hits(400) {
        let Some(machine) = any(grid) else { return };
        let links = grid.links_of(machine);
        if !links.is_empty() {
            let link = grid.chance().pick(&links);
            grid.break_link(link);
        }
        return;
    }
    let mut most = |most: u64| if grid.chance().hits(600) { grid.chance().below(most) } else { 0 };
    let mood = Mood { lost: most(250), repeated: most(250), reordered: most(400), delayed: most(60) };
    grid.net().mood = mood;
    grid.say(160, || format!("the network: {mood:?}"));
}

fn partition(grid: &mut Grid) {
    let Some(machine) = any(grid) else { return };
    let number = u32::try_from(machine).expect("it is small");
    let what = grid.chance().below(7);
    let text = match what {
        0 | 1 => {
            let (wires, common) = grid.net_and_chance();
            wires.join();
            wires.split(common, 2);
            for (from, to) in (0..GROUPS).flat_map(|a| (0..GROUPS).map(move |b| (a, b))) {
                if from != to {
                    wires.block(from, to);
                }
            }
            "the network falls apart".to_owned()
        }
        2 => {
            let net = grid.net();
            net.join();
            net.set_apart(number);
            net.block(0, 1);
            net.block(1, 0);
            format!("{machine} is cut off")
        }
        3 => {
            grid.net().set_mute(number, true);
            format!("nobody hears {machine}")
        }
        4 => {
            grid.net().set_deaf(number, true);
            format!("{machine} hears nobody")
        }
        _ => {
            grid.net().join();
            "all reach all".to_owned()
        }
    };
    grid.say(161, || text);
}

fn crash(grid: &mut Grid) {
    let Some(machine) = any(grid) else { return };
    down(grid, machine);
}

fn down(grid: &mut Grid, machine: usize) {
    let back = Duration::from_millis(grid.chance().pick(&[0, 50, 500, 2_000, 6_000]));
    if grid.chance().hits(250) {
        let stops = Duration::from_millis(grid.chance().between((0, 4_000)));
        grid.drain(machine, stops);
        return grid.start_after(machine, stops + back);
    }
    let keep = grid.chance().pick(&[Keep::All, Keep::Nothing, Keep::Some, Keep::Some]);
    let loud = grid.chance().hits(600);
    if grid.chance().below(3) == 0 {
        grid.machines[machine].world.clock.reboot();
    }
    grid.crash(machine, keep, loud);
    grid.start_after(machine, back);
}

fn keeper(grid: &mut Grid) {
    match grid.chance().below(6) {
        0..=2 => down(grid, KEEPER),
        3 | 4 => {
            let mood = DiskMood::hostile(grid.chance());
            grid.machines[KEEPER].world.disk.mood = mood;
            grid.say(141, || "the disk turns hostile".to_owned());
        }
        _ => {
            grid.machines[KEEPER].world.disk.mood = DiskMood::fine();
            grid.say(143, || "the disk is fine".to_owned());
        }
    }
}

fn pause(grid: &mut Grid) {
    let Some(machine) = any(grid) else { return };
    if grid.chance().hits(300) {
        let by = grid.chance().between((0, 2 * HOUR_MS.unsigned_abs())).cast_signed() - HOUR_MS;
        return grid.jump(machine, by);
    }
    let time = Duration::from_millis(grid.chance().pick(&[20, 300, 1_500, 4_000, 20_000]));
    grid.pause(machine, time);
}

fn processes(grid: &mut Grid) {
    let Some(machine) = any(grid) else { return };
    let world = &grid.machines[machine].world;
    let (living, peers) = (world.living(), world.connected());
    match grid.chance().below(5) {
        0..=2 if !living.is_empty() => {
            let process = grid.chance().pick(&living);
            grid.at_machine(machine, |world| world.kill(process));
        }
        3 if !peers.is_empty() => {
            let peer = grid.chance().pick(&peers);
            grid.at_machine(machine, |world| world.hang_up(peer));
        }
        _ => grid.at_machine(machine, crate::world::World::save),
    }
}

/// The faults stop: all reach all, disks are fine, who is down comes back.
pub fn heal(grid: &mut Grid) {
    grid.net().heal();
    grid.say(168, || "all heals".to_owned());
    for machine in 0..grid.machines.len() {
        grid.machines[machine].world.disk.mood = DiskMood::fine();
        grid.start_after(machine, Duration::from_millis(100));
    }
}
