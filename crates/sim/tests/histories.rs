//! The checkers find what is wrong in the history of a store, and of what clients have heard.
//!
//! The history is a world's, with all kinds of calls; then something in it is changed.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise, in its helpers too")]

use std::collections::BTreeMap;

use bourse_durable::batch::{Batch, Op};
use bourse_durable::record;
use bourse_durable::work::Seen;
use bourse_node::{Answer, Ask, Mode, Success};
use bourse_sim::boundaries::settle;
use bourse_sim::disk::Mood;
use bourse_sim::gateway::Heard;
use bourse_sim::histories::{History, Run, Verdict};
use bourse_sim::stage::{End, Plan, Stage, place_key};
use bourse_sim::trace::Trace;
use bourse_sim::world::World;
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bytes::Bytes;

/// All that was left behind.
#[derive(Clone)]
struct Left {
    batches: Vec<(u64, Batch)>,
    calls: Vec<(u32, Mode, Option<CallId>, Heard)>,
    runs: Vec<Run>,
    rows: BTreeMap<(u8, Bytes), Bytes>,
    /// When all was over.
    end_ms: u64,
}

fn stage() -> Stage {
    let mut stage = Stage::default();
    let child = stage.add(Plan::of("b.f").adds("child"));
    let inner = stage.add(Plan::of("a.f").adds("one"));
    let last = stage.add(Plan::of("b.f").adds("two"));
    stage.add(Plan::of("a.f").adds("one").starts(&[child]).nests(&[inner])); // 3
    stage.add(Plan::of("a.q").adds("one").bad(1, End::Fails)); // 4
    stage.add(Plan::of("b.x").adds("two").key("k").then(last)); // 5
    stage.add(Plan::of("b.x").adds("one").key("k")); // 6
    stage.add(Plan::of("a.u").adds("three").key("k")); // 7
    stage.add(Plan::of("a.q").bad(u32::MAX, End::Fails)); // 8
    stage
}

fn left() -> Left {
    let mut world = World::new(3, World::config(), Mood::fine(), Trace::default());
    world.history = Some(Vec::new());
    world.stage = stage();
    world.run(100);
    world.call(3, Mode::Async, "", None);
    world.call(4, Mode::Sync, "", None);
    for plan in [5, 6, 7, 8] {
        world.call(plan, Mode::Async, "", None);
        world.run(5);
    }
    let again = world.stage.add(Plan::of("a.f").adds("one"));
    world.call(again, Mode::Sync, "", None);
    settle(&mut world);
    assert_eq!(world.violations(), Vec::<String>::new());
    let rows: BTreeMap<_, _> =
        world.disk.all_rows().map(|(at, key, value)| ((at, key.clone()), value.clone())).collect();
    let texts = rows.iter().filter(|((_, key), _)| key[0] == b's' && is_entry(key));
    let runs = texts.map(|(_, value)| {
        let text = String::from_utf8(record::decode(value).unwrap().value.to_vec()).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        Run {
            plan: words[0].parse().unwrap(),
            call: words[1].parse().unwrap(),
            attempt: words[2].parse().unwrap(),
        }
    });
    let made = world.gateway.made().map(|(_, made)| (made.plan, made.mode, made.call, made.heard.clone()));
    let batches = world.history.take().unwrap();
    let end_ms = batches.last().unwrap().0 + 1;
    Left { batches, calls: made.collect(), runs: runs.collect(), rows, end_ms }
}

fn is_entry(key: &[u8]) -> bool {
    String::from_utf8_lossy(key).contains("/l/")
}

impl Left {
    fn history(&self) -> History {
        let mut stage = stage();
        stage.add(Plan::of("a.f").adds("one"));
        let mut history = History::new(stage);
        for (at_ms, batch) in &self.batches {
            history.asked(batch);
            history.landed(*at_ms, batch.clone());
        }
        for (plan, mode, call, heard) in &self.calls {
            let result = match heard {
                Heard::Accepted => Ok(Success::default()),
                Heard::Done(text) => Ok(Success { payload: Bytes::from(text.clone()), ..Success::default() }),
                Heard::Refused(code) => Err(Code::parse(code).unwrap().because("")),
                other => panic!("{other:?}"),
            };
            history.call(*plan, "", *mode, Some((self.end_ms, Answer { call: *call, result })));
        }
        self.runs.iter().for_each(|run| history.run(*run));
        history
    }

