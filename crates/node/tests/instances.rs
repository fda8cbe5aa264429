//! What the governor promises: from zero, up and down within limits, and nothing is left of what dies.

mod common;

use bourse_node::{Config, Exit, Input, Kind};
use bourse_wire::v1::to_worker::Message as ToWorker;
use common::Step::{Crash, Freeze, Hang, Return, Run};
use common::{Module, Start, Step, World, config, ms};

fn runs(argument: &str) -> Vec<Step> {
    vec![Run(argument.parse().unwrap_or(1)), Return("done")]
}

fn module() -> Module {
    Module::new("m", "r1").computed("f", runs)
}

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut c = config();
    change(&mut c);
    c
}

#[test]
fn from_zero_on_the_first_call() {
    let mut w = World::new().deploy(module());
    assert_eq!(w.started, 0);
    let call = w.call("m.f");
    w.settle();
    assert_eq!((w.ok(call).as_str(), w.started), ("done", 1));
}

#[test]
fn another_starts_only_when_calls_wait_for_scale_after() {
    let mut w = World::new().deploy(module());
    w.call_with("m.f", "0", |_| {});
    w.settle();
    w.call_with("m.f", "100", |_| {});
    w.run(5).call_with("m.f", "100", |_| {});
    w.run(19);
    assert_eq!(w.started, 1);
    w.run(2);
    assert_eq!(w.started, 2);
    w.settle();
}

#[test]
fn up_to_the_limit_of_the_module() {
    let mut w = World::with(with(|c| c.module.instances_max = Some(2))).deploy(module());
    for _ in 0..20 {
        w.call_with("m.f", "30", |_| {});
    }
    w.settle();
    assert_eq!(w.alive_most, 2);
}

#[test]
fn up_to_the_limit_of_the_machine_and_the_least_used_makes_room() {
    let mut w = World::with(with(|c| c.instances_max = 2)).deploy(module());
    w = w
        .deploy(Module::new("n", "r1").computed("f", runs))
        .deploy(Module::new("o", "r1").computed("f", runs));
    for name in ["m.f", "n.f", "m.f"] {
        w.call(name);
        w.settle();
    }
    assert_eq!((w.of("m").len(), w.of("n").len()), (1, 1));
    // `n` was used least recently.
    let call = w.call("o.f");
    w.settle().run(100);
    assert_eq!(w.ok(call), "done");
    assert_eq!((w.of("m").len(), w.of("n").len(), w.of("o").len()), (1, 0, 1));
}

#[test]
fn a_full_machine_serves_everybody_in_turn() {
    let mut w = World::with(with(|c| (c.instances_max, c.running_max) = (1, 1))).deploy(module());
    w = w.deploy(Module::new("n", "r1").computed("f", runs));
    let calls: Vec<_> = (0..10).map(|i| w.call(["m.f", "n.f"][i % 2])).collect();
    w.settle();
    assert!(calls.iter().all(|c| w.code(*c) == "ok"));
}

#[test]
fn an_idle_instance_stops_and_the_minimum_stays() {
    let mut w = World::with(with(|c| c.module.instances_min = 1)).deploy(module());
    assert_eq!(w.started, 1, "the minimum is there before the first call");
    for _ in 0..4 {
        w.call_with("m.f", "100", |_| {});
    }
    w.settle();
    assert_eq!(w.of("m").len(), 4);
    w.run(310_000);
    assert_eq!(w.of("m").len(), 1);
    // And is restored when it dies.
    let process = w.of("m")[0];
    w.kill_9(process).run(1_000);
    assert_eq!(w.of("m").len(), 1);
    let mut w = World::new().deploy(module());
    w.call("m.f");
    w.settle().run(310_000);
    assert_eq!(w.of("m").len(), 0);
    w.node.check_quiet();
}

