//! Any node can be asked for anything: modules that it does not serve itself run where they are served.

mod common;

use bourse_node::{Input, Level, Ticket};
use common::Step::{Call, Increment, Read, Return, Run, Sum};
use common::grid::{Grid, grid_config};
use common::{Module, World};

fn module(name: &str, version: &str, answer: &'static str) -> Module {
    let mut module = Module::new(name, version);
    module.version = version.to_owned();
    module
        .function("f", [Run(10), Return(answer)])
        .function("count", [Read("k/n"), Increment("k/n"), Return("")])
}

fn grid(slots: &[usize]) -> Grid {
    let mut g = Grid::new(slots);
    for node in &mut g.nodes {
        node.scan();
    }
    g
}

fn answered(g: &mut Grid, node: usize, tickets: &[Ticket]) {
    let all = tickets.to_vec();
    g.until("an answer", move |g| all.iter().all(|t| g.nodes[node].answers.contains_key(t)));
}

fn ask(g: &mut Grid, node: usize, function: &str, version: &str) -> Result<String, String> {
    let call = g.nodes[node].call_with(function, "", |call| call.version = version.to_owned());
    answered(g, node, &[call]);
    match g.nodes[node].code(call) {
        "ok" => Ok(g.nodes[node].ok(call)),
        code => Err(code.to_owned()),
    }
}

fn ran(g: &Grid, function: &str) -> Vec<usize> {
    let of = |w: &World| w.invoked.iter().filter(|i| i.function == function).count();
    g.nodes.iter().map(of).collect()
}

fn quiet(g: &mut Grid) {
    g.run(12_000);
    for node in &g.nodes {
        node.node.check_quiet();
    }
}

#[test]
fn a_node_that_serves_nothing_can_be_asked_for_all() {
    // 1. Three nodes; only the third has a module.
    let mut g = grid(&[2, 2, 2]);
    g.nodes[2].save(module("m", "1.0.0", "one"));
    g.run(3_000);
    for node in 0..3 {
        assert_eq!(ask(&mut g, node, "m.f", ""), Ok("one".to_owned()));
    }
    assert_eq!(ran(&g, "f"), [0, 0, 3]);
    // 2. What needs the store is accepted by the node that keeps it, which has no module either.
    assert_eq!(ask(&mut g, 1, "m.count", ""), Ok("1".to_owned()));
    assert_eq!(ask(&mut g, 2, "m.count", ""), Ok("2".to_owned()));
    let ticket = g.nodes[1].start("m.f", "");
    answered(&mut g, 1, &[ticket]);
    g.run(1_000);
    let id = g.nodes[1].id(ticket);
    assert_eq!(g.nodes[0].look(id), "done one");
    // 3. What nobody serves is told at once, with what there is.
    assert_eq!(ask(&mut g, 0, "n.f", ""), Err("not_found".to_owned()));
    assert_eq!(ask(&mut g, 0, "m.g", ""), Err("not_found".to_owned()));
    assert_eq!(ask(&mut g, 0, "m.f", "^2"), Err("not_found".to_owned()));
    // 4. Several at a time, as many as there are slots.
    let calls: Vec<_> = (0..20).map(|_| g.nodes[0].call("m.f")).collect();
    answered(&mut g, 0, &calls);
    assert!(calls.iter().all(|call| g.nodes[0].code(*call) == "ok"));
    assert!(g.nodes[2].running_most <= 2);
    quiet(&mut g);
}

#[test]
fn it_takes_no_restart_to_learn_a_new_one() {
    let mut g = grid(&[1, 1]);
    g.run(3_000);
    assert_eq!(ask(&mut g, 0, "m.f", ""), Err("not_found".to_owned()));
    g.nodes[1].save(module("m", "1.0.0", "one"));
    g.run(1_000);
    assert_eq!(ask(&mut g, 0, "m.f", ""), Ok("one".to_owned()));
    // A new version with another function.
    let mut newer = module("m", "1.1.0", "newer").function("g", [Return("g")]);
    newer.revision = "r2".to_owned();
    g.nodes[1].save(newer);
    g.run(1_000);
    assert_eq!(ask(&mut g, 0, "m.g", ""), Ok("g".to_owned()));
    assert_eq!(ask(&mut g, 0, "m.f", "^1.1"), Ok("newer".to_owned()));
    // It is told what there is to route: whoever asks over HTTP is answered by any node.
    let elsewhere = g.nodes[0].published.iter().filter(|(name, _)| name == "m").count();
    assert_eq!(elsewhere, 0, "it is not this node's own");
    quiet(&mut g);
}