    fn verdict(&self) -> Verdict {
        self.history().close(&self.rows)
    }

    /// What the checkers say of it.
    #[track_caller]
    fn wrong(&self, what: &str) {
        let verdict = self.verdict();
        assert!(
            verdict.violations.iter().any(|v| v.contains(what)),
            "not {what:?}: {:?}",
            verdict.violations
        );
    }

    /// The same with what has landed changed, in the store as well: it is not the comparison that finds it.
    fn changed(&self, mut change: impl FnMut(&mut Batch)) -> Self {
        let mut left = self.clone();
        let mut rows = BTreeMap::new();
        for (_, batch) in &mut left.batches {
            change(batch);
            for op in &batch.ops {
                match op {
                    Op::Put { key, value } => rows.insert((batch.partition.0, key.clone()), value.clone()),
                    Op::Delete { key } => rows.remove(&(batch.partition.0, key.clone())),
                };
            }
        }
        left.rows = rows;
        left
    }
}

#[test]
fn an_honest_history_is_in_order() {
    let left = left();
    let verdict = left.verdict();
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!(verdict.batches, left.batches.len());
    assert_eq!((verdict.ended, verdict.heard), ([6, 1, 0], [5, 2, 0, 0]));
    assert_eq!(left.changed(|_| {}).rows, left.rows);
}

#[test]
fn a_batch_that_is_missing_is_missed_whichever_it_is() {
    let whole = left();
    for at in 0..whole.batches.len() {
        let mut left = whole.clone();
        left.batches.remove(at);
        let verdict = left.verdict();
        assert_ne!(verdict.violations, Vec::<String>::new(), "without batch {at}: {:?}", whole.batches[at]);
    }
}

#[test]
fn a_change_that_is_missing_is_missed_whichever_it_is() {
    let whole = left();
    let puts = |key: &Bytes| {
        let ops = whole.batches.iter().flat_map(|(_, batch)| &batch.ops);
        ops.filter(|op| matches!(op, Op::Put { key: put, .. } if put == key)).count()
    };
    // Not promises to other partitions: here all were kept.
    for kind in [b'c', b't', b'd', b's', b'u', b'x'] {
        let ops = whole.batches.iter().flat_map(|(_, batch)| &batch.ops);
        let count = ops.filter(|op| is_of(op, kind)).count();
        assert!(count > 0, "there is none of {}", kind as char);
        for number in 0..count {
            let (mut nth, mut gone) = (0, None);
            let left = whole.changed(|batch| {
                batch.ops.retain(|op| {
                    let hit = is_of(op, kind) && nth == number;
                    nth += usize::from(is_of(op, kind));
                    if let (true, Op::Put { key, .. }) = (hit, op) {
                        gone = Some(key.clone());
                    }
                    !hit
                });
            });
            let gone = gone.unwrap();
            // A call that is tried is stored again with each attempt, to count them, and its key with it: without one of these
            // nothing is missed.
            if !matches!(kind, b'c' | b'x') || puts(&gone) == 1 {
                assert_ne!(left.verdict().violations, Vec::<String>::new(), "without {gone:?}");
            }
        }
    }
}

fn is_of(op: &Op, kind: u8) -> bool {
    matches!(op, Op::Put { key, .. } if key.first() == Some(&kind))
}

#[test]
fn an_effect_that_is_there_twice_is_found() {
    let whole = left();
    // The last entry of a ledger is there once more, at the next place, and counted.
    let mut seen = 0;
    let doubled = whole.changed(|batch| {
        let of = |op: &&mut Op| matches!(op, Op::Put { key, .. } if String::from_utf8_lossy(key).contains("three/"));
        if batch.ops.iter_mut().filter(of).count() == 0 {
            return;
        }
        seen += 1;
        let mut more = Vec::new();
        for op in batch.ops.iter_mut().filter(|op| of(op)) {
            let Op::Put { key, value } = op else { continue };
            if is_entry(key) {
                let name = String::from_utf8(key.to_vec()).unwrap();
                let next = name.replace(&place_key("three", 1), &place_key("three", 2));
                more.push(Op::Put { key: Bytes::from(next), value: value.clone() });
            } else {
                let mut counted = value.to_vec();
                *counted.last_mut().unwrap() = b'2';
                *value = counted.into();
            }
        }
        batch.ops.extend(more);
    });
    assert_eq!(seen, 1);
    doubled.wrong("takes effect twice, in three");
}

