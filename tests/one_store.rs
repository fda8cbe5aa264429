//! A grid has one store: whatever needs it is done by the node that keeps it, whichever node is asked.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use crate::support::command::{fails, served, text, works};
use crate::support::{Daemon, Setup, joined, until, wait_for};
use crate::websocket::{CHAT, script_with};

const SHOP: (&str, &str) = (
    "shop.py",
    "
    import os, time
    from bourse import emit, function, state

    @function
    def hello(name: str):
        return f'hello {name}'

    @function
    def count():
        n = state('shop/n').get(0) + 1
        state('shop/n').set(n)
        return n

    @function
    def twice():
        return count.call() + count.call()

    @function(retry=3)
    def order(item: str):
        return f'sent {item}'

    @function(retry={'attempts': 1})
    def broken():
        raise ValueError('no')

    @function(exclusive='till')
    def pay(gate: str):
        os.mkdir(gate)
        time.sleep(0.02)
        os.rmdir(gate)
        return 'paid'

    @function(cron='0 0 1 1 *', queue='orders')
    def takes(item: str = ''):
        return count.call()

    @function
    def starts():
        return order.start('tea')
    ",
);

fn setup() -> Setup {
    Setup::new(&[SHOP, CHAT]).argument("--listen").argument("127.0.0.1:0").set("running", "2")
}

/// Nodes that have joined the first one with a ticket.
fn grid(nodes: usize) -> Vec<Daemon> {
    joined((0..nodes).map(|_| setup()))
}

fn count(daemon: &Daemon) -> u64 {
    daemon.call("shop.count", json!({})).ok().as_u64().expect("a number")
}

#[test]
fn all_nodes_have_the_same_state_calls_keys_and_triggers() {
    let nodes = grid(3);
    // 1. State.
    let counted: Vec<u64> = (0..9).map(|n| count(&nodes[n % 3])).collect();
    assert_eq!(counted, (1..=9).collect::<Vec<_>>());
    assert_eq!(nodes[2].call("shop.twice", json!({})).ok(), json!(10 + 11));
    assert_eq!(nodes[1].call("shop.hello", json!({"name": "you"})).ok(), json!("hello you"));
    // 2. Durable calls: accepted by anybody, known to everybody.
    let id = nodes[1].accept("shop.order", &json!({"item": "tea"}));
    for node in &nodes {
        assert_eq!(node.result(&id), json!("sent tea"));
    }
    let started = nodes[2].call("shop.starts", json!({})).ok();
    let id = started.as_str().expect("an id").to_owned();
    assert_eq!(nodes[1].result(&id), json!("sent tea"));
    // 3. Lists, dead letters and their replay, cancels.
    let dead = nodes[1].accept("shop.broken", &json!({}));
    wait_for("it is a dead letter", || nodes[2].get(&format!("/v1/calls/{dead}")).ok()["status"] == "dead");
    let listed = |node: &Daemon, path: &str| -> Vec<String> {
        let found = node.get(path).ok();
        let calls = found["calls"].as_array().expect("a list").iter();
        calls.map(|call| call["id"].as_str().expect("an id").to_owned()).collect()
    };
    for node in &nodes {
        assert_eq!(listed(node, "/v1/dead"), std::slice::from_ref(&dead));
        assert_eq!(listed(node, "/v1/calls?limit=10").len(), 3);
        let queues = node.get("/v1/triggers").ok();
        let names: Vec<&str> =
            queues.as_array().expect("a list").iter().filter_map(|t| t["name"].as_str()).collect();
        assert!(names.contains(&"orders"), "{queues}");
    }
    assert_eq!(nodes[2].send("POST", &format!("/v1/dead/{dead}/replay"), &[], b"").status, 202);
    wait_for("it fails again", || listed(&nodes[0], "/v1/dead") == std::slice::from_ref(&dead));
    assert_eq!(nodes[1].send("DELETE", &format!("/v1/dead/{dead}"), &[], b"").status, 200);
    assert_eq!(listed(&nodes[0], "/v1/dead"), Vec::<String>::new());
    // 4. A key is exclusive on all of them.
    let place = tempfile::tempdir().expect("a folder");
    let gate = text(&place.path().join("gate"));
    let paid: Vec<_> = (0..12).map(|n| nodes[n % 3].call_beside("shop.pay", json!({"gate": gate}))).collect();
    for answer in paid {
        assert_eq!(answer.join().expect("it is answered").ok(), json!("paid"));
    }
    // 5. A message goes to the one queue, and a key of an idempotent one holds everywhere.
    let told: BTreeSet<String> = (0..3)
        .map(|n| {
            let key = [("Idempotency-Key", "once"), ("Content-Type", "application/json")];
            let told = nodes[n].send("POST", "/v1/queues/orders", &key, b"\"tea\"");
            let told: Json = serde_json::from_slice(&told.body).expect("JSON");
            told["calls"][0].as_str().expect("an id").to_owned()
        })
        .collect();
    assert_eq!(told.len(), 1, "it is one message");
    let one = told.into_iter().next().expect("one");
    assert_eq!(nodes[1].result(&one), json!(12));
    // 6. And it is shown who keeps it.
    let shown = works(&["store", "show", "-C", &served(&nodes[2])]);
    assert!(shown.contains("is kept by the node"), "{shown}");
    assert!(works(&["store", "show", "-C", &served(&nodes[0])]).contains("this node keeps the grid's store"));
    assert!(works(&["nodes", "-C", &served(&nodes[1])]).contains("store"));
}