#[test]
fn an_instance_that_does_not_stop_is_killed() {
    let mut w = World::new().deploy(module());
    w.call("m.f");
    w.settle();
    let process = w.of("m")[0];
    w.worker(process).stubborn = true;
    w.run(304_000);
    assert_eq!(w.of("m").len(), 1);
    w.run(7_000);
    assert_eq!(w.of("m").len(), 0);
}

#[test]
fn one_told_to_stop_while_it_runs_is_killed_if_it_stays() {
    let mut w = World::new().deploy(module());
    let call = w.call_with("m.f", "1000", |_| {});
    w.run(50);
    let process = w.of("m")[0];
    w.worker(process).stubborn = true;
    w.save(Module::new("m", "r2").computed("f", runs)).settle();
    assert_eq!(w.ok(call), "done");
    w.run(6_000);
    assert_eq!(w.of("m").len(), 0);
    w.node.check_quiet();
}

#[test]
fn a_start_up_failure_comes_with_the_module_s_own_traceback() {
    let mut w = World::new().deploy(module().instances(Start::SayingWhyNot("no database")));
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.code(call), "module_failed");
    assert!(w.failure(call).traceback.contains("no database"));
    w.run(1_000).node.check_quiet();
}

#[test]
fn one_that_never_says_hello_is_killed() {
    let mut w = World::new().deploy(module().instances(Start::Never));
    let call = w.call_with("m.f", "1", |c| c.queue_wait = Some(ms(50_000)));
    w.run(29_000);
    assert_eq!(w.code(call), "unanswered");
    w.run(2_000);
    assert_eq!((w.code(call), w.of("m").len()), ("module_failed", 0));
    assert!(w.failure(call).message.contains("30s"));
}

#[test]
fn crash_loop_back_off_open_circuit_and_recovery() {
    let mut w = World::new().deploy(module().instances(Start::Dying(1)));
    // 1. Somebody calls all the time: each is told at once, and starts are ever rarer.
    let mut codes = std::collections::BTreeSet::new();
    for _ in 0..600 {
        let call = w.call("m.f");
        w.run(100);
        codes.insert(w.code(call).to_owned());
    }
    assert!(codes.iter().all(|c| c == "module_failed" || c == "unanswered"), "{codes:?}");
    assert!((5..15).contains(&w.started), "{} starts in a minute", w.started);
    // 2. While the circuit is open the answer says when to come back.
    let call = w.call("m.f");
    w.run(1);
    assert!(w.failure(call).retry_after_ms > 0);
    // 3. What was wrong is put right.
    w.save(Module::new("m", "r2").computed("f", runs)).run(200);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "done");
}

#[test]
fn instances_that_crash_on_their_first_call_back_off_too() {
    let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Run(1), Crash]));
    for _ in 0..300 {
        w.call_with("m.f", "", |c| c.queue_wait = Some(ms(500)));
        w.run(100);
    }
    w.settle();
    assert!(w.started < 15, "{} starts in half a minute", w.started);
    w.node.check_quiet();
}

#[test]
fn a_silent_idle_instance_is_a_zombie() {
    let mut w = World::new().deploy(module());
    w.call("m.f");
    w.settle();
    let process = w.of("m")[0];
    w.worker(process).frozen = true;
    w.run(14_000);
    assert_eq!(w.of("m").len(), 1);
    w.run(8_000);
    assert_eq!(w.of("m").len(), 0);
    assert!(w.noted("has not answered 3 pings"));
}

#[test]
fn a_long_call_is_no_zombie() {
    let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Run(50_000), Return("done")]));
    let call = w.call("m.f");
    w.run(30);
    let process = w.of("m")[0];
    w.worker(process).frozen = true;
    w.settle();
    assert_eq!(w.ok(call), "done");
}

#[test]
fn a_call_that_outlasts_its_time_is_interrupted_then_killed() {
    let module = Module::new("m", "r1")
        .function("deaf", [Hang])
        .function("frozen", [Freeze])
        .function("slow", [Run(100_000)]);
    let mut w = World::new().deploy(module);
    for name in ["m.deaf", "m.frozen", "m.slow"] {
        let call = w.call_with(name, "", |c| c.timeout = Some(ms(200)));
        w.run(201);
        assert_eq!(w.code(call), "timeout", "{name}");
        w.run(1_100);
        assert_eq!(w.of("m").len(), usize::from(name == "m.slow"), "{name}");
        assert_eq!(w.node.status().running, 0);
    }
    w.node.check_quiet();
}

