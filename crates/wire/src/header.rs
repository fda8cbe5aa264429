//! Header frames: bounded encoding and decoding of [`ToNode`](crate::v1::ToNode) and
//! [`ToWorker`](crate::v1::ToWorker).

use bytes::{Bytes, BytesMut};
use prost::Message;

/// The longest header frame, in bytes. State rides in headers, so this is above the largest state value.
pub const HEADER_BYTES_MAX: usize = 32 * 1024 * 1024;

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
