//! From columns to the bytes of a history's rows, and from results to columns.

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_cast::cast;
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{DataType, TimeUnit};
use std::sync::Arc;

use crate::stream::operator::Broken;
use crate::stream::over::function::{Owned, Value};
use crate::stream::over::history::Kind;

/// The widest decimal that fits into 64 bits.
const INT_DIGITS_MAX: u8 = 18;

/// How values of a type are kept.
pub(crate) fn kind_of(kind: &DataType) -> Kind {
    match kind {
        DataType::Decimal128(digits, _) if *digits > INT_DIGITS_MAX => Kind::Wide,
        DataType::Decimal128(..) | DataType::Boolean | DataType::Date32 => Kind::Int,
        DataType::Timestamp(TimeUnit::Microsecond, _) => Kind::Int,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::Int,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Kind::Int,
        DataType::Float64 | DataType::Float32 => Kind::Float,
        _ => Kind::Bytes,
    }
}

/// A batch's column, ready to be kept.
pub(crate) struct Reader {
    values: Values,
    nulls: Option<NullBuffer>,
}

enum Values {
    None,
    Ints(ScalarBuffer<i64>),
    /// Decimals that fit into 64 bits.
    Narrow(ScalarBuffer<i128>),
    Wides(ScalarBuffer<i128>),
    Floats(ScalarBuffer<f64>),
    Texts(StringArray),
    Bytes(BinaryArray),
    Rows(Rows),
}

impl Reader {
    /// Reads a column as values of a kind.
    pub(crate) fn new(column: &ArrayRef, kind: Kind) -> Result<Self, Broken> {
        let values = match (kind, column.data_type()) {
            (Kind::Mark, _) => Values::None,
            (Kind::Wide, _) => Values::Wides(column.as_primitive::<Decimal128Type>().values().clone()),
            (Kind::Int, DataType::Decimal128(..)) => {
                Values::Narrow(column.as_primitive::<Decimal128Type>().values().clone())
            }
            (Kind::Int, DataType::Timestamp(..)) => {
                Values::Ints(column.as_primitive::<TimestampMicrosecondType>().values().clone())
            }
            (Kind::Int, DataType::Date32) => {
                let days = cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?;
                Values::Ints(days.as_primitive::<Int64Type>().values().clone())
            }
            (Kind::Int, _) => {
                Values::Ints(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().values().clone())
            }
            (Kind::Float, _) => {
                Values::Floats(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().values().clone())
            }
            (Kind::Bytes, DataType::Utf8) => Values::Texts(column.as_string::<i32>().clone()),
            (Kind::Bytes, DataType::Binary) => Values::Bytes(column.as_binary::<i32>().clone()),
            (Kind::Bytes, other) => {
                let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
                Values::Rows(converter.convert_columns(std::slice::from_ref(column))?)
            }
        };
        Ok(Self { values, nulls: column.logical_nulls() })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// The bytes of a text, where it is one and not null.
    pub(crate) fn bytes(&self, row: usize) -> Option<&[u8]> {
        if self.is_null(row) {
            return None;
        }
        match &self.values {
            Values::Texts(texts) => Some(texts.value(row).as_bytes()),
            Values::Bytes(bytes) => Some(bytes.value(row)),
            Values::Rows(rows) => Some(rows.row(row).data()),
            _ => None,
        }
    }

    /// Appends the value as it stands in a row; texts leave their place free.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) {
        let null = self.is_null(row);
        let int = |values: &ScalarBuffer<i64>| if null { 0 } else { values.get(row).copied().unwrap_or(0) };
        let wide = |values: &ScalarBuffer<i128>| if null { 0 } else { values.get(row).copied().unwrap_or(0) };
        match &self.values {
            Values::None => {}
            Values::Ints(values) => out.extend_from_slice(&int(values).to_le_bytes()),
            Values::Narrow(values) => out.extend_from_slice(&(wide(values) as i64).to_le_bytes()),
            Values::Wides(values) => out.extend_from_slice(&wide(values).to_le_bytes()),
            Values::Floats(values) => {
                let value = if null { 0.0 } else { values.get(row).copied().unwrap_or(0.0) };
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            Values::Texts(_) | Values::Bytes(_) | Values::Rows(_) => out.extend_from_slice(&[0; 8]),
        }
    }
}

/// The value of a column of one row.
pub(crate) fn owned(column: &ArrayRef) -> Result<Owned, Broken> {
    let kind = kind_of(column.data_type());
    let reader = Reader::new(column, kind)?;
    if column.is_empty() || reader.is_null(0) {
        return Ok(Owned::Null);
    }
    let mut raw = Vec::new();
    reader.write(0, &mut raw);
    let raw = reader.bytes(0).unwrap_or(&raw);
    Ok(match crate::stream::over::function::value_of(kind, raw) {
        Value::Null => Owned::Null,
        Value::Int(value) => Owned::Int(value),
        Value::Wide(value) => Owned::Wide(value),
        Value::Float(value) => Owned::Float(value),
        Value::Bytes(value) => Owned::Bytes(value.into()),
    })
}

/// Results on their way to a column.
pub(crate) struct Results {
    kind: DataType,
    values: Building,
}

enum Building {
    Ints(Vec<Option<i64>>),
    Wides(Vec<Option<i128>>),
    Floats(Vec<Option<f64>>),
    Booleans(BooleanBuilder),
    Texts(StringBuilder),
    Bytes(BinaryBuilder),
    /// In the form of rows of one column.
    Rows(Vec<Option<Box<[u8]>>>),
}

impl Results {
    /// For values of a type.
    pub(crate) fn new(kind: &DataType, rows: usize) -> Self {
        let values = match (kind_of(kind), kind) {
            (_, DataType::Decimal128(..)) => Building::Wides(Vec::with_capacity(rows)),
            (_, DataType::Boolean) => Building::Booleans(BooleanBuilder::with_capacity(rows)),
            (_, DataType::UInt64) | (Kind::Int, _) => Building::Ints(Vec::with_capacity(rows)),
            (Kind::Float, _) => Building::Floats(Vec::with_capacity(rows)),
            (_, DataType::Utf8) => Building::Texts(StringBuilder::with_capacity(rows, rows * 8)),
            (_, DataType::Binary) => Building::Bytes(BinaryBuilder::with_capacity(rows, rows * 8)),
            _ => Building::Rows(Vec::with_capacity(rows)),
        };
        Self { kind: kind.clone(), values }
    }

