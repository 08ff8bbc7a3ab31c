use millstream_event::json::{Decimals, Decoder, Encoder, complete};
use millstream_event::{Code, Column, Decoded, Schema, Unknown};

fn schema(columns: &[(&str, &str)]) -> Schema {
    Schema::new(columns.iter().map(|(n, k)| Column::parse(*n, k).unwrap()).collect()).unwrap()
}

fn decode(columns: &[(&str, &str)], unknown: Unknown, text: &[u8]) -> (String, Decoded) {
    let schema = schema(columns);
    let schema = if unknown == Unknown::Keep { schema.with_extra() } else { schema };
    let decoded = Decoder::new(&schema, unknown).decode_lines(text).unwrap();
    let mut out = Vec::new();
    Encoder::new(&schema, Decimals::Numbers).encode(&decoded.rows, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), decoded)
}

/// Decodes `text` into `columns` and compares the rows as JSON lines, and each refusal as "code: part of the reason".
fn check(columns: &[(&str, &str)], text: &str, rows: &str, refused: &[(Code, &str)]) {
    let (out, decoded) = decode(columns, Unknown::Reject, text.as_bytes());
    assert_eq!(out, rows);
    let found: Vec<_> = decoded.refused.iter().map(|r| (r.code, r.reason.as_str())).collect();
    assert_eq!(found.len(), refused.len(), "{found:?}");
    for ((code, reason), (expect, part)) in found.iter().zip(refused) {
        assert!(code == expect && reason.contains(part), "{code}: {reason}\nexpected {expect}: {part}");
    }
}

#[test]
fn a_bad_line_is_refused_alone_with_its_place_and_raw_bytes() {
    let text = "{\"a\":1}\n{\"a\":\n\n{\"a\":\"x\"}\r\n{\"a\":4}";
    let (out, decoded) = decode(&[("a", "int")], Unknown::Drop, text.as_bytes());
    assert_eq!(out, "{\"a\":1}\n{\"a\":4}\n");
    assert_eq!(decoded.source_rows, [0, 4]);
    let raw: Vec<_> = decoded.refused.iter().map(|r| (r.row, &text[r.bytes.clone()])).collect();
    assert_eq!(raw, [(1, "{\"a\":"), (3, "{\"a\":\"x\"}")]);
    assert_eq!(complete(text.as_bytes()), text.len() - 7);
    assert_eq!(decoded.consumed, text.len());
}

#[test]
fn a_half_read_row_leaves_nothing_behind() {
    let columns =
        [("s", "string"), ("l", "array<struct<x: int!, y: array<string>>>"), ("o", "struct<p: bytes, q: bool!>")];
    let text = r#"{"s":"first","l":[{"x":1,"y":["a",null]}],"o":{"p":"AAE=","q":true}}
{"s":"lost","l":[{"x":2,"y":["b"]},{"y":["c"]}],"o":{"q":false}}
{"s":"lost too","o":{"p":"!"}}
{"o":{"q":false},"s":"last","l":[]}
"#;
    check(
        &columns,
        text,
        "{\"s\":\"first\",\"l\":[{\"x\":1,\"y\":[\"a\",null]}],\"o\":{\"p\":\"AAE=\",\"q\":true}}\n\
         {\"s\":\"last\",\"l\":[],\"o\":{\"p\":null,\"q\":false}}\n",
        &[(Code::Missing, "column `l[].x` must have a value"), (Code::Type, "column `o.p` is bytes, `!` does not fit")],
    );
}

