//! The end that connects: a ZeroMQ DEALER, for clients written in Rust and for tests.
//!
//! It keeps trying. Each time it gets through is a new [`Connection`], told by `Opened`, on which nothing of the
//! one before is sent: the protocol above can begin anew. For that each life has a socket of its own, since the
//! library would otherwise carry what waits in its queue over to the next connection.

use std::time::Duration;

use bytes::Bytes;
use omq_tokio::options::ReconnectPolicy;
use omq_tokio::{
    DisconnectReason, Message, MonitorEvent, MonitorRecvError, MonitorStream, MonitorTryRecvError, Options,
    Socket, SocketType, TrySendError,
};

use crate::curve::{self, Key, KeyPair};
use crate::message::{self, Content, MESSAGES_PER_WAKE};
use crate::options;
use crate::{Bounds, ConnectError, Connection, Endpoint, Event, SendError, Transport};

/// The pause before a lost connection is tried again, in milliseconds; doubled up to the maximum while nobody is
/// there.
const RECONNECT_MS: u64 = 100;
/// The longest pause between two attempts, in milliseconds.
const RECONNECT_MS_MAX: u64 = 2_000;

/// What is said where nothing listens.
const NOBODY: &str = "nobody answers";
/// What is said of one that takes the connection, and has said nothing since.
const SILENT: &str = "the connection is taken, and then nothing comes";
/// What is said of one that hangs up during the handshake, which a router does to whoever asks for another key.
const HUNG_UP: &str = "it closes the connection: it has another key than expected, or it is something else";
/// What is said of a router that knows the key and does not want it.
pub const NOT_ADMITTED: &str = "it does not admit this key";

/// How a [`Dealer`] is set up.
#[derive(Clone, Debug)]
pub struct DealerOptions {
    /// How much it takes on.
    pub bounds: Bounds,
    /// Its own keys, and the public key that the other end must prove to hold. Without them, whoever listens there
    /// is believed.
    pub curve: Option<(KeyPair, Key)>,
    /// As in [`RouterOptions`](crate::RouterOptions).
    pub heartbeat_ms: u64,
}

impl DealerOptions {
    /// No keys, no heartbeat.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, curve: None, heartbeat_ms: 0 }
    }
}

/// How far the attempt to connect has come that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Nothing answers yet.
    Dialed,
    /// Something does, but has not proved who it is.
    Answered,
    /// It has failed, and why was told.
    Failed,
}

/// Sends on one connection of a [`Dealer`] while that is being waited on elsewhere. It ends with the connection, and
/// nothing of it reaches the next.
#[derive(Clone, Debug)]
pub struct Line {
    socket: Socket,
    /// The generation of the library's set of connections, which is this one connection, when it was opened.
    generation: u64,
}

impl Line {
    /// Sends a frame, or says at once why not. Never waits.
    pub fn send(&self, header: Bytes, payload: Bytes) -> Result<(), SendError> {
        if self.socket.connections_generation() != self.generation {
            return Err(SendError::Gone);
        }
        try_send(&self.socket, message::write(header, payload))
    }

    /// As [`Router::send_part`](crate::Router::send_part).
    pub fn send_part(&self, part: Bytes) -> Result<(), SendError> {
        if self.socket.connections_generation() != self.generation {
            return Err(SendError::Gone);
        }
        try_send(&self.socket, message::write_one(part))
    }
}

fn try_send(socket: &Socket, message: Message) -> Result<(), SendError> {
    match socket.try_send(message) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(_)) => Err(SendError::Full),
        Err(TrySendError::Closed | TrySendError::Error(_)) => Err(SendError::Gone),
    }
}

/// The end that connects.
#[derive(Debug)]
pub struct Dealer {
    endpoint: Endpoint,
    options: Options,
    socket: Socket,
    changes: MonitorStream,
    generation: u64,
    /// Connections so far, which is also the current one's number.
    count: u64,
    /// `Opened` was found for the current number, and no end reported yet.
    open: bool,
    /// This life is over, for this reason; reported once all that waits has been taken.
    over: Option<Option<String>>,
    /// The peer broke the framing: what else it sent is not looked at.
    broken_off: bool,
    attempt: Attempt,
    /// An attempt has failed since it was connected last.
    failed: bool,
    trouble: Option<String>,
    ready: Vec<Event>,
    inbox: Vec<Message>,
}

impl Dealer {
    /// Begins to connect. Must be called inside a tokio runtime.
    pub fn connect(endpoint: &Endpoint, bounds: &Bounds) -> Result<Self, ConnectError> {
        Self::new(endpoint, DealerOptions::new(bounds.clone()))
    }

