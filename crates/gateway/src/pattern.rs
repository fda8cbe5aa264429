//! Route patterns: `METHOD /literal/{parameter}/{*rest}`.
//!
//! `{name}` stands for one segment of the path, decoded, not empty: `/kv/a%2Fb` gives `a/b` to `/kv/{key}`.
//! `{*name}` comes last and stands for what is left, decoded, its slashes kept, not empty.

use std::fmt;

use http::Method;

/// The longest pattern, in bytes, with its method.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// The most segments a pattern may have.
pub const SEGMENTS_MAX: usize = 32;

/// First segments that belong to the daemon itself.
pub const RESERVED: [&str; 6] = ["v1", "healthz", "readyz", "metrics", "openapi.json", "console"];

/// The methods that routes may have. HEAD is answered by GET routes, OPTIONS by the gateway.
pub const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// One of [`METHODS`].
    pub method: Method,
    /// What its path is made of; at least one, an empty literal for `/`.
    pub segments: Vec<Segment>,
}

/// One part of a pattern's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This text.
    Literal(String),
    /// One segment, bound to this name.
    Parameter(String),
    /// All that is left, bound to this name.
    Rest(String),
}

/// A text that is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not two words.
    #[error("a route is written \"METHOD /path\", such as \"GET /users/{{id}}\"")]
    Shape,
    /// Longer than [`PATTERN_BYTES_MAX`].
    #[error("a route is at most {PATTERN_BYTES_MAX} bytes long, this one has {0}")]
    TooLong(usize),
    /// More than [`SEGMENTS_MAX`].
    #[error("a route has at most {SEGMENTS_MAX} segments, this one has {0}")]
    TooManySegments(usize),
    /// Not one of [`METHODS`].
    #[error(
        "the method {0:?} is not one of GET, POST, PUT, PATCH, DELETE (HEAD is answered by GET routes, OPTIONS by itself)"
    )]
    Method(String),
    /// The path does not begin at the root.
    #[error("the path {0:?} does not start with /")]
    Relative(String),
    /// Braces inside a segment.
    #[error("in the segment {0:?} braces are allowed around the whole segment only: {{name}} or {{*name}}")]
    Braces(String),
    /// A parameter that is not called as Python would.
    #[error("the parameter name {0:?} is not an identifier")]
    Name(String),
    /// A name bound twice.
    #[error("the parameter {0:?} occurs twice")]
    Repeated(String),
    /// A rest parameter with something behind it.
    #[error("{{*{0}}} takes the rest of the path, so nothing can follow it")]
    NotLast(String),
    /// `//` inside the path.
    #[error("the path has an empty segment (//)")]
    Empty,
    /// `.` or `..`, which clients resolve before they send a path.
    #[error("the segment {0:?} can never be requested: clients resolve it")]
    Dots(String),
    /// A character that a decoded path segment is not written with.
    #[error("the segment {0:?} holds {1:?}: write the decoded text, without query or spaces")]
    Character(String, char),
    /// One of [`RESERVED`].
    #[error("/{0} belongs to the daemon itself")]
    Reserved(String),
}

/// The method of patterns that are for WebSocket connections: none that a request can have.
pub(crate) fn websocket() -> Method {
    Method::from_bytes(b"WEBSOCKET").expect("it is a token")
}

impl Pattern {
    /// Reads the path of WebSocket connections.
    pub fn of_websocket(path: &str) -> Result<Self, Error> {
        let pattern = Self::parse(&format!("GET {path}"))?;
        Ok(Self { method: websocket(), ..pattern })
    }

