//! Several nodes: calls run where there is a slot, and nothing about a call depends on where that is.

mod common;

use bourse_node::{Input, Mode};
use common::Step::{
    Call, Crash, Fail, Hang, Increment, Leave, Read, Return, Run, Start, Submit, Sum, WaitAll, Write,
};
use common::grid::{Grid, grid_config, key};
use common::{Module, Step, World, ms};

/// So many milliseconds of work, as the argument says.
fn runs(argument: &str) -> Vec<Step> {
    vec![Run(argument.parse().unwrap_or(1)), Return("done")]
}

fn work() -> Module {
    Module::new("m", "r1")
        .computed("f", runs)
        .function("count", [Read("k/n"), Run(30), Increment("k/n"), Return("")])
        .function("outer", [Submit("m.f", "20".into()), Submit("m.f", "20".into()), WaitAll, Return("both")])
        .function("chain", [Call("m.one", String::new()), Sum])
        .function("one", [Run(10), Return("1")])
        .function("starts", [Start("m.f", "5".into()), Return("started")])
        .function("writes_and_fails", [Write("k/n", "77"), Run(5), Fail("no")])
        .function("crash", [Run(5), Crash])
        .function("hang", [Hang])
        .function("leave", [Leave])
        .function("waits", [Call("m.hang", String::new()), Return("never")])
}

/// Nodes with so many slots each, that know each other and serve the same module.
fn grid(slots: &[usize]) -> Grid {
    let mut g = Grid::new(slots);
    for node in &mut g.nodes {
        node.save(work());
    }
    g.run(3_000);
    for node in &g.nodes {
        assert_eq!(node.node.market().authorities().len(), slots.len().min(3), "all know the authorities");
    }
    g
}

/// Where the invocations of a function ran.
fn ran(g: &Grid, function: &str) -> Vec<usize> {
    let of = |w: &World| w.invoked.iter().filter(|i| i.function == function).count();
    g.nodes.iter().map(of).collect()
}

fn answered(g: &mut Grid, node: usize, tickets: &[bourse_node::Ticket]) {
    let all = tickets.to_vec();
    g.until("an answer", move |g| all.iter().all(|t| g.nodes[node].answers.contains_key(t)));
}

fn quiet(g: &mut Grid) {
    g.run(2_000);
    for node in &g.nodes {
        node.node.check_quiet();
    }
}

#[test]
fn what_finds_no_slot_here_runs_elsewhere() {
    let mut g = grid(&[1, 1]);
    let began = g.now;
    let calls: Vec<_> = (0..4).map(|_| g.nodes[0].call_with("m.f", "500", |_| {})).collect();
    answered(&mut g, 0, &calls);
    assert_eq!(ran(&g, "f"), [2, 2], "each node ran two");
    assert!(g.now.since(began) < ms(1_200), "two at a time: {:?}", g.now.since(began));
    assert!(g.nodes.iter().all(|n| n.running_most == 1), "no node ran more than it has slots for");
    quiet(&mut g);
}

#[test]
fn who_is_found_while_it_runs_is_bought_from() {
    // 1. Nobody was told of anybody.
    let mut g = Grid::of((0..2).map(|n| {
        let mut config = grid_config(n, 1);
        config.grid.as_mut().unwrap().seeds.clear();
        config
    }));
    for node in &mut g.nodes {
        node.save(work());
    }
    g.run(3_000);
    assert!(g.nodes.iter().all(|n| !n.node.is_linked()));
    // 2. One finds the other, and somebody who is not there.
    g.nodes[1].input(Input::Seed { node: key(0), address: "n0:7071".to_owned() });
    g.nodes[1].input(Input::Seed { node: [9; 32], address: "n9:7071".to_owned() });
    g.run(3_000);
    assert!(g.nodes.iter().all(|n| n.node.is_linked() && n.node.market().authorities().len() == 2));
    let calls: Vec<_> = (0..4).map(|_| g.nodes[0].call_with("m.f", "500", |_| {})).collect();
    answered(&mut g, 0, &calls);
    assert_eq!(ran(&g, "f"), [2, 2], "each node ran two");
    let is_said = |e: &&bourse_node::Event| matches!(e, bourse_node::Event::Note { level: bourse_node::Level::Info, text } if text.contains("09090909 can't be reached"));
    assert_eq!(g.nodes[1].events.iter().filter(is_said).count(), 1, "that one is not there is said once");
    // 3. Who is gone is not dialed any more; one that can be reached stays.
    g.nodes[1].input(Input::SeedGone { node: [9; 32] });
    g.run(3_000);
    assert!(g.nodes.iter().all(|n| n.node.is_linked()));
    quiet(&mut g);
}

