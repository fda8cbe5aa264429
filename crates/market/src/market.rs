//! All roles of one node together, and the links between them and those of other nodes.
//!
//! ```text
//! transport -> market: linked, unlinked, message, not reached      market -> transport: send, dial, hang up
//! node -> market: offer, admit, release, demand, choose, settled   market -> node: lost, gone
//! ```
//!
//! The calls themselves, and their answers, are the node's: it sends them over the same links, each under the number of a
//! token. The market says who may send what to whom, and what came to nothing.
//!
//! It never waits and holds no message back: what can't be sent is dropped, and the role that said it says it again when
//! there is a link.

mod buying;
mod contacts;
mod hosting;
mod messages;
mod selling;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_wire::time::Mono;
use semver::VersionReq;

pub use buying::{Lost, SELLERS_MAX, Token};
pub use hosting::EXCHANGES_MAX;
pub use messages::{Input, Output, Settings};
pub use selling::{Admitted, CHANNELS_MAX, Claimant, Lease};
pub use view::{ChannelView, NodeView, OrderView};

use crate::authority::{self, Authority};
use crate::broker::{self, Broker};
use crate::links::{self, LinkId, Links};
use crate::member::{self, Member};
use crate::message::{Envelope, Join, Mesh, Message};
use crate::name::{Contact, Horizon, Lot, NodeId};
use crate::roster::{Refused, Roster};

/// Between two changes of what this node says that it sells, unless it had nothing before.
const SELL_AGAIN: Duration = Duration::from_millis(250);
/// A node in which all slots are in use for this long offers a place in line.
const ROOM_AFTER: Duration = Duration::from_millis(250);

/// What a node says that it sells of each lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    quantity: u32,
    /// Places in line; else free slots.
    in_line: bool,
}

/// All roles of one node.
#[derive(Debug)]
pub struct Market {
    settings: Settings,
    links: Links,
    member: Member,
    authority: Option<Authority>,
    broker: Broker,
    hosting: hosting::Desk,
    selling: selling::Desk,
    buying: buying::Desk,
    roster: Roster,
    /// What was said to be free last, and when.
    sold: BTreeMap<Lot, Offer>,
    sold_at: Mono,
    /// What there was to sell, of all lots, when it was said. `None`: look again.
    sold_for: Option<Offer>,
    sell_at: Option<Mono>,
    /// Since when a call runs in each slot, and when buyers are let into line then.
    full_since: Option<Mono>,
    room_at: Option<Mono>,
    /// Messages of this node's roles to each other.
    looped: Vec<Message>,
    outputs: std::collections::VecDeque<Output>,
}

impl Market {
    /// A node that knows nobody but its seeds.
    pub fn new(settings: Settings, now: Mono) -> Self {
        let Settings { times, me, seeds, may_serve, slots, roster, seed } = settings.clone();
        // Two that nobody can connect with would never meet.
        let may_serve = may_serve && !me.address.is_empty();
        let mut links = Links::new(times.clone(), me.id);
        seeds.iter().for_each(|contact| links.learn(contact));
        let mut market = Self {
            links,
            member: Member::new(times.clone(), me.clone(), may_serve, seeds, seed, now),
            authority: None,
            broker: Broker::new(times.clone(), me.clone()),
            hosting: hosting::Desk::new(times.clone()),
            selling: selling::Desk::new(times.clone(), slots),
            buying: buying::Desk::new(times, me, seed.rotate_left(17)),
            roster: Roster::new(roster),
            sold: BTreeMap::new(),
            sold_at: now,
            sold_for: None,
            sell_at: None,
            full_since: None,
            room_at: None,
            looped: Vec::new(),
            outputs: std::collections::VecDeque::new(),
            settings,
        };
        market.settle(now);
        market
    }

    /// Takes one message.
    pub fn handle(&mut self, now: Mono, input: Input) {
        match input {
            Input::Linked { link, contact } => self.links.linked(now, link, contact),
            Input::Unlinked { link } => self.links.unlinked(now, link),
            Input::NotReached { node } => self.links.not_reached(now, node),
            Input::Message { link, message } => {
                let is_beat = matches!(message, Message::Beat);
                if let Some(from) = self.links.heard(now, link, is_beat) {
                    self.on_message(now, from, Some(link), message);
                }
            }
        }
        self.settle(now);
    }

