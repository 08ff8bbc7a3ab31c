//! Which partition an event belongs to: murmur2 over its key's bytes, as Kafka's Java client has it, so that events
//! keep their partition between the embedded log, Kafka, and other producers.
//!
//! The key's bytes: of one `string` column its UTF-8, of one `bytes` column its bytes, of one column of another type
//! its JSON text (`42`, `"2026-01-31"` with the quotes, decimals with all digits of their scale), of several columns
//! a JSON array of their values without blanks (`["c1",42]`). An event with a null in a key column has no partition.

use arrow_array::cast::AsArray;
use arrow_array::{Array, GenericByteArray, RecordBatch, UInt32Array, types::ByteArrayType};
use arrow_select::take::take_record_batch;

use crate::batch::PartitionId;
use crate::column_type::ColumnType;
use crate::conform::ConformError;
use crate::json::{Cells, Decimals};
use crate::schema::{Column, Schema};

/// Why columns are no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key names no column.
    #[error("a key needs at least one column")]
    Empty,
    /// The key names a column that is not there.
    #[error("the key column `{0}` is not a column of the topic")]
    Unknown(String),
    /// There is no partition to put an event into.
    #[error("a topic has at least one partition")]
    NoPartition,
}

/// The murmur2 hash of Kafka's Java client (`org.apache.kafka.common.utils.Utils.murmur2`; Austin Appleby's
/// MurmurHash2 with a fixed seed).
pub fn murmur2(key: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ (key.len() as u32);
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

/// The partition of a key among `partitions`, which is at least 1: `toPositive(murmur2(key)) % partitions`.
pub fn partition_of(key: &[u8], partitions: u32) -> PartitionId {
    PartitionId((murmur2(key) as u32 & 0x7fff_ffff) % partitions.max(1))
}

/// Rows of one partition.
#[derive(Debug, Clone)]
pub struct Part {
    /// The partition.
    pub partition: PartitionId,
    /// Its rows, in their order.
    pub rows: RecordBatch,
    /// The place of each in the batch that was split.
    pub indices: Vec<u32>,
}

/// A batch by partition.
#[derive(Debug, Clone)]
pub struct Split {
    /// The partitions that have rows, in growing order.
    pub parts: Vec<Part>,
    /// The rows with a null in a key column, which have no partition.
    pub null_rows: Vec<u32>,
}

/// Finds the partitions of rows of one schema by its key columns.
#[derive(Debug, Clone)]
pub struct Partitioner {
    columns: Vec<(usize, Column)>,
    partitions: u32,
}

/// What stands for "no partition" while rows are counted.
const NONE: u32 = u32::MAX;

impl Partitioner {
    /// A partitioner by the columns `key` into `partitions`.
    pub fn new(schema: &Schema, key: &[String], partitions: u32) -> Result<Self, KeyError> {
        if key.is_empty() {
            return Err(KeyError::Empty);
        }
        if partitions == 0 || partitions == NONE {
            return Err(KeyError::NoPartition);
        }
        let find = |name: &String| {
            let (place, column) = schema.column(name).ok_or_else(|| KeyError::Unknown(name.clone()))?;
            Ok((place, column.clone()))
        };
        Ok(Self { columns: key.iter().map(find).collect::<Result<_, _>>()?, partitions })
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> u32 {
        self.partitions
    }

    /// The key of one row, as a Kafka message has it; `None` where a key column is null.
    pub fn key_bytes(&self, rows: &RecordBatch, row: usize) -> Result<Option<Vec<u8>>, ConformError> {
        if row >= rows.num_rows() {
            return Ok(None);
        }
        let mut key = Vec::new();
        let row = rows.slice(row, 1);
        let found = self.keys(&row)?.write(0, &mut key);
        Ok(found.then_some(key))
    }

    /// Calls `f` with the key of each row, in their order, as [`Partitioner::key_bytes`] answers it.
    pub fn each_key(&self, rows: &RecordBatch, mut f: impl FnMut(usize, Option<&[u8]>)) -> Result<(), ConformError> {
        let keys = self.keys(rows)?;
        let mut key = Vec::new();
        for row in 0..rows.num_rows() {
            key.clear();
            let found = keys.write(row, &mut key);
            f(row, found.then_some(key.as_slice()));
        }
        Ok(())
    }

    /// The partition of each row; `None` where a key column is null.
    pub fn partitions(&self, rows: &RecordBatch) -> Result<Vec<Option<PartitionId>>, ConformError> {
        let found = self.hash(rows)?;
        Ok(found.into_iter().map(|p| (p != NONE).then_some(PartitionId(p))).collect())
    }

    /// The rows by partition. Nothing is copied where all rows belong to one.
    pub fn split(&self, rows: &RecordBatch) -> Result<Split, ConformError> {
        let found = self.hash(rows)?;
        let Some(first) = found.first().copied() else { return Ok(Split { parts: vec![], null_rows: vec![] }) };
        if first != NONE && found.iter().all(|p| *p == first) {
            let indices = (0..found.len() as u32).collect();
            let part = Part { partition: PartitionId(first), rows: rows.clone(), indices };
            return Ok(Split { parts: vec![part], null_rows: vec![] });
        }
        let (groups, null_rows) = group(&found, self.partitions);
        let parts = groups.into_iter().map(|(partition, indices)| {
            let taken = UInt32Array::from(indices);
            let rows = take_record_batch(rows, &taken)?;
            let indices = taken.into_parts().1.into_inner().into_vec().unwrap_or_else(|b| b.typed_data().to_vec());
            Ok(Part { partition: PartitionId(partition), rows, indices })
        });
        Ok(Split { parts: parts.collect::<Result<_, ConformError>>()?, null_rows })
    }

    fn hash(&self, rows: &RecordBatch) -> Result<Vec<u32>, ConformError> {
        if let [(place, column)] = self.columns.as_slice()
            && let Some(array) = rows.columns().get(*place)
        {
            match column.kind {
                ColumnType::String => {
                    if let Some(texts) = array.as_string_opt::<i32>() {
                        return Ok(self.hash_bytes(texts));
                    }
                }
                ColumnType::Bytes => {
                    if let Some(bytes) = array.as_binary_opt::<i32>() {
                        return Ok(self.hash_bytes(bytes));
                    }
                }
                _ => {}
            }
        }
        let keys = self.keys(rows)?;
        let mut key = Vec::new();
        let partition = |row| {
            key.clear();
            if keys.write(row, &mut key) { partition_of(&key, self.partitions).0 } else { NONE }
        };
        Ok((0..rows.num_rows()).map(partition).collect())
    }

    fn hash_bytes<T: ByteArrayType>(&self, values: &GenericByteArray<T>) -> Vec<u32> {
        let partition = |value: &T::Native| partition_of(value.as_ref(), self.partitions).0;
        if values.null_count() == 0 {
            return (0..values.len()).map(|row| partition(values.value(row))).collect();
        }
        values.iter().map(|value| value.map_or(NONE, partition)).collect()
    }

    fn keys<'a>(&self, rows: &'a RecordBatch) -> Result<Keys<'a>, ConformError> {
        let cells = self.columns.iter().map(|(place, column)| {
            let array = rows.columns().get(*place).ok_or_else(|| ConformError::missing(column))?;
            Cells::new(column, array.as_ref(), Decimals::Numbers)
        });
        let cells: Vec<_> = cells.collect::<Result<_, _>>()?;
        Ok(Keys { cells })
    }
}

