//! Durable calls over HTTP.
//!
//! ```text
//! POST   /v1/call/{function}?mode=async     202 {id}, Location       once it is stored; `Prefer: respond-async` as well
//! GET    /v1/calls/{id}[?poll=10s]          how it stands; with poll, when it has ended or the time is over
//!        the same, Accept: text/event-stream       events: how it stands, until it has ended
//! GET    /v1/calls/{id}/result              what a synchronous call would have been answered; 202 while it has not ended
//! DELETE /v1/calls/{id}                     cancel
//! POST   /v1/calls/{id}/replay              a dead letter is tried again; /v1/dead/{id}/replay is the same
//! DELETE /v1/dead/{id}                      a dead letter is forgotten
//! GET    /v1/calls, /v1/dead                lists: ?status=, ?function=, ?limit=, ?before=
//! ```

use std::sync::atomic::Ordering;
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::v1;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::sync::oneshot;

use crate::exchange::Exchange;
use crate::reply::{Outcome, otherwise, typed};
use crate::standing::STATUSES;
use crate::{Ask, Event, Gateway, Inspect, Listing, Standing, Success, Ticket, answer, events, uri};

/// The longest long poll.
const POLL_MAX: Duration = Duration::from_secs(300);
/// Rows of a list, if the client does not say, and at most.
const ROWS_DEFAULT: usize = 50;
const ROWS_MAX: usize = 1_000;

impl Exchange<'_> {
    /// Answers what is below `/v1/calls` and `/v1/dead`; `None`: nothing is there.
    pub(crate) async fn durable(&mut self) -> Option<Outcome> {
        let path = self.parts.uri.path().to_owned();
        let (dead, rest) = match (path.strip_prefix("/v1/calls"), path.strip_prefix("/v1/dead")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => return None,
        };
        let Some(rest) = rest.strip_prefix('/') else {
            return if rest.is_empty() { Some(self.list(dead).await) } else { None };
        };
        let (id, verb) = rest.split_once('/').unwrap_or((rest, ""));
        if !matches!(verb, "" | "result" | "replay") {
            return None;
        }
        let Ok(call) = id.parse::<CallId>() else {
            let hint = "it looks like 019ab1c2-…: the answer to an asynchronous call has it, and the header Bourse-Call-Id";
            return Some(Err(Code::BadRequest
                .because(format!("{id:.64} is not the id of a call"))
                .hint(hint)));
        };
        Some(self.one(call, verb, dead).await)
    }

    async fn one(&mut self, call: CallId, verb: &str, dead: bool) -> Outcome {
        let method = &self.parts.method.clone();
        let is_get = matches!(*method, Method::GET | Method::HEAD);
        match verb {
            "" if is_get && wants_events(&self.parts.headers) => {
                let first = self.ask(call, Ask::Look).await?;
                if first == Standing::Nothing {
                    return Err(unknown(call));
                }
                self.events = Some(events::follow(self.gateway.clone(), call, first));
                let mut response = typed("text/event-stream", bytes::Bytes::new());
                response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Ok(response)
            }
            "" if is_get => {
                let standing = self.await_end(call, self.poll()?).await?;
                self.show(call, &standing, StatusCode::OK)
            }
            "" if method == Method::DELETE && dead => {
                let standing = self.ask(call, Ask::Purge).await?;
                self.must_be(&standing, call, "dead", "only a dead letter is purged")?;
                self.show(call, &standing, StatusCode::OK)
            }
            "" if method == Method::DELETE => {
                let standing = self.ask(call, Ask::Cancel).await?;
                self.must_be(&standing, call, "cancelled", "it could not be cancelled any more")?;
                self.show(call, &standing, StatusCode::OK)
            }
            "" => otherwise(method, &["GET", "HEAD", "DELETE"]),
            "result" if is_get => {
                let standing = self.await_end(call, self.poll()?).await?;
                self.result(call, standing)
            }
            "result" => otherwise(method, &["GET", "HEAD"]),
            _ if method == Method::POST => {
                let standing = self.ask(call, Ask::Replay).await?;
                if matches!(standing, Standing::Ended(_)) {
                    self.must_be(&standing, call, "waiting", "only a dead letter is replayed")?;
                }
                self.show(call, &standing, StatusCode::ACCEPTED)
            }
            _ => otherwise(method, &["POST"]),
        }
    }

    fn must_be(&self, standing: &Standing, call: CallId, status: &str, why: &str) -> Result<(), v1::Failure> {
        match standing {
            Standing::Nothing => Err(unknown(call)),
            standing if standing.status() == status => Ok(()),
            standing => Err(Code::Conflict
                .because(format!("call {call} is {}: {why}", standing.status()))
                .hint(format!("GET /v1/calls/{call} tells how it stands"))),
        }
    }

    fn show(&self, call: CallId, standing: &Standing, status: StatusCode) -> Outcome {
        let json = standing.to_json(call, true, self.gateway.config().dev).ok_or_else(|| unknown(call))?;
        let mut response = typed("application/json", json.to_string().into());
        *response.status_mut() = status;
        Ok(response)
    }

    /// What a caller who had waited would have been answered.
    fn result(&self, call: CallId, standing: Standing) -> Outcome {
        match standing {
            Standing::Nothing => Err(unknown(call)),
            Standing::Live { .. } => self.show(call, &standing, StatusCode::ACCEPTED),
            Standing::Ended(ended) => match ended.failure {
                Some(failure) => Err(failure),
                None => {
                    let success =
                        Success { payload: ended.result, content_type: ended.content_type, http: ended.http };
                    answer::respond(success, answer::wants_cbor(&self.parts.headers))
                }
            },
        }
    }

    /// `?poll=10s`
    fn poll(&self) -> Result<Option<Duration>, v1::Failure> {
        let mut poll = None;
        for (name, value) in self.query()? {
            if name != "poll" {
                return Err(Code::BadRequest
                    .because(format!("the query parameter {name:.64} means nothing here"))
                    .hint("known ones: poll"));
            }
            let time = bourse_wire::time::parse_duration(&value).ok_or_else(|| {
                Code::BadRequest
                    .because(format!("poll is not a duration: {value:.32}"))
                    .hint("such as 200ms or 10s")
            })?;
            poll = Some(time.min(POLL_MAX));
        }
        Ok(poll)
    }

    fn query(&self) -> Result<Vec<(String, String)>, v1::Failure> {
        uri::query(self.parts.uri.query()).map_err(|e| Code::BadRequest.because(format!("the query has {e}")))
    }

    /// How a call stands when it has ended, or after so long.
    async fn await_end(&self, call: CallId, patience: Option<Duration>) -> Result<Standing, v1::Failure> {
        if let Some(patience) = patience {
            let asking = Asking::begin(self.gateway, call, Ask::Await)?;
            if let Ok(standing) = tokio::time::timeout(patience, asking.answer()).await {
                return standing;
            }
        }
        self.ask(call, Ask::Look).await
    }

    async fn ask(&self, call: CallId, ask: Ask) -> Result<Standing, v1::Failure> {
        Asking::begin(self.gateway, call, ask)?.answer().await
    }

    async fn list(&self, dead: bool) -> Outcome {
        if !matches!(self.parts.method, Method::GET | Method::HEAD) {
            return otherwise(&self.parts.method, &["GET", "HEAD"]);
        }
        let mut listing = Listing { rows_max: ROWS_DEFAULT, ..Listing::default() };
        if dead {
            listing.status = Some("dead".to_owned());
        }
        for (name, value) in self.query()? {
            let bad = |what: String| Code::BadRequest.because(what);
            match name.as_str() {
                "status" if !dead && STATUSES.contains(&value.as_str()) => listing.status = Some(value),
                "status" if !dead => {
                    let message = format!("there is no status {value:.32}");
                    return Err(bad(message).hint(format!("there are {}", STATUSES.join(", "))));
                }
                "function" => listing.function = Some(value),
                "limit" => match value.parse() {
                    Ok(limit @ 1..=ROWS_MAX) => listing.rows_max = limit,
                    _ => return Err(bad(format!("limit is a number from 1 to {ROWS_MAX}"))),
                },
                "before" => {
                    let call =
                        value.parse().map_err(|_| bad(format!("{value:.64} is not the id of a call")))?;
                    listing.before = Some(call);
                }
                _ => {
                    return Err(bad(format!("the query parameter {name:.64} means nothing here"))
                        .hint("known ones: status, function, limit, before"));
                }
            }
        }
        self.inspect(Inspect::Calls(listing)).await
    }
}

