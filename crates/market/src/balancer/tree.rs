//! Weights in a row, of which one is found by a number below their sum, in O(log n) (Fenwick 1994).

/// A row of weights.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// Each weight as it is.
    weights: Vec<u32>,
    /// At `i`, counted from 1: the sum of the weights from `i - lowest_bit(i)` to `i`.
    sums: Vec<u64>,
    total: u64,
}

impl Tree {
    /// The sum of all.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Changes the weight of one place, and makes room for it if there is none.
    pub(super) fn set(&mut self, at: usize, weight: u32) {
        if at >= self.weights.len() {
            self.grow((at + 1).next_power_of_two());
        }
        let before = std::mem::replace(&mut self.weights[at], weight);
        let (before, weight) = (u64::from(before), u64::from(weight));
        self.total = self.total - before + weight;
        let mut i = at + 1;
        while i < self.sums.len() {
            self.sums[i] = self.sums[i] - before + weight;
            i += i & i.wrapping_neg();
        }
    }

    /// The place at which the sum of the weights up to it first exceeds `nth`, which is below the total.
    pub(super) fn find(&self, mut nth: u64) -> usize {
        debug_assert!(nth < self.total, "there is something there");
        let (mut at, mut step) = (0, self.weights.len());
        while step > 0 {
            if let Some(sum) = self.sums.get(at + step)
                && *sum <= nth
            {
                nth -= *sum;
                at += step;
            }
            step /= 2;
        }
        at
    }

    fn grow(&mut self, len: usize) {
        self.weights.resize(len, 0);
        self.sums = vec![0; len + 1];
        for (i, weight) in self.weights.iter().enumerate().map(|(i, weight)| (i + 1, *weight)) {
            self.sums[i] += u64::from(weight);
            let above = i + (i & i.wrapping_neg());
            if above <= len {
                self.sums[above] += self.sums[i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use crate::chance::Chance;

    #[test]
    fn it_finds_what_a_walk_finds() {
        let mut chance = Chance::new(1);
        let mut tree = Tree::default();
        let mut row = vec![0_u32; 100];
        for _ in 0..2_000 {
            let at = usize::try_from(chance.below(100)).unwrap();
            row[at] = u32::try_from(chance.below(4)).unwrap();
            tree.set(at, row[at]);
            let total: u64 = row.iter().map(|w| u64::from(*w)).sum();
            assert_eq!(tree.total(), total);
            if total > 0 {
                let nth = chance.below(total);
                let mut left = nth;
                let walked = row.iter().position(|w| {
                    let here = u64::from(*w) > left;
                    left = left.saturating_sub(u64::from(*w));
                    here
                });
                assert_eq!(Some(tree.find(nth)), walked);
            }
        }
    }
}
