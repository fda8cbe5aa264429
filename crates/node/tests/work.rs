//! Durable calls: accepted, tried again, ended once, whatever dies.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bourse_node::{Ask, Config, Event, Input, Kind};
use bourse_wire::time::Mono;
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::v1::{Await, CancelCall, Verdict};
use common::Step::{Call, Crash, Fail, Hang, Increment, Read, Return, Run, Start, Write};
use common::{Module, Step, World, config, ms};

/// A world that has recovered nothing, as there was nothing.
fn world() -> World {
    with(config())
}

fn with(config: Config) -> World {
    let mut w = World::with(config);
    w.input(Input::Recover);
    w.run(100);
    w
}

/// A function that fails so many times before it returns.
fn fails(times: usize, how: Step) -> (impl Fn(&str) -> Vec<Step> + 'static, Rc<Cell<usize>>) {
    let runs = Rc::new(Cell::new(0));
    let counted = runs.clone();
    let program = move |_: &str| {
        counted.set(counted.get() + 1);
        if counted.get() <= times { vec![how.clone()] } else { vec![Return("at last")] }
    };
    (program, runs)
}

#[test]
fn accepted_then_run_then_known() {
    // 1. The caller has its id when the call is in the store, not before.
    let mut w = world().deploy(Module::new("m", "r1").function("f", [Run(20), Return("x")]));
    let ticket = w.start("m.f", "");
    assert_eq!(w.code(ticket), "unanswered");
    w.run(3);
    assert_eq!(w.code(ticket), "ok");
    // 2. It runs.
    let call = w.id(ticket);
    let awaited = w.ask(call, Ask::Await);
    assert_eq!(w.told(awaited), "untold");
    // 3. Its end is told to who waits for it, and to who asks later.
    w.run(100);
    assert_eq!(w.told(awaited), "done x");
    assert_eq!(w.look(call), "done x");
    w.run(2_000).node.check_quiet();
}

#[test]
fn nobody_is_told_of_a_call_that_is_not_stored() {
    let mut w = world().deploy(Module::new("m", "r1").function("f", [Return("x")]));
    w.store.away = Some("disk full");
    let ticket = w.start("m.f", "");
    w.run(5_000);
    assert_eq!(w.code(ticket), "store_unavailable");
    assert!(w.events.iter().all(|e| !matches!(e, Event::Accepted { .. })));
}

#[test]
fn what_is_accepted_survives_the_node() {
    let mut w = world().deploy(Module::new("m", "r1").function("f", [Run(50), Return("x")]));
    let calls: Vec<_> = (0..40).map(|_| w.start("m.f", "")).collect();
    w.run(30);
    let ids: Vec<_> = calls.iter().map(|ticket| w.id(*ticket)).collect();
    w.restart();
    w.run(5_000);
    for id in ids {
        assert_eq!(w.look(id), "done x");
    }
}

#[test]
fn a_failure_is_tried_again_and_the_last_one_is_a_dead_letter() {
    let (program, runs) = fails(2, Fail("boom"));
    let mut w = world().deploy(Module::new("m", "r1").computed("f", program));
    let ticket = w.start("m.f", "");
    w.run(10);
    let call = w.id(ticket);
    // The first pause is between half a second and one.
    w.run(300);
    assert_eq!((runs.get(), w.look(call).as_str()), (1, "live 1"));
    w.run(10_000);
    assert_eq!((runs.get(), w.look(call).as_str()), (3, "done at last"));

    let (program, runs) = fails(100, Fail("boom"));
    w.save(Module::new("m", "r2").computed("f", program).option(
        "f",
        "retry",
        r#"{"attempts": 3, "pause": "10ms"}"#,
    ));
    let ticket = w.run(200).start("m.f", "");
    w.run(5_000);
    let call = w.id(ticket);
    assert_eq!((runs.get(), w.look(call).as_str()), (3, "dead 3"));
    assert!(w.events.iter().any(|e| matches!(e, Event::DeadLettered { attempt: 3, .. })));
    w.node.check_quiet();
}

