//! Which node is to serve what operators have put on the grid.

mod common;

use bourse_node::{DeployChange, Digest, Stage, Stocked};
use bourse_wire::time::{Now, Wall};
use common::grid::Grid;

const A: Digest = [1; 32];
const B: Digest = [2; 32];

fn grid(labels: &[&[&str]]) -> Grid {
    let mut g = Grid::new(&vec![1; labels.len()]);
    for node in &mut g.nodes {
        node.scan();
    }
    g.run(3_000);
    for (node, labels) in labels.iter().enumerate() {
        stock(&mut g, node, labels, &[]);
    }
    g.run(100);
    g
}

fn now(g: &Grid) -> Now {
    Now { mono: g.now, wall: Wall(0) }
}

fn stock(g: &mut Grid, node: usize, labels: &[&str], items: &[Stocked]) {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    let at = now(g);
    g.nodes[node].node.set_stock(at, labels, false, items);
    g.nodes[node].carry_out();
}

fn change(g: &mut Grid, name: &str, change: DeployChange) -> Result<(), String> {
    let at = now(g);
    let result = g.nodes[0].node.change_deployments(at, name, change);
    g.nodes[0].carry_out();
    g.run(200);
    result.map_err(|failure| failure.code)
}

/// The same, without waiting until all have heard.
fn change_at_once(g: &mut Grid, name: &str, change: DeployChange) -> Result<(), String> {
    let at = now(g);
    let result = g.nodes[0].node.change_deployments(at, name, change);
    g.nodes[0].carry_out();
    result.map_err(|failure| failure.code)
}

fn put(digest: Digest) -> DeployChange {
    DeployChange::Put { digest, count: None, labels: Vec::new(), canary: None }
}

/// What each node was told last of a deployment.
fn told(g: &Grid, name: &str) -> Vec<Option<Digest>> {
    let last =
        |items: &Vec<(String, Option<Digest>)>| items.iter().find(|(of, _)| of == name).map(|(_, d)| *d);
    g.nodes.iter().map(|node| node.assigned.iter().rev().find_map(last).flatten()).collect()
}

fn count(g: &Grid, name: &str, digest: Digest) -> usize {
    told(g, name).iter().filter(|told| **told == Some(digest)).count()
}

#[test]
fn all_nodes_are_told_and_told_of_changes() {
    let mut g = grid(&[&[], &[], &[]]);
    change(&mut g, "shop", put(A)).unwrap();
    assert_eq!(told(&g, "shop"), [Some(A); 3]);
    // 1. Back and forth.
    assert_eq!(change(&mut g, "shop", DeployChange::Rollback), Err("conflict".to_owned()));
    change(&mut g, "shop", put(B)).unwrap();
    assert_eq!(told(&g, "shop"), [Some(B); 3]);
    change(&mut g, "shop", DeployChange::Rollback).unwrap();
    assert_eq!(told(&g, "shop"), [Some(A); 3]);
    change(&mut g, "shop", DeployChange::Rollback).unwrap();
    assert_eq!(told(&g, "shop"), [Some(B); 3]);
    let times = |g: &Grid| g.nodes.iter().map(|node| node.assigned.len()).collect::<Vec<_>>();
    let before = times(&g);
    change(&mut g, "shop", put(B)).unwrap();
    let again: Vec<usize> = before.iter().map(|times| times + 1).collect();
    assert_eq!(times(&g), again, "the same once more is told once more: it may have failed");
    // 2. It is known to whoever starts again, the node that keeps the list too.
    for node in [1, 0] {
        g.nodes[node].assigned.clear();
        g.restart(node);
        stock(&mut g, node, &[], &[]);
        g.run(5_000);
        assert_eq!(told(&g, "shop")[node], Some(B), "node {node}");
    }
    // 3. Gone, from those that have it.
    for node in 0..3 {
        let item = Stocked { name: "shop".to_owned(), digest: B, stage: Stage::Serving };
        stock(&mut g, node, &[], &[item]);
    }
    g.run(100);
    let views = g.nodes[0].node.deployments();
    assert!(
        views[0].1.len() == 3
            && views[0].1.iter().all(|placed| placed.stage == Stage::Serving && !placed.gone)
    );
    change(&mut g, "shop", DeployChange::Remove).unwrap();
    assert_eq!(told(&g, "shop"), [None; 3]);
    assert!(g.nodes[0].node.deployments().is_empty());
    for one in [DeployChange::Remove, DeployChange::Rollback, DeployChange::Promote] {
        assert_eq!(change(&mut g, "shop", one), Err("not_found".to_owned()));
    }
}