#[test]
fn a_wrong_answer_is_found() {
    let whole = left();
    let at = |of: fn(&Heard) -> bool, plan: u32| {
        whole.calls.iter().position(|call| of(&call.3) && call.0 == plan).unwrap()
    };
    let with = |at: usize, heard: Heard| {
        let mut left = whole.clone();
        left.calls[at].3 = heard;
        left
    };
    let retried = at(|heard| matches!(heard, Heard::Done(_)), 4);
    let plain = at(|heard| matches!(heard, Heard::Done(_)), 9);
    let accepted = at(|heard| matches!(heard, Heard::Accepted), 5);
    // 1. Another result than the one that is stored, or than the ledger has.
    with(retried, Heard::Done("77".to_owned())).wrong("is said to be done, and what is stored is");
    with(plain, Heard::Done("1".to_owned())).wrong("is said to be done, and is not in the ledger");
    // 2. That nothing has come of it.
    with(plain, Heard::Refused("function_error".to_owned())).wrong("has taken effect 1 times");
    // 3. That it is accepted, before it is.
    let mut early = whole.clone();
    early.end_ms = 0;
    early.wrong("is said to be accepted, and is not stored");
    // 4. As which call.
    let mut other = whole.clone();
    other.calls[accepted].2 = other.calls[retried].2;
    other.wrong("was accepted as another");
    // 5. How a call stands.
    let call = whole.calls[accepted].2.unwrap();
    let mut history = whole.history();
    history.question((whole.end_ms, call, Ask::Look), Some((whole.end_ms, Ok(Seen::Nothing))));
    let verdict = history.close(&whole.rows);
    assert!(verdict.violations[0].contains("is said not to be there"), "{:?}", verdict.violations);
}

#[test]
fn what_the_store_and_the_functions_say_is_compared() {
    let whole = left();
    // 1. A record that has not landed; one that has, and is another.
    let mut more = whole.clone();
    more.rows.insert((0, Bytes::from_static(b"sx")), Bytes::new());
    more.wrong("are in the store");
    let mut other = whole.clone();
    let key = other.rows.keys().next().unwrap().clone();
    other.rows.insert(key, Bytes::from_static(b"?"));
    other.wrong("is not in partition");
    // 2. A run that nobody has begun.
    let mut never = whole.clone();
    never.runs.pop();
    never.wrong("was never begun");
    // 3. Two different batches at one place.
    let mut history = whole.history();
    let mut batch = whole.batches[3].1.clone();
    batch.ops.push(Op::Delete { key: Bytes::from_static(b"s") });
    history.asked(&batch);
    let verdict = history.close(&whole.rows);
    assert!(
        verdict.violations[0].contains("two different batches have the place"),
        "{:?}",
        verdict.violations
    );
}

#[test]
fn fences_that_go_back_are_found() {
    let whole = left();
    let has_key = |plan: &str| plan == "5" || plan == "6";
    let back = whole.changed(|batch| {
        for op in &mut batch.ops {
            let Op::Put { key, value } = op else { continue };
            if !is_entry(key) || key[0] != b's' {
                continue;
            }
            let at = value.len() - record::decode(value).unwrap().value.len();
            let text = String::from_utf8(value[at..].to_vec()).unwrap();
            let words: Vec<&str> = text.split(' ').collect();
            if has_key(words[0]) {
                // As long as before, and smaller for each.
                let fence =
                    format!("{:0width$}", 90 - words[0].parse::<u64>().unwrap(), width = words[3].len());
                let text = [words[0], words[1], words[2], &fence].join(" ");
                *value = [&value[..at], text.as_bytes()].concat().into();
            }
        }
    });
    back.wrong("landed after that of");
}
