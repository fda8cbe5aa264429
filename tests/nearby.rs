//! Daemons of one user on one machine are linked over Unix sockets, and over tcp wherever they are not to be, or can't.

use std::fs;

use serde_json::json;

use crate::grid::{WORK, elsewhere, grid};
use crate::support::command::{served, works};
use crate::support::{Grid, Hosts, skipped, wait_for};

/// How a node is linked with another.
fn by(grid: &Grid, at: usize, other: usize) -> String {
    let nodes = grid.get(at, "/v1/nodes").ok();
    let node = nodes.as_array().expect("an array").iter().find(|node| node["key"] == grid.key(other));
    node.and_then(|node| node["by"].as_str()).unwrap_or("nothing").to_owned()
}

/// Two nodes are linked like that, and calls of each run at the other.
#[track_caller]
fn trade(grid: &Grid, name: &str, carrier: &str) {
    for (buyer, seller) in [(0, 1), (1, 0)] {
        grid.wait_met(buyer, &[seller]);
        wait_for(&format!("{buyer} is linked with {seller} by {carrier}"), || {
            by(grid, buyer, seller) == carrier
        });
        let home = grid.gate(&format!("{name}-{buyer}"));
        let keeps = grid.occupy(buyer, &home);
        assert_eq!(grid.call(buyer, "work.where", json!([])).ok(), seller);
        home.open();
        keeps.ok();
    }
}

#[test]
fn daemons_on_one_machine_are_linked_over_sockets() {
    let mut grid = grid(&[1, 1]);
    trade(&grid, "first", "ipc");
    // 1. It is shown.
    let shown = works(&["nodes", "-C", &served(grid.daemon(0))]);
    assert!(shown.contains("BY") && shown.contains("  ipc  "), "{shown}");
    wait_for("the metric tells", || {
        grid.get(0, "/metrics").text().contains("bourse_connected_nodes{by=\"ipc\"} 1\n")
    });
    // 2. One is killed, with a call of the other. It leaves its socket, which is in nobody's way when it comes again.
    let (home, away) = (grid.gate("home"), grid.gate("away"));
    let keeps = grid.occupy(0, &home);
    let (lost, at) = elsewhere(&grid, &away);
    assert_eq!(at, 1);
    grid.kill(1);
    lost.answer().problem(502, "instance_crashed");
    home.open();
    keeps.ok();
    grid.start(1);
    trade(&grid, "again", "ipc");
    // 3. Restarted without sockets, it is reached by tcp; with them, by its socket again.
    grid.stop(1);
    grid.change(1, |setup| setup.set("ipc", "false"));
    grid.start(1);
    trade(&grid, "without", "tcp");
    grid.stop(1);
    grid.change(1, |setup| setup.set("ipc", "true"));
    grid.start(1);
    trade(&grid, "with", "ipc");
}

/// They share the machine, its files and the user, and are on networks of their own: what is cut off is cut off.
#[test]
fn daemons_on_different_networks_of_one_machine_are_linked_by_tcp() {
    let hosts = match Hosts::new(2) {
        Ok(hosts) => hosts,
        Err(why) => return skipped(&why),
    };
    let mut grid = Grid::planned_on(hosts, &[1, 1], &[WORK]);
    grid.start_all();
    trade(&grid, "first", "tcp");
    grid.hosts().cut(1);
    wait_for("the other is gone", || grid.met(0).is_empty());
    assert_eq!(by(&grid, 0, 1), "nothing");
    grid.hosts().heal(1);
    trade(&grid, "healed", "tcp");
}

#[test]
fn a_runtime_folder_that_others_can_enter_is_not_used() {
    let mut grid = Grid::planned(&[1, 1], &[WORK]);
    let runtime = tempfile::Builder::new().prefix("b-run-").tempdir().expect("a temporary folder");
    let folder = runtime.path().join("bourse");
    fs::create_dir(&folder).expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&folder, open).expect("its mode is changed");
    for at in [0, 1] {
        let runtime = runtime.path().to_str().expect("text");
        grid.change(at, |setup| setup.variable("XDG_RUNTIME_DIR", runtime));
    }
    grid.start_all();
    trade(&grid, "open", "tcp");
    let log = grid.daemon(0).log();
    let said = "come by tcp, and not by a socket";
    assert!(log.contains(said) && log.contains("can be entered by others (its mode is 755)"), "{log}");
}
