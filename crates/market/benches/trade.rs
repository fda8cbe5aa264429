//! What a slot costs that is freed, granted to whose turn it is, and used.

use std::sync::Arc;

use bourse_market::Lot;
use bourse_market::channel::{Buying, Selling};
use bourse_market::listener::Listener;
use bourse_market::times::Times;
use bourse_wire::time::Mono;
use criterion::{Criterion, criterion_group, criterion_main};
use semver::Version;

fn listener(c: &mut Criterion) {
    let mut listener = Listener::new(500);
    (0..1_000_u32).for_each(|i| listener.claim(Mono(0), &i, u32::MAX));
    let mut holders: std::collections::VecDeque<_> = std::iter::from_fn(|| listener.next(Mono(0))).collect();
    let mut now = 1;
    c.bench_function("listener/give back and next of 1000", |b| {
        b.iter(|| {
            now += 1;
            listener.give_back(&holders.pop_front().expect("500 hold something"));
            holders.push_back(listener.next(Mono(now)).expect("one is free"));
        });
    });
}

fn channel(c: &mut Criterion) {
    let times = Arc::new(Times::default());
    let lot = Lot { module: "m".to_owned(), version: Version::new(1, 0, 0) };
    let mut selling = Selling::new(Arc::clone(&times), lot.clone(), 1);
    let mut buying = Buying::new(times, lot, 1);
    let mut now = 0;
    c.bench_function("channel/grant, spend, admit, finish, settle", |b| {
        b.iter(|| {
            now += 1_000;
            let now = Mono(now);
            buying.set_want(now, 1);
            if let Some(claim) = buying.poll() {
                selling.on_claim(now, &claim);
            }
            selling.grant(now);
            let grant = selling.poll().expect("a grant is said");
            assert!(buying.on_grant(now, &grant).is_empty());
            let seq = buying.spend(now).expect("a token is there");
            let _ = selling.admit(now, seq);
            selling.finish(now, seq);
            buying.settle(now, seq);
            assert_eq!(selling.returned(), 1);
        });
    });
}

criterion_group!(benches, listener, channel);
criterion_main!(benches);
