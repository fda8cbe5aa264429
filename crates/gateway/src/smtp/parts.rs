//! A mail's parts (RFC 2045, 2046): pure.
//!
//! Single headers and encodings are read by a library. How parts lie within parts is found out here, because that is what
//! somebody can make take very long, or very deep: a mail is gone through once for each level of at most [`DEPTH_MAX`], and a
//! mail within a mail is a file like any other. Lines end with CR LF, which [`data`](super::data) sees to.

use std::borrow::Cow;

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{Message, MessageParser, MessagePart, MimeHeaders as _};

/// How deep parts may lie within parts. What is deeper is one part, as it is.
const DEPTH_MAX: usize = 20;

/// The most parts of one mail.
pub(crate) const PARTS_MAX: usize = 1_000;

/// Headers, and what stands below them.
#[derive(Debug)]
pub(crate) struct Entity<'m> {
    /// As the library reads them; `None` where there are none.
    head: Option<Message<'m>>,
    /// The bytes that they were read from.
    head_bytes: &'m [u8],
    body: &'m [u8],
}

/// A part that holds no other parts.
#[derive(Debug)]
pub(crate) struct Part<'m> {
    entity: Entity<'m>,
    /// "text/plain"
    pub(crate) kind: String,
}

impl<'m> Entity<'m> {
    pub(crate) fn new(data: &'m [u8]) -> Self {
        let (head_bytes, body) = match find(data, b"\r\n\r\n") {
            _ if data.starts_with(b"\r\n") => data.split_at(2),
            _ if !begins_with_header(data) => (&b""[..], data),
            Some(at) => data.split_at(at + 4),
            None => (data, &b""[..]),
        };
        // The library relies on a part in every message, and does not always make one.
        let head = MessageParser::new().parse_headers(head_bytes).filter(|head| !head.parts.is_empty());
        Self { head, head_bytes, body }
    }

    /// Its headers; `None` where it has none.
    pub(crate) fn head(&self) -> Option<&Message<'m>> {
        self.head.as_ref()
    }

    pub(crate) fn head_bytes(&self) -> &'m [u8] {
        self.head_bytes
    }

    fn part(&self) -> Option<&MessagePart<'m>> {
        self.head.as_ref()?.parts.first()
    }

    /// All parts within it that hold no others, in their order. `None`: more than [`PARTS_MAX`].
    pub(crate) fn parts(self) -> Option<Vec<Part<'m>>> {
        let mut parts = Vec::new();
        self.add_to(&mut parts, DEPTH_MAX, "text/plain").then_some(parts)
    }

    fn add_to(self, parts: &mut Vec<Part<'m>>, depth: usize, kind: &str) -> bool {
        let content_type = self.part().and_then(|part| part.content_type());
        let kind = content_type.map_or(kind.to_owned(), |given| {
            format!("{}/{}", given.ctype(), given.subtype().unwrap_or_default()).to_ascii_lowercase()
        });
        let boundary = content_type.and_then(|given| given.attribute("boundary"));
        if let Some(boundary) =
            boundary.filter(|b| kind.starts_with("multipart/") && !b.is_empty() && depth > 0)
        {
            let within = split(self.body, boundary.as_bytes(), PARTS_MAX + 1);
            if !within.is_empty() {
                let kind = if kind == "multipart/digest" { "message/rfc822" } else { "text/plain" };
                return within.into_iter().all(|data| Entity::new(data).add_to(parts, depth - 1, kind));
            }
        }
        parts.push(Part { entity: self, kind });
        parts.len() <= PARTS_MAX
    }
}

impl Part<'_> {
    /// Its file name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.entity.part()?.attachment_name()
    }

    /// It is to be read, not to be saved.
    pub(crate) fn is_body(&self) -> bool {
        let disposition = self.entity.part().and_then(|part| part.content_disposition());
        let is_attachment = disposition.is_some_and(|d| d.ctype().eq_ignore_ascii_case("attachment"));
        ["text/plain", "text/html"].contains(&&*self.kind) && !is_attachment && self.name().is_none()
    }

    /// What is in it, decoded. What can't be is as it came.
    pub(crate) fn content(&self) -> Cow<'_, [u8]> {
        let body = self.entity.body;
        let encoding = self.entity.part().and_then(|part| part.content_transfer_encoding());
        let decoded = match encoding.map(|e| e.trim().to_ascii_lowercase()).as_deref() {
            Some("base64") => base64_decode(body),
            Some("quoted-printable") => quoted_printable_decode(body),
            _ => None,
        };
        decoded.map_or(Cow::Borrowed(body), Cow::Owned)
    }

    /// The same as text.
    pub(crate) fn text(&self) -> String {
        let content = self.content();
        let charset = self.entity.part().and_then(|part| part.content_type()?.attribute("charset"));
        match charset.and_then(|charset| charset_decoder(charset.as_bytes())) {
            Some(decode) => decode(&content),
            None => String::from_utf8_lossy(&content).into_owned(),
        }
    }
}

