//! A paper-thin node: a real [`Market`], and as much of the rest of a node as is needed to trade: callers, calls that
//! wait, instances that take some time. No processes, no sockets, no store.
//!
//! ```text
//! world -> node: a link opened or ended, a frame came, it is time, somebody calls
//! node -> world: [`Act`]s: send, dial, hang up, later
//! ```
//!
//! It never acts on its own: what it wants done is put into a list that the world carries out.

mod trade;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bourse_market::roster::{Entry, Roster};
use bourse_market::{Contact, Lot, Message, NodeId};
use bourse_wire::time::Mono;

use super::books::{Books, End};
use super::catalog::{Catalog, Wish};
use super::lies::Liar;
use super::market::{Input, Lease, LinkId, Market, Settings, Token};
use super::sight::KINDS;
use crate::chance::Chance;
use crate::trace::Trace;

/// An answer is kept for so many calls, should one be lost on its way.
const ANSWERS_MAX: usize = 4_096;
/// A seller that has had a call for twice as long as it takes, and this, has failed.
const SELLER_FAILS: Duration = Duration::from_millis(500);
/// Longest that a call takes to stop when nobody waits for it any more.
const CANCEL_MS_MAX: u64 = 50;

/// What nodes send each other.
#[derive(Clone, Debug)]
pub enum Frame {
    /// A message of the market.
    Market(Message),
    /// buyer -> seller: run this.
    Call(Job),
    /// seller -> buyer: it was run. `worked`: the seller was well.
    Answer {
        /// Which.
        job: Job,
        /// The seller was well.
        worked: bool,
    },
}

/// A call under a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The token.
    pub token: Token,
    /// The call, by the books.
    pub call: u32,
    /// Which attempt of it.
    pub attempt: u8,
    /// How long it takes.
    pub takes: Duration,
    /// When it was sent, by the world's clock.
    pub sent: Mono,
}

/// What a node wants done.
#[derive(Clone, Debug)]
pub enum Act {
    /// Send over a link.
    Send(LinkId, Frame),
    /// Connect.
    Dial(Contact),
    /// End a link.
    HangUp(LinkId),
    /// Come back to it.
    Later(Duration, Later),
}

/// What a node comes back to.
#[derive(Clone, Copy, Debug)]
pub enum Later {
    /// An instance is done.
    Finished(u64),
    /// A call's time is over.
    Over(u32),
    /// The node's own work on a slot is done.
    OwnDone,
    /// A caller calls.
    Calls(usize),
}

/// What all nodes of a world share while one of them acts.
pub struct Env<'a> {
    /// What becomes of calls.
    pub books: &'a mut Books,
    /// What is to be done.
    pub acts: &'a mut Vec<Act>,
    /// All modules.
    pub catalog: &'a Catalog,
    /// The run's chance.
    pub chance: &'a mut Chance,
    /// What happened.
    pub trace: &'a mut Trace,
    /// The world's time.
    pub at: Mono,
    /// Who has this identity may lie.
    pub liar: Option<NodeId>,
    /// Each step is checked: what costs too much where there are thousands of nodes.
    pub checks: bool,
}

/// Somebody who calls, again and again.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// What.
    pub wish: Wish,
    /// Mean time between two calls. Zero: pauses.
    pub gap: Duration,
    /// How long its calls take at most, and at least a tenth of that.
    pub takes: Duration,
    /// How long its calls may wait and take.
    pub patience: Duration,
}

/// Calls that wait for the same.
#[derive(Clone, Debug)]
pub struct Line {
    /// For what.
    pub wish: Wish,
    /// The calls, and how long each takes. Those that are over stay until they come to the front.
    pub waiting: VecDeque<(u32, Duration)>,
    /// As many the market was told of.
    told: u32,
    /// Since when calls wait.
    pub since: Mono,
    /// When the first call came, and when the first token was found for one.
    pub first: Option<(Mono, Option<Mono>)>,
}

