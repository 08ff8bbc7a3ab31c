//! What happens: each movement follows from its number alone.
//!
//! A movement that answers a reservation looks back for one at random distances, most of them short; whether the number it
//! hits is a reservation follows from that number alone, too. So nothing has to be remembered, and a reservation may be
//! answered twice, or after its expiry, as it happens where channels do not know of each other.

use super::Settings;
use crate::generate::random::Random;

/// A reservation is held for so many movements.
pub(super) const HOLD: u64 = 20_000;
/// How far back an answer looks.
const REACH: u64 = 2 * HOLD;
/// How often it looks before it becomes a sale.
const LOOKS_MAX: u32 = 12;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Goods come in.
    Receipt,
    /// Goods are sold over the counter.
    Sale,
    /// Goods are set aside.
    Reserve,
    /// Goods that were set aside are sold.
    Confirm,
    /// They are not wanted any more.
    Cancel,
    /// The time of a reservation is over.
    Expire,
    /// A customer brings goods back.
    Return,
    /// Somebody counted, and there was more or less.
    Adjustment,
}

impl Action {
    /// Its word in the column `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Sale => "sale",
            Self::Reserve => "reserve",
            Self::Confirm => "confirm",
            Self::Cancel => "cancel",
            Self::Expire => "expire",
            Self::Return => "return",
            Self::Adjustment => "adjustment",
        }
    }
}

/// One movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Movement {
    /// What is asked for.
    pub action: Action,
    /// The SKU, from 0.
    pub sku: u32,
    /// The warehouse, from 0.
    pub warehouse: u32,
    /// How many, as many as the reservation where it answers one; negative for an adjustment downwards.
    pub quantity: i64,
    /// The number of the movement that made the reservation.
    pub reservation: Option<u64>,
}

/// All movements of a seed.
#[derive(Debug, Clone)]
pub struct Script {
    seed: u64,
    skus: u32,
    warehouses: u32,
}

impl Script {
    /// The movements of these settings.
    pub fn new(settings: &Settings) -> Self {
        Self { seed: settings.supply.seed, skus: settings.skus, warehouses: settings.warehouses }
    }

    /// The movement with this number.
    pub fn movement(&self, number: u64) -> Movement {
        if let Some(reservation) = number.checked_sub(HOLD).filter(|n| self.reserves(*n)) {
            return self.answer(Action::Expire, reservation);
        }
        let mut random = Random::new(self.seed, 30, number);
        let action = action(&mut random);
        if matches!(action, Action::Confirm | Action::Cancel) {
            return match self.look_back(&mut random, number) {
                Some(reservation) => self.answer(action, reservation),
                None => self.fresh(Action::Sale, &mut random, number),
            };
        }
        self.fresh(action, &mut random, number)
    }

    /// Whether this number makes a reservation: it is drawn as one, and its place is not taken by an expiry.
    fn reserves(&self, number: u64) -> bool {
        action(&mut Random::new(self.seed, 30, number)) == Action::Reserve
            && !number.checked_sub(HOLD).is_some_and(|earlier| self.reserves(earlier))
    }

    /// An earlier reservation.
    fn look_back(&self, random: &mut Random, number: u64) -> Option<u64> {
        let reach = REACH.min(number) as f64;
        (0..LOOKS_MAX).find_map(|_| {
            // Uniform in the logarithm: near ones are as likely as all far ones.
            let distance = reach.powf(random.unit()) as u64;
            number.checked_sub(distance.max(1)).filter(|n| self.reserves(*n))
        })
    }

    fn answer(&self, action: Action, reservation: u64) -> Movement {
        // A reservation is drawn without a look at others, so this ends here.
        Movement { action, ..self.movement(reservation) }
    }

    fn fresh(&self, action: Action, random: &mut Random, number: u64) -> Movement {
        let (sku, warehouse) = self.place(number);
        let between = |random: &mut Random, low: i64, high: i64| low + i64::from(random.below((high - low + 1) as u32));
        let quantity = match action {
            Action::Receipt => between(random, 10, 60),
            Action::Adjustment => between(random, -8, 6),
            Action::Return => between(random, 1, 2),
            _ => between(random, 1, 6),
        };
        let reservation = (action == Action::Reserve).then_some(number);
        Movement { action, sku, warehouse, quantity, reservation }
    }

    /// The SKU and the warehouse of a movement that answers none: a tenth of the SKUs has about half of them.
    fn place(&self, number: u64) -> (u32, u32) {
        let mut random = Random::new(self.seed, 31, number);
        let sku = (random.unit().powi(3) * f64::from(self.skus)) as u32;
        (sku.min(self.skus.saturating_sub(1)), random.below(self.warehouses))
    }
}

/// What is asked for, before it is known whether it can be.
fn action(random: &mut Random) -> Action {
    match random.below(100) {
        0..10 => Action::Receipt,
        10..48 => Action::Sale,
        48..72 => Action::Reserve,
        72..86 => Action::Confirm,
        86..92 => Action::Cancel,
        92..97 => Action::Return,
        _ => Action::Adjustment,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::generate::Supply;

    fn script() -> Script {
        Script::new(&Settings { skus: 200, ..Settings::new(Supply::default()) })
    }

    #[test]
    fn every_answer_names_an_earlier_reservation_of_its_sku_and_warehouse() {
        let (script, mut reserved, mut counts) = (script(), HashMap::new(), HashMap::<Action, u64>::new());
        for number in 0..100_000 {
            let movement = script.movement(number);
            *counts.entry(movement.action).or_default() += 1;
            match (movement.action, movement.reservation) {
                (Action::Reserve, Some(id)) => assert_eq!((id, reserved.insert(id, movement)), (number, None)),
                (Action::Confirm | Action::Cancel | Action::Expire, Some(id)) => {
                    let made = reserved[&id];
                    assert_eq!(movement, Movement { action: movement.action, ..made });
                }
                (_, reservation) => assert_eq!(reservation, None),
            }
        }
        assert_eq!(counts.len(), 8, "{counts:?}");
        assert!(counts.values().all(|n| *n > 1000), "{counts:?}");
    }

    #[test]
    fn every_reservation_expires_once_and_some_are_answered_too_late_or_twice() {
        let (script, mut expired, mut answered) = (script(), HashSet::new(), HashMap::<u64, u32>::new());
        let (mut late, end) = (0, 100_000);
        for number in 0..end {
            let movement = script.movement(number);
            match (movement.action, movement.reservation) {
                (Action::Expire, Some(id)) => assert!(expired.insert(id)),
                (Action::Confirm | Action::Cancel, Some(id)) => {
                    late += u32::from(expired.contains(&id));
                    *answered.entry(id).or_default() += 1;
                }
                _ => {}
            }
        }
        let due = (0..end - HOLD).filter(|n| script.movement(*n).action == Action::Reserve).count();
        assert_eq!(expired.len(), due);
        assert!(late > 100, "{late} answers are late");
        assert!(answered.values().filter(|n| **n > 1).count() > 100);
    }
}
