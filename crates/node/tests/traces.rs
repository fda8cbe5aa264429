//! Whole conversations, compared with `testdata/*.trace`. A change of one of those is a change of what the node says:
//! read it, and refresh it with `BOURSE_BLESS=1`.

mod common;

use bourse_node::Config;
use bourse_node::durable::batch::Outcome;
use common::Step::{Call, Crash, Hang, Increment, Read, Return, Run, Sum};
use common::{Module, World, config, ms};

/// One instance runs at a time, so that calls queue up behind it.
fn narrow() -> Config {
    Config { running_max: 1, ..config() }
}

#[test]
fn first_call_from_zero() {
    let mut w = World::new();
    w.save(Module::new("m", "r1").function("f", [Run(5), Return("x")]));
    w.call("m.f");
    w.settle().trace.check("first_call_from_zero");
}

#[test]
fn ahead_and_recall() {
    let slow = |argument: &str| if argument == "slow" { vec![Run(50)] } else { vec![Run(0)] };
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", slow));
    w.call("m.f");
    w.settle().trace.clear();
    // 1. Its function is known to be short, so two more go ahead; but this time it is slow.
    w.call_with("m.f", "slow", |_| {});
    w.call("m.f");
    w.call("m.f");
    // 2. They are taken back, and run after it.
    w.settle().trace.check("ahead_and_recall");
}

#[test]
fn nested_call_gives_the_slot_back() {
    let module = Module::new("m", "r1")
        .function("outer", [Call("m.inner", "1".into()), Sum])
        .function("inner", [Run(5), Return("42")]);
    let mut w = World::with(narrow()).deploy(module);
    w.trace.clear();
    w.call("m.outer");
    w.settle().trace.check("nested_call_gives_the_slot_back");
}

#[test]
fn timeout_interrupt_kill() {
    let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Hang]));
    w.trace.clear();
    w.call_with("m.f", "", |c| c.timeout = Some(ms(100)));
    w.settle().run(2_000).trace.check("timeout_interrupt_kill");
}

#[test]
fn crash_reroutes_the_others() {
    let crash = |argument: &str| if argument == "crash" { vec![Run(1), Crash] } else { vec![Return("x")] };
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", crash));
    w.call("m.f");
    w.settle().trace.clear();
    w.call_with("m.f", "crash", |_| {});
    w.call("m.f");
    w.settle().trace.check("crash_reroutes_the_others");
}

#[test]
fn hot_reload() {
    let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Run(300), Return("old")]));
    w.trace.clear();
    // 1. A call begins on the old revision, and ends there.
    w.call("m.f");
    w.run(20).save(Module::new("m", "r2").function("f", [Return("new")]));
    w.run(100).call("m.f");
    w.settle();
    // 2. A revision that does not load is reported; the one before goes on.
    w.save(Module::new("m", "r3").broken("SyntaxError: invalid syntax"));
    w.run(100).call("m.f");
    w.settle().trace.check("hot_reload");
}

#[test]
fn conflict_reruns() {
    let mut w = World::new()
        .deploy(Module::new("m", "r1").function("count", [Read("n"), Run(5), Increment("n"), Return("")]));
    w.trace.clear();
    w.call("m.count");
    w.call("m.count");
    w.settle().trace.check("conflict_reruns");
}

#[test]
fn attach_and_detach() {
    let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Return("deployed")]));
    w.trace.clear();
    let peer = w.attach(Module::new("m", "mine").function("f", [Run(3), Return("mine")]));
    w.call("m.f");
    w.settle().hang_up(peer).call("m.f");
    w.settle().trace.check("attach_and_detach");
}

#[test]
fn store_fails() {
    let mut w = World::new()
        .deploy(Module::new("m", "r1").function("count", [Read("n"), Increment("n"), Return("")]));
    w.store.outcomes.push_back(Outcome::Failed("disk full".into()));
    w.trace.clear();
    w.call("m.count");
    w.settle().trace.check("store_fails");
}

#[test]
fn drain() {
    let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Run(20), Return("x")]));
    w.trace.clear();
    w.call("m.f");
    w.run(10).input(bourse_node::Input::Drain).call("m.f");
    w.settle().run(100).trace.check("drain");
}
