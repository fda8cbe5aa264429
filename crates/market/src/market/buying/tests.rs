//! What a buyer asks of its sellers. Each of these was a fault that the simulator found.

use bourse_wire::id::Incarnation;
use semver::Version;

use super::*;

const MODULE: &str = "m";

fn contact(n: u8) -> Contact {
    Contact {
        id: NodeId([n; 32]),
        incarnation: Incarnation(1),
        address: format!("{n}:7071"),
        domain: format!("{n}"),
    }
}

fn lot() -> Lot {
    Lot { module: MODULE.into(), version: Version::new(1, 0, 0) }
}

/// A buyer, and what it has said to each seller last.
struct Buyer {
    desk: Desk,
    said: BTreeMap<u8, Claim>,
    now: u64,
}

impl Buyer {
    fn new() -> Self {
        Self { desk: Desk::new(Arc::default(), contact(100), 7), said: BTreeMap::new(), now: 1 }
    }

    fn now(&self) -> Mono {
        Mono(0) + Duration::from_millis(self.now)
    }

    /// Lets time pass.
    fn wait(&mut self, millis: u64) {
        let until = self.now + millis;
        while self.now < until {
            self.now += 1;
            self.desk.handle_timeout(self.now());
            self.pump();
        }
    }

    fn pump(&mut self) {
        self.desk.pump(self.now());
        self.desk.check_invariants();
        for (seller, claim) in self.desk.claims() {
            self.said.insert(seller.0[0], claim);
        }
    }

    fn demand(&mut self, waiting: u32) {
        self.desk.demand(self.now(), MODULE, &VersionReq::STAR, waiting);
        self.pump();
    }

    fn find(&mut self, seller: u8) -> bool {
        let found = Match {
            requirement: VersionReq::STAR,
            revision: 1,
            lot: lot(),
            seller: contact(seller),
            offered: 1,
            quantity: 1,
            in_line: false,
        };
        let found = self.desk.on_found(self.now(), MODULE, &found);
        self.pump();
        found
    }

    /// The seller has heard the last claim, has granted so much so far, and wants so much of it back.
    fn grant(&mut self, seller: u8, granted: u64, revoked: u64) {
        let Claim { epoch, revision, .. } = self.said[&seller];
        let grant =
            Grant { lot: lot(), epoch, seen: revision, granted, revoked, void: Vec::new(), closed: false };
        self.desk.on_grant(self.now(), NodeId([seller; 32]), &grant);
        self.pump();
    }

    /// A call goes out and comes back.
    fn call(&mut self, worked: bool) {
        let token =
            self.desk.choose(self.now(), MODULE, &VersionReq::STAR, Horizon::Anywhere).expect("a token");
        let Token { seller, lot, epoch, seq } = token;
        self.pump();
        assert!(self.desk.settled(self.now(), seller, &lot, epoch, seq, worked));
        self.pump();
    }

    fn wants(&self, seller: u8) -> u32 {
        self.said[&seller].want
    }
}

#[test]
fn a_call_stands_in_few_lines_however_many_sellers_there_are() {
    let mut buyer = Buyer::new();
    buyer.demand(64);
    for seller in 1..=40 {
        assert!(buyer.find(seller));
        buyer.grant(seller, 0, 0);
    }
    let lines = |buyer: &Buyer| buyer.said.values().filter(|claim| claim.want > 0).count();
    buyer.wait(300);
    assert_eq!(lines(&buyer), 40);
    // 1. One that waits alone.
    buyer.demand(1);
    buyer.wait(300);
    assert_eq!(lines(&buyer), LINES_PER_CALL);
    // 2. Whoever is named meanwhile is asked as well, and goes on to be.
    let other = (1..=40).find(|seller| buyer.wants(*seller) == 0).unwrap();
    assert!(buyer.find(other));
    buyer.wait(100);
    buyer.grant(other, 0, 0);
    buyer.wait(300);
    assert_eq!((lines(&buyer), buyer.wants(other)), (LINES_PER_CALL + 1, 1));
    // 3. Nothing waits: nothing is asked for.
    buyer.demand(0);
    buyer.wait(2_500);
    assert_eq!(lines(&buyer), 0);
}

#[test]
fn a_seller_that_is_left_out_is_asked_for_nothing() {
    let mut buyer = Buyer::new();
    buyer.demand(4);
    buyer.find(1);
    buyer.grant(1, 2, 0);
    assert!(buyer.wants(1) > 0);
    buyer.call(false);
    buyer.wait(150);
    assert_eq!((buyer.wants(1), buyer.desk.tokens(MODULE, &VersionReq::STAR)), (0, 0));
    // After a while it is tried again.
    buyer.wait(200);
    assert!(buyer.wants(1) > 0);
}

#[test]
fn tokens_that_others_wait_for_are_not_kept_for_calls_to_come() {
    let mut buyer = Buyer::new();
    buyer.demand(1);
    buyer.find(1);
    buyer.grant(1, 1, 0);
    buyer.demand(0);
    buyer.call(true);
    buyer.grant(1, 2, 0);
    buyer.wait(300);
    assert_eq!(buyer.wants(1), 1, "it is kept for the next call");
    buyer.grant(1, 2, 2);
    buyer.wait(300);
    assert_eq!(buyer.wants(1), 0);
}

#[test]
fn a_seller_that_is_lost_without_a_call_has_not_failed() {
    let mut buyer = Buyer::new();
    buyer.demand(1);
    for _ in 0..5 {
        assert!(buyer.find(1), "it is asked again as soon as it is found");
        buyer.desk.on_link(buyer.now(), NodeId([1; 32]), false);
        buyer.pump();
    }
    // With a call, it has.
    buyer.find(1);
    buyer.grant(1, 1, 0);
    buyer.desk.choose(buyer.now(), MODULE, &VersionReq::STAR, Horizon::Anywhere).expect("a token");
    buyer.pump();
    buyer.desk.on_link(buyer.now(), NodeId([1; 32]), false);
    buyer.pump();
    assert!(!buyer.find(1));
}
