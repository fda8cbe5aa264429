//! What a choice costs.

use std::hint::black_box;
use std::sync::Arc;

use bourse_market::Horizon;
use bourse_market::balancer::Balancer;
use bourse_market::times::Times;
use bourse_wire::time::Mono;
use criterion::{Criterion, criterion_group, criterion_main};
use semver::{Version, VersionReq};

/// A key as long as that of the composition: a node and a number.
type Key = ([u8; 32], u64);

fn key(i: u32) -> Key {
    let mut node = [0; 32];
    node[..4].copy_from_slice(&i.wrapping_mul(0x9e37_79b9).to_be_bytes());
    (node, u64::from(i))
}

fn filled(channels: u32) -> Balancer<Key> {
    let mut balancer = Balancer::new(Arc::new(Times::default()), 1);
    for i in 0..channels {
        balancer.add(key(i), &Version::new(1, u64::from(i % 3), 0), Horizon::Network);
        balancer.set_tokens(key(i), 1 + i % 7);
    }
    balancer
}

fn choose(c: &mut Criterion) {
    let requirement: VersionReq = "^1.1".parse().expect("a requirement");
    for channels in [10, 1_000] {
        let mut balancer = filled(channels);
        c.bench_function(&format!("balancer/choose of {channels}"), |b| {
            b.iter(|| balancer.choose(Mono(1), black_box(&requirement), Horizon::Anywhere));
        });
        let mut tokens = 0;
        c.bench_function(&format!("balancer/choose and set_tokens of {channels}"), |b| {
            b.iter(|| {
                let key = balancer.choose(Mono(1), black_box(&requirement), Horizon::Anywhere);
                tokens = tokens % 7 + 1;
                balancer.set_tokens(key.expect("there are tokens"), tokens);
            });
        });
    }
}

criterion_group!(benches, choose);
criterion_main!(benches);
