//! Durable calls with real processes: killed at random under load, on a full disk, and asked about over HTTP.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::support::{Client, Daemon, Setup, signal, until, wait_for};

const WORK: (&str, &str) = (
    "work.py",
    "
    import time
    from bourse import context, function, state

    # At home in one of eight scopes: of the calls' own homes, few are the same partition.
    @function(retry={'attempts': 1000, 'pause': '1ms', 'pause_max': '20ms'})
    def add(n: int):
        scope = f'ledger{n % 8}'
        count = state(f'{scope}/count').get() or 0
        state(f'{scope}/count').set(count + 1)
        seen = state(f'{scope}/of/{n}')
        seen.set((seen.get() or 0) + 1)
        later.start(n)
        return n

    # Made by `add`, in the same commit.
    @function(retry={'attempts': 1000, 'pause': '1ms', 'pause_max': '20ms'})
    def later(n: int):
        count = state(f'later{n % 8}/count').get() or 0
        state(f'later{n % 8}/count').set(count + 1)

    @function
    def counts():
        return [sum(state(f'{kind}{i}/count').get() or 0 for i in range(8)) for kind in ('ledger', 'later')]

    @function
    def doubled(i: int):
        found, page = [], state(f'ledger{i}/of').list(limit=500)
        while page:
            found += [row.key for row in page if row.value != 1]
            page = page.next()
        return found

    @function(retry={'attempts': 3, 'pause': '10ms'})
    def fails():
        raise ValueError('as ever')

    @function
    def big(n: int):
        return 'x' * n

    @function
    def nap(seconds: float):
        time.sleep(seconds)
        return 'rested'
    ",
);

/// How often something is killed.
fn kills() -> u64 {
    if std::env::var_os("BOURSE_TEST_LONG").is_some() { 200 } else { 100 }
}

/// Callers who go on whatever dies, and call again with the same key what they have not heard of.
struct Load {
    next: AtomicU64,
    accepted: Mutex<BTreeSet<u64>>,
    unsure: Mutex<Vec<u64>>,
    over: AtomicBool,
}

impl Load {
    fn run(&self, client: Client) {
        while !self.over.load(Ordering::Relaxed) {
            let n = lock(&self.unsure).pop().unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
            if start(client, n).is_ok_and(|accepted| accepted) {
                lock(&self.accepted).insert(n);
            } else {
                lock(&self.unsure).push(n);
                // The daemon is gone, or going: whoever started us sees to that.
                thread::yield_now();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(client: Client, n: u64) -> io::Result<bool> {
    let headers = [("content-type", "application/json"), ("idempotency-key", &*format!("key-{n}"))];
    let body = json!({"n": n}).to_string();
    let answer = client.try_send("POST", "/v1/call/work.add?mode=async", &headers, body.as_bytes())?;
    assert!(matches!(answer.status, 202 | 503), "{answer}");
    Ok(answer.status == 202)
}

/// Numbers that are spread well enough (xorshift64*).
fn random(seed: &mut u64, below: u64) -> u64 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    seed.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
}

#[track_caller]
fn wait_until_nothing_waits(daemon: &Daemon) {
    wait_for("all accepted calls have ended", || {
        let queues = daemon.get("/v1/queues").ok();
        let lanes = queues.as_array().expect("an array").clone();
        lanes.iter().all(|l| l["ready"] == 0 && l["retrying"] == 0 && l["running"] == 0 && l["more"] == false)
    });
}

#[test]
fn nothing_accepted_is_lost_or_done_twice_however_often_anything_is_killed() {
    let first = std::env::var("BOURSE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed_0001_u64);
    let mut seed = first;
    let mut daemon = Setup::new(&[WORK]).set("running", "4").up();
    let load = Load {
        next: AtomicU64::new(0),
        accepted: Mutex::default(),
        unsure: Mutex::default(),
        over: AtomicBool::new(false),
    };
    let mut daemons = 0;
    let mut left = kills();
    while left > 0 {
        // 1. Callers call; instances are killed, and in the end the daemon.
        load.over.store(false, Ordering::Relaxed);
        let client = daemon.client();
        let setup = thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| load.run(client));
            }
            let instances = random(&mut seed, 8).min(left - 1);
            for _ in 0..instances {
                thread::sleep(Duration::from_millis(random(&mut seed, 30)));
                let victims = daemon.instances();
                if !victims.is_empty() {
                    let at = usize::try_from(random(&mut seed, victims.len() as u64)).expect("an index");
                    signal(victims[at], Signal::KILL);
                }
            }
            thread::sleep(Duration::from_millis(random(&mut seed, 60)));
            left -= instances + 1;
            daemons += 1;
            let setup = daemon.kill();
            load.over.store(true, Ordering::Relaxed);
            setup
        });
        daemon = setup.up();
    }
    // 2. Whatever nobody was told of is called again, with the same key.
    for n in lock(&load.unsure).drain(..) {
        until("it is accepted", || start(daemon.client(), n).ok().filter(|accepted| *accepted));
        lock(&load.accepted).insert(n);
    }
    wait_until_nothing_waits(&daemon);

