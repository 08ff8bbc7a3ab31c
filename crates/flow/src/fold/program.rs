//! The compiled cases of a fold, and the rows that they read.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow_schema::{DataType, Schema, SchemaRef};
use arrow_select::concat::concat;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use crate::expr::row::{Hoist, Node, Row, Unsure, fits, node};
use crate::expr::value::{Reader, Sink, Val, first};
use crate::expr::{Compiled, EvalError};
use crate::isolate::isolate;
use crate::ops::batch_of;

/// Batches of fewer rows are not worth computing parts of expressions for ahead.
const HOIST_ROWS_MIN: usize = 16;

/// The cases for events, or those of the timer.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) cases: Vec<Case>,
    pub(crate) rest: Rest,
    /// The event's columns, the state's, and the system column.
    pub(crate) schema: SchemaRef,
    /// The number of the event's columns.
    pub(crate) events: usize,
    hoisted: Vec<Hoisted>,
}

/// What becomes of rows that no case takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Drop,
    DeadLetter,
}

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) when: Option<RowExpr>,
    /// State columns and their new values.
    pub(crate) set: Vec<(usize, RowExpr)>,
    pub(crate) emit: Vec<Vec<RowExpr>>,
    pub(crate) forget: bool,
}

/// An expression in both its forms.
#[derive(Debug)]
pub(crate) struct RowExpr {
    pub(crate) compiled: Compiled,
    /// Its form for single rows, where it has one.
    pub(crate) node: Option<Node>,
}

/// A part that depends on the event alone.
#[derive(Debug)]
struct Hoisted {
    /// Over the event's columns and the system column.
    expr: Arc<dyn PhysicalExpr>,
    kind: DataType,
    node: Option<Node>,
}

impl Program {
    pub(crate) fn new(schema: SchemaRef, events: usize) -> Self {
        Self { cases: Vec::new(), rest: Rest::Drop, schema, events, hoisted: Vec::new() }
    }

    /// An expression of this program.
    pub(crate) fn expr(&mut self, compiled: Compiled) -> RowExpr {
        let schema = Arc::clone(&self.schema);
        let node = node(compiled.physical(), &schema, self);
        RowExpr { compiled, node }
    }

    /// Whether each of its expressions can be computed row by row without a batch.
    pub(crate) fn by_row(&self) -> bool {
        let of = |case: &Case| {
            let set = case.set.iter().map(|(_, expr)| expr);
            case.when.iter().chain(set).chain(case.emit.iter().flatten()).all(|expr| expr.node.is_some())
        };
        self.cases.iter().all(of)
    }

    /// Whether it never gives out rows.
    pub(crate) fn is_silent(&self) -> bool {
        self.cases.iter().all(|case| case.emit.is_empty())
    }

    /// The output columns that are this column of its batches in every row that it gives out.
    pub(crate) fn passed(&self, column: usize) -> Vec<usize> {
        let rows: Vec<&Vec<RowExpr>> = self.cases.iter().flat_map(|case| &case.emit).collect();
        let is =
            |expr: &RowExpr| expr.compiled.physical().downcast_ref::<Column>().is_some_and(|c| c.index() == column);
        let width = rows.first().map_or(0, |row| row.len());
        (0..width).filter(|i| rows.iter().all(|row| row.get(*i).is_some_and(is))).collect()
    }
}

impl Hoist for Program {
    fn moving(&self, column: usize) -> bool {
        column >= self.events && column + 1 < self.schema.fields().len()
    }

    fn hoist(&mut self, part: &Arc<dyn PhysicalExpr>, node: Option<Node>) -> usize {
        let (last, system) = (self.schema.fields().len().saturating_sub(1), self.events);
        let moved = Arc::clone(part).transform_up(|e| match e.downcast_ref::<Column>() {
            Some(column) if column.index() == last => {
                Ok(Transformed::yes(Arc::new(Column::new(column.name(), system)) as Arc<dyn PhysicalExpr>))
            }
            _ => Ok(Transformed::no(e)),
        });
        let expr = moved.data().unwrap_or_else(|_| Arc::clone(part));
        if let Some(place) = self.hoisted.iter().position(|h| h.expr.eq(&expr)) {
            return place;
        }
        let kind = part.data_type(&self.schema).unwrap_or(DataType::Null);
        self.hoisted.push(Hoisted { expr, kind, node });
        self.hoisted.len() - 1
    }
}

/// Parts of expressions, computed for a whole batch.
pub(crate) struct HoistedColumns(Vec<Option<Ahead>>);

struct Ahead {
    column: ArrayRef,
    /// The rows on which it failed, in order.
    bad: Vec<u32>,
}

impl HoistedColumns {
    /// Computes them on a batch of the event's columns and the system column.
    pub(crate) fn compute(program: &Program, batch: &RecordBatch) -> Result<Self, EvalError> {
        let of = |hoisted: &Hoisted| {
            let ahead = batch.num_rows() >= HOIST_ROWS_MIN || hoisted.node.is_none();
            if ahead { hoisted.ahead(batch).map(Some) } else { Ok(None) }
        };
        program.hoisted.iter().map(of).collect::<Result<_, _>>().map(Self)
    }
}

impl Hoisted {
    fn ahead(&self, batch: &RecordBatch) -> Result<Ahead, EvalError> {
        let rows = batch.num_rows();
        let parts = isolate(rows, |first, count| {
            let compiled = Compiled::part(Arc::clone(&self.expr));
            compiled.evaluate(&if count == rows { batch.clone() } else { batch.slice(first, count) })
        });
        let bad: Vec<u32> = parts.failed.iter().map(|failed| failed.row).collect();
        if bad.is_empty()
            && let [(_, column)] = parts.parts.as_slice()
        {
            return Ok(Ahead { column: Arc::clone(column), bad });
        }
        let mut columns: Vec<ArrayRef> = Vec::new();
        let mut reached = 0;
        for (first, column) in parts.parts {
            let first = first as usize;
            if first > reached {
                columns.push(new_null_array(&self.kind, first - reached));
            }
            reached = first + column.len();
            columns.push(column);
        }
        if rows > reached {
            columns.push(new_null_array(&self.kind, rows - reached));
        }
        let columns: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
        let column = concat(&columns).map_err(|e| EvalError::internal("fold", &e))?;
        Ok(Ahead { column, bad })
    }
}

