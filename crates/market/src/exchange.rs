//! One module's order book: matches what is sold with what is wanted, as soon as both are there.
//!
//! ```text
//! broker -> exchange: orders; and the host says which nodes are lost
//! exchange -> broker: deals, each of them a hint for one buyer
//! ```
//!
//! - A buyer gets the newest version that fits, in part if need be. Among equal buyers, and among equal sellers, who came
//!   first is served first, and a buyer that has got a part stands behind the others; but what one buyer gets is cut into up to [`SPREAD`] portions from different failure domains.
//! - A seller whose slots are in use offers a place in line. A buyer for which nothing is free gets one, for each revision
//!   of its order; it goes on to be matched with what comes free.
//! - A buyer that repeats its order, since nothing came of it, is matched with whom it was matched with lately only if
//!   there is nobody else.
//! - What was promised of an order is not promised again until its revision grows. What was promised of a sell order may be
//!   promised again after `promise_kept`, since the buyer may have no use for it by then. A buy order is matched anew only
//!   when its revision grows: its broker sees to that, and knows best whether it still wants anything.
//! - Of each order the last revision is remembered, even if it was withdrawn, for `order_kept`: what comes late is told by
//!   it. An order that is not said again for so long is dropped, and so are those of a node that is lost.
//!
//! Each match costs O(log n) for n orders, plus one comparison for each version and requirement that is open, of which there
//! are at most [`CLASSES_MAX`].
//!
//! It never believes that a slot is there, or sold: the seller's listener decides. It never looks at a clock of a node.

mod shelf;
mod sound;
mod view;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use bourse_wire::time::Mono;
use foldhash::{HashMap, HashMapExt};
use semver::{Version, VersionReq};

use self::shelf::Stock;
pub use self::view::View;
use crate::message::{Match, Order, Terms};
use crate::mutant::{self, Mutant};
use crate::name::{Contact, Lot, NodeId};
use crate::times::{ORDERS_MAX, QUANTITY_MAX, TEXT_BYTES_MAX, Times};

/// What one buyer wants is cut into so many portions, if there are as many failure domains that sell it.
pub const SPREAD: usize = 4;

/// So many of the last offers that a buyer was matched with are the last that it is matched with again, while they stay the same.
const TRIED: usize = 8;

/// Most different versions, and most different requirements, in one module's book. Orders for more are not taken.
pub const CLASSES_MAX: usize = 256;

/// A buyer and what was found for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    /// Whose order was matched.
    pub buyer: NodeId,
    /// With what.
    pub found: Match,
}

/// One module's order book.
#[derive(Debug)]
pub struct Exchange {
    times: Arc<Times>,
    module: String,
    /// Never iterated: its order is not the same in each run.
    parties: HashMap<NodeId, Party>,
    records: Vec<Option<Record>>,
    vacant: Vec<Place>,
    /// Sell orders by version.
    stocks: BTreeMap<Version, Stock>,
    /// Buy orders by requirement. Iterated only to find the least arrival, of which there is one.
    queues: HashMap<VersionReq, Queue>,
    timers: BinaryHeap<Reverse<Timer>>,
    deals: VecDeque<Deal>,
    next_arrival: u64,
    next_name: u64,
}

/// Where a record is.
type Place = u32;

/// When, for which record (its name), what for, and where it was.
type Timer = (Mono, u64, Due, Place);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Promise,
    Expiry,
}

#[derive(Debug)]
struct Party {
    contact: Contact,
    domain: u64,
    orders: HashMap<Terms, Place>,
}

/// An order, or what is left of one that was withdrawn: its revision.
#[derive(Debug)]
struct Record {
    /// Unlike a place, a name is never given again.
    name: u64,
    node: NodeId,
    domain: u64,
    terms: Terms,
    revision: u64,
    quantity: u32,
    /// Of a sell order: it offers places in line. Of a buy order: this revision of it has got one.
    in_line: bool,
    /// Not promised. The order is open while this is not 0.
    left: u32,
    /// Its place in the line.
    arrival: u64,
    heard: Mono,
    promised: Mono,
    /// A timer for what was promised is set.
    has_timer: bool,
    /// The node did not name it among all that it has: if it is said again, it counts again, whatever its revision.
    void: bool,
    /// Where the last slots for this buyer came from, the newest first.
    recent: [u64; SPREAD - 1],
    /// Its revision has grown, and nothing else.
    is_repeated: bool,
    /// The last offers that this buyer was matched with.
    tried: [Tried; TRIED],
}

