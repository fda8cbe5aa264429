//! Conversations with [`bourse_durable::Durable`], one file per behaviour.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers as well")]

mod bounds;
mod late_reads;
mod model;
mod nesting;
mod scans;
mod store_failures;
mod transactions;
mod world;
