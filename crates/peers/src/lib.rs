//! The lines to other nodes: one socket that they connect to, and one connection for each node that this one dials.
//!
//! ```text
//! driver -> peers: dial, send, hang_up          peers -> driver: Opened, Frame*, Closed     for each link
//!                                                                NotReached                 for a dial in vain
//! ```
//!
//! All of it is ZeroMQ with CURVE, whatever carries it: a node is its public key, and who is at the other end of a link has
//! proved to hold the key that `Opened` names. There is one list of keys with whom this node speaks, whoever dials. The
//! nearest way that works is taken: a Unix socket, if the other node is the same user's on the same machine, else tcp.
//!
//! It never decides whom to dial, never dials again by itself, and, but for `carry` and `enroll`, never reads a frame.
//!
//! | file | is |
//! |---|---|
//! | `dialed` | one connection that this node makes |
//! | `ipc` | the sockets of nodes on this machine |
//! | `allowed` | the list of keys, and the file that it is kept in |
//! | `members` | the grid's list of keys, as this node keeps it |
//! | `seeds` | where it begins when it starts again |
//! | `grid_store`, `catalogue` | which store is the grid's, and what other nodes serve, kept for the next start |
//! | `ticket`, `enroll` | how a node comes onto the list |
//! | `packing` | how a frame travels |
//! | `carry` | what lines bring as a node's inputs, what a node says as frames |
//! | `keys`, `own` | this node's own keys, and what else it knows of itself |
//! | `join` | a node to connect to, as it is written |
//! | `clock` | what time it is |

pub mod allowed;
pub mod carry;
pub mod catalogue;
pub mod clock;
mod dialed;
pub mod enroll;
pub mod grid_store;
pub mod ipc;
pub mod join;
pub mod keys;
pub mod members;
pub mod own;
mod packing;
pub mod seeds;
#[cfg(test)]
mod tests;
pub mod ticket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bourse_market::roster::Entry;
use bourse_transport::{
    Allowed, BindError, Bounds, Carrier, Connection, Curve, Endpoint, Event, Key, KeyPair, Line, Router,
    RouterOptions, SendError, Transport,
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{SelectAll, Stream, StreamExt as _};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use allowed::List;
use dialed::{Dial, Heard};
use ipc::Sockets;
use packing::Parts;

/// The largest header of a frame between nodes, in bytes: changes of state travel in it.
pub const HEADER_BYTES_MAX: usize = bourse_wire::header::HEADER_BYTES_MAX;

/// Frames that may wait to be sent to one node. One that does not read gets no more, and the driver is told.
pub const SEND_FRAMES_MAX: u32 = 8192;

/// Links that other nodes have made, at most; more are closed as soon as they come.
pub const ACCEPTED_MAX: usize = 2048;

/// Nodes that are dialed at the same time, whether reached or not.
pub const DIALED_MAX: usize = 2048;

/// How long a node may take to be reached, in milliseconds.
pub const REACH_MS_MAX: u64 = 2_000;

/// A link that says nothing for this long is asked for a sign of life, in milliseconds; after three times that it is
/// over. A machine can vanish without a word.
const HEARTBEAT_MS: u64 = 5_000;

/// How often it is looked whether the file with the allowed keys has changed.
const LOOK: Duration = Duration::from_secs(1);

/// What dialed nodes have said that is taken per turn.
const HEARD_PER_TURN: usize = 64;

/// One life of one connection with another node. Never used twice while the daemon runs.
pub type Link = u64;

/// Who this node is, and with whom it speaks.
pub struct Options {
    /// Its keys.
    pub own: KeyPair,
    /// With whom it speaks.
    pub list: List,
    /// Where other nodes connect, if they may; port 0 picks one.
    pub listen: Option<SocketAddr>,
    /// Where the sockets of this user's nodes on this machine are, [`ipc::folder`]; `None`: all go by tcp. A node that does
    /// not listen has none of its own.
    pub ipc: Option<PathBuf>,
    /// The largest payload of a frame, in bytes; the same on all nodes.
    pub payload_bytes_max: usize,
}

/// A node that may be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The key that it has to prove to hold.
    pub key: Key,
    /// "host:port".
    pub address: String,
    /// Its key needs no list.
    pub trusted: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A node is there and can be sent to.
    Opened {
        /// Which.
        link: Link,
        /// Its public key, which it has proved to hold.
        key: [u8; 32],
        /// This node has dialed it.
        dialed: bool,
    },
    /// A frame arrived.
    Frame {
        /// From where.
        link: Link,
        /// Its header.
        header: Bytes,
        /// Its payload.
        payload: Bytes,
    },
    /// The link is gone. Nothing more will come from it, and what was sent last may not have arrived.
    Closed {
        /// Which.
        link: Link,
        /// For the log.
        why: String,
    },
    /// A node that was dialed could not be reached, and is not being dialed any more.
    NotReached {
        /// Its key.
        node: [u8; 32],
        /// For people.
        why: String,
    },
}

