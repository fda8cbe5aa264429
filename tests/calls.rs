//! Calls: waiting, time limits, cancelling, nesting, bounds; whatever dies, each is answered once.

use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Daemon, Setup, until, wait_for};

const SLEEPER: (&str, &str) = (
    "nap.py",
    "
    import os, time
    def nap(seconds: float = 0):
        time.sleep(seconds)
        return os.getpid()
    def deaf(seconds: float = 0):
        '''Does not want to be interrupted.'''
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                time.sleep(end - time.monotonic())
            except BaseException:
                pass
    ",
);

/// One instance, which is busy.
fn busy(setup: Setup) -> (Daemon, std::net::TcpStream) {
    let daemon = setup.up();
    let body = br#"{"seconds": 1000}"#;
    let busy = daemon.client().begin("POST", "/v1/call/nap.nap", &[], body).expect("it is sent");
    wait_for("it runs", || daemon.get("/v1/status").ok()["running"] == 1);
    (daemon, busy)
}

fn one_instance() -> Setup {
    Setup::new(&[SLEEPER]).set("instances_max", "1")
}

#[test]
fn who_waits_longer_than_queue_wait_is_told_to_come_back() {
    let (daemon, _busy) = busy(one_instance());
    let waited = daemon.send("POST", "/v1/call/nap.nap?queue_wait=50ms", &[], b"");
    let said = waited.problem(503, "no_capacity");
    assert!(said.contains("nap.nap waited") && said.contains("there are 1"), "{said}");
    assert_eq!(waited.header("retry-after"), Some("1"));
    let waited = daemon.send("POST", "/v1/call/nap.nap", &[("bourse-queue-wait", "10ms")], b"");
    waited.problem(503, "no_capacity");
}

#[test]
fn a_full_queue_refuses() {
    let (daemon, _busy) = busy(one_instance().set("queue", "2"));
    let _waiting: Vec<_> = (0..2)
        .map(|_| daemon.client().begin("POST", "/v1/call/nap.nap", &[], b"").expect("it is sent"))
        .collect();
    wait_for("two wait", || daemon.get("/v1/status").ok()["waiting"] == 2);
    let refused = daemon.call("nap.nap", json!({}));
    refused.problem(503, "queue_full");
    assert_eq!(refused.header("retry-after"), Some("1"));
}

