//! `queue` and `topic`: which messages a function is woken by; and the names that these have.

use serde_json::Value as Json;

/// The longest name of a queue or topic, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The most queues, and the most topics, of one function.
pub const LISTENED_MAX: usize = 64;

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// To the one function that has it.
    Queue(QueueName),
    /// To all that listen.
    Topic(TopicName),
}

/// A queue: dot-separated parts without wildcards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueName(String);

/// A topic as it is published to: dot-separated parts without wildcards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicName(String);

/// Topics as a function listens to them: `*` stands for one part, `>` at the end for all that follow, one or more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPattern(String);

impl QueueName {
    /// Checks a name.
    pub fn new(text: &str) -> Result<Self, String> {
        plain("queue", text).map(Self)
    }

    /// Reads a name or a list of them.
    pub fn from_json(text: &str) -> Result<Vec<Self>, String> {
        names(text, Self::new)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TopicName {
    /// Checks a name.
    pub fn new(text: &str) -> Result<Self, String> {
        plain("topic", text).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TopicPattern {
    /// Checks a pattern.
    pub fn new(text: &str) -> Result<Self, String> {
        checked("topic", text)?;
        let mut parts = text.split('.').rev();
        let last = parts.next().unwrap_or_default();
        if last.len() > 1 && has_wildcard(last)
            || parts.any(|part| part.contains('>') || part.len() > 1 && has_wildcard(part))
        {
            return Err(format!(
                "the topic {text:?}: `*` stands for a whole part, `>` for all that follow, at the end"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a pattern or a list of them.
    pub fn from_json(text: &str) -> Result<Vec<Self>, String> {
        names(text, Self::new)
    }

    /// Whether a topic is one of these.
    pub fn matches(&self, topic: &TopicName) -> bool {
        let mut parts = topic.0.split('.');
        for wanted in self.0.split('.') {
            match (wanted, parts.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(part)) if wanted == part => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }

    /// The pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn has_wildcard(part: &str) -> bool {
    part.contains(['*', '>'])
}

fn plain(what: &str, text: &str) -> Result<String, String> {
    checked(what, text)?;
    match text.split('.').any(has_wildcard) {
        true => Err(format!(
            "the name {text:?} of a {what} has a wildcard, which only a function's `topic` may have"
        )),
        false => Ok(text.to_owned()),
    }
}

fn checked(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("the name of a {what} has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("the name {text:?} of a {what} has a space or control character"));
    }
    if text.split('.').any(str::is_empty) {
        return Err(format!("the name {text:?} of a {what} has an empty part: dots stand between parts"));
    }
    Ok(())
}

fn names<T: PartialEq>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let json: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let list = match json {
        Json::Array(list) => list,
        one => vec![one],
    };
    if list.is_empty() || list.len() > LISTENED_MAX {
        return Err(format!("it is a name, or a list of 1 to {LISTENED_MAX} names"));
    }
    let mut all = Vec::with_capacity(list.len());
    for name in &list {
        let name = name.as_str().ok_or_else(|| format!("{name} is not a name"))?;
        let read = read(name)?;
        if all.contains(&read) {
            return Err(format!("it has {name:?} twice"));
        }
        all.push(read);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let matches = |pattern: &str, topic: &str| {
            TopicPattern::new(pattern).unwrap().matches(&TopicName::new(topic).unwrap())
        };
        for (pattern, topic) in [
            ("order.paid", "order.paid"),
            ("order.*", "order.paid"),
            ("*.paid", "order.paid"),
            ("order.>", "order.paid"),
            ("order.>", "order.paid.late"),
            (">", "order"),
            ("*", "order"),
        ] {
            assert!(matches(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in [
            ("order.paid", "order.paid.late"),
            ("order.paid.late", "order.paid"),
            ("order.*", "order"),
            ("order.*", "order.paid.late"),
            ("order.>", "order"),
            ("order.>", "orders.paid"),
            ("*", "order.paid"),
        ] {
            assert!(!matches(pattern, topic), "{pattern} {topic}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for bad in ["", "a b", "a\0", ".a", "a.", "a..b", "\t", "*", "a.>", "a*"] {
            assert!(QueueName::new(bad).is_err(), "{bad:?}");
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a..b", "a.>.b", "a*", "a.b>", ">>", "**", "a.*b"] {
            assert!(TopicPattern::new(bad).is_err(), "{bad:?}");
        }
        assert!(QueueName::new(&"x".repeat(256)).is_err());
        for (json, word) in [
            ("1", "not a name"),
            ("[]", "1 to 64"),
            ("[\"a\", \"a\"]", "twice"),
            ("{", "EOF"),
            ("[\"a\", 1]", "1 is not"),
        ] {
            let error = QueueName::from_json(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
        assert_eq!(QueueName::from_json("\"a\"").unwrap(), [QueueName("a".to_owned())]);
        assert_eq!(TopicPattern::from_json("[\"a.*\", \"b\"]").unwrap().len(), 2);
    }
}
