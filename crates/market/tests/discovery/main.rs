//! How nodes find each other and what they trade: conversations, scenarios, random operations, planted faults.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and writes its traces"
)]
#![expect(unreachable_pub, reason = "each file is used by the ones beside it only")]

mod common;
mod mutants;
mod properties;
mod scenarios;
mod traces;
