use millstream_event::csv::{Decoder, Encoder};
use millstream_event::json::Decimals;
use millstream_event::{Code, Column, Schema, Unknown, json};
use proptest::prelude::*;

use crate::any::table;

fn schema(columns: &[(&str, &str)]) -> Schema {
    Schema::new(columns.iter().map(|(n, k)| Column::parse(*n, k).unwrap()).collect()).unwrap()
}

/// Decodes `text` into `columns` and gives the rows as JSON lines and the refusals with their raw bytes.
fn decode(columns: &[(&str, &str)], unknown: Unknown, text: &str) -> (String, Vec<(Code, String)>) {
    let schema = schema(columns);
    let schema = if unknown == Unknown::Keep { schema.with_extra() } else { schema };
    let decoded = Decoder::new(&schema, unknown).with_null_text("NA").decode(text.as_bytes(), true).unwrap();
    let mut out = Vec::new();
    json::Encoder::new(&schema, Decimals::Numbers).encode(&decoded.rows, &mut out).unwrap();
    assert_eq!(decoded.consumed, text.len());
    let refused = decoded.refused.into_iter().map(|r| (r.code, text[r.bytes].to_owned()));
    (String::from_utf8(out).unwrap(), refused.collect())
}

#[test]
fn cells_are_found_by_name_and_bad_records_refused_alone() {
    let columns = [
        ("id", "int!"),
        ("name", "string"),
        ("at", "timestamp"),
        ("d", "decimal(5,2)"),
        ("ok", "bool"),
        ("l", "array<int>"),
    ];
    let text = "\u{feff}name,id,at,d,ok,l\r\n\
        \"Ada \"\"A\"\"\nL, C.\",1,2026-01-01T00:00:00Z, 1.5 ,TRUE,\"[1,2]\"\r\n\
        \"\",2,1767225600000,NA,,\n\
        ,x,,,,\n\
        ,,,,,\n\
        \n\
        a,3,,\n\
        \"b\"c,4,,,,\n\
        \"NA\",5,,,,\n\
        \"open,6,,,,\n\
        NA,7,,,,";
    let (rows, refused) = decode(&columns, Unknown::Drop, text);
    assert_eq!(
        rows,
        "{\"id\":1,\"name\":\"Ada \\\"A\\\"\\nL, C.\",\"at\":\"2026-01-01T00:00:00Z\",\"d\":1.50,\"ok\":true,\"l\":[1,2]}\n\
         {\"id\":2,\"name\":\"\",\"at\":\"2026-01-01T00:00:00Z\",\"d\":null,\"ok\":null,\"l\":null}\n\
         {\"id\":5,\"name\":\"NA\",\"at\":null,\"d\":null,\"ok\":null,\"l\":null}\n\
         {\"id\":7,\"name\":null,\"at\":null,\"d\":null,\"ok\":null,\"l\":null}\n"
    );
    let refused: Vec<_> = refused.iter().map(|(code, raw)| (*code, raw.as_str())).collect();
    let expect = [
        (Code::Type, ",x,,,,"),
        (Code::Missing, ",,,,,"),
        (Code::CsvSyntax, "a,3,,"),
        (Code::CsvSyntax, "\"b\"c,4,,,,"),
        (Code::CsvSyntax, "\"open,6,,,,"),
    ];
    assert_eq!(refused, expect);
}

#[test]
fn unknown_columns_follow_the_policy() {
    let text = "a,x\n1,y\n2,\n";
    assert_eq!(
        decode(&[("a", "int")], Unknown::Keep, text).0,
        "{\"a\":1,\"_extra\":{\"x\":\"y\"}}\n{\"a\":2,\"_extra\":null}\n"
    );
    assert_eq!(decode(&[("a", "int")], Unknown::Drop, text).0, "{\"a\":1}\n{\"a\":2}\n");
    let refused = |columns: &[(&str, &str)], text: &[u8]| {
        Decoder::new(&schema(columns), Unknown::Reject).decode(text, true).unwrap_err().to_string()
    };
    assert!(refused(&[("a", "int")], text.as_bytes()).contains("`x`, which is not declared"));
    assert!(refused(&[("a", "int")], b"a,a\n").contains("`a` twice"));
    assert!(refused(&[("a", "int!")], b"b\n").contains("not declared"));
    assert!(refused(&[("a", "int!"), ("b", "int")], b"b\n").contains("lacks the column `a: int!`"));
    assert!(refused(&[("a", "int")], b"\"a").contains("quotes"));
}

proptest! {
    #[test]
    fn csv_reads_back_whole_and_in_chunks(table in table(1), size in 1usize..40) {
        let mut text = Vec::new();
        let encoder = Encoder::new(&table.schema);
        encoder.header(&mut text);
        encoder.encode(&table.rows, &mut text).unwrap();
        let whole = Decoder::new(&table.schema, Unknown::Reject).decode(&text, true).unwrap();
        prop_assert_eq!(&whole.refused, &vec![]);
        prop_assert_eq!(&whole.rows, &table.rows);
        let mut decoder = Decoder::new(&table.schema, Unknown::Reject);
        let (mut from, mut to, mut rows) = (0, 0, Vec::new());
        while from < text.len() {
            to = (to + size).min(text.len());
            let part = decoder.decode(&text[from..to], to == text.len()).unwrap();
            from += part.consumed;
            rows.push(part.rows);
        }
        let rows = arrow_select::concat::concat_batches(table.schema.arrow(), &rows).unwrap();
        prop_assert_eq!(&rows, &table.rows);
    }

    #[test]
    fn any_bytes_are_records_or_refused_without_a_panic(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..80), "[a,\"\n\r1x]{0,60}".prop_map(String::into_bytes)],
        last in any::<bool>()
    ) {
        let schema = schema(&[("a", "int!"), ("x", "string")]).with_extra();
        for unknown in [Unknown::Keep, Unknown::Drop] {
            let mut decoder = Decoder::new(&schema, unknown);
            decoder.read_header(b"a,x,1\n", false).unwrap();
            let decoded = decoder.decode(&bytes, last).unwrap();
            prop_assert!(decoded.consumed <= bytes.len() && (!last || decoded.consumed == bytes.len()));
            drop(Decoder::new(&schema, unknown).decode(&bytes, last));
        }
    }
}
