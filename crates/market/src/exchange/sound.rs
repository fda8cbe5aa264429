//! What must be true of an order book whatever happens.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};
use semver::{Version, VersionReq};

use super::shelf::Shelf;
use super::{CLASSES_MAX, Exchange, Place};
use crate::message::Terms;
use crate::times::QUANTITY_MAX;

impl Exchange {
    /// Panics if the book contradicts itself, or if a buyer waits though somebody sells what it wants.
    pub fn check_invariants(&self) {
        let mut sold: BTreeMap<&Version, usize> = BTreeMap::new();
        let mut wanted: HashMap<&VersionReq, usize> = HashMap::new();
        for (place, record) in self.records.iter().enumerate() {
            let Some(record) = record else { continue };
            let place = place as Place;
            assert!(
                record.left <= record.quantity && record.quantity <= QUANTITY_MAX,
                "more is open than there is"
            );
            let party = &self.parties[&record.node];
            assert_eq!(party.orders.get(&record.terms), Some(&place), "an order belongs to who has said it");
            let in_line = match &record.terms {
                Terms::Sell(version) => {
                    *sold.entry(version).or_default() += 1;
                    let stock = &self.stocks[version];
                    let on = |in_line| stock.shelf(in_line).holds(record.domain, record.arrival, place);
                    assert!(!on(!record.in_line), "what is free is free, and what is in line is in line");
                    on(record.in_line)
                }
                Terms::Buy(requirement) => {
                    *wanted.entry(requirement).or_default() += 1;
                    let queue = &self.queues[requirement];
                    let unlined = queue.unlined.get(&record.arrival) == Some(&place);
                    assert_eq!(
                        unlined,
                        record.left > 0 && !record.in_line,
                        "who has no place in line is known"
                    );
                    queue.open.get(&record.arrival) == Some(&place)
                }
            };
            assert_eq!(in_line, record.left > 0, "who has something open is in line, and nobody else");
        }
        let shelves = self.stocks.values().flat_map(|stock| [&stock.free, &stock.lines]);
        let sold_open: usize = shelves.map(Shelf::check_invariants).sum();
        let wanted_open: usize = self.queues.values().map(|q| q.open.len()).sum();
        assert_eq!(sold_open + wanted_open, self.records.iter().flatten().filter(|r| r.left > 0).count());
        assert!(self.stocks.iter().all(|(v, s)| sold.get(v) == Some(&s.orders)), "a stock counts its orders");
        assert!(
            self.queues.iter().all(|(r, q)| wanted.get(r) == Some(&q.orders)),
            "a queue counts its orders"
        );
        assert!(sold.len() <= CLASSES_MAX && wanted.len() <= CLASSES_MAX);
        for (requirement, queue) in &self.queues {
            for (version, stock) in self.stocks.iter().filter(|(v, _)| requirement.matches(v)) {
                for (buys, shelf) in [(&queue.open, &stock.free), (&queue.unlined, &stock.lines)] {
                    let sellers = shelf.first_two().map(|place| self.peek(place).node);
                    let buyers = buys.values().take(2).map(|place| self.peek(*place).node);
                    let buyers: Vec<_> = buyers.collect();
                    for seller in sellers {
                        assert!(
                            buyers.iter().all(|b| *b == seller),
                            "{buyers:?} wait for {requirement}, and {seller} sells {version}"
                        );
                    }
                }
            }
        }
    }
}
