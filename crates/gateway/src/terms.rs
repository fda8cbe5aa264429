//! The terms of one call: how long it may take and wait, and which version it is for.
//!
//! `/v1/call/…?timeout=5s&queue_wait=200ms&version=^1.2&mode=sync`, or the headers `Bourse-Timeout` and
//! `Bourse-Queue-Wait`, which routes take as well. The query wins. Nothing that is given is ignored.

use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::v1;
use http::HeaderMap;

/// The longest version requirement, in bytes.
const VERSION_BYTES_MAX: usize = 128;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) timeout: Option<Duration>,
    pub(crate) queue_wait: Option<Duration>,
    pub(crate) version: String,
}

impl Terms {
    /// From the headers.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, v1::Failure> {
        let read = |name: &str| {
            let Some(value) = headers.get(name) else { return Ok(None) };
            duration(name, value.to_str().unwrap_or_default()).map(Some)
        };
        Ok(Self {
            timeout: read("bourse-timeout")?,
            queue_wait: read("bourse-queue-wait")?,
            version: String::new(),
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
                "version" if value.len() <= VERSION_BYTES_MAX => self.version.clone_from(value),
                "version" => {
                    let message = format!("a version requirement has at most {VERSION_BYTES_MAX} bytes");
                    return Err(Code::BadRequest.because(message));
                }
                "mode" if value == "sync" => {}
                "mode" => {
                    return Err(Code::BadRequest
                        .because(format!("mode={value:.32} is not supported yet"))
                        .hint("leave mode out, or say mode=sync, and wait for the answer"));
                }
                _ => {
                    return Err(Code::BadRequest
                        .because(format!("the query parameter {name:.64} means nothing here"))
                        .hint(
                            "known ones: timeout, queue_wait, version, mode; arguments go into the JSON body",
                        ));
                }
            }
        }
        Ok(self)
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
        for bad in ["mode=async", "timeout=soon", "n=1", "version=1&version=2"] {
            assert_eq!(query(bad).unwrap_err().code, "bad_request", "{bad}");
        }
        headers.insert("bourse-queue-wait", "soon".parse().unwrap());
        assert!(Terms::from_headers(&headers).is_err());
    }
}
