//! The end that others connect to: a ZeroMQ ROUTER on any number of endpoints.
//!
//! The library tells of connections on one channel and hands over messages on another, and either may be ahead.
//! This file brings them into the order that the crate promises:
//!
//! - A connection's beginning is published before its first message can be read, so changes are read first; a
//!   message of a connection that is not known after that belongs to one that has ended, and is dropped.
//! - A connection's end may be published before its last messages are read. So on an end, all that waits is
//!   taken first, without awaiting; on a current-thread runtime nothing can be added meanwhile.
//! - The channel of changes is a ring. When it has overrun, the list of connections is asked for and compared.
//! - A route is a name, and a newer connection may have taken it over. So `send` looks whether the set of
//!   connections has changed since changes were last read, and reads them first if so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use omq_tokio::{
    ConnectionStatus, DisconnectReason, Error, Message, MonitorEvent, MonitorRecvError, MonitorStream,
    MonitorTryRecvError, PeerInfo, Socket, SocketType, TrySendError,
};
use tokio::task::JoinHandle;

use crate::curve;
use crate::endpoint::{self, SocketFile};
use crate::message::{self, Content, MESSAGES_PER_WAKE};
use crate::options::{self, RouterOptions};
use crate::{BindError, CLOSE_LINGER_MS, Carrier, Connection, Endpoint, Event, SendError, Transport};

/// The end that others connect to.
#[derive(Debug)]
pub struct Router {
    socket: Socket,
    changes: MonitorStream,
    /// The generation of the library's set of connections when `changes` was last read.
    generation: u64,
    /// Changes were lost: the list of connections must be compared.
    overrun: bool,
    /// Asked of the library, kept here so that a dropped `recv` does not ask anew for ever.
    question: Option<Question>,
    peers: BTreeMap<Connection, Peer>,
    /// Opened, but the library did not say yet under which name to send to them.
    unnamed: Vec<Connection>,
    /// Ended according to the changes; reported once all that waits has been taken.
    ended: Vec<(Connection, DisconnectReason)>,
    /// Found, and not handed in yet.
    ready: Vec<Event>,
    inbox: Vec<Message>,
    files: Vec<SocketFile>,
    connections_max: usize,
    may_expose: bool,
}

#[derive(Debug)]
struct Question {
    /// For a question about all connections: those that were known when it was asked.
    all: Option<Vec<Connection>>,
    answer: JoinHandle<Vec<ConnectionStatus>>,
}

#[derive(Debug)]
struct Peer {
    /// The name to send to; empty while unknown.
    route: Bytes,
    carrier: Carrier,
    ended: bool,
}

impl Router {
    /// A router without endpoints. Must be called inside a tokio runtime.
    pub fn new(options: RouterOptions) -> Result<Self, BindError> {
        let RouterOptions { bounds, curve, exposed, heartbeat_ms } = options;
        let may_expose = exposed || curve.is_some();
        let mut socket_options =
            options::heartbeat(options::socket(&bounds), heartbeat_ms).router_mandatory(true);
        if let Some(curve) = curve {
            socket_options = curve::server(socket_options, curve);
        }
        let socket = Socket::try_new(SocketType::Router, socket_options)
            .map_err(|error| BindError::Refused { endpoint: "a socket".into(), reason: error.to_string() })?;
        Ok(Self {
            changes: socket.monitor(),
            generation: socket.connections_generation(),
            overrun: false,
            question: None,
            peers: BTreeMap::new(),
            unnamed: Vec::new(),
            ended: Vec::new(),
            ready: Vec::new(),
            inbox: Vec::new(),
            files: Vec::new(),
            connections_max: bounds.connections_max,
            may_expose,
            socket,
        })
    }

    /// Listens on one more endpoint and returns its real address: with the port, where 0 was asked for.
    pub async fn bind(&mut self, endpoint: &Endpoint) -> Result<Endpoint, BindError> {
        let refused = |error: Error| match error {
            Error::Io(source) => BindError::Io { what: format!("bind {endpoint}"), source },
            other => BindError::Refused { endpoint: endpoint.to_string(), reason: other.to_string() },
        };
        match endpoint {
            Endpoint::Ipc(path) => {
                let mut file = SocketFile::claim(path)?;
                self.socket.bind(endpoint.to_omq()).await.map_err(refused)?;
                file.bound()?;
                self.files.push(file);
                Ok(endpoint.clone())
            }
            Endpoint::Tcp(address) => {
                if !address.ip().is_loopback() && !self.may_expose {
                    return Err(BindError::Exposed(*address));
                }
                let bound = self.socket.bind(endpoint.to_omq()).await.map_err(refused)?;
                let omq_tokio::Endpoint::Tcp { port, .. } = bound else {
                    return Err(BindError::Refused {
                        endpoint: endpoint.to_string(),
                        reason: format!("bound as {bound}"),
                    });
                };
                Ok(Endpoint::Tcp((address.ip(), port).into()))
            }
        }
    }