#[test]
fn versions_are_served_side_by_side() {
    let mut g = grid(&[1, 1, 1]);
    g.nodes[0].save(module("m", "1.0.0", "one"));
    g.nodes[1].save(module("m", "1.5.0", "one and a half"));
    g.nodes[2].save(module("m", "2.0.0", "two").function("g", [Return("g")]));
    g.run(3_000);
    for node in 0..3 {
        for (version, answer) in
            [("=1.0.0", "one"), ("^1.1", "one and a half"), ("^2", "two"), (">=1.9", "two")]
        {
            assert_eq!(ask(&mut g, node, "m.f", version), Ok(answer.to_owned()), "{version} at {node}");
        }
        assert_eq!(ask(&mut g, node, "m.g", ""), Ok("g".to_owned()), "only the newest has it");
        assert_eq!(ask(&mut g, node, "m.f", "^3"), Err("not_found".to_owned()));
    }
    // Calls that wait for a version elsewhere hold up none that can run here.
    let slow: Vec<_> =
        (0..8).map(|_| g.nodes[0].call_with("m.f", "", |c| c.version = "^2".to_owned())).collect();
    let quick = g.nodes[0].call_with("m.f", "", |c| c.version = "=1.0.0".to_owned());
    let began = g.now;
    answered(&mut g, 0, &[quick]);
    assert!(g.now.since(began).as_millis() < 40, "{:?}", g.now.since(began));
    answered(&mut g, 0, &slow);
    assert!(slow.iter().all(|call| g.nodes[0].ok(*call) == "two"));
    quiet(&mut g);
}

#[test]
fn nested_calls_find_what_their_node_does_not_serve() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].save(Module::new("a", "r1").function("outer", [Call("b.one", String::new()), Sum]));
    g.nodes[1].save(Module::new("b", "r1").function("one", [Run(5), Return("1")]));
    g.run(3_000);
    for node in 0..2 {
        assert_eq!(ask(&mut g, node, "a.outer", ""), Ok("1".to_owned()), "at {node}");
    }
    quiet(&mut g);
}

#[test]
fn a_node_that_serves_it_and_is_gone_is_remembered_for_a_while() {
    let mut g = grid(&[1, 1]);
    g.nodes[1].save(module("m", "1.0.0", "one"));
    g.run(3_000);
    assert_eq!(ask(&mut g, 0, "m.f", ""), Ok("one".to_owned()));
    // 1. It starts again: callers wait for that.
    g.restart(1).run(1);
    let call = g.nodes[0].call("m.f");
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].ok(call), "one");
    // 2. It does not: that there is no capacity is told in time; that there is no such module, when that is sure.
    g.crash(1).run(1);
    assert_eq!(ask(&mut g, 0, "m.f", ""), Err("no_capacity".to_owned()));
    let durable = g.nodes[0].start("m.f", "");
    answered(&mut g, 0, &[durable]);
    g.run(310_000);
    assert_eq!(ask(&mut g, 0, "m.f", ""), Err("not_found".to_owned()));
    // 3. What was accepted waits for it all the same.
    let id = g.nodes[0].id(durable);
    assert_eq!(g.nodes[0].look(id), "live 0");
    g.heal();
    g.run(30_000);
    assert_eq!(g.nodes[0].look(id), "done one");
}

#[test]
fn a_module_goes_and_comes_on_all_nodes() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].save(module("m", "1.0.0", "here"));
    g.nodes[1].save(module("m", "2.0.0", "there"));
    g.run(3_000);
    assert_eq!(ask(&mut g, 0, "m.f", "^1"), Ok("here".to_owned()));
    // 1. Its own is gone: the other's is served.
    g.nodes[0].modules.clear();
    g.nodes[0].scan();
    assert_eq!(ask(&mut g, 0, "m.f", ""), Ok("there".to_owned()));
    g.run(500);
    assert_eq!(ask(&mut g, 1, "m.f", "^1"), Err("not_found".to_owned()));
    // 2. All are gone.
    g.nodes[1].modules.clear();
    g.nodes[1].scan();
    g.run(500);
    for node in 0..2 {
        assert_eq!(ask(&mut g, node, "m.f", ""), Err("not_found".to_owned()));
    }
    // 3. It is back.
    g.nodes[0].save(module("m", "1.0.0", "here again"));
    g.run(1_000);
    assert_eq!(ask(&mut g, 1, "m.f", ""), Ok("here again".to_owned()));
    quiet(&mut g);
}

