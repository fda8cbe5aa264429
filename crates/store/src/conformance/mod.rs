//! What it takes to be a [`Store`], as checks that any backend's tests can run.
//!
//! ```text
//! a backend's test -> suite: Harness       how to make a store, and how to crash it
//! suite -> a backend's test: violations    what was expected, and what was seen instead
//! ```
//!
//! ```no_run
//! # use bourse_store::{Memory, Store, StoreId, conformance};
//! struct InMemory;
//!
//! impl conformance::Harness for InMemory {
//!     fn open(&mut self) -> Box<dyn Store> {
//!         Box::new(Memory::new(StoreId::random()))
//!     }
//!
//!     fn crash_and_reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
//!         store
//!     }
//! }
//!
//! conformance::assert_conforms(&mut InMemory);
//! ```

mod atomicity;
mod condition;
mod crash;
mod faults;
mod model;
mod readers;
mod scans;
mod sizes;
mod steps;

use std::fmt::Debug;

use bourse_durable::batch::ReadError;

use crate::Store;

/// Makes the stores that are checked.
pub trait Harness {
    /// A new, empty store.
    fn open(&mut self) -> Box<dyn Store>;

    /// Ends the store as a crash of its process would, or harder, and opens it again. What it may forget by
    /// then is what it declares: a store whose durability is `Memory` may be empty.
    fn crash_and_reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store>;
}

/// How a store breaks the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

impl From<ReadError> for Violation {
    fn from(error: ReadError) -> Self {
        Self(error.to_string())
    }
}

/// What a check finds.
pub type Verdict = Result<(), Violation>;

/// One check: its name, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// What a store that passes does.
    pub name: &'static str,
    /// Runs it on stores of the harness.
    pub run: fn(&mut dyn Harness) -> Verdict,
}

/// All checks.
pub const CHECKS: &[Check] = &[
    Check { name: "a conflict leaves no trace", run: atomicity::a_conflict_leaves_no_trace },
    Check { name: "operations apply in order", run: atomicity::operations_apply_in_order },
    Check { name: "batches of a call stand alone", run: atomicity::batches_of_a_call_stand_alone },
    Check { name: "partitions are apart", run: atomicity::partitions_are_apart },
    Check { name: "the first batch expects no owner", run: condition::the_first_batch_expects_no_owner },
    Check { name: "each field of the owner counts", run: condition::each_field_of_the_owner_counts },
    Check { name: "batches of a partition chain", run: condition::batches_of_a_partition_chain },
    Check { name: "a repeated batch conflicts", run: condition::a_repeated_batch_conflicts },
    Check { name: "scans are in byte order", run: scans::scans_are_in_byte_order },
    Check { name: "ranges end where they say", run: scans::ranges_end_where_they_say },
    Check { name: "pages hold what the limit allows", run: scans::pages_hold_what_the_limit_allows },
    Check { name: "an empty store answers", run: scans::an_empty_store_answers },
    Check { name: "the largest batch fits", run: sizes::the_largest_batch_fits },
    Check { name: "larger batches are refused", run: sizes::larger_batches_are_refused },
    Check { name: "empty keys and values are records", run: sizes::empty_keys_and_values_are_records },
    Check { name: "what is committed survives a crash", run: crash::what_is_committed_survives_a_crash },
    Check { name: "a reader sees what was committed", run: readers::a_reader_sees_what_was_committed },
    Check { name: "a reader sees whole batches", run: readers::a_reader_sees_whole_batches },
    Check { name: "a late batch lands if nothing came before", run: faults::a_late_batch_lands },
    Check {
        name: "no late batch lands behind a newer one",
        run: faults::no_late_batch_lands_behind_a_newer_one,
    },
    Check { name: "an owner survives every fault", run: faults::an_owner_survives_every_fault },
];

/// Runs all checks; returns those that fail, and why.
pub fn run(harness: &mut dyn Harness) -> Vec<(&'static str, Violation)> {
    CHECKS
        .iter()
        .filter_map(|check| (check.run)(harness).err().map(|violation| (check.name, violation)))
        .collect()
}

/// Panics with all violations, if there are any.
pub fn assert_conforms(harness: &mut dyn Harness) {
    let violations = run(harness);
    let lines: Vec<String> = violations.iter().map(|(check, why)| format!("  {check}: {why}")).collect();
    assert!(lines.is_empty(), "the store breaks its contract:\n{}", lines.join("\n"));
}

/// Two things that must be equal.
fn same<T: PartialEq + Debug>(what: &str, seen: &T, expected: &T) -> Verdict {
    if seen == expected {
        return Ok(());
    }
    // Values can be megabytes; their beginnings tell enough.
    let short = |thing: &T| format!("{thing:?}").chars().take(400).collect::<String>();
    Err(Violation(format!("{what}: expected {}, saw {}", short(expected), short(seen))))
}

/// Something that must hold.
fn holds(condition: bool, what: impl Into<String>) -> Verdict {
    if condition { Ok(()) } else { Err(Violation(what.into())) }
}
