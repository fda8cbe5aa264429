//! Batches that fail, are lost, land unheard or late, and a store that is away.

use std::time::Duration;

use bourse_durable::batch::{Fence, Outcome, Owner, Seq};
use bourse_durable::{Answer, Finished, Limits, Refusal};

use crate::world::{Fate, World, key};

/// Layer 1 is in a batch in flight (a=1), layer 2 in the next one (a=2), layer 3 is open, layer 4 read a=1.
struct Scene {
    w: World,
    in_flight: bourse_durable::Ticket,
    gathering: bourse_durable::Ticket,
    reader: bourse_durable::Ticket,
}

fn scene() -> Scene {
    let mut w = World::new();
    w.put(100, &[("a", "0")]);
    w.write(1, "a", "1");
    let in_flight = w.finish(1);
    w.read(4, "a");
    let reader = w.finish(4);
    w.write(2, "a", "2");
    let gathering = w.finish(2);
    w.write(3, "a", "3");
    Scene { w, in_flight, gathering, reader }
}

impl Scene {
    fn finished(&self) -> [Finished; 3] {
        [self.in_flight, self.reader, self.gathering].map(|ticket| self.w.finished(ticket))
    }

    /// The open layer is gone, and the partition works again.
    fn goes_on(mut self, value: &str, fence: u64) {
        assert_eq!(self.w.try_write(3, "a", None), Err(Refusal::Gone));
        let finish = self.w.finish(3);
        assert_eq!(self.w.finished(finish), Finished::Lost);
        assert_eq!(self.w.look(200, "a").0, value);
        self.w.put(201, &[("a", "again")]);
        assert_eq!(self.w.store.owners[&key("a").home().partition()].fence, Fence(fence));
    }
}

#[test]
fn a_batch_that_failed_never_was() {
    let mut scene = scene();
    scene.w.commit(Fate::Fails);
    let failed = Finished::StoreFailed("disk full".to_owned());
    assert_eq!(scene.finished(), [failed.clone(), failed, Finished::Lost]);
    scene.goes_on("0", 2);
}

#[test]
fn a_batch_that_landed_unheard_is_found_out() {
    let mut scene = scene();
    scene.w.commit(Fate::LandsUnheard);
    assert!(!scene.w.answered(scene.in_flight));
    scene.w.serve();
    assert_eq!(scene.finished(), [Finished::Done, Finished::Done, Finished::Lost]);
    scene.goes_on("1", 2);
}

#[test]
fn a_batch_that_was_lost_unheard_is_lost_once_a_claim_has_landed() {
    let mut scene = scene();
    scene.w.commit(Fate::LostUnheard);
    // 1. The record is read: that alone proves nothing.
    let (token, request) = scene.w.asked.pop_front().unwrap();
    let answer = scene.w.store.answer(&request);
    scene.w.deliver(token, answer);
    assert!(!scene.w.answered(scene.in_flight));
    // 2. The claim does.
    scene.w.commit(Fate::Lands);
    assert_eq!(scene.finished(), [Finished::Lost, Finished::Lost, Finished::Lost]);
    scene.goes_on("0", 2);
}

#[test]
fn a_late_batch_lands_before_the_claim_or_never() {
    // 1. Before the record is read, between that and the claim, or after the claim.
    for moment in 0..3 {
        let mut scene = scene();
        scene.w.commit(Fate::Late);
        let mut arrived = Vec::new();
        if moment == 0 {
            arrived = scene.w.arrive();
        }
        let (token, request) = scene.w.asked.pop_front().unwrap();
        let answer = scene.w.store.answer(&request);
        scene.w.deliver(token, answer);
        if moment == 1 {
            arrived = scene.w.arrive();
        }
        scene.w.commit(Fate::Lands);
        if moment == 1 {
            scene.w.wait();
            scene.w.serve();
        }
        if moment == 2 {
            arrived = scene.w.arrive();
        }
        // 2. In the first two cases it has landed, in the last it bounces.
        let landed = moment < 2;
        assert_eq!(arrived, [if landed { Outcome::Committed } else { Outcome::Conflict }]);
        let finished = if landed { Finished::Done } else { Finished::Lost };
        assert_eq!(scene.finished(), [finished.clone(), finished, Finished::Lost]);
        scene.goes_on(if landed { "1" } else { "0" }, 2);
    }
}

