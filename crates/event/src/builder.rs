//! Builders of Arrow columns that can take back their last row: what lets one bad value refuse its own event only.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray,
    RecordBatch, RecordBatchOptions, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType};

use crate::column_type::ColumnType;
use crate::decoded::{Code, Refusal};
use crate::schema::{Column, Schema};
use crate::value::{self, Fault, quoted, type_name};

/// The most bytes of text in one column of one batch: Arrow's offsets are 32 bits.
const COLUMN_BYTES_MAX: usize = i32::MAX as usize;

/// Which rows are null; empty as long as none is.
#[derive(Default)]
struct Validity(Vec<bool>);

impl Validity {
    fn valid(&mut self) {
        if !self.0.is_empty() {
            self.0.push(true);
        }
    }

    fn null(&mut self, len: usize) {
        if self.0.is_empty() {
            self.0.resize(len, true);
        }
        self.0.push(false);
    }

    fn finish(&mut self) -> Option<NullBuffer> {
        let bits = std::mem::take(&mut self.0);
        bits.contains(&false).then(|| NullBuffer::new(BooleanBuffer::from(bits)))
    }
}

/// Texts or byte strings end to end.
pub(crate) struct Texts {
    ends: Vec<i32>,
    pub(crate) bytes: Vec<u8>,
}

impl Texts {
    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len + 1);
        self.bytes.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    fn finish(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let (rows, bytes) = (self.ends.capacity(), self.bytes.capacity());
        let mut ends = Vec::with_capacity(rows);
        ends.push(0);
        let ends = std::mem::replace(&mut self.ends, ends);
        let texts = std::mem::replace(&mut self.bytes, Vec::with_capacity(bytes));
        (OffsetBuffer::new(ScalarBuffer::from(ends)), Buffer::from_vec(texts))
    }
}

pub(crate) enum Data {
    Text(Texts),
    Bytes(Texts),
    Json(Texts),
    Bool(Vec<bool>),
    Int(Vec<i32>),
    BigInt(Vec<i64>),
    Double(Vec<f64>),
    Decimal { values: Vec<i128>, precision: u8, scale: u8 },
    Timestamp(Vec<i64>),
    Date(Vec<i32>),
    List { ends: Vec<i32>, item: Box<Builder> },
    Struct(Object),
}

/// The column under construction.
pub(crate) struct Builder {
    /// The column's name with its path: `address.zip`, `tags[]`.
    pub(crate) path: String,
    pub(crate) kind: ColumnType,
    pub(crate) nullable: bool,
    validity: Validity,
    pub(crate) data: Data,
}

/// Takes a vector's values and leaves an empty one of the same capacity, so that the next batch does not grow it.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let capacity = values.capacity();
    std::mem::replace(values, Vec::with_capacity(capacity))
}