#[test]
fn the_function_s_own_timeout_and_queue_wait() {
    let module = module().option("f", "timeout", "\"50ms\"").function("g", [Run(1)]);
    let mut w = World::new().deploy(module);
    let call = w.call_with("m.f", "1000", |_| {});
    w.run(51);
    assert_eq!(w.code(call), "timeout");
    let call = w.call_with("m.f", "100", |c| c.timeout = Some(ms(1_000)));
    w.settle();
    assert_eq!(w.code(call), "ok", "the caller's word counts more");
}

#[test]
fn drain_ends_what_is_there_and_takes_no_more() {
    let mut w = World::new().deploy(module());
    let call = w.call_with("m.f", "100", |_| {});
    w.run(20).input(Input::Drain);
    let late = w.call("m.f");
    assert_eq!(w.code(late), "shutting_down");
    w.run(200);
    assert!(w.drained && w.ok(call) == "done");
    assert!(w.processes.values().all(|p| !p.alive), "templates end, too");
    w.node.check_quiet();
}

#[test]
fn drain_does_not_wait_for_ever() {
    let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Hang]));
    let call = w.call("m.f");
    w.run(20).input(Input::Drain).run(29_000);
    assert!(!w.drained);
    w.run(2_000);
    assert!(w.drained);
    assert_eq!(w.code(call), "shutting_down");
}

#[test]
fn any_program_describes_itself_when_it_starts() {
    let mut w = World::new().deploy(module().kind(Kind::Process));
    assert_eq!((w.started, w.ready), (1, true));
    let call = w.call("m.f");
    w.settle();
    assert_eq!((w.ok(call).as_str(), w.started), ("done", 1));
}

#[test]
fn a_program_that_ends_before_it_describes_itself_fails_to_load() {
    for start in [Start::Dying(1), Start::Never, Start::SayingWhyNot("no licence"), Start::Version(2)] {
        let mut w = World::new();
        w.save(module().kind(Kind::Process).instances(start));
        let call = w.call_with("m.f", "", |c| c.queue_wait = Some(ms(40_000)));
        w.run(32_000);
        assert!(w.ready, "{start:?}: the node does not wait for it");
        assert_ne!(w.code(call), "unanswered", "{start:?}");
        let later = w.call("m.f");
        let expected = if matches!(start, Start::Version(_)) { "protocol_version" } else { "module_failed" };
        assert_eq!((w.code(call), w.code(later)), (expected, expected), "{start:?}");
        w.node.check_quiet();
    }
}

#[test]
fn a_module_that_cannot_be_forked_is_started_anew() {
    let mut w = World::new().deploy(module().not_forkable("it starts threads"));
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "done");
    assert!(w.noted("cannot be forked (it starts threads)"));
}

#[test]
fn a_worker_that_hangs_up_is_replaced() {
    let mut w = World::new().deploy(module());
    let call = w.call_with("m.f", "100", |_| {});
    w.run(20);
    let process = w.of("m")[0];
    let peer = w.peer(process);
    w.hang_up(peer).settle();
    assert_eq!(w.code(call), "instance_crashed");
    assert_eq!(w.of("m").len(), 0);
    w.node.check_quiet();
}

