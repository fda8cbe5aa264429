//! The ZeroMQ ends against real peers: pyzmq, hand-made byte streams, and each other.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

mod bind;
mod curve;
mod dealer;
mod hostile;
mod lives;
mod node;
mod python;
mod pyzmq;
mod raw;