/// What a node sells.
#[derive(Clone, Debug)]
pub struct Offer {
    /// What.
    pub lot: Lot,
    /// At most so many slots.
    pub most: u32,
    /// When calls ran last in as many as that.
    pub busy_at: Mono,
}

/// A link as the node sees it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The link.
    pub link: LinkId,
    /// Who is there.
    pub contact: Contact,
    /// Since when.
    pub since: Mono,
}

/// A call at a seller, as the seller sees it.
#[derive(Clone, Debug)]
struct Running {
    number: u64,
    buyer: NodeId,
    link: LinkId,
    job: Job,
    lease: Lease,
    cancelled: bool,
}

/// What a node has sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Messages of the market.
    pub messages: u64,
    /// The same, by kind.
    pub kinds: [u64; KINDS.len()],
    /// Their bytes.
    pub bytes: u64,
    /// Calls and answers.
    pub frames: u64,
    /// The second that is now, and messages in it; one grant for each call or answer that was sent in it does not count.
    pub second: (u64, i64),
}

impl Traffic {
    /// Counts what is sent in this second: more than one for each call is what coordination costs.
    pub fn in_second(&mut self, second: u64, cost: i64) -> i64 {
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += cost;
        self.second.1
    }
}

/// See the module.
pub struct Node {
    /// Its number in the world.
    pub number: u32,
    /// Which, and this life of it.
    pub contact: Contact,
    /// How often it was started.
    pub life: u32,
    /// Whom it asks first.
    pub seeds: Vec<Contact>,
    /// The list of keys, as it is on its disk.
    pub kept: BTreeMap<NodeId, Entry>,
    /// It may become an authority.
    pub may_serve: bool,
    /// It can't be connected to, though it has an address.
    pub is_walled: bool,
    /// Not before then does it see anything.
    pub paused_until: Mono,
    /// By how much its clock is ahead of the world's.
    pub skew: Duration,
    /// Slots that it has.
    pub slots: u32,
    /// Slots that may be in use: more than it has, for a while after it got smaller.
    pub ceiling: u32,
    /// What it sells.
    pub offers: Vec<Offer>,
    /// Who calls there.
    pub callers: Vec<Caller>,
    /// Its answers say that it was not well.
    pub is_flaky: bool,
    /// It does not end calls because nobody waits for them.
    pub is_stubborn: bool,
    /// It sells nothing more, and ends soon.
    pub is_leaving: bool,
    /// It never starts again.
    pub is_over: bool,
    /// It lies.
    pub liar: Option<Liar>,
    /// What it has sent.
    pub traffic: Traffic,
    /// Calls that wait.
    pub lines: Vec<Line>,
    /// Links.
    pub peers: Vec<Peer>,
    /// Its calls at others.
    pub open: Vec<Job>,
    /// When something ran in all of its slots last.
    pub busy_at: Mono,
    /// The market, while it is up.
    pub market: Option<Market>,
    /// When the world will wake it.
    pub wakes: Mono,
    running: Vec<Running>,
    answers: VecDeque<(NodeId, Job, bool)>,
    own: u32,
    numbers: u64,
}

impl Node {
    /// One that is not started yet.
    pub fn new(number: u32, contact: Contact) -> Self {
        Self {
            number,
            contact,
            life: 0,
            seeds: Vec::new(),
            kept: BTreeMap::new(),
            may_serve: true,
            is_walled: false,
            paused_until: Mono(0),
            skew: Duration::ZERO,
            slots: 0,
            ceiling: 0,
            offers: Vec::new(),
            callers: Vec::new(),
            is_flaky: false,
            is_stubborn: false,
            is_leaving: false,
            is_over: false,
            liar: None,
            traffic: Traffic::default(),
            lines: Vec::new(),
            peers: Vec::new(),
            open: Vec::new(),
            busy_at: Mono(0),
            market: None,
            wakes: Mono::MAX,
            running: Vec::new(),
            answers: VecDeque::new(),
            own: 0,
            numbers: 0,
        }
    }

    /// It is up.
    pub fn is_up(&self) -> bool {
        self.market.is_some()
    }

