//! `call`, `map` and `ps` with a real daemon.

use serde_json::json;

use crate::world::Folder;

const SHOP: &str = r#"
from bourse import Response

def price(item: str, amount: int = 1):
    return {"item": item, "amount": amount}

def fail(why):
    raise KeyError(why)

def same(body: bytes) -> bytes:
    return body

def length(body: bytes):
    return len(body)

def stamp(body, note: str, times: int = 1):
    return [len(body), note, times]

def words(body: str, by: float = 1.0):
    return [body, by]

def page() -> str:
    return Response("<p>\n", content_type="text/html")

def gone():
    return Response("gone\n", status=410)

def number(n: int):
    return n
"#;

#[test]
fn arguments_go_in_and_results_come_out() {
    let folder =
        Folder::with(&[("shop.py", SHOP), ("args.json", r#"{"item": "file"}"#), ("raw", "\u{0}\u{7f}")]);
    let _daemon = folder.up(&[]);
    let call = |arguments: &[&str]| folder.run(&[&["call"], arguments].concat());

    // 1. By name, as JSON, by position, from a file.
    assert_eq!(call(&["shop.price", "item=tea", "amount=3"]).text(), "{\"item\":\"tea\",\"amount\":3}\n");
    assert_eq!(call(&["shop.price", r#"{"item": "a=b"}"#]).text(), "{\"item\":\"a=b\",\"amount\":1}\n");
    assert_eq!(call(&["shop.price", r#"["tea", 2]"#]).text(), "{\"item\":\"tea\",\"amount\":2}\n");
    assert_eq!(call(&["shop.price", "@args.json"]).text(), "{\"item\":\"file\",\"amount\":1}\n");
    assert_eq!(call(&["shop.length", "@raw"]).text(), "2\n");

    assert_eq!(call(&["shop.stamp", "@raw", "note=n"]).text(), "[2,\"n\",1]\n");
    assert_eq!(call(&["shop.stamp", "times=2", "@args.json", "note=\"5\""]).text(), "[1,\"5\",2]\n");
    assert_eq!(
        call(&["shop.words", "by=1.5", "@args.json"]).text(),
        "[\"{\\\"item\\\": \\\"file\\\"}\",1.5]\n"
    );
    call(&["shop.words", "by=1", "@raw", "body=2"]).exits(2).says("body is given twice");
    call(&["shop.words", "[1]", "@raw"]).exits(2).says("name=value");
    call(&["shop.words", "@raw", "@raw"]).exits(2).says("stands for all arguments");

    // 2. Numbers keep their digits, and text that looks like a number is quoted.
    assert_eq!(call(&["shop.number", "n=18446744073709551615"]).text(), "18446744073709551615\n");
    assert_eq!(call(&["shop.price", "item=\"5\""]).text(), "{\"item\":\"5\",\"amount\":1}\n");
    call(&["shop.price", "item=5"]).exits(1).says("text among them is quoted: name='\"5\"'");

    // 3. Bytes and text are printed as they are; stdin is a file, too.
    let bytes = [0, 255, 10, 13];
    assert_eq!(folder.run_with(&["call", "shop.same", "@-"], &bytes, &[]).exits(0).out, bytes);
    assert_eq!(call(&["shop.page"]).text(), "<p>\n");
    let typed = ["call", "shop.price", "@-", "--content-type", "application/json"];
    assert_eq!(folder.run_with(&typed, b"[\"x\"]", &[]).text(), "{\"item\":\"x\",\"amount\":1}\n");

    // 4. Terms are handed on.
    assert_eq!(
        call(&["shop.number", "n=1", "--timeout", "5s", "--queue-wait", "1s", "--version", "^0.0.0"]).text(),
        "1\n"
    );
    call(&["shop.number", "n=1", "--timeout", "soon"]).exits(1).says("timeout is not a duration");
    call(&["shop.number", "n=1", "--version", "^9"]).exits(1).says("serves version 0.0.0, which is not ^9");
}

#[test]
fn failures_are_told_and_have_exit_statuses() {
    let folder = Folder::with(&[("shop.py", SHOP)]);
    let _daemon = folder.up(&[]);
    let call = |arguments: &[&str]| folder.run(&[&["call"], arguments].concat());

    let failed = call(&["shop.fail", "why=because"])
        .exits(1)
        .says("error: Function error: KeyError: 'because'\n")
        .says("\n  call: ");
    assert!(failed.out.is_empty());
    call(&["shop.prize"])
        .exits(1)
        .says("error: Not found: there is no function shop.prize\n  hint: did you mean shop.price?");
    call(&["shop.price"]).exits(1).says("error: Bad arguments: missing: item");
    let gone = call(&["shop.gone"]).exits(1).says("error: the function answered with status 410");
    assert_eq!(gone.out, b"gone\n");

    let problem = call(&["shop.fail", "why=1", "--json"]).exits(1).json();
    assert_eq!((&problem["code"], &problem["error"]["type"]), (&json!("function_error"), &json!("KeyError")));
    let whole = call(&["shop.price", "item=tea", "--json"]).exits(0).json();
    assert_eq!(whole["result"], json!({"item": "tea", "amount": 1}));
    assert_eq!((&whole["status"], whole["call_id"].is_string()), (&json!(200), true));

    for (arguments, says) in [
        (&["price"][..], "\"price\" is not the name of a function"),
        (&["shop.price", "tea"], "hint: write name=tea, or '[\"tea\"]'"),
        (&["shop.price", "item=a", "item=b"], "item is given twice"),
        (&["shop.price", "@nowhere"], "nowhere cannot be read"),
        (&["shop.price", "--horizon", "moon"], "invalid value 'moon'"),
        (&["shop.price", "--overflow", "drop"], "invalid value 'drop'"),
        (&["shop.price", "--retries", "3"], "unexpected argument"),
    ] {
        call(arguments).exits(2).says(says);
    }
    folder.run(&["cal"]).exits(2).says("'call'");
}

#[test]
fn a_map_keeps_the_order_of_its_items() {
    let folder = Folder::with(&[("shop.py", SHOP), ("items.json", r#"[1, {"n": 2}, [3]]"#)]);
    let _daemon = folder.up(&[]);
    assert_eq!(folder.run(&["map", "shop.number", "@items.json"]).text(), "1\n2\n3\n");
    let many: String = (0..500).map(|n| format!("{n}\n")).collect();
    let parallel = ["map", "shop.number", "-", "--parallel", "7"];
    assert_eq!(folder.run_with(&parallel, many.as_bytes(), &[]).text(), many);
    assert_eq!(folder.run_with(&parallel, b"", &[]).text(), "");

    let some = b"1\n\"x\"\n3\n";
    let done = folder
        .run_with(&["map", "shop.number", "-"], some, &[])
        .exits(1)
        .says("error: item 1: Bad arguments");
    assert_eq!(done.out, b"1\n3\n");
    let done = folder.run_with(&["map", "shop.number", "-", "--json"], some, &[]).exits(1);
    let lines: Vec<serde_json::Value> =
        done.out.split(|&b| b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
    assert_eq!(
        (&lines[0]["result"], &lines[1]["problem"]["code"], &lines[2]["item"]),
        (&json!(1), &json!("bad_arguments"), &json!(2))
    );
    folder.run_with(&["map", "shop.number", "-"], b"[1, 2", &[]).exits(2).says("neither a JSON array nor");
    folder.run(&["map", "shop.number", "items.json"]).exits(2).says("write @FILE");
}

#[test]
fn ps_shows_modules_and_instances() {
    let folder =
        Folder::with(&[("shop.py", SHOP), ("broken.py", "import nowhere_at_all\n"), ("aid.py", "X = 1\n")]);
    let daemon = folder.up(&[]);
    let text = folder.run(&["ps"]).text();
    assert!(
        text.contains(&daemon.url) && text.contains("no instances: they start with the first call"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "colours belong on a terminal");
    folder.run(&["call", "shop.number", "n=1"]).exits(0);

    let all = folder.run(&["ps", "--json"]).exits(0).json();
    let module =
        |name: &str| all["modules"].as_array().unwrap().iter().find(|m| m["name"] == name).unwrap().clone();
    assert_eq!(module("shop")["instances"], 1);
    assert!(module("broken")["failure"]["message"].as_str().unwrap().contains("nowhere_at_all"));
    assert_eq!((&all["instances"][0]["module"], &all["status"]["calls"]), (&json!("shop"), &json!(0)));

    let text = folder.run(&["ps"]).text();
    let line = |start: &str| {
        text.lines()
            .find(|l| l.starts_with(start))
            .unwrap_or_else(|| panic!("no {start} in {text}"))
            .to_owned()
    };
    assert!(line("shop ").ends_with("serving"));
    assert!(line("aid ").ends_with("helper"));
    folder.run(&["map", "shop.number", "-", "--parallel", "0"]).exits(2).says("a whole number from 1");
    assert!(line("broken ").contains("failed: ") && line("INSTANCE").contains("RUNNING"));
    let text = folder.run(&["ps", "--functions"]).text();
    assert!(text.contains("shop.price(item: str, amount?: int)"), "{text}");
    assert!(text.contains("broken fails:") && !text.contains("aid"), "{text}");
}

#[test]
fn durable_calls_are_seen_waited_for_and_buried() {
    let source = r#"
from bourse import function

@function
def fine(n: int):
    return {"n": n}

@function(retry=1)
def bad():
    raise ValueError("it is what it is")
"#;
    let folder = Folder::with(&[("work.py", source)]);
    let _daemon = folder.up(&[]);
    folder.run(&["calls"]).exits(0);
    assert_eq!(folder.run(&["calls"]).text(), "no durable calls\n");

    // 1. An id, and what became of it.
    let id = folder.run(&["call", "work.fine", "n=3", "--async"]).text();
    let done = folder.run(&["calls", id.trim(), "--wait", "--json"]).exits(0).json();
    assert_eq!((&done["status"], &done["result"]), (&json!("done"), &json!({"n": 3})));
    let text = folder.run(&["calls", id.trim()]).text();
    assert!(text.contains("work.fine") && text.contains("done"), "{text}");
    folder.run(&["calls", id.trim(), "--cancel"]).exits(1).says("could not be cancelled any more");

    // 2. One key, one call.
    let keyed = || folder.run(&["call", "work.fine", "n=4", "--async", "--idempotency-key", "k"]).text();
    assert_eq!(keyed(), keyed());

    // 3. A dead letter.
    folder.run(&["call", "work.bad"]).exits(1).says("ValueError");
    let dead = folder.run(&["dead", "--json"]).exits(0).json();
    let letter = dead["calls"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(dead["calls"].as_array().unwrap().len(), 1);
    let text = folder.run(&["dead", "show", &letter]).text();
    assert!(text.contains("ValueError: it is what it is"), "{text}");
    assert_eq!(folder.run(&["dead", "replay", "--all"]).text(), "replayed: 1\n");
    folder.run(&["calls", &letter, "--wait"]).exits(1);
    assert_eq!(folder.run(&["dead", "purge", &letter]).text(), "purged: 1\n");
    assert_eq!(folder.run(&["dead"]).text(), "no dead letters\n");
    folder.run(&["dead", "purge", &letter]).exits(1).says("there is no durable call");

    // 4. Lists.
    let list = folder.run(&["calls", "--status", "done", "--function", "work", "--json"]).exits(0).json();
    assert_eq!(list["calls"].as_array().unwrap().len(), 2);
    assert!(folder.run(&["calls", "--limit", "1"]).text().contains("there are more: --before"));
    folder.run(&["calls", "--status", "lost"]).exits(1).says("there are waiting, running, retrying");
    folder.run(&["queue"]).exits(0);
    folder.run(&["calls", "nonsense"]).exits(1).says("is not the id of a call");
    folder.run(&["dead", "replay"]).exits(2);
}
