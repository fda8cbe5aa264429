//! `retry`: how failures of a durable call are met.

use std::time::Duration;

use serde_json::Value as Json;

use super::{duration, unknown};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, before the call is a dead letter. At least 1.
    pub attempts_max: u32,
    /// The pause after the first failure; it doubles each time.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// Exceptions that are tried again, by their type's name; empty: all.
    pub only: Vec<String>,
    /// Exceptions that are not.
    pub never: Vec<String>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
            only: Vec::new(),
            never: Vec::new(),
        }
    }
}

impl Retry {
    const KEYS: [&str; 5] = ["attempts", "pause", "pause_max", "only", "never"];

    /// Reads `5` (attempts in all), `true` (the defaults), or `{"attempts": 5, "pause": "1s", "pause_max": "1m", "only":
    /// ["ConnectionError"], "never": ["ValueError"]}`, each key optional.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut retry = Self::default();
        match json {
            Json::Bool(true) => {}
            Json::Number(_) => retry.attempts_max = attempts(&json)?,
            Json::Object(object) => {
                for (key, value) in &object {
                    match key.as_str() {
                        "attempts" => retry.attempts_max = attempts(value)?,
                        "pause" => retry.pause_min = duration(key, value)?,
                        "pause_max" => retry.pause_max = duration(key, value)?,
                        "only" => retry.only = names(key, value)?,
                        "never" => retry.never = names(key, value)?,
                        _ => return Err(unknown(key, &Self::KEYS)),
                    }
                }
                if !object.contains_key("pause_max") {
                    retry.pause_max = retry.pause_max.max(retry.pause_min);
                }
            }
            _ => return Err("it is a number of attempts, or an object".to_owned()),
        }
        if retry.pause_min > retry.pause_max {
            return Err("`pause` is longer than `pause_max`".to_owned());
        }
        Ok(retry)
    }
}

fn attempts(json: &Json) -> Result<u32, String> {
    let number = json.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| format!("{json} is not a number of attempts: 1 or more"))
}

fn names(key: &str, json: &Json) -> Result<Vec<String>, String> {
    let name = |name: &Json| name.as_str().map(str::to_owned);
    let all = json.as_array().and_then(|names| names.iter().map(name).collect());
    all.ok_or_else(|| format!("`{key}` = {json} is not a list of exceptions' names"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_read() {
        let read = |text: &str| Retry::from_json(text);
        assert_eq!(read("true"), Ok(Retry::default()));
        assert_eq!(read("3").unwrap().attempts_max, 3);
        let all = r#"{"attempts": 2, "pause": "100ms", "pause_max": 3, "only": ["A"], "never": ["B"]}"#;
        let expected = Retry {
            attempts_max: 2,
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(3),
            only: vec!["A".to_owned()],
            never: vec!["B".to_owned()],
        };
        assert_eq!(read(all), Ok(expected));
        assert_eq!(read(r#"{"pause": "5m"}"#).unwrap().pause_max, Duration::from_secs(300));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str, word: &str| {
            let error = Retry::from_json(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        };
        wrong("0", "1 or more");
        wrong("-1", "1 or more");
        wrong("\"5\"", "number of attempts");
        wrong("{\"atempts\": 5}", "did you mean `attempts`");
        wrong("{\"pause\": \"soon\"}", "not a duration");
        wrong("{\"pause\": 9, \"pause_max\": 1}", "longer than");
        wrong("{\"only\": \"A\"}", "list of");
        wrong("{", "EOF");
    }
}
