use millstream_event::json::{Decimals, Decoder, Encoder};
use millstream_event::{Column, ColumnType, Schema, Unknown};
use proptest::prelude::*;

use crate::any::table;

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same_rows(table in table(2), strings in any::<bool>()) {
        let decimals = if strings { Decimals::Strings } else { Decimals::Numbers };
        let encoder = Encoder::new(&table.schema, decimals);
        let mut text = Vec::new();
        let ends = encoder.encode_with_ends(&table.rows, &mut text).unwrap();
        prop_assert_eq!(ends.len(), table.rows.num_rows());
        for line in text.split_inclusive(|b| *b == b'\n') {
            serde_json::from_slice::<serde_json::Value>(line).expect("each line is JSON to others as well");
        }
        let decoded = Decoder::new(&table.schema, Unknown::Reject).decode_lines(&text).unwrap();
        prop_assert_eq!(&decoded.refused, &vec![]);
        prop_assert_eq!(&decoded.rows, &table.rows);
        let physical = table.schema.with_system(&table.rows, 7).unwrap();
        let mut again = Vec::new();
        encoder.encode(&physical, &mut again).unwrap();
        prop_assert_eq!(&again, &text);
        let lines: String = (0..physical.num_rows()).map(|i| encoder.encode_row(&physical, i).unwrap() + "\n").collect();
        prop_assert_eq!(lines.as_bytes(), &text);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_any(&bytes);
    }

    #[test]
    fn any_json_like_text_is_decoded_or_refused_as_serde_json_does(text in "[\\[\\]{}\",:0-9eE+.tfnul\\\\ \\-as]{0,40}") {
        check_any(text.as_bytes());
        // The field `j` takes any value, so the two readers must agree on what a value is.
        let line = format!("{{\"j\":{text}}}");
        let schema = Schema::new(vec![Column::nullable("j", ColumnType::Json)]).unwrap();
        let mut decoder = Decoder::new(&schema, Unknown::Drop);
        let ours = decoder.decode_lines(line.as_bytes()).unwrap();
        let theirs = serde_json::from_str::<serde_json::Value>(&line);
        // serde_json builds numbers, so 1e999 is too large for it; to us it is a text like any other.
        let huge = theirs.as_ref().is_err_and(|e| e.to_string().contains("out of range"));
        prop_assert!(huge || theirs.is_ok() == ours.refused.is_empty(), "{line}: {:?} {:?}", theirs, ours.refused);
    }
}

fn check_any(bytes: &[u8]) {
    let columns =
        [("a", "int"), ("s", "string!"), ("l", "array<struct<t: timestamp, d: decimal(5,2)>>"), ("j", "json")];
    let schema = Schema::new(columns.map(|(n, k)| Column::parse(n, k).unwrap()).to_vec()).unwrap().with_extra();
    for policy in [Unknown::Keep, Unknown::Drop, Unknown::Reject] {
        let mut decoder = Decoder::new(&schema, policy);
        for decoded in [decoder.decode_lines(bytes).unwrap(), decoder.decode_document(bytes).unwrap()] {
            assert_eq!(decoded.rows.num_rows(), decoded.source_rows.len());
            for refused in decoded.refused {
                assert!(refused.reason.len() <= millstream_event::REASON_BYTES_MAX);
                assert!(bytes.get(refused.bytes).is_some());
            }
        }
    }
}
