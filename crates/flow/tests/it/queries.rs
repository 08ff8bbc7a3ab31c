//! Queries on a small batch.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use millstream_event::{Column, Name, Schema};
use millstream_flow::{Catalog, LookupSchema, LookupSet, LookupTable, plan_query, plan_rules};

fn schema(columns: &[(&str, &str)]) -> Schema {
    Schema::new(columns.iter().map(|(n, t)| Column::parse(*n, t).unwrap()).collect()).unwrap()
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.topics.insert(Name::new("t").unwrap(), schema(&[("k", "string"), ("a", "bigint!"), ("b", "bigint")]));
    let l = LookupSchema { schema: schema(&[("k", "string!"), ("v", "bigint!")]), key: vec!["k".into()] };
    catalog.lookups.insert(Name::new("l").unwrap(), l);
    catalog
}

fn rows() -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("x"), Some("y"), None, Some("x")])),
        Arc::new(Int64Array::from(vec![1, 2, 3, i64::MAX])),
        Arc::new(Int64Array::from(vec![Some(1), Some(0), None, Some(5)])),
        Arc::new(TimestampMicrosecondArray::from(vec![10, 20, 30, 40]).with_timezone("+00:00")),
    ];
    RecordBatch::try_new(Arc::clone(catalog().topics["t"].physical()), columns).unwrap()
}

#[test]
fn a_failing_row_is_taken_out_and_the_others_keep_their_order() {
    let query = plan_query("SELECT a + 1 AS c, a / b AS d, now() AS at FROM t", &catalog()).unwrap();
    let out = query.run(&rows(), &LookupSet::default());
    let failed: Vec<_> = out.failed.iter().map(|f| (f.row, f.code)).collect();
    assert_eq!(failed, [(1, "division-by-zero"), (3, "overflow")]);
    assert_eq!(out.origin.iter().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(query.schema().to_string(), "c: bigint!, d: bigint, at: timestamp!");
}

#[test]
fn an_inner_join_counts_what_it_drops_and_a_left_join_keeps_it() {
    let catalog = catalog();
    let l = &catalog.lookups["l"];
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["x"])), Arc::new(Int64Array::from(vec![7]))];
    let table = LookupTable::build(l, RecordBatch::try_new(Arc::clone(l.schema.arrow()), columns).unwrap()).unwrap();
    let lookups = LookupSet::new([(Name::new("l").unwrap(), Arc::new(table))]);
    let query = plan_query("SELECT t.a, l.v FROM t JOIN l ON l.k = t.k", &catalog).unwrap();
    let out = query.run(&rows(), &lookups);
    assert_eq!(out.dropped, [(Name::new("l").unwrap(), 2)]);
    assert_eq!(out.origin.iter().collect::<Vec<_>>(), [0, 3]);
    let query = plan_query("SELECT t.a, l.v FROM t LEFT JOIN l ON l.k = t.k", &catalog).unwrap();
    assert_eq!(query.schema().to_string(), "a: bigint!, v: bigint");
    assert_eq!(query.run(&rows(), &lookups).rows.num_rows(), 4);
    assert_eq!(query.passes_through("a").as_deref(), Some("a"));
}

#[test]
fn a_broken_rule_is_named_and_a_guard_holds() {
    let t = catalog().topics["t"].clone();
    let rules = [("small".to_owned(), "a < 100".to_owned()), ("ratio".to_owned(), "b <> 0 AND a / b >= 1".to_owned())];
    let verdicts = plan_rules(&rules, &t).unwrap().run(&rows());
    assert_eq!(verdicts.broken, [(1, vec![1]), (2, vec![1]), (3, vec![0])]);
    assert!(verdicts.failed.is_empty());
}

#[test]
fn the_steps_can_be_read_and_filters_on_the_topic_go_before_lookups() {
    let sql = "SELECT t.k, l.v + 1 AS next FROM t JOIN l ON l.k = t.k WHERE t.a > 1 AND l.v > 2";
    let query = plan_query(sql, &catalog()).unwrap();
    let steps: Vec<String> = query.explain().lines().map(str::to_owned).collect();
    let place = |word: &str| steps.iter().position(|s| s.starts_with(word)).unwrap_or_else(|| panic!("{steps:#?}"));
    assert_eq!(place("read t"), 0);
    assert!(place("filter t.a > 1") < place("inner join with lookup l by t.k"), "{steps:#?}");
    assert!(place("inner join") < place("filter l.v > 2"), "{steps:#?}");
    assert_eq!(query.passes_through("k").as_deref(), Some("k"));
    assert_eq!(query.passes_through("a"), None);
    assert_eq!(query.inputs(), [Name::new("t").unwrap()]);
    assert_eq!(query.lookups(), [Name::new("l").unwrap()]);
}
