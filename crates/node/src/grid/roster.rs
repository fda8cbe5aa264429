//! Who belongs to the grid, and how one comes to: by a ticket, or because somebody who belongs to it says so.

use bourse_market::roster::{Entry, NAME_BYTES_MAX, Refused, Standing};
use bourse_market::{Contact, LinkId, NodeId, codec};
use bourse_wire::failure::Code;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::Now;
use bourse_wire::v1;
use bytes::Bytes;

use crate::Node;
use crate::message::{Level, Output};

/// Most nodes that one that joins is told to begin with.
const BEGINNINGS_MAX: usize = 16;

/// What is to be done with the list of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterChange {
    /// The holder of a key may be a node of the grid.
    Admit {
        /// A CURVE public key.
        key: [u8; 32],
        /// For people.
        name: String,
    },
    /// The holder of a key may do nothing any more.
    Revoke {
        /// Which.
        key: [u8; 32],
    },
    /// The holder of a key may put keys on the list.
    Invite {
        /// Which.
        key: [u8; 32],
        /// Until then, in milliseconds since 1970.
        until: u64,
        /// For people.
        name: String,
    },
}

impl Node {
    /// The list of keys.
    pub fn roster(&self) -> impl Iterator<Item = &Entry> {
        self.grid.market.roster().entries()
    }

    /// Whom a node that joins, or starts again, can begin with: the authorities first, then the others that this node is linked
    /// with; of those that can be connected with. This node is not among them.
    pub fn beginnings(&self, now: Now) -> impl Iterator<Item = Contact> {
        let me = self.grid.me.id;
        let mut nodes = self.grid.market.nodes(now.mono);
        nodes.retain(|node| node.contact.id != me && !node.contact.address.is_empty());
        nodes.retain(|node| node.authority || node.heard.is_some());
        nodes.sort_by_key(|node| !node.authority);
        nodes.into_iter().map(|node| node.contact)
    }

    /// This node, for others.
    pub fn contact(&self) -> &Contact {
        &self.grid.me
    }

    /// Changes the list of keys.
    pub fn change_roster(&mut self, now: Now, change: RosterChange) -> Result<(), v1::Failure> {
        let result = match change {
            RosterChange::Admit { key, name } => self.admit_key(now, key, &name),
            RosterChange::Revoke { key } => self.revoke_key(now, key),
            RosterChange::Invite { key, until, name } => self.invite_key(now, key, until, &name),
        };
        self.settle(now);
        result
    }

    /// The list has changed, here or elsewhere.
    pub(super) fn on_roster(&mut self, entries: Vec<Entry>) {
        let own = entries.iter().find(|entry| entry.key == self.grid.me.id);
        if own.is_some_and(|entry| entry.standing == Standing::Revoked) {
            let text = "this node's key was revoked: the other nodes do not speak with it any more\n  hint: if that was a mistake, on one \
                        of them: bourse admit KEY; else stop it, remove `node.key`, and join with a ticket";
            self.note(Level::Error, text.to_owned());
        }
        self.outputs.push_back(Output::Roster(entries));
    }

    fn admit_key(&mut self, now: Now, key: [u8; 32], name: &str) -> Result<(), v1::Failure> {
        self.begin_roster(now)?;
        self.grid.market.enter(now.mono, |roster| roster.admit(NodeId(key), name)).map_err(refused)
    }

    fn revoke_key(&mut self, now: Now, key: [u8; 32]) -> Result<(), v1::Failure> {
        self.begin_roster(now)?;
        if key == self.grid.me.id.0 {
            let failure = Code::Conflict
                .because("this node would cut itself off")
                .hint("revoke its key at another node");
            return Err(failure);
        }
        self.grid.market.enter(now.mono, |roster| roster.revoke(NodeId(key))).map_err(refused)
    }

    fn invite_key(&mut self, now: Now, key: [u8; 32], until: u64, name: &str) -> Result<(), v1::Failure> {
        self.begin_roster(now)?;
        self.grid.market.enter(now.mono, |roster| roster.invite(NodeId(key), until, name)).map_err(refused)
    }

