//! What the server says: a code, an enhanced code (RFC 3463), a sentence.

use std::borrow::Cow;

/// The longest line of a reply, in bytes, without its end (RFC 5321 §4.5.3.1.5).
const LINE_BYTES_MAX: usize = 510;

/// The most of what a client has sent that is said back to it, in characters.
const SHOWN_CHARS_MAX: usize = 100;

/// One reply. Its text is ASCII on one line, whatever it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    code: u16,
    enhanced: &'static str,
    text: Cow<'static, str>,
}

impl Reply {
    pub(crate) fn new(code: u16, enhanced: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced, text: text.into() }
    }

    /// It counts as a mistake of the client's.
    pub(crate) fn is_refusal(&self) -> bool {
        self.code >= 500
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut line = self.code.to_string();
        for part in [self.enhanced, &self.text].into_iter().filter(|part| !part.is_empty()) {
            line.push(' ');
            line.extend(part.chars().map(plain));
        }
        line.truncate(LINE_BYTES_MAX);
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// A reply of several lines, without enhanced codes: to EHLO and HELP.
pub(crate) fn write_lines(code: u16, lines: &[String], out: &mut Vec<u8>) {
    for (i, line) in lines.iter().enumerate() {
        let between = if i + 1 == lines.len() { ' ' } else { '-' };
        let mut text = format!("{code}{between}");
        text.extend(line.chars().map(plain));
        text.truncate(LINE_BYTES_MAX);
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// What a client has sent, as it may be said back.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).map(plain).collect()
}

fn plain(c: char) -> char {
    if c == ' ' || c.is_ascii_graphic() { c } else { '?' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_one_line_of_ascii() {
        let written = |text: String| {
            let mut out = Vec::new();
            Reply::new(550, "5.1.1", text).write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written("a\r\nb\0 ü".to_owned()), "550 5.1.1 a??b? ?\r\n");
        assert_eq!(written("x".repeat(1_000)).len(), LINE_BYTES_MAX + 2);
        let mut out = Vec::new();
        write_lines(250, &["one".to_owned(), "two".to_owned()], &mut out);
        assert_eq!(out, b"250-one\r\n250 two\r\n");
    }
}