    /// Sends a frame that is a header alone in one part instead of two, which is cheaper, above all with CURVE; the other
    /// end of this crate sees the same frame. Peers that are programs of others may insist on the second part.
    pub fn send_part(&mut self, connection: Connection, part: Bytes) -> Result<(), SendError> {
        self.send_message(connection, message::write_one(part))
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.peers.len()
    }

    /// What an open connection is carried by.
    pub fn carrier(&self, connection: Connection) -> Option<Carrier> {
        self.peers.get(&connection).map(|peer| peer.carrier)
    }

    /// Stops listening, gives frames already sent [`CLOSE_LINGER_MS`] to leave, and removes its socket files.
    /// Dropping the router does the same, but for the wait.
    pub async fn shut_down(self) {
        let Self { socket, files, .. } = self;
        // The only error is that it is closed already.
        let _ = socket.close().await;
        drop(files);
    }

    // ------------------------------------------------------------ changes

    fn read_changes(&mut self) {
        self.generation = self.socket.connections_generation();
        loop {
            match self.changes.try_recv() {
                Ok(change) => {
                    // What a list asked for before this says is no longer so: ask again.
                    self.overrun |= self.question.as_ref().is_some_and(|question| question.all.is_some());
                    self.on_change(change);
                }
                Err(MonitorTryRecvError::Lagged(_)) => self.overrun = true,
                Err(_) => return,
            }
        }
    }

    fn on_change(&mut self, change: MonitorEvent) {
        match change {
            MonitorEvent::HandshakeSucceeded { peer, endpoint } => {
                let route = peer.peer_identity.clone().unwrap_or_default();
                self.on_up(&peer, route, endpoint::carrier(&endpoint));
            }
            MonitorEvent::Disconnected { peer, reason, .. } => {
                self.on_down(Connection(peer.connection_id), reason);
            }
            _ => {}
        }
    }

    fn on_up(&mut self, info: &PeerInfo, route: Bytes, carrier: Carrier) {
        let connection = Connection(info.connection_id);
        if self.peers.contains_key(&connection) {
            return; // known from a list of connections
        }
        if self.peers.len() - self.ended.len() >= self.connections_max {
            self.disconnect(connection, Duration::ZERO);
            return;
        }
        if route.is_empty() {
            self.unnamed.push(connection);
        }
        self.peers.insert(connection, Peer { route, carrier, ended: false });
        self.ready.push(Event::Opened { connection, key: message::key(info) });
    }

    fn on_down(&mut self, connection: Connection, reason: DisconnectReason) {
        if let Some(peer) = self.peers.get_mut(&connection)
            && !peer.ended
        {
            peer.ended = true;
            self.ended.push((connection, reason));
        }
    }

    /// Asks for all connections if changes were lost, else for the names of those without one.
    fn ask(&mut self) -> Question {
        let socket = self.socket.clone();
        if std::mem::take(&mut self.overrun) {
            let answer = tokio::spawn(async move { socket.connections().await.expect(OPEN) });
            return Question { all: Some(self.peers.keys().copied().collect()), answer };
        }
        let unnamed = std::mem::take(&mut self.unnamed);
        let answer = tokio::spawn(async move {
            let mut found = Vec::new();
            for connection in unnamed {
                found.extend(socket.connection_info(connection.0).await.expect(OPEN));
            }
            found
        });
        Question { all: None, answer }
    }

    fn on_answer(&mut self, all: Option<Vec<Connection>>, listed: Vec<ConnectionStatus>) {
        if all.is_some() && self.overrun {
            return; // things changed meanwhile
        }
        let asked_for_all = all.is_some();
        let has: BTreeSet<u64> = listed.iter().map(|status| status.connection_id).collect();
        for connection in all.into_iter().flatten().filter(|connection| !has.contains(&connection.0)) {
            self.on_down(connection, DisconnectReason::PeerClosed);
        }
        for ConnectionStatus { connection_id, identity, peer_info, endpoint } in listed {
            match self.peers.get_mut(&Connection(connection_id)) {
                Some(peer) => peer.route = identity,
                // Not known although its name was asked for: closed by us meanwhile.
                None if !asked_for_all => {}
                None => {
                    if let Some(info) = peer_info {
                        self.on_up(&info, identity, endpoint::carrier(&endpoint));
                    }
                }
            }
        }
    }

