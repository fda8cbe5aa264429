//! Cron lines, queues and topics.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bourse_node::durable::batch::Outcome;
use bourse_node::{Event, Input, Level};
use bourse_wire::v1::to_node::Message as ToNode;
use common::Step::{Crash, Fail, Publish, Return, Run, Write};
use common::{Module, World, config, ms};

const HOUR: Duration = Duration::from_secs(3600);

/// A world that has recovered nothing, as there was nothing. It begins at 22:13:20, 20 seconds after a minute.
fn world() -> World {
    let mut w = World::with(config());
    w.input(Input::Recover);
    w.run(1_000);
    w
}

fn cron(revision: &str, json: &str) -> Module {
    Module::new("m", revision).function("f", [Return("x")]).option("f", "cron", json)
}

fn warned(w: &World, word: &str) -> bool {
    w.events.iter().any(|e| matches!(e, Event::Note { level: Level::Warning, text } if text.contains(word)))
}

#[test]
fn each_tick_makes_one_call() {
    let mut w = world().deploy(cron("r1", "\"*/20 * * * * *\""));
    w.run(60_000);
    assert_eq!(w.ticks("f"), [20, 40, 60]);
    assert_eq!(w.woken()[0], "f cron */20 * * * * *");
    w.remove("m").run(1_000).node.check_quiet();
}

#[test]
fn a_tick_runs_beside_the_one_before() {
    let slow = Module::new("m", "r1").function("f", [Run(25_000)]).option("f", "cron", "\"*/10 * * * * *\"");
    let mut w = world().deploy(slow);
    w.run(32_000);
    assert_eq!(w.ticks("f"), [10, 20, 30]);
    assert_eq!(w.busy(), 3);
}

