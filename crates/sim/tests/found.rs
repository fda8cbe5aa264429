//! What the simulator has found, kept as it was found: the shortest script for each.

use std::time::Duration;

use bourse_node::{Ask, Mode};
use bourse_sim::boundaries::settle;
use bourse_sim::clock::HOUR_MS;
use bourse_sim::disk::{Fate, Keep, Mood};
use bourse_sim::stage::{End, Plan, scope_in};
use bourse_sim::trace::Trace;
use bourse_sim::world::World;

fn world() -> World {
    let mut world = World::new(1, World::config(), Mood::steady(), Trace::default());
    world.run(100);
    world
}

fn ends_well(mut world: World) {
    settle(&mut world);
    assert_eq!(world.violations(), Vec::<String>::new());
}

/// Where its lane is not known yet, a call that lives was said not to be there.
#[test]
fn who_asks_before_recovery_is_over_is_not_told_that_there_is_nothing() {
    let mut w = world();
    let plan = w.stage.add(Plan::of("a.f").runs_ms(50));
    let ticket = w.start(plan);
    w.run(10);
    let call = w.gateway.call(ticket).and_then(|made| made.call).expect("it is accepted");
    w.crash(Keep::All);
    w.ask(call, Ask::Await);
    w.ask(call, Ask::Cancel);
    ends_well(w);
}

/// The page after the first one of a partition was looked for in the next partition: the rest was lost from sight.
#[test]
fn a_lane_with_more_than_a_page_at_one_partition_is_drained() {
    let mut w = world();
    let children: Vec<u32> = (0..600).map(|_| w.stage.add(Plan::of("b.f"))).collect();
    let plan = w.stage.add(Plan::of("a.f").starts(&children));
    w.start(plan);
    // They are in the store, all at one home; the next life finds them there.
    let most = w.clock.at() + Duration::from_millis(100);
    assert!(w.run_until(most, |w| w.disk.rows(b'c').count() >= 600), "they are accepted");
    w.crash(Keep::All);
    ends_well(w);
}

/// What was accepted while an earlier life's calls were being found filled memory, so that these were never read, and
/// kept what was in memory waiting.
#[test]
fn calls_accepted_during_recovery_do_not_wedge_their_lane() {
    let mut w = world();
    w.crash(Keep::All);
    for _ in 0..5 {
        let plan = w.stage.add(Plan { padding: 12 << 20, ..Plan::of("a.f") });
        w.start(plan);
        w.run(3);
    }
    ends_well(w);
}

/// A call that had landed, but was not yet known to have, was found by the recovery and run; and once more when it was
/// known.
#[test]
fn a_call_that_is_found_before_it_is_known_to_be_accepted_runs_once() {
    let mut w = world();
    w.crash(Keep::All);
    let plan = w.stage.add(Plan::of("a.f").adds(&scope_in(77)));
    w.disk.script.push_back(Fate::LandsToldLate(Duration::from_millis(500)));
    w.start(plan);
    w.run(1_000);
    assert_eq!(w.stage.runs(plan), 1);
    ends_well(w);
}

/// The calls that a call had emitted were not looked for when nobody could tell whether its commit had landed, but for
/// those of other partitions.
#[test]
fn what_a_call_emits_is_found_when_its_commit_landed_unheard_and_the_store_is_away() {
    for function in ["a.f", "a.q"] {
        for mode in [Mode::Sync, Mode::Async] {
            let mut w = world();
            let children: Vec<u32> = (0..2).map(|_| w.stage.add(Plan::of("b.f"))).collect();
            let plan = w.stage.add(Plan::of(function).adds(&scope_in(77)).starts(&children));
            w.call(plan, mode, "", None);
            let most = w.clock.at() + Duration::from_millis(100);
            assert!(w.run_until(most, |w| w.busy() > 0));
            w.disk.script.push_back(Fate::LandsUnheard);
            w.run_until(most, |w| w.books.ledger(&scope_in(77)) > 0);
            // So long that acquiring the partition is given up.
            w.disk.mood.away = true;
            w.run(20_000);
            w.disk.mood.away = false;
            ends_well(w);
        }
    }
}

