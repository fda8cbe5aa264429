//! This node's orders, kept up at the exchanges of each module.
//!
//! ```text
//! node -> broker: sells, buys (absolute: what was said last counts)       broker -> node: found
//! broker -> exchanges of one host: orders                                 exchanges of one host -> broker: matches
//! ```
//!
//! - What changes within `coalesce` goes to a host in one message, whatever the modules, unless it is of little account. Every `restate` each host is told
//!   all that it should have, in one message; where a message was lost, that repairs it. Nothing else is sent.
//! - A link to a host that opens, and a host that is new, is told all; a host that is one no longer is told that it has
//!   nothing. A host that is not linked is written to with a growing pause, so that it is dialed.
//! - While a buy order stays unfilled its revision grows, so that it is matched anew: after `promise_kept` × 2, then after
//!   twice as long, up to `restate`, from when on it rides on the restatement.
//! - A match is passed on once, however many replicas have found it, and no more is passed on than is wanted.
//!
//! What was found is a hint. The broker never lowers an order for it: only who has the tokens can say what is still wanted.

mod seen;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bourse_wire::time::Mono;
use semver::{Version, VersionReq};

use crate::message::{Envelope, Match, Message, Order, Orders, Terms};
use crate::mutant::{self, Mutant};
use crate::name::{Contact, Lot, NodeId};
use crate::placing;
use crate::times::{ORDERS_MAX, QUANTITY_MAX, TEXT_BYTES_MAX, Times};

/// What is not filled is said anew after this at the latest: it may have been matched with sellers that are busy by now.
const UNFILLED_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// Most sellers that a buy order remembers, to tell the doubles of replicas.
const SEEN_MAX: usize = 4_096;

/// Somebody sells what this node wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The module.
    pub module: String,
    /// Who sells it, and how much of it was promised.
    pub found: Match,
}

/// What a broker wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this. If the receiver is not linked, dial it; the message is dropped then.
    Send(Envelope),
    /// Ask this seller.
    Found(Found),
}

/// This node's orders.
#[derive(Debug)]
pub struct Broker {
    times: Arc<Times>,
    me: Contact,
    /// The latest time that anybody has said.
    now: Mono,
    authorities: Vec<Contact>,
    linked: BTreeSet<NodeId>,
    hosts: BTreeMap<NodeId, Host>,
    books: BTreeMap<String, Book>,
    orders: usize,
    /// Nothing is due before then; perhaps not even then.
    wake: Mono,
    /// Grows with each change of any order.
    revision: u64,
    found: VecDeque<Found>,
    out: VecDeque<Envelope>,
}

/// The exchanges on one authority.
#[derive(Debug)]
struct Host {
    /// What has a revision up to this was sent there.
    told: u64,
    /// The modules of which something is to be said.
    changed: BTreeSet<String>,
    /// All is to be said.
    all: bool,
    /// When something is to be sent, if so.
    send_at: Option<Mono>,
    /// The next restatement; while there is no link, the next attempt to have one.
    restate_at: Mono,
    /// How long after the next attempt the one after it is.
    pause: Duration,
    sent_at: Option<Mono>,
}

impl Host {
    fn due(&self) -> Mono {
        self.send_at.map_or(self.restate_at, |at| at.min(self.restate_at))
    }
}

/// This node's orders for one module.
#[derive(Debug, Default)]
struct Book {
    hosts: Vec<NodeId>,
    sells: Vec<Sell>,
    buys: Vec<Buy>,
}

#[derive(Debug)]
struct Sell {
    version: Version,
    free: u32,
    in_line: bool,
    revision: u64,
    /// What was free when the hosts were told of it at once.
    told: u32,
}

impl Sell {
    /// A match is a hint: whether it is half of the slots or all of them makes little difference to who gets it. That rides
    /// on the next restatement.
    fn is_much_the_same(&self, free: u32, in_line: bool) -> bool {
        in_line == self.in_line && free > 0 && self.told > 0 && free >= self.told / 2 && free / 2 <= self.told
    }
}

