//! What follows from a failed attempt: another one later, a dead letter, or neither.
//!
//! By class of the error, in this order:
//!
//! 1. the function said so itself (`verdict`): try again then, dead-letter, discard;
//! 2. nothing is wrong with the call, but it could not be run: it is tried again for as long as it takes;
//! 3. trying again can't help: a dead letter at once;
//! 4. else the policy counts.

use std::time::Duration;

use bourse_wire::failure::Code;
pub use bourse_wire::options::Retry as Policy;
use bourse_wire::v1;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Another attempt.
    Again {
        /// Not before this.
        after: Duration,
        /// Whether the attempt counts as one of the policy's.
        counts: bool,
    },
    /// No more; kept to be looked at and replayed.
    Dead,
    /// No more, and not kept as a dead letter: the function wants it so.
    Discard,
}

/// The pause where the call itself is not to blame, at most.
const PAUSE_BLAMELESS_MAX: Duration = Duration::from_secs(30);
/// The same, at first.
const PAUSE_BLAMELESS_MIN: Duration = Duration::from_millis(100);

/// Decides. `failures` counts this one; `tries` counts attempts of this life of the node that do not count otherwise;
/// `chance` is any number, for the jitter.
pub fn decide(policy: &Policy, failure: &v1::Failure, failures: u32, tries: u32, chance: u64) -> Decision {
    match v1::Verdict::try_from(failure.verdict).unwrap_or_default() {
        v1::Verdict::Again if failures >= policy.attempts_max => return Decision::Dead,
        v1::Verdict::Again => {
            return Decision::Again { after: Duration::from_millis(failure.retry_after_ms), counts: true };
        }
        v1::Verdict::DeadLetter => return Decision::Dead,
        v1::Verdict::Discard => return Decision::Discard,
        v1::Verdict::Unspecified => {}
    }
    match failure.kind() {
        Code::ModuleFailed
        | Code::NoCapacity
        | Code::QueueFull
        | Code::Starting
        | Code::ShuttingDown
        | Code::StoreUnavailable
        | Code::BlockedExceeded => {
            let pause = doubled(PAUSE_BLAMELESS_MIN, tries.saturating_sub(1), PAUSE_BLAMELESS_MAX);
            Decision::Again { after: jittered(pause, chance), counts: false }
        }
        Code::NotFound
        | Code::BadArguments
        | Code::BadRequest
        | Code::BadState
        | Code::TooLarge
        | Code::DepthExceeded
        | Code::Unauthorized
        | Code::Forbidden
        | Code::MethodNotAllowed
        | Code::Protocol
        | Code::ProtocolVersion => Decision::Dead,
        Code::FunctionError
        | Code::Conflict
        | Code::InstanceCrashed
        | Code::Timeout
        | Code::Undelivered
        | Code::Internal
        | Code::Cancelled => {
            let named = |names: &[String]| names.iter().any(|name| is_named(&failure.r#type, name));
            if failures >= policy.attempts_max
                || named(&policy.never)
                || (!policy.only.is_empty() && !failure.r#type.is_empty() && !named(&policy.only))
            {
                return Decision::Dead;
            }
            let pause = doubled(policy.pause_min, failures.saturating_sub(1), policy.pause_max);
            Decision::Again { after: jittered(pause, chance), counts: true }
        }
    }
}

/// `requests.exceptions.Timeout` goes by that name, by `Timeout`, and by `requests.Timeout`: parts may be left out, but for
/// the last.
fn is_named(kind: &str, name: &str) -> bool {
    let mut parts = kind.split('.');
    name.split('.').all(|wanted| parts.any(|part| part == wanted))
        && kind.rsplit('.').next() == name.rsplit('.').next()
}

fn doubled(pause: Duration, times: u32, most: Duration) -> Duration {
    pause.saturating_mul(2u32.saturating_pow(times)).min(most)
}

/// Between half of it and all of it, so that what failed together does not come back together ("equal jitter").
fn jittered(pause: Duration, chance: u64) -> Duration {
    let half = pause / 2;
    let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
    half + Duration::from_micros(chance % span.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(decision: Decision) -> Option<Duration> {
        match decision {
            Decision::Again { after, .. } => Some(after),
            Decision::Dead | Decision::Discard => None,
        }
    }

    fn error(kind: &str) -> v1::Failure {
        v1::Failure { r#type: kind.to_owned(), ..Code::FunctionError.because("boom") }
    }

    #[test]
    fn pauses_double_up_to_the_most_with_half_of_it_by_chance() {
        let policy = Policy { attempts_max: 20, ..Policy::default() };
        for (failures, most) in [(1, 1), (2, 2), (3, 4), (7, 60), (19, 60)] {
            let pause = |chance| after(decide(&policy, &error("E"), failures, failures, chance)).unwrap();
            assert_eq!(pause(0), Duration::from_secs(most) / 2);
            for chance in [1, 7, 123_456_789, u64::MAX] {
                assert!((Duration::from_secs(most) / 2..=Duration::from_secs(most)).contains(&pause(chance)));
            }
        }
        assert_eq!(decide(&policy, &error("E"), 20, 20, 0), Decision::Dead);
    }

    #[test]
    fn classes() {
        let policy = Policy { never: vec!["ValueError".to_owned()], ..Policy::default() };
        assert_eq!(decide(&policy, &error("ValueError"), 1, 1, 0), Decision::Dead);
        assert_eq!(decide(&policy, &error("my.ValueError"), 1, 1, 0), Decision::Dead);
        assert!(after(decide(&policy, &error("KeyError"), 1, 1, 0)).is_some());
        assert!(is_named("requests.exceptions.Timeout", "requests.Timeout"));
        assert!(!is_named("requests.exceptions.Timeout", "exceptions"));
        assert!(!is_named("requests.Timeout", "other.Timeout"));
        let only = Policy { only: vec!["IOError".to_owned()], ..Policy::default() };
        assert_eq!(decide(&only, &error("KeyError"), 1, 1, 0), Decision::Dead);
        let crash = Code::InstanceCrashed.because("it died");
        assert!(after(decide(&only, &crash, 1, 1, 0)).is_some(), "a crash has no exception to name");
        assert_eq!(decide(&policy, &Code::NotFound.because("gone"), 1, 1, 0), Decision::Dead);
        let away = Code::StoreUnavailable.because("away");
        let forever = decide(&policy, &away, 1_000, 1_000, 0);
        assert_eq!(forever, Decision::Again { after: PAUSE_BLAMELESS_MAX / 2, counts: false });
    }

    #[test]
    fn the_function_has_the_first_word() {
        let policy = Policy::default();
        let says = |verdict: v1::Verdict| v1::Failure {
            verdict: verdict.into(),
            retry_after_ms: 7_000,
            ..error("KeyError")
        };
        let again = decide(&policy, &says(v1::Verdict::Again), 1, 1, 0);
        assert_eq!(again, Decision::Again { after: Duration::from_secs(7), counts: true });
        assert_eq!(decide(&policy, &says(v1::Verdict::Again), 5, 5, 0), Decision::Dead, "not for ever");
        assert_eq!(decide(&policy, &says(v1::Verdict::DeadLetter), 1, 1, 0), Decision::Dead);
        assert_eq!(decide(&policy, &says(v1::Verdict::Discard), 1, 1, 0), Decision::Discard);
    }
}
