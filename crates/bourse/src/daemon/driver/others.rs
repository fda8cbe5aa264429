//! The lines to other nodes, and where they are found, as the node's inputs and outputs.

use bourse_node::{Input, LinkId, Node};
use bourse_peers::carry::{self, Came};
use bourse_peers::{PeerEvent, Peers};
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bytes::Bytes;

use super::{Driver, meters};
use crate::daemon::discovery::{Discovery, Found};

/// Waits for what comes from other nodes; for ever, if this one is alone.
pub(super) async fn recv(peers: &mut Option<Peers>, events: &mut Vec<PeerEvent>) {
    match peers {
        Some(peers) => peers.recv(events).await,
        None => std::future::pending().await,
    }
}

/// Waits until another node is found; for ever, if this one is alone.
pub(super) async fn look(discovery: &mut Option<Discovery>, node: &Node, found: &mut Vec<Found>) {
    match discovery {
        Some(discovery) => discovery.recv(node.is_linked(), found).await,
        None => std::future::pending().await,
    }
}

impl Driver {
    /// What is found becomes a seed, if its key is allowed.
    pub(super) fn on_found(&mut self, found: &mut Vec<Found>) {
        for found in found.drain(..) {
            let Some(peers) = &mut self.peers else { return };
            match found {
                Found::Gone { key, trusted } => {
                    if trusted {
                        peers.distrust(key);
                    }
                    // Whoever was named in the settings is asked again and again.
                    if !self.config.join().iter().any(|join| join.key == key) {
                        self.handle(Input::SeedGone { node: key.0 });
                    }
                }
                Found::Lead(lead) => {
                    if let Some((node, address)) = peers.seed_of(lead) {
                        self.handle(Input::Seed { node, address });
                    }
                }
            }
        }
    }

    pub(super) fn on_peer(&mut self, event: PeerEvent) {
        match carry::read(&self.node, event) {
            Came::Input(input) => self.handle(input),
            Came::Frame { link, message, payload, bytes, more } => {
                // What rides with another has no bytes of its own.
                message.iter().for_each(|m| meters::count("in", meters::name(m), bytes));
                more.iter().flatten().for_each(|m| meters::count("in", meters::name(m), 0));
                for (message, payload) in carry::in_order(message, payload, more) {
                    self.on_peer_frame(link, message, payload);
                }
            }
            Came::Closed { link } => {
                self.lose_looks(link);
                self.lose_reaches(link);
                self.lose_deploys(link);
                self.handle(Input::PeerClosed { link });
            }
            Came::Nonsense { link, why } => {
                tracing::warn!(link = link.0, "the line to a node is closed: {why}");
                self.hang_up(link);
            }
        }
    }

    /// What the daemon itself is asked, or the node.
    fn on_peer_frame(&mut self, link: LinkId, message: Option<Frame>, payload: Bytes) {
        if !self.node.knows_peer(link) {
            return self.handle(Input::PeerFrame { link, message, payload });
        }
        match message {
            Some(Frame::Look(look)) => self.on_look(link, look),
            Some(Frame::Looked(looked)) => self.on_looked(link, looked, &payload),
            Some(Frame::Reach(reach)) => self.on_reach(link, &reach, &payload),
            Some(Frame::Reached(reached)) => self.on_reached(link, reached),
            Some(Frame::Fetch(fetch)) => self.on_fetch(link, &fetch),
            Some(Frame::Bundle(bundle)) => self.on_bundle(&bundle, payload),
            Some(Frame::Deploy(deploy)) => self.on_peer_deploy(link, deploy, payload),
            Some(Frame::Deployed(deployed)) => self.on_deployed(link, deployed),
            message => self.handle(Input::PeerFrame { link, message, payload }),
        }
    }

    pub(super) fn dial(&mut self, node: [u8; 32], address: &str) {
        if let Some(peers) = &mut self.peers {
            peers.dial(node, address);
        }
    }

    pub(super) fn send_peer(&mut self, link: LinkId, message: Frame, payload: Bytes) {
        let Some(peers) = &mut self.peers else { return };
        let name = meters::name(&message);
        let bytes = peers.say(link, message, payload);
        meters::count("out", name, bytes);
    }

    /// Ends the line to a node. The node hears of it as of any other end.
    pub(super) fn hang_up(&mut self, link: LinkId) {
        self.lose_looks(link);
        self.lose_reaches(link);
        self.lose_deploys(link);
        if let Some(peers) = &mut self.peers {
            peers.hang_up(link.0);
        }
    }
}
