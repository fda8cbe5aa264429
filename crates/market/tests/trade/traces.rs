//! Whole conversations, compared with `testdata/*.trace`. A change of one of those is a change of what is said: read it,
//! and refresh it with `BOURSE_BLESS=1`.

use bourse_market::channel::SPENT_MAX;

use crate::world::{Kind, World, ms};

#[test]
fn open_grant_call_answer() {
    let mut w = World::new(1, 1, 2);
    // 1. Three calls, two slots: the third goes with the first slot that is freed.
    w.submit(0, 3);
    w.run(ms(100));
    // 2. When everything is answered, nothing is said but that less is wanted.
    w.run(ms(10_000));
    w.is_settled().unwrap();
    w.compare("open_grant_call_answer");
}

#[test]
fn steady_state_needs_no_claims() {
    let mut w = World::new(1, 2, 4);
    let said = |w: &World, kind| w.messages.get(&kind).copied().unwrap_or(0);
    // 1. Both always have 10 calls that wait: as one goes, another one comes.
    w.buyers.iter_mut().for_each(|b| b.always = 10);
    (0..2).for_each(|b| w.submit(b, 1));
    w.run(ms(1_500));
    w.messages.clear();
    w.run(ms(2_000));
    let (claims, grants, calls) = (said(&w, Kind::Claim), said(&w, Kind::Grant), said(&w, Kind::Call));
    assert!(calls > 600, "{calls} calls");
    assert!(claims == 0 && grants <= calls, "{claims} claims and {grants} grants for {calls} calls");
    // 2. After many calls, the seller is told what it can forget, which it answers.
    w.messages.clear();
    w.run(ms(10_000));
    let (claims, grants, calls) = (said(&w, Kind::Claim), said(&w, Kind::Grant), said(&w, Kind::Call));
    assert!(claims > 0 && claims <= 2 + calls / u64::from(SPENT_MAX), "{claims} claims for {calls} calls");
    assert!(grants <= calls + claims, "{grants} grants for {calls} calls");
}

#[test]
fn revoke() {
    let mut w = World::new(1, 2, 2);
    // 1. The first buyer has all tokens, and uses none.
    w.buyers[0].ahead = 2;
    w.submit(0, 1);
    w.run(ms(2_000));
    // 2. The second one wants one: one that is idle comes back, and goes there.
    w.submit(1, 1);
    w.run(ms(5_000));
    w.is_settled().unwrap();
    w.compare("revoke");
}

#[test]
fn lost_call_becomes_void() {
    let mut w = World::new(1, 1, 1);
    w.lose.push(Kind::Call);
    w.submit(0, 1);
    w.run(ms(10_000));
    w.is_settled().unwrap();
    w.compare("lost_call_becomes_void");
}

#[test]
fn late_call_is_refused() {
    let mut w = World::new(1, 1, 1);
    w.network.latency = ms(1);
    w.submit(0, 1);
    // 1. The call leaves at 2 ms, and takes 1.2 s.
    w.run(ms(1));
    w.network.latency = ms(1_200);
    w.run(ms(1));
    w.network.latency = ms(1);
    w.run(ms(10_000));
    w.is_settled().unwrap();
    w.compare("late_call_is_refused");
}

#[test]
fn lost_grant() {
    let mut w = World::new(1, 1, 1);
    w.lose.push(Kind::Grant);
    w.submit(0, 1);
    w.run(ms(5_000));
    w.is_settled().unwrap();
    w.compare("lost_grant");
}

#[test]
fn lost_answer_is_sent_again() {
    let mut w = World::new(1, 1, 1);
    w.lose.push(Kind::Answer);
    w.submit(0, 1);
    w.run(ms(5_000));
    w.is_settled().unwrap();
    w.compare("lost_answer_is_sent_again");
}

#[test]
fn repeated_claim() {
    let mut w = World::new(1, 1, 4);
    w.twice.extend([Kind::Claim, Kind::Call]);
    w.submit(0, 1);
    w.run(ms(5_000));
    w.is_settled().unwrap();
    w.compare("repeated_claim");
}

#[test]
fn buyer_restarts() {
    let mut w = World::new(1, 1, 1);
    w.submit(0, 2);
    w.run(ms(5));
    // 1. A call runs. The new life gets its slot when it has ended, and not before.
    w.restart(0);
    w.submit(0, 1);
    w.run(ms(5_000));
    w.is_settled().unwrap();
    w.compare("buyer_restarts");
}

#[test]
fn seller_gone() {
    let mut w = World::new(1, 1, 1);
    w.submit(0, 2);
    w.run(ms(5));
    // 1. It restarts, and knows nothing of the channel any more. What is open is lost, the rest goes to a new channel.
    w.seller_restarts();
    w.run(ms(5_000));
    w.is_settled().unwrap();
    w.compare("seller_gone");
}

#[test]
fn seller_closes() {
    let mut w = World::new(1, 1, 2);
    w.submit(0, 2);
    w.run(ms(5));
    // 1. It sells no more: what runs is run and answered.
    w.seller_closes();
    w.run(ms(5_000));
    w.is_settled().unwrap();
    assert!(w.selling.is_empty() && w.listener.taken() == 0);
    w.compare("seller_closes");
}

#[test]
fn buyer_closes() {
    let mut w = World::new(1, 1, 2);
    w.buyers[0].ahead = 1;
    w.submit(0, 1);
    w.run(ms(5));
    w.buyer_closes(0);
    w.run(ms(5_000));
    w.is_settled().unwrap();
    assert!(w.selling.is_empty() && w.listener.taken() == 0);
    w.compare("buyer_closes");
}

#[test]
fn shrinking_capacity() {
    let mut w = World::new(1, 2, 3);
    w.submit(0, 3);
    w.submit(1, 3);
    w.run(ms(5));
    // 1. Nothing that runs is ended; one by one from now on.
    w.resize(1);
    w.run(ms(5_000));
    w.is_settled().unwrap();
    w.compare("shrinking_capacity");
}

#[test]
fn idle_is_silent() {
    let mut w = World::new(1, 3, 4);
    // 1. All slots are gone, and everybody holds some tokens or wants more of them.
    w.buyers.iter_mut().for_each(|b| b.ahead = 3);
    (0..3).for_each(|b| w.submit(b, 1));
    w.run(ms(900));
    assert_eq!(w.listener.free(), 0);
    // 2. While there is nobody for whom a token would have to be taken back, nothing is said at all.
    w.buyers.iter_mut().for_each(|b| b.ahead = 0);
    w.run(ms(3_000));
    w.messages.clear();
    w.run(ms(600_000));
    assert!(w.messages.is_empty(), "{:?}\n{}", w.messages, w.text());
}

#[test]
fn exhausted_want_is_said_once() {
    let mut w = World::new(1, 2, 1);
    assert!(w.listener.take(&(99, 99)));
    (0..2).for_each(|b| w.submit(b, 5));
    w.run(ms(600_000));
    assert!(w.messages.values().sum::<u64>() <= 8, "{}", w.text());
    w.listener.give_back(&(99, 99));
    w.submit(0, 1);
    w.run(ms(1_000));
    w.is_settled().unwrap();
}

#[test]
fn long_calls_are_asked_for_rarely() {
    let mut w = World::new(1, 1, 1);
    w.runs = (ms(600_000), ms(600_000));
    w.submit(0, 1);
    w.run(ms(599_000));
    let claims = w.messages[&Kind::Claim];
    assert!((140..160).contains(&claims), "{claims} claims in 600 s");
    w.run(ms(10_000));
    w.is_settled().unwrap();
}