#[test]
fn connections_are_reached_whichever_node_has_them() {
    let nodes = grid(3);
    script_with(
        &[&nodes[1], &nodes[2]],
        r#"
    async with websockets.connect(ats[0] + "/chat/tea") as a, websockets.connect(ats[1] + "/chat/tea") as b:
        for one in (a, b):
            await one.send("hi")
            assert await one.recv() == "hi"
        # 1. A group is on all nodes, whoever sends to it.
        await a.send("all")
        assert json.loads(await b.recv()) == {"to": "all"}
        assert json.loads(await a.recv()) == {"to": "all"}
        assert json.loads(await a.recv()) == {"sent": 2, "full": 0}
        # 2. A connection is at one of them.
        await b.send("leave")
        await b.send("who")
        assert len(await b.recv()) == 32
        await b.send("all")
        assert json.loads(await b.recv()) == {"sent": 1, "full": 0}
        assert json.loads(await a.recv()) == {"to": "all"}
        await a.send("close")
        try:
            await a.recv()
            assert False
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 4001, closed
"#,
    );
    wait_for("both ends are told", || {
        let mut codes = nodes[0].call("chat.closed", json!({"room": "tea"})).ok();
        codes.as_array_mut().expect("a list").sort_by_key(Json::as_i64);
        codes == json!([1000, 4001])
    });
}

#[test]
fn calls_wait_for_a_keeper_that_starts_again() {
    let mut nodes = grid(2);
    assert_eq!(count(&nodes[1]), 1);
    let keeper = nodes.remove(0);
    let other = nodes.remove(0);
    // 1. It stops in order: nobody notices more than a pause.
    let keeper = keeper.stop();
    let waits = other.call_beside("shop.count", json!({}));
    assert_eq!(other.call("shop.hello", json!({"name": "you"})).ok(), json!("hello you"));
    let keeper = keeper.up();
    assert_eq!(waits.join().expect("it is answered").ok(), json!(2));
    // 2. It is killed.
    let setup = keeper.kill();
    let waits = other.call_beside("shop.count", json!({}));
    let keeper = setup.up();
    assert_eq!(waits.join().expect("it is answered").ok(), json!(3));
    assert_eq!(count(&keeper), 4);
    // 3. It stays away: callers are told, in the time that a call may wait.
    drop(keeper);
    let told = other.send(
        "POST",
        "/v1/call/shop.count",
        &[("Content-Type", "application/json"), ("Bourse-Queue-Wait", "300ms")],
        b"{}",
    );
    assert_eq!(told.status, 503);
    let told = String::from_utf8_lossy(&told.body).into_owned();
    assert!(told.contains("store_unavailable") && told.contains("keeps the grid's store"), "{told}");
    assert_eq!(other.get("/v1/calls").status, 503);
}

#[test]
fn two_stores_with_something_in_them_are_refused() {
    // 1. Both have worked alone, and then one joins the other.
    let first = setup().up();
    let second = setup().up();
    assert_eq!((count(&first), count(&second)), (1, 1));
    let ticket = works(&["ticket", "-C", &served(&first), "--quiet"]);
    let second = second.stop();
    works(&["join", &text(&second.folder()), &ticket]);
    let refused = second.refused();
    assert!(refused.contains("a grid has one") && refused.contains("--store grid"), "{refused}");
}

#[test]
fn a_used_store_is_set_aside_and_made_the_grid_s_when_an_operator_says_so() {
    let first = setup().up();
    let second = setup().up();
    assert_eq!((count(&first), count(&second), count(&second)), (1, 1, 2));
    let ticket = works(&["ticket", "-C", &served(&first), "--quiet"]);
    let second = second.stop();
    let folder = text(&second.folder());
    works(&["join", &folder, &ticket]);
    // 1. Its own is left as it is.
    let second = second.variable("BOURSE_STORE", "grid").up();
    assert_eq!(count(&second), 2, "the first one's");
    let refused = fails(&["store", "claim", "-C", &folder]);
    assert!(refused.contains("no store of its own"), "{refused}");
    // 2. Until it is made the grid's.
    let second = second.stop();
    works(&["store", "claim", "-C", &folder]);
    let second = second.variable("BOURSE_STORE", "sqlite").up();
    wait_for("the other has heard", || first.get("/v1/store").ok()["here"] == false);
    assert_eq!(count(&second), 3, "its own");
    assert_eq!(count(&first), 4);
    // 3. Also while it runs, and for those that come later.
    works(&["store", "claim", "-C", &served(&first)]);
    wait_for("the other has heard", || second.get("/v1/store").ok()["here"] == false);
    assert_eq!(until("an answer", || second.call("shop.count", json!({})).ok().as_u64()), 3);
    assert_eq!(count(&first), 4);
}

#[test]
fn a_node_that_has_a_key_and_no_ticket_gives_way_too() {
    let first = setup().up();
    let nodes = first.get("/v1/nodes").ok();
    let address = nodes[0]["address"].as_str().expect("an address").to_owned();
    let key = nodes[0]["key"].as_str().expect("a key").to_owned();
    let second = setup();
    works(&["init", &text(&second.folder())]);
    let own = std::fs::read_to_string(second.folder().join(".bourse/node.pub")).expect("a key");
    works(&["admit", own.trim(), "-C", &served(&first)]);
    let second = second
        .argument("--join")
        .argument(&format!("{key}@{address}"))
        .argument("--allow")
        .argument(&key)
        .up();
    assert_eq!((count(&second), count(&first)), (1, 2));
}