/// The lines to other nodes.
pub struct Peers {
    own: KeyPair,
    bounds: Bounds,
    list: List,
    sockets: Option<Sockets>,
    listening: Option<Listening>,
    /// Those that this node dials, reached or not.
    dialed: BTreeMap<Link, Dialed>,
    /// Who they are.
    nodes: BTreeMap<Key, Link>,
    dials: u64,
    lines: SelectAll<Pin<Box<dyn Stream<Item = Heard> + Send>>>,
    ready: Vec<PeerEvent>,
    looks: tokio::time::Interval,
    /// What is said, and has not left.
    held: Option<carry::Held>,
}

/// The socket that other nodes connect to.
struct Listening {
    router: Router,
    address: SocketAddr,
    accepted: BTreeMap<Link, Accepted>,
    arrivals: Vec<Event>,
}

struct Accepted {
    key: Key,
    /// Why it ends, if that is known before it is told.
    why: Option<String>,
}

struct Dialed {
    node: Key,
    /// It was reached, by this.
    open: Option<Carrier>,
    /// `None` before, and where it ended before it could be used.
    line: Option<Line>,
    /// Dropping it hangs up.
    _hang_up: oneshot::Sender<()>,
}

impl Peers {
    /// Listens, if it is to. It has to be called, as everything here, inside a current-thread runtime of tokio.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let Options { own, list, listen, ipc, payload_bytes_max } = options;
        let bounds = Bounds {
            send_frames_max: SEND_FRAMES_MAX,
            connections_max: ACCEPTED_MAX,
            ..Bounds::new(packing::LENGTH_BYTES + HEADER_BYTES_MAX + payload_bytes_max)
        };
        Self::with(own, list, bounds, listen, ipc).await
    }

    async fn with(
        own: KeyPair,
        list: List,
        bounds: Bounds,
        listen: Option<SocketAddr>,
        ipc: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let sockets = ipc.and_then(Sockets::new);
        let mut listening = match listen {
            None => None,
            Some(address) => Some(Listening::bind(address, &own, &list, bounds.clone()).await?),
        };
        if let (Some(listening), Some(sockets)) = (&mut listening, &sockets)
            && let Err(why) = sockets.bind(&mut listening.router, own.public()).await
        {
            tracing::warn!("nodes of this machine come by tcp, and not by a socket: {why:#}");
        }
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            own,
            bounds,
            list,
            sockets,
            listening,
            dialed: BTreeMap::new(),
            nodes: BTreeMap::new(),
            dials: 0,
            lines: SelectAll::new(),
            ready: Vec::new(),
            looks,
            held: None,
        })
    }

    /// The grid's list of keys is another one: who is on it no longer is cut off.
    pub fn obey(&mut self, entries: &[Entry]) {
        let revoked = self.list.obey(entries);
        self.cut(&revoked);
    }

    /// This node's public key.
    pub fn key(&self) -> [u8; 32] {
        self.own.public().0
    }

    /// Where other nodes connect, with the port that was picked for port 0.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listening.as_ref().map(|listening| listening.address)
    }

    /// How each node is reached that there is a link with: by the nearer way, if there are several.
    pub fn carriers(&self) -> BTreeMap<[u8; 32], Carrier> {
        let dialed = self.dialed.values().filter_map(|dialed| Some((dialed.node, dialed.open?)));
        let accepted = self.listening.iter().flat_map(|listening| {
            let carrier = |link: &Link| listening.router.carrier(connection(*link));
            listening.accepted.iter().filter_map(move |(link, accepted)| Some((accepted.key, carrier(link)?)))
        });
        let mut carriers = BTreeMap::new();
        for (key, carrier) in dialed.chain(accepted) {
            let nearest = carriers.entry(key.0).or_insert(carrier);
            *nearest = carrier.min(*nearest);
        }
        carriers
    }

    /// With whom this node speaks, now and whenever it is asked.
    pub fn allowed(&self) -> Allowed {
        self.list.allowed.clone()
    }

    /// A node that was found, as one to be dialed, if this node speaks with it.
    pub fn seed_of(&mut self, lead: Lead) -> Option<([u8; 32], String)> {
        let Lead { key, address, trusted } = lead;
        if trusted && !self.list.trust(key) {
            tracing::warn!("too many nodes are trusted: {} is left out", key.to_hex());
        }
        self.list.allowed.admits(key).then_some((key.0, address))
    }

    /// A node that was trusted is gone, and is not trusted any more. Its links end, unless a list allows its key.
    pub fn distrust(&mut self, key: Key) {
        if self.list.distrust(key) {
            self.cut(&[key].into());
        }
    }

    /// Connects to a node, whose id is its public key, at `host:port`. `Opened` or `NotReached` follows; nothing does
    /// if the node has been dialed already and that is not over. It is done while [`recv`](Self::recv) is waited on.
    pub fn dial(&mut self, node: [u8; 32], address: &str) {
        let key = Key(node);
        if self.nodes.contains_key(&key) {
            return;
        }
        let refused = if key == self.own.public() {
            Some("this is the node's own key".to_owned())
        } else if !self.list.allowed.admits(key) {
            Some(allowed::NOT_ALLOWED.to_owned())
        } else if self.dialed.len() >= DIALED_MAX {
            Some(format!("{DIALED_MAX} nodes are dialed already, which is the most"))
        } else {
            None
        };
        if let Some(why) = refused {
            self.ready.push(PeerEvent::NotReached { node, why });
            return;
        }
        let link = dialed_link(self.dials);
        self.dials += 1;
        let (hang_up, hung_up) = oneshot::channel();
        let dial = Dial {
            link,
            node: key,
            own: self.own.clone(),
            nearby: self.sockets.as_ref().and_then(|sockets| sockets.find(key)),
            address: address.to_owned(),
            bounds: self.bounds.clone(),
            heartbeat_ms: HEARTBEAT_MS,
        };
        self.lines.push(Box::pin(dialed::follow(dial, hung_up)));
        self.nodes.insert(key, link);
        self.dialed.insert(link, Dialed { node: key, open: None, line: None, _hang_up: hang_up });
    }

    /// Sends a frame, or says at once why not. Never waits.
    ///
    /// [`SendError::Full`] means that the node does not read, and that the link is of no use any more.
    pub fn send(&mut self, link: Link, header: Bytes, payload: Bytes) -> Result<(), SendError> {
        assert!(header.len() <= HEADER_BYTES_MAX, "headers are made here, and smaller than that");
        let parts = packing::pack(header, payload);
        if is_dialed(link) {
            let line = self.dialed.get(&link).and_then(|dialed| dialed.line.as_ref());
            let line = line.ok_or(SendError::Gone)?;
            return match parts {
                Parts::One(part) => line.send_part(part),
                Parts::Two(header, payload) => line.send(header, payload),
            };
        }
        let router = &mut self.listening.as_mut().ok_or(SendError::Gone)?.router;
        match parts {
            Parts::One(part) => router.send_part(connection(link), part),
            Parts::Two(header, payload) => router.send(connection(link), header, payload),
        }
    }

    /// Ends a link. What was sent before has a moment to leave. `Closed` is the last that is heard of it; unknown
    /// links are ignored.
    pub fn hang_up(&mut self, link: Link) {
        self.end(link, "this node has hung up");
    }

    /// Waits until something happened and appends it to `events`. Cancel-safe: what a dropped call had found is
    /// handed in by the next one.
    pub async fn recv(&mut self, events: &mut Vec<PeerEvent>) {
        self.flush();
        loop {
            self.take_heard();
            if !self.ready.is_empty() {
                events.append(&mut self.ready);
                return;
            }
            tokio::select! {
                () = arrivals(&mut self.listening) => self.take_arrivals(),
                Some(heard) = self.lines.next() => self.on_heard(heard),
                _ = self.looks.tick() => self.look(),
            }
        }
    }

    /// Gives frames already sent a moment to leave, and ends.
    pub async fn shut_down(mut self) {
        self.flush();
        let Self { dialed, mut lines, listening, .. } = self;
        drop(dialed);
        let hanging_up = async move { while lines.next().await.is_some() {} };
        let closing = async move {
            if let Some(listening) = listening {
                listening.router.shut_down().await;
            }
        };
        tokio::join!(hanging_up, closing);
    }

    // ------------------------------------------------------------ what came

    fn take_arrivals(&mut self) {
        let Some(listening) = &mut self.listening else { return };
        let mut arrivals = std::mem::take(&mut listening.arrivals);
        for arrival in arrivals.drain(..) {
            listening.on_arrival(arrival, &self.list, &mut self.ready);
        }
        listening.arrivals = arrivals;
    }

    /// What dialed nodes have said meanwhile, without waiting.
    fn take_heard(&mut self) {
        for _ in 0..HEARD_PER_TURN {
            let Some(Some(heard)) = self.lines.next().now_or_never() else { return };
            self.on_heard(heard);
        }
    }

    fn on_heard(&mut self, heard: Heard) {
        let link = heard.link();
        // Whoever was hung up on is not heard any more.
        let Some(dialed) = self.dialed.get_mut(&link) else { return };
        match heard {
            Heard::Opened { line, carrier, .. } => {
                dialed.open = Some(carrier);
                dialed.line = line;
                self.ready.push(PeerEvent::Opened { link, key: dialed.node.0, dialed: true });
            }
            Heard::Frames { frames, .. } => {
                for (first, second) in frames {
                    match read(first, second) {
                        Ok((header, payload)) => self.ready.push(PeerEvent::Frame { link, header, payload }),
                        Err(why) => return self.end(link, &why),
                    }
                }
            }
            Heard::Ended { why, .. } => self.end(link, &why),
        }
    }

    /// Ends a link, whatever the reason.
    fn end(&mut self, link: Link, why: &str) {
        // The last words: that it is revoked, for one.
        if self.held.as_ref().is_some_and(|held| held.is_for(link)) {
            self.flush();
        }
        if !is_dialed(link) {
            if let Some(listening) = &mut self.listening {
                listening.end(link, why);
            }
            return;
        }
        let Some(Dialed { node, open, .. }) = self.dialed.remove(&link) else { return };
        self.nodes.remove(&node);
        let why = why.to_owned();
        self.ready.push(match open {
            Some(_) => PeerEvent::Closed { link, why },
            None => PeerEvent::NotReached { node: node.0, why },
        });
    }

    /// Reads the file with the allowed keys again if it has changed, and ends the links of those that are not in it
    /// any more.
    fn look(&mut self) {
        let revoked = self.list.look();
        if !revoked.is_empty() {
            self.cut(&revoked);
        }
    }

    /// Ends the links of those whose keys are not allowed any more.
    fn cut(&mut self, revoked: &BTreeSet<Key>) {
        let dialed = self.dialed.iter().map(|(link, dialed)| (*link, dialed.node));
        let accepted = self.listening.iter().flat_map(|l| &l.accepted).map(|(link, a)| (*link, a.key));
        let ending: Vec<Link> =
            dialed.chain(accepted).filter(|(_, key)| revoked.contains(key)).map(|(link, _)| link).collect();
        for link in ending {
            self.end(link, allowed::REVOKED);
        }
        // The router tells of what it has closed the next time it is asked.
    }
}

