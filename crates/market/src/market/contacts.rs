//! Whom this node knows, and how it comes to be linked with them.

use bourse_wire::time::Mono;

use super::Market;
use crate::links::LinkId;
use crate::name::{Contact, NodeId};

impl Market {
    /// A node was found while this one runs: it is a seed from now on. Its incarnation is 0. One that is known at this
    /// address as a seed already changes nothing.
    pub fn add_seed(&mut self, now: Mono, contact: &Contact) {
        if !contact.address.is_empty() {
            self.links.find(contact);
            self.member.add_seed(now, contact);
            self.settle(now);
        }
    }

    /// A node that was a seed is one no longer, since it is known to be gone.
    pub fn drop_seed(&mut self, now: Mono, node: NodeId) {
        self.member.drop_seed(now, node);
        self.settle(now);
    }

    /// An address that will be of use.
    pub fn learn(&mut self, contact: &Contact) {
        self.links.learn(contact);
    }

    /// The link with a node. If there is none, it is dialed, unless that was tried just now.
    pub fn reach(&mut self, now: Mono, node: NodeId) -> Option<LinkId> {
        self.links.to_send(now, node)
    }

    /// Something that is the node's own went over a link, or came over it.
    pub fn used(&mut self, now: Mono, link: LinkId, came: bool) {
        if came {
            self.links.heard(now, link, false);
        } else {
            self.links.sent(now, link);
        }
    }
}