    pub(crate) fn push(&mut self, value: Value<'_>) {
        match &mut self.values {
            Building::Ints(values) => values.push(match value {
                Value::Int(value) => Some(value),
                Value::Wide(value) => i64::try_from(value).ok(),
                _ => None,
            }),
            Building::Wides(values) => values.push(match value {
                Value::Int(value) => Some(i128::from(value)),
                Value::Wide(value) => Some(value),
                _ => None,
            }),
            Building::Floats(values) => values.push(match value {
                Value::Float(value) => Some(value),
                _ => None,
            }),
            Building::Booleans(values) => values.append_option(match value {
                Value::Int(value) => Some(value != 0),
                Value::Wide(value) => Some(value != 0),
                _ => None,
            }),
            Building::Texts(values) => values.append_option(match value {
                Value::Bytes(value) => std::str::from_utf8(value).ok(),
                _ => None,
            }),
            Building::Bytes(values) => values.append_option(match value {
                Value::Bytes(value) => Some(value),
                _ => None,
            }),
            Building::Rows(values) => values.push(match value {
                Value::Bytes(value) => Some(value.into()),
                _ => None,
            }),
        }
    }

    /// The column.
    pub(crate) fn finish(self) -> Result<ArrayRef, Broken> {
        let kind = self.kind;
        Ok(match self.values {
            Building::Ints(values) if matches!(kind, DataType::Timestamp(..)) => {
                let DataType::Timestamp(_, zone) = kind else { return Err(Broken("no timestamp".into())) };
                Arc::new(TimestampMicrosecondArray::from(values).with_timezone_opt(zone))
            }
            Building::Ints(values) if kind == DataType::Date32 => {
                cast(&cast(&Int64Array::from(values), &DataType::Int32)?, &kind)?
            }
            Building::Ints(values) => cast(&Int64Array::from(values), &kind)?,
            Building::Wides(mut values) => {
                let DataType::Decimal128(digits, scale) = kind else { return Err(Broken("no decimal".into())) };
                let most = 10_u128.checked_pow(u32::from(digits)).unwrap_or(u128::MAX);
                values.iter_mut().for_each(|v| *v = v.filter(|value| value.unsigned_abs() < most));
                Arc::new(Decimal128Array::from(values).with_precision_and_scale(digits, scale)?)
            }
            Building::Floats(values) => cast(&Float64Array::from(values), &kind)?,
            Building::Booleans(mut values) => Arc::new(values.finish()),
            Building::Texts(mut values) => Arc::new(values.finish()),
            Building::Bytes(mut values) => Arc::new(values.finish()),
            Building::Rows(values) => {
                let converter = RowConverter::new(vec![SortField::new(kind.clone())])?;
                let null = arrow_array::new_null_array(&kind, 1);
                let null = converter.convert_columns(&[null])?;
                let parser = converter.parser();
                let rows = values.iter().map(|value| match value {
                    Some(bytes) => parser.parse(bytes),
                    None => null.row(0),
                });
                let columns = converter.convert_rows(rows)?;
                columns.into_iter().next().ok_or_else(|| Broken("a value has no column".into()))?
            }
        })
    }
}
