//! One layer after another, and beside another.

use crate::world::{Fate, World, key};
use bourse_durable::batch::Seq;
use bourse_durable::record::Version;
use bourse_durable::{Answer, Finished, Refusal};

#[test]
fn an_attempt_without_state_is_done_at_once() {
    let mut w = World::new();
    let finish = w.finish(1);
    assert_eq!(w.finished(finish), Finished::Done);
    assert!(!w.is_asked());
}

#[test]
fn what_is_written_is_read_back_with_its_version() {
    let mut w = World::new();
    // 1. A layer reads nothing, writes, and sees what it wrote, with no version yet.
    let before = w.read(1, "a/x");
    w.serve();
    w.write(1, "a/x", "one");
    let after = w.read(1, "a/x");
    assert_eq!((w.value(before), w.value(after)), ("-".to_owned(), "one".to_owned()));
    assert_eq!(w.record(after).unwrap().version, Version::NONE);

    // 2. It finishes, and is done only when the batch has landed.
    let finish = w.finish(1);
    assert!(!w.answered(finish));
    w.commit(Fate::Lands);
    assert_eq!(w.finished(finish), Finished::Done);

    // 3. The partition was acquired with batch 1, so this was batch 2.
    assert_eq!(w.look(2, "a/x"), ("one".to_owned(), Version::new(Seq(2), 0)));

    // 4. After a crash it is read from the store.
    w.crash(Default::default());
    assert_eq!(w.look(3, "a/x"), ("one".to_owned(), Version::new(Seq(2), 0)));
}

#[test]
fn of_two_that_read_and_write_the_same_one_runs_again() {
    let mut w = World::new();
    for n in [1, 2] {
        w.read(n, "a");
        w.serve();
        w.write(n, "a", "mine");
    }
    let (first, second) = (w.finish(1), w.finish(2));
    w.serve();
    assert_eq!((w.finished(first), w.finished(second)), (Finished::Done, Finished::Conflict));
}

#[test]
fn layers_share_a_batch_and_are_told_apart_in_it() {
    let mut w = World::new();
    w.put(1, &[("a", "0")]);
    // 1. A batch is in flight.
    w.write(2, "a", "1");
    let first = w.finish(2);
    // 2. Two layers read the pending value; one writes it and finishes, then a third reads that.
    let (early, late) = (w.read(3, "a"), w.read(4, "a"));
    w.write(3, "a", "2");
    w.write(4, "a", "lost");
    let (second, conflict) = (w.finish(3), w.finish(4));
    let next = w.read(5, "a");
    w.write(5, "a", "3");
    let third = w.finish(5);
    assert_eq!([early, late, next].map(|ticket| w.value(ticket)), ["1", "1", "2"]);
    assert_eq!(w.finished(conflict), Finished::Conflict);
    // 3. The two share the next batch.
    w.commit(Fate::Lands);
    assert_eq!(w.finished(first), Finished::Done);
    assert!(!w.answered(second) && !w.answered(third));
    w.commit(Fate::Lands);
    assert_eq!([second, third].map(|ticket| w.finished(ticket)), [Finished::Done, Finished::Done]);
    assert!(!w.is_asked());
    // 4. Their versions differ although their batch is one.
    assert_eq!(w.record(next).unwrap().version, Version::new(Seq(4), 0));
    assert_eq!(w.look(6, "a"), ("3".to_owned(), Version::new(Seq(4), 1)));
}

#[test]
fn a_reader_waits_for_what_it_has_seen_to_land() {
    let mut w = World::new();
    w.put(1, &[("a", "0"), ("a/other", "0")]);
    w.write(2, "a", "1");
    let writer = w.finish(2);
    let (seen, unseen) = (w.read(3, "a"), w.read(4, "a/other"));
    let (rests, free) = (w.finish(3), w.finish(4));
    assert_eq!((w.value(seen), w.value(unseen)), ("1".to_owned(), "0".to_owned()));
    assert_eq!(w.finished(free), Finished::Done, "it rests on nothing that is on its way");
    assert!(!w.answered(rests));
    w.commit(Fate::Lands);
    assert_eq!([writer, rests].map(|ticket| w.finished(ticket)), [Finished::Done, Finished::Done]);
}

