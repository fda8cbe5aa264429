//! Named scenarios: short scripts, each of one thing that durable calls do.
//!
//! A script is what clients and the world do, and when. The node may crash at any boundary while it goes on: it does not
//! rely on what a client would not know then.

mod keys;
mod tails;

use std::time::Duration;

use bourse_node::{Ask, Config, Input, Mode, Ticket};
use bourse_wire::id::CallId;

use crate::disk::{Fate, Keep};
use crate::stage::{End, Plan, scope_in};
use crate::triggers::Offers;
use crate::world::World;

/// See the module.
pub struct Scenario {
    /// What it is about.
    pub name: &'static str,
    /// How the node is set.
    pub config: fn() -> Config,
    /// What is done.
    pub script: fn(&mut World),
    /// Every so many boundaries are enough: the others are of the same kind. 1: all.
    pub stride: u64,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    scenario("accept", accept),
    scenario("accept with a key", accept_with_key),
    scenario("settle at its own home", settle_at_home),
    scenario("settle with state at another home", settle_elsewhere),
    scenario("calls emitted at the same partition", emitted_here),
    scenario("calls emitted to another partition", emitted_elsewhere),
    scenario("calls emitted by a call that is not durable", emitted_by_sync),
    scenario("webhooks emitted, here and elsewhere", webhooks),
    scenario("a synchronous call of a function with retry", sync_with_retry),
    scenario("nested calls, at home and elsewhere", nested),
    scenario("retry", retry),
    scenario("dead letter, then replay, then purge", dead_letter),
    scenario("the function decides", verdicts),
    scenario("cancel what waits, runs, and has ended", cancel),
    scenario("await", awaits),
    scenario("recovery of what was for another partition", recovery),
    scenario("unknown outcomes of accepts", unknown_accepts),
    scenario("unknown outcomes of ends", unknown_ends),
    scenario("unknown outcomes, and then the store is away", unknown_and_away),
    scenario("failed batches", failed_batches),
    scenario("instances die", instances_die),
    scenario("a backlog larger than memory, by size", backlog_by_size),
    scenario("pages that cannot be read", blind_pages),
    scenario("calls accepted during a recovery", during_recovery),
    Scenario { stride: 901, ..scenario("a backlog larger than memory, by number", backlog_by_number) },
    scenario("drain and restart", drain),
    scenario("a cron line", cron_line),
    scenario("a cron line, and commits of which nobody knows", cron_line_in_doubt),
    scenario("a topic with two who listen", topic),
    scenario("exclusive calls, durable and not, in one line", keys::exclusive),
    scenario("exclusive calls that are tried again", keys::exclusive_retried),
    scenario("exclusive calls that become dead letters", keys::exclusive_dead),
    scenario("exclusive calls that are cancelled", keys::exclusive_cancelled),
    scenario("more exclusive calls than memory holds", keys::exclusive_many),
    scenario("exclusive calls that call others with their key", keys::exclusive_nested),
    scenario("an exclusive caller dies while what it has called goes on", keys::exclusive_orphan),
    scenario("exclusive calls that are emitted", keys::exclusive_emitted),
    scenario("exclusive calls that are older than who holds their key", keys::exclusive_older),
    scenario("unknown outcomes among exclusive calls", keys::exclusive_unknown),
    scenario("unique calls at once", keys::unique),
    scenario("unique calls that are emitted", keys::unique_emitted),
    scenario("unique calls with an exclusive key at another home", keys::unique_and_exclusive),
    scenario("calls that are unique until they have ended", keys::unique_while_running),
    scenario("calls that are unique for a while", keys::unique_for_a_while),
    scenario("unknown outcomes of unique calls", keys::unique_unknown),
    scenario("delayed calls", keys::delayed),
    scenario("hand on at home", tails::at_home),
    scenario("hand on with state at another home", tails::elsewhere),
    scenario("hand on to another module", tails::across_modules),
    scenario("steps that are tried again", tails::tried_again),
    scenario("hand on with an exclusive key", tails::with_a_key),
    scenario("steps that emit", tails::that_emit),
    scenario("nested calls that hand on", tails::nested),
    scenario("unknown outcomes of steps", tails::unknown),
    scenario("a step that is carried over late", tails::old_steps),
    scenario("a call that goes on before it is known to be accepted", tails::gone_on),
];

const fn scenario(name: &'static str, script: fn(&mut World)) -> Scenario {
    Scenario { name, config: World::config, script, stride: 1 }
}

/// Where calls are at home that have no key: the first few hundred of a life.
const HOME: u8 = 0;
/// Two arguments of this size fill the memory that a lane has for calls that are ready; it is also the most that an
/// argument may have, but for what the plan's number takes.
const HALF_OF_MEMORY: usize = (16 << 20) - 8;
/// Another partition.
const ELSEWHERE: u8 = 77;

