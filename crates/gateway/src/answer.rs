//! Results as HTTP.
//!
//! CBOR becomes JSON unless the client asks for `application/cbor`; a result of another content type passes as it
//! is. A function that sets its own `content-type` header and gives text or bytes is taken at its word.

use bourse_wire::failure::Code;
use bourse_wire::v1;
use bourse_wire::value::Value;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::{Success, json};

/// The most headers a function may set.
const HEADERS_MAX: usize = 64;

/// The most bytes they may have together.
const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// Headers that are the connection's, not the answer's.
const REFUSED: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const CBOR: &str = "application/cbor";

/// A result as an answer; `Err` where the function gave something that HTTP cannot say.
pub(crate) fn respond(success: Success, cbor_wanted: bool) -> Result<Response<Full<Bytes>>, v1::Failure> {
    let mut response = Response::new(Full::default());
    if let Some(http) = &success.http {
        *response.status_mut() = status(http.status)?;
        *response.headers_mut() = headers(&http.headers)?;
    }
    let (body, content_type) = body(success, response.headers().get(header::CONTENT_TYPE), cbor_wanted)?;
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(response);
    }
    *response.body_mut() = Full::new(body);
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    Ok(response)
}

/// The body, and its type unless the function has set it.
fn body(
    success: Success,
    own: Option<&HeaderValue>,
    cbor_wanted: bool,
) -> Result<(Bytes, Option<HeaderValue>), v1::Failure> {
    let Success { payload, content_type, .. } = success;
    if !content_type.is_empty() && content_type != CBOR {
        let invalid = || refused(format!("the content type {content_type:.64?} is not a header value"));
        let value = HeaderValue::from_str(&content_type).map_err(|_| invalid())?;
        return Ok((payload, own.is_none().then_some(value)));
    }
    if let Some(own) = own {
        let json = own.as_bytes().windows(4).any(|w| w.eq_ignore_ascii_case(b"json"));
        return match payload.first().map_or(7, |b| b >> 5) {
            2 | 3 if !json => match Value::from_cbor(&payload) {
                Ok(Value::Bytes(bytes)) => Ok((bytes, None)),
                Ok(Value::Text(text)) => Ok((text.into(), None)),
                _ => Err(refused("the result is not CBOR".to_owned())),
            },
            _ => Ok((to_json(&payload)?, None)),
        };
    }
    if cbor_wanted {
        let payload = if payload.is_empty() { Bytes::from_static(&[0xf6]) } else { payload };
        return Ok((payload, Some(HeaderValue::from_static(CBOR))));
    }
    Ok((to_json(&payload)?, Some(HeaderValue::from_static("application/json"))))
}

fn to_json(payload: &Bytes) -> Result<Bytes, v1::Failure> {
    if payload.is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    json::from_cbor(payload).map(Bytes::from).map_err(|e| refused(format!("the result is not CBOR: {e}")))
}

fn status(number: u32) -> Result<StatusCode, v1::Failure> {
    match u16::try_from(number) {
        Ok(0) => Ok(StatusCode::OK),
        Ok(n @ 200..=599) => StatusCode::from_u16(n).map_err(|e| refused(e.to_string())),
        _ => Err(refused(format!("the status {number} is not between 200 and 599"))),
    }
}