    /// It is up, and does not lie.
    pub fn is_honest(&self) -> bool {
        self.is_up() && self.liar.is_none()
    }

    /// It is an authority.
    pub fn serves(&self) -> bool {
        self.market.as_ref().is_some_and(Market::is_authority)
    }

    /// Others can connect to it.
    pub fn is_reachable(&self) -> bool {
        !self.contact.address.is_empty() && !self.is_walled
    }

    /// Its own clock.
    pub fn local(&self, at: Mono) -> Mono {
        at + self.skew
    }

    /// When the market wants to be woken, by the world's clock.
    pub fn timeout(&self) -> Option<Mono> {
        let local = self.market.as_ref()?.poll_timeout()?;
        (local != Mono::MAX).then(|| local - self.skew)
    }

    /// Calls that run there: others' and its own.
    pub fn running(&self) -> usize {
        self.running.len() + self.own as usize
    }

    /// Calls of others that run there, of one lot.
    pub fn running_of(&self, lot: &Lot) -> usize {
        self.running.iter().filter(|running| running.job.token.lot == *lot).count()
    }

    /// Since when there has been a link to that node.
    pub fn linked_since(&self, id: NodeId) -> Option<Mono> {
        self.peers.iter().filter(|peer| peer.contact.id == id).map(|peer| peer.since).min()
    }

    /// Has a link to that node.
    pub fn peer(&self, id: NodeId) -> Option<LinkId> {
        self.peers.iter().rev().find(|peer| peer.contact.id == id).map(|peer| peer.link)
    }

    fn who(&self, link: LinkId) -> Option<NodeId> {
        self.peers.iter().find(|peer| peer.link == link).map(|peer| peer.contact.id)
    }

    // ------------------------------------------------------------ its life

    /// Starts. The world has given it a new contact.
    pub fn start(&mut self, settings: Settings, env: &mut Env<'_>) {
        assert!(self.market.is_none(), "it is down");
        self.life += 1;
        let mut market = Market::new(settings, self.local(env.at));
        let now = self.local(env.at);
        for offer in &self.offers {
            market.offer(now, &offer.lot, offer.most);
        }
        self.ceiling = self.slots;
        // What it did not sell before, nobody could have.
        self.busy_at = env.at;
        self.offers.iter_mut().for_each(|offer| offer.busy_at = env.at);
        self.is_leaving = false;
        self.market = Some(market);
        self.wakes = Mono::MAX;
        for caller in 0..self.callers.len() {
            self.next_call(caller, env);
        }
        self.settle(env);
    }

    /// Is gone, with all that it knew.
    pub fn crash(&mut self, env: &mut Env<'_>) {
        self.market = None;
        let waiting: Vec<u32> =
            self.lines.drain(..).flat_map(|line| line.waiting).map(|(call, _)| call).collect();
        for call in waiting.into_iter().chain(self.open.drain(..).map(|job| job.call)) {
            env.books.ends(call, End::Gone);
        }
        self.peers.clear();
        self.running.clear();
        self.answers.clear();
        self.own = 0;
    }

    /// Has so many slots from now on.
    pub fn resize(&mut self, slots: u32, env: &mut Env<'_>) {
        let now = self.local(env.at);
        let Some(market) = &mut self.market else { return };
        market.resize(now, slots);
        self.slots = slots;
        self.ceiling = self.ceiling.max(slots);
        self.settle(env);
    }

    /// Sells at most so much of a lot from now on.
    pub fn offer(&mut self, lot: &Lot, most: u32, env: &mut Env<'_>) {
        match self.offers.iter_mut().find(|offer| offer.lot == *lot) {
            Some(offer) => offer.most = most,
            None => self.offers.push(Offer { lot: lot.clone(), most, busy_at: env.at }),
        }
        let now = self.local(env.at);
        let Some(market) = self.market.as_mut().filter(|_| !self.is_leaving) else { return };
        market.offer(now, lot, most);
        self.settle(env);
    }

