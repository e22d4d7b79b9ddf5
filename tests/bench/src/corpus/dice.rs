//! Numbers that look random and are the same everywhere: SplitMix64, integers only.
//!
//! No floating point takes part, so that no machine's mathematics can change a corpus. Not for anything secret.

/// A stream of numbers named by its seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        // The high half of a product: no division, and a bias far below what a size could show.
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// A number from `low` up to and without `high`.
    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low)
    }

    /// True in `percent` of 100 cases.
    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub(super) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Octets nothing can compress.
    pub(super) fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            let eight = self.next().to_le_bytes();
            chunk.copy_from_slice(&eight[..chunk.len()]);
        }
    }

    /// `count` octets nothing can compress.
    pub(super) fn octets(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        self.fill(&mut octets);
        octets
    }

    /// A size from a table of (per mille of all sizes, size), both ascending from 0 to 1,000.
    pub(super) fn size(&mut self, table: &[(usize, usize)]) -> usize {
        const STEPS: usize = 1_000_000;
        let at = self.below(STEPS);
        for pair in table.windows(2) {
            let ((from, low), (to, high)) = (pair[0], pair[1]);
            let (from, to) = (from * STEPS / 1_000, to * STEPS / 1_000);
            if at < to {
                return low + (high - low) * (at - from) / (to - from);
            }
        }
        table.last().map_or(0, |(_, size)| *size)
    }
}

/// Ranks drawn so that the first is twice as likely as the second and three times as likely as the third: how words
/// of a language and files of a company are used.
pub(super) struct Ranks(Vec<u64>);

impl Ranks {
    /// `count` ranks; `flat` more make the first ones less outstanding.
    pub(super) fn new(count: usize, flat: u64) -> Self {
        let mut sum = 0;
        let sums = (0..count as u64).map(|rank| {
            sum += 1_000_000_000 / (rank + 1 + flat);
            sum
        });
        Self(sums.collect())
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> usize {
        let all = self.0.last().copied().unwrap_or(1);
        let at = dice.below(all as usize) as u64;
        self.0.partition_point(|sum| *sum <= at)
    }
}