fn start(w: &mut World, plan: Plan) -> Ticket {
    let plan = w.stage.add(plan);
    w.start(plan)
}

fn keyed(w: &mut World, key: &str) -> Ticket {
    let plan = w.stage.add(Plan::of("a.f").adds(&scope_in(HOME)));
    w.call(plan, Mode::Async, key, None)
}

/// The id of a call, if its client knows it.
fn id(w: &World, ticket: Ticket) -> Option<CallId> {
    w.gateway.call(ticket).and_then(|made| made.call)
}

fn ask(w: &mut World, ticket: Ticket, ask: Ask) {
    if let Some(call) = id(w, ticket) {
        w.ask(call, ask);
    }
}

fn accept(w: &mut World) {
    start(w, Plan::of("a.f"));
    w.run(1);
    start(w, Plan::of("b.f"));
    w.run(100);
}

fn accept_with_key(w: &mut World) {
    keyed(w, "k");
    keyed(w, "k");
    w.run(1);
    keyed(w, "k");
    keyed(w, "other");
    w.run(200);
    keyed(w, "k");
    w.run(20);
}

fn settle_at_home(w: &mut World) {
    for _ in 0..3 {
        start(w, Plan::of("a.f").adds(&scope_in(HOME)));
    }
    w.run(100);
}

fn settle_elsewhere(w: &mut World) {
    for _ in 0..2 {
        start(w, Plan::of("a.f").adds(&scope_in(ELSEWHERE)));
    }
    w.run(2);
    start(w, Plan { peek: Some(scope_in(ELSEWHERE)), ..Plan::of("b.f").adds(&scope_in(ELSEWHERE + 1)) });
    w.run(100);
}

fn emitted_here(w: &mut World) {
    let children = [
        w.stage.add(Plan::of("a.f").adds(&scope_in(HOME))),
        w.stage.add(Plan::of("b.f").adds(&scope_in(ELSEWHERE))),
    ];
    start(w, Plan::of("a.f").adds(&scope_in(HOME)).starts(&children));
    w.run(200);
}

fn emitted_elsewhere(w: &mut World) {
    let children = [
        w.stage.add(Plan::of("a.f").adds(&scope_in(HOME))),
        w.stage.add(Plan::of("b.f").adds(&scope_in(ELSEWHERE))),
    ];
    let plan = Plan { starts_first: true, ..Plan::of("a.f").adds(&scope_in(ELSEWHERE)).starts(&children) };
    start(w, plan);
    w.run(200);
}

fn emitted_by_sync(w: &mut World) {
    let child = w.stage.add(Plan::of("a.f").adds(&scope_in(HOME)));
    let first = w.stage.add(Plan::of("b.f").adds(&scope_in(ELSEWHERE)));
    let plan =
        Plan { starts_first: true, ..Plan::of("a.f").adds(&scope_in(ELSEWHERE)).starts(&[child, first]) };
    let plan = w.stage.add(plan);
    w.call(plan, Mode::Sync, "", None);
    w.run(200);
}

fn webhooks(w: &mut World) {
    let first = w.stage.add(Plan::of("bourse.webhook"));
    let fails = w.stage.add(Plan::of("bourse.send").bad(1, End::Fails));
    start(w, Plan::of("a.f").adds(&scope_in(HOME)).bad(1, End::Fails).starts(&[first]));
    let plan = Plan { starts_first: true, ..Plan::of("a.f").adds(&scope_in(ELSEWHERE)).starts(&[fails]) };
    let plan = w.stage.add(plan);
    w.call(plan, Mode::Sync, "", None);
    start(w, Plan::of("bourse.webhook"));
    w.run(3_000);
}

fn sync_with_retry(w: &mut World) {
    let plan = w.stage.add(Plan::of("a.q").adds(&scope_in(ELSEWHERE)).bad(1, End::Fails));
    w.call(plan, Mode::Sync, "", None);
    w.run(5);
    let plan = w.stage.add(Plan::of("b.q").adds(&scope_in(HOME)).runs_ms(50));
    w.call(plan, Mode::Sync, "", Some(Duration::from_millis(20)));
    w.run(200);
}

fn nested(w: &mut World) {
    let joins = w.stage.add(Plan::of("b.f").adds(&scope_in(HOME)));
    let apart = w.stage.add(Plan::of("b.f").adds(&scope_in(ELSEWHERE)));
    start(w, Plan::of("a.f").adds(&scope_in(HOME)).nests(&[joins, apart]).bad(1, End::Again(5)));
    w.run(300);
}

