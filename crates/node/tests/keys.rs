//! Exclusive and unique keys, and calls that hand on.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use bourse_node::{Ask, Input, Mode, Ticket};
use common::Step::{
    Call, Fail, Increment, Read, Return, ReturnFence, Run, Start, Submit, Tail, Try, WaitAll, Write,
};
use common::{Module, Step, World, config};

fn world() -> World {
    let mut w = World::with(config());
    w.input(Input::Recover);
    w.run(100);
    w
}

/// A module whose function `f` writes down when it begins, and takes so long; one for each key.
fn exclusive(ms: u64) -> (Module, Rc<RefCell<Vec<String>>>) {
    let begun = Rc::new(RefCell::new(Vec::new()));
    let log = begun.clone();
    let program = move |argument: &str| {
        log.borrow_mut().push(argument.to_owned());
        vec![Run(ms), Return("x")]
    };
    (Module::new("m", "r1").computed("f", program).option("f", "exclusive", r#""{key}""#), begun)
}

fn answers(w: &World, tickets: &[Ticket]) -> Vec<String> {
    tickets.iter().map(|ticket| w.code(*ticket).to_owned()).collect()
}

#[test]
fn of_calls_with_one_key_one_runs_at_a_time() {
    let (module, begun) = exclusive(100);
    let mut w = world().deploy(module);
    let same: Vec<_> = (0..3).map(|_| w.call_with("m.f", "(a)", |_| {})).collect();
    let other = w.call_with("m.f", "(b)", |_| {});
    w.run(60);
    assert_eq!(begun.borrow().len(), 2, "one for each key");
    w.run(100);
    assert_eq!(begun.borrow().len(), 3);
    assert_eq!(answers(&w, &[same[0], other, same[1]]), ["ok", "ok", "unanswered"]);
    w.run(2_000);
    assert_eq!(answers(&w, &same), ["ok", "ok", "ok"]);
    w.node.check_quiet();
}

#[test]
fn durable_and_other_calls_stand_in_one_line() {
    let (module, begun) = exclusive(50);
    let mut w = world().deploy(module.computed("g", |_| vec![Return("g")]));
    w.call_with("m.f", "(k)", |_| {});
    let a = w.start("m.f", "(k)");
    w.run(20);
    w.call_with("m.f", "(k)", |_| {});
    w.run(20);
    let b = w.start("m.f", "(k)");
    w.run(2_000);
    assert_eq!(begun.borrow().len(), 4);
    for ticket in [a, b] {
        let id = w.id(ticket);
        assert_eq!(w.look(id), "done x");
    }
    w.node.check_quiet();
}

#[test]
fn a_key_survives_the_node() {
    let (module, begun) = exclusive(50);
    let mut w = world().deploy(module);
    let calls: Vec<_> = (0..60).map(|_| w.start("m.f", "(k)")).collect();
    w.run(200);
    let ids: Vec<_> = calls.iter().map(|ticket| w.id(*ticket)).collect();
    w.restart();
    // One that comes now stands behind those of the life before.
    let late = w.call_with("m.f", "(k)", |c| c.queue_wait = Some(common::ms(60_000)));
    w.run(1_000);
    assert_eq!(w.code(late), "unanswered");
    w.run(10_000);
    for id in ids {
        assert_eq!(w.look(id), "done x");
    }
    assert_eq!(w.code(late), "ok");
    assert!(begun.borrow().len() >= 61);
    w.node.check_quiet();
}

#[test]
fn back_off_keeps_the_key_and_a_dead_letter_frees_it() {
    let begun = Rc::new(RefCell::new(Vec::new()));
    let log = begun.clone();
    let module = Module::new("m", "r1")
        .computed("f", move |argument| {
            log.borrow_mut().push(argument.to_owned());
            vec![Fail("boom")]
        })
        .option("f", "exclusive", r#""all""#)
        .option("f", "retry", r#"{"attempts": 2, "pause": "1s"}"#);
    let mut w = world().deploy(module);
    let first = w.start("m.f", "(1)");
    w.run(20);
    let second = w.start("m.f", "(2)");
    w.run(300);
    assert_eq!(*begun.borrow(), ["(1)"], "the second one waits while the first one waits");
    w.run(5_000);
    assert_eq!(*begun.borrow(), ["(1)", "(1)", "(2)", "(2)"]);
    let ids = [w.id(first), w.id(second)];
    assert_eq!(ids.map(|id| w.look(id)), ["dead 2", "dead 2"]);
    // A dead letter that is replayed stands in line again.
    w.ask(ids[0], Ask::Replay);
    w.run(5_000);
    assert_eq!(begun.borrow().len(), 6);
    w.node.check_quiet();
}

#[test]
fn one_that_waits_is_cancelled_and_the_next_one_goes_on() {
    let (module, begun) = exclusive(300);
    let mut w = world().deploy(module);
    let tickets: Vec<_> = (0..3).map(|_| w.start("m.f", "(k)")).collect();
    w.run(50);
    let ids: Vec<_> = tickets.iter().map(|ticket| w.id(*ticket)).collect();
    w.ask(ids[1], Ask::Cancel);
    // And one that runs: its key is free when its instance is.
    w.run(50).ask(ids[0], Ask::Cancel);
    w.run(2_000);
    assert_eq!(w.look(ids[0]), "cancelled");
    assert_eq!(w.look(ids[1]), "cancelled");
    assert_eq!(w.look(ids[2]), "done x");
    assert_eq!(begun.borrow().len(), 2);
    w.node.check_quiet();
}

#[test]
fn fences_grow_over_attempts_and_lives() {
    let module = Module::new("m", "r1").function("f", [ReturnFence]).option("f", "exclusive", r#""{key}""#);
    let mut w = world().deploy(module);
    let mut last = 0;
    for life in 0..3 {
        for sync in [true, false] {
            let mode = if sync { Mode::Sync } else { Mode::Async };
            let ticket = w.call_with("m.f", "(k)", |c| c.mode = mode);
            w.run(500);
            let text = if sync {
                w.ok(ticket)
            } else {
                let id = w.id(ticket);
                w.look(id).strip_prefix("done ").unwrap().to_owned()
            };
            let fence: u64 = text.parse().unwrap();
            assert!(fence > last, "{fence} after {last} in life {life}");
            last = fence;
        }
        w.restart();
        w.run(300);
    }
}

#[test]
fn a_key_is_shared_with_those_that_its_holder_calls() {
    let module = Module::new("m", "r1")
        .computed("f", |_| vec![Read("k"), Increment("k"), Call("m.g", "(k)".to_owned()), Return("f")])
        .function("g", [Read("k"), Increment("k"), Return("g")])
        .function("show", [Read("k"), Return("")])
        .option("f", "exclusive", r#""{key}""#)
        .option("g", "exclusive", r#""{key}""#);
    let mut w = world().deploy(module);
    for _ in 0..3 {
        let call = w.call_with("m.f", "(k)", |_| {});
        w.run(500);
        assert_eq!(w.code(call), "ok");
    }
    let show = w.call("m.show");
    w.run(200);
    assert_eq!(w.ok(show), "6");
    w.node.check_quiet();
}

#[test]
fn who_would_wait_for_ever_is_told_so() {
    let steps = |key: &'static str| vec![Run(50), Call("m.g", key.to_owned()), Return("f")];
    let module = Module::new("m", "r1")
        .computed("f", move |argument| steps(if argument == "(a)" { "(b)" } else { "(a)" }))
        .function("g", [Return("g")])
        .option("f", "exclusive", r#""{key}""#)
        .option("g", "exclusive", r#""{key}""#);
    let mut w = world().deploy(module);
    let both = [w.call_with("m.f", "(a)", |_| {}), w.call_with("m.f", "(b)", |_| {})];
    w.run(5_000);
    let mut codes = answers(&w, &both);
    codes.sort();
    assert_eq!(codes, ["conflict", "ok"], "the younger one gives way");
    assert_eq!(w.code(both[0]), "ok");
    w.node.check_quiet();
}

#[test]
fn durable_calls_that_would_wait_for_ever_are_done_one_after_the_other() {
    let steps = |key: &'static str| vec![Run(50), Call("m.g", key.to_owned()), Return("f")];
    let module = Module::new("m", "r1")
        .computed("f", move |argument| steps(if argument == "(a)" { "(b)" } else { "(a)" }))
        .function("g", [Return("g")])
        .option("f", "exclusive", r#""{key}""#)
        .option("f", "retry", "1")
        .option("g", "exclusive", r#""{key}""#);
    let mut w = world().deploy(module);
    let both = [w.start("m.f", "(a)"), w.start("m.f", "(b)")];
    w.run(5_000);
    for ticket in both {
        let id = w.id(ticket);
        assert_eq!(w.look(id), "done f");
    }
    w.node.check_quiet();
}

#[test]
fn who_waits_too_long_for_a_key_is_told_who_has_it() {
    let (module, _) = exclusive(5_000);
    let mut w = world().deploy(module);
    w.call_with("m.f", "(k)", |_| {});
    let second = w.call_with("m.f", "(k)", |c| c.queue_wait = Some(common::ms(500)));
    w.run(2_000);
    assert_eq!(w.code(second), "no_capacity");
    let said = w.answers[&second].result.clone().unwrap_err().message;
    assert!(said.contains("its exclusive key \"k\", which call"), "{said}");
    w.run(10_000).node.check_quiet();
}

#[test]
fn arguments_that_make_no_key_are_refused() {
    let (module, _) = exclusive(1);
    let mut w = world().deploy(module);
    let call = w.call_with("m.f", "", |_| {});
    w.run(100);
    assert_eq!(w.code(call), "bad_arguments");
    let long = format!("({})", "x".repeat(600));
    let call = w.call_with("m.f", &long, |c| c.mode = Mode::Async);
    w.run(100);
    assert_eq!(w.code(call), "bad_arguments");
}

#[test]
fn a_call_before_its_module_is_loaded_waits_for_its_keys_as_well() {
    let (module, begun) = exclusive(200);
    let mut w = world();
    w.save(module);
    let tickets =
        [w.call_with("m.f", "(k)", |_| {}), w.start("m.f", "(k)"), w.call_with("m.f", "(k)", |_| {})];
    w.run(200);
    assert_eq!(begun.borrow().len(), 1);
    w.run(2_000);
    assert_eq!(answers(&w, &tickets), ["ok", "ok", "ok"]);
    assert_eq!(begun.borrow().len(), 3);
    w.node.check_quiet();
}

// ------------------------------------------------------------ unique keys

fn unique(window: &str, steps: Vec<Step>) -> (Module, Rc<RefCell<Vec<String>>>) {
    let begun = Rc::new(RefCell::new(Vec::new()));
    let log = begun.clone();
    let program = move |argument: &str| {
        log.borrow_mut().push(argument.to_owned());
        steps.clone()
    };
    let option = format!(r#"{{"key": "{{key}}", "window": {window}}}"#);
    (Module::new("m", "r1").computed("f", program).option("f", "unique", &option), begun)
}

#[test]
fn a_second_call_with_a_unique_key_is_the_first_one() {
    let (module, begun) = unique("\"1h\"", vec![Run(100), Return("x")]);
    let mut w = world().deploy(module);
    let first = w.start("m.f", "(k)");
    w.run(20);
    let second = w.start("m.f", "(k)");
    let waits = w.call_with("m.f", "(k)", |_| {});
    let other = w.start("m.f", "(j)");
    w.run(500);
    assert_eq!(w.id(first), w.id(second));
    assert_ne!(w.id(first), w.id(other));
    assert_eq!((w.code(waits), w.ok(waits).as_str()), ("ok", "x"));
    assert_eq!(begun.borrow().len(), 2);
    // After its window, it is another one.
    w.run(3_600_000);
    let late = w.start("m.f", "(k)");
    w.run(500);
    assert_ne!(w.id(first), w.id(late));
    assert_eq!(begun.borrow().len(), 3);
}

#[test]
fn a_window_may_last_until_the_call_has_ended() {
    let (module, begun) = unique("\"running\"", vec![Run(100), Return("x")]);
    let mut w = world().deploy(module);
    for round in 1..=3 {
        let both = [w.start("m.f", "(k)"), w.start("m.f", "(k)")];
        w.run(50);
        assert_eq!(w.id(both[0]), w.id(both[1]));
        w.run(500);
        assert_eq!(begun.borrow().len(), round);
    }
    w.run(2_000).node.check_quiet();
}

#[test]
fn functions_that_call_one_that_is_unique_share_it() {
    let (module, begun) = unique("\"1h\"", vec![Run(100), Return("7")]);
    let module = module
        .function("waits", [Submit("m.f", "(k)".to_owned()), WaitAll, Step::Sum])
        .function("starts", [Start("m.f", "(k)".to_owned()), Return("started")]);
    let mut w = world().deploy(module);
    let waiting = [w.call("m.waits"), w.call("m.waits")];
    let started = w.call("m.starts");
    w.run(2_000);
    assert_eq!(answers(&w, &[waiting[0], waiting[1], started]), ["ok", "ok", "ok"]);
    assert_eq!(waiting.map(|ticket| w.ok(ticket)), ["7", "7"]);
    assert_eq!(begun.borrow().len(), 1);
    w.node.check_quiet();
}

#[test]
fn a_call_that_is_joined_with_another_is_answered_as_that_one() {
    let (module, begun) = unique("\"1h\"", vec![Return("7")]);
    let ids = Rc::new(RefCell::new(0));
    let count = ids.clone();
    let module = module.computed("starts", move |_| {
        *count.borrow_mut() += 1;
        vec![Start("m.f", "(k)".to_owned()), Write("a", "1"), Return("")]
    });
    let mut w = world().deploy(module);
    for _ in 0..3 {
        w.call("m.starts");
        w.run(300);
    }
    assert_eq!((begun.borrow().len(), *ids.borrow()), (1, 3));
    w.restart();
    w.run(2_000);
    assert_eq!(begun.borrow().len(), 1);
    w.node.check_quiet();
}

#[test]
fn a_unique_call_that_would_wait_for_its_own_caller_is_refused() {
    let (module, begun) = unique("\"1h\"", vec![Return("x")]);
    let module = module
        .option("f", "exclusive", r#""all""#)
        .function("g", [Call("m.f", "(k)".to_owned()), Return("g")])
        .option("g", "exclusive", r#""all""#);
    let mut w = world().deploy(module);
    let call = w.call_with("m.g", "(k)", |_| {});
    w.run(500);
    assert_eq!((w.code(call), begun.borrow().len()), ("conflict", 0));
    w.node.check_quiet();
}

#[test]
fn a_function_may_have_both_keys() {
    let (module, begun) = unique("\"1h\"", vec![Run(50), Return("x")]);
    let module = module.option("f", "exclusive", r#""all""#);
    let mut w = world().deploy(module);
    let tickets: Vec<_> =
        ["(a)", "(b)", "(a)", "(c)"].into_iter().map(|argument| w.start("m.f", argument)).collect();
    w.run(30);
    assert_eq!(begun.borrow().len(), 1);
    w.restart();
    w.run(2_000);
    let ids: Vec<_> = tickets.iter().map(|ticket| w.id(*ticket)).collect();
    assert_eq!(ids[0], ids[2]);
    for id in ids {
        assert_eq!(w.look(id), "done x");
    }
    w.node.check_quiet();
}

// ------------------------------------------------------------ handing on

fn countdown() -> Module {
    Module::new("m", "r1").computed("walk", |argument| {
        let n: u64 = argument.trim_matches(['(', ')']).parse().unwrap_or(0);
        let next = format!("({})", n.saturating_sub(1));
        match n {
            0 => vec![Read("n"), Increment("n"), Return("")],
            _ => vec![Read("n"), Increment("n"), Tail("m.walk", next)],
        }
    })
}

#[test]
fn a_call_goes_on_as_another_and_the_last_one_answers() {
    for mode in [Mode::Sync, Mode::Async] {
        let mut w = world().deploy(countdown());
        let ticket = w.call_with("m.walk", "(50)", |c| c.mode = mode);
        w.run(20_000);
        assert_eq!(w.code(ticket), "ok");
        if mode == Mode::Async {
            let id = w.id(ticket);
            assert_eq!(w.look(id), "done 51", "each step has taken effect once");
        } else {
            assert_eq!(w.ok(ticket), "51");
        }
        w.run(2_000).node.check_quiet();
    }
}

#[test]
fn a_chain_goes_on_after_the_node_died() {
    let mut w = world().deploy(countdown());
    let ticket = w.start("m.walk", "(50)");
    w.run(10);
    let id = w.id(ticket);
    for _ in 0..20 {
        w.run(90).restart();
    }
    w.run(20_000);
    assert_eq!(w.look(id), "done 51");
    w.node.check_quiet();
}

#[test]
fn a_chain_holds_its_key_from_its_beginning_to_its_end() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let written = log.clone();
    let module = Module::new("m", "r1")
        .computed("f", move |argument| {
            written.borrow_mut().push(argument.to_owned());
            match argument {
                "(k)" => vec![Run(50), Tail("other.g", "(1)".to_owned())],
                _ => vec![Return("x")],
            }
        })
        .option("f", "exclusive", r#""all""#);
    let written = log.clone();
    let other = Module::new("other", "r1").computed("g", move |argument| {
        written.borrow_mut().push(format!("g{argument}"));
        match argument {
            "(1)" => vec![Run(50), Tail("m.f", "(2)".to_owned())],
            _ => vec![Return("g")],
        }
    });
    for mode in [Mode::Sync, Mode::Async] {
        let mut w = world().deploy(module.clone()).deploy(other.clone());
        log.borrow_mut().clear();
        w.call_with("m.f", "(k)", |c| c.mode = mode);
        w.run(60);
        w.call_with("m.f", "(late)", |_| {});
        w.run(3_000);
        assert_eq!(*log.borrow(), ["(k)", "g(1)", "(2)", "(late)"]);
        w.node.check_quiet();
    }
}

#[test]
fn a_step_that_leads_nowhere_fails() {
    let module = Module::new("m", "r1")
        .function("f", [Write("a", "1"), Tail("m.nothing", "()".to_owned())])
        .function("show", [Read("a"), Return("")]);
    let mut w = world().deploy(module);
    let (sync, durable) = (w.call("m.f"), w.start("m.f", ""));
    w.run(1_000);
    assert_eq!(w.code(sync), "not_found");
    let id = w.id(durable);
    assert_eq!(w.look(id), "dead 1");
    let show = w.call("m.show");
    w.run(100);
    assert_eq!(w.ok(show), "", "what it wrote is dropped");
}

#[test]
fn nested_calls_may_hand_on() {
    let module = countdown()
        .function("f", [Call("m.walk", "(5)".to_owned()), Try("m.walk", "(0)".to_owned()), Return("f")]);
    let mut w = world().deploy(module);
    let call = w.call("m.f");
    w.run(5_000);
    assert_eq!(w.code(call), "ok");
    w.node.check_quiet();
}

#[test]
fn a_delayed_call_waits_and_holds_no_key_meanwhile() {
    let (module, begun) = exclusive(10);
    let mut w = world().deploy(module);
    let delayed = w.call_with("m.f", "(k)", |c| {
        c.mode = Mode::Async;
        c.delay = Some(common::ms(60_000));
    });
    w.run(100);
    let id = w.id(delayed);
    let now = w.call_with("m.f", "(k)", |_| {});
    w.run(500);
    assert_eq!((w.look(id).as_str(), w.code(now)), ("live 0", "ok"));
    w.restart();
    w.run(50_000);
    assert_eq!(begun.borrow().len(), 1);
    w.run(15_000);
    assert_eq!(w.look(id), "done x");
    w.node.check_quiet();
}
