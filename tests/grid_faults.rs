//! Several daemons, and what can go wrong between them: cables, silence, strangers, keys.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::grid::{WORK, elsewhere, grid};
use crate::support::{Grid, Hosts, skipped, wait_for};

/// That a node can't be reached any more is noticed within this.
const NOTICED: Duration = Duration::from_secs(3);
/// If only one way is lost: who is not heard hangs up after that, and what it says of it may be held up behind what was not
/// acknowledged. The other end has its own time, which began with the last beat that came.
const NOTICED_ONE_WAY: Duration = Duration::from_secs(4);
/// A node that is there again is bought from within this.
const BACK: Duration = Duration::from_secs(15);
/// A busy machine is later.
const MARGIN: Duration = Duration::from_secs(2);

/// Nodes on hosts of their own, with one slot each; or `None` where there can't be any.
fn apart(count: u8) -> Option<Grid> {
    let hosts = match Hosts::new(count) {
        Ok(hosts) => hosts,
        Err(why) => {
            skipped(&why);
            return None;
        }
    };
    let slots = vec![1; count.into()];
    let mut grid = Grid::planned_on(hosts, &slots, &[WORK]);
    grid.start_all();
    for at in 0..slots.len() {
        grid.warm(at);
    }
    Some(grid)
}

fn host(at: usize) -> u8 {
    u8::try_from(at).expect("few hosts")
}

/// A seller can't be heard, and can again.
fn loses_a_seller(within: Duration, lose: impl FnOnce(&Hosts, u8), heal: impl FnOnce(&Hosts, u8)) {
    let Some(grid) = apart(3) else { return };
    let (home, away) = (grid.gate("home"), grid.gate("away"));
    let keeps = grid.occupy(0, &home);
    let (lost, at) = elsewhere(&grid, &away);
    let other = 3 - at;
    // 1. Its calls are answered.
    let start = Instant::now();
    lose(grid.hosts(), host(at));
    lost.answer().problem(502, "instance_crashed");
    let noticed = start.elapsed();
    assert!(noticed < within + MARGIN, "{noticed:?}");
    // 2. The others run elsewhere.
    let start = Instant::now();
    for _ in 0..5 {
        assert_eq!(grid.call(0, "work.where", json!([])).ok(), other);
    }
    let rest = start.elapsed();
    // 3. The seller stops what nobody waits for.
    wait_for("it has stopped", || away.stopped() == [at]);
    // 4. Healed, it is bought from again: nobody else has a slot.
    let busy = grid.gate("busy");
    let taken = grid.occupy(other, &busy);
    let again = grid.gate("again");
    let waits = grid.begin(0, "work.hold", json!([again.path]));
    let start = Instant::now();
    heal(grid.hosts(), host(at));
    assert_eq!(again.wait_began(1), [at]);
    let back = start.elapsed();
    println!("noticed in {noticed:.2?}, five calls elsewhere in {rest:.2?}, bought from again in {back:.2?}");
    assert!(back < BACK + MARGIN, "{back:?}");
    for gate in [&home, &busy, &again] {
        gate.open();
    }
    for call in [keeps, taken, waits] {
        call.ok();
    }
}

#[test]
fn a_seller_whose_cable_is_cut_is_noticed_and_traded_with_again() {
    loses_a_seller(NOTICED, Hosts::cut, Hosts::heal);
}

#[test]
fn a_seller_that_is_silent_one_way_is_noticed() {
    loses_a_seller(NOTICED_ONE_WAY, |hosts, at| hosts.mute(at, 0), |hosts, at| hosts.unmute(at, 0));
}

#[test]
fn a_seller_that_does_not_hear_is_noticed() {
    loses_a_seller(NOTICED_ONE_WAY, |hosts, at| hosts.mute(0, at), |hosts, at| hosts.unmute(0, at));
}

#[test]
fn the_rest_trades_on_when_the_first_node_is_lost() {
    let Some(mut grid) = apart(3) else { return };
    // 1. The only node that the others were told of, and an authority. These two have not traded before.
    assert!(grid.get(0, "/v1/market").ok()["authority"].as_bool().unwrap_or_default());
    grid.kill(0);
    let home = grid.gate("home");
    let keeps = grid.occupy(1, &home);
    let start = Instant::now();
    assert_eq!(grid.call(1, "work.where", json!([])).ok(), 2);
    println!("found elsewhere in {:.2?}", start.elapsed());
    // 2. It comes back, joins nobody, and is found by the others.
    grid.start(0);
    let busy = grid.gate("busy");
    let taken = grid.occupy(2, &busy);
    assert_eq!(grid.call(1, "work.where", json!([])).ok(), 0);
    home.open();
    busy.open();
    keeps.ok();
    taken.ok();
}

