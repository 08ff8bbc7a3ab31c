//! Computes columns. A column that is only renamed or moved is shared, not copied.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, SchemaRef};
use datafusion_common::DFSchema;
use millstream_event::Schema;

use crate::expr::{Compiled, EvalError};
use crate::ops::{Frame, batch_of};

/// Keeps the columns at these places, then the system column.
#[derive(Debug)]
pub(crate) struct Select {
    pub(crate) places: Vec<usize>,
    pub(crate) schema: SchemaRef,
}

impl Select {
    pub(crate) fn apply(&self, frame: Frame) -> Result<Frame, EvalError> {
        let all = frame.batch.columns();
        let places = self.places.iter().copied().chain(all.len().checked_sub(1));
        let kept = places.filter_map(|i| all.get(i).cloned());
        let batch = batch_of(&self.schema, kept.collect(), frame.batch.num_rows());
        let batch = batch.map_err(|e| EvalError::internal("select", &e))?;
        Ok(Frame { batch, ..frame })
    }

    pub(crate) fn describe(&self) -> String {
        format!("columns {}", names(&self.schema))
    }
}

/// Computes one column per expression, cast to the schema's type, and keeps the system column.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) exprs: Vec<Compiled>,
    pub(crate) schema: SchemaRef,
}

/// A cast that fails instead of giving NULL.
pub(crate) const CHECKED: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow_cast::display::FormatOptions::new() };

impl Project {
    pub(crate) fn apply(&self, frame: Frame) -> Result<Frame, EvalError> {
        let batch = &frame.batch;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.exprs.len() + 1);
        for (expr, field) in self.exprs.iter().zip(self.schema.fields()) {
            let array = expr.evaluate(batch)?;
            let array = if array.data_type() == field.data_type() {
                array
            } else {
                cast_with_options(&array, field.data_type(), &CHECKED).map_err(|e| EvalError::arrow(&e, expr.text()))?
            };
            expr.check(&array)?;
            columns.push(array);
        }
        columns.extend(batch.columns().last().map(Arc::clone));
        let batch = batch_of(&self.schema, columns, batch.num_rows()).map_err(|e| EvalError::internal("select", &e))?;
        Ok(Frame { batch, ..frame })
    }

    pub(crate) fn describe(&self) -> String {
        let pairs = self.exprs.iter().zip(self.schema.fields());
        let parts = pairs.map(|(expr, field)| match expr.text() == field.name() {
            true => field.name().clone(),
            false => format!("{} = {}", field.name(), expr.text()),
        });
        format!("compute {}", parts.collect::<Vec<_>>().join(", "))
    }
}

fn names(schema: &SchemaRef) -> String {
    let user = schema.fields().len().saturating_sub(1);
    schema.fields().iter().take(user).map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// Gives the columns the types of the query's schema.
#[derive(Debug)]
pub(crate) struct Output {
    /// The place, name and new type of each column that is not of its final type already.
    casts: Vec<(usize, String, DataType)>,
    schema: SchemaRef,
}

impl Output {
    /// From a plan's columns to the schema that was derived from them.
    pub(crate) fn new(schema: &Schema, plan: &DFSchema) -> Self {
        let pairs = plan.fields().iter().zip(schema.arrow().fields()).enumerate();
        let casts = pairs.filter(|(_, (from, to))| from.data_type() != to.data_type());
        let casts = casts.map(|(i, (_, to))| (i, to.name().clone(), to.data_type().clone()));
        Self { casts: casts.collect(), schema: Arc::clone(schema.physical()) }
    }

    pub(crate) fn apply(&self, frame: Frame) -> Result<Frame, EvalError> {
        let rows = frame.batch.num_rows();
        let mut columns = frame.batch.columns().to_vec();
        for (place, name, kind) in &self.casts {
            if let Some(column) = columns.get_mut(*place) {
                *column = cast_with_options(column, kind, &CHECKED).map_err(|e| EvalError::arrow(&e, name))?;
            }
        }
        let batch = batch_of(&self.schema, columns, rows).map_err(|e| EvalError::internal("the output", &e))?;
        Ok(Frame { batch, ..frame })
    }

    pub(crate) fn describe(&self) -> Option<String> {
        let casts = self.casts.iter().map(|(_, name, _)| name.as_str()).collect::<Vec<_>>();
        (!casts.is_empty()).then(|| format!("cast to column types: {}", casts.join(", ")))
    }
}
