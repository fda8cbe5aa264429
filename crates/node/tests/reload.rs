//! Hot reload, attach and detach.

mod common;

use bourse_node::{Event, Input, Kind};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use common::Step::{Call, Hang, Return, Run};
use common::{Module, Start, TOKEN, World, config, hello, ms};

fn says(revision: &str, what: &'static str) -> Module {
    Module::new("m", revision).function("f", [Return(what)]).function("slow", [Run(300), Return(what)])
}

#[test]
fn calls_in_flight_end_on_the_old_revision_and_waiting_ones_go_to_the_new() {
    let mut c = config();
    c.running_max = 1;
    let mut w = World::with(c).deploy(says("r1", "old"));
    let flying = w.call("m.slow");
    w.run(10);
    let waiting = w.call("m.f");
    w.save(says("r2", "new")).settle();
    assert_eq!((w.ok(flying), w.ok(waiting)), ("old".into(), "new".into()));
    w.run(100);
    assert_eq!(w.published, [("m".to_owned(), "r2".to_owned())]);
    w.node.check_quiet();
}

#[test]
fn a_save_serves_as_soon_as_it_is_loaded() {
    let mut w = World::new().deploy(says("r1", "old"));
    w.save(says("r2", "new")).run(51);
    let call = w.call("m.f");
    w.run(10);
    assert_eq!(w.ok(call), "new");
}

#[test]
fn a_failed_revision_leaves_the_old_one_serving() {
    let mut w = World::new().deploy(says("r1", "old")).deploy(says("r2", "new").broken("SyntaxError"));
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "old");
    let failed = |e: &Event| matches!(e, Event::RevisionFailed { failure, still_serving: true, .. } if failure.traceback.contains("SyntaxError"));
    assert!(w.events.iter().any(failed));
    // It is not tried again until it changes; then it serves.
    let templates = w.processes.len();
    w.scan().run(100);
    assert_eq!(w.processes.len(), templates);
    w.save(says("r3", "fixed")).run(100);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "fixed");
    w.node.check_quiet();
}

#[test]
fn a_first_revision_that_fails_tells_who_waits() {
    let mut w = World::new();
    w.save(says("r1", "x").broken("ImportError"));
    let early = w.call("m.f");
    w.run(60);
    let late = w.call("m.f");
    assert_eq!((w.code(early), w.code(late)), ("module_failed", "module_failed"));
    assert!(w.failure(early).traceback.contains("ImportError") && w.ready);
    w.node.check_quiet();
}

#[test]
fn a_save_while_the_program_that_failed_before_still_dies() {
    let mut w = World::new();
    w.save(says("r1", "x").kind(Kind::Process).instances(Start::SayingWhyNot("no"))).run(3);
    while !w.noted("r1") && !w.events.iter().any(|e| matches!(e, Event::RevisionFailed { .. })) {
        w.step();
    }
    w.save(says("r2", "y").kind(Kind::Process)).run(100);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "y");
    // And the first one again: it is tried again.
    w.save(says("r1", "fixed").kind(Kind::Process)).run(100);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "fixed");
    w.node.check_quiet();
}

#[test]
fn modules_and_functions_come_and_go() {
    let mut c = config();
    c.running_max = 1;
    let mut w = World::with(c).deploy(says("r1", "old"));
    // 1. A function goes while a call of it waits.
    w.call("m.slow");
    w.run(10);
    let waiting = w.call("m.f");
    w.save(Module::new("m", "r2").function("g", [Return("g")])).settle();
    assert_eq!(w.code(waiting), "not_found");
    // 2. The module is renamed while a call of it waits, and one runs.
    let mut w = w.deploy(says("r3", "again"));
    let running = w.call("m.slow");
    w.run(10);
    let waiting = w.call("m.f");
    w.modules.remove("m");
    let mut renamed = says("r3", "renamed");
    renamed.name = "n".into();
    w.save(renamed);
    assert_eq!(w.code(waiting), "not_found");
    w.settle();
    assert_eq!(w.ok(running), "again");
    let (old, new) = (w.call("m.f"), w.call("n.f"));
    w.settle().run(100);
    assert_eq!((w.code(old), w.ok(new).as_str()), ("not_found", "renamed"));
    assert_eq!(w.of("m").len(), 0);
    w.node.check_quiet();
}

