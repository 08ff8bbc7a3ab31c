//! A query: planned once, run on every batch.

use std::sync::Arc;

use arrow_array::RecordBatch;
use datafusion_sql::planner::SqlToRel;
use millstream_event::{Column, Name, Schema};

use crate::catalog::Catalog;
use crate::error::SqlError;
use crate::expr::EvalError;
use crate::isolate::isolate;
use crate::lookup::{LookupSet, LookupTable};
use crate::lower::{Lowered, Lowering};
use crate::ops::project::Output;
use crate::ops::{Frame, Op};
use crate::outcome::{Failed, Origin, Processed, concat_batches};
use crate::sql::context::{Context, TableKind};
use crate::sql::optimize::optimize;
use crate::sql::text::Text;
use crate::sql::translate::{duplicate, translate};

/// Plans one SELECT over a topic and its lookups.
pub fn plan_query(sql: &str, catalog: &Catalog) -> Result<Query, Vec<SqlError>> {
    let text = Text::new(sql, catalog).map_err(|e| vec![e])?;
    let statement = text.query()?;
    let context = Context::new(catalog);
    let plan = SqlToRel::new(&context).sql_statement_to_plan(statement);
    let plan = plan.and_then(optimize).map_err(|e| translate(&e, &text, catalog))?;
    let mut lowering = Lowering::new(catalog);
    let lowered = lowering.lower(&plan).map_err(|e| {
        let place = text.find_fault(&e);
        vec![e.or_at(place.or_else(|| text.whole()))]
    })?;
    let (TableKind::Topic, input) = lowered.source.clone() else {
        let (_, name) = lowered.source;
        let error = SqlError::new("sql-no-topic", format!("the query reads only the lookup `{name}`"));
        return Err(vec![error.at(text.whole()).help("a query reads a topic; join the lookup with it")]);
    };
    let schema = output_schema(&lowered, &text)?;
    let input_schema = catalog.topics.get(&input).cloned();
    let input_schema = input_schema.ok_or_else(|| vec![SqlError::new("sql-no-topic", "the topic is unknown")])?;
    let output = Output::new(&schema, &lowered.schema);
    Ok(Query {
        inputs: vec![input],
        input_schema,
        lookups: lowering.lookups,
        inner: lowering.inner,
        ops: lowered.ops,
        lineage: lowered.lineage,
        output,
        schema,
    })
}

/// The canonical columns of a plan's output.
fn output_schema(lowered: &Lowered, text: &Text) -> Result<Schema, Vec<SqlError>> {
    let mut errors = Vec::new();
    let mut columns: Vec<Column> = Vec::new();
    for field in lowered.schema.fields() {
        let name = field.name();
        match Column::from_arrow(field) {
            _ if columns.iter().any(|c| c.name == *name) => {
                errors.push(duplicate(name).at(text.find_word(name, false)))
            }
            _ if name.starts_with("__") => {
                let error = SqlError::new("sql-reserved-name", format!("`{name}` starts with `__`, which is reserved"));
                errors.push(error.at(text.find_word(name, false)).help("choose another name with AS"));
            }
            Some(column) => columns.push(column),
            None => {
                let message = format!("`{name}` has the type {}, which no column can have", field.data_type());
                let error = SqlError::new("sql-no-column-type", message).at(text.find_word(name, false));
                errors.push(error.help("cast it, as in CAST(… AS VARCHAR)"));
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Schema::new(columns).map_err(|e| vec![SqlError::new("sql-columns", e.to_string()).at(text.whole())])
}

/// A planned SELECT.
#[derive(Debug)]
pub struct Query {
    inputs: Vec<Name>,
    input_schema: Schema,
    lookups: Vec<Name>,
    inner: Vec<Name>,
    ops: Vec<Op>,
    lineage: Vec<Option<usize>>,
    output: Output,
    schema: Schema,
}

impl Query {
    /// The topics it reads.
    pub fn inputs(&self) -> &[Name] {
        &self.inputs
    }

    /// The lookups it joins with.
    pub fn lookups(&self) -> &[Name] {
        &self.lookups
    }

    /// The columns of its output.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The first output column that is the topic's column `input_column` unchanged, if there is one.
    pub fn passes_through(&self, input_column: &str) -> Option<String> {
        let (place, _) = self.input_schema.column(input_column)?;
        let at = self.lineage.iter().position(|l| *l == Some(place))?;
        self.schema.columns().get(at).map(|c| c.name.clone())
    }

    /// Runs the query on rows with the columns of [`Schema::physical`] of its topic.
    ///
    /// A lookup that `lookups` does not have fails every row with the code `lookup-missing`.
    pub fn run(&self, rows: &RecordBatch, lookups: &LookupSet) -> Processed {
        let tables: Result<Vec<_>, _> = self.lookups.iter().map(|n| lookups.get(n).cloned().ok_or(n)).collect();
        let tables = match tables {
            Ok(tables) => tables,
            Err(missing) => return self.all_failed(rows.num_rows(), &EvalError::missing(missing.as_str())),
        };
        let parts = isolate(rows.num_rows(), |first, count| self.run_part(rows, first, count, &tables));
        let mut dropped = vec![0; self.inner.len()];
        let mut batches = Vec::with_capacity(parts.parts.len());
        let mut origins = Vec::with_capacity(parts.parts.len());
        for (first, frame) in parts.parts {
            dropped.iter_mut().zip(frame.dropped).for_each(|(sum, count)| *sum += count);
            if frame.batch.num_rows() > 0 {
                batches.push(frame.batch);
                origins.push(frame.origin.shifted(first));
            }
        }
        let rows = match concat_batches(&batches) {
            Ok(rows) => rows,
            Err(_) => RecordBatch::new_empty(Arc::clone(self.schema.physical())),
        };
        let dropped = self.inner.iter().cloned().zip(dropped).collect();
        Processed { rows, origin: Origin::concat(&origins), failed: parts.failed, dropped }
    }

    fn run_part(
        &self,
        rows: &RecordBatch,
        first: usize,
        count: usize,
        tables: &[Arc<LookupTable>],
    ) -> Result<Frame, EvalError> {
        let batch = if count == rows.num_rows() { rows.clone() } else { rows.slice(first, count) };
        let frame = Frame { batch, origin: Origin::Identity(count), dropped: vec![0; self.inner.len()] };
        let mut frame = frame;
        for op in &self.ops {
            frame = op.apply(frame, tables)?;
            // A batch that a filter or join emptied is done.
            if frame.batch.num_rows() == 0 {
                return Ok(Frame { batch: RecordBatch::new_empty(Arc::clone(self.schema.physical())), ..frame });
            }
        }
        self.output.apply(frame)
    }

    fn all_failed(&self, rows: usize, error: &EvalError) -> Processed {
        let failed = (0..rows as u32).map(|row| Failed { row, code: error.code, reason: error.reason.clone() });
        Processed {
            rows: RecordBatch::new_empty(Arc::clone(self.schema.physical())),
            origin: Origin::Rows(Vec::<u32>::new().into()),
            failed: failed.collect(),
            dropped: self.inner.iter().map(|n| (n.clone(), 0)).collect(),
        }
    }

    /// The steps, one per line, for a person to read.
    pub fn explain(&self) -> String {
        let inputs: Vec<&str> = self.inputs.iter().map(Name::as_str).collect();
        let steps = self.ops.iter().map(Op::describe).chain(self.output.describe());
        std::iter::once(format!("read {}", inputs.join(", "))).chain(steps).collect::<Vec<_>>().join("\n")
    }
}
