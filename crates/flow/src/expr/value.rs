//! Values one by one, for the paths that work on single rows: read out of columns, computed with, put into columns again.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    StringArray, TimestampMicrosecondArray, new_empty_array, new_null_array,
};
use arrow_schema::{ArrowError, DataType, TimeUnit};
use arrow_select::concat::concat;

/// A value. Its type is known from where it comes: times and days are integers, a decimal's point is its column's.
#[derive(Debug, Clone)]
pub(crate) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Decimal(i128),
    Double(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// A value of any other type: an array of one row.
    Other(ArrayRef),
}

impl Val<'_> {
    /// The value without its borrow.
    pub(crate) fn into_owned(self) -> Val<'static> {
        match self {
            Self::Null => Val::Null,
            Self::Bool(v) => Val::Bool(v),
            Self::Int(v) => Val::Int(v),
            Self::Decimal(v) => Val::Decimal(v),
            Self::Double(v) => Val::Double(v),
            Self::Text(v) => Val::Text(Cow::Owned(v.into_owned())),
            Self::Bytes(v) => Val::Bytes(Cow::Owned(v.into_owned())),
            Self::Other(v) => Val::Other(v),
        }
    }

    /// Whether it is NULL.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// The types whose values are computed with one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int32,
    Int64,
    Decimal(u8, i8),
    Double,
    Text,
    Bytes,
    Timestamp,
    Date,
}

impl Kind {
    /// The kind of an Arrow type, if it is one of ours.
    pub(crate) fn of(kind: &DataType) -> Option<Self> {
        Some(match kind {
            DataType::Boolean => Self::Bool,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::Decimal128(p, s) => Self::Decimal(*p, *s),
            DataType::Float64 => Self::Double,
            DataType::Utf8 => Self::Text,
            DataType::Binary => Self::Bytes,
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "+00:00" => Self::Timestamp,
            DataType::Date32 => Self::Date,
            _ => return None,
        })
    }
}

/// A column to read single values of.
pub(crate) enum Reader<'a> {
    Bool(&'a BooleanArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Decimal(&'a Decimal128Array),
    Double(&'a Float64Array),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Time(&'a TimestampMicrosecondArray),
    Date(&'a Date32Array),
    Other(&'a ArrayRef),
}

impl<'a> Reader<'a> {
    pub(crate) fn new(column: &'a ArrayRef) -> Self {
        match Kind::of(column.data_type()) {
            Some(Kind::Bool) => Self::Bool(column.as_boolean()),
            Some(Kind::Int32) => Self::Int32(column.as_primitive::<Int32Type>()),
            Some(Kind::Int64) => Self::Int64(column.as_primitive::<Int64Type>()),
            Some(Kind::Decimal(..)) => Self::Decimal(column.as_primitive::<Decimal128Type>()),
            Some(Kind::Double) => Self::Double(column.as_primitive::<Float64Type>()),
            Some(Kind::Text) => Self::Text(column.as_string()),
            Some(Kind::Bytes) => Self::Bytes(column.as_binary()),
            Some(Kind::Timestamp) => Self::Time(column.as_primitive::<TimestampMicrosecondType>()),
            Some(Kind::Date) => Self::Date(column.as_primitive::<Date32Type>()),
            None => Self::Other(column),
        }
    }

    /// The value in a row.
    pub(crate) fn get(&self, row: usize) -> Val<'a> {
        match self {
            Self::Bool(c) => {
                if c.is_null(row) {
                    Val::Null
                } else {
                    Val::Bool(c.value(row))
                }
            }
            Self::Int32(c) => {
                if c.is_null(row) {
                    Val::Null
                } else {
                    Val::Int(i64::from(c.value(row)))
                }
            }
            Self::Int64(c) => {
                if c.is_null(row) {
                    Val::Null
                } else {
                    Val::Int(c.value(row))
                }
            }
            Self::Decimal(c) => {
                if c.is_null(row) {
                    Val::Null
                } else {
                    Val::Decimal(c.value(row))
                }
            }
            Self::Double(c) => {
                if c.is_null(row) {
                    Val::Null
                } else {
                    Val::Double(c.value(row))
                }
            }
            Self::Text(c) => {
                if c.is_null(row) {
                    Val::Null
                } else {
                    Val::Text(Cow::Borrowed(c.value(row)))
                }
            }
            Self::Bytes(c) => {
                if c.is_null(row) {
                    Val::Null
                } else {
                    Val::Bytes(Cow::Borrowed(c.value(row)))
                }
            }
            Self::Time(c) => {
                if c.is_null(row) {
                    Val::Null
                } else {
                    Val::Int(c.value(row))
                }
            }
            Self::Date(c) => {
                if c.is_null(row) {
                    Val::Null
                } else {
                    Val::Int(i64::from(c.value(row)))
                }
            }
            Self::Other(c) => {
                // A column of the type NULL marks none of its values as NULL.
                if c.is_null(row) || *c.data_type() == DataType::Null { Val::Null } else { Val::Other(c.slice(row, 1)) }
            }
        }
    }
}

