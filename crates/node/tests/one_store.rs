//! A grid has one store: whatever needs it is done by the node that keeps it, whoever is asked, and wherever it runs.

mod common;

use bourse_node::{Ask, Config, Input, OwnStore, Ticket};
use bourse_wire::v1::Await;
use bourse_wire::v1::to_node::Message as ToNode;
use common::Module;
use common::Step::{
    Call, Fail, Increment, Publish, Read, Return, Run, Start, Submit, Sum, Tail, WaitAll, Write,
};
use common::grid::{Grid, grid_config, key};

fn work() -> Module {
    Module::new("m", "r1")
        .computed("f", |argument: &str| vec![Run(argument.parse().unwrap_or(1)), Return("done")])
        .function("count", [Run(5), Read("k/n"), Run(5), Increment("k/n"), Return("")])
        .function("blind", [Write("k/n", "70"), Return("written")])
        .function("outer", [Submit("m.count", String::new()), Submit("m.count", String::new()), WaitAll, Sum])
        .function("deep", [Call("m.outer", String::new()), Sum])
        .function("starts", [Run(5), Start("m.count", String::new()), Return("started")])
        .function("tells", [Publish("topic:news", "x"), Return("told")])
        .function("hands_on", [Run(5), Tail("m.alone", String::new())])
        .function("fails", [Read("k/n"), Fail("no")])
        .function("alone", [Run(20), Return("alone")])
        .function("hears", [Read("k/n"), Increment("k/n"), Return("")])
        .option("alone", "exclusive", "\"all\"")
        .function("once", [Run(5), Read("k/n"), Increment("k/n"), Return("")])
        .option("once", "unique", "{\"key\": \"all\", \"window\": \"running\"}")
        .option("hears", "topic", "\"news\"")
}

/// Nodes with a slot each; the first one keeps the store.
fn grid(nodes: usize) -> Grid {
    with(nodes, |_, _| {})
}

fn with(nodes: usize, change: impl Fn(usize, &mut Config)) -> Grid {
    let mut g = Grid::of((0..nodes).map(|n| {
        let mut config = grid_config(n, 1);
        change(n, &mut config);
        config
    }));
    for node in &mut g.nodes {
        node.save(work());
    }
    g.run(3_000);
    g
}

fn answered(g: &mut Grid, node: usize, tickets: &[Ticket]) {
    let all = tickets.to_vec();
    g.until("an answer", move |g| all.iter().all(|t| g.nodes[node].answers.contains_key(t)));
}

fn ok(g: &mut Grid, node: usize, function: &str) -> String {
    let call = g.nodes[node].call(function);
    answered(g, node, &[call]);
    g.nodes[node].ok(call)
}

fn code(g: &mut Grid, node: usize, function: &str) -> String {
    let call = g.nodes[node].call(function);
    answered(g, node, &[call]);
    g.nodes[node].code(call).to_owned()
}

fn quiet(g: &mut Grid) {
    g.run(12_000);
    for node in &g.nodes {
        node.node.check_quiet();
    }
}

fn keeper(g: &Grid, node: usize) -> Option<[u8; 32]> {
    g.nodes[node].node.grid_store().map(|store| store.node.id.0)
}

#[test]
fn all_nodes_count_in_one_store() {
    let mut g = grid(3);
    let mut calls = Vec::new();
    for _ in 0..2 {
        for node in 0..3 {
            calls.push((node, g.nodes[node].call("m.count")));
        }
    }
    let mut counted = Vec::new();
    for (node, call) in calls {
        answered(&mut g, node, &[call]);
        counted.push(g.nodes[node].ok(call).parse::<u32>().unwrap());
    }
    counted.sort_unstable();
    assert_eq!(counted, (1..=6).collect::<Vec<_>>(), "each increment counts once, whoever was asked");
    assert!(g.nodes[1].store.is_empty() && g.nodes[2].store.is_empty(), "nothing was written elsewhere");
    assert!((0..3).all(|n| keeper(&g, n) == Some(key(0))), "all agree on who keeps it");
    quiet(&mut g);
}

