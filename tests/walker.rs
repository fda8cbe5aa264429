//! The example: walks along a chain, each one call that hands itself on, killed in the middle.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::support::{Daemon, Setup, wait_for};

const CHAIN: &str = "payments";

/// How many blocks the chain has.
fn blocks() -> u64 {
    if std::env::var_os("BOURSE_TEST_LONG").is_some() { 10_000 } else { 400 }
}

/// Who is paid in a block, and how much.
fn payment(block: u64) -> (String, u64) {
    (format!("account {}", block * block % 17), block % 101 + 1)
}

/// What a walk finds in these blocks, counted from 1.
fn totals(blocks: impl Iterator<Item = u64>) -> Json {
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    for (account, amount) in blocks.map(payment) {
        *totals.entry(account).or_default() += amount;
    }
    json!(totals)
}

/// A daemon with a chain.
fn grown() -> Daemon {
    let daemon = Setup::new(&[("walker.py", include_str!("../examples/walker/walker.py"))]).up();
    let all: Vec<Json> =
        (1..=blocks()).map(payment).map(|(account, amount)| json!([account, amount])).collect();
    for some in all.chunks(1000) {
        daemon.call("walker.grow", json!([CHAIN, some])).ok();
    }
    assert_eq!(daemon.call("walker.last_block", json!([CHAIN])).ok()["height"], blocks());
    daemon
}

#[test]
fn a_walk_is_one_call_and_goes_on_where_it_was_after_kill_9() {
    let daemon = grown();
    let start = Instant::now();

    // 1. Walkers with projections of their own, and two that want the same one; beside a walk of the last blocks only.
    let walk = |projection: &str| daemon.accept("walker.walk", &json!([projection, CHAIN]));
    let walks: Vec<String> = ["a", "b", "c", "d", "d"].map(walk).into();
    let entries = daemon.call("walker.offsets", json!([CHAIN])).ok();
    let short = json!({"projection": "short", "chain": CHAIN, "until": entries[1]});
    let short = daemon.accept("walker.walk", &short);

    // 2. The daemon is killed when all have come some way.
    let seen = |projection: &str| daemon.call("walker.collected", json!([projection])).ok();
    wait_for("all have found something", || ["a", "b", "c", "d"].iter().all(|p| seen(p) != json!({})));
    let daemon = daemon.kill().up();

    // 3. Every walk returns what it has found, each block once.
    let expected = totals(1..=blocks());
    for id in &walks {
        assert_eq!(daemon.result(id), expected);
    }
    println!("{} walks of {} blocks in {:.1?}", walks.len(), blocks(), start.elapsed());
    assert_eq!(daemon.result(&short), totals(blocks() - 99..=blocks()));
    assert_eq!(daemon.call("walker.collected", json!(["a"])).ok(), expected);

    // 4. Each was one call.
    let calls = daemon.get("/v1/calls?limit=1000").ok();
    let calls = calls["calls"].as_array().or(calls.as_array()).expect("a list").len();
    assert_eq!(calls, walks.len() + 1);
}

#[test]
fn ranges_are_walked_side_by_side_and_merged() {
    let daemon = grown();
    let start = Instant::now();
    let survey = daemon.accept("walker.survey", &json!({"chain": CHAIN, "ranges": 4}));
    assert_eq!(daemon.result(&survey), totals(1..=blocks()));
    println!("4 ranges of {} blocks in {:.1?}", blocks(), start.elapsed());
    // A chain that is shorter than that, and one that is not there.
    daemon.call("walker.grow", json!(["short", [["x", 1], ["y", 2], ["x", 3]]])).ok();
    assert_eq!(daemon.call("walker.survey", json!(["short"])).ok(), json!({"x": 4, "y": 2}));
    assert_eq!(daemon.call("walker.survey", json!(["none"])).ok(), json!({}));
    assert_eq!(daemon.call("walker.walk", json!(["p", "none"])).ok(), json!({}));
}
