//! A fold's state for a person to read.

use std::sync::Arc;

use arrow_schema::{Field, FieldRef};

use crate::expr::value::{Sink, Val};
use crate::fold::Fold;
use crate::stream::{Broken, KeyColumns, Legend, StateLegend, StateRow, cell, moment};

struct FoldLegend {
    fold: Arc<Fold>,
    key: KeyColumns,
}

impl Fold {
    /// Reads the rows of its state.
    pub fn state_legend(self: &Arc<Self>) -> Result<StateLegend, Broken> {
        let field = |(name, kind): (&String, &arrow_schema::DataType)| -> FieldRef {
            Arc::new(Field::new(name, kind.clone(), true))
        };
        let key = KeyColumns::new(self.key.iter().zip(&self.kinds).map(field).collect())?;
        let line = format!("fold by {}", self.key.join(", "));
        let mut steps: Vec<(String, Box<dyn Legend>)> =
            vec![(line, Box::new(FoldLegend { fold: Arc::clone(self), key }))];
        if self.timer.is_some() {
            steps.push(("the time that timers have heard".to_owned(), Box::new(HeardLegend)));
        }
        Ok(StateLegend::new(steps))
    }
}

/// Reads what timers have heard.
struct HeardLegend;

impl Legend for HeardLegend {
    fn key(&self) -> Vec<String> {
        Vec::new()
    }

    fn row(&self, _key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let heard = value.first_chunk::<8>().map(|time| i64::from_be_bytes(*time));
        let heard = heard.ok_or_else(|| Broken("a row of the fold's state has another form".into()))?;
        Ok(StateRow { what: "progress", value: vec![moment("heard_until", heard)], ..StateRow::default() })
    }
}

impl Legend for FoldLegend {
    fn key(&self) -> Vec<String> {
        self.key.names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let plan = &self.fold.state;
        let mut values: Vec<Val<'static>> = Vec::new();
        if !plan.decode(value, &mut values) {
            return Err(Broken("a row of the fold's state has another form".into()));
        }
        let shown = plan.columns.iter().zip(&values).map(|(column, value)| {
            let field = column.to_arrow();
            let mut sink = Sink::new(field.data_type());
            sink.push(value);
            Ok(cell(&field, &sink.finish()?))
        });
        let value = shown.collect::<Result<_, Broken>>()?;
        Ok(StateRow { what: "state", key: self.key.cells(key)?, value, ..StateRow::default() })
    }
}
