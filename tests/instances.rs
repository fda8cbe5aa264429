//! Instances: crashing, starting, scaling, stopping; and what hostile functions do to their neighbours.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::support::{Daemon, Setup, alive, signal, until, wait_for};

const ENDS: (&str, &str) = (
    "ends.py",
    "
    import ctypes, os, signal, sys, time
    def fine():
        return os.getpid()
    def nap(seconds: float):
        time.sleep(seconds)
        return 'rested'
    def leave():
        os._exit(3)
    def killed():
        os.kill(os.getpid(), signal.SIGKILL)
    def segfault():
        ctypes.string_at(0)
    def polite_exit():
        sys.exit(5)
    def talk():
        print('said on stdout')
        print('said on stderr', file=sys.stderr)
        os.write(1, b'said by the descriptor\\n')
    def forks():
        if os.fork() == 0:
            return 'child'
        os.wait()
        return 'parent'
    def blocks_signals():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(1000)
    def eats():
        hoard = []
        while True:
            hoard.append(bytearray(64 << 20))
    def closes_everything():
        os.closerange(3, 1000)
        return 'closed'
    def raises():
        raise KeyError('no such thing')
    def odd_error():
        class Odd(BaseException):
            def __str__(self): raise ValueError
        raise Odd
    def odd_result():
        return object()
    ",
);

fn pid(json: &Json) -> i32 {
    i32::try_from(json.as_i64().expect("a number")).expect("a process id")
}

#[test]
fn an_instance_that_dies_takes_only_its_own_call_along() {
    let daemon = Daemon::start(&[ENDS]);
    let beside = daemon.call_beside("ends.nap", json!({"seconds": 1.5}));
    for (function, how) in [
        ("ends.leave", "exited with code 3"),
        ("ends.killed", "was killed (signal 9"),
        ("ends.segfault", "crashed (signal 11"),
    ] {
        let said = daemon.call(function, json!({})).problem(502, "instance_crashed");
        assert!(said.contains(how), "{function}: {said}");
        daemon.call("ends.fine", json!({})).ok();
    }
    assert_eq!(beside.join().expect("it answers").ok(), "rested");
    assert_eq!(daemon.get("/v1/status").ok()["calls"], 0);
}

#[test]
fn what_functions_do_stays_theirs() {
    let daemon = Setup::new(&[ENDS]).set("instances_max", "1").up();
    let before = daemon.call("ends.fine", json!({})).ok();
    // 1. Errors of all kinds are the function's, and its instance goes on.
    let exit = daemon.call("ends.polite_exit", json!({})).problem(500, "function_error");
    assert!(exit.contains("sys.exit(5)"), "{exit}");
    let raised = daemon.call("ends.raises", json!({}));
    raised.problem(500, "function_error");
    assert_eq!(raised.json()["error"], json!({"type": "KeyError", "message": "'no such thing'"}));
    daemon.call("ends.odd_error", json!({})).problem(500, "function_error");
    let odd = daemon.call("ends.odd_result", json!({})).problem(500, "function_error");
    assert!(odd.contains("is of type object"), "{odd}");
    assert_eq!(daemon.call("ends.fine", json!({})).ok(), before);
    // 2. What it prints goes to its log.
    daemon.call("ends.talk", json!({})).ok();
    for line in ["said on stdout", "said on stderr", "said by the descriptor"] {
        assert!(daemon.output("ends").contains(line), "{line}");
    }
    assert!(!daemon.log().contains("said on stdout"));
    // 3. A forked child may not answer in its parent's name.
    let forked = daemon.call("ends.forks", json!({}));
    assert_eq!(forked.ok(), "parent");
    daemon.call("ends.fine", json!({})).ok();
}

#[test]
fn a_function_that_closes_what_is_not_its_own_harms_itself_only() {
    let daemon = Daemon::start(&[ENDS]);
    daemon.send("POST", "/v1/call/ends.closes_everything?timeout=2s", &[], b"");
    daemon.call("ends.fine", json!({})).ok();
}

