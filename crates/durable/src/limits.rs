//! Every bound of this crate that a configuration may change. The others, which are part of a format or of an
//! algorithm, stand where they are used.

use std::time::Duration;

/// The most layers open at once.
pub const LAYERS_MAX: usize = 65_536;
/// The most keys and ranges that one layer may have read.
pub const READS_PER_LAYER_MAX: usize = 10_000;
/// The most reads and scans unanswered at once.
pub const READS_WAITING_MAX: usize = 65_536;
/// The most finishes that wait for one partition to be acquired.
pub const FINISHES_WAITING_MAX: usize = 10_000;
/// The most writes that a partition remembers to validate against.
pub const RECENT_WRITES_MAX: usize = 65_536;
/// The most full batches of one partition that wait for the one in flight.
pub const BATCHES_WAITING_MAX: usize = 16;
/// The most bytes of committed records kept in memory.
pub const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long an ended call can be asked for, and an idempotency key holds.
pub const ENDED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// The times that acquiring a partition is tried before those who wait for it are told.
pub const ACQUIRE_ATTEMPTS_MAX: u32 = 8;

/// The bounds of one [`crate::Durable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// [`LAYERS_MAX`]
    pub layers_max: usize,
    /// [`READS_PER_LAYER_MAX`]
    pub reads_per_layer_max: usize,
    /// [`READS_WAITING_MAX`]
    pub reads_waiting_max: usize,
    /// [`FINISHES_WAITING_MAX`]
    pub finishes_waiting_max: usize,
    /// [`RECENT_WRITES_MAX`]
    pub recent_writes_max: usize,
    /// [`BATCHES_WAITING_MAX`]
    pub batches_waiting_max: usize,
    /// [`CACHE_BYTES_MAX`]
    pub cache_bytes_max: usize,
    /// [`ACQUIRE_ATTEMPTS_MAX`]
    pub acquire_attempts_max: u32,
    /// [`ENDED_KEPT`]
    pub ended_kept: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layers_max: LAYERS_MAX,
            reads_per_layer_max: READS_PER_LAYER_MAX,
            reads_waiting_max: READS_WAITING_MAX,
            finishes_waiting_max: FINISHES_WAITING_MAX,
            recent_writes_max: RECENT_WRITES_MAX,
            batches_waiting_max: BATCHES_WAITING_MAX,
            cache_bytes_max: CACHE_BYTES_MAX,
            acquire_attempts_max: ACQUIRE_ATTEMPTS_MAX,
            ended_kept: ENDED_KEPT,
        }
    }
}
