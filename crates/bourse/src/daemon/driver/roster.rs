//! The grid's list of keys: what users change, and what is kept of it.

use bourse_gateway::RosterChange as Asked;
use bourse_gateway::standing::at;
use bourse_node::RosterChange;
use bourse_node::market::roster::Entry;
use bourse_transport::{Key, KeyPair};
use bourse_wire::failure::Code;
use bourse_wire::v1;
use serde_json::{Value, json};

use super::Driver;
use crate::config::Join;
use crate::daemon::peers::ticket::Ticket;
use crate::daemon::peers::{members, seeds};

impl Driver {
    /// Does what a user wants. What it came to, for people.
    pub(super) fn change_roster(&mut self, asked: Asked) -> Result<Value, v1::Failure> {
        let now = self.clock.now();
        let key = |text: &str| {
            Key::from_hex(text).map_err(|_| {
                Code::BadRequest
                    .because(format!("{text:.80} is not a key"))
                    .hint("64 hexadecimal digits are expected, which `bourse init` prints on that node")
            })
        };
        match asked {
            Asked::Admit { key: of, name } => {
                let key = key(&of)?;
                self.node.change_roster(now, RosterChange::Admit { key: key.0, name })?;
                Ok(json!({"admitted": key.to_hex()}))
            }
            Asked::Revoke { key: of } => {
                let key = key(&of)?;
                self.node.change_roster(now, RosterChange::Revoke { key: key.0 })?;
                Ok(json!({"revoked": key.to_hex()}))
            }
            Asked::Invite { lifetime, name } => {
                let seeds = self.seeds()?;
                let keys = KeyPair::generate();
                let until =
                    now.wall.0.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
                let invite = RosterChange::Invite { key: keys.public().0, until, name };
                self.node.change_roster(now, invite)?;
                let key = keys.public().to_hex();
                let ticket = Ticket { keys, until, seeds }.to_string();
                Ok(json!({"ticket": ticket, "key": key, "expires": at(until)}))
            }
        }
    }

    /// Whom a ticket names: this node, and others that it knows.
    fn seeds(&self) -> Result<Vec<Join>, v1::Failure> {
        let nodes = self.node.market().nodes(self.clock.now().mono);
        let mut nodes: Vec<_> = nodes.into_iter().filter(|node| !node.contact.address.is_empty()).collect();
        let own = self.node.grid_key();
        nodes.sort_by_key(|node| (Some(node.contact.id.0) != own, !node.authority));
        if nodes.is_empty() || own.is_none() {
            return Err(Code::Conflict
                .because("no other node can connect with this one")
                .hint("start it with --listen ADDR, an address that the others reach"));
        }
        let join = |node: bourse_node::market::market::NodeView| Join {
            key: Key(node.contact.id.0),
            address: node.contact.address,
        };
        Ok(nodes.into_iter().take(4).map(join).collect())
    }

    /// Keeps what is new on the list, and obeys it.
    pub(super) fn keep_roster(&mut self, entries: &[Entry]) {
        if let Err(error) = members::save(&self.config.data(), self.node.roster()) {
            tracing::error!("{error:#}; when this node starts again it knows an older list");
        }
        if let Some(peers) = &mut self.peers {
            peers.obey(entries);
        }
    }

    /// Keeps whom this node knows, the authorities first.
    pub(super) fn keep_seeds(&self) {
        let Some(own) = self.node.grid_key() else { return };
        let mut nodes = self.node.market().nodes(self.clock.now().mono);
        nodes.retain(|node| node.authority || node.heard.is_some());
        nodes.sort_by_key(|node| !node.authority);
        let contacts = nodes.iter().map(|node| &node.contact);
        if let Err(error) = seeds::save(&self.config.data(), Key(own), contacts) {
            tracing::error!("{error:#}; when this node starts again it begins with other nodes");
        }
    }
}