#[test]
fn a_function_that_blocks_signals_is_killed_when_its_time_is_over() {
    let daemon = Setup::new(&[ENDS]).set("interrupt_grace", "100ms").up();
    daemon.send("POST", "/v1/call/ends.blocks_signals?timeout=200ms", &[], b"").problem(504, "timeout");
    daemon.call("ends.fine", json!({})).ok();
}

#[test]
fn a_function_that_eats_memory_fails_alone() {
    // Half a GiB of address space for each process: Python sees a MemoryError, or dies.
    let daemon = Setup::new(&[ENDS]).limits("-v 4000000").up();
    let eaten = daemon.call("ends.eats", json!({}));
    match eaten.status {
        500 => assert_eq!(eaten.json()["error"]["type"], "MemoryError", "{eaten}"),
        _ => drop(eaten.problem(502, "instance_crashed")),
    }
    daemon.call("ends.fine", json!({})).ok();
}

#[test]
fn a_failure_to_start_is_reported_with_the_modules_own_traceback() {
    let daemon = Setup::new(&[(
        "hooked.py",
        "
        from bourse import function, on_start
        @on_start
        def connect():
            raise ConnectionError('the database is away')
        @function
        def work():
            return 1
        ",
    )])
    .argument("--dev")
    .up();
    let said = daemon.call("hooked.work", json!({})).problem(502, "module_failed");
    assert!(said.contains("on_start failed: ConnectionError: the database is away"), "{said}");
    daemon.wait_log("hooked.py");
    daemon.wait_log("the database is away");
    // It is not tried again with every call.
    let tried = || daemon.output("hooked").matches("on_start failed").count();
    let before = tried();
    for _ in 0..50 {
        daemon.call("hooked.work", json!({})).problem(502, "module_failed");
    }
    assert!(tried() - before <= 6, "{} starts for 50 calls", tried() - before);
    daemon.write(
        "hooked.py",
        "
        def work():
            return 2
        ",
    );
    until("it is mended", || Some(daemon.call("hooked.work", json!({}))).filter(|r| r.status == 200));
}

#[test]
fn hooks_run_once_for_each_instance() {
    let daemon = Setup::new(&[(
        "hooked.py",
        "
        from bourse import function, instance, on_start, on_stop
        @on_start
        def begin():
            instance.count = 0
        @on_stop
        def end():
            print('ended after', instance.count, flush=True)
        @function
        def count():
            instance.count += 1
            return instance.count
        ",
    )])
    .set("idle", "200ms")
    .up();
    assert_eq!(daemon.call("hooked.count", json!({})).ok(), 1);
    assert_eq!(daemon.call("hooked.count", json!({})).ok(), 2);
    wait_for("it stops for want of work", || daemon.instances().is_empty());
    assert!(daemon.output("hooked").contains("ended after 2"), "{}", daemon.output("hooked"));
    assert_eq!(daemon.call("hooked.count", json!({})).ok(), 1, "a new one");
}

#[test]
fn a_module_that_starts_threads_is_served_the_slow_way_and_told_so() {
    let daemon = Daemon::start(&[(
        "threads.py",
        "
        import threading, time
        threading.Thread(target=time.sleep, args=(1000,), daemon=True, name='ticker').start()
        def names():
            return sorted(t.name for t in threading.enumerate())
        ",
    )]);
    daemon.wait_log("threads cannot be forked (importing it started threads: ticker)");
    let names = daemon.call("threads.names", json!({})).ok();
    assert!(names.as_array().expect("names").contains(&json!("ticker")), "{names}");
}

