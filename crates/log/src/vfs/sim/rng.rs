//! A small generator of numbers from a seed (SplitMix64), the same on every machine.

/// Numbers that follow from a seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// How likely one thing is to survive, in per cent; the extremes are as likely as the middle, because whole losses
    /// and single losses find different mistakes.
    pub fn odds(&mut self) -> u64 {
        let odds = [0, 3, 50, 97, 100];
        odds.get(self.below(odds.len() as u64) as usize).copied().unwrap_or(50)
    }
}
