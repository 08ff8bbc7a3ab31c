//! Functions whose result is as long as an argument says: a length that no value may have is an error of its event, asked
//! before anything is allocated.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_cast::cast;
use arrow_schema::{DataType, FieldRef};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

/// The longest text that is made by padding or repeating, in characters, and the most elements of a list that is made.
const LENGTH_MAX: i64 = 1 << 20;
/// The most of that in one batch; a batch with more is cut.
const LENGTH_IN_BATCH_MAX: i64 = 1 << 28;

/// How long a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Length {
    /// As the second argument says.
    Second,
    /// The first argument, so many times.
    Times,
    /// From a number to another one, by a step.
    Steps,
}

/// A function with a limit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    length: Length,
}

/// The function with its limit, if it needs one.
pub(super) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let length = match function.name() {
        "lpad" | "rpad" | "array_repeat" | "array_resize" => Length::Second,
        "repeat" => Length::Times,
        "range" | "generate_series" => Length::Steps,
        _ => return function,
    };
    Arc::new(ScalarUDF::from(Bounded { inner: function, length }))
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let lengths = self.lengths(&args.args, args.number_rows)?;
        if let Some(length) = lengths.iter().find(|length| **length > LENGTH_MAX) {
            return exec_err!("the length {length} is too large: {}() gives at most {LENGTH_MAX}", self.name());
        }
        if lengths.iter().sum::<i64>() > LENGTH_IN_BATCH_MAX {
            return exec_err!("the results of {}() are too large together", self.name());
        }
        self.inner.invoke_with_args(args)
    }
}

impl Bounded {
    /// The length of each result; 0 where it is none.
    fn lengths(&self, args: &[ColumnarValue], rows: usize) -> Result<Vec<i64>> {
        let number = |place: usize| -> Result<Option<Vec<Option<i64>>>> {
            let Some(arg) = args.get(place).filter(|arg| arg.data_type().is_integer()) else { return Ok(None) };
            let array = arg.to_array(rows)?;
            Ok(Some(cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>().iter().collect()))
        };
        match self.length {
            Length::Second => Ok(number(1)?.unwrap_or_default().into_iter().map(|n| n.unwrap_or(0).max(0)).collect()),
            Length::Times => {
                let (Some(text), Some(times)) = (args.first(), number(1)?) else { return Ok(Vec::new()) };
                let text: ArrayRef = cast(&text.to_array(rows)?, &DataType::LargeUtf8)?;
                let text = text.as_string::<i64>();
                let long = |(row, times): (usize, Option<i64>)| {
                    let bytes = if text.is_valid(row) { text.value_length(row) } else { 0 };
                    times.unwrap_or(0).max(0).saturating_mul(bytes)
                };
                Ok(times.into_iter().enumerate().map(long).collect())
            }
            Length::Steps => {
                let (first, second) = (number(0)?, number(1)?);
                let steps = number(2)?.unwrap_or_else(|| vec![Some(1); rows]);
                let (from, to) = match (first, second) {
                    (Some(from), Some(to)) => (from, to),
                    // One number alone is where it ends.
                    (Some(to), None) if args.len() == 1 => (vec![Some(0); to.len()], to),
                    _ => return Ok(Vec::new()),
                };
                let long = |((from, to), step): ((&Option<i64>, &Option<i64>), &Option<i64>)| {
                    let (Some(from), Some(to), Some(step)) = (from, to, step) else { return 0 };
                    let apart = i128::from(*to) - i128::from(*from);
                    if *step == 0 || (apart < 0) != (*step < 0) {
                        return 0;
                    }
                    i64::try_from(apart / i128::from(*step)).unwrap_or(i64::MAX)
                };
                Ok(from.iter().zip(&to).zip(&steps).map(long).collect())
            }
        }
    }
}
