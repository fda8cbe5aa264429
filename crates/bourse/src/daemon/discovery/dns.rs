//! Nodes behind a name: who they are is asked at the addresses that it stands for.
//!
//! ```text
//! dns -> resolver: SRV (then A and AAAA of each target), or A and AAAA
//! dns -> node: question          node -> dns: answer, with its key (`answers`)
//! ```
//!
//! A name knows no keys. So each address is asked, over UDP at the port that is dialed then, for the key of the node there.
//! Whoever answers may lie: an answer counts only if its key is allowed, and it is proved when the node is dialed.
//!
//! The name is looked up at the start, and again with a growing pause while this node is linked with nobody; while it is, only
//! now and then: what has moved meanwhile is found then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bourse_transport::{Allowed, Key};
use bourse_wire::beacon::{BYTES_MAX, Datagram};
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::strangers::Strangers;
use super::{Found, Lead};

/// The first pause between two rounds, and the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause while this node is linked with another.
const PAUSE_LINKED: Duration = Duration::from_secs(300);
/// Names and addresses of one name that are looked at.
const TARGETS_MAX: usize = 64;
const ADDRESSES_MAX: usize = 64;
/// How often an address is asked, and for how long its answer is waited for.
const QUESTIONS: usize = 3;
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// What is looked for, and by whom.
pub(super) struct Dns {
    /// Where other nodes are.
    pub name: String,
    /// Where they listen; `None`: the name has SRV records, which say so.
    pub port: Option<u16>,
    /// The server that is asked; `None`: as the system says.
    pub resolver: Option<SocketAddr>,
    pub own: Key,
    pub allowed: Allowed,
    /// Nobody can guess it: from it comes what answers have to repeat.
    pub secret: [u8; 32],
    /// Whether this node is linked with another.
    pub linked: watch::Receiver<bool>,
}

/// What a source remembers from one round to the next.
struct State {
    pause: Duration,
    /// Questions so far.
    asked: u64,
    /// What was found, and where.
    found: BTreeMap<Key, SocketAddr>,
    strangers: Strangers,
    /// What went wrong last, so that it is said once.
    trouble: String,
}

impl Dns {
    /// Goes on until it is dropped.
    pub(super) async fn run(mut self, found: mpsc::Sender<Found>) {
        let mut state = State {
            pause: PAUSE_MIN,
            asked: 0,
            found: BTreeMap::new(),
            strangers: Strangers::default(),
            trouble: String::new(),
        };
        loop {
            let trouble = match self.round(&mut state, &found).await {
                Ok(()) => String::new(),
                Err(why) => why,
            };
            if trouble != state.trouble && !trouble.is_empty() {
                tracing::warn!("no node is found by {}: {trouble}", self.shown());
            }
            state.trouble = trouble;
            let ended = Instant::now();
            loop {
                let is_linked = *self.linked.borrow_and_update();
                let pause = if is_linked { PAUSE_LINKED } else { state.pause };
                tokio::select! {
                    () = tokio::time::sleep_until(ended + pause) => break,
                    changed = self.linked.changed() => match changed {
                        Ok(()) => state.pause = PAUSE_MIN,
                        Err(_) => return,
                    }
                }
            }
            state.pause = (state.pause * 2).min(PAUSE_MAX);
        }
    }

    /// Looks once. Why nothing is found, if that needs to be said.
    async fn round(&self, state: &mut State, found: &mpsc::Sender<Found>) -> Result<(), String> {
        let addresses = self.addresses().await?;
        for (key, _) in state.found.extract_if(.., |_, address| !addresses.contains(address)) {
            drop(found.send(Found::Gone { key, trusted: false }).await);
        }
        if addresses.is_empty() {
            return Err("it has no address".to_owned());
        }
        let answers = self.ask(&addresses, &mut state.asked).await?;
        if answers.is_empty() {
            return Err(format!(
                "of its {} addresses none says who is there\n  hint: nodes answer at the UDP port of the same number as the TCP port that they listen on; a firewall has to let both through",
                addresses.len()
            ));
        }
        for (address, key) in answers {
            if key == self.own {
                continue;
            }
            if !self.allowed.admits(key) {
                state.strangers.say(key, &format!("{address} ({})", self.shown()));
                continue;
            }
            state.found.insert(key, address);
            let lead = Lead { key, address: address.to_string(), trusted: false };
            drop(found.send(Found::Lead(lead)).await);
        }
        Ok(())
    }