impl Listening {
    async fn bind(address: SocketAddr, own: &KeyPair, list: &List, bounds: Bounds) -> anyhow::Result<Self> {
        let curve = Curve { own: own.clone(), allowed: list.allowed.clone() };
        let options =
            RouterOptions { curve: Some(curve), heartbeat_ms: HEARTBEAT_MS, ..RouterOptions::new(bounds) };
        let mut router = Router::new(options)?;
        let bound =
            router.bind(&Endpoint::Tcp(address)).await.map_err(|error| cannot_listen(address, &error))?;
        let Endpoint::Tcp(address) = bound else { anyhow::bail!("{address} was bound as {bound}") };
        Ok(Self { router, address, accepted: BTreeMap::new(), arrivals: Vec::new() })
    }

    fn on_arrival(&mut self, arrival: Event, list: &List, ready: &mut Vec<PeerEvent>) {
        match arrival {
            Event::Opened { connection, key } => {
                let key = key.expect("a router with CURVE knows the key of each connection");
                let link = accepted_link(connection);
                if !list.allowed.admits(key) {
                    // It was admitted just before its key was taken off the list.
                    self.router.close(connection);
                    return;
                }
                self.accepted.insert(link, Accepted { key, why: None });
                ready.push(PeerEvent::Opened { link, key: key.0, dialed: false });
            }
            Event::Frame { connection, header, payload } => {
                let link = accepted_link(connection);
                let Some(accepted) = self.accepted.get(&link) else { return };
                if accepted.why.is_some() {
                    return; // it is being closed
                }
                match read(header, payload) {
                    Ok((header, payload)) => ready.push(PeerEvent::Frame { link, header, payload }),
                    Err(why) => self.end(link, &why),
                }
            }
            Event::Broken { connection, reason } => {
                if let Some(accepted) = self.accepted.get_mut(&accepted_link(connection)) {
                    accepted.why.get_or_insert(reason);
                }
            }
            Event::Closed { connection } => {
                let link = accepted_link(connection);
                let Some(Accepted { why, .. }) = self.accepted.remove(&link) else { return };
                let why = why.unwrap_or_else(|| dialed::IN_ORDER.to_owned());
                ready.push(PeerEvent::Closed { link, why });
            }
        }
    }

