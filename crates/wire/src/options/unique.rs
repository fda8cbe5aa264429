//! `unique`: a second call with the key is the first one.

use std::time::Duration;

use serde_json::Value as Json;

use super::{KeyTemplate, duration, unknown};
use crate::v1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// The key.
    pub key: KeyTemplate,
    /// How long it holds.
    pub window: Window,
}

/// How long a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// As long as ended calls are kept.
    Kept,
    /// So long, from when the call was accepted.
    For(Duration),
    /// Until the call has ended.
    UntilEnded,
    /// Until the call is first run. Until then a further one takes its place.
    UntilRun,
}

impl Window {
    /// As stored: `Call.unique_ms`.
    pub const UNTIL_ENDED_MS: u64 = u64::MAX;
    /// The same.
    pub const UNTIL_RUN_MS: u64 = u64::MAX - 1;

    /// For the store.
    pub fn to_ms(self) -> u64 {
        match self {
            Self::Kept => 0,
            Self::For(window) => crate::time::millis(window).max(1),
            Self::UntilEnded => Self::UNTIL_ENDED_MS,
            Self::UntilRun => Self::UNTIL_RUN_MS,
        }
    }
}

impl Unique {
    /// Reads `"{order}"`, or `{"key": "{order}", "window": "1h"}`; the window may be `"running"`, until the call has ended.
    pub fn from_json(text: &str, parameters: &[v1::Parameter]) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match json {
            Json::String(key) => Ok(Self { key: KeyTemplate::new(&key, parameters)?, window: Window::Kept }),
            Json::Object(object) => {
                let (mut key, mut window) = (None, Window::Kept);
                for (name, value) in &object {
                    match (name.as_str(), value) {
                        ("key", Json::String(text)) => key = Some(KeyTemplate::new(text, parameters)?),
                        ("key", _) => return Err(format!("`key` = {value} is not a text")),
                        ("window", Json::String(text)) if text == "running" => window = Window::UntilEnded,
                        ("window", _) => match duration(name, value)? {
                            Duration::ZERO => return Err("a window of no time holds nothing".to_owned()),
                            some => window = Window::For(some),
                        },
                        _ => return Err(unknown(name, &["key", "window"])),
                    }
                }
                Ok(Self { key: key.ok_or("it needs a `key`")?, window })
            }
            _ => Err("it is a text such as \"{order}\", or an object with `key` and `window`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Unique, String> {
        let order = v1::Parameter { name: "order".to_owned(), ..Default::default() };
        Unique::from_json(text, &[order])
    }

    #[test]
    fn windows() {
        assert_eq!(read("\"{order}\"").unwrap().window, Window::Kept);
        let hour = read(r#"{"key": "{order}", "window": "1h"}"#).unwrap();
        assert_eq!(hour.window, Window::For(Duration::from_secs(3600)));
        assert_eq!(hour.window.to_ms(), 3_600_000);
        let running = read(r#"{"key": "x{order}", "window": "running"}"#).unwrap();
        assert_eq!((running.window, running.key.text()), (Window::UntilEnded, "x{order}"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str, word: &str| {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        };
        wrong("1", "it is a text");
        wrong("\"{ordr}\"", "did you mean {order}");
        wrong("{\"windw\": 1}", "did you mean `window`");
        wrong("{\"window\": \"1h\"}", "needs a `key`");
        wrong("{\"key\": \"a\", \"window\": \"soon\"}", "not a duration");
        wrong("{\"key\": \"a\", \"window\": 0}", "holds nothing");
    }
}
