//! One connection that this node makes: dialed, followed until it ends, and then over.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bourse_transport::{
    Bounds, Carrier, Dealer, DealerOptions, Endpoint, Event, Key, KeyPair, Line, Transport as _,
};
use bytes::Bytes;
use futures_util::stream::{Stream, unfold};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{Link, REACH_MS_MAX};

/// What is said of an end for which there is no other reason.
pub(crate) const IN_ORDER: &str = "the other node has closed the connection";

/// What is said where no packet came back.
const NOTHING: &str = "nothing answers";

/// How long the socket of a node on this machine may take, in milliseconds. One where nothing listens is known at once.
pub(crate) const NEARBY_MS_MAX: u64 = 500;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Whom to connect to, and how.
pub(crate) struct Dial {
    pub(crate) link: Link,
    pub(crate) node: Key,
    pub(crate) own: KeyPair,
    /// Its socket, if it may be on this machine: tried first.
    pub(crate) nearby: Option<PathBuf>,
    pub(crate) address: String,
    pub(crate) bounds: Bounds,
    pub(crate) heartbeat_ms: u64,
}

/// What became of it.
pub(crate) enum Heard {
    /// It was reached. `line` is `None` if it was lost again at once.
    Opened { link: Link, carrier: Carrier, line: Option<Line> },
    /// Headers and payloads that came.
    Frames { link: Link, frames: Vec<(Bytes, Bytes)> },
    /// It was not reached, or has ended. The last word.
    Ended { link: Link, why: String },
}

impl Heard {
    pub(crate) fn link(&self) -> Link {
        match self {
            Self::Opened { link, .. } | Self::Frames { link, .. } | Self::Ended { link, .. } => *link,
        }
    }
}

/// A node that was reached, and what was heard of it so far.
pub(crate) struct Reached {
    pub(crate) dealer: Dealer,
    pub(crate) found: Vec<Event>,
    carrier: Carrier,
}

enum Stage {
    Dial(Dial),
    /// Connected; what was found is handed in bit by bit.
    Open {
        link: Link,
        dealer: Box<Dealer>,
        found: std::vec::IntoIter<Event>,
    },
    Over,
}

/// Everything that is heard of it, until it has ended or is hung up on.
pub(crate) fn follow(dial: Dial, hung_up: oneshot::Receiver<()>) -> impl Stream<Item = Heard> {
    unfold((Stage::Dial(dial), hung_up), |(stage, mut hung_up)| async move {
        let (heard, stage) = match stage {
            Stage::Over => return None,
            Stage::Dial(dial) => {
                tokio::select! {
                    biased;
                    _ = &mut hung_up => return None,
                    reached = reach(&dial) => on_reached(dial.link, reached),
                }
            }
            Stage::Open { link, mut dealer, mut found } => {
                if found.len() == 0 {
                    let mut events = Vec::new();
                    tokio::select! {
                        biased;
                        _ = &mut hung_up => {
                            // What was sent before still has to leave.
                            dealer.shut_down().await;
                            return None;
                        }
                        () = dealer.recv(&mut events) => found = events.into_iter(),
                    }
                }
                on_found(link, dealer, found)
            }
        };
        Some((heard, (stage, hung_up)))
    })
}

fn on_reached(link: Link, reached: Result<Reached, String>) -> (Heard, Stage) {
    match reached {
        Err(why) => (Heard::Ended { link, why }, Stage::Over),
        Ok(Reached { mut dealer, found, carrier }) => {
            let line = dealer.line();
            let dealer = Box::new(dealer);
            (Heard::Opened { link, carrier, line }, Stage::Open { link, dealer, found: found.into_iter() })
        }
    }
}

/// Hands in frames up to an end.
fn on_found(link: Link, dealer: Box<Dealer>, mut found: std::vec::IntoIter<Event>) -> (Heard, Stage) {
    let mut frames = Vec::with_capacity(found.len());
    let mut why = None;
    for event in found.by_ref() {
        match event {
            Event::Frame { header, payload, .. } => frames.push((header, payload)),
            Event::Opened { .. } => {}
            Event::Broken { reason, .. } => why = Some(reason),
            Event::Closed { .. } if frames.is_empty() => {
                let why = why.unwrap_or_else(|| IN_ORDER.to_owned());
                return (Heard::Ended { link, why }, Stage::Over);
            }
            // The frames first, and the end in the next turn.
            Event::Closed { connection } => {
                let reason = why.unwrap_or_else(|| IN_ORDER.to_owned());
                let end = vec![Event::Broken { connection, reason }, Event::Closed { connection }];
                return (
                    Heard::Frames { link, frames },
                    Stage::Open { link, dealer, found: end.into_iter() },
                );
            }
        }
    }
    (Heard::Frames { link, frames }, Stage::Open { link, dealer, found })
}

/// Connects, or says why not within [`REACH_MS_MAX`]. Takes the nearest way that works.
pub(crate) async fn reach(dial: &Dial) -> Result<Reached, String> {
    let deadline = Instant::now() + Duration::from_millis(REACH_MS_MAX);
    if let Some(socket) = &dial.nearby {
        match reach_nearby(dial, socket).await {
            Ok(reached) => return Ok(reached),
            // Nothing is believed of what happens there, not even that the key is not admitted: the address tells.
            Err(why) => tracing::debug!("{}: {why}; {} is tried", socket.display(), dial.address),
        }
    }
    let addresses = addresses(&dial.address, deadline).await?;
    let mut why = NOTHING.to_owned();
    let count = addresses.len();
    for (at, address) in addresses.into_iter().enumerate() {
        let mut dealer = dealer(dial, &Endpoint::Tcp(address))?;
        // Each address gets its share of the time that is left.
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / u32::try_from(count - at).unwrap_or(1);
        let mut found = Vec::new();
        if timeout_at(now + share, dealer.recv(&mut found)).await.is_ok() {
            return Ok(Reached { dealer, found, carrier: Carrier::Tcp });
        }
        why = format!("{address}: {}", dealer.trouble().unwrap_or(NOTHING));
    }
    Err(why)
}

/// Connects with a socket of this machine. Gives up as soon as that has failed.
async fn reach_nearby(dial: &Dial, socket: &Path) -> Result<Reached, String> {
    let mut dealer = dealer(dial, &Endpoint::Ipc(socket.to_owned()))?;
    let mut found = Vec::new();
    let deadline = Instant::now() + Duration::from_millis(NEARBY_MS_MAX);
    timeout_at(deadline, dealer.recv_unless_failed(&mut found)).await.map_err(|_| NOTHING)??;
    Ok(Reached { dealer, found, carrier: Carrier::Ipc })
}

fn dealer(dial: &Dial, endpoint: &Endpoint) -> Result<Dealer, String> {
    let options = DealerOptions {
        bounds: dial.bounds.clone(),
        curve: Some((dial.own.clone(), dial.node)),
        heartbeat_ms: dial.heartbeat_ms,
    };
    Dealer::new(endpoint, options).map_err(|e| e.to_string())
}

/// What a name stands for, IPv4 first: where a node has both, it mostly listens on `0.0.0.0`.
async fn addresses(text: &str, deadline: Instant) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    let found = match timeout_at(deadline, tokio::net::lookup_host(text)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("{text}: its address cannot be found: {error}")),
        Err(_) => return Err(format!("{text}: its address cannot be found in time")),
    };
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    match addresses.is_empty() {
        true => Err(format!("{text}: it has no address")),
        false => Ok(addresses),
    }
}
