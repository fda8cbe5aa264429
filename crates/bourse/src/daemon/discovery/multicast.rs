//! Nodes on the same networks: each says now and then to a group that it is there.
//!
//! ```text
//! node -> group: beacon       when it starts, and every 5 s; with a ttl of 1, on every interface that is up
//! group -> node: beacon       answered by nobody
//! ```
//!
//! The beacon ([`bourse_wire::beacon`]) names a key, a grid and a port; the address is where it came from. Anybody on the
//! network can send one. So it counts only if its key is allowed, and then the node is dialed, which proves the rest; if
//! it is not, that is said once, for the one who forgot to allow it. Nothing that is sent makes more than a lead a while for
//! each key.
//!
//! A node that listens nowhere, or on loopback, hears others and says nothing: they could not reach it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::time::Duration;

use bourse_transport::{Allowed, Key};
use bourse_wire::beacon::{BYTES_MAX, Beacon, Datagram};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::strangers::Strangers;
use super::{Found, Lead};

/// Between the first beacons.
const FIRST_PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];
/// Between all others.
const PAUSE: Duration = Duration::from_secs(5);
/// A node of which nothing was heard for this long is none that is to be asked.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Between two leads to one node, however many beacons come.
const LEAD_PAUSE: Duration = Duration::from_secs(2);
/// Interfaces that are used, at most.
const INTERFACES_MAX: usize = 64;
/// After an error of the socket it is left alone for this long.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// The socket, and what is sent and heard.
pub(super) struct Multicast {
    socket: UdpSocket,
    group: SocketAddrV4,
    /// What is said; `None`: nothing.
    beacon: Option<Vec<u8>>,
    /// The address of this machine that the node listens on, if it is a single one.
    only: Option<Ipv4Addr>,
    ear: Ear,
    /// Beacons so far.
    sent: usize,
}

/// What becomes of beacons that come.
pub(super) struct Ear {
    own: Key,
    grid: String,
    allowed: Allowed,
    heard: BTreeMap<Key, Heard>,
    strangers: Strangers,
}

#[derive(Clone, Copy)]
struct Heard {
    at: Instant,
    /// When it was handed on last.
    told: Instant,
}