    /// Whether it is for WebSocket connections.
    pub fn is_websocket(&self) -> bool {
        self.method == websocket()
    }

    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(Error::TooLong(text.len()));
        }
        let (method, path) = text.trim().split_once(' ').ok_or(Error::Shape)?;
        let method = METHODS
            .into_iter()
            .find(|m| m.as_str() == method)
            .ok_or_else(|| Error::Method(method.to_owned()))?;
        let path = path.trim_start();
        let inner = path.strip_prefix('/').ok_or_else(|| Error::Relative(path.to_owned()))?;
        let parts: Vec<&str> = inner.split('/').collect();
        if parts.len() > SEGMENTS_MAX {
            return Err(Error::TooManySegments(parts.len()));
        }
        let last = parts.len() - 1;
        let segments = parts
            .iter()
            .enumerate()
            .map(|(i, part)| Segment::parse(part, i == last))
            .collect::<Result<Vec<_>, _>>()?;
        let pattern = Self { method, segments };
        if let Some(Segment::Literal(first)) = pattern.segments.first()
            && RESERVED.contains(&first.as_str())
        {
            return Err(Error::Reserved(first.clone()));
        }
        let names: Vec<&str> = pattern.names().collect();
        match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            Some((_, name)) => Err(Error::Repeated((*name).to_owned())),
            None => Ok(pattern),
        }
    }

    /// The names it binds, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|s| match s {
            Segment::Literal(_) => None,
            Segment::Parameter(name) | Segment::Rest(name) => Some(name.as_str()),
        })
    }

    /// Its path, as it was written.
    pub fn path(&self) -> String {
        self.segments.iter().fold(String::new(), |path, segment| path + "/" + &segment.to_string())
    }
}

impl Segment {
    fn parse(text: &str, last: bool) -> Result<Self, Error> {
        let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else {
            return Self::literal(text, last);
        };
        let (name, rest) = inner.strip_prefix('*').map_or((inner, false), |name| (name, true));
        let identifier = |c: char| c == '_' || c.is_alphanumeric();
        if name.contains(['{', '}']) {
            return Err(Error::Braces(text.to_owned()));
        }
        if name.is_empty() || name.starts_with(|c: char| c.is_numeric()) || !name.chars().all(identifier) {
            return Err(Error::Name(name.to_owned()));
        }
        match (rest, last) {
            (true, false) => Err(Error::NotLast(name.to_owned())),
            (true, true) => Ok(Self::Rest(name.to_owned())),
            (false, _) => Ok(Self::Parameter(name.to_owned())),
        }
    }

    fn literal(text: &str, last: bool) -> Result<Self, Error> {
        if text.is_empty() && !last {
            return Err(Error::Empty);
        }
        if matches!(text, "." | "..") {
            return Err(Error::Dots(text.to_owned()));
        }
        if text.contains(['{', '}']) {
            return Err(Error::Braces(text.to_owned()));
        }
        match text
            .chars()
            .find(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '%' | '\\'))
        {
            Some(c) => Err(Error::Character(text.to_owned(), c)),
            None => Ok(Self::Literal(text.to_owned())),
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Parameter(name) => write!(f, "{{{name}}}"),
            Self::Rest(name) => write!(f, "{{*{name}}}"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_patterns_read_back() {
        for text in [
            "GET /",
            "POST /kv/{key}",
            "GET /files/{*path}",
            "DELETE /a/b/",
            "PUT /straße/{größe}",
            "PATCH /{a}/{b}",
        ] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Pattern::parse("  GET   /x ").unwrap().to_string(), "GET /x");
    }

    #[test]
    fn bad_ones_say_what_is_wrong() {
        let s = String::from;
        let cases = [
            ("", Error::Shape),
            ("/kv", Error::Shape),
            ("get /kv", Error::Method(s("get"))),
            ("HEAD /kv", Error::Method(s("HEAD"))),
            ("GET kv", Error::Relative(s("kv"))),
            ("GET /a//b", Error::Empty),
            ("GET /a/../b", Error::Dots(s(".."))),
            ("GET /a{b}", Error::Braces(s("a{b}"))),
            ("GET /{a}{b}", Error::Braces(s("{a}{b}"))),
            ("GET /{", Error::Braces(s("{"))),
            ("GET /{}", Error::Name(s(""))),
            ("GET /{1a}", Error::Name(s("1a"))),
            ("GET /{a-b}", Error::Name(s("a-b"))),
            ("GET /{a}/{a}", Error::Repeated(s("a"))),
            ("GET /{*a}/b", Error::NotLast(s("a"))),
            ("GET /a?b=c", Error::Character(s("a?b=c"), '?')),
            ("GET /a%20b", Error::Character(s("a%20b"), '%')),
            ("GET /v1/x", Error::Reserved(s("v1"))),
        ];
        for (text, error) in cases {
            assert_eq!(Pattern::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Pattern::parse(&format!("GET /{}", "a".repeat(2000))), Err(Error::TooLong(2005)));
        assert_eq!(Pattern::parse(&format!("GET {}", "/a".repeat(40))), Err(Error::TooManySegments(40)));
    }
}