/// A pause of a second became one of an hour when the wall clock was set back and the node started again.
#[test]
fn a_clock_that_is_set_back_does_not_make_a_pause_longer() {
    let mut w = world();
    let plan = w.stage.add(Plan::of("a.f").bad(1, End::Fails));
    w.start(plan);
    w.run(100);
    w.clock.jump(-HOUR_MS);
    w.crash(Keep::All);
    w.run(2_000);
    assert_eq!(w.stage.runs(plan), 2);
    ends_well(w);
}

/// A partition that accepts a call and ends it, both for another partition, kept both under one key: when the deletion
/// of the first record was late, it deleted the second.
#[test]
fn a_call_is_accepted_and_ended_by_one_partition_for_another() {
    let mut w = world();
    let child = w.stage.add(Plan::of("b.f").adds(&scope_in(77)));
    let plan =
        w.stage.add(Plan { starts_first: true, ..Plan::of("a.f").adds(&scope_in(77)).starts(&[child]) });
    w.start(plan);
    let most = w.clock.at() + Duration::from_millis(300);
    assert!(w.run_until(most, |w| w.disk.rows(b'o').count() > 0));
    // It is carried over, and then not deleted where it was.
    let deletes = |w: &World| w.disk.rows(b'c').count() == 1 && w.disk.rows(b't').count() == 1;
    assert!(w.run_until(most, deletes));
    w.disk.script.push_back(Fate::Fails);
    w.run(500);
    assert!(w.disk.rows(b'o').count() > 0, "something is not deleted yet");
    ends_well(w);
}

/// While a node was finding out what an earlier life had left for other partitions, it took what it was just writing
/// itself for that, and carried it over twice.
#[test]
fn what_is_written_during_recovery_is_carried_over_once() {
    let mut w = world();
    w.disk.mood.takes_us = (8_000, 8_000);
    w.crash(Keep::All);
    let child = w.stage.add(Plan::of("b.f").adds(&scope_in(0)));
    let plan =
        w.stage.add(Plan { starts_first: true, ..Plan::of("a.f").adds(&scope_in(1)).starts(&[child]) });
    w.call(plan, Mode::Sync, "", None);
    let most = w.clock.at() + Duration::from_millis(300);
    assert!(w.run_until(most, |w| w.busy() > 0));
    w.disk.script.push_back(Fate::LandsToldLate(Duration::from_millis(2_000)));
    w.run(3_000);
    assert_eq!(w.stage.runs(child), 1);
    ends_well(w);
}

/// A call that had ended at another partition was still live at its home; a page that was read early in the recovery
/// brought it into memory, where its end did not reach it.
#[test]
fn a_call_whose_end_is_on_its_way_is_not_run_again_after_a_restart() {
    let mut w = world();
    let dead = w.stage.add(Plan::of("a.f").bad(1, End::DeadLetters));
    let dead = w.start(dead);
    w.run(100);
    let dead = w.gateway.call(dead).and_then(|made| made.call).expect("it is accepted");
    let plan = w.stage.add(Plan::of("a.f").adds(&scope_in(77)));
    w.start(plan);
    let most = w.clock.at() + Duration::from_millis(500);
    assert!(w.run_until(most, |w| w.disk.rows(b'o').count() > 0));
    w.disk.mood.takes_us = (8_000, 8_000);
    w.crash(Keep::Nothing);
    w.disk.script.push_back(Fate::Lands);
    w.ask(dead, Ask::Replay);
    w.run(1_000);
    assert_eq!(w.stage.runs(plan), 1);
    ends_well(w);
}

/// A dead letter goes back to where a look has already been, which then found it nowhere.
#[test]
fn a_look_during_a_replay_finds_the_call() {
    for pause_us in (0..6_000).step_by(250) {
        let mut w = world();
        let plan = w.stage.add(Plan::of("a.f").bad(1, End::DeadLetters));
        let ticket = w.start(plan);
        w.run(100);
        let call = w.gateway.call(ticket).and_then(|made| made.call).expect("it is accepted");
        w.ask(call, Ask::Replay);
        let until = w.clock.at() + Duration::from_micros(pause_us);
        w.run_until(until, |_| false);
        w.ask(call, Ask::Look);
        ends_well(w);
    }
}

