//! The terms of a call: where it may run, and what becomes of it if that can't be at once.

use std::time::Duration;

use bourse_market::name::Horizon;
use bourse_wire::v1;

/// Where a call may run, and what becomes of it if that can't be at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How far it may travel; `None`: as far as its function.
    pub horizon: Option<Horizon>,
    /// Capacity is asked for when it has waited for so long; `None`: as is set for the module.
    pub scale_after: Option<Duration>,
    /// What becomes of it if there is no instance.
    pub overflow: Overflow,
}

/// What becomes of a call for which there is no instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It waits.
    #[default]
    Queue,
    /// It is refused.
    Reject,
    /// It waits, and capacity elsewhere is asked for at once.
    Remote,
}

impl Terms {
    /// As the worker protocol has them.
    pub fn new(horizon: v1::Horizon, scale_after: Option<Duration>, overflow: v1::Overflow) -> Self {
        Self {
            horizon: match horizon {
                v1::Horizon::Unspecified => None,
                v1::Horizon::Process => Some(Horizon::Process),
                v1::Horizon::Machine => Some(Horizon::Machine),
                v1::Horizon::Network => Some(Horizon::Network),
                v1::Horizon::Anywhere => Some(Horizon::Anywhere),
            },
            scale_after,
            overflow: match overflow {
                v1::Overflow::Queue => Overflow::Queue,
                v1::Overflow::Reject => Overflow::Reject,
                v1::Overflow::Remote => Overflow::Remote,
            },
        }
    }

    /// After how long capacity is asked for.
    pub(crate) fn scale_after(&self, otherwise: Duration) -> Duration {
        match self.overflow {
            Overflow::Remote => Duration::ZERO,
            Overflow::Queue | Overflow::Reject => self.scale_after.unwrap_or(otherwise),
        }
    }
}
