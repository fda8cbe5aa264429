//! `bourse.webhook`: a body is sent to a URL, signed as <https://www.standardwebhooks.com> says.
//!
//! `webhook-id` is the call's id, the same in every attempt: whoever receives it can tell that it is the same message.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bourse_node::HostFunction;
use bourse_wire::id::CallId;
use bourse_wire::v1;
use bourse_wire::value::Value;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::timeout;

use super::arguments::Given;
use super::request::{Answer, Client, Target};
use super::{Settings, Task, hopeless, text, undelivered};

/// How long a request may take, if the call does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// And at most: the node gives up later than that.
const TIMEOUT_MAX: Duration = Duration::from_secs(240);
/// The longest pause that a target can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// Headers that are not the caller's.
const OWN: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "expect",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// Sends it; the result is `{status, body}`.
pub(super) async fn perform(task: &Task, settings: &Settings, client: &Client) -> Result<Value, v1::Failure> {
    let mut given = Given::read(HostFunction::Webhook, &task.payload)?;
    let target = Target::parse(&given.text("url")?).map_err(|why| given.wrong(why))?;
    let method = method(&mut given)?;
    let limit = given.duration("timeout")?.unwrap_or(TIMEOUT);
    if limit > TIMEOUT_MAX {
        return Err(given.wrong(format!("timeout is at most {TIMEOUT_MAX:?}")));
    }
    let (body, kind) = body(given.value("body"));
    let mut headers = headers(&mut given)?;
    if let (Some(kind), false) = (kind, headers.contains_key(header::CONTENT_TYPE)) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("bourse/", env!("CARGO_PKG_VERSION"))));
    if let Ok(trace) = HeaderValue::from_str(&task.traceparent)
        && !trace.is_empty()
    {
        headers.insert(HeaderName::from_static("traceparent"), trace);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let secrets = match settings.webhook_host_secrets.get(&target.host) {
        Some(secret) => std::slice::from_ref(secret),
        None => &settings.webhook_secrets,
    };
    sign(&mut headers, secrets, task.call, now, &body);
    let sent = client.send(&target, settings.webhook_reach, method, headers, body);
    match timeout(limit, sent).await {
        Ok(answer) => judge(&target, answer?),
        Err(_) => Err(undelivered(format!("{} did not answer within {limit:?}", target.host))),
    }
}

fn method(given: &mut Given) -> Result<Method, v1::Failure> {
    const METHODS: [Method; 5] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::GET];
    let name = given.text_if_given("method")?.unwrap_or_else(|| "POST".to_owned());
    let found = METHODS.into_iter().find(|m| m.as_str().eq_ignore_ascii_case(&name));
    found.ok_or_else(|| given.wrong(format!("{name:.32?} is not a method that it sends")))
}

/// What is sent, and what it is: texts and bytes as they are, everything else as JSON.
fn body(value: Option<Value>) -> (Bytes, Option<&'static str>) {
    match value {
        None => (Bytes::new(), None),
        Some(Value::Text(text)) => (text.into(), Some("text/plain; charset=utf-8")),
        Some(Value::Bytes(bytes)) => (bytes, Some("application/octet-stream")),
        Some(value) => (value.to_json().to_string().into(), Some("application/json")),
    }
}

fn headers(given: &mut Given) -> Result<HeaderMap, v1::Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in given.map("headers")? {
        let name = HeaderName::try_from(&name)
            .map_err(|_| given.wrong(format!("{name:.64?} is not the name of a header")))?;
        if OWN.contains(&name.as_str()) {
            return Err(given.wrong(format!("the header {name} is not the caller's to set")));
        }
        let value = HeaderValue::try_from(&value)
            .map_err(|_| given.wrong(format!("the header {name} has a value that cannot be sent")))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
fn sign(headers: &mut HeaderMap, secrets: &[String], call: CallId, now: u64, body: &[u8]) {
    let id = call.to_string();
    let signatures: Vec<String> = secrets.iter().map(|secret| signature(secret, &id, now, body)).collect();
    let mut set = |name: &'static str, value: String| {
        let value = HeaderValue::try_from(value).expect("ids, numbers and base64 fit a header");
        headers.insert(HeaderName::from_static(name), value);
    };
    set("webhook-id", id);
    set("webhook-timestamp", now.to_string());
    if !signatures.is_empty() {
        set("webhook-signature", signatures.join(" "));
    }
}

fn signature(secret: &str, id: &str, now: u64, body: &[u8]) -> String {
    let decoded = secret.strip_prefix("whsec_").and_then(|base64| STANDARD.decode(base64).ok());
    let key = decoded.unwrap_or_else(|| secret.as_bytes().to_vec());
    let mut hmac = ring::hmac::Context::with_key(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key));
    hmac.update(format!("{id}.{now}.").as_bytes());
    hmac.update(body);
    format!("v1,{}", STANDARD.encode(hmac.sign()))
}

/// What an answer means: taken; or not now; or never.
fn judge(target: &Target, answer: Answer) -> Result<Value, v1::Failure> {
    let status = answer.status;
    if status.is_success() {
        let body = match String::from_utf8(answer.body.to_vec()) {
            Ok(body) => text(body),
            Err(_) => Value::Bytes(answer.body),
        };
        return Ok(Value::Map(vec![
            (text("status"), Value::Int(status.as_u16().into())),
            (text("body"), body),
        ]));
    }
    let said = String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]).into_owned();
    let failure = undelivered(format!("{} answered {}: {said}", target.host, status.as_u16()));
    let again = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
        );
    match retry_after(&answer.headers) {
        _ if status.is_redirection() => {
            Err(hopeless(failure.hint("redirects are not followed: give the URL that they lead to")))
        }
        _ if !again => Err(hopeless(failure)),
        None => Err(failure),
        Some(after) => Err(v1::Failure { verdict: v1::Verdict::Again.into(), ..failure.retry_after(after) }),
    }
}

/// In seconds, or as a date (RFC 9110 §10.2.3); dates are left to the policy.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        let signed = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn answers() {
        let target = Target::parse("http://x/").unwrap();
        let judged = |status: u16, after: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            after.map(|after| headers.insert(header::RETRY_AFTER, HeaderValue::from_static(after)));
            let status = StatusCode::from_u16(status).unwrap();
            let failure = judge(&target, Answer { status, headers, body: Bytes::new() });
            failure.map_err(|f| (f.verdict(), f.retry_after_ms))
        };
        assert!(judged(204, None).is_ok());
        assert_eq!(judged(503, None).unwrap_err(), (v1::Verdict::Unspecified, 0));
        assert_eq!(judged(429, Some("7")).unwrap_err(), (v1::Verdict::Again, 7_000));
        for never in [301, 400, 404, 410] {
            assert_eq!(judged(never, None).unwrap_err().0, v1::Verdict::DeadLetter, "{never}");
        }
    }
}