#[test]
fn a_dead_letter_is_replayed_or_purged() {
    let (program, runs) = fails(1, Fail("boom"));
    let mut w = world().deploy(Module::new("m", "r1").computed("f", program).option("f", "retry", "1"));
    let ticket = w.start("m.f", "");
    w.run(1_000);
    let call = w.id(ticket);
    assert_eq!(w.look(call), "dead 1");
    let replay = w.ask(call, Ask::Replay);
    w.run(1_000);
    assert_eq!((w.told(replay).as_str(), runs.get()), ("live 1", 2));
    assert_eq!(w.look(call), "done at last");
    // A call that is done is no dead letter.
    let again = w.ask(call, Ask::Replay);
    w.run(100);
    assert_eq!((w.told(again).as_str(), runs.get()), ("done at last", 2));

    w.save(Module::new("m", "r2").function("f", [Fail("boom")]).option("f", "retry", "1"));
    let ticket = w.run(200).start("m.f", "");
    w.run(1_000);
    let call = w.id(ticket);
    let purge = w.ask(call, Ask::Purge);
    w.run(100);
    assert_eq!((w.told(purge).as_str(), w.look(call).as_str()), ("dead 1", "nothing"));
}

#[test]
fn the_function_decides_itself() {
    let module = |steps: Vec<Step>| Module::new("m", "r1").function("f", steps);
    let mut w = world().deploy(module(vec![Step::Verdict(Verdict::DeadLetter, 0)]));
    let ticket = w.start("m.f", "");
    w.run(100);
    assert_eq!(w.look(w.id(ticket)), "dead 1");
    let mut w = world().deploy(module(vec![Step::Verdict(Verdict::Discard, 0)]));
    let ticket = w.start("m.f", "");
    w.run(100);
    assert_eq!(w.look(w.id(ticket)), "cancelled");
    let (program, runs) = fails(1, Step::Verdict(Verdict::Again, 60_000));
    let mut w = world().deploy(Module::new("m", "r1").computed("f", program));
    let ticket = w.start("m.f", "");
    w.run(59_000);
    assert_eq!(runs.get(), 1);
    w.run(2_000);
    assert_eq!((runs.get(), w.look(w.id(ticket)).as_str()), (2, "done at last"));
}

