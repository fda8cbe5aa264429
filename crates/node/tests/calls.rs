//! What a caller can rely on: order, bounds, deadlines, cancellation, one answer, whatever dies.

mod common;

use bourse_node::{Config, Exit, Input};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use common::Step::{
    Call, Crash, Exit as Leaves, Fail, Hang, Leave, Log, Return, ReturnBytes, Run, Submit, Sum, Try, WaitAll,
    WaitAny,
};
use common::{Module, Step, World, config, ms};

fn narrow() -> Config {
    Config { running_max: 1, ..config() }
}

/// A function that runs for as many milliseconds as its argument says.
fn runs(argument: &str) -> Vec<Step> {
    vec![Run(argument.parse().unwrap_or(1)), Return("done")]
}

/// The invocations so far, by argument, in order.
fn order(w: &World) -> String {
    let done = w.events.iter().filter_map(|e| match e {
        bourse_node::Event::FunctionLog { log, .. } => Some(log.message.clone()),
        _ => None,
    });
    done.collect::<Vec<_>>().join(" ")
}

#[test]
fn first_come_first_served() {
    let logs = |a: &str| {
        let name: &'static str = ["a", "b", "c", "d"].into_iter().find(|n| *n == a).unwrap();
        vec![Log(name), Run(30)]
    };
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", logs));
    for name in ["a", "b", "c", "d"] {
        w.call_with("m.f", name, |_| {});
    }
    w.settle();
    assert_eq!(order(&w), "a b c d");
}

#[test]
fn queue_wait_ends_in_no_capacity() {
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", runs));
    let long = w.call_with("m.f", "500", |_| {});
    w.run(10);
    let waits = w.call_with("m.f", "1", |c| c.queue_wait = Some(ms(100)));
    w.run(99);
    assert_eq!(w.code(waits), "unanswered");
    w.run(2);
    assert_eq!(w.code(waits), "no_capacity");
    assert!(w.failure(waits).retry_after_ms > 0);
    w.settle();
    assert_eq!(w.ok(long), "done");
    w.node.check_quiet();
}

#[test]
fn a_deadline_in_the_past_is_refused_at_once() {
    let mut w = World::new().deploy(Module::new("m", "r1").computed("f", runs));
    let call = w.call_with("m.f", "1", |c| c.timeout = Some(ms(0)));
    assert_eq!(w.code(call), "timeout");
    assert_eq!(w.started, 0);
}

#[test]
fn a_deadline_ends_a_call_that_waits() {
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", runs));
    w.call_with("m.f", "500", |_| {});
    w.run(10);
    let waits = w.call_with("m.f", "1", |c| c.timeout = Some(ms(50)));
    w.run(51);
    assert_eq!(w.code(waits), "timeout");
    w.settle().node.check_quiet();
}

#[test]
fn cancelled_while_queued_ahead_and_running() {
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", runs));
    w.call_with("m.f", "0", |_| {});
    w.settle();
    // 1. One runs, one is ahead on its connection.
    let running = w.call_with("m.f", "200", |_| {});
    let ahead = w.call_with("m.f", "1", |_| {});
    w.run(5).cancel(ahead);
    assert_eq!(w.code(ahead), "cancelled");
    // 2. One is queued behind them.
    let queued = w.call_with("m.f", "1", |_| {});
    w.run(20).cancel(queued);
    assert_eq!(w.code(queued), "cancelled");
    // 3. The running one is told, and its instance is free when it is done.
    w.cancel(running).run(1);
    assert_eq!(w.code(running), "cancelled");
    assert_eq!(w.node.status().running, 1);
    w.run(300);
    assert_eq!(w.node.status().running, 0);
    let next = w.call_with("m.f", "1", |_| {});
    w.settle();
    assert_eq!(w.ok(next), "done");
    w.node.check_quiet();
}

