//! The simulator of the market: many paper-thin nodes, each with a real [`market::Market`], in one process under virtual
//! time, on a network that loses, repeats and delays, splits and heals, with nodes that crash, pause and lie.
//!
//! ```text
//! cli, tests -> seeds -> setup, faults -> world -> nodes -> market
//!               scale ------------------> world -> net
//!                                         world -> books (calls), checks (the grid as a whole)
//! ```
//!
//! | file | holds |
//! |---|---|
//! | [`world`] | the driver: virtual time, what happens next, lives of nodes |
//! | [`agenda`] | the queue of events |
//! | [`net`] | links, partitions, what becomes of messages |
//! | [`node`] | a market, callers, calls that wait, instances that take time |
//! | [`books`] | what becomes of each call |
//! | [`catalog`] | modules, versions, requirements |
//! | [`lies`] | peers that lie |
//! | [`faults`] | what goes wrong |
//! | [`checks`] | what must hold of the grid as a whole |
//! | [`setup`] | grids by chance |
//! | [`seeds`] | runs from seeds |
//!
//! What is simulated and what is not: docs/simulation.md.

pub mod agenda;
pub mod books;
pub mod bytes;
pub mod catalog;
pub mod checks;
pub mod cli;
pub mod faults;
pub mod lies;
pub mod market;
pub mod mutants;
pub mod net;
pub mod node;
mod plot;
pub mod report;
pub mod scale;
pub mod seeds;
pub mod setup;
pub mod sight;
pub mod world;
