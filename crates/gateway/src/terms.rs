//! The terms of one call: how long it may take and wait, and which version it is for.
//!
//! `/v1/call/…?timeout=5s&queue_wait=200ms&version=^1.2&mode=async&delay=1h`, or the headers `Bourse-Timeout`,
//! `Bourse-Queue-Wait`, `Bourse-Horizon`, `Bourse-Scale-After`, `Bourse-Overflow`, `Bourse-Delay`, `Idempotency-Key` and `Prefer: respond-async` (RFC 7240 §4.1), which routes take
//! as well. The query wins. Nothing that is given is ignored, but for other preferences, which are wishes.

use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::v1;
use http::HeaderMap;

/// The longest version requirement, in bytes.
const VERSION_BYTES_MAX: usize = 128;
/// The longest idempotency key, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) timeout: Option<Duration>,
    pub(crate) queue_wait: Option<Duration>,
    pub(crate) horizon: v1::Horizon,
    pub(crate) scale_after: Option<Duration>,
    pub(crate) overflow: v1::Overflow,
    pub(crate) version: String,
    /// The client waits for the call's id only.
    pub(crate) asynchronous: bool,
    pub(crate) idempotency_key: String,
    /// The call is not run before that.
    pub(crate) delay: Option<Duration>,
}

impl Terms {
    /// From the headers.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, v1::Failure> {
        let read = |name: &str| {
            let Some(value) = headers.get(name) else { return Ok(None) };
            duration(name, value.to_str().unwrap_or_default()).map(Some)
        };
        let word = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
        Ok(Self {
            timeout: read("bourse-timeout")?,
            queue_wait: read("bourse-queue-wait")?,
            horizon: word("bourse-horizon").map(|text| horizon(&text)).transpose()?.unwrap_or_default(),
            scale_after: read("bourse-scale-after")?,
            overflow: word("bourse-overflow").map(|text| overflow(&text)).transpose()?.unwrap_or_default(),
            version: String::new(),
            asynchronous: prefers_async(headers),
            idempotency_key: idempotency_key(headers)?,
            delay: read("bourse-delay")?,
        })
    }

    /// Adds what the query of `/v1/call/…` says.
    pub(crate) fn with_query(mut self, query: &[(String, String)]) -> Result<Self, v1::Failure> {
        for (i, (name, value)) in query.iter().enumerate() {
            if query[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(Code::BadRequest.because(format!("{name:.64} is given twice")));
            }
            match name.as_str() {
                "timeout" => self.timeout = Some(duration(name, value)?),
                "queue_wait" => self.queue_wait = Some(duration(name, value)?),
                "delay" => self.delay = Some(duration(name, value)?),
                "horizon" => self.horizon = horizon(value)?,
                "scale_after" => self.scale_after = Some(duration(name, value)?),
                "overflow" => self.overflow = overflow(value)?,
                "version" if value.len() <= VERSION_BYTES_MAX => self.version.clone_from(value),
                "version" => {
                    let message = format!("a version requirement has at most {VERSION_BYTES_MAX} bytes");
                    return Err(Code::BadRequest.because(message));
                }
                "mode" if value == "sync" => self.asynchronous = false,
                "mode" if value == "async" => self.asynchronous = true,
                "mode" => {
                    return Err(Code::BadRequest
                        .because(format!("there is no mode {value:.32}"))
                        .hint("mode=sync waits for the result, mode=async for the call's id"));
                }
                _ => {
                    return Err(Code::BadRequest
                        .because(format!("the query parameter {name:.64} means nothing here"))
                        .hint(
                            "known ones: timeout, queue_wait, version, mode, delay, horizon, scale_after, overflow; arguments go into the JSON body",
                        ));
                }
            }
        }
        Ok(self)
    }
}

impl Terms {
    /// Whether they fit together.
    pub(crate) fn check(&self) -> Result<(), v1::Failure> {
        match self.delay {
            Some(_) if !self.asynchronous => Err(Code::BadRequest
                .because("a call that is waited for is not delayed")
                .hint("add mode=async: the answer is the call's id")),
            _ => Ok(()),
        }
    }
}

/// `Prefer: respond-async`, among other preferences.
fn prefers_async(headers: &HeaderMap) -> bool {
    let wishes = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    wishes.flat_map(|value| value.split(',')).any(|wish| {
        wish.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("respond-async"))
    })
}

/// A string of structured fields, as the header's draft has it, or the bare key, as many send it.
fn idempotency_key(headers: &HeaderMap) -> Result<String, v1::Failure> {
    let mut given = headers.get_all("idempotency-key").iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return match headers.contains_key("idempotency-key") {
            true => Err(Code::BadRequest.because("Idempotency-Key is given twice")),
            false => Ok(String::new()),
        };
    };
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let message =
            format!("Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
        return Err(Code::BadRequest.because(message).hint("a UUID is a good one"));
    }
    Ok(key.to_owned())
}