#[test]
fn instances_come_with_the_work_and_go_without_it() {
    let daemon = Setup::new(&[
        ENDS,
        (
            "bourse.toml",
            "
            [daemon]
            running = 8
            [modules.ends]
            instances_max = 3
            idle = '300ms'
            ",
        ),
    ])
    .up();
    assert_eq!(daemon.instances().len(), 0);
    let calls: Vec<_> = (0..6).map(|_| daemon.call_beside("ends.nap", json!({"seconds": 0.4}))).collect();
    let mut most = 0;
    while calls.iter().any(|c| !c.is_finished()) {
        most = most.max(daemon.instances().len());
    }
    assert_eq!(most, 3);
    for call in calls {
        call.join().expect("it answers").ok();
    }
    wait_for("all have gone", || daemon.instances().is_empty());
    daemon.call("ends.fine", json!({})).ok();
}

#[test]
fn a_zombie_is_replaced() {
    let daemon = Setup::new(&[ENDS]).set("ping", "100ms").set("instances_max", "1").up();
    let zombie = pid(&daemon.call("ends.fine", json!({})).ok());
    signal(zombie, Signal::STOP);
    daemon.wait_log("has not answered 3 pings, and is killed");
    wait_for("it is dead", || !alive(zombie));
    assert_ne!(pid(&daemon.call("ends.fine", json!({})).ok()), zombie);
    // A long call is not one.
    let long = daemon.call("ends.nap", json!({"seconds": 1.0}));
    assert_eq!(long.ok(), "rested");
}

#[test]
fn a_module_that_crashes_again_and_again_is_started_ever_less_often() {
    let daemon = Setup::new(&[ENDS]).up();
    let start = Instant::now();
    for _ in 0..5 {
        daemon.call("ends.leave", json!({})).problem(502, "instance_crashed");
    }
    // 100 + 200 + 400 + 800 ms between the five.
    assert!(start.elapsed() > Duration::from_millis(1_000), "{:?}", start.elapsed());
    daemon.call("ends.fine", json!({})).ok();
}

#[test]
fn a_signal_lets_calls_finish_and_a_second_one_does_not() {
    let mut daemon = Daemon::start(&[ENDS]);
    let running = daemon.call_beside("ends.nap", json!({"seconds": 0.8}));
    wait_for("it runs", || daemon.get("/v1/status").ok()["running"] == 1);
    daemon.signal(Signal::TERM);
    wait_for("it is no longer ready", || {
        daemon.client().try_send("GET", "/readyz", &[], b"").map_or(true, |r| r.status == 503)
    });
    assert_eq!(running.join().expect("it answers").ok(), "rested");
    assert_eq!(daemon.wait_end().code(), Some(0));
    assert!(!daemon.data().join("daemon.json").exists());
    daemon.wait_gone();

    let mut daemon = Daemon::start(&[ENDS]);
    let _running =
        daemon.client().begin("POST", "/v1/call/ends.nap", &[], br#"{"seconds": 1000}"#).expect("sent");
    wait_for("it runs", || daemon.get("/v1/status").ok()["running"] == 1);
    daemon.signal(Signal::TERM);
    daemon.wait_log("finishing the calls in flight");
    let start = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_end().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10));
    daemon.wait_gone();
}

#[test]
fn a_traceback_is_in_the_log() {
    let daemon = Daemon::start(&[ENDS]);
    let answer = daemon.call("ends.raises", json!({}));
    assert!(!answer.text().contains("in raises"), "{answer}");
    answer.problem(500, "function_error");
    daemon.wait_log("KeyError: 'no such thing'");
    daemon.wait_log(", in raises");
    let kept = fs::read_to_string(daemon.data().join("logs/bourse-daemon.log")).expect("a log");
    assert!(kept.contains(", in raises"), "{kept}");
}