#[test]
fn as_many_nodes_as_it_says_that_have_its_labels() {
    let mut g = grid(&[&["eu"], &["eu", "gpu"], &["eu"], &[]]);
    let two = DeployChange::Put { digest: A, count: Some(2), labels: vec!["eu".to_owned()], canary: None };
    change(&mut g, "shop", two).unwrap();
    let before = told(&g, "shop");
    assert_eq!((count(&g, "shop", A), before[3]), (2, None));
    // 1. One that has it is gone: it keeps its place for a minute, then another takes it.
    let gone = (1..3).find(|node| before[*node].is_some()).expect("of three, two have it");
    g.crash(gone);
    g.run(30_000);
    let standing =
        |g: &Grid| told(g, "shop").iter().enumerate().filter(|(n, t)| *n != gone && t.is_some()).count();
    assert_eq!(standing(&g), 1);
    g.run(40_000);
    assert_eq!(standing(&g), 2, "{:?}", told(&g, "shop"));
    // 2. One with both labels.
    let both = vec!["eu".to_owned(), "gpu".to_owned()];
    change(&mut g, "tool", DeployChange::Put { digest: B, count: None, labels: both, canary: None }).unwrap();
    let has = |node: usize| told(&g, "tool")[node] == Some(B);
    assert!(!has(0) && !has(2) && !has(3) && (has(1) || gone == 1));
}

#[test]
fn a_canary_is_on_some_until_it_is_promoted_or_taken_back() {
    let mut g = grid(&[&[], &[], &[], &[]]);
    let canary = |digest| DeployChange::Put { digest, count: None, labels: Vec::new(), canary: Some(1) };
    change(&mut g, "shop", canary(A)).unwrap();
    assert_eq!(count(&g, "shop", A), 4, "there is nothing to try it beside");
    change(&mut g, "shop", canary(B)).unwrap();
    assert_eq!((count(&g, "shop", A), count(&g, "shop", B)), (3, 1));
    change(&mut g, "shop", DeployChange::Rollback).unwrap();
    assert_eq!(count(&g, "shop", A), 4);
    change(&mut g, "shop", canary(B)).unwrap();
    change(&mut g, "shop", DeployChange::Promote).unwrap();
    assert_eq!(count(&g, "shop", B), 4);
    change(&mut g, "shop", DeployChange::Rollback).unwrap();
    assert_eq!(count(&g, "shop", A), 4);
    assert_eq!(change(&mut g, "shop", DeployChange::Promote), Err("conflict".to_owned()));
}

#[test]
fn what_is_no_deployment_is_refused() {
    let mut g = grid(&[&[], &[]]);
    let many = vec!["x".to_owned(); 65];
    let labels = DeployChange::Put { digest: A, count: None, labels: many, canary: None };
    assert_eq!(change(&mut g, "shop", labels), Err("bad_request".to_owned()));
    assert_eq!(change(&mut g, "", put(A)), Err("bad_request".to_owned()));
    // Those that are gone are in nobody's way.
    for n in 0..1_100 {
        change_at_once(&mut g, &format!("d{n}"), put(A)).unwrap();
        change_at_once(&mut g, &format!("d{n}"), DeployChange::Remove).unwrap();
    }
}
