//! What people are shown of an order book.

use bourse_wire::id::Incarnation;

use super::{Exchange, Record};
use crate::message::Terms;
use crate::name::NodeId;

/// An order as the book has it, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// What is offered or wanted.
    pub terms: &'a Terms,
    /// The last one heard of.
    pub revision: u64,
    /// How many slots the order is about.
    pub quantity: u32,
    /// How many of them are not promised.
    pub open: u32,
    /// Of a sell order: they are places in line. Of a buy order: it has got one.
    pub in_line: bool,
}

impl Exchange {
    /// The orders that are not withdrawn, by node.
    pub fn orders(&self) -> impl Iterator<Item = (NodeId, View<'_>)> {
        let mut records: Vec<_> = self.records.iter().flatten().filter(|r| r.quantity > 0).collect();
        records.sort_unstable_by_key(|r| (r.node, r.name));
        records.into_iter().map(|r| {
            let Record { revision, quantity, in_line, .. } = *r;
            let view = View { terms: &r.terms, revision, quantity, open: r.left, in_line };
            (r.node, view)
        })
    }

    /// This life of a node whose orders are here.
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.parties.get(&node).map(|party| party.contact.incarnation)
    }
}
