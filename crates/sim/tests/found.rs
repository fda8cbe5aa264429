//! What the simulator has found, kept as it was found: the shortest script for each.

use bourse_node::Ask;
use bourse_sim::boundaries::settle;
use bourse_sim::disk::{Keep, Mood};
use bourse_sim::stage::Plan;
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
    let most = w.clock.at() + std::time::Duration::from_millis(100);
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
