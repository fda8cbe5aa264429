//! How messages look in a trace: one line each.

use bourse_market::Message;
use bourse_market::message::{Order, Terms};

/// The kinds of message that are counted apart.
pub const KINDS: [&str; 12] = [
    "beat",
    "join",
    "grid",
    "appoint",
    "mesh",
    "resign",
    "orders",
    "all orders",
    "matches",
    "claim",
    "grant",
    "roster",
];

/// Which of the [`KINDS`] a message is.
pub(super) fn kind(message: &Message) -> usize {
    match message {
        Message::Beat => 0,
        Message::Join(_) => 1,
        Message::Grid(_) => 2,
        Message::Appoint => 3,
        Message::Mesh(_) => 4,
        Message::Resign(_) => 5,
        Message::Orders(orders) => 6 + usize::from(orders.all),
        Message::Matches(_) => 8,
        Message::Claim(_) => 9,
        Message::Grant(_) => 10,
        Message::Roster(_) => 11,
    }
}

/// A message of the market.
pub(super) fn message(message: &Message) -> String {
    let ids = |all: &[bourse_market::Contact]| all.iter().map(|c| c.id.short()).collect::<Vec<_>>().join(" ");
    match message {
        Message::Beat => "beat".to_owned(),
        Message::Join(join) => format!("join, first: {}, view {:x}", join.first, join.view & 0xffff),
        Message::Grid(grid) => {
            format!(
                "grid: [{}], others [{}], {} nodes",
                ids(&grid.authorities),
                ids(&grid.others),
                grid.nodes
            )
        }
        Message::Appoint => "appoint".to_owned(),
        Message::Mesh(mesh) => {
            format!("mesh: view {:x}, {} nodes, [{}]", mesh.view & 0xffff, mesh.nodes, ids(&mesh.authorities))
        }
        Message::Resign(incarnation) => format!("resign {}", incarnation.0),
        Message::Orders(orders) => {
            let all = if orders.all { "all orders" } else { "orders" };
            format!("{all}: {}", orders.orders.iter().map(order).collect::<Vec<_>>().join(", "))
        }
        Message::Matches(all) => {
            let one = |m: &bourse_market::message::Match| {
                format!(
                    "{}{} of {} from {} (r{} o{})",
                    m.quantity,
                    places(m.in_line),
                    m.lot,
                    m.seller.id.short(),
                    m.revision,
                    m.offered
                )
            };
            format!("matches: {}", all.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Message::Claim(c) => {
            let closed = if c.closed { ", closed" } else { "" };
            format!(
                "claim {} e{}: want {}, next {}, open {:?}{closed}",
                c.lot, c.epoch, c.want, c.next, c.open
            )
        }
        Message::Roster(told) => format!("roster of {} entries, asks: {}", told.entries.len(), told.asks),
        Message::Grant(g) => {
            let closed = if g.closed { ", closed" } else { "" };
            let (granted, revoked) = (g.granted, g.revoked);
            format!("grant {} e{}: {granted}, revoked {revoked}, void {:?}{closed}", g.lot, g.epoch, g.void)
        }
    }
}

fn places(in_line: bool) -> &'static str {
    if in_line { " in line" } else { "" }
}

fn order(order: &Order) -> String {
    let (quantity, revision, module) = (order.quantity, order.revision, &order.module);
    match &order.terms {
        Terms::Sell(version) => {
            format!("sell {quantity}{} {module}@{version} r{revision}", places(order.in_line))
        }
        Terms::Buy(requirement) => format!("buy {quantity} {module} {requirement} r{revision}"),
    }
}
