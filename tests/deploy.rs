//! `bourse deploy`: modules are put on the nodes that are to serve them, whole or not at all.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::support::command::{bourse, fails, served, text, works};
use crate::support::{Daemon, Setup, joined, wait_for};

fn setup() -> Setup {
    Setup::new(&[]).argument("--listen").argument("127.0.0.1:0").set("running", "2")
}

/// A file `shop.py` in a folder of its own.
fn shop(folder: &Path, version: &str) -> String {
    fs::create_dir_all(folder).expect("a folder");
    let file = folder.join("shop.py");
    let text = format!(
        "__version__ = '{version}'\nfrom bourse import function\n\n@function(http='GET /price/{{item}}')\ndef price(item: str):\n    return [item, __version__]\n"
    );
    fs::write(&file, text).expect("a file");
    self::text(&file)
}

fn price(daemon: &Daemon) -> Json {
    let answer = daemon.get("/price/tea");
    if answer.status == 200 { answer.ok()[1].clone() } else { json!(answer.status) }
}

fn deployed(daemon: &Daemon, name: &str) -> Json {
    let all = daemon.get("/v1/deployments").ok();
    all.as_array().expect("a list").iter().find(|d| d["name"] == name).cloned().unwrap_or_default()
}

/// How many nodes are at a stage.
fn at(daemon: &Daemon, name: &str, stage: &str) -> usize {
    let deployment = deployed(daemon, name);
    deployment["nodes"].as_array().into_iter().flatten().filter(|node| node["stage"] == stage).count()
}

/// Whether a node serves the module itself.
fn serves(daemon: &Daemon, module: &str) -> Option<String> {
    let all = daemon.get("/v1/modules").ok();
    let found =
        all.as_array().expect("a list").iter().find(|m| m["name"] == module && m["elsewhere"] == false)?;
    found["version"].as_str().map(str::to_owned)
}

#[test]
fn a_file_is_deployed_to_all_nodes_changed_and_taken_back() {
    let place = tempfile::tempdir().expect("a folder");
    let nodes = joined((0..3).map(|_| setup()));
    let folder = served(&nodes[1]);
    // 1. From a node that is not the one which keeps it.
    let file = shop(place.path(), "1.0.0");
    let said = works(&["deploy", &file, "-C", &folder]);
    assert_eq!(said.matches("serving").count(), 3, "{said}");
    for node in &nodes {
        assert_eq!((price(node), serves(node, "shop")), (json!("1.0.0"), Some("1.0.0".to_owned())));
    }
    // 2. Another version takes its place; the same one again changes nothing.
    shop(place.path(), "1.1.0");
    works(&["deploy", &file, "-C", &folder]);
    works(&["deploy", &file, "-C", &folder]);
    assert!(nodes.iter().all(|node| price(node) == json!("1.1.0")));
    // 3. One that does not load changes nothing, and says so.
    fs::write(&file, "import nothing_of_that_name\n").expect("a file");
    let told = bourse(&["deploy", &file, "-C", &folder]);
    assert!(!told.worked && told.err.contains("3 of 3 nodes could not load it"), "{}{}", told.out, told.err);
    assert!(told.out.contains("nothing_of_that_name"), "{}", told.out);
    assert!(nodes.iter().all(|node| price(node) == json!("1.1.0")), "nothing is served half");
    let listed = works(&["deployments", "-C", &served(&nodes[2])]);
    assert_eq!(listed.matches("failed: ").count(), 3, "{listed}");
    let told = bourse(&["deploy", &file, "-C", &folder]);
    assert!(
        told.err.contains("3 of 3 nodes could not load it"),
        "the same once more: {}{}",
        told.out,
        told.err
    );
    // 4. Back to what served.
    works(&["rollback", "shop", "-C", &folder]);
    assert!(nodes.iter().all(|node| price(node) == json!("1.1.0")));
    // 5. Nodes that start again serve it at once, the one that keeps the store too.
    let nodes: Vec<Daemon> = nodes.into_iter().map(|node| node.stop().up()).collect();
    assert!(nodes.iter().all(|node| serves(node, "shop") == Some("1.1.0".to_owned())));
    wait_for("all are known to serve it", || at(&nodes[2], "shop", "serving") == 3);
    // 6. Gone.
    works(&["undeploy", "shop", "-C", &served(&nodes[0])]);
    wait_for("it is gone everywhere", || nodes.iter().all(|node| price(node) == json!(404)));
    assert!(!nodes[1].data().join("deployed/shop").join("x").exists());
    let refused = fails(&["undeploy", "shop", "-C", &served(&nodes[0])]);
    assert!(refused.contains("there is no deployment shop"), "{refused}");
}

