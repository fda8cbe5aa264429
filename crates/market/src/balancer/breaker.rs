//! Leaves out a seller that has failed, for longer and longer, and tries it with one call at a time.
//!
//! ```text
//! closed --failed--> open --pause over--> half open --chosen--> open, tried
//!    ^                                                             |
//!    `------------ worked (from any state) -----------             |-- failed: a pause twice as long
//!                                                                  `-- pause over: half open again
//! ```
//!
//! Failures of calls that were sent before it opened say nothing new: they do not make the pause longer. A try of which
//! nothing is heard keeps nobody out for ever: after the pause there is another one.

use bourse_wire::time::Mono;
use std::time::Duration;

use crate::mutant::{self, Mutant};
use crate::times::Times;

/// The breaker of one seller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Breaker {
    /// Calls go there.
    #[default]
    Closed,
    /// None does until then. `tried`: but for one.
    Open { until: Mono, pause: Duration, tried: bool },
    /// The next one does.
    Half { pause: Duration },
}

impl Breaker {
    /// Calls may go there.
    pub(super) fn lets_through(self) -> bool {
        !matches!(self, Self::Open { .. })
    }

    /// A call has failed.
    pub(super) fn failed(self, now: Mono, times: &Times) -> Self {
        let pause = match self {
            Self::Open { tried: false, .. } => return self,
            Self::Closed => times.breaker_min,
            Self::Half { pause } => pause,
            Self::Open { pause, .. } => (pause * 2).min(times.breaker_max),
        };
        Self::Open { until: now + pause, pause, tried: false }
    }

    /// Time has passed.
    pub(super) fn later(self, now: Mono) -> Self {
        match self {
            Self::Open { until, pause, .. } if until <= now && !mutant::is(Mutant::BreakerNeverCloses) => {
                Self::Half { pause }
            }
            _ => self,
        }
    }

    /// A call goes there.
    pub(super) fn chosen(self, now: Mono) -> Self {
        match self {
            Self::Half { pause } if !mutant::is(Mutant::HalfOpenLetsAll) => {
                Self::Open { until: now + pause, pause, tried: true }
            }
            _ => self,
        }
    }
}