    /// Does what is due. Call it at or after the time that [`poll_timeout`](Self::poll_timeout) gave.
    pub fn handle_timeout(&mut self, now: Mono) {
        let (buying, selling) = (&self.buying, &self.selling);
        self.links.handle_timeout(now, |node| buying.has_channels(node) || selling.has_channels(node));
        self.member.handle_timeout(now);
        if let Some(authority) = &mut self.authority {
            authority.handle_timeout(now);
        }
        self.broker.handle_timeout(now);
        self.hosting.handle_timeout(now);
        self.selling.handle_timeout(now);
        self.buying.handle_timeout(now);
        self.settle(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Mono> {
        let all = [
            self.links.poll_timeout(),
            self.member.poll_timeout(),
            self.authority.as_ref().and_then(Authority::poll_timeout),
            self.broker.poll_timeout(),
            self.hosting.poll_timeout(),
            self.selling.poll_timeout(),
            self.buying.poll_timeout(),
            self.sell_at,
            self.room_at,
        ];
        all.into_iter().flatten().min()
    }

    /// The next thing to carry out. Call it until it gives `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // ------------------------------------------------------------ selling

    /// How many calls may run here at once, from now on.
    pub fn resize(&mut self, now: Mono, slots: u32) {
        if slots != self.selling.slots() {
            self.selling.resize(slots);
            self.settle(now);
        }
    }

    /// This node can run a lot; at most so many slots of it are sold. 0: it can't any longer.
    pub fn offer(&mut self, now: Mono, lot: &Lot, most: u32) {
        if self.selling.offer(now, lot, most) {
            self.sold_for = None;
            if most == 0 {
                self.sold.remove(lot);
                self.broker.sell(now, lot, 0, false);
            }
            self.settle(now);
        }
    }

    /// A call came under a token.
    pub fn admit(&mut self, now: Mono, buyer: NodeId, lot: &Lot, epoch: u64, seq: u64) -> Admitted {
        self.selling.admit(now, buyer, lot, epoch, seq)
    }

    /// The instance that ran a bought call is free or dead.
    pub fn release(&mut self, now: Mono, lease: Lease) {
        self.selling.finish(now, lease);
    }

    /// A bought call waits for others, and needs no slot meanwhile.
    pub fn park(&mut self, lease: Lease) {
        self.selling.park(lease);
    }

    /// A bought call may go on, before all others, if there is a slot. Whether there is.
    pub fn unpark(&mut self, lease: Lease) -> bool {
        self.selling.unpark(lease)
    }

    /// What is offered, and how much of it at most.
    pub fn offered(&self) -> impl Iterator<Item = (&Lot, u32)> {
        self.selling.offers()
    }

    /// A slot for a call of this node that has begun already: it goes before all others.
    pub fn take_slot_first(&mut self) -> bool {
        self.selling.take_first()
    }

    /// A slot for a new call of this node, if it is its turn.
    pub fn take_slot(&mut self, now: Mono) -> bool {
        self.selling.take(now)
    }

    /// So many calls of this node could begin if they had slots.
    pub fn want_slots(&mut self, now: Mono, calls: u32) {
        self.selling.want(now, calls);
    }

    /// A slot of this node's own calls is free again.
    pub fn give_slot(&mut self) {
        self.selling.give_back();
    }

    /// How many slots there are, how many are free, and how many the node's own calls have.
    pub fn slots(&self) -> (u32, u32, u32) {
        (self.selling.slots(), self.selling.free(), self.selling.own())
    }

    // ------------------------------------------------------------ buying

    /// So many calls wait that found neither a slot nor a token.
    pub fn demand(&mut self, now: Mono, module: &str, requirement: &VersionReq, waiting: u32) {
        self.buying.demand(now, module, requirement, waiting);
    }

    /// What is short of a module, by requirement.
    pub fn demanded(&self, module: &str) -> impl Iterator<Item = &VersionReq> {
        self.buying.demanded(module)
    }

    /// A token for a call, if there is one: it is spent with that.
    pub fn choose(
        &mut self,
        now: Mono,
        module: &str,
        requirement: &VersionReq,
        farthest: Horizon,
    ) -> Option<(Token, LinkId)> {
        let token = self.buying.choose(now, module, requirement, farthest)?;
        match self.links.link_of(token.seller) {
            Some(link) => {
                self.links.sent(now, link);
                Some((token, link))
            }
            None => unreachable!("a seller's channels end with the last link"),
        }
    }

    /// A call has been answered. False if it was not open: its answer is not heard.
    pub fn settled(&mut self, now: Mono, token: &Token, worked: bool) -> bool {
        let Token { seller, lot, epoch, seq } = token;
        self.buying.settled(now, *seller, lot, *epoch, *seq, worked)
    }

    /// Tokens that could be spent at once.
    pub fn tokens(&self, module: &str, requirement: &VersionReq) -> u32 {
        self.buying.tokens(module, requirement)
    }

    /// The link with a node, if there is one.
    pub fn link_of(&self, node: NodeId) -> Option<LinkId> {
        self.links.link_of(node)
    }

    // ------------------------------------------------------------ who belongs to the grid

    /// The list of keys.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Changes the list of keys.
    pub fn enter<T>(
        &mut self,
        now: Mono,
        change: impl FnOnce(&mut Roster) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let result = change(&mut self.roster);
        self.settle(now);
        result
    }

    fn settle_roster(&mut self, now: Mono) {
        while let Some(told) = self.roster.news() {
            let nodes: Vec<NodeId> = self.links.nodes().map(|(contact, _)| contact.id).collect();
            for node in nodes {
                self.send(now, node, Message::Roster(told.clone()));
            }
        }
        let changed = self.roster.changed();
        if !changed.is_empty() {
            self.outputs.push_back(Output::Roster(changed));
        }
    }

    fn on_digest(&mut self, now: Mono, from: NodeId, digest: u64) {
        if from != self.settings.me.id {
            for told in self.roster.on_digest(digest) {
                self.send(now, from, Message::Roster(told));
            }
        }
    }

    // ------------------------------------------------------------ messages

    /// Without a link, it is a message of this node to itself.
    fn on_message(&mut self, now: Mono, from: NodeId, link: Option<LinkId>, message: Message) {
        match &message {
            Message::Beat => {}
            Message::Join(_)
            | Message::Mesh(_)
            | Message::Resign(_)
            | Message::Grid(_)
            | Message::Appoint => {
                // Each takes what is for it.
                self.member.on_message(now, from, &message);
                if let Some(authority) = &mut self.authority {
                    authority.on_message(now, from, &message);
                }
                if let Message::Join(Join { roster, .. }) | Message::Mesh(Mesh { roster, .. }) = message {
                    self.on_digest(now, from, roster);
                }
            }
            Message::Roster(told) => {
                for told in self.roster.on_told(told) {
                    self.send(now, from, Message::Roster(told));
                }
            }
            Message::Orders(orders) if self.authority.is_some() => {
                let contact = link.map_or(Some(&self.settings.me), |link| self.links.contact(link));
                self.hosting.on_orders(now, contact.expect("the link was heard of"), orders);
            }
            Message::Orders(_) => {}
            Message::Matches(_) => self.broker.on_message(now, from, &message),
            Message::Claim(claim) => self.selling.on_claim(now, from, claim),
            Message::Grant(grant) => self.buying.on_grant(now, from, grant),
        }
    }

    fn on_up(&mut self, now: Mono, contact: &Contact) {
        self.member.on_link(now, contact, true);
        if let Some(authority) = &mut self.authority {
            authority.on_link(now, contact, true);
        }
        self.broker.on_link(now, contact.id, true);
        self.buying.on_link(now, contact.id, true);
    }

    fn on_down(&mut self, now: Mono, contact: &Contact) {
        self.member.on_link(now, contact, false);
        if let Some(authority) = &mut self.authority {
            authority.on_link(now, contact, false);
        }
        self.broker.on_link(now, contact.id, false);
        self.buying.on_link(now, contact.id, false);
        self.hosting.on_lost(contact.id);
        for (lot, epoch) in self.selling.buyer_gone(now, contact.id) {
            self.outputs.push_back(Output::Gone { buyer: contact.id, lot, epoch });
        }
    }

    // ------------------------------------------------------------ going on

    /// Carries on until nothing more follows. The node calls it after it has chosen, admitted or settled calls.
    pub fn settle(&mut self, now: Mono) {
        loop {
            let mut quiet = self.settle_links(now);
            quiet &= self.settle_members(now);
            self.settle_roster(now);
            self.buying.pump(now);
            self.selling.pump(now);
            for lost in self.buying.lost() {
                self.outputs.push_back(Output::Lost(lost));
            }
            for (module, requirement, wanted) in self.buying.orders() {
                self.broker.buy(now, &module, &requirement, wanted);
            }
            self.sell(now);
            quiet &= self.settle_orders(now);
            for (to, claim) in self.buying.claims() {
                self.send(now, to, Message::Claim(claim));
                quiet = false;
            }
            for (buyer, lot, epoch, seq) in self.selling.unanswered() {
                self.outputs.push_back(Output::Unanswered { buyer, lot, epoch, seq });
            }
            for (to, grant) in self.selling.grants() {
                self.send(now, to, Message::Grant(grant));
                quiet = false;
            }
            let me = self.settings.me.id;
            for message in std::mem::take(&mut self.looped) {
                self.on_message(now, me, None, message);
                quiet = false;
            }
            if quiet {
                break;
            }
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn settle_links(&mut self, now: Mono) -> bool {
        let outputs = self.links.poll();
        let quiet = outputs.is_empty();
        for output in outputs {
            match output {
                links::Output::Beat(link) => {
                    self.outputs.push_back(Output::Send { link, message: Message::Beat })
                }
                links::Output::Dial(contact) => self.outputs.push_back(Output::Dial { contact }),
                links::Output::HangUp(link) => self.outputs.push_back(Output::HangUp { link }),
                links::Output::Up(contact) => self.on_up(now, &contact),
                links::Output::Down(contact) => self.on_down(now, &contact),
                links::Output::Twins(contact) => self.outputs.push_back(Output::Twins { contact }),
            }
        }
        quiet
    }

    fn settle_members(&mut self, now: Mono) -> bool {
        let mut quiet = true;
        while let Some(output) = self.member.poll() {
            quiet = false;
            match output {
                member::Output::Send(envelope) => self.post(now, envelope),
                member::Output::Know(contact) => self.links.learn(&contact),
                member::Output::Serve => self.serve(now),
                member::Output::Authorities => {
                    let authorities = self.member.authorities().to_vec();
                    authorities.iter().for_each(|contact| self.links.learn(contact));
                    self.broker.set_authorities(now, &authorities);
                    self.outputs.push_back(Output::Authorities);
                }
            }
        }
        while let Some(output) = self.authority.as_mut().and_then(Authority::poll) {
            quiet = false;
            match output {
                authority::Output::Send(envelope) => self.post(now, envelope),
                authority::Output::Know(contact) => self.links.learn(&contact),
                authority::Output::StepDown => self.step_down(now),
                authority::Output::Authorities => {}
            }
        }
        quiet
    }

    fn serve(&mut self, now: Mono) {
        if self.authority.is_some() {
            return;
        }
        let Settings { times, me, seed, .. } = &self.settings;
        let known = self.member.known();
        let mut authority = Authority::new(times.clone(), me.clone(), known, seed.rotate_left(31), now);
        for (contact, _) in self.links.nodes() {
            authority.on_link(now, contact, true);
        }
        self.authority = Some(authority);
        self.member.set_serving(now, true);
    }

    fn step_down(&mut self, now: Mono) {
        self.authority = None;
        // Whoever has orders here places them elsewhere, as soon as it hears who the authorities are.
        self.hosting.clear();
        self.member.set_serving(now, false);
    }

    /// Says what is free, as often as is useful.
    fn sell(&mut self, now: Mono) {
        // Tokens that are not used yet can be had back. And after a while there is room to stand in line: else a buyer that
        // comes late would wait until those before it want nothing any more, since a slot that is freed goes to who stands there.
        let idle = self.selling.not_running();
        self.full_since = if idle > 0 { None } else { self.full_since.or(Some(now)) };
        let room_at = self.full_since.map(|since| since + ROOM_AFTER);
        let in_line = room_at.is_some_and(|at| at <= now);
        let offer = Offer { quantity: if in_line { 1 } else { idle }, in_line };
        self.room_at = room_at.filter(|at| *at > now);
        if self.sold_for == Some(offer) {
            return;
        }
        let mut later = false;
        let due = now.since(self.sold_at) >= SELL_AGAIN;
        let mut changes = Vec::new();
        for (lot, most) in self.selling.offers() {
            let new = Offer { quantity: offer.quantity.min(most), ..offer };
            match self.sold.get(lot) {
                Some(old) if *old == new => {}
                Some(old) if old.quantity > 0 && !due => later = true,
                _ => changes.push((lot.clone(), new)),
            }
        }
        if !changes.is_empty() {
            self.sold_at = now;
        }
        for (lot, offer) in changes {
            self.broker.sell(now, &lot, offer.quantity, offer.in_line);
            self.sold.insert(lot, offer);
        }
        self.sold_for = (!later).then_some(offer);
        self.sell_at = later.then_some(self.sold_at + SELL_AGAIN);
    }

    fn settle_orders(&mut self, now: Mono) -> bool {
        let mut quiet = true;
        while let Some(output) = self.broker.poll() {
            quiet = false;
            match output {
                broker::Output::Send(envelope) => self.post(now, envelope),
                broker::Output::Found(found) => {
                    if self.buying.on_found(now, &found.module, &found.found) {
                        self.links.learn(&found.found.seller);
                    }
                }
            }
        }
        for (buyer, matches) in self.hosting.matches() {
            quiet = false;
            self.send(now, buyer, Message::Matches(matches));
        }
        quiet
    }

    fn post(&mut self, now: Mono, mut envelope: Envelope) {
        // The roles that say these know nothing of the list of keys.
        if let Message::Join(Join { roster, .. }) | Message::Mesh(Mesh { roster, .. }) = &mut envelope.message
        {
            *roster = self.roster.digest();
        }
        self.send(now, envelope.to, envelope.message);
    }

    fn send(&mut self, now: Mono, to: NodeId, message: Message) {
        if to == self.settings.me.id {
            self.looped.push(message);
        } else if let Some(link) = self.links.to_send(now, to) {
            self.outputs.push_back(Output::Send { link, message });
        }
    }

    /// Panics if what must hold does not.
    pub fn check_invariants(&self) {
        self.links.check_invariants();
        self.selling.check_invariants();
        self.buying.check_invariants();
        self.roster.check_invariants();
    }
}
