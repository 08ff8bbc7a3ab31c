//! Columns to JSON lines, written by hand for each type.
//!
//! NULL is written as `null`; so are NaN and the infinities, which JSON cannot hold. Timestamps are RFC 3339 in UTC,
//! bytes are base64, a `json` column's text is written as it is (compactly, and as a string where it is no JSON).

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::DataType;

use super::text::{quote, write_json, write_string};
use crate::column_type::ColumnType;
use crate::conform::ConformError;
use crate::schema::{Column, Schema};
use crate::value::{write_date, write_decimal, write_double, write_timestamp};

/// How decimals are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decimals {
    /// As numbers: `12.50`.
    #[default]
    Numbers,
    /// As strings, for readers that take every number for a double: `"12.50"`.
    Strings,
}

/// Writes rows of one schema as JSON lines.
#[derive(Debug, Clone)]
pub struct Encoder {
    columns: Vec<Column>,
    /// For each column what stands before its value: `{"id":`, `,"amount":`.
    leads: Vec<Vec<u8>>,
    decimals: Decimals,
}

impl Encoder {
    /// An encoder for the user's columns of `schema`.
    pub fn new(schema: &Schema, decimals: Decimals) -> Self {
        let columns = schema.columns().to_vec();
        let leads = leads(&columns);
        Self { columns, leads, decimals }
    }

