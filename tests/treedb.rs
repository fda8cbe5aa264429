//! The example on a real text: written by many at once, killed in the middle, and all there afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value as Json;

use crate::support::{Client, Response, Setup, signal, skipped, wait_for};

const WRITERS: usize = 8;

fn treedb() -> Setup {
    Setup::new(&[("treedb.py", include_str!("../examples/treedb/treedb.py"))])
}

/// Lines of files that the machine has, by "texts/FILE/LINE".
fn text(lines_max: usize) -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = ["/usr/share/common-licenses", "/usr/share/doc"]
        .iter()
        .flat_map(|folder| files(Path::new(folder), 2))
        .chain([Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md")])
        .collect();
    files.sort();
    let mut lines = Vec::new();
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let file = path.to_string_lossy().trim_start_matches('/').replace('/', "·");
        lines.extend(
            text.lines()
                .filter(|l| !l.trim().is_empty())
                .take(400)
                .enumerate()
                .map(|(number, line)| (format!("texts/{file}/{number:04}"), line.to_owned())),
        );
        if lines.len() >= lines_max {
            break;
        }
    }
    lines.truncate(lines_max);
    lines
}

fn files(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_file() && path.extension().is_none_or(|e| e != "gz") {
            found.push(path);
        } else if path.is_dir() && depth > 0 {
            found.extend(files(&path, depth - 1));
        }
    }
    found
}

fn encoded(key: &str) -> String {
    key.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn put(client: Client, key: &str, value: &str) -> std::io::Result<Response> {
    client.try_send("POST", &format!("/kv/{}", encoded(key)), &[], value.as_bytes())
}

/// Writes all pairs from many threads until all are written or the daemon is gone; says which were acknowledged.
fn write_all(client: Client, pairs: &[(String, String)], done: &AtomicUsize) -> Vec<usize> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let writer = || {
            let mut acknowledged = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((key, value)) = pairs.get(at) else { return acknowledged };
                let Ok(response) = put(client, key, value) else { return acknowledged };
                assert_eq!(response.status, 200, "{response}");
                acknowledged.push(at);
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().flat_map(|w| w.join().expect("a writer ends")).collect()
    })
}

/// All children of a key, page after page.
fn children(client: Client, key: &str, limit: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/kv/{}/children?limit={limit}&after={}", encoded(key), encoded(&after));
        let page = client.get(&path).ok();
        let names =
            page["children"].as_array().expect("an array").iter().map(|n| n.as_str().expect("a name"));
        all.extend(names.map(str::to_owned));
        match &page["next"] {
            Json::String(next) => after.clone_from(next),
            _ => return all,
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_in_the_middle_of_writing() {
    let pairs = text(if std::env::var_os("BOURSE_TEST_LONG").is_some() { 5000 } else { 1200 });
    if pairs.len() < 500 {
        return skipped("this machine has no texts under /usr/share");
    }
    let daemon = treedb().up();

    // 1. Many writers at once; the daemon is killed when half is done.
    let done = AtomicUsize::new(0);
    let (acknowledged, setup) = thread::scope(|scope| {
        let client = daemon.client();
        let writing = scope.spawn({
            let (pairs, done) = (&pairs, &done);
            move || write_all(client, pairs, done)
        });
        wait_for("half of it is written", || done.load(Ordering::Relaxed) >= pairs.len() / 2);
        let setup = daemon.kill();
        (writing.join().expect("writers end"), setup)
    });
    assert!(acknowledged.len() < pairs.len(), "it was killed too late to tell anything");
    setup.wait_gone();

    // 2. Another one on the same data: what was acknowledged is there, and listed.
    let daemon = setup.up();
    let client = daemon.client();
    for &at in &acknowledged {
        let (key, value) = &pairs[at];
        let read = client.get(&format!("/kv/{}", encoded(key)));
        assert_eq!((read.status, read.text()), (200, value.as_str()), "{key}");
    }

    // 3. The rest is written; then all of it is there, and every folder lists what was put into it.
    write_all(client, &pairs, &AtomicUsize::new(0));
    let mut expected: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, _) in &pairs {
        let (parent, name) = key.rsplit_once('/').expect("a path");
        expected.entry(parent).or_default().push(name);
    }
    let mut listed = 0;
    for (parent, mut names) in expected {
        names.sort_unstable();
        assert_eq!(children(client, parent, 150), names, "{parent}");
        listed += names.len();
    }
    assert_eq!(listed, pairs.len());
    for (key, value) in pairs.iter().step_by(7) {
        assert_eq!(client.get(&format!("/kv/{}", encoded(key))).text(), value);
    }
    assert_eq!(client.get("/kv").ok()["children"], serde_json::json!(["texts"]));
}

#[test]
fn a_folder_of_many_children_is_listed_page_by_page_while_it_grows() {
    let long = std::env::var_os("BOURSE_TEST_LONG").is_some();
    let (count, by_hand) = if long { (100_000, 100_000) } else { (5_000, 300) };
    let setup = treedb();
    // In the short run most of them are there before, written a page at a time.
    let fill = "def fill(first: int, last: int):\n    for n in range(first, last):\n        state(f'{scope(\"many\")}/child/{n:06}').set(True)\n";
    setup.write(
        "treedb.py",
        &format!("{}\n\n@function\n{fill}", include_str!("../examples/treedb/treedb.py")),
    );
    let daemon = setup.up();
    let client = daemon.client();
    for first in (0..count - by_hand).step_by(500) {
        let last = (first + 500).min(count - by_hand);
        daemon.call("treedb.fill", serde_json::json!([first, last])).ok();
    }
    let start = Instant::now();
    let next = AtomicUsize::new(count - by_hand);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let written = put(client, &format!("many/{at:06}"), "x").expect("the daemon answers");
                    assert_eq!(written.status, 200, "{written}");
                }
            });
        }
        // Somebody lists meanwhile: always in order, never a name twice.
        while next.load(Ordering::Relaxed) < count {
            let names = children(client, "many", 1000);
            assert!(names.is_sorted_by(|a, b| a < b));
        }
    });
    let written = start.elapsed();
    let start = Instant::now();
    let names = children(client, "many", 1000);
    println!(
        "{by_hand} of {count} children written in {written:.1?}, listed in {:.1?}, {} MiB resident",
        start.elapsed(),
        daemon.resident_mib()
    );
    assert_eq!(names.len(), count);
    assert!(names.iter().enumerate().all(|(at, name)| *name == format!("{at:06}")));
}

