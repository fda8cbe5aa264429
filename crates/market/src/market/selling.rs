//! What a node sells: its slots, to whoever has channels with it, and to its own calls.
//!
//! ```text
//! buyer -> selling: claim          selling -> buyer: grant
//! node  -> selling: take, give back, admit, finish
//! ```
//!
//! One listener has all slots. The node's own calls are one claimant of it, each channel is another. Tokens that lie idle at a
//! buyer are taken back when somebody else wants a slot and there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bourse_wire::time::Mono;

use crate::agenda::Agenda;
use crate::channel::{self, Admission, Selling};
use crate::listener::Listener;
use crate::message::{Claim, Grant};
use crate::name::{Lot, NodeId};
use crate::times::Times;

/// Who has slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claimant {
    /// The node's own calls.
    Own,
    /// A channel, by its number here.
    Channel(u64),
}

/// How long a token may lie idle when a call of this node itself waits for a slot.
const IDLE_FOR_OWN: Duration = Duration::from_millis(5);

/// A call of another node that has a slot here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    channel: u64,
    epoch: u64,
    seq: u64,
}

/// What becomes of a call that came under a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admitted {
    /// Run it: it has a slot until the lease is released.
    Run(Lease),
    /// It came before.
    Repeated,
    /// Never run it.
    Refused,
}

/// Most channels that one buyer may have here.
pub const CHANNELS_MAX: usize = 4_096;

#[derive(Debug)]
struct Channel {
    buyer: NodeId,
    lot: Lot,
    /// The newest epoch last. Those before it have ended and wait for their calls.
    ends: Vec<Selling>,
    /// Calls that run, by epoch and number, whose slots somebody else may have meanwhile.
    parked: BTreeSet<(u64, u64)>,
    /// Of the slots that come back, so many came back before.
    lent: u32,
    /// Tokens that are out and not used, when it was last looked at.
    unused: u32,
}

/// The selling side of a node.
#[derive(Debug)]
pub(crate) struct Desk {
    times: Arc<Times>,
    listener: Listener<Claimant>,
    /// What can be run here, and how many slots of it are sold at most.
    offers: BTreeMap<Lot, u32>,
    channels: BTreeMap<u64, Channel>,
    ids: BTreeMap<(NodeId, Lot), u64>,
    next_id: u64,
    agenda: Agenda<u64>,
    /// Channels of which something may have to be said, or slots collected.
    touched: BTreeSet<u64>,
    /// Tokens that are out and not used, of all channels.
    unused: u32,
    /// The node's own calls that wait.
    own_wanted: u32,
    /// When to look for idle tokens again.
    revoke_at: Option<Mono>,
    grants: Vec<(NodeId, Grant)>,
    unanswered: Vec<(NodeId, Lot, u64, u64)>,
}

impl Desk {
    pub(crate) fn new(times: Arc<Times>, slots: u32) -> Self {
        Self {
            times,
            listener: Listener::new(slots),
            offers: BTreeMap::new(),
            channels: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_id: 1,
            agenda: Agenda::new(),
            touched: BTreeSet::new(),
            unused: 0,
            own_wanted: 0,
            revoke_at: None,
            grants: Vec::new(),
            unanswered: Vec::new(),
        }
    }

    // ------------------------------------------------------------ the node's own calls

    /// Changes how many slots there are.
    pub(crate) fn resize(&mut self, slots: u32) {
        self.listener.resize(slots);
    }

    /// A slot for a call that goes before all others: one that has begun already.
    pub(crate) fn take_first(&mut self) -> bool {
        self.listener.take(&Claimant::Own)
    }

    /// A slot for a new call of this node, if it is its turn.
    pub(crate) fn take(&mut self, now: Mono) -> bool {
        if self.listener.free() == 0 {
            return false;
        }
        if !self.listener.is_wanted(&Claimant::Own) {
            return self.listener.take(&Claimant::Own);
        }
        self.listener.claim(now, &Claimant::Own, self.own_wanted.max(1));
        while let Some(claimant) = self.listener.next(now) {
            match claimant {
                Claimant::Own => return true,
                Claimant::Channel(id) => self.grant(now, id),
            }
        }
        false
    }

    /// So many calls of this node could begin if they had slots.
    pub(crate) fn want(&mut self, now: Mono, calls: u32) {
        if calls == 0 && self.own_wanted == 0 {
            return;
        }
        self.own_wanted = calls;
        self.listener.claim(now, &Claimant::Own, calls);
        if calls > 0 && self.listener.free() == 0 {
            self.revoke_by(now);
        }
    }