#[test]
fn a_worker_reconnects_with_its_secret_and_finishes() {
    use bourse_wire::v1::to_node::Message as ToNode;
    let mut w = World::new().deploy(module());
    let call = w.call_with("m.f", "100", |_| {});
    w.run(20);
    // 1. Its connection ends, and it comes back on another.
    let process = w.of("m")[0];
    let old = w.peer(process);
    let worker = w.workers.remove(&old).unwrap();
    w.hang_up(old).run(50);
    let new = w.connect();
    w.mail.remove(&new);
    let running = worker.running.as_ref().unwrap();
    let result =
        bourse_wire::v1::Result { call: running.call.clone(), attempt: 1, seq: 1, ..Default::default() };
    w.workers.insert(new, worker);
    w.processes.get_mut(&process).unwrap().peer = Some(new);
    let secret = w.processes[&process].secret.clone();
    w.say(new, ToNode::Hello(common::hello(bourse_wire::v1::Role::Worker, &secret)), "");
    // 2. The result goes through, and the instance is as good as before.
    let again = result.clone();
    w.say(new, ToNode::Result(result), "from before");
    w.workers.get_mut(&new).unwrap().running = None;
    assert_eq!(w.ok(call), "from before");
    // 3. Sent again, it is dropped: what runs meanwhile is another call, or another attempt.
    let next = w.call_with("m.f", "100", |_| {});
    w.run(10).say(new, ToNode::Result(again), "from before");
    assert_eq!(w.code(next), "unanswered");
    w.settle();
    assert_eq!((w.ok(next).as_str(), w.started), ("done", 1));
    w.node.check_quiet();
}

#[test]
fn a_second_connection_with_the_same_secret_wins() {
    use bourse_wire::v1::to_node::Message as ToNode;
    let mut w = World::new().deploy(module());
    w.call("m.f");
    w.settle();
    let process = w.of("m")[0];
    let (old, new) = (w.peer(process), w.connect());
    let secret = w.processes[&process].secret.clone();
    w.say(new, ToNode::Hello(common::hello(bourse_wire::v1::Role::Worker, &secret)), "");
    assert!(matches!(w.mail[&new][0].0, ToWorker::Welcome(_)));
    w.run(1);
    assert!(w.closed.contains(&old));
    w.call("m.f");
    w.run(1);
    assert!(matches!(w.mail[&new].last(), Some((ToWorker::Invoke(_), _))));
}

#[test]
fn an_idle_instance_whose_end_is_reported_before_its_connection_s_keeps_no_timer_ringing() {
    // Its ping falls into the gap between the two.
    let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Return("x")]));
    let ticket = w.call("m.f");
    w.settle();
    w.ok(ticket);
    let process = w.of("m")[0];
    w.run(4_900);
    w.input(Input::Exited { process, exit: Exit::Signal(9) });
    w.run(200);
    w.run(10_000).node.check_quiet();
}

#[test]
fn a_template_that_hangs_is_replaced() {
    // An instance is never forked: its order is parked until the template ends.
    let mut w =
        World::new().deploy(Module::new("m", "r1").function("f", [Return("x")]).instances(Start::Never));
    let template = *w.processes.iter().find(|(_, p)| p.template && p.alive).expect("a template").0;
    w.call("m.f");
    w.run(40_000);
    assert!(!w.processes[&template].alive, "it is ended with what it owes");
    w.save(Module::new("m", "r2").function("f", [Return("y")])).run(1_000);
    let ticket = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(ticket), "y");
}

#[test]
fn a_template_that_is_killed_while_it_loads_is_tried_again() {
    let mut w = World::new();
    w.save(Module::new("m", "r1").function("f", [Return("x")]).load_ms(1_000)).run(100);
    for _ in 0..2 {
        let template = *w.processes.iter().rfind(|(_, p)| p.template && p.alive).expect("a template").0;
        w.kill_9(template).run(600);
    }
    let ticket = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(ticket), "x");
    // Not for ever.
    w.save(Module::new("n", "r1").function("f", [Return("x")]).load_ms(100_000)).run(100);
    for _ in 0..4 {
        let template = *w.processes.iter().rfind(|(_, p)| p.template && p.alive).expect("a template").0;
        w.kill_9(template).run(5_000);
    }
    let ticket = w.call("n.f");
    w.settle();
    assert_eq!(w.code(ticket), "module_failed");
}
