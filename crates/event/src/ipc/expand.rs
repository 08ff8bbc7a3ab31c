//! How many bytes rows become when views and dictionaries are written out: many rows may share one long value.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;

use crate::decoded::LINE_BYTES_MAX;

/// The most bytes that shared values of rows fitted at once become.
const EXPANDED_BYTES_MAX: usize = 64 << 20;

/// How many of `rows` stay within the limit of memory; `None` where the first one alone does not.
pub(super) fn row_limit(rows: &RecordBatch) -> Option<usize> {
    let mut count = rows.num_rows();
    loop {
        let part = rows.slice(0, count);
        let bytes: usize = part.columns().iter().map(|c| expanded(c.as_ref())).fold(0, usize::saturating_add);
        match count {
            _ if bytes <= LINE_BYTES_MAX => return Some(count),
            0 => return Some(0),
            1 => return None,
            _ if bytes <= EXPANDED_BYTES_MAX => return Some(count),
            _ => count /= 2,
        }
    }
}

/// The bytes of values that other rows may share; 0 for types that share nothing.
fn expanded(array: &dyn Array) -> usize {
    let sum = |lengths: &mut dyn Iterator<Item = usize>| lengths.fold(0, usize::saturating_add);
    // The lowest half of a view is its length.
    let views = |views: &[u128]| sum(&mut views.iter().map(|view| *view as u32 as usize));
    match array.data_type() {
        DataType::Utf8View => views(array.as_string_view().views()),
        DataType::BinaryView => views(array.as_binary_view().views()),
        DataType::Dictionary(_, _) => {
            let Some(dictionary) = array.as_any_dictionary_opt() else { return usize::MAX };
            let lengths = value_lengths(dictionary.values().as_ref());
            if dictionary.values().is_empty() {
                return 0;
            }
            sum(&mut dictionary.normalized_keys().into_iter().map(|key| lengths.get(key).copied().unwrap_or(0)))
        }
        DataType::Struct(_) => sum(&mut array.as_struct().columns().iter().map(|c| expanded(c.as_ref()))),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (from, to) = ends(list.offsets());
            expanded(list.values().slice(from, to - from).as_ref())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let (from, to) = ends(list.offsets());
            expanded(list.values().slice(from, to - from).as_ref())
        }
        DataType::FixedSizeList(_, _) => {
            let list = array.as_fixed_size_list();
            expanded(list.values().as_ref())
        }
        _ => 0,
    }
}

fn ends<T: arrow_array::OffsetSizeTrait>(offsets: &[T]) -> (usize, usize) {
    let at = |offset: Option<&T>| offset.map_or(0, |o| o.as_usize());
    (at(offsets.first()), at(offsets.last()))
}

/// The length of each value.
fn value_lengths(values: &dyn Array) -> Vec<usize> {
    let lengths = |offsets: &mut dyn Iterator<Item = (usize, usize)>| offsets.map(|(a, b)| b - a).collect();
    let small = |o: &[i32]| lengths(&mut o.iter().zip(o.iter().skip(1)).map(|(a, b)| (*a as usize, *b as usize)));
    let large = |o: &[i64]| lengths(&mut o.iter().zip(o.iter().skip(1)).map(|(a, b)| (*a as usize, *b as usize)));
    match values.data_type() {
        DataType::Utf8 => small(values.as_string::<i32>().offsets()),
        DataType::Binary => small(values.as_binary::<i32>().offsets()),
        DataType::LargeUtf8 => large(values.as_string::<i64>().offsets()),
        DataType::LargeBinary => large(values.as_binary::<i64>().offsets()),
        DataType::Utf8View => values.as_string_view().views().iter().map(|v| *v as u32 as usize).collect(),
        DataType::BinaryView => values.as_binary_view().views().iter().map(|v| *v as u32 as usize).collect(),
        DataType::FixedSizeBinary(len) => vec![usize::try_from(*len).unwrap_or(0); values.len()],
        _ => vec![16; values.len()],
    }
}
