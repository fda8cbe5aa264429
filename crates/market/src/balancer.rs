//! Which seller a call goes to: a weighted random choice among the channels of one module, by the tokens held.
//!
//! ```text
//! channel -> balancer: holds so many tokens        node -> balancer: choose for this requirement, no farther than that
//! answer -> balancer: worked, failed               balancer -> node: this channel
//! ```
//!
//! The nearest horizon in which a fitting version has a token; there, any fitting version alike, each channel as likely as
//! its part of the tokens. A channel without tokens is never chosen. A seller that has failed is left out for a while
//! (`balancer/breaker.rs`). Nothing is kept of a choice: who chooses spends the token, and says how many are left.
//!
//! Channels of the same version and horizon are a group with a tree of weights; which groups fit a requirement is looked
//! up among the last requirements that were asked for. So a choice is O(groups + log channels), and allocates nothing.

mod breaker;
mod tree;
mod waiting;

pub use waiting::{Place, Waiting};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use bourse_wire::time::Mono;
use semver::{Version, VersionReq};

use crate::chance::Chance;
use crate::mutant::{self, Mutant};
use crate::name::Horizon;
use crate::times::Times;
use breaker::Breaker;
use tree::Tree;

/// The requirements for which it is remembered what fits them. More than that share these places.
const RESOLVED_MAX: usize = 16;

/// The channels of one module, and how many tokens each holds.
#[derive(Clone, Debug)]
pub struct Balancer<K> {
    times: Arc<Times>,
    chance: Chance,
    seats: BTreeMap<K, usize>,
    /// The channels, by seat. Empty ones are used again.
    channels: Vec<Option<Channel<K>>>,
    empty: Vec<usize>,
    groups: Vec<Group>,
    resolved: Vec<Resolved>,
    /// When a breaker opens half, and whose seat it is.
    pauses: BTreeSet<(Mono, usize)>,
}

#[derive(Clone, Debug)]
struct Channel<K> {
    key: K,
    group: usize,
    place: usize,
    tokens: u32,
    breaker: Breaker,
}

/// The channels of one version and horizon.
#[derive(Clone, Debug)]
struct Group {
    version: Version,
    horizon: Horizon,
    weights: Tree,
    /// Whose seat is at each place of the tree.
    seats: Vec<usize>,
    empty: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Resolved {
    requirement: VersionReq,
    /// The groups that fit, the nearest first.
    groups: Vec<usize>,
}

impl<K: Ord + Copy + Debug> Balancer<K> {
    /// One with no channels.
    pub fn new(times: Arc<Times>, seed: u64) -> Self {
        Self {
            times,
            chance: Chance::new(seed),
            seats: BTreeMap::new(),
            channels: Vec::new(),
            empty: Vec::new(),
            groups: Vec::new(),
            resolved: Vec::new(),
            pauses: BTreeSet::new(),
        }
    }

    /// A channel, with no tokens yet. One that is there is another one from now on.
    pub fn add(&mut self, k: K, version: &Version, horizon: Horizon) {
        self.remove(k);
        let seat = self.empty.pop().unwrap_or_else(|| {
            self.channels.push(None);
            self.channels.len() - 1
        });
        let group = self.group(version, horizon);
        let place = self.groups[group].empty.pop().unwrap_or_else(|| {
            self.groups[group].seats.push(seat);
            self.groups[group].seats.len() - 1
        });
        self.groups[group].seats[place] = seat;
        self.channels[seat] = Some(Channel { key: k, group, place, tokens: 0, breaker: Breaker::Closed });
        self.seats.insert(k, seat);
    }

    /// The channel is gone.
    pub fn remove(&mut self, k: K) {
        let Some(seat) = self.seats.remove(&k) else { return };
        if mutant::is(Mutant::RemovedIsChosen) {
            return;
        }
        self.change(seat, |channel| (channel.tokens, channel.breaker) = (0, Breaker::Closed));
        let channel = self.channels[seat].take().expect("a seat that has a key has a channel");
        self.groups[channel.group].empty.push(channel.place);
        self.empty.push(seat);
    }

    /// The channel holds so many tokens now. Of one that is not there nothing is kept.
    pub fn set_tokens(&mut self, k: K, tokens: u32) {
        if let Some(seat) = self.seats.get(&k) {
            self.change(*seat, |channel| channel.tokens = tokens);
        }
    }

    /// A channel for a call that runs on such versions, and travels no farther than that.
    pub fn choose(&mut self, now: Mono, requirement: &VersionReq, farthest: Horizon) -> Option<K> {
        self.pass(now);
        let at = self.resolve(requirement);
        let mut groups = self.resolved[at].groups.as_slice();
        while let Some(first) = groups.first() {
            let horizon = self.groups[*first].horizon;
            if horizon > farthest {
                return None;
            }
            let alike = groups.iter().take_while(|group| self.groups[**group].horizon == horizon).count();
            let (near, rest) = groups.split_at(alike);
            groups = rest;
            let total = near.iter().map(|group| self.groups[*group].weights.total()).sum();
            if total == 0 {
                continue;
            }
            let mut nth = self.chance.below(total);
            for group in near.iter().map(|group| &self.groups[*group]) {
                if nth < group.weights.total() {
                    let seat = group.seats[group.weights.find(nth)];
                    return Some(self.chosen(now, seat));
                }
                nth -= group.weights.total();
            }
        }
        None
    }

    /// A call that went there has failed for the seller's sake.
    pub fn failed(&mut self, now: Mono, k: K) {
        let Some(seat) = self.seats.get(&k).copied() else { return };
        if mutant::is(Mutant::BreakerNeverOpens) {
            return;
        }
        let times = Arc::clone(&self.times);
        self.change(seat, |channel| channel.breaker = channel.breaker.later(now).failed(now, &times));
    }

