//! A request being answered: from its head to the function, or to one of the daemon's own paths.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::v1;
use bourse_wire::value::Value;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::{Body as _, Incoming};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bind::{self, Content, Input};
use crate::cors::Cors;
use crate::events::Events;
use crate::gateway::{INLINE_BYTES_MAX, TRACEPARENT};
use crate::guard::Guard;
use crate::metrics::{Class, Meters};
use crate::pulse::{Phase, Pulse};
use crate::reply::{Outcome, content, no_content, otherwise, text, typed};
use crate::routes::{Found, Routes, Target};
use crate::terms::Terms;
use crate::upgrade::{self, Handover};
use crate::{
    Answer, Call, Event, Gateway, Inspect, Success, Ticket, answer, body, calls, openapi, pattern, uri,
};

/// Functions by name are below this.
const CALL_PATH: &str = "/v1/call/";

/// Whose numbers a request counts in.
pub(crate) enum Reached {
    Function(Arc<Target>),
    Other(Class),
}

/// A request being answered.
pub(crate) struct Exchange<'g> {
    pub(crate) gateway: &'g Gateway,
    pub(crate) guard: &'g Guard,
    pub(crate) pulse: &'g Pulse,
    /// Where it leaves what the connection is to become.
    pub(crate) handover: &'g Handover,
    pub(crate) parts: Parts,
    pub(crate) body: &'g mut Incoming,
    /// What its body takes of all that is held.
    pub(crate) share: Option<body::Share<'g>>,
    /// What the answer goes on with, instead of its body.
    pub(crate) events: Option<Events>,
    /// Somebody wanted the body.
    pub(crate) begun: bool,
    /// The call that it became.
    pub(crate) call: Option<CallId>,
    /// Its trace context, once it has become a call.
    pub(crate) trace: Option<String>,
}

