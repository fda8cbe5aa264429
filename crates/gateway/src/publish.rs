//! Messages over HTTP, and what listens to them.
//!
//! ```text
//! POST   /v1/queues/{name}     202 {calls, subscribers}     once it is in the store; ?delay=5s, Idempotency-Key
//! POST   /v1/topics/{name}     the same; nobody need listen
//! GET    /v1/triggers          cron lines, queues, topics
//! DELETE /v1/triggers/{module} a module that is gone from the folder listens no longer
//! ```
//!
//! The body is the message: JSON, which is also what a body is that does not say; CBOR; else text, if it says that it is
//! some, or bytes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::options::{Channel, QueueName, TopicName};
use bourse_wire::v1;
use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::sync::oneshot;

use crate::bind::Content;
use crate::exchange::{Exchange, elsewhere};
use crate::gateway::{INLINE_BYTES_MAX, TRACEPARENT};
use crate::reply::{Outcome, content, otherwise, typed};
use crate::terms::Terms;
use crate::{Answer, Event, Inspect, Message, Ticket, json, uri};

impl Exchange<'_> {
    /// Answers what is below `/v1/queues/`, `/v1/topics/` and `/v1/triggers`; `None`: nothing is there.
    pub(crate) async fn triggers(&mut self) -> Option<Outcome> {
        let path = self.parts.uri.path().to_owned();
        if path == "/v1/triggers" {
            return Some(self.inspect(Inspect::Triggers).await);
        }
        if let Some(module) = path.strip_prefix("/v1/triggers/") {
            return Some(self.forget(module).await);
        }
        let queue = path.strip_prefix("/v1/queues/").map(|name| (name, true));
        let (name, is_queue) = queue.or(path.strip_prefix("/v1/topics/").map(|name| (name, false)))?;
        Some(self.publish(name, is_queue).await)
    }

    async fn publish(&mut self, name: &str, is_queue: bool) -> Outcome {
        if self.parts.method != Method::POST {
            return otherwise(&self.parts.method, &["POST"]);
        }
        let name = decoded(name)?;
        let to = match is_queue {
            true => QueueName::new(&name).map(Channel::Queue),
            false => TopicName::new(&name).map(Channel::Topic),
        };
        let to = to.map_err(|why| Code::BadRequest.because(why))?;
        let delay = self.delay()?;
        let terms = Terms::from_headers(&self.parts.headers)?;
        let body = self.read().await?;
        let content = content(&self.parts.headers, &body);
        let payload = match body.len() > INLINE_BYTES_MAX {
            true => elsewhere(move || message(&content, body)).await??,
            false => message(&content, body)?,
        };
        let shared = &self.gateway.shared;
        let traceparent = shared.tracer.context(self.parts.headers.get(TRACEPARENT).map(|v| v.as_bytes()));
        self.trace = Some(traceparent.clone());
        let message = Message { to, payload, delay, traceparent, idempotency_key: terms.idempotency_key };
        let (reply, answered) = oneshot::channel();
        let answer = self.tell(Event::Publish { message, ticket: self.ticket(), reply }, answered).await?;
        self.call = answer.call.filter(|_| is_queue);
        told(answer, StatusCode::ACCEPTED)
    }

    async fn forget(&self, module: &str) -> Outcome {
        if self.parts.method != Method::DELETE {
            return otherwise(&self.parts.method, &["DELETE"]);
        }
        let module = decoded(module)?;
        let (reply, answered) = oneshot::channel();
        let answer = self.tell(Event::Forget { module, ticket: self.ticket(), reply }, answered).await?;
        told(answer, StatusCode::OK)
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.gateway.shared.tickets.fetch_add(1, Ordering::Relaxed))
    }

    async fn tell(&self, event: Event, answered: oneshot::Receiver<Answer>) -> Result<Answer, v1::Failure> {
        let sent = self.gateway.shared.events.send(event);
        sent.map_err(|_| Code::ShuttingDown.because("the daemon is stopping"))?;
        answered.await.map_err(|_| Code::Internal.because("the daemon gave no answer"))
    }

    /// `?delay=5s`
    fn delay(&self) -> Result<Option<Duration>, v1::Failure> {
        let query = uri::query(self.parts.uri.query())
            .map_err(|e| Code::BadRequest.because(format!("the query has {e}")))?;
        let mut delay = None;
        for (name, value) in query {
            if name != "delay" {
                return Err(Code::BadRequest
                    .because(format!("the query parameter {name:.64} means nothing here"))
                    .hint("known ones: delay; the message is the body"));
            }
            delay = Some(bourse_wire::time::parse_duration(&value).ok_or_else(|| {
                Code::BadRequest
                    .because(format!("delay is not a duration: {value:.32}"))
                    .hint("such as 200ms, 5s or 2h")
            })?);
        }
        Ok(delay)
    }
}

