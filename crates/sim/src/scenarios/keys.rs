//! Scenarios of exclusive keys, unique keys and delays.

use std::time::Duration;

use bourse_node::{Ask, Mode, Ticket};

use super::{ELSEWHERE, HOME, ask, start};
use crate::disk::{Fate, Keep};
use crate::stage::{End, Plan, scope_in};
use crate::world::World;

/// A call that waits for its result.
pub(super) fn sync(w: &mut World, plan: Plan) -> Ticket {
    let plan = w.stage.add(plan);
    w.call(plan, Mode::Sync, "", None)
}

/// Adds itself where its exclusive key is at home, so that all is one commit.
fn x() -> Plan {
    with_key("a.x", "k")
}

fn with_key(function: &str, key: &str) -> Plan {
    let plan = Plan::of(function).key(key);
    let home = plan.exclusive().map_or(HOME, |name| name.partition().0);
    plan.adds(&scope_in(home))
}

pub(super) fn exclusive(w: &mut World) {
    sync(w, x().runs_ms(5));
    start(w, x().runs_ms(5));
    sync(w, x().runs_ms(2));
    start(w, with_key("a.x", "other"));
    w.run(3);
    start(w, x().runs_ms(1).adds(&scope_in(ELSEWHERE)));
    sync(w, x());
    start(w, with_key("b.x", "k"));
    w.run(200);
    start(w, x());
    w.run(50);
}

pub(super) fn exclusive_retried(w: &mut World) {
    start(w, with_key("a.y", "k").bad(1, End::Fails));
    w.run(2);
    start(w, x().runs_ms(2).bad(1, End::Again(20)));
    sync(w, x());
    start(w, with_key("a.y", "k").bad(1, End::Crashes).adds(&scope_in(ELSEWHERE)));
    w.run(300);
}

pub(super) fn exclusive_dead(w: &mut World) {
    let ticket = start(w, with_key("a.y", "k").bad(3, End::Fails));
    start(w, x());
    w.run(200);
    start(w, x().runs_ms(20));
    ask(w, ticket, Ask::Replay);
    w.run(5);
    start(w, x());
    w.run(200);
    let ticket = start(w, x().bad(1, End::DeadLetters));
    start(w, x());
    w.run(50);
    ask(w, ticket, Ask::Purge);
    w.run(50);
}

/// Several instances are up.
fn warm(w: &mut World, function: &str) {
    for n in 0..3 {
        start(w, Plan::of(function).key(&format!("warm {n}")).runs_ms(30));
        w.run(1);
    }
    w.run(60);
}

pub(super) fn exclusive_cancelled(w: &mut World) {
    warm(w, "a.x");
    let tickets: Vec<Ticket> = (0..4).map(|_| start(w, x().runs_ms(30))).collect();
    w.run(20);
    ask(w, tickets[1], Ask::Cancel);
    w.run(3);
    ask(w, tickets[0], Ask::Cancel);
    sync(w, x());
    w.run(200);
    let waits = start(w, x().bad(1, End::Again(100)));
    start(w, x());
    w.run(30);
    ask(w, waits, Ask::Cancel);
    w.run(100);
}

/// Of one key, 16 are in memory.
pub(super) fn exclusive_many(w: &mut World) {
    for n in 0..22 {
        start(w, x().runs_ms(n % 2));
        if n % 5 == 4 {
            w.run(1);
        }
    }
    sync(w, x());
    w.run(30);
    w.crash(Keep::All);
    start(w, x());
    sync(w, x());
    w.run(300);
}

pub(super) fn exclusive_nested(w: &mut World) {
    let deepest = w.stage.add(x().runs_ms(2));
    let inner = w.stage.add(x().nests(&[deepest]));
    let sibling = w.stage.add(with_key("b.x", "k"));
    start(w, x().nests(&[inner, sibling]).bad(1, End::Again(5)));
    sync(w, x().runs_ms(1));
    let inner = w.stage.add(x().runs_ms(3).adds(&scope_in(ELSEWHERE)));
    sync(w, x().nests(&[inner]));
    w.run(300);
}

/// The caller dies while what it has called, with its key, goes on.
pub(super) fn exclusive_orphan(w: &mut World) {
    warm(w, "b.f");
    let inner = w.stage.add(with_key("b.x", "k").runs_ms(60));
    let outer = Plan::of("b.y").key("k").nests(&[inner]).adds(&scope_in(ELSEWHERE));
    start(w, outer);
    let most = w.clock.at() + Duration::from_millis(100);
    w.run_until(most, |w| w.busy() == 2);
    w.run(5);
    w.kill_one_that_waits();
    start(w, with_key("b.x", "k"));
    w.run(500);
}

pub(super) fn exclusive_emitted(w: &mut World) {
    let children = [w.stage.add(x().runs_ms(3)), w.stage.add(with_key("b.x", "other"))];
    start(w, x().starts(&children));
    let late = w.stage.add(x());
    sync(w, Plan::of("b.f").adds(&scope_in(ELSEWHERE)).starts(&[late]));
    w.run(200);
}

