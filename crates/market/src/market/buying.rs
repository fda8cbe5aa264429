//! What a node buys: tokens of sellers, for calls that find no slot here.
//!
//! ```text
//! node   -> buying: demand, choose, settled      buying -> node:   lost calls
//! broker -> buying: found                        buying -> broker: shortage
//! seller -> buying: grant                        buying -> seller: claim
//! ```
//!
//! A shortage becomes a buy order. Who is found gets a channel, which says how many slots it wants in all: as many as were
//! in use at once lately, and its share of what waits. So a caller that comes again and again finds a token that is there
//! already, and a busy channel has nothing to say. Where tokens are wanted back, others wait: then only what waits is claimed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bourse_wire::time::Mono;
use semver::VersionReq;

use crate::agenda::Agenda;
use crate::balancer::Balancer;
use crate::channel::{self, Buying};
use crate::message::{Claim, Grant, Match};
use crate::name::{Contact, Horizon, Lot, NodeId};
use crate::times::Times;

/// How long the number of slots in use at once is remembered, at least; twice that at most.
const PEAK_KEPT: Duration = Duration::from_secs(1);
/// Nothing waits any more: the order is withdrawn after this, unless something waits again.
const DEMAND_KEPT: Duration = Duration::from_millis(250);
/// A call that waits stands in line at so many sellers, and at those that an exchange has named since it began to wait. At all
/// of them would cost a claim for each and every call, however many there are.
const LINES_PER_CALL: usize = 4;
/// Most channels of one module.
pub const SELLERS_MAX: usize = 4_096;

/// Permission to send a seller one call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    /// Who sells.
    pub seller: NodeId,
    /// What.
    pub lot: Lot,
    /// Which life of the channel.
    pub epoch: u64,
    /// The call's number on it.
    pub seq: u64,
}

/// Calls that will get no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Who had them.
    pub seller: NodeId,
    /// What was bought.
    pub lot: Lot,
    /// Which life of the channel.
    pub epoch: u64,
    /// Their numbers on it.
    pub seqs: Vec<u64>,
    /// Whether they may have begun. If not, they never will.
    pub begun: bool,
}

#[derive(Debug)]
struct Channel {
    seller: Contact,
    lot: Lot,
    buying: Buying,
    open: u32,
    /// Most that were open at once, in this second and the one before.
    peaks: [u32; 2],
    peak_at: Mono,
    /// What an exchange has said that there is, until the seller itself has said something.
    hint: u32,
    used: Mono,
}

#[derive(Debug)]
struct Module {
    balancer: Balancer<u64>,
    channels: BTreeSet<u64>,
    /// Those that the balancer knows: also sellers whose channels have ended, since their failures count.
    known: BTreeSet<u64>,
    /// By requirement, as text.
    demands: BTreeMap<String, Demand>,
    /// The channel that is the next to be asked.
    turn: u64,
}

#[derive(Debug)]
struct Demand {
    requirement: VersionReq,
    /// How many calls wait, rounded up.
    waiting: u32,
    /// What was ordered.
    ordered: u32,
    /// Since when nothing waits.
    calm_since: Option<Mono>,
    /// The channels that are asked for slots.
    lines: BTreeSet<u64>,
}

impl Demand {
    fn fits(&self, lot: &Lot) -> bool {
        self.waiting > 0 && self.requirement.matches(&lot.version)
    }

    /// How many lines those who wait stand in, if there are as many.
    fn lines_wanted(&self) -> usize {
        (self.waiting as usize).saturating_mul(LINES_PER_CALL)
    }

    /// What is asked for on a channel.
    fn share(&self, id: u64) -> u32 {
        match self.lines.contains(&id) {
            true => self.waiting.div_ceil(u32::try_from(self.lines.len()).unwrap_or(u32::MAX)),
            false => 0,
        }
    }
}

/// The buying side of a node.
#[derive(Debug)]
pub(crate) struct Desk {
    times: Arc<Times>,
    me: Contact,
    seed: u64,
    modules: BTreeMap<String, Module>,
    channels: BTreeMap<u64, Channel>,
    /// The number of each seller's channel. It stays the same over their lives, so that failures are remembered.
    ids: BTreeMap<(NodeId, Lot), u64>,
    next_id: u64,
    next_epoch: u64,
    agenda: Agenda<u64>,
    calm: Agenda<String>,
    touched: BTreeSet<u64>,
    /// Modules whose demand has changed.
    unsettled: BTreeSet<String>,
    claims: Vec<(NodeId, Claim)>,
    orders: Vec<(String, VersionReq, u32)>,
    lost: Vec<Lost>,
}

