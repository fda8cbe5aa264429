//! Grids of whole nodes, drawn from a seed: how many, what each serves in which version, how many slots each has, how far apart.

use std::sync::Arc;
use std::time::Duration;

use bourse_market::times::Times;
use bourse_node::{Config, GridConfig, OwnStore};

use super::grid::Grid;
use crate::chance::Chance;
use crate::stage::MODULES;
use crate::trace::Trace;
use crate::world::World;

/// Versions that modules have.
pub const VERSIONS: [&str; 3] = ["1.0.0", "1.2.0", "2.0.0"];
/// What is wanted of them.
pub const WANTED: [&str; 4] = ["", "^1", ">=1.2", "^2"];
/// Nodes of a small grid, at least and at most.
const NODES: (u64, u64) = (2, 6);

/// The key of a machine's node.
pub fn key(machine: usize) -> [u8; 32] {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(machine as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    key
}

/// The address of a machine's node.
pub fn address(machine: usize) -> String {
    format!("m{machine}:7071")
}

/// Which machine has an address.
pub fn number(address: &str) -> Option<usize> {
    address.strip_prefix('m')?.strip_suffix(":7071")?.parse().ok()
}

/// How a machine is set. Machine 0 is everybody's first seed, and has the store.
pub fn config(machine: usize, slots: usize) -> Config {
    let seeds = if machine == 0 { Vec::new() } else { vec![(key(0), address(0))] };
    let id = [u8::try_from(machine % 251).expect("it is small") + 1; 16];
    Config {
        running_max: slots,
        grid: Some(GridConfig {
            id: key(machine),
            name: format!("m{machine}"),
            address: address(machine),
            domain: format!("d{}", machine % 3),
            seeds,
            may_serve: true,
            sell_max: None,
            roster: Vec::new(),
            store: Some(OwnStore { id, used: false, offered: machine == 0 }),
            known_store: None,
            catalogue: Vec::new(),
            times: Arc::new(Times::default()),
        }),
        ..World::config()
    }
}

/// A grid by chance, of so many machines if that is given. Machine 1 serves all modules, in some version.
pub fn grid(mut chance: Chance, machines: Option<usize>, trace: Trace) -> Grid {
    let few = usize::try_from(chance.between(NODES)).expect("it is small");
    let nodes = machines.unwrap_or(few);
    let far = (0..nodes).map(|_| Duration::from_micros(chance.pick(&[20, 50, 200, 2_000]))).collect();
    let slots = (0..nodes).map(|_| usize::try_from(chance.between((1, 4))).expect("it is small"));
    let configs = slots.enumerate().map(|(machine, slots)| config(machine, slots)).collect();
    let mut grid = Grid::new(configs, far, chance, trace);
    let several = grid.chance().hits(600);
    for machine in 0..nodes {
        let mut served = Vec::new();
        for name in MODULES {
            // Machine 1 serves all there is; the others perhaps not.
            if machine == 1 || grid.chance().hits(800) {
                let version = if several { grid.chance().pick(&VERSIONS) } else { VERSIONS[1] };
                served.push((name, version));
            }
        }
        grid.machines[machine].world.served = served;
    }
    grid
}