#[test]
fn one_that_is_broken_here_runs_elsewhere() {
    let mut g = grid(&[1, 1]);
    let mut broken = module("m", "1.0.0", "");
    broken.broken = Some("a typing error");
    g.nodes[0].save(broken);
    g.nodes[1].save(module("m", "1.0.0", "one"));
    g.run(3_000);
    assert_eq!(ask(&mut g, 0, "m.f", ""), Ok("one".to_owned()));
    quiet(&mut g);
}

#[test]
fn the_same_version_with_other_functions_is_said_once() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].save(module("m", "1.0.0", "one"));
    g.nodes[1].save(module("m", "1.0.0", "one").function("g", [Return("g")]));
    g.run(5_000);
    let said = |e: &&bourse_node::Event| matches!(e, bourse_node::Event::Note { level: Level::Warning, text } if text.contains("is not the same on all nodes"));
    assert_eq!(g.nodes[0].events.iter().filter(said).count(), 1);
}

#[test]
fn what_only_others_serve_is_published_apart() {
    let mut g = grid(&[1, 1]);
    g.nodes[1].save(module("m", "1.0.0", "one"));
    g.run(3_000);
    let view = g.nodes[0].node.modules().find(|module| module.name == "m").expect("it is known");
    assert!(view.elsewhere && view.instances == 0, "{view:?}");
    let own = g.nodes[1].node.modules().find(|module| module.name == "m").expect("it is served");
    assert!(!own.elsewhere);
}

#[test]
fn a_shortage_that_nobody_can_fill_is_told_once_in_a_while() {
    let mut g = Grid::of((0..2).map(|n| {
        let mut config = common::grid::grid_config(n, 1);
        config.on_shortage = Some("ops.more".parse().unwrap());
        config.shortage_after = common::ms(1_000);
        config.module.queue_wait = common::ms(60_000);
        config
    }));
    for node in &mut g.nodes {
        node.save(Module::new("m", "r1").function("f", [Run(4_000), Return("done")]));
        node.save(Module::new("ops", "r1").function("more", [Return("started")]));
    }
    g.run(3_000);
    let told = |g: &Grid| -> Vec<usize> {
        let told = |e: &&bourse_node::Event| matches!(e, bourse_node::Event::Accepted { function, first: true, .. } if function.to_string() == "ops.more");
        g.nodes.iter().map(|n| n.events.iter().filter(told).count()).collect()
    };
    // 1. As many calls as there are slots: nothing is short.
    let calls: Vec<_> = (0..2).map(|_| g.nodes[1].call("m.f")).collect();
    answered(&mut g, 1, &calls);
    assert_eq!(told(&g), [0, 0]);
    // 2. Both nodes are short of the same, for a while: it is told by one call, where the store is kept.
    let calls: Vec<Vec<_>> = (0..2).map(|n| (0..6).map(|_| g.nodes[n].call("m.f")).collect()).collect();
    g.run(3_000);
    assert_eq!(told(&g), [1, 0]);
    // 3. It is told again as long as that lasts.
    for (node, calls) in calls.iter().enumerate() {
        answered(&mut g, node, calls);
    }
    assert!((1..=2).contains(&told(&g)[0]), "{:?}", told(&g));
    quiet(&mut g);
}

