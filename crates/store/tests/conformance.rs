//! Every backend passes the suite, and stores that are broken on purpose do not.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

#[path = "support/broken.rs"]
mod broken;

use std::fs;
use std::path::PathBuf;

use bourse_store::conformance::{Harness, assert_conforms, run};
use bourse_store::{Memory, Recorded, Sqlite, Store, StoreId};
use broken::Fraud;
use tempfile::TempDir;

/// Memory that outlives its handles, as if the process had not crashed at all.
struct InMemory;

impl Harness for InMemory {
    fn open(&mut self) -> Box<dyn Store> {
        Box::new(Memory::new(StoreId::random()))
    }

    fn crash_and_reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        store
    }
}

/// A crash leaves the files as they are at that moment: they are copied from under the open store.
#[derive(Default)]
struct InSqlite {
    folders: Vec<(StoreId, TempDir)>,
}

impl InSqlite {
    fn folder(&mut self, id: StoreId) -> PathBuf {
        self.folders.push((id, tempfile::tempdir().unwrap()));
        self.folders.last().unwrap().1.path().join("store")
    }
}

impl Harness for InSqlite {
    fn open(&mut self) -> Box<dyn Store> {
        let id = StoreId::random();
        Box::new(Sqlite::open(self.folder(id), id).unwrap())
    }

    fn crash_and_reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        let of_the_store = |(id, _): &&(StoreId, TempDir)| *id == store.id();
        let left = self.folders.iter().rfind(of_the_store).unwrap().1.path().join("store");
        let found = self.folder(store.id());
        for suffix in ["", "-wal"] {
            let name = |file: &PathBuf| format!("{}{suffix}", file.display());
            fs::copy(name(&left), name(&found)).unwrap();
        }
        drop(store);
        Box::new(Sqlite::open(found, StoreId::random()).unwrap())
    }
}

/// What is written down, of stores that come and go with their folders.
#[derive(Default)]
struct Written {
    stores: InSqlite,
    place: Option<TempDir>,
}

impl Written {
    fn in_front_of(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        let place = self.place.get_or_insert_with(|| tempfile::tempdir().unwrap());
        let file = place.path().join(store.id().to_string());
        Box::new(Recorded::open(store, &file, || 7).unwrap())
    }
}

impl Harness for Written {
    fn open(&mut self) -> Box<dyn Store> {
        let store = self.stores.open();
        self.in_front_of(store)
    }

    fn crash_and_reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        let store = self.stores.crash_and_reopen(store);
        self.in_front_of(store)
    }
}

struct Fraudulent(Fraud);

impl Harness for Fraudulent {
    fn open(&mut self) -> Box<dyn Store> {
        Box::new(self.0.store())
    }

    fn crash_and_reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        let id = store.id();
        drop(store);
        Box::new(self.0.reopened(id))
    }
}

fn failed_checks(fraud: Fraud) -> Vec<&'static str> {
    run(&mut Fraudulent(fraud)).into_iter().map(|(check, _)| check).collect()
}

#[test]
fn memory_conforms() {
    assert_conforms(&mut InMemory);
}

#[test]
fn sqlite_conforms() {
    assert_conforms(&mut InSqlite::default());
}

#[test]
fn a_recorded_store_conforms() {
    assert_conforms(&mut Written::default());
}

#[test]
fn an_honest_store_behind_the_frauds_conforms() {
    assert_eq!(failed_checks(Fraud::None), Vec::<&str>::new());
}

#[test]
fn a_store_that_ignores_the_condition_is_found_out() {
    let failed = failed_checks(Fraud::IgnoresCondition);
    for check in
        ["a conflict leaves no trace", "each field of the owner counts", "a repeated batch conflicts"]
    {
        assert!(failed.contains(&check), "{check} passed; failed: {failed:?}");
    }
    assert!(failed.contains(&"no late batch lands behind a newer one"), "failed: {failed:?}");
    assert!(failed.contains(&"an owner survives every fault"), "failed: {failed:?}");
}

#[test]
fn a_store_that_compares_the_fence_only_is_found_out() {
    let failed = failed_checks(Fraud::ComparesFenceOnly);
    assert!(failed.contains(&"each field of the owner counts"), "failed: {failed:?}");
    assert!(failed.contains(&"an owner survives every fault"), "failed: {failed:?}");
}

#[test]
fn a_store_that_applies_before_it_compares_is_found_out() {
    let failed = failed_checks(Fraud::AppliesBeforeComparing);
    assert!(failed.contains(&"a conflict leaves no trace"), "failed: {failed:?}");
    assert!(failed.contains(&"an owner survives every fault"), "failed: {failed:?}");
}

#[test]
fn a_store_that_applies_row_by_row_is_found_out() {
    assert_eq!(failed_checks(Fraud::AppliesRowByRow), ["a reader sees whole batches"]);
}

#[test]
fn a_store_that_answers_before_it_applies_is_found_out() {
    let failed = failed_checks(Fraud::AnswersBeforeApplying);
    assert!(failed.contains(&"a reader sees what was committed"), "failed: {failed:?}");
    assert!(failed.contains(&"what is committed survives a crash"), "failed: {failed:?}");
}

#[test]
fn a_store_that_forgets_in_a_crash_is_found_out() {
    let failed = failed_checks(Fraud::ForgetsTheLastBatch);
    assert_eq!(failed, ["what is committed survives a crash", "an owner survives every fault"]);
}

#[test]
fn a_store_without_order_is_found_out() {
    let failed = failed_checks(Fraud::ScansInTextOrder);
    assert!(failed.contains(&"scans are in byte order"), "failed: {failed:?}");
}

#[test]
fn a_store_without_bounds_is_found_out() {
    let failed = failed_checks(Fraud::TakesAnySize);
    assert!(failed.contains(&"larger batches are refused"), "failed: {failed:?}");
}

#[test]
fn a_store_where_one_conflict_spoils_all_is_found_out() {
    let failed = failed_checks(Fraud::FailsTogether);
    assert!(failed.contains(&"batches of a call stand alone"), "failed: {failed:?}");
}
