//! A frame in one part where it is small: encrypting, framing and checking a second one costs more than the copy. What is
//! large travels in two parts, as everywhere else, and is not copied.
//!
//! ```text
//! one part     length of the header, 4 bytes, big-endian; header; payload
//! two parts    header; payload, which is not empty
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};

/// A header and a payload that travel in one part together have at most so many bytes.
const PACKED_BYTES_MAX: usize = 4096;

/// The bytes before the header.
pub(crate) const LENGTH_BYTES: usize = 4;

/// How a frame travels.
pub(crate) enum Parts {
    One(Bytes),
    Two(Bytes, Bytes),
}

/// Packs a frame.
pub(crate) fn pack(header: Bytes, payload: Bytes) -> Parts {
    let bytes = header.len() + payload.len();
    if bytes > PACKED_BYTES_MAX && !payload.is_empty() {
        return Parts::Two(header, payload);
    }
    let mut packed = BytesMut::with_capacity(LENGTH_BYTES + bytes);
    packed.put_u32(u32::try_from(header.len()).expect("a header is not larger than HEADER_BYTES_MAX"));
    packed.put(header);
    packed.put(payload);
    Parts::One(packed.freeze())
}

/// Unpacks what came; `None` if no node has sent that.
pub(crate) fn unpack(first: Bytes, second: Bytes) -> Option<(Bytes, Bytes)> {
    if !second.is_empty() {
        return Some((first, second));
    }
    let (length, _) = first.split_first_chunk::<LENGTH_BYTES>()?;
    let end = LENGTH_BYTES.checked_add(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    (end <= first.len()).then(|| (first.slice(LENGTH_BYTES..end), first.slice(end..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        for (header, payload) in
            [(0, 0), (1, 0), (0, 1), (100, 100), (4096, 0), (4095, 1), (4096, 1), (1 << 20, 0)]
        {
            let frame = (Bytes::from(vec![1; header]), Bytes::from(vec![2; payload]));
            let packed = pack(frame.0.clone(), frame.1.clone());
            let (first, second) = match packed {
                Parts::One(part) => (part, Bytes::new()),
                Parts::Two(header, payload) => (header, payload),
            };
            assert_eq!(second.is_empty(), payload == 0 || header + payload <= PACKED_BYTES_MAX);
            assert_eq!(unpack(first, second), Some(frame));
        }
    }

    #[test]
    fn what_no_node_sends_is_found_out() {
        for bad in [&b""[..], b"\0\0\0", b"\0\0\0\x01", b"\xff\xff\xff\xffxxxx", b"\0\0\0\x05four"] {
            assert_eq!(unpack(Bytes::copy_from_slice(bad), Bytes::new()), None, "{bad:?}");
        }
    }
}
