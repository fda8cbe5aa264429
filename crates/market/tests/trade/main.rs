//! The trade: both ends of channels, a listener and a balancer, over a network that may do anything.

#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test: its modules are its own, and it may panic")]

mod balance;
#[cfg(feature = "mutants")]
mod mutants;
mod seeds;
mod traces;
mod world;
