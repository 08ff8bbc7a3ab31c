//! The rows of a table topic as changes: the row that a new one replaces, or that a tombstone removes, is taken back first,
//! marked as deleted, so that steps behind can take it out of what they have computed. It has the stamp that it came with:
//! what was computed from that is computed again.
//!
//! State: the key columns have the row as it came.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{DataType, SchemaRef};
use millstream_event::Stamp;

use crate::ops::batch_of;
use crate::stream::groups::Keys;
use crate::stream::legend::{Legend, TableRowsLegend};
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::row_table::RowTable;

/// A planned reading of a table topic.
#[derive(Debug)]
pub(crate) struct TableRowsPlan {
    pub(crate) name: String,
    /// The places and types of the table's key in its columns.
    pub(crate) key: Vec<(usize, DataType)>,
    /// The names of these.
    pub(crate) key_names: Vec<String>,
    /// The places of the columns that are read.
    pub(crate) places: Vec<usize>,
    /// These columns and the system's.
    pub(crate) schema: SchemaRef,
}

impl TableRowsPlan {
    /// The types of what is kept of a row.
    pub(crate) fn types(&self) -> Vec<DataType> {
        self.schema.fields().iter().map(|field| field.data_type().clone()).collect()
    }

    fn key_types(&self) -> Vec<DataType> {
        self.key.iter().map(|(_, kind)| kind.clone()).collect()
    }
}

impl Blueprint for TableRowsPlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        Ok(Box::new(TableRows {
            key: self.key.iter().map(|(place, _)| *place).collect(),
            places: self.places.clone(),
            schema: Arc::clone(&self.schema),
            keys: Keys::new(&self.key_types())?,
            codec: Keys::new(&self.types())?,
            rows: RowTable::default(),
        }))
    }

    fn timed(&self) -> bool {
        false
    }

    fn updates(&self) -> bool {
        true
    }

    fn signature(&self) -> String {
        // Columns of the key by their number: where they stand in the topic depends on columns that nobody asks for.
        let key: Vec<(usize, &DataType)> = self.key.iter().map(|(_, kind)| kind).enumerate().collect();
        let columns = self.schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
        format!("table {:?} {key:?} of {}", self.key_names, columns.collect::<Vec<_>>().join(", "))
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        Ok(Box::new(TableRowsLegend::new(self)?))
    }

    fn describe(&self) -> String {
        format!("take back what a row of table topic {} replaces", self.name)
    }
}

struct TableRows {
    key: Vec<usize>,
    places: Vec<usize>,
    schema: SchemaRef,
    keys: Keys,
    codec: Keys,
    rows: RowTable,
}

impl Operator for TableRows {
    fn push(&mut self, _side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let pick = |places: &[usize]| -> Vec<ArrayRef> {
            places.iter().filter_map(|place| rows.columns().get(*place).cloned()).collect()
        };
        let keys = self.keys.encode(&pick(&self.key), rows.num_rows())?;
        let system = rows.columns().last().ok_or_else(|| Broken("rows have no stamp".into()))?;
        let columns: Vec<ArrayRef> = pick(&self.places).into_iter().chain([Arc::clone(system)]).collect();
        let encoded = self.codec.encode(&columns, rows.num_rows())?;
        let stamps = system.as_primitive_opt::<TimestampMicrosecondType>();
        let stamps = stamps.ok_or_else(|| Broken("a stamp is no timestamp".into()))?;
        let mut given: Vec<Given> = Vec::with_capacity(rows.num_rows());
        for (row, stamp) in stamps.values().iter().map(|stamp| Stamp(*stamp)).enumerate() {
            let key = keys.key(row);
            if let Some(old) = self.rows.get(key) {
                given.push(Given { row: old.into(), marks: Stamp::DELETED });
            }
            if !stamp.is_deleted() {
                self.rows.put(key, encoded.key(row));
                out.changes.put(&[key], encoded.key(row));
                given.push(Given { row: encoded.key(row).into(), marks: 0 });
            } else if self.rows.remove(key) {
                out.changes.delete(&[key]);
            }
        }
        out.rows.extend(self.batch(&given)?);
        Ok(())
    }

    fn advance(&mut self, _watermark: i64, _out: &mut Out<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        self.rows.restore(key, value);
        Ok(())
    }

    fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.bytes())
    }
}

/// A row that is given out.
struct Given {
    /// With the stamp that it came with.
    row: Box<[u8]>,
    /// What is marked on that.
    marks: i64,
}

impl TableRows {
    fn batch(&self, given: &[Given]) -> Result<Option<RecordBatch>, Broken> {
        if given.is_empty() {
            return Ok(None);
        }
        let mut columns = self.codec.decode(given.iter().map(|given| given.row.as_ref()))?;
        let system = columns.pop().ok_or_else(|| Broken("a kept row has no stamp".into()))?;
        let system = system.as_primitive_opt::<TimestampMicrosecondType>();
        let stamps = system.ok_or_else(|| Broken("a kept row's stamp is no timestamp".into()))?.values().iter();
        let marked = stamps.zip(given).map(|(stamp, given)| Stamp(*stamp).with(given.marks).0);
        let stamps = TimestampMicrosecondArray::from_iter_values(marked);
        columns.push(Arc::new(stamps.with_timezone("+00:00")));
        Ok(Some(batch_of(&self.schema, columns, given.len())?))
    }
}
