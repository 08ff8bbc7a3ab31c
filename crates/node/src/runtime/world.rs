//! The world that a `generate` source makes up, from its settings.

use millstream_connect::generate::{Settings, Supply, World, inventory, market, nexmark};

use super::build::wrong;
use crate::api::ApiError;
use crate::config::{GenerateKind, GenerateSettings};
use crate::plan::Source;

/// What a source is to make up, with all settings checked.
pub(super) fn world(source: &Source, given: &GenerateSettings) -> Result<World, ApiError> {
    let supply = supply(source, given)?;
    let world = match given.kind {
        GenerateKind::CardTransactions => World::Payments(payments(given, supply)),
        GenerateKind::NexmarkPersons => nexmark(nexmark::Kind::Persons, supply),
        GenerateKind::NexmarkAuctions => nexmark(nexmark::Kind::Auctions, supply),
        GenerateKind::NexmarkBids => nexmark(nexmark::Kind::Bids, supply),
        GenerateKind::Ticks => market(market::Kind::Ticks, given, supply),
        GenerateKind::Orders => market(market::Kind::Orders, given, supply),
        GenerateKind::Inventory => inventory(given, supply),
    };
    world.check().map_err(|e| wrong(source, e.to_string()))?;
    Ok(world)
}

fn supply(source: &Source, given: &GenerateSettings) -> Result<Supply, ApiError> {
    let default = Supply::default();
    let start = match &given.start {
        Some(start) => start.value.parse().map_err(|_| wrong(source, "`start` is no day; write 2026-01-01".into()))?,
        None => default.start,
    };
    Ok(Supply { rate: given.rate, count: given.count, seed: given.seed.unwrap_or(default.seed), start })
}

/// A number of things; one too large is refused by the world's own check.
fn size(given: Option<u64>, default: u32) -> u32 {
    given.map_or(default, |n| u32::try_from(n).unwrap_or(u32::MAX))
}

fn payments(given: &GenerateSettings, supply: Supply) -> Settings {
    let default = Settings::default();
    Settings {
        rate: supply.rate,
        count: supply.count,
        seed: supply.seed,
        customers: size(given.customers, default.customers),
        merchants: size(given.merchants, default.merchants),
        bad: given.bad.unwrap_or(default.bad),
        start: supply.start,
    }
}

fn nexmark(kind: nexmark::Kind, supply: Supply) -> World {
    World::Nexmark(nexmark::Settings { supply, kind })
}

fn market(kind: market::Kind, given: &GenerateSettings, supply: Supply) -> World {
    let mut settings = market::Settings::new(kind, supply);
    settings.symbols = size(given.symbols, settings.symbols);
    settings.accounts = size(given.accounts, settings.accounts);
    World::Market(settings)
}

fn inventory(given: &GenerateSettings, supply: Supply) -> World {
    let mut settings = inventory::Settings::new(supply);
    settings.skus = size(given.skus, settings.skus);
    settings.warehouses = size(given.warehouses, settings.warehouses);
    World::Inventory(settings)
}
