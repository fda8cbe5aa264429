//! W3C trace context (<https://www.w3.org/TR/trace-context/>): a valid `traceparent` is kept, any other replaced.

use std::sync::atomic::{AtomicU64, Ordering};

/// The length of version 00, in bytes.
const LENGTH: usize = 55;

/// Makes trace contexts. They need to be unique, not secret: a counter under the SplitMix64 mixer.
#[derive(Debug)]
pub(crate) struct Tracer {
    seed: [u64; 2],
    count: AtomicU64,
}

impl Tracer {
    /// `seed` should be random, so that two daemons do not make the same ones.
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self { seed, count: AtomicU64::new(1) }
    }

    /// What came, if it is valid; a new context, not sampled, otherwise.
    pub(crate) fn context(&self, given: Option<&[u8]>) -> String {
        match given.filter(|g| is_valid(g)).and_then(|g| std::str::from_utf8(g).ok()) {
            Some(given) => given.to_owned(),
            None => self.next(),
        }
    }

    fn next(&self) -> String {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        let high = mix(self.seed[0].wrapping_add(n.wrapping_mul(GAMMA)));
        let low = mix(self.seed[1] ^ mix(n.wrapping_mul(GAMMA)));
        let span = mix(high ^ low.rotate_left(32)) | 1;
        let mut text = String::with_capacity(LENGTH);
        text.push_str("00-");
        hex(&mut text, high);
        hex(&mut text, low | 1);
        text.push('-');
        hex(&mut text, span);
        text.push_str("-00");
        text
    }
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn hex(text: &mut String, n: u64) {
    text.extend((0..16).rev().map(|i| char::from(b"0123456789abcdef"[(n >> (4 * i)) as usize & 15])));
}

/// `version-trace-parent-flags`, lower case, ids not all zero. Later versions may be longer.
fn is_valid(text: &[u8]) -> bool {
    let digits =
        |range: std::ops::Range<usize>| text[range].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |range: std::ops::Range<usize>| text[range].iter().all(|b| *b == b'0');
    const LATER_BYTES_MAX: usize = 256;
    (LENGTH..=LATER_BYTES_MAX).contains(&text.len())
        && [2, 35, 52].iter().all(|&i| text[i] == b'-')
        && digits(0..2)
        && digits(3..35)
        && digits(36..52)
        && digits(53..55)
        && &text[..2] != b"ff"
        && !zero(3..35)
        && !zero(36..52)
        && (text.len() == LENGTH || &text[..2] != b"00" && text[LENGTH] == b'-')
        && text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_one_is_kept() {
        let tracer = Tracer::new([1, 2]);
        assert_eq!(tracer.context(Some(GOOD.as_bytes())), GOOD);
        let later = GOOD.replacen("00", "01", 1) + "-more";
        assert_eq!(tracer.context(Some(later.as_bytes())), later);
    }

    #[test]
    fn any_other_is_replaced() {
        let tracer = Tracer::new([1, 2]);
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let long = GOOD.to_owned() + "-more";
        let upper = GOOD.to_uppercase();
        let ff = GOOD.replacen("00", "ff", 1);
        for bad in ["", "x", &zero, &long, &upper, &ff, &GOOD[..54], &"é".repeat(30)] {
            let made = tracer.context(Some(bad.as_bytes()));
            assert!(is_valid(made.as_bytes()) && made != bad, "{made}");
        }
        assert_ne!(tracer.context(None), tracer.context(None));
    }
}