#[test]
fn a_call_cancelled_ahead_that_starts_all_the_same_is_bounded_by_its_time() {
    let program = |a: &str| if a == "hang" { vec![Hang] } else { runs(a) };
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", program));
    w.call_with("m.f", "0", |_| {});
    w.settle();
    let process = w.of("m")[0];
    w.worker(process).clinging = true;
    // 1. Ahead of its worker, its time ends; the worker does not give it back, and starts it.
    w.call_with("m.f", "100", |_| {});
    let ahead = w.call_with("m.f", "hang", |c| c.timeout = Some(ms(50)));
    w.run(60);
    assert_eq!(w.code(ahead), "timeout");
    // 2. It has had its time: it is interrupted, and then its instance is killed.
    w.run(3_000);
    assert_eq!(w.of("m").len(), 0);
    w.node.check_quiet();
}

#[test]
fn the_queue_is_bounded() {
    let mut c = narrow();
    c.module.queue_max = 3;
    let mut w = World::with(c).deploy(Module::new("m", "r1").computed("f", runs));
    w.call_with("m.f", "100", |_| {});
    w.run(10);
    let calls: Vec<_> = (0..4).map(|_| w.call("m.f")).collect();
    assert_eq!(calls.iter().map(|c| w.code(*c)).collect::<Vec<_>>()[2..], ["unanswered", "queue_full"]);
    w.settle();
}

#[test]
fn payload_context_and_result_are_bounded() {
    let mut c = config();
    c.payload_bytes_max = 100;
    let module = Module::new("m", "r1")
        .computed("f", runs)
        .function("big", [ReturnBytes(101)])
        .function("fits", [ReturnBytes(100)]);
    let mut w = World::with(c).deploy(module);
    let big = w.call_with("m.f", &"x".repeat(101), |_| {});
    assert_eq!(w.code(big), "too_large");
    let context = w.call_with("m.f", "", |c| drop(c.context.insert("k".into(), "v".repeat(8 * 1024))));
    assert_eq!(w.code(context), "too_large");
    let (result, fits) = (w.call("m.big"), w.call("m.fits"));
    w.settle();
    assert_eq!((w.code(result), w.code(fits)), ("too_large", "ok"));
}

#[test]
fn the_context_that_is_inherited_counts() {
    let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Hang]));
    w.call_with("m.f", "", |c| drop(c.context.insert("a".into(), "v".repeat(5_000))));
    w.run(50);
    let process = w.of("m")[0];
    let parent = w.worker(process).running.as_ref().expect("it runs").call.clone();
    let context = [("b".to_owned(), "v".repeat(5_000))].into();
    let call =
        v1::Call { request: 7, function: "m.f".into(), parent, attempt: 1, context, ..Default::default() };
    let peer = w.peer(process);
    w.say(peer, ToNode::Call(call), "");
    assert_eq!(w.node.status().calls, 1, "the nested one was refused");
}

#[test]
fn near_names_are_offered() {
    let mut w = World::new().deploy(Module::new("shop", "r1").computed("order", runs));
    let (function, module) = (w.call("shop.ordr"), w.call("shpo.order"));
    assert_eq!((w.code(function), w.code(module)), ("not_found", "not_found"));
    assert!(w.failure(function).hint.contains("order") && w.failure(module).hint.contains("shop"));
}

#[test]
fn a_version_requirement_holds_also_while_the_module_loads() {
    let mut w = World::new();
    w.save(Module::new("m", "r1").version("1.2.0").computed("f", runs));
    let early = w.call_with("m.f", "", |c| c.version = "^2".into());
    w.run(200);
    let late = w.call_with("m.f", "", |c| c.version = "^2".into());
    let fits = w.call_with("m.f", "", |c| c.version = "^1.1".into());
    let nonsense = w.call_with("m.f", "", |c| c.version = "one".into());
    w.settle();
    assert_eq!(
        [early, late, fits, nonsense].map(|c| w.code(c)),
        ["not_found", "not_found", "ok", "bad_request"]
    );
}

