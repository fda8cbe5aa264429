//! Planted faults, for the simulator to find. There are none without the feature `mutants`, and with it none unless one
//! is chosen, for the current thread.

/// A fault that somebody might make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {}
