//! Bundles of files that operators put on the grid, and which node is to serve which.
//!
//! ```text
//! node -> the one that keeps the store: stock       what can be put on it, and how far it is with what was
//! the one that keeps the store -> node: assign      which bundles it is to serve
//! ```
//!
//! The node that keeps the store keeps the list of deployments as well, and decides. A bundle goes to all nodes that have its
//! labels, or to `count` of them: those that come first by a hash of name and node, so that they stay the same as others come and
//! go. A node that is gone is counted for [`GONE_MAX`]; then another takes its place. A node goes on with what it serves
//! until what takes its place has loaded; what does not load changes nothing. All that is said is absolute.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use bourse_market::{LinkId, NodeId};
use bourse_wire::failure::Code;
use bourse_wire::id::NAME_BYTES_MAX;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;
use bytes::Bytes;

use super::due::Due;
use crate::Node;
use crate::message::Output;

/// How long a node that is gone keeps its place.
const GONE_MAX: Duration = Duration::from_secs(60);
/// Most deployments.
pub const DEPLOYMENTS_MAX: usize = 1_000;
/// Most labels of a node or of a deployment.
pub const LABELS_MAX: usize = 64;

/// Names the contents of a bundle: its BLAKE3 hash.
pub type Digest = [u8; 32];

/// A bundle, and where it is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// What it is called.
    pub name: String,
    /// What is served.
    pub digest: Digest,
    /// What was before it.
    pub previous: Option<Digest>,
    /// What some nodes serve instead, to see whether it is any good.
    pub canary: Option<Canary>,
    /// On so many nodes; `None`: on all.
    pub count: Option<u32>,
    /// On nodes that have all of these.
    pub labels: Vec<String>,
}

/// A bundle that some nodes serve before the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Which.
    pub digest: Digest,
    /// How many nodes.
    pub nodes: u32,
}

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployChange {
    /// To have a bundle served, in the place of what has the same name.
    Put {
        /// Which.
        digest: Digest,
        /// On so many nodes; `None`: on all.
        count: Option<u32>,
        /// That have all of these.
        labels: Vec<String>,
        /// At first on so many.
        canary: Option<u32>,
    },
    /// Not to have it served any more.
    Remove,
    /// To have what was before.
    Rollback,
    /// To have what some nodes serve on all.
    Promote,
}

/// How far a node is with a bundle.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// It has been told.
    Assigned,
    /// It is on its way.
    Fetching,
    /// It is there, and being loaded.
    Loading,
    /// It is served.
    Serving,
    /// It can't be; what served before goes on.
    Failed(v1::Failure),
}

/// What a node has of a bundle.
#[derive(Clone, Debug, PartialEq)]
pub struct Stocked {
    /// Its name.
    pub name: String,
    /// Its contents.
    pub digest: Digest,
    /// How far it is.
    pub stage: Stage,
}

/// One node, as a deployment sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedView {
    /// Which.
    pub node: NodeId,
    /// What it is to serve.
    pub digest: Digest,
    /// How far it is.
    pub stage: Stage,
    /// It is not linked.
    pub gone: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Deployments {
    /// Where the store is kept: all of them, and those that were removed since.
    all: BTreeMap<String, Option<Deployment>>,
    /// Where the store is kept: what each node has told.
    nodes: BTreeMap<NodeId, Shelf>,
    /// Of these, those that are gone, and were not back when that was noted.
    gone: Due<NodeId>,
    /// What can be put on this one, and what has been.
    own: peer::Stock,
    /// The link over which that was told.
    told: Option<LinkId>,
    /// What this node was assigned last, where it keeps the store.
    assigned_here: Vec<peer::assign::Item>,
    /// Where is to be looked again who is to serve what.
    stale: bool,
}

struct Shelf {
    link: Option<LinkId>,
    stock: peer::Stock,
    /// What it was told last, over that link.
    assigned: Option<Vec<peer::assign::Item>>,
    gone_at: Option<Mono>,
}