#[test]
fn a_slow_call_holds_nobody_up() {
    let mut w = World::new().deploy(Module::new("m", "r1").computed("f", runs));
    w.call_with("m.f", "0", |_| {});
    w.settle();
    // 1. Short so far, so all are handed ahead of one instance; the first turns out to be slow.
    let slow = w.call_with("m.f", "1000", |_| {});
    let others: Vec<_> = (0..6).map(|_| w.call_with("m.f", "0", |_| {})).collect();
    // 2. Others take them over at once.
    w.run(60);
    assert!(others.iter().all(|c| w.code(*c) == "ok"));
    assert_eq!(w.code(slow), "unanswered");
    // 3. And nothing more goes ahead of the slow one.
    let more: Vec<_> = (0..6).map(|_| w.call_with("m.f", "0", |_| {})).collect();
    w.run(10);
    assert!(more.iter().all(|c| w.code(*c) == "ok"));
    w.settle().node.check_quiet();
}

#[test]
fn a_worker_that_clings_to_its_calls_is_not_asked_without_end() {
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", runs));
    w.call_with("m.f", "0", |_| {});
    w.settle();
    let process = w.of("m")[0];
    w.worker(process).clinging = true;
    w.call_with("m.f", "1000", |_| {});
    w.call_with("m.f", "0", |_| {});
    let mut steps = 0;
    while w.busy() > 0 && steps < 10_000 {
        w.step();
        steps += 1;
    }
    assert!(steps < 1_000, "{steps} steps");
    w.settle();
}

#[test]
fn a_recall_that_crosses_a_result() {
    let mut c = narrow();
    c.recall_after = ms(10);
    let mut w = World::with(c).deploy(Module::new("m", "r1").computed("f", runs));
    w.call_with("m.f", "0", |_| {});
    w.settle();
    // 1. The first ends just when the second is recalled: its worker sends the result, then gives the second back,
    //    which seems to be running by then.
    let first = w.call_with("m.f", "10", |_| {});
    let second = w.call_with("m.f", "0", |_| {});
    let process = w.of("m")[0];
    w.run(9);
    let peer = w.peer(process);
    let worker = w.worker(process);
    worker.frozen = true;
    let (invoke, _) = worker.inbox.pop_front().expect("the second is there");
    w.run(3);
    assert_eq!(w.code(first), "ok");
    w.worker(process).frozen = false;
    // 2. It answers the recall, whatever the nonce was.
    for nonce in 0..20 {
        let calls = vec![v1::Invocation { call: invoke.call.clone(), attempt: invoke.attempt }];
        w.say(peer, ToNode::Recalled(v1::Recalled { nonce, calls }), "");
    }
    w.settle();
    assert_eq!((w.ok(first), w.ok(second)), ("done".into(), "done".into()));
    w.node.check_quiet();
}

#[test]
fn slots_are_never_exceeded() {
    let mut w = World::new().deploy(Module::new("m", "r1").computed("f", runs));
    let calls: Vec<_> = (0..50).map(|_| w.call_with("m.f", "30", |_| {})).collect();
    w.settle();
    assert_eq!((w.running_most, w.alive_most), (4, 4));
    assert!(calls.iter().all(|c| w.code(*c) == "ok"));
}

#[test]
fn who_resumes_goes_before_new_calls() {
    let module = Module::new("m", "r1")
        .function("outer", [Log("begins"), Call("n.inner", String::new()), Log("resumes")])
        .function("new", [Log("new"), Run(20)]);
    let mut w =
        World::with(narrow()).deploy(module).deploy(Module::new("n", "r1").function("inner", [Run(20)]));
    w.call("m.outer");
    w.run(10).call("m.new");
    w.call("m.new");
    w.settle();
    assert!(order(&w).starts_with("begins resumes new"), "{}", order(&w));
}