    /// A slot of this node's own calls is free.
    pub(crate) fn give_back(&mut self) {
        self.listener.give_back(&Claimant::Own);
    }

    pub(crate) fn slots(&self) -> u32 {
        self.listener.slots()
    }

    pub(crate) fn free(&self) -> u32 {
        self.listener.free()
    }

    /// Slots in which nothing runs: those that are free, and those of tokens that are not used.
    pub(crate) fn not_running(&self) -> u32 {
        self.listener.free().saturating_add(self.unused)
    }

    /// Slots of the node's own calls.
    pub(crate) fn own(&self) -> u32 {
        self.listener.held(&Claimant::Own)
    }

    // ------------------------------------------------------------ offers

    /// At most so many slots of a lot are sold; 0: it is sold no longer. Whether that is new.
    pub(crate) fn offer(&mut self, now: Mono, lot: &Lot, most: u32) -> bool {
        let before = match most {
            0 => self.offers.remove(lot),
            most => self.offers.insert(lot.clone(), most),
        };
        if most == 0 && before.is_some() {
            let of_lot = |(id, channel): (&u64, &Channel)| (channel.lot == *lot).then_some(*id);
            let ended: Vec<u64> = self.channels.iter().filter_map(of_lot).collect();
            for id in ended {
                self.close(now, id);
            }
        }
        before.unwrap_or(0) != most
    }

    pub(crate) fn offers(&self) -> impl Iterator<Item = (&Lot, u32)> {
        self.offers.iter().map(|(lot, most)| (lot, *most))
    }

    // ------------------------------------------------------------ channels

    /// A buyer says how it stands.
    pub(crate) fn on_claim(&mut self, now: Mono, buyer: NodeId, claim: &Claim) {
        let known = self.ids.get(&(buyer, claim.lot.clone())).copied();
        let newest = known.and_then(|id| self.channels[&id].ends.last()).map_or(0, Selling::epoch);
        // 0 is no life of a channel, whoever says so.
        if claim.epoch != newest || claim.epoch == 0 {
            let full = known.is_none() && self.of_buyer(buyer).count() >= CHANNELS_MAX;
            if claim.epoch < newest
                || claim.epoch == 0
                || !channel::begins(claim)
                || full
                || !self.offers.contains_key(&claim.lot)
            {
                self.grants.extend(channel::not_sold(claim).map(|grant| (buyer, grant)));
                return;
            }
            let id = known.unwrap_or_else(|| self.new_channel(buyer, &claim.lot));
            self.sever(now, id);
            let end = Selling::new(self.times.clone(), claim.lot.clone(), claim.epoch);
            self.channels.get_mut(&id).expect("it was put there above").ends.push(end);
        }
        let id = self.ids[&(buyer, claim.lot.clone())];
        let end = self.channels.get_mut(&id).and_then(|c| c.ends.last_mut());
        end.expect("a channel has an end until it is forgotten").on_claim(now, claim);
        self.touched.insert(id);
    }