#[test]
fn what_needs_no_store_stays_where_it_was_called() {
    let mut g = grid(2);
    assert_eq!(ok(&mut g, 1, "m.f"), "done");
    assert_eq!(g.nodes[1].invoked.len(), 1);
    assert_eq!(g.nodes[0].invoked.len(), 0);
    // What turns out to need it goes there the first time from the middle, and then at once.
    assert_eq!(ok(&mut g, 1, "m.count"), "1");
    let begun = g.nodes[1].invoked.iter().filter(|i| i.function == "count").count();
    assert_eq!(ok(&mut g, 1, "m.count"), "2");
    let begun_again = g.nodes[1].invoked.iter().filter(|i| i.function == "count").count();
    assert_eq!((begun, begun_again), (1, 1), "the second one went there at once");
    quiet(&mut g);
}

#[test]
fn a_call_that_only_writes_goes_there_too() {
    let mut g = grid(2);
    assert_eq!(ok(&mut g, 1, "m.blind"), "written");
    assert_eq!(ok(&mut g, 0, "m.count"), "71");
    assert!(g.nodes[1].store.is_empty());
    quiet(&mut g);
}

#[test]
fn one_that_runs_elsewhere_and_turns_out_to_need_it_goes_there() {
    // Both of the node's kinds: one that reads in the middle, and one that only writes at its end.
    for function in ["m.count", "m.blind"] {
        let mut g = grid(3);
        let busy = g.nodes[1].call_with("m.f", "3000", |_| {});
        g.run(5);
        let before = (0..3).map(|n| g.nodes[n].invoked.len()).collect::<Vec<_>>();
        let call = g.nodes[1].call(function);
        answered(&mut g, 1, &[call]);
        assert!(["1", "written"].contains(&g.nodes[1].ok(call).as_str()));
        assert_eq!(g.nodes[1].invoked.len(), before[1], "its slot was taken");
        answered(&mut g, 1, &[busy]);
        quiet(&mut g);
    }
}

#[test]
fn nested_calls_that_need_it_go_there_from_the_middle_of_a_tree() {
    let mut g = grid(2);
    assert_eq!(ok(&mut g, 1, "m.deep"), "3", "1 and 2");
    assert_eq!(ok(&mut g, 0, "m.count"), "3");
    let call = g.nodes[1].call_with("m.deep", "", |call| call.depth = 127);
    answered(&mut g, 1, &[call]);
    assert_eq!(g.nodes[1].code(call), "depth_exceeded", "how deep a call is goes along");
    quiet(&mut g);
}

#[test]
fn durable_calls_are_accepted_there_and_known_everywhere() {
    let mut g = grid(3);
    let ticket = g.nodes[1].start("m.f", "300");
    answered(&mut g, 1, &[ticket]);
    let id = g.nodes[1].id(ticket);
    // 1. Anybody can be asked, and can wait for its end.
    let awaited = g.nodes[2].ask(id, Ask::Await);
    g.run(100);
    assert_eq!(g.nodes[2].told(awaited), "untold");
    let looked = g.nodes[1].ask(id, Ask::Look);
    g.run(100);
    assert!(["running", "live 0"].contains(&&*g.nodes[1].told(looked)), "{}", g.nodes[1].told(looked));
    g.run(1_000);
    assert_eq!(g.nodes[2].told(awaited), "done done");
    for node in 0..3 {
        let looked = g.nodes[node].ask(id, Ask::Look);
        g.run(50);
        assert_eq!(g.nodes[node].told(looked), "done done");
    }
    // 2. Anybody can end one.
    let ticket = g.nodes[2].start("m.f", "4000");
    answered(&mut g, 2, &[ticket]);
    let id = g.nodes[2].id(ticket);
    let cancelled = g.nodes[1].ask(id, Ask::Cancel);
    g.run(3_000);
    assert_eq!(g.nodes[1].told(cancelled), "cancelled");
    // 3. A client of a node that does not keep it can wait as well.
    let client = g.nodes[1].client();
    let wanted = Await { request: 1, call: id.to_wire(), timeout_ms: 1_000 };
    g.nodes[1].say(client, ToNode::Await(wanted), "");
    g.run(100);
    let mail = g.nodes[1].mail[&client].len();
    assert_eq!(mail, 2, "a welcome and a reply: {:?}", g.nodes[1].mail[&client]);
    quiet(&mut g);
}

