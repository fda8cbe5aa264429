//! A raw client of the worker protocol: says hello with the token, and keeps calls in flight.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bourse_transport::{Bounds, Connection, Dealer, Endpoint, Event, Transport as _};
use bourse_wire::{header, v1};
use bytes::Bytes;

const IN_FLIGHT: u64 = 64;
const BYTES: usize = 100;

/// Answered calls per second of an echo, with 64 in flight.
pub(crate) fn throughput(endpoint: &str, token: &[u8], function: &str, seconds: f64) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(endpoint.parse()?, token, function, seconds))
}

async fn run(endpoint: Endpoint, token: &[u8], function: &str, seconds: f64) -> Result<f64> {
    let mut dealer = Dealer::connect(&endpoint, &Bounds::new(1 << 20))?;
    let mut events = Vec::new();
    let mut node = None;
    // The arguments: [[100 bytes], {}].
    let arguments = Bytes::from([&[0x82, 0x81, 0x58, BYTES as u8][..], &[b'x'; BYTES], &[0xa0]].concat());
    let (mut request, mut done) = (0, 0u64);
    let warm = Instant::now() + Duration::from_secs_f64(seconds / 8.0);
    let mut begin = None;
    loop {
        dealer.recv(&mut events).await;
        for event in events.drain(..) {
            match event {
                Event::Opened { connection, .. } => {
                    node = Some(connection);
                    let hello = v1::Hello {
                        version_min: 1,
                        version_max: 1,
                        role: v1::Role::Client as i32,
                        secret: Bytes::copy_from_slice(token),
                        agent: "bourse-bench".into(),
                        pid: std::process::id(),
                        ..Default::default()
                    };
                    send(&mut dealer, connection, v1::to_node::Message::Hello(hello), Bytes::new())?;
                }
                Event::Frame { header, payload, .. } => {
                    let connection = node.context("a frame before the connection")?;
                    let calls = match header::decode::<v1::ToWorker>(header)?.message {
                        Some(v1::to_worker::Message::Welcome(_)) => IN_FLIGHT,
                        Some(v1::to_worker::Message::Reply(reply)) => {
                            if let Some(failure) = reply.failure {
                                bail!("{}: {}", failure.code, failure.message);
                            }
                            if payload[..] != arguments[4..4 + BYTES] {
                                bail!("the answer is not what was sent");
                            }
                            done += 1;
                            1
                        }
                        Some(v1::to_worker::Message::Refused(refused)) => {
                            bail!("refused: {:?}", refused.failure)
                        }
                        _ => 0,
                    };
                    for _ in 0..calls {
                        request += 1;
                        let call = v1::Call { request, function: function.into(), ..Default::default() };
                        send(&mut dealer, connection, v1::to_node::Message::Call(call), arguments.clone())?;
                    }
                }
                Event::Broken { reason, .. } => bail!("the connection broke: {reason}"),
                Event::Closed { .. } => bail!("the connection was closed"),
            }
        }
        match begin {
            None if Instant::now() > warm => {
                begin = Some(Instant::now());
                done = 0;
            }
            Some(begin) if begin.elapsed().as_secs_f64() > seconds => {
                let rate = done as f64 / begin.elapsed().as_secs_f64();
                dealer.shut_down().await;
                return Ok(rate);
            }
            _ => {}
        }
    }
}

fn send(dealer: &mut Dealer, to: Connection, message: v1::to_node::Message, payload: Bytes) -> Result<()> {
    Ok(dealer.send(to, header::encode(&v1::ToNode { message: Some(message) }), payload)?)
}
