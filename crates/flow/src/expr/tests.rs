//! What becomes of rows on which a function does not return.

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch};
use datafusion_common::ToDFSchema;
use datafusion_expr::{ColumnarValue, Volatility, col, create_udf, in_list, lit, when};

use super::*;
use crate::isolate::isolate;

/// `touchy(n)`: n, and a panic on 13.
fn touchy() -> Expr {
    let run = |args: &[ColumnarValue]| {
        let [ColumnarValue::Array(array)] = args else { panic!("one column") };
        let numbers = array.as_primitive::<arrow_array::types::Int64Type>();
        assert!(!numbers.iter().any(|n| n == Some(13)), "the kernel has a bug");
        Ok(ColumnarValue::Array(Arc::clone(array)))
    };
    let kind = DataType::Int64;
    create_udf("touchy", vec![kind.clone()], kind, Volatility::Immutable, Arc::new(run)).call(vec![col("n")])
}

#[test]
fn a_panicking_function_fails_its_row_and_no_other() {
    let plain = Schema::new(vec![Field::new("n", DataType::Int64, true)]).to_dfschema().unwrap();
    let compiled = Compiled::new(&touchy(), &plain).unwrap();
    assert!(compiled.fallible());
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40));
    let times: ArrayRef = Arc::new(arrow_array::TimestampMicrosecondArray::from(vec![0; 40]).with_timezone("+00:00"));
    let batch = RecordBatch::try_new(batch_schema(&plain), vec![numbers, times]).unwrap();
    let parts = isolate(40, |first, count| compiled.evaluate(&batch.slice(first, count)));
    assert_eq!(parts.failed.len(), 1);
    let failed = &parts.failed[0];
    assert_eq!((failed.row, failed.code), (13, "expression"));
    assert_eq!(failed.reason, "a function panicked on this event's values (the kernel has a bug) in touchy(n)");
    assert_eq!(parts.parts.iter().map(|(_, array)| array.len()).sum::<usize>(), 39);
}

#[test]
fn a_list_that_differs_by_row_is_not_taken_for_constant() {
    let plain = Schema::new(vec![Field::new("n", DataType::Int64, true)]).to_dfschema().unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(2), Some(3), None]));
    let times: ArrayRef = Arc::new(arrow_array::TimestampMicrosecondArray::from(vec![0; 5]).with_timezone("+00:00"));
    let batch = RecordBatch::try_new(batch_schema(&plain), vec![numbers, times]).unwrap();
    // 0 where n is 0, else n.
    let same = when(col("n").eq(lit(0i64)), lit(0i64)).otherwise(col("n")).unwrap();
    for (list, want) in [
        (vec![same.clone()], [Some(true), Some(true), Some(true), Some(true), None]),
        (vec![lit(0i64), same.clone() + lit(1i64)], [Some(true), Some(false), Some(false), Some(false), None]),
        (vec![lit(3i64), same.clone() * lit(2i64), lit(1i64)], [Some(true), Some(true), Some(false), Some(true), None]),
        (vec![lit(3i64), lit(1i64)], [Some(false), Some(true), Some(false), Some(true), None]),
    ] {
        for negated in [false, true] {
            let expr = in_list(col("n"), list.clone(), negated);
            let found = Compiled::new(&expr, &plain).unwrap().evaluate_bool(&batch).unwrap();
            assert_eq!(found, BooleanArray::from(want.map(|w| w.map(|w| w != negated)).to_vec()), "{expr}");
        }
    }
}
