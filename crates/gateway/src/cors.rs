//! What a browser wants to hear before it lets a page of another origin ask and read (CORS, the Fetch standard's §3.3).
//! Whether a page may ask at all is the guard's decision; this only tells the browser.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response};

use crate::guard::Guard;

/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// What a page may read beside the few headers that it always may.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("bourse-call-id, location, traceparent, retry-after, allow");

/// A request that comes from a page of an allowed origin.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    origin: HeaderValue,
    /// It only asks whether it may send the real one, with these headers.
    preflight: Option<Option<HeaderValue>>,
}

impl Cors {
    /// `None` if the request is not a page's, or of one that is not allowed.
    pub(crate) fn of(guard: &Guard, parts: &Parts) -> Option<Self> {
        let origin = parts.headers.get(header::ORIGIN).filter(|o| guard.knows_origin(o.as_bytes()))?;
        let preflight = (parts.method == Method::OPTIONS
            && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD))
        .then(|| parts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned());
        Some(Self { origin: origin.clone(), preflight })
    }

    /// A preflight is answered here: a browser sends it without a token, and it reaches no function.
    pub(crate) fn is_preflight(&self) -> bool {
        self.preflight.is_some()
    }

    /// Adds what the browser wants to hear. What a function has set itself stays.
    pub(crate) fn tell<B>(self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: HeaderValue| {
            headers.entry(name).or_insert(value);
        };
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        match self.preflight {
            None => set(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
            Some(wanted) => {
                set(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                set(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
                if let Some(wanted) = wanted {
                    set(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
                }
            }
        }
        vary(headers);
    }
}

/// A cache must not give one origin's answer to another.
fn vary(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}
