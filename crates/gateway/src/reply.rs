//! The small answers, and what a request says its body is.

use bourse_wire::failure::Code;
use bourse_wire::v1;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use crate::bind::Content;
use crate::problem;

/// An answer, or why there is none.
pub(crate) type Outcome = Result<Response<Full<Bytes>>, v1::Failure>;

/// What a body is, by its header.
pub(crate) fn content(headers: &HeaderMap, body: &Bytes) -> Content {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return if body.is_empty() { Content::Empty } else { Content::Other(String::new()) };
    };
    let name = value.as_bytes().split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    let ends = |suffix: &[u8]| {
        name.len() > suffix.len() && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    };
    let json = name.eq_ignore_ascii_case(b"application/json") || ends(b"+json");
    let cbor = name.eq_ignore_ascii_case(b"application/cbor");
    if (json || cbor) && body.is_empty() {
        // Neither has an empty document; an empty text is one.
        Content::Empty
    } else if json {
        Content::Json
    } else if cbor {
        Content::Cbor
    } else {
        Content::Other(String::from_utf8_lossy(name).to_ascii_lowercase())
    }
}

/// The answer to a method that is not allowed, and to OPTIONS.
pub(crate) fn otherwise(method: &Method, allowed: &[&str]) -> Outcome {
    let list = allowed.join(", ");
    let mut response = if method == Method::OPTIONS {
        no_content()
    } else {
        let failure =
            Code::MethodNotAllowed.because(format!("{method:.32} is not allowed here, only {list}"));
        problem::respond(&failure, None, false)
    };
    if let Ok(allow) = HeaderValue::try_from(format!("{list}, OPTIONS")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    Ok(response)
}

pub(crate) fn no_content() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub(crate) fn text(text: &'static str) -> Response<Full<Bytes>> {
    typed("text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

pub(crate) fn typed(content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
