//! What functions send out: calls of the module `bourse`, which the daemon performs.

mod common;

use bourse_node::{Ask, Event, HostFunction, Input, Mode, PERFORMED_MAX, Success, WAITED_MAX};
use bourse_wire::failure::Code;
use bourse_wire::id::{Attempt, CallId};
use bourse_wire::v1::{Failure, Verdict};
use bytes::Bytes;
use common::Step::{Call, Fail, Return, Run, Start, Write};
use common::{Module, World, ms};

fn world() -> World {
    let mut w = World::new();
    w.input(Input::Recover);
    w.run(100);
    w
}

/// What the daemon was asked to do since the last look.
fn asked(w: &mut World) -> Vec<(CallId, Attempt, HostFunction, Bytes)> {
    std::mem::take(&mut w.performs)
}

fn one(w: &mut World) -> (CallId, Attempt) {
    let all = asked(w);
    assert_eq!(all.len(), 1, "one thing is asked for: {all:?}");
    (all[0].0, all[0].1)
}

fn done(w: &mut World, (call, attempt): (CallId, Attempt), text: &'static str) {
    let success = Success { payload: Bytes::from_static(text.as_bytes()), ..Success::default() };
    w.input(Input::Performed { call, attempt, result: Ok(success) });
}

fn failed(w: &mut World, (call, attempt): (CallId, Attempt), failure: Failure) {
    w.input(Input::Performed { call, attempt, result: Err(failure) });
}

#[test]
fn a_call_from_outside_is_performed_now_before_any_module_is_there() {
    let mut w = world();
    let ticket = w.call_with("bourse.send", "hello", |_| {});
    let all = asked(&mut w);
    assert_eq!((all[0].2, &all[0].3[..]), (HostFunction::Send, &b"hello"[..]));
    done(&mut w, (all[0].0, all[0].1), "sent");
    w.settle();
    assert_eq!(w.ok(ticket), "sent");
    let unknown = w.call("bourse.sent");
    w.settle();
    assert_eq!(w.code(unknown), "not_found");
    w.node.check_quiet();
}

#[test]
fn a_function_waits_for_one_and_gives_its_slot_back() {
    let f = Module::new("m", "r1").function("f", [Call("bourse.webhook", "x".to_owned()), Return("after")]);
    let mut w = world().deploy(f);
    let ticket = w.call("m.f");
    w.run(50);
    assert_eq!(w.node.status().running, 0);
    let performed = one(&mut w);
    done(&mut w, performed, "200");
    w.settle();
    assert_eq!(w.ok(ticket), "after");
    w.run(100).node.check_quiet();
}

#[test]
fn what_is_emitted_goes_out_with_the_commit_and_only_then() {
    // 1. The function emits, and fails: nothing goes out.
    let f = Module::new("m", "r1")
        .function("bad", [Write("s/a", "1"), Start("bourse.webhook", "no".to_owned()), Fail("boom")])
        .function(
            "good",
            [Write("s/a", "2"), Start("bourse.webhook", "yes".to_owned()), Run(20), Return("ok")],
        );
    let mut w = world().deploy(f);
    let bad = w.call("m.bad");
    w.settle();
    assert_eq!(w.code(bad), "function_error");
    assert!(asked(&mut w).is_empty());
    // 2. It emits, and returns: it goes out when that is stored.
    let good = w.call("m.good");
    w.run(15);
    assert!(asked(&mut w).is_empty(), "the function has not returned");
    w.settle();
    assert_eq!(w.code(good), "ok");
    let first = one(&mut w);
    // 3. The daemon dies before it knows what became of it: it goes out again, under the same id.
    w.restart();
    w.run(1_000);
    let again = one(&mut w);
    assert_eq!(again.0, first.0);
    done(&mut w, again, "200");
    w.run(100);
    assert_eq!(w.look(first.0), "done 200");
    // 4. And not once more.
    w.restart();
    w.run(1_000);
    let left = asked(&mut w);
    assert!(left.is_empty(), "{left:?}");
    w.node.check_quiet();
}

#[test]
fn failures_are_tried_again_by_class_and_dead_letters_replayed() {
    let mut w = world();
    let ticket = w.start("bourse.webhook", "x");
    w.run(10);
    let id = w.id(ticket);
    // 1. The target says when to come again.
    let first = one(&mut w);
    let busy = Code::FunctionError.because("503").retry_after(ms(2_000));
    failed(&mut w, first, Failure { verdict: Verdict::Again.into(), ..busy });
    w.run(1_900);
    assert!(asked(&mut w).is_empty());
    w.run(200);
    // 2. It does not say: the policy's pause.
    let second = one(&mut w);
    assert_eq!(second, (id, Attempt(2)));
    failed(&mut w, second, Code::FunctionError.because("connection refused"));
    w.run(3_000);
    // 3. It is of no use.
    let third = one(&mut w);
    let refused = Code::FunctionError.because("404");
    failed(&mut w, third, Failure { verdict: Verdict::DeadLetter.into(), ..refused });
    w.run(100);
    assert_eq!(w.look(id), "dead 3");
    assert!(w.events.iter().any(|e| matches!(e, Event::DeadLettered { attempt: 3, .. })));
    // 4. Replayed.
    w.ask(id, Ask::Replay);
    w.run(100);
    let replayed = one(&mut w);
    assert_eq!(replayed.0, id);
    done(&mut w, replayed, "200");
    w.run(100);
    assert_eq!(w.look(id), "done 200");
    w.node.check_quiet();
}