impl Builder {
    fn new(path: String, column: &Column) -> Self {
        let texts = || Texts { ends: vec![0], bytes: Vec::new() };
        let data = match &column.kind {
            ColumnType::String => Data::Text(texts()),
            ColumnType::Bytes => Data::Bytes(texts()),
            ColumnType::Json => Data::Json(texts()),
            ColumnType::Bool => Data::Bool(Vec::new()),
            ColumnType::Int => Data::Int(Vec::new()),
            ColumnType::BigInt => Data::BigInt(Vec::new()),
            ColumnType::Double => Data::Double(Vec::new()),
            ColumnType::Decimal { precision, scale } => {
                Data::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            ColumnType::Timestamp => Data::Timestamp(Vec::new()),
            ColumnType::Date => Data::Date(Vec::new()),
            ColumnType::Array(kind) => {
                let item = Column::nullable("item", kind.as_ref().clone());
                Data::List { ends: vec![0], item: Box::new(Self::new(format!("{path}[]"), &item)) }
            }
            ColumnType::Struct(columns) => Data::Struct(Object::new(&format!("{path}."), columns)),
        };
        Self { path, kind: column.kind.clone(), nullable: column.nullable, validity: Validity::default(), data }
    }

    /// The rows so far.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.data {
            Data::Text(texts) | Data::Bytes(texts) | Data::Json(texts) => texts.ends.len() - 1,
            Data::Bool(values) => values.len(),
            Data::Int(values) | Data::Date(values) => values.len(),
            Data::BigInt(values) | Data::Timestamp(values) => values.len(),
            Data::Double(values) => values.len(),
            Data::Decimal { values, .. } => values.len(),
            Data::List { ends, .. } => ends.len() - 1,
            Data::Struct(object) => object.rows,
        }
    }

    /// Takes back all rows from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.validity.0.truncate(len);
        match &mut self.data {
            Data::Text(texts) | Data::Bytes(texts) | Data::Json(texts) => texts.truncate(len),
            Data::Bool(values) => values.truncate(len),
            Data::Int(values) | Data::Date(values) => values.truncate(len),
            Data::BigInt(values) | Data::Timestamp(values) => values.truncate(len),
            Data::Double(values) => values.truncate(len),
            Data::Decimal { values, .. } => values.truncate(len),
            Data::List { ends, item } => {
                ends.truncate(len + 1);
                item.truncate(ends.last().map_or(0, |end| *end as usize));
            }
            Data::Struct(object) => object.truncate(len),
        }
    }

    /// Ends a row whose value was pushed into `data` by the caller.
    #[inline]
    pub(crate) fn valid(&mut self) {
        self.validity.valid();
    }

    /// Adds a null; an error where the column is not null.
    pub(crate) fn null(&mut self) -> Result<(), Box<Refusal>> {
        if !self.nullable {
            let reason =
                format!("column `{}` must have a value ({}!), it is missing or null", self.path, type_name(&self.kind));
            return Err(Refusal::new(Code::Missing, reason));
        }
        self.place_null();
        Ok(())
    }

    fn place_null(&mut self) {
        self.validity.null(self.len());
        match &mut self.data {
            Data::Text(texts) | Data::Bytes(texts) | Data::Json(texts) => {
                texts.ends.push(texts.ends.last().copied().unwrap_or(0));
            }
            Data::Bool(values) => values.push(false),
            Data::Int(values) | Data::Date(values) => values.push(0),
            Data::BigInt(values) | Data::Timestamp(values) => values.push(0),
            Data::Double(values) => values.push(0.0),
            Data::Decimal { values, .. } => values.push(0),
            Data::List { ends, .. } => ends.push(ends.last().copied().unwrap_or(0)),
            Data::Struct(object) => {
                // Below a null struct even a not-null column holds a place, which the struct's null masks.
                object.fields.iter_mut().for_each(Self::place_null);
                object.rows += 1;
            }
        }
    }

    /// Adds a text (or bytes, or JSON text) whose form the caller has checked.
    #[inline]
    pub(crate) fn push_bytes(&mut self, text: &[u8]) -> Result<(), Box<Refusal>> {
        if let Data::Text(texts) | Data::Bytes(texts) | Data::Json(texts) = &mut self.data {
            texts.bytes.extend_from_slice(text);
        }
        self.end_bytes()
    }

    /// Ends a text that the caller wrote into the column's bytes.
    #[inline]
    pub(crate) fn end_bytes(&mut self) -> Result<(), Box<Refusal>> {
        let (Data::Text(texts) | Data::Bytes(texts) | Data::Json(texts)) = &mut self.data else { return Ok(()) };
        if texts.bytes.len() > COLUMN_BYTES_MAX {
            texts.bytes.truncate(texts.ends.last().map_or(0, |end| *end as usize));
            let reason = format!("the values of column `{}` pass 2 GiB in one batch; send fewer at once", self.path);
            return Err(Refusal::new(Code::TooLong, reason));
        }
        texts.ends.push(texts.bytes.len() as i32);
        self.validity.valid();
        Ok(())
    }

    /// Adds a number from its text.
    #[inline]
    pub(crate) fn push_number(&mut self, text: &[u8]) -> Result<(), Box<Refusal>> {
        let done = match &mut self.data {
            Data::Int(values) => value::int(text).map(|v| values.push(v)),
            Data::BigInt(values) => value::bigint(text).map(|v| values.push(v)),
            Data::Double(values) => value::double(text).map(|v| values.push(v)),
            Data::Decimal { values, precision, scale } => {
                value::decimal(text, *precision, *scale).map(|v| values.push(v))
            }
            Data::Timestamp(values) => value::timestamp_micros(text).map(|v| values.push(v)),
            _ => return Err(self.wrong_kind("a number", text)),
        };
        done.map_err(|fault| self.fault(text, fault))?;
        self.validity.valid();
        Ok(())
    }

    /// Adds a value that is written as text in JSON: a string, decimal, timestamp, date or bytes.
    #[inline]
    pub(crate) fn push_text(&mut self, text: &[u8]) -> Result<(), Box<Refusal>> {
        let done = match &mut self.data {
            Data::Text(_) => return self.push_bytes(text),
            Data::Decimal { values, precision, scale } => {
                value::decimal(text, *precision, *scale).map(|v| values.push(v))
            }
            Data::Timestamp(values) => value::timestamp(text).map(|v| values.push(v)),
            Data::Date(values) => value::date(text).map(|v| values.push(v)),
            Data::Bytes(texts) => {
                if decode_base64(text, &mut texts.bytes) {
                    return self.end_bytes();
                }
                texts.bytes.truncate(texts.ends.last().map_or(0, |end| *end as usize));
                Err(Fault::Form("bytes are written in base64 with padding"))
            }
            _ => return Err(self.wrong_kind("a string", text)),
        };
        done.map_err(|fault| self.fault(text, fault))?;
        self.validity.valid();
        Ok(())
    }

    /// Adds a boolean.
    pub(crate) fn push_bool(&mut self, value: bool) -> Result<(), Box<Refusal>> {
        let Data::Bool(values) = &mut self.data else {
            return Err(self.wrong_kind("a boolean", if value { b"true" } else { b"false" }));
        };
        values.push(value);
        self.validity.valid();
        Ok(())
    }

    pub(crate) fn wrong_kind(&self, found: &str, text: &[u8]) -> Box<Refusal> {
        let shown = if text.is_empty() { String::new() } else { format!(" `{}`", quoted(text)) };
        let reason = format!("column `{}` is {}, the value{shown} is {found}", self.path, type_name(&self.kind));
        Refusal::new(Code::Type, reason)
    }

    fn fault(&self, text: &[u8], fault: Fault) -> Box<Refusal> {
        let (code, why) = match fault {
            Fault::Form(why) => (Code::Type, why),
            Fault::Range(why) => (Code::Range, why),
        };
        let kind = type_name(&self.kind);
        Refusal::new(code, format!("column `{}` is {kind}, `{}` does not fit: {why}", self.path, quoted(text)))
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.validity.finish();
        Ok(match &mut self.data {
            Data::Text(texts) | Data::Json(texts) => {
                let (ends, bytes) = texts.finish();
                Arc::new(StringArray::try_new(ends, bytes, nulls)?)
            }
            Data::Bytes(texts) => {
                let (ends, bytes) = texts.finish();
                Arc::new(BinaryArray::try_new(ends, bytes, nulls)?)
            }
            Data::Bool(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(take(values)), nulls)),
            Data::Int(values) => Arc::new(Int32Array::try_new(take(values).into(), nulls)?),
            Data::BigInt(values) => Arc::new(Int64Array::try_new(take(values).into(), nulls)?),
            Data::Double(values) => Arc::new(Float64Array::try_new(take(values).into(), nulls)?),
            Data::Decimal { values, precision, scale } => {
                let array = Decimal128Array::try_new(take(values).into(), nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale as i8)?)
            }
            Data::Timestamp(values) => {
                let array = TimestampMicrosecondArray::try_new(take(values).into(), nulls)?;
                Arc::new(array.with_timezone("+00:00"))
            }
            Data::Date(values) => Arc::new(Date32Array::try_new(take(values).into(), nulls)?),
            Data::List { ends, item } => {
                let field = Arc::new(item.kind.field("item", true));
                let ends = OffsetBuffer::new(std::mem::replace(ends, vec![0]).into());
                Arc::new(ListArray::try_new(field, ends, item.finish()?, nulls)?)
            }
            Data::Struct(object) => {
                let DataType::Struct(fields) = self.kind.to_arrow() else {
                    return Err(ArrowError::SchemaError(format!("{} is no struct", self.path)));
                };
                let rows = std::mem::take(&mut object.rows);
                let columns = object.fields.iter_mut().map(Self::finish).collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields, columns, nulls, rows)?)
            }
        })
    }
}

