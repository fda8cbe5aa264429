//! Calls made by calls, at the same home.

use crate::world::{Fate, World};
use bourse_durable::{Answer, Finished, Refusal};

/// Call 1 has written a=1 over a=0, and waits for the calls that it has made: 2 and 3.
fn family() -> World {
    let mut w = World::new();
    w.put(9, &[("a", "0"), ("a/x", "0")]);
    w.write(1, "a", "1");
    w.nest(2, 1);
    w.nest(3, 1);
    w
}

#[test]
fn a_nested_call_sees_what_its_caller_wrote_and_joins_it() {
    let mut w = family();
    // 1. The child sees the parent's write, which others do not.
    let (inside, outside) = (w.read(2, "a"), w.read(8, "a"));
    assert_eq!((w.value(inside), w.value(outside)), ("1".to_owned(), "0".to_owned()));
    // 2. It finishes at once, and nothing is committed.
    w.write(2, "a/x", "2");
    let child = w.finish(2);
    assert_eq!(w.finished(child), Finished::Done);
    assert!(!w.is_asked());
    let merged = w.read(1, "a/x");
    assert_eq!(w.value(merged), "2");
    // 3. All of it is committed with the parent.
    let parent = w.finish(1);
    w.commit(Fate::Lands);
    assert_eq!(w.finished(parent), Finished::Done);
    assert_eq!((w.look(10, "a").0, w.look(11, "a/x").0), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn at_another_home_it_commits_on_its_own() {
    let mut w = family();
    w.write(2, "b", "2");
    let child = w.finish(2);
    assert!(!w.answered(child));
    w.serve();
    assert_eq!(w.finished(child), Finished::Done);
    // A call beneath that, back at the first home, joins the nearest ancestor that is there.
    w.nest(4, 3);
    w.write(3, "b", "3");
    let seen = w.read(4, "a");
    assert_eq!(w.value(seen), "1");
}

#[test]
fn siblings_exclude_each_other() {
    let mut w = family();
    for n in [2, 3] {
        w.read(n, "a/x");
        w.write(n, "a/x", "mine");
    }
    let (first, second) = (w.finish(2), w.finish(3));
    assert_eq!((w.finished(first), w.finished(second)), (Finished::Done, Finished::Conflict));
    // Also where both have read what the parent wrote.
    for n in [4, 5] {
        w.nest(n, 1);
        w.read(n, "a");
        w.write(n, "a", "mine");
    }
    let (first, second) = (w.finish(4), w.finish(5));
    assert_eq!((w.finished(first), w.finished(second)), (Finished::Done, Finished::Conflict));
}

#[test]
fn what_a_child_has_read_is_validated_with_the_parent() {
    let mut w = family();
    w.read(2, "a/x");
    let child = w.finish(2);
    w.put(8, &[("a/x", "changed")]);
    let parent = w.finish(1);
    assert_eq!((w.finished(child), w.finished(parent)), (Finished::Done, Finished::Conflict));
}

#[test]
fn what_a_child_has_read_of_the_parent_rests_on_nobody_else() {
    let mut w = family();
    w.read(2, "a");
    let child = w.finish(2);
    w.put(8, &[("a", "blindly overwritten")]);
    let parent = w.finish(1);
    w.serve();
    assert_eq!((w.finished(child), w.finished(parent)), (Finished::Done, Finished::Done));
}

#[test]
fn an_abandoned_child_leaves_nothing() {
    let mut w = family();
    w.write(2, "a/x", "never");
    w.abandon(2);
    let read = w.read(1, "a/x");
    assert_eq!(w.value(read), "0");
}

#[test]
fn who_ends_takes_along_what_is_stacked_on_it() {
    for finishes in [true, false] {
        let mut w = family();
        w.nest(4, 2);
        w.write(2, "a/x", "2");
        let waiting = w.read(4, "a/unknown");
        assert!(!w.answered(waiting));
        if finishes {
            w.finish(1);
        } else {
            w.abandon(1);
        }
        assert_eq!(w.answer(waiting), Answer::Refused(Refusal::Gone));
        assert_eq!(w.try_write(2, "a/x", None), Err(Refusal::Gone));
        let (child, grandchild) = (w.finish(2), w.finish(4));
        assert_eq!((w.finished(child), w.finished(grandchild)), (Finished::Lost, Finished::Lost));
        w.serve();
        assert_eq!(w.look(10, "a/x").0, "0");
    }
}

#[test]
fn nothing_is_stacked_on_what_is_gone() {
    let mut w = family();
    w.nest(4, 2);
    w.write(2, "a/x", "2");
    w.abandon(1);
    assert_eq!(w.try_write(4, "a/x", None), Err(Refusal::Gone), "it would commit without its ancestors");
}

#[test]
fn a_parent_waits_for_what_its_child_has_seen() {
    let mut w = family();
    w.write(8, "a/x", "pending");
    w.finish(8);
    w.abandon(1);
    // 1. The child of a reader sees a write that is on its way.
    w.read(5, "a/y");
    w.serve_reads();
    w.nest(6, 5);
    let seen = w.read(6, "a/x");
    assert_eq!(w.value(seen), "pending");
    let (child, parent) = (w.finish(6), w.finish(5));
    assert_eq!(w.finished(child), Finished::Done);
    assert!(!w.answered(parent));
    w.commit(Fate::Fails);
    assert!(matches!(w.finished(parent), Finished::StoreFailed(_)));
}
