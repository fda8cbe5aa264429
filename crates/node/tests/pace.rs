//! How often functions are run, and several calls at a time.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use bourse_node::{Ask, Config, Input};
use bourse_wire::arguments::Arguments;
use bourse_wire::value::Value;
use common::Step::{Crash, Fail, Increment, Read, Return, Run, Start, Write};
use common::{Module, World, config};

fn world() -> World {
    let mut w = World::with(config());
    w.input(Input::Recover);
    w.run(100);
    w
}

/// A module whose function `f` writes down what it is called with.
fn noted() -> (Module, Rc<RefCell<Vec<String>>>) {
    let begun = Rc::new(RefCell::new(Vec::new()));
    let log = begun.clone();
    let program = move |argument: &str| {
        log.borrow_mut().push(argument.to_owned());
        vec![Run(1), Return("x")]
    };
    (Module::new("m", "r1").computed("f", program), begun)
}

// ------------------------------------------------------------ how often

#[test]
fn of_calls_that_follow_each_other_quickly_the_last_one_is_run() {
    let (module, begun) = noted();
    let module = module.option("f", "exclusive", r#""all""#).option("f", "debounce", "\"1s\"");
    let mut w = world().deploy(module);
    let tickets: Vec<_> = (0..5).map(|n| (n, w.run(400).start("m.f", &format!("({n})"))).1).collect();
    w.run(900);
    assert!(begun.borrow().is_empty(), "it has not been quiet for a second");
    w.restart();
    w.run(1_000);
    assert_eq!(*begun.borrow(), ["(4)"]);
    let ids: Vec<_> = tickets.iter().map(|ticket| w.id(*ticket)).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "they are one call");
    assert_eq!(w.look(ids[0]), "done x");
    // After that, it is another one; and one that is waited for is answered by it.
    let waits = w.call_with("m.f", "(9)", |_| {});
    w.run(1_500);
    assert_eq!((w.code(waits), begun.borrow().len()), ("ok", 2));
    w.node.check_quiet();
}