/// Whether the first line is a header: a name without spaces, and a colon.
fn begins_with_header(data: &[u8]) -> bool {
    let colon = data.iter().position(|b| !b.is_ascii_graphic() || *b == b':');
    colon.is_some_and(|at| at > 0 && data[at] == b':')
}

/// What stands between the lines that have a boundary; at most so many.
fn split<'m>(body: &'m [u8], boundary: &[u8], parts_max: usize) -> Vec<&'m [u8]> {
    let mut parts = Vec::new();
    let mut begin = None;
    let mut at = 0;
    while at < body.len() && parts.len() < parts_max {
        let end = find(&body[at..], b"\r\n").map_or(body.len(), |end| at + end + 2);
        let line = body[at..end].strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary));
        if let Some(rest) = line.map(<[u8]>::trim_ascii_end).filter(|rest| rest.is_empty() || *rest == b"--")
        {
            if let Some(begin) = begin {
                // The end of the line before belongs to the boundary.
                parts.push(&body[begin..at.saturating_sub(2).max(begin)]);
            }
            begin = Some(end);
            if !rest.is_empty() {
                return parts;
            }
        }
        at = end;
    }
    // Its last line is missing.
    parts.extend(begin.filter(|begin| *begin < body.len()).map(|begin| &body[begin..]));
    parts
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += data[at..].iter().position(|b| *b == what[0])?;
        if data[at..].starts_with(what) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(data: &str) -> String {
        let data = data.replace('\n', "\r\n");
        let Some(parts) = Entity::new(data.as_bytes()).parts() else { return "too many".to_owned() };
        let told = |part: &Part<'_>| format!("{}:{}", part.kind, part.text().replace("\r\n", "|"));
        parts.iter().map(told).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn parts_are_found() {
        let multipart = "Content-Type: multipart/mixed; boundary=\"a b\"\n\n";
        for (data, expected) in [
            ("", "text/plain:"),
            ("\n", "text/plain:"),
            ("\na\n", "text/plain:a|"),
            ("no header\nat all", "text/plain:no header|at all"),
            ("A: b\n\nc\n", "text/plain:c|"),
            ("A: b", "text/plain:"),
            ("Content-Type: text\n\nc", "text/:c"),
            (
                "Content-Type: text/HTML; charset=latin1\nContent-Transfer-Encoding: BASE64\n\n5Py2\n",
                "text/html:äü¶",
            ),
            ("Content-Transfer-Encoding: quoted-printable\n\na=C3=BC=\nb", "text/plain:aüb"),
            ("Content-Transfer-Encoding: base64\n\n!\n", "text/plain:!|"),
            ("multipart", "text/plain:multipart"),
        ] {
            assert_eq!(told(data), expected, "{data:?}");
        }
        for (body, expected) in [
            ("before\n--a b\n\none\n--a b  \n\ntwo\n\n--a b--\nafter", "text/plain:one text/plain:two|"),
            ("--a b\n\none", "text/plain:one"),
            ("--a b\n--a b\n--a b--\n", "text/plain: text/plain:"),
            ("nothing", "multipart/mixed:nothing"),
            ("--a bc\n\nx", "multipart/mixed:--a bc||x"),
        ] {
            assert_eq!(told(&format!("{multipart}{body}")), expected, "{body:?}");
        }
        let digest = "Content-Type: multipart/digest; boundary=x\n\n--x\n\nSubject: s\n\nt\n--x--\n";
        assert_eq!(told(digest), "message/rfc822:Subject: s||t");
    }

    #[test]
    fn neither_depth_nor_number_is_without_end() {
        let deep: String = (0..100_000)
            .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n"))
            .collect();
        assert!(told(&deep).starts_with("multipart/mixed:--b20|"));
        assert!(told(&"Content-Type: message/rfc822\n\n".repeat(100_000)).starts_with("message/rfc822:"));
        let many = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\n".repeat(1_001));
        assert_eq!(told(&many), "too many");
    }
}