    fn new_channel(&mut self, buyer: NodeId, lot: &Lot) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.ids.insert((buyer, lot.clone()), id);
        let (ends, parked) = (Vec::new(), BTreeSet::new());
        self.channels.insert(id, Channel { buyer, lot: lot.clone(), ends, parked, lent: 0, unused: 0 });
        id
    }

    /// A call came under a token.
    pub(crate) fn admit(&mut self, now: Mono, buyer: NodeId, lot: &Lot, epoch: u64, seq: u64) -> Admitted {
        let Some(id) = self.ids.get(&(buyer, lot.clone())).copied() else { return Admitted::Refused };
        let lease = Lease { channel: id, epoch, seq };
        let Some(end) = self.end(lease) else { return Admitted::Refused };
        let admission = end.admit(now, seq);
        self.touched.insert(id);
        match admission {
            Admission::New => Admitted::Run(lease),
            Admission::Repeated => Admitted::Repeated,
            Admission::Refused => Admitted::Refused,
        }
    }

    /// The instance that ran a call is free or dead.
    pub(crate) fn finish(&mut self, now: Mono, lease: Lease) {
        self.end(lease).expect("a channel stays as long as calls of it run").finish(now, lease.seq);
        let channel = self.channels.get_mut(&lease.channel).expect("it was found above");
        channel.lent += u32::from(channel.parked.remove(&(lease.epoch, lease.seq)));
        self.touched.insert(lease.channel);
    }

    /// A call that runs waits for others, and needs no slot meanwhile.
    pub(crate) fn park(&mut self, lease: Lease) {
        let channel =
            self.channels.get_mut(&lease.channel).expect("a channel stays as long as calls of it run");
        assert!(channel.parked.insert((lease.epoch, lease.seq)), "a call is parked once");
        self.listener.give_back(&Claimant::Channel(lease.channel));
    }

    /// A parked call may go on if there is a slot for it. Whether there is.
    pub(crate) fn unpark(&mut self, lease: Lease) -> bool {
        let taken = self.listener.take(&Claimant::Channel(lease.channel));
        if taken {
            let channel =
                self.channels.get_mut(&lease.channel).expect("a channel stays as long as calls of it run");
            assert!(channel.parked.remove(&(lease.epoch, lease.seq)), "who goes on was parked");
        }
        taken
    }

    /// A buyer can't be reached any more. The channels on which nobody waits now.
    pub(crate) fn buyer_gone(&mut self, now: Mono, buyer: NodeId) -> Vec<(Lot, u64)> {
        let ids: Vec<u64> = self.of_buyer(buyer).collect();
        let mut ended = Vec::new();
        for id in ids {
            self.sever(now, id);
            let channel = &self.channels[&id];
            ended.extend(channel.ends.last().map(|end| (channel.lot.clone(), end.epoch())));
            // Should it come back, that is another life of it, which may begin with the same numbers.
            self.ids.remove(&(buyer, channel.lot.clone()));
        }
        ended
    }

    /// Whether this buyer has a channel here.
    pub(crate) fn has_channels(&self, buyer: NodeId) -> bool {
        self.of_buyer(buyer).next().is_some()
    }

    fn of_buyer(&self, buyer: NodeId) -> impl Iterator<Item = u64> {
        let first = (buyer, Lot { module: String::new(), version: semver::Version::new(0, 0, 0) });
        self.ids.range(first..).take_while(move |((b, _), _)| *b == buyer).map(|(_, id)| *id)
    }

    fn end(&mut self, lease: Lease) -> Option<&mut Selling> {
        let ends = &mut self.channels.get_mut(&lease.channel)?.ends;
        ends.iter_mut().find(|end| end.epoch() == lease.epoch)
    }

    /// Nothing more is granted on a channel as it stands; what is open is still run.
    fn close(&mut self, now: Mono, id: u64) {
        let channel = self.channels.get_mut(&id).expect("whoever closes a channel has looked it up");
        if let Some(end) = channel.ends.last_mut() {
            end.close(now);
        }
        self.touched.insert(id);
    }

    /// Nobody is there any more to whom something could be said.
    fn sever(&mut self, now: Mono, id: u64) {
        let channel = self.channels.get_mut(&id).expect("whoever severs a channel has looked it up");
        if let Some(end) = channel.ends.last_mut() {
            end.sever(now);
        }
        self.touched.insert(id);
    }

    fn grant(&mut self, now: Mono, id: u64) {
        let channel = self.channels.get_mut(&id).expect("a claimant is forgotten with its channel");
        channel.ends.last_mut().expect("a channel has an end until it is forgotten").grant(now);
        self.touched.insert(id);
    }

    // ------------------------------------------------------------ going on

    /// Collects what came back, grants what is free, asks for what lies idle.
    pub(crate) fn pump(&mut self, now: Mono) {
        // Whoever has something to say says it once all is settled: what came back, and what was granted, in one message.
        let mut speaking = BTreeSet::new();
        loop {
            while let Some(id) = self.touched.pop_first() {
                self.collect(now, id);
                speaking.insert(id);
            }
            let Some(claimant) = self.next_channel(now) else { break };
            self.grant(now, claimant);
        }
        speaking.into_iter().for_each(|id| self.say(id));
        if self.listener.free() == 0 && self.listener.wanted() > 0 {
            self.revoke_by(now);
        }
    }

    /// The channel that a free slot goes to, unless it is the turn of the node's own calls.
    fn next_channel(&mut self, now: Mono) -> Option<u64> {
        match self.listener.first()? {
            Claimant::Channel(_) => match self.listener.next(now)? {
                Claimant::Channel(id) => Some(id),
                Claimant::Own => unreachable!("who is first is next"),
            },
            Claimant::Own => None,
        }
    }

    /// Takes back what has come back, and claims what is wanted.
    fn collect(&mut self, now: Mono, id: u64) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let claimant = Claimant::Channel(id);
        for end in &mut channel.ends {
            for _ in 0..end.returned() {
                match channel.lent {
                    0 => self.listener.give_back(&claimant),
                    _ => channel.lent -= 1,
                }
            }
        }
        let unused = channel.ends.iter().map(Selling::unused).sum();
        self.unused = self.unused + unused - std::mem::replace(&mut channel.unused, unused);
        let most = self.offers.get(&channel.lot).copied().unwrap_or(0);
        let held = self.listener.held(&claimant);
        let wants = channel.ends.last().filter(|end| !end.is_closing()).map_or(0, Selling::wants);
        self.listener.claim(now, &claimant, wants.min(most.saturating_sub(held)));
    }

    /// Says how a channel stands, and forgets it if it is over.
    fn say(&mut self, id: u64) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        for end in &mut channel.ends {
            if let Some(grant) = end.poll() {
                self.grants.push((channel.buyer, grant));
            }
            if let Some(at) = end.poll_timeout() {
                self.agenda.by(&id, at);
            }
            for seq in end.unanswered() {
                self.unanswered.push((channel.buyer, channel.lot.clone(), end.epoch(), seq));
            }
        }
        channel.ends.retain(|end| !end.is_over());
        if channel.ends.is_empty() {
            let key = (channel.buyer, channel.lot.clone());
            if self.ids.get(&key) == Some(&id) {
                self.ids.remove(&key);
            }
            self.channels.remove(&id);
            self.listener.forget(&Claimant::Channel(id));
            self.agenda.forget(&id);
        }
    }

    fn revoke_by(&mut self, now: Mono) {
        let at = now + IDLE_FOR_OWN;
        if self.revoke_at.is_none_or(|old| old > at) {
            self.revoke_at = Some(at);
        }
    }

    /// Wants idle tokens back, as many as others wait for.
    fn revoke(&mut self, now: Mono) {
        let mut wanted = self.listener.wanted();
        let own = self.own_wanted > 0;
        let mut next: Option<Mono> = None;
        for (id, channel) in &mut self.channels {
            let Some(end) = channel.ends.last_mut().filter(|end| !end.is_closing()) else { continue };
            // A channel that waits itself uses what it has.
            let waits = self.listener.waits(&Claimant::Channel(*id)).is_some();
            if end.unused() == 0 || waits || wanted == 0 {
                continue;
            }
            let idle = now.since(end.idle_since()) >= IDLE_FOR_OWN;
            let tokens = if own && idle { end.unused() } else { end.stale(now) };
            match tokens.min(wanted) {
                0 => {
                    let at = if own { Some(end.idle_since() + IDLE_FOR_OWN) } else { end.stale_at() };
                    next = [next, at].into_iter().flatten().min();
                }
                tokens => {
                    wanted -= tokens;
                    end.revoke(now, tokens);
                    self.touched.insert(*id);
                }
            }
        }
        self.revoke_at = next.map(|at| at.max(now + IDLE_FOR_OWN));
    }

    pub(crate) fn handle_timeout(&mut self, now: Mono) {
        while let Some(id) = self.agenda.pop_due(now) {
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.ends.iter_mut().for_each(|end| end.handle_timeout(now));
                self.touched.insert(id);
            }
        }
        if self.revoke_at.is_some_and(|at| at <= now) {
            self.revoke_at = None;
            self.revoke(now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        [self.agenda.next(), self.revoke_at].into_iter().flatten().min()
    }

    /// What is to be said to buyers.
    pub(crate) fn grants(&mut self) -> Vec<(NodeId, Grant)> {
        std::mem::take(&mut self.grants)
    }

    /// Calls whose answers did not arrive: buyer, lot, epoch, number.
    pub(crate) fn unanswered(&mut self) -> Vec<(NodeId, Lot, u64, u64)> {
        std::mem::take(&mut self.unanswered)
    }

    /// The channels, for people: buyer, lot, unused tokens, running calls.
    pub(crate) fn view(&self) -> impl Iterator<Item = (NodeId, &Lot, u32, u32)> {
        self.channels.values().map(|c| {
            let sum = |of: fn(&Selling) -> u32| c.ends.iter().map(of).sum();
            (c.buyer, &c.lot, sum(Selling::unused), sum(Selling::running))
        })
    }

    pub(crate) fn check_invariants(&self) {
        self.listener.check_invariants();
        for (id, channel) in &self.channels {
            let held = self.listener.held(&Claimant::Channel(*id));
            let out: u32 = channel.ends.iter().map(|end| end.unused() + end.running() + end.owed()).sum();
            let elsewhere = u32::try_from(channel.parked.len()).expect("few calls run") + channel.lent;
            assert_eq!(
                held + elsewhere,
                out,
                "a channel holds a slot for each token that is out and each call that runs"
            );
            channel.ends.iter().for_each(Selling::check_invariants);
        }
    }
}