/// Calls that are older than the one which holds their key, since they were accepted later: with what emitted them.
pub(super) fn exclusive_older(w: &mut World) {
    let older: Vec<u32> = (0..2).map(|_| w.stage.add(x().runs_ms(2))).collect();
    start(w, Plan { starts_first: true, ..Plan::of("b.f").runs_ms(20).starts(&older) });
    let most = w.clock.at() + Duration::from_millis(50);
    w.run_until(most, |w| w.busy() > 0);
    w.run(2);
    let last = w.stage.add(Plan::of("b.f").runs_ms(5).bad(1, End::Again(60)));
    start(w, x().then(last));
    w.run(30);
    sync(w, x());
    w.run(300);
}

pub(super) fn exclusive_unknown(w: &mut World) {
    let fates = [Fate::LandsUnheard, Fate::Lost, Fate::LandsLate(Duration::from_millis(3))];
    for fate in fates {
        w.disk.script.push_back(fate);
        start(w, x().runs_ms(2));
        start(w, x());
        sync(w, x());
        w.run(60);
        start(w, x().runs_ms(10));
        let most = w.clock.at() + Duration::from_millis(50);
        w.run_until(most, |w| w.busy() > 0);
        w.disk.script.push_back(fate);
        start(w, x());
        w.run(100);
    }
    w.run(1_500);
}

pub(super) fn unique(w: &mut World) {
    let u = || Plan::of("a.u").key("k").adds(&scope_in(HOME));
    start(w, u().runs_ms(3));
    start(w, u());
    sync(w, u());
    start(w, Plan::of("b.u").key("k").adds(&scope_in(HOME)));
    w.run(5);
    sync(w, u());
    w.run(100);
    start(w, u());
    sync(w, u());
    let nested = w.stage.add(u());
    sync(w, Plan::of("b.f").adds(&scope_in(ELSEWHERE)).nests(&[nested]));
    w.run(50);
}

pub(super) fn unique_emitted(w: &mut World) {
    let child = |w: &mut World| w.stage.add(Plan::of("b.u").key("k").adds(&scope_in(HOME)).runs_ms(3));
    let (first, second, third) = (child(w), child(w), child(w));
    start(w, Plan::of("a.f").adds(&scope_in(HOME)).starts(&[first]));
    start(w, Plan::of("a.f").adds(&scope_in(ELSEWHERE)).starts(&[second, third]));
    let other = child(w);
    sync(w, Plan::of("a.f").adds(&scope_in(ELSEWHERE)).starts(&[other]));
    w.run(200);
    let late = child(w);
    start(w, Plan::of("a.f").starts(&[late]));
    w.run(100);
}

/// The unique key is at one home, the exclusive one at another.
pub(super) fn unique_and_exclusive(w: &mut World) {
    start(w, with_key("a.e", "one").runs_ms(3));
    start(w, with_key("a.e", "one"));
    start(w, with_key("a.e", "two"));
    sync(w, with_key("a.e", "three"));
    w.run(5);
    let child = w.stage.add(with_key("a.e", "two"));
    let own = w.stage.add(with_key("a.e", "four"));
    start(w, Plan::of("b.f").adds(&scope_in(ELSEWHERE)).starts(&[child, own]));
    w.run(200);
}

pub(super) fn unique_while_running(w: &mut World) {
    for _ in 0..2 {
        let v = || Plan::of("a.v").key("k").adds(&scope_in(ELSEWHERE));
        start(w, v().runs_ms(5));
        start(w, v());
        w.run(1);
        let child = w.stage.add(v());
        start(w, Plan::of("b.f").starts(&[child]));
        w.run(100);
    }
    w.run(100);
}

pub(super) fn unique_for_a_while(w: &mut World) {
    for pause in [100, 61_000, 100] {
        start(w, Plan::of("a.w").key("k").adds(&scope_in(ELSEWHERE)));
        w.run(pause);
    }
}

pub(super) fn unique_unknown(w: &mut World) {
    let fates = [Fate::LandsUnheard, Fate::Lost, Fate::LandsLate(Duration::from_millis(3))];
    for (n, fate) in fates.into_iter().enumerate() {
        let plan = |function| with_key(function, &format!("k{n}")).runs_ms(2);
        w.disk.script.push_back(fate);
        start(w, plan("a.u"));
        start(w, plan("a.u"));
        w.run(60);
        let child = w.stage.add(plan("a.u"));
        let both = w.stage.add(plan("a.e"));
        start(w, Plan::of("b.f").starts(&[child, both]));
        // The caller's end lands; what it has emitted is then carried over, and then home.
        let most = w.clock.at() + Duration::from_millis(50);
        w.run_until(most, |w| w.disk.rows(b'o').count() > 0);
        w.disk.script.push_back(fate);
        start(w, plan("a.e"));
        w.run(100);
    }
    w.run(1_500);
}

pub(super) fn delayed(w: &mut World) {
    start(w, x().delayed_ms(60));
    start(w, Plan::of("a.f").adds(&scope_in(ELSEWHERE)).delayed_ms(50));
    let child = w.stage.add(Plan::of("b.f").adds(&scope_in(HOME)).delayed_ms(30));
    let keyed = w.stage.add(x().delayed_ms(40));
    start(w, Plan::of("b.f").adds(&scope_in(HOME)).starts(&[child, keyed]));
    w.run(10);
    start(w, x().runs_ms(5));
    sync(w, x());
    let ticket = start(w, x().delayed_ms(500));
    w.run(300);
    ask(w, ticket, Ask::Cancel);
    w.run(300);
}