impl Deployments {
    pub(super) fn new(all: Vec<Deployment>) -> Self {
        let all = all.into_iter().map(|d| (d.name.clone(), Some(d))).collect();
        Self { all, stale: true, ..Self::default() }
    }

    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        self.gone.next()
    }
}

impl Deployment {
    /// Whether a node can serve it.
    fn fits(&self, stock: &peer::Stock) -> bool {
        !stock.closed && self.labels.iter().all(|label| stock.labels.contains(label))
    }

    /// Which nodes are to serve what of it.
    fn placed(&self, nodes: &BTreeMap<NodeId, &peer::Stock>) -> BTreeMap<NodeId, Digest> {
        let mut fit: Vec<NodeId> =
            nodes.iter().filter(|(_, stock)| self.fits(stock)).map(|(node, _)| *node).collect();
        fit.sort_by_key(|node| (Reverse(bourse_market::placing::weight(self.name.as_bytes(), *node)), *node));
        let count = self.count.map_or(usize::MAX, |count| count as usize);
        let canaries = self.canary.map_or(0, |canary| canary.nodes as usize);
        let digest = |at: usize| match &self.canary {
            Some(canary) if at < canaries => canary.digest,
            _ => self.digest,
        };
        fit.into_iter().take(count).enumerate().map(|(at, node)| (node, digest(at))).collect()
    }
}

impl Node {
    /// What an operator wants to be deployed, where the store is kept. Whoever hands in a bundle has its contents.
    pub fn change_deployments(
        &mut self,
        now: Now,
        name: &str,
        change: DeployChange,
    ) -> Result<(), v1::Failure> {
        self.begin_grid(now);
        let all = &mut self.grid.deployments.all;
        let unknown = || Code::NotFound.because(format!("there is no deployment {name:.100}"));
        let known = all.get(name).cloned().flatten();
        let changed = match change {
            DeployChange::Put { digest, count, labels, canary } => {
                if name.is_empty() || name.len() > NAME_BYTES_MAX || labels.len() > LABELS_MAX {
                    return Err(Code::BadRequest.because("a deployment has a name, and not that many labels"));
                }
                if all.len() >= DEPLOYMENTS_MAX {
                    // Who was not there when one was removed goes on with it.
                    all.retain(|_, deployment| deployment.is_some());
                }
                if known.is_none() && all.len() >= DEPLOYMENTS_MAX {
                    return Err(Code::Conflict.because(format!("there are {DEPLOYMENTS_MAX} deployments")));
                }
                let new =
                    Deployment { name: name.to_owned(), digest, previous: None, canary: None, count, labels };
                match (known, canary) {
                    // Where nothing serves there is nothing to try it beside.
                    (None, _) => Some(new),
                    (Some(known), Some(nodes)) if known.digest != digest => {
                        Some(Deployment { canary: Some(Canary { digest, nodes }), ..known })
                    }
                    (Some(known), _) if known.digest == digest => {
                        Some(Deployment { previous: known.previous, ..new })
                    }
                    (Some(known), _) => Some(Deployment { previous: Some(known.digest), ..new }),
                }
            }
            DeployChange::Remove => known.is_none().then(|| Err(unknown())).transpose()?,
            DeployChange::Rollback => {
                let known = known.ok_or_else(unknown)?;
                match (known.canary, known.previous) {
                    (Some(_), _) => Some(Deployment { canary: None, ..known }),
                    (None, Some(previous)) => {
                        Some(Deployment { digest: previous, previous: Some(known.digest), ..known })
                    }
                    (None, None) => {
                        return Err(
                            Code::Conflict.because(format!("there was nothing before what serves as {name}"))
                        );
                    }
                }
            }
            DeployChange::Promote => {
                let known = known.ok_or_else(unknown)?;
                let Some(canary) = known.canary else {
                    return Err(
                        Code::Conflict.because(format!("nothing is tried beside what serves as {name}"))
                    );
                };
                Some(Deployment {
                    digest: canary.digest,
                    previous: Some(known.digest),
                    canary: None,
                    ..known
                })
            }
        };
        all.insert(name.to_owned(), changed);
        // All are told again, also those that could not have it the last time.
        self.grid.deployments.nodes.values_mut().for_each(|shelf| shelf.assigned = None);
        self.grid.deployments.assigned_here.clear();
        let all = &self.grid.deployments.all;
        let kept = all.values().flatten().cloned().collect();
        self.outputs.push_back(Output::Deployments(kept));
        self.grid.deployments.stale = true;
        self.settle(now);
        Ok(())
    }