fn horizon(text: &str) -> Result<v1::Horizon, v1::Failure> {
    match text {
        "process" => Ok(v1::Horizon::Process),
        "machine" => Ok(v1::Horizon::Machine),
        "network" => Ok(v1::Horizon::Network),
        "anywhere" => Ok(v1::Horizon::Anywhere),
        _ => Err(Code::BadRequest
            .because(format!("there is no horizon {text:.32}"))
            .hint("there are process, machine, network and anywhere")),
    }
}

fn overflow(text: &str) -> Result<v1::Overflow, v1::Failure> {
    match text {
        "queue" => Ok(v1::Overflow::Queue),
        "reject" => Ok(v1::Overflow::Reject),
        "remote" => Ok(v1::Overflow::Remote),
        _ => Err(Code::BadRequest.because(format!("there is no overflow {text:.32}")).hint(
            "queue: the call waits; reject: it is refused; remote: capacity elsewhere is asked for at once",
        )),
    }
}

/// "5s", "200ms", "1m", "2h".
fn duration(name: &str, text: &str) -> Result<Duration, v1::Failure> {
    parse(text).ok_or_else(|| {
        Code::BadRequest
            .because(format!("{name} is not a duration: {text:.32}"))
            .hint("a number and a unit, such as 200ms, 5s, 1.5m or 2h; above zero")
    })
}

/// As everywhere, but not zero: who gives no time gets no answer.
fn parse(text: &str) -> Option<Duration> {
    bourse_wire::time::parse_duration(text).filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("200ms", 200), ("5s", 5_000), ("1.5m", 90_000), ("2h", 7_200_000)] {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in
            ["", "s", "-5s", "0s", "0", "1e9s", "nans", "infs", "99999999h", ".s", "ß5s", "5sß", "1.2.3s"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn asynchronous_calls_and_their_keys() {
        let terms = |pairs: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = pairs
                .iter()
                .map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), v.parse().unwrap()))
                .collect();
            Terms::from_headers(&headers)
        };
        assert!(terms(&[("prefer", "wait=5, Respond-Async")]).unwrap().asynchronous);
        assert!(!terms(&[("prefer", "wait=5")]).unwrap().asynchronous);
        assert_eq!(terms(&[("idempotency-key", "\"a b\"")]).unwrap().idempotency_key, "a b");
        assert_eq!(terms(&[("idempotency-key", "abc")]).unwrap().idempotency_key, "abc");
        assert!(terms(&[("idempotency-key", "\"\"")]).is_err());
        assert!(terms(&[("idempotency-key", Box::leak("x".repeat(256).into_boxed_str()))]).is_err());
    }

    #[test]
    fn the_query_wins_and_nothing_is_ignored() {
        let mut headers = HeaderMap::new();
        headers.insert("bourse-timeout", "5s".parse().unwrap());
        let query = |text: &str| {
            let pairs: Vec<_> = text
                .split('&')
                .filter_map(|p| p.split_once('='))
                .map(|(k, v)| (k.into(), v.into()))
                .collect();
            Terms::from_headers(&headers).and_then(|t| t.with_query(&pairs))
        };
        assert_eq!(query("").unwrap().timeout, Some(Duration::from_secs(5)));
        let terms = query("timeout=1s&queue_wait=20ms&version=^1.2&mode=sync").unwrap();
        assert_eq!((terms.timeout, terms.version.as_str()), (Some(Duration::from_secs(1)), "^1.2"));
        assert!(query("mode=async").unwrap().asynchronous);
        let delayed = query("mode=async&delay=2h").unwrap();
        assert_eq!((delayed.delay, delayed.check()), (Some(Duration::from_secs(7_200)), Ok(())));
        assert_eq!(query("delay=2h").unwrap().check().unwrap_err().code, "bad_request");
        let terms = query("horizon=machine&scale_after=5ms&overflow=reject").unwrap();
        assert_eq!((terms.horizon, terms.overflow), (v1::Horizon::Machine, v1::Overflow::Reject));
        assert_eq!(terms.scale_after, Some(Duration::from_millis(5)));
        for bad in [
            "horizon=moon",
            "overflow=drop",
            "scale_after=soon",
            "mode=later",
            "timeout=soon",
            "n=1",
            "version=1&version=2",
        ] {
            assert_eq!(query(bad).unwrap_err().code, "bad_request", "{bad}");
        }
        headers.insert("bourse-queue-wait", "soon".parse().unwrap());
        assert!(Terms::from_headers(&headers).is_err());
    }
}
