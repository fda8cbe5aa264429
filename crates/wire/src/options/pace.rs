//! `throttle` and `debounce`: how often a function is run, whoever calls it.

use std::time::Duration;

use serde_json::Value as Json;

use super::{KeyTemplate, duration, unknown};
use crate::v1;

/// At most so many runs in a time, evenly spread: the option `throttle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Between two runs, on average.
    pub interval: Duration,
    /// So many may follow each other at once, if there were none for a while. At least 1.
    pub burst: u32,
    /// Calls with different keys are counted apart.
    pub key: Option<KeyTemplate>,
}

/// Of calls that follow each other quickly only the last one is run: the option `debounce`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// How long it has to be quiet before it is run.
    pub wait: Duration,
    /// It is run this long after the first one, however many follow.
    pub max: Option<Duration>,
    /// Calls with different keys have nothing to do with each other.
    pub key: Option<KeyTemplate>,
}

/// The most runs that may follow each other at once.
const BURST_MAX: u64 = 1_000_000;

impl Throttle {
    const KEYS: [&str; 3] = ["rate", "burst", "key"];

    /// Reads `"10/s"` (or `/ms`, `/m`, `/h`, `/5s`), or `{"rate": "10/s", "burst": 5, "key": "{user}"}`.
    pub fn from_json(text: &str, parameters: &[v1::Parameter]) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match json {
            Json::String(rate) => Ok(Self { interval: interval(&rate)?, burst: 1, key: None }),
            Json::Object(object) => {
                let (mut rate, mut burst, mut key) = (None, 1, None);
                for (name, value) in &object {
                    match (name.as_str(), value) {
                        ("rate", Json::String(text)) => rate = Some(interval(text)?),
                        ("rate", _) => return Err(format!("`rate` = {value} is not a text such as \"10/s\"")),
                        ("burst", _) => burst = burst_of(value)?,
                        ("key", _) => key = Some(template(value, parameters)?),
                        _ => return Err(unknown(name, &Self::KEYS)),
                    }
                }
                Ok(Self { interval: rate.ok_or("it needs a `rate`")?, burst, key })
            }
            _ => Err("it is a text such as \"10/s\", or an object with `rate`".to_owned()),
        }
    }
}

impl Debounce {
    const KEYS: [&str; 3] = ["wait", "max", "key"];

    /// Reads `"5s"`, or `{"wait": "5s", "max": "1m", "key": "{document}"}`.
    pub fn from_json(text: &str, parameters: &[v1::Parameter]) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let debounce = match &json {
            Json::Object(object) => {
                let (mut wait, mut max, mut key) = (None, None, None);
                for (name, value) in object {
                    match name.as_str() {
                        "wait" => wait = Some(duration(name, value)?),
                        "max" => max = Some(duration(name, value)?),
                        "key" => key = Some(template(value, parameters)?),
                        _ => return Err(unknown(name, &Self::KEYS)),
                    }
                }
                Self { wait: wait.ok_or("it needs a `wait`")?, max, key }
            }
            other => Self { wait: duration("debounce", other)?, max: None, key: None },
        };
        match () {
            () if debounce.wait.is_zero() => Err("a wait of no time debounces nothing".to_owned()),
            () if debounce.max.is_some_and(|max| max < debounce.wait) => {
                Err("`max` is shorter than `wait`".to_owned())
            }
            () => Ok(debounce),
        }
    }
}

fn template(value: &Json, parameters: &[v1::Parameter]) -> Result<KeyTemplate, String> {
    let text = value.as_str().ok_or_else(|| format!("`key` = {value} is not a text"))?;
    KeyTemplate::new(text, parameters)
}

fn burst_of(value: &Json) -> Result<u32, String> {
    let burst = value.as_u64().filter(|n| (1..=BURST_MAX).contains(n)).and_then(|n| u32::try_from(n).ok());
    burst.ok_or_else(|| format!("`burst` = {value} is not a number of runs: 1 or more"))
}

/// `10/s`: a tenth of a second.
fn interval(rate: &str) -> Result<Duration, String> {
    let bad = || format!("{rate:?} is not a rate, such as \"10/s\", \"100/m\" or \"1/5s\"");
    let (runs, time) = rate.split_once('/').ok_or_else(bad)?;
    let runs: u32 = runs.trim().parse().ok().filter(|runs| *runs > 0).ok_or_else(bad)?;
    let time = time.trim();
    let time = if time.starts_with(|c: char| c.is_ascii_digit()) { time.to_owned() } else { format!("1{time}") };
    let time = crate::time::parse_duration(&time).ok_or_else(bad)?;
    Some(time / runs).filter(|interval| !interval.is_zero()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> [v1::Parameter; 1] {
        [v1::Parameter { name: "user".to_owned(), ..Default::default() }]
    }

    #[test]
    fn rates() {
        let interval = |text: &str| Throttle::from_json(text, &user()).unwrap().interval;
        assert_eq!(interval("\"10/s\""), Duration::from_millis(100));
        assert_eq!(interval("\"1/5s\""), Duration::from_secs(5));
        assert_eq!(interval("\"30 / m\""), Duration::from_secs(2));
        let whole = Throttle::from_json(r#"{"rate": "2/s", "burst": 4, "key": "{user}"}"#, &user()).unwrap();
        assert_eq!((whole.burst, whole.key.unwrap().text()), (4, "{user}"));
    }

    #[test]
    fn debounces() {
        let read = |text: &str| Debounce::from_json(text, &user());
        assert_eq!(read("\"5s\"").unwrap().wait, Duration::from_secs(5));
        let whole = read(r#"{"wait": "1s", "max": "1m", "key": "{user}"}"#).unwrap();
        assert_eq!((whole.max, whole.key.unwrap().text()), (Some(Duration::from_secs(60)), "{user}"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let throttle = |text: &str| Throttle::from_json(text, &user()).unwrap_err();
        assert!(throttle("5").contains("such as \"10/s\""));
        assert!(throttle("\"0/s\"").contains("not a rate") && throttle("\"10/x\"").contains("not a rate"));
        assert!(throttle(r#"{"rat": 1}"#).contains("did you mean `rate`"));
        assert!(throttle(r#"{"rate": "1/s", "burst": 0}"#).contains("1 or more"));
        assert!(throttle(r#"{"rate": "1/s", "key": "{usr}"}"#).contains("did you mean {user}"));
        let debounce = |text: &str| Debounce::from_json(text, &user()).unwrap_err();
        assert!(debounce("\"soon\"").contains("not a duration") && debounce("0").contains("nothing"));
        assert!(debounce(r#"{"wait": "5s", "max": "1s"}"#).contains("shorter"));
        assert!(debounce(r#"{"key": "a"}"#).contains("needs a `wait`"));
    }
}
