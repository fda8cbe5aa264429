//! Two grids of real daemons and a bridge between them: one sells what the other one serves.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::support::command::{fails, joined, served, works};
use crate::support::{Daemon, Setup, until, wait_for};

/// What the other grid serves.
const LAB: &str = "
import os, time
from bourse import context, function, state
__version__ = '1.0.0'

@function
def weigh(what, grams: int = 0):
    '''Weighs.'''
    n = state('weighed/n').get(0) + 1
    state('weighed/n').set(n)
    return {'what': what, 'grams': grams, 'n': n}

@function
def hold(gate: str):
    note(gate + '/began')
    try:
        while not os.path.exists(gate + '/open'):
            time.sleep(0.005)
            if context.cancelled:
                raise RuntimeError('nobody waits')
    except BaseException:
        note(gate + '/stopped')
        raise
    return 'held'

@function
def fail():
    raise KeyError('no such sample')

def note(path):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, b'x\\n')
    os.close(file)
";

fn listening(files: &[(&str, &str)]) -> Setup {
    Setup::new(files).argument("--listen").argument("127.0.0.1:0").set("running", "8")
}

/// The other grid, and this one: two nodes, with nothing of their own.
fn grids() -> (Daemon, Vec<Daemon>) {
    let lab = listening(&[("lab.py", LAB)]).up();
    (lab, joined((0..2).map(|_| listening(&[]))))
}

/// A bridge that runs, until it is dropped.
struct Bridge(Child);

impl Bridge {
    fn start(daemon: &Daemon, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_bourse"))
            .args(["bridge", "lab", "-C", &served(daemon)])
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Self(child)
    }

    /// Ends it in order.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("it runs");
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ticket(daemon: &Daemon) -> String {
    works(&["ticket", "-C", &served(daemon), "--quiet"])
}

fn lines(gate: &tempfile::TempDir, file: &str) -> usize {
    std::fs::read_to_string(gate.path().join(file)).unwrap_or_default().lines().count()
}

fn knows(daemon: &Daemon, function: &str) {
    until("it is served here", || {
        let answer = daemon.call(function, json!(["flour"]));
        (answer.status == 200).then_some(())
    });
}

fn code(answer: &Json) -> &str {
    answer["code"].as_str().unwrap_or_default()
}

#[test]
fn a_grid_sells_what_another_one_serves() {
    let (lab, mut here) = grids();
    let bridge = Bridge::start(&here[0], &["--ticket", &ticket(&lab), "--module", "lab"]);
    knows(&here[1], "lab.weigh");
    // 1. Whoever is asked, it is done over there, where its state is; arguments, results and failures are the same.
    for (n, daemon) in [(2, &here[0]), (3, &here[1]), (4, &lab)] {
        let answer = daemon.call("lab.weigh", json!({"what": "salt", "grams": 7}));
        assert_eq!(answer.ok(), json!({"what": "salt", "grams": 7, "n": n}));
    }
    let failed = here[1].call("lab.fail", json!([]));
    assert_eq!((failed.status, code(&failed.json())), (500, "function_error"));
    assert!(failed.json()["detail"].as_str().is_some_and(|text| text.contains("no such sample")));
    // 2. A durable call is kept here, and done over there.
    let id = here[1].accept("lab.weigh", &json!(["pepper"]));
    assert_eq!(here[1].result(&id)["n"], 5);
    // 3. A caller that goes away is noticed over there.
    let gate = tempfile::tempdir().expect("a folder");
    let path = gate.path().to_str().expect("text").to_owned();
    let slow =
        here[1].send("POST", "/v1/call/lab.hold?timeout=300ms", &[], json!([path]).to_string().as_bytes());
    assert_eq!(code(&slow.json()), "timeout");
    wait_for("it has been stopped", || lines(&gate, "stopped") == lines(&gate, "began"));
    // 4. It starts again without a ticket, and finds what has changed over there meanwhile.
    bridge.end();
    wait_for("it is gone", || here[1].call("lab.weigh", json!(["x"])).status == 404);
    let _bridge = Bridge::start(&here[0], &["--module", "lab=far"]);
    knows(&here[1], "far.weigh");
    // So does the daemon, which it does not hold up.
    let began = std::time::Instant::now();
    let first = here.remove(0).stop();
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "it stops at once: {:?}", began.elapsed());
    here.insert(0, first.up());
    knows(&here[0], "far.weigh");
    knows(&here[1], "far.weigh");
    let newer = format!("{}\n@function\ndef count():\n    return 12\n", LAB.replace("1.0.0", "1.1.0"));
    let file = lab.data().parent().expect("a folder").join("lab.py");
    std::fs::write(file, newer).expect("it is written");
    until("the new function is there", || {
        let answer = here[1].call("far.count", json!([]));
        // What is there all the time is never gone.
        assert_eq!(here[1].call("far.weigh", json!(["x"])).status, 200);
        (answer.status == 200).then_some(())
    });
}

