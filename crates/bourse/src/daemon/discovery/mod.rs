//! How nodes find each other: where else than in `join` a first address may come from.
//!
//! ```text
//! sources -> discovery: leads                  discovery -> driver: Lead, Gone
//! ```
//!
//! A *lead* is the key of a node and an address at which it may be. It is followed if the key is allowed: the driver makes
//! it a seed of the node, which dials it as any other, and CURVE proves then who is there. So a lead that is wrong costs a
//! connection, and whoever sends leads gets nobody in. The one exception is the machine's own folder: only this user can
//! write into it, so the keys there need no list.
//!
//! It never dials, never decides with whom the node speaks, and never answers with more than it was asked with.
//!
//! | file | source | leads are trusted |
//! |---|---|---|
//! | `machine` | files of this user's daemons on this machine | yes |
//! | `multicast` | what nodes on the same networks say to a group | no |
//! | `dns` | the addresses of a name, whose nodes are asked for their keys | no |
//!
//! Beside them, `answers` tells who asks at this node's address who it is, and `strangers` tells the user of nodes that are not
//! allowed.

mod answers;
mod dns;
mod machine;
mod multicast;
mod strangers;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bourse_peers::{Lead, Peers, own};
use bourse_transport::Key;
use bourse_wire::beacon::Beacon;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::config::{Config, Discover};
use answers::Answers;
use dns::Dns;
use machine::{Card, Machine};
use multicast::{Ear, Multicast};

/// What was found, and is not read yet: more is dropped, and found again.
const FOUND_MAX: usize = 64;

/// How often the machine's folder is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A node may be there. What is found again is told again, at another address or the same.
    Lead(Lead),
    /// A node that was found is gone.
    Gone {
        /// Its key.
        key: Key,
        /// Its key needed no list, and is not to be trusted any more.
        trusted: bool,
    },
}

/// All sources that the settings name.
pub(crate) struct Discovery {
    machine: Option<Machine>,
    looks: tokio::time::Interval,
    /// The others; they end with this.
    _sources: JoinSet<()>,
    /// Whether this node is linked with another.
    linked: watch::Sender<bool>,
    from_sources: mpsc::Receiver<Found>,
    /// Kept, so that there is no end where there is no source.
    _to_here: mpsc::Sender<Found>,
    ready: Vec<Found>,
}

impl Discovery {
    /// Begins to look, and lets others find this node. Where nothing is to be looked for nothing is ever found.
    pub(crate) fn start(config: &Config, peers: &Peers) -> anyhow::Result<Self> {
        let discover = config.discover();
        let (own, listening) = (Key(peers.key()), peers.address());
        let mut ready = Vec::new();
        let machine = match listening.filter(|_| discover.contains(&Discover::Machine)) {
            None => None,
            Some(listening) => {
                let card = Card::new(own, near(listening), config.grid());
                let mut machine = Machine::start(&machine::folder(), card)?;
                machine.look(&mut ready);
                Some(machine)
            }
        };
        let (to_here, from_sources) = mpsc::channel(FOUND_MAX);
        let mut sources = JoinSet::new();
        if discover.contains(&Discover::Multicast) {
            let ear = Ear::new(own, config.grid(), peers.allowed());
            let multicast = Multicast::start(config.multicast(), listening, ear)?;
            sources.spawn(multicast.run(to_here.clone()));
        }
        let (linked, is_linked) = watch::channel(false);
        for source in discover {
            let Discover::Dns { name, port } = source else { continue };
            let (resolver, allowed, linked) = (config.resolver(), peers.allowed(), is_linked.clone());
            let dns = Dns { name, port, resolver, own, allowed, secret: own::entropy()?, linked };
            sources.spawn(dns.run(to_here.clone()));
        }
        if let Some(address) = listening {
            let beacon = Beacon { key: own.0, port: address.port(), grid: config.grid().to_owned() };
            match Answers::start(address, beacon) {
                Ok(answers) => drop(sources.spawn(answers.run())),
                Err(error) => tracing::warn!(
                    "nodes that look for others by a name do not find this one: UDP port {}: {error}\n  hint: stop what has that port, or listen on another",
                    address.port()
                ),
            }
        }
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { machine, looks, _sources: sources, linked, from_sources, _to_here: to_here, ready })
    }

    /// What has been found so far, without waiting.
    pub(crate) fn take(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.ready)
    }

    /// Waits until something was found and appends it to `found`. Cancel-safe. Whoever is linked with nobody looks more often.
    pub(crate) async fn recv(&mut self, linked: bool, found: &mut Vec<Found>) {
        if *self.linked.borrow() != linked {
            self.linked.send_replace(linked);
        }
        loop {
            if !self.ready.is_empty() {
                found.append(&mut self.ready);
                return;
            }
            tokio::select! {
                Some(other) = self.from_sources.recv() => self.on_source(other),
                _ = self.looks.tick(), if self.machine.is_some() => {
                    let machine = self.machine.as_mut().expect("it is there");
                    machine.look(&mut self.ready);
                }
            }
        }
    }

    fn on_source(&mut self, found: Found) {
        let is_here = |key: &Key| self.machine.as_ref().is_some_and(|machine| machine.knows(*key));
        // A node of this machine is where its file says, whatever else is heard of it.
        match &found {
            Found::Lead(Lead { key, .. }) | Found::Gone { key, .. } if is_here(key) => {}
            _ => self.ready.push(found),
        }
    }
}

/// Where others on this machine reach a socket.
fn near(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}
