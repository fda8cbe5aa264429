//! What one module's order book costs: updates of orders, and matches, at 1,000 and 100,000 orders.
//!
//! `cargo bench -p bourse-market --bench exchange`. At least 500,000 updates/s are wanted of one core; the cost of a match
//! should grow with the logarithm of the number of orders.

use std::hint::black_box;
use std::sync::Arc;

use bourse_market::exchange::Exchange;
use bourse_market::message::{Order, Terms};
use bourse_market::times::Times;
use bourse_market::{Contact, NodeId};
use bourse_wire::id::Incarnation;
use bourse_wire::time::Mono;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const DOMAINS: usize = 50;

fn contact(n: usize) -> Contact {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    let address = format!("10.{}.{}.{}:7777", n >> 16 & 255, n >> 8 & 255, n & 255);
    Contact { id: NodeId(id), incarnation: Incarnation(1), address, domain: format!("rack {}", n % DOMAINS) }
}

fn sell(revision: u64, quantity: u32) -> Order {
    let terms = Terms::Sell("1.2.3".parse().expect("a version"));
    Order { module: "thumbnails".into(), terms, revision, quantity, in_line: false }
}

fn buy(revision: u64, quantity: u32) -> Order {
    let terms = Terms::Buy("^1.2".parse().expect("a requirement"));
    Order { module: "thumbnails".into(), terms, revision, quantity, in_line: false }
}

/// A book with one sell order of each of the nodes.
fn book(nodes: &[Contact]) -> Exchange {
    let mut exchange = Exchange::new(Arc::new(Times::default()), "thumbnails".into());
    for node in nodes {
        exchange.on_order(Mono(0), node, &sell(1, 8));
    }
    exchange
}

fn updates(c: &mut Criterion) {
    let mut group = c.benchmark_group("update");
    group.throughput(Throughput::Elements(1));
    for n in [1_000, 100_000] {
        let nodes: Vec<Contact> = (0..n).map(contact).collect();
        // 1. How many slots are free changes; nobody buys.
        group.bench_function(BenchmarkId::new("sell", n), |b| {
            let mut exchange = book(&nodes);
            let (mut at, mut revision) = (0, 1);
            let mut orders = [sell(0, 3), sell(0, 0), sell(0, 7)];
            b.iter(|| {
                at = (at + 7_919) % n;
                revision += 1;
                let order = &mut orders[revision as usize % 3];
                order.revision = revision;
                exchange.on_order(Mono(1), black_box(&nodes[at]), order);
            });
        });
        // 2. Half of the nodes sell and half of them buy: most updates are matched.
        group.bench_function(BenchmarkId::new("mixed", n), |b| {
            let mut exchange = book(&nodes);
            let (mut at, mut revision) = (0, 1);
            let (mut sells, mut buys) = (sell(0, 4), buy(0, 4));
            let mut now = 0;
            b.iter(|| {
                at = (at + 7_919) % n;
                revision += 1;
                now += 2_000;
                let order = if at % 2 == 0 { &mut sells } else { &mut buys };
                order.revision = revision;
                exchange.on_order(Mono(now), black_box(&nodes[at]), order);
                if exchange.poll_timeout().is_some_and(|at| at <= Mono(now)) {
                    exchange.handle_timeout(Mono(now));
                }
                while let Some(deal) = exchange.poll() {
                    black_box(deal);
                }
            });
        });
    }
    group.finish();
}

fn matches(c: &mut Criterion) {
    let mut group = c.benchmark_group("match");
    group.throughput(Throughput::Elements(1));
    for n in [1_000, 10_000, 100_000, 1_000_000] {
        let nodes: Vec<Contact> = (0..n).map(contact).collect();
        let buyer = contact(n);
        group.bench_function(BenchmarkId::from_parameter(n), |b| {
            let mut exchange = book(&nodes);
            let mut revision = 1;
            let mut order = buy(0, 1);
            let mut now = 0;
            b.iter(|| {
                revision += 1;
                now += 1_000;
                order.revision = revision;
                exchange.on_order(Mono(now), &buyer, black_box(&order));
                if exchange.poll_timeout().is_some_and(|at| at <= Mono(now)) {
                    exchange.handle_timeout(Mono(now));
                }
                black_box(exchange.poll())
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2))
        .without_plots();
    targets = updates, matches
}
criterion_main!(benches);
