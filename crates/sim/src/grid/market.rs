//! The market that is simulated, and what of it the checkers look at.

use std::collections::BTreeMap;

pub use bourse_market::links::LinkId;
pub use bourse_market::market::{Admitted, ChannelView, Input, Lease, Lost, Market, Output, Settings, Token};
pub use bourse_market::name::Horizon;

/// How many orders of each module a node hosts.
pub fn hosted(market: &Market) -> BTreeMap<String, usize> {
    let mut orders = BTreeMap::new();
    market.orders().into_iter().for_each(|order| *orders.entry(order.module).or_default() += 1);
    orders
}