    /// A call that went there was answered.
    pub fn worked(&mut self, k: K) {
        let Some(seat) = self.seats.get(&k).copied() else { return };
        if self.channel(seat).breaker != Breaker::Closed && !mutant::is(Mutant::BreakerNeverCloses) {
            self.change(seat, |channel| channel.breaker = Breaker::Closed);
        }
    }

    /// The tokens held with which such a call can be sent: those of sellers that are left out do not count.
    pub fn tokens(&self, requirement: &VersionReq) -> u32 {
        let total =
            |groups: &mut dyn Iterator<Item = &Group>| groups.map(|group| group.weights.total()).sum();
        let total: u64 = match self.resolved.iter().find(|resolved| resolved.requirement == *requirement) {
            Some(resolved) => total(&mut resolved.groups.iter().map(|group| &self.groups[*group])),
            None => total(&mut self.groups.iter().filter(|group| requirement.matches(&group.version))),
        };
        u32::try_from(total).unwrap_or(u32::MAX)
    }

    /// Whether the channel's seller is left out.
    pub fn is_open(&self, now: Mono, k: K) -> bool {
        self.seats.get(&k).is_some_and(|seat| !self.channel(*seat).breaker.later(now).lets_through())
    }

    /// When a seller that is left out may be tried: choosing may succeed then, though it does not now.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.pauses.first().map(|(until, _)| *until)
    }

    /// Sellers whose pauses are over can be tried. [`choose`](Self::choose) sees to it as well.
    pub fn handle_timeout(&mut self, now: Mono) {
        self.pass(now);
    }

    /// What must be true whatever happens.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check_invariants(&self) {
        let mut totals = vec![0_u64; self.groups.len()];
        for (k, seat) in &self.seats {
            let channel = self.channel(*seat);
            assert_eq!(channel.key, *k, "a channel sits where it is looked for");
            assert_eq!(self.groups[channel.group].seats[channel.place], *seat, "and where it is chosen");
            totals[channel.group] += u64::from(channel.weight());
            let pauses = self.pauses.iter().any(|(_, paused)| paused == seat);
            assert_eq!(pauses, !channel.breaker.lets_through(), "who is left out comes back");
        }
        let weights: Vec<_> = self.groups.iter().map(|group| group.weights.total()).collect();
        assert_eq!(weights, totals, "the weights are those of the channels that are there");
    }

    fn channel(&self, seat: usize) -> &Channel<K> {
        self.channels[seat].as_ref().expect("a seat that has a key has a channel")
    }

    fn chosen(&mut self, now: Mono, seat: usize) -> K {
        let channel = self.channel(seat);
        let key = channel.key;
        if channel.breaker != Breaker::Closed {
            self.change(seat, |channel| channel.breaker = channel.breaker.chosen(now));
        }
        key
    }

    /// Changes a channel, and keeps its weight and its pause as it is.
    fn change(&mut self, seat: usize, change: impl FnOnce(&mut Channel<K>)) {
        let channel = self.channels[seat].as_mut().expect("a seat that has a key has a channel");
        let before = (channel.weight(), channel.breaker);
        change(channel);
        let after = (channel.weight(), channel.breaker);
        let (group, place) = (channel.group, channel.place);
        if before.0 != after.0 {
            self.groups[group].weights.set(place, after.0);
        }
        if before.1 != after.1 {
            if let Breaker::Open { until, .. } = before.1 {
                self.pauses.remove(&(until, seat));
            }
            if let Breaker::Open { until, .. } = after.1 {
                self.pauses.insert((until, seat));
            }
        }
    }

    /// Those whose pause is over can be chosen again.
    fn pass(&mut self, now: Mono) {
        while let Some((until, seat)) = self.pauses.first().copied()
            && until <= now
            && !mutant::is(Mutant::BreakerNeverCloses)
        {
            self.change(seat, |channel| channel.breaker = channel.breaker.later(now));
        }
    }

    /// The group of a version and horizon. One that nobody is in any more becomes another one.
    fn group(&mut self, version: &Version, horizon: Horizon) -> usize {
        let same = |group: &Group| group.version == *version && group.horizon == horizon;
        if let Some(at) = self.groups.iter().position(same) {
            return at;
        }
        self.resolved.clear();
        let version = version.clone();
        if let Some(at) = self.groups.iter().position(|group| group.empty.len() == group.seats.len()) {
            (self.groups[at].version, self.groups[at].horizon) = (version, horizon);
            return at;
        }
        let weights = Tree::default();
        self.groups.push(Group { version, horizon, weights, seats: Vec::new(), empty: Vec::new() });
        self.groups.len() - 1
    }

    /// Where the groups that fit are listed.
    fn resolve(&mut self, requirement: &VersionReq) -> usize {
        match self.resolved.iter().position(|resolved| resolved.requirement == *requirement) {
            Some(0) => 0,
            Some(at) => {
                // What is asked for often comes to stand in front.
                self.resolved.swap(at - 1, at);
                at - 1
            }
            None => {
                let fits = |at: &usize| requirement.matches(&self.groups[*at].version);
                let mut groups: Vec<_> = (0..self.groups.len()).filter(fits).collect();
                groups.sort_by_key(|at| self.groups[*at].horizon);
                self.resolved.truncate(RESOLVED_MAX - 1);
                self.resolved.push(Resolved { requirement: requirement.clone(), groups });
                self.resolved.len() - 1
            }
        }
    }
}

impl<K> Channel<K> {
    fn weight(&self) -> u32 {
        if self.breaker.lets_through() { self.tokens } else { 0 }
    }
}