#[test]
fn a_call_that_takes_too_long_is_interrupted_and_its_instance_goes_on() {
    let daemon = one_instance().up();
    let pid = daemon.call("nap.nap", json!({})).ok();
    let start = Instant::now();
    let late = daemon.send("POST", "/v1/call/nap.nap?timeout=100ms", &[], br#"{"seconds": 1000}"#);
    let said = late.problem(504, "timeout");
    assert!(said.contains("nap.nap ran until its time was over"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(daemon.call("nap.nap", json!({})).ok(), pid, "it was interrupted, not killed");
}

#[test]
fn a_call_that_does_not_let_itself_be_interrupted_is_killed_with_its_instance() {
    let daemon = one_instance().set("interrupt_grace", "100ms").up();
    let pid = daemon.call("nap.nap", json!({})).ok();
    let late = daemon.send("POST", "/v1/call/nap.deaf?timeout=100ms", &[], br#"{"seconds": 1000}"#);
    late.problem(504, "timeout");
    assert_ne!(daemon.call("nap.nap", json!({})).ok(), pid);
}

#[test]
fn a_deadline_in_the_past_is_a_timeout() {
    let daemon = one_instance().up();
    let said = daemon.send("POST", "/v1/call/nap.nap?timeout=0s", &[], b"").problem(400, "bad_request");
    assert!(said.contains("above zero"), "{said}");
    daemon.send("POST", "/v1/call/nap.nap?timeout=1ms", &[], br#"{"seconds": 5}"#).problem(504, "timeout");
    daemon.call("nap.nap", json!({})).ok();
}

#[test]
fn a_caller_that_goes_away_cancels_a_call_that_waits() {
    let (daemon, busy) = busy(one_instance());
    let waiting =
        daemon.client().begin("POST", "/v1/call/nap.nap", &[], b"{\"seconds\": 999}").expect("it is sent");
    wait_for("it waits", || daemon.get("/v1/status").ok()["waiting"] == 1);
    waiting.shutdown(Shutdown::Both).expect("a socket");
    drop(waiting);
    wait_for("it no longer waits", || daemon.get("/v1/status").ok()["waiting"] == 0);
    daemon.wait_log("cancelled: the caller cancelled the call, or went away");
    // One that runs is told, and goes on: it may have to clean up. Its time bounds it.
    drop(busy);
    until("that is logged as well", || (daemon.log().matches("cancelled: ").count() == 2).then_some(()));
}

#[test]
fn payloads_are_bounded() {
    let daemon = Setup::new(&[(
        "echo.py",
        "
        def size(body: bytes): return len(body)
        def make(n: int): return 'x' * n
        ",
    )])
    .set("payload", "64KiB")
    .up();
    let large = "x".repeat(80 * 1024);
    let said = daemon.send(
        "POST",
        "/v1/call/echo.size",
        &[("content-type", "application/json")],
        format!("[\"{large}\"]").as_bytes(),
    );
    said.problem(413, "too_large");
    let said = daemon.call("echo.make", json!({"n": 100_000})).problem(413, "too_large");
    assert!(said.contains("100,005 bytes, more than the limit of 65,536"), "{said}");
    assert_eq!(daemon.call("echo.make", json!({"n": 60_000})).body.len(), 60_002);
}

const FIB: (&str, &str) = (
    "fib.py",
    "
    from bourse import function, gather
    @function
    def natural(n: int):
        return n if n < 2 else natural.call(n - 1) + natural.call(n - 2)
    @function
    def gathered(n: int):
        return n if n < 2 else sum(gather(gathered.submit(n - 1), gathered.submit(n - 2)))
    @function
    async def tasks(n: int):
        return n if n < 2 else await tasks.acall(n - 1) + await tasks.acall(n - 2)
    @function
    def deeper(n: int):
        return deeper.call(n + 1)
    @function
    def alone(n: int):
        return n
    ",
);

#[test]
fn recursion_needs_no_more_processes_than_are_allowed() {
    // Each of the three that run is at the bottom of a chain of 14 callers, at most.
    let daemon = Setup::new(&[FIB]).set("running", "3").set("blocked", "42").up();
    for (function, n, expected) in
        [("fib.natural", 15, 610), ("fib.gathered", 15, 610), ("fib.tasks", 10, 55)]
    {
        let calling = daemon.call_beside(function, json!({"n": n}));
        let mut most = 0;
        while !calling.is_finished() {
            most = most.max(daemon.processes().len());
        }
        assert_eq!(calling.join().expect("it answers").ok(), expected, "{function}");
        println!("{function}({n}): {most} processes");
        assert!(most <= 3 + 3 + 42, "{function} made {most} processes");
    }
}

#[test]
fn a_recursion_without_end_is_refused() {
    let daemon = Setup::new(&[FIB]).set("depth", "10").up();
    let said = daemon.call("fib.deeper", json!({"n": 0})).problem(508, "depth_exceeded");
    assert!(said.contains("at most 10"), "{said}");
    assert_eq!(said.matches("fib.deeper").count(), 2, "each level says the same: {said}");
    assert_eq!(daemon.call("fib.alone", json!({"n": 1})).ok(), 1);
}

#[test]
fn more_blocked_instances_than_allowed_are_refused() {
    let daemon = Setup::new(&[FIB]).set("blocked", "4").up();
    let said = daemon.call("fib.deeper", json!({"n": 0})).problem(503, "blocked_exceeded");
    assert!(said.contains("4 instances of fib"), "{said}");
    assert!(daemon.processes().len() <= 3 + 6);
    assert_eq!(daemon.call("fib.alone", json!({"n": 1})).ok(), 1);
}

#[test]
fn slow_calls_do_not_hold_up_fast_ones() {
    let daemon = Setup::new(&[SLEEPER]).set("running", "2").set("instances_max", "2").up();
    for _ in 0..20 {
        daemon.call("nap.nap", json!({})).ok(); // they are known to be fast now
    }
    let slow =
        daemon.client().begin("POST", "/v1/call/nap.nap", &[], br#"{"seconds": 1000}"#).expect("it is sent");
    let fast: Vec<_> = (0..40).map(|_| daemon.call_beside("nap.nap", json!({}))).collect();
    let start = Instant::now();
    for call in fast {
        call.join().expect("it answers").ok();
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(slow);
}

#[test]
fn many_calls_at_once_are_all_answered() {
    let daemon = Setup::new(&[SLEEPER]).up();
    let client = daemon.client();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    client.call("nap.nap", &json!({})).ok();
                }
            });
        }
    });
    assert_eq!(daemon.get("/v1/status").ok()["calls"], 0);
}
