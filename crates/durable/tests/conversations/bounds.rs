//! Every bound has a typed refusal, and leaves the rest alone.

use bourse_durable::batch::{BATCH_BYTES_MAX, BATCH_OPS_MAX};
use bourse_durable::record::STATE_VALUE_BYTES_MAX;
use bourse_durable::{Answer, Finished, Limits, Refusal, Ticket};
use bytes::Bytes;

use crate::world::{Fate, World};

fn refused(w: &World, ticket: Ticket) -> Refusal {
    match w.answer(ticket) {
        Answer::Refused(refusal) | Answer::Finished(Finished::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_value_has_a_size() {
    let mut w = World::new();
    let value = |bytes| Some(Bytes::from(vec![0; bytes]));
    assert_eq!(w.try_write(1, "a", value(STATE_VALUE_BYTES_MAX + 1)), Err(Refusal::ValueTooLong));
    assert_eq!(w.try_write(1, "a", value(STATE_VALUE_BYTES_MAX)), Ok(()));
}

#[test]
fn a_layer_writes_so_much() {
    let mut w = World::new();
    for n in 0..BATCH_OPS_MAX {
        w.durable_write(1, &format!("a/{n}"), Some(Bytes::new())).unwrap();
    }
    assert_eq!(w.durable_write(1, "a/more", None), Err(Refusal::TooManyWrites));
    let value = Bytes::from(vec![0; STATE_VALUE_BYTES_MAX]);
    for n in 0..3 {
        w.try_write(2, &format!("b/{n}"), Some(value.clone())).unwrap();
    }
    assert_eq!(w.try_write(2, "b/more", Some(value)), Err(Refusal::TooManyBytes));
    // What was taken is kept, and lands.
    let (first, second) = (w.finish(1), w.finish(2));
    w.serve();
    assert_eq!([first, second].map(|ticket| w.finished(ticket)), [Finished::Done, Finished::Done]);
}

#[test]
fn a_child_joins_only_where_there_is_room() {
    let mut w = World::new();
    w.nest(2, 1);
    for n in 0..BATCH_OPS_MAX {
        w.durable_write(1, &format!("a/{n}"), None).unwrap();
    }
    w.write(2, "a/child", "");
    let finish = w.finish(2);
    assert_eq!(refused(&w, finish), Refusal::TooManyWrites);
}

#[test]
fn a_full_batch_is_followed_by_another() {
    let mut w = World::new();
    w.put(100, &[("a", "0")]);
    w.write(1, "a", "1");
    w.finish(1);
    // While that is in flight, three layers of half a batch each finish.
    let value = Bytes::from(vec![0; BATCH_BYTES_MAX / 4 - 100]);
    let finishes: Vec<Ticket> = (2..5)
        .map(|n| {
            for row in 0..2 {
                w.try_write(n, &format!("a/{n}{row}"), Some(value.clone())).unwrap();
            }
            w.finish(n)
        })
        .collect();
    w.commit(Fate::Lands);
    w.commit(Fate::Lands);
    assert_eq!(finishes.iter().map(|ticket| w.answered(*ticket)).collect::<Vec<_>>(), [true, true, false]);
    w.commit(Fate::Lands);
    assert_eq!(w.finished(finishes[2]), Finished::Done);
}

#[test]
fn so_many_batches_wait() {
    let mut w = World::with(Limits { batches_waiting_max: 0, ..Limits::default() });
    w.write(1, "a", "");
    w.serve();
    let finish = w.finish(1);
    assert_eq!(refused(&w, finish), Refusal::Behind);
}

#[test]
fn so_many_finishes_wait_for_a_partition() {
    let mut w = World::with(Limits { finishes_waiting_max: 1, ..Limits::default() });
    w.write(1, "a", "");
    w.write(2, "a", "");
    let (first, second) = (w.finish(1), w.finish(2));
    assert_eq!(refused(&w, second), Refusal::Behind);
    w.serve();
    assert_eq!(w.finished(first), Finished::Done);
}

#[test]
fn so_many_layers_and_reads() {
    let limits = Limits { layers_max: 2, reads_per_layer_max: 2, reads_waiting_max: 3, ..Limits::default() };
    let mut w = World::with(limits);
    w.read(1, "a/1");
    w.read(1, "a/2");
    let third = w.read(1, "a/3");
    assert_eq!(refused(&w, third), Refusal::TooManyReads);
    w.read(2, "a/1");
    let waiting = w.read(2, "a/2");
    assert_eq!(refused(&w, waiting), Refusal::Behind);
    assert_eq!(w.try_write(3, "a", None), Err(Refusal::TooManyLayers));
    w.abandon(1);
    assert_eq!(w.try_write(3, "a", None), Ok(()));
}

#[test]
fn long_memories_are_cut_at_the_expense_of_the_slow() {
    let mut w = World::with(Limits { recent_writes_max: 3, ..Limits::default() });
    w.read(1, "a/slow");
    w.serve();
    w.write(1, "a/slow", "");
    for n in 2..6 {
        w.put(n, &[(&format!("a/{n}"), "")]);
    }
    let slow = w.finish(1);
    assert_eq!(w.finished(slow), Finished::Conflict, "nobody knows whether a/slow was written since");
}
