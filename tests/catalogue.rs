//! Any node can be asked for anything, whoever serves it, and in any version that somebody serves.

use serde_json::{Value as Json, json};

use crate::support::command::{served, works};
use crate::support::{Daemon, Setup, joined, wait_for};

/// A module in a version.
fn shop(version: &str) -> String {
    format!(
        "
        __version__ = '{version}'
        from bourse import function, state

        @function(http='GET /price/{{item}}')
        def price(item: str):
            return [item, __version__]

        @function(retry=3)
        def order(item: str):
            state('orders/n').set(state('orders/n').get(0) + 1)
            return state('orders/n').get()

        @function(queue='parcels', cron='0 0 1 1 *')
        def parcel(item: str = ''):
            return item
        "
    )
}

fn setup(files: &[(&str, &str)]) -> Setup {
    Setup::new(files).argument("--listen").argument("127.0.0.1:0").set("running", "2")
}

fn knows(daemon: &Daemon, module: &str) -> bool {
    let all = daemon.get("/v1/modules").ok();
    all.as_array().expect("a list").iter().any(|m| m["name"] == module && m["version"].is_string())
}

fn price(daemon: &Daemon, version: &str) -> Json {
    let path = format!(
        "/v1/call/shop.price?version={}",
        version.replace('^', "%5E").replace('=', "%3D").replace('>', "%3E")
    );
    let answer = daemon.post(&path, r#"{"item": "tea"}"#);
    if answer.status == 200 { answer.ok()[1].clone() } else { json!(answer.status) }
}

#[test]
fn nodes_without_a_file_serve_all_that_others_do() {
    // 1. The first node keeps the store and has no file; the third has the only one.
    let first = shop("1.0.0");
    let mut nodes = joined([setup(&[]), setup(&[]), setup(&[("shop.py", &first)])].into_iter());
    for node in &nodes {
        wait_for("it knows the module", || knows(node, "shop"));
        assert_eq!(node.get("/price/tea").ok(), json!(["tea", "1.0.0"]), "also by its route");
    }
    // 2. Durable calls, state, queues: they are accepted by a node that does not serve the module, and run where it is.
    let id = nodes[1].accept("shop.order", &json!({"item": "tea"}));
    assert_eq!(nodes[2].result(&id), json!(1));
    let told = nodes[1].post("/v1/queues/parcels", r#""a""#);
    let told: Json = serde_json::from_slice(&told.body).expect("JSON");
    assert_eq!(nodes[0].result(told["calls"][0].as_str().expect("an id")), json!("a"));
    let listed = works(&["ps", "-C", &served(&nodes[0])]);
    assert!(listed.contains("on other nodes"), "{listed}");
    let metrics = nodes[1].get("/metrics");
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for name in [
        "bourse_peer_bytes_total{message=\"modules\",direction=\"in\"}",
        "bourse_token_wait_seconds",
        "bourse_slots_max",
    ] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    let top = works(&["top", "--every", "100ms", "-C", &served(&nodes[1])]);
    assert!(
        top.contains("on other nodes")
            && top.contains("CALLS/S")
            && top.contains("this one")
            && !top.contains("-0"),
        "{top}"
    );
    let top = works(&["top", "--every", "100ms", "--times", "2", "--json", "-C", &served(&nodes[1])]);
    assert_eq!(top.lines().count(), 2, "{top}");
    // 3. A new version is known to all as soon as it is there; no one starts again.
    let last = nodes.pop().expect("the third");
    std::fs::write(last.data().parent().expect("a folder").join("shop.py"), dedented(&shop("1.1.0")))
        .expect("saved");
    for node in &nodes {
        wait_for("the new one is served", || price(node, "") == json!("1.1.0"));
        assert_eq!(price(node, "^2"), json!(404));
    }
    // 4. Its node starts again: callers wait for it.
    let setup = last.stop();
    let waits = nodes[1].call_beside("shop.price", json!({"item": "tea"}));
    let _last = setup.up();
    assert_eq!(waits.join().expect("it is answered").ok(), json!(["tea", "1.1.0"]));
}

#[test]
fn versions_are_served_side_by_side_by_five_nodes() {
    let versions = ["1.0.0", "1.0.0", "1.5.0", "2.0.0", "2.1.0"];
    let files = versions.map(shop);
    let nodes = joined(files.iter().map(|file| setup(&[("shop.py", file)])));
    for node in &nodes {
        for (requirement, found) in
            [("=1.0.0", "1.0.0"), ("^1.1", "1.5.0"), ("=2.0.0", "2.0.0"), (">=2.1", "2.1.0")]
        {
            wait_for("the version is found", || price(node, requirement) == json!(found));
        }
        assert_eq!(price(node, "^3"), json!(404));
    }
}

fn dedented(text: &str) -> String {
    text.lines().map(|line| line.strip_prefix("        ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}
