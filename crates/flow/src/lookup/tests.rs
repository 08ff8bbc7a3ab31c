use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, StringArray, TimestampMicrosecondArray};
use millstream_event::{Column, Schema, Stamp};
use proptest::prelude::*;

use super::*;

fn schema() -> LookupSchema {
    let columns = vec![Column::parse("k", "string!").unwrap(), Column::parse("n", "bigint").unwrap()];
    LookupSchema { schema: Schema::new(columns).unwrap(), key: vec!["k".to_owned()] }
}

/// Rows of keys with values; without one it is a tombstone.
fn rows(changes: &[(u32, Option<i64>)]) -> RecordBatch {
    let stamp = |n: &Option<i64>| if n.is_some() { 0 } else { Stamp::at(0).with(Stamp::DELETED).0 };
    let stamps: Vec<i64> = changes.iter().map(|(_, n)| stamp(n)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(changes.iter().map(|(k, _)| format!("k{k}")))),
        Arc::new(Int64Array::from_iter(changes.iter().map(|(_, n)| *n))),
        Arc::new(TimestampMicrosecondArray::from(stamps).with_timezone("+00:00")),
    ];
    RecordBatch::try_new(Arc::clone(schema().schema.physical()), columns).unwrap()
}

/// What keys find.
fn found(table: &LookupTable, keys: u32) -> Vec<Option<i64>> {
    let probe: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values((0..keys).map(|k| format!("k{k}"))))];
    let rows = UInt32Array::from(table.probe(&probe, keys as usize).unwrap());
    let columns = table.gather(&[1, 0], &[DataType::Int64, DataType::Utf8], &rows).unwrap();
    let (numbers, texts) = (columns[0].as_primitive::<Int64Type>(), columns[1].as_string::<i32>());
    for (key, text) in texts.iter().enumerate().filter_map(|(key, text)| Some((key, text?))) {
        assert_eq!(text, format!("k{key}"));
    }
    numbers.iter().collect()
}

fn check(table: &LookupTable, model: &BTreeMap<u32, i64>, keys: u32) {
    assert_eq!(found(table, keys), (0..keys).map(|key| model.get(&key).copied()).collect::<Vec<_>>());
    assert_eq!(table.len(), model.len());
}

fn apply(model: &mut BTreeMap<u32, i64>, changes: &[(u32, Option<i64>)]) {
    for (key, n) in changes {
        match n {
            Some(n) => drop(model.insert(*key, *n)),
            None => drop(model.remove(key)),
        }
    }
}

const KEYS: u32 = 40;

fn step() -> impl Strategy<Value = Vec<(u32, Option<i64>)>> {
    prop::collection::vec((0..KEYS, prop::option::weighted(0.7, 0_i64..1_000)), 0..12)
}

proptest! {
    /// However changes come, a key finds its newest row; layers are merged elsewhere while more come.
    #[test]
    fn a_key_finds_its_newest_row_whatever_is_merged_when(
        steps in prop::collection::vec((step(), any::<bool>()), 1..40)
    ) {
        let (schema, mut model) = (schema(), BTreeMap::new());
        let mut table = LookupTable::empty(&schema).unwrap();
        let mut merging: Option<LookupMerge> = None;
        for (changes, turn) in steps {
            let held = merging.as_ref().map_or(0, LookupMerge::holds);
            let before = (table.clone(), model.clone());
            table = table.changed(&schema, &rows(&changes), held).unwrap();
            apply(&mut model, &changes);
            check(&table, &model, KEYS);
            check(&before.0, &before.1, KEYS);
            match merging.take() {
                Some(merge) if turn => table = table.merged(merge.run().unwrap()),
                None if turn => merging = table.merge_due(&schema).or_else(|| some_merge(&table, &schema)),
                merge => merging = merge,
            }
            check(&table, &model, KEYS);
        }
    }
}

/// A merge of the two lowest layers, as it would be due of larger ones.
fn some_merge(table: &LookupTable, schema: &LookupSchema) -> Option<LookupMerge> {
    table.merge_of(schema, 0, 2)
}

#[test]
fn one_row_more_copies_few_and_leaves_few_layers() {
    let schema = schema();
    let mut table = LookupTable::empty(&schema).unwrap();
    let many: Vec<(u32, Option<i64>)> = (0..100_000).map(|k| (k, Some(0))).collect();
    table = table.changed(&schema, &rows(&many), 0).unwrap();
    let before = table.bytes();
    for n in 0..5_000_i64 {
        table = table.changed(&schema, &rows(&[((n as u32 * 7919) % 100_000, Some(n))]), 0).unwrap();
        assert!(table.layers.len() <= 12, "{} layers", table.layers.len());
    }
    assert!(table.merge_due(&schema).is_none(), "a twentieth is not worth copying the rest");
    assert!(table.bytes() < before * 5 / 4, "{} bytes of {before}", table.bytes());
    assert_eq!(table.len(), 100_000);
    // The same rows again and again replace each other.
    let hot: Vec<(u32, Option<i64>)> = (0..100).map(|k| (k, Some(-1))).collect();
    for _ in 0..2_000 {
        table = table.changed(&schema, &rows(&hot), 0).unwrap();
    }
    assert!(table.bytes() < before * 5 / 4, "{} bytes of {before}", table.bytes());
    assert_eq!(found(&table, 100), vec![Some(-1); 100]);
}

#[test]
fn the_first_row_of_a_key_stays_the_first() {
    let schema = schema();
    let table = LookupTable::empty(&schema).unwrap();
    let table = table.first(&schema, &rows(&[(0, None), (1, Some(1)), (1, Some(2)), (0, Some(3)), (1, None)])).unwrap();
    let table = table.first(&schema, &rows(&[(1, Some(4)), (2, Some(5)), (0, Some(6))])).unwrap();
    assert_eq!((table.len(), found(&table, 3)), (3, vec![Some(3), Some(1), Some(5)]));
}

#[test]
fn a_large_merge_is_done_beside_further_changes() {
    let schema = schema();
    let many = |from: u32, n: i64| -> Vec<(u32, Option<i64>)> { (from..from + 20_000).map(|k| (k, Some(n))).collect() };
    let table = LookupTable::empty(&schema).unwrap().changed(&schema, &rows(&many(0, 1)), 0).unwrap();
    let table = table.changed(&schema, &rows(&many(10_000, 2)), 0).unwrap();
    let merge = table.merge_due(&schema).unwrap();
    let held = merge.holds();
    let table = table.changed(&schema, &rows(&[(15_000, None), (40_000, Some(3))]), held).unwrap();
    let table = table.merged(merge.run().unwrap());
    assert_eq!((table.layers.len(), table.len()), (2, 30_000));
    let all = found(&table, 40_001);
    let told = |key: usize| all[key];
    assert_eq!((told(9_999), told(10_000), told(15_000), told(40_000)), (Some(1), Some(2), None, Some(3)));
}

#[test]
fn what_is_removed_before_it_was_there_is_not_there() {
    let schema = schema();
    let table = LookupTable::empty(&schema).unwrap().changed(&schema, &rows(&[(1, None), (2, Some(2))]), 0).unwrap();
    assert_eq!((table.len(), found(&table, 3)), (1, vec![None, None, Some(2)]));
    let table = table.changed(&schema, &rows(&[(2, None), (2, Some(5)), (1, Some(1)), (1, None)]), 0).unwrap();
    assert_eq!((table.len(), found(&table, 3)), (1, vec![None, None, Some(5)]));
}
