//! How a node trades: calls that come and go, and what the market says of them.

use std::collections::VecDeque;
use std::time::Duration;

use bourse_market::{Lot, NodeId};
use bourse_wire::time::Mono;

use super::{
    ANSWERS_MAX, Act, CANCEL_MS_MAX, Env, Frame, Job, Later, Line, Node, Running, SELLER_FAILS, share, sight,
};
use crate::grid::books::End;
use crate::grid::catalog::Wish;
use crate::grid::lies::Liar;
use crate::grid::market::{Admitted, Horizon, Input, Lease, LinkId, Lost, Market, Output, Token};

impl Node {
    pub(super) fn line(&mut self, wish: Wish) -> &mut Line {
        let at = match self.lines.iter().position(|line| line.wish == wish) {
            Some(at) => at,
            None => {
                let waiting = VecDeque::new();
                self.lines.push(Line { wish, waiting, told: 0, since: Mono(0), first: None });
                self.lines.len() - 1
            }
        };
        &mut self.lines[at]
    }

    pub(super) fn next_call(&self, caller: usize, env: &mut Env<'_>) {
        let gap = self.callers[caller].gap;
        let wait = if gap.is_zero() {
            Duration::from_secs(1)
        } else {
            // Uniform from nothing to twice the mean: bursts come from many callers.
            gap.mul_f64(f64::from(share(env.chance)) / 128.0)
        };
        env.acts.push(Act::Later(wait, Later::Calls(caller)));
    }

    pub(super) fn input(&mut self, input: Input, env: &mut Env<'_>) {
        let now = self.local(env.at);
        let Some(market) = &mut self.market else { return };
        market.handle(now, input);
        self.settle(env);
    }

    pub(super) fn on_call(&mut self, link: LinkId, job: Job, env: &mut Env<'_>) {
        let now = self.local(env.at);
        let Some(buyer) = self.who(link) else { return };
        let Some(market) = &mut self.market else { return };
        market.used(now, link, true);
        let Token { lot, epoch, seq, .. } = &job.token;
        match market.admit(now, buyer, lot, *epoch, *seq) {
            Admitted::Run(lease) => self.begin(link, buyer, job, lease, env),
            Admitted::Repeated => {
                env.trace.line(env.at, 21, || format!("{:?} has had {}", self.contact.id, sight(&job)));
            }
            Admitted::Refused => {
                env.trace.line(env.at, 21, || format!("{:?} refuses {}", self.contact.id, sight(&job)));
            }
        }
        self.settle(env);
    }

    fn begin(&mut self, link: LinkId, buyer: NodeId, job: Job, lease: Lease, env: &mut Env<'_>) {
        let lot = &job.token.lot;
        if self.liar.is_none() {
            env.books.begins(job.call, job.attempt, env.catalog, lot);
        }
        if !self.offers.iter().any(|offer| offer.lot == *lot) {
            env.books.wrong(format!("{:?} runs {lot}, which it never had", self.contact.id));
        }
        self.numbers += 1;
        let (number, takes) = (self.numbers, job.takes);
        env.trace.line(env.at, 20, || format!("{:?} begins {}", self.contact.id, sight(&job)));
        self.running.push(Running { number, buyer, link, job, lease, cancelled: false });
        self.check_capacity(env);
        if !self.liar.as_ref().is_some_and(Liar::is_silent) {
            env.acts.push(Act::Later(takes, Later::Finished(number)));
        }
    }

