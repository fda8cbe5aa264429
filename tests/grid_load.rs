//! Several daemons under load: nodes that come and go, and more callers than slots.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::grid::{WORK, grid};
use crate::support::{Grid, Pending, until};

/// Who call at once.
const CALLERS: usize = 1_000;

/// Tells the callers to end, also when the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_rolling_restart_fails_no_call() {
    let mut grid = grid(&[1, 1, 1, 1]);
    let stays = 3;
    let client = grid.daemon(stays).client();
    // How many calls have ended at which node.
    let ran = Mutex::new([0; 4]);
    let over = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let ends = Ends(&over);
        for _ in 0..12 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answer = client.call("work.where", &json!([0.03]));
                    if answer.status != 200 {
                        over.store(true, Ordering::Relaxed);
                    }
                    let at = usize::try_from(answer.ok().as_u64().expect("a number")).expect("a node");
                    ran.lock().unwrap_or_else(PoisonError::into_inner)[at] += 1;
                }
            });
        }
        let of = |at: usize| -> usize { ran.lock().unwrap_or_else(PoisonError::into_inner)[at] };
        for at in [0, 1, 2] {
            let runs_calls = || {
                let before = of(at);
                until(&format!("calls run at node {at}"), || {
                    assert!(!over.load(Ordering::Relaxed), "a call has failed");
                    (of(at) > before + 5).then_some(())
                });
            };
            runs_calls();
            grid.stop(at);
            grid.start(at);
            runs_calls();
        }
        drop(ends);
    });
    println!("{:?} calls in {:.1?}", ran.into_inner(), start.elapsed());
}

#[test]
fn a_thousand_callers_while_others_scale_from_zero() {
    // A socket for each.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("a process may have what it may have");
    let grid = Grid::new(&[1, 2, 2], &[WORK]);
    let start = Instant::now();
    let calls: Vec<Pending> =
        (0..CALLERS).map(|_| grid.begin(0, "work.where?queue_wait=60s", json!([0.005]))).collect();
    let mut ran = [0; 3];
    for call in calls {
        ran[usize::try_from(call.ok().as_u64().expect("a number")).expect("a node")] += 1;
    }
    println!("calls by node: {ran:?}, in {:.1?}", start.elapsed());
    assert!(ran.iter().all(|count| *count > CALLERS / 20), "all nodes work: {ran:?}");
}