#[test]
fn a_second_signal_answers_who_waits() {
    let mut daemon = Daemon::start(&[ENDS]);
    let running = daemon.call_beside("ends.nap", json!({"seconds": 1000}));
    wait_for("it runs", || daemon.get("/v1/status").ok()["running"] == 1);
    // A connection on which nothing comes holds nobody up.
    let _idle = std::net::TcpStream::connect(daemon.client().address).expect("it listens");
    daemon.signal(Signal::HUP);
    daemon.wait_log("finishing the calls in flight");
    daemon.signal(Signal::HUP);
    let start = Instant::now();
    daemon.signal(Signal::INT);
    running.join().expect("it answers").problem(503, "shutting_down");
    assert_eq!(daemon.wait_end().code(), Some(0));
    // What waits for connections waits for two seconds.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!daemon.data().join("store.sqlite-wal").metadata().is_ok_and(|log| log.len() > 0));
    daemon.wait_gone();
}

#[test]
fn a_drain_that_takes_too_long_is_cut_short() {
    let mut daemon = Setup::new(&[ENDS]).set("drain", "300ms").up();
    let running = daemon.call_beside("ends.nap", json!({"seconds": 1000}));
    wait_for("it runs", || daemon.get("/v1/status").ok()["running"] == 1);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_end().code(), Some(0));
    running.join().expect("it answers").problem(503, "shutting_down");
    daemon.wait_gone();
}

#[test]
fn a_keeper_that_is_killed_is_replaced() {
    let daemon = Daemon::start(&[ENDS]);
    let before = pid(&daemon.call("ends.fine", json!({})).ok());
    let keeper = daemon.keeper();
    let running = daemon.call_beside("ends.nap", json!({"seconds": 1000}));
    wait_for("it runs", || daemon.get("/v1/status").ok()["running"] == 1);
    signal(keeper, Signal::KILL);
    running.join().expect("it answers").problem(502, "instance_crashed");
    let after = daemon.call("ends.fine", json!({})).ok();
    assert_ne!(pid(&after), before);
    assert!(!alive(before) && !alive(keeper));
    assert_ne!(daemon.keeper(), keeper);
    wait_for("there is one of each", || daemon.processes().len() == 4);
}

/// As in a container, where it also inherits processes that it has not started, and where no process has a session of
/// before.
#[test]
fn the_first_process_of_a_container_replaces_its_keeper_too() {
    let Some(setup) = Setup::new(&[ENDS]).contained() else {
        println!("skipped: no pid namespaces here");
        return;
    };
    let daemon = setup.up();
    let before = daemon.call("ends.fine", json!({})).ok();
    let keeper = running(&daemon, "keeper");
    signal(keeper, Signal::KILL);
    daemon.wait_log("the keeper has died");
    assert_ne!(daemon.call("ends.fine", json!({})).ok(), before);
    assert!(!alive(keeper));
    // The daemon with what contains it, and one each of keeper, template, spare and instance.
    wait_for("nothing is left of before", || daemon.processes().len() == 6);
}

/// The process whose command line has this word.
fn running(daemon: &Daemon, word: &str) -> i32 {
    let has_word = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|&byte| byte == 0).any(|argument| argument == word.as_bytes()))
    };
    daemon.processes().into_iter().find(has_word).expect("a process with that word in its command line")
}

#[test]
fn a_template_that_dies_is_started_again() {
    let daemon = Setup::new(&[ENDS]).set("idle", "100ms").up();
    daemon.call("ends.fine", json!({})).ok();
    wait_for("the instance has gone", || daemon.instances().is_empty());
    signal(running(&daemon, "bourse._template"), Signal::KILL);
    daemon.wait_log("the template of ends was killed");
    daemon.call("ends.fine", json!({})).ok();
}

#[test]
fn an_instance_knows_its_number_and_dies_with_the_keeper() {
    let daemon = Daemon::start(&[(
        "who.py",
        "
        import os
        def number(): return os.environ['BOURSE_PROCESS']
        ",
    )]);
    let number = daemon.call("who.number", json!({})).ok();
    let listed = daemon.get("/v1/instances").ok();
    assert_eq!(number, listed[0]["instance"].to_string());
}