    /// Begins to connect with CURVE: as the holder of `own`, and only to the holder of `server`.
    pub fn connect_curve(
        endpoint: &Endpoint,
        bounds: &Bounds,
        own: KeyPair,
        server: Key,
    ) -> Result<Self, ConnectError> {
        Self::new(
            endpoint,
            DealerOptions { curve: Some((own, server)), ..DealerOptions::new(bounds.clone()) },
        )
    }

    /// Begins to connect. Must be called inside a tokio runtime.
    pub fn new(endpoint: &Endpoint, options: DealerOptions) -> Result<Self, ConnectError> {
        let DealerOptions { bounds, curve, heartbeat_ms } = options;
        let mut socket_options = options::heartbeat(options::socket(&bounds), heartbeat_ms);
        if let Some((own, server)) = curve {
            socket_options = curve::client(socket_options, own, server);
        }
        Self::with(endpoint, socket_options)
    }

    /// Why it is not connected, as far as known: for the message of a client that gives up. It goes on trying, so
    /// this changes with what is found; `None` as long as nothing has come back at all.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The connection that is open now.
    pub fn connection(&self) -> Option<Connection> {
        (self.open && self.over.is_none()).then_some(Connection(self.count))
    }

    /// Sends on the connection that is open now, and on no later one.
    pub fn line(&mut self) -> Option<Line> {
        if self.socket.connections_generation() != self.generation {
            self.read_changes();
        }
        self.connection()?;
        Some(Line { socket: self.socket.clone(), generation: self.generation })
    }

    /// As [`recv`](Transport::recv), and gives up with the reason when an attempt to connect has failed: for whoever knows another
    /// way to the same end.
    pub async fn recv_unless_failed(&mut self, events: &mut Vec<Event>) -> Result<(), String> {
        while !self.hand_in(events) {
            if self.failed {
                return Err(self.trouble.clone().unwrap_or_else(|| NOBODY.to_owned()));
            }
            self.turn().await;
        }
        Ok(())
    }

    /// Gives frames already sent [`CLOSE_LINGER_MS`](crate::CLOSE_LINGER_MS) to leave, and ends.
    pub async fn shut_down(self) {
        // The only error is that it is closed already.
        let _ = self.socket.close().await;
    }

    fn with(endpoint: &Endpoint, options: Options) -> Result<Self, ConnectError> {
        let options = options.reconnect(ReconnectPolicy::Exponential {
            min: Duration::from_millis(RECONNECT_MS),
            max: Duration::from_millis(RECONNECT_MS_MAX),
        });
        let socket = Socket::try_new(SocketType::Dealer, options.clone())
            .map_err(|error| ConnectError { endpoint: endpoint.to_string(), reason: error.to_string() })?;
        let dealer = Self {
            changes: socket.monitor(),
            generation: socket.connections_generation(),
            endpoint: endpoint.clone(),
            options,
            socket,
            count: 0,
            open: false,
            over: None,
            broken_off: false,
            attempt: Attempt::Dialed,
            failed: false,
            trouble: None,
            ready: Vec::new(),
            inbox: Vec::new(),
        };
        dealer.dial(Duration::ZERO);
        Ok(dealer)
    }

