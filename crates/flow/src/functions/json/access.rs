//! The functions: one implementation, one kind each.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use millstream_event::ColumnType;

use super::path::{Step, length, walk};

/// The longest path.
const PATH_STEPS_MAX: usize = 32;

/// What a function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Get,
    GetJson,
    Str,
    Int,
    Float,
    Bool,
    Text,
    Length,
    Contains,
}

pub(super) const KINDS: [Kind; 9] =
    [Kind::Get, Kind::GetJson, Kind::Str, Kind::Int, Kind::Float, Kind::Bool, Kind::Text, Kind::Length, Kind::Contains];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "json_get",
            Self::GetJson => "json_get_json",
            Self::Str => "json_get_str",
            Self::Int => "json_get_int",
            Self::Float => "json_get_float",
            Self::Bool => "json_get_bool",
            Self::Text => "json_as_text",
            Self::Length => "json_length",
            Self::Contains => "json_contains",
        }
    }

    fn column_type(self) -> ColumnType {
        match self {
            Self::Get | Self::GetJson => ColumnType::Json,
            Self::Str | Self::Text => ColumnType::String,
            Self::Int | Self::Length => ColumnType::BigInt,
            Self::Float => ColumnType::Double,
            Self::Bool | Self::Contains => ColumnType::Bool,
        }
    }
}

/// A JSON function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Access {
    kind: Kind,
    signature: Signature,
}

impl Access {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Access {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.kind.name();
        let Some((json, path)) = types.split_first() else {
            return plan_err!("'{name}' needs a json or string value, then keys or places");
        };
        if path.len() > PATH_STEPS_MAX {
            return plan_err!("'{name}' follows a path of at most {PATH_STEPS_MAX} steps");
        }
        if !(json.is_string() || *json == DataType::Null) {
            return plan_err!("'{name}' reads json or string, not {json}");
        }
        let step = |kind: &DataType| match kind {
            kind if kind.is_string() || *kind == DataType::Null => Ok(DataType::Utf8),
            kind if kind.is_integer() => Ok(DataType::Int64),
            kind => plan_err!("'{name}' takes keys (text) and places (integers from 0), not {kind}"),
        };
        std::iter::once(Ok(DataType::Utf8)).chain(path.iter().map(step)).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.column_type().to_arrow())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = self.kind != Kind::Contains || args.arg_fields.iter().any(|f| f.is_nullable());
        let field: Field = self.kind.column_type().field(self.kind.name(), nullable);
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let all_scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let mut args = args.args.into_iter();
        let json = match args.next() {
            Some(json) => json.into_array(rows)?,
            None => return plan_err!("{} needs an argument", self.kind.name()),
        };
        let json = cast(&json, &DataType::Utf8)?;
        let path = args.map(|a| Argument::new(a, rows)).collect::<Result<Vec<_>>>()?;
        let result = self.kind.apply(json.as_string(), &path);
        Ok(match all_scalar && !result.is_empty() {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

/// One step of the path: the same for all rows, or one per row.
enum Argument {
    Key(Option<String>),
    Place(Option<i64>),
    Keys(ArrayRef),
    Places(ArrayRef),
}

impl Argument {
    fn new(value: ColumnarValue, rows: usize) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Scalar(ScalarValue::Int64(place)) => Self::Place(place),
            ColumnarValue::Scalar(ScalarValue::Utf8(key)) => Self::Key(key),
            other => {
                let array = other.into_array(rows)?;
                match array.data_type() {
                    DataType::Int64 => Self::Places(array),
                    _ => Self::Keys(cast(&array, &DataType::Utf8)?),
                }
            }
        })
    }

    /// The step at `row`; the inner `None` is a place before the start, which nothing has; the outer a NULL.
    fn step(&self, row: usize) -> Option<Option<Step<'_>>> {
        let place = |p: i64| usize::try_from(p).ok().map(Step::Place);
        match self {
            Self::Key(key) => key.as_deref().map(|k| Some(Step::Key(k))),
            Self::Place(at) => at.map(place),
            Self::Keys(keys) => (!keys.is_null(row)).then(|| Some(Step::Key(keys.as_string::<i32>().value(row)))),
            Self::Places(at) => (!at.is_null(row)).then(|| place(at.as_primitive::<Int64Type>().value(row))),
        }
    }
}

/// What a path leads to: `Err` where an argument is NULL.
fn find<'j>(json: &'j StringArray, path: &[Argument], row: usize) -> std::result::Result<Option<&'j str>, ()> {
    if json.is_null(row) {
        return Err(());
    }
    let mut steps = [Step::Place(0); PATH_STEPS_MAX];
    let mut nowhere = false;
    for (slot, argument) in steps.iter_mut().zip(path) {
        match argument.step(row) {
            Some(Some(step)) => *slot = step,
            Some(None) => nowhere = true,
            None => return Err(()),
        }
    }
    let steps = steps.get(..path.len()).unwrap_or(&[]);
    Ok(if nowhere { None } else { walk(json.value(row), steps) })
}

impl Kind {
    fn apply(self, json: &StringArray, path: &[Argument]) -> ArrayRef {
        let found = (0..json.len()).map(|row| find(json, path, row));
        let values = found.clone().map(|f| f.ok().flatten());
        match self {
            Self::Get | Self::GetJson => Arc::new(values.map(|v| v.filter(|v| *v != "null")).collect::<StringArray>()),
            Self::Str | Self::Text => {
                let mut out = StringBuilder::new();
                values.for_each(|v| out.append_option(v.and_then(|v| text(v, self == Self::Text))));
                Arc::new(out.finish())
            }
            Self::Int => {
                let mut out = Int64Builder::new();
                values.for_each(|v| out.append_option(v.and_then(|v| v.parse::<i64>().ok())));
                Arc::new(out.finish())
            }
            Self::Float => {
                let mut out = Float64Builder::new();
                values.for_each(|v| out.append_option(v.and_then(number)));
                Arc::new(out.finish())
            }
            Self::Bool => {
                let mut out = BooleanBuilder::new();
                values.for_each(|v| out.append_option(v.and_then(|v| v.parse::<bool>().ok())));
                Arc::new(out.finish())
            }
            Self::Length => {
                let mut out = Int64Builder::new();
                values.for_each(|v| out.append_option(v.and_then(length)));
                Arc::new(out.finish())
            }
            Self::Contains => {
                let mut out = BooleanBuilder::new();
                found.for_each(|f| out.append_option(f.ok().map(|v| v.is_some())));
                Arc::new(out.finish())
            }
        }
    }
}

/// A string without its quotes; `any`: also other values, as their JSON, but not null.
fn text(value: &str, any: bool) -> Option<String> {
    if value.starts_with('"') {
        return serde_json::from_str(value).ok();
    }
    (any && value != "null").then(|| value.to_owned())
}

fn number(value: &str) -> Option<f64> {
    let first = value.bytes().next()?;
    if first == b'-' || first.is_ascii_digit() { value.parse().ok() } else { None }
}
