//! Columns brought into a schema's form: cast and checked, with and without the system's columns, and from an older
//! schema to a newer one.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow_array::{new_null_array, types::TimestampMicrosecondType};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType};

use crate::batch::INGESTED_AT;
use crate::column_type::ColumnType;
use crate::schema::{Column, EXTRA, Schema};

/// Why columns do not fit a schema.
#[derive(Debug, thiserror::Error)]
pub enum ConformError {
    /// A column is not there.
    #[error("column `{column}` is missing")]
    Missing {
        /// The column.
        column: String,
    },
    /// A column's values cannot become the declared type.
    #[error("column `{column}` is declared {declared}, but its values are {found}")]
    Kind {
        /// The column.
        column: String,
        /// Its type in the schema.
        declared: String,
        /// The Arrow type found.
        found: String,
    },
    /// A value does not fit the declared type.
    #[error("a value of column `{column}` does not fit {declared}: {reason}")]
    Value {
        /// The column.
        column: String,
        /// Its type in the schema.
        declared: String,
        /// What Arrow says.
        reason: String,
    },
    /// A not-null column has nulls.
    #[error("column `{column}` must have a value ({declared}!), {nulls} rows have none")]
    Null {
        /// The column.
        column: String,
        /// Its type in the schema.
        declared: String,
        /// The rows without a value.
        nulls: usize,
    },
    /// The columns do not make a batch.
    #[error("the columns do not fit together: {0}")]
    Batch(#[from] ArrowError),
}

impl ConformError {
    pub(crate) fn missing(column: &Column) -> Self {
        Self::Missing { column: column.name.clone() }
    }

    pub(crate) fn kind(column: &Column, found: &DataType) -> Self {
        let found = found.to_string();
        Self::Kind { column: column.name.clone(), declared: column.kind.to_string(), found }
    }

    fn value(column: &Column, error: &ArrowError) -> Self {
        let (declared, reason) = (column.kind.to_string(), error.to_string());
        Self::Value { column: column.name.clone(), declared, reason }
    }
}

/// Rows brought into a schema's form one by one.
#[derive(Debug)]
pub(crate) struct Fitted {
    /// Those that fit, in order.
    pub(crate) rows: RecordBatch,
    /// The others: number and reason, in order.
    pub(crate) refused: Vec<(u32, ConformError)>,
}

/// A value that does not fit is an error, never a null.
const CHECKED: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow_cast::display::FormatOptions::new() };