fn retry(w: &mut World) {
    start(w, Plan::of("a.q").adds(&scope_in(HOME)).bad(2, End::Fails));
    start(w, Plan::of("b.q").adds(&scope_in(ELSEWHERE)).bad(1, End::Crashes));
    w.run(400);
}

fn dead_letter(w: &mut World) {
    // The third attempt is the last one of a life; the next would not fail.
    let ticket = start(w, Plan::of("a.q").adds(&scope_in(HOME)).bad(3, End::Fails));
    w.run(100);
    ask(w, ticket, Ask::Replay);
    w.run(100);
    let ticket = start(w, Plan::of("a.f").bad(1, End::DeadLetters));
    w.run(50);
    ask(w, ticket, Ask::Purge);
    w.run(20);
    ask(w, ticket, Ask::Look);
    w.run(20);
}

fn verdicts(w: &mut World) {
    start(w, Plan::of("a.f").adds(&scope_in(HOME)).bad(1, End::Again(30)));
    start(w, Plan::of("a.f").adds(&scope_in(HOME)).bad(1, End::Discards));
    start(w, Plan::of("b.f").adds(&scope_in(HOME)).bad(1, End::DeadLetters));
    w.run(200);
}

fn cancel(w: &mut World) {
    let tickets: Vec<Ticket> =
        (0..6).map(|n| start(w, Plan::of("a.f").adds(&scope_in(HOME + n % 2)).runs_ms(30))).collect();
    w.run(20);
    ask(w, tickets[0], Ask::Cancel);
    ask(w, tickets[5], Ask::Cancel);
    w.run(5);
    ask(w, tickets[5], Ask::Cancel);
    w.run(200);
    ask(w, tickets[1], Ask::Cancel);
    w.run(20);
}

fn awaits(w: &mut World) {
    let tickets: Vec<Ticket> = [
        Plan::of("a.f").adds(&scope_in(HOME)).runs_ms(20),
        Plan::of("b.q").adds(&scope_in(HOME)).bad(9, End::Fails),
    ]
    .into_iter()
    .map(|plan| start(w, plan))
    .collect();
    w.run(5);
    for ticket in tickets {
        ask(w, ticket, Ask::Await);
    }
    w.run(200);
}

fn recovery(w: &mut World) {
    let child = w.stage.add(Plan::of("b.f").adds(&scope_in(HOME)));
    let plan = Plan { starts_first: true, ..Plan::of("a.f").adds(&scope_in(ELSEWHERE)).starts(&[child]) };
    start(w, plan);
    start(w, Plan::of("a.f").adds(&scope_in(ELSEWHERE)));
    let most = w.clock.at() + Duration::from_millis(500);
    w.run_until(most, |w| w.disk.rows(b'o').count() >= 2);
    w.crash(Keep::Nothing);
    w.run(300);
}

fn unknown_accepts(w: &mut World) {
    let fates = [Fate::LandsUnheard, Fate::Lost, Fate::LandsLate(Duration::from_millis(3))];
    for (n, fate) in fates.into_iter().enumerate() {
        w.disk.script.push_back(fate);
        if n == 1 {
            keyed(w, "k");
            keyed(w, "k");
        } else {
            start(w, Plan::of("a.f").adds(&scope_in(HOME)));
        }
        w.run(60);
    }
    w.run(200);
}

fn unknown_ends(w: &mut World) {
    let fates = [Fate::LandsUnheard, Fate::Lost, Fate::LandsLate(Duration::from_millis(3))];
    for (n, fate) in fates.into_iter().enumerate() {
        let scope = if n == 0 { HOME } else { ELSEWHERE };
        start(w, Plan::of("a.f").adds(&scope_in(scope)));
        let most = w.clock.at() + Duration::from_millis(50);
        w.run_until(most, |w| w.busy() > 0);
        w.disk.script.push_back(fate);
        w.run(100);
    }
    w.run(1_500);
}

fn unknown_and_away(w: &mut World) {
    for scope in [HOME, ELSEWHERE] {
        let child = w.stage.add(Plan::of("b.f").adds(&scope_in(HOME)));
        start(w, Plan::of("a.f").adds(&scope_in(scope)).starts(&[child]));
        let most = w.clock.at() + Duration::from_millis(50);
        w.run_until(most, |w| w.busy() > 0);
        w.disk.script.push_back(Fate::LandsUnheard);
        let lands = w.books.ledger(&scope_in(scope)) + 1;
        w.run_until(most, |w| w.books.ledger(&scope_in(scope)) >= lands);
        // So long that acquiring the partition is given up.
        w.disk.mood.away = true;
        w.run(3_000);
        w.disk.mood.away = false;
        w.run(100);
    }
    w.run(1_500);
}

