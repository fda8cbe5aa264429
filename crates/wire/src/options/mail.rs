//! `mail`: for which recipients a function takes mail.

use std::fmt;

use serde_json::Value as Json;

/// The longest pattern, in bytes: a local part of 64, a domain of 255, and the `@` between them.
pub const MAIL_PATTERN_BYTES_MAX: usize = 320;

/// The most patterns that one function may have.
pub const MAIL_PATTERNS_MAX: usize = 100;

/// Recipients: `orders@example.com`, `orders@*`, `*@example.com`, or `*` for all. Case makes no difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MailPattern {
    /// In small letters; `None` takes any.
    local: Option<String>,
    /// The same.
    domain: Option<String>,
}

impl MailPattern {
    /// Reads a text or a list of texts. The error says what is wrong with it.
    pub fn from_json(json: &str) -> Result<Vec<Self>, String> {
        let json: Json = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let texts = match &json {
            Json::String(text) => vec![text.as_str()],
            Json::Array(items) => {
                let texts: Option<Vec<&str>> = items.iter().map(Json::as_str).collect();
                texts.ok_or("it is not a list of texts")?
            }
            _ => return Err("it is neither a text nor a list of texts".to_owned()),
        };
        if texts.is_empty() {
            return Err("it is empty, so that no mail would come; leave it out".to_owned());
        }
        if texts.len() > MAIL_PATTERNS_MAX {
            return Err(format!("{} patterns, at most {MAIL_PATTERNS_MAX} are allowed", texts.len()));
        }
        let mut patterns = Vec::with_capacity(texts.len());
        for text in texts {
            let pattern = Self::parse(text)?;
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        Ok(patterns)
    }

    /// Reads one pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self { local: None, domain: None });
        }
        if text.len() > MAIL_PATTERN_BYTES_MAX {
            return Err(format!("{} bytes, at most {MAIL_PATTERN_BYTES_MAX} are allowed", text.len()));
        }
        let strange = |c: char| c.is_whitespace() || c.is_control() || "<>()[],;:\\\"".contains(c);
        if let Some(c) = text.chars().find(|c| strange(*c)) {
            return Err(format!("{text:?} has {c:?} in it, which is in no plain address"));
        }
        let (local, domain) =
            text.split_once('@').ok_or_else(|| format!("{text:?} has no @, as in \"orders@example.com\""))?;
        if domain.contains('@') {
            return Err(format!("{text:?} has more than one @"));
        }
        let part = |part: &str| match part {
            "" => Err(format!("{text:?} lacks what stands before or behind the @")),
            "*" => Ok(None),
            part if part.contains('*') => Err(format!(
                "in {text:?} a * stands beside other characters; it takes the place of a whole side"
            )),
            part => Ok(Some(part.to_lowercase())),
        };
        Ok(Self { local: part(local)?, domain: part(domain)? })
    }

    /// The patterns that match an address, the most specific one first. What follows a `+` in the local part makes no
    /// difference where no pattern has it.
    pub fn matching(local: &str, domain: &str) -> Vec<Self> {
        let (local, domain) = (local.to_lowercase(), domain.to_lowercase());
        let base = local.split_once('+').map(|(base, _)| base).filter(|base| !base.is_empty());
        let locals = [Some(local.as_str()), base, None];
        let distinct = locals.iter().enumerate().filter(|(i, local)| *i != 1 || local.is_some());
        let both = |local: &Option<&str>| {
            let of = |domain: Option<&str>| Self {
                local: local.map(str::to_owned),
                domain: domain.map(str::to_owned),
            };
            [of(Some(&domain)), of(None)]
        };
        distinct.flat_map(|(_, local)| both(local)).collect()
    }
}

impl fmt::Display for MailPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.local, &self.domain) {
            (None, None) => f.write_str("*"),
            (local, domain) => {
                write!(f, "{}@{}", local.as_deref().unwrap_or("*"), domain.as_deref().unwrap_or("*"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_and_written() {
        for (json, expected) in [
            ("\"Orders@Example.COM\"", "orders@example.com"),
            ("[\"orders@*\", \"*@example.com\", \"ORDERS@*\"]", "orders@*, *@example.com"),
            ("\"*\"", "*"),
            ("\"*@*\"", "*"),
            ("\"bücher@exämple.de\"", "bücher@exämple.de"),
        ] {
            let read = MailPattern::from_json(json).unwrap();
            let written: Vec<_> = read.iter().map(ToString::to_string).collect();
            assert_eq!(written.join(", "), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, word) in [
            ("1", "neither a text nor a list"),
            ("[1]", "not a list of texts"),
            ("[]", "empty"),
            ("\"orders\"", "no @"),
            ("\"@x\"", "before or behind"),
            ("\"a@\"", "before or behind"),
            ("\"a@b@c\"", "more than one @"),
            ("\"ord*@x\"", "a whole side"),
            ("\"a b@x\"", "' '"),
            ("\"<a@x>\"", "'<'"),
        ] {
            let error = MailPattern::from_json(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
        assert!(MailPattern::parse(&format!("{}@x", "a".repeat(320))).is_err());
    }

    #[test]
    fn the_most_specific_comes_first() {
        let of = |local, domain| {
            let all = MailPattern::matching(local, domain);
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("Orders", "X.org"), "orders@x.org orders@* *@x.org *");
        assert_eq!(of("orders+7", "x"), "orders+7@x orders+7@* orders@x orders@* *@x *");
        assert_eq!(of("+7", "x"), "+7@x +7@* *@x *");
    }
}