    /// The addresses that the name stands for, each once.
    async fn addresses(&self) -> Result<BTreeSet<SocketAddr>, String> {
        let resolver = self.resolver().map_err(|e| {
            format!(
                "the system does not say whom to ask: {e}\n  hint: name a server with resolver = ADDRESS:PORT"
            )
        })?;
        let Some(port) = self.port else { return self.services(&resolver).await };
        let found = resolver.lookup_ip(&self.name).await.map_err(|e| e.to_string())?;
        Ok(found.iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// The same for a name with SRV records (RFC 2782). Weights do not count: all are asked.
    async fn services(&self, resolver: &TokioResolver) -> Result<BTreeSet<SocketAddr>, String> {
        let found = resolver.lookup(&self.name, RecordType::SRV).await.map_err(|e| e.to_string())?;
        let mut targets: Vec<_> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                // A port of 0, as the root in place of a name, says that there is none.
                RData::SRV(srv) if srv.port > 0 && !srv.target.is_root() => Some(srv),
                _ => None,
            })
            .collect();
        targets.sort_by_key(|srv| srv.priority);
        let mut addresses = BTreeSet::new();
        let mut trouble = None;
        for srv in targets.into_iter().take(TARGETS_MAX) {
            match resolver.lookup_ip(srv.target.clone()).await {
                Ok(ips) => addresses.extend(ips.iter().map(|ip| SocketAddr::new(ip, srv.port))),
                Err(e) => trouble = Some(format!("{}: {e}", srv.target)),
            }
            if addresses.len() >= ADDRESSES_MAX {
                break;
            }
        }
        match trouble {
            Some(trouble) if addresses.is_empty() => Err(trouble),
            _ => Ok(addresses.into_iter().take(ADDRESSES_MAX).collect()),
        }
    }

    /// Made anew each time: the system's settings may have changed, and what was found before is of no interest.
    fn resolver(&self) -> Result<TokioResolver, hickory_resolver::net::NetError> {
        let mut builder = match self.resolver {
            None => TokioResolver::builder_tokio()?,
            Some(server) => {
                let mut server_config = NameServerConfig::udp_and_tcp(server.ip());
                for connection in &mut server_config.connections {
                    connection.port = server.port();
                }
                let config = ResolverConfig::from_name_servers(vec![server_config]);
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build()
    }

    /// Asks who is at each address. What they say.
    async fn ask(
        &self,
        addresses: &BTreeSet<SocketAddr>,
        asked: &mut u64,
    ) -> Result<BTreeMap<SocketAddr, Key>, String> {
        let mut answers = BTreeMap::new();
        for is_ipv4 in [true, false] {
            let those: Vec<SocketAddr> =
                addresses.iter().copied().filter(|a| a.is_ipv4() == is_ipv4).collect();
            if those.is_empty() {
                continue;
            }
            let any: IpAddr =
                if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let bound = UdpSocket::bind((any, 0)).await;
            let socket = bound.map_err(|e| format!("nobody can be asked over UDP: {e}"))?;
            // What an answer repeats tells whom it is from, and that it is not made up by somebody else.
            let nonces: BTreeMap<u64, SocketAddr> =
                those.iter().map(|address| (self.nonce(asked), *address)).collect();
            for _ in 0..QUESTIONS {
                let silent: Vec<_> = nonces.iter().filter(|(_, a)| !answers.contains_key(*a)).collect();
                for (nonce, address) in &silent {
                    let question = Datagram::Question { nonce: **nonce }.encode();
                    if let Err(error) = socket.send_to(&question, **address).await {
                        tracing::debug!("{address} is not asked who is there: {error}");
                    }
                }
                if silent.is_empty() {
                    break;
                }
                hear(&socket, &nonces, &mut answers).await;
            }
        }
        Ok(answers)
    }

    fn nonce(&self, asked: &mut u64) -> u64 {
        *asked += 1;
        let hash = blake3::keyed_hash(&self.secret, &asked.to_le_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
    }

    /// As it stands in the settings.
    fn shown(&self) -> String {
        match self.port {
            Some(port) => format!("dns:{}:{port}", self.name),
            None => format!("dns:{}", self.name),
        }
    }
}

/// Takes answers until all have come, or [`ANSWER_MAX`] is over.
async fn hear(
    socket: &UdpSocket,
    nonces: &BTreeMap<u64, SocketAddr>,
    answers: &mut BTreeMap<SocketAddr, Key>,
) {
    let until = Instant::now() + ANSWER_MAX;
    let mut bytes = [0; BYTES_MAX];
    while nonces.values().any(|address| !answers.contains_key(address)) {
        match timeout_at(until, socket.recv_from(&mut bytes)).await {
            Err(_) | Ok(Err(_)) => return,
            Ok(Ok((length, _))) => {
                if let Some(Datagram::Answer { nonce, beacon }) = Datagram::decode(&bytes[..length])
                    && let Some(address) = nonces.get(&nonce)
                {
                    answers.entry(*address).or_insert(Key(beacon.key));
                }
            }
        }
    }
}