    pub(super) fn on_finished(&mut self, number: u64, env: &mut Env<'_>) {
        let now = self.local(env.at);
        let Some(at) = self.running.iter().position(|running| running.number == number) else { return };
        self.note_full(env.at, env.checks);
        let Running { buyer, link, job, lease, cancelled, .. } = self.running.swap_remove(at);
        let Some(market) = &mut self.market else { return };
        env.trace.line(env.at, 22, || format!("{:?} has run {}", self.contact.id, sight(&job)));
        market.release(now, lease);
        if cancelled {
            return;
        }
        let worked = !self.is_flaky;
        let link = if self.who(link) == Some(buyer) { Some(link) } else { self.peer(buyer) };
        if let Some(link) = link {
            self.market.as_mut().expect("it is up").used(now, link, false);
            env.acts.push(Act::Send(link, Frame::Answer { job: job.clone(), worked }));
        }
        self.answers.push_back((buyer, job, worked));
        if self.answers.len() > ANSWERS_MAX {
            self.answers.pop_front();
        }
    }

    pub(super) fn on_answer(&mut self, link: LinkId, job: &Job, worked: bool, env: &mut Env<'_>) {
        let now = self.local(env.at);
        let Some(seller) = self.who(link) else { return };
        self.market.as_mut().expect("it is up").used(now, link, true);
        if seller != job.token.seller {
            return;
        }
        let Some(at) = self.open.iter().position(|open| open.token == job.token) else { return };
        let open = self.open.swap_remove(at);
        // A liar answers what it likes, and so does who has the identity of another one.
        if open.call != job.call && ![seller, self.contact.id].map(Some).contains(&env.liar) {
            env.books.wrong(format!("{} is answered as {}", sight(&open), sight(job)));
        }
        self.settled(&open, worked, env);
        env.books.ends(open.call, End::Done);
        self.settle(env);
    }

    fn settled(&mut self, job: &Job, worked: bool, env: &mut Env<'_>) {
        let now = self.local(env.at);
        let market = self.market.as_mut().expect("it is up");
        if !market.settled(now, &job.token, worked) {
            let (me, seller) = (self.contact.id, job.token.seller);
            env.books.wrong(format!("{me:?} has forgotten {} at {seller:?}", sight(job)));
        }
    }

    pub(super) fn on_over(&mut self, call: u32, env: &mut Env<'_>) {
        for line in &mut self.lines {
            let before = line.waiting.len();
            line.waiting.retain(|(waits, _)| *waits != call);
            if line.waiting.len() < before {
                env.books.ends(call, End::Refused);
                env.trace
                    .line(env.at, 23, || format!("{:?}: the time of call {call} is over", self.contact.id));
                return;
            }
        }
        let Some(at) = self.open.iter().position(|open| open.call == call) else { return };
        let job = self.open.swap_remove(at);
        env.trace.line(env.at, 24, || format!("{:?}: {} is late", self.contact.id, sight(&job)));
        // A call that was late already when it was sent says nothing about the seller.
        let worked = env.at.since(job.sent) < job.takes * 2 + SELLER_FAILS;
        self.settled(&job, worked, env);
        env.books.ends(call, End::Late);
    }

    /// An answer did not arrive: it is said again.
    fn on_unanswered(&mut self, buyer: NodeId, token: &Token, env: &mut Env<'_>) {
        let Some(link) = self.peer(buyer) else { return };
        let is_it = |(to, answer, _): &&(NodeId, Job, bool)| *to == buyer && answer.token == *token;
        if let Some((_, job, worked)) = self.answers.iter().find(is_it) {
            env.trace.line(env.at, 30, || format!("{:?} answers again: {}", self.contact.id, sight(job)));
            env.acts.push(Act::Send(link, Frame::Answer { job: job.clone(), worked: *worked }));
        }
    }

    pub(super) fn on_own_done(&mut self, env: &mut Env<'_>) {
        self.note_full(env.at, env.checks);
        let Some(market) = &mut self.market else { return };
        self.own -= 1;
        market.give_slot();
        env.trace.line(env.at, 25, || format!("{:?}: own work is done", self.contact.id));
    }

    pub(super) fn check_capacity(&mut self, env: &mut Env<'_>) {
        if self.liar.is_none() {
            env.books.runs(self.contact.id, self.running(), self.ceiling);
        }
        self.note_full(env.at, env.checks);
    }

