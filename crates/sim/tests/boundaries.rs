//! Each scenario survives a crash at each of its boundaries, whatever that leaves on the disk. The scenarios are
//! described in `src/scenarios.rs`.

use bourse_sim::boundaries::sweep;
use bourse_sim::scenarios::SCENARIOS;

/// Sweeps a scenario. It has at least so many boundaries: else it tests nothing.
fn survives(name: &str, boundaries_min: u64) {
    let began = std::time::Instant::now();
    let scenario = SCENARIOS.iter().find(|s| s.name == name).expect("a scenario of that name");
    let sweep = sweep(scenario, scenario.stride);
    let took = began.elapsed().as_secs_f64();
    println!(
        "{name}: {} boundaries, {} runs in {took:.1} s, {:.0} × real time",
        sweep.boundaries,
        sweep.runs,
        sweep.simulated.as_secs_f64() / took
    );
    for (crash_at, violations) in sweep.failures.iter().take(5) {
        println!("{crash_at:?}: {violations:#?}");
    }
    assert_eq!(sweep.failures.len(), 0, "runs went wrong");
    assert!(sweep.boundaries >= boundaries_min, "{} boundaries are few", sweep.boundaries);
}

macro_rules! scenarios {
    ($($test:ident: $name:literal, $least:literal;)*) => {
        $(#[test]
        fn $test() {
            survives($name, $least);
        })*

        #[test]
        fn every_scenario_is_swept() {
            let swept = [$($name),*];
            for scenario in SCENARIOS {
                assert!(swept.contains(&scenario.name), "{} is not", scenario.name);
            }
        }
    };
}

scenarios! {
    accept: "accept", 20;
    accept_with_key: "accept with a key", 20;
    settle_at_home: "settle at its own home", 20;
    settle_elsewhere: "settle with state at another home", 20;
    emitted_here: "calls emitted at the same partition", 20;
    emitted_elsewhere: "calls emitted to another partition", 20;
    webhooks: "webhooks emitted, here and elsewhere", 20;
    emitted_by_sync: "calls emitted by a call that is not durable", 20;
    sync_with_retry: "a synchronous call of a function with retry", 20;
    nested: "nested calls, at home and elsewhere", 20;
    retry: "retry", 20;
    dead_letter: "dead letter, then replay, then purge", 20;
    verdicts: "the function decides", 20;
    cancel: "cancel what waits, runs, and has ended", 20;
    awaits: "await", 20;
    recovery: "recovery of what was for another partition", 20;
    unknown_accepts: "unknown outcomes of accepts", 20;
    unknown_ends: "unknown outcomes of ends", 20;
    unknown_and_away: "unknown outcomes, and then the store is away", 20;
    failed_batches: "failed batches", 20;
    instances_die: "instances die", 20;
    backlog_by_size: "a backlog larger than memory, by size", 20;
    blind_pages: "pages that cannot be read", 20;
    during_recovery: "calls accepted during a recovery", 20;
    backlog_by_number: "a backlog larger than memory, by number", 20;
    drain: "drain and restart", 20;
    cron_line: "a cron line", 20;
    cron_line_in_doubt: "a cron line, and commits of which nobody knows", 20;
    topic: "a topic with two who listen", 20;
    exclusive: "exclusive calls, durable and not, in one line", 20;
    exclusive_retried: "exclusive calls that are tried again", 20;
    exclusive_dead: "exclusive calls that become dead letters", 20;
    exclusive_cancelled: "exclusive calls that are cancelled", 20;
    exclusive_many: "more exclusive calls than memory holds", 20;
    exclusive_nested: "exclusive calls that call others with their key", 20;
    exclusive_orphan: "an exclusive caller dies while what it has called goes on", 20;
    exclusive_emitted: "exclusive calls that are emitted", 20;
    exclusive_older: "exclusive calls that are older than who holds their key", 20;
    exclusive_unknown: "unknown outcomes among exclusive calls", 20;
    unique: "unique calls at once", 20;
    unique_emitted: "unique calls that are emitted", 20;
    unique_and_exclusive: "unique calls with an exclusive key at another home", 20;
    unique_while_running: "calls that are unique until they have ended", 20;
    unique_for_a_while: "calls that are unique for a while", 20;
    unique_unknown: "unknown outcomes of unique calls", 20;
    delayed: "delayed calls", 20;
    tail_at_home: "hand on at home", 20;
    tail_elsewhere: "hand on with state at another home", 20;
    tail_across_modules: "hand on to another module", 20;
    tail_tried_again: "steps that are tried again", 20;
    tail_with_a_key: "hand on with an exclusive key", 20;
    tail_that_emits: "steps that emit", 20;
    tail_nested: "nested calls that hand on", 20;
    tail_unknown: "unknown outcomes of steps", 20;
    tail_late: "a step that is carried over late", 20;
    tail_gone_on: "a call that goes on before it is known to be accepted", 20;
}
