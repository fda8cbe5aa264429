//! How often a function is run.
//!
//! Durable calls wait for their turn, each at a time of its own; others are refused, with the time after which it is worth
//! trying again. Attempts count, whatever becomes of them. The count begins anew with the node.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_durable::work::LATER_MAX;
use bourse_wire::failure::Code;
use bourse_wire::id::{CallId, FunctionName};
use bourse_wire::options::Throttle;
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;

use crate::Node;
use crate::message::NewCall;

/// The most functions and keys that are counted apart. Keys beyond are counted together, by function.
const COUNTED_MAX: usize = 100_000;
/// Between two looks at which are over, when there is no room.
const TRIM_PAUSE: Duration = Duration::from_secs(1);
/// So many are remembered at least before those are forgotten whose count is over.
const TRIMMED_MIN: usize = 1024;

/// When each function may be run next.
#[derive(Debug, Default)]
pub(crate) struct Throttles {
    /// By function and key: when the next run would be, if all came evenly.
    next: BTreeMap<(String, String), Mono>,
    /// How many there may be before it is looked which are over.
    trim_at: usize,
    /// When that was done last.
    trimmed: Mono,
    /// Durable calls that have a time of their own.
    reserved: BTreeMap<CallId, Mono>,
}

impl Throttles {
    /// Takes a turn, now or at the time that is given back.
    fn take(&mut self, now: Mono, throttle: &Throttle, of: (String, String)) -> Mono {
        let full = self.next.len() >= COUNTED_MAX && now.since(self.trimmed) < TRIM_PAUSE;
        if self.next.len() >= self.trim_at.max(TRIMMED_MIN) && !full {
            self.trimmed = now;
            self.next.retain(|_, next| *next > now);
            self.trim_at = (2 * self.next.len()).min(COUNTED_MAX);
        }
        let of = self.counted_as(of);
        let next = self.next.entry(of).or_insert(now);
        *next = (*next).max(now);
        let at = *next - throttle.interval * (throttle.burst - 1);
        *next = *next + throttle.interval;
        at.max(now)
    }

    /// When there is a turn.
    fn look(&self, now: Mono, throttle: &Throttle, of: &(String, String)) -> Mono {
        let next = self.next.get(&self.counted_as(of.clone())).copied().unwrap_or(now).max(now);
        (next - throttle.interval * (throttle.burst - 1)).max(now)
    }
}

impl Throttles {
    /// A key of its own, as long as there is room for it.
    fn counted_as(&self, of: (String, String)) -> (String, String) {
        match self.next.len() >= COUNTED_MAX && !self.next.contains_key(&of) {
            true => (of.0, String::new()),
            false => of,
        }
    }
}

impl Node {
    /// How long a durable call has to wait for its turn.
    pub(crate) fn throttled(
        &mut self,
        now: Now,
        id: CallId,
        function: &FunctionName,
        arguments: &[u8],
    ) -> Option<Duration> {
        let throttle = self.function_of(function).and_then(|f| f.throttle.clone())?;
        if let Some(at) = self.throttles.reserved.get(&id).copied() {
            return match at <= now.mono {
                true => self.throttles.reserved.remove(&id).and(None),
                false => Some(at.since(now.mono)),
            };
        }
        let of = counted(function, &throttle, arguments);
        if self.throttles.reserved.len() >= LATER_MAX {
            // Too many wait for theirs: it asks again when they have had it.
            self.throttles.reserved.retain(|_, at| *at > now.mono);
            let at = self.throttles.look(now.mono, &throttle, &of);
            return Some(at.since(now.mono)).filter(|pause| !pause.is_zero());
        }
        let at = self.throttles.take(now.mono, &throttle, of);
        (at > now.mono).then(|| {
            self.throttles.reserved.insert(id, at);
            at.since(now.mono)
        })
    }

    /// Why a call is not taken that would be run more often than may be.
    pub(crate) fn too_often(&mut self, now: Now, call: &NewCall) -> Option<v1::Failure> {
        let throttle = self.function_of(&call.function).and_then(|f| f.throttle.clone())?;
        let of = counted(&call.function, &throttle, &call.payload);
        let pause = self.throttles.look(now.mono, &throttle, &of).since(now.mono);
        if pause.is_zero() {
            self.throttles.take(now.mono, &throttle, of);
            return None;
        }
        let per = throttle.interval.as_secs_f64();
        Some(
            Code::NoCapacity
                .because(format!("{} is run once in {per} s at most, by its `throttle`", call.function))
                .hint("try again later, or make the call durable (`async`): then it waits for its turn")
                .retry_after(pause),
        )
    }
}

/// What is counted together. Arguments that make no key are counted as one.
fn counted(function: &FunctionName, throttle: &Throttle, arguments: &[u8]) -> (String, String) {
    let key = throttle.key.as_ref().and_then(|key| key.of(&crate::keys::read(arguments).ok()?).ok());
    (function.as_str().to_owned(), key.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn strangers_keys_do_not_fill_memory() {
        let mut throttles = Throttles::default();
        let throttle = Throttle { interval: Duration::from_secs(3600), burst: 1, key: None };
        for n in 0..COUNTED_MAX + 1000 {
            throttles.take(ms(1), &throttle, ("m.f".to_owned(), n.to_string()));
        }
        assert!(throttles.next.len() <= COUNTED_MAX + 1, "{}", throttles.next.len());
        assert!(throttles.look(ms(1), &throttle, &("m.f".to_owned(), "new".to_owned())) > ms(1));
        throttles.take(ms(3_600_000 * 2_000), &throttle, ("m.f".to_owned(), "7".to_owned()));
        assert!(throttles.next.len() < 10, "what is over is forgotten");
    }

    #[test]
    fn turns_are_evenly_spread_after_a_burst() {
        let mut throttles = Throttles::default();
        let throttle = Throttle { interval: Duration::from_millis(100), burst: 2, key: None };
        let of = || ("m.f".to_owned(), String::new());
        let mut turn = |at| throttles.take(ms(at), &throttle, of());
        assert_eq!(
            [turn(1_000), turn(1_000), turn(1_000), turn(1_010)],
            [ms(1_000), ms(1_000), ms(1_100), ms(1_200)]
        );
        assert_eq!([turn(9_000), turn(9_000), turn(9_000)], [ms(9_000), ms(9_000), ms(9_100)]);
    }
}