impl Desk {
    pub(crate) fn new(times: Arc<Times>, me: Contact, seed: u64) -> Self {
        let me_incarnation = me.incarnation.0;
        Self {
            times,
            me,
            seed,
            modules: BTreeMap::new(),
            channels: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_id: 1,
            // Not where another life of this node began: what was said to that one can't be taken for something said to
            // this one.
            next_epoch: (me_incarnation >> 16).max(1),
            agenda: Agenda::new(),
            calm: Agenda::new(),
            touched: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            claims: Vec::new(),
            orders: Vec::new(),
            lost: Vec::new(),
        }
    }

    // ------------------------------------------------------------ the node

    /// So many calls wait that found no token.
    pub(crate) fn demand(&mut self, now: Mono, module: &str, requirement: &VersionReq, waiting: u32) {
        let known = self.modules.contains_key(module);
        if !known && waiting == 0 {
            return;
        }
        let entry = self.module(module);
        let text = requirement.to_string();
        let demand = entry.demands.entry(text).or_insert_with(|| Demand {
            requirement: requirement.clone(),
            waiting: 0,
            ordered: 0,
            calm_since: None,
            lines: BTreeSet::new(),
        });
        // In steps, so that neither orders nor claims change with every call.
        let waiting = match waiting {
            0 => 0,
            some => some.min(crate::times::QUANTITY_MAX / 2).next_power_of_two(),
        };
        if demand.waiting == waiting && (waiting > 0 || demand.ordered == 0 || demand.calm_since.is_some()) {
            return;
        }
        if waiting < demand.waiting {
            demand.waiting = waiting;
            while demand.lines.len() > demand.lines_wanted() {
                demand.lines.pop_last();
            }
        }
        demand.waiting = waiting;
        demand.calm_since = (waiting == 0).then_some(now);
        if waiting == 0 {
            self.calm.by(&module.to_owned(), now + DEMAND_KEPT);
        }
        self.unsettled.insert(module.to_owned());
    }

    /// A token for a call, if there is one. It is spent.
    pub(crate) fn choose(
        &mut self,
        now: Mono,
        module: &str,
        requirement: &VersionReq,
        farthest: Horizon,
    ) -> Option<Token> {
        let entry = self.modules.get_mut(module)?;
        let id = entry.balancer.choose(now, requirement, farthest)?;
        let channel = self.channels.get_mut(&id).expect("a seller that has given tokens has a channel");
        let seq = channel.buying.spend(now).expect("the balancer knows how many tokens there are");
        channel.open += 1;
        channel.used = now;
        channel.peaks[0] = channel.peaks[0].max(channel.open);
        entry.balancer.set_tokens(id, channel.buying.held());
        self.touched.insert(id);
        Some(Token {
            seller: channel.seller.id,
            lot: channel.lot.clone(),
            epoch: channel.buying.epoch(),
            seq,
        })
    }

    /// A call has been answered. False if it was not open: its answer is not heard.
    pub(crate) fn settled(
        &mut self,
        now: Mono,
        seller: NodeId,
        lot: &Lot,
        epoch: u64,
        seq: u64,
        worked: bool,
    ) -> bool {
        let Some(id) = self.ids.get(&(seller, lot.clone())).copied() else { return false };
        let Some(channel) = self.channels.get_mut(&id).filter(|c| c.buying.epoch() == epoch) else {
            return false;
        };
        if !channel.buying.settle(now, seq) {
            return false;
        }
        channel.open -= 1;
        channel.used = now;
        let balancer = &mut self.modules.get_mut(&lot.module).expect("a channel's module is known").balancer;
        if worked {
            balancer.worked(id);
        } else {
            balancer.failed(now, id);
            if let Some(at) = balancer.poll_timeout() {
                self.calm.by(&lot.module, at);
            }
        }
        self.touched.insert(id);
        true
    }