#[test]
fn a_keeper_that_begins_anew_makes_nobody_forget_what_it_has_not_heard_of_yet() {
    let mut g = grid(&[1, 1, 1]);
    g.nodes[2].save(module("m", "1.0.0", "one"));
    g.run(3_000);
    assert_eq!(ask(&mut g, 1, "m.f", ""), Ok("one".to_owned()));
    // It starts again without what it has kept, and the node that serves the module does not reach it.
    g.nodes[0].config.grid.as_mut().unwrap().catalogue.clear();
    g.cut(0, 2);
    g.restart(0).run(5_000);
    assert_eq!(ask(&mut g, 1, "m.f", ""), Ok("one".to_owned()));
    // What does not come back is gone in the end.
    g.run(40_000);
    assert_eq!(ask(&mut g, 1, "m.f", ""), Err("not_found".to_owned()));
    g.heal().run(30_000);
    assert_eq!(ask(&mut g, 1, "m.f", ""), Ok("one".to_owned()));
    quiet(&mut g);
}

#[test]
fn a_keeper_that_starts_again_knows_what_others_serve_before_it_hears_of_them() {
    let mut g = grid(&[1, 1]);
    g.nodes[1].save(module("m", "1.0.0", "one"));
    g.run(3_000);
    assert_eq!(ask(&mut g, 0, "m.f", ""), Ok("one".to_owned()));
    // Both are gone, and only the one that keeps the store comes back for now.
    g.cut(0, 1);
    g.restart(0);
    g.run(3_000);
    // A call waits, a durable one is accepted, and what there never was is not found.
    let waits = g.nodes[0].call_with("m.f", "", |call| call.queue_wait = Some(common::ms(60_000)));
    let ticket = g.nodes[0].start("m.f", "");
    answered(&mut g, 0, &[ticket]);
    assert_eq!(g.nodes[0].code(ticket), "ok");
    assert_eq!(ask(&mut g, 0, "n.f", ""), Err("not_found".to_owned()));
    assert!(!g.nodes[0].answers.contains_key(&waits));
    g.heal();
    answered(&mut g, 0, &[waits]);
    assert_eq!(g.nodes[0].ok(waits), "one");
    let id = g.nodes[0].id(ticket);
    g.run(3_000);
    assert_eq!(g.nodes[0].look(id), "done one");
    quiet(&mut g);
}

#[test]
fn what_is_being_loaded_here_is_waited_for_though_others_serve_it_already() {
    let with_key = |version: &str, answer| {
        let module = module("m", version, answer);
        let module = module.function("alone", [Read("k/n"), Increment("k/n"), Return("")]);
        module.option("alone", "exclusive", "\"all\"")
    };
    let mut g = grid(&[1, 1]);
    g.nodes[0].save(with_key("2.0.0", "two").load_ms(2_000));
    g.nodes[1].save(with_key("1.0.0", "one"));
    g.run(5_000);
    let durable = g.nodes[0].call_with("m.f", "", |call| {
        call.version = "^2".to_owned();
        call.mode = bourse_node::Mode::Async;
        call.delay = Some(common::ms(500));
    });
    answered(&mut g, 0, &[durable]);
    let id = g.nodes[0].id(durable);
    g.restart(0);
    g.run(1_000);
    // 1. A call of a function of which it is not known yet whether it has a key, though it could be run elsewhere.
    let alone = g.nodes[0].call("m.alone");
    // 2. A durable call that is due, and needs the version that is being loaded.
    assert!(g.nodes[0].look(id).starts_with("live"), "{}", g.nodes[0].look(id));
    answered(&mut g, 0, &[alone]);
    assert_eq!(g.nodes[0].ok(alone), "1");
    let fence = g.nodes.iter().flat_map(|n| &n.invoked).find(|i| i.function == "alone").map(|i| i.fence);
    assert!(fence.is_some_and(|fence| fence > 0), "it has its key: {fence:?}");
    g.run(3_000);
    assert_eq!(g.nodes[0].look(id), "done two");
    quiet(&mut g);
}

