use arrow_array::RecordBatch;
use arrow_select::concat::concat_batches;

use super::*;

fn worlds() -> Vec<World> {
    let supply = || Supply { seed: 3, ..Supply::default() };
    let nexmark = |kind| World::Nexmark(nexmark::Settings { supply: supply(), kind });
    vec![
        World::Payments(Settings { customers: 100, merchants: 100, ..Settings::default() }),
        nexmark(nexmark::Kind::Persons),
        nexmark(nexmark::Kind::Auctions),
        nexmark(nexmark::Kind::Bids),
        World::Market(market::Settings::new(market::Kind::Ticks, supply())),
        World::Market(market::Settings::new(market::Kind::Orders, supply())),
        World::Inventory(inventory::Settings::new(supply())),
    ]
}

fn made(world: &World, numbers: u64) -> RecordBatch {
    world.model(&world.schema(), None).unwrap().make(numbers).unwrap().rows
}

#[test]
fn a_world_goes_on_from_any_place() {
    for world in worlds() {
        let whole = made(&world, 2000);
        let (mut parts, mut position) = (Vec::new(), None);
        for numbers in [1, 49, 50, 777, 1123] {
            let mut model = world.model(&world.schema(), position.take()).unwrap();
            parts.push(model.make(numbers).unwrap().rows);
            position = Some(model.position().unwrap());
        }
        let parts = concat_batches(&whole.schema(), &parts).unwrap();
        assert!(parts == whole, "{world:?}");
    }
}

#[test]
fn the_largest_position_fits() {
    let supply = Supply { seed: u64::MAX, ..Supply::default() };
    let mut largest = market::Settings::new(market::Kind::Ticks, supply);
    largest.symbols = market::SYMBOLS_MAX;
    let world = World::Market(largest);
    let mut model = world.model(&world.schema(), None).unwrap();
    model.make(1000).unwrap();
    let crate::service::log::Position::Opaque(bytes) = model.position().unwrap() else { panic!("no opaque position") };
    // With every price at its longest.
    assert!(bytes.len() + 200 * 3 < 3072, "{} bytes", bytes.len());
}

#[test]
fn time_never_goes_back_but_in_payments() {
    use arrow_array::cast::AsArray;
    use arrow_array::types::TimestampMicrosecondType;
    for world in worlds().iter().filter(|world| !matches!(world, World::Payments(_))) {
        let rows = made(world, 5000);
        let at = rows.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>();
        assert!(at.len() >= 100 && at.values().is_sorted(), "{world:?}");
    }
}

#[test]
fn a_place_in_another_world_is_refused_with_both() {
    for (world, other) in worlds().iter().zip(worlds().iter().cycle().skip(1)).skip(1) {
        let mut model = world.model(&world.schema(), None).unwrap();
        model.make(100).unwrap();
        let position = model.position().unwrap();
        assert!(other.model(&other.schema(), Some(position)).err().is_some_and(|e| !e.retryable()));
    }
}

#[test]
fn bids_name_auctions_and_auctions_name_persons_of_the_same_seed() {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use std::collections::HashSet;
    let world = |kind| World::Nexmark(nexmark::Settings { supply: Supply::default(), kind });
    let column = |kind, name: &str| -> Vec<i64> {
        let rows = made(&world(kind), 200_000);
        rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec()
    };
    let named = |names: Vec<i64>, there: Vec<i64>| {
        let there: HashSet<i64> = there.into_iter().collect();
        names.iter().filter(|name| there.contains(name)).count() as f64 / names.len() as f64
    };
    let auctions = named(column(nexmark::Kind::Bids, "auction"), column(nexmark::Kind::Auctions, "id"));
    let sellers = named(column(nexmark::Kind::Auctions, "seller"), column(nexmark::Kind::Persons, "id"));
    // The first events name some from before the beginning, as the benchmark has it.
    assert!(auctions > 0.9 && sellers > 0.9, "{auctions} of the auctions and {sellers} of the sellers are known");
}

/// Prints what one core makes; in the long run only, as it measures and proves nothing.
#[test]
fn the_worlds_say_how_fast_they_are() {
    if std::env::var_os("MILLSTREAM_LONG").is_none() {
        return;
    }
    for world in worlds() {
        let mut model = world.model(&world.schema(), None).unwrap();
        let (began, mut rows) = (std::time::Instant::now(), 0);
        for _ in 0..50 {
            rows += model.make(8192 * model.stride()).unwrap().rows.num_rows();
        }
        println!("{:.0} events/s: {world:?}", rows as f64 / began.elapsed().as_secs_f64());
    }
}
