//! The list of keys: all nodes end with the same, whatever comes twice, late, or not at all.

use bourse_market::NodeId;
use bourse_market::roster::{ENTRIES_PER_MESSAGE, Entry, Refused, Roster, Standing, Told};
use proptest::prelude::*;

fn key(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn entry(n: u8, revision: u64, standing: Standing) -> Entry {
    Entry { key: key(n), revision, standing, name: String::new() }
}

fn told(entries: Vec<Entry>) -> Told {
    Told { digest: 0, asks: false, entries }
}

fn standing(roster: &Roster, n: u8) -> Option<Standing> {
    roster.get(key(n)).map(|entry| entry.standing)
}

#[test]
fn what_changes_is_told_and_kept() {
    let mut roster = Roster::new(vec![entry(1, 3, Standing::Member)]);
    assert_eq!((roster.changed().len(), roster.news()), (0, None), "what was kept is no news");
    // 1. Somebody comes, and again: once is enough.
    roster.admit(key(2), "birch").unwrap();
    roster.admit(key(2), "birch").unwrap();
    assert_eq!(roster.changed(), [Entry { name: "birch".into(), ..entry(2, 1, Standing::Member) }]);
    assert_eq!(roster.news().unwrap().entries.len(), 1);
    assert_eq!(roster.news(), None);
    // 2. It goes, under its name; it may come back.
    roster.revoke(key(2)).unwrap();
    assert_eq!(roster.changed(), [Entry { name: "birch".into(), ..entry(2, 2, Standing::Revoked) }]);
    roster.admit(key(2), "").unwrap();
    assert_eq!(roster.get(key(2)).unwrap().name, "birch");
    // 3. Bad input.
    assert_eq!(roster.revoke(key(9)), Err(Refused::Unknown));
    assert_eq!(roster.admit(key(3), &"x".repeat(65)), Err(Refused::LongName));
    roster.check_invariants();
}

#[test]
fn the_greater_revision_counts_and_then_what_lets_less_in() {
    let mut roster = Roster::default();
    let hear = |roster: &mut Roster, e: Entry| {
        roster.on_told(&told(vec![e]));
        roster.check_invariants();
        roster.news().is_some()
    };
    assert!(hear(&mut roster, entry(1, 2, Standing::Member)));
    assert!(!hear(&mut roster, entry(1, 1, Standing::Revoked)), "an old one");
    assert!(!hear(&mut roster, entry(1, 2, Standing::Member)), "the same");
    assert!(hear(&mut roster, entry(1, 2, Standing::Revoked)));
    assert!(!hear(&mut roster, entry(1, 2, Standing::Ticket(7))));
    assert_eq!(standing(&roster, 1), Some(Standing::Revoked));
    // Nonsense.
    assert!(!hear(&mut roster, entry(1, u64::MAX, Standing::Member)));
    assert!(!hear(&mut roster, entry(2, 0, Standing::Member)));
    assert!(!hear(&mut roster, Entry { name: "x".repeat(65), ..entry(2, 1, Standing::Member) }));
}

/// Two that have lost everything that they said to each other.
#[test]
fn lists_that_differ_become_one() {
    let (mut a, mut b) = (Roster::default(), Roster::default());
    for n in 0..200u8 {
        a.admit(key(n), "a").unwrap();
        b.admit(key(n / 2 + 100), "b").unwrap();
    }
    for n in 0..=255u8 {
        for rest in 1..4 {
            let mut id = [n; 32];
            id[31] = n.wrapping_add(rest);
            a.invite(NodeId(id), 5, "").unwrap();
        }
    }
    while a.news().is_some() || b.news().is_some() {}
    // The digest of one comes to the other with a join; from then on all follows.
    let (mut to_a, mut to_b) = (b.on_digest(a.digest()), Vec::new());
    let mut messages = 0;
    while !to_a.is_empty() || !to_b.is_empty() {
        for told in std::mem::take(&mut to_a) {
            messages += 1;
            assert!(told.entries.len() <= ENTRIES_PER_MESSAGE);
            to_b.extend(a.on_told(&told));
        }
        for told in std::mem::take(&mut to_b) {
            messages += 1;
            to_a.extend(b.on_told(&told));
        }
    }
    assert_eq!(a.digest(), b.digest());
    assert!(a.entries().eq(b.entries()));
    assert!(messages <= 4, "{messages}");
    assert_eq!(a.on_digest(b.digest()), [], "who has the same says nothing");
    (a.check_invariants(), b.check_invariants()).0
}

#[cfg(feature = "mutants")]
#[test]
fn each_planted_fault_is_found() {
    use bourse_market::mutant;
    let tests = [the_greater_revision_counts_and_then_what_lets_less_in, lists_that_differ_become_one];
    for fault in mutant::ROSTER {
        mutant::choose(Some(*fault));
        let found = tests.iter().any(|test| std::panic::catch_unwind(test).is_err());
        mutant::choose(None);
        assert!(found, "nobody has noticed {fault:?}");
    }
}

proptest! {
    /// In whatever order the same entries come, the list is the same.
    #[test]
    fn the_order_does_not_matter(
        all in prop::collection::vec((0..5u8, 1..4u64, 0..3u8), 1..30),
        seed in any::<u64>(),
    ) {
        let of = |(n, revision, what): &(u8, u64, u8)| {
            entry(*n, *revision, [Standing::Member, Standing::Ticket(1), Standing::Revoked][usize::from(*what)])
        };
        let mut other = all.clone();
        let mut word = seed;
        for at in (1..other.len()).rev() {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            other.swap(at, usize::try_from(word >> 33).unwrap() % (at + 1));
        }
        let (mut a, mut b) = (Roster::default(), Roster::default());
        all.iter().for_each(|e| _ = a.on_told(&told(vec![of(e)])));
        other.iter().for_each(|e| _ = b.on_told(&told(vec![of(e)])));
        prop_assert_eq!(a.digest(), b.digest());
        prop_assert!(a.entries().eq(b.entries()));
        a.check_invariants();
    }
}
