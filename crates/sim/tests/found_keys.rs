//! What the simulator has found about keys, steps and delays; as `found.rs`.

use std::time::Duration;

use bourse_node::{Ask, Mode, Ticket};
use bourse_sim::boundaries::settle;
use bourse_sim::disk::{Fate, Keep, Mood};
use bourse_sim::stage::{End, Plan, scope_in};
use bourse_sim::trace::Trace;
use bourse_sim::world::World;
use bourse_wire::id::CallId;

fn world() -> World {
    let mut world = World::new(1, World::config(), Mood::steady(), Trace::default());
    world.run(100);
    world
}

fn ends_well(mut world: World) {
    settle(&mut world);
    assert_eq!(world.violations(), Vec::<String>::new());
}

fn start(w: &mut World, plan: Plan) -> Ticket {
    let plan = w.stage.add(plan);
    w.start(plan)
}

fn id(w: &World, ticket: Ticket) -> Option<CallId> {
    w.gateway.call(ticket).and_then(|made| made.call)
}

/// Runs until something is so, which it has to be soon.
fn until(w: &mut World, what: impl FnMut(&World) -> bool) {
    let most = w.clock.at() + Duration::from_millis(500);
    assert!(w.run_until(most, what), "it never is");
}

fn x() -> Plan {
    let plan = Plan::of("a.x").key("k");
    let home = plan.exclusive().expect("it is exclusive").partition().0;
    plan.adds(&scope_in(home))
}

/// An attempt that was run again because the partition of its key was lost had the fence of the one before: there was no
/// other until the partition was back.
#[test]
fn an_attempt_that_is_run_again_has_a_fence_of_its_own() {
    let mut w = world();
    start(&mut w, x());
    w.run(50);
    w.disk.script.push_back(Fate::Lost);
    start(&mut w, x());
    let plan = w.stage.add(x());
    w.call(plan, Mode::Sync, "", None);
    w.run(100);
    assert!(w.stage.runs(plan) > 1, "it is run again");
    ends_well(w);
}

/// A call that a function had made was to be unique until an older one had ended. Whether that had was to be known when
/// the recovery was over; which waited for the call.
#[test]
fn a_recovery_does_not_wait_for_who_has_a_unique_key() {
    let mut w = world();
    let v = || Plan::of("a.v").key("k").adds(&scope_in(77)).runs_ms(200);
    start(&mut w, v());
    w.run(20);
    let child = w.stage.add(v());
    start(&mut w, Plan::of("b.f").starts(&[child]));
    until(&mut w, |w| w.disk.rows(b'o').count() > 0);
    w.crash(Keep::All);
    ends_well(w);
}

/// What was brought home during a recovery was loaded, and was given its exclusive key, before keys are given: so it was
/// not seen in memory, and loaded once more.
#[test]
fn exclusive_calls_that_come_home_during_a_recovery_are_loaded_once() {
    let mut w = world();
    for key in ["one", "two", "three"] {
        start(&mut w, Plan::of("a.e").key(key));
        w.run(1);
    }
    until(&mut w, |w| w.disk.rows(b'c').count() == 3);
    assert!(w.disk.rows(b'o').count() > 0, "something is not deleted yet");
    w.crash(Keep::Nothing);
    ends_well(w);
}

/// A caller died while what it had called, with its own exclusive key, went on; it was tried again at once, and both ran.
#[test]
fn who_is_tried_again_waits_for_what_it_has_left_behind() {
    let mut w = world();
    for _ in 0..3 {
        start(&mut w, Plan::of("b.f").runs_ms(5));
        w.run(1);
    }
    w.run(50);
    let inner = w.stage.add(Plan::of("b.x").key("k").runs_ms(60));
    let outer = w.stage.add(Plan::of("b.y").key("k").nests(&[inner]));
    w.start(outer);
    until(&mut w, |w| w.busy() == 2);
    w.run(5);
    w.kill_one_that_waits();
    w.run(500);
    assert_eq!(w.stage.runs(outer), 2);
    ends_well(w);
}

/// A call that a function had made was carried home, and went on there in another module. After a crash it was looked for
/// in its first module only, not found, and accepted once more: its first step took effect twice.
#[test]
fn a_call_that_has_gone_on_elsewhere_is_not_accepted_again() {
    let mut w = world();
    let last = w.stage.add(Plan::of("b.f").adds(&scope_in(0)).runs_ms(400));
    let child = w.stage.add(Plan::of("a.f").adds(&scope_in(0)).then(last));
    let plan = Plan { starts_first: true, ..Plan::of("a.f").adds(&scope_in(77)).starts(&[child]) };
    start(&mut w, plan);
    // It is carried over, and then not deleted where it was.
    until(&mut w, |w| w.disk.rows(b'c').count() == 1 && w.disk.rows(b't').count() == 1);
    w.disk.script.push_back(Fate::Fails);
    w.run(100);
    assert!(w.disk.rows(b'o').count() > 0, "something is not deleted yet");
    assert_eq!(w.stage.runs(last), 1, "it has gone on");
    w.crash(Keep::All);
    ends_well(w);
}

/// A call that was accepted where its unique key is, and on its way to where its exclusive key is, was said not to be
/// there.
#[test]
fn a_call_on_its_way_home_is_not_said_to_be_nowhere() {
    for ask in [Ask::Look, Ask::Replay, Ask::Cancel] {
        let mut w = world();
        let ticket = start(&mut w, Plan::of("a.e").key("one"));
        until(&mut w, |w| id(w, ticket).is_some());
        assert_eq!(w.disk.rows(b'c').count(), 0, "it is on its way");
        let call = id(&w, ticket).expect("it is accepted");
        w.ask(call, ask);
        w.run(20);
        ends_well(w);
    }
}

/// A delayed call that was to be cancelled was run at once when that could not be written.
#[test]
fn a_delayed_call_stays_so_when_it_cannot_be_cancelled() {
    let mut w = world();
    let plan = w.stage.add(Plan::of("a.f").delayed_ms(5_000));
    let ticket = w.start(plan);
    w.run(20);
    w.disk.script.push_back(Fate::Fails);
    let call = id(&w, ticket).expect("it is accepted");
    w.ask(call, Ask::Cancel);
    w.run(100);
    assert_eq!(w.stage.runs(plan), 0);
    // That it did not end is no end that somebody wanted.
    ends_well(w);
}

/// After a crash the oldest call with a key had it, though another held it: one that had handed on, and was to be tried
/// again.
#[test]
fn who_holds_a_key_when_the_node_ends_still_does() {
    let mut w = world();
    let older = w.stage.add(x());
    start(&mut w, Plan { starts_first: true, ..Plan::of("b.f").runs_ms(20).starts(&[older]) });
    until(&mut w, |w| w.busy() > 0);
    w.run(2);
    let last = w.stage.add(Plan::of("b.f").bad(1, End::Again(200)));
    start(&mut w, x().then(last));
    w.run(60);
    assert_eq!((w.stage.runs(last), w.stage.runs(older)), (1, 0));
    w.crash(Keep::All);
    ends_well(w);
}