/// An offer that a buyer was matched with: which, its revision then, and that of the buyer's order.
#[derive(Clone, Copy, Debug, Default)]
struct Tried {
    name: u64,
    offered: u64,
    wanted: u64,
}

impl Record {
    /// Under an earlier revision of this order: an offer that is still the same was of no use, and neither was that seller if
    /// the order is.
    fn has_tried(&self, offer: &Record) -> bool {
        let is_same = |tried: &Tried| tried.offered == offer.revision || self.is_repeated;
        let is_it = |tried: &Tried| tried.name == offer.name && is_same(tried);
        self.tried.iter().any(|tried| is_it(tried) && tried.wanted < self.revision)
    }
}

#[derive(Debug, Default)]
struct Queue {
    /// How many records have this requirement.
    orders: usize,
    /// Those that are open, by arrival.
    open: BTreeMap<u64, Place>,
    /// Those among them that have no place in line.
    unlined: BTreeMap<u64, Place>,
}

impl Exchange {
    /// An empty book.
    pub fn new(times: Arc<Times>, module: String) -> Self {
        Self {
            times,
            module,
            parties: HashMap::new(),
            records: Vec::new(),
            vacant: Vec::new(),
            stocks: BTreeMap::new(),
            queues: HashMap::new(),
            timers: BinaryHeap::new(),
            deals: VecDeque::new(),
            next_arrival: 1,
            next_name: 1,
        }
    }

    /// A node says an order, for the first time or again.
    pub fn on_order(&mut self, now: Mono, from: &Contact, order: &Order) {
        if order.module != self.module || !self.knows(from) {
            return;
        }
        let known = self.parties.get(&from.id).and_then(|party| party.orders.get(&order.terms));
        let place = match known {
            Some(place) => *place,
            None => match self.enter(now, from.id, order) {
                Some(place) => place,
                None => return,
            },
        };
        let record = self.record(place);
        if order.revision < record.revision && !mutant::is(Mutant::StaleOrderAccepted) {
            return;
        }
        record.heard = now;
        if order.revision == record.revision && !record.void {
            return;
        }
        record.is_repeated = record.quantity == order.quantity && !record.void;
        record.revision = order.revision;
        record.void = false;
        record.quantity = order.quantity.min(QUANTITY_MAX);
        let quantity = record.quantity;
        let in_line = order.in_line && matches!(order.terms, Terms::Sell(_));
        self.set_in_line(place, in_line);
        self.set_left(place, quantity);
        self.matched(now, place);
    }

    /// A node has said all orders that it has: those that are not named are void.
    pub fn on_all(&mut self, _now: Mono, from: NodeId, named: impl Fn(&Terms) -> bool) {
        let Some(party) = self.parties.get(&from) else { return };
        let unnamed: Vec<_> =
            party.orders.iter().filter(|(t, _)| !named(t)).map(|(_, place)| *place).collect();
        for place in unnamed {
            let record = self.record(place);
            record.void = true;
            record.quantity = 0;
            self.set_left(place, 0);
        }
    }

    /// A node is gone, and so is what it has said.
    pub fn on_lost(&mut self, node: NodeId) {
        if mutant::is(Mutant::LostOrdersStay) {
            return;
        }
        self.leave(node);
    }

    /// Drops what was not said again, and offers again what was promised to no avail.
    pub fn handle_timeout(&mut self, now: Mono) {
        while let Some(Reverse((at, name, due, place))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            if self.records[place as usize].as_ref().is_some_and(|r| r.name == name) {
                match due {
                    Due::Expiry => self.on_expiry(now, place),
                    Due::Promise => self.on_promise_over(now, place),
                }
            }
        }
    }