/// The rows of each partition by counting: one pass to count, one to place.
fn group(found: &[u32], partitions: u32) -> (Vec<(u32, Vec<u32>)>, Vec<u32>) {
    let mut counts = vec![0usize; partitions as usize];
    let mut nulls = 0;
    for partition in found {
        match counts.get_mut(*partition as usize) {
            Some(count) => *count += 1,
            None => nulls += 1,
        }
    }
    let mut groups: Vec<Vec<u32>> = counts.iter().map(|count| Vec::with_capacity(*count)).collect();
    let mut null_rows = Vec::with_capacity(nulls);
    for (row, partition) in found.iter().enumerate() {
        groups.get_mut(*partition as usize).unwrap_or(&mut null_rows).push(row as u32);
    }
    let groups = (0u32..).zip(groups).filter(|(_, rows)| !rows.is_empty());
    (groups.collect(), null_rows)
}

struct Keys<'a> {
    cells: Vec<Cells<'a>>,
}

impl Keys<'_> {
    /// Appends the key of a row; `false` where it has none.
    fn write(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.cells.iter().any(|cell| cell.is_null(row)) {
            return false;
        }
        match self.cells.as_slice() {
            [one] => one.write_raw(row, out),
            many => {
                for (i, cell) in many.iter().enumerate() {
                    out.push(if i == 0 { b'[' } else { b',' });
                    cell.write(row, out);
                }
                out.push(b']');
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Unknown, json};

    #[test]
    fn murmur2_agrees_with_kafkas_java_client() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    fn rows(schema: &Schema, lines: &str) -> RecordBatch {
        let decoded = json::Decoder::new(schema, Unknown::Reject).decode_lines(lines.as_bytes()).unwrap();
        assert!(decoded.refused.is_empty(), "{:?}", decoded.refused);
        decoded.rows
    }

    fn schema() -> Schema {
        let columns = [("s", "string"), ("b", "bytes"), ("i", "int"), ("d", "decimal(5,2)"), ("t", "date")];
        Schema::new(columns.iter().map(|(n, k)| Column::parse(*n, k).unwrap()).collect()).unwrap()
    }

    #[test]
    fn the_bytes_of_a_key_are_those_that_kafka_gets() {
        let rows = rows(&schema(), r#"{"s":"c\n1","b":"AAE=","i":-7,"d":1.5,"t":"2026-01-31"}"#);
        let key = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            Partitioner::new(&schema(), &names, 8).unwrap().key_bytes(&rows, 0).unwrap().unwrap()
        };
        assert_eq!(key(&["s"]), b"c\n1");
        assert_eq!(key(&["b"]), [0, 1]);
        assert_eq!(key(&["i"]), b"-7");
        assert_eq!(key(&["d"]), b"1.50");
        assert_eq!(key(&["t"]), b"\"2026-01-31\"");
        assert_eq!(key(&["s", "i"]), br#"["c\n1",-7]"#);
    }

    #[test]
    fn a_split_keeps_every_row_once_in_order_and_names_null_keys() {
        let lines: String = (0..500)
            .map(|i| if i % 50 == 7 { "{}\n".into() } else { format!("{{\"s\":\"k{}\",\"i\":{i}}}\n", i % 37) })
            .collect();
        let rows = rows(&schema(), &lines);
        for key in [vec!["s".to_owned()], vec!["s".to_owned(), "i".to_owned()], vec!["i".to_owned()]] {
            let partitioner = Partitioner::new(&schema(), &key, 8).unwrap();
            let expect = partitioner.partitions(&rows).unwrap();
            let each = |row, key: Option<&[u8]>| {
                assert_eq!(key, partitioner.key_bytes(&rows, row).unwrap().as_deref());
            };
            partitioner.each_key(&rows, each).unwrap();
            let split = partitioner.split(&rows).unwrap();
            assert_eq!(split.null_rows, (0..10).map(|i| i * 50 + 7).collect::<Vec<u32>>());
            let mut seen = split.null_rows.len();
            for part in &split.parts {
                assert!(part.indices.is_sorted());
                assert_eq!(part.indices.len(), part.rows.num_rows());
                for (i, index) in part.indices.iter().enumerate() {
                    assert_eq!(expect[*index as usize], Some(part.partition));
                    assert_eq!(part.rows.slice(i, 1), rows.slice(*index as usize, 1));
                }
                seen += part.indices.len();
            }
            assert_eq!(seen, 500);
        }
    }

    #[test]
    fn one_partition_is_not_copied() {
        let rows = rows(&schema(), "{\"s\":\"a\"}\n{\"s\":\"a\"}\n");
        let split = Partitioner::new(&schema(), &["s".to_owned()], 8).unwrap().split(&rows).unwrap();
        assert_eq!(split.parts.len(), 1);
        assert_eq!(
            split.parts[0].rows.column(0).to_data().buffers()[1].as_ptr(),
            rows.column(0).to_data().buffers()[1].as_ptr()
        );
        let empty = Partitioner::new(&schema(), &["s".to_owned()], 8).unwrap().split(&rows.slice(0, 0)).unwrap();
        assert!(empty.parts.is_empty());
    }

    #[test]
    fn a_key_that_cannot_be_is_refused_by_name() {
        assert_eq!(Partitioner::new(&schema(), &[], 8).unwrap_err(), KeyError::Empty);
        assert_eq!(Partitioner::new(&schema(), &["x".into()], 8).unwrap_err(), KeyError::Unknown("x".into()));
        assert_eq!(Partitioner::new(&schema(), &["s".into()], 0).unwrap_err(), KeyError::NoPartition);
    }
}
