//! treedb's slow job: the children of a key are sorted by pages, by one call at a time, while others go on writing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::support::{Daemon, Setup};

const WRITERS: usize = 8;

/// How many children there are, how many of them have no value, and how many make a page.
fn sizes() -> (u64, u64, u64) {
    if std::env::var_os("BOURSE_TEST_LONG").is_some() { (100_000, 97_000, 1000) } else { (450, 150, 100) }
}

/// A daemon with the children that have no value: they are only listed, a page in each commit.
fn treedb() -> Daemon {
    let (_, listed, page) = sizes();
    let source = include_str!("../examples/treedb/treedb.py");
    assert!(source.contains("PAGE = 1000"));
    let source = source.replace("PAGE = 1000", &format!("PAGE = {page}"));
    let fill = "def fill(first: int, last: int):\n    for n in range(first, last):\n        state(f'{scope(\"many\")}/child/{n:06}').set(True)\n";
    let daemon = Setup::new(&[("treedb.py", &format!("{source}\n\n@function\n{fill}"))]).up();
    for first in (0..listed).step_by(500) {
        daemon.call("treedb.fill", json!([first, listed.min(first + 500)])).ok();
    }
    daemon
}

/// The value of a child, or nothing. No two are equal, and their order is another one than that of the names.
fn value(child: u64) -> String {
    let (all, listed, _) = sizes();
    if child < listed { String::new() } else { format!("{:06}", child * 7919 % all) }
}

/// Writes these children, from many threads.
fn write(daemon: &Daemon, children: std::ops::Range<u64>) {
    let next = AtomicU64::new(children.start);
    let writer = || {
        loop {
            let child = next.fetch_add(1, Ordering::Relaxed);
            if child >= children.end {
                return;
            }
            daemon.call("treedb.write", json!([format!("many/{child:06}"), value(child)])).ok();
        }
    };
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(writer);
        }
    });
}

/// The names of all children, as they were sorted last, and how many pages they take.
fn in_order(daemon: &Daemon) -> (Vec<String>, usize) {
    let mut all = Vec::new();
    for page in 0.. {
        let read = daemon.get(&format!("/kv/many/ordered?page={page}")).ok();
        let names = read["children"].as_array().expect("a list");
        if names.is_empty() {
            return (all, page);
        }
        all.extend(names.iter().map(|name| name.as_str().expect("a name").to_owned()));
    }
    unreachable!("it returns")
}

/// The names of the first so many children, in the order of their values.
fn sorted(count: u64) -> Vec<String> {
    let mut children: Vec<u64> = (0..count).collect();
    children.sort_by_key(|child| (value(*child), *child));
    children.into_iter().map(|child| format!("{child:06}")).collect()
}

#[test]
fn children_are_sorted_by_one_call_at_a_time_while_others_write() {
    let daemon = treedb();
    let (all, listed, page) = sizes();
    let before = all - 50;
    write(&daemon, listed..before);

    // 1. Who asks for it while it runs gets the same call; of another key, another one.
    let start = Instant::now();
    let first = daemon.accept("treedb.sort", &json!({"key": "many"}));
    let beside = daemon.call_beside("treedb.sort?timeout=10m", json!({"key": "many"}));
    let other = daemon.accept("treedb.sort", &json!({"key": "few"}));
    assert_eq!(daemon.accept("treedb.sort", &json!(["many"])), first);
    assert_ne!(other, first);

    // 2. Writers are not held up, nor do they hold it up.
    write(&daemon, before..all);
    let result = daemon.result(&first);
    println!("{before} children sorted in {:.1?}, {} MiB resident", start.elapsed(), daemon.resident_mib());
    match beside.join() {
        Ok(answer) => assert_eq!(answer.ok(), result),
        // A client of the long run waits no longer than a minute.
        Err(_) => assert!(start.elapsed().as_secs() > 50, "it is answered"),
    }
    assert_eq!(daemon.result(&other)["children"], 0);
    let (names, _) = in_order(&daemon);
    let old: Vec<&String> = names.iter().filter(|name| **name < format!("{before:06}")).collect();
    assert!(old.into_iter().eq(sorted(before).iter()), "those that were there are in order");

    // 3. Once it has ended, it can be run again. What was sorted before is gone.
    let second = daemon.accept("treedb.sort", &json!({"key": "many"}));
    assert_ne!(second, first);
    let result = daemon.result(&second);
    assert_eq!(result, json!({"order": second, "children": all, "pages": all.div_ceil(page)}));
    let (names, pages) = in_order(&daemon);
    assert_eq!(names, sorted(all));
    assert_eq!(Json::from(pages), result["pages"]);
}