    /// The deployments, and how far each node is with them; where the store is kept.
    pub fn deployments(&self) -> Vec<(Deployment, Vec<PlacedView>)> {
        let nodes = self.stocks();
        let view = |deployment: &Deployment| {
            let placed = deployment.placed(&nodes).into_iter().map(|(node, digest)| {
                let items = nodes[&node].items.iter();
                let item = items.rev().find(|item| item.name == deployment.name && *item.digest == digest);
                let stage = item.map_or(Stage::Assigned, stage_of);
                let gone = self.grid.deployments.nodes.get(&node).is_some_and(|shelf| shelf.link.is_none());
                PlacedView { node, digest, stage, gone }
            });
            (deployment.clone(), placed.collect())
        };
        self.grid.deployments.all.values().flatten().map(view).collect()
    }

    /// What can be put on this node, and what has been.
    pub fn set_stock(&mut self, now: Now, labels: Vec<String>, closed: bool, items: &[Stocked]) {
        self.begin_grid(now);
        let own = peer::Stock { labels, closed, items: items.iter().map(item_to_wire).collect() };
        if own != self.grid.deployments.own {
            self.grid.deployments.own = own;
            self.grid.deployments.told = None;
            self.grid.deployments.stale = true;
            self.settle(now);
        }
    }

    /// Says what there is to say of deployments.
    pub(crate) fn pump_deployments(&mut self, now: Now) {
        if self.keeps_store() {
            if std::mem::take(&mut self.grid.deployments.stale) {
                self.assign(now);
            }
            return;
        }
        let keeper = self.grid_store().map(|store| store.node.id);
        let link = keeper.and_then(|keeper| self.grid.market.link_of(keeper));
        let Some(link) = link.filter(|link| self.grid.node_of(*link).is_some()) else { return };
        if self.grid.deployments.told != Some(link) {
            self.grid.deployments.told = Some(link);
            let stock = self.grid.deployments.own.clone();
            self.send_peer(link, Frame::Stock(stock), Bytes::new());
        }
    }

    /// What is known of all nodes that can be given something.
    fn stocks(&self) -> BTreeMap<NodeId, &peer::Stock> {
        let others = self.grid.deployments.nodes.iter().map(|(node, shelf)| (*node, &shelf.stock));
        others.chain([(self.grid.me.id, &self.grid.deployments.own)]).collect()
    }