impl Exchange<'_> {
    pub(crate) async fn run(&mut self, cors: Option<&Cors>) -> (Outcome, Reached) {
        let headers = &self.parts.headers;
        let path = self.parts.uri.path();
        if let Err(failure) = self.guard.host(self.parts.version, &self.parts.uri, headers) {
            return (Err(failure), Reached::Other(Class::Refused));
        }
        if cors.is_some_and(Cors::is_preflight) {
            return (Ok(no_content()), Reached::Other(Class::Nothing));
        }
        match path {
            "/healthz" => return (self.only_get(|_| Ok(text("ok\n"))), Reached::Other(Class::Health)),
            "/readyz" => return (self.only_get(Self::ready), Reached::Other(Class::Health)),
            _ => {}
        }
        if let Err(failure) = self.guard.origin(headers).and_then(|()| self.guard.token(headers)) {
            return (Err(failure), Reached::Other(Class::Refused));
        }
        if let Some(name) = path.strip_prefix(CALL_PATH) {
            let routes = self.gateway.routes();
            return match self.function(&routes, name) {
                Ok(target) => (self.call_by_name(&target).await, Reached::Function(target)),
                Err(outcome) => (outcome, Reached::Other(Class::Nothing)),
            };
        }
        match path {
            "/metrics" => return (self.only_get(Self::metrics), Reached::Other(Class::Health)),
            "/openapi.json" => return (self.only_get(Self::openapi), Reached::Other(Class::Api)),
            "/v1/modules" => return (self.inspect(Inspect::Modules).await, Reached::Other(Class::Api)),
            "/v1/instances" => return (self.inspect(Inspect::Instances).await, Reached::Other(Class::Api)),
            "/v1/queues" => return (self.inspect(Inspect::Queues).await, Reached::Other(Class::Api)),
            "/v1/connections" => return (self.only_get(Self::connections), Reached::Other(Class::Api)),
            "/v1/nodes" => return (self.inspect(Inspect::Nodes).await, Reached::Other(Class::Api)),
            "/v1/market" => return (self.inspect(Inspect::Market).await, Reached::Other(Class::Api)),
            "/v1/status" => return (self.inspect(Inspect::Status).await, Reached::Other(Class::Api)),
            _ => {}
        }
        if (path.starts_with("/v1/calls") || path.starts_with("/v1/dead"))
            && let Some(outcome) = self.durable().await
        {
            return (outcome, Reached::Other(Class::Api));
        }
        if let Some(outcome) = self.triggers().await {
            return (outcome, Reached::Other(Class::Api));
        }
        if let Some(outcome) = self.members().await {
            return (outcome, Reached::Other(Class::Api));
        }
        if let Some(outcome) = self.deployments().await {
            return (outcome, Reached::Other(Class::Api));
        }
        self.route().await
    }

    /// The function that `/v1/call/{name}` is for.
    fn function(&self, routes: &Routes, name: &str) -> Result<Arc<Target>, Outcome> {
        let name =
            uri::decode(name).map_err(|e| Err(Code::BadRequest.because(format!("the path has {e}"))))?;
        let Some(target) = routes.function(&name) else {
            if let Some(failure) = routes.failure(&name) {
                return Err(Err(failure.clone()));
            }
            let near = routes.near_function(&name);
            return Err(Err(self.unknown(&format!("there is no function {name:.255}"), near)));
        };
        match self.parts.method {
            Method::POST => Ok(Arc::clone(target)),
            _ => Err(otherwise(&self.parts.method, &["POST"])),
        }
    }

    /// Something does not exist, or does not exist yet.
    fn unknown(&self, what: &str, near: Option<String>) -> v1::Failure {
        if self.gateway.shared.loaded.load(Ordering::Relaxed) {
            return Code::NotFound.because(what).hint(near.unwrap_or_else(|| NO_IDEA.to_owned()));
        }
        Code::Starting
            .because(format!("{what} so far: the daemon is still loading its modules"))
            .retry_after(Duration::from_secs(1))
    }

    async fn call_by_name(&mut self, target: &Arc<Target>) -> Outcome {
        let query = uri::query(self.parts.uri.query())
            .map_err(|e| Code::BadRequest.because(format!("the query has {e}")))?;
        let terms = Terms::from_headers(&self.parts.headers)?.with_query(&query)?;
        terms.check()?;
        let body = self.read().await?;
        let content = match content(&self.parts.headers, &body) {
            // Who posts to a function and does not say what it is means JSON.
            Content::Other(name) if name.is_empty() => Content::Json,
            content => content,
        };
        self.call(target, terms, Input { content, body, ..Input::default() }).await
    }

    async fn route(&mut self) -> (Outcome, Reached) {
        let routes = self.gateway.routes();
        let (method, path) = (&self.parts.method, self.parts.uri.path());
        if *method == Method::GET
            && let Ok(Found::Route(target, params)) = routes.find(&pattern::websocket(), path)
        {
            if upgrade::is_wanted(method, &self.parts.headers) {
                return (self.open(target, params).await, Reached::Function(Arc::clone(target)));
            }
            if !matches!(routes.find(method, path), Ok(Found::Route(..))) {
                let text = format!("{path:.255} is for WebSocket connections");
                return (Ok(upgrade::required(&text)), Reached::Other(Class::Nothing));
            }
        }
        let outcome = match routes.find(method, path) {
            Ok(Found::Route(target, params)) => {
                return (self.call_by_route(target, params).await, Reached::Function(Arc::clone(target)));
            }
            Ok(Found::Otherwise(allowed)) => otherwise(method, &allowed),
            Ok(Found::Nothing) if method == Method::OPTIONS && path == "*" => Ok(no_content()),
            Ok(Found::Nothing) => {
                Err(self.unknown(&format!("nothing is at {path:.255}"), routes.near_route(path)))
            }
            Err(e) => Err(Code::BadRequest.because(format!("the path has {e}"))),
        };
        (outcome, Reached::Other(Class::Nothing))
    }

    async fn call_by_route(&mut self, target: &Arc<Target>, path: Vec<(String, String)>) -> Outcome {
        let query = uri::query(self.parts.uri.query())
            .map_err(|e| Code::BadRequest.because(format!("the query has {e}")))?;
        let terms = Terms::from_headers(&self.parts.headers)?;
        terms.check()?;
        let body = self.read().await?;
        let content = content(&self.parts.headers, &body);
        let wants = |name| target.signature.wants(name);
        let headers = (wants("headers") || wants("request")).then(|| self.headers());
        let request =
            headers.clone().filter(|_| wants("request")).map(|headers| self.request(headers, &query));
        let headers = headers.filter(|_| wants("headers")).map(|headers| headers.to_cbor());
        self.call(target, terms, Input { route: true, path, query, content, body, headers, request }).await
    }

    pub(crate) async fn read(&mut self) -> Result<Bytes, v1::Failure> {
        if self.body.is_end_stream() {
            return Ok(Bytes::new());
        }
        self.begun = true;
        let shared = &self.gateway.shared;
        let limit = shared.config.limits.body_bytes_max;
        let (body, share) = body::read(self.body, limit, &shared.budget).await?;
        self.share = share;
        self.pulse.enter(Phase::Busy, Instant::now());
        shared.meters.bytes_in.increment(body.len() as u64);
        Ok(body)
    }

    /// Makes the call and waits for its answer.
    async fn call(&mut self, target: &Arc<Target>, terms: Terms, input: Input) -> Outcome {
        let shared = &self.gateway.shared;
        let arguments = if input.body.len() > INLINE_BYTES_MAX {
            let target = Arc::clone(target);
            elsewhere(move || bind::bind(&target.signature, input)).await??
        } else {
            bind::bind(&target.signature, input)?
        };
        let traceparent = shared.tracer.context(self.parts.headers.get(TRACEPARENT).map(|v| v.as_bytes()));
        self.trace = Some(traceparent.clone());
        let call = Call {
            function: target.name.clone(),
            arguments,
            timeout: terms.timeout,
            queue_wait: terms.queue_wait,
            horizon: terms.horizon,
            scale_after: terms.scale_after,
            overflow: terms.overflow,
            traceparent,
            context: BTreeMap::new(),
            version: terms.version,
            asynchronous: terms.asynchronous,
            idempotency_key: terms.idempotency_key,
            delay: terms.delay,
            trigger: None,
        };
        let ticket = Ticket(shared.tickets.fetch_add(1, Ordering::Relaxed));
        let (reply, answered) = oneshot::channel();
        if shared.events.send(Event::Call { call, ticket, reply }).is_err() {
            return Err(Code::ShuttingDown.because("the daemon is stopping"));
        }
        let mut pending = Pending { gateway: self.gateway, target, ticket, answered: false };
        let answer = answered.await;
        pending.answered = true;
        let Ok(Answer { call, result }) = answer else {
            return Err(Code::Internal.because("the daemon dropped the call"));
        };
        self.call = call;
        let success = result?;
        if let (true, Some(call)) = (terms.asynchronous, call) {
            return Ok(calls::accepted(call));
        }
        let cbor_wanted = answer::wants_cbor(&self.parts.headers);
        if success.payload.len() > INLINE_BYTES_MAX && !is_passed_through(&success) {
            elsewhere(move || answer::respond(success, cbor_wanted)).await?
        } else {
            answer::respond(success, cbor_wanted)
        }
    }

    fn only_get(&self, make: impl FnOnce(&Self) -> Outcome) -> Outcome {
        match self.parts.method {
            Method::GET | Method::HEAD => make(self),
            _ => otherwise(&self.parts.method, &["GET", "HEAD"]),
        }
    }

    fn ready(&self) -> Outcome {
        if self.gateway.shared.ready.load(Ordering::Relaxed) {
            return Ok(text("ready\n"));
        }
        let mut response = text("not ready\n");
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Ok(response)
    }

    fn metrics(&self) -> Outcome {
        let scrape = self.gateway.shared.config.scrape.as_ref();
        let scrape = scrape.ok_or_else(|| Code::NotFound.because("metrics are switched off"))?;
        Ok(typed("text/plain; version=0.0.4; charset=utf-8", scrape.render().into()))
    }

    fn connections(&self) -> Outcome {
        Ok(typed("application/json", self.gateway.sockets().list().to_string().into()))
    }

    fn openapi(&self) -> Outcome {
        let body = self.gateway.routes().openapi(|routes| openapi::document(routes).to_string().into());
        Ok(typed("application/json", body))
    }

    pub(crate) async fn inspect(&self, what: Inspect) -> Outcome {
        if !matches!(self.parts.method, Method::GET | Method::HEAD) {
            return otherwise(&self.parts.method, &["GET", "HEAD"]);
        }
        let (reply, answered) = oneshot::channel();
        let sent = self.gateway.shared.events.send(Event::Inspect { what, reply });
        sent.map_err(|_| Code::ShuttingDown.because("the daemon is stopping"))?;
        let json = answered.await.map_err(|_| Code::Internal.because("the daemon gave no answer"))??;
        Ok(typed("application/json", json.to_string().into()))
    }

    /// The headers as a map of texts; the daemon's own token is left out.
    pub(crate) fn headers(&self) -> Value {
        let hidden = |name: &HeaderName| name == header::AUTHORIZATION && self.guard.takes_tokens();
        let headers = &self.parts.headers;
        let joined = |name: &HeaderName| {
            let values: Vec<_> =
                headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
            Value::Text(values.join(", "))
        };
        let names = headers.keys().filter(|name| !hidden(name));
        Value::Map(names.map(|name| (Value::Text(name.to_string()), joined(name))).collect())
    }

    pub(crate) fn request(&self, headers: Value, query: &[(String, String)]) -> Bytes {
        let text = |t: &str| Value::Text(t.to_owned());
        // Of a name that repeats, the last counts here; parameters of type `list` get all.
        let query: BTreeMap<&str, &str> = query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let pairs = [
            ("method", text(self.parts.method.as_str())),
            ("path", text(self.parts.uri.path())),
            ("query", Value::Map(query.into_iter().map(|(k, v)| (text(k), text(v))).collect())),
            ("headers", headers),
        ];
        Value::Map(pairs.map(|(name, value)| (text(name), value)).into()).to_cbor()
    }
}

/// Tells the daemon when the client goes away: hyper drops the exchange then.
struct Pending<'g> {
    gateway: &'g Gateway,
    target: &'g Target,
    ticket: Ticket,
    answered: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let shared = &self.gateway.shared;
            shared.meters.abandoned.increment(1);
            tracing::info!(function = %self.target.name, ticket = self.ticket.0, status = 499, "the client went away");
            // A daemon that is gone has no calls to cancel.
            let _ = shared.events.send(Event::Cancel { ticket: self.ticket });
        }
    }
}

/// Counts a request while it is being answered.
pub(crate) struct InFlight<'m>(&'m Meters);

impl<'m> InFlight<'m> {
    pub(crate) fn new(meters: &'m Meters) -> Self {
        meters.in_flight.increment(1);
        Self(meters)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.decrement(1);
    }
}

const NO_IDEA: &str = "GET /v1/modules lists the functions, GET /openapi.json the routes";

/// Whether the payload is sent as it is, so that its size does not matter.
fn is_passed_through(success: &Success) -> bool {
    !success.content_type.is_empty() && success.content_type != "application/cbor"
}

pub(crate) async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, v1::Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Code::Internal.because("a conversion was given up"))
}