#[test]
fn a_warm_channel_costs_one_way_there_and_back() {
    let mut g = grid(&[1, 1]);
    // 1. The only slot here is taken for long.
    g.nodes[0].call_with("m.f", "5000", |_| {});
    let first = g.nodes[0].call_with("m.f", "1", |_| {});
    answered(&mut g, 0, &[first]);
    g.run(5);
    // 2. There is a channel, and a token: nothing is waited for.
    let (began, frames) = (g.now, g.frames);
    let second = g.nodes[0].call_with("m.f", "1", |_| {});
    answered(&mut g, 0, &[second]);
    let took = g.now.since(began);
    assert!(took < ms(1) + 2 * g.latency + ms(1), "{took:?}");
    assert!(g.frames - frames <= 3, "run, result, grant: {}", g.frames - frames);
}

#[test]
fn state_stays_where_the_call_was_accepted() {
    let mut g = grid(&[1, 2]);
    let calls: Vec<_> = (0..6).map(|_| g.nodes[0].call("m.count")).collect();
    answered(&mut g, 0, &calls);
    let mut counted: Vec<_> = calls.iter().map(|call| g.nodes[0].ok(*call)).collect();
    counted.sort();
    assert_eq!(counted, ["1", "2", "3", "4", "5", "6"], "each increment counts once, whoever ran it");
    assert!(ran(&g, "count")[1] > 0, "some ran elsewhere: {:?}", ran(&g, "count"));
    assert!(g.nodes[1].store.is_empty(), "nothing was written elsewhere");
    quiet(&mut g);
}

#[test]
fn a_failure_elsewhere_is_the_same_failure_and_changes_nothing() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "3000", |_| {});
    let call = g.nodes[0].call("m.writes_and_fails");
    answered(&mut g, 0, &[call]);
    assert_eq!(ran(&g, "writes_and_fails"), [0, 1]);
    assert_eq!(g.nodes[0].code(call), "function_error");
    assert!(g.nodes.iter().all(|n| n.store.is_empty()));
}

#[test]
fn nested_calls_of_a_guest_give_its_slot_back() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "3000", |_| {});
    let calls: Vec<_> = (0..4).map(|_| g.nodes[0].call("m.outer")).collect();
    answered(&mut g, 0, &calls);
    for call in &calls {
        assert_eq!(g.nodes[0].ok(*call), "both");
    }
    assert_eq!(ran(&g, "outer"), [0, 4]);
    assert!(g.nodes.iter().all(|n| n.running_most == 1), "while they wait they have no slot");
    quiet_after(&mut g, 3_000);
}

#[test]
fn what_a_guest_starts_is_accepted_where_it_was_called() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "3000", |_| {});
    let call = g.nodes[0].call("m.starts");
    answered(&mut g, 0, &[call]);
    assert_eq!((g.nodes[0].ok(call), ran(&g, "starts")), ("started".to_owned(), vec![0, 1]));
    g.run(5_000);
    let done =
        |w: &World| w.events.iter().filter(|e| matches!(e, bourse_node::Event::CallDone { .. })).count();
    assert_eq!((done(&g.nodes[0]), done(&g.nodes[1])), (3, 0));
    assert!(!g.nodes[0].store.is_empty() && g.nodes[1].store.is_empty());
    quiet(&mut g);
}

#[test]
fn a_cancelled_call_stops_elsewhere() {
    let mut g = grid(&[1, 1]);
    let keep = g.nodes[0].call_with("m.f", "3000", |_| {});
    let call = g.nodes[0].call_with("m.f", "2000", |_| {});
    g.until("the second call runs elsewhere", |g| ran(g, "f")[1] == 1);
    g.run(100);
    g.nodes[1].trace.clear();
    g.nodes[0].cancel(call);
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].code(call), "cancelled");
    g.run(1);
    assert!(
        g.nodes[1].trace.text().contains("cancel c"),
        "its instance is told: {}",
        g.nodes[1].trace.text()
    );
    assert_eq!(g.nodes[1].node.status().running, 1, "it was told, and has its slot until it has stopped");
    answered(&mut g, 0, &[keep]);
    quiet(&mut g);
}