#[test]
fn strangers_at_the_door_disturb_nobody() {
    let mut grid = Grid::planned(&[1, 1, 1], &[WORK]);
    // 1. A node whose key nobody allows.
    grid.allow(0, &[1]);
    grid.allow(1, &[0]);
    grid.change(2, |setup| setup.set("log", "debug"));
    for at in [0, 1, 2] {
        grid.start(at);
    }
    grid.wait_met(0, &[1]);
    grid.daemon(2).wait_log("does not admit this key");
    assert!(grid.met(2).is_empty());
    // 2. Some who speak nonsense, in different ways, and one who says nothing.
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 1];
    greeting.extend(b"CURVE");
    greeting.resize(64, 0);
    greeting.extend([4, 200]);
    greeting.extend([9; 200]);
    let random: Vec<u8> = (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let said = [b"GET / HTTP/1.1\r\n\r\n".to_vec(), random, greeting, Vec::new()];
    let strangers = [0, 1].into_iter().flat_map(|at| {
        let address = grid.address(at);
        said.iter().map(move |words| {
            let mut stranger = TcpStream::connect(address).expect("anybody may connect");
            // It may have been cut off before its last word.
            let _ = stranger.write_all(words);
            (stranger, words.is_empty())
        })
    });
    let strangers: Vec<_> = strangers.collect();
    // 3. The nodes trade all the same.
    grid.warm(0);
    let home = grid.gate("home");
    let keeps = grid.occupy(0, &home);
    for _ in 0..5 {
        assert_eq!(grid.call(0, "work.where", json!([])).ok(), 1);
    }
    home.open();
    keeps.ok();
    // 4. Whoever spoke nonsense has been cut off.
    for (mut stranger, _) in strangers.into_iter().filter(|(_, silent)| !silent) {
        stranger.set_read_timeout(Some(crate::support::PATIENCE)).expect("a timeout");
        match stranger.read_to_end(&mut Vec::new()) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("it still listens to nonsense"),
            Ok(_) | Err(_) => {}
        }
    }
}

#[test]
fn a_node_that_is_not_allowed_any_more_is_cut_off_while_it_trades() {
    let grid = grid(&[1, 1]);
    let (home, away) = (grid.gate("home"), grid.gate("away"));
    let keeps = grid.occupy(0, &home);
    let (lost, at) = elsewhere(&grid, &away);
    // 1. Its calls are answered, and it runs them no longer.
    let start = Instant::now();
    grid.allow(0, &[]);
    lost.answer().problem(502, "instance_crashed");
    println!("cut off in {:.2?}", start.elapsed());
    assert!(start.elapsed() < NOTICED + MARGIN);
    wait_for("it has stopped", || away.stopped() == [at]);
    assert_eq!((grid.met(0), grid.met(1)), (vec![], vec![]));
    grid.call(0, "work.where?queue_wait=100ms", json!([])).problem(503, "no_capacity");
    // 2. Allowed again, it is bought from.
    grid.allow(0, &[1]);
    assert_eq!(grid.call(0, "work.where", json!([])).ok(), 1);
    home.open();
    keeps.ok();
}

#[test]
fn two_nodes_with_one_key_are_told_of() {
    let mut grid = Grid::planned(&[1, 1, 1], &[WORK]);
    let mut key = Vec::new();
    grid.change(1, |setup| {
        key = fs::read(setup.folder().join(".bourse/node.key")).expect("a key");
        setup
    });
    grid.change(2, |setup| {
        fs::write(setup.folder().join(".bourse/node.key"), &key).expect("the same key");
        setup
    });
    for at in [0, 1, 2] {
        grid.start(at);
    }
    let log = |at| grid.daemon(at).log();
    let told = |log: &str| {
        log.contains("ERROR") && log.contains("two nodes") && log.contains("remove `node.key` of one of them")
    };
    wait_for("the node that both have joined says what to do", || told(&log(0)));
    assert!(log(0).contains(&grid.key(1)[..8]), "it says which key: {}", log(0));
}