    /// The first thing on the list is who begins it.
    fn begin_roster(&mut self, now: Now) -> Result<(), v1::Failure> {
        self.begin_grid(now);
        if !self.grid.on {
            return Err(Code::Conflict
                .because("this daemon is alone: it has no other nodes")
                .hint("start it with --listen ADDR, so that others can connect with it"));
        }
        let name = self.config.grid.as_ref().map_or_else(String::new, |grid| short_name(&grid.name));
        let me = self.grid.me.id;
        let known = self.grid.market.roster().get(me).map(|entry| entry.standing);
        if known == Some(Standing::Revoked) {
            return Err(
                Code::Unauthorized.because("this node's own key has been revoked: the others do not hear it")
            );
        }
        match known {
            Some(_) => Ok(()),
            None => self.grid.market.enter(now.mono, |roster| roster.admit(me, &name)).map_err(refused),
        }
    }

    pub(super) fn is_ticket(&self, key: NodeId) -> bool {
        let entry = self.grid.market.roster().get(key);
        entry.is_some_and(|entry| matches!(entry.standing, Standing::Ticket(_)))
    }

    /// Who has a ticket wants a key on the list. It is told whom it can begin with; the rest it hears from those.
    pub(super) fn on_enroll(&mut self, now: Now, link: LinkId, ticket: [u8; 32], enroll: &peer::Enroll) {
        match self.enroll(now, NodeId(ticket), enroll) {
            Err(failure) => self.refuse_peer(now, link, failure),
            Ok(enrolled) => {
                self.send_peer(link, Frame::Enrolled(enrolled), Bytes::new());
                self.grid.links.remove(&link);
                self.outputs.push_back(Output::PeerClose { link });
            }
        }
    }

    fn enroll(
        &mut self,
        now: Now,
        ticket: NodeId,
        enroll: &peer::Enroll,
    ) -> Result<peer::Enrolled, v1::Failure> {
        let standing = self.grid.market.roster().get(ticket).map(|entry| entry.standing);
        let Some(Standing::Ticket(until)) = standing else {
            return Err(Code::Unauthorized
                .because("this is no ticket")
                .hint("bourse ticket makes one, on any node of the grid"));
        };
        if until <= now.wall.0 {
            let seconds = (now.wall.0 - until) / 1_000;
            return Err(Code::Unauthorized
                .because(format!(
                    "the ticket has expired {seconds} s ago, by the clock of the node that was asked"
                ))
                .hint("have another one made: bourse ticket, on any node of the grid"));
        }
        let key = codec::key(&enroll.key).map_err(|error| Code::Protocol.because(error.to_string()))?;
        let standing = self.grid.market.roster().get(key).map(|entry| entry.standing);
        match standing {
            Some(Standing::Revoked) => {
                return Err(Code::Unauthorized
                    .because("the key of this node has been revoked, which a ticket does not undo")
                    .hint("on a node of the grid: bourse admit KEY; or make new keys"));
            }
            Some(Standing::Ticket(_)) => return Err(Code::Conflict.because("this is the key of a ticket")),
            Some(Standing::Member) | None => {}
        }
        self.admit_key(now, key.0, &short_name(&enroll.name))?;
        let market = &self.grid.market;
        let me = std::iter::once(self.grid.me.clone());
        let contacts: Vec<_> = me.chain(self.beginnings(now)).take(BEGINNINGS_MAX).collect();
        let ids = contacts.iter().map(|contact| contact.id).chain([key]);
        let entries = ids.filter_map(|id| market.roster().get(id)).map(codec::entry_to_wire).collect();
        let store = self.grid_store().map(codec::store_to_wire);
        Ok(peer::Enrolled { entries, contacts: contacts.iter().map(codec::contact_to_wire).collect(), store })
    }
}

/// As much of a name as the list takes.
fn short_name(name: &str) -> String {
    let mut name = name.to_owned();
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    name
}

fn refused(why: Refused) -> v1::Failure {
    match why {
        Refused::Full => Code::Conflict
            .because(format!("the list of keys is full: {} is the most", bourse_market::roster::ENTRIES_MAX)),
        Refused::LongName => Code::BadRequest.because(format!("a name has at most {NAME_BYTES_MAX} bytes")),
        Refused::Unknown => Code::NotFound.because("there is no such key on the list").hint(
            "bourse members shows it; keys in the file `allowed` are not on it, and are taken out there",
        ),
    }
}
