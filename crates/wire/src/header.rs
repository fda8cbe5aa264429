//! Header frames: bounded encoding and decoding of [`ToNode`](crate::v1::ToNode) and
//! [`ToWorker`](crate::v1::ToWorker).

use bytes::{Bytes, BytesMut};
use prost::Message;

/// The longest header frame, in bytes. State rides in headers, so this is above the largest state value.
pub const HEADER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The longest header frame of a message that carries no state, in bytes.
pub const HEADER_PLAIN_BYTES_MAX: usize = 1024 * 1024;

/// Whether a frame to a node may have this length, told by its first byte: only `Result`, `Call`, `Read` and `Scan` carry
/// state, and nobody may send those before a hello. What is decoded takes many times its length in memory.
pub fn is_length_of_node(frame: &[u8]) -> bool {
    const STATEFUL: [u8; 4] = [2, 3, 6, 7];
    frame.len() <= HEADER_PLAIN_BYTES_MAX
        || frame.first().is_some_and(|tag| STATEFUL.iter().any(|field| field << 3 | 2 == *tag))
}

/// A header frame that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`HEADER_BYTES_MAX`].
    #[error("a header frame of {0} bytes, at most {HEADER_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Not the protobuf message it should be.
    #[error("a header frame that is not a bourse.v1 message: {0}")]
    Malformed(String),
}

/// Decodes a header frame. The bytes inside are slices of `frame`, not copies.
pub fn decode<M: Message + Default>(frame: Bytes) -> Result<M, Error> {
    if frame.len() > HEADER_BYTES_MAX {
        return Err(Error::TooLong(frame.len()));
    }
    M::decode(frame).map_err(|e| Error::Malformed(e.to_string()))
}

/// Encodes a header frame.
pub fn encode(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.encoded_len());
    message.encode(&mut frame).expect("the buffer has the message's own length");
    frame.freeze()
}

/// How many bytes a header frame will have.
pub fn encoded_len(message: &impl Message) -> usize {
    message.encoded_len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn strangers_get_an_error() {
        assert!(matches!(
            decode::<v1::ToNode>(Bytes::from_static(b"\xff\xff\xff")),
            Err(Error::Malformed(_))
        ));
        assert_eq!(
            decode::<v1::ToNode>(Bytes::from(vec![0; HEADER_BYTES_MAX + 1])),
            Err(Error::TooLong(HEADER_BYTES_MAX + 1))
        );
    }

    #[test]
    fn only_what_carries_state_is_long() {
        let long = |message| {
            let mut frame = encode(&v1::ToNode { message: Some(message) }).to_vec();
            frame.resize(HEADER_PLAIN_BYTES_MAX + 1, 0);
            is_length_of_node(&frame)
        };
        use v1::to_node::Message;
        assert!(long(Message::Result(v1::Result { seq: 1, ..Default::default() })));
        assert!(long(Message::Call(v1::Call { request: 1, ..Default::default() })));
        assert!(long(Message::Read(v1::Read { request: 1, ..Default::default() })));
        assert!(long(Message::Scan(v1::Scan { request: 1, ..Default::default() })));
        assert!(!long(Message::Hello(v1::Hello { pid: 1, ..Default::default() })));
        assert!(!long(Message::Wait(v1::Wait { attempt: 1, ..Default::default() })));
        assert!(is_length_of_node(&[]));
    }

    #[test]
    fn an_unknown_message_is_empty_not_an_error() {
        // Field 999 of a later version.
        let later = Bytes::from_static(&[0xba, 0x3e, 0x00]);
        assert_eq!(decode::<v1::ToNode>(later).unwrap().message, None);
    }

    #[test]
    fn golden_bytes() {
        let invoke = v1::ToWorker {
            message: Some(v1::to_worker::Message::Invoke(v1::Invoke {
                call: Bytes::from_static(&[7; 16]),
                attempt: 1,
                function: "echo".into(),
                timeout_ms: 60_000,
                ..Default::default()
            })),
        };
        let golden = include_bytes!("../testdata/invoke_v1.bin");
        assert_eq!(encode(&invoke).as_ref(), golden);
        assert_eq!(decode::<v1::ToWorker>(Bytes::from_static(golden)).unwrap(), invoke);
    }
}