#[test]
fn a_deadline_crosses_machines() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "3000", |_| {});
    let call = g.nodes[0].call_with("m.hang", "", |c| c.timeout = Some(ms(500)));
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].code(call), "timeout");
    g.run(5_000);
    assert_eq!(g.nodes[1].node.status().running, 0, "it was interrupted, and killed");
    quiet(&mut g);
}

#[test]
fn an_instance_that_dies_elsewhere_is_told_like_one_here() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "3000", |_| {});
    let call = g.nodes[0].call("m.crash");
    answered(&mut g, 0, &[call]);
    assert_eq!((g.nodes[0].code(call), ran(&g, "crash")), ("instance_crashed", vec![0, 1]));
    quiet_after(&mut g, 3_000);
}

#[test]
fn a_seller_that_dies_is_noticed_at_once() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "3000", |_| {});
    let call = g.nodes[0].call_with("m.f", "30000", |_| {});
    g.until("it runs elsewhere", |g| ran(g, "f")[1] == 1);
    let began = g.now;
    g.crash(1);
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].code(call), "instance_crashed");
    assert!(g.now.since(began) < ms(10));
    assert!(g.nodes[0].failure(call).message.contains("lost"), "{}", g.nodes[0].failure(call).message);
}

#[test]
fn a_seller_that_is_cut_off_is_noticed_within_three_seconds() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "30000", |_| {});
    let call = g.nodes[0].call_with("m.f", "30000", |_| {});
    g.until("it runs elsewhere", |g| ran(g, "f")[1] == 1);
    let began = g.now;
    g.cut(0, 1);
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].code(call), "instance_crashed");
    assert!(g.now.since(began) < ms(3_000), "{:?}", g.now.since(began));
    // The seller notices as well, and stops what nobody waits for.
    g.run(5_000);
    assert_eq!(g.nodes[1].node.status().running, 0);
    // They find each other again, and trade.
    g.heal().run(8_000);
    let call = g.nodes[0].call_with("m.f", "10", |_| {});
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].ok(call), "done");
}

#[test]
fn durable_work_is_tried_again_when_its_seller_dies() {
    let mut g = Grid::new(&[1, 1, 1]);
    for node in &mut g.nodes {
        node.save(work().option("f", "retry", "5"));
    }
    g.run(3_000);
    g.nodes[0].call_with("m.f", "4000", |_| {});
    let call = g.nodes[0].call_with("m.f", "400", |c| c.mode = Mode::Async);
    g.until("it is accepted", |g| g.nodes[0].answers.contains_key(&call));
    g.until("it runs elsewhere", |g| ran(g, "f")[1] + ran(g, "f")[2] == 1);
    let seller = if ran(&g, "f")[1] == 1 { 1 } else { 2 };
    g.crash(seller);
    let done = |g: &Grid| {
        let ended = |e: &bourse_node::Event| matches!(e, bourse_node::Event::CallDone { failure: None, function, .. } if function.as_str() == "m.f");
        g.nodes[0].events.iter().any(ended)
    };
    g.until("it is done all the same", done);
}

#[test]
fn an_idempotent_call_is_tried_again_when_its_seller_dies() {
    let mut g = Grid::new(&[1, 1, 1]);
    for node in &mut g.nodes {
        node.save(work().option("f", "idempotent", "true").option("crash", "idempotent", "true"));
    }
    g.run(3_000);
    g.nodes[0].call_with("m.f", "4000", |_| {});
    let call = g.nodes[0].call_with("m.f", "400", |_| {});
    g.until("it runs elsewhere", |g| ran(g, "f")[1] + ran(g, "f")[2] == 1);
    g.crash(if ran(&g, "f")[1] == 1 { 1 } else { 2 });
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].ok(call), "done");
    // What always dies is not tried for ever.
    let call = g.nodes[0].call("m.crash");
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].code(call), "instance_crashed");
    assert_eq!(ran(&g, "crash").iter().sum::<usize>(), 4);
    quiet_after(&mut g, 4_000);
}

#[test]
fn a_call_travels_no_farther_than_it_may() {
    let mut g = Grid::new(&[1, 1]);
    for node in &mut g.nodes {
        node.save(work().option("f", "horizon", "\"machine\"").option("one", "horizon", "\"process\""));
    }
    g.run(3_000);
    g.nodes[0].call_with("m.f", "300", |_| {});
    let calls =
        [g.nodes[0].call_with("m.f", "10", |_| {}), g.nodes[0].call("m.one"), g.nodes[0].call("m.outer")];
    answered(&mut g, 0, &calls);
    assert_eq!((ran(&g, "f")[1], ran(&g, "one")[1]), (0, 0), "the other node is another machine");
    assert_eq!(ran(&g, "outer")[1], 1, "this one may go anywhere; what it calls does not");
    quiet(&mut g);
}

