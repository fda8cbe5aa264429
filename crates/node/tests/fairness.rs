//! Who gets the next slot, and who waits for how long.

mod common;

use bourse_node::Config;
use common::Step::{Return, Run, Submit, WaitAll};
use common::{Module, Step, World, config, ms};

fn narrow() -> Config {
    Config { running_max: 1, ..config() }
}

/// A function that runs for as many milliseconds as its argument says.
fn runs(argument: &str) -> Vec<Step> {
    vec![Run(argument.parse().unwrap_or(1)), Return("done")]
}

#[test]
fn a_busy_module_starves_no_other() {
    let quick = Module::new("quick", "r1").function("f", [Run(0), Return("x")]);
    let mut w = World::with(narrow()).deploy(quick).deploy(Module::new("rare", "r1").computed("f", runs));
    // 1. Both have an instance.
    w.call("quick.f");
    w.call_with("rare.f", "0", |_| {});
    w.settle();
    // 2. One is called so often that it always has calls ahead.
    for _ in 0..20 {
        w.call("quick.f");
    }
    let rare = w.call_with("rare.f", "0", |_| {});
    for _ in 0..200 {
        w.call("quick.f");
        w.call("quick.f");
        w.step();
    }
    assert_eq!(w.code(rare), "ok");
    w.settle();
}

#[test]
fn a_module_with_a_long_queue_of_slow_calls_lets_others_have_their_turn() {
    let mut c = narrow();
    c.running_max = 4;
    let slow = Module::new("slow", "r1").function("f", [Run(500), Return("x")]);
    let mut w = World::with(c).deploy(slow).deploy(Module::new("rare", "r1").computed("f", runs));
    w.call_with("rare.f", "0", |_| {});
    w.settle();
    for _ in 0..100 {
        w.call_with("slow.f", "", |c| c.queue_wait = Some(ms(60_000)));
    }
    w.run(2_000);
    let rare = w.call_with("rare.f", "5", |_| {});
    // The next slot that is free is for the one that has none.
    w.run(600);
    assert_eq!(w.code(rare), "ok");
}

#[test]
fn a_nested_call_waits_as_long_as_its_caller_has_time() {
    let mut c = narrow();
    c.running_max = 1;
    let inner = Module::new("inner", "r1").function("f", [Run(11_000), Return("x")]);
    let outer = Module::new("outer", "r1").function(
        "f",
        [Submit("inner.f", String::new()), Submit("inner.f", String::new()), WaitAll, Return("y")],
    );
    let mut w = World::with(c).deploy(inner).deploy(outer);
    // The second one waits longer than a call from outside would.
    let slow = w.call_with("outer.f", "", |c| c.timeout = Some(ms(60_000)));
    w.call_with("inner.f", "", |_| {});
    w.settle();
    assert_eq!(w.ok(slow), "y");
}