    /// What is short of a module, by requirement.
    pub(crate) fn demanded(&self, module: &str) -> impl Iterator<Item = &VersionReq> {
        let demands = self.modules.get(module).map(|m| &m.demands);
        demands.into_iter().flat_map(BTreeMap::values).filter(|d| d.waiting > 0).map(|d| &d.requirement)
    }

    /// What is short: module, requirement, calls that wait.
    pub(crate) fn short(&self) -> impl Iterator<Item = (&str, &VersionReq, u32)> {
        self.modules.iter().flat_map(|(name, m)| {
            let waiting = m.demands.values().filter(|d| d.waiting > 0);
            waiting.map(move |d| (name.as_str(), &d.requirement, d.waiting))
        })
    }

    /// Tokens that could be spent at once.
    pub(crate) fn tokens(&self, module: &str, requirement: &VersionReq) -> u32 {
        self.modules.get(module).map_or(0, |m| m.balancer.tokens(requirement))
    }

    fn module(&mut self, name: &str) -> &mut Module {
        let (times, seed) = (&self.times, self.seed);
        self.modules.entry(name.to_owned()).or_insert_with(|| Module {
            balancer: Balancer::new(
                times.clone(),
                crate::placing::weight(name.as_bytes(), NodeId([0; 32])) ^ seed,
            ),
            channels: BTreeSet::new(),
            known: BTreeSet::new(),
            demands: BTreeMap::new(),
            turn: 0,
        })
    }

    // ------------------------------------------------------------ sellers

    /// Somebody sells what is wanted. Whether there is a channel with it from now on.
    pub(crate) fn on_found(&mut self, now: Mono, module: &str, found: &Match) -> bool {
        let Some(entry) = self.modules.get(module) else { return false };
        let wanted = entry.demands.values().any(|d| d.fits(&found.lot));
        if !wanted || found.lot.module != module || found.seller.id == self.me.id {
            return false;
        }
        let key = (found.seller.id, found.lot.clone());
        let known = self.ids.get(&key).copied();
        let id = if let Some((id, channel)) = known.and_then(|id| Some((id, self.channels.get_mut(&id)?))) {
            channel.hint = channel.hint.max(found.quantity);
            id
        } else {
            if entry.channels.len() >= SELLERS_MAX {
                return false;
            }
            let id = known.unwrap_or_else(|| {
                self.next_id += 1;
                self.ids.insert(key, self.next_id);
                self.next_id
            });
            if entry.balancer.is_open(now, id) {
                return false; // It has failed lately.
            }
            let epoch = self.next_epoch;
            self.next_epoch += 1;
            self.channels.insert(
                id,
                Channel {
                    seller: found.seller.clone(),
                    lot: found.lot.clone(),
                    buying: Buying::new(self.times.clone(), found.lot.clone(), epoch),
                    open: 0,
                    peaks: [0; 2],
                    peak_at: now,
                    hint: found.quantity,
                    used: now,
                },
            );
            let horizon = self.horizon(&found.seller);
            let entry = self.module(module);
            entry.channels.insert(id);
            if entry.known.insert(id) {
                entry.balancer.add(id, &found.lot.version, horizon);
            }
            self.agenda.by(&id, now + PEAK_KEPT);
            id
        };
        for demand in self.module(module).demands.values_mut().filter(|d| d.fits(&found.lot)) {
            demand.lines.insert(id);
        }
        self.unsettled.insert(module.to_owned());
        true
    }

    /// How far away a node is.
    fn horizon(&self, other: &Contact) -> Horizon {
        if other.domain == self.me.domain { Horizon::Machine } else { Horizon::Network }
    }

    /// A seller says how a channel stands.
    pub(crate) fn on_grant(&mut self, now: Mono, seller: NodeId, grant: &Grant) {
        let id = self.ids.get(&(seller, grant.lot.clone())).copied();
        let channel = id.and_then(|id| Some((id, self.channels.get_mut(&id)?)));
        let Some((id, channel)) = channel.filter(|(_, c)| c.buying.epoch() == grant.epoch) else {
            if !grant.closed {
                self.claims.push((seller, channel::not_bought(grant)));
            }
            return;
        };
        channel.hint = 0;
        let revoked = channel.buying.revoked();
        let void = channel.buying.on_grant(now, grant);
        channel.open -= u32::try_from(void.len()).expect("no more calls are void than are open");
        if channel.buying.revoked() > revoked {
            // Others wait: what would only be kept for calls to come is theirs.
            channel.peaks = [channel.open; 2];
        }
        let closed = channel.buying.is_closed();
        self.touched.insert(id);
        self.lose(id, void, false);
        if closed {
            self.say(id);
            self.end(now, id, false);
        }
    }

