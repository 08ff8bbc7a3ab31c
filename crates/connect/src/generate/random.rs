//! Random numbers that never change.
//!
//! The simulator's output is part of its promise (same seed, same events, on every version), so the generator is a
//! few lines of our own and not a dependency's: xoshiro256++ (Blackman and Vigna, 2019), seeded through SplitMix64.

/// A small, fast generator of random numbers. Equal seeds give equal numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random([u64; 4]);

/// One step of SplitMix64: spreads a counter over 64 bits.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

impl Random {
    /// A generator for one purpose (`stream`) and one part of it (`part`, e.g. a day) under a seed.
    pub(crate) fn new(seed: u64, stream: u64, part: u64) -> Self {
        let base = mix(mix(mix(seed) ^ stream) ^ part);
        Self([mix(base), mix(base ^ 1), mix(base ^ 2), mix(base ^ 3)])
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let out = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        out
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub(crate) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0..n; 0 where `n` is 0.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u32
    }

    /// Normal, by Box and Muller.
    pub(crate) fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        mean + deviation * radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Poisson, by Knuth's product of uniforms: meant for small means.
    pub(crate) fn poisson(&mut self, mean: f64) -> u32 {
        let limit = (-mean).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}
