//! Several daemons: calls run where there is a slot, and nothing about a call depends on where that is.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::support::{Gate, Grid, Pending, wait_for};

pub(crate) const WORK: (&str, &str) = (
    "work.py",
    "
    import os, time
    from bourse import context, function, gather, state

    NODE = int(open(os.path.join(os.path.dirname(__file__), 'node.txt')).read())

    def note(path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, f'{NODE}\\n'.encode())
        os.close(file)

    @function
    def where(seconds: float = 0.0):
        time.sleep(seconds)
        return NODE

    @function
    def hold(gate: str):
        try:
            note(gate + '/began')
            while not os.path.exists(gate + '/open'):
                time.sleep(0.005)
                if context.cancelled:
                    raise RuntimeError('nobody waits')
        except BaseException:
            note(gate + '/stopped')
            raise
        return NODE

    @function(retry={'attempts': 50, 'pause': '10ms', 'pause_max': '50ms'})
    def deposit(gate: str):
        count = state('account/count').get(0)
        state('account/count').set(count + 1)
        hold(gate)
        return NODE

    @function
    def balance():
        return state('account/count').get(0)

    @function
    def count(seconds: float):
        n = state('counter/n').get(0) + 1
        time.sleep(seconds)
        state('counter/n').set(n)
        return [NODE, n]

    @function(exclusive='one')
    def alone(gate: str):
        os.mkdir(gate + '/alone')
        try:
            note(gate + '/passed')
            time.sleep(0.02)
        finally:
            os.rmdir(gate + '/alone')
        return NODE

    @function
    def fib(n: int, gate: str):
        if n < 2:
            note(gate + '/leaves')
            return n
        return sum(gather(fib.submit(n - 1, gate), fib.submit(n - 2, gate)))

    @function
    def chain(n: int):
        return [NODE] + (chain.call(n - 1) if n else [])

    @function
    def fails():
        raise KeyError('no such thing')

    @function
    def dies(code: int):
        os._exit(code)
    ",
);

/// Nodes that run and know each other, with so many slots each, and an instance that is warm.
pub(crate) fn grid(slots: &[usize]) -> Grid {
    let grid = Grid::new(slots, &[WORK]);
    for at in 0..slots.len() {
        grid.warm(at);
    }
    grid
}

/// A call of the first node that is at the gate at another one, since the first has no slot.
pub(crate) fn elsewhere(grid: &Grid, gate: &Gate) -> (Pending, usize) {
    let call = grid.begin(0, "work.hold", json!([gate.path]));
    let at = gate.wait_began(1)[0];
    assert_ne!(at, 0, "there is no slot at home");
    (call, at)
}

#[test]
fn pi_takes_half_the_time_when_a_second_node_joins() {
    let pi = ("pi.py", include_str!("../examples/pi/pi.py"));
    let mut grid = Grid::planned(&[2, 2], &[pi]);
    let estimate = |grid: &Grid| {
        let start = Instant::now();
        let found = grid.call(0, "pi.estimate", json!({"parts": 20, "pause": 0.2, "count": 1000})).ok();
        let pi = found["pi"].as_f64().expect("a number");
        assert!((3.0..3.3).contains(&pi), "{found}");
        (start.elapsed(), found["at_once"].as_f64().expect("a number"))
    };
    // 1. One node: the first call starts the instances, the second is measured.
    grid.start(0);
    grid.call(0, "pi.estimate", json!({"parts": 2, "pause": 0.1})).ok();
    let (alone, at_once) = estimate(&grid);
    assert!(at_once <= 2.0, "there are two slots: {at_once}");
    // 2. A second one joins. The same call, at the same node.
    grid.start(1);
    grid.wait_met(0, &[1]);
    grid.call(0, "pi.estimate", json!({"parts": 8, "pause": 0.1})).ok();
    let (both, at_once) = estimate(&grid);
    println!("{alone:.2?} alone, {both:.2?} with another, {at_once} at once");
    assert!((2.5..=4.0).contains(&at_once), "there are four slots: {at_once}");
    assert!(alone > both * 3 / 2, "{alone:?} alone, {both:?} with another");
}