    /// Lets the market have its say, and sends what waits for as long as there are tokens.
    pub(super) fn settle(&mut self, env: &mut Env<'_>) {
        let now = self.local(env.at);
        if let Some(market) = &mut self.market {
            market.settle(now);
        }
        loop {
            let had = self.outputs(env);
            let sent = self.dispatch(env);
            let told = self.tell(env);
            if !(had || sent || told) {
                break;
            }
        }
        self.check_slots(env);
        self.note_full(env.at, env.checks);
    }

    fn check_slots(&mut self, env: &mut Env<'_>) {
        let Some(market) = &self.market else { return };
        if self.liar.is_some() || !env.checks {
            return;
        }
        let (slots, free, own) = market.slots();
        let sold: u32 = market.sold().iter().map(|channel| channel.tokens + channel.running).sum();
        let taken = sold + own;
        if taken <= self.slots {
            self.ceiling = self.slots;
        }
        let (me, ceiling, running) = (self.contact.id, self.ceiling, self.running());
        if taken > ceiling {
            env.books.wrong(format!("{me:?} has given {taken} slots away and has {ceiling}"));
        }
        if (taken as usize) < running {
            env.books.wrong(format!("{me:?} runs {running} calls under {taken} slots"));
        }
        if slots != self.slots || free != slots.saturating_sub(taken) {
            env.books.wrong(format!("{me:?} has {slots} slots, {free} free, {sold} sold, {own} its own"));
        }
    }

    /// Remembers when there was nothing to spare.
    fn note_full(&mut self, at: Mono, checks: bool) {
        if self.running() as u64 >= u64::from(self.slots) {
            self.busy_at = at;
        }
        for offer in self.offers.iter_mut().filter(|_| checks) {
            let running = self.running.iter().filter(|running| running.job.token.lot == offer.lot).count();
            if running as u64 >= u64::from(offer.most) {
                offer.busy_at = at;
            }
        }
    }

    fn outputs(&mut self, env: &mut Env<'_>) -> bool {
        let mut had = false;
        while let Some(output) = self.market.as_mut().and_then(Market::poll) {
            match output {
                Output::Send { link, message } => env.acts.push(Act::Send(link, Frame::Market(message))),
                Output::Dial { contact } => env.acts.push(Act::Dial(contact)),
                Output::Roster(entries) => {
                    self.kept.extend(entries.into_iter().map(|entry| (entry.key, entry)))
                }
                Output::Authorities => {}
                Output::HangUp { link } => {
                    self.peers.retain(|peer| peer.link != link);
                    env.acts.push(Act::HangUp(link));
                }
                Output::Lost(lost) => {
                    for seq in &lost.seqs {
                        self.on_lost(&lost, *seq, env);
                    }
                }
                Output::Unanswered { buyer, lot, epoch, seq } => {
                    let token = Token { seller: self.contact.id, lot, epoch, seq };
                    self.on_unanswered(buyer, &token, env);
                }
                Output::Twins { contact } => {
                    env.trace.line(env.at, 29, || format!("{:?} sees twins: {contact:?}", self.contact.id));
                }
                Output::Gone { buyer, lot, epoch } => self.on_gone(buyer, &lot, epoch, env),
            }
            had = true;
        }
        had
    }

    fn on_lost(&mut self, lost: &Lost, seq: u64, env: &mut Env<'_>) {
        let Lost { seller, lot, epoch, begun, .. } = lost.clone();
        let token = Token { seller, lot, epoch, seq };
        let Some(at) = self.open.iter().position(|open| open.token == token) else {
            env.books.wrong(format!("{:?} has lost {token:?}, which is not open", self.contact.id));
            return;
        };
        let job = self.open.swap_remove(at);
        env.trace
            .line(env.at, 26, || format!("{:?} has lost {}, begun: {begun}", self.contact.id, sight(&job)));
        if begun {
            env.books.ends(job.call, End::Lost);
            return;
        }
        if self.liar.is_none() {
            env.books.denied(job.call, job.attempt);
        }
        let wish = env.books.call(job.call).wish;
        let at = env.at;
        let line = self.line(wish);
        if line.waiting.is_empty() {
            line.since = at;
        }
        line.waiting.push_front((job.call, job.takes));
    }