#[test]
fn calls_of_the_node_itself_get_tokens_back_that_lie_idle() {
    let mut g = grid(&[1, 1]);
    // 1. Node 0 buys node 1's only slot, and holds a token for the next time.
    g.nodes[0].call_with("m.f", "20000", |_| {});
    let bought = g.nodes[0].call_with("m.f", "10", |_| {});
    answered(&mut g, 0, &[bought]);
    g.run(20);
    let (_, free, _) = g.nodes[1].node.market().slots();
    assert_eq!(free, 0, "the slot is promised");
    // 2. A call of node 1 itself gets it.
    let began = g.now;
    let own = g.nodes[1].call_with("m.f", "10", |_| {});
    answered(&mut g, 1, &[own]);
    assert!(g.now.since(began) < ms(40), "{:?}", g.now.since(began));
}

#[test]
fn a_version_that_does_not_fit_is_not_bought() {
    let mut g = Grid::new(&[1, 1, 1]);
    let versioned = |v: &str| Module { version: v.to_owned(), ..work() };
    g.nodes[0].save(versioned("1.2.0"));
    g.nodes[1].save(versioned("2.0.0"));
    g.nodes[2].save(versioned("1.3.0"));
    g.run(3_000);
    g.nodes[0].call_with("m.f", "3000", |_| {});
    let calls: Vec<_> =
        (0..3).map(|_| g.nodes[0].call_with("m.f", "50", |c| c.version = "^1.2".to_owned())).collect();
    answered(&mut g, 0, &calls);
    assert_eq!(ran(&g, "f"), [1, 0, 3]);
    quiet_after(&mut g, 3_000);
}

fn quiet_after(g: &mut Grid, ms: u64) {
    g.run(ms);
    quiet(g);
}

#[test]
fn a_node_that_stops_sells_no_more_and_finishes() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "5000", |_| {});
    let call = g.nodes[0].call_with("m.f", "300", |_| {});
    g.until("it runs elsewhere", |g| ran(g, "f")[1] == 1);
    g.nodes[1].input(Input::Drain);
    assert_eq!(g.nodes[1].node.market().offered().count(), 0, "nobody has to be refused to find out");
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].ok(call), "done");
    g.run(500);
    let waits = g.nodes[0].call_with("m.f", "5", |c| c.queue_wait = Some(ms(1_000)));
    answered(&mut g, 0, &[waits]);
    assert_eq!(g.nodes[0].code(waits), "no_capacity");
    assert_eq!(ran(&g, "f")[1], 1);
}

#[test]
fn a_thousand_callers_and_no_slot_here() {
    let mut g = Grid::new(&[1, 4, 4]);
    for node in &mut g.nodes {
        node.save(work());
    }
    g.run(3_000);
    let calls: Vec<_> = (0..1_000).map(|_| g.nodes[0].call_with("m.f", "20", |_| {})).collect();
    answered(&mut g, 0, &calls);
    let failed = calls.iter().filter(|c| g.nodes[0].code(**c) != "ok").count();
    assert_eq!(failed, 0, "each one is answered");
    let all = ran(&g, "f");
    assert!(all[1] > 250 && all[2] > 250, "all nodes work: {all:?}");
    assert!(g.nodes.iter().zip([1, 4, 4]).all(|(n, slots)| n.running_most <= slots));
    quiet(&mut g);
}

