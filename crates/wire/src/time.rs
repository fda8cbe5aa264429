//! The two clocks, as numbers. Whoever decides is handed [`Now`]; nobody asks.
//!
//! Leases, deadlines and timeouts run on [`Mono`], so a clock jump expires nothing. Cron, retention and what
//! outlives a restart use [`Wall`]. The wire carries remaining time only.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on a monotonic clock: nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub u64);

/// A point on the wall clock: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub u64);

/// What time it is, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub mono: Mono,
    /// The wall clock.
    pub wall: Wall,
}

impl Mono {
    /// The end of time: later than any other point.
    pub const MAX: Self = Self(u64::MAX);

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;

    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}ms", self.0 as f64 / 1e6)
    }
}

/// A duration as the wire has it: whole milliseconds, at least 1 for anything above zero.
pub fn millis(d: Duration) -> u64 {
    if d.is_zero() { 0 } else { u64::try_from(d.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX) }
}

/// Reads "5s", "200ms", "1.5m", "2h"; a bare number is seconds. `None` if it is not a duration, is negative, or is
/// longer than [`DURATION_MAX`].
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit.trim() {
        "" | "s" => 1.0,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * scale;
    (seconds <= DURATION_MAX.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
}

/// The longest duration that can be asked for: ten years.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let cases: &[(&str, Option<Duration>)] = &[
            ("5s", Some(Duration::from_secs(5))),
            ("200ms", Some(Duration::from_millis(200))),
            ("1.5m", Some(Duration::from_secs(90))),
            ("2 h", Some(Duration::from_secs(7200))),
            ("3", Some(Duration::from_secs(3))),
            ("0", Some(Duration::ZERO)),
            ("", None),
            ("-1s", None),
            ("5 parsecs", None),
            ("1.2.3s", None),
            ("1000000d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn milliseconds_round_up() {
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_millis(7)), 7);
    }
}
