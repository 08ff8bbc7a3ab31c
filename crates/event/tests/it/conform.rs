use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int64Array, LargeStringArray, RecordBatch,
    StringArray, StringViewArray, TimestampMillisecondArray, UInt64Array,
};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use millstream_event::json::{Decimals, Decoder, Encoder};
use millstream_event::{Column, Schema, Unknown, ipc};
use proptest::prelude::*;

fn schema(text: &str) -> Schema {
    let columns = text.split("; ").map(|column| {
        let (name, kind) = column.split_once(": ").unwrap();
        Column::parse(name, kind).unwrap()
    });
    Schema::new(columns.collect()).unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

fn lines(schema: &Schema, rows: &RecordBatch) -> String {
    let mut out = Vec::new();
    Encoder::new(schema, Decimals::Numbers).encode(rows, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn check(column: ArrayRef, kind: &str, expect: Result<&str, &str>) {
    let schema = schema(&format!("c: {kind}"));
    match (schema.conform(&batch(vec![("c", column)])), expect) {
        (Ok(rows), Ok(json)) => assert_eq!(lines(&schema, &rows).trim(), format!("{{\"c\":{json}}}")),
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
        (found, _) => panic!("{found:?}, expected {expect:?}"),
    }
}

#[test]
fn arrow_types_become_canonical_or_are_refused_never_cut() {
    check(
        Arc::new(StringViewArray::from(vec!["a view that is longer than inline"])),
        "string",
        Ok("\"a view that is longer than inline\""),
    );
    check(Arc::new(LargeStringArray::from(vec!["x"])), "string!", Ok("\"x\""));
    check(Arc::new(DictionaryArray::<Int32Type>::from_iter(["d"])), "string", Ok("\"d\""));
    check(Arc::new(UInt64Array::from(vec![7])), "int", Ok("7"));
    check(Arc::new(UInt64Array::from(vec![u64::MAX])), "bigint", Err("does not fit bigint"));
    check(Arc::new(UInt64Array::from(vec![u64::MAX])), "decimal(20,0)", Ok("18446744073709551615"));
    check(Arc::new(Int64Array::from(vec![1 << 40])), "int", Err("does not fit int"));
    check(Arc::new(Float32Array::from(vec![0.5])), "double", Ok("0.5"));
    check(Arc::new(Float64Array::from(vec![3.0])), "bigint", Ok("3"));
    check(Arc::new(Float64Array::from(vec![3.5])), "bigint", Err("does not keep"));
    check(Arc::new(TimestampMillisecondArray::from(vec![1500])), "timestamp", Ok("\"1970-01-01T00:00:01.500Z\""));
    let decimal = |value| Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(9, 3).unwrap());
    check(decimal(1500), "decimal(5,1)", Ok("1.5"));
    check(decimal(1555), "decimal(5,1)", Err("does not keep"));
    check(decimal(100_000_000), "decimal(5,2)", Err("does not fit"));
    check(Arc::new(StringArray::from(vec!["5"])), "int", Err("declared int, but its values are Utf8"));
    check(Arc::new(StringArray::from(vec![None::<&str>])), "string!", Err("1 rows have none"));
    check(arrow_array::new_null_array(&arrow_schema::DataType::Null, 1), "date", Ok("null"));
}

#[test]
fn system_columns_are_added_taken_off_and_kept_by_an_upgrade() {
    let old = schema("a: int!; b: struct<x: int>; gone: string");
    let new = schema("gone: string; a: bigint!; b: struct<x: bigint, y: string>; extra: json");
    let decoded =
        Decoder::new(&old, Unknown::Reject).decode_lines(b"{\"a\":1,\"b\":{\"x\":2},\"gone\":\"g\"}").unwrap();
    let physical = old.with_system(&decoded.rows, 42).unwrap();
    assert_eq!(physical.schema(), *old.physical());
    assert_eq!(old.user_rows(&physical).unwrap(), decoded.rows);
    Schema::compatible(&old, &new).unwrap();
    let upgraded = Schema::upgrade(&physical, &old, &new).unwrap();
    assert_eq!(upgraded.schema(), *new.physical());
    assert_eq!(lines(&new, &upgraded).trim(), r#"{"gone":"g","a":1,"b":{"x":2,"y":null},"extra":null}"#);
    assert_eq!(Schema::ingested_at(&upgraded).unwrap().value(0), 42);
    assert_eq!(upgraded.column(1).as_primitive::<arrow_array::types::Int64Type>().value(0), 1);
}

#[test]
fn a_schema_that_cannot_read_history_is_refused_with_both_side_by_side() {
    let refused = |old: &str, new: &str, part: &str| {
        let error = Schema::compatible(&schema(old), &schema(new)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("\n  old: ") && error.contains("\n  new: "), "{error}");
    };
    refused("a: int; b: int", "a: int", "`b: int` was removed");
    refused("a: bigint", "a: int", "does not hold all its values");
    refused("a: int", "a: int!", "history may have nulls");
    refused("a: int", "a: int; b: int!", "make it nullable");
    refused("a: decimal(9,2)", "a: decimal(10,4)", "does not hold");
    refused("a: struct<x: int>", "a: struct<x: int, y: int!>", "does not hold");
    for (old, new) in [
        ("a: int!", "a: bigint"),
        ("a: decimal(9,2)", "a: decimal(12,4)"),
        ("a: int", "a: decimal(12,2)"),
        ("a: array<int>", "b: string; a: array<bigint>"),
    ] {
        Schema::compatible(&schema(old), &schema(new)).unwrap();
    }
}

#[test]
fn arrow_files_and_streams_are_read_into_the_declared_columns() {
    let rows = batch(vec![
        ("n", Arc::new(UInt64Array::from(vec![1, 2]))),
        ("s", Arc::new(StringViewArray::from(vec!["a", "b"]))),
    ]);
    let (mut stream, mut file) = (Vec::new(), Vec::new());
    let mut writer = StreamWriter::try_new(&mut stream, rows.schema_ref()).unwrap();
    writer.write(&rows).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let mut writer = FileWriter::try_new(&mut file, rows.schema_ref()).unwrap();
    writer.write(&rows).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let schema = schema("s: string!; n: int!; x: date");
    for bytes in [&stream, &file] {
        let read = ipc::read(&schema, bytes).unwrap();
        assert_eq!(lines(&schema, &read[0]), "{\"s\":\"a\",\"n\":1,\"x\":null}\n{\"s\":\"b\",\"n\":2,\"x\":null}\n");
    }
    assert!(ipc::read(&schema, b"neither").is_err());
}

proptest! {
    #[test]
    fn any_upgrade_that_is_compatible_succeeds(values in prop::collection::vec(any::<i32>(), 1..9), cents in prop::collection::vec(-9999i64..9999, 1..9)) {
        let (old, new) = (schema("a: int; d: decimal(4,2)"), schema("d: decimal(20,6); a: decimal(14,4)"));
        let text: String = values.iter().zip(&cents).map(|(a, c)| format!("{{\"a\":{a},\"d\":\"{}e-2\"}}\n", c)).collect();
        let decoded = Decoder::new(&old, Unknown::Reject).decode_lines(text.as_bytes()).unwrap();
        prop_assert!(decoded.refused.is_empty());
        Schema::compatible(&old, &new).unwrap();
        let upgraded = Schema::upgrade(&decoded.rows, &old, &new).unwrap();
        let expect = Decoder::new(&new, Unknown::Reject).decode_lines(text.as_bytes()).unwrap();
        prop_assert_eq!(upgraded, expect.rows);
    }
}

proptest! {
    #[test]
    fn a_damaged_arrow_stream_is_refused_or_read_without_a_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let rows = batch(vec![("s", Arc::new(StringArray::from(vec!["a", "b"])))]);
        let mut stream = Vec::new();
        let mut writer = StreamWriter::try_new(&mut stream, rows.schema_ref()).unwrap();
        writer.write(&rows).unwrap();
        writer.finish().unwrap();
        drop(writer);
        let at = at.index(stream.len());
        stream[at] ^= byte;
        drop(ipc::read(&schema("s: string"), &stream));
        stream.truncate(cut.index(stream.len()));
        drop(ipc::read(&schema("s: string"), &stream));
    }
}
