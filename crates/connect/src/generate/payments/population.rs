//! Who pays and where: customers and merchants on a square of 100 by 100.
//!
//! After the book: a customer has a place, a mean amount uniform in 5..100 with half of it as deviation, and a mean
//! number of payments a day uniform in 0..4; a merchant (the book's terminal) has a place; a customer pays at the
//! merchants within [`RADIUS`]. Ours: nine countries as a grid on the square, the segment and the daily limit of a
//! customer, the category and the risk of a merchant, and that a customer without any merchant in reach uses the
//! nearest one (the book lets such a customer pay nowhere).

use std::io::{self, Write};

use super::Settings;
use crate::generate::random::Random;

/// The side of the square.
const SIDE: f64 = 100.0;
/// How far a customer goes.
const RADIUS: f64 = 5.0;
/// Cells per side: a cell is as wide as the radius, so that three by three cells hold all that is in reach.
const CELLS: usize = 20;
/// How often a place in reach is drawn before the nearest merchant is taken.
const DRAWS_MAX: u32 = 64;

/// The countries from the lower left to the upper right, and their currencies.
const COUNTRIES: [(&str, &str); 9] = [
    ("FR", "EUR"),
    ("DE", "EUR"),
    ("US", "USD"),
    ("GB", "GBP"),
    ("NL", "EUR"),
    ("IT", "EUR"),
    ("ES", "EUR"),
    ("BE", "EUR"),
    ("PT", "EUR"),
];

const CATEGORIES: [&str; 8] =
    ["grocery", "fuel", "restaurant", "travel", "electronics", "fashion", "pharmacy", "online"];

#[derive(Debug, Clone)]
pub(crate) struct Customer {
    x: f64,
    y: f64,
    /// Mean amount in units of money.
    pub(crate) mean: f64,
    /// Mean payments a day.
    pub(crate) per_day: f64,
    /// Used where no merchant is in reach.
    lonely: Option<u32>,
}

#[derive(Debug, Clone)]
pub(crate) struct Merchant {
    x: f64,
    y: f64,
    category: &'static str,
    risk: f64,
}

/// All customers and merchants of a seed.
#[derive(Debug)]
pub(crate) struct Population {
    pub(crate) customers: Vec<Customer>,
    pub(crate) merchants: Vec<Merchant>,
    /// Merchant numbers ordered by cell, row by row.
    by_cell: Vec<u32>,
    /// Where each cell begins in `by_cell`; one more than there are cells.
    cell_start: Vec<u32>,
}