#[test]
fn past_its_limit_calls_wait_come_back_or_are_dropped() {
    let (lab, here) = grids();
    let ticket = ticket(&lab);
    for past in ["queue", "bounce", "drop"] {
        let gate = tempfile::tempdir().expect("a folder");
        let path = gate.path().to_str().expect("text").to_owned();
        let arguments = ["--ticket", &ticket, "--module", "lab", "--limit", "2", "--past", past];
        let bridge = Bridge::start(&here[0], &arguments);
        knows(&here[0], "lab.weigh");
        let held: Vec<_> = (0..2).map(|_| here[0].call_beside("lab.hold", json!([path]))).collect();
        wait_for("both run over there", || lines(&gate, "began") == 2);
        let more = here[0].call_beside("lab.weigh", json!(["salt"]));
        if past == "queue" {
            // It waits until one of the others has ended.
            assert!(!more.is_finished());
        } else {
            let refused = more.join().expect("it is answered");
            assert_eq!(code(&refused.json()), "no_capacity", "{past}: {}", refused.json());
            let id = here[0].accept("lab.weigh", &json!(["salt"]));
            if past == "drop" {
                until("it is dropped", || {
                    let call = here[0].get(&format!("/v1/calls/{id}")).ok();
                    (call["status"] == "cancelled").then_some(())
                });
            } else {
                std::fs::write(gate.path().join("open"), "").expect("it is written");
                assert_eq!(here[0].result(&id)["what"], "salt", "it is tried again");
            }
            std::fs::write(gate.path().join("open"), "").expect("it is written");
            held.into_iter().for_each(|call| assert_eq!(call.join().expect("it ends").ok(), "held"));
            bridge.end();
            continue;
        }
        std::fs::write(gate.path().join("open"), "").expect("it is written");
        held.into_iter().for_each(|call| assert_eq!(call.join().expect("it ends").ok(), "held"));
        assert_eq!(more.join().expect("it ends").ok()["what"], "salt");
        bridge.end();
    }
}

#[test]
fn what_cannot_be_bridged_says_why() {
    // It is to come back where it was.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = free.expect("there is a port").to_string();
    let lab = Setup::new(&[("lab.py", LAB)]).argument("--listen").argument(&address).up();
    let here = joined((0..2).map(|_| listening(&[])));
    let folder = served(&here[0]);
    let told = fails(&["bridge", "lab", "-C", &folder, "--module", "lab"]);
    assert!(told.contains("there is no bridge lab so far") && told.contains("bourse ticket"), "{told}");
    let told = fails(&["bridge", "lab", "-C", &folder, "--module", "lab", "--ticket", "nonsense"]);
    assert!(told.contains("this is no ticket"), "{told}");
    let told = fails(&["bridge", "a/b", "-C", &folder, "--module", "lab"]);
    assert!(told.contains("can't be the name of a bridge"), "{told}");
    let told = fails(&["bridge", "lab", "-C", &folder, "--module", "a=x", "--module", "b=x"]);
    assert!(told.contains("two modules are to be called x here"), "{told}");
    let told = fails(&["bridge", "lab", "-C", &folder, "--module", "a="]);
    assert!(told.contains("is not a module's name"), "{told}");
    // The other grid goes away while it is bridged, and comes back.
    let _bridge = Bridge::start(&here[0], &["--ticket", &ticket(&lab), "--module", "lab"]);
    knows(&here[1], "lab.weigh");
    let lab = lab.stop();
    let gone = here[1].send("POST", "/v1/call/lab.weigh?timeout=2s", &[], b"[\"salt\"]");
    assert!(matches!(gone.status, 502..=504), "{}", gone.json());
    let _lab = lab.up();
    knows(&here[1], "lab.weigh");
}