/// The first value of a column.
pub(crate) fn first(column: &ArrayRef) -> Val<'static> {
    if column.is_empty() { Val::Null } else { Reader::new(column).get(0).into_owned() }
}

/// A column that grows by single values.
pub(crate) enum Sink {
    Bool(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Decimal(Decimal128Builder),
    Double(Float64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Time(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Other(DataType, Vec<ArrayRef>),
}

impl Sink {
    /// For values of a type.
    pub(crate) fn new(kind: &DataType) -> Self {
        match Kind::of(kind) {
            Some(Kind::Bool) => Self::Bool(BooleanBuilder::new()),
            Some(Kind::Int32) => Self::Int32(Int32Builder::new()),
            Some(Kind::Int64) => Self::Int64(Int64Builder::new()),
            Some(Kind::Decimal(..)) => Self::Decimal(Decimal128Builder::new().with_data_type(kind.clone())),
            Some(Kind::Double) => Self::Double(Float64Builder::new()),
            Some(Kind::Text) => Self::Text(StringBuilder::new()),
            Some(Kind::Bytes) => Self::Bytes(BinaryBuilder::new()),
            Some(Kind::Timestamp) => Self::Time(TimestampMicrosecondBuilder::new().with_data_type(kind.clone())),
            Some(Kind::Date) => Self::Date(Date32Builder::new()),
            None => Self::Other(kind.clone(), Vec::new()),
        }
    }

    /// Adds a value of the sink's type; one of another type would be a fault of ours and becomes NULL, which a column
    /// that is never null refuses.
    pub(crate) fn push(&mut self, value: &Val<'_>) {
        match (self, value) {
            (Self::Bool(to), Val::Bool(v)) => to.append_value(*v),
            (Self::Bool(to), _) => to.append_null(),
            (Self::Int32(to), Val::Int(v)) => to.append_option(i32::try_from(*v).ok()),
            (Self::Int32(to), _) => to.append_null(),
            (Self::Int64(to), Val::Int(v)) => to.append_value(*v),
            (Self::Int64(to), _) => to.append_null(),
            (Self::Decimal(to), Val::Decimal(v)) => to.append_value(*v),
            (Self::Decimal(to), _) => to.append_null(),
            (Self::Double(to), Val::Double(v)) => to.append_value(*v),
            (Self::Double(to), _) => to.append_null(),
            (Self::Text(to), Val::Text(v)) => to.append_value(v),
            (Self::Text(to), _) => to.append_null(),
            (Self::Bytes(to), Val::Bytes(v)) => to.append_value(v),
            (Self::Bytes(to), _) => to.append_null(),
            (Self::Time(to), Val::Int(v)) => to.append_value(*v),
            (Self::Time(to), _) => to.append_null(),
            (Self::Date(to), Val::Int(v)) => to.append_option(i32::try_from(*v).ok()),
            (Self::Date(to), _) => to.append_null(),
            (Self::Other(_, to), Val::Other(v)) => to.push(Arc::clone(v)),
            (Self::Other(kind, to), _) => to.push(new_null_array(kind, 1)),
        }
    }

    /// The column.
    pub(crate) fn finish(self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Bool(mut b) => Arc::new(b.finish()),
            Self::Int32(mut b) => Arc::new(b.finish()),
            Self::Int64(mut b) => Arc::new(b.finish()),
            Self::Decimal(mut b) => Arc::new(b.finish()),
            Self::Double(mut b) => Arc::new(b.finish()),
            Self::Text(mut b) => Arc::new(b.finish()),
            Self::Bytes(mut b) => Arc::new(b.finish()),
            Self::Time(mut b) => Arc::new(b.finish()),
            Self::Date(mut b) => Arc::new(b.finish()),
            Self::Other(kind, rows) if rows.is_empty() => new_empty_array(&kind),
            Self::Other(_, rows) => concat(&rows.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?,
        })
    }
}