#[test]
fn a_key_is_exclusive_on_the_whole_grid() {
    let mut g = grid(3);
    let began = g.now;
    let calls: Vec<_> = (0..9).map(|n| (n % 3, g.nodes[n % 3].call("m.alone"))).collect();
    for (node, call) in &calls {
        answered(&mut g, *node, &[*call]);
        assert_eq!(g.nodes[*node].ok(*call), "alone");
    }
    assert!(g.now.since(began).as_millis() >= 9 * 20, "one at a time: {:?}", g.now.since(began));
    // One that comes to need a key by being handed on.
    assert_eq!(ok(&mut g, 2, "m.hands_on"), "alone");
    quiet(&mut g);
}

#[test]
fn what_functions_start_and_publish_is_accepted_there() {
    let mut g = grid(2);
    assert_eq!(ok(&mut g, 1, "m.starts"), "started");
    assert_eq!(ok(&mut g, 1, "m.tells"), "told");
    let published = g.nodes[1].publish("topic:news", "y");
    answered(&mut g, 1, &[published]);
    g.run(1_000);
    assert_eq!(ok(&mut g, 1, "m.count"), "4", "one was started, two have heard");
    assert!(g.nodes[1].store.is_empty());
    assert_eq!(code(&mut g, 1, "m.fails"), "function_error");
    quiet(&mut g);
}

#[test]
fn while_the_keeper_is_away_callers_wait_and_then_are_told() {
    let mut g = grid(2);
    assert_eq!(ok(&mut g, 1, "m.count"), "1");
    g.cut(0, 1);
    g.run(4_000);
    // 1. Not for ever.
    let call = g.nodes[1].call("m.count");
    answered(&mut g, 1, &[call]);
    assert_eq!(g.nodes[1].code(call), "store_unavailable");
    // 2. What needs no store is done.
    assert_eq!(ok(&mut g, 1, "m.f"), "done");
    // 3. One that is back in time is enough.
    let call = g.nodes[1].call("m.count");
    g.run(1_000);
    g.heal();
    answered(&mut g, 1, &[call]);
    assert_eq!(g.nodes[1].ok(call), "2");
    quiet(&mut g);
}

#[test]
fn one_that_was_on_its_way_when_the_keeper_died_is_told_so_unless_that_does_no_harm() {
    let mut g = grid(2);
    let plain = g.nodes[1].call_with("m.count", "", |_| {});
    let keyed = g.nodes[1].call_with("m.f", "2000", |call| call.idempotency_key = "once".to_owned());
    g.run(15);
    let slow = g.nodes[1].call_with("m.count", "", |_| {});
    g.run(3);
    g.restart(0);
    answered(&mut g, 1, &[plain, keyed, slow]);
    assert_eq!(g.nodes[1].ok(keyed), "done");
    let codes = [plain, slow].map(|call| g.nodes[1].code(call));
    assert!(codes.iter().all(|code| *code == "ok" || *code == "store_unavailable"), "{codes:?}");
    assert!(codes.contains(&"store_unavailable"), "{codes:?}");
    quiet(&mut g);
}

#[test]
fn one_that_was_sent_and_is_given_up_is_not_said_to_have_had_no_effect() {
    let mut g = grid(2);
    let keyed = g.nodes[1].call_with("m.count", "", |call| {
        call.idempotency_key = "once".to_owned();
        call.mode = bourse_node::Mode::Async;
    });
    // What was said arrives; what is answered does not, and the node that keeps the store does not come back in time.
    g.run(0).until("it is there", |g| !g.nodes[0].store.is_empty());
    g.cut(0, 1);
    answered(&mut g, 1, &[keyed]);
    let failure = g.nodes[1].failure(keyed);
    assert_eq!(failure.code, "store_unavailable");
    assert!(failure.message.contains("nobody knows whether it took effect"), "{}", failure.message);
    g.heal();
    quiet(&mut g);
}

