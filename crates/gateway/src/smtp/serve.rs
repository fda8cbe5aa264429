//! Sockets for SMTP: accepting, reading, TLS, time limits, draining. What is said is [`session`](super::session)'s.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::deliver::{self, Passed, Unsettled};
use super::session::{Action, Delivery, Dismissal, Session, Settings};
use crate::Gateway;
use crate::serve::{BACKLOG, EXHAUSTED_PAUSE, Error, close};

/// What is read at once.
const READ_BYTES_MAX: usize = 16 * 1024;

/// A mail that is smaller is not counted against what all may hold together.
const SMALL_BYTES_MAX: usize = 64 * 1024;

/// What is said to a client for which there is no room.
const NO_ROOM: &[u8] = b"421 4.3.2 too many connections; come again\r\n";

/// Bounds of what a client can make last.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once. Who comes on top of that is told 421.
    pub connections_max: usize,
    /// Between two pieces of what a client sends (RFC 5321 §4.5.3.2.7). Past it: 421.
    pub idle_max: Duration,
    /// From DATA to its end. Past it: 421.
    pub data_max: Duration,
    /// A client that takes nothing of its replies. Past it the connection is closed.
    pub write_stall_max: Duration,
    /// From STARTTLS until TLS has begun. Past it the connection is closed.
    pub handshake_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_000,
            idle_max: Duration::from_secs(5 * 60),
            data_max: Duration::from_secs(30 * 60),
            write_stall_max: Duration::from_secs(60),
            handshake_max: Duration::from_secs(30),
        }
    }
}

/// How mail is taken.
#[derive(Clone)]
pub struct Config {
    /// Where to listen.
    pub address: SocketAddr,
    /// Other machines may send mail, too. Nothing tells one from another: whoever reaches the port wakes functions.
    pub open: bool,
    /// What the server calls itself.
    pub hostname: String,
    /// The largest mail, in bytes.
    pub bytes_max: usize,
    /// The most recipients of one mail.
    pub recipients_max: usize,
    /// With it STARTTLS is offered; see [`tls::load`](super::tls::load).
    pub tls: Option<TlsAcceptor>,
    /// The bounds.
    pub limits: Limits,
}

/// A bound socket.
pub struct Listener {
    server: Arc<Server>,
    listener: TcpListener,
    address: SocketAddr,
}

/// What all connections share.
struct Server {
    gateway: Gateway,
    settings: Arc<Settings>,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    unsettled: Unsettled,
}

impl Gateway {
    /// Binds a socket for SMTP; clients can connect from now on, and wait until [`Listener::serve`].
    pub fn listen_smtp(&self, config: Config) -> Result<Listener, Error> {
        let Config { address, open, hostname, bytes_max, recipients_max, tls, limits } = config;
        if !open && !address.ip().is_loopback() {
            return Err(Error::Unprotected(address));
        }
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(BACKLOG)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bind().map_err(|source| Error::Bind { address, source })?;
        let settings = Arc::new(Settings { hostname, bytes_max, recipients_max, starttls: tls.is_some() });
        let server = Server { gateway: self.clone(), settings, tls, limits, unsettled: Unsettled::default() };
        Ok(Listener { server: Arc::new(server), listener, address })
    }
}

impl Listener {
    /// Where it listens; tells the port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, then tells every client so. A mail whose data is there is still answered.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { server, listener, .. } = self;
        let permits_max = u32::try_from(server.limits.connections_max).unwrap_or(u32::MAX);
        let permits = Arc::new(Semaphore::new(permits_max as usize));
        let (stop, stopping) = watch::channel(false);
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => match Arc::clone(&permits).try_acquire_owned() {
                    Ok(permit) => {
                        let (server, stopping) = (Arc::clone(&server), stopping.clone());
                        tokio::spawn(async move {
                            server.serve(stream, peer.ip(), stopping).await;
                            drop(permit);
                        });
                    }
                    // It is not worth a task; if it cannot be told at once, it finds out.
                    Err(_) => drop(stream.try_write(NO_ROOM)),
                },
                Err(error) => {
                    tracing::warn!("cannot accept connections for mail: {error}");
                    sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
        drop(listener);
        stop.send_replace(true);
        let _ = permits.acquire_many(permits_max).await;
    }
}

/// How a conversation over one stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It goes on over TLS.
    StartTls,
    /// All has been said.
    Said,
    /// The client is gone, or does not read.
    Gone,
}

