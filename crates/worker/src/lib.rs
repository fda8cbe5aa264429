//! Hosts instances: the keeper, Python environments, module discovery.
//!
//! | module | holds |
//! |---|---|
//! | [`keeper`] | the process that parents instances, and the daemon's handle on it |
//! | [`codec`] | the frames between daemon, keeper and templates |
//! | [`scan`] | what modules a served folder has |
//! | [`revision`] | what a module's files hash to |
//! | [`settings`] | what `bourse.toml` says of modules |
//! | [`watch`] | notices that the folder has changed |
//! | [`bundle`] | files that travel together |
//! | [`environment`] | virtual environments with what the SDK and the user need |
//! | [`sdk`] | the Python SDK, which travels inside the binary |
//! | [`python`] | command lines and environments of Python templates and workers |
//! | [`process`] | the same for `command` modules |
//!
//! Everything here is mechanism and blocks; the daemon calls it from threads. When to start, stop, fork or
//! restart anything is the node's decision. No async runtime, no sockets but the keeper's, no clock but for
//! polling.

pub mod bundle;
pub mod codec;
pub mod environment;
pub mod keeper;
pub mod process;
pub mod python;
pub mod revision;
pub mod scan;
pub mod sdk;
pub mod settings;
mod tree;
pub mod watch;