#[test]
fn blocked_instances_are_bounded() {
    let mut c = config();
    c.module.blocked_max = 3;
    let down = |a: &str| match a.parse::<u64>().expect("a number") {
        0 => vec![Return("1")],
        n => vec![Call("m.down", (n - 1).to_string()), Sum],
    };
    let mut w = World::with(c).deploy(Module::new("m", "r1").computed("down", down));
    let (fits, too_deep) = (w.call_with("m.down", "3", |_| {}), w.call_with("m.down", "10", |_| {}));
    w.settle();
    assert_ne!(w.code(fits), "unanswered");
    assert_eq!(w.code(too_deep), "blocked_exceeded");
    assert!(w.alive_most <= 4 + 3);
    w.node.check_quiet();
}

#[test]
fn depth_is_bounded() {
    let mut c = config();
    c.depth_max = 5;
    let module = Module::new("m", "r1").function("f", [Call("m.f", String::new())]);
    let mut w = World::with(c).deploy(module);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.code(call), "depth_exceeded");
    w.node.check_quiet();
}

fn fib(gathers: bool) -> Module {
    let program = move |a: &str| match a.parse::<u64>().expect("a number") {
        0 => vec![Return("0")],
        1 => vec![Return("1")],
        n if gathers => {
            let fork = |n: u64| Submit("m.fib", n.to_string());
            vec![fork(n - 1), fork(n - 2), WaitAll, Sum]
        }
        n => vec![Call("m.fib", (n - 1).to_string()), Call("m.fib", (n - 2).to_string()), Sum],
    };
    Module::new("m", "r1").computed("fib", program)
}

#[test]
fn natural_recursion_one_after_the_other() {
    let mut w = World::new().deploy(fib(false));
    let call = w.call_with("m.fib", "12", |_| {});
    w.settle();
    assert_eq!(w.ok(call), "144");
    assert!(w.started <= 4 + 64 && w.running_most <= 4);
    w.node.check_quiet();
}

#[test]
fn natural_recursion_that_gathers() {
    let mut w = World::new().deploy(fib(true));
    let call = w.call_with("m.fib", "12", |_| {});
    w.settle();
    assert_eq!(
        w.ok(call),
        "144",
        "depth first, it needs no more blocked instances than its depth times the slots"
    );
    assert!(w.started <= 4 + 64 && w.running_most <= 4);
    w.node.check_quiet();
}

#[test]
fn recursion_that_does_not_fit_is_refused_not_hung() {
    let mut c = config();
    c.module.blocked_max = 4;
    let mut w = World::with(c).deploy(fib(true));
    let call = w.call_with("m.fib", "15", |_| {});
    w.settle();
    assert_eq!(w.code(call), "blocked_exceeded");
    assert!(w.started <= 4 + 4);
    w.node.check_quiet();
}

#[test]
fn wait_any_goes_on_with_the_first() {
    let module = Module::new("m", "r1").computed("f", runs).function(
        "outer",
        [Submit("m.f", "1000".into()), Submit("m.f", "5".into()), WaitAny, Return("first")],
    );
    let mut w = World::new().deploy(module);
    let call = w.call("m.outer");
    w.run(100);
    assert_eq!(w.ok(call), "first");
    // What it left behind was told, and holds its slot only until it ends.
    w.run(1_500);
    w.node.check_quiet();
}

#[test]
fn a_parent_that_ends_leaves_no_child() {
    let module = Module::new("m", "r1")
        .computed("f", runs)
        .function("outer", [Submit("m.f", "200".into()), Submit("m.f", "200".into()), Run(1), Return("x")]);
    let mut w = World::with(narrow()).deploy(module);
    let call = w.call("m.outer");
    w.run(20);
    assert_eq!(w.ok(call), "x");
    assert_eq!(w.node.status().calls, 0);
    w.run(500).node.check_quiet();
}

#[test]
fn a_cancelled_tree_gives_its_slots_back_even_with_one_slot() {
    let module = Module::new("m", "r1").function("outer", [Call("n.f", String::new())]);
    let mut w = World::with(narrow()).deploy(module).deploy(Module::new("n", "r1").function("f", [Run(300)]));
    let call = w.call("m.outer");
    w.run(20).cancel(call).run(1);
    assert_eq!(w.code(call), "cancelled");
    w.run(500).node.check_quiet();
    assert_eq!(w.node.status().running, 0);
}