    // 3. Each has been done once, and so has each call that it made.
    let accepted = lock(&load.accepted).len() as u64;
    assert_eq!(accepted, load.next.load(Ordering::Relaxed), "all have been accepted in the end");
    assert!(accepted > kills() && daemons > 5, "{accepted} calls, {daemons} daemons");
    println!("{accepted} calls, {daemons} daemons killed, seed {first}");
    assert_eq!(daemon.call("work.counts", json!({})).ok(), json!([accepted, accepted]));
    for i in 0..8 {
        assert_eq!(daemon.call("work.doubled", json!({"i": i})).ok(), json!([]), "done twice");
    }
    assert_eq!(daemon.get("/v1/dead").ok()["calls"], json!([]));
    let one = daemon.get("/v1/calls?status=done&limit=1").ok();
    assert_eq!(one["calls"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_call_is_accepted_run_and_known() {
    let daemon = Daemon::start(&[WORK]);
    let accepted = daemon.post("/v1/call/work.nap?mode=async", json!({"seconds": 0.2}).to_string());
    assert_eq!(accepted.status, 202, "{accepted}");
    let id = accepted.json()["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/calls/{id}");
    assert_eq!(accepted.header("location"), Some(path.as_str()));
    let ended = daemon.get(&format!("{path}?poll=20s")).ok();
    assert_eq!(
        (&ended["status"], &ended["result"], &ended["attempts"]),
        (&json!("done"), &json!("rested"), &json!(1))
    );
    assert_eq!(daemon.get(&format!("{path}/result")).ok(), json!("rested"));

    // Fails three times, and is a dead letter; its caller, who waits, is told so.
    let failed = daemon.call("work.fails", json!({}));
    failed.problem(500, "function_error");
    let dead = daemon.get("/v1/dead").ok();
    let letter = &dead["calls"][0];
    assert_eq!((&letter["status"], &letter["attempts"]), (&json!("dead"), &json!(3)));
    let id = letter["id"].as_str().expect("an id").to_owned();
    assert_eq!(daemon.send("POST", &format!("/v1/dead/{id}/replay"), &[], b"").status, 202);
    wait_for("it is a dead letter again", || daemon.get(&format!("/v1/calls/{id}")).ok()["status"] == "dead");
    assert_eq!(daemon.send("DELETE", &format!("/v1/dead/{id}"), &[], b"").status, 200);
    daemon.get(&format!("/v1/calls/{id}")).problem(404, "not_found");

    // A synchronous call with a key: twice is once.
    let keyed = || {
        let headers = [("content-type", "application/json"), ("idempotency-key", "\"one\"")];
        daemon.send("POST", "/v1/call/work.add", &headers, b"{\"n\": 7}")
    };
    assert_eq!((keyed().ok(), keyed().ok()), (json!(7), json!(7)));
    wait_until_nothing_waits(&daemon);
    assert_eq!(daemon.call("work.counts", json!({})).ok(), json!([1, 1]));
}

#[test]
fn what_runs_is_cancelled_and_what_is_too_large_is_a_dead_letter() {
    let daemon = Daemon::start(&[WORK]);
    let start = |function: &str, arguments: Json| {
        let answer = daemon.post(&format!("/v1/call/{function}?mode=async"), arguments.to_string());
        answer.json()["id"].as_str().unwrap_or_else(|| panic!("no id: {answer}")).to_owned()
    };
    let id = start("work.nap", json!({"seconds": 1000}));
    let status = |id: &str| daemon.get(&format!("/v1/calls/{id}")).ok()["status"].clone();
    wait_for("it runs", || status(&id) == "running");
    assert_eq!(daemon.send("DELETE", &format!("/v1/calls/{id}"), &[], b"").ok()["status"], "cancelled");
    assert_eq!(status(&id), "cancelled");
    daemon.send("DELETE", &format!("/v1/calls/{id}"), &[], b"").ok();

    let id = start("work.big", json!({"n": 17 << 20}));
    wait_for("it has ended", || status(&id) == "dead");
    assert_eq!(daemon.get(&format!("/v1/calls/{id}")).ok()["error"]["code"], "too_large");

    daemon.post("/v1/call/work.nothing?mode=async", "{}").problem(404, "not_found");
    daemon.post("/v1/call/work.nap?mode=async", "{}").problem(422, "bad_arguments");
    let headers = [("idempotency-key", "")];
    daemon.send("POST", "/v1/call/work.nap", &headers, b"{}").problem(400, "bad_request");
}

#[test]
fn a_stopped_daemon_goes_on_where_it_was() {
    let mut daemon = Setup::new(&[WORK]).set("running", "1").up();
    let ids: Vec<String> = (0..20)
        .map(|_| {
            let answer = daemon.post("/v1/call/work.nap?mode=async", json!({"seconds": 0.05}).to_string());
            answer.json()["id"].as_str().expect("an id").to_owned()
        })
        .collect();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_end().code(), Some(0));
    let daemon = daemon.kill().up();
    for id in ids {
        assert_eq!(daemon.get(&format!("/v1/calls/{id}?poll=30s")).ok()["status"], "done");
    }
}