impl Server {
    async fn serve(&self, mut stream: TcpStream, peer: IpAddr, stopping: watch::Receiver<bool>) {
        // A client that is gone already shows at the first read.
        let _ = stream.set_nodelay(true);
        let gauge = metrics::gauge!(CONNECTIONS);
        gauge.increment(1);
        let mut conversation = Conversation {
            server: self,
            session: Session::new(Arc::clone(&self.settings)),
            peer: peer.to_canonical().to_string(),
            stopping,
        };
        match (conversation.run(&mut stream).await, &self.tls) {
            (End::StartTls, Some(tls)) => {
                if let Ok(Ok(mut secured)) = timeout(self.limits.handshake_max, tls.accept(stream)).await {
                    conversation.session.secured();
                    if conversation.run(&mut secured).await == End::Said {
                        close(secured, true).await;
                    }
                }
            }
            (End::Said, _) => close(stream, true).await,
            _ => {}
        }
        gauge.decrement(1);
    }
}

struct Conversation<'s> {
    server: &'s Server,
    session: Session,
    peer: String,
    stopping: watch::Receiver<bool>,
}

impl Conversation<'_> {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> End {
        let limits = &self.server.limits;
        let budget = &self.server.gateway.shared.budget;
        let mut share = budget.share();
        let mut buffer = vec![0; READ_BYTES_MAX];
        let mut data_until = None;
        loop {
            while let Some(action) = self.session.poll() {
                match action {
                    Action::Recipient(address) => {
                        self.session.recipient(deliver::verdict(&self.server.gateway, &address));
                    }
                    Action::Deliver(mail) => {
                        if self.deliver(mail, stream).await.is_err() {
                            return End::Gone;
                        }
                    }
                    Action::StartTls | Action::Close => {
                        let end = if action == Action::Close { End::Said } else { End::StartTls };
                        return self.flush(stream).await.map_or(End::Gone, |()| end);
                    }
                }
            }
            if self.flush(stream).await.is_err() {
                return End::Gone;
            }
            let held = self.session.held();
            if share.hold(held.saturating_sub(SMALL_BYTES_MAX)).is_err() {
                self.session.dismiss(Dismissal::Full);
                continue;
            }
            let now = Instant::now();
            data_until =
                if self.session.is_in_data() { data_until.or(Some(now + limits.data_max)) } else { None };
            let until = data_until.map_or(now + limits.idle_max, |until| until.min(now + limits.idle_max));
            tokio::select! {
                biased;
                _ = self.stopping.wait_for(|stopping| *stopping) => self.session.dismiss(Dismissal::Stopping),
                read = timeout_at(until, stream.read(&mut buffer)) => match read {
                    Ok(Ok(n @ 1..)) => self.session.feed(&buffer[..n]),
                    // Whatever it was about to send is not there, and so was never sent.
                    Ok(Ok(0) | Err(_)) => return End::Gone,
                    Err(_) => self.session.dismiss(Dismissal::Idle),
                },
            }
        }
    }

    /// Has a mail stored, and tells the client what has become of it.
    async fn deliver<S: AsyncWrite + Unpin>(
        &mut self,
        mail: super::Mail,
        stream: &mut S,
    ) -> std::io::Result<()> {
        // What was asked before need not wait for the store.
        self.flush(stream).await?;
        let from = mail.from.as_ref().map_or("<>".to_owned(), ToString::to_string);
        let (bytes, recipients) = (mail.data.len(), mail.recipients.len());
        let Server { gateway, unsettled, .. } = self.server;
        let (delivery, passed) = deliver::deliver(gateway, unsettled, mail, &self.peer).await;
        let outcome = match &delivery {
            Delivery::Done(_) => "accepted",
            Delivery::TooLarge(_) | Delivery::Refused(_) => "refused",
            Delivery::Later(_) | Delivery::Busy(_) | Delivery::Stopping => "later",
        };
        metrics::counter!(MAILS, "outcome" => outcome).increment(1);
        tracing::info!(%from, peer = %self.peer, recipients, bytes, "mail: {outcome}");
        let is_done = matches!(delivery, Delivery::Done(_));
        self.session.delivered(delivery);
        let told = self.flush(stream).await;
        if !is_done || told.is_err() {
            self.remember(passed);
        }
        told
    }

    fn remember(&self, passed: Passed) {
        if let Some((digest, salt)) = passed {
            self.server.unsettled.keep(digest, salt);
        }
    }

    async fn flush<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> std::io::Result<()> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        let write = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        timeout(self.server.limits.write_stall_max, write).await?
    }
}

/// Mails whose data came, by `outcome`: `accepted`, `later` (4xx), `refused` (5xx).
pub const MAILS: &str = "bourse_smtp_mails_total";
/// Open connections for mail.
pub const CONNECTIONS: &str = "bourse_smtp_connections";