#[test]
fn a_timeout_reaches_a_blocked_parent() {
    let module = Module::new("m", "r1").function("outer", [Try("n.f", String::new()), Hang]);
    let mut w = World::with(narrow()).deploy(module).deploy(Module::new("n", "r1").function("f", [Hang]));
    let call = w.call_with("m.outer", "", |c| c.timeout = Some(ms(100)));
    w.run(101);
    assert_eq!(w.code(call), "timeout");
    w.run(5_000).node.check_quiet();
    assert_eq!((w.of("m").len(), w.of("n").len()), (0, 0));
}

#[test]
fn an_instance_dies_while_it_runs() {
    for late in [false, true] {
        let mut w = World::new().deploy(Module::new("m", "r1").function("f", [Run(5), Crash]));
        w.exits_late = late;
        let call = w.call("m.f");
        w.settle();
        assert_eq!(w.code(call), "instance_crashed");
        assert!(w.failure(call).message.contains("segmentation fault"), "{:?}", w.failure(call));
        w.node.check_quiet();
    }
}

#[test]
fn an_instance_that_has_ended_is_given_no_more() {
    let program = |a: &str| if a == "exit" { vec![Run(3), Leaves(3)] } else { runs(a) };
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", program));
    w.call_with("m.f", "0", |_| {});
    w.settle();
    // 1. The keeper's word comes before the end of the connection.
    let process = w.of("m")[0];
    w.input(Input::Exited { process, exit: Exit::Code(0) });
    let call = w.call_with("m.f", "0", |_| {});
    w.run(1);
    let peer = w.peer(process);
    w.processes.get_mut(&process).unwrap().alive = false;
    w.hang_up(peer);
    w.settle();
    assert_eq!(w.ok(call), "done");
    w.node.check_quiet();
}

#[test]
fn an_instance_dies_while_blocked() {
    let module = Module::new("m", "r1").function("outer", [Call("n.f", String::new())]);
    let mut w = World::new().deploy(module).deploy(Module::new("n", "r1").function("f", [Run(100)]));
    let call = w.call("m.outer");
    w.run(30);
    let process = w.of("m")[0];
    w.kill_9(process).settle();
    assert_eq!(w.code(call), "instance_crashed");
    w.run(500).node.check_quiet();
}

#[test]
fn an_instance_dies_while_it_starts() {
    let mut w = World::new().deploy(Module::new("m", "r1").computed("f", runs));
    let call = w.call("m.f");
    w.run(1);
    let process = w.of("m")[0];
    w.kill_9(process).settle();
    assert_eq!(w.code(call), "module_failed");
    w.run(1_000);
    let again = w.call("m.f");
    w.settle();
    assert_eq!(w.code(again), "ok");
    w.node.check_quiet();
}

#[test]
fn the_template_dies() {
    let mut w = World::new().deploy(Module::new("m", "r1").computed("f", runs));
    let template = *w.processes.keys().next().unwrap();
    // 1. It is noticed: the next call starts another.
    w.kill_9(template).run(10);
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.ok(call), "done");
    // 2. It is noticed only when it is to fork: the call waits a little longer.
    let mut w = World::new().deploy(Module::new("m", "r1").computed("f", runs));
    w.processes.get_mut(&template).unwrap().alive = false;
    let call = w.call("m.f");
    w.input(Input::Exited { process: template, exit: Exit::Signal(9) }).settle();
    assert_eq!(w.ok(call), "done");
    w.node.check_quiet();
}

#[test]
fn a_client_dies() {
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", runs));
    let client = w.client();
    w.client_call(client, 1, "m.f").client_call(client, 2, "m.f");
    w.hang_up(client);
    assert_eq!(w.node.status().calls, 0);
    w.run(100).node.check_quiet();
}