#[test]
fn back_to_an_earlier_revision_while_its_calls_still_run() {
    let mut w = World::new().deploy(says("r1", "one"));
    let flying = w.call("m.slow");
    w.run(10).save(says("r2", "two")).run(60).save(says("r1", "one")).run(60);
    let call = w.call("m.f");
    w.settle();
    assert_eq!((w.ok(flying), w.ok(call)), ("one".into(), "one".into()));
    w.run(100).node.check_quiet();
}

#[test]
fn two_changes_in_quick_succession() {
    let mut w = World::new().deploy(says("r1", "one"));
    w.save(says("r2", "two")).run(10).save(says("r3", "three")).run(70);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "three");
    // And back to what serves, while the change still loads.
    w.save(says("r4", "four")).run(10).save(says("r3", "three")).run(100);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "three");
    assert_eq!(w.processes.values().filter(|p| p.alive && p.template).count(), 1);
    w.node.check_quiet();
}

#[test]
fn a_module_that_is_removed_while_it_loads() {
    for kind in [Kind::Python, Kind::Process] {
        let mut w = World::new();
        w.save(says("r1", "one").kind(kind));
        let call = w.call("m.f");
        w.run(1).remove("m").run(500);
        assert_eq!(w.code(call), "not_found");
        assert!(w.ready && w.processes.values().all(|p| !p.alive));
        w.node.check_quiet();
    }
}

#[test]
fn a_template_that_never_reports() {
    let mut w = World::new();
    w.save(says("r1", "one").load_ms(100_000));
    let call = w.call_with("m.f", "", |c| c.queue_wait = Some(ms(60_000)));
    w.run(31_000);
    assert_eq!(w.code(call), "module_failed");
    w.run(100_000).node.check_quiet();
}

#[test]
fn a_module_without_functions_or_with_unknown_options_is_refused() {
    let odd = says("r2", "x").option("f", "retries", "3");
    for (module, word) in [
        (Module::new("m", "r1"), "no functions"),
        (odd, "retries"),
        (says("r3", "x").version("one"), "semantic version"),
    ] {
        let mut w = World::new().deploy(module);
        let call = w.call("m.f");
        assert_eq!(w.code(call), "module_failed");
        assert!(w.failure(call).message.contains(word), "{:?}", w.failure(call));
        w.node.check_quiet();
    }
}

#[test]
fn a_module_removed_while_a_call_commits_and_conflicts() {
    use common::Step::{Increment, Read};
    let count = || Module::new("m", "r1").function("f", [Read("n"), Run(5), Increment("n"), Return("")]);
    let mut w = World::new().deploy(count());
    w.store_latency = ms(50);
    let calls = [w.call("m.f"), w.call("m.f")];
    // Both have read; the module goes before the second has learnt that it lost.
    for _ in 0..40 {
        w.run(10);
        if calls.iter().any(|c| w.code(*c) == "ok") {
            break;
        }
    }
    w.remove("m").settle().run(10_000);
    assert!(calls.iter().all(|c| w.code(*c) != "unanswered"));
    w.node.check_quiet();
}

#[test]
fn an_attached_process_serves_while_it_is_there() {
    let mut w = World::new().deploy(says("r1", "deployed"));
    let peer = w.attach(says("mine", "mine"));
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "mine");
    // 1. What it has when it leaves has crashed; what waits goes to the deployed one.
    let running = w.call("m.slow");
    let waiting = w.call("m.f");
    w.run(10).hang_up(peer).settle();
    assert_eq!((w.code(running), w.ok(waiting)), ("instance_crashed", "deployed".into()));
    w.node.check_quiet();
}

#[test]
fn an_attached_process_that_says_bye_gives_back_what_it_has_not_started() {
    let mut w = World::new().deploy(says("r1", "deployed"));
    let peer = w.attach(Module::new("m", "mine").function("f", [Hang]));
    let call = w.call("m.f");
    w.run(10).say(peer, ToNode::Bye(v1::Bye {}), "").settle();
    assert_eq!(w.ok(call), "deployed");
    assert!(w.closed.contains(&peer));
    w.run(100).node.check_quiet();
}

#[test]
fn a_newer_attached_process_takes_over() {
    let mut w = World::new();
    let first = w.attach(says("a", "first"));
    w.attach(says("b", "second"));
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "second");
    w.run(10_000);
    assert!(w.closed.contains(&first), "the first was told to go");
    w.node.check_quiet();
}

#[test]
fn the_module_goes_from_the_folder_while_a_process_is_attached() {
    let mut w = World::new().deploy(says("r1", "deployed"));
    let peer = w.attach(says("mine", "mine"));
    w.remove("m");
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "mine");
    w.hang_up(peer);
    let call = w.call("m.f");
    assert_eq!(w.code(call), "not_found");
    w.run(100).node.check_quiet();
}