#[test]
fn a_tick_waits_for_the_one_before_if_the_function_is_exclusive_and_joins_it_if_it_is_unique() {
    let slow = |name: &str, json: &str| {
        let slow = Module::new("m", "r1").function("f", [Run(25_000)]);
        slow.option("f", "cron", "\"*/10 * * * * *\"").option("f", name, json)
    };
    let mut w = world().deploy(slow("exclusive", "\"all\""));
    w.run(32_000);
    assert_eq!((w.ticks("f"), w.busy()), (vec![10], 1));
    w.run(30_000);
    assert_eq!((w.ticks("f"), w.busy()), (vec![10, 20, 30], 1));
    let mut w = world().deploy(slow("unique", r#"{"key": "all", "window": "running"}"#));
    w.run(62_000);
    assert_eq!(w.ticks("f"), vec![10, 40]);
}

#[test]
fn lines_go_on_over_restarts_and_begin_anew_when_they_change() {
    let mut w = world().deploy(cron("r1", "\"0 * * * * *\""));
    w.run(50_000);
    assert_eq!(w.ticks("f"), [40]);
    w.restart().run(60_000);
    assert_eq!(w.ticks("f"), [40, 100]);
    // Another line begins when it is there: nothing is made up for.
    let mut w = w.deploy(cron("r2", "\"30 * * * * *\""));
    w.run(60_000);
    assert_eq!(w.ticks("f"), [40, 100, 130]);
    assert_eq!(w.store.rows_of(b'k'), 1, "the record of the line before is gone");
    // So does a line that comes back.
    let mut w = w.deploy(cron("r3", "\"0 0 0 1 1 *\"")).deploy(cron("r4", "\"0 * * * * *\""));
    w.run(60_000);
    assert_eq!(w.ticks("f").len(), 4);
}

#[test]
fn a_revision_that_does_not_load_keeps_the_lines() {
    let mut w = world().deploy(cron("r1", "\"*/10 * * * * *\""));
    w = w.deploy(cron("r2", "\"*/10 * * *\""));
    assert!(w.events.iter().any(|e| matches!(e, Event::RevisionFailed { failure, still_serving: true, .. }
        if failure.message.contains("4 fields") && !failure.hint.is_empty())));
    w.run(20_000);
    assert_eq!(w.ticks("f"), [10, 20]);
    // A module that is gone has none; its record stays until it is forgotten.
    w.remove("m").run(60_000);
    assert_eq!((w.ticks("f").len(), w.store.rows_of(b'k')), (2, 1));
    let ticket = w.forget("m");
    w.run(100);
    assert_eq!(w.json(ticket), r#"{"module":"m","removed":1}"#);
    assert_eq!(w.store.rows_of(b'k'), 0);
    w.run(1_000).node.check_quiet();
}

#[test]
fn missed_ticks() {
    for (missed, expected) in [("skip", vec![]), ("once", vec![7_180]), ("all", vec![3_580, 7_180])] {
        // It is 22:13:21, and goes down for two and a quarter hours at once; ticks are 10 minutes before the hour.
        let json = format!(r#"{{"line": "0 13 * * * *", "missed": "{missed}"}}"#);
        let mut w = world().deploy(cron("r1", &json));
        w.down(2 * HOUR + HOUR / 4).run(5_000);
        assert_eq!(w.ticks("f"), expected, "{missed}");
        w.run(HOUR.as_millis() as u64);
        assert_eq!(w.ticks("f").len(), expected.len() + 1, "{missed}: then it goes on");
    }
}

#[test]
fn too_many_missed_ticks_are_cut_off_with_a_warning() {
    let mut w = world().deploy(cron("r1", r#"{"line": "* * * * * *", "missed": "all"}"#));
    w.down(HOUR).run(800);
    w.run(60_000);
    let ticks = w.ticks("f");
    let last = w.now().mono.0.cast_signed() / 1_000_000_000;
    assert!(ticks.last().is_some_and(|tick| tick + 1 >= last));
    assert!((1_000..1_100).contains(&ticks.len()), "{}", ticks.len());
    assert!(ticks.is_sorted() && warned(&w, "missed more than 1000"));
}

#[test]
fn a_clock_that_jumps_forward_has_missed_ticks() {
    for (missed, more) in [("skip", 0), ("once", 1), ("all", 4)] {
        let json = format!(r#"{{"line": "0 */15 * * * *", "missed": "{missed}"}}"#);
        let mut w = world().deploy(cron("r1", &json));
        w.wall_set_ms = 3_600_000;
        w.run(31_000);
        assert_eq!(w.ticks("f").len(), more, "{missed}");
    }
}

#[test]
fn a_clock_that_is_set_back_fires_nothing_twice() {
    let mut w = world().deploy(cron("r1", "\"0 */15 * * * *\""));
    w.run(2 * HOUR.as_millis() as u64);
    assert_eq!(w.ticks("f").len(), 8);
    w.wall_set_ms = -3_600_000;
    w.run(3_600_000 - 60_000);
    assert_eq!(w.ticks("f").len(), 8, "all of these have been");
    w.run(20 * 60_000);
    assert_eq!(w.ticks("f").len(), 10);
    // A clock that was far ahead has been wrong: there is no point in waiting until it was right.
    w.wall_set_ms = -5 * 3_600_000;
    w.run(60_000);
    assert!(warned(&w, "begins anew"));
    w.run(3_600_000);
    assert_eq!(w.ticks("f").len(), 14);
    let mut ids: Vec<_> = w.invoked.iter().map(|i| i.call.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 14, "what begins anew has calls of its own");
}

#[test]
fn a_tick_of_which_it_is_not_known_whether_it_landed_fires_once() {
    for lands in [false, true] {
        let mut w = world().deploy(cron("r1", "\"*/20 * * * * *\""));
        w.store.outcomes.push_back(Outcome::Unknown("who knows".to_owned()));
        w.store.unheard = lands;
        w.run(30_000);
        assert_eq!(w.ticks("f"), [20], "lands: {lands}");
    }
}

#[test]
fn ticks_wait_while_the_store_is_away() {
    let mut w = world().deploy(cron("r1", "\"*/10 * * * * *\""));
    w.store.away = Some("on holiday");
    w.run(25_000);
    assert!(w.ticks("f").is_empty());
    w.store.away = None;
    w.run(10_000);
    assert_eq!(w.ticks("f"), [20, 30], "the latest of those that were missed, then as usual");
}

// ---------------------------------------------------------------- queues and topics

/// Keeps what it was called with.
fn keeps(name: &str, revision: &str, function: &str) -> (Module, Rc<RefCell<Vec<String>>>) {
    let kept = Rc::new(RefCell::new(Vec::new()));
    let keep = kept.clone();
    let module = Module::new(name, revision).computed(function, move |argument| {
        let text: String = argument.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        keep.borrow_mut().push(text);
        vec![Return("kept")]
    });
    (module, kept)
}

#[test]
fn a_queue_has_one_function() {
    let (module, kept) = keeps("m", "r1", "f");
    let mut w = world().deploy(module.option("f", "queue", "[\"orders\", \"returns\"]"));
    let ticket = w.publish("queue:orders", "tea");
    w.run(100);
    assert_eq!(w.json(ticket), format!(r#"{{"calls":["{}"],"subscribers":1}}"#, w.id(ticket)));
    assert_eq!(*kept.borrow(), ["tea"]);
    assert_eq!(w.woken(), ["f queue orders"]);
    // One that does not exist is named, with what it could have been.
    let ticket = w.publish("queue:ordrs", "tea");
    assert!(w.failure(ticket).hint.contains("orders"));
    assert_eq!(w.code(ticket), "not_found");
    // Nobody else may have it.
    let other = Module::new("other", "r1").function("g", [Return("x")]).option("g", "queue", "\"orders\"");
    let w = w.deploy(other);
    let refused = w.events.iter().find_map(|e| match e {
        Event::RevisionFailed { module, failure, .. } if module == "other" => Some(failure.message.clone()),
        _ => None,
    });
    assert!(refused.is_some_and(|why| why.contains("orders") && why.contains("m.f")));
}

#[test]
fn a_topic_has_as_many_as_listen() {
    let (a, kept_a) = keeps("a", "r1", "f");
    let (b, kept_b) = keeps("b", "r1", "f");
    let mut w = world().deploy(a.option("f", "topic", "[\"order.*\", \"order.>\"]")).deploy(b.option(
        "f",
        "topic",
        "\"order.paid\"",
    ));
    let ticket = w.publish("topic:order.paid", "1");
    let other = w.publish("topic:order.sent", "2");
    let nobody = w.publish("topic:weather", "3");
    w.run(100);
    assert_eq!((kept_a.borrow().len(), kept_b.borrow().len()), (2, 1));
    assert!(w.json(ticket).contains(r#""subscribers":2"#));
    assert!(w.json(other).contains(r#""subscribers":1"#));
    assert_eq!(w.json(nobody), r#"{"calls":[],"subscribers":0}"#);
    w.run(2_000).node.check_quiet();
}

#[test]
fn messages_wait_for_a_module_that_is_gone_or_does_not_load() {
    let (module, kept) = keeps("m", "r1", "f");
    let module = module.option("f", "queue", "\"q\"").option("f", "topic", "\"t\"");
    let mut w = world().deploy(module.clone());
    w.remove("m").run(100);
    let gone = w.publish("queue:q", "1");
    w.run(100);
    assert_eq!(w.code(gone), "ok");
    // It is known over a restart, also while the module does not load.
    w.restart();
    let early = w.publish("topic:t", "2");
    assert_eq!(w.code(early), "unanswered", "it is not known yet who listens");
    w.run(1_000);
    assert_eq!(w.code(early), "ok");
    w.save(Module::new("m", "r2").broken("no")).run(500);
    let broken = w.publish("queue:q", "3");
    w.run(1_000);
    assert_eq!((w.code(broken), kept.borrow().len()), ("ok", 0));
    // It comes back.
    let mut w = w.deploy(module);
    w.run(5_000);
    let mut all = kept.borrow().clone();
    all.sort();
    assert_eq!(all, ["1", "2", "3"]);
}

#[test]
fn a_subscription_ends_with_the_revision_or_when_it_is_forgotten() {
    let listening = |revision: &str| {
        Module::new("m", revision).function("f", [Return("x")]).option("f", "queue", "\"q\"")
    };
    let w = world().deploy(listening("r1"));
    assert_eq!(w.store.rows_of(b'b'), 1);
    let mut w = w.deploy(Module::new("m", "r2").function("f", [Return("x")]));
    let ticket = w.publish("queue:q", "1");
    w.run(100);
    assert_eq!((w.code(ticket), w.store.rows_of(b'b')), ("not_found", 0));
    w = w.deploy(listening("r3"));
    // What is in the folder is not forgotten.
    let ticket = w.forget("m");
    assert_eq!(w.code(ticket), "conflict");
    let ticket = w.forget("n");
    assert_eq!(w.code(ticket), "not_found");
    w.remove("m").run(100);
    // Its queue is not free before it is forgotten.
    let other = |revision: &str| {
        Module::new("n", revision).function("g", [Return("x")]).option("g", "queue", "\"q\"")
    };
    w = w.deploy(other("r1"));
    let ticket = w.forget("m");
    w.run(100);
    assert_eq!(w.json(ticket), r#"{"module":"m","removed":1}"#);
    w = w.deploy(other("r2"));
    w.publish("queue:q", "1");
    w.run(100);
    assert_eq!(w.woken(), ["g queue q"]);
}

#[test]
fn who_had_a_queue_has_it_after_a_restart_whoever_loads_first() {
    let of = |name: &str, load_ms| {
        Module::new(name, "r1").function("f", [Return("x")]).option("f", "queue", "\"q\"").load_ms(load_ms)
    };
    let mut w = world().deploy(of("b", 1)).deploy(of("a", 1));
    w.modules.insert("b".to_owned(), of("b", 300));
    w.restart().run(1_000);
    let ticket = w.publish("queue:q", "1");
    w.run(100);
    assert_eq!(w.code(ticket), "ok");
    let serving = |name| w.node.modules().any(|m| m.name == name && m.serving.is_some());
    assert!(serving("b") && !serving("a"));
}

#[test]
fn a_key_makes_a_message_to_a_queue_one() {
    let (module, kept) = keeps("m", "r1", "f");
    let mut w = world().deploy(module.option("f", "queue", "[\"q\", \"r\"]").option("f", "topic", "\"t\""));
    let key = |m: &mut bourse_node::Message| m.idempotency_key = "k".repeat(250);
    let first = w.publish_with("queue:q", "1", key);
    let second = w.publish_with("queue:q", "2", key);
    let elsewhere = w.publish_with("queue:r", "3", key);
    w.run(100);
    assert_eq!(w.id(first), w.id(second));
    assert_ne!(w.id(first), w.id(elsewhere));
    assert_eq!(kept.borrow().len(), 2);
    let topic = w.publish_with("topic:t", "4", key);
    assert_eq!(w.code(topic), "bad_request");
}

#[test]
fn what_a_function_publishes_goes_out_with_what_it_changes() {
    let (module, kept) = keeps("m", "r1", "f");
    let module = module
        .option("f", "topic", "\"t.>\"")
        .function(
            "good",
            [Write("a", "1"), Publish("topic:t.x", "1"), Publish("topic:t.y", "2"), Return("x")],
        )
        .function("bad", [Write("a", "1"), Publish("topic:t.x", "3"), Fail("no")])
        .function("lost", [Publish("queue:nowhere", "4"), Return("x")]);
    let mut w = world().deploy(module);
    let (good, bad, lost) = (w.call("m.good"), w.call("m.bad"), w.call("m.lost"));
    w.settle().run(100);
    assert_eq!((w.code(good), w.code(bad), w.code(lost)), ("ok", "function_error", "not_found"));
    assert_eq!(*kept.borrow(), ["1", "2"]);
    let topics: Vec<_> = w.woken().into_iter().filter(|woken| woken.starts_with("f ")).collect();
    assert_eq!(topics, ["f topic t.x", "f topic t.y"]);
}

#[test]
fn a_function_that_publishes_before_it_is_known_who_listens_waits() {
    let (module, kept) = keeps("m", "r1", "f");
    let module = module.option("f", "topic", "\"t\"").function("p", [Publish("topic:t", "1"), Return("x")]);
    // A world that recovers later than it serves: such as one whose store is slow.
    let mut w = World::with(config()).deploy(module);
    let ticket = w.call("m.p");
    w.run(500);
    assert_eq!(w.code(ticket), "unanswered");
    w.input(Input::Recover);
    w.run(500);
    assert_eq!((w.code(ticket), kept.borrow().len()), ("ok", 1));
    w.run(2_000).node.check_quiet();
}

#[test]
fn an_instance_may_die_before_it_is_known_who_listens() {
    let module = Module::new("m", "r1").function("p", [Publish("topic:t", "1"), Return("x")]);
    let mut w = World::with(config()).deploy(module);
    let ticket = w.call("m.p");
    w.run(500);
    let process = w.of("m")[0];
    w.kill_9(process).run(500);
    assert_eq!(w.code(ticket), "instance_crashed");
    w.input(Input::Recover);
    w.run(2_000).node.check_quiet();
}

#[test]
fn of_two_that_want_a_queue_before_it_is_known_whose_it_is_one_gets_it() {
    let of = |name: &str| Module::new(name, "r1").function("f", [Return("x")]).option("f", "queue", "\"q\"");
    let mut w = World::with(config()).deploy(of("a")).deploy(of("b"));
    assert!(w.published.is_empty(), "both wait");
    w.input(Input::Recover);
    w.run(1_000);
    assert_eq!(w.published, [("a".to_owned(), "r1".to_owned())]);
}

#[test]
fn a_message_does_not_wait_for_ever() {
    let mut w = World::with(config());
    let ticket = w.publish("topic:t", "1");
    w.run(9_000);
    assert_eq!(w.code(ticket), "unanswered");
    w.run(2_000);
    assert_eq!(w.code(ticket), "starting");
    w.node.check_quiet();
}

#[test]
fn a_message_that_always_fails_holds_up_no_other() {
    let module = Module::new("m", "r1")
        .computed("f", |argument| {
            let poison = argument.contains("poison");
            if poison { vec![Crash] } else { vec![Return("x")] }
        })
        .option("f", "queue", "\"q\"");
    let mut w = world().deploy(module);
    let poison = w.publish("queue:q", "poison");
    let good: Vec<_> = (0..20).map(|n| w.publish("queue:q", &n.to_string())).collect();
    w.run(5_000);
    for ticket in good {
        assert_eq!(w.look(w.id(ticket)), "done x");
    }
    w.run(60_000);
    assert_eq!(w.look(w.id(poison)), "dead 5");
}

#[test]
fn a_delayed_message_is_delayed() {
    let (module, kept) = keeps("m", "r1", "f");
    let mut w = world().deploy(module.option("f", "queue", "\"q\""));
    w.publish_with("queue:q", "1", |m| m.delay = Some(ms(5_000)));
    w.run(4_900);
    assert_eq!(kept.borrow().len(), 0);
    w.run(200);
    assert_eq!(kept.borrow().len(), 1);
}

#[test]
fn a_client_publishes() {
    let (module, kept) = keeps("m", "r1", "f");
    let mut w = world().deploy(module.option("f", "queue", "\"q\""));
    let peer = w.client();
    let publish = |request, name: &str| {
        let to = Some(common::triggers::destination(name));
        ToNode::Publish(bourse_wire::v1::Publish { request, to, ..Default::default() })
    };
    w.say(peer, publish(1, "queue:q"), "").run(100);
    assert_eq!(kept.borrow().len(), 1);
    w.say(peer, publish(2, "queue:a b"), "").say(peer, publish(3, "queue:x"), "").run(100);
    let replies = w.replies(peer);
    assert_eq!((replies[1].1.as_str(), replies[2].1.as_str()), ("bad_request", "not_found"));
    w.say(peer, publish(4, "queue:q"), "\x01\x02").run(100);
    assert_eq!(w.replies(peer)[3].1, "bad_request", "one item, not two");
}
