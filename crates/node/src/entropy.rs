//! All randomness of a node, from one seed: blake3 in counter mode, so that secrets made from a real seed can't be
//! guessed from the call ids that strangers see.

use bourse_wire::id::CallId;
use bourse_wire::time::Wall;
use bytes::Bytes;

pub(crate) struct Entropy {
    seed: [u8; 32],
    drawn: u64,
    last_id: (u64, u128),
}

impl Entropy {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0, last_id: (0, 0) }
    }

    fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        *blake3::keyed_hash(&self.seed, &self.drawn.to_le_bytes()).as_bytes()
    }

    /// What an instance says hello with.
    pub(crate) fn secret(&mut self) -> Bytes {
        Bytes::copy_from_slice(&self.draw())
    }

    /// A number below `1 + below`.
    pub(crate) fn upto(&mut self, below: u64) -> u64 {
        let bytes = self.draw();
        let word = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        word % below.saturating_add(1)
    }

    /// A call id that sorts after all that this node has made before: within a millisecond, and when the clock has
    /// jumped back, the random part counts up (RFC 9562 §6.2, method 2).
    pub(crate) fn call_id(&mut self, wall: Wall) -> CallId {
        let (last_ms, last_random) = self.last_id;
        let id = if wall.0 > last_ms {
            let mut wide = [0; 16];
            wide[6..].copy_from_slice(&self.draw()[..10]);
            // The top bits stay clear, so that counting up does not overflow.
            (wall.0, u128::from_be_bytes(wide) >> 8)
        } else {
            let mut step = [0; 8];
            step[4..].copy_from_slice(&last_random.to_le_bytes()[..4]);
            // Above the last byte, which may be overwritten: `CallId::at`.
            (last_ms, last_random + ((1 + u128::from(u64::from_le_bytes(step) & 0xff)) << 8))
        };
        self.last_id = id;
        // The id's version and variant bits overwrite 6 bits of the 80: spread the counter around them.
        let n = id.1;
        let mut random = [0u8; 10];
        random[0] = (n >> 70) as u8 & 0x0f;
        random[1] = (n >> 62) as u8;
        random[2] = (n >> 56) as u8 & 0x3f;
        for (i, byte) in random.iter_mut().enumerate().skip(3) {
            *byte = (n >> (8 * (9 - i))) as u8;
        }
        CallId::new(id.0, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_only_grow() {
        let mut entropy = Entropy::new([1; 32]);
        let mut last = entropy.call_id(Wall(1_000));
        for ms in (0..20_000).map(|i| 1_000 + (i / 1_000) - (i % 7)) {
            let id = entropy.call_id(Wall(ms));
            assert!(id.at(0) > last.at(255), "{id} came after {last}");
            last = id;
        }
    }

    #[test]
    fn one_seed_one_sequence() {
        let draw = |seed| Entropy::new([seed; 32]).secret();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
