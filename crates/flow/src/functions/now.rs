//! `now()` and `current_date`: the time at which the event entered the pipeline, so that a replayed event computes what
//! it computed the first time.
//!
//! The functions never run: lowering replaces them by the system column that travels with every row.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::{Result, internal_err};
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};

/// The time of ingestion, or its date.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    name: &'static str,
    aliases: Vec<String>,
    date: bool,
    signature: Signature,
}

/// `now`, `current_timestamp`, `current_date` and `today`.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let make = |name, alias: &str, date| {
        let signature = Signature::nullary(Volatility::Stable);
        Arc::new(ScalarUDF::from(Now { name, aliases: vec![alias.to_owned()], date, signature }))
    };
    vec![make("now", "current_timestamp", false), make("current_date", "today", true)]
}

/// What to read instead of `function`, given the expression of the ingestion time; `None` for any other function.
pub(crate) fn replacement(function: &ScalarUDF, ingested_at: &Expr) -> Option<Expr> {
    let now = function.inner().downcast_ref::<Now>()?;
    Some(if now.date { cast(ingested_at.clone(), DataType::Date32) } else { ingested_at.clone() })
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.date {
            true => DataType::Date32,
            false => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        })
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name, self.return_type(&[])?, false)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} is replaced when the plan is lowered", self.name)
    }
}
