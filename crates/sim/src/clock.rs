//! Time: the world's own, which only goes on, and the two clocks that the node is shown.
//!
//! The wall clock jumps, forwards and backwards, while the monotonic one goes on. A reboot begins the monotonic clock
//! anew, as Linux does.

use bourse_wire::time::{Mono, Now, Wall};

/// The furthest that the wall clock gets away from where it should be, in milliseconds: ended calls are kept for a day,
/// and a run must not seem longer than that.
const ASTRAY_MAX: i64 = 6 * HOUR_MS;
/// An hour in milliseconds: how far the wall clock jumps at most.
pub const HOUR_MS: i64 = 3_600_000;
/// Where the wall clock stands when a world begins.
const WALL_FIRST: u64 = 1_700_000_000_000;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    at: Mono,
    /// The world's time at which the node's monotonic clock was 0.
    epoch: Mono,
    astray_ms: i64,
    ahead_ms: u64,
}

impl Clock {
    /// The world's time.
    pub fn at(&self) -> Mono {
        self.at
    }

    /// It is later now, or as late.
    pub fn advance(&mut self, to: Mono) {
        self.at = self.at.max(to);
    }

    /// As the node sees it.
    pub fn now(&self) -> Now {
        let wall = WALL_FIRST + self.at.0 / 1_000_000;
        Now { mono: Mono(self.at.0 - self.epoch.0), wall: Wall(wall.saturating_add_signed(self.astray_ms)) }
    }

    /// When the world comes to a time that the node names.
    pub fn world(&self, mono: Mono) -> Mono {
        Mono(mono.0.saturating_add(self.epoch.0))
    }

    /// The wall clock is set. Gives how far it went.
    pub fn jump(&mut self, by_ms: i64) -> i64 {
        let before = self.astray_ms;
        self.astray_ms = (before + by_ms).clamp(-ASTRAY_MAX, ASTRAY_MAX);
        self.ahead_ms += u64::try_from(self.astray_ms - before).unwrap_or_default();
        self.astray_ms - before
    }

    /// How far it was set forwards, in all.
    pub fn ahead_ms(&self) -> u64 {
        self.ahead_ms
    }

    /// The clock of another machine of the same grid was set forwards: what was to be when is not known any more.
    pub(crate) fn note_ahead(&mut self, ms: u64) {
        self.ahead_ms += ms;
    }

    /// The machine starts anew.
    pub fn reboot(&mut self) {
        self.epoch = self.at;
    }
}
