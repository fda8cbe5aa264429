//! Frames on a byte stream: a length (4 bytes, little endian) and that many bytes of protobuf.
//!
//! Both ends of both keeper sockets speak it. The decoder takes bytes as they come and holds at most one frame
//! that is not complete; a length above [`FRAME_BYTES_MAX`] is refused before anything of it is stored.

use prost::Message;
use prost::bytes::{Buf, BytesMut};

/// The longest frame, in bytes, without its length.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

const LENGTH_BYTES: usize = 4;

/// Bytes that are not frames. The stream can't be used any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes, at most {FRAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Not the protobuf message it should be.
    #[error("a frame that is not the expected message: {0}")]
    Malformed(String),
}

/// Appends the frame of `message` to `out`; nothing is appended if it is too long.
pub fn encode(message: &impl Message, out: &mut Vec<u8>) -> Result<(), Error> {
    let length = message.encoded_len();
    if length > FRAME_BYTES_MAX {
        return Err(Error::TooLong(length));
    }
    out.reserve(LENGTH_BYTES + length);
    out.extend_from_slice(&(length as u32).to_le_bytes());
    message.encode(out).expect("a vector grows as needed");
    Ok(())
}

/// Finds the frames in a byte stream.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes bytes as they were read. Call [`next`](Self::next) until it gives nothing before taking more, or
    /// the buffer grows.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message. After an error the stream is lost.
    #[expect(clippy::should_implement_trait, reason = "the type is chosen by the caller, message by message")]
    pub fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Error> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Error::TooLong(length));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let frame = self.buffer.split_to(length).freeze();
        M::decode(frame).map(Some).map_err(|e| Error::Malformed(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use bourse_wire::keeper::v1::Signal;

    use super::*;

    #[test]
    fn frames_arrive_in_any_pieces() {
        let messages: Vec<_> = (0..3).map(|process| Signal { process, signal: 9, tree: true }).collect();
        let mut bytes = Vec::new();
        for message in &messages {
            encode(message, &mut bytes).unwrap();
        }
        for piece in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(piece) {
                decoder.push(chunk);
                while let Some(message) = decoder.next::<Signal>().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages, "in pieces of {piece}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(b"GET / HTTP/1.1\r\n");
        assert!(matches!(decoder.next::<Signal>(), Err(Error::TooLong(_))));

        let mut decoder = Decoder::default();
        decoder.push(&[2, 0, 0, 0, 0xff, 0xff]);
        assert!(matches!(decoder.next::<Signal>(), Err(Error::Malformed(_))));
    }
}