#[test]
fn strangers_and_liars() {
    use bourse_wire::peer::v1 as peer;
    use peer::to_peer::Message as Frame;
    let contact =
        |id: [u8; 32]| peer::Contact { id: id.to_vec().into(), incarnation: 5, ..Default::default() };
    let hello = |id: [u8; 32], version: u32| {
        Frame::Hello(peer::Hello {
            version_min: version,
            version_max: version,
            contact: Some(contact(id)),
            ..Default::default()
        })
    };
    let lot = || Some(peer::Lot { module: "m".into(), version: "0.0.0".into() });
    let mut g = grid(&[1, 1]);
    let other = key(77);
    for frames in [
        vec![Frame::Beat(peer::Beat {})],
        vec![hello(key(5), 1)],                 // not what it has proved to be
        vec![hello(other, 9)],                  // a version nobody speaks
        vec![hello(other, 1), hello(other, 1)], // twice
        vec![hello(other, 1), Frame::Orders(peer::Orders::default())],
        vec![hello(other, 1), Frame::Run(peer::Run::default())],
        vec![
            hello(other, 1),
            Frame::Run(peer::Run {
                token: Some(peer::Token { lot: lot(), epoch: 1, seq: 1 }),
                ..Default::default()
            }),
        ],
        vec![
            hello(other, 1),
            Frame::Grant(peer::Grant { lot: lot(), epoch: 3, granted: u64::MAX, ..Default::default() }),
            Frame::Claim(peer::Claim {
                lot: lot(),
                epoch: 3,
                want: u32::MAX,
                next: 1,
                revision: 1,
                ..Default::default()
            }),
            Frame::Claim(peer::Claim {
                lot: lot(),
                epoch: u64::MAX,
                want: 9,
                next: u64::MAX,
                revision: 9,
                ..Default::default()
            }),
        ],
    ] {
        g.stranger(0, other, frames);
        g.run(100);
    }
    g.run(10_000);
    let call = g.nodes[0].call_with("m.f", "10", |_| {});
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].ok(call), "done");
}

#[test]
fn an_instance_that_leaves_gives_its_guest_back() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "30000", |_| {});
    let began = g.now;
    let call = g.nodes[0].call_with("m.leave", "", |c| c.queue_wait = Some(ms(5_000)));
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].code(call), "no_capacity", "it looks for a place as long as it may");
    assert!(g.now.since(began) < ms(5_100) && ran(&g, "leave")[1] > 1);
    quiet_after(&mut g, 30_000);
}

#[test]
fn a_guest_that_waits_is_cancelled() {
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "3000", |_| {});
    let call = g.nodes[0].call("m.waits");
    g.until("both run elsewhere", |g| ran(g, "hang")[1] == 1 && ran(g, "waits")[1] == 1);
    g.run(100);
    g.nodes[0].cancel(call);
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].code(call), "cancelled");
    quiet_after(&mut g, 70_000);
}

#[test]
fn a_guest_does_not_run_on_a_version_that_came_while_it_waited() {
    let mut g = Grid::new(&[1, 1]);
    let version = |revision: &str, version: &str| Module {
        revision: revision.to_owned(),
        version: version.to_owned(),
        start_ms: 500,
        ..work()
    };
    g.nodes.iter_mut().for_each(|n| _ = n.save(version("r1", "1.0.0")));
    g.run(3_000);
    g.nodes[0].call_with("m.f", "4000", |_| {});
    let call = g.nodes[0].call_with("m.f", "10", |c| c.version = "^1".to_owned());
    g.until("it waits for an instance elsewhere", |g| !g.runs.is_empty());
    g.nodes[1].save(version("r2", "2.0.0"));
    answered(&mut g, 0, &[call]);
    assert_eq!((g.nodes[0].ok(call), ran(&g, "f")), ("done".to_owned(), vec![2, 0]));
    quiet(&mut g);
}

#[test]
fn a_seller_that_has_spoken_of_a_call_can_t_say_that_it_has_not_begun() {
    use bourse_wire::peer::v1 as peer;
    use peer::to_peer::Message as Frame;
    let mut g = grid(&[1, 1]);
    g.nodes[0].call_with("m.f", "3000", |_| {});
    let call = g.nodes[0].call("m.waits");
    g.until("both run elsewhere", |g| ran(g, "hang")[1] == 1 && ran(g, "waits")[1] == 1);
    let (_, link, token) = g.runs[0].clone();
    let ended = peer::from_runner::Message::Ended(peer::Ended::default());
    let frame = Frame::FromRunner(peer::FromRunner { token: Some(token), message: Some(ended) });
    g.nodes[0].input(Input::PeerFrame { link, message: Some(frame), payload: bytes::Bytes::new() });
    answered(&mut g, 0, &[call]);
    assert_eq!(g.nodes[0].code(call), "instance_crashed");
    assert_eq!(ran(&g, "waits"), [0, 1], "it is not run again");
    quiet_after(&mut g, 70_000);
}

