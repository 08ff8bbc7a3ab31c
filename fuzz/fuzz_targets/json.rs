//! Arbitrary bytes as NDJSON and as a JSON document, for a schema with every kind of column.
#![no_main]

use std::sync::LazyLock;

use millstream_event::json::Decoder;
use millstream_event::{Column, Schema, Unknown};

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let kinds = [
        "string!", "bool", "int", "bigint", "double", "decimal(12,2)", "decimal(38,10)", "timestamp", "date", "bytes",
        "json", "array<int>", "struct<a: int!, b: array<struct<c: string>>>",
    ];
    let columns = kinds.iter().enumerate().map(|(i, kind)| Column::parse(format!("c{i}"), kind).unwrap());
    Schema::new(columns.collect()).unwrap()
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for unknown in [Unknown::Drop, Unknown::Reject] {
        let mut decoder = Decoder::new(&SCHEMA, unknown);
        drop(decoder.decode_lines(bytes));
        drop(decoder.decode_document(bytes));
    }
});