impl Population {
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut random = Random::new(settings.seed, 1, 0);
        let merchants: Vec<Merchant> = (0..settings.merchants).map(|_| merchant(&mut random)).collect();
        let mut by_cell: Vec<u32> = (0..settings.merchants).collect();
        let cell = |m: &u32| merchants.get(*m as usize).map_or(0, |m| row(m.y) * CELLS + row(m.x));
        by_cell.sort_by_key(cell);
        let cell_start = (0..=CELLS * CELLS).map(|c| by_cell.partition_point(|m| cell(m) < c) as u32).collect();
        let mut population = Self { customers: Vec::new(), merchants, by_cell, cell_start };
        let mut random = Random::new(settings.seed, 2, 0);
        population.customers = (0..settings.customers).map(|_| population.customer(&mut random)).collect();
        population
    }

    fn customer(&self, random: &mut Random) -> Customer {
        let (x, y) = (random.uniform(0.0, SIDE), random.uniform(0.0, SIDE));
        let (mean, per_day) = (random.uniform(5.0, 100.0), random.uniform(0.0, 4.0));
        let mut customer = Customer { x, y, mean, per_day, lonely: None };
        let ranges = self.near(&customer);
        let near = ranges.iter().flat_map(|r| self.by_cell.get(r.clone()).unwrap_or_default());
        if !near.copied().any(|m| self.reaches(&customer, m)) {
            customer.lonely = self.nearest(&customer);
        }
        customer
    }

    /// The merchants in the three rows of three cells around a customer, as ranges of `by_cell`.
    fn near(&self, customer: &Customer) -> [std::ops::Range<usize>; 3] {
        let (column, line) = (row(customer.x), row(customer.y));
        let (first, last) = (column.saturating_sub(1), (column + 1).min(CELLS - 1));
        let at = |cell: usize| self.cell_start.get(cell).map_or(0, |s| *s as usize);
        [line.checked_sub(1), Some(line), Some(line + 1).filter(|l| *l < CELLS)]
            .map(|line| line.map_or(0..0, |line| at(line * CELLS + first)..at(line * CELLS + last + 1)))
    }

    fn distance(&self, customer: &Customer, merchant: u32) -> f64 {
        self.merchants.get(merchant as usize).map_or(f64::MAX, |m| (m.x - customer.x).hypot(m.y - customer.y))
    }

    fn reaches(&self, customer: &Customer, merchant: u32) -> bool {
        self.merchants.get(merchant as usize).is_some_and(|m| {
            let (x, y) = (m.x - customer.x, m.y - customer.y);
            x * x + y * y < RADIUS * RADIUS
        })
    }

    fn nearest(&self, customer: &Customer) -> Option<u32> {
        (0..self.merchants.len() as u32)
            .min_by(|a, b| self.distance(customer, *a).total_cmp(&self.distance(customer, *b)))
    }

    /// A merchant for one payment: uniform among those in reach. Drawn by rejection, so that no list per customer has
    /// to be kept.
    pub(crate) fn merchant_for(&self, customer: &Customer, random: &mut Random) -> u32 {
        if let Some(merchant) = customer.lonely {
            return merchant;
        }
        let [a, b, c] = self.near(customer);
        let all = (a.len() + b.len() + c.len()) as u32;
        for _ in 0..DRAWS_MAX {
            let mut pick = random.below(all) as usize;
            let mut place = 0;
            for range in [&a, &b, &c] {
                if pick < range.len() {
                    place = range.start + pick;
                    break;
                }
                pick -= range.len();
            }
            if let Some(merchant) = self.by_cell.get(place).copied().filter(|m| self.reaches(customer, *m)) {
                return merchant;
            }
        }
        self.nearest(customer).unwrap_or(0)
    }

    /// Country and currency of a merchant.
    pub(crate) fn country(&self, merchant: u32) -> (&'static str, &'static str) {
        self.merchants.get(merchant as usize).map_or(("FR", "EUR"), |m| country(m.x, m.y))
    }

    /// Writes `card_id,segment,home_country,daily_limit` of every customer.
    pub(crate) fn write_customers(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "card_id,segment,home_country,daily_limit")?;
        for (number, customer) in self.customers.iter().enumerate() {
            let segment = match customer.mean {
                mean if mean < 35.0 => "basic",
                mean if mean < 75.0 => "standard",
                _ => "premium",
            };
            let home = country(customer.x, customer.y).0;
            let limit = (customer.mean * 4.0 / 10.0).ceil() * 10.0;
            writeln!(out, "C{number:05},{segment},{home},{limit:.1}")?;
        }
        Ok(())
    }

    /// Writes `merchant_id,category,risk` of every merchant.
    pub(crate) fn write_merchants(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "merchant_id,category,risk")?;
        for (number, merchant) in self.merchants.iter().enumerate() {
            writeln!(out, "M{number:05},{},{:.3}", merchant.category, merchant.risk)?;
        }
        Ok(())
    }
}

fn merchant(random: &mut Random) -> Merchant {
    let (x, y) = (random.uniform(0.0, SIDE), random.uniform(0.0, SIDE));
    let category = CATEGORIES.get(random.below(CATEGORIES.len() as u32) as usize).copied().unwrap_or("online");
    // Squared: most merchants are harmless.
    let risk = random.unit().powi(2);
    Merchant { x, y, category, risk }
}

/// The line (or column) of cells that a coordinate lies in.
fn row(coordinate: f64) -> usize {
    ((coordinate / SIDE * CELLS as f64) as usize).min(CELLS - 1)
}

fn country(x: f64, y: f64) -> (&'static str, &'static str) {
    let third = |v: f64| ((v / SIDE * 3.0) as usize).min(2);
    COUNTRIES.get(third(y) * 3 + third(x)).copied().unwrap_or(("FR", "EUR"))
}
