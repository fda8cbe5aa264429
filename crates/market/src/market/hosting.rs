//! The exchanges that an authority hosts. One begins with the first order of its module and ends with the last one: nobody
//! starts or stops it. Those that are elsewhere by now lose their orders as brokers hear of the new authorities.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bourse_wire::time::Mono;

use crate::agenda::Agenda;
use crate::exchange::Exchange;
use crate::message::{Match, Orders, Terms};
use crate::name::{Contact, NodeId};
use crate::times::{ORDERS_MAX, Times};

/// Most modules that one host has exchanges of.
pub const EXCHANGES_MAX: usize = 100_000;

/// All exchanges of a host.
#[derive(Debug)]
pub(crate) struct Desk {
    times: Arc<Times>,
    exchanges: BTreeMap<String, Exchange>,
    /// The modules that each node may have orders for.
    modules: BTreeMap<NodeId, BTreeSet<String>>,
    /// Exchanges that may have something to say.
    touched: BTreeSet<String>,
    agenda: Agenda<String>,
}

impl Desk {
    pub(crate) fn new(times: Arc<Times>) -> Self {
        Self {
            times,
            exchanges: BTreeMap::new(),
            modules: BTreeMap::new(),
            touched: BTreeSet::new(),
            agenda: Agenda::new(),
        }
    }

    pub(crate) fn on_orders(&mut self, now: Mono, from: &Contact, orders: &Orders) {
        if orders.orders.len() > ORDERS_MAX {
            return;
        }
        if orders.all {
            self.void_unnamed(now, from.id, orders);
        }
        for order in &orders.orders {
            if !self.exchanges.contains_key(&order.module) {
                if order.quantity == 0 || self.exchanges.len() >= EXCHANGES_MAX {
                    continue;
                }
                let exchange = Exchange::new(self.times.clone(), order.module.clone());
                self.exchanges.insert(order.module.clone(), exchange);
            }
            let exchange = self.exchanges.get_mut(&order.module).expect("it was put there above");
            exchange.on_order(now, from, order);
            let modules = self.modules.entry(from.id).or_default();
            if !modules.contains(&order.module) {
                modules.insert(order.module.clone());
            }
            self.touch(&order.module);
        }
    }

    /// A node has named all of its orders: others of it are void.
    fn void_unnamed(&mut self, now: Mono, from: NodeId, orders: &Orders) {
        let Some(modules) = self.modules.get_mut(&from) else { return };
        let mut named: BTreeMap<&str, Vec<&Terms>> = BTreeMap::new();
        for order in &orders.orders {
            named.entry(&order.module).or_default().push(&order.terms);
        }
        for module in &*modules {
            let Some(exchange) = self.exchanges.get_mut(module) else { continue };
            let named = named.get(module.as_str());
            exchange.on_all(now, from, |terms| named.is_some_and(|all| all.contains(&terms)));
        }
        modules.retain(|module| named.contains_key(module.as_str()));
        if modules.is_empty() {
            self.modules.remove(&from);
        }
    }

    /// A node can't be reached any more: its orders are void.
    pub(crate) fn on_lost(&mut self, node: NodeId) {
        for module in self.modules.remove(&node).into_iter().flatten() {
            if let Some(exchange) = self.exchanges.get_mut(&module) {
                exchange.on_lost(node);
                self.touched.insert(module);
            }
        }
    }

    fn touch(&mut self, module: &str) {
        if !self.touched.contains(module) {
            self.touched.insert(module.to_owned());
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.times.clone());
    }

    pub(crate) fn handle_timeout(&mut self, now: Mono) {
        while let Some(module) = self.agenda.pop_due(now) {
            if let Some(exchange) = self.exchanges.get_mut(&module) {
                exchange.handle_timeout(now);
                self.touched.insert(module);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        self.agenda.next()
    }

    /// What was matched, by buyer.
    pub(crate) fn matches(&mut self) -> BTreeMap<NodeId, Vec<Match>> {
        let mut matches: BTreeMap<NodeId, Vec<Match>> = BTreeMap::new();
        while let Some(module) = self.touched.pop_first() {
            let Some(exchange) = self.exchanges.get_mut(&module) else { continue };
            while let Some(deal) = exchange.poll() {
                matches.entry(deal.buyer).or_default().push(deal.found);
            }
            if exchange.is_empty() {
                self.exchanges.remove(&module);
                self.agenda.forget(&module);
            } else if let Some(at) = exchange.poll_timeout() {
                self.agenda.by(&module, at);
            }
        }
        matches
    }

    /// The exchanges, by module.
    pub(crate) fn exchanges(&self) -> impl Iterator<Item = (&str, &Exchange)> {
        self.exchanges.iter().map(|(module, exchange)| (module.as_str(), exchange))
    }
}
