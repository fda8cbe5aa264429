//! `batch`: durable calls of a function are run several at a time, as one call with a list.

use std::time::Duration;

use serde_json::Value as Json;

use super::{duration, unknown};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The most calls of a list.
    pub max: usize,
    /// How long the first one waits for others.
    pub wait: Duration,
}

/// The most calls of a list, whatever the function says.
const MAX: u64 = 1000;
const KEYS: [&str; 2] = ["max", "wait"];

impl Batch {
    /// Reads `100`, or `{"max": 100, "wait": "50ms"}`; without `wait`, a list has what is there.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let number = |value: &Json| {
            let max = value.as_u64().filter(|n| (1..=MAX).contains(n)).and_then(|n| usize::try_from(n).ok());
            max.ok_or_else(|| format!("`max` = {value} is not a number of calls: 1 to {MAX}"))
        };
        match &json {
            Json::Object(object) => {
                let (mut max, mut wait) = (None, Duration::ZERO);
                for (name, value) in object {
                    match name.as_str() {
                        "max" => max = Some(number(value)?),
                        "wait" => wait = duration(name, value)?,
                        _ => return Err(unknown(name, &KEYS)),
                    }
                }
                Ok(Self { max: max.ok_or("it needs a `max`")?, wait })
            }
            other => Ok(Self { max: number(other)?, wait: Duration::ZERO }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_read() {
        assert_eq!(Batch::from_json("5"), Ok(Batch { max: 5, wait: Duration::ZERO }));
        let whole = Batch::from_json(r#"{"max": 100, "wait": "50ms"}"#);
        assert_eq!(whole, Ok(Batch { max: 100, wait: Duration::from_millis(50) }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| Batch::from_json(text).unwrap_err();
        assert!(wrong("0").contains("1 to 1000") && wrong("true").contains("1 to 1000"));
        assert!(wrong(r#"{"wait": "1s"}"#).contains("needs a `max`"));
        assert!(wrong(r#"{"max": 1, "wat": 1}"#).contains("did you mean `wait`"));
    }
}
