//! What a round trip of a small frame costs over tcp and over ipc, with CURVE and without, beside one of a bare socket: in
//! turns, so that they meet the same machine. First with both ends in one thread, so that all work is seen; then with
//! the other ends in a thread of their own, as between two daemons, where waking each other is part of it.
//!
//! `cargo run --release -p bourse-transport --example round_trip`

#![expect(clippy::unwrap_used, reason = "a measurement may stop at the first surprise")]

use std::time::{Duration, Instant};

use bourse_transport::{
    Allowed, Bounds, Curve, Dealer, DealerOptions, Endpoint, Event, KeyPair, Router, RouterOptions, Transport,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ROUNDS: usize = 20_000;
const HALF: usize = 100;
static SMALL: [u8; 2 * HALF] = [5; 2 * HALF];
const LARGE_ROUNDS: usize = 200;
const LARGE: usize = 1 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for apart in [false, true] {
        println!("{}", if apart { "each end in a thread of its own" } else { "both ends in one thread" });
        measure(apart).await;
    }
}

/// Runs the other end, here or in a thread of its own.
fn run<F: Future<Output = ()> + Send + 'static>(apart: bool, other_end: F) {
    if apart {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(other_end);
        });
    } else {
        tokio::spawn(other_end);
    }
}

async fn measure(apart: bool) {
    let mut bare = bare(apart).await;
    let folder = tempfile::tempdir().unwrap();
    let tcp: Endpoint = "tcp://127.0.0.1:0".parse().unwrap();
    let mut dealers = Vec::new();
    // A router with CURVE and one without are two, at two sockets.
    for (endpoint, with_curve) in [
        (tcp.clone(), false),
        (tcp, true),
        (Endpoint::Ipc(folder.path().join("plain")), false),
        (Endpoint::Ipc(folder.path().join("curve")), true),
    ] {
        dealers.push(pair(apart, with_curve, endpoint).await);
    }
    let mut times = [const { Vec::new() }; 7];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut bytes = [5; 2 * HALF];
        bare.write_all(&bytes).await.unwrap();
        bare.read_exact(&mut bytes).await.unwrap();
        times[0].push(start.elapsed());
        for (at, (dealer, parts)) in [(0, 2), (1, 2), (1, 1), (2, 1), (3, 2), (3, 1)].into_iter().enumerate()
        {
            let start = Instant::now();
            round(&mut dealers[dealer], Bytes::from_static(&SMALL[..2 * HALF / parts]), parts).await;
            times[at + 1].push(start.elapsed());
        }
    }
    let names = [
        "bare tcp",
        "tcp, two parts",
        "tcp, two parts, CURVE",
        "tcp, one part, CURVE",
        "ipc, one part",
        "ipc, two parts, CURVE",
        "ipc, one part, CURVE",
    ];
    report(&names, &mut times);
    // What is large: encrypting is most of it.
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..LARGE_ROUNDS {
        for (dealer, times) in dealers.iter_mut().zip(&mut times) {
            let start = Instant::now();
            round(dealer, Bytes::from_static(&[5; LARGE]), 1).await;
            times.push(start.elapsed());
        }
    }
    report(&["1 MiB, tcp", "1 MiB, tcp, CURVE", "1 MiB, ipc", "1 MiB, ipc, CURVE"], &mut times);
}

fn report(names: &[&str], times: &mut [Vec<Duration>]) {
    for (what, times) in names.iter().zip(times) {
        times.sort_unstable();
        let at = |share: f64| times[(times.len() as f64 * share) as usize];
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        println!(
            "{what:>21}: mean {mean:?}, median {:?}, p99 {:?}, p99.9 {:?}",
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
}

/// A dealer whose router sends everything back.
async fn pair(apart: bool, with_curve: bool, endpoint: Endpoint) -> Dealer {
    let bounds = Bounds::new(LARGE);
    let (own, peer) = (KeyPair::generate(), KeyPair::generate());
    let mut options = RouterOptions::new(bounds.clone());
    if with_curve {
        let allowed = Allowed::from_iter([peer.public()]);
        options.curve = Some(Curve { own: own.clone(), allowed });
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    run(apart, async move {
        let mut router = Router::new(options).unwrap();
        tell.send(router.bind(&endpoint).await.unwrap()).unwrap();
        let mut events = Vec::new();
        loop {
            router.recv(&mut events).await;
            for event in events.drain(..) {
                let Event::Frame { connection, header, payload } = event else { continue };
                if payload.is_empty() {
                    router.send_part(connection, header).unwrap();
                } else {
                    router.send(connection, header, payload).unwrap();
                }
            }
        }
    });
    let endpoint = told.await.unwrap();
    let curve = with_curve.then(|| (peer, own.public()));
    let mut dealer = Dealer::new(&endpoint, DealerOptions { curve, ..DealerOptions::new(bounds) }).unwrap();
    dealer.recv(&mut Vec::new()).await;
    dealer
}

async fn round(dealer: &mut Dealer, part: Bytes, parts: usize) {
    let connection = dealer.connection().unwrap();
    match parts {
        1 => dealer.line().unwrap().send_part(part).unwrap(),
        _ => dealer.send(connection, part.clone(), part).unwrap(),
    }
    let mut events = Vec::new();
    dealer.recv(&mut events).await;
    assert!(matches!(events[..], [Event::Frame { .. }]), "{events:?}");
}

/// A stream whose other end sends everything back.
async fn bare(apart: bool) -> TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    run(apart, async move {
        let (mut stream, _) = TcpListener::from_std(listener).unwrap().accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut bytes = [0; 2 * HALF];
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await.unwrap();
        }
    });
    stream
}
