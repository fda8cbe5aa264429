//! The store looks at some moment between question and answer, and batches land meanwhile.

use bourse_durable::batch::ReadError;
use bourse_durable::record::Error;
use bourse_durable::{Answer, Finished, Limits, StoreAnswer};
use bytes::Bytes;

use crate::world::{Fate, World, key};

/// No cache, so that reads go to the store.
fn uncached() -> World {
    let mut w = World::with(Limits { cache_bytes_max: 0, ..Limits::default() });
    w.put(100, &[("a/1", "old"), ("a/2", "old")]);
    w
}

#[test]
fn a_write_that_is_pending_when_the_answer_comes_is_the_answer() {
    let mut w = uncached();
    let read = w.read(1, "a/1");
    let (token, request) = w.take_look();
    w.write(2, "a/1", "new");
    let finish = w.finish(2);
    let answer = w.store.answer(&request);
    w.deliver(token, answer);
    assert_eq!(w.value(read), "new");
    // It rests on it, and is not outdated by it.
    w.write(1, "a/2", "");
    let second = w.finish(1);
    w.serve();
    assert_eq!((w.finished(finish), w.finished(second)), (Finished::Done, Finished::Done));
}

#[test]
fn a_write_that_has_landed_when_the_answer_comes_outdates_it() {
    for looked_before in [true, false] {
        let mut w = uncached();
        let read = w.read(1, "a/1");
        let (token, request) = w.take_look();
        let early = w.store.answer(&request);
        w.put(2, &[("a/1", "new")]);
        let late = w.store.answer(&request);
        w.deliver(token, if looked_before { early } else { late });
        assert_eq!(w.value(read), if looked_before { "old" } else { "new" });
        w.write(1, "a/2", "based on it");
        let finish = w.finish(1);
        assert_eq!(w.finished(finish), Finished::Conflict, "nobody can tell which it was");
    }
}

#[test]
fn the_cache_is_not_filled_with_what_is_outdated() {
    let mut w = World::with(Limits::default());
    w.put(100, &[("a/1", "old")]);
    w.crash(Limits::default());
    let read = w.read(1, "a/1");
    while !matches!(w.asked.front(), Some((_, bourse_durable::StoreRequest::Read { .. }))) {
        let (token, request) = w.asked.pop_front().unwrap();
        let answer = w.store.answer(&request);
        w.deliver(token, answer);
    }
    let (token, request) = w.take_look();
    let early = w.store.answer(&request);
    // The newer one is too large to be cached.
    let large = "new".repeat(300_000);
    w.put(2, &[("a/1", &large)]);
    w.deliver(token, early);
    assert_eq!(w.value(read), "old");
    assert_eq!(w.look(3, "a/1").0, large);
}

#[test]
fn a_scan_keeps_what_was_pending_and_lands_while_the_store_looks() {
    for looked_before in [true, false] {
        let mut w = uncached();
        // 1. A change of every kind is in flight when the scan is asked for.
        w.write(2, "a/1", "changed");
        w.delete(2, "a/2");
        w.write(2, "a/3", "born");
        w.finish(2);
        let scan = w.scan(1, "a/", "", 0);
        let (token, request) = w.take_look();
        // 2. The store looks before it has landed or after; the commit is answered before the scan is.
        let early = w.store.answer(&request);
        w.commit(Fate::Lands);
        let late = w.store.answer(&request);
        w.deliver(token, if looked_before { early } else { late });
        // 3. Nothing is lost, nothing is seen twice, and the scan is good to build on.
        assert_eq!(w.rows(scan), "a/1=changed a/3=born");
        w.write(1, "a/4", "");
        let finish = w.finish(1);
        w.serve();
        assert_eq!(w.finished(finish), Finished::Done);
    }
}

#[test]
fn a_scan_is_of_the_moment_in_which_it_comes_however_much_is_written_meanwhile() {
    for (looked_before, writes) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut w = uncached();
        // 1. While the store looks, another layer changes, deletes and adds rows, and all of that lands.
        let scan = w.scan(1, "a/", "", 0);
        let (token, request) = w.take_look();
        let early = w.store.answer(&request);
        w.put(2, &[("a/1", "changed"), ("a/3", "born")]);
        w.delete(3, "a/2");
        w.finish(3);
        w.serve();
        let late = w.store.answer(&request);
        // 2. A third change is on its way when the page comes.
        w.write(4, "a/4", "pending");
        w.finish(4);
        w.deliver(token, if looked_before { early } else { late });
        assert_eq!(w.rows(scan), "a/1=changed a/3=born a/4=pending");
        // 3. Who lists what others keep writing is not sent back for it.
        if writes {
            w.write(1, "a/5", "");
        }
        let finish = w.finish(1);
        w.serve();
        assert_eq!(w.finished(finish), Finished::Done);
    }
}

#[test]
fn a_row_that_is_written_again_and_again_while_the_store_looks() {
    for looked in 0..3 {
        let mut w = uncached();
        let scan = w.scan(1, "a/", "", 0);
        let (token, request) = w.take_look();
        let mut answers = vec![w.store.answer(&request)];
        w.delete(2, "a/1");
        w.finish(2);
        w.serve();
        answers.push(w.store.answer(&request));
        w.put(3, &[("a/1", "again")]);
        answers.push(w.store.answer(&request));
        w.deliver(token, answers.swap_remove(looked));
        assert_eq!(w.rows(scan), "a/1=again a/2=old");
    }
}

#[test]
fn a_scan_of_several_pages_is_of_one_moment_or_conflicts() {
    let mut w = uncached();
    // 1. So many rows are deleted by the layer itself that a second page is needed.
    w.put(101, &[("a/3", "old"), ("a/4", "old"), ("a/5", "old")]);
    w.delete(1, "a/1");
    w.delete(1, "a/2");
    let scan = w.scan(1, "a/", "", 1);
    let (token, request) = w.take_look();
    let answer = w.store.answer(&request);
    w.deliver(token, answer);
    // 2. Between the pages another layer writes in both of them.
    w.write(2, "a/2", "new");
    w.write(2, "a/3", "new");
    w.finish(2);
    w.serve();
    assert_eq!(w.rows(scan), "a/3=new …");
    let finish = w.finish(1);
    assert_eq!(w.finished(finish), Finished::Conflict);
}

#[test]
fn a_store_that_cannot_read_says_so() {
    let mut w = uncached();
    let (read, scan) = (w.read(1, "a/1"), w.scan(1, "a/", "", 0));
    let (token, _) = w.take_look();
    w.deliver(token, StoreAnswer::Read(Err(ReadError("io".to_owned()))));
    let (token, _) = w.take_look();
    w.deliver(token, StoreAnswer::Scanned(Err(ReadError("io".to_owned()))));
    assert_eq!(
        [read, scan].map(|ticket| w.answer(ticket)),
        [(); 2].map(|()| Answer::StoreFailed("io".to_owned()))
    );
}

#[test]
fn what_does_not_decode_is_an_error_and_no_panic() {
    let mut w = uncached();
    let place = (key("a").home().partition(), bourse_durable::record::key(&key("a/1")));
    w.store.rows.insert(place, Bytes::from_static(b"\x07garbage that is long enough"));
    let (read, scan) = (w.read(1, "a/1"), w.scan(1, "a/", "", 0));
    w.serve();
    assert_eq!(
        [read, scan].map(|ticket| w.answer(ticket)),
        [(); 2].map(|()| Answer::Corrupt(Error::Format(7)))
    );
    let other = w.read(1, "a/2");
    w.serve();
    assert_eq!(w.value(other), "old");
}
