//! What is measured, against whom, and what it should be.

/// One line of the table.
pub(crate) struct Row {
    pub name: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    /// Empty: there is none.
    pub peer: &'static str,
    pub target: Target,
}

impl Row {
    /// Whether it is compared with our own echo over HTTP.
    pub(crate) fn needs_echo(&self) -> bool {
        self.peer == OWN_ECHO || matches!(self.target, Target::RatioAtLeastOrEcho(..))
    }
}

/// The peer that we are ourselves: what [`ECHO`] has measured.
pub(crate) const OWN_ECHO: &str = "own echo";
/// The row of our own echo over HTTP.
pub(crate) const ECHO: &str = "http-throughput";

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Ours by the peer's, at most.
    RatioAtMost(f64),
    /// Ours by the peer's, at least.
    RatioAtLeast(f64),
    /// The same, or ours by our own echo over HTTP at least the second.
    RatioAtLeastOrEcho(f64, f64),
    /// Ours, whatever others do.
    AtMost(f64),
    /// None: it is told to explain others.
    None,
}

use Target::{AtMost, RatioAtLeast, RatioAtLeastOrEcho, RatioAtMost};

const fn row(
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    peer: &'static str,
    target: Target,
) -> Row {
    Row { name, what, unit, peer, target }
}

/// The table, in the order in which it is measured: what must be measured on a fresh daemon comes first.
/// Durable calls have daemons of their own.
pub(crate) const ROWS: &[Row] = &[
    row("idle-memory", "idle daemon, resident, before any load", "MB", "", AtMost(25.0)),
    row("idle-memory-keeper", "the keeper, resident", "MB", "", Target::None),
    row("idle-memory-template", "a fork server with its module, proportional", "MB", "", Target::None),
    row("idle-cpu", "idle daemon, processor time over 10 s", "%", "", AtMost(0.1)),
    row(
        "floor-latency",
        "bare echo over a Unix socket; pyzmq ipc echo: sequential p50",
        "us",
        "pyzmq",
        Target::None,
    ),
    row("floor-throughput", "the same, 64 in flight", "/s", "pyzmq", Target::None),
    row(
        "client-latency",
        "Python client, daemon, worker and back: sequential p50",
        "us",
        "nats-py",
        RatioAtMost(0.6),
    ),
    row("raw-throughput", "64 in flight, 2 workers, raw Rust client", "/s", "nats-py", RatioAtLeast(1.5)),
    row(
        "client-throughput",
        "64 in flight, 2 workers, one Python client",
        "/s",
        "nats-py",
        RatioAtLeast(1.1),
    ),
    row("raw-throughput-1", "64 in flight, 1 worker, raw Rust client", "/s", "", Target::None),
    row("http-latency", "HTTP keep-alive POST: sequential p50", "us", "workerd", RatioAtMost(1.2)),
    row("http-throughput", "HTTP keep-alive POST, 64 connections", "/s", "workerd", RatioAtLeast(1.0)),
    row("fan-out", "1,000 calls at once from one Python client", "ms", "nats-py", RatioAtMost(1.0)),
    row("cold-start", "call of a module without an instance, p50", "ms", "python -c pass", AtMost(6.0)),
    row("start", "start of the daemon to the first answer", "ms", "nats + worker", AtMost(150.0)),
    row("start-new-folder", "the same in a folder never served before", "ms", "", Target::None),
    row(
        "store-writes",
        "64 rows in 64 batches per fsync, at the store",
        "/s",
        "bare SQLite",
        RatioAtLeast(0.7),
    ),
    row("state-writes", "state writes through Python, 64 in flight", "/s", OWN_ECHO, RatioAtLeast(0.7)),
    row("memory-after-load", "idle daemon, resident, after all of the above", "MB", "", Target::None),
    row(
        "durable-latency",
        "a durable call, answered when its result is on disk: sequential p50",
        "us",
        "Restate",
        RatioAtMost(1.0),
    ),
    row("durable-throughput", "the same, 64 in flight", "/s", "Restate", RatioAtLeast(4.0)),
    row(
        "accept-throughput",
        "asynchronous calls answered when they are on disk, 64 in flight",
        "/s",
        "bare SQLite",
        RatioAtLeastOrEcho(0.5, 0.7),
    ),
];