    // ------------------------------------------------------------ messages

    fn send_message(&mut self, connection: Connection, message: Message) -> Result<(), SendError> {
        if self.socket.connections_generation() != self.generation {
            self.read_changes();
        }
        let peer = self.peers.get(&connection).filter(|peer| !peer.ended).ok_or(SendError::Gone)?;
        match self.socket.try_send_to(&peer.route, message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(SendError::Full),
            Err(TrySendError::Closed | TrySendError::Error(_)) => Err(SendError::Gone),
        }
    }

    fn on_message(&mut self, message: &Message) {
        let Some(sender) = message.sender_identity() else { return };
        let connection = Connection(sender.peer_info().connection_id);
        if !self.peers.contains_key(&connection) {
            return; // of a connection that was closed, replaced or refused
        }
        match message::read(message, 1) {
            Content::Probe => {}
            Content::Frame { header, payload } => {
                self.ready.push(Event::Frame { connection, header, payload });
            }
            Content::Violation { parts } => {
                self.peers.remove(&connection);
                self.ready.push(Event::Broken { connection, reason: message::violation(parts) });
                self.ready.push(Event::Closed { connection });
                self.disconnect(connection, Duration::ZERO);
            }
        }
    }

    fn take_inbox(&mut self) {
        let mut inbox = std::mem::take(&mut self.inbox);
        for message in inbox.drain(..) {
            self.on_message(&message);
        }
        self.inbox = inbox;
    }

    /// Takes every message that waits, then reports the ends found before.
    fn report_ended(&mut self) {
        let ended = std::mem::take(&mut self.ended);
        while self.socket.try_recv_many_into(MESSAGES_PER_WAKE, &mut self.inbox).is_ok() {
            self.take_inbox();
        }
        for (connection, reason) in ended {
            if self.peers.remove(&connection).is_none() {
                continue; // closed by us meanwhile
            }
            if let Some(reason) = disorder(reason) {
                self.ready.push(Event::Broken { connection, reason });
            }
            self.ready.push(Event::Closed { connection });
        }
    }

    fn disconnect(&self, connection: Connection, linger: Duration) {
        let socket = self.socket.clone();
        tokio::spawn(async move {
            if !linger.is_zero() {
                tokio::time::sleep(linger).await;
            }
            // The only error is that it has gone by itself.
            let _ = socket.disconnect_peer(connection.0).await;
        });
    }
}

impl Transport for Router {
    fn send(&mut self, connection: Connection, header: Bytes, payload: Bytes) -> Result<(), SendError> {
        self.send_message(connection, message::write(header, payload))
    }

    fn close(&mut self, connection: Connection) {
        if self.peers.remove(&connection).is_some() {
            self.ended.retain(|(ended, _)| *ended != connection);
            self.ready.push(Event::Closed { connection });
            self.disconnect(connection, Duration::from_millis(CLOSE_LINGER_MS));
        }
    }

    async fn recv(&mut self, events: &mut Vec<Event>) {
        loop {
            self.read_changes();
            if self.question.is_none() && (self.overrun || !self.unnamed.is_empty()) {
                self.question = Some(self.ask());
            }
            if let Some(Question { all, answer }) = &mut self.question {
                let listed = answer.await.expect(OPEN);
                let all = all.take();
                self.question = None;
                self.on_answer(all, listed);
                continue;
            }
            if !self.ended.is_empty() {
                self.report_ended();
            }
            if !self.ready.is_empty() {
                events.append(&mut self.ready);
                return;
            }
            tokio::select! {
                biased;
                change = self.changes.recv() => match change {
                    Ok(change) => self.on_change(change),
                    Err(MonitorRecvError::Lagged(_)) => self.overrun = true,
                    Err(error) => panic!("{OPEN}: {error}"),
                },
                taken = self.socket.recv_many_into(MESSAGES_PER_WAKE, &mut self.inbox) => {
                    taken.expect(OPEN);
                    self.read_changes();
                    self.take_inbox();
                }
            }
        }
    }
}

/// The invariant behind every `expect` on the socket.
const OPEN: &str = "the socket is open: only `shut_down` closes it, and takes the router with it";

/// What the log should say of an end, unless it was in order.
fn disorder(reason: DisconnectReason) -> Option<String> {
    match reason {
        DisconnectReason::Error(reason) => Some(reason),
        DisconnectReason::Handover => Some("another connection has taken over its identity".into()),
        DisconnectReason::HandshakeRefused(refusal) => Some(refusal.to_string()),
        _ => None,
    }
}