fn headers(given: &[v1::Header]) -> Result<HeaderMap, v1::Failure> {
    let bytes: usize = given.iter().map(|h| h.name.len() + h.value.len()).sum();
    if given.len() > HEADERS_MAX || bytes > HEADERS_BYTES_MAX {
        return Err(refused(format!(
            "{} headers of {bytes} bytes, at most {HEADERS_MAX} of {HEADERS_BYTES_MAX} are allowed",
            given.len()
        )));
    }
    let mut headers = HeaderMap::with_capacity(given.len() + 4);
    for h in given {
        let name = HeaderName::from_bytes(h.name.as_bytes())
            .map_err(|_| refused(format!("{:.64?} is not the name of a header", h.name)))?;
        if REFUSED.contains(&name.as_str()) {
            return Err(refused(format!("the header {name} is the gateway's to set")));
        }
        let value = HeaderValue::from_bytes(h.value.as_bytes())
            .map_err(|_| refused(format!("the header {name} has a value with control characters")))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn refused(what: String) -> v1::Failure {
    Code::FunctionError.because(format!("the function's answer cannot be sent over HTTP: {what}"))
}

/// Whether a client would rather have CBOR.
pub(crate) fn wants_cbor(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    accepts.flat_map(|v| v.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let refused = |p: &str| p.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case(CBOR)) && !parts.any(refused)
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    /// A `Full` body is there at once.
    fn at_once<T>(future: impl Future<Output = Result<T, std::convert::Infallible>>) -> T {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut cx) {
            std::task::Poll::Ready(Ok(value)) => value,
            std::task::Poll::Pending => panic!("not there"),
        }
    }

    fn check(
        payload: &[u8],
        content_type: &str,
        status: u32,
        headers: &[(&str, &str)],
        cbor: bool,
        expected: &str,
    ) {
        let headers =
            headers.iter().map(|(n, v)| v1::Header { name: (*n).into(), value: (*v).into() }).collect();
        let http = Some(v1::HttpResponse { status, headers });
        let success =
            Success { payload: Bytes::copy_from_slice(payload), content_type: content_type.into(), http };
        let told = match respond(success, cbor) {
            Ok(mut response) => {
                let body = std::mem::take(response.body_mut());
                let body = at_once(body.collect()).to_bytes();
                let headers: Vec<_> =
                    response.headers().iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
                format!(
                    "{} {} {}",
                    response.status().as_u16(),
                    headers.join(" "),
                    String::from_utf8_lossy(&body)
                )
            }
            Err(failure) => format!("{}: {}", failure.code, failure.message.split_once(": ").unwrap().1),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn results() {
        check(&[0xa1, 0x61, b'n', 1], "", 0, &[], false, "200 content-type=application/json {\"n\":1}");
        check(b"", "", 0, &[], false, "200 content-type=application/json null");
        check(&[0x61, b'x'], "", 201, &[], true, "201 content-type=application/cbor ax");
        check(b"<p>", "text/html", 0, &[], true, "200 content-type=text/html <p>");
        check(
            &[0x61, b'x'],
            "",
            0,
            &[("Content-Type", "text/plain")],
            false,
            "200 content-type=text/plain x",
        );
        check(
            &[0x61, b'x'],
            "",
            0,
            &[("content-type", "a/b+json")],
            false,
            "200 content-type=a/b+json \"x\"",
        );
        check(&[0x01], "", 204, &[("x-a", "1")], false, "204 x-a=1 ");
        check(
            &[0x01],
            "",
            404,
            &[("set-cookie", "a"), ("set-cookie", "b")],
            false,
            "404 set-cookie=a set-cookie=b content-type=application/json 1",
        );
    }

    #[test]
    fn what_http_cannot_say_is_the_functions_error() {
        check(
            &[0xff],
            "",
            0,
            &[],
            false,
            "function_error: the result is not CBOR: decode error: not well-formed CBOR: an item of unknown type at byte 0",
        );
        check(b"", "", 100, &[], false, "function_error: the status 100 is not between 200 and 599");
        check(b"", "", 70_000, &[], false, "function_error: the status 70000 is not between 200 and 599");
        check(b"", "", 0, &[("a b", "")], false, "function_error: \"a b\" is not the name of a header");
        check(
            b"",
            "",
            0,
            &[("a", "x\r\ny: z")],
            false,
            "function_error: the header a has a value with control characters",
        );
        check(
            b"",
            "",
            0,
            &[("Content-Length", "7")],
            false,
            "function_error: the header content-length is the gateway's to set",
        );
        check(b"", "a\nb", 0, &[], false, "function_error: the content type \"a\\nb\" is not a header value");
        check(
            b"",
            "",
            0,
            &[("a", ""); 65],
            false,
            "function_error: 65 headers of 65 bytes, at most 64 of 16384 are allowed",
        );
    }

    #[test]
    fn accept() {
        for (text, wanted) in [
            ("application/cbor", true),
            ("text/html, application/CBOR;q=0.5", true),
            ("*/*", false),
            ("application/cbor;q=0", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, text.parse().unwrap())]);
            assert_eq!(wants_cbor(&headers), wanted, "{text}");
        }
    }
}
