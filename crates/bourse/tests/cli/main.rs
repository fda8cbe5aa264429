//! The commands as people and scripts use them: the real binary, fresh folders, and a real daemon where one is asked.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

mod calls;
mod finding;
mod grid;
mod logs;
mod making;
mod settings;
mod store;
mod world;
