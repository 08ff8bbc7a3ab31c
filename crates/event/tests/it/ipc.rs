use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use millstream_event::ipc;
use proptest::prelude::*;

use crate::any::table;

fn encoded(rows: &RecordBatch) -> Vec<u8> {
    let mut out = vec![7; 16];
    ipc::encode(rows, &mut out).unwrap();
    assert_eq!(&out[..16], [7; 16]);
    out.drain(..16);
    out
}

proptest! {
    #[test]
    fn stored_columns_read_back_also_from_a_slice_and_a_misplaced_buffer(table in table(2), from in 0usize..9, to in 0usize..9) {
        let n = table.rows.num_rows();
        let (from, to) = (from.min(to).min(n), from.max(to).min(n));
        let rows = table.rows.slice(from, to - from);
        let bytes = encoded(&rows);
        prop_assert_eq!(bytes.len() % 16, 0);
        prop_assert_eq!(ipc::message_len(&bytes), Some(bytes.len()));
        let message = Buffer::from(bytes.as_slice());
        let read = ipc::decode(table.schema.arrow(), &message).unwrap();
        prop_assert_eq!(&read, &rows);
        let misplaced = Buffer::from([&[0u8; 3], bytes.as_slice(), &[1; 5]].concat().as_slice()).slice(3);
        prop_assert_eq!(&ipc::decode(table.schema.arrow(), &misplaced).unwrap(), &rows);
        let whole = encoded(&table.rows);
        prop_assert!(bytes.len() <= whole.len());
    }

    #[test]
    fn damaged_columns_are_refused_or_read_without_a_panic(
        table in table(2), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()
    ) {
        let mut bytes = encoded(&table.rows);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        drop(ipc::decode(table.schema.arrow(), &Buffer::from(bytes.as_slice())).map(|rows| format!("{rows:?}")));
        bytes.truncate(cut.index(bytes.len()));
        drop(ipc::decode(table.schema.arrow(), &Buffer::from(bytes.as_slice())));
    }

    #[test]
    fn any_bytes_are_no_columns_and_no_panic(table in table(1), bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        drop(ipc::decode(table.schema.arrow(), &Buffer::from(bytes.as_slice())));
    }
}