    /// Changes the list of keys.
    pub fn enter(&mut self, change: impl FnOnce(&mut Roster), env: &mut Env<'_>) {
        let now = self.local(env.at);
        let Some(market) = &mut self.market else { return };
        let change = |roster: &mut Roster| {
            change(roster);
            Ok(())
        };
        market.enter(now, change).expect("it is always done");
        self.settle(env);
    }

    /// Sells nothing more, and makes no calls. The world ends it later.
    pub fn leave(&mut self, env: &mut Env<'_>) {
        let now = self.local(env.at);
        let Some(market) = &mut self.market else { return };
        self.is_leaving = true;
        self.offers.iter().for_each(|offer| market.offer(now, &offer.lot, 0));
        self.settle(env);
    }

    // ------------------------------------------------------------ what comes

    /// A link has opened.
    pub fn linked(&mut self, link: LinkId, contact: &Contact, env: &mut Env<'_>) {
        self.peers.push(Peer { link, contact: contact.clone(), since: env.at });
        self.input(Input::Linked { link, contact: contact.clone() }, env);
    }

    /// A link has ended.
    pub fn unlinked(&mut self, link: LinkId, env: &mut Env<'_>) {
        self.peers.retain(|peer| peer.link != link);
        self.input(Input::Unlinked { link }, env);
    }

    /// An attempt to connect has failed.
    pub fn not_reached(&mut self, node: NodeId, env: &mut Env<'_>) {
        self.input(Input::NotReached { node }, env);
    }

    /// It is time.
    pub fn wake(&mut self, env: &mut Env<'_>) {
        let now = self.local(env.at);
        let Some(market) = &mut self.market else { return };
        market.handle_timeout(now);
        self.settle(env);
    }

    /// Something came over a link.
    pub fn frame(&mut self, link: LinkId, frame: Frame, env: &mut Env<'_>) {
        match frame {
            Frame::Market(message) => self.input(Input::Message { link, message }, env),
            Frame::Call(job) => self.on_call(link, job, env),
            Frame::Answer { job, worked } => self.on_answer(link, &job, worked, env),
        }
    }

    /// It comes back to something.
    pub fn later(&mut self, later: Later, env: &mut Env<'_>) {
        match later {
            Later::Finished(number) => self.on_finished(number, env),
            Later::Over(call) => self.on_over(call, env),
            Later::OwnDone => self.on_own_done(env),
            Later::Calls(caller) => {
                let Some(&Caller { wish, gap, takes, patience }) = self.callers.get(caller) else { return };
                if !gap.is_zero() && !self.is_leaving {
                    let takes = takes / 10 + takes.mul_f64(f64::from(share(env.chance)) * 0.9 / 256.0);
                    self.call(wish, takes, patience, env);
                }
                self.next_call(caller, env);
                return;
            }
        }
        self.settle(env);
    }

    /// Somebody calls.
    pub fn call(&mut self, wish: Wish, takes: Duration, patience: Duration, env: &mut Env<'_>) {
        if self.market.is_none() {
            return;
        }
        let call = env.books.made(self.number, wish, env.at + patience);
        env.acts.push(Act::Later(patience, Later::Over(call)));
        let line = self.line(wish);
        let at = env.at;
        if line.waiting.is_empty() {
            line.since = at;
        }
        line.first.get_or_insert((at, None));
        line.waiting.push_back((call, takes));
        self.settle(env);
    }

    /// The node itself uses one of its slots, if one is free.
    pub fn work(&mut self, takes: Duration, env: &mut Env<'_>) {
        let Some(market) = &mut self.market else { return };
        if market.take_slot_first() {
            self.own += 1;
            self.check_capacity(env);
            env.acts.push(Act::Later(takes, Later::OwnDone));
        }
        self.settle(env);
    }
}

/// From 0 to 255.
fn share(chance: &mut Chance) -> u8 {
    chance.word().to_le_bytes()[7]
}

/// For a trace.
pub fn sight(job: &Job) -> String {
    let Token { lot, epoch, seq, .. } = &job.token;
    format!("call {}.{} as {lot} {epoch}/{seq}", job.call, job.attempt)
}