    /// A seller can be reached, or can't any more.
    pub(crate) fn on_link(&mut self, now: Mono, seller: NodeId, up: bool) {
        let ids: Vec<u64> = self.of_seller(seller).collect();
        for id in ids {
            if up {
                self.touched.insert(id);
            } else {
                // Who has lost nothing there has learnt nothing of the seller: when it is dialed again is the links' affair.
                let failed = self.channels[&id].open > 0;
                self.end(now, id, failed);
            }
        }
    }

    /// Whether there is a channel with this seller.
    pub(crate) fn has_channels(&self, seller: NodeId) -> bool {
        self.of_seller(seller).next().is_some()
    }

    fn of_seller(&self, seller: NodeId) -> impl Iterator<Item = u64> {
        let first = (seller, Lot { module: String::new(), version: semver::Version::new(0, 0, 0) });
        let of_seller = self.ids.range(first..).take_while(move |((s, _), _)| *s == seller);
        of_seller.map(|(_, id)| *id).filter(|id| self.channels.contains_key(id))
    }

    fn lose(&mut self, id: u64, seqs: Vec<u64>, begun: bool) {
        if seqs.is_empty() {
            return;
        }
        let channel = &self.channels[&id];
        self.lost.push(Lost {
            seller: channel.seller.id,
            lot: channel.lot.clone(),
            epoch: channel.buying.epoch(),
            seqs,
            begun,
        });
    }

    /// A channel is over. What is open on it is lost.
    fn end(&mut self, now: Mono, id: u64, failed: bool) {
        let open: Vec<u64> = self.channels[&id].buying.open().collect();
        self.lose(id, open, true);
        let channel = self.channels.remove(&id).expect("the caller has looked it up");
        self.agenda.forget(&id);
        self.touched.remove(&id);
        let module = channel.lot.module;
        let entry = self.modules.get_mut(&module).expect("a channel's module is known");
        entry.channels.remove(&id);
        entry.demands.values_mut().for_each(|demand| _ = demand.lines.remove(&id));
        if failed {
            entry.balancer.failed(now, id);
        }
        entry.balancer.set_tokens(id, 0);
        if entry.known.len() > SELLERS_MAX {
            entry.known.remove(&id);
            entry.balancer.remove(id);
            self.ids.retain(|_, known| *known != id);
        }
        if let Some(at) = entry.balancer.poll_timeout() {
            self.calm.by(&module, at);
        }
        self.unsettled.insert(module);
    }

    // ------------------------------------------------------------ going on

    /// Says what follows from what has changed.
    pub(crate) fn pump(&mut self, now: Mono) {
        while let Some(module) = self.unsettled.pop_first() {
            self.order(now, &module);
            self.line_up(now, &module);
            self.touched.extend(self.modules.get(&module).into_iter().flat_map(|m| &m.channels));
        }
        while let Some(id) = self.touched.pop_first() {
            self.claim(now, id);
        }
    }

    /// Orders what is short.
    fn order(&mut self, now: Mono, module: &str) {
        let entry = self.modules.get_mut(module).expect("an unsettled module is known");
        for demand in entry.demands.values_mut() {
            let calm = demand.calm_since.is_some_and(|since| now.since(since) >= DEMAND_KEPT);
            let wanted = match demand.waiting {
                0 if calm => 0,
                0 => demand.ordered,
                waiting => waiting,
            };
            if let Some(since) = demand.calm_since.filter(|_| !calm) {
                // This may have been rung for another reason, and earlier.
                self.calm.by(&module.to_owned(), since + DEMAND_KEPT);
            }
            if wanted != demand.ordered {
                demand.ordered = wanted;
                self.orders.push((module.to_owned(), demand.requirement.clone(), wanted));
            }
        }
        entry.demands.retain(|_, demand| demand.waiting > 0 || demand.ordered > 0);
        if entry.demands.is_empty() && entry.channels.is_empty() {
            for id in &entry.known {
                self.ids.retain(|_, known| known != id);
            }
            self.modules.remove(module);
        }
    }