    /// Appends one line per row. System columns behind the schema's are skipped; the columns must have the schema's
    /// types (see [`Schema::conform`]).
    pub fn encode(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ConformError> {
        let cells = self.cells(rows)?;
        for row in 0..rows.num_rows() {
            self.write_row(&cells, row, out);
            out.push(b'\n');
        }
        Ok(())
    }

    /// Like [`Encoder::encode`], and tells where each row's line ends in `out`.
    pub fn encode_with_ends(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<Vec<usize>, ConformError> {
        let cells = self.cells(rows)?;
        let ends = (0..rows.num_rows()).map(|row| {
            self.write_row(&cells, row, out);
            out.push(b'\n');
            out.len()
        });
        Ok(ends.collect())
    }

    /// One row as a JSON object, without a line end.
    pub fn encode_row(&self, rows: &RecordBatch, row: usize) -> Result<String, ConformError> {
        let rows = if row < rows.num_rows() { rows.slice(row, 1) } else { rows.slice(0, 0) };
        let mut out = Vec::new();
        if rows.num_rows() == 1 {
            self.write_row(&self.cells(&rows)?, 0, &mut out);
        }
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    fn cells<'a>(&self, rows: &'a RecordBatch) -> Result<Vec<Cells<'a>>, ConformError> {
        let cells = self.columns.iter().enumerate().map(|(i, column)| {
            let array = rows.columns().get(i).ok_or_else(|| ConformError::missing(column))?;
            Cells::new(column, array.as_ref(), self.decimals)
        });
        cells.collect()
    }

    #[inline]
    fn write_row(&self, cells: &[Cells<'_>], row: usize, out: &mut Vec<u8>) {
        for (lead, cells) in self.leads.iter().zip(cells) {
            out.extend_from_slice(lead);
            cells.write(row, out);
        }
        out.extend_from_slice(if cells.is_empty() { b"{}" } else { b"}" });
    }
}

fn leads(columns: &[Column]) -> Vec<Vec<u8>> {
    let lead = |(i, column): (usize, &Column)| {
        let mut lead = vec![if i == 0 { b'{' } else { b',' }];
        lead.extend(quote(&column.name));
        lead.push(b':');
        lead
    };
    columns.iter().enumerate().map(lead).collect()
}

/// A column with its type looked up once.
pub(crate) struct Cells<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Text(&'a StringArray),
    Json(&'a StringArray),
    Bytes(&'a BinaryArray),
    Bool(&'a BooleanArray),
    Int(&'a Int32Array),
    BigInt(&'a Int64Array),
    Double(&'a Float64Array),
    Decimal { values: &'a Decimal128Array, scale: u8, quoted: bool },
    Timestamp(&'a TimestampMicrosecondArray),
    Date(&'a Date32Array),
    List { ends: &'a OffsetBuffer<i32>, item: Box<Cells<'a>> },
    Struct { leads: Vec<Vec<u8>>, fields: Vec<Cells<'a>> },
}

impl<'a> Cells<'a> {
    pub(crate) fn new(column: &Column, array: &'a dyn Array, decimals: Decimals) -> Result<Self, ConformError> {
        let wrong = || ConformError::kind(column, array.data_type());
        let values = match &column.kind {
            ColumnType::String => Values::Text(array.as_string_opt().ok_or_else(wrong)?),
            ColumnType::Json => Values::Json(array.as_string_opt().ok_or_else(wrong)?),
            ColumnType::Bytes => Values::Bytes(array.as_binary_opt().ok_or_else(wrong)?),
            ColumnType::Bool => Values::Bool(array.as_boolean_opt().ok_or_else(wrong)?),
            ColumnType::Int => Values::Int(array.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?),
            ColumnType::BigInt => Values::BigInt(array.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?),
            ColumnType::Double => Values::Double(array.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?),
            ColumnType::Decimal { scale, .. } => {
                let values = array.as_primitive_opt::<Decimal128Type>().filter(|a| a.scale() == *scale as i8);
                let quoted = decimals == Decimals::Strings;
                Values::Decimal { values: values.ok_or_else(wrong)?, scale: *scale, quoted }
            }
            ColumnType::Timestamp => {
                Values::Timestamp(array.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?)
            }
            ColumnType::Date => Values::Date(array.as_primitive_opt::<Date32Type>().ok_or_else(wrong)?),
            ColumnType::Array(kind) => {
                let list = array.as_list_opt::<i32>().ok_or_else(wrong)?;
                let item = Column::nullable(format!("{}[]", column.name), kind.as_ref().clone());
                let item = Cells::new(&item, list.values().as_ref(), decimals)?;
                Values::List { ends: list.offsets(), item: Box::new(item) }
            }
            ColumnType::Struct(columns) => {
                let object = array.as_struct_opt().filter(|o| o.num_columns() == columns.len()).ok_or_else(wrong)?;
                let fields = columns.iter().zip(object.columns());
                let fields = fields.map(|(c, a)| Cells::new(c, a.as_ref(), decimals)).collect::<Result<_, _>>()?;
                Values::Struct { leads: leads(columns), fields }
            }
        };
        debug_assert!(!matches!(array.data_type(), DataType::Null), "each accessor above names a type");
        Ok(Self { nulls: array.nulls(), values })
    }

    #[inline]
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the value as it stands outside of JSON: a text without quotes, bytes as they are, a date or timestamp
    /// with the quotes of its JSON text.
    pub(crate) fn write_raw(&self, row: usize, out: &mut Vec<u8>) {
        match &self.values {
            Values::Text(values) if !self.is_null(row) => out.extend_from_slice(values.value(row).as_bytes()),
            Values::Bytes(values) if !self.is_null(row) => out.extend_from_slice(values.value(row)),
            _ => self.write(row, out),
        }
    }

    /// Appends the value without quotes, as a CSV cell has it; false where there is none.
    pub(crate) fn write_plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.is_null(row) {
            return false;
        }
        match &self.values {
            Values::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Values::Bytes(values) => base64_text(values.value(row), out),
            Values::Double(values) => return write_double(values.value(row), out),
            Values::Timestamp(values) => write_timestamp(values.value(row), out),
            Values::Date(values) => write_date(values.value(row).into(), out),
            _ => self.write(row, out),
        }
        true
    }

    /// Appends the value in JSON.
    #[inline]
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match &self.values {
            Values::Text(values) => write_string(values.value(row).as_bytes(), out),
            Values::Json(values) => write_json(values.value(row).as_bytes(), out),
            Values::Bytes(values) => write_base64(values.value(row), out),
            Values::Bool(values) => out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }),
            Values::Int(values) => out.extend_from_slice(itoa::Buffer::new().format(values.value(row)).as_bytes()),
            Values::BigInt(values) => out.extend_from_slice(itoa::Buffer::new().format(values.value(row)).as_bytes()),
            Values::Double(values) => {
                if !write_double(values.value(row), out) {
                    out.extend_from_slice(b"null");
                }
            }
            Values::Decimal { values, scale, quoted } => {
                let quote: &[u8] = if *quoted { b"\"" } else { b"" };
                out.extend_from_slice(quote);
                write_decimal(values.value(row), *scale, out);
                out.extend_from_slice(quote);
            }
            Values::Timestamp(values) => quoted(out, |out| write_timestamp(values.value(row), out)),
            Values::Date(values) => quoted(out, |out| write_date(values.value(row).into(), out)),
            Values::List { ends, item } => {
                out.push(b'[');
                let bound = |i: usize| ends.get(i).map_or(0, |end| *end as usize);
                for (i, at) in (bound(row)..bound(row + 1)).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write(at, out);
                }
                out.push(b']');
            }
            Values::Struct { leads, fields } => {
                for (lead, field) in leads.iter().zip(fields) {
                    out.extend_from_slice(lead);
                    field.write(row, out);
                }
                out.extend_from_slice(if fields.is_empty() { b"{}" } else { b"}" });
            }
        }
    }
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    base64_text(bytes, out);
    out.push(b'"');
}

/// Appends `bytes` in base64 with padding.
fn base64_text(bytes: &[u8], out: &mut Vec<u8>) {
    use arrow_cast::base64::{BASE64_STANDARD, Engine};
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    if let Some(place) = out.get_mut(start..) {
        let written = BASE64_STANDARD.encode_slice(bytes, place).unwrap_or(0);
        debug_assert_eq!(written, place.len(), "four characters for each three bytes begun");
    }
}
