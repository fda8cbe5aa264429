//! The only place where what drives a node asks what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bourse_wire::time::{Mono, Now, Wall};

/// Counts from when it was started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins to count now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// What time it is.
    pub fn now(self) -> Now {
        Now { mono: Mono::default() + self.start.elapsed(), wall: Wall(wall_ms()) }
    }

    /// The node's time as the runtime's.
    pub fn instant(self, at: Mono) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + at.since(Mono::default()))
    }
}

/// Milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}
