//! Hashes of keys, and whether two keys are equal.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_ord::ord::make_comparator;
use arrow_schema::{ArrowError, DataType, SortOptions};
use datafusion_common::hash_utils::{RandomState, create_hashes};

/// The hash of each key: the same in every table.
pub(super) fn hashes_of(keys: &[ArrayRef], count: usize) -> Result<Vec<u64>, ArrowError> {
    let mut hashes = vec![0_u64; count];
    create_hashes(keys, &RandomState::with_seed(0), &mut hashes)
        .map_err(|e| ArrowError::ComputeError(e.strip_backtrace()))?;
    Ok(hashes)
}

/// Compares a table's key with a probe's, specialised for the usual single columns.
pub(super) enum Equal<'a> {
    Text(&'a arrow_array::StringArray, &'a arrow_array::StringArray),
    Int(&'a [i32], &'a [i32]),
    BigInt(&'a [i64], &'a [i64]),
    Any(Vec<arrow_ord::ord::DynComparator>),
}

impl<'a> Equal<'a> {
    pub(super) fn new(table: &'a [ArrayRef], probe: &'a [ArrayRef]) -> Result<Self, ArrowError> {
        if let ([left], [right]) = (table, probe)
            && left.data_type() == right.data_type()
        {
            match left.data_type() {
                DataType::Utf8 => return Ok(Self::Text(left.as_string(), right.as_string())),
                DataType::Int32 => {
                    let (left, right) = (left.as_primitive::<Int32Type>(), right.as_primitive::<Int32Type>());
                    return Ok(Self::Int(left.values(), right.values()));
                }
                DataType::Int64 => {
                    let (left, right) = (left.as_primitive::<Int64Type>(), right.as_primitive::<Int64Type>());
                    return Ok(Self::BigInt(left.values(), right.values()));
                }
                _ => {}
            }
        }
        let pairs = table.iter().zip(probe);
        let comparators = pairs.map(|(l, r)| make_comparator(l, r, SortOptions::default()));
        Ok(Self::Any(comparators.collect::<Result<_, _>>()?))
    }

    pub(super) fn rows(&self, left: usize, right: usize) -> bool {
        match self {
            Self::Text(l, r) => left < l.len() && right < r.len() && l.value(left) == r.value(right),
            Self::Int(l, r) => l.get(left) == r.get(right),
            Self::BigInt(l, r) => l.get(left) == r.get(right),
            Self::Any(all) => all.iter().all(|compare| compare(left, right).is_eq()),
        }
    }
}
