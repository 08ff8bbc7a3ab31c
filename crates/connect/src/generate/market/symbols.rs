//! What is traded.

use super::super::random::Random;

/// Prices are whole numbers of 1/10000.
pub(super) const UNIT: i64 = 10_000;
/// The digits behind a price's point.
pub(super) const SCALE: u8 = 4;
/// The digits of a price.
pub(super) const PRECISION: u8 = 12;

/// Letters in the alphabet.
const LETTERS: u32 = 26;

/// The name of a symbol: three letters, each symbol's its own.
fn name(number: u32) -> String {
    // The factor has no divisor in common with 26 x 26 x 26, so that no two numbers meet.
    let mixed = (u64::from(number) * 7919 + 11_002) % u64::from(LETTERS.pow(3));
    let letter = |place: u32| char::from(b'A' + (mixed / u64::from(LETTERS.pow(place)) % u64::from(LETTERS)) as u8);
    [letter(2), letter(1), letter(0)].iter().collect()
}

/// The names of all symbols.
pub(super) fn names(symbols: u32) -> Vec<String> {
    (0..symbols).map(name).collect()
}

/// The opening price of each symbol: 5 to 500, most of them low.
pub(super) fn openings(seed: u64, symbols: u32) -> Vec<i64> {
    let mut random = Random::new(seed, 20, 0);
    (0..symbols).map(|_| ((5.0 + 495.0 * random.unit().powi(3)) * UNIT as f64) as i64).collect()
}

/// Draws a symbol: a tenth of them has about a third of the events.
pub(super) fn draw(random: &mut Random, symbols: u32) -> usize {
    let place = random.unit().powi(2) * f64::from(symbols);
    (place as usize).min(symbols.saturating_sub(1) as usize)
}
