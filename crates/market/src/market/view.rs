//! What a market shows of itself, for `bourse nodes`, `bourse market` and metrics.

use std::time::Duration;

use bourse_wire::time::Mono;

use super::Market;
use crate::message::Terms;
use crate::name::{Contact, Lot, NodeId};

/// A node that this one knows.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Who.
    pub contact: Contact,
    /// It is an authority.
    pub authority: bool,
    /// How long ago it was last heard; `None`: there is no link with it.
    pub heard: Option<Duration>,
}

/// An order in an exchange that this node hosts.
#[derive(Clone, Debug)]
pub struct OrderView {
    /// Which module.
    pub module: String,
    /// Whose.
    pub node: NodeId,
    /// What is offered or wanted.
    pub terms: Terms,
    /// How many slots.
    pub quantity: u32,
    /// How many of them are promised to nobody.
    pub open: u32,
    /// What is sold are places in line; or who buys has got one.
    pub in_line: bool,
}

/// A channel, at either end.
#[derive(Clone, Debug)]
pub struct ChannelView {
    /// The node at the other end.
    pub node: NodeId,
    /// What is traded.
    pub lot: Lot,
    /// Tokens that are not used.
    pub tokens: u32,
    /// Calls that run.
    pub running: u32,
}

impl Market {
    /// This node and those that it knows, by id.
    pub fn nodes(&self, now: Mono) -> Vec<NodeView> {
        let authorities = self.member.authorities();
        let is_authority = |id: NodeId| authorities.iter().any(|a| a.id == id);
        let me = self.settings.me.clone();
        let itself =
            NodeView { authority: self.authority.is_some(), contact: me, heard: Some(Duration::ZERO) };
        let linked = self.links.nodes().map(|(contact, heard)| NodeView {
            authority: is_authority(contact.id),
            contact: contact.clone(),
            heard: Some(now.since(heard)),
        });
        let mut all: Vec<NodeView> = [itself].into_iter().chain(linked).collect();
        for contact in authorities {
            if !all.iter().any(|n| n.contact.id == contact.id) {
                all.push(NodeView { contact: contact.clone(), authority: true, heard: None });
            }
        }
        all.sort_by_key(|n| n.contact.id);
        all
    }

    /// The orders of all exchanges that this node hosts.
    pub fn orders(&self) -> Vec<OrderView> {
        let of = |(module, exchange): (&str, &crate::exchange::Exchange)| {
            let view = |(node, order): (NodeId, crate::exchange::View<'_>)| OrderView {
                module: module.to_owned(),
                node,
                terms: order.terms.clone(),
                quantity: order.quantity,
                open: order.open,
                in_line: order.in_line,
            };
            exchange.orders().map(view).collect::<Vec<_>>()
        };
        self.hosting.exchanges().flat_map(of).collect()
    }

    /// Channels in which this node sells.
    pub fn sold(&self) -> Vec<ChannelView> {
        let view = |(node, lot, tokens, running): (NodeId, &Lot, u32, u32)| ChannelView {
            node,
            lot: lot.clone(),
            tokens,
            running,
        };
        self.selling.view().map(view).collect()
    }

    /// Channels in which this node buys.
    pub fn bought(&self) -> Vec<ChannelView> {
        let view = |(seller, lot, tokens, running): (&Contact, &Lot, u32, u32)| ChannelView {
            node: seller.id,
            lot: lot.clone(),
            tokens,
            running,
        };
        self.buying.view().map(view).collect()
    }

    /// What is short here: module, requirement, calls that wait, rounded up.
    pub fn short(&self) -> Vec<(String, String, u32)> {
        self.buying
            .short()
            .map(|(module, requirement, n)| (module.to_owned(), requirement.to_string(), n))
            .collect()
    }

    /// Whether this node is an authority.
    pub fn is_authority(&self) -> bool {
        self.authority.is_some()
    }

    /// The authorities that this node knows, by id.
    pub fn authorities(&self) -> &[Contact] {
        self.member.authorities()
    }
}