#[test]
fn it_goes_to_as_many_nodes_with_its_labels_as_it_says() {
    let place = tempfile::tempdir().expect("a folder");
    let labels = ["", "eu", "eu,gpu", "eu"];
    let mut nodes = joined(labels.iter().map(|labels| setup().set("labels", labels)));
    let folder = served(&nodes[0]);
    let file = shop(place.path(), "1.0.0");
    // 1. Two of the three.
    works(&["deploy", &file, "--count", "2", "--label", "eu", "-C", &folder]);
    let on = |nodes: &[Daemon]| nodes.iter().map(|node| serves(node, "shop").is_some()).collect::<Vec<_>>();
    let first = on(&nodes);
    assert_eq!((first[0], first.iter().filter(|on| **on).count()), (false, 2), "{first:?}");
    assert!(nodes.iter().all(|node| price(node) == json!("1.0.0")), "all can be asked for it");
    // 2. One that has both.
    works(&["deploy", &file, "--name", "shop", "--label", "eu", "--label", "gpu", "-C", &folder]);
    wait_for("only that one", || on(&nodes) == [false, false, true, false]);
    // 3. Nobody.
    let refused = fails(&["deploy", &file, "--name", "other", "--label", "moon", "-C", &folder]);
    assert!(refused.contains("no node can be given other"), "{refused}");
    // 4. A node that takes none, and one that has a module of that name in its folder.
    let last = nodes.pop().expect("the last").stop().set("deploys", "false");
    let last = last.up();
    works(&["undeploy", "other", "-C", &folder]);
    let third = nodes.pop().expect("the third");
    fs::write(
        Path::new(&served(&third)).join("shop.py"),
        "def price(item: str):\n    return [item, 'own']\n",
    )
    .expect("a file");
    let price = || third.call("shop.price", json!({"item": "x"})).ok();
    wait_for("its own is served", || price() == json!(["x", "own"]));
    let told = bourse(&["deploy", &file, "-C", &folder]);
    assert!(told.err.contains("1 of 3 nodes could not load it"), "{}{}", told.out, told.err);
    assert!(told.out.contains("this node has another module shop"), "{}", told.out);
    assert_eq!(price(), json!(["x", "own"]), "its own is served on");
    assert_eq!(serves(&last, "shop"), None);
}

#[test]
fn a_canary_is_served_by_one_node_until_it_is_promoted_or_taken_back() {
    let place = tempfile::tempdir().expect("a folder");
    let nodes = joined((0..3).map(|_| setup()));
    let folder = served(&nodes[2]);
    let file = shop(place.path(), "1.0.0");
    works(&["deploy", &file, "-C", &folder]);
    let versions = || {
        let mut all: Vec<_> = nodes.iter().filter_map(|node| serves(node, "shop")).collect();
        all.sort();
        all
    };
    // 1. Tried on one, and taken back.
    shop(place.path(), "2.0.0");
    works(&["deploy", &file, "--canary", "1", "-C", &folder]);
    assert_eq!(versions(), ["1.0.0", "1.0.0", "2.0.0"]);
    assert!(works(&["deployments", "-C", &folder]).contains("(canary)"));
    works(&["rollback", "shop", "-C", &folder]);
    assert_eq!(versions(), ["1.0.0"; 3]);
    // 2. Tried, and taken over by all.
    works(&["deploy", &file, "--canary", "1", "-C", &folder]);
    works(&["promote", "shop", "-C", &folder]);
    assert_eq!(versions(), ["2.0.0"; 3]);
    let refused = fails(&["promote", "shop", "-C", &folder]);
    assert!(refused.contains("nothing is tried"), "{refused}");
    // 3. And back to what was before.
    works(&["rollback", "shop", "-C", &folder]);
    assert_eq!(versions(), ["1.0.0"; 3]);
}

#[test]
fn a_folder_of_modules_is_deployed_to_one_daemon_alone() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("bakery");
    fs::create_dir_all(folder.join("oven")).expect("folders");
    fs::write(
        folder.join("oven/__init__.py"),
        "from .heat import warm\n\ndef bake(what: str):\n    return warm(what)\n",
    )
    .expect("a file");
    fs::write(folder.join("oven/heat.py"), "def warm(what):\n    return 'warm ' + what\n").expect("a file");
    fs::write(folder.join("till.py"), "from bourse import state\n\ndef ring():\n    n = state('till/n').get(0) + 1\n    state('till/n').set(n)\n    return n\n").expect("a file");
    let daemon = Setup::new(&[("own.py", "def f():\n    return 1\n")]).up();
    let served = served(&daemon);
    let told: Json =
        serde_json::from_str(&works(&["deploy", &text(&folder), "--json", "-C", &served])).expect("JSON");
    assert_eq!(told["nodes"][0]["stage"], "serving", "{told}");
    assert_eq!(daemon.call("oven.bake", json!({"what": "bread"})).ok(), json!("warm bread"));
    assert_eq!(daemon.call("till.ring", json!({})).ok(), json!(1));
    assert_eq!(daemon.call("own.f", json!({})).ok(), json!(1), "the folder's own are served beside it");
    // What is no bundle takes nobody's place.
    let refused = daemon.post("/v1/deployments/bakery", b"nonsense");
    refused.problem(400, "bad_request");
    assert_eq!(daemon.call("till.ring", json!({})).ok(), json!(2));
    // What can't be deployed says why.
    let refused = fails(&["deploy", &text(&folder.join("nothing.py")), "-C", &served]);
    assert!(refused.contains("cannot be read"), "{refused}");
    fs::create_dir(place.path().join("empty")).expect("a folder");
    let refused = fails(&["deploy", &text(&place.path().join("empty")), "-C", &served]);
    assert!(refused.contains("there is nothing to deploy"), "{refused}");
    fs::write(place.path().join("empty/notes.txt"), "no module").expect("a file");
    let told = bourse(&["deploy", &text(&place.path().join("empty")), "-C", &served]);
    assert!(told.out.contains("there is no module in it"), "{}{}", told.out, told.err);
}
