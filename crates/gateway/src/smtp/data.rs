//! What follows DATA, up to the line with nothing but a dot.
//!
//! Only `CR LF . CR LF` ends it. Servers that take something else for the end as well (a bare LF, a bare CR) can be made to
//! see two mails where the one before them has seen one: SMTP smuggling. So a CR or LF that stands alone makes the whole
//! mail ambiguous; it is refused and the connection closed, before anything behind it is read.

use bytes::Bytes;

/// The longest line, in bytes without its end (RFC 5321 §4.5.3.1.6).
pub(crate) const LINE_BYTES_MAX: usize = 998;

/// Beside as much as a mail may have: what is read of one that is refused already, to be able to say so in order.
const DROPPED_BYTES_MAX: usize = 1024 * 1024;

/// Why a mail is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A CR without LF or a LF without CR: where it ends depends on who reads it.
    Ambiguous,
    /// It does not stop.
    Endless,
    /// More bytes than a mail may have.
    TooLarge,
    /// A line of more than [`LINE_BYTES_MAX`].
    LongLine,
    /// A NUL byte.
    Nul,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more to come.
    More,
    /// The line with the dot was there.
    Whole,
    /// The rest is not to be read.
    Broken(Flaw),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    Line,
    /// A CR, within a line.
    Cr,
    /// A dot that begins a line.
    Dot,
    /// A CR behind that.
    DotCr,
}

/// A mail that is coming in.
#[derive(Debug)]
pub(crate) struct Data {
    at: At,
    bytes: Vec<u8>,
    bytes_max: usize,
    line_bytes: usize,
    flaw: Option<Flaw>,
    dropped: usize,
}

impl Data {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { at: At::LineStart, bytes: Vec::new(), bytes_max, line_bytes: 0, flaw: None, dropped: 0 }
    }

    /// Takes what came; says how much of it belongs to the mail.
    pub(crate) fn feed(&mut self, input: &[u8]) -> (usize, Progress) {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            if self.at == At::Line {
                let rest = &input[used..];
                let plain = rest.iter().position(|b| matches!(b, b'\r' | b'\n' | 0)).unwrap_or(rest.len());
                if plain > 0 {
                    self.push(&rest[..plain]);
                    used += plain;
                    continue;
                }
            }
            used += 1;
            self.at = match (self.at, byte) {
                (At::Cr, b'\n') => {
                    self.push(b"\r\n");
                    self.line_bytes = 0;
                    At::LineStart
                }
                (At::DotCr, b'\n') => return (used, Progress::Whole),
                (At::Cr | At::DotCr, _) | (_, b'\n') => return (used, Progress::Broken(Flaw::Ambiguous)),
                (At::LineStart | At::Line, b'\r') => At::Cr,
                (At::Dot, b'\r') => At::DotCr,
                (At::LineStart, b'.') => At::Dot,
                (_, byte) => {
                    if byte == 0 {
                        self.refuse(Flaw::Nul);
                    }
                    self.push(&[byte]);
                    At::Line
                }
            };
            if self.dropped > self.bytes_max.saturating_add(DROPPED_BYTES_MAX) {
                return (used, Progress::Broken(Flaw::Endless));
            }
        }
        (used, Progress::More)
    }

    /// The mail, or why it is not taken.
    pub(crate) fn finish(self) -> Result<Bytes, Flaw> {
        match self.flaw {
            None => Ok(self.bytes.into()),
            Some(flaw) => Err(flaw),
        }
    }

    /// How many bytes of it are in memory.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    fn push(&mut self, bytes: &[u8]) {
        if bytes != b"\r\n" {
            self.line_bytes += bytes.len();
        }
        if self.line_bytes > LINE_BYTES_MAX {
            self.refuse(Flaw::LongLine);
        }
        if self.flaw.is_none() && self.bytes.len() + bytes.len() > self.bytes_max {
            self.refuse(Flaw::TooLarge);
        }
        match self.flaw {
            None => self.bytes.extend_from_slice(bytes),
            Some(_) => self.dropped += bytes.len(),
        }
    }

    fn refuse(&mut self, flaw: Flaw) {
        self.flaw.get_or_insert(flaw);
        self.dropped += std::mem::take(&mut self.bytes).len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However it is cut into pieces, it is the same.
    fn read(input: &[u8]) -> (Progress, usize, Result<Bytes, Flaw>) {
        let mut whole = Data::new(2_000);
        let (used, progress) = whole.feed(input);
        let mut pieces = Data::new(2_000);
        let (mut at, mut last) = (0, Progress::More);
        for byte in input {
            if last != Progress::More {
                break;
            }
            let (one, now) = pieces.feed(std::slice::from_ref(byte));
            at += one;
            last = now;
        }
        assert_eq!((at, last), (used, progress), "{input:?}");
        let (whole, pieces) = (whole.finish(), pieces.finish());
        assert_eq!(whole, pieces);
        (progress, used, whole)
    }

    #[test]
    fn the_end_is_a_dot_between_two_ends_of_line() {
        for (input, text) in [
            (&b".\r\n"[..], &b""[..]),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n"),
            (b"..a\r\n.b\r\n.\r\n", b".a\r\nb\r\n"),
            (b"a.\r\n\r\n.\r\n", b"a.\r\n\r\n"),
        ] {
            assert_eq!(read(input), (Progress::Whole, input.len(), Ok(Bytes::copy_from_slice(text))));
        }
        let (progress, used, _) = read(b"a\r\n.\r\nQUIT\r\n");
        assert_eq!((progress, used), (Progress::Whole, 6), "what follows is not the mail's");
        assert_eq!(read(b"a\r\n.\r").0, Progress::More);
    }

    #[test]
    fn what_may_be_read_in_two_ways_is_broken() {
        for input in [
            &b"a\n.\n"[..],
            b"a\n.\r\n",
            b"a\r.\r",
            b"a\r.\r\n",
            b"a\r\n.\n",
            b"a\r\n.\r.\r\n",
            b"a\r\n.\r\r\n",
            b"\n",
            b"\r\r\n",
            b"a\0\rb",
            b"\r\n\n.\r\n",
        ] {
            assert_eq!(read(input).0, Progress::Broken(Flaw::Ambiguous), "{input:?}");
        }
    }

    #[test]
    fn bounds() {
        let line = |n: usize| [vec![b'x'; n], b"\r\n.\r\n".to_vec()].concat();
        assert!(read(&line(998)).2.is_ok());
        assert_eq!(read(&line(999)).2, Err(Flaw::LongLine));
        assert!(read(&[b"..", &line(997)[..]].concat()).2.is_ok(), "a dot that is doubled does not count");
        assert_eq!(read(&[b"xx\r\n".repeat(600), b".\r\n".to_vec()].concat()).2, Err(Flaw::TooLarge));
        assert_eq!(read(b"a\0b\r\n.\r\n").2, Err(Flaw::Nul));
        let mut endless = Data::new(100);
        let progress = endless.feed(&b"xx\r\n".repeat(1 << 20)).1;
        assert_eq!(progress, Progress::Broken(Flaw::Endless));
        assert_eq!(endless.held(), 0);
    }
}
