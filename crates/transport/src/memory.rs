//! The transport inside one process: the same promises, without sockets.
//!
//! A [`Port`] is an end that may be connected to, through its [`Address`], and that may itself connect. Ports may
//! live on different threads. For tests, workers inside the daemon and the simulator; deterministic where all
//! ports are driven by one thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Bounds, Connection, Event, SendError, Transport};

/// One end.
#[derive(Debug)]
pub struct Port {
    address: Address,
    inbox: mpsc::UnboundedReceiver<Parcel>,
    peers: BTreeMap<Connection, Peer>,
    ready: Vec<Event>,
    bounds: Bounds,
}

/// Where a [`Port`] can be connected to, as long as it lives.
#[derive(Clone, Debug)]
pub struct Address {
    inbox: mpsc::UnboundedSender<Parcel>,
    /// The numbers of the port's connections are given out here, whoever connects.
    count: Arc<AtomicU64>,
}

/// How to reach the other end of a connection.
#[derive(Clone, Debug)]
struct Peer {
    inbox: mpsc::UnboundedSender<Parcel>,
    /// What the other end calls this connection.
    connection: Connection,
    /// Frames that wait at the other end.
    waiting_there: Arc<AtomicU32>,
    /// Frames of this connection that wait here.
    waiting_here: Arc<AtomicU32>,
}

#[derive(Debug)]
enum Parcel {
    Opened(Connection, Peer),
    Frame(Connection, Bytes, Bytes),
    Closed(Connection),
}

/// Two ports, connected; each with its number for the connection.
pub fn pair(bounds: &Bounds) -> ((Port, Connection), (Port, Connection)) {
    let mut left = Port::new(bounds.clone());
    let right = Port::new(bounds.clone());
    let there = right.address();
    let here = left.connect(&there).expect("the right port lives");
    ((left, here), (right, Connection(1)))
}

impl Port {
    /// A port without connections.
    pub fn new(bounds: Bounds) -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        let address = Address { inbox: sender, count: Arc::new(AtomicU64::new(0)) };
        Self { address, inbox, peers: BTreeMap::new(), ready: Vec::new(), bounds }
    }

    /// Where it can be connected to.
    pub fn address(&self) -> Address {
        self.address.clone()
    }

    /// Connects to another port. Both see `Opened`; frames may be sent at once.
    pub fn connect(&mut self, to: &Address) -> Result<Connection, SendError> {
        let (here, there) = (self.address.next(), to.next());
        let (waiting_here, waiting_there) = (Arc::default(), Arc::default());
        let us = Peer {
            inbox: self.address.inbox.clone(),
            connection: here,
            waiting_there: Arc::clone(&waiting_here),
            waiting_here: Arc::clone(&waiting_there),
        };
        to.inbox.send(Parcel::Opened(there, us)).map_err(|_| SendError::Gone)?;
        let them = Peer { inbox: to.inbox.clone(), connection: there, waiting_there, waiting_here };
        self.open(here, them);
        Ok(here)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.peers.len()
    }

    /// What [`Transport::recv`] would hand in now, without waiting. Says whether there was anything.
    pub fn try_recv(&mut self, events: &mut Vec<Event>) -> bool {
        while let Ok(parcel) = self.inbox.try_recv() {
            self.on_parcel(parcel);
        }
        let any = !self.ready.is_empty();
        events.append(&mut self.ready);
        any
    }

    fn open(&mut self, connection: Connection, peer: Peer) {
        if self.peers.len() >= self.bounds.connections_max {
            peer.end();
            return;
        }
        self.peers.insert(connection, peer);
        self.ready.push(Event::Opened { connection, key: None });
    }

    fn on_parcel(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Opened(connection, peer) => self.open(connection, peer),
            Parcel::Frame(connection, header, payload) => self.on_frame(connection, header, payload),
            Parcel::Closed(connection) => {
                if self.peers.remove(&connection).is_some() {
                    self.ready.push(Event::Closed { connection });
                }
            }
        }
    }

    fn on_frame(&mut self, connection: Connection, header: Bytes, payload: Bytes) {
        let Some(peer) = self.peers.get(&connection) else { return };
        peer.waiting_here.fetch_sub(1, Ordering::AcqRel);
        let (bytes, max) = (header.len() + payload.len(), self.bounds.frame_bytes_max);
        if bytes <= max {
            self.ready.push(Event::Frame { connection, header, payload });
            return;
        }
        peer.end();
        self.peers.remove(&connection);
        let reason = format!("message too large: {bytes} bytes exceeds max {max}");
        self.ready.push(Event::Broken { connection, reason });
        self.ready.push(Event::Closed { connection });
    }
}

impl Address {
    fn next(&self) -> Connection {
        Connection(self.count.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Peer {
    /// Tells the other end that this is over; it may know.
    fn end(&self) {
        let _ = self.inbox.send(Parcel::Closed(self.connection));
    }
}

impl Transport for Port {
    fn send(&mut self, connection: Connection, header: Bytes, payload: Bytes) -> Result<(), SendError> {
        let peer = self.peers.get(&connection).ok_or(SendError::Gone)?;
        // Only this end counts up, so the check and the count need not be one step.
        if peer.waiting_there.load(Ordering::Acquire) >= self.bounds.send_frames_max {
            return Err(SendError::Full);
        }
        peer.waiting_there.fetch_add(1, Ordering::AcqRel);
        let parcel = Parcel::Frame(peer.connection, header, payload);
        peer.inbox.send(parcel).map_err(|_| SendError::Gone)
    }

    fn close(&mut self, connection: Connection) {
        if let Some(peer) = self.peers.remove(&connection) {
            peer.end();
            self.ready.push(Event::Closed { connection });
        }
    }

    async fn recv(&mut self, events: &mut Vec<Event>) {
        while !self.try_recv(events) {
            let parcel = self.inbox.recv().await.expect("the port holds a sender of its own");
            self.on_parcel(parcel);
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.inbox.close();
        while let Ok(parcel) = self.inbox.try_recv() {
            if let Parcel::Opened(_, peer) = parcel {
                peer.end();
            }
        }
        for peer in self.peers.values() {
            peer.end();
        }
    }
}
