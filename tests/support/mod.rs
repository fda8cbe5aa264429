//! Daemons for tests: started in folders of their own, asked over HTTP, ended with everything they started.

mod client;
pub(crate) mod command;
mod daemon;
mod grid;
mod hosts;
mod processes;
mod script;

use std::time::{Duration, Instant};

pub(crate) use client::{Client, JSON, Response};
pub(crate) use command::joined;
pub(crate) use daemon::{Daemon, Setup, python_home};
pub(crate) use grid::{Gate, Grid, Pending};
pub(crate) use hosts::Hosts;
pub(crate) use processes::{alive, signal, with_mark};
pub(crate) use script::Script;

/// How long anything that is to happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until there is something, or fails saying what never came.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Looks until it is so.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    until(what, || so().then_some(()));
}

/// A test that needs what the machine does not have says so.
pub(crate) fn skipped(why: &str) {
    println!("skipped: {why}");
}