    /// Tells each node what it is to serve, where that has changed.
    fn assign(&mut self, now: Now) {
        let nodes = self.stocks();
        let mut items: BTreeMap<NodeId, Vec<peer::assign::Item>> =
            nodes.keys().map(|node| (*node, Vec::new())).collect();
        for (name, deployment) in &self.grid.deployments.all {
            let placed = deployment.as_ref().map(|d| d.placed(&nodes)).unwrap_or_default();
            for (node, items) in &mut items {
                let digest =
                    placed.get(node).map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(digest));
                // Nothing has to be said of what a node never had.
                let had = || nodes[node].items.iter().any(|item| item.name == *name);
                if !digest.is_empty() || had() {
                    items.push(peer::assign::Item { name: name.clone(), digest });
                }
            }
        }
        for (node, items) in items {
            if node == self.grid.me.id {
                if items != self.grid.deployments.assigned_here {
                    self.grid.deployments.assigned_here.clone_from(&items);
                    self.assigned(items);
                }
                continue;
            }
            let shelf = self.grid.deployments.nodes.get_mut(&node).expect("it was just listed");
            if let Some(link) = shelf.link
                && shelf.assigned.as_ref() != Some(&items)
            {
                shelf.assigned = Some(items.clone());
                self.grid.market.used(now.mono, link, false);
                self.send_peer(link, Frame::Assign(peer::Assign { items }), Bytes::new());
            }
        }
    }

    fn assigned(&mut self, items: Vec<peer::assign::Item>) {
        let read = |item: peer::assign::Item| Some((item.name, digest_of(&item.digest)));
        self.outputs.push_back(Output::Assigned(items.into_iter().filter_map(read).collect()));
    }

    /// What a node is to serve, from the one that keeps the store.
    pub(super) fn on_assign(&mut self, node: NodeId, assign: peer::Assign) {
        if self.grid_store().is_some_and(|store| store.node.id == node) {
            self.assigned(assign.items);
        }
    }

    /// What a node has.
    pub(super) fn on_stock(&mut self, link: LinkId, node: NodeId, mut stock: peer::Stock) {
        if !self.keeps_store() {
            return;
        }
        stock.labels.truncate(LABELS_MAX);
        stock.items.truncate(2 * DEPLOYMENTS_MAX);
        let before = self.grid.deployments.nodes.remove(&node);
        let assigned = before.filter(|shelf| shelf.link == Some(link)).and_then(|shelf| shelf.assigned);
        let shelf = Shelf { link: Some(link), stock, assigned, gone_at: None };
        self.grid.deployments.nodes.insert(node, shelf);
        self.grid.deployments.stale = true;
    }

    /// A link is over: its node keeps its place for a while.
    pub(super) fn lose_shelf(&mut self, now: Now, link: LinkId) {
        if self.grid.deployments.told == Some(link) {
            self.grid.deployments.told = None;
        }
        let Deployments { nodes, gone, .. } = &mut self.grid.deployments;
        for (node, shelf) in nodes.iter_mut().filter(|(_, shelf)| shelf.link == Some(link)) {
            (shelf.link, shelf.assigned, shelf.gone_at) = (None, None, Some(now.mono));
            gone.note(now.mono + GONE_MAX, *node);
        }
    }

    pub(super) fn on_deployments_due(&mut self, now: Now) {
        let Deployments { nodes, gone, stale, .. } = &mut self.grid.deployments;
        while let Some(node) = gone.take(now.mono) {
            let over = |shelf: &Shelf| shelf.gone_at.is_some_and(|at| at + GONE_MAX <= now.mono);
            if nodes.get(&node).is_some_and(over) {
                nodes.remove(&node);
                *stale = true;
            }
        }
    }
}

fn digest_of(bytes: &[u8]) -> Option<Digest> {
    bytes.try_into().ok()
}

fn stage_of(item: &peer::stock::Item) -> Stage {
    match item.stage() {
        peer::stock::Stage::Fetching => Stage::Fetching,
        peer::stock::Stage::Loading => Stage::Loading,
        peer::stock::Stage::Serving => Stage::Serving,
        peer::stock::Stage::Failed => Stage::Failed(item.failure.clone().unwrap_or_default()),
        peer::stock::Stage::Unspecified => Stage::Assigned,
    }
}

fn item_to_wire(stocked: &Stocked) -> peer::stock::Item {
    let (stage, failure) = match &stocked.stage {
        Stage::Assigned => (peer::stock::Stage::Unspecified, None),
        Stage::Fetching => (peer::stock::Stage::Fetching, None),
        Stage::Loading => (peer::stock::Stage::Loading, None),
        Stage::Serving => (peer::stock::Stage::Serving, None),
        Stage::Failed(failure) => (peer::stock::Stage::Failed, Some(failure.clone())),
    };
    let digest = Bytes::copy_from_slice(&stocked.digest);
    peer::stock::Item { name: stocked.name.clone(), digest, stage: stage.into(), failure }
}
