//! Lives of a seller and its buyers, each from a seed, over a network that loses, repeats, delays and reorders. After the
//! faults stop, everything is done within [`settled`], nothing is said any more, and every slot comes back.

use std::time::Duration;

use std::sync::Arc;

use bourse_market::Lot;
use bourse_market::chance::Chance;
use bourse_market::channel::{ASK_MAX, Admission, Buying, Selling};
use bourse_market::message::{Claim, Grant};
use bourse_market::times::Times;
use bourse_wire::time::Mono;

use crate::world::{FAIR, Network, World, ms};

/// After the faults have stopped: an answer is found to be lost after `ASK_MAX` + 1 `settle`; before, what is late has to
/// come (2 s), and a call that was lost has to be found and sent again; and the work that is left has to be done.
fn settled(w: &World) -> Duration {
    w.times.settle * (ASK_MAX + 1) + ms(2_000) + w.times.settle * 3 + ms(2_000)
}

pub fn life(seed: u64) {
    let mut dice = Chance::new(seed);
    let mut pick = |n: u64| dice.below(n);
    let buyers = 1 + usize::try_from(pick(4)).unwrap();
    let slots = 1 + u32::try_from(pick(6)).unwrap();
    let mut w = World::new(seed, buyers, slots);
    w.runs = (ms(1), ms([5, 50, 1_500][usize::try_from(pick(3)).unwrap()]));
    w.network = Network {
        lost: [0, 5, 30][usize::try_from(pick(3)).unwrap()],
        twice: [0, 10, 40][usize::try_from(pick(3)).unwrap()],
        late: [0, 20, 60][usize::try_from(pick(3)).unwrap()],
        latency: ms(1 + pick(3)),
        late_max: ms([10, 100, 2_000][usize::try_from(pick(3)).unwrap()]),
    };
    // How rough it is: without restarts, a call that is not done is one that was lost by mistake.
    let rough = pick(3) > 0;
    let events = 20 + pick(60);
    for _ in 0..events {
        let pause = [5, 50, 400][usize::try_from(pick(3)).unwrap()];
        w.run(ms(pick(pause)));
        let buyer = usize::try_from(pick(buyers as u64)).unwrap();
        match pick(if rough { 24 } else { 16 }) {
            0..=8 => w.submit(buyer, 1 + u32::try_from(pick(8)).unwrap()),
            9 => w.buyers[buyer].ahead = u32::try_from(pick(4)).unwrap(),
            10 => w.resize(u32::try_from(pick(7)).unwrap()),
            11 => w.revoke_all(),
            12..=14 => w.give_up(buyer),
            15 => w.run(ms(pick(1_500))),
            16 | 17 => w.restart(buyer),
            18 | 19 => w.cut(buyer),
            20 => w.buyer_closes(buyer),
            21 | 22 => w.seller_closes(),
            _ => {
                // Whoever loses its memory loses its links. The buyers notice after a while.
                w.seller_restarts();
                w.run(ms(pick(2_700)));
                (0..buyers).for_each(|b| w.cut(b));
            }
        }
    }
    // 1. The faults stop: all that was wanted is done.
    w.network = FAIR;
    w.runs = (ms(1), ms(5));
    w.buyers.iter_mut().for_each(|b| b.ahead = 0);
    w.resize(slots);
    let time = settled(&w);
    w.run(time);
    if let Err(what) = w.is_settled() {
        panic!("seed {seed}: {what}\n{}", w.text());
    }
    assert!(rough || w.lost.is_empty(), "seed {seed}: lost {:?}", w.lost);
    // 2. Nothing is said any more.
    w.run(ms(3_000));
    w.messages.clear();
    w.run(ms(60_000));
    assert!(w.messages.is_empty(), "seed {seed}: {:?}\n{}", w.messages, w.text());
    // 3. Every slot comes back.
    w.revoke_all();
    w.run(ms(100));
    assert_eq!(w.listener.taken(), 0, "seed {seed}: slots are gone\n{}", w.text());
    // 4. Everybody gets what it wants, once more.
    (0..buyers).for_each(|b| w.submit(b, 10));
    w.run(ms(3_000));
    w.is_settled().unwrap_or_else(|what| panic!("seed {seed}: {what}\n{}", w.text()));
}

#[test]
fn many_lives() {
    (0..2_000).for_each(life);
}

/// What a stranger may say, at both ends: nothing panics, and no slot is lost or sold twice.
fn garbage(seed: u64) {
    let mut dice = Chance::new(seed);
    let times = Arc::new(Times::default());
    let lot = Lot { module: "m".to_owned(), version: semver::Version::new(1, 0, 0) };
    let mut selling = Selling::new(Arc::clone(&times), lot.clone(), 1);
    let mut buying = Buying::new(times, lot.clone(), 1);
    let mut number = |most: u64| match dice.below(20) {
        0 => u64::MAX - dice.below(2),
        _ => dice.below(most),
    };
    let (mut slots, mut running, mut now) = (0_u32, Vec::new(), Mono(0));
    for _ in 0..200 {
        now = now + ms(number(300).min(1_000));
        let open = (0..number(5).min(5)).map(|_| number(12)).collect();
        match number(10) {
            0..=2 => {
                let want = u32::try_from(number(8)).unwrap_or(u32::MAX);
                let (revision, known, next, closed) = (number(30), number(4), number(8), number(60) == 0);
                let claim = Claim { lot: lot.clone(), epoch: 1, revision, want, known, next, open, closed };
                selling.on_claim(now, &claim);
            }
            3 | 4 => {
                let (seen, granted, revoked, closed) = (number(9), number(9), number(9), number(60) == 0);
                let grant = Grant { lot: lot.clone(), epoch: 1, seen, granted, revoked, void: open, closed };
                let _ = buying.on_grant(now, &grant);
            }
            5 if selling.wants() > 0 => {
                selling.grant(now);
                slots += 1;
            }
            6 => {
                let seq = number(12);
                if selling.admit(now, seq) == Admission::New {
                    running.push(seq);
                }
            }
            7 => running.pop().into_iter().for_each(|seq| selling.finish(now, seq)),
            8 => selling.revoke(now, 2),
            _ => {
                buying.set_want(now, 3);
                if let Some(seq) = buying.spend(now) {
                    buying.settle(now, seq);
                }
            }
        }
        selling.handle_timeout(now);
        buying.handle_timeout(now);
        let _ = (selling.poll(), buying.poll(), selling.unanswered());
        slots = slots.checked_sub(selling.returned()).expect("a slot comes back once");
        assert_eq!(slots, selling.unused() + selling.running(), "seed {seed}: a token is a slot");
        selling.check_invariants();
        buying.check_invariants();
    }
}

#[test]
fn garbage_harms_nobody() {
    (0..5_000).for_each(garbage);
}