    fn dial(&self, pause: Duration) {
        let (socket, endpoint) = (self.socket.clone(), self.endpoint.to_omq());
        tokio::spawn(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            // Fails only where the socket was replaced or dropped meanwhile.
            let _ = socket.connect(endpoint).await;
        });
    }

    /// Starts the next life and returns the socket of the last one.
    fn redial(&mut self) -> Socket {
        let socket = Socket::try_new(SocketType::Dealer, self.options.clone())
            .expect("these options have made a socket before");
        self.changes = socket.monitor();
        self.generation = socket.connections_generation();
        self.open = false;
        self.over = None;
        self.broken_off = false;
        self.attempt = Attempt::Dialed;
        self.inbox.clear();
        let last = std::mem::replace(&mut self.socket, socket);
        self.dial(Duration::from_millis(RECONNECT_MS));
        last
    }

    /// Hands in what was found. False if that was nothing.
    fn hand_in(&mut self, events: &mut Vec<Event>) -> bool {
        self.read_changes();
        if self.over.is_some() {
            self.finish();
        }
        let is_something = !self.ready.is_empty();
        events.append(&mut self.ready);
        is_something
    }

    /// Waits until something happens.
    async fn turn(&mut self) {
        tokio::select! {
            biased;
            change = self.changes.recv() => match change {
                Ok(change) => self.on_change(change),
                Err(MonitorRecvError::Lagged(_)) => self.on_overrun(),
                Err(error) => panic!("{OPEN}: {error}"),
            },
            taken = self.socket.recv_many_into(MESSAGES_PER_WAKE, &mut self.inbox) => {
                taken.expect(OPEN);
                self.read_changes();
                self.take_inbox();
            }
        }
    }

    fn read_changes(&mut self) {
        self.generation = self.socket.connections_generation();
        loop {
            match self.changes.try_recv() {
                Ok(change) => self.on_change(change),
                Err(MonitorTryRecvError::Lagged(_)) => self.on_overrun(),
                Err(_) => return,
            }
        }
    }

    fn on_change(&mut self, change: MonitorEvent) {
        match change {
            _ if self.over.is_some() => {}
            MonitorEvent::HandshakeSucceeded { peer, .. } => {
                self.open = true;
                self.failed = false;
                self.count += 1;
                self.trouble = None;
                let connection = Connection(self.count);
                self.ready.push(Event::Opened { connection, key: message::key(&peer) });
            }
            MonitorEvent::Disconnected { reason, .. } => {
                self.over = Some(match reason {
                    DisconnectReason::Error(reason) => Some(reason),
                    _ => None,
                });
            }
            MonitorEvent::Connected { .. } => {
                self.attempt = Attempt::Answered;
                if self.trouble.as_deref().is_none_or(|trouble| trouble == NOBODY) {
                    self.trouble = Some(SILENT.into());
                }
            }
            MonitorEvent::HandshakeFailed { reason, .. } => {
                self.attempt = Attempt::Failed;
                self.failed = true;
                self.trouble = Some(reason);
            }
            MonitorEvent::ConnectDelayed { .. } => {
                self.failed = true;
                match self.attempt {
                    Attempt::Dialed => self.trouble = Some(NOBODY.into()),
                    Attempt::Answered => self.trouble = Some(HUNG_UP.into()),
                    Attempt::Failed => {}
                }
                self.attempt = Attempt::Dialed;
            }
            // The library gives up where the other end refuses; that end may change its mind.
            MonitorEvent::ConnectStopped { reason, .. } => {
                if matches!(reason, DisconnectReason::HandshakeRefused(_)) {
                    self.trouble = Some(NOT_ADMITTED.into());
                }
                self.failed = true;
                self.over = Some(None);
            }
            _ => {}
        }
    }

    /// Too many changes to tell where things stand: begin anew.
    fn on_overrun(&mut self) {
        self.over = Some(Some("too many changes to follow".into()));
    }

    /// Hands in what was received; stops at a violation, and with it the connection.
    fn take_inbox(&mut self) {
        let connection = Connection(self.count);
        for message in self.inbox.drain(..) {
            match message::read(&message, 0) {
                Content::Probe => {}
                Content::Frame { header, payload } => {
                    self.ready.push(Event::Frame { connection, header, payload });
                }
                Content::Violation { parts } => {
                    self.over = Some(Some(message::violation(parts)));
                    self.broken_off = true;
                    return;
                }
            }
        }
    }

    /// Takes every message that waits, reports the end of the connection, if there was one, and dials again.
    fn finish(&mut self) {
        while !self.broken_off && self.socket.try_recv_many_into(MESSAGES_PER_WAKE, &mut self.inbox).is_ok() {
            self.take_inbox();
        }
        let reason = self.over.take().flatten();
        if self.open {
            let connection = Connection(self.count);
            if let Some(reason) = reason {
                self.ready.push(Event::Broken { connection, reason });
            }
            self.ready.push(Event::Closed { connection });
        }
        // A line may still hold the last one, which would connect again by itself.
        let last = self.redial();
        tokio::spawn(last.close());
    }
}

impl Transport for Dealer {
    fn send(&mut self, connection: Connection, header: Bytes, payload: Bytes) -> Result<(), SendError> {
        if self.socket.connections_generation() != self.generation {
            self.read_changes();
        }
        if self.connection() != Some(connection) {
            return Err(SendError::Gone);
        }
        try_send(&self.socket, message::write(header, payload))
    }

    /// Ends this life; the next one is dialed as after any end.
    fn close(&mut self, connection: Connection) {
        if self.open && connection == Connection(self.count) {
            self.ready.push(Event::Closed { connection });
            let socket = self.redial();
            tokio::spawn(socket.close());
        }
    }

    async fn recv(&mut self, events: &mut Vec<Event>) {
        while !self.hand_in(events) {
            self.turn().await;
        }
    }
}

/// The invariant behind every `expect` on the socket.
const OPEN: &str =
    "the socket is open: only `shut_down` closes the current one, and takes the dealer with it";