fn told(answer: Answer, status: StatusCode) -> Outcome {
    let success = answer.result?;
    let body = json::from_cbor(&success.payload)
        .map_err(|e| Code::Internal.because(format!("the daemon's answer is not CBOR: {e}")))?;
    let mut response = typed("application/json", body.into());
    *response.status_mut() = status;
    Ok(response)
}

fn decoded(name: &str) -> Result<String, v1::Failure> {
    let name = uri::decode(name).map_err(|e| Code::BadRequest.because(format!("the path has {e}")))?;
    Ok(name.to_string())
}

/// The message that a body is, as CBOR.
fn message(content: &Content, body: Bytes) -> Result<Bytes, v1::Failure> {
    let mut value = Vec::new();
    match content {
        Content::Empty | Content::Cbor => return Ok(body),
        Content::Json => return read(&body),
        Content::Other(name) if name.is_empty() => return read(&body),
        Content::Other(name) if name == "application/x-www-form-urlencoded" => {
            return Err(Code::BadRequest
                .because("a form is no message")
                .hint("send JSON with the header \"content-type: application/json\"; curl -d sends a form unless told so"));
        }
        Content::Other(name) => match std::str::from_utf8(&body) {
            Ok(text) if name.starts_with("text/") => json::text(&mut value, text),
            _ => {
                json::head(&mut value, 2, body.len() as u64);
                value.extend_from_slice(&body);
            }
        },
    }
    Ok(value.into())
}

fn read(body: &Bytes) -> Result<Bytes, v1::Failure> {
    json::item(body).map_err(|e| {
        Code::BadRequest
            .because(format!("the body is not JSON: {e}"))
            .hint("send other things with a content type that says so, such as text/plain")
    })
}

#[cfg(test)]
mod tests {
    use bourse_wire::value::Value;

    use super::*;

    #[test]
    fn messages_are_what_they_say() {
        let read = |name: &str, body: &'static [u8]| {
            let content = match name {
                "json" => Content::Json,
                "cbor" => Content::Cbor,
                other => Content::Other(other.to_owned()),
            };
            message(&content, Bytes::from_static(body)).map(|m| Value::from_cbor(&m).unwrap())
        };
        assert_eq!(read("json", b"[1]"), Ok(Value::Array(vec![Value::Int(1)])));
        assert_eq!(read("", b"1"), Ok(Value::Int(1)));
        assert_eq!(read("cbor", b"\x01"), Ok(Value::Int(1)));
        assert_eq!(read("text/plain", "ü".as_bytes()), Ok(Value::Text("ü".into())));
        assert_eq!(read("text/plain", b"\xff"), Ok(Value::Bytes(Bytes::from_static(b"\xff"))));
        assert_eq!(read("image/png", b"x"), Ok(Value::Bytes(Bytes::from_static(b"x"))));
        for (name, body) in [("json", &b"{"[..]), ("", b"tea"), ("application/x-www-form-urlencoded", b"a=1")]
        {
            assert_eq!(read(name, body).unwrap_err().code, "bad_request", "{name}");
        }
    }
}
