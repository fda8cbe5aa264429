//! The bytes of a state record.
//!
//! ```text
//! key    's'  namespace  0  name                 a name holds no NUL, nor does a namespace
//! value   1   version (8 bytes, big endian)  the application's bytes
//! ```
//!
//! The key's first byte is the kind of record; other kinds (queues, timers, …) take others. The value's first byte
//! is the format.

use bytes::{Bytes, BytesMut};

use crate::batch::Seq;
use crate::home::StateKey;

/// The longest state value, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a record's value has before the application's bytes.
pub const HEADER_BYTES: usize = 9;

const KIND_STATE: u8 = b's';
const FORMAT: u8 = 1;

/// Grows with every change of a record, over its deletion as well; 0 where there is none.
///
/// The batch's sequence number, then the place in the batch of the layer that wrote it: layers that share a batch
/// give different versions, so that whoever saw the first one's value does not take the second one's for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

impl Version {
    /// There is no record, or it was written by the reader's own transaction and not yet committed.
    pub const NONE: Self = Self(0);
    /// The bits that count layers within a batch.
    pub const PLACE_BITS: u32 = 12;

    /// Of the `place`th layer of a batch.
    pub fn new(seq: Seq, place: u64) -> Self {
        assert!(place < 1 << Self::PLACE_BITS, "a batch is closed before its places run out");
        Self(seq.0 << Self::PLACE_BITS | place)
    }

    /// The batch that wrote it.
    pub fn seq(self) -> Seq {
        Seq(self.0 >> Self::PLACE_BITS)
    }
}

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was written. [`Version::NONE`] for what the reading layer, or one that it is stacked on, wrote itself.
    pub version: Version,
    /// The application's bytes.
    pub value: Bytes,
}

/// Stored bytes that are not a state record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than the header has.
    #[error("a stored state record of {0} bytes is too short")]
    Short(usize),
    /// Written by a release that this one does not know.
    #[error("a stored state record has the unknown format {0}")]
    Format(u8),
    /// A key that no state record can have.
    #[error("a stored record's key is not a state key")]
    Key,
}

/// The key of a state record.
pub fn key(key: &StateKey) -> Bytes {
    encode_key(key.namespace(), key.name())
}

/// The same from its parts; the name need not be a valid one.
pub(crate) fn encode_key(namespace: &str, name: &str) -> Bytes {
    let mut bytes = BytesMut::with_capacity(2 + namespace.len() + name.len());
    bytes.extend_from_slice(&[KIND_STATE]);
    bytes.extend_from_slice(namespace.as_bytes());
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(name.as_bytes());
    bytes.freeze()
}

/// Whether a record's key is a state record's.
pub(crate) fn is_state(key: &[u8]) -> bool {
    key.first() == Some(&KIND_STATE)
}

/// The name in a state record's key.
pub fn decode_name(key: &[u8]) -> Result<&str, Error> {
    let rest = key.strip_prefix(&[KIND_STATE]).ok_or(Error::Key)?;
    let nul = rest.iter().position(|&b| b == 0).ok_or(Error::Key)?;
    std::str::from_utf8(&rest[nul + 1..]).map_err(|_| Error::Key)
}

/// The value of a state record.
pub fn encode(version: Version, value: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + value.len());
    bytes.extend_from_slice(&[FORMAT]);
    bytes.extend_from_slice(&version.0.to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.freeze()
}

/// Back from its bytes; the value is a slice of them.
pub fn decode(bytes: &Bytes) -> Result<Record, Error> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Error::Short(bytes.len()));
    };
    let [format, version @ ..] = *header;
    if format != FORMAT {
        return Err(Error::Format(format));
    }
    Ok(Record { version: Version(u64::from_be_bytes(version)), value: bytes.slice(HEADER_BYTES..) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        // Golden: a change of these loses sight of everything that is stored.
        let state_key = StateKey::new("shop", "order-7/lines/1").unwrap();
        assert_eq!(&key(&state_key)[..], b"sshop\0order-7/lines/1");
        assert_eq!(decode_name(b"sshop\0order-7/lines/1"), Ok("order-7/lines/1"));

        let version = Version::new(Seq(0x0102), 3);
        assert_eq!((version, version.seq()), (Version(0x0010_2003), Seq(0x0102)));
        let bytes = encode(version, b"value");
        assert_eq!(&bytes[..], b"\x01\0\0\0\0\x00\x10\x20\x03value");
        assert_eq!(decode(&bytes), Ok(Record { version, value: Bytes::from_static(b"value") }));
    }

    #[test]
    fn bytes_that_are_no_record_are_an_error() {
        assert_eq!(decode(&Bytes::from_static(b"")), Err(Error::Short(0)));
        assert_eq!(decode(&Bytes::from_static(b"\x01\0\0\0\0\0\0\0")), Err(Error::Short(8)));
        assert_eq!(decode(&Bytes::from_static(b"\x02\0\0\0\0\0\0\0\0")), Err(Error::Format(2)));
        for key in [&b""[..], b"q", b"sshop", b"xshop\0a", b"sshop\0\xff"] {
            assert_eq!(decode_name(key), Err(Error::Key), "{key:?}");
        }
    }
}