#[test]
fn an_attached_process_may_sit_at_a_breakpoint() {
    let mut w = World::new();
    w.attach(Module::new("m", "mine").function("f", [Hang]));
    let call = w.call_with("m.f", "", |c| c.timeout = Some(ms(100)));
    w.run(300_000);
    assert_eq!((w.code(call), w.instances()), ("timeout", 1));
}

#[test]
fn instances_that_start_while_a_new_revision_takes_over() {
    let mut w = World::new().deploy(says("r1", "old").instances(Start::Never));
    let call = w.call("m.f");
    w.run(10).save(says("r2", "new")).settle();
    assert_eq!(w.ok(call), "new");
    w.run(100).node.check_quiet();
}

#[test]
fn connections_of_one_attached_process_serve_together() {
    let mut w = World::new().deploy(says("r1", "deployed"));
    let mine = || Module::new("m", "mine").function("f", [Call("m.slow", String::new()), Return("mine")]);
    let mine = || mine().function("slow", [Run(300), Return("slow")]);
    // 1. One process, one description: a function can call one beside it, and both lanes take calls.
    let first = w.attach_as(mine(), |h| h.pid = 7);
    let second = w.attach_as(mine(), |h| h.pid = 7);
    let call = w.call("m.f");
    w.settle();
    assert_eq!((w.ok(call).as_str(), w.node.instances(w.now()).count()), ("mine", 2));
    // 2. When one leaves, the other goes on; with the last, the module's own revision serves again.
    w.hang_up(first);
    let call = w.call("m.slow");
    w.settle();
    assert_eq!(w.ok(call), "slow");
    w.hang_up(second);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "deployed");
    w.run(100).node.check_quiet();
}

#[test]
fn another_description_or_process_takes_over_from_all_lanes() {
    let mut w = World::new();
    let lanes =
        [w.attach_as(says("a", "first"), |h| h.pid = 7), w.attach_as(says("a", "first"), |h| h.pid = 7)];
    let other = Module::new("m", "b").function("f", [Return("second")]);
    w.attach_as(other.clone(), |h| h.pid = 7);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "second");
    w.run(10_000);
    assert!(lanes.iter().all(|lane| w.closed.contains(lane)), "both were told to go");
    w.attach_as(other, |h| h.pid = 8);
    w.run(10_000);
    assert_eq!(w.instances(), 1);
    w.node.check_quiet();
}

#[test]
fn time_stands_still_for_a_patient_process() {
    let mut w = World::new().deploy(says("r1", "deployed"));
    let module = Module::new("m", "mine").function("f", [Run(120_000), Return("late")]);
    let peer = w.attach_as(module.function("slow", [Hang]), |h| h.patient = true);
    // 1. Neither the caller's limit nor the default ends it.
    let call = w.call_with("m.f", "", |c| c.timeout = Some(ms(100)));
    w.settle();
    assert_eq!(w.ok(call), "late");
    // 2. Others wait no longer than they would elsewhere, and nothing is handed ahead.
    let hangs = w.call_with("m.slow", "", |c| c.timeout = Some(ms(100)));
    let waits = w.call_with("m.f", "", |c| c.timeout = Some(ms(100)));
    w.run(3_600_000);
    assert_eq!((w.code(hangs), w.code(waits)), ("unanswered", "timeout"));
    // 3. It can be cancelled, and ends with its connection.
    w.hang_up(peer).settle();
    assert_eq!(w.code(hangs), "instance_crashed");
    w.run(100).node.check_quiet();
}

#[test]
fn a_daemon_that_stops_lets_nobody_attach() {
    let mut w = World::new();
    w.input(Input::Drain);
    let peer = w.connect();
    let mut hello = hello(v1::Role::Attached, TOKEN);
    hello.module = Some(says("a", "mine").describe());
    w.say(peer, ToNode::Hello(hello), "");
    assert_eq!(w.refused(peer).unwrap().code, "shutting_down");
}

#[test]
fn what_is_not_known_before_the_first_deploy_may_come() {
    let mut w = World::new();
    let early = w.call("m.f");
    assert_eq!((w.code(early), w.failure(early).retry_after_ms), ("starting", 1_000));
    let mut w = w.deploy(says("r1", "here"));
    w.run(1_000);
    let (known, unknown) = (w.call("m.f"), w.call("other.f"));
    w.settle();
    assert_eq!((w.ok(known).as_str(), w.code(unknown)), ("here", "not_found"));
}