#[test]
fn what_never_gets_quiet_is_run_all_the_same() {
    let (module, begun) = noted();
    let module = module.option("f", "debounce", r#"{"wait": "1s", "max": "3s", "key": "{key}"}"#);
    let mut w = world().deploy(module);
    for _ in 0..20 {
        w.start("m.f", "(k)");
        w.run(500);
    }
    w.run(3_000);
    assert!((3..=4).contains(&begun.borrow().len()), "{:?}", begun.borrow());
    w.node.check_quiet();
}

#[test]
fn a_throttled_function_is_run_at_its_pace() {
    let (module, begun) = noted();
    let module = module.option("f", "throttle", "\"10/s\"");
    let mut w = world().deploy(module);
    let tickets: Vec<_> = (0..30).map(|n| w.start("m.f", &format!("({n})"))).collect();
    w.run(1_050);
    let so_far = begun.borrow().len();
    assert!((10..=12).contains(&so_far), "{so_far} in a second");
    let refused = w.call_with("m.f", "(x)", |_| {});
    w.run(10);
    assert_eq!(w.code(refused), "no_capacity");
    w.run(3_000);
    assert_eq!(begun.borrow().len(), 30);
    for ticket in tickets {
        let id = w.id(ticket);
        assert_eq!(w.look(id), "done x");
    }
    let now = w.call_with("m.f", "(x)", |_| {});
    w.run(100);
    assert_eq!(w.code(now), "ok");
    w.node.check_quiet();
}

// ------------------------------------------------------------ lists

/// What a list has, as the worker sees it: its length, from the bytes of its arguments.
fn length(argument: &str) -> usize {
    argument.matches('.').count()
}

#[test]
fn calls_that_come_together_are_run_together() {
    let lengths = Rc::new(RefCell::new(Vec::new()));
    let log = lengths.clone();
    let module = Module::new("m", "r1")
        .computed("f", move |argument| {
            log.borrow_mut().push(length(argument));
            vec![Read("n"), Increment("n")]
        })
        .option("f", "batch", r#"{"max": 10, "wait": "50ms"}"#);
    let mut w = world().deploy(module);
    let tickets: Vec<_> = (0..25).map(|n| w.start("m.f", &format!("(.{n})"))).collect();
    w.run(30);
    let waits = w.call_with("m.f", "(.)", |_| {});
    w.run(2_000);
    assert_eq!(lengths.borrow().iter().sum::<usize>(), 26, "{:?}", lengths.borrow());
    assert_eq!(lengths.borrow().iter().max(), Some(&10));
    assert!(lengths.borrow().len() <= 5, "{:?}", lengths.borrow());
    for ticket in tickets {
        let id = w.id(ticket);
        assert_eq!(w.look(id), "done ");
    }
    assert_eq!(w.code(waits), "ok");
    w.node.check_quiet();
}

#[test]
fn a_list_has_calls_of_all_homes() {
    let lengths = Rc::new(RefCell::new(Vec::new()));
    let log = lengths.clone();
    let module = Module::new("m", "r1")
        .computed("put", |argument| {
            let scope: &'static str = if argument == "(a)" { "a" } else { "b" };
            vec![Write(scope, "1"), Start("m.f", format!("(.{scope})")), Return("put")]
        })
        .computed("f", move |argument| {
            log.borrow_mut().push(length(argument));
            vec![Read("n"), Increment("n"), Run(5)]
        })
        .option("f", "batch", r#"{"max": 10, "wait": "200ms"}"#);
    let mut w = world().deploy(module);
    for argument in ["(a)", "(b)", "(a)", "(b)"] {
        w.call_with("m.put", argument, |_| {});
        w.run(10);
    }
    w.run(205);
    w.restart();
    w.run(2_000);
    assert_eq!(lengths.borrow().first(), Some(&4), "{:?}", lengths.borrow());
    w.node.check_quiet();
}

#[test]
fn a_list_that_fails_is_taken_apart() {
    let module = Module::new("m", "r1")
        .computed("f", move |argument| match argument.contains(".bad") {
            true => vec![Fail("poison")],
            false => vec![],
        })
        .option("f", "batch", "10")
        .option("f", "retry", r#"{"attempts": 3, "pause": "100ms"}"#);
    let mut w = world().deploy(module);
    w.call_with("m.f", "(.first)", |_| {});
    let names = ["(.1)", "(.2)", "(.bad)", "(.3)"];
    let tickets: Vec<_> = names.into_iter().map(|name| w.start("m.f", name)).collect();
    w.run(10_000);
    let ends: Vec<_> = tickets
        .into_iter()
        .map(|ticket| {
            let id = w.id(ticket);
            w.look(id)
        })
        .collect();
    assert_eq!(ends, ["done ", "done ", "dead 3", "done "]);
    w.node.check_quiet();
}

#[test]
fn a_call_that_has_failed_is_never_in_a_list_with_others() {
    let lists = Rc::new(RefCell::new(Vec::new()));
    let log = lists.clone();
    let module = Module::new("m", "r1")
        .computed("f", move |argument| {
            log.borrow_mut().push((argument.contains(".bad"), length(argument)));
            if argument.contains(".bad") { vec![Fail("poison")] } else { vec![Run(20)] }
        })
        .option("f", "batch", "10")
        .option("f", "retry", r#"{"attempts": 20, "pause": "20ms", "pause_max": "20ms"}"#);
    let mut w = World::with(Config { running_max: 1, ..config() });
    w.input(Input::Recover);
    let mut w = w.deploy(module);
    w.start("m.f", "(.bad)");
    for n in 0..400 {
        w.start("m.f", &format!("(.{n})"));
        w.run(1);
    }
    w.run(5_000);
    let lists = lists.borrow();
    let bad: Vec<usize> = lists.iter().filter(|(bad, _)| *bad).map(|(_, length)| *length).collect();
    assert_eq!(bad.len(), 20, "{bad:?}");
    assert!(bad[1..].iter().all(|length| *length == 1), "{bad:?}");
    assert!(lists.iter().any(|(_, length)| *length > 1), "others are together");
}

#[test]
fn a_list_outlives_what_runs_it() {
    let crashes = Rc::new(RefCell::new(0));
    let counted = crashes.clone();
    let module = Module::new("m", "r1")
        .computed("f", move |_| {
            *counted.borrow_mut() += 1;
            if *counted.borrow() <= 2 { vec![Run(20), Crash] } else { vec![Run(20)] }
        })
        .option("f", "batch", r#"{"max": 5, "wait": "20ms"}"#);
    let mut w = world().deploy(module);
    let tickets: Vec<_> = (0..10).map(|n| w.start("m.f", &format!("(.{n})"))).collect();
    w.run(15);
    let ids: Vec<_> = tickets.iter().map(|ticket| w.id(*ticket)).collect();
    w.run(15);
    w.restart();
    w.run(20);
    w.ask(ids[9], Ask::Cancel);
    w.run(20_000);
    let ends: Vec<_> = ids.iter().map(|id| w.look(*id)).collect();
    assert!(ends.iter().all(|end| end.starts_with("done") || end == "cancelled"), "{ends:?}");
    w.input(Input::Drain).run(10_000);
    assert!(w.drained);
}

#[test]
fn a_result_that_is_no_list_as_long_fails_the_list() {
    let one = Value::Array(vec![Value::Int(1)]).to_cbor();
    assert_eq!(one.len(), 2, "a list of one, for a list of two");
    let module = Module::new("m", "r1")
        .function("f", [Return("\u{1}")])
        .option("f", "batch", "10")
        .option("f", "retry", "1");
    let mut w = world().deploy(module);
    let ticket = w.start("m.f", "(.1)");
    w.run(1_000);
    let id = w.id(ticket);
    assert_eq!(w.look(id), "dead 1");
    // Arguments that are not one argument.
    let two = Arguments { positional: vec![Value::Int(1), Value::Int(2)], named: vec![] }.to_cbor();
    let ticket = w.call_with("m.f", "", |c| c.payload = two);
    w.run(1_000);
    assert_eq!(w.code(ticket), "bad_arguments");
    w.node.check_quiet();
}