fn decode_base64(text: &[u8], out: &mut Vec<u8>) -> bool {
    use arrow_cast::base64::{BASE64_STANDARD, Engine};
    BASE64_STANDARD.decode_vec(text, out).is_ok()
}

/// Columns side by side: an event's, or a struct's.
pub(crate) struct Object {
    pub(crate) fields: Vec<Builder>,
    /// Each field's place by its name.
    pub(crate) places: HashMap<Box<[u8]>, usize>,
    /// Each field's name as JSON writes it, with its quotes.
    pub(crate) keys: Vec<Box<[u8]>>,
    /// The fields' places in the order of the previous object: the next one most likely has the same.
    pub(crate) order: Vec<usize>,
    pub(crate) rows: usize,
}

impl Object {
    fn new(path: &str, columns: &[Column]) -> Self {
        let fields = columns.iter().map(|c| Builder::new(format!("{path}{}", c.name), c)).collect();
        let places = columns.iter().enumerate().map(|(i, c)| (c.name.as_bytes().into(), i)).collect();
        let keys = columns.iter().map(|c| crate::json::quote(&c.name).into_boxed_slice()).collect();
        Self { fields, places, keys, order: (0..columns.len()).collect(), rows: 0 }
    }

    /// The builders of a schema's columns.
    pub(crate) fn of(schema: &Schema) -> Self {
        Self::new("", schema.columns())
    }

    /// Takes back all rows from `len` on, also those of which only some columns exist.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.fields.iter_mut().for_each(|field| field.truncate(len));
        self.rows = len;
    }

    /// Ends a row: columns without a value get null, or refuse the row.
    #[inline]
    pub(crate) fn end_row(&mut self) -> Result<(), Box<Refusal>> {
        let row = self.rows;
        for field in &mut self.fields {
            if field.len() == row {
                field.null()?;
            }
        }
        self.rows = row + 1;
        Ok(())
    }

    /// All rows as a batch of `schema`, whose builders these are; the builders are empty then.
    pub(crate) fn finish(&mut self, schema: &Schema) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let columns = self.fields.iter_mut().map(Builder::finish).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(schema.arrow()), columns, &options)
    }
}
