//! Addresses as they stand in MAIL and RCPT (RFC 5321 §4.1.2, RFC 6531 §3.3).

use std::fmt;

/// The longest local part and the longest domain, in bytes (RFC 5321 §4.5.3.1).
const LOCAL_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 255;

/// Where a mail comes from or goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// What stands before the `@`, without quotes.
    pub local: String,
    /// What stands behind it; empty for `<postmaster>`.
    pub domain: String,
}

/// A text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing, or nothing around the `@`.
    #[error("an address is written user@domain")]
    Shape,
    /// A part that is longer than its bound.
    #[error("an address has at most 64 bytes before the @ and 255 behind it")]
    TooLong,
    /// A character that does not belong there.
    #[error("the address has a character that needs quotes, or is not allowed at all")]
    Character,
}

impl Address {
    /// Reads what stands between the angle brackets. A source route before it is left out, as RFC 5321 §4.1.1.3 wants.
    pub fn parse(path: &str) -> Result<Self, Error> {
        let text = match path.strip_prefix('@') {
            Some(route) => route.split_once(':').ok_or(Error::Shape)?.1,
            None => path,
        };
        if text.eq_ignore_ascii_case("postmaster") {
            return Ok(Self { local: text.to_owned(), domain: String::new() });
        }
        let (local, domain) = match text.strip_prefix('"') {
            Some(rest) => quoted(rest)?,
            None => {
                let (local, domain) = text.split_once('@').ok_or(Error::Shape)?;
                if local.split('.').any(|atom| atom.is_empty() || !atom.chars().all(is_atom)) {
                    return Err(if local.is_empty() { Error::Shape } else { Error::Character });
                }
                (local.to_owned(), domain)
            }
        };
        if local.len() > LOCAL_BYTES_MAX || domain.len() > DOMAIN_BYTES_MAX {
            return Err(Error::TooLong);
        }
        if !is_domain(domain) {
            return Err(if domain.is_empty() { Error::Shape } else { Error::Character });
        }
        Ok(Self { local, domain: domain.to_owned() })
    }

    /// It can be told to those only who take UTF-8.
    pub fn is_international(&self) -> bool {
        !self.local.is_ascii() || !self.domain.is_ascii()
    }

    /// The same for all ways of writing it.
    pub(crate) fn folded(&self) -> String {
        self.to_string().to_lowercase()
    }
}

/// A quoted local part, from behind its first quote; and the domain.
fn quoted(rest: &str) -> Result<(String, &str), Error> {
    let mut local = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let domain = rest[at + 1..].strip_prefix('@').ok_or(Error::Shape)?;
                return if local.is_empty() { Err(Error::Shape) } else { Ok((local, domain)) };
            }
            '\\' => {
                local.push(chars.next().map(|(_, c)| c).filter(|c| !c.is_control()).ok_or(Error::Character)?)
            }
            c if c.is_control() => return Err(Error::Character),
            c => local.push(c),
        }
    }
    Err(Error::Shape)
}

fn is_atom(c: char) -> bool {
    !c.is_control() && !c.is_whitespace() && !"<>()[]\\,;:@\"".contains(c)
}

fn is_domain(domain: &str) -> bool {
    if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return !literal.is_empty()
            && literal.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
    }
    let is_label = |label: &str| {
        let plain =
            |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || (!c.is_ascii() && !c.is_control());
        !label.is_empty() && !label.starts_with('-') && label.chars().all(plain)
    };
    domain.split('.').all(is_label)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom));
        match plain {
            true => f.write_str(&self.local)?,
            false => write!(f, "\"{}\"", self.local.replace('\\', "\\\\").replace('"', "\\\""))?,
        }
        if self.domain.is_empty() { Ok(()) } else { write!(f, "@{}", self.domain) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, written) in [
            ("a@x", Some("a@x")),
            ("Ada.Byron+7@Example.COM", Some("Ada.Byron+7@Example.COM")),
            ("\"ada byron\"@x.org", Some("\"ada byron\"@x.org")),
            ("\"a\\\"b\"@x", Some("\"a\\\"b\"@x")),
            ("\"plain\"@x", Some("plain@x")),
            ("a@[127.0.0.1]", Some("a@[127.0.0.1]")),
            ("a@[IPv6:::1]", Some("a@[IPv6:::1]")),
            ("@one,@two:a@x", Some("a@x")),
            ("Postmaster", Some("Postmaster")),
            ("bücher@exämple.de", Some("bücher@exämple.de")),
            ("", None),
            ("a", None),
            ("@x", None),
            ("a@", None),
            ("a@b@c", None),
            ("a..b@x", None),
            (".a@x", None),
            ("a b@x", None),
            ("a@x y", None),
            ("a@x..y", None),
            ("a@-x", None),
            ("\"a@x", None),
            ("\"\"@x", None),
            ("a@[]", None),
            ("a\0@x", None),
            ("@route", None),
        ] {
            let read = Address::parse(text).ok().map(|address| address.to_string());
            assert_eq!(read.as_deref(), written, "{text:?}");
        }
        assert_eq!(Address::parse(&format!("{}@x", "a".repeat(65))), Err(Error::TooLong));
        assert!(Address::parse("ü@x").unwrap().is_international());
    }
}