#[test]
fn an_attached_process_that_shares_what_it_serves_is_there_for_all() {
    let mut g = grid(&[8, 8]);
    g.run(1_000);
    let attach = |g: &mut Grid, shared| {
        let module = module("m", "1.0.0", "far").function("slow", [Run(1_000), Return("slow")]);
        g.nodes[1].attach_as(module, |hello| (hello.pid, hello.shared) = (7, shared))
    };
    // 1. What a developer attaches is this machine's own.
    let peer = attach(&mut g, false);
    g.run(1_000);
    assert_eq!(ask(&mut g, 0, "m.f", ""), Err("not_found".to_owned()));
    g.nodes[1].hang_up(peer);
    g.run(1_000);
    // 2. As many calls at a time as there are connections, whoever makes them.
    let first = attach(&mut g, true);
    attach(&mut g, true);
    g.run(1_000);
    assert_eq!(ask(&mut g, 0, "m.f", ""), Ok("far".to_owned()));
    let before = g.now;
    let calls: Vec<_> = (0..6).map(|_| g.nodes[0].call("m.slow")).collect();
    answered(&mut g, 0, &calls);
    assert!(calls.iter().all(|call| g.nodes[0].code(*call) == "ok"));
    let took = g.now.since(before);
    assert!((common::ms(3_000)..common::ms(3_500)).contains(&took), "two at a time: {took:?}");
    assert_eq!(g.nodes[1].running_most, 2);
    let offered = |g: &Grid| g.nodes[1].node.market().offered().map(|(_, most)| most).collect::<Vec<_>>();
    assert_eq!(offered(&g), [2], "no more is sold than there are connections");
    // 3. One connection less, one call less; without any, there is no such module.
    g.nodes[1].hang_up(first);
    g.run(1_000);
    assert_eq!(offered(&g), [1]);
    let before = g.now;
    let calls: Vec<_> = (0..2).map(|_| g.nodes[0].call("m.slow")).collect();
    answered(&mut g, 0, &calls);
    assert!(g.now.since(before) >= common::ms(2_000));
    quiet(&mut g);
}

/// As a program of its own is on a grid: it serves nothing, sells nothing, keeps nothing, and nobody can connect with it.
#[test]
fn a_node_that_only_buys_knows_what_there_is_and_calls_sellers_itself() {
    // 1. The first one keeps the store and serves nothing; two sell; the last one buys, and has the first for a seed.
    let mut g = Grid::of((0..4).map(|n| {
        let mut config = grid_config(n, if n == 3 { 1 } else { 4 });
        if n == 3 {
            let grid = config.grid.as_mut().expect("it is one of several");
            (grid.address, grid.may_serve) = (String::new(), false);
            (grid.store, grid.sell_max) = (None, Some(0));
        }
        config
    }));
    for node in &mut g.nodes {
        node.scan();
    }
    assert!(!g.nodes[3].node.knows_modules(), "it has heard nothing yet");
    for seller in [1, 2] {
        g.nodes[seller].save(module("m", "1.2.0", "one"));
    }
    g.run(3_000);
    assert!(g.nodes[3].node.knows_modules());
    let known: Vec<_> = g.nodes[3]
        .node
        .catalogue()
        .map(|(name, versions)| (name.to_owned(), versions.map(|(v, _)| v.to_string()).collect::<Vec<_>>()))
        .collect();
    assert_eq!(known, [("m".to_owned(), vec!["1.2.0".to_owned()])]);
    // 2. Its calls run at both sellers, more of them at once than it has slots; the first has nothing of them.
    let calls: Vec<_> = (0..400).map(|_| g.nodes[3].call("m.f")).collect();
    answered(&mut g, 3, &calls);
    assert!(calls.iter().all(|call| g.nodes[3].code(*call) == "ok"));
    assert!(g.nodes[1].running_most > 1 && g.nodes[2].running_most > 1);
    assert!(g.nodes[0].node.market().bought().is_empty() && g.nodes[0].node.market().sold().is_empty());
    // 3. What needs the store is done, too. It sells nothing, and is no authority.
    assert_eq!(ask(&mut g, 3, "m.count", ""), Ok("1".to_owned()));
    let market = g.nodes[3].node.market();
    assert!(market.offered().next().is_none() && market.sold().is_empty() && !market.is_authority());
    // 4. The first one dies: the buyer goes on.
    g.crash(0);
    for _ in 0..5 {
        assert_eq!(ask(&mut g, 3, "m.f", "^1"), Ok("one".to_owned()));
    }
    // 5. It stops: nothing is left of it at the sellers.
    g.nodes[3].input(Input::Drain);
    g.run(100);
    g.crash(3);
    g.run(12_000);
    for seller in [1, 2] {
        assert!(g.nodes[seller].node.market().sold().is_empty());
        assert_eq!(g.nodes[seller].node.market().slots(), (4, 4, 0));
    }
}
