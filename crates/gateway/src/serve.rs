//! Sockets: accepting, timing out, draining.
//!
//! Broken and slow clients cost a connection each, for a bounded time, and nothing else: all bounds are in
//! [`Limits`].

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::guard::Guard;
use crate::metrics::UPKEEP;
use crate::pulse::{Felt, Pulse};
use crate::upgrade::Handover;
use crate::{Gateway, Limits};

/// Connections that wait in the kernel to be accepted.
pub(crate) const BACKLOG: u32 = 1024;

/// hyper's buffer for one connection, at most.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// How long accepting pauses when the process is out of descriptors or memory: they come back by themselves, and
/// the waiting connection would make the next try fail at once.
pub(crate) const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What is read and thrown away of a body that nobody wanted, so that closing does not reset the connection before
/// the client has read its answer.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
const LINGER_MAX: Duration = Duration::from_secs(1);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Anybody could call everything.
    #[error("{0} is not loopback: set a token, or listen on 127.0.0.1")]
    Unprotected(SocketAddr),
    /// The operating system refused.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    /// Requests in flight are finished, none begun.
    Draining,
    /// Connections are dropped.
    Over,
}

/// A bound socket.
pub struct Listener {
    gateway: Gateway,
    guard: Arc<Guard>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Gateway {
    /// Binds a socket; clients can connect from now on, and wait until [`Listener::serve`].
    pub fn listen(&self, address: SocketAddr) -> Result<Listener, Error> {
        let config = self.config();
        let guard = Guard::new(address, &config.auth, &config.hosts, &config.origins);
        let guard = Arc::new(guard.ok_or(Error::Unprotected(address))?);
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?;
            let address = listener.local_addr()?;
            Ok(Listener { gateway: self.clone(), guard, listener, address })
        };
        bind().map_err(|source| Error::Bind { address, source })
    }
}

impl Listener {
    /// Where it listens; tells the port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, then finishes what is in flight, for at most
    /// [`Limits::drain_max`](crate::Limits::drain_max).
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { gateway, guard, listener, .. } = self;
        let limits = gateway.config().limits.clone();
        let permits_max = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
        let permits = Arc::new(Semaphore::new(permits_max as usize));
        let (stage, watched) = watch::channel(Stage::Serving);
        {
            let mut shutdown = pin!(shutdown);
            let mut upkeep = interval(UPKEEP);
            upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = &mut shutdown => break,
                    _ = upkeep.tick() => {
                        if let Some(scrape) = &gateway.config().scrape {
                            scrape.run_upkeep();
                        }
                    }
                    (stream, permit) = accept(&listener, &permits) => {
                        let connection = Connection {
                            gateway: gateway.clone(),
                            guard: Arc::clone(&guard),
                            stage: watched.clone(),
                        };
                        tokio::spawn(connection.run(stream, permit));
                    }
                }
            }
        }
        drop(listener);
        stage.send_replace(Stage::Draining);
        if timeout(limits.drain_max, permits.acquire_many(permits_max)).await.is_err() {
            tracing::warn!(drain_max = ?limits.drain_max, "requests were still in flight at the end of the drain");
            stage.send_replace(Stage::Over);
            let _ = permits.acquire_many(permits_max).await;
        }
    }
}

/// The next connection, once there is room for it. Errors are waited out here.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = loop {
        match Arc::clone(permits).acquire_owned().await {
            Ok(permit) => break permit,
            // Never closed; waiting is right all the same.
            Err(_) => std::future::pending().await,
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            // The client left before it was its turn.
            Err(e)
                if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(e) => {
                tracing::warn!("cannot accept connections: {e}");
                sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

struct Connection {
    gateway: Gateway,
    guard: Arc<Guard>,
    stage: watch::Receiver<Stage>,
}

impl Connection {
    async fn run(self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let Self { gateway, guard, mut stage } = self;
        // A client that is gone already shows at the first read.
        let _ = stream.set_nodelay(true);
        let pulse = Arc::new(Pulse::new(Instant::now()));
        let open = Open::new(gateway.clone());
        let handover = Arc::new(Handover::default());
        let service = service_fn(|request| {
            let (gateway, guard) = (gateway.clone(), Arc::clone(&guard));
            let (pulse, handover) = (Arc::clone(&pulse), Arc::clone(&handover));
            async move {
                let answer = gateway.answer(&guard, &pulse, &handover, request).await;
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let limits = &gateway.config().limits;
        let io = TokioIo::new(Felt { inner: stream, pulse: Arc::clone(&pulse) });
        let mut http = http1::Builder::new();
        http.header_read_timeout(None)
            .max_header_size(limits.header_bytes_max)
            .max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES_MAX));
        let mut connection = http.serve_connection(io, service);
        let tick = limits.tick();
        let mut timer = pin!(sleep_until(Instant::now() + tick));
        let whole = loop {
            tokio::select! {
                biased;
                done = &mut connection => break done.is_ok() || pulse.has_unread(),
                () = &mut timer => {
                    let now = Instant::now();
                    match pulse.deadline(limits) {
                        Some(deadline) if deadline <= now => return,
                        deadline => timer.as_mut().reset(deadline.map_or(now + tick, |d| d.min(now + tick))),
                    }
                }
                changed = stage.changed() => {
                    if changed.is_err() || *stage.borrow_and_update() == Stage::Over || pulse.is_untouched() {
                        return;
                    }
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        let parts = connection.into_parts();
        let stream = parts.io.into_inner().inner;
        let socket = handover.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(socket) = socket.filter(|_| whole) {
            // A task of its own: this one has room for a request, and a connection may last for days.
            tokio::spawn(async move {
                socket.run(stream, parts.read_buf, stage).await;
                drop((permit, open));
            });
            return;
        }
        close(stream, !whole || pulse.has_unread()).await;
    }
}

/// Closes a connection in order.
pub(crate) async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, linger: bool) {
    let linger = async {
        // Each of these may fail where the client has gone: then there is nothing left to do.
        if stream.shutdown().await.is_err() || !linger {
            return;
        }
        let mut scratch = [0; 4096];
        let mut left = LINGER_BYTES_MAX;
        while let Ok(n @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(LINGER_MAX, linger).await;
}

impl Limits {
    /// How often a connection's deadline is looked at: no later than the first one that can come.
    fn tick(&self) -> Duration {
        let bounds = [self.header_read_max, self.body_idle_max, self.keep_alive_max, self.write_stall_max];
        bounds
            .into_iter()
            .fold(Duration::MAX, Duration::min)
            .clamp(Duration::from_millis(10), Duration::from_secs(60))
    }
}

/// Counts a connection while it is open.
struct Open(Gateway);

impl Open {
    fn new(gateway: Gateway) -> Self {
        gateway.count_connection(true);
        Self(gateway)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count_connection(false);
    }
}
