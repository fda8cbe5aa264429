//! Scenarios of calls that hand on.

use std::time::Duration;

use bourse_node::Ask;

use super::keys::sync;
use super::{ELSEWHERE, HOME, ask, start};
use crate::disk::{Fate, Keep};
use crate::stage::{End, Plan, scope_in};
use crate::world::World;

/// A chain of these plans, and the first of them.
fn chain(w: &mut World, plans: impl IntoIterator<Item = Plan, IntoIter: DoubleEndedIterator>) -> Plan {
    let link = |next: Option<Plan>, plan: Plan| match next {
        None => Some(plan),
        Some(next) => Some(plan.then(w.stage.add(next))),
    };
    plans.into_iter().rev().fold(None, link).expect("a chain has a plan")
}

fn adds(function: &str, home: u8) -> Plan {
    Plan::of(function).adds(&scope_in(home))
}

pub(super) fn at_home(w: &mut World) {
    let steps = chain(w, [adds("a.f", HOME), adds("a.f", HOME).runs_ms(2), adds("a.q", HOME)]);
    start(w, steps);
    let steps = chain(w, [adds("a.f", HOME), Plan::of("a.f"), adds("a.f", HOME)]);
    sync(w, steps);
    w.run(200);
}

pub(super) fn elsewhere(w: &mut World) {
    let steps =
        [adds("a.f", ELSEWHERE), adds("a.f", ELSEWHERE), adds("a.f", HOME), adds("a.f", ELSEWHERE + 1)];
    let steps = chain(w, steps);
    start(w, steps);
    let steps = chain(w, [adds("a.f", ELSEWHERE), adds("a.f", HOME)]);
    sync(w, steps);
    w.run(300);
}

pub(super) fn across_modules(w: &mut World) {
    let steps =
        chain(w, [adds("a.f", HOME), adds("b.f", HOME), adds("a.f", ELSEWHERE), adds("b.f", ELSEWHERE)]);
    let ticket = start(w, steps);
    let steps = chain(w, [adds("a.f", HOME), adds("b.f", ELSEWHERE)]);
    sync(w, steps);
    w.run(3);
    ask(w, ticket, Ask::Await);
    w.run(300);
}

pub(super) fn tried_again(w: &mut World) {
    let steps = [
        adds("a.f", ELSEWHERE).bad(1, End::Again(5)),
        adds("b.q", HOME).bad(1, End::Fails),
        adds("b.q", ELSEWHERE).bad(1, End::Crashes),
        adds("a.f", HOME).bad(1, End::DeadLetters),
    ];
    let steps = chain(w, steps);
    let ticket = start(w, steps);
    w.run(400);
    ask(w, ticket, Ask::Replay);
    w.run(100);
    let steps = chain(w, [adds("a.f", ELSEWHERE), adds("b.f", HOME).runs_ms(30)]);
    let ticket = start(w, steps);
    w.run(20);
    ask(w, ticket, Ask::Cancel);
    w.run(100);
}

/// The chain holds the key of its first function to its end; one that gets its key on the way, while that function runs.
pub(super) fn with_a_key(w: &mut World) {
    let x = || Plan::of("a.x").key("k");
    let steps =
        [x().adds(&scope_in(ELSEWHERE)).runs_ms(2), adds("b.f", HOME).runs_ms(3), x().adds(&scope_in(HOME))];
    let steps = chain(w, steps);
    start(w, steps);
    start(w, x().adds(&scope_in(HOME)));
    let steps = chain(w, [x().adds(&scope_in(HOME)).runs_ms(2), adds("b.f", ELSEWHERE)]);
    sync(w, steps);
    w.run(4);
    start(w, x().adds(&scope_in(HOME)));
    w.run(100);
    let steps = chain(w, [adds("b.f", HOME), x().adds(&scope_in(ELSEWHERE)).runs_ms(5), adds("b.f", HOME)]);
    start(w, steps);
    let steps = chain(w, [adds("b.f", HOME), x().adds(&scope_in(HOME)).runs_ms(5)]);
    sync(w, steps);
    w.run(200);
}

pub(super) fn that_emit(w: &mut World) {
    let child = |w: &mut World, function: &str, home| w.stage.add(adds(function, home));
    let first = [child(w, "a.f", HOME), child(w, "b.f", ELSEWHERE)];
    let last = [child(w, "b.q", HOME)];
    let steps = [
        Plan { starts_first: true, ..adds("a.f", ELSEWHERE).starts(&first) },
        adds("b.f", HOME).bad(1, End::Again(5)),
        adds("a.f", ELSEWHERE).starts(&last),
    ];
    let steps = chain(w, steps);
    start(w, steps);
    w.run(200);
    let next = w.stage.add(adds("b.f", HOME));
    let emitted = w.stage.add(adds("a.f", HOME).then(next));
    let steps = chain(w, [adds("a.f", HOME).starts(&[emitted]), adds("a.f", HOME)]);
    sync(w, steps);
    w.run(200);
}

pub(super) fn nested(w: &mut World) {
    for home in [HOME, ELSEWHERE] {
        let steps = chain(w, [adds("b.f", HOME), adds("a.f", home), adds("b.f", HOME)]);
        let nested = w.stage.add(steps);
        let steps = chain(w, [adds("a.f", HOME).nests(&[nested]), adds("a.f", HOME)]);
        start(w, steps);
        w.run(200);
    }
}

pub(super) fn unknown(w: &mut World) {
    let fates = [Fate::LandsUnheard, Fate::Lost, Fate::LandsLate(Duration::from_millis(3))];
    for (n, fate) in fates.into_iter().enumerate() {
        let home = if n == 0 { HOME } else { ELSEWHERE };
        for step in 1..=2 {
            let plans = [adds("a.f", home), adds("b.f", ELSEWHERE).runs_ms(2), adds("a.f", home).runs_ms(1)];
            let steps = chain(w, plans);
            start(w, steps);
            let most = w.clock.at() + Duration::from_millis(50);
            for _ in 0..step {
                w.run_until(most, |w| w.busy() > 0);
                w.run_until(most, |w| w.busy() == 0);
            }
            w.disk.script.push_back(fate);
            w.run(200);
        }
    }
    w.run(1_500);
}

/// A step's outgoing record is carried over, and not deleted for long; the chain goes on meanwhile.
pub(super) fn old_steps(w: &mut World) {
    let plans = [adds("a.f", ELSEWHERE), adds("a.f", HOME).runs_ms(1), adds("a.f", HOME).runs_ms(20)];
    let steps = chain(w, plans);
    start(w, steps);
    let most = w.clock.at() + Duration::from_millis(100);
    w.run_until(most, |w| w.disk.rows(b'o').count() > 0);
    let carried = w.disk.commits() + 1;
    w.run_until(most, |w| w.disk.commits() >= carried);
    w.disk.script.push_back(Fate::Fails);
    w.run(15);
    w.crash(Keep::All);
    w.run(500);
}

/// The record that a call is accepted by is carried over, and not deleted for long; the call goes on meanwhile.
pub(super) fn gone_on(w: &mut World) {
    let steps = chain(w, [adds("a.f", HOME), adds("b.f", HOME).runs_ms(60)]);
    let child = w.stage.add(steps);
    start(w, Plan { starts_first: true, ..adds("a.f", ELSEWHERE).starts(&[child]) });
    let most = w.clock.at() + Duration::from_millis(100);
    w.run_until(most, |w| w.disk.rows(b'c').count() == 1 && w.disk.rows(b't').count() == 1);
    w.disk.script.push_back(Fate::Fails);
    w.run(40);
    w.crash(Keep::All);
    w.run(500);
}
