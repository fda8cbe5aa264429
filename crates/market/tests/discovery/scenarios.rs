//! What has to be true, step by step. Each is a function, so that the planted faults can be tried on all of them.

use bourse_market::broker::{self, Broker};
use bourse_market::exchange::Exchange;
use bourse_market::message::{Match, Order, Orders, Terms};
use bourse_market::name::Lot;
use bourse_market::{Contact, Message, NodeId};
use bourse_wire::id::Incarnation;
use bourse_wire::time::Mono;
use std::collections::BTreeSet;

use crate::common::{World, contact, id, ms, times};

#[cfg(feature = "mutants")]
type Scenario = (&'static str, fn());

/// All of them.
#[cfg(feature = "mutants")]
pub const ALL: &[Scenario] = &[
    ("a_lone_node_serves_itself", a_lone_node_serves_itself),
    ("a_seed_that_is_gone", a_seed_that_is_gone),
    ("one_seed_is_enough", one_seed_is_enough),
    ("who_is_found_later_is_asked_at_once", who_is_found_later_is_asked_at_once),
    ("a_dead_authority_is_forgotten", a_dead_authority_is_forgotten),
    ("a_silent_authority_is_forgotten", a_silent_authority_is_forgotten),
    ("no_rumour_raises_the_dead", no_rumour_raises_the_dead),
    ("all_authorities_are_lost", all_authorities_are_lost),
    ("a_split_grid_heals", a_split_grid_heals),
    ("surplus_authorities_step_down", surplus_authorities_step_down),
    ("the_network_loses_much", the_network_loses_much),
    ("newest_version_then_first_come", newest_version_then_first_come),
    ("a_late_seller_serves_who_waited_longest", a_late_seller_serves_who_waited_longest),
    ("nothing_is_promised_twice", nothing_is_promised_twice),
    ("stale_orders_are_ignored", stale_orders_are_ignored),
    ("orders_of_the_lost_vanish", orders_of_the_lost_vanish),
    ("orders_not_said_again_vanish", orders_not_said_again_vanish),
    ("failure_domains_are_spread", failure_domains_are_spread),
    ("a_place_in_line_keeps_nobody_from_what_is_free", a_place_in_line_keeps_nobody_from_what_is_free),
    ("what_was_of_no_use_is_the_last_choice", what_was_of_no_use_is_the_last_choice),
    ("nobody_sells_to_itself", nobody_sells_to_itself),
    ("only_what_fits_is_sold", only_what_fits_is_sold),
    ("orders_are_restated", orders_are_restated),
    ("an_unfilled_order_is_repeated", an_unfilled_order_is_repeated),
    ("doubles_of_replicas_are_dropped", doubles_of_replicas_are_dropped),
    ("a_module_moves_to_another_host", a_module_moves_to_another_host),
];

macro_rules! tests {
    ($($name:ident)*) => {
        #[cfg(test)]
        mod each {
            $(#[test] fn $name() { super::$name(); })*
        }
    };
}

tests! {
    a_lone_node_serves_itself a_seed_that_is_gone one_seed_is_enough a_dead_authority_is_forgotten
    who_is_found_later_is_asked_at_once
    a_silent_authority_is_forgotten no_rumour_raises_the_dead all_authorities_are_lost a_split_grid_heals
    surplus_authorities_step_down the_network_loses_much newest_version_then_first_come
    what_was_of_no_use_is_the_last_choice a_place_in_line_keeps_nobody_from_what_is_free a_late_seller_serves_who_waited_longest nothing_is_promised_twice stale_orders_are_ignored
    orders_of_the_lost_vanish orders_not_said_again_vanish failure_domains_are_spread nobody_sells_to_itself
    only_what_fits_is_sold orders_are_restated an_unfilled_order_is_repeated doubles_of_replicas_are_dropped
    a_module_moves_to_another_host
}

/// A grid of so many nodes, the first one of which is the seed, settled.
pub fn grid(nodes: u8) -> World {
    let mut w = World::new();
    w.start(1, &[]);
    (2..=nodes).for_each(|n| {
        w.start(n, &[1]);
    });
    w.run(20_000);
    w.assert_agreed();
    w
}

fn a_lone_node_serves_itself() {
    let mut w = World::new();
    w.start(1, &[]).run(1);
    w.assert_agreed();
}

fn a_seed_that_is_gone() {
    // 1. Nobody answers: it serves itself after `alone`, and up to as much again.
    let mut w = World::new();
    w.start(2, &[1]).run(400);
    assert!(w.serving().is_empty());
    w.run(700);
    w.assert_agreed();
    // 2. The seed starts after all, and knows nobody: the two find each other, since one goes on to ask.
    w.start(1, &[]).run(70_000);
    w.assert_agreed();
    assert_eq!(w.serving(), [1, 2]);
}

fn one_seed_is_enough() {
    // 1. Ten nodes know one. There should be three authorities.
    let mut w = grid(10);
    assert_eq!(w.serving().len(), 3);
    // 2. In the steady state an ordinary node tells its two homes every 5 s that it is there, and nobody else anything.
    w.sent.clear();
    w.receivers.clear();
    w.run(60_000);
    for n in (1..=10).filter(|n| !w.serving().contains(n)) {
        assert_eq!(w.sent.get(&id(n)), Some(&24), "{n}");
        assert_eq!(w.receivers.iter().filter(|(from, _)| *from == id(n)).count(), 2);
    }
    // 3. The seed is lost, and somebody else takes its place.
    w.stop(1).run(20_000);
    w.assert_agreed();
    assert_eq!(w.serving().len(), 3);
}

fn who_is_found_later_is_asked_at_once() {
    // 1. Two that know nobody are two grids.
    let mut w = World::new();
    w.start(1, &[]).start(2, &[]).run(20_000);
    assert_eq!((w.believed(1), w.believed(2)), (vec![1], vec![2]));
    // 2. One finds the other. That it finds it again changes nothing.
    w.find(1, 2).run(2_000);
    w.assert_agreed();
    w.sent.clear();
    for _ in 0..20 {
        w.find(1, 2).run(10);
    }
    assert!(w.sent.values().sum::<usize>() <= 2, "{:?}", w.sent);
    // 3. One that was not there is asked again and again, until it is known to be gone.
    let asked = |w: &mut World| {
        w.receivers.clear();
        w.run(60_000).receivers.contains(&(id(1), id(9)))
    };
    w.find(1, 9);
    assert!(asked(&mut w));
    w.miss(1, 9);
    assert!(!asked(&mut w));
}

fn a_dead_authority_is_forgotten() {
    let mut w = grid(8);
    let dead = w.serving()[1];
    w.stop(dead).run(4_700);
    for n in w.nodes.keys() {
        assert!(!w.believed(n.0[0]).contains(&dead), "{n:?} believes in {dead}");
    }
}

fn a_silent_authority_is_forgotten() {
    // All links stay up, but nothing comes from it any more.
    let mut w = grid(6);
    w.loss_percent = 100;
    w.run(4_700);
    for n in w.serving() {
        let authority = w.nodes[&id(n)].authority.as_ref().unwrap();
        assert_eq!(authority.authorities().len(), 1, "{n} believes in somebody silent");
    }
}

fn no_rumour_raises_the_dead() {
    // 1. An authority is cut off from one other only: that one must not count it, whatever the third one says.
    let mut w = grid(3);
    assert_eq!(w.serving(), [1, 2, 3]);
    w.cut(&[1], &[2]).run(5_000);
    let listed = |w: &World, n: u8| -> Vec<u8> {
        w.nodes[&id(n)].authority.as_ref().unwrap().authorities().iter().map(|a| a.id.0[0]).collect()
    };
    assert_eq!(listed(&w, 1), [1, 3]);
    assert_eq!(listed(&w, 2), [2, 3]);
    // 2. Somebody names one that never was.
    let rumour = bourse_market::message::Mesh {
        contact: contact(3),
        view: 7,
        nodes: 1,
        authorities: vec![contact(3), contact(99)],
        roster: 0,
    };
    let now = w.now;
    let node = w.nodes.get_mut(&id(2)).unwrap();
    node.authority.as_mut().unwrap().on_message(now, id(3), &Message::Mesh(rumour));
    assert_eq!(listed(&w, 2), [2, 3]);
    // 3. The link can be made again.
    w.heal().run(9_700);
    w.assert_agreed();
}

fn all_authorities_are_lost() {
    let mut w = grid(10);
    for n in w.serving() {
        w.stop(n);
    }
    w.run(60_000);
    w.assert_agreed();
    assert_eq!(w.serving().len(), 3);
}

fn a_split_grid_heals() {
    let mut w = grid(12);
    // 1. Two halves, each of which has what it needs.
    let (ours, theirs): (Vec<u8>, Vec<u8>) = (1..=12).partition(|n| n % 2 == 0);
    w.cut(&ours, &theirs).run(30_000);
    assert!(!ours.iter().any(|n| w.believed(*n).iter().any(|a| theirs.contains(a))));
    assert!(w.believed(ours[0]).len() >= 3 && w.believed(theirs[0]).len() >= 3);
    // 2. They find each other, and then agree.
    w.heal().run(9_700 + 5_000);
    w.assert_agreed();
    // 3. The surplus ones step down.
    w.run(120_000);
    w.assert_agreed();
    assert_eq!(w.serving().len(), 3);
}

fn surplus_authorities_step_down() {
    // 1. Five that know nothing of each other serve themselves.
    let mut w = World::new();
    w.cut(&[1], &[2, 3, 4, 5]).cut(&[2], &[3, 4, 5]).cut(&[3], &[4, 5]).cut(&[4], &[5]);
    (1..=5).for_each(|n| {
        w.start(n, &[1, 2]);
    });
    w.run(3_000);
    assert_eq!(w.serving().len(), 5);
    // 2. When they can reach each other, two too many step down, and never more than there are too many.
    w.heal();
    for _ in 0..600 {
        w.run(100);
        assert!(w.serving().len() >= 3, "too many have stepped down");
    }
    w.assert_agreed();
    assert_eq!(w.serving().len(), 3);
}

fn the_network_loses_much() {
    for seed in 1..6 {
        let mut w = World::new().with_chance(seed);
        w.loss_percent = 30;
        w.start(1, &[]);
        (2..=9).for_each(|n| {
            w.start(n, &[1]);
        });
        w.run(20_000);
        // All that is wrong now is right within 2 × mesh + silence_max, and the members know within `join`.
        w.loss_percent = 0;
        w.run(4_700 + 5_000 + 5_000);
        w.assert_agreed();
    }
}

pub fn sell(version: &str, revision: u64, quantity: u32) -> Order {
    Order {
        module: "m".into(),
        terms: Terms::Sell(version.parse().unwrap()),
        revision,
        quantity,
        in_line: false,
    }
}

pub fn buy(requirement: &str, revision: u64, quantity: u32) -> Order {
    Order {
        module: "m".into(),
        terms: Terms::Buy(requirement.parse().unwrap()),
        revision,
        quantity,
        in_line: false,
    }
}

/// Buyer, seller, version, quantity.
fn deals(exchange: &mut Exchange) -> Vec<(u8, u8, String, u32)> {
    exchange.check_invariants();
    std::iter::from_fn(|| exchange.poll())
        .map(|d| {
            let found = d.found;
            (d.buyer.0[0], found.seller.id.0[0], found.lot.version.to_string(), found.quantity)
        })
        .collect()
}

fn deal(buyer: u8, seller: u8, version: &str, quantity: u32) -> (u8, u8, String, u32) {
    (buyer, seller, version.to_owned(), quantity)
}

fn exchange() -> Exchange {
    Exchange::new(times(), "m".into())
}

fn newest_version_then_first_come() {
    let mut e = exchange();
    let same_rack = |n| Contact { domain: "rack".into(), ..contact(n) };
    e.on_order(ms(0), &same_rack(3), &sell("1.0.0", 1, 4));
    e.on_order(ms(1), &same_rack(2), &sell("1.1.0", 1, 4));
    e.on_order(ms(2), &same_rack(1), &sell("1.1.0", 1, 4));
    e.on_order(ms(3), &contact(9), &buy("^1.0", 1, 10));
    assert_eq!(deals(&mut e), [deal(9, 2, "1.1.0", 4), deal(9, 1, "1.1.0", 4), deal(9, 3, "1.0.0", 2)]);
}

fn a_late_seller_serves_who_waited_longest() {
    let mut e = exchange();
    e.on_order(ms(0), &contact(9), &buy("^1.0", 1, 5));
    e.on_order(ms(1), &contact(8), &buy("1", 1, 5));
    // Said again with a new revision, it keeps its place.
    e.on_order(ms(2), &contact(9), &buy("^1.0", 2, 6));
    e.on_order(ms(3), &contact(1), &sell("1.4.0", 1, 8));
    assert_eq!(deals(&mut e), [deal(9, 1, "1.4.0", 6), deal(8, 1, "1.4.0", 2)]);
    e.on_order(ms(4), &contact(2), &sell("1.4.0", 1, 8));
    assert_eq!(deals(&mut e), [deal(8, 2, "1.4.0", 3)]);
}

fn nothing_is_promised_twice() {
    let mut e = exchange();
    e.on_order(ms(0), &contact(1), &sell("1.0.0", 1, 4));
    e.on_order(ms(0), &contact(9), &buy("1", 1, 4));
    assert_eq!(deals(&mut e), [deal(9, 1, "1.0.0", 4)]);
    // 1. Saying it again changes nothing.
    e.on_order(ms(1), &contact(1), &sell("1.0.0", 1, 4));
    e.on_order(ms(1), &contact(8), &buy("1", 1, 1));
    assert_eq!(deals(&mut e), []);
    // 2. Who waits gets it when the promise is over: nobody waits for ever.
    assert_eq!(e.poll_timeout(), Some(ms(250)));
    e.handle_timeout(ms(250));
    assert_eq!(deals(&mut e), [deal(8, 1, "1.0.0", 1)]);
    // 3. Or when the seller has another revision.
    e.on_order(ms(260), &contact(7), &buy("1", 1, 4));
    assert_eq!(deals(&mut e), [deal(7, 1, "1.0.0", 3)]);
    e.on_order(ms(261), &contact(1), &sell("1.0.0", 2, 4));
    assert_eq!(deals(&mut e), [deal(7, 1, "1.0.0", 1)]);
}

fn stale_orders_are_ignored() {
    let mut e = exchange();
    let again = |n| Contact { incarnation: Incarnation(2), ..contact(n) };
    // 1. An order that comes late, after it was withdrawn.
    e.on_order(ms(0), &contact(1), &sell("1.0.0", 5, 0));
    e.on_order(ms(1), &contact(1), &sell("1.0.0", 4, 8));
    e.on_order(ms(2), &contact(9), &buy("1", 1, 1));
    assert_eq!(deals(&mut e), []);
    // 2. The node starts anew, and its revisions with it.
    e.on_order(ms(3), &again(1), &sell("1.0.0", 1, 1));
    assert_eq!(deals(&mut e), [deal(9, 1, "1.0.0", 1)]);
    // 3. What its earlier life has said is nothing any more.
    e.on_order(ms(4), &contact(1), &sell("1.0.0", 9, 8));
    e.on_order(ms(5), &contact(9), &buy("1", 2, 1));
    assert_eq!(deals(&mut e), []);
    // 4. Among all orders one is not named: it is void, until it is named again.
    e.on_order(ms(6), &again(2), &sell("1.0.0", 3, 0));
    e.on_order(ms(6), &again(2), &sell("2.0.0", 4, 2));
    e.on_all(ms(7), id(2), |terms| matches!(terms, Terms::Sell(v) if v.major == 1));
    e.on_order(ms(8), &contact(8), &buy("2", 1, 1));
    assert_eq!(deals(&mut e), []);
    e.on_order(ms(9), &again(2), &sell("2.0.0", 4, 2));
    assert_eq!(deals(&mut e), [deal(8, 2, "2.0.0", 1)]);
}

fn a_place_in_line_keeps_nobody_from_what_is_free() {
    let mut e = exchange();
    let line = |version: &str, revision: u64| Order { in_line: true, ..sell(version, revision, 1) };
    // 1. What is free goes first, however old it is; where nothing is free, there is a line, once for each revision.
    e.on_order(ms(0), &contact(1), &line("1.1.0", 1));
    e.on_order(ms(0), &contact(2), &sell("1.0.0", 1, 1));
    e.on_order(ms(1), &contact(9), &buy("1", 1, 2));
    assert_eq!(deals(&mut e), [deal(9, 2, "1.0.0", 1), deal(9, 1, "1.1.0", 1)]);
    e.on_order(ms(2), &contact(3), &line("1.0.0", 1));
    assert_eq!(deals(&mut e), []);
    // 2. Who stands in line is matched with what comes free.
    e.on_order(ms(3), &contact(4), &sell("1.0.0", 1, 1));
    assert_eq!(deals(&mut e), [deal(9, 4, "1.0.0", 1)]);
    // 3. Another revision: another line. And one that waits is let into a line as soon as there is one.
    e.on_order(ms(4), &contact(9), &buy("1", 2, 1));
    assert_eq!(deals(&mut e), [deal(9, 3, "1.0.0", 1)]);
    e.on_order(ms(5), &contact(8), &buy("1", 1, 1));
    assert_eq!(deals(&mut e), []);
    e.on_order(ms(6), &contact(2), &sell("1.0.0", 2, 0));
    e.on_order(ms(6), &contact(4), &sell("1.0.0", 2, 0));
    e.handle_timeout(ms(254));
    assert_eq!(deals(&mut e), [deal(8, 1, "1.1.0", 1)]);
    // 4. A line that becomes a free slot goes to who has waited longest, whether it stands in line or not.
    e.on_order(ms(255), &contact(3), &sell("1.0.0", 2, 1));
    assert_eq!(deals(&mut e), [deal(9, 3, "1.0.0", 1)]);
    assert!(e.orders().filter(|(_, order)| order.in_line).map(|(node, _)| node).eq([id(1), id(8), id(9)]));
}

fn what_was_of_no_use_is_the_last_choice() {
    let mut e = exchange();
    e.on_order(ms(0), &contact(1), &sell("1.1.0", 1, 4));
    e.on_order(ms(0), &contact(2), &sell("1.0.0", 1, 4));
    e.on_order(ms(1), &contact(9), &buy("1", 1, 2));
    assert_eq!(deals(&mut e), [deal(9, 1, "1.1.0", 2)]);
    // 1. Repeated: nothing came of it. Another one is tried, though its version is older, and the first again after that.
    e.on_order(ms(300), &contact(9), &buy("1", 2, 2));
    assert_eq!(deals(&mut e), [deal(9, 2, "1.0.0", 2)]);
    e.on_order(ms(600), &contact(9), &buy("1", 3, 2));
    assert_eq!(deals(&mut e), [deal(9, 1, "1.1.0", 2)]);
    // 2. The first one says something new, whatever it is, and more is wanted: it is as good as any.
    e.on_order(ms(900), &contact(1), &sell("1.1.0", 2, 3));
    e.on_order(ms(901), &contact(9), &buy("1", 4, 3));
    assert_eq!(deals(&mut e), [deal(9, 1, "1.1.0", 3)]);
    // 3. Another buyer has not tried anything.
    e.on_order(ms(1_200), &contact(1), &sell("1.1.0", 3, 3));
    e.on_order(ms(1_201), &contact(8), &buy("1", 1, 1));
    assert_eq!(deals(&mut e), [deal(8, 1, "1.1.0", 1)]);
}

fn orders_of_the_lost_vanish() {
    let mut e = exchange();
    e.on_order(ms(0), &contact(1), &sell("1.0.0", 1, 4));
    e.on_lost(id(1));
    e.on_order(ms(1), &contact(9), &buy("1", 1, 1));
    assert_eq!(deals(&mut e), []);
    assert_eq!(e.orders().count(), 1);
    e.on_lost(id(9));
    assert!(e.is_empty());
}

fn orders_not_said_again_vanish() {
    let mut e = exchange();
    e.on_order(ms(0), &contact(1), &sell("1.0.0", 1, 4));
    e.on_order(ms(0), &contact(2), &sell("1.0.0", 1, 4));
    e.on_order(ms(10_000), &contact(2), &sell("1.0.0", 1, 4));
    e.handle_timeout(ms(16_000));
    assert_eq!(e.orders().map(|(node, _)| node).collect::<Vec<_>>(), [id(2)]);
    e.handle_timeout(ms(26_000));
    assert!(e.is_empty());
    e.check_invariants();
}

fn failure_domains_are_spread() {
    let mut e = exchange();
    for n in 1..=6 {
        let domain = format!("rack {}", n % 3);
        e.on_order(ms(0), &Contact { domain, ..contact(n) }, &sell("1.0.0", 1, 8));
    }
    // 1. What one buyer wants comes from as many racks as there are.
    e.on_order(ms(1), &contact(9), &buy("1", 1, 6));
    assert_eq!(deals(&mut e), [deal(9, 1, "1.0.0", 2), deal(9, 2, "1.0.0", 2), deal(9, 3, "1.0.0", 2)]);
    // 2. Also if it wants one at a time.
    let sellers: BTreeSet<u8> = (2..5)
        .flat_map(|revision| {
            e.on_order(ms(revision), &contact(9), &buy("1", revision, 1));
            deals(&mut e)
        })
        .map(|(_, seller, ..)| seller % 3)
        .collect();
    assert_eq!(sellers.len(), 3);
}

fn nobody_sells_to_itself() {
    let mut e = exchange();
    e.on_order(ms(0), &contact(1), &sell("1.0.0", 1, 4));
    e.on_order(ms(1), &contact(1), &buy("1", 1, 4));
    assert_eq!(deals(&mut e), []);
    e.on_order(ms(2), &contact(2), &buy("1", 1, 1));
    e.on_order(ms(3), &contact(2), &sell("1.0.0", 1, 9));
    assert_eq!(deals(&mut e), [deal(2, 1, "1.0.0", 1), deal(1, 2, "1.0.0", 4)]);
}

fn only_what_fits_is_sold() {
    let mut e = exchange();
    e.on_order(ms(0), &contact(1), &sell("2.0.0", 1, 4));
    e.on_order(ms(1), &contact(9), &buy("^1.2", 1, 4));
    e.on_order(ms(2), &contact(2), &sell("1.1.9", 1, u32::MAX));
    assert_eq!(deals(&mut e), []);
    e.on_order(ms(3), &contact(3), &sell("1.3.0", 1, u32::MAX));
    assert_eq!(deals(&mut e), [deal(9, 3, "1.3.0", 4)]);
}

pub fn lot(version: &str) -> Lot {
    Lot { module: "m".into(), version: version.parse().unwrap() }
}

/// A broker with so many authorities, all of them linked.
pub fn broker(authorities: u8) -> Broker {
    let mut b = Broker::new(times(), contact(100));
    let authorities: Vec<Contact> = (1..=authorities).map(contact).collect();
    authorities.iter().for_each(|a| b.on_link(ms(0), a.id, true));
    b.set_authorities(ms(0), &authorities);
    b
}

pub fn sent(b: &mut Broker, now: Mono) -> Vec<(NodeId, Orders)> {
    b.handle_timeout(now);
    b.check_invariants();
    let outputs = std::iter::from_fn(|| b.poll()).filter_map(|output| match output {
        broker::Output::Send(e) => Some(e),
        broker::Output::Found(_) => None,
    });
    let orders = outputs.map(|e| match e.message {
        Message::Orders(orders) => (e.to, orders),
        other => panic!("{other:?}"),
    });
    orders.collect()
}

fn orders_are_restated() {
    let mut b = broker(3);
    b.sell(ms(0), &lot("1.0.0"), 8, false);
    b.sell(ms(0), &lot("1.1.0"), 8, false);
    // 1. Each of the two hosts gets one message.
    let first = sent(&mut b, ms(0));
    assert_eq!(first.len(), 2);
    assert!(first.iter().all(|(_, o)| o.all && o.orders.len() == 2));
    // 2. What changes soon after is collected.
    b.sell(ms(1), &lot("1.0.0"), 2, false);
    b.sell(ms(2), &lot("1.0.0"), 1, false);
    assert_eq!(sent(&mut b, ms(3)), []);
    let second = sent(&mut b, ms(20));
    assert_eq!(second.len(), 2);
    assert!(second.iter().all(|(_, o)| !o.all && o.orders.len() == 1 && o.orders[0].quantity == 1));
    // A few slots more or less are not worth a message.
    b.sell(ms(21), &lot("1.1.0"), 6, false);
    assert_eq!(sent(&mut b, ms(50)), []);
    // 3. Then one message to each host every 5 s, and nothing else.
    let mut all = Vec::new();
    while let Some(at) = b.poll_timeout().filter(|at| *at <= ms(20_000)) {
        all.extend(sent(&mut b, at));
    }
    assert_eq!(all.len(), 8);
    assert!(all.iter().all(|(_, o)| o.all && o.orders.len() == 2));
}

fn an_unfilled_order_is_repeated() {
    let mut b = broker(1);
    b.buy(ms(0), "m", &"1".parse().unwrap(), 3);
    let mut revisions = Vec::new();
    let mut at = ms(0);
    while at <= ms(30_000) {
        revisions.extend(sent(&mut b, at).into_iter().flat_map(|(_, o)| o.orders).map(|o| (at, o.revision)));
        at = b.poll_timeout().unwrap();
    }
    // At 0.5 s, then every second.
    assert!(revisions.is_sorted_by(|a, b| a.1 <= b.1 && a.0 < b.0), "{revisions:?}");
    assert_eq!(revisions[1].0, ms(500));
    let anew: std::collections::BTreeSet<u64> = revisions.iter().map(|(_, revision)| *revision).collect();
    assert_eq!(anew.len(), 31, "{revisions:?}");
    assert!(revisions.len() <= 31 + 6, "restatements say nothing new: {revisions:?}");
    b.buy(ms(30_000), "m", &"1".parse().unwrap(), 0);
    // The withdrawal, and that there is nothing else.
    assert_eq!(sent(&mut b, ms(30_020)).len(), 2);
    assert_eq!(b.poll_timeout(), None, "nothing is left to be said");
}

fn doubles_of_replicas_are_dropped() {
    let mut b = broker(2);
    b.buy(ms(0), "m", &"1".parse().unwrap(), 5);
    let revision = sent(&mut b, ms(0))[0].1.orders[0].revision;
    let found = |seller: u8, offered: u64, quantity: u32| Match {
        requirement: "1".parse().unwrap(),
        revision,
        lot: lot("1.0.0"),
        seller: contact(seller),
        offered,
        quantity,
        in_line: false,
    };
    let passed = |b: &mut Broker, from: u8, m: Match| -> Option<u32> {
        b.on_message(ms(1), id(from), &Message::Matches(vec![m]));
        b.check_invariants();
        b.poll().map(|output| match output {
            broker::Output::Found(f) => f.found.quantity,
            broker::Output::Send(e) => panic!("{e:?}"),
        })
    };
    // 1. Both replicas find the same, and one of them says it twice.
    assert_eq!(passed(&mut b, 1, found(7, 3, 2)), Some(2));
    assert_eq!(passed(&mut b, 1, found(7, 3, 2)), None);
    assert_eq!(passed(&mut b, 2, found(7, 3, 2)), None);
    // 2. Another seller; no more than is wanted is passed on.
    assert_eq!(passed(&mut b, 2, found(8, 1, 4)), Some(3));
    assert_eq!(passed(&mut b, 1, found(9, 1, 1)), None);
    // 3. Nonsense.
    assert_eq!(passed(&mut b, 1, Match { lot: lot("2.0.0"), ..found(9, 1, 1) }), None);
    assert_eq!(passed(&mut b, 1, Match { seller: contact(100), ..found(9, 1, 1) }), None);
    assert_eq!(passed(&mut b, 1, Match { revision: revision + 1, ..found(9, 1, 1) }), None);
    // 4. Wanted anew, it may be found anew.
    b.handle_timeout(ms(500));
    let again = sent(&mut b, ms(500))[0].1.orders[0].revision;
    assert_eq!(passed(&mut b, 1, Match { revision: again, ..found(7, 3, 2) }), Some(2));
    assert_eq!(passed(&mut b, 2, Match { revision: again, ..found(7, 3, 2) }), None);
}

fn a_module_moves_to_another_host() {
    let mut b = broker(3);
    b.sell(ms(0), &lot("1.0.0"), 8, false);
    let before: BTreeSet<NodeId> = sent(&mut b, ms(0)).into_iter().map(|(to, _)| to).collect();
    // 1. One of its hosts is no authority any more, but still linked.
    let gone = *before.first().unwrap();
    let left: Vec<Contact> = (1..=3).map(contact).filter(|c| c.id != gone).collect();
    b.set_authorities(ms(1_000), &left);
    let after = sent(&mut b, ms(1_000));
    let voided: Vec<_> = after.iter().filter(|(to, _)| *to == gone).collect();
    assert!(matches!(&voided[..], [(_, o)] if o.all && o.orders.is_empty()), "{after:?}");
    let new: Vec<_> = after.iter().filter(|(to, _)| !before.contains(to)).collect();
    assert!(matches!(&new[..], [(_, o)] if o.all && o.orders.len() == 1), "{after:?}");
    // 2. A link breaks, and is dialed with a growing pause; when it is there again, all is said.
    let host = left[0].id;
    b.on_link(ms(2_000), host, false);
    b.on_link(ms(2_500), host, true);
    let again = sent(&mut b, ms(2_500));
    assert!(matches!(&again[..], [(to, o)] if *to == host && o.all && o.orders.len() == 1), "{again:?}");
}
