//! Measures an echo between a dealer and a router: `cargo run --release -p bourse-transport --example echo`.
//!
//! The router runs in a process of its own, as it does in use. Compare ratios taken on one machine in one run.

use std::process::{Child, Command};
use std::time::Instant;

use bourse_transport::{Bounds, Connection, Dealer, Endpoint, Event, Router, RouterOptions, Transport};
use bytes::Bytes;

const ROUNDS: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match std::env::args().nth(1) {
        Some(endpoint) => runtime.block_on(serve(endpoint.parse()?)),
        None => runtime.block_on(measure()),
    }
}

async fn serve(endpoint: Endpoint) -> Result<(), Box<dyn std::error::Error>> {
    let mut router = Router::new(RouterOptions::new(Bounds::new(32 << 20)))?;
    router.bind(&endpoint).await?;
    let mut events = Vec::new();
    loop {
        router.recv(&mut events).await;
        for event in events.drain(..) {
            match event {
                Event::Frame { connection, header, payload } => router.send(connection, header, payload)?,
                Event::Closed { .. } => {
                    router.shut_down().await;
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}

async fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("bourse-echo-{}", std::process::id()));
    println!("{:>10} {:>9} {:>12} {:>12} {:>12}", "bytes", "in flight", "p50 us", "p99 us", "frames/s");
    for bytes in [100, 10_000, 1 << 20] {
        for in_flight in [1, 4, 64] {
            let rounds = if bytes > 100_000 { ROUNDS / 20 } else { ROUNDS };
            let endpoint = Endpoint::Ipc(folder.join("echo.sock"));
            let mut server = start(&endpoint)?;
            let mut dealer = Dealer::connect(&endpoint, &Bounds::new(32 << 20))?;
            let mut events = Vec::new();
            while dealer.connection().is_none() {
                dealer.recv(&mut events).await;
            }
            let there = dealer.connection().ok_or("it has just connected")?;
            let mut times = echo(&mut dealer, there, bytes, in_flight, rounds).await?;
            let total = times.pop().unwrap_or_default();
            times.sort_by(f64::total_cmp);
            let at = |share: f64| times[(times.len() as f64 * share) as usize] * 1e6;
            println!(
                "{bytes:>10} {in_flight:>9} {:>12.1} {:>12.1} {:>12.0}",
                at(0.5),
                at(0.99),
                rounds as f64 / total
            );
            dealer.shut_down().await;
            server.wait()?;
        }
    }
    Ok(std::fs::remove_dir_all(folder)?)
}

fn start(endpoint: &Endpoint) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?).arg(endpoint.to_string()).spawn()
}

/// The time of each round in seconds, and last the time of all.
async fn echo(
    dealer: &mut Dealer,
    there: Connection,
    bytes: usize,
    in_flight: usize,
    rounds: usize,
) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let payload = Bytes::from(vec![7; bytes]);
    let (mut sent, mut times, mut events) = (Vec::with_capacity(rounds), Vec::new(), Vec::new());
    let begin = Instant::now();
    while times.len() < rounds {
        while sent.len() < rounds && sent.len() - times.len() < in_flight {
            sent.push(Instant::now());
            dealer.send(there, Bytes::from_static(b"a header of 24 bytes    "), payload.clone())?;
        }
        dealer.recv(&mut events).await;
        for event in events.drain(..) {
            match event {
                Event::Frame { .. } => times.push(sent[times.len()].elapsed().as_secs_f64()),
                other => return Err(format!("{other:?}").into()),
            }
        }
    }
    times.push(begin.elapsed().as_secs_f64());
    Ok(times)
}