    /// Ends a link; the router tells when it has.
    fn end(&mut self, link: Link, why: &str) {
        if let Some(accepted) = self.accepted.get_mut(&link) {
            accepted.why.get_or_insert_with(|| why.to_owned());
            self.router.close(connection(link));
        }
    }
}

/// Waits for what comes to the socket that others connect to; for ever, if there is none.
async fn arrivals(listening: &mut Option<Listening>) {
    match listening {
        Some(Listening { router, arrivals, .. }) => router.recv(arrivals).await,
        None => std::future::pending().await,
    }
}

fn cannot_listen(address: SocketAddr, error: &BindError) -> anyhow::Error {
    let hint = match error {
        BindError::Io { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
            "stop what listens there, or name another address with --listen (port 0 picks a free one)"
        }
        BindError::Io { source, .. } if source.kind() == std::io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; --listen 0.0.0.0:PORT is all that it has"
        }
        _ => "name another address with --listen (port 0 picks a free one)",
    };
    anyhow::anyhow!("other nodes cannot be listened to on {address}: {error}\n  hint: {hint}")
}

/// Reads what came as a frame, or says what is wrong with it.
fn read(first: Bytes, second: Bytes) -> Result<(Bytes, Bytes), String> {
    let (header, payload) =
        packing::unpack(first, second).ok_or("it sent something that is no frame of a node")?;
    match header.len() {
        bytes if bytes > HEADER_BYTES_MAX => {
            Err(format!("it sent a header of {bytes} bytes, and {HEADER_BYTES_MAX} is the most"))
        }
        _ => Ok((header, payload)),
    }
}

// Links that others have made are even, those that this node has made are odd.

fn accepted_link(connection: Connection) -> Link {
    connection.0 << 1
}

fn connection(link: Link) -> Connection {
    Connection(link >> 1)
}

fn dialed_link(dials: u64) -> Link {
    dials << 1 | 1
}

fn is_dialed(link: Link) -> bool {
    link & 1 == 1
}