    /// The next deal.
    pub fn poll(&mut self) -> Option<Deal> {
        self.deals.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// Nobody has an order here, and nobody had one lately.
    pub fn is_empty(&self) -> bool {
        self.parties.is_empty() && self.deals.is_empty()
    }

    /// Whether this life of the node counts; notes its contact if so.
    fn knows(&mut self, from: &Contact) -> bool {
        if from.address.len() > TEXT_BYTES_MAX || from.domain.len() > TEXT_BYTES_MAX {
            return false;
        }
        let Some(party) = self.parties.get_mut(&from.id) else {
            let party = Party { contact: from.clone(), domain: shelf::domain(from), orders: HashMap::new() };
            self.parties.insert(from.id, party);
            return true;
        };
        if from.incarnation < party.contact.incarnation && !mutant::is(Mutant::StaleOrderAccepted) {
            return false;
        }
        if *from != party.contact {
            // What another life of it has said is void, and its failure domain is in the order of the shelves.
            self.leave(from.id);
            return self.knows(from);
        }
        true
    }

    /// A record for an order that nobody has heard of yet; `None` if the book is full.
    fn enter(&mut self, now: Mono, node: NodeId, order: &Order) -> Option<Place> {
        let party = self.parties.get_mut(&node).expect("its contact was noted just before");
        let full = match &order.terms {
            Terms::Sell(v) => self.stocks.len() >= CLASSES_MAX && !self.stocks.contains_key(v),
            Terms::Buy(r) => self.queues.len() >= CLASSES_MAX && !self.queues.contains_key(r),
        };
        if full || party.orders.len() >= ORDERS_MAX {
            if party.orders.is_empty() {
                self.parties.remove(&node);
            }
            return None;
        }
        let name = self.next_name;
        self.next_name += 1;
        let record = Record {
            name,
            node,
            domain: party.domain,
            terms: order.terms.clone(),
            revision: order.revision,
            quantity: 0,
            in_line: false,
            left: 0,
            arrival: 0,
            heard: now,
            promised: Mono(0),
            has_timer: false,
            void: true,
            recent: [0; SPREAD - 1],
            is_repeated: false,
            tried: [Tried::default(); TRIED],
        };
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.records.push(None);
            Place::try_from(self.records.len() - 1).expect("there is no memory for more records")
        });
        self.records[place as usize] = Some(record);
        party.orders.insert(order.terms.clone(), place);
        match &order.terms {
            Terms::Sell(version) => self.stocks.entry(version.clone()).or_default().orders += 1,
            Terms::Buy(requirement) => self.queues.entry(requirement.clone()).or_default().orders += 1,
        }
        self.timers.push(Reverse((now + self.times.order_kept, name, Due::Expiry, place)));
        Some(place)
    }

    /// Forgets a node.
    fn leave(&mut self, node: NodeId) {
        let Some(party) = self.parties.remove(&node) else { return };
        for place in party.orders.into_values() {
            self.remove(place);
        }
    }

    /// Takes a record out of everything but its party.
    fn remove(&mut self, place: Place) {
        self.set_left(place, 0);
        let record = self.records[place as usize].take().expect("it was in a party's list");
        self.vacant.push(place);
        match &record.terms {
            Terms::Sell(version) => {
                let stock = self.stocks.get_mut(version).expect("it counts this order");
                stock.orders -= 1;
                if stock.orders == 0 {
                    self.stocks.remove(version);
                }
            }
            Terms::Buy(requirement) => {
                let queue = self.queues.get_mut(requirement).expect("it counts this order");
                queue.orders -= 1;
                if queue.orders == 0 {
                    self.queues.remove(requirement);
                }
            }
        }
    }

    fn on_expiry(&mut self, now: Mono, place: Place) {
        let kept = self.times.order_kept;
        let record = self.record(place);
        let (name, node, due) = (record.name, record.node, record.heard + kept);
        if due > now {
            self.timers.push(Reverse((due, name, Due::Expiry, place)));
            return;
        }
        let terms = record.terms.clone();
        self.remove(place);
        let party = self.parties.get_mut(&node).expect("it had this order");
        party.orders.remove(&terms);
        if party.orders.is_empty() {
            self.parties.remove(&node);
        }
    }

    fn on_promise_over(&mut self, now: Mono, place: Place) {
        let kept = self.times.promise_kept;
        let record = self.record(place);
        let (name, due, quantity) = (record.name, record.promised + kept, record.quantity);
        if due > now {
            self.timers.push(Reverse((due, name, Due::Promise, place)));
            return;
        }
        record.has_timer = false;
        if record.left < quantity && !mutant::is(Mutant::PromiseNeverExpires) {
            self.set_left(place, quantity);
            self.matched(now, place);
        }
    }

    /// Says whether a sell order offers places in line, or whether a buy order has got one. A buy order that is open keeps its
    /// place in the queue.
    fn set_in_line(&mut self, place: Place, in_line: bool) {
        let record = self.peek(place);
        if record.in_line == in_line {
            return;
        }
        if let Terms::Sell(_) = record.terms {
            self.set_left(place, 0);
        }
        let record = self.records[place as usize].as_mut().expect("it was looked at just now");
        record.in_line = in_line;
        if let Terms::Buy(requirement) = &record.terms
            && record.left > 0
        {
            let unlined = &mut self.queues.get_mut(requirement).expect("it counts this order").unlined;
            match in_line {
                true => unlined.remove(&record.arrival),
                false => unlined.insert(record.arrival, place),
            };
        }
    }

    /// Sets how much of an order is open, and puts it where it is looked for, or takes it out. It keeps its place while it is open.
    fn set_left(&mut self, place: Place, left: u32) {
        let next_arrival = self.next_arrival;
        let record = self.records[place as usize].as_mut().expect("only records that are there are changed");
        let was_open = record.left > 0;
        record.left = left;
        if was_open == (left > 0) {
            return;
        }
        if !was_open {
            record.arrival = next_arrival;
            self.next_arrival += 1;
        }
        match &record.terms {
            Terms::Sell(version) => {
                let stock = self.stocks.get_mut(version).expect("it counts this order");
                let shelf = stock.shelf_mut(record.in_line);
                if was_open {
                    shelf.remove(record.domain, record.arrival);
                } else {
                    shelf.insert(record.domain, record.arrival, place);
                }
            }
            Terms::Buy(requirement) => {
                let queue = self.queues.get_mut(requirement).expect("it counts this order");
                if was_open {
                    queue.open.remove(&record.arrival);
                    queue.unlined.remove(&record.arrival);
                } else {
                    queue.open.insert(record.arrival, place);
                    if !record.in_line {
                        queue.unlined.insert(record.arrival, place);
                    }
                }
            }
        }
    }

    /// Matches an order with all that fit.
    fn matched(&mut self, now: Mono, place: Place) {
        match self.peek(place).terms {
            Terms::Buy(_) => self.match_buy(now, place),
            Terms::Sell(_) => self.match_sell(now, place),
        }
    }

    fn match_buy(&mut self, now: Mono, buy: Place) {
        let wanted = self.peek(buy).left;
        while self.peek(buy).left > 0
            && let Some((sell, domains)) = self.offer_for(buy, false)
        {
            let portion = wanted.div_ceil(u32::try_from(domains).unwrap_or(u32::MAX));
            let quantity = portion.min(self.peek(buy).left).min(self.peek(sell).left);
            self.deal(now, buy, sell, quantity);
        }
        if self.peek(buy).left > 0
            && !self.peek(buy).in_line
            && let Some((sell, _)) = self.offer_for(buy, true)
        {
            self.deal(now, buy, sell, 1);
        }
    }

    fn match_sell(&mut self, now: Mono, sell: Place) {
        while self.peek(sell).left > 0
            && let Some(buy) = self.buyer_of(sell)
        {
            let most = if self.peek(sell).in_line { 1 } else { u32::MAX };
            let quantity = most.min(self.peek(buy).left).min(self.peek(sell).left);
            self.deal(now, buy, sell, quantity);
        }
    }

    /// The sell order that a buyer is to have next, and how many failure domains there are to choose from, up to [`SPREAD`].
    fn offer_for(&self, buy: Place, in_line: bool) -> Option<(Place, usize)> {
        let buyer = self.peek(buy);
        let Terms::Buy(requirement) = &buyer.terms else { unreachable!("a buyer's order buys") };
        let is_fit = |v: &Version| requirement.matches(v) || mutant::is(Mutant::WrongRequirementMatched);
        let shelves = self.stocks.iter().rev().map(|(version, stock)| (version, stock.shelf(in_line)));
        let shelves = shelves.filter(|(version, shelf)| !shelf.is_empty() && is_fit(version));
        let with = |untried: bool| shelves.clone().map(move |(_, shelf)| (shelf, untried));
        with(true).chain(with(false)).find_map(|(shelf, untried)| {
            let mut heads: Vec<(u64, Place)> = Vec::with_capacity(SPREAD);
            let will_do = |place: Place| {
                let offer = self.peek(place);
                let is_own = offer.node == buyer.node && !mutant::is(Mutant::SoldToItself);
                let is_stale = untried && buyer.has_tried(offer);
                !is_own && !is_stale
            };
            heads.extend(shelf.heads(will_do).take(SPREAD));
            // The domain that this buyer got something from the longest ago, and the first in line among those.
            let age = |domain: u64| buyer.recent.iter().position(|r| *r == domain).unwrap_or(SPREAD);
            let best = heads.iter().rev().max_by_key(|(domain, _)| age(*domain))?;
            let domains = heads.len();
            if mutant::is(Mutant::NotSpread) {
                return Some((heads[0].1, 1));
            }
            Some((best.1, domains))
        })
    }

    /// The buy order that has waited longest for what is sold.
    fn buyer_of(&self, sell: Place) -> Option<Place> {
        let Record { node: seller, in_line, ref terms, .. } = *self.peek(sell);
        let Terms::Sell(version) = terms else { unreachable!("a seller's order sells") };
        let queues =
            self.queues.iter().map(|(req, queue)| (req, if in_line { &queue.unlined } else { &queue.open }));
        let fitting = queues.filter(|(requirement, open)| {
            !open.is_empty() && (requirement.matches(version) || mutant::is(Mutant::WrongRequirementMatched))
        });
        let firsts = fitting.filter_map(|(_, open)| {
            open.iter()
                .find(|(_, place)| self.peek(**place).node != seller || mutant::is(Mutant::SoldToItself))
        });
        let first = if mutant::is(Mutant::LastComeFirstServed) {
            firsts.max_by_key(|(arrival, _)| **arrival)
        } else {
            firsts.min_by_key(|(arrival, _)| **arrival)
        };
        first.map(|(_, place)| *place)
    }

    fn deal(&mut self, now: Mono, buy: Place, sell: Place, quantity: u32) {
        assert!(quantity > 0, "an order in line has something open");
        let kept = self.times.promise_kept;
        let offer = self.record(sell);
        let (domain, offered, left) = (offer.domain, offer.revision, offer.left - quantity);
        let (seller, name, in_line) = (offer.node, offer.name, offer.in_line);
        let Terms::Sell(version) = offer.terms.clone() else { unreachable!("a seller's order sells") };
        offer.promised = now;
        let sets_timer = !std::mem::replace(&mut offer.has_timer, true);
        self.set_left(sell, left);
        if sets_timer {
            self.timers.push(Reverse((now + kept, name, Due::Promise, sell)));
        }

        let order = self.record(buy);
        let (buyer, revision, left) = (order.node, order.revision, order.left - quantity);
        let Terms::Buy(requirement) = order.terms.clone() else { unreachable!("a buyer's order buys") };
        order.recent.rotate_right(1);
        order.recent[0] = domain;
        let oldest = order.tried.iter().position(|tried| tried.name == name).unwrap_or(TRIED - 1);
        order.tried[..=oldest].rotate_right(1);
        order.tried[0] = Tried { name, offered, wanted: revision };
        if in_line && !mutant::is(Mutant::LineFills) {
            self.set_in_line(buy, true);
        } else {
            // Who has got something stands behind the others, even if it wants more: else what is offered bit by bit goes to
            // the same buyer again and again.
            self.set_left(buy, 0);
            self.set_left(buy, left);
        }

        let lot = Lot { module: self.module.clone(), version };
        let seller = self.parties[&seller].contact.clone();
        let found = Match { requirement, revision, lot, seller, offered, quantity, in_line };
        self.deals.push_back(Deal { buyer, found });
    }

    fn record(&mut self, place: Place) -> &mut Record {
        self.records[place as usize].as_mut().expect("nothing points at a vacant place")
    }

    fn peek(&self, place: Place) -> &Record {
        self.records[place as usize].as_ref().expect("nothing points at a vacant place")
    }
}