/// A call that had ended at another partition, and was still live at its home, was cancelled there.
#[test]
fn a_call_whose_end_is_on_its_way_is_not_cancelled_after_a_restart() {
    let mut w = world();
    let plan = w.stage.add(Plan::of("a.f").adds(&scope_in(77)));
    let ticket = w.start(plan);
    let most = w.clock.at() + Duration::from_millis(500);
    assert!(w.run_until(most, |w| w.disk.rows(b'o').count() > 0));
    let call = w.gateway.call(ticket).and_then(|made| made.call).expect("it is accepted");
    w.disk.mood.takes_us = (8_000, 8_000);
    w.crash(Keep::Nothing);
    // One makes its lane known; the other is what matters.
    let other = w.stage.add(Plan::of("a.f"));
    w.start(other);
    w.run(60);
    w.ask(call, Ask::Cancel);
    w.run(1_000);
    ends_well(w);
}

/// Of two who wait for a call that has ended, the first was not told.
#[test]
fn all_who_wait_for_a_call_that_has_ended_are_told() {
    let mut w = world();
    let plan = w.stage.add(Plan::of("a.f"));
    let ticket = w.start(plan);
    w.run(100);
    let call = w.gateway.call(ticket).and_then(|made| made.call).expect("it is accepted");
    w.ask(call, Ask::Await);
    w.ask(call, Ask::Await);
    ends_well(w);
}

/// Who began to wait for a call during the recovery that found its end was not told of it.
#[test]
fn who_waits_is_told_of_an_end_that_an_earlier_life_has_left() {
    let mut w = world();
    let plan = w.stage.add(Plan::of("a.f").adds(&scope_in(77)));
    let ticket = w.start(plan);
    let most = w.clock.at() + Duration::from_millis(500);
    assert!(w.run_until(most, |w| w.disk.rows(b'o').count() > 0));
    let call = w.gateway.call(ticket).and_then(|made| made.call).expect("it is accepted");
    w.disk.mood.takes_us = (8_000, 8_000);
    w.crash(Keep::Nothing);
    // Its lane is known, so that it is seen to live.
    let other = w.stage.add(Plan::of("a.f"));
    w.start(other);
    w.run(60);
    let question = w.ask(call, Ask::Await);
    w.run(2_000);
    assert!(w.gateway.question(question).is_some_and(|asked| asked.told.is_some()));
    ends_well(w);
}

/// Who waited for a call that was cancelled was told only if the call's end could be read back.
#[test]
fn who_waits_for_a_call_that_is_cancelled_is_told_though_the_store_cannot_read() {
    let mut w = world();
    let plan = w.stage.add(Plan::of("a.f").bad(1, End::Again(60_000)));
    let ticket = w.start(plan);
    w.run(100);
    let call = w.gateway.call(ticket).and_then(|made| made.call).expect("it is accepted");
    let question = w.ask(call, Ask::Await);
    w.run(10);
    w.disk.mood.blind = 1_000;
    w.ask(call, Ask::Cancel);
    w.run(100);
    w.disk.mood.blind = 0;
    assert!(w.gateway.question(question).is_some_and(|asked| asked.told.is_some()));
    ends_well(w);
}

/// What a call that had been cancelled still called, at its own home, took effect by itself.
#[test]
fn what_a_cancelled_call_calls_at_its_home_has_no_effect() {
    let mut w = world();
    let joins = w.stage.add(Plan::of("b.f").adds(&scope_in(0)));
    let plan = Plan { peek: Some(scope_in(77)), ..Plan::of("a.f").adds(&scope_in(0)).nests(&[joins]) };
    let plan = w.stage.add(plan);
    let ticket = w.start(plan);
    let most = w.clock.at() + Duration::from_millis(100);
    assert!(w.run_until(most, |w| w.busy() > 0));
    // It has written, and has just been told what it read elsewhere, when it is cancelled; it calls afterwards.
    w.disk.mood.takes_us = (20_000, 20_000);
    w.run(30);
    let most = w.clock.at() + Duration::from_millis(100);
    assert!(w.run_until(most, |w| w.disk.is_quiet()));
    let call = w.gateway.call(ticket).and_then(|made| made.call).expect("it is accepted");
    w.ask(call, Ask::Cancel);
    w.run(200);
    ends_well(w);
}