#[derive(Debug)]
struct Buy {
    requirement: VersionReq,
    wanted: u32,
    revision: u64,
    /// When it is to be matched anew. `None`: with the next restatement.
    repeat_at: Option<Mono>,
    pause: Duration,
    /// What was passed on since the revision grew last.
    found: u32,
    /// By seller: the offer, the revision of this order, and the quantity that were passed on.
    seen: BTreeMap<(NodeId, Version), (u64, u64, u32)>,
}

impl Broker {
    /// A broker that has no orders and knows no authorities.
    pub fn new(times: Arc<Times>, me: Contact) -> Self {
        Self {
            times,
            linked: BTreeSet::from([me.id]),
            me,
            now: Mono(0),
            authorities: Vec::new(),
            hosts: BTreeMap::new(),
            books: BTreeMap::new(),
            orders: 0,
            wake: Mono::MAX,
            revision: 0,
            found: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// The authorities have changed, and with them perhaps the hosts of each module.
    pub fn set_authorities(&mut self, now: Mono, authorities: &[Contact]) {
        self.now = now;
        self.authorities = authorities.to_vec();
        let modules: Vec<String> = self.books.keys().cloned().collect();
        for module in &modules {
            self.place(module);
        }
        self.forget_idle_hosts();
    }

    /// This node has so many slots for the lot, or places in line for one. 0: it sells none.
    pub fn sell(&mut self, now: Mono, lot: &Lot, free: u32, in_line: bool) {
        self.now = now;
        let free = free.min(QUANTITY_MAX);
        let Some(book) = self.book(&lot.module, free) else { return };
        let at = book.sells.iter().position(|s| s.version == lot.version);
        if at.map_or((0, false), |at| (book.sells[at].free, book.sells[at].in_line)) == (free, in_line) {
            return;
        }
        self.revision += 1;
        let revision = self.revision;
        let is_full = self.orders >= ORDERS_MAX;
        let book = self.books.get_mut(&lot.module).expect("it was there just now");
        match at {
            Some(at) => {
                let sell = &mut book.sells[at];
                let is_much_the_same = sell.is_much_the_same(free, in_line);
                (sell.free, sell.in_line, sell.revision) = (free, in_line, revision);
                if is_much_the_same {
                    return;
                }
                sell.told = free;
            }
            None if is_full => return,
            None => {
                book.sells.push(Sell { version: lot.version.clone(), free, in_line, revision, told: free });
                self.orders += 1;
            }
        }
        self.has_changed(&lot.module);
    }

    /// This node wants so many slots that it has not got. 0: it wants none.
    pub fn buy(&mut self, now: Mono, module: &str, requirement: &VersionReq, wanted: u32) {
        self.now = now;
        let wanted = wanted.min(QUANTITY_MAX);
        let Some(book) = self.book(module, wanted) else { return };
        let at = book.buys.iter().position(|b| b.requirement == *requirement);
        if at.map_or(0, |at| book.buys[at].wanted) == wanted {
            return;
        }
        self.revision += 1;
        let revision = self.revision;
        let is_full = self.orders >= ORDERS_MAX;
        let pause = self.times.promise_kept * 2;
        let book = self.books.get_mut(module).expect("it was there just now");
        let buy = match at {
            Some(at) => &mut book.buys[at],
            None if is_full => return,
            None => {
                self.orders += 1;
                let requirement = requirement.clone();
                let seen = BTreeMap::new();
                book.buys.push(Buy { requirement, wanted, revision, repeat_at: None, pause, found: 0, seen });
                book.buys.last_mut().expect("one was pushed just now")
            }
        };
        buy.wanted = wanted;
        buy.revision = revision;
        buy.found = 0;
        buy.pause = pause;
        buy.repeat_at = (wanted > 0).then_some(now + pause);
        self.wake = self.wake.min(now + pause);
        if wanted == 0 {
            buy.seen.clear();
        }
        self.has_changed(module);
    }

    /// A link has opened, has ended, or could not be made.
    pub fn on_link(&mut self, now: Mono, node: NodeId, up: bool) {
        self.now = now;
        if up {
            self.linked.insert(node);
        } else if node != self.me.id {
            self.linked.remove(&node);
        }
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.all = true;
        if up {
            host.pause = self.times.redial_min;
            host.send_at = Some(now);
        } else {
            host.send_at = None;
            host.restate_at = now + host.pause;
        }
        self.wake = self.wake.min(host.due());
    }

    /// The exchanges of a host have found something.
    pub fn on_message(&mut self, now: Mono, _from: NodeId, message: &Message) {
        self.now = now;
        let Message::Matches(matches) = message else { return };
        for found in matches.iter().take(ORDERS_MAX) {
            self.on_match(found);
        }
    }

    /// Says again what is due.
    pub fn handle_timeout(&mut self, now: Mono) {
        self.now = now;
        if self.wake <= now {
            self.repeat_unfilled();
            self.flush();
        }
    }

    /// The next thing to do. What has changed is sent from here as soon as it may be: all changes that were made before are
    /// in one message.
    pub fn poll(&mut self) -> Option<Output> {
        if self.out.is_empty() {
            self.flush();
        }
        let found = |broker: &mut Self| broker.found.pop_front().map(Output::Found);
        self.out.pop_front().map(Output::Send).or_else(|| found(self))
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Mono> {
        (self.wake != Mono::MAX).then_some(self.wake)
    }

    /// The nodes on which this node's orders are.
    pub fn hosts(&self) -> impl Iterator<Item = NodeId> {
        self.hosts.keys().copied()
    }

    /// Panics if the broker contradicts itself.
    pub fn check_invariants(&self) {
        let orders = self.books.values().map(|b| b.sells.len() + b.buys.len());
        assert_eq!(self.orders, orders.sum::<usize>(), "orders are counted");
        assert!(self.orders <= ORDERS_MAX);
        for (module, book) in &self.books {
            let hosts = placing::hosts(module, &self.authorities, self.times.replicas);
            assert!(
                hosts.iter().map(|h| h.id).eq(book.hosts.iter().copied()),
                "{module} is where all place it"
            );
            assert!(
                book.hosts.iter().all(|host| self.hosts.contains_key(host)),
                "{module} has unknown hosts"
            );
            for buy in &book.buys {
                assert!(buy.revision <= self.revision && buy.seen.len() <= SEEN_MAX);
                assert!(buy.wanted > 0 || buy.repeat_at.is_none(), "nothing is wanted, and is repeated");
            }
        }
        assert!(self.hosts.values().all(|host| host.told <= self.revision));
    }

    /// The orders for a module, if there are any or are to be.
    fn book(&mut self, module: &str, quantity: u32) -> Option<&mut Book> {
        if !self.books.contains_key(module) {
            if quantity == 0 || module.len() > TEXT_BYTES_MAX || self.orders >= ORDERS_MAX {
                return None;
            }
            self.books.insert(module.to_owned(), Book::default());
            self.place(module);
        }
        self.books.get_mut(module)
    }

    /// Finds out where a module's exchanges are; those that are new, and those that are none any more, are told all that
    /// there is for them.
    fn place(&mut self, module: &str) {
        let hosts = placing::hosts(module, &self.authorities, self.times.replicas);
        let hosts: Vec<NodeId> = hosts.into_iter().map(|contact| contact.id).collect();
        let book = self.books.get_mut(module).expect("only modules with orders are placed");
        let before = std::mem::replace(&mut book.hosts, hosts.clone());
        for id in &hosts {
            let host = self.hosts.entry(*id).or_insert_with(|| Host {
                told: 0,
                changed: BTreeSet::new(),
                all: true,
                send_at: Some(self.now),
                restate_at: self.now + self.times.restate,
                pause: self.times.redial_min,
                sent_at: None,
            });
            if !before.contains(id) {
                host.all = true;
                host.send_at = Some(self.now);
            }
            self.wake = self.wake.min(host.due());
        }
        for id in before.iter().filter(|id| !hosts.contains(id)) {
            if let Some(host) = self.hosts.get_mut(id)
                && !mutant::is(Mutant::OldHostKeepsOrders)
            {
                host.all = true;
                host.send_at = Some(self.now);
                self.wake = self.now;
            }
        }
    }

    /// Drops the hosts that have no module; each one that can be told so is.
    fn forget_idle_hosts(&mut self) {
        let busy: BTreeSet<NodeId> =
            self.books.values().flat_map(|book| book.hosts.iter().copied()).collect();
        let idle: Vec<NodeId> = self.hosts.keys().copied().filter(|id| !busy.contains(id)).collect();
        for id in idle {
            let host = self.hosts.remove(&id).expect("it was there just now");
            if host.sent_at.is_some() && self.linked.contains(&id) && !mutant::is(Mutant::OldHostKeepsOrders)
            {
                self.send(id, true, Vec::new());
            }
        }
    }

    /// An order for a module has another revision: its hosts are to be told.
    fn has_changed(&mut self, module: &str) {
        for id in &self.books[module].hosts {
            let host = self.hosts.get_mut(id).expect("a module's hosts are known");
            if !host.changed.contains(module) {
                host.changed.insert(module.to_owned());
            }
            if host.send_at.is_none() && self.linked.contains(id) {
                let earliest = host.sent_at.map_or(self.now, |at| at + self.times.coalesce);
                host.send_at = Some(earliest.max(self.now));
                self.wake = self.wake.min(host.due());
            }
        }
    }

    /// Lets the buy orders grow older that are due.
    fn repeat_unfilled(&mut self) {
        if mutant::is(Mutant::UnfilledNotRepeated) {
            self.books.values_mut().flat_map(|b| &mut b.buys).for_each(|b| b.repeat_at = None);
            return;
        }
        let mut repeated = Vec::new();
        for (module, book) in &mut self.books {
            for buy in &mut book.buys {
                if buy.repeat_at.is_none_or(|at| at > self.now) {
                    continue;
                }
                self.revision += 1;
                buy.revision = self.revision;
                buy.found = 0;
                buy.pause = (buy.pause * 2).min(UNFILLED_MAX).min(self.times.restate);
                // A longer pause ends with a restatement anyway.
                buy.repeat_at = (buy.pause < self.times.restate).then_some(self.now + buy.pause);
                repeated.push(module.clone());
            }
        }
        for module in repeated {
            self.has_changed(&module);
        }
    }

    /// Sends what is due.
    fn flush(&mut self) {
        if self.wake > self.now {
            return;
        }
        let due = |host: &Host| host.due() <= self.now;
        let hosts: Vec<NodeId> = self.hosts.iter().filter(|(_, h)| due(h)).map(|(id, _)| *id).collect();
        for id in hosts {
            // What one host was told may have been the last that another one had to hear.
            if self.hosts.contains_key(&id) {
                self.tell(id);
            }
        }
        let hosts = self.hosts.values().map(Host::due);
        let buys = self.books.values().flat_map(|book| &book.buys).filter_map(|buy| buy.repeat_at);
        self.wake = hosts.chain(buys).min().unwrap_or(Mono::MAX);
    }

    /// Tells a host what has changed, or all.
    fn tell(&mut self, id: NodeId) {
        let is_linked = self.linked.contains(&id);
        let host = self.hosts.get_mut(&id).expect("only known hosts are told");
        if host.restate_at <= self.now {
            host.all = true;
            if mutant::is(Mutant::NoRestatement) && is_linked {
                host.restate_at = self.now + self.times.restate;
                host.all = false;
            }
        }
        let (all, told) = (host.all, host.told);
        let changed = std::mem::take(&mut host.changed);
        host.send_at = None;
        if is_linked {
            host.all = false;
            host.sent_at = Some(self.now);
            host.restate_at = if all { self.now + self.times.restate } else { host.restate_at };
        } else {
            // It will be dialed, and told when the link is there.
            host.all = true;
            host.restate_at = self.now + host.pause;
            host.pause = (host.pause * 2).clamp(self.times.redial_min, self.times.redial_max);
        }
        if !is_linked {
            if all {
                self.send(id, true, Vec::new());
            }
            return;
        }
        let said: Vec<String> = if all {
            let here = self.books.iter().filter(|(_, book)| book.hosts.contains(&id));
            here.map(|(module, _)| module.clone()).collect()
        } else {
            changed.into_iter().collect()
        };
        let mut orders = Vec::new();
        for module in &said {
            let Some(book) = self.books.get_mut(module).filter(|book| book.hosts.contains(&id)) else {
                continue;
            };
            if all {
                Self::repeat_slow(book, &mut self.revision);
            }
            book.say(module, if all { 0 } else { told }, &mut orders);
        }
        // Whatever has a greater revision was said just now, or rides on the next restatement.
        self.hosts.get_mut(&id).expect("it was there just now").told = self.revision;
        if all || !orders.is_empty() {
            self.send(id, all, orders);
        }
        self.forget_withdrawn(&said);
    }

    fn send(&mut self, to: NodeId, all: bool, orders: Vec<Order>) {
        let orders = Orders { contact: self.me.clone(), all, orders };
        self.out.push_back(Envelope { to, message: Message::Orders(orders) });
    }

    /// Buy orders that have been unfilled for long are matched anew with each restatement.
    fn repeat_slow(book: &mut Book, revision: &mut u64) {
        for buy in &mut book.buys {
            if buy.wanted > 0 && buy.repeat_at.is_none() && !mutant::is(Mutant::UnfilledNotRepeated) {
                *revision += 1;
                buy.revision = *revision;
                buy.found = 0;
            }
        }
    }

    /// Drops the orders of these modules that were withdrawn, once every host that can be told was told.
    fn forget_withdrawn(&mut self, modules: &[String]) {
        let mut is_idle = false;
        for module in modules {
            let Some(book) = self.books.get_mut(module) else { continue };
            if book.hosts.iter().any(|id| self.hosts.get(id).is_some_and(|h| h.changed.contains(module))) {
                continue;
            }
            let before = book.sells.len() + book.buys.len();
            book.sells.retain(|sell| sell.free > 0);
            book.buys.retain(|buy| buy.wanted > 0);
            let after = book.sells.len() + book.buys.len();
            self.orders -= before - after;
            if after == 0 {
                self.books.remove(module);
                is_idle = true;
            }
        }
        if is_idle {
            self.forget_idle_hosts();
        }
    }

    fn on_match(&mut self, found: &Match) {
        let seller = &found.seller;
        let is_sound = seller.id != self.me.id
            && found.requirement.matches(&found.lot.version)
            && seller.address.len() <= TEXT_BYTES_MAX
            && seller.domain.len() <= TEXT_BYTES_MAX;
        let Some(book) = self.books.get_mut(&found.lot.module).filter(|_| is_sound) else { return };
        let Some(buy) = book.buys.iter_mut().find(|b| b.requirement == found.requirement) else { return };
        if found.revision > buy.revision || buy.wanted == 0 {
            return;
        }
        let quantity = match buy.new_of(found) {
            quantity if mutant::is(Mutant::DoublesCount) => quantity.max(found.quantity),
            // Who stands in line goes on looking for a slot that is free.
            quantity if found.in_line => quantity,
            quantity => quantity.min(buy.wanted - buy.found.min(buy.wanted)),
        };
        if quantity == 0 {
            return;
        }
        if !found.in_line {
            buy.found += quantity;
        }
        let found = Match { quantity, ..found.clone() };
        self.found.push_back(Found { module: found.lot.module.clone(), found });
    }
}

impl Book {
    /// What has a greater revision than the given one.
    fn say(&self, module: &str, told: u64, orders: &mut Vec<Order>) {
        let say = |terms: Terms, revision: u64, quantity: u32, in_line: bool| {
            // The whole of what there is needs no word of what there is not.
            let is_news = revision > told && (told > 0 || quantity > 0);
            is_news.then(|| Order { module: module.to_owned(), terms, revision, quantity, in_line })
        };
        let sells = self.sells.iter();
        orders
            .extend(sells.filter_map(|s| say(Terms::Sell(s.version.clone()), s.revision, s.free, s.in_line)));
        let buys = self.buys.iter();
        orders
            .extend(buys.filter_map(|b| say(Terms::Buy(b.requirement.clone()), b.revision, b.wanted, false)));
    }
}