fn blind_pages(w: &mut World) {
    for n in 0..5 {
        start(w, Plan { padding: HALF_OF_MEMORY, ..Plan::of("a.f").runs_ms(15 + n) });
        w.run(2);
    }
    w.disk.mood.blind = 1_000;
    w.run(60);
    w.disk.mood.blind = 0;
    w.run(1_500);
}

fn during_recovery(w: &mut World) {
    start(w, Plan::of("a.f").adds(&scope_in(ELSEWHERE)).runs_ms(20));
    w.run(10);
    w.crash(Keep::All);
    for _ in 0..3 {
        start(w, Plan { padding: HALF_OF_MEMORY, ..Plan::of("a.f") });
        w.run(3);
    }
    w.run(200);
}

fn failed_batches(w: &mut World) {
    for scope in [HOME, ELSEWHERE] {
        w.disk.script.push_back(Fate::Fails);
        start(w, Plan::of("a.f").adds(&scope_in(scope)));
        w.run(30);
        start(w, Plan::of("a.f").adds(&scope_in(scope)).bad(1, End::Again(5)));
        let most = w.clock.at() + Duration::from_millis(50);
        w.run_until(most, |w| w.busy() > 0);
        w.disk.script.extend([Fate::Fails, Fate::Fails]);
        w.run(100);
    }
    w.run(1_500);
}

fn instances_die(w: &mut World) {
    for n in 0..4 {
        start(w, Plan::of("a.f").adds(&scope_in(HOME + n % 2)).runs_ms(20));
    }
    w.run(15);
    for process in w.living() {
        w.kill(process);
    }
    w.run(100);
    start(w, Plan::of("b.q").adds(&scope_in(HOME)).bad(1, End::Hangs));
    w.run(3_000);
}

fn backlog_by_size(w: &mut World) {
    for n in 0..5 {
        start(w, Plan { padding: HALF_OF_MEMORY, ..Plan::of("a.f").adds(&scope_in(HOME)).runs_ms(5 + n) });
        w.run(3);
    }
    w.run(100);
}

fn backlog_by_number(w: &mut World) {
    // Ready calls are at most 1024 in memory.
    for _ in 0..1_100 {
        start(w, Plan::of("a.f"));
    }
    w.run(100);
}

fn cron_line(w: &mut World) {
    w.offer(Offers { cron: true, topic: false });
    w.until_a_tick_lands();
    w.crash(Keep::All);
    w.run(2_500);
    w.crash(Keep::Nothing);
    w.run(1_500);
    // It ends with the revision, so that the world comes to rest.
    w.offer(Offers::default());
}

fn cron_line_in_doubt(w: &mut World) {
    w.offer(Offers { cron: true, topic: false });
    let fates = [Fate::LandsUnheard, Fate::Lost, Fate::LandsLate(Duration::from_millis(3)), Fate::Fails];
    for fate in fates {
        w.until_a_tick_lands();
        w.run(500);
        w.disk.script.push_back(fate);
        w.run(1_000);
    }
    w.until_a_tick_lands();
    w.run(500);
    w.disk.script.push_back(Fate::LandsUnheard);
    w.until_a_tick_lands();
    // So long that acquiring the partition is given up: then the node has to find out for itself.
    w.disk.mood.away = true;
    w.run(3_000);
    w.disk.mood.away = false;
    w.run(3_500);
    w.offer(Offers::default());
}

fn topic(w: &mut World) {
    w.offer(Offers { cron: false, topic: true });
    let fates = [
        &[Fate::Lands][..],
        &[Fate::Lands, Fate::Fails],
        &[Fate::LandsUnheard],
        &[Fate::Lost],
        &[Fate::LandsLate(Duration::from_millis(3))],
    ];
    for (n, fates) in (0..).zip(fates) {
        w.disk.script.extend(fates.iter().copied());
        let scope = if n % 2 == 0 { HOME } else { ELSEWHERE };
        let plan = w.stage.add(Plan::of("a.hears").adds(&scope_in(scope)));
        w.publish(plan);
        w.run(100);
    }
    // Who listens is known over a restart, also while the modules are being loaded.
    w.crash(Keep::All);
    let plan = w.stage.add(Plan::of("a.hears").adds(&scope_in(HOME)));
    w.publish(plan);
    w.run(1_500);
}

fn drain(w: &mut World) {
    for n in 0..8 {
        start(w, Plan::of("a.f").adds(&scope_in(HOME + n % 2)).runs_ms(20));
    }
    w.run(25);
    w.input(Input::Drain);
    let most = w.clock.at() + Duration::from_secs(60);
    w.run_until(most, |w| w.drained);
    w.crash(Keep::All);
    w.run(300);
}
