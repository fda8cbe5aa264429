//! The simulator of grids of whole nodes: each machine has a real [`bourse_node::Node`], with processes, functions, a disk and clients
//! as in [`crate::world`], and between them is a network that is slow, splits, breaks connections, and mistreats the market's messages.
//!
//! ```text
//! cli, tests -> seeds -> setup, faults -> grid -> machines (crate::world) -> node
//!                                         grid -> net (crate::grid::net)
//!                        seeds -> checks
//! ```
//!
//! | file | holds |
//! |---|---|
//! | [`grid`] | the driver: virtual time, whose turn it is, lives of machines |
//! | [`wires`] | connections between machines |
//! | [`setup`] | grids by chance |
//! | [`faults`] | what goes wrong |
//! | [`checks`] | what must hold of the grid as a whole, once all has healed |
//! | [`seeds`] | runs from seeds |
//!
//! What is true of calls is known by the books of [`crate::checkers`], which read the disk of the machine that keeps the store: nothing
//! accepted is lost, nothing takes effect twice, nobody is told what is not so, on however many machines it runs.

pub mod checks;
pub mod cli;
pub mod faults;
pub mod grid;
pub mod seeds;
pub mod setup;
pub mod wires;
