//! From an HTTP request to a WebSocket connection (RFC 6455 §4.2).
//!
//! The function is called first, with the event `open`, and may refuse: then the request is answered with why, and there
//! is no connection. It can be sent to from before that call on, so that nothing is missed.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bourse_wire::failure::Code;
use bourse_wire::value::Value;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use crate::exchange::Exchange;
use crate::gateway::TRACEPARENT;
use crate::reply::Outcome;
use crate::routes::Target;
use crate::websocket::{Caller, Socket};
use crate::{Gateway, problem, uri};

/// RFC 6455 §1.3.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION: &str = "13";

/// Where an exchange leaves what its connection becomes, once the answer is written.
pub(crate) type Handover = Mutex<Option<Box<Socket>>>;

/// Whether a request asks for a WebSocket connection.
pub(crate) fn is_wanted(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::GET
        && has(headers, header::UPGRADE, "websocket")
        && has(headers, header::CONNECTION, "upgrade")
}

fn has(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// The answer to a request that should have been one for a connection.
pub(crate) fn required(why: &str) -> Response<Full<bytes::Bytes>> {
    let failure = Code::BadRequest.because(why).hint("connect with a WebSocket client");
    let mut response = problem::respond(&failure, None, false);
    let status = StatusCode::UPGRADE_REQUIRED;
    *response.status_mut() = status;
    let mut problem = problem::to_json(&failure, None, false);
    problem["status"] = status.as_u16().into();
    *response.body_mut() = Full::from(problem.to_string());
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
    response
}

impl Exchange<'_> {
    /// Opens a connection, if the function lets it.
    pub(crate) async fn open(&mut self, target: &Arc<Target>, path: Vec<(String, String)>) -> Outcome {
        let headers = &self.parts.headers;
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v != VERSION) {
            return Ok(required("the version of the WebSocket protocol is 13"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| key.as_bytes().trim_ascii());
        let accept = key
            .filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16))
            .map(accept)
            .ok_or_else(|| Code::BadRequest.because("Sec-WebSocket-Key is not 16 bytes in base64"))?;
        let query = uri::query(self.parts.uri.query())
            .map_err(|e| Code::BadRequest.because(format!("the query has {e}")))?;
        let wants = |name| target.signature.wants(name);
        let seen = (wants("headers") || wants("request")).then(|| self.headers());
        let request = seen.clone().filter(|_| wants("request")).map(|seen| self.request(seen, &query));
        let seen = seen.filter(|_| wants("headers")).map(|seen| seen.to_cbor());
        let traceparent = self.gateway.shared.tracer.context(headers.get(TRACEPARENT).map(|v| v.as_bytes()));
        self.trace = Some(traceparent.clone());
        let id = connection_id(self.gateway)?;
        let sockets = &self.gateway.shared.sockets;
        let registered = sockets
            .register(id, target.name.as_str(), self.parts.uri.path())
            .ok_or_else(|| Code::ShuttingDown.because("the daemon is stopping"))?;
        let caller = Caller {
            gateway: self.gateway.clone(),
            target: Arc::clone(target),
            path,
            headers: seen,
            request,
            traceparent,
        };
        let (call, result) = caller.open(&registered.line.id).await;
        self.call = call;
        let opened = Value::from_cbor(&result?.payload).unwrap_or(Value::Null);
        for group in texts(&opened, "groups") {
            let joined = sockets.join(&registered.line.id, &group);
            joined.map_err(|why| Code::BadArguments.because(format!("{}: {why}", target.name)))?;
        }
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let answer = response.headers_mut();
        answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        answer.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = texts(&opened, "protocol").first()
            && has(&self.parts.headers, header::SEC_WEBSOCKET_PROTOCOL, protocol)
            && let Ok(protocol) = HeaderValue::from_str(protocol)
        {
            answer.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        let socket = Box::new(Socket::new(caller, registered));
        *self.handover.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(socket);
        Ok(response)
    }
}

/// A text, or a list of texts, of what `open` has returned.
fn texts(opened: &Value, name: &str) -> Vec<String> {
    let Value::Map(pairs) = opened else { return Vec::new() };
    let found = pairs.iter().find(|(key, _)| *key == Value::Text(name.to_owned()));
    let items = match found.map(|(_, value)| value) {
        Some(Value::Array(items)) => items.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let text = |item: &Value| match item {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    items.iter().filter_map(text).collect()
}

fn accept(key: &[u8]) -> HeaderValue {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(MAGIC.as_bytes());
    HeaderValue::try_from(STANDARD.encode(hash.finish())).expect("base64 fits a header")
}

/// Nobody guesses it: who knows a connection's name can send to it. It begins with the node that has the connection, where there are
/// several.
fn connection_id(gateway: &Gateway) -> Result<String, bourse_wire::v1::Failure> {
    let mut bytes = [0; 12];
    ring::rand::SecureRandom::fill(&gateway.shared.random, &mut bytes)
        .map_err(|_| Code::Internal.because("the system has no random numbers"))?;
    let node = gateway.shared.node.get().map_or("", String::as_str);
    Ok(bytes.iter().fold(node.to_owned(), |id, b| id + &format!("{b:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_open_returns() {
        let text = |t: &str| Value::Text(t.to_owned());
        let groups =
            Value::Map(vec![(text("groups"), Value::Array(vec![text("a"), text("b"), Value::Null]))]);
        assert_eq!(texts(&groups, "groups"), ["a", "b"]);
        assert!(texts(&Value::Null, "groups").is_empty());
    }
}
