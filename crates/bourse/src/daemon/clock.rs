//! The only place where the daemon asks what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bourse_wire::time::{Mono, Now, Wall};

#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now {
            mono: Mono::default() + self.start.elapsed(),
            wall: Wall(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The node's time as the runtime's.
    pub(crate) fn instant(self, at: Mono) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + at.since(Mono::default()))
    }
}
