//! The times and bounds of the market, each with its name. One set for all nodes of a grid.

use std::time::Duration;

/// How often things are said, and how long is waited for them.
#[derive(Clone, Debug)]
pub struct Times {
    /// A link on which nothing was sent for this long gets a [`Beat`](crate::Message::Beat).
    pub beat: Duration,
    /// A link on which nothing came for this long is given up. Detection of a lost network: at most 3 s.
    pub silence_max: Duration,
    /// An authority tells the others about itself this often.
    pub mesh: Duration,
    /// A node tells its authorities that it is there this often.
    pub join: Duration,
    /// A node that reaches no authority for this long becomes one. Up to as much again is added by chance.
    pub alone: Duration,
    /// Between two attempts to reach an address, at first; it doubles.
    pub redial_min: Duration,
    /// The longest such pause.
    pub redial_max: Duration,
    /// Changes of orders are collected for this long before they are sent to the same exchange again.
    pub coalesce: Duration,
    /// An order that has not changed is said again after this.
    pub restate: Duration,
    /// An order that is not said again for this long is dropped.
    pub order_kept: Duration,
    /// What an exchange has promised of an order that did not change since may be promised again after this.
    pub promise_kept: Duration,
    /// An end of a channel that has something unsettled says how it stands this often.
    pub settle: Duration,
    /// A token that was not used for this long is taken back if somebody else wants one.
    pub token_idle: Duration,
    /// A link over which nothing but beats went for this long is closed, unless a channel goes over it. Longer than `join`
    /// and `restate`, else it would be closed between two of them.
    pub link_idle: Duration,
    /// A channel that was not used for this long is closed.
    pub channel_idle: Duration,
    /// A seller that has failed is left out for this long, at first; it doubles.
    pub breaker_min: Duration,
    /// The longest it is left out.
    pub breaker_max: Duration,
    /// How many exchanges a module has.
    pub replicas: usize,
    /// Fewest authorities that a grid wants.
    pub authorities_min: usize,
    /// Most.
    pub authorities_max: usize,
    /// How many nodes one authority is enough for.
    pub nodes_per_authority: usize,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            beat: Duration::from_millis(900),
            silence_max: Duration::from_millis(2_700),
            mesh: Duration::from_secs(1),
            join: Duration::from_secs(5),
            alone: Duration::from_millis(500),
            redial_min: Duration::from_millis(100),
            redial_max: Duration::from_secs(5),
            coalesce: Duration::from_millis(20),
            restate: Duration::from_secs(5),
            order_kept: Duration::from_secs(16),
            promise_kept: Duration::from_millis(250),
            settle: Duration::from_millis(500),
            token_idle: Duration::from_millis(100),
            link_idle: Duration::from_secs(8),
            channel_idle: Duration::from_secs(60),
            breaker_min: Duration::from_millis(200),
            breaker_max: Duration::from_secs(30),
            replicas: 2,
            authorities_min: 3,
            authorities_max: 64,
            nodes_per_authority: 128,
        }
    }
}

/// Most orders that one node may have at one exchange host.
pub const ORDERS_MAX: usize = 10_000;
/// Most slots that one order may be about. What is more is taken for this many.
pub const QUANTITY_MAX: u32 = 1_000_000;
/// Most contacts in one message.
pub const CONTACTS_MAX: usize = 256;
/// Longest address or domain, in bytes.
pub const TEXT_BYTES_MAX: usize = 255;
