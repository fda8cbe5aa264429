//! The sell orders of one version that have something open: by failure domain, and in each by arrival.

use std::collections::BTreeMap;

use crate::name::Contact;
use crate::placing;

/// What there is of one version.
#[derive(Debug, Default)]
pub(super) struct Stock {
    /// How many orders have this version, whether anything of them is open or not.
    pub(super) orders: usize,
    /// Slots that are free.
    pub(super) free: Shelf,
    /// Places in line, at sellers whose slots are in use.
    pub(super) lines: Shelf,
}

impl Stock {
    pub(super) fn shelf(&self, in_line: bool) -> &Shelf {
        if in_line { &self.lines } else { &self.free }
    }

    pub(super) fn shelf_mut(&mut self, in_line: bool) -> &mut Shelf {
        if in_line { &mut self.lines } else { &mut self.free }
    }
}

/// The open orders of one version.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Of each domain that has something in line, the arrival of its first order.
    heads: BTreeMap<u64, u64>,
    domains: BTreeMap<u64, BTreeMap<u64, u32>>,
}

/// A number for the failure domain of a node. Who names none fails alone. Never 0.
pub(super) fn domain(contact: &Contact) -> u64 {
    let hash = if contact.domain.is_empty() {
        placing::weight(b"alone", contact.id)
    } else {
        let hash = blake3::hash(contact.domain.as_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    };
    hash.max(1)
}

impl Shelf {
    pub(super) fn insert(&mut self, domain: u64, arrival: u64, place: u32) {
        let line = self.domains.entry(domain).or_default();
        let head = line.first_key_value().map(|(arrival, _)| *arrival);
        line.insert(arrival, place);
        if head.is_none_or(|head| arrival < head) {
            if let Some(head) = head {
                self.heads.remove(&head);
            }
            self.heads.insert(arrival, domain);
        }
    }

    pub(super) fn remove(&mut self, domain: u64, arrival: u64) {
        let line = self.domains.get_mut(&domain).expect("a domain with an order in line has a line");
        line.remove(&arrival).expect("the order is in line");
        let next = line.first_key_value().map(|(arrival, _)| *arrival);
        if self.heads.remove(&arrival).is_some()
            && let Some(next) = next
        {
            self.heads.insert(next, domain);
        }
        if next.is_none() {
            self.domains.remove(&domain);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Of each domain the first order that will do, the domain whose line is the oldest first.
    pub(super) fn heads(&self, will_do: impl Fn(u32) -> bool) -> impl Iterator<Item = (u64, u32)> {
        self.heads.values().filter_map(move |domain| {
            let place = self.domains[domain].values().find(|place| will_do(**place));
            place.map(|place| (*domain, *place))
        })
    }

    pub(super) fn holds(&self, domain: u64, arrival: u64, place: u32) -> bool {
        self.domains.get(&domain).and_then(|line| line.get(&arrival)) == Some(&place)
    }

    /// Two orders in line, if there are as many.
    pub(super) fn first_two(&self) -> impl Iterator<Item = u32> {
        self.domains.values().flat_map(|line| line.values().take(2)).take(2).copied()
    }

    /// How many are in line.
    pub(super) fn check_invariants(&self) -> usize {
        assert_eq!(self.heads.len(), self.domains.len());
        for (arrival, domain) in &self.heads {
            let first = self.domains[domain].first_key_value();
            assert_eq!(
                first.map(|(first, _)| first),
                Some(arrival),
                "a domain stands where its first order does"
            );
        }
        self.domains.values().map(BTreeMap::len).sum()
    }
}
