//! State between functions and the partitions: reruns, reads, lost partitions, a store that fails.

mod common;

use bourse_node::durable::batch::Outcome;
use common::Step::{Call, Crash, Increment, Read, Return, Run, Scan, Write};
use common::{Module, World, config};

fn counter() -> Module {
    Module::new("m", "r1")
        .function("count", [Read("n"), Run(5), Increment("n"), Return("")])
        .function("get", [Read("n"), Return("")])
}

fn stored(w: &mut World) -> String {
    let get = w.call("m.get");
    w.settle();
    w.ok(get)
}

#[test]
fn what_is_written_is_read() {
    let module = counter().function("put", [Write("a/1", "x"), Write("a/2", "y"), Scan("a"), Return("")]);
    let mut w = World::new().deploy(module);
    let (put, count) = (w.call("m.put"), w.call("m.count"));
    w.settle();
    assert_eq!((w.ok(put), w.ok(count)), ("a/1,a/2".into(), "1".into()));
    assert_eq!(stored(&mut w), "1");
}

#[test]
fn a_conflict_runs_the_call_again() {
    let mut w = World::new().deploy(counter());
    let calls = [w.call("m.count"), w.call("m.count"), w.call("m.count")];
    w.settle();
    let mut seen = calls.map(|c| w.ok(c));
    seen.sort();
    assert_eq!(seen, ["1", "2", "3"]);
    w.node.check_quiet();
}

#[test]
fn conflicts_without_end_are_told_after_eight_attempts() {
    let mut w =
        World::new().deploy(counter().function("slow", [Read("n"), Run(100), Increment("n"), Return("")]));
    let slow = w.call_with("m.slow", "", |c| c.queue_wait = Some(common::ms(5_000)));
    for _ in 0..60 {
        w.call("m.count");
        w.run(20);
    }
    w.settle();
    assert_eq!(w.code(slow), "conflict");
    assert!(w.failure(slow).message.contains("8 attempts"));
    w.node.check_quiet();
}

#[test]
fn a_call_that_dies_leaves_no_write() {
    let mut w = World::new().deploy(counter().function("dies", [Write("n", "99"), Read("n"), Crash]));
    let call = w.call("m.dies");
    w.settle();
    assert_eq!(w.code(call), "instance_crashed");
    assert_eq!(stored(&mut w), "");
}

#[test]
fn a_store_that_fails_is_told_and_recovers() {
    let mut w = World::new().deploy(counter());
    w.call("m.count");
    w.settle();
    w.store.outcomes.push_back(Outcome::Failed("disk full".into()));
    let call = w.call("m.count");
    w.settle();
    assert_eq!(w.code(call), "store_unavailable");
    assert_eq!(stored(&mut w), "1");
    w.node.check_quiet();
}

#[test]
fn a_store_that_is_away() {
    let mut w = World::new().deploy(counter());
    w.store.away = Some("no such host");
    let call = w.call("m.count");
    w.settle();
    assert_eq!(w.code(call), "store_unavailable");
    w.store.away = None;
    let call = w.call("m.count");
    w.settle();
    assert_eq!(w.ok(call), "1");
    w.node.check_quiet();
}

#[test]
fn an_unknown_outcome_loses_the_partition_and_nothing_else() {
    let mut w = World::new().deploy(counter());
    w.call("m.count");
    w.settle();
    w.store.outcomes.push_back(Outcome::Unknown("timed out".into()));
    let calls = [w.call("m.count"), w.call("m.count")];
    w.settle();
    let codes = calls.map(|c| w.code(c).to_owned());
    assert!(codes.iter().all(|c| c == "ok"), "the batch did not land, so both ran again: {codes:?}");
    assert_eq!(stored(&mut w), "3");
    w.node.check_quiet();
}

#[test]
fn an_unknown_outcome_under_a_running_call() {
    let mut w = World::new()
        .deploy(counter().function("slow", [Read("n"), Run(100), Read("n"), Increment("n"), Return("")]));
    let slow = w.call("m.slow");
    w.run(30);
    w.store.outcomes.push_back(Outcome::Unknown("timed out".into()));
    let quick = w.call("m.count");
    w.settle();
    assert_eq!((w.code(slow), w.code(quick)), ("ok", "ok"));
    assert_eq!(stored(&mut w), "2");
    w.node.check_quiet();
}

#[test]
fn a_nested_call_joins_its_ancestor_s_home() {
    let module = Module::new("m", "r1")
        .function("outer", [Write("n", "1"), Call("m.inner", String::new()), Read("n"), Return("")])
        .function("inner", [Read("n"), Increment("n"), Return("")])
        .function("fails", [Write("n", "7"), Call("m.inner", String::new()), common::Step::Fail("boom")])
        .function("get", [Read("n"), Return("")]);
    let mut w = World::new().deploy(module);
    let outer = w.call("m.outer");
    w.settle();
    assert_eq!(w.ok(outer), "2", "it saw what its caller wrote, and the caller what it wrote");
    let fails = w.call("m.fails");
    w.settle();
    assert_eq!(w.code(fails), "function_error");
    assert_eq!(stored(&mut w), "2", "what joined went with the ancestor");
    w.node.check_quiet();
}

#[test]
fn a_write_of_another_home_is_refused_with_a_hint() {
    let mut w = World::new()
        .deploy(Module::new("m", "r1").function("f", [Write("a", "1"), Write("b", "1"), Return("x")]));
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.code(call), "bad_state");
    assert!(w.failure(call).hint.contains("call a function"));
    w.node.check_quiet();
}

#[test]
fn a_call_that_waits_for_the_store_past_its_time() {
    let mut w = World::with(config()).deploy(counter());
    w.store_latency = common::ms(500);
    let call = w.call_with("m.count", "", |c| c.timeout = Some(common::ms(1_800)));
    w.settle();
    assert_eq!(w.code(call), "timeout");
    w.run(10_000).node.check_quiet();
}

#[test]
fn a_read_left_unread_does_not_lose_the_next_attempt() {
    use bourse_wire::v1;
    use bourse_wire::v1::to_node::Message as ToNode;
    let mut w = World::new().deploy(counter().function("hand", [common::Step::Hang]));
    w.store_latency = common::ms(20);
    w.call("m.hand");
    w.run(30);
    // 1. It reads, and answers with writes of a conflict-free key before the read is answered.
    let process = w.of("m")[0];
    let peer = w.peer(process);
    let call = w.worker(process).running.take().unwrap().call;
    let key = || Some(v1::Key { name: "n".into(), module: String::new() });
    let read = v1::Read { request: 9, call: call.clone(), attempt: 1, key: key(), ..Default::default() };
    let write = v1::Write { key: key(), value: "5".into(), delete: false };
    w.say(peer, ToNode::Read(read), "");
    w.say(
        peer,
        ToNode::Result(v1::Result { call, attempt: 1, writes: vec![write], seq: 1, ..Default::default() }),
        "",
    );
    w.settle();
    assert_eq!(stored(&mut w), "5");
    w.node.check_quiet();
}