#[test]
fn a_wrong_value_names_column_type_and_what_was_found() {
    let columns = [
        ("i", "int"),
        ("b", "bigint"),
        ("d", "decimal(5,2)"),
        ("t", "timestamp"),
        ("f", "double"),
        ("s", "string"),
        ("k", "bool!"),
    ];
    let refused = |line: &str, code, part: &str| check(&columns, line, "", &[(code, part)]);
    refused(r#"{"i":2147483648,"k":true}"#, Code::Range, "column `i` is int, `2147483648` does not fit");
    refused(r#"{"b":9223372036854775808,"k":true}"#, Code::Range, "column `b`");
    refused(r#"{"b":1.5,"k":true}"#, Code::Type, "not an integer");
    refused(r#"{"d":1.234,"k":true}"#, Code::Range, "behind the point");
    refused(r#"{"d":"1000","k":true}"#, Code::Range, "in front of the point");
    refused(r#"{"t":"yesterday","k":true}"#, Code::Type, "`yesterday` does not fit");
    refused(r#"{"t":"2026-01-01T00:00:00","k":true}"#, Code::Type, "lacks an offset");
    refused(r#"{"f":1e999,"k":true}"#, Code::Range, "too large");
    refused(r#"{"f":"1","k":true}"#, Code::Type, "column `f` is double, the value `1` is a string");
    refused(r#"{"s":5,"k":true}"#, Code::Type, "column `s` is string, the value `5` is a number");
    refused(r#"{"s":{},"k":true}"#, Code::Type, "is an object");
    refused(r#"{"s":[1],"k":true}"#, Code::Type, "is an array");
    refused(r#"{"s":true,"k":true}"#, Code::Type, "is a boolean");
    refused(r#"{"k":null}"#, Code::Missing, "column `k` must have a value");
    refused("{}", Code::Missing, "column `k`");
    refused(r#"{"k":true,"zz":1}"#, Code::Unknown, "field `zz`");
    refused("[]", Code::JsonSyntax, "object");
    refused("5", Code::JsonSyntax, "object");
    refused(r#"{"k":true} x"#, Code::JsonSyntax, "found `x`");
    refused(r#"{"k":true"#, Code::JsonSyntax, "found the end");
    refused(r#"{"k":true,}"#, Code::JsonSyntax, "a string is expected");
    refused(r#"{"s":"\ud800","k":true}"#, Code::JsonSyntax, "wrong escape");
    refused(r#"{"i":01,"k":true}"#, Code::JsonSyntax, "expected at byte 6");
    refused("{\"s\":\"a\tb\",\"k\":true}", Code::JsonSyntax, "U+0009");
}

#[test]
fn values_are_read_in_all_their_forms() {
    let columns = [("i", "int"), ("d", "decimal(9,3)"), ("t", "timestamp"), ("s", "string"), ("j", "json")];
    check(
        &columns,
        "\u{feff}{\"i\":1.0,\"d\":\"12.5000\",\"t\":1767225600123,\"s\":\"\\u0000\\ud83d\\ude00\\/\",\"j\": {\"a\" : [1, \"x y\\\" z\"]}}\r\n\
         {\"t\":\"2026-01-01T01:00:00.5+01:00\",\"i\":1,\"i\":2e1,\"d\":-0.001,\"s\":null,\"j\":null}\n",
        "{\"i\":1,\"d\":12.500,\"t\":\"2026-01-01T00:00:00.123Z\",\"s\":\"\\u0000😀/\",\"j\":{\"a\":[1,\"x y\\\" z\"]}}\n\
         {\"i\":20,\"d\":-0.001,\"t\":\"2026-01-01T00:00:00.500Z\",\"s\":null,\"j\":null}\n",
        &[],
    );
}

#[test]
fn unknown_fields_are_kept_counted_or_rejected_and_survive_a_second_reading() {
    let columns = [("a", "int"), ("o", "struct<p: int>")];
    let text = "{\"x\": {\"y\" : 1}, \"a\":1, \"o\":{\"p\":2,\"q\":3}}\n{\"a\":2}\n";
    let (kept, decoded) = decode(&columns, Unknown::Keep, text.as_bytes());
    assert_eq!(decoded.unknown_fields, 2);
    let expect =
        "{\"a\":1,\"o\":{\"p\":2},\"_extra\":{\"x\":{\"y\":1},\"o.q\":3}}\n{\"a\":2,\"o\":null,\"_extra\":null}\n";
    assert_eq!(kept, expect);
    let (again, decoded) = decode(&columns, Unknown::Keep, kept.as_bytes());
    assert_eq!((again.as_str(), decoded.unknown_fields), (expect, 0));
    let (dropped, decoded) = decode(&columns, Unknown::Drop, text.as_bytes());
    assert_eq!((dropped.lines().next().unwrap(), decoded.unknown_fields), ("{\"a\":1,\"o\":{\"p\":2}}", 2));
    assert_eq!(decode(&columns, Unknown::Reject, text.as_bytes()).1.refused.len(), 1);
}

#[test]
fn large_deep_and_broken_bytes_refuse_their_own_line_only() {
    let columns = [("s", "string"), ("j", "json")];
    let mut text = format!("{{\"s\":\"{}\"}}\n", "é".repeat(1 << 19)).into_bytes();
    text.extend(format!("{{\"j\":{}{}}}\n", "[".repeat(100_000), "]".repeat(100_000)).bytes());
    text.extend(b"{\"s\":\"\xff\xfe\"}\n{\"s\":\"\xf0\x9f\x98\"}\n");
    text.extend(format!("{{\"j\":{}{}}}\n", "[".repeat(127), "]".repeat(127)).bytes());
    text.extend(b"{\"s\":\"\\u0000\"}\n\0\n");
    let (out, decoded) = decode(&columns, Unknown::Drop, &text);
    assert_eq!(decoded.source_rows, [0, 4, 5]);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0].len(), (1 << 20) + "{'s':'','j':null}".len());
    assert_eq!(lines[2], "{\"s\":\"\\u0000\",\"j\":null}");
    let codes: Vec<_> = decoded.refused.iter().map(|r| (r.row, r.code)).collect();
    assert_eq!(codes, [(1, Code::Nesting), (2, Code::Utf8), (3, Code::Utf8), (6, Code::JsonSyntax)]);
    let short = Decoder::new(&schema(&columns), Unknown::Drop).with_line_bytes_max(50).decode_lines(&text).unwrap();
    assert_eq!(short.refused.iter().filter(|r| r.code == Code::TooLong).count(), 3);
}

#[test]
fn an_array_and_a_single_event_over_lines_are_documents() {
    let mut decoder = Decoder::new(&schema(&[("a", "int!"), ("s", "string")]), Unknown::Drop);
    let mut run = |text: &str| {
        let decoded = decoder.decode_document(text.as_bytes()).unwrap();
        let raw = decoded.refused.iter().map(|r| (r.row, text[r.bytes.clone()].to_owned())).collect::<Vec<_>>();
        (decoded.source_rows, raw)
    };
    assert_eq!(run("{\n \"a\": 1\n}\n"), (vec![0], vec![]));
    assert_eq!(run("{\"a\":1}\n{\"a\":2}"), (vec![0, 1], vec![]));
    assert_eq!(run(" [ ] "), (vec![], vec![]));
    assert_eq!(run(""), (vec![], vec![]));
    let text = r#"[{"a":1,"s":"],\""}, {"a":}, {"a":"x"} ,{"a":4}] "#;
    assert_eq!(run(text), (vec![0, 3], vec![(1, "{\"a\":}".into()), (2, "{\"a\":\"x\"}".into())]));
    assert_eq!(run("[{\"a\":1},,{\"a\":3}"), (vec![0, 2], vec![(1, String::new()), (3, String::new())]));
    assert_eq!(run("[{\"a\":1}] x"), (vec![0], vec![(1, " x".into())]));
}
