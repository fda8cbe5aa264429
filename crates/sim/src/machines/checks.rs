//! What must hold of a grid of whole nodes, once all has healed and nobody wants anything any more.

use std::collections::BTreeSet;

use super::faults::KEEPER;
use super::grid::Grid;

/// Nobody waits, nothing is on its way, and no call lives; else what is not so yet.
pub fn settled(grid: &Grid) -> Result<(), String> {
    let disk = &grid.machines[KEEPER].world.disk;
    let (lives, promised) = (disk.rows(b'c').count(), disk.rows(b'o').count());
    let waiting = grid.gateway().waiting();
    if waiting > 0 || lives > 0 || promised > 0 || !disk.is_quiet() {
        return Err(format!(
            "{waiting} wait, {lives} calls live, {promised} are promised, the disk is quiet: {}",
            disk.is_quiet()
        ));
    }
    Ok(())
}

/// All nodes know the same store and the same modules, and are linked with the one that keeps it; else what is not so yet.
pub fn agreement(grid: &Grid) -> Result<(), String> {
    let all: BTreeSet<&str> =
        grid.machines.iter().flat_map(|machine| &machine.world.served).map(|(name, _)| *name).collect();
    for (number, machine) in grid.machines.iter().enumerate() {
        if !machine.world.is_up {
            return Err(format!("{number} is down"));
        }
        let node = &machine.world.node;
        let store = node.grid_store().map(|store| store.node.id.0);
        if store != Some(super::setup::key(KEEPER)) {
            return Err(format!("{number} does not know who keeps the store: {store:?}"));
        }
        if number != KEEPER && !grid.is_linked(number, KEEPER) {
            return Err(format!("{number} is not linked with the node that keeps the store"));
        }
        let known: BTreeSet<String> =
            node.modules().filter(|module| module.serving.is_some()).map(|module| module.name).collect();
        if !known.iter().map(String::as_str).eq(all.iter().copied()) {
            return Err(format!("{number} knows the modules {known:?}, and there are {all:?}"));
        }
    }
    Ok(())
}
