//! A query: planned once, run on every batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::RecordBatch;
use datafusion_sql::planner::SqlToRel;
use datafusion_sql::sqlparser::keywords::Keyword;
use millstream_event::{Column, Name, Schema};

use crate::catalog::Catalog;
use crate::error::SqlError;
use crate::expr::EvalError;
use crate::isolate::isolate;
use crate::lookup::{LookupSet, LookupTable};
use crate::lower::meet::Carried;
use crate::lower::updates;
use crate::lower::{Lowered, Lowering, Trace};
use crate::ops::project::Output;
use crate::ops::{Frame, Op};
use crate::outcome::{Failed, Origin, Processed, concat_batches};
use crate::sql::context::Context;
use crate::sql::keep::recognise;
use crate::sql::optimize::optimize;
use crate::sql::text::Text;
use crate::sql::translate::{duplicate, translate};
use crate::stream::{Broken, Chain, Running, Source, Stage};

/// Plans one SELECT over a topic and its lookups.
pub fn plan_query(sql: &str, catalog: &Catalog) -> Result<Query, Vec<SqlError>> {
    let text = Text::new(sql, catalog).map_err(|e| vec![e])?;
    let statement = text.query()?;
    let context = Context::new(catalog);
    let plan = SqlToRel::new(&context).sql_statement_to_plan(statement);
    let plan =
        plan.and_then(|plan| recognise(plan, catalog)).and_then(optimize).map_err(|e| translate(&e, &text, catalog))?;
    let mut lowering = Lowering::new(catalog);
    let lowered = lowering.lower(&plan).map_err(|e| {
        let place = text.find_fault(&e);
        vec![e.or_at(place.or_else(|| text.whole()))]
    })?;
    if let Source::Lookup(name) = &lowered.source {
        let error = SqlError::new("sql-no-topic", format!("the query reads only the lookup `{name}`"));
        return Err(vec![error.at(text.whole()).help("a query reads a topic; join the lookup with it")]);
    }
    let lowered = lowering.settled(lowered).map_err(|e| vec![e.or_at(text.whole())])?;
    let refused = |e: SqlError| {
        let place = text.find_fault(&e).or_else(|| text.find_keyword(Keyword::GROUP));
        vec![e.or_at(place.or_else(|| text.whole()))]
    };
    lowering.taken_back(&lowered).map_err(refused)?;
    let updates = updates::key(&lowered).map_err(refused)?;
    let schema = output_schema(&lowered, &text)?;
    let lead = lowering.topics.first().and_then(|input| catalog.topics.get(input)).cloned();
    let input_schema = lead.ok_or_else(|| vec![SqlError::new("sql-no-topic", "the topic is unknown")])?;
    let output = Output::new(&schema, &lowered.schema);
    let times = lowering.times();
    let names = |schema: &Schema| schema.columns().iter().map(|column| column.name.clone()).collect();
    let columns = |topic: &Name| Some((topic.clone(), names(catalog.topics.get(topic)?)));
    let columns = lowering.topics.iter().filter_map(columns).collect();
    let carried = lowering.carried(&lowered.lineage, &schema);
    lowering.settle_keys();
    lowering.settle_tables();
    Ok(Query {
        carried,
        columns,
        inputs: lowering.topics,
        keys: lowering.keys,
        times,
        input_schema,
        lookups: lowering.lookups,
        inner: lowering.inner,
        stages: lowering.stages,
        last: Chain { source: lowered.source, ops: lowered.ops },
        lineage: lowered.lineage,
        updates,
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
    /// See [`Query::key`].
    keys: BTreeMap<Name, Vec<String>>,
    /// The names of the inputs' columns.
    columns: BTreeMap<Name, Vec<String>>,
    /// See [`Query::carries`].
    carried: BTreeMap<Name, BTreeSet<Carried>>,
    /// The event times of the inputs that have one.
    times: Vec<Trace>,
    input_schema: Schema,
    lookups: Vec<Name>,
    inner: Vec<Name>,
    /// The steps with state, each behind those that it reads.
    stages: Vec<Stage>,
    /// What leads to the output.
    last: Chain,
    lineage: Vec<Option<Trace>>,
    /// See [`Query::updates`].
    updates: Option<Vec<usize>>,
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
        self.traced(Trace::Column { table: Some(0), place })
    }

    /// Whether in each row that comes of `topic` the column `output` of the result is the topic's column `input`: where all
    /// columns of its key are, its rows are where the result's rows with the same key are.
    pub fn carries(&self, topic: &Name, input: &str, output: &str) -> bool {
        let carried = self.carried.get(topic);
        carried.is_some_and(|carried| carried.contains(&(input.to_owned(), output.to_owned())))
    }

    fn traced(&self, trace: Trace) -> Option<String> {
        let at = self.lineage.iter().position(|l| *l == Some(trace))?;
        self.schema.columns().get(at).map(|c| c.name.clone())
    }

    /// The event time of what comes out, given the column with the input's: a column, and how many microseconds are added
    /// to it. Of a window's row it is the last microsecond of the window; of a joined row that has not kept the first
    /// input's it is another input's.
    pub fn event_time(&self, input_column: &str) -> Option<(String, i64)> {
        if let Some(end) = self.traced(Trace::WindowEnd) {
            return Some((end, -1));
        }
        let other = || self.times.iter().find_map(|time| self.traced(*time));
        self.passes_through(input_column).or_else(other).map(|column| (column, 0))
    }

    /// The columns of an input by which it groups or joins: rows in which they are equal must meet in one task. So the
    /// topic's key must be among them. `None`: it does not matter where rows are; empty: all rows must meet. Where inputs
    /// are joined, their columns correspond by place, and topics must be parted by corresponding ones.
    pub fn key(&self, input: &Name) -> Option<&[String]> {
        self.keys.get(input).map(Vec::as_slice)
    }

    /// The key columns of what comes out, where a row replaces the one with the same key that came out before, or, marked
    /// as deleted, removes it. Such rows may go to a table topic with this key only. `None`: a row stays as it is.
    pub fn updates(&self) -> Option<Vec<&str>> {
        let columns = self.schema.columns();
        Some(self.updates.as_ref()?.iter().filter_map(|at| columns.get(*at)).map(|c| c.name.as_str()).collect())
    }

    /// Whether an output column is the start or the end of a window: one of them tells the other.
    pub fn is_window(&self, column: &str) -> bool {
        let place = self.schema.column(column).map(|(place, _)| place);
        let trace = place.and_then(|place| self.lineage.get(place).copied().flatten());
        matches!(trace, Some(Trace::WindowStart | Trace::WindowEnd))
    }

    /// The first step for which late events are no events, as [`Query::explain`] tells it.
    pub fn refuses_late(&self) -> Option<String> {
        let refuses = |stage: &&Stage| stage.operator.timed() && !stage.operator.takes_late();
        self.stages.iter().find(refuses).map(|stage| stage.operator.describe())
    }

    /// The places of these columns.
    pub(crate) fn update_key(&self) -> Option<&[usize]> {
        self.updates.as_deref()
    }

    /// Whether it keeps state: then [`Query::open`] runs it, not [`Query::run`].
    pub fn is_stateful(&self) -> bool {
        !self.stages.is_empty()
    }

    /// Whether some step needs event time.
    pub fn is_timed(&self) -> bool {
        self.stages.iter().any(|stage| stage.operator.timed())
    }

    /// What decides the form of its state: stored state of another signature does not fit.
    pub fn state_signature(&self) -> String {
        let line = |stage: &Stage| {
            let sides = stage.sides.iter().enumerate();
            let sides = sides.flat_map(|(side, chain)| chain.meanings(&stage.operator.meanings(side), &self.columns));
            format!("{} of {}", stage.operator.signature(), sides.collect::<Vec<_>>().join(", "))
        };
        self.stages.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The query at work on one partition, without state.
    pub fn open(self: &Arc<Self>) -> Result<Running, Broken> {
        Running::new(Arc::clone(self))
    }

    pub(crate) fn stages(&self) -> &[Stage] {
        &self.stages
    }

    pub(crate) fn last(&self) -> &Chain {
        &self.last
    }

    pub(crate) fn source(&self) -> &Source {
        &self.last.source
    }

    pub(crate) fn inner(&self) -> &[Name] {
        &self.inner
    }

    /// All chains, with the stage that each leads to and its side there; the output counts as the stage behind the last.
    pub(crate) fn chains(&self) -> impl Iterator<Item = (usize, usize, &Chain)> {
        let sides = |(at, stage): (usize, &'_ Stage)| -> Vec<(usize, usize)> {
            (0..stage.sides.len()).map(|side| (at, side)).collect()
        };
        let places: Vec<(usize, usize)> = self.stages.iter().enumerate().flat_map(sides).collect();
        let chains =
            places.into_iter().filter_map(|(at, side)| Some((at, side, self.stages.get(at)?.sides.get(side)?)));
        chains.chain([(self.stages.len(), 0, &self.last)])
    }

    /// Whether a side of a stage or a step behind it needs event time, so that late rows are none for it.
    pub(crate) fn timed_behind(&self, at: usize, side: usize) -> bool {
        let Some(stage) = self.stages.get(at) else { return false };
        let behind = || {
            let mut next = self.chains().filter(|(_, _, chain)| chain.source == Source::Stage(at));
            stage.operator.passes(side) && next.any(|(at, side, _)| self.timed_behind(at, side))
        };
        (stage.operator.timed() && !stage.operator.takes_late()) || behind()
    }

    /// Sources with several chains whose rows meet again in a step that gives out rows as it is pushed some.
    pub(crate) fn interleaved(&self) -> Vec<Source> {
        let topics = self.inputs.iter().cloned().map(Source::Topic);
        let sources = topics.chain((0..self.stages.len()).map(Source::Stage));
        sources.filter(|source| self.meets_again(source)).collect()
    }

    fn meets_again(&self, source: &Source) -> bool {
        let mut met: BTreeSet<usize> = BTreeSet::new();
        for (at, _, _) in self.chains().filter(|(_, _, chain)| chain.source == *source) {
            let mut reached = BTreeSet::new();
            self.reached(at, &mut reached);
            if reached.iter().any(|at| met.contains(at)) {
                return true;
            }
            met.extend(reached);
        }
        false
    }

    /// The steps where rows pushed to a stage come at once, as far as the order there matters.
    fn reached(&self, at: usize, found: &mut BTreeSet<usize>) {
        let passes = self.stages.get(at).is_none_or(|stage| stage.operator.gives_on_push());
        if !passes || !found.insert(at) {
            return;
        }
        for (next, _, _) in self.chains().filter(|(_, _, chain)| chain.source == Source::Stage(at)) {
            self.reached(next, found);
        }
    }

    /// The tables of its lookups, in the order of their use.
    pub(crate) fn tables(&self, lookups: &LookupSet) -> Result<Vec<Arc<LookupTable>>, EvalError> {
        let found = self.lookups.iter().map(|name| lookups.get(name).cloned().ok_or(name));
        found.collect::<Result<_, _>>().map_err(|missing: &Name| EvalError::missing(missing.as_str()))
    }

    /// Gives rows their final columns.
    pub(crate) fn finish(&self, frame: Frame) -> Result<Frame, EvalError> {
        self.output.apply(frame)
    }

    /// Runs the query on rows with the columns of [`Schema::physical`] of its topic.
    ///
    /// A lookup that `lookups` does not have fails every row with the code `lookup-missing`.
    pub fn run(&self, rows: &RecordBatch, lookups: &LookupSet) -> Processed {
        let tables = match self.tables(lookups) {
            Ok(tables) => tables,
            Err(missing) => return self.all_failed(rows.num_rows(), &missing),
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
        for op in &self.last.ops {
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
        let mut lines = vec![format!("read {}", inputs.join(", "))];
        for stage in &self.stages {
            lines.extend(stage.sides.iter().flat_map(|chain| &chain.ops).map(Op::describe));
            lines.push(stage.operator.describe());
        }
        lines.extend(self.last.ops.iter().map(Op::describe));
        lines.extend(self.output.describe());
        lines.join("\n")
    }
}