#[test]
fn state_changes_with_the_end_of_the_call_or_not_at_all() {
    // The first attempt writes and fails: nothing of it is seen. The second one counts, once.
    let runs = Rc::new(Cell::new(0));
    let counted = runs.clone();
    let program = move |_: &str| {
        counted.set(counted.get() + 1);
        let mut steps = vec![Read("n"), Increment("n")];
        steps.push(if counted.get() % 2 == 1 { Fail("after writing") } else { Return("") });
        steps
    };
    let module = Module::new("m", "r1")
        .computed("add", program)
        .option("add", "retry", r#"{"pause": "10ms"}"#)
        .function("n", [Read("n"), Return("")]);
    let mut w = world().deploy(module);
    for expected in ["1", "2", "3"] {
        let ticket = w.start("m.add", "");
        w.run(2_000);
        assert_eq!(w.look(w.id(ticket)), format!("done {expected}"));
        let read = w.call("m.n");
        w.run(100);
        assert_eq!(w.ok(read), expected);
    }
    assert_eq!(runs.get(), 6);
}

#[test]
fn a_crash_at_every_step_loses_nothing_and_doubles_nothing() {
    // Each call adds one to a counter that is at home elsewhere. The node dies after `steps` steps, and again later.
    let module = || {
        Module::new("m", "r1")
            .function("add", [Read("n"), Increment("n"), Return("")])
            .option("add", "retry", r#"{"pause": "10ms"}"#)
            .function("n", [Read("n"), Return("")])
    };
    let mut crashed = 0;
    for steps in 0..250 {
        let mut w = world().deploy(module());
        let tickets: Vec<_> = (0..3).map(|_| w.start("m.add", "")).collect();
        for _ in 0..steps {
            // Not until ended calls are forgotten.
            if w.now < Mono(60_000_000_000) {
                w.step();
            }
        }
        let accepted: Vec<_> =
            tickets.into_iter().filter(|t| w.answers.contains_key(t)).map(|t| w.id(t)).collect();
        crashed += usize::from(accepted.len() < 3 || w.busy() > 0);
        w.restart();
        for _ in 0..steps % 37 {
            w.step();
        }
        w.restart();
        w.run(20_000);
        for id in &accepted {
            assert!(w.look(*id).starts_with("done"), "step {steps}: {}", w.look(*id));
        }
        let read = w.call("m.n");
        w.run(200);
        let count: usize = w.ok(read).parse().unwrap_or(0);
        // Who was not told may have been accepted all the same; nobody counts twice.
        assert!((accepted.len()..=3).contains(&count), "step {steps}: {count} for {}", accepted.len());
        let (mut more, mut done) = (Vec::new(), 0);
        more.push(w.start("m.add", ""));
        w.run(1_000);
        for ticket in more {
            done += usize::from(w.look(w.id(ticket)) == format!("done {}", count + 1));
        }
        assert_eq!(done, 1, "step {steps}");
    }
    assert!(crashed > 10, "{crashed} of the crashes were in the middle of something");
}

#[test]
fn a_long_backlog_is_in_the_store_and_is_done_in_order() {
    let order = Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = order.clone();
    let module = Module::new("m", "r1").computed("f", move |argument| {
        seen.borrow_mut().push(argument.parse::<usize>().unwrap());
        if argument == "0" { vec![Run(3_000), Return("x")] } else { vec![Return("x")] }
    });
    let mut w = with(Config { running_max: 1, ..config() });
    let mut tickets = Vec::new();
    // The first one takes its time: the others pile up.
    w.save(module).run(100);
    for n in 0..2_500 {
        tickets.push(w.start("m.f", &n.to_string()));
        if n % 100 == 0 {
            w.run(2);
        }
    }
    w.run(500);
    let lanes: Vec<_> = w.node.lanes().map(|lane| (lane.ready, lane.more)).collect();
    assert_eq!(lanes, [(1024, true)], "most of it is not in memory");
    w.run(60_000);
    assert_eq!(*order.borrow(), (0..2_500).collect::<Vec<_>>());
    w.node.check_quiet();
}

#[test]
fn poison_does_not_hold_up_good_calls() {
    let module = Module::new("m", "r1").computed("f", |argument| match argument {
        "bad" => vec![Fail("poison")],
        _ => vec![Run(1), Return("x")],
    });
    let mut w = world().deploy(module.option("f", "retry", r#"{"attempts": 20, "pause": "1s"}"#));
    for _ in 0..1_200 {
        w.start("m.f", "bad");
    }
    let good: Vec<_> = (0..200).map(|_| w.start("m.f", "good")).collect();
    let began = w.now;
    w.run(8_000);
    let done = good.iter().filter(|t| w.answers.contains_key(t)).count();
    assert_eq!(done, 200);
    let left = good.iter().map(|t| w.id(*t)).collect::<Vec<_>>();
    let ended = left.into_iter().filter(|id| w.look(*id) == "done x").count();
    assert_eq!(ended, 200, "after {:?}", w.now.since(began));
}

#[test]
fn an_idempotency_key_makes_two_calls_one() {
    let (program, runs) = fails(0, Fail(""));
    let mut w = world().deploy(Module::new("m", "r1").computed("f", program).function("g", [Return("g")]));
    let keyed = |w: &mut World, function: &str, key: &str| {
        w.call_with(function, "", |c| {
            (c.mode, c.idempotency_key) = (bourse_node::Mode::Async, key.to_owned())
        })
    };
    // At the same time, later, and after the node has died.
    let (a, b) = (keyed(&mut w, "m.f", "k"), keyed(&mut w, "m.f", "k"));
    w.run(1_000);
    let c = keyed(&mut w, "m.f", "k");
    w.run(100);
    let first = w.id(a);
    assert_eq!([w.id(b), w.id(c)], [first, first]);
    w.restart().run(1_000);
    let d = keyed(&mut w, "m.f", "k");
    let (e, f) = (keyed(&mut w, "m.f", "other"), keyed(&mut w, "m.g", "k"));
    w.run(1_000);
    assert_eq!(w.id(d), first);
    assert!(w.id(e) != first && w.id(f) != first);
    assert_eq!((runs.get(), w.look(first).as_str()), (2, "done at last"));
}

#[test]
fn a_function_s_calls_are_accepted_with_what_it_changes() {
    let module = Module::new("m", "r1")
        .function("both", [Write("a", "1"), Start("m.later", String::new()), Return("")])
        .function("neither", [Write("a", "2"), Start("m.later", String::new()), Fail("no")])
        .function("outer", [Write("b", "1"), Call("m.both", String::new()), Start("m.later", String::new())])
        .function("later", [Read("count"), Increment("count"), Return("")])
        .function("count", [Read("count"), Return("")]);
    let mut w = world().deploy(module);
    let count = |w: &mut World| {
        w.run(1_000);
        let read = w.call("m.count");
        w.run(100);
        w.ok(read)
    };
    w.call("m.both");
    assert_eq!(count(&mut w), "1");
    w.call("m.neither");
    assert_eq!(count(&mut w), "1");
    w.start("m.outer", "");
    assert_eq!(count(&mut w), "3");
    w.restart();
    assert_eq!(count(&mut w), "3");
    w.node.check_quiet();
}

#[test]
fn cancelling_what_waits_runs_or_has_ended() {
    let module =
        Module::new("m", "r1").function("slow", [Run(400), Return("x")]).function("quick", [Return("x")]);
    let mut w = with(Config { running_max: 1, ..config() }).deploy(module);
    let (running, waiting) = (w.start("m.slow", ""), w.start("m.slow", ""));
    w.run(50);
    let (running, waiting) = (w.id(running), w.id(waiting));
    assert_eq!(w.look(running), "running");
    for call in [waiting, running] {
        let cancel = w.ask(call, Ask::Cancel);
        w.run(100);
        assert_eq!((w.told(cancel).as_str(), w.look(call).as_str()), ("cancelled", "cancelled"));
    }
    let done = w.start("m.quick", "");
    w.run(1_500);
    let done = w.id(done);
    let cancel = w.ask(done, Ask::Cancel);
    w.run(100);
    assert_eq!((w.told(cancel).as_str(), w.look(done).as_str()), ("done x", "done x"));
    let nothing = w.ask(bourse_wire::id::CallId::new(5, [5; 10]), Ask::Cancel);
    w.run(100);
    assert_eq!(w.told(nothing), "nothing");
    w.node.check_quiet();
}

#[test]
fn a_call_that_kills_its_instance_ends_as_a_dead_letter() {
    let module = Module::new("m", "r1")
        .function("f", [Crash])
        .option("f", "retry", r#"{"attempts": 3, "pause": "10ms"}"#)
        .function("fine", [Return("x")]);
    let mut w = world().deploy(module);
    let poison = w.start("m.f", "");
    w.run(60_000);
    assert_eq!(w.look(w.id(poison)), "dead 3");
    let fine = w.start("m.fine", "");
    w.run(60_000);
    assert_eq!(w.look(w.id(fine)), "done x");
}

#[test]
fn an_attempt_that_outlasts_its_time_is_ended_and_tried_again() {
    let (program, runs) = fails(1, Hang);
    let module = Module::new("m", "r1").computed("f", program).option("f", "timeout", "\"2s\"");
    let mut w = world().deploy(module);
    let ticket = w.start("m.f", "");
    w.run(30_000);
    assert_eq!((runs.get(), w.look(w.id(ticket)).as_str()), (2, "done at last"));
    w.node.check_quiet();
}

#[test]
fn a_synchronous_call_of_a_function_with_retry_waits_for_the_last_attempt() {
    let (program, runs) = fails(2, Fail("boom"));
    let module = Module::new("m", "r1").computed("f", program).option(
        "f",
        "retry",
        r#"{"attempts": 5, "pause": "10ms"}"#,
    );
    let mut w = world().deploy(module);
    let ticket = w.call("m.f");
    w.settle();
    assert_eq!((runs.get(), w.ok(ticket).as_str()), (3, "at last"));
    // One whose caller does not wait long enough goes on.
    let (program, runs) = fails(1, Fail("boom"));
    w.save(Module::new("m", "r2").computed("f", program).option(
        "f",
        "retry",
        r#"{"attempts": 5, "pause": "1s"}"#,
    ));
    w.run(200);
    let ticket = w.call_with("m.f", "", |c| c.timeout = Some(ms(100)));
    w.settle();
    assert_eq!((runs.get(), w.code(ticket)), (1, "timeout"));
    let call = w.id(ticket);
    w.run(3_000);
    assert_eq!((runs.get(), w.look(call).as_str()), (2, "done at last"));
    w.node.check_quiet();
}

#[test]
fn a_client_that_waits_no_longer_is_answered_and_the_call_goes_on() {
    let module = Module::new("m", "r1").function("f", [Run(500), Return("x")]).option("f", "retry", "2");
    let mut w = world().deploy(module);
    let client = w.client();
    w.client_call(client, 1, "m.f").run(100);
    w.say(client, ToNode::Cancel(CancelCall { request: 1 }), "").run(100);
    assert_eq!(w.replies(client), [(1, "cancelled".to_owned())]);
    // So is a request at the gateway that was given up: whoever keeps a place for its answer needs one.
    let given_up = w.call("m.f");
    w.run(100).cancel(given_up).run(10);
    assert_eq!(w.code(given_up), "cancelled");
    w.run(1_000);
    assert_eq!(w.look(w.id(given_up)), "done x");
    // And so it is for who waits for a call by its id.
    let ticket = w.start("m.f", "");
    w.run(10);
    let call = w.id(ticket);
    let wanted = |request, timeout_ms| ToNode::Await(Await { request, call: call.to_wire(), timeout_ms });
    w.say(client, wanted(2, 0), "").say(client, wanted(3, 20), "").say(client, wanted(4, 0), "").run(100);
    w.say(client, ToNode::Cancel(CancelCall { request: 2 }), "").run(2_000);
    let expected = [(1, "cancelled"), (3, "timeout"), (2, "cancelled"), (4, "x")];
    assert_eq!(w.replies(client), expected.map(|(request, said)| (request, said.to_owned())));
    assert_eq!(w.look(call), "done x");
    w.node.check_quiet();
}

#[test]
fn calls_wait_for_a_module_that_is_gone_or_broken() {
    let module = || Module::new("m", "r1").function("f", [Return("x")]);
    let mut w = world().deploy(module());
    w.remove("m").run(100);
    w.save(module().kind(Kind::Python)).run(1);
    let ticket = w.start("m.f", "");
    w.run(5).remove("m").run(60_000);
    let call = w.id(ticket);
    assert_eq!(w.look(call), "live 0");
    w.save(Module::new("m", "r2").broken("SyntaxError")).run(60_000);
    assert_eq!(w.look(call), "live 0");
    w.save(Module::new("m", "r3").function("f", [Return("y")])).run(2_000);
    assert_eq!(w.look(call), "done y");
    w.node.check_quiet();
}

#[test]
fn a_stopped_node_leaves_what_it_has_not_begun() {
    let module = Module::new("m", "r1").function("f", [Run(100), Return("x")]);
    let mut w = with(Config { running_max: 1, ..config() }).deploy(module);
    let tickets: Vec<_> = (0..5).map(|_| w.start("m.f", "")).collect();
    w.run(50);
    w.input(Input::Drain).run(5_000);
    assert!(w.drained);
    let ids: Vec<_> = tickets.into_iter().map(|t| w.id(t)).collect();
    w.restart().run(5_000);
    for id in ids {
        assert_eq!(w.look(id), "done x");
    }
}

#[test]
fn who_waits_for_a_durable_call_is_told_when_the_node_stops() {
    let module = Module::new("m", "r1")
        .function("f", [Fail("boom")])
        .option("f", "retry", r#"{"pause": "1m"}"#)
        .function("slow", [Run(200), Return("x")])
        .option("slow", "retry", "2");
    let mut w = with(Config { running_max: 1, ..config() }).deploy(module);
    // One waits for its next attempt, one runs, one waits for an instance, one is on its way into the store.
    let again = w.call("m.f");
    w.run(100);
    let (runs, waits) = (w.call("m.slow"), w.call("m.slow"));
    w.run(50);
    let accepting = w.call("m.slow");
    w.input(Input::Drain).run(10_000);
    assert!(w.drained);
    assert_eq!(w.ok(runs), "x");
    for ticket in [again, waits, accepting] {
        assert_eq!(w.code(ticket), "shutting_down");
        w.id(ticket);
    }
}

#[test]
fn a_result_that_the_store_does_not_take_is_a_dead_letter_and_harms_nobody() {
    let module = Module::new("m", "r1")
        .function("big", [Step::ReturnBytes(20 * 1024 * 1024)])
        .function("fine", [Return("x")]);
    let mut w = with(Config { payload_bytes_max: 32 * 1024 * 1024, ..config() }).deploy(module);
    let big = w.start("m.big", "");
    let fine: Vec<_> = (0..20).map(|_| w.start("m.fine", "")).collect();
    w.run(2_000);
    assert_eq!(w.look(w.id(big)), "dead 1");
    for ticket in fine {
        assert_eq!(w.look(w.id(ticket)), "done x");
    }
}

#[test]
fn a_store_that_is_away_for_a_while_costs_time_only() {
    let module = Module::new("m", "r1")
        .function("add", [Read("n"), Increment("n"), Return("")])
        .function("n", [Read("n"), Return("")]);
    let mut w = world().deploy(module);
    let tickets: Vec<_> = (0..10).map(|_| w.start("m.add", "")).collect();
    w.run(2);
    w.store.away = Some("away");
    w.run(20_000);
    w.store.away = None;
    w.run(120_000);
    let accepted: Vec<_> = tickets.into_iter().filter(|t| w.code(*t) == "ok").map(|t| w.id(t)).collect();
    assert!(!accepted.is_empty());
    for id in &accepted {
        assert!(w.look(*id).starts_with("done"), "{}", w.look(*id));
    }
    let read = w.call("m.n");
    w.run(100);
    assert_eq!(w.ok(read), accepted.len().to_string());
    w.run(5_000).node.check_quiet();
}

#[test]
fn ended_calls_are_forgotten_after_a_day_and_dead_letters_are_not() {
    let module = Module::new("m", "r1")
        .function("f", [Return("x")])
        .function("bad", [Fail("boom")])
        .option("bad", "retry", "1");
    let mut w = world().deploy(module);
    let keyed = |w: &mut World| {
        w.call_with("m.f", "", |c| (c.mode, c.idempotency_key) = (bourse_node::Mode::Async, "k".to_owned()))
    };
    let (done, bad) = (keyed(&mut w), w.start("m.bad", ""));
    w.run(1_000);
    let (done, bad) = (w.id(done), w.id(bad));
    let day = u64::try_from(Duration::from_secs(24 * 3600).as_millis()).unwrap();
    w.run(day - 10_000);
    assert_eq!(w.look(done), "done x");
    w.run(4_000_000);
    assert_eq!((w.look(done).as_str(), w.look(bad).as_str()), ("nothing", "dead 1"));
    let again = keyed(&mut w);
    w.run(1_000);
    assert_ne!(w.id(again), done, "the key is free again");
    assert_eq!(w.store.rows_of(b'u') + w.store.rows_of(b't'), 2);
}
