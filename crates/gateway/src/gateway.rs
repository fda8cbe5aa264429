//! The gateway: what all connections share, and the frame around each request.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::body::{self, Budget};
use crate::cors::Cors;
use crate::events::Events;
use crate::exchange::{Exchange, InFlight, Reached};
use crate::guard::Guard;
use crate::metrics::{Meter, Meters, Scrape};
use crate::pulse::{Phase, Pulse};
use crate::routes::Routes;
use crate::sockets::Sockets;
use crate::trace::Tracer;
use crate::upgrade::Handover;
use crate::{Auth, Event, Limits, problem};

/// Bodies and results above this are parsed and written on another thread, so that they do not hold up the loop.
pub(crate) const INLINE_BYTES_MAX: usize = 64 * 1024;

const CALL_ID: HeaderName = HeaderName::from_static("bourse-call-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a gateway is told once.
#[derive(Clone, Default)]
pub struct Config {
    /// How clients show that they may call.
    pub auth: Auth,
    /// Names that a daemon on loopback answers to, besides `localhost` and the like.
    pub hosts: Vec<String>,
    /// Origins (`https://app.example`) whose pages may call, besides the daemon's own.
    pub origins: Vec<String>,
    /// Problems carry tracebacks.
    pub dev: bool,
    /// The bounds.
    pub limits: Limits,
    /// Random numbers, for trace ids.
    pub seed: [u64; 2],
    /// What `/metrics` shows, from [`crate::metrics::install`].
    pub scrape: Option<Scrape>,
}

/// The gateway; clones are the same one.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) events: UnboundedSender<Event>,
    /// Swapped as a whole; held only to clone the `Arc`, so no request waits for a deploy.
    pub(crate) routes: RwLock<Arc<Routes>>,
    pub(crate) ready: AtomicBool,
    /// It was ready once: what is not known then does not exist.
    pub(crate) loaded: AtomicBool,
    pub(crate) tickets: AtomicU64,
    pub(crate) connections: AtomicUsize,
    pub(crate) tracer: Tracer,
    pub(crate) meters: Meters,
    pub(crate) budget: Budget,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) random: ring::rand::SystemRandom,
    /// What ids of connections begin with, if there are several nodes.
    pub(crate) node: OnceLock<String>,
}

impl Gateway {
    /// A gateway without routes that is not ready. `events` are for the daemon.
    pub fn new(config: Config, events: UnboundedSender<Event>) -> Self {
        let shared = Shared {
            events,
            routes: RwLock::default(),
            ready: AtomicBool::new(false),
            loaded: AtomicBool::new(false),
            tickets: AtomicU64::new(1),
            connections: AtomicUsize::new(0),
            tracer: Tracer::new(config.seed),
            meters: Meters::new(),
            budget: Budget::new(config.limits.bodies_bytes_max),
            sockets: Arc::default(),
            random: ring::rand::SystemRandom::new(),
            node: OnceLock::new(),
            config,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Replaces the table. Requests that were matched before go on with the old one.
    pub fn set_routes(&self, routes: Routes) {
        *self.shared.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// What `/readyz` answers. Until it is ready for the first time, what is not known is said to be still starting.
    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Ordering::Relaxed);
        self.shared.loaded.fetch_or(ready, Ordering::Relaxed);
    }

    /// What the ids of WebSocket connections begin with from now on. Said once at most.
    pub fn name_connections(&self, node: String) {
        let _ = self.shared.node.set(node);
    }

    /// Open connections, over all listeners.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Open WebSocket connections, to send to.
    pub fn sockets(&self) -> &Sockets {
        &self.shared.sockets
    }

    /// Counts connections up or down.
    pub(crate) fn count_connection(&self, opened: bool) {
        let (connections, gauge) = (&self.shared.connections, &self.shared.meters.connections);
        if opened {
            connections.fetch_add(1, Ordering::Relaxed);
            gauge.increment(1);
        } else {
            connections.fetch_sub(1, Ordering::Relaxed);
            gauge.decrement(1);
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.shared.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        guard: &Guard,
        pulse: &Pulse,
        handover: &Handover,
        request: Request<Incoming>,
    ) -> Response<Either<Full<Bytes>, Events>> {
        let start = Instant::now();
        let meters = &self.shared.meters;
        let _in_flight = InFlight::new(meters);
        let (parts, mut body) = request.into_parts();
        let waits = parts.headers.contains_key(header::EXPECT);
        let cors = Cors::of(guard, &parts);
        pulse.enter(if body.is_end_stream() { Phase::Busy } else { Phase::Body }, start);
        let mut exchange = Exchange {
            gateway: self,
            guard,
            pulse,
            handover,
            parts,
            body: &mut body,
            share: None,
            events: None,
            begun: false,
            call: None,
            trace: None,
        };
        let (outcome, target) = exchange.run(cors.as_ref()).await;
        let (call, trace, begun) = (exchange.call, exchange.trace.take(), exchange.begun);
        let events = exchange.events.take();
        drop(exchange);
        let mut response =
            outcome.unwrap_or_else(|failure| problem::respond(&failure, call, self.shared.config.dev));
        if let Some(cors) = cors {
            cors.tell(&mut response);
        }
        let headers = response.headers_mut();
        if let Some(call) = call.and_then(|call| HeaderValue::try_from(call.to_string()).ok()) {
            headers.insert(CALL_ID, call);
        }
        if let Some(trace) = trace.and_then(|trace| HeaderValue::try_from(trace).ok()) {
            headers.insert(TRACEPARENT, trace);
        }
        if !body.is_end_stream()
            && !begun
            && !waits
            && body.size_hint().upper().is_some_and(|n| n <= INLINE_BYTES_MAX as u64)
        {
            // A small body that nobody wanted is not worth a connection; what is in it, or missing, is all the same.
            let _ = body::read(&mut body, INLINE_BYTES_MAX, &self.shared.budget).await;
        }
        if !body.is_end_stream() {
            // hyper will not wait for the rest, so neither may the client count on the connection.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            pulse.leave_unread();
        }
        let now = Instant::now();
        let meter: &Meter = match &target {
            Reached::Function(target) => &target.meter,
            Reached::Other(class) => meters.class(*class),
        };
        meter.record(response.status(), now - start);
        meters.bytes_out.increment(response.body().size_hint().lower());
        pulse.enter(Phase::Idle, now);
        response.map(|body| match events {
            Some(events) => Either::Right(events),
            None => Either::Left(body),
        })
    }
}