#[test]
fn a_claim_that_landed_unheard_settles_the_doubt_as_well() {
    let mut scene = scene();
    scene.w.commit(Fate::LostUnheard);
    let (token, request) = scene.w.asked.pop_front().unwrap();
    let answer = scene.w.store.answer(&request);
    scene.w.deliver(token, answer);
    scene.w.commit(Fate::LandsUnheard);
    assert!(!scene.w.answered(scene.in_flight));
    scene.w.wait();
    scene.w.serve();
    assert_eq!(scene.finished(), [Finished::Lost, Finished::Lost, Finished::Lost]);
    scene.goes_on("0", 3);
}

#[test]
fn who_has_been_taken_over_loses_what_was_on_its_way() {
    let mut scene = scene();
    let partition = key("a").home().partition();
    let other = Owner { node: 77, fence: Fence(9), seq: Seq(50) };
    scene.w.store.owners.insert(partition, other);
    scene.w.commit(Fate::Lands);
    assert_eq!(scene.finished(), [Finished::Lost, Finished::Lost, Finished::Lost]);
    scene.goes_on("0", 10);
}

#[test]
fn a_doubt_that_another_owner_covers_stays_a_doubt() {
    let mut scene = scene();
    let partition = key("a").home().partition();
    scene.w.commit(Fate::LandsUnheard);
    scene.w.store.owners.insert(partition, Owner { node: 77, fence: Fence(9), seq: Seq(50) });
    scene.w.serve();
    let unknown = Finished::Unknown("nobody heard".to_owned());
    assert_eq!(scene.finished(), [unknown.clone(), unknown, Finished::Lost]);
}

#[test]
fn a_store_that_is_away_is_tried_again_and_then_told() {
    let mut w = World::new();
    w.store.away = true;
    // 1. A read and a write wait for the partition, longer and longer.
    let read = w.read(1, "a");
    w.write(2, "a", "");
    let finish = w.finish(2);
    let mut pauses = Vec::new();
    w.serve();
    while !w.answered(read) {
        pauses.push(w.wait().as_millis());
        w.serve();
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640]);
    assert_eq!(w.answer(read), Answer::StoreFailed("away".to_owned()));
    assert_eq!(w.finished(finish), Finished::StoreFailed("away".to_owned()));
    assert_eq!(w.durable.poll_timeout(), None);
    // 2. The next touch tries again; the layer that was open may go on.
    w.store.away = false;
    let again = w.read(1, "a");
    w.serve();
    assert_eq!(w.value(again), "-");
}

#[test]
fn who_goes_away_while_a_partition_is_acquired_is_not_waited_for() {
    // Found by the model: the read of an abandoned layer was answered again when acquiring was given up.
    for away in [true, false] {
        let mut w = World::with(Limits { acquire_attempts_max: 1, ..Limits::default() });
        w.store.away = away;
        let read = w.read(1, "a");
        w.abandon(1);
        w.serve();
        assert_eq!(w.answer(read), Answer::Refused(Refusal::Gone));
    }
}

#[test]
fn pauses_are_bounded() {
    let mut w = World::with(Limits { acquire_attempts_max: 12, ..Limits::default() });
    w.store.away = true;
    let read = w.read(1, "a");
    w.serve();
    let mut last = Duration::ZERO;
    while !w.answered(read) {
        last = w.wait();
        w.serve();
    }
    assert_eq!(last, Duration::from_secs(1));
}

#[test]
fn a_doubt_outlives_a_store_that_is_away_only_so_long() {
    let mut scene = scene();
    scene.w.commit(Fate::LandsUnheard);
    scene.w.store.away = true;
    scene.w.serve();
    while !scene.w.answered(scene.in_flight) {
        scene.w.wait();
        scene.w.serve();
    }
    let unknown = Finished::Unknown("nobody heard".to_owned());
    assert_eq!(scene.finished(), [unknown.clone(), unknown, Finished::Lost]);
    scene.w.store.away = false;
    scene.goes_on("1", 2);
}

#[test]
fn another_partition_does_not_care() {
    let mut scene = scene();
    scene.w.write(10, "b", "elsewhere");
    scene.w.commit(Fate::Fails);
    let finish = scene.w.finish(10);
    scene.w.serve();
    assert_eq!(scene.w.finished(finish), Finished::Done);
}