    /// Sees to it that what waits stands in enough lines.
    fn line_up(&mut self, now: Mono, module: &str) {
        let Some(entry) = self.modules.get_mut(module) else { return };
        let Module { balancer, channels, demands, turn, .. } = entry;
        for demand in demands.values_mut() {
            let missing = demand.lines_wanted().min(channels.len()).saturating_sub(demand.lines.len());
            if missing == 0 {
                continue;
            }
            let in_turn = channels.range(*turn..).chain(channels.range(..*turn)).copied();
            let is_fit = |id: &u64| demand.fits(&self.channels[id].lot) && !balancer.is_open(now, *id);
            let more: Vec<u64> =
                in_turn.filter(|id| !demand.lines.contains(id) && is_fit(id)).take(missing).collect();
            *turn = more.last().map_or(*turn, |last| last + 1);
            demand.lines.extend(more);
        }
    }

    /// Says how many slots a channel wants, all in all.
    fn claim(&mut self, now: Mono, id: u64) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let entry = self.modules.get_mut(&channel.lot.module).expect("a channel's module is known");
        let fitting = entry.demands.values().filter(|d| d.fits(&channel.lot));
        let (waiting, share) = fitting.fold((0, 0), |(w, s), d| (w + d.waiting, s + d.share(id)));
        let share = share.max(channel.hint.min(waiting));
        let peak = channel.peaks[0].max(channel.peaks[1]);
        // A seller that is left out would hold slots for nobody.
        let left_out = entry.balancer.is_open(now, id);
        channel.buying.set_want(now, if left_out { 0 } else { peak.saturating_add(share) });
        entry.balancer.set_tokens(id, channel.buying.held());
        if let Some(at) = self.say(id) {
            self.agenda.by(&id, at);
        }
    }

    /// Says what a channel has to say. When to look at it next.
    fn say(&mut self, id: u64) -> Option<Mono> {
        let channel = self.channels.get_mut(&id)?;
        if let Some(claim) = channel.buying.poll() {
            self.claims.push((channel.seller.id, claim));
        }
        let peak = channel.peak_at + PEAK_KEPT;
        Some(channel.buying.poll_timeout().map_or(peak, |at| at.min(peak)))
    }

    pub(crate) fn handle_timeout(&mut self, now: Mono) {
        while let Some(id) = self.agenda.pop_due(now) {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            channel.buying.handle_timeout(now);
            if now.since(channel.peak_at) >= PEAK_KEPT {
                channel.peaks = [channel.open, channel.peaks[0]];
                channel.peak_at = now;
            }
            let idle = channel.open == 0 && now.since(channel.used) >= self.times.channel_idle;
            self.touched.insert(id);
            if idle {
                channel.buying.close(now);
                self.say(id);
                self.end(now, id, false);
            }
        }
        while let Some(module) = self.calm.pop_due(now) {
            if let Some(entry) = self.modules.get_mut(&module) {
                entry.balancer.handle_timeout(now);
                self.unsettled.insert(module);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        [self.agenda.next(), self.calm.next()].into_iter().flatten().min()
    }

    /// What is to be said to sellers.
    pub(crate) fn claims(&mut self) -> Vec<(NodeId, Claim)> {
        std::mem::take(&mut self.claims)
    }

    /// Orders that have changed.
    pub(crate) fn orders(&mut self) -> Vec<(String, VersionReq, u32)> {
        std::mem::take(&mut self.orders)
    }

    /// Calls that get no answer.
    pub(crate) fn lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// The channels, for people: seller, lot, tokens, open calls.
    pub(crate) fn view(&self) -> impl Iterator<Item = (&Contact, &Lot, u32, u32)> {
        self.channels.values().map(|c| (&c.seller, &c.lot, c.buying.held(), c.open))
    }

    pub(crate) fn check_invariants(&self) {
        for (id, channel) in &self.channels {
            let open = channel.buying.open().count();
            assert_eq!(open, channel.open as usize, "open calls are counted");
            let module = self.modules.get(&channel.lot.module);
            assert!(module.is_some_and(|m| m.channels.contains(id)), "a channel is its module's");
            channel.buying.check_invariants();
        }
    }
}

#[cfg(test)]
mod tests;
