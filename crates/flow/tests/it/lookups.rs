//! Lookup tables: what they refuse and what they find.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use millstream_event::{Column, Name, Schema};
use millstream_flow::{Catalog, LookupError, LookupSchema, LookupSet, LookupTable, plan_query};

fn lookup(key: &[&str]) -> LookupSchema {
    let columns = vec![Column::parse("k", "string").unwrap(), Column::parse("n", "bigint").unwrap()];
    LookupSchema { schema: Schema::new(columns).unwrap(), key: key.iter().map(|k| (*k).to_owned()).collect() }
}

fn rows(lookup: &LookupSchema, keys: &[Option<&str>], numbers: &[Option<i64>]) -> RecordBatch {
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(keys.to_vec())), Arc::new(Int64Array::from(numbers.to_vec()))];
    RecordBatch::try_new(Arc::clone(lookup.schema.arrow()), columns).unwrap()
}

#[test]
fn a_key_that_comes_twice_is_refused_with_the_key_and_both_rows() {
    let one = lookup(&["k"]);
    let doubled = rows(&one, &[Some("a"), Some("b"), Some("a")], &[Some(1), Some(2), Some(3)]);
    let error = LookupTable::build(&one, doubled.clone()).unwrap_err();
    assert_eq!(error, LookupError::Duplicate { key: "(a)".into(), first: 1, second: 3 });
    let two = lookup(&["k", "n"]);
    assert_eq!(LookupTable::build(&two, doubled).unwrap().len(), 3);
}

#[test]
fn a_key_without_value_is_refused_with_its_row() {
    let two = lookup(&["n", "k"]);
    let holes = rows(&two, &[Some("a"), None], &[Some(1), Some(2)]);
    let error = LookupTable::build(&two, holes).unwrap_err();
    assert_eq!(error, LookupError::Null { column: "k".into(), row: 2 });
    assert_eq!(
        LookupTable::build(&lookup(&["z"]), rows(&two, &[], &[])).unwrap_err(),
        LookupError::NoColumn("z".into())
    );
    assert_eq!(LookupTable::build(&lookup(&[]), rows(&two, &[], &[])).unwrap_err(), LookupError::NoKey);
}

#[test]
fn every_one_of_many_keys_is_found_and_no_other() {
    let one = lookup(&["k"]);
    let keys: Vec<String> = (0..5_000).map(|i| format!("key-{i}")).collect();
    let some: Vec<Option<&str>> = keys.iter().map(|k| Some(k.as_str())).collect();
    let numbers: Vec<Option<i64>> = (0..5_000).map(Some).collect();
    let table = Arc::new(LookupTable::build(&one, rows(&one, &some, &numbers)).unwrap());
    let name = Name::new("l").unwrap();
    let mut catalog = Catalog::default();
    let topic = Schema::new(vec![Column::parse("id", "string").unwrap()]).unwrap();
    catalog.topics.insert(Name::new("t").unwrap(), topic.clone());
    catalog.lookups.insert(name.clone(), one.clone());
    let query = plan_query("SELECT t.id, l.n FROM t LEFT JOIN l ON l.k = t.id", &catalog).unwrap();
    let probes: ArrayRef = Arc::new(StringArray::from_iter_values((0..6_000).map(|i| format!("key-{i}"))));
    let user = RecordBatch::try_new(Arc::clone(topic.arrow()), vec![probes]).unwrap();
    let events = topic.with_system(&user, 0).unwrap();
    let set = LookupSet::new([(name.clone(), table)]);
    let done = query.run(&events, &set);
    let found = done.rows.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
    for (row, value) in found.iter().enumerate() {
        assert_eq!(value, (row < 5_000).then_some(row as i64));
    }
    let empty = set.with(name, Arc::new(LookupTable::empty(&one).unwrap()));
    assert_eq!(query.run(&events, &empty).rows.column(1).null_count(), 6_000);
    let missing = query.run(&events, &LookupSet::default());
    assert_eq!(missing.failed.len(), 6_000);
    assert_eq!(missing.failed[0].code, "lookup-missing");
}