#[test]
fn a_scan_waits_for_what_it_has_seen_to_land() {
    let mut w = World::new();
    w.put(1, &[("a/x", "0")]);
    w.write(2, "a/x", "1");
    w.finish(2);
    let scan = w.scan(3, "a/", "", 0);
    w.serve_reads();
    assert_eq!(w.rows(scan), "a/x=1");
    let finish = w.finish(3);
    assert!(!w.answered(finish));
    w.commit(Fate::Lands);
    assert_eq!(w.finished(finish), Finished::Done);
}

#[test]
fn the_first_read_of_a_key_counts() {
    let mut w = World::new();
    w.put(1, &[("a", "0")]);
    w.read(2, "a");
    w.put(3, &[("a", "1")]);
    let again = w.read(2, "a");
    w.write(2, "a/mine", "based on both");
    let finish = w.finish(2);
    assert_eq!((w.value(again), w.finished(finish)), ("1".to_owned(), Finished::Conflict));
}

#[test]
fn a_reader_of_one_moment_never_conflicts_but_a_torn_one_does() {
    let mut w = World::new();
    w.put(1, &[("a/x", "0"), ("a/y", "0")]);
    // 1. One reads both at one moment, the other one of them before and one after a write of both.
    w.read(2, "a/x");
    w.read(2, "a/y");
    w.read(3, "a/x");
    w.put(4, &[("a/x", "1"), ("a/y", "1")]);
    let torn = w.read(3, "a/y");
    assert_eq!(w.value(torn), "1");
    let (whole, torn) = (w.finish(2), w.finish(3));
    assert_eq!((w.finished(whole), w.finished(torn)), (Finished::Done, Finished::Conflict));
}

#[test]
fn absence_is_read_too() {
    let mut w = World::new();
    let absent = w.read(1, "a");
    w.serve();
    w.write(1, "a/mine", "");
    w.put(2, &[("a", "born")]);
    let finish = w.finish(1);
    assert_eq!((w.value(absent), w.finished(finish)), ("-".to_owned(), Finished::Conflict));
    // Deleted again: a version never comes twice.
    let before = w.look(3, "a").1;
    w.delete(4, "a");
    w.finish(4);
    w.serve();
    assert_eq!(w.look(5, "a"), ("-".to_owned(), Version::NONE));
    w.put(6, &[("a", "again")]);
    assert!(w.look(7, "a").1 > before);
}

#[test]
fn writes_go_to_one_home() {
    let mut w = World::new();
    w.write(1, "a/x", "");
    let refused = w.try_write(1, "b/x", None).unwrap_err();
    let home = Box::new(key("a").home());
    assert_eq!(refused, Refusal::NotHome { home, key: Box::new(key("b/x")) });
    assert!(refused.hint().contains("call a function"));
    assert_eq!(refused.to_string(), "shop:b/x cannot be written by a call whose home is shop:a");
}

#[test]
fn another_home_is_read_as_it_is_committed() {
    let mut w = World::new();
    w.put(1, &[("b", "0")]);
    w.write(2, "a", "");
    // 1. A write of b is on its way: it is not seen from elsewhere.
    w.write(3, "b", "1");
    w.finish(3);
    let early = w.read(2, "b");
    w.commit(Fate::Lands);
    w.serve();
    // 2. Once it has landed it is, and the reader has no conflict for having seen both.
    let late = w.read(2, "b");
    w.serve();
    assert_eq!((w.value(early), w.value(late)), ("0".to_owned(), "1".to_owned()));
    let finish = w.finish(2);
    w.serve();
    assert_eq!(w.finished(finish), Finished::Done);
}

#[test]
fn what_is_abandoned_has_never_been() {
    let mut w = World::new();
    w.write(1, "a", "never");
    let waiting = w.read(1, "a/other");
    w.abandon(1);
    assert_eq!(w.answer(waiting), Answer::Refused(Refusal::Gone));
    w.serve();
    assert_eq!(w.look(2, "a").0, "-");
    assert_eq!(w.store.rows.len(), 0);
}

#[test]
fn a_finish_does_not_wait_for_reads_that_nobody_awaits() {
    let mut w = World::new();
    w.write(1, "a", "1");
    w.serve();
    let read = w.read(1, "a/other");
    let finish = w.finish(1);
    assert_eq!(w.answer(read), Answer::Refused(Refusal::Gone));
    w.serve();
    assert_eq!(w.finished(finish), Finished::Done);
}

#[test]
fn hot_reads_need_no_store() {
    let mut w = World::new();
    w.put(1, &[("a", "1")]);
    let read = w.read(2, "a");
    assert_eq!(w.value(read), "1");
    assert!(!w.is_asked());
}