#[test]
fn state_is_the_same_wherever_a_call_is_made_and_runs() {
    let grid = grid(&[1, 2]);
    let mut seen = Vec::new();
    let (mut nodes, mut calls) = ([0, 0], 0);
    while seen.len() < 30 || nodes.contains(&0) {
        assert!(calls < 600, "too many conflicts: {seen:?}");
        let three: Vec<Pending> = (0..3).map(|_| grid.begin(0, "work.count", json!([0.03]))).collect();
        for call in three {
            calls += 1;
            let answer = call.answer();
            if answer.status == 200 {
                let of = |at: usize| usize::try_from(answer.json()[at].as_u64().expect("a number"));
                nodes[of(0).expect("a node")] += 1;
                seen.push(of(1).expect("a count"));
            } else {
                answer.problem(409, "conflict");
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=seen.len()).collect::<Vec<_>>(), "each counts once, wherever it ran");
    println!("{calls} calls by {nodes:?}");
    // The other node has the same.
    assert_eq!(grid.call(1, "work.count", json!([0.0])).ok()[1], seen.len() + 1);
}

#[test]
fn a_recursion_over_two_nodes_with_one_slot_each_ends() {
    let grid = grid(&[1, 1]);
    let gate = grid.gate("leaves");
    let start = Instant::now();
    assert_eq!(grid.call(0, "work.fib", json!([12, gate.path])).ok(), 144);
    let leaves = gate.lines("leaves");
    let ran = [0, 1].map(|at| leaves.iter().filter(|node| **node == at).count());
    println!("465 calls in {:.2?}; leaves by node: {ran:?}", start.elapsed());
    assert_eq!(leaves.len(), 233);
    assert!(ran[0] > 0 && ran[1] > 0, "{ran:?}");
}

/// Each call is waited for at once by the one before it, wherever that runs.
#[test]
fn a_chain_of_calls_goes_to_and_fro() {
    let grid = grid(&[1, 1]);
    let gate = grid.gate("slot");
    // 1. The only slot at home is taken, so the chain begins elsewhere, and all of it runs there.
    let keeps = grid.occupy(0, &gate);
    let ran = grid.call(0, "work.chain", json!([20])).ok();
    assert_eq!(ran, json!(vec![1; 21]));
    // 2. It is free again.
    gate.open();
    keeps.ok();
    assert_eq!(grid.call(0, "work.chain", json!([20])).ok().as_array().map(Vec::len), Some(21));
}

#[test]
fn exclusive_calls_exclude_each_other_on_all_nodes() {
    let grid = grid(&[1, 1, 1]);
    let gate = grid.gate("one");
    let keeps = grid.occupy(0, &gate);
    // 1. Some while there is no slot at home, then some more.
    let mut calls: Vec<Pending> = (0..6).map(|_| grid.begin(0, "work.alone", json!([gate.path]))).collect();
    wait_for("one has run elsewhere", || !gate.lines("passed").is_empty());
    gate.open();
    keeps.ok();
    calls.extend((0..6).map(|_| grid.begin(0, "work.alone", json!([gate.path]))));
    // 2. One that finds another inside cannot make the folder, and fails.
    let ran: Vec<Json> = calls.into_iter().map(Pending::ok).collect();
    assert!(ran.iter().any(|at| *at != 0), "{ran:?}");
}

/// A problem, without what is different in each.
fn problem(answer: &crate::support::Response, grid: &Grid, at: usize) -> Json {
    let mut problem = answer.json();
    problem["call_id"].take();
    let folder = grid.daemon(at).folder();
    let text = problem.to_string().replace(&folder.display().to_string(), "FOLDER");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_failure_elsewhere_is_told_like_one_at_home() {
    let mut grid = Grid::planned(&[1, 1], &[WORK]);
    for at in [0, 1] {
        grid.change(at, |setup| setup.set("dev", "true"));
    }
    grid.start_all();
    grid.warm(0);
    grid.warm(1);
    let ask = || {
        let fails = grid.call(0, "work.fails", json!({}));
        let late = grid.call(0, "work.where?timeout=300ms", json!([30]));
        let dies = grid.call(0, "work.dies", json!([7]));
        [fails, late, dies]
    };
    // 1. At home, and elsewhere.
    let here = ask();
    grid.warm(0);
    let gate = grid.gate("home");
    let keeps = grid.occupy(0, &gate);
    let there = ask();
    // 2. The same is told of both.
    for (here, there) in here.iter().zip(&there) {
        assert_eq!(here.status, there.status, "{here}\n{there}");
        let (here, there) = (problem(here, &grid, 0), problem(there, &grid, 1));
        for field in ["type", "code", "title", "status", "error"] {
            assert_eq!(here[field], there[field], "{field}: {here}\n{there}");
        }
    }
    let codes = ["function_error", "timeout", "instance_crashed"];
    assert_eq!(
        there.each_ref().map(|answer| answer.json()["code"].as_str().unwrap_or_default().to_owned()),
        codes
    );
    let traceback = &there[0].json()["error"]["traceback"];
    assert!(
        traceback.as_str().is_some_and(|t| t.contains("raise KeyError('no such thing')")),
        "{}",
        there[0]
    );
    // 3. The other node goes on.
    assert_eq!(grid.call(0, "work.where", json!([])).ok(), 1);
    gate.open();
    keeps.ok();
}

#[test]
fn a_call_that_nobody_waits_for_stops_elsewhere() {
    let grid = grid(&[1, 1]);
    let (home, away) = (grid.gate("home"), grid.gate("away"));
    let keeps = grid.occupy(0, &home);
    let (call, _) = elsewhere(&grid, &away);
    call.leave();
    wait_for("it has stopped", || away.stopped() == [1]);
    assert_eq!(grid.call(0, "work.where", json!([])).ok(), 1, "its slot is free again");
    home.open();
    keeps.ok();
}

#[test]
fn a_killed_seller_is_noticed_and_bought_from_again() {
    let mut grid = grid(&[1, 1, 1]);
    let (home, first, second) = (grid.gate("home"), grid.gate("first"), grid.gate("second"));
    let keeps = grid.occupy(0, &home);
    let (lost, at) = elsewhere(&grid, &first);
    let (stays, other) = elsewhere(&grid, &second);
    assert_ne!(at, other);
    // 1. Who waits for it hears of it at once.
    let start = Instant::now();
    grid.kill(at);
    let said = lost.answer().problem(502, "instance_crashed");
    let took = start.elapsed();
    assert!(said.contains("was lost"), "{said}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    // 2. The others go on.
    assert!(keeps.is_open() && stays.is_open());
    second.open();
    assert_eq!(stays.ok(), other);
    assert_eq!(grid.call(0, "work.where", json!([])).ok(), other);
    // 3. It comes back, and is bought from: the other one's slot is taken.
    let start = Instant::now();
    grid.start(at);
    println!("noticed in {took:.2?}, started again in {:.2?}", start.elapsed());
    let third = grid.gate("third");
    let (busy, _) = elsewhere(&grid, &third);
    let again = grid.gate("again");
    let (again_call, back) = {
        let call = grid.begin(0, "work.hold", json!([again.path]));
        (call, again.wait_began(1)[0])
    };
    println!("bought from again {:.2?} after it was killed", start.elapsed());
    assert_eq!([third.began()[0], back].iter().filter(|n| **n == at).count(), 1);
    for gate in [&third, &again, &home] {
        gate.open();
    }
    for call in [busy, again_call, keeps] {
        call.ok();
    }
}

#[test]
fn a_durable_call_whose_seller_is_killed_commits_once() {
    let mut grid = grid(&[1, 1, 1]);
    let (home, away) = (grid.gate("home"), grid.gate("away"));
    let keeps = grid.occupy(0, &home);
    let id = grid.accept(0, "work.deposit", json!([away.path]));
    let first = away.wait_began(1)[0];
    assert_ne!(first, 0);
    grid.kill(first);
    let began = away.wait_began(2);
    assert_ne!(began[1], first, "it is down");
    away.open();
    let ended = grid.ended(0, &id);
    assert_eq!((&ended["status"], &ended["result"]), (&json!("done"), &json!(began[1])), "{ended}");
    home.open();
    keeps.ok();
    assert_eq!(grid.call(0, "work.balance", json!([])).ok(), 1);
    assert_eq!(away.began().len(), 2);
}

#[test]
fn a_node_that_stops_finishes_and_is_not_bought_from() {
    let mut grid = grid(&[1, 1]);
    let (home, away) = (grid.gate("home"), grid.gate("away"));
    let keeps = grid.occupy(0, &home);
    let (call, at) = elsewhere(&grid, &away);
    // 1. It says at once that it sells no more.
    grid.daemon(at).signal(Signal::TERM);
    let offers = || grid.get(0, "/v1/market").ok()["orders"].clone();
    let sells =
        |order: &Json| order["node"] == grid.key(at) && order["quantity"] != 0 && order["side"] == "sell";
    wait_for("it offers nothing", || !offers().as_array().expect("orders").iter().any(sells));
    let more = grid.call(0, "work.where?queue_wait=300ms", json!([]));
    more.problem(503, "no_capacity");
    // 2. What it runs goes on.
    assert!(call.is_open());
    away.open();
    assert_eq!(call.ok(), at);
    // 3. It ends by itself, and is there again when it is started.
    grid.stop(at);
    grid.start(at);
    assert_eq!(grid.call(0, "work.where", json!([])).ok(), at);
    home.open();
    keeps.ok();
}