/// A batch of the event's columns and the system column, ready to be read row by row.
pub(crate) struct Frame<'b> {
    pub(crate) program: &'b Program,
    pub(crate) batch: &'b RecordBatch,
    columns: Vec<Reader<'b>>,
    hoisted: Vec<Option<(Reader<'b>, &'b [u32])>>,
}

impl<'b> Frame<'b> {
    pub(crate) fn new(program: &'b Program, batch: &'b RecordBatch, hoisted: &'b HoistedColumns) -> Self {
        let columns = batch.columns().iter().map(Reader::new).collect();
        let of = |ahead: &'b Option<Ahead>| ahead.as_ref().map(|a| (Reader::new(&a.column), a.bad.as_slice()));
        Self { program, batch, columns, hoisted: hoisted.0.iter().map(of).collect() }
    }

    /// One row of it, with the state of its key.
    pub(crate) fn input<'r>(&'r self, row: usize, state: &'r [Val<'static>]) -> Input<'r> {
        Input { frame: self, row, state, one: OnceCell::new() }
    }
}

/// A row of a batch with the state of its key.
pub(crate) struct Input<'r> {
    frame: &'r Frame<'r>,
    row: usize,
    state: &'r [Val<'static>],
    /// Both as a batch of one row, once it was needed.
    one: OnceCell<RecordBatch>,
}

impl<'r> Row<'r> for Input<'r> {
    fn column(&self, place: usize) -> Result<Val<'r>, Unsure> {
        let events = self.frame.program.events;
        if place < events {
            return self.frame.columns.get(place).map(|c| c.get(self.row)).ok_or(Unsure);
        }
        match self.state.get(place - events) {
            Some(Val::Text(text)) => Ok(Val::Text(std::borrow::Cow::Borrowed(text))),
            Some(Val::Bytes(bytes)) => Ok(Val::Bytes(std::borrow::Cow::Borrowed(bytes))),
            Some(value) => Ok(value.clone()),
            None => self.frame.columns.last().map(|c| c.get(self.row)).ok_or(Unsure),
        }
    }

    fn hoisted(&self, place: usize) -> Result<Val<'r>, Unsure> {
        match self.frame.hoisted.get(place) {
            Some(Some((column, bad))) => match bad.is_empty() || bad.binary_search(&(self.row as u32)).is_err() {
                true => Ok(column.get(self.row)),
                false => Err(Unsure),
            },
            _ => match self.frame.program.hoisted.get(place).and_then(|h| h.node.as_ref()) {
                Some(node) => node.value(self),
                None => Err(Unsure),
            },
        }
    }
}

impl Input<'_> {
    /// The row and the state as a batch.
    fn batch(&self) -> Result<&RecordBatch, EvalError> {
        if let Some(batch) = self.one.get() {
            return Ok(batch);
        }
        let program = self.frame.program;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(program.schema.fields().len());
        let own = self.frame.batch.columns();
        columns.extend(own.iter().take(program.events).map(|c| c.slice(self.row, 1)));
        for (value, field) in self.state.iter().zip(program.schema.fields().iter().skip(program.events)) {
            let mut sink = Sink::new(field.data_type());
            sink.push(value);
            columns.push(sink.finish().map_err(|e| EvalError::internal("fold", &e))?);
        }
        columns.extend(own.last().map(|c| c.slice(self.row, 1)));
        let batch = batch_of(&program.schema, columns, 1).map_err(|e| EvalError::internal("fold", &e))?;
        Ok(self.one.get_or_init(|| batch))
    }
}

impl RowExpr {
    /// The value in a row.
    pub(crate) fn value<'r>(&'r self, row: &Input<'r>) -> Result<Val<'r>, EvalError> {
        if let Some(node) = &self.node
            && let Ok(value) = node.value(row)
            && self.compiled.digits().is_none_or(|digits| !matches!(value, Val::Decimal(v) if !fits(v, digits)))
        {
            return Ok(value);
        }
        Ok(first(&self.column(row.batch()?)?))
    }

    /// Whether it is true in a row.
    pub(crate) fn is_true<'r>(&'r self, row: &Input<'r>) -> Result<bool, EvalError> {
        if let Some(node) = &self.node
            && let Ok(truth) = node.is_true(row)
        {
            return Ok(truth);
        }
        Ok(self.truths(row.batch()?)?.iter().next().flatten() == Some(true))
    }

    /// The values in a batch of the program's schema.
    pub(crate) fn column(&self, batch: &RecordBatch) -> Result<ArrayRef, EvalError> {
        let column = self.compiled.evaluate(batch)?;
        self.compiled.check(&column)?;
        Ok(column)
    }

    /// Whether it is true in each row of a batch.
    pub(crate) fn truths(&self, batch: &RecordBatch) -> Result<BooleanArray, EvalError> {
        self.compiled.evaluate_bool(batch)
    }
}

/// The schema of a program's events: the event's columns and the system column.
pub(crate) fn event_side(schema: &Schema, events: usize) -> SchemaRef {
    let fields = schema.fields().iter();
    let own = fields.clone().take(events).cloned();
    Arc::new(Schema::new(own.chain(fields.last().cloned()).collect::<Vec<_>>()))
}
