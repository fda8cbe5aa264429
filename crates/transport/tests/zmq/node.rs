//! A router under test, with its events read one at a time under a deadline.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use bourse_transport::{Bounds, Connection, Dealer, Endpoint, Event, Router, RouterOptions, Transport};
use bytes::Bytes;
use tempfile::TempDir;

/// Far beyond what anything here takes; reached only by a test that fails.
const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const FRAME_BYTES_MAX: usize = 20 << 20;

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// An end of the transport with the events it has found.
pub(crate) struct End<T> {
    pub(crate) transport: T,
    found: VecDeque<Event>,
}

pub(crate) struct Node {
    pub(crate) end: End<Router>,
    pub(crate) endpoint: Endpoint,
    _folder: TempDir,
}

pub(crate) fn bounds() -> Bounds {
    Bounds::new(FRAME_BYTES_MAX)
}

impl Node {
    pub(crate) async fn ipc() -> Self {
        Self::ipc_with(RouterOptions::new(bounds())).await
    }

    pub(crate) async fn ipc_with(options: RouterOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Ipc(folder.path().join("node.sock"));
        let mut router = Router::new(options).unwrap();
        let endpoint = router.bind(&endpoint).await.unwrap();
        Self { end: End::new(router), endpoint, _folder: folder }
    }

    pub(crate) fn url(&self) -> String {
        self.endpoint.to_string()
    }

    pub(crate) fn dealer(&self) -> End<Dealer> {
        End::new(Dealer::connect(&self.endpoint, &bounds()).unwrap())
    }

    pub(crate) async fn shut_down(self) {
        self.end.transport.shut_down().await;
    }
}

impl<T: Transport> End<T> {
    pub(crate) fn new(transport: T) -> Self {
        Self { transport, found: VecDeque::new() }
    }

    pub(crate) async fn next(&mut self) -> Event {
        while self.found.is_empty() {
            let mut events = Vec::new();
            within("an event", self.transport.recv(&mut events)).await;
            assert!(!events.is_empty(), "recv returns with something");
            self.found.extend(events);
        }
        self.found.pop_front().unwrap()
    }

    pub(crate) async fn opened(&mut self) -> Connection {
        match self.next().await {
            Event::Opened { connection, .. } => connection,
            other => panic!("expected Opened, got {other:?}"),
        }
    }

    /// The next event, which must be a frame of this connection.
    pub(crate) async fn frame(&mut self, from: Connection) -> (Bytes, Bytes) {
        match self.next().await {
            Event::Frame { connection, header, payload } if connection == from => (header, payload),
            other => panic!("expected a frame of {from:?}, got {other:?}"),
        }
    }

    pub(crate) async fn closed(&mut self, which: Connection) {
        assert_eq!(self.next().await, Event::Closed { connection: which });
    }

    /// `Broken`, then `Closed`; returns the reason.
    pub(crate) async fn broken(&mut self, which: Connection) -> String {
        match self.next().await {
            Event::Broken { connection, reason } if connection == which => {
                self.closed(which).await;
                reason
            }
            other => panic!("expected Broken of {which:?}, got {other:?}"),
        }
    }

    /// The end of a peer that was killed: a reset may be told first.
    pub(crate) async fn over(&mut self, which: Connection) {
        let mut event = self.next().await;
        if matches!(event, Event::Broken { connection, .. } if connection == which) {
            event = self.next().await;
        }
        assert_eq!(event, Event::Closed { connection: which });
    }

    pub(crate) fn send(&mut self, to: Connection, header: &'static str, payload: &'static str) {
        self.transport.send(to, header.into(), payload.into()).unwrap();
    }

    /// Sends every frame back until the connection closes; returns how many there were.
    pub(crate) async fn echo_until_closed(&mut self, which: Connection) -> usize {
        let mut frames = 0;
        loop {
            match self.next().await {
                Event::Frame { connection, header, payload } => {
                    self.transport.send(connection, header, payload).unwrap();
                    frames += 1;
                }
                Event::Closed { connection } if connection == which => return frames,
                other => panic!("expected frames or Closed of {which:?}, got {other:?}"),
            }
        }
    }
}
