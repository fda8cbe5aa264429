//! Whole conversations, compared with `testdata/*.trace`. A change of one of those is a change of what is said: read it,
//! and refresh it with `BOURSE_BLESS=1`.

use bourse_market::broker;
use bourse_market::exchange::Exchange;
use bourse_market::message::Order;

use crate::common::{Trace, World, contact, found, id, ms, order, times, who};
use crate::scenarios::{self, buy, sell};

#[test]
fn joining_and_appointing() {
    let mut w = World::new();
    w.start(1, &[]).run(100);
    w.start(2, &[1]).run(100);
    w.start(3, &[2]).run(7_000);
    w.trace.check("joining_and_appointing");
}

#[test]
fn splitting_and_healing() {
    let mut w = scenarios::grid(3);
    w.trace.lines.clear();
    w.cut(&[1, 2], &[3]).run(1_200).heal().run(2_000);
    w.trace.check("splitting_and_healing");
}

#[test]
fn stepping_down() {
    let mut w = World::new();
    w.cut(&[1], &[2, 3, 4]).cut(&[2], &[3, 4]).cut(&[3], &[4]);
    (1..=4).for_each(|n| {
        w.start(n, &[1]);
    });
    w.run(2_000).heal().run(9_000);
    w.trace.lines.clear();
    w.run(9_000).trace.check("stepping_down");
}

#[test]
fn lost_authority() {
    let mut w = scenarios::grid(4);
    w.trace.lines.clear();
    let lost = w.serving()[0];
    w.stop(lost).run(6_000).trace.check("lost_authority");
}

/// What is said to an exchange, and what it finds.
struct Book {
    exchange: Exchange,
    trace: Trace,
    now: u64,
}

impl Book {
    fn new() -> Self {
        Self { exchange: Exchange::new(times(), "m".into()), trace: Trace::default(), now: 0 }
    }

    fn says(&mut self, n: u8, said: &Order) -> &mut Self {
        self.trace.line(ms(self.now), &format!("{}  {}", who(id(n)), order(said)));
        self.exchange.on_order(ms(self.now), &contact(n), said);
        self.found()
    }

    fn lost(&mut self, n: u8) -> &mut Self {
        self.trace.line(ms(self.now), &format!("{} is lost", who(id(n))));
        self.exchange.on_lost(id(n));
        self.found()
    }

    fn until(&mut self, millis: u64) -> &mut Self {
        self.now = millis;
        self.exchange.handle_timeout(ms(millis));
        self.found()
    }

    fn found(&mut self) -> &mut Self {
        self.exchange.check_invariants();
        while let Some(deal) = self.exchange.poll() {
            let line = format!("exchange -> {}  {}", who(deal.buyer), found(&deal.found));
            self.trace.line(ms(self.now), &line);
        }
        self
    }
}

#[test]
fn matches() {
    let mut b = Book::new();
    // 1. A match, then one in part; the rest comes when somebody else sells.
    b.says(1, &sell("1.0.0", 1, 4)).says(9, &buy("^1", 1, 3));
    b.until(10).says(8, &buy("^1", 1, 3));
    b.until(20).says(2, &sell("1.1.0", 1, 8));
    // 2. What was promised is free again after a while; a node is lost.
    b.until(30).says(7, &buy("<1.1", 1, 2)).until(300);
    b.lost(1).says(7, &buy("<1.1", 2, 2));
    b.trace.check("matches");
}

#[test]
fn broker_and_hosts() {
    let mut b = scenarios::broker(3);
    let mut trace = Trace::default();
    let mut say = |b: &mut broker::Broker, now: u64| {
        for (to, orders) in scenarios::sent(b, ms(now)) {
            trace.message(ms(now), id(100), to, &bourse_market::Message::Orders(orders));
        }
    };
    // 1. Orders, a change, a restatement that is due to an unfilled order as well.
    b.sell(ms(0), &scenarios::lot("1.0.0"), 8, false);
    b.buy(ms(0), "other", &"^2".parse().unwrap(), 1);
    say(&mut b, 0);
    b.sell(ms(5), &scenarios::lot("1.0.0"), 7, false);
    say(&mut b, 5);
    [20, 500, 1_500, 3_500, 5_000].into_iter().for_each(|now| say(&mut b, now));
    // 2. An authority is gone, and with it a host.
    let left: Vec<_> = (2..=3).map(contact).collect();
    b.set_authorities(ms(6_000), &left);
    say(&mut b, 6_000);
    // 3. What was found, or is not wanted any more, is withdrawn.
    b.buy(ms(7_000), "other", &"^2".parse().unwrap(), 0);
    say(&mut b, 7_000);
    say(&mut b, 11_000);
    trace.check("broker_and_hosts");
}