#[test]
fn a_key_that_holds_for_a_while_does_not_make_it_harmless_to_send_again() {
    let mut g = grid(2);
    let once = g.nodes[1].start("m.once", "");
    g.run(0).until("it is there", |g| !g.nodes[0].store.is_empty());
    g.cut(0, 1);
    // It is done, its key is free again, and nobody has heard of it.
    g.run(4_000).heal();
    answered(&mut g, 1, &[once]);
    assert_eq!(g.nodes[1].code(once), "store_unavailable");
    g.run(2_000);
    assert_eq!(ok(&mut g, 0, "m.count"), "2", "it was run once");
    quiet(&mut g);
}

#[test]
fn a_keeper_that_stops_in_order_fails_nobody() {
    let mut g = grid(2);
    assert_eq!(ok(&mut g, 1, "m.count"), "1");
    let waits = g.nodes[1].call_with("m.f", "1500", |call| call.idempotency_key = "k".to_owned());
    g.run(50);
    g.nodes[0].input(Input::Drain);
    g.run(20);
    let late: Vec<_> = (0..3).map(|_| g.nodes[1].call("m.count")).collect();
    g.run(500);
    g.restart(0);
    answered(&mut g, 1, &[waits]);
    answered(&mut g, 1, &late);
    assert_eq!(g.nodes[1].ok(waits), "done");
    let mut counted: Vec<_> = late.iter().map(|call| g.nodes[1].ok(*call)).collect();
    counted.sort();
    assert_eq!(counted, ["2", "3", "4"]);
    quiet(&mut g);
}

#[test]
fn callers_that_go_away_are_cancelled_over_there() {
    let mut g = grid(2);
    assert_eq!(ok(&mut g, 1, "m.count"), "1");
    let calls: Vec<_> = (0..5).map(|_| g.nodes[1].call("m.alone")).collect();
    g.run(5);
    for call in &calls {
        g.nodes[1].cancel(*call);
    }
    answered(&mut g, 1, &calls);
    assert!(calls.iter().all(|call| g.nodes[1].code(*call) == "cancelled"));
    let client = g.nodes[1].client();
    for request in 1..4 {
        g.nodes[1].client_call(client, request, "m.alone");
    }
    g.run(5);
    g.nodes[1].hang_up(client);
    quiet(&mut g);
}

#[test]
fn an_empty_store_gives_way_to_one_that_is_used() {
    // The second was there first, and alone.
    let mut g = with(2, |n, config| {
        if n == 1 {
            config.grid.as_mut().unwrap().seeds.clear();
        }
    });
    g.cut(0, 1);
    assert_eq!(ok(&mut g, 1, "m.count"), "1");
    g.heal();
    g.nodes[0].input(Input::Seed { node: key(1), address: "n1:7071".to_owned() });
    g.run(2_000);
    assert!((0..2).all(|n| keeper(&g, n) == Some(key(1))));
    assert_eq!(ok(&mut g, 0, "m.count"), "2");
    quiet(&mut g);
}