#[test]
fn a_call_of_the_node_itself_is_not_handed_ahead_behind_a_guest() {
    let mut g = grid(&[1, 1]);
    // 1. Everybody knows that the function is short, so it would go ahead.
    let known: Vec<_> = (0..4).map(|_| g.nodes[1].call_with("m.f", "1", |_| {})).collect();
    answered(&mut g, 1, &known);
    // 2. Guests and calls of the node itself want the only slot by turns: whoever has it, nobody else runs.
    g.nodes[0].call_with("m.f", "5000", |_| {});
    let guests: Vec<_> = (0..20).map(|_| g.nodes[0].call_with("m.f", "1", |_| {})).collect();
    g.until("a guest runs", |g| g.nodes[1].node.status().running == 1);
    let own: Vec<_> = (0..20).map(|_| g.nodes[1].call_with("m.f", "1", |_| {})).collect();
    answered(&mut g, 0, &guests);
    answered(&mut g, 1, &own);
    assert_eq!(g.nodes[1].running_most, 1);
    quiet_after(&mut g, 5_000);
}

#[test]
fn a_seed_that_is_not_there_is_told_of_once() {
    let mut g = Grid::new(&[1, 1]);
    g.crash(0);
    g.run(30_000);
    let told = |g: &Grid| {
        let warning = |e: &&bourse_node::Event| matches!(e, bourse_node::Event::Note { level: bourse_node::Level::Warning, text } if text.contains("reached"));
        g.nodes[1].events.iter().filter(warning).count()
    };
    assert_eq!(told(&g), 1);
    g.heal().run(10_000);
    assert_eq!(g.nodes[1].node.market().nodes(g.now).len(), 2, "it was tried again and again");
    assert_eq!(told(&g), 1);
}

#[test]
fn a_call_says_how_far_it_goes_and_what_becomes_of_it_without_an_instance() {
    use bourse_node::market::Horizon;
    use bourse_node::{Overflow, Terms};
    let mut g = grid(&[1, 2]);
    let with = |g: &mut Grid, terms: Terms| g.nodes[0].call_with("m.f", "200", |call| call.terms = terms);
    // 1. The one slot is taken: this one may go elsewhere, that one may not.
    let first = g.nodes[0].call_with("m.f", "200", |_| {});
    g.run(5);
    let near = with(&mut g, Terms { horizon: Some(Horizon::Process), ..Terms::default() });
    let far = with(&mut g, Terms { horizon: Some(Horizon::Anywhere), ..Terms::default() });
    let began = g.now;
    g.until("it goes elsewhere while the one before it waits", |g| ran(g, "f") == [1, 1]);
    answered(&mut g, 0, &[far, first, near]);
    assert_eq!(ran(&g, "f"), [2, 1]);
    assert!(g.now.since(began) >= ms(350), "{:?}", g.now.since(began));
    // 2. Refused at once.
    let first = g.nodes[0].call_with("m.f", "200", |_| {});
    g.run(5);
    let here = Some(Horizon::Process);
    let refused = with(&mut g, Terms { horizon: here, overflow: Overflow::Reject, ..Terms::default() });
    g.run(1);
    assert_eq!(g.nodes[0].code(refused), "no_capacity");
    answered(&mut g, 0, &[first]);
    let taken = with(&mut g, Terms { overflow: Overflow::Reject, ..Terms::default() });
    answered(&mut g, 0, &[taken]);
    assert_eq!(g.nodes[0].ok(taken), "done", "where there is an instance it runs");
    // 3. Capacity elsewhere is asked for late, or at once. What was bought before has been given back.
    g.run(70_000);
    for (terms, least, most) in [
        (Terms { scale_after: Some(ms(100)), ..Terms::default() }, 100, 500),
        (Terms { overflow: Overflow::Remote, ..Terms::default() }, 0, 60),
    ] {
        let first = g.nodes[0].call_with("m.f", "1000", |_| {});
        g.run(5);
        let before = g.now;
        let ran_before = ran(&g, "f")[1];
        let other = with(&mut g, terms);
        g.until("it runs elsewhere", |g| ran(g, "f")[1] > ran_before);
        let waited = u64::try_from(g.now.since(before).as_millis()).unwrap();
        assert!((least..=most).contains(&waited), "{terms:?}: {waited} ms");
        answered(&mut g, 0, &[first, other]);
        g.run(70_000);
    }
    // 4. Not for what is durable.
    let durable = g.nodes[0].call_with("m.f", "1", |call| {
        call.mode = Mode::Async;
        call.terms.overflow = Overflow::Remote;
    });
    answered(&mut g, 0, &[durable]);
    assert_eq!(g.nodes[0].code(durable), "bad_request");
    quiet(&mut g);
}