impl Multicast {
    /// Listens to the group, from the first beacon on.
    pub(super) fn start(
        group: SocketAddrV4,
        listening: Option<SocketAddr>,
        ear: Ear,
    ) -> anyhow::Result<Self> {
        let socket = open(group).map_err(|e| {
            anyhow::anyhow!(
                "nodes cannot be looked for by multicast at {group}: {e}\n  hint: name another port for all nodes of the grid, with multicast = GROUP:PORT, or leave `multicast` out of `discover`"
            )
        })?;
        let reached = listening.filter(|address| !address.ip().is_loopback());
        if reached.is_none() {
            tracing::warn!(
                "other machines are looked for by multicast, and cannot find this node: it does not listen where they could reach it\n  hint: say where: --listen 0.0.0.0:7071"
            );
        }
        let beacon = reached.map(|address| {
            let beacon = Beacon { key: ear.own.0, port: address.port(), grid: ear.grid.clone() };
            Datagram::Beacon(beacon).encode()
        });
        let only = reached.and_then(|address| match address.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
            _ => None,
        });
        Ok(Self { socket, group, beacon, only, ear, sent: 0 })
    }

    /// Goes on until it is dropped.
    pub(super) async fn run(mut self, found: mpsc::Sender<Found>) {
        let mut next = Instant::now();
        let mut bytes = [0; BYTES_MAX];
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    self.say();
                    let pause = FIRST_PAUSES.get(self.sent).copied().unwrap_or(PAUSE);
                    self.sent += 1;
                    next = Instant::now() + pause;
                    for key in self.ear.forget(Instant::now()) {
                        // What finds no room is not asked for any more than it is worth.
                        drop(found.try_send(Found::Gone { key, trusted: false }));
                    }
                }
                received = self.socket.recv_from(&mut bytes) => match received {
                    Ok((length, from)) => {
                        if let Some(lead) = self.ear.hear(Instant::now(), &bytes[..length], from.ip()) {
                            drop(found.try_send(Found::Lead(lead)));
                        }
                    }
                    Err(error) => {
                        tracing::debug!("nothing is heard of the group: {error}");
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Takes part in the group on every interface that is up by now, and says there that this node is there.
    fn say(&self) {
        for (address, interface) in interfaces() {
            if self.only.is_some_and(|only| only != address) {
                continue;
            }
            if let Err(error) = self.say_on(address, interface) {
                tracing::debug!("no beacon is sent from {address}: {error}");
            }
        }
    }

    fn say_on(&self, address: Ipv4Addr, interface: u32) -> std::io::Result<()> {
        let socket = self.socket.as_fd();
        match sockopt::set_ip_add_membership_with_ifindex(socket, self.group.ip(), &address, interface) {
            // It takes part already.
            Ok(()) | Err(rustix::io::Errno::ADDRINUSE) => {}
            // There is a limit for each socket; what is said is heard all the same.
            Err(e) => tracing::debug!("nothing is heard at {address}: {e}"),
        }
        let Some(beacon) = &self.beacon else { return Ok(()) };
        let nobody = Ipv4Addr::UNSPECIFIED;
        sockopt::set_ip_multicast_if_with_ifindex(socket, &nobody, &address, interface)?;
        // A socket without room for so little has other troubles; the next one comes soon.
        self.socket.try_send_to(beacon, self.group.into()).map(drop)
    }
}

impl Ear {
    pub(super) fn new(own: Key, grid: &str, allowed: Allowed) -> Self {
        let strangers = Strangers::default();
        Self { own, grid: grid.to_owned(), allowed, heard: BTreeMap::new(), strangers }
    }

    /// A datagram came. The lead that it is, if it is one.
    pub(super) fn hear(&mut self, now: Instant, bytes: &[u8], from: IpAddr) -> Option<Lead> {
        let Some(Datagram::Beacon(beacon)) = Datagram::decode(bytes) else { return None };
        let key = Key(beacon.key);
        // The own echo comes as well.
        if key == self.own || beacon.grid != self.grid {
            return None;
        }
        let address = SocketAddr::new(from, beacon.port).to_string();
        if !self.allowed.admits(key) {
            self.heard.remove(&key);
            self.strangers.say(key, &address);
            return None;
        }
        let heard = self.heard.get(&key).copied();
        let told = heard.map(|heard| heard.told).filter(|told| now.duration_since(*told) < LEAD_PAUSE);
        self.heard.insert(key, Heard { at: now, told: told.unwrap_or(now) });
        told.is_none().then_some(Lead { key, address, trusted: false })
    }

    /// The nodes that have been silent for too long, or are not allowed any more.
    pub(super) fn forget(&mut self, now: Instant) -> Vec<Key> {
        let is_gone = |(key, heard): (&Key, &Heard)| {
            let silent = now.duration_since(heard.at) > SILENCE_MAX;
            (silent || !self.allowed.admits(*key)).then_some(*key)
        };
        let gone: Vec<Key> = self.heard.iter().filter_map(is_gone).collect();
        self.heard.retain(|key, _| !gone.contains(key));
        gone
    }

    /// How many keys are remembered.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.heard.len() + self.strangers.count()
    }
}

/// A socket at the group: other daemons on this machine may have one as well.
fn open(group: SocketAddrV4) -> std::io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ip_multicast_ttl(&socket, 1)?;
    sockopt::set_ip_multicast_loop(&socket, true)?;
    rustix::net::bind(&socket, &group)?;
    UdpSocket::from_std(socket.into())
}

/// The IPv4 addresses of this machine on networks with multicast, and the numbers of their interfaces.
fn interfaces() -> Vec<(Ipv4Addr, u32)> {
    let all = getifaddrs().inspect_err(|e| tracing::debug!("the interfaces are not known: {e}"));
    let mut found: Vec<(Ipv4Addr, u32)> = Vec::new();
    for interface in all.into_iter().flatten() {
        let is_up = interface.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST);
        if !is_up || interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) || found.len() >= INTERFACES_MAX {
            continue;
        }
        let address = interface.address.and_then(|address| address.as_sockaddr_in().map(|a| a.ip()));
        let number = if_nametoindex(interface.interface_name.as_str());
        if let (Some(address), Ok(number)) = (address, number) {
            found.push((address, number));
        }
    }
    found
}
