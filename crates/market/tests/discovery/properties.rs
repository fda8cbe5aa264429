//! Random operations.

use std::collections::BTreeMap;

use bourse_market::broker::{self, Broker};
use bourse_market::exchange::Exchange;
use bourse_market::message::{Match, Order, Terms};
use bourse_market::{Contact, Message};
use bourse_wire::id::Incarnation;
use proptest::prelude::*;

use crate::common::{contact, id, ms, times};
use crate::scenarios::{buy, lot, sell, sent};

#[derive(Clone, Copy, Debug)]
enum Side {
    Buys,
    Sells,
    SellsPlaces,
}

#[derive(Clone, Debug)]
enum Op {
    Order { node: u8, life: u64, class: usize, side: Side, revision: u64, quantity: u32 },
    All { node: u8, sells: bool },
    Lost { node: u8 },
    Wait { millis: u64 },
}

const VERSIONS: [&str; 3] = ["1.0.0", "1.2.0", "2.0.0"];
const REQUIREMENTS: [&str; 3] = ["^1", ">=1.2", "=2.0.0"];

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![2 => Just(Side::Buys), 1 => Just(Side::Sells), 1 => Just(Side::SellsPlaces)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..6u8, 1..3u64, 0..3usize, side(), 0..12u64, 0..9u32).prop_map(
            |(node, life, class, side, revision, quantity)| Op::Order { node, life, class, side, revision, quantity }
        ),
        1 => (0..6u8, any::<bool>()).prop_map(|(node, sells)| Op::All { node, sells }),
        1 => (0..6u8).prop_map(|node| Op::Lost { node }),
        2 => (1..20_000u64).prop_map(|millis| Op::Wait { millis }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The book never contradicts itself, nobody waits for what is sold, and nothing is promised twice.
    #[test]
    fn exchange(ops in prop::collection::vec(op(), 1..80)) {
        let mut e = Exchange::new(times(), "m".into());
        let mut now = 0;
        let mut promised: BTreeMap<(u8, u64, String, u64), u32> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Order { node, life, class, side, revision, quantity } => {
                    let from = Contact { incarnation: Incarnation(life), ..contact(node) };
                    let in_line = matches!(side, Side::SellsPlaces);
                    let order = match side {
                        Side::Buys => buy(REQUIREMENTS[class], revision, quantity),
                        Side::Sells | Side::SellsPlaces => {
                            Order { in_line, ..sell(VERSIONS[class], revision, quantity) }
                        }
                    };
                    e.on_order(ms(now), &from, &order);
                }
                Op::All { node, sells } => e.on_all(ms(now), id(node), |t| matches!(t, Terms::Sell(_)) == sells),
                Op::Lost { node } => {
                    e.on_lost(id(node));
                    promised.retain(|(seller, ..), _| *seller != node);
                }
                Op::Wait { millis } => {
                    now += millis;
                    promised.clear();
                    e.handle_timeout(ms(now));
                }
            }
            e.check_invariants();
            while let Some(deal) = e.poll() {
                let m = deal.found;
                prop_assert!(m.requirement.matches(&m.lot.version) && m.quantity > 0);
                prop_assert!(deal.buyer != m.seller.id);
                let key = (m.seller.id.0[0], m.seller.incarnation.0, m.lot.version.to_string(), m.offered);
                let sum = promised.entry(key).or_default();
                *sum += m.quantity;
                prop_assert!(*sum <= 16, "more was promised than any two orders are about");
            }
        }
    }

    /// The broker never contradicts itself, and whoever was told last knows what there is.
    #[test]
    fn broker(ops in prop::collection::vec((0..6u8, 0..3usize, 0..9u32, 1..700u64), 1..60)) {
        let mut b = Broker::new(times(), contact(100));
        let mut known: BTreeMap<u8, BTreeMap<String, u32>> = BTreeMap::new();
        let (mut sells, mut now) = ([0; 3], 0);
        let mut authorities: Vec<Contact> = Vec::new();
        for n in 1..=4 {
            b.on_link(ms(0), id(n), true);
        }
        for (what, class, quantity, millis) in ops {
            match what {
                0 | 1 => {
                    sells[class] = quantity;
                    b.sell(ms(now), &lot(VERSIONS[class]), quantity, false);
                }
                2 => b.buy(ms(now), "m", &REQUIREMENTS[class].parse().unwrap(), quantity),
                3 => {
                    authorities = (1..=4).filter(|n| quantity >> (n - 1) & 1 == 1).map(contact).collect();
                    b.set_authorities(ms(now), &authorities);
                }
                4 => {
                    let requirement = REQUIREMENTS[class].parse().unwrap();
                    let seller = contact(50);
                    let m = Match { requirement, revision: 1, lot: lot(VERSIONS[class]), seller, offered: 1, quantity, in_line: false };
                    b.on_message(ms(now), id(1), &Message::Matches(vec![m]));
                }
                _ => now += millis,
            }
            while let Some(output) = b.poll() {
                prop_assert!(matches!(output, broker::Output::Found(_)) || note(&mut known, output));
            }
            for (to, orders) in sent(&mut b, ms(now)) {
                let message = Message::Orders(orders);
                let envelope = bourse_market::message::Envelope { to, message };
                note(&mut known, broker::Output::Send(envelope));
            }
        }
        // Nothing is lost here: after what was put off has been said, each host knows all.
        now += 6_000;
        for (to, orders) in sent(&mut b, ms(now)) {
            let message = Message::Orders(orders);
            note(&mut known, broker::Output::Send(bourse_market::message::Envelope { to, message }));
        }
        let wanted: BTreeMap<String, u32> =
            (0..3).filter(|c| sells[*c] > 0).map(|c| (VERSIONS[c].to_owned(), sells[c])).collect();
        for host in b.hosts() {
            prop_assert_eq!(&known[&host.0[0]], &wanted);
        }
        prop_assert!(b.hosts().count() <= authorities.len().min(2));
    }
}

/// What a host knows of the sell orders after this.
fn note(known: &mut BTreeMap<u8, BTreeMap<String, u32>>, output: broker::Output) -> bool {
    let broker::Output::Send(envelope) = output else { return false };
    let Message::Orders(orders) = envelope.message else { return false };
    let host = known.entry(envelope.to.0[0]).or_default();
    if orders.all {
        host.clear();
    }
    for order in orders.orders {
        if let Terms::Sell(version) = order.terms {
            host.insert(version.to_string(), order.quantity);
        }
    }
    host.retain(|_, quantity| *quantity > 0);
    true
}
