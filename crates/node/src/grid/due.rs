//! Things that are over the same time after each has begun: so the first to begin is the first to be over, and nothing is searched.

use std::collections::VecDeque;

use bourse_wire::time::Mono;

/// See the module. What has become of a thing meanwhile is for whoever takes it to know.
pub(super) struct Due<T>(VecDeque<(Mono, T)>);

impl<T> Default for Due<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Due<T> {
    /// Something is over then: not before what was noted last.
    pub(super) fn note(&mut self, at: Mono, what: T) {
        debug_assert!(self.0.back().is_none_or(|(last, _)| *last <= at), "all take the same time");
        self.0.push_back((at, what));
    }

    /// When the next one is over.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.front().map(|(at, _)| *at)
    }

    /// Takes one that is over.
    pub(super) fn take(&mut self, now: Mono) -> Option<T> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop_front().map(|(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_first_is_over_first_and_nothing_before_its_time() {
        let mut due = Due::default();
        assert_eq!((due.next(), due.take(Mono(9))), (None, None));
        due.note(Mono(5), "a");
        due.note(Mono(5), "b");
        due.note(Mono(7), "c");
        assert_eq!((due.next(), due.take(Mono(4))), (Some(Mono(5)), None));
        assert_eq!([due.take(Mono(6)), due.take(Mono(6)), due.take(Mono(6))], [Some("a"), Some("b"), None]);
        assert_eq!((due.next(), due.take(Mono(7)), due.next()), (Some(Mono(7)), Some("c"), None));
    }
}