#[test]
fn an_instance_that_leaves_by_itself_loses_nobody_s_call() {
    let program = |a: &str| if a == "leave" { vec![Leave] } else { runs(a) };
    let mut w = World::with(narrow()).deploy(Module::new("m", "r1").computed("f", program));
    w.call_with("m.f", "0", |_| {});
    w.settle();
    let process = w.of("m")[0];
    let peer = w.peer(process);
    // 1. Its bye crosses the next call.
    let call = w.call_with("m.f", "0", |_| {});
    w.workers.get_mut(&peer).unwrap().frozen = true;
    w.say(peer, ToNode::Bye(v1::Bye {}), "");
    w.settle();
    assert_eq!(w.ok(call), "done");
    // 2. One that leaves whenever it is called backs off, and the caller is told in the end.
    let call = w.call_with("m.f", "leave", |_| {});
    let before = w.started;
    w.settle();
    assert_eq!(w.code(call), "no_capacity");
    assert!(w.started - before < 20, "{} were started", w.started - before);
    w.run(20_000).node.check_quiet();
}

#[test]
fn a_failure_is_the_caller_s_to_handle() {
    let module = Module::new("m", "r1")
        .function("bad", [Fail("boom")])
        .function("tries", [Try("m.bad", String::new()), Return("went on")])
        .function("calls", [Call("m.bad", String::new())]);
    let mut w = World::new().deploy(module);
    let (tries, calls) = (w.call("m.tries"), w.call("m.calls"));
    w.settle();
    assert_eq!((w.ok(tries).as_str(), w.failure(calls).message.as_str()), ("went on", "boom"));
}

#[test]
fn a_second_wait_takes_the_place_of_the_first() {
    use bourse_wire::v1::{self, to_node::Message as ToNode};
    let mut w = World::new().deploy(
        Module::new("m", "r1").function("hang", [Hang]).computed("f", runs).function("outer", [Hang]),
    );
    let outer = w.call("m.outer");
    w.run(30);
    let process = w.of("m")[0];
    let (peer, call) = (w.peer(process), w.worker(process).running.as_ref().unwrap().call.clone());
    let submit = |request, function: &str, argument: &str| {
        let function = function.to_owned();
        let call = v1::Call { request, function, parent: call.clone(), attempt: 1, ..Default::default() };
        (ToNode::Call(call), argument.to_owned())
    };
    let wait = |requests: &[u64], any| {
        ToNode::Wait(v1::Wait { call: call.clone(), attempt: 1, requests: requests.to_vec(), any })
    };
    let blocked = |w: &World| w.node.modules().next().unwrap().blocked;
    for (request, function, argument) in [(1, "m.hang", ""), (2, "m.f", "100"), (3, "m.f", "300")] {
        let (message, argument) = submit(request, function, argument);
        w.say(peer, message, &argument);
    }
    // 1. It waits for what never comes; then for another as well. That goes on with the first of the two.
    w.say(peer, wait(&[1], true), "").say(peer, wait(&[1, 2], true), "");
    assert_eq!(blocked(&w), 1);
    w.run(250);
    assert_eq!(blocked(&w), 0);
    // 2. Waiting for both would never end; what replaces it has been answered, so it goes on at once.
    w.say(peer, wait(&[1, 3], false), "");
    w.run(10);
    assert_eq!(blocked(&w), 1);
    w.say(peer, wait(&[1, 2], true), "");
    w.run(10);
    assert_eq!(blocked(&w), 0);
    // 3. From one that goes on with any to all of them.
    w.say(peer, wait(&[1, 3], true), "").say(peer, wait(&[3], false), "");
    assert_eq!(blocked(&w), 1);
    w.run(500);
    assert_eq!(blocked(&w), 0);
    w.say(peer, ToNode::Result(v1::Result { call: call.clone(), attempt: 1, ..Default::default() }), "done");
    assert_eq!(w.ok(outer), "done");
    w.run(70_000).node.check_quiet();
}