    fn on_gone(&mut self, buyer: NodeId, lot: &Lot, epoch: u64, env: &mut Env<'_>) {
        env.trace.line(env.at, 27, || format!("{:?}: {buyer:?} is gone, {lot} {epoch}", self.contact.id));
        for running in &mut self.running {
            let token = &running.job.token;
            if running.buyer == buyer && token.epoch == epoch && token.lot == *lot && !running.cancelled {
                // Nobody hears its answer, whether it stops now or runs to its end.
                running.cancelled = true;
                if !self.is_stubborn {
                    let stops = Duration::from_millis(env.chance.between((0, CANCEL_MS_MAX)));
                    env.acts.push(Act::Later(stops, Later::Finished(running.number)));
                }
            }
        }
        let is_its = |job: &Job| job.token.epoch == epoch && job.token.lot == *lot;
        self.answers.retain(|(to, job, _)| *to != buyer || !is_its(job));
    }

    /// Sends calls for as long as there are tokens. Whether there was one.
    fn dispatch(&mut self, env: &mut Env<'_>) -> bool {
        let now = self.local(env.at);
        let Some(market) = &mut self.market else { return false };
        let mut sent = false;
        let mut stuck = vec![false; self.lines.len()];
        loop {
            // Who has waited longest goes first: else a wish that much else fits takes what another one waits for.
            let able = self.lines.iter_mut().zip(&mut stuck).filter(|(_, stuck)| !**stuck);
            let oldest = able.filter_map(|(line, stuck)| Some((*line.waiting.front()?, line, stuck)));
            let Some(((call, takes), line, stuck)) = oldest.min_by_key(|((call, _), ..)| *call) else {
                break;
            };
            let (name, requirement) = env.catalog.wish(line.wish);
            let Some((token, link)) = market.choose(now, name, requirement, Horizon::Anywhere) else {
                *stuck = true;
                continue;
            };
            line.waiting.pop_front();
            line.since = env.at;
            let attempt = env.books.sent(call, env.catalog, &token.lot);
            if let Some((_, found @ None)) = &mut line.first {
                *found = Some(env.at);
            }
            let seller = token.seller;
            if !self.peers.iter().any(|peer| peer.link == link && peer.contact.id == seller) {
                env.books.wrong(format!("a token of {seller:?} is for {link:?}, which is not a link to it"));
            }
            let job = Job { token, call, attempt, takes, sent: env.at };
            if self.open.iter().any(|open| open.token == job.token) {
                env.books.wrong(format!("{:?} uses a token twice: {}", self.contact.id, sight(&job)));
            }
            env.trace
                .line(env.at, 28, || format!("{:?} sends {} to {seller:?}", self.contact.id, sight(&job)));
            env.acts.push(Act::Send(link, Frame::Call(job.clone())));
            self.open.push(job);
            sent = true;
        }
        if sent {
            market.settle(now);
        }
        sent
    }

    /// Tells the market how many calls wait. Whether that has changed.
    fn tell(&mut self, env: &mut Env<'_>) -> bool {
        let now = self.local(env.at);
        let Some(market) = &mut self.market else { return false };
        let mut told = false;
        for line in &mut self.lines {
            let waiting = u32::try_from(line.waiting.len()).unwrap_or(u32::MAX);
            if line.told != waiting {
                line.told = waiting;
                let (name, requirement) = env.catalog.wish(line.wish);
                market.demand(now, name, requirement, waiting);
                told = true;
            }
        }
        told
    }
}