#[test]
fn two_used_stores_do_not_meet_until_an_operator_says_which_one_counts() {
    let mut g = Grid::new(&[1, 1]);
    g.cut(0, 1);
    for node in &mut g.nodes {
        node.save(work());
    }
    g.run(1_000);
    assert_eq!(ok(&mut g, 0, "m.count"), "1");
    assert_eq!(ok(&mut g, 0, "m.count"), "2");
    assert_eq!(ok(&mut g, 1, "m.count"), "1");
    // 1. They don't talk to each other, and say why; each goes on by itself.
    g.heal().run(5_000);
    let refused = |g: &Grid, n: usize| {
        let said = |e: &&bourse_node::Event| {
            matches!(e, bourse_node::Event::Note { level: bourse_node::Level::Error, text }
                if text.contains("there are two stores") && text.contains("--store grid"))
        };
        g.nodes[n].events.iter().filter(said).count()
    };
    assert!(!g.nodes[0].node.is_linked() && !g.nodes[1].node.is_linked());
    assert!(refused(&g, 0) + refused(&g, 1) > 0 && refused(&g, 0) <= 1 && refused(&g, 1) <= 1, "said once");
    assert_eq!(ok(&mut g, 1, "m.count"), "2");
    // 2. Until somebody decides.
    let now = bourse_wire::time::Now { mono: g.now, wall: bourse_wire::time::Wall(0) };
    g.nodes[1].node.claim_store(now).unwrap();
    g.run(15_000);
    assert!((0..2).all(|n| keeper(&g, n) == Some(key(1))), "{:?}", keeper(&g, 0));
    assert_eq!(ok(&mut g, 0, "m.count"), "3");
    // 3. That holds when they start again, whoever is there first.
    g.restart(0);
    g.restart(1);
    g.run(3_000);
    assert_eq!(ok(&mut g, 0, "m.count"), "4");
    quiet(&mut g);
}

#[test]
fn without_a_store_what_needs_none_works() {
    let mut g = with(2, |_, config| config.grid.as_mut().unwrap().store = None);
    assert_eq!(ok(&mut g, 1, "m.f"), "done");
    assert_eq!(code(&mut g, 1, "m.count"), "store_unavailable");
    assert_eq!(code(&mut g, 0, "m.alone"), "store_unavailable");
    quiet(&mut g);
}

#[test]
fn one_that_is_to_join_waits_until_it_knows() {
    // A node that joins does not offer its own; the store of the first is known as soon as they are linked.
    let own = |n: u8| Some(OwnStore { id: [n; 16], used: false, offered: false });
    let mut g = with(2, |n, config| {
        if n == 1 {
            config.grid.as_mut().unwrap().store = own(9);
        }
    });
    assert_eq!(ok(&mut g, 1, "m.count"), "1");
    assert!(g.nodes[1].store.is_empty());
    quiet(&mut g);
}

#[test]
fn of_two_that_are_to_join_each_other_one_keeps_it() {
    let mut g = with(2, |n, config| {
        let grid = config.grid.as_mut().unwrap();
        grid.store = Some(OwnStore { id: [9 + u8::try_from(n).unwrap(); 16], used: false, offered: false });
        grid.seeds = vec![(key(1 - n), format!("n{}:7071", 1 - n))];
    });
    assert_eq!(keeper(&g, 0), keeper(&g, 1));
    assert!(keeper(&g, 0).is_some());
    assert_eq!(ok(&mut g, 0, "m.count"), "1");
    assert_eq!(ok(&mut g, 1, "m.count"), "2");
    quiet(&mut g);
}

#[test]
fn whenever_the_keeper_dies_nobody_is_told_what_is_not_so() {
    for at in 0..40 {
        let mut g = grid(2);
        let counts: Vec<_> = (0..3).map(|_| g.nodes[1].call("m.count")).collect();
        let keyed: Vec<_> = (0..3)
            .map(|n| g.nodes[1].call_with("m.count", "", |call| call.idempotency_key = format!("k{n}")))
            .collect();
        g.run(at);
        g.restart(0);
        answered(&mut g, 1, &counts);
        answered(&mut g, 1, &keyed);
        let done = counts.iter().filter(|call| g.nodes[1].code(**call) == "ok").count();
        assert!(keyed.iter().all(|call| g.nodes[1].code(*call) == "ok"), "at {at}");
        g.run(12_000);
        let total: usize = ok(&mut g, 1, "m.count").parse().unwrap();
        assert!(
            (done + 4..=7).contains(&total),
            "at {at}: {done} were told that they are done, and {total} are"
        );
        quiet(&mut g);
    }
}
