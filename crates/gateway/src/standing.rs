//! How a durable call stands, as JSON.

use std::time::Duration;

use bourse_wire::id::CallId;
use bourse_wire::record::v1 as record;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::v1;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::json;

/// How a durable call stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// There is no such call, or none any more.
    Nothing,
    /// It has not ended.
    Live {
        /// As it is stored.
        record: Box<record::Call>,
        /// An attempt is on its way.
        running: bool,
        /// Until the next attempt.
        again_in: Option<Duration>,
    },
    /// It has ended.
    Ended(Box<record::Ended>),
}

/// What `status` can be.
pub const STATUSES: [&str; 7] = ["waiting", "running", "retrying", "done", "dead", "cancelled", "joined"];

impl Standing {
    /// One of [`STATUSES`]; empty for nothing.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Live { running: true, .. } => "running",
            Self::Live { record, .. } if record.last_failure.is_some() => "retrying",
            Self::Live { .. } => "waiting",
            Self::Ended(ended) => match ended.status() {
                Status::Dead => "dead",
                Status::Cancelled => "cancelled",
                Status::Joined => "joined",
                Status::Done | Status::Unspecified => "done",
            },
        }
    }

    /// The function; empty for nothing.
    pub fn function(&self) -> &str {
        match self {
            Self::Nothing => "",
            Self::Live { record, .. } => &record.function,
            Self::Ended(ended) => &ended.function,
        }
    }

    /// `{id, function, status, attempts, accepted_at, …}`, with the result or the error where `whole`. `None` for
    /// nothing.
    pub fn to_json(&self, id: CallId, whole: bool, dev: bool) -> Option<Value> {
        let mut object = Map::new();
        object.insert("id".to_owned(), json!(id.to_string()));
        object.insert("function".to_owned(), json!(self.function()));
        object.insert("status".to_owned(), json!(self.status()));
        match self {
            Self::Nothing => return None,
            Self::Live { record, again_in, .. } => {
                let attempts = record.attempts.saturating_sub(record.attempts_before);
                object.insert("attempts".to_owned(), json!(attempts));
                object.insert("accepted_at".to_owned(), json!(at(record.accepted_ms)));
                if let Some(again_in) = again_in {
                    object.insert("next_attempt_in_seconds".to_owned(), json!(again_in.as_secs_f64()));
                }
                keys(&mut object, &record.idempotency_key, &record.exclusive_key, record.step);
                if let Some(parent) = CallId::from_wire(&record.parent) {
                    object.insert("parent".to_owned(), json!(parent.to_string()));
                }
                if let Some(failure) = &record.last_failure {
                    object.insert("error".to_owned(), error(failure, whole && dev));
                }
            }
            Self::Ended(ended) => {
                object.insert("attempts".to_owned(), json!(ended.attempts));
                object.insert("accepted_at".to_owned(), json!(at(ended.accepted_ms)));
                object.insert("ended_at".to_owned(), json!(at(ended.ended_ms)));
                keys(&mut object, &ended.idempotency_key, &ended.exclusive_key, ended.step);
                match &ended.failure {
                    Some(failure) => _ = object.insert("error".to_owned(), error(failure, whole && dev)),
                    None if whole => result(&mut object, ended),
                    None => {}
                }
            }
        }
        Some(Value::Object(object))
    }
}

/// The result as JSON; what JSON can't say is left to `/v1/calls/{id}/result`.
fn result(object: &mut Map<String, Value>, ended: &record::Ended) {
    let cbor = ended.content_type.is_empty() || ended.content_type == "application/cbor";
    let value = match (&ended.result, cbor) {
        (result, true) if result.is_empty() => Some(Value::Null),
        (result, true) => as_json(result),
        (result, false) => std::str::from_utf8(result).ok().map(|text| Value::String(text.to_owned())),
    };
    match value {
        Some(value) => _ = object.insert("result".to_owned(), value),
        None => _ = object.insert("result_bytes".to_owned(), json!(ended.result.len())),
    }
    if !cbor {
        object.insert("content_type".to_owned(), json!(ended.content_type));
    }
}

fn as_json(cbor: &Bytes) -> Option<Value> {
    let text = String::from_utf8(json::from_cbor(cbor).ok()?).ok()?;
    let raw = RawValue::from_string(text).ok()?;
    serde_json::from_str(raw.get()).ok()
}

fn keys(object: &mut Map<String, Value>, idempotency: &str, exclusive: &str, step: u64) {
    for (name, key) in [("idempotency_key", idempotency), ("exclusive_key", exclusive)] {
        if !key.is_empty() {
            object.insert(name.to_owned(), json!(key));
        }
    }
    if step > 0 {
        object.insert("step".to_owned(), json!(step));
    }
}

fn error(failure: &v1::Failure, traceback: bool) -> Value {
    let mut error = Map::new();
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            error.insert(name.to_owned(), json!(value));
        }
    };
    text("code", &failure.code);
    text("type", &failure.r#type);
    text("message", &failure.message);
    text("hint", &failure.hint);
    if traceback {
        text("traceback", &failure.traceback);
    }
    Value::Object(error)
}

/// RFC 3339, in UTC, from milliseconds since 1970.
pub fn at(ms: u64) -> Option<String> {
    let ms = i64::try_from(ms).ok()?;
    jiff::Timestamp::from_millisecond(ms).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_standing_reads_well() {
        let id: CallId = "00000000-07d0-7000-8000-000000000000".parse().unwrap();
        let record = record::Call { function: "m.f".into(), accepted_ms: 1_500, ..Default::default() };
        let live = Standing::Live { record: Box::new(record), running: false, again_in: None };
        assert_eq!(
            live.to_json(id, true, false).unwrap().to_string(),
            r#"{"id":"00000000-07d0-7000-8000-000000000000","function":"m.f","status":"waiting","attempts":0,"accepted_at":"1970-01-01T00:00:01.5Z"}"#
        );
        let mut ended = record::Ended {
            status: Status::Done.into(),
            result: Bytes::from_static(&[0xa1, 0x61, b'n', 1]),
            ..Default::default()
        };
        let shown = |ended: &record::Ended| {
            Standing::Ended(Box::new(ended.clone())).to_json(id, true, false).unwrap()
        };
        assert_eq!((&shown(&ended)["status"], &shown(&ended)["result"]), (&json!("done"), &json!({"n": 1})));
        ended.content_type = "text/html".into();
        ended.result = Bytes::from_static(b"<p>");
        assert_eq!(shown(&ended)["result"], json!("<p>"));
        ended.result = Bytes::from_static(b"\xff");
        assert_eq!((&shown(&ended)["result"], &shown(&ended)["result_bytes"]), (&Value::Null, &json!(1)));
        let failure =
            v1::Failure { code: "function_error".into(), traceback: "T".into(), ..Default::default() };
        ended.failure = Some(failure);
        ended.set_status(Status::Dead);
        assert_eq!(
            (&shown(&ended)["status"], &shown(&ended)["error"]),
            (&json!("dead"), &json!({"code": "function_error"}))
        );
        assert_eq!(Standing::Nothing.to_json(id, true, true), None);
    }
}
