//! The simulator: one real [`bourse_node::Node`] under virtual time, in a world that goes wrong.
//!
//! ```text
//! cli, tests -> scenarios, seeds -> world -> node
//!                                   world -> disk, clock, workers, gateway
//!                                   world -> checkers (the books), by what lands on the disk
//! ```
//!
//! | file | holds |
//! |---|---|
//! | [`world`] | the driver: jumps to what happens next, carries outputs out, crashes the node at a boundary |
//! | `keeper`, `worker` | processes and connections; a worker that speaks the protocol |
//! | [`stage`] | what functions do: plans, steps, ledgers |
//! | [`disk`] | a store that is late, forgets, fails, and does not say what it has done |
//! | [`clock`] | a wall clock that jumps, a monotonic one that goes on |
//! | [`workload`] | what clients want |
//! | [`gateway`] | what clients have asked for and been told |
//! | [`checkers`] | what must hold |
//! | [`histories`] | what real processes have done, for the same checkers |
//!
//! It never sleeps, reads no clock and draws no entropy but what its seed gives: a seed is a run.

pub mod boundaries;
pub mod chance;
pub mod checkers;
pub mod cli;
pub mod clock;
pub mod disk;
mod faults;
pub mod gateway;
pub mod grid;
pub mod histories;
mod keeper;
pub mod machines;
pub mod many;
pub mod mutants;
pub mod scenarios;
pub mod seeds;
mod sight;
pub mod stage;
pub mod trace;
pub mod triggers;
mod worker;
pub mod workload;
pub mod world;
