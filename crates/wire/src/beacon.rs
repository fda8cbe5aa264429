//! What nodes say to find each other, in one datagram each.
//!
//! ```text
//! beacon       "BRSE", version 1, kind 1, nonce 0, port, key, length of the grid's name, the name
//! question     "BRSE", version 1, kind 2, nonce, zeros up to 128 bytes
//! answer       "BRSE", version 1, kind 3, nonce of the question, port, key, length of the grid's name, the name
//! ```
//!
//! The nonce has 8 bytes, the port 2 (big-endian), the key 32, all else one each. A beacon is sent to a group, and answered by
//! nobody; a question is sent to one address, and is longer than its answer, so that nobody is hit harder by answers than by
//! questions. All of it can be forged: whoever follows it has the other end prove that it holds the key.
//!
//! What follows the last field is ignored, so that there can be more of them.

/// The longest datagram that is read. What follows is not looked at.
pub const BYTES_MAX: usize = 512;

/// The length of a question, and the least that is taken for one.
pub const QUESTION_BYTES: usize = 128;

/// The longest name of a grid.
pub const GRID_BYTES_MAX: usize = 63;

const MAGIC: &[u8; 4] = b"BRSE";
const VERSION: u8 = 1;
const BEACON: u8 = 1;
const QUESTION: u8 = 2;
const ANSWER: u8 = 3;

/// Of magic, version, kind, nonce; and of port, key, length.
const HEAD_BYTES: usize = 14;
const BODY_BYTES: usize = 35;

const _: () = assert!(HEAD_BYTES + BODY_BYTES + GRID_BYTES_MAX <= QUESTION_BYTES, "an answer is shorter");

/// Who a node is, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// Its public key.
    pub key: [u8; 32],
    /// The tcp port that it listens on, at the address that the datagram comes from. Not 0.
    pub port: u16,
    /// The name of its grid, at most [`GRID_BYTES_MAX`] bytes, see [`is_grid`].
    pub grid: String,
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// Here I am.
    Beacon(Beacon),
    /// Who are you?
    Question {
        /// What the answer repeats.
        nonce: u64,
    },
    /// It is me.
    Answer {
        /// The question's.
        nonce: u64,
        /// Who.
        beacon: Beacon,
    },
}

/// Whether a text can be the name of a grid: letters, digits and `-_.`, or nothing.
pub fn is_grid(text: &str) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= GRID_BYTES_MAX && text.chars().all(is_of_name)
}

impl Datagram {
    /// As bytes. Panics if a grid's name is none.
    pub fn encode(&self) -> Vec<u8> {
        let head = |kind: u8, nonce: u64| {
            let mut bytes = Vec::with_capacity(QUESTION_BYTES);
            bytes.extend_from_slice(MAGIC);
            bytes.extend_from_slice(&[VERSION, kind]);
            bytes.extend_from_slice(&nonce.to_be_bytes());
            bytes
        };
        match self {
            Self::Beacon(beacon) => beacon.follow(head(BEACON, 0)),
            Self::Answer { nonce, beacon } => beacon.follow(head(ANSWER, *nonce)),
            Self::Question { nonce } => {
                let mut bytes = head(QUESTION, *nonce);
                bytes.resize(QUESTION_BYTES, 0);
                bytes
            }
        }
    }

    /// What the bytes say; `None` if no node of this version says that.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let kind = head.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
        let (kind, nonce) = kind.split_first()?;
        let nonce = u64::from_be_bytes(nonce.try_into().ok()?);
        match *kind {
            BEACON => Beacon::read(rest).map(Self::Beacon),
            ANSWER => Beacon::read(rest).map(|beacon| Self::Answer { nonce, beacon }),
            QUESTION => (bytes.len() >= QUESTION_BYTES).then_some(Self::Question { nonce }),
            _ => None,
        }
    }
}

impl Beacon {
    fn follow(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        assert!(is_grid(&self.grid), "the name of a grid is checked when it is given");
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&self.key);
        bytes.push(u8::try_from(self.grid.len()).expect("it is short"));
        bytes.extend_from_slice(self.grid.as_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (port, rest) = bytes.split_first_chunk::<2>()?;
        let (key, rest) = rest.split_first_chunk::<32>()?;
        let (length, rest) = rest.split_first()?;
        let grid = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        let port = u16::from_be_bytes(*port);
        (port > 0 && is_grid(grid)).then(|| Self { key: *key, port, grid: grid.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beacon(grid: &str) -> Beacon {
        Beacon { key: [7; 32], port: 7071, grid: grid.to_owned() }
    }

    #[test]
    fn golden_bytes() {
        let bytes = Datagram::Answer { nonce: 0x0102_0304_0506_0708, beacon: beacon("shop") }.encode();
        let mut expected = b"BRSE\x01\x03\x01\x02\x03\x04\x05\x06\x07\x08\x1b\x9f".to_vec();
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(b"\x04shop");
        assert_eq!(bytes, expected);
        let question = Datagram::Question { nonce: 1 }.encode();
        assert_eq!((&question[..14], question.len()), (&b"BRSE\x01\x02\0\0\0\0\0\0\0\x01"[..], 128));
        let beacon = Datagram::Beacon(beacon("")).encode();
        assert_eq!((&beacon[..6], beacon.len()), (&b"BRSE\x01\x01"[..], 49));
    }

    #[test]
    fn an_answer_is_shorter_than_its_question() {
        let longest = beacon(&"x".repeat(GRID_BYTES_MAX));
        let answer = Datagram::Answer { nonce: 1, beacon: longest }.encode();
        assert!(answer.len() < Datagram::Question { nonce: 1 }.encode().len());
        let mut short = Datagram::Question { nonce: 1 }.encode();
        short.pop();
        assert_eq!(Datagram::decode(&short), None, "a short question gets no answer");
    }

    #[test]
    fn what_no_node_says_is_nothing() {
        let good = Datagram::Beacon(beacon("shop")).encode();
        for end in 0..good.len() {
            assert_eq!(Datagram::decode(&good[..end]), None, "the first {end} bytes");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Datagram::decode(&bytes)
        };
        assert_eq!(with(0, b'b'), None, "another magic");
        assert_eq!(with(4, 2), None, "another version");
        assert_eq!(with(5, 9), None, "an unknown kind");
        assert_eq!(with(48, 255), None, "a name that is longer than the rest");
        assert_eq!(with(49, b' '), None, "no name");
        assert_eq!(with(49, 0xff), None, "no text");
        let mut no_port = good.clone();
        no_port[14..16].fill(0);
        assert_eq!(Datagram::decode(&no_port), None);
        // A later one may say more.
        let more = [&good[..], b"more"].concat();
        assert_eq!(Datagram::decode(&more), Datagram::decode(&good));
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood(key: [u8; 32], port in 1_u16.., nonce: u64, grid in "[a-zA-Z0-9._-]{0,63}") {
            let beacon = Beacon { key, port, grid };
            for said in [
                Datagram::Beacon(beacon.clone()),
                Datagram::Question { nonce },
                Datagram::Answer { nonce, beacon },
            ] {
                prop_assert_eq!(Datagram::decode(&said.encode()), Some(said));
            }
        }

        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>, kind in 0_u8..5) {
            // As they are, and behind a good beginning.
            let begun = [&b"BRSE\x01"[..], &[kind], &bytes].concat();
            for bytes in [&bytes, &begun] {
                if let Some(said) = Datagram::decode(bytes) {
                    prop_assert_eq!(Datagram::decode(&said.encode()), Some(said));
                }
            }
        }
    }
}