fn batch(schema: &arrow_schema::SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ConformError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

impl Schema {
    /// Brings any Arrow columns into this schema's form: found by name, cast to the canonical type, checked. A
    /// missing nullable column is filled with nulls; columns that the schema does not name are left out. The result
    /// has the user's columns ([`Schema::arrow`]).
    pub fn conform(&self, rows: &RecordBatch) -> Result<RecordBatch, ConformError> {
        if Arc::ptr_eq(rows.schema_ref(), self.arrow()) {
            return Ok(rows.clone());
        }
        let columns = self.columns().iter().map(|column| match rows.column_by_name(&column.name) {
            Some(array) => conform_column(column, array),
            None if column.nullable => Ok(new_null_array(&column.kind.to_arrow(), rows.num_rows())),
            None => Err(ConformError::missing(column)),
        });
        batch(self.arrow(), columns.collect::<Result<_, _>>()?, rows.num_rows())
    }

    /// Like [`Schema::conform`], but a row whose values do not fit is refused alone. What is wrong with all rows (a
    /// column's type, a missing column) is an error.
    pub(crate) fn fit(&self, rows: &RecordBatch) -> Result<Fitted, ConformError> {
        let (mut parts, mut refused) = (Vec::new(), Vec::new());
        // Ranges still to do, the next on top; halving bounds them by the logarithm of the rows.
        let mut todo = vec![(0, rows.num_rows())];
        while let Some((first, count)) = todo.pop() {
            match self.conform(&rows.slice(first, count)) {
                Ok(part) => parts.push(part),
                Err(error @ (ConformError::Value { .. } | ConformError::Null { .. })) if count <= 1 => {
                    refused.push((first as u32, error));
                }
                Err(ConformError::Value { .. } | ConformError::Null { .. }) => {
                    let half = count / 2;
                    todo.push((first + half, count - half));
                    todo.push((first, half));
                }
                Err(other) => return Err(other),
            }
        }
        let rows = match <[RecordBatch; 1]>::try_from(parts) {
            Ok([whole]) => whole,
            Err(parts) => arrow_select::concat::concat_batches(self.arrow(), &parts)?,
        };
        Ok(Fitted { rows, refused })
    }

    /// Adds the system's columns to rows of this schema ([`Schema::physical`]): all entered at one time.
    pub fn with_system(&self, rows: &RecordBatch, ingested_at_micros: i64) -> Result<RecordBatch, ConformError> {
        let values = vec![ingested_at_micros; rows.num_rows()];
        self.with_system_column(rows, Arc::new(TimestampMicrosecondArray::from(values).with_timezone("+00:00")))
    }

    /// Adds a system column taken from other rows (those that these were computed from).
    pub fn with_system_column(&self, rows: &RecordBatch, ingested_at: ArrayRef) -> Result<RecordBatch, ConformError> {
        let mut columns: Vec<ArrayRef> = rows.columns().iter().take(self.columns().len()).cloned().collect();
        columns.push(ingested_at);
        batch(self.physical(), columns, rows.num_rows())
    }

    /// The user's columns of rows as a [`crate::Batch`] carries them.
    pub fn user_rows(&self, physical: &RecordBatch) -> Result<RecordBatch, ConformError> {
        let columns = physical.columns().iter().take(self.columns().len()).cloned().collect();
        batch(self.arrow(), columns, physical.num_rows())
    }

    /// When each of these rows entered the pipeline: the system's column, if the rows carry it.
    pub fn ingested_at(physical: &RecordBatch) -> Option<&TimestampMicrosecondArray> {
        physical.column_by_name(INGESTED_AT)?.as_primitive_opt::<TimestampMicrosecondType>()
    }

    /// This schema with the column [`EXTRA`] for unknown fields behind the others; itself where it has one already.
    pub fn with_extra(&self) -> Self {
        if self.column(EXTRA).is_some() {
            return self.clone();
        }
        let mut columns = self.columns().to_vec();
        columns.push(Column::nullable(EXTRA, ColumnType::Json));
        Self::new(columns).unwrap_or_else(|_| self.clone())
    }

    /// Whether all history of `old` can be read as `new`: columns may be added if nullable, made nullable, widened
    /// and put into another order. The error shows both definitions side by side.
    pub fn compatible(old: &Self, new: &Self) -> Result<(), IncompatibleError> {
        let mut faults = Vec::new();
        for column in old.columns() {
            match new.column(&column.name) {
                None => faults.push(format!("`{column}` was removed")),
                Some((_, next)) if !widens(&column.kind, &next.kind) => {
                    faults.push(format!("`{column}` became `{next}`, which does not hold all its values"));
                }
                Some((_, next)) if column.nullable && !next.nullable => {
                    faults.push(format!("`{column}` became `{next}`, but history may have nulls"));
                }
                Some(_) => {}
            }
        }
        for column in new.columns().iter().filter(|c| !c.nullable && old.column(&c.name).is_none()) {
            faults.push(format!("`{column}` is new and not null, but history has no value for it; make it nullable"));
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(IncompatibleError { faults, old: old.clone(), new: new.clone() })
    }

    /// Rows of schema `old` (with or without system columns) as rows of schema `new`: what a log does with batches
    /// of an older version. Missing columns are null, widened ones are cast; system columns stay.
    pub fn upgrade(rows: &RecordBatch, old: &Self, new: &Self) -> Result<RecordBatch, ConformError> {
        if old == new {
            return Ok(rows.clone());
        }
        let user = new.conform(&old.user_rows(rows)?)?;
        match rows.columns().get(old.columns().len()) {
            Some(ingested_at) => new.with_system_column(&user, Arc::clone(ingested_at)),
            None => Ok(user),
        }
    }
}

/// Two schemas of which the newer cannot read the older one's history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the new columns cannot read the history of the old ones: {}\n  old: {old}\n  new: {new}", faults.join("; "))]
pub struct IncompatibleError {
    /// One sentence for each column that does not go.
    pub faults: Vec<String>,
    /// The columns as they are.
    pub old: Schema,
    /// The columns as they should become.
    pub new: Schema,
}

/// Whether each value of type `from` is a value of type `to` as well.
fn widens(from: &ColumnType, to: &ColumnType) -> bool {
    use ColumnType::{Array, BigInt, Decimal, Double, Int, Json, Struct};
    match (from, to) {
        (Int, BigInt | Double) => true,
        (Int, Decimal { precision, scale }) => precision - scale >= 10,
        (BigInt, Decimal { precision, scale }) => precision - scale >= 19,
        (Decimal { precision: p, scale: s }, Decimal { precision, scale }) => scale >= s && precision - scale >= p - s,
        (Json, ColumnType::String) => true,
        (Array(from), Array(to)) => widens(from, to),
        (Struct(from), Struct(to)) => {
            let kept = |old: &Column| to.iter().find(|new| new.name == old.name);
            let old_fit = from.iter().all(|old| {
                kept(old).is_some_and(|new| widens(&old.kind, &new.kind) && (new.nullable || !old.nullable))
            });
            old_fit && to.iter().all(|new| new.nullable || from.iter().any(|old| old.name == new.name))
        }
        _ => from == to,
    }
}

fn conform_column(column: &Column, array: &ArrayRef) -> Result<ArrayRef, ConformError> {
    let array = conform_array(column, array)?;
    let nulls = array.null_count();
    if !column.nullable && nulls > 0 {
        let (name, declared) = (column.name.clone(), column.kind.to_string());
        return Err(ConformError::Null { column: name, declared, nulls });
    }
    Ok(array)
}

/// Casts one column, member by member where it is nested: a struct's members are found by name.
fn conform_array(column: &Column, array: &ArrayRef) -> Result<ArrayRef, ConformError> {
    let target = column.kind.to_arrow();
    if array.data_type() == &target {
        return Ok(Arc::clone(array));
    }
    let wrong = || ConformError::kind(column, array.data_type());
    match (&column.kind, array.data_type()) {
        (_, DataType::Null) => Ok(new_null_array(&target, array.len())),
        (ColumnType::Struct(columns), DataType::Struct(_)) => {
            let object = array.as_struct();
            let DataType::Struct(fields) = &target else { return Err(wrong()) };
            let members = columns.iter().map(|member| {
                let path = Column { name: format!("{}.{}", column.name, member.name), ..member.clone() };
                match object.column_by_name(&member.name) {
                    Some(array) => conform_array(&path, array),
                    None if member.nullable => Ok(new_null_array(&member.kind.to_arrow(), array.len())),
                    None => Err(ConformError::missing(&path)),
                }
            });
            let (members, nulls) = (members.collect::<Result<Vec<_>, _>>()?, object.nulls().cloned());
            let made = arrow_array::StructArray::try_new_with_length(fields.clone(), members, nulls, array.len());
            Ok(Arc::new(made.map_err(|e| ConformError::value(column, &e))?))
        }
        (ColumnType::Array(kind), DataType::List(_)) => {
            let list = array.as_list::<i32>();
            let item = Column::nullable(format!("{}[]", column.name), kind.as_ref().clone());
            let values = conform_array(&item, list.values())?;
            let field = Arc::new(kind.field("item", true));
            let made = arrow_array::ListArray::try_new(field, list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(made.map_err(|e| ConformError::value(column, &e))?))
        }
        // Taken apart first, so that what is checked below is checked of their values.
        (_, DataType::Dictionary(_, values)) => conform_array(column, &unpack(column, array, values)?),
        (ColumnType::Array(_), DataType::LargeList(item) | DataType::FixedSizeList(item, _)) => {
            conform_array(column, &unpack(column, array, &DataType::List(Arc::clone(item)))?)
        }
        (kind, found) => {
            let natural = ColumnType::from_arrow(&arrow_schema::Field::new("", found.clone(), true));
            if !natural.is_some_and(|natural| castable(&natural, kind)) {
                return Err(wrong());
            }
            let cast = cast_checked(array, &target).map_err(|e| ConformError::value(column, &e))?;
            Ok(cast)
        }
    }
}

/// The same values in another layout.
fn unpack(column: &Column, array: &ArrayRef, layout: &DataType) -> Result<ArrayRef, ConformError> {
    cast_with_options(array, layout, &CHECKED).map_err(|e| ConformError::value(column, &e))
}

/// Which casts are a change of form and not of meaning. Text is never parsed here: that is the codecs' work.
fn castable(from: &ColumnType, to: &ColumnType) -> bool {
    use ColumnType::{Array, BigInt, Bytes, Date, Decimal, Double, Int, Json, String, Timestamp};
    match (from, to) {
        (Int | BigInt | Decimal { .. }, Int | BigInt | Double | Decimal { .. }) => true,
        (Double, Double | Int | BigInt | Decimal { .. }) => true,
        (String | Json, String | Json) | (Bytes, Bytes) | (Date, Date | Timestamp) => true,
        (Array(from), Array(to)) => castable(from, to),
        _ => from == to,
    }
}

/// A cast that refuses what it cannot keep, also where Arrow would round or cut it off.
fn cast_checked(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    let cast = cast_with_options(array, target, &CHECKED)?;
    let from = array.data_type();
    let cuts = match (from, target) {
        (f, DataType::Int32 | DataType::Int64) => f.is_floating() || is_decimal(f),
        (f, DataType::Decimal128(_, scale)) => f.is_floating() || decimal_scale(f).is_some_and(|s| s > *scale),
        (DataType::Int64 | DataType::UInt64, DataType::Float64) => true,
        (f, DataType::Float64) => is_decimal(f),
        (DataType::Date64, DataType::Date32) => true,
        // Digits finer than a microsecond are cut off, as in every other format.
        _ => false,
    };
    if cuts {
        let back = cast_with_options(&cast, from, &CHECKED)?;
        if back.to_data() != array.to_data() {
            return Err(ArrowError::CastError(format!("a {from} has digits that {target} does not keep")));
        }
    }
    Ok(cast)
}

fn is_decimal(kind: &DataType) -> bool {
    decimal_scale(kind).is_some()
}

fn decimal_scale(kind: &DataType) -> Option<i8> {
    match kind {
        DataType::Decimal32(_, s)
        | DataType::Decimal64(_, s)
        | DataType::Decimal128(_, s)
        | DataType::Decimal256(_, s) => Some(*s),
        _ => None,
    }
}