#[test]
fn writes_of_one_key_take_effect_in_the_order_in_which_they_came() {
    let daemon = treedb().set("instances_max", "4").up();
    let write = |value: u32| serde_json::json!({"key": "texts/one", "body": value.to_string()});
    let writes: Vec<String> = (0..60).map(|value| daemon.accept("treedb.write", &write(value))).collect();
    // Others are written meanwhile, and do not wait for these.
    let others =
        (0..20).map(|n| daemon.call_beside("treedb.write", serde_json::json!([format!("texts/{n}"), "x"])));
    for other in others.collect::<Vec<_>>() {
        other.join().expect("it is answered").ok();
    }
    for id in writes {
        daemon.result(&id);
    }
    assert_eq!(daemon.get("/kv/texts%2Fone").text(), "59");
}

#[test]
fn kill_9_of_the_daemon_leaves_nothing_running() {
    let daemon = Setup::new(&[(
        "stray.py",
        "
        import os, signal, subprocess, time
        def stray():
            '''A child, and a daemon of the old school: forked twice, in a session of its own, deaf to signals.'''
            subprocess.Popen(['sleep', '1000'])
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                        signal.signal(number, signal.SIG_IGN)
                    time.sleep(1000)
                os._exit(0)
            os.wait()
            return os.getpid()
        def busy():
            time.sleep(1000)
        ",
    )])
    .set("instances_max", "1")
    .up();
    daemon.call("stray.stray", serde_json::json!({})).ok();
    let busy = daemon.client().begin("POST", "/v1/call/stray.busy", &[], b"").expect("it is sent");
    wait_for("it runs", || daemon.get("/v1/status").ok()["running"] == 1);
    // The daemon, keeper, template, instance, sleep and the double-forked one.
    wait_for("everything is there", || daemon.processes().len() == 6);
    let setup = daemon.kill();
    setup.wait_gone();
    drop(busy);
}

#[test]
fn what_an_instance_leaves_behind_ends_with_it() {
    let daemon = Setup::new(&[(
        "stray.py",
        "
        import os, time
        def stray():
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(1000)
                os._exit(0)
            os.wait()
            return os.getpid()
        ",
    )])
    .set("instances_max", "1")
    .up();
    let instance = daemon.call("stray.stray", serde_json::json!({})).ok();
    let instance = i32::try_from(instance.as_i64().expect("a number")).expect("a process id");
    // The daemon, the keeper, the template and its spare; the instance and the stray.
    wait_for("everything is there", || daemon.processes().len() == 6);
    signal(instance, Signal::KILL);
    wait_for("the stray is gone as well", || daemon.processes().len() == 4);
}
