//! The keeper: a small process between the daemon and its instances.
//!
//! It parents every instance, so that a daemon can be slow, stopped or killed without leaving one behind, and so
//! that an exit is known at once whatever language the instance is written in. `proto/bourse/v1/keeper.proto` is
//! its protocol.
//!
//! - daemon → keeper: `Spawn`, `Fork`, `Signal`, `Shutdown`, or the end of the socket
//! - keeper → daemon: `Started`, `Exited` (once for every `Spawn` and `Fork`), `Loaded`
//! - keeper → template: `ForkOne`; template → keeper: `TemplateReady`, `Failure`, `Forked`
//!
//! | file | holds |
//! |---|---|
//! | `handle` | the daemon's half: starts a keeper, cleans up after a dead one |
//! | `run` | the keeper's loop: one thread, one `poll` |
//! | `process` | starts a program |
//! | `forks` | instances that templates fork: orders, claims, losses |
//! | `template` | one fork server: its socket and the forks it owes |
//! | `link` | a non-blocking socket that carries frames |
//! | `reap` | finds and ends descendants, also those that got away |
//!
//! How nothing gets away. A program is started in a session of its own, with SIGKILL as its parent-death signal.
//! The keeper is a subreaper: what daemonises becomes its child. When a process ends, so do its process group and
//! those of its descendants that can be told to be its own: by their session, or by `BOURSE_PROCESS` in the
//! environment they were started with. The others end with the keeper. If the keeper itself is killed, what is
//! left becomes the daemon's ([`become_subreaper`]), which ends it ([`Keeper::reap_orphans`]).
//!
//! The keeper never decides to start, restart or stop anything, never reads a module, and has no clock.

mod forks;
mod handle;
mod link;
mod process;
mod reap;
mod run;
mod template;

pub use handle::{Keeper, Orphans, become_subreaper};
pub use run::{main, run};

/// The most processes at once. A `Spawn` or `Fork` beyond it is refused.
pub const PROCESSES_MAX: usize = 16_384;

/// The longest secret, in bytes: it must fit into a pipe before anyone reads.
pub const SECRET_BYTES_MAX: usize = 4_096;

/// Names the descriptor from which a process reads its secret, up to its end.
pub const SECRET_FD: &str = "BOURSE_SECRET_FD";

/// Names the descriptor of a template's socket.
pub const CONTROL_FD: &str = "BOURSE_CONTROL_FD";

/// Set in every process's environment to its number, so that its descendants can be told from others'.
pub const PROCESS: &str = "BOURSE_PROCESS";
