//! Chance from a seed: the same seed draws the same numbers, on every machine.
//!
//! SplitMix64 (Steele, Lea and Flood 2014). Good enough to spread load and to keep nodes out of step; nobody's secret.

use std::time::Duration;

/// A source of numbers.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The one of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number, of all that there are.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, all of them alike; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        // The upper half of the product (Lemire 2019). Its bias is below end / 2^64: nobody will measure it.
        let product = u128::from(self.draw()) * u128::from(end);
        u64::try_from(product >> 64).expect("the upper half of 128 bits has 64")
    }

    /// A time from zero up to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_answer() {
        let mut chance = Chance::new(1_234_567);
        let drawn: Vec<_> = (0..3).map(|_| chance.draw()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn it_stays_below() {
        let mut chance = Chance::new(7);
        assert_eq!(chance.below(0), 0);
        assert_eq!(chance.below(1), 0);
        let mut seen = [0_u32; 10];
        (0..10_000).for_each(|_| seen[usize::try_from(chance.below(10)).unwrap()] += 1);
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        assert!(chance.up_to(Duration::from_millis(3)) <= Duration::from_millis(3));
    }
}