#[test]
fn a_slow_function_holds_up_no_other_and_its_backlog_is_not_in_memory() {
    let mut w = world();
    let tickets: Vec<_> = (0..PERFORMED_MAX + 50).map(|_| w.start("bourse.webhook", "slow")).collect();
    w.run(100);
    let slow = asked(&mut w);
    assert_eq!(slow.len(), PERFORMED_MAX);
    let send = w.start("bourse.send", "quick");
    w.run(20);
    let quick = one(&mut w);
    done(&mut w, quick, "1");
    w.run(50);
    assert_eq!(w.look(w.id(send)), "done 1");
    // As one ends, another begins.
    done(&mut w, (slow[0].0, slow[0].1), "200");
    w.run(20);
    let next = one(&mut w);
    done(&mut w, next, "200");
    for (call, attempt, ..) in &slow[1..] {
        done(&mut w, (*call, *attempt), "200");
    }
    w.run(100);
    for (call, attempt, ..) in asked(&mut w) {
        done(&mut w, (call, attempt), "200");
    }
    w.run(100);
    for ticket in tickets {
        assert_eq!(w.look(w.id(ticket)), "done 200");
    }
    w.node.check_quiet();
}

#[test]
fn those_who_wait_are_refused_when_there_are_too_many() {
    let mut w = world();
    let tickets: Vec<_> = (0..=WAITED_MAX).map(|_| w.call("bourse.webhook")).collect();
    w.run(10);
    assert_eq!(w.code(*tickets.last().unwrap()), "queue_full");
    for (call, attempt, ..) in asked(&mut w) {
        done(&mut w, (call, attempt), "200");
    }
    w.settle();
    assert!(tickets[..WAITED_MAX].iter().all(|t| w.code(*t) == "ok"));
    w.node.check_quiet();
}

#[test]
fn what_nobody_wants_any_more_or_takes_too_long_is_given_up() {
    let mut w = world();
    // 1. The caller goes.
    let ticket = w.call("bourse.webhook");
    let performed = one(&mut w);
    w.cancel(ticket);
    assert_eq!((w.code(ticket), w.desisted.len()), ("cancelled", 1));
    done(&mut w, performed, "too late");
    // 2. Its time is over.
    let ticket = w.call_with("bourse.webhook", "", |c| c.timeout = Some(ms(500)));
    w.settle();
    assert_eq!((w.code(ticket), w.desisted.len()), ("timeout", 2));
    // 3. A durable one is cancelled while it is performed.
    let ticket = w.start("bourse.mail", "x");
    w.run(10);
    let id = w.id(ticket);
    let cancel = w.ask(id, Ask::Cancel);
    w.run(100);
    assert_eq!((w.told(cancel).as_str(), w.desisted.len()), ("cancelled", 3));
    // 4. A durable one whose time is over is tried again.
    asked(&mut w);
    w.call_with("bourse.mail", "y", |c| (c.mode, c.timeout) = (Mode::Async, Some(ms(500))));
    w.run(3_000);
    assert!(asked(&mut w).len() >= 2 && w.desisted.len() >= 4);
}

#[test]
fn a_node_that_stops_leaves_what_it_was_doing_to_the_next_life() {
    let mut w = world();
    let ticket = w.start("bourse.webhook", "x");
    w.run(10);
    let performed = one(&mut w);
    w.input(Input::Drain);
    w.run(100);
    assert!(!w.drained, "it is waited for");
    w.run(60_000);
    assert!(w.drained && w.desisted == [performed.0]);
    w.restart();
    w.run(5_000);
    let again = one(&mut w);
    assert_eq!(again.0, w.id(ticket));
}

#[test]
fn a_module_may_not_have_the_name() {
    let mut w = world().deploy(Module::new("bourse", "r1").function("send", [Return("mine")]));
    w.scan().run(100);
    let refusals = w.events.iter().filter(|e| matches!(e, Event::RevisionFailed { .. })).count();
    assert_eq!((refusals, w.ready), (1, true));
    let peer = w.attach(Module::new("bourse", "r2").function("send", [Return("mine")]));
    w.run(100);
    assert!(w.closed.contains(&peer));
}