/// The answer to a call that was accepted.
pub(crate) fn accepted(call: CallId) -> Response<Full<bytes::Bytes>> {
    let mut response = typed("application/json", json!({"id": call.to_string()}).to_string().into());
    *response.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = HeaderValue::try_from(format!("/v1/calls/{call}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn unknown(call: CallId) -> v1::Failure {
    Code::NotFound
        .because(format!("there is no durable call {call}"))
        .hint("ended calls are kept for a day, dead letters until they are purged; GET /v1/calls lists them")
}

/// How a call stands.
pub(crate) async fn look(gateway: &Gateway, call: CallId) -> Result<Standing, v1::Failure> {
    Asking::begin(gateway, call, Ask::Look)?.answer().await
}

/// Whether a client would rather have server-sent events.
fn wants_events(headers: &http::HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|range| {
        range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

/// A question that is not answered yet. Dropping it takes it back.
pub(crate) struct Asking {
    gateway: Gateway,
    ticket: Ticket,
    answered: Option<oneshot::Receiver<Result<Standing, v1::Failure>>>,
}

impl Asking {
    pub(crate) fn begin(gateway: &Gateway, call: CallId, ask: Ask) -> Result<Self, v1::Failure> {
        let shared = &gateway.shared;
        let ticket = Ticket(shared.tickets.fetch_add(1, Ordering::Relaxed));
        let (reply, answered) = oneshot::channel();
        let sent = shared.events.send(Event::Ask { call, ask, ticket, reply });
        sent.map_err(|_| Code::ShuttingDown.because("the daemon is stopping"))?;
        Ok(Self { gateway: gateway.clone(), ticket, answered: Some(answered) })
    }

    pub(crate) async fn answer(mut self) -> Result<Standing, v1::Failure> {
        let Some(answered) = &mut self.answered else { unreachable!("it is asked once") };
        let answer = answered.await;
        self.answered = None;
        answer.map_err(|_| Code::Internal.because("the daemon gave no answer"))?
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.answered.is_some() {
            // A daemon that is gone has no questions left.
            let _ = self.gateway.shared.events.send(Event::Cancel { ticket: self.ticket });
        }
    }
}
