//! The grid's list of keys, and its store: what users change, and what is kept of it.

use bourse_gateway::GridChange as Asked;
use bourse_gateway::standing::at;
use bourse_node::RosterChange;
use bourse_node::market::Contact;
use bourse_node::market::roster::Entry;
use bourse_node::market::store::GridStore;
use bourse_peers::join::Join;
use bourse_peers::ticket::{self, Ticket};
use bourse_peers::{catalogue, grid_store, members, seeds};
use bourse_transport::{Key, KeyPair};
use bourse_wire::failure::Code;
use bourse_wire::v1;
use serde_json::{Value, json};

use super::Driver;
use crate::daemon::views;

impl Driver {
    /// Does what a user wants. What it came to, for people.
    pub(super) fn change_grid(&mut self, asked: Asked) -> Result<Value, v1::Failure> {
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
            Asked::KeepStore => {
                self.node.claim_store(now)?;
                Ok(views::store(&self.node))
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
        let me = self.node.contact();
        if self.node.grid_key().is_none() || me.address.is_empty() {
            return Err(Code::Conflict
                .because("no other node can connect with this one")
                .hint("start it with --listen ADDR, an address that the others reach"));
        }
        let all = std::iter::once(me.clone()).chain(self.node.beginnings(self.clock.now()));
        let join = |contact: Contact| Join { key: Key(contact.id.0), address: contact.address };
        Ok(all.take(ticket::SEEDS_MAX).map(join).collect())
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

    /// Keeps which store is the grid's.
    pub(super) fn keep_grid_store(&self, store: &GridStore) {
        if let Err(error) = grid_store::save(&self.config.data(), store) {
            tracing::error!("{error:#}; when this node starts again it does not know the grid's store");
        }
    }

    /// Keeps what other nodes serve.
    pub(super) fn keep_catalogue(&self, modules: Vec<v1::Module>) {
        if let Err(error) = catalogue::save(&self.config.data(), modules) {
            tracing::error!("{error:#}; when this node starts again it has to hear first what others serve");
        }
    }

    /// Keeps whom this node can begin with when it starts again.
    pub(super) fn keep_seeds(&self) {
        let contacts = self.node.beginnings(self.clock.now());
        if self.peers.is_some()
            && let Err(error) = seeds::save(&self.config.data(), contacts)
        {
            tracing::error!("{error:#}; when this node starts again it begins with other nodes");
        }
    }
}
