//! A stateful query at work on one partition of its inputs.

mod advance;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{RecordBatch, UInt32Array};
use millstream_event::{Name, Stamp};

use crate::expr::EvalError;
use crate::isolate::isolate;
use crate::lookup::{LookupSet, LookupTable};
use crate::ops::{Frame, Op, run, take_all};
use crate::outcome::{Failed, Origin, concat_batches};
use crate::query::Query;
use crate::stream::changes::{ChangeRows, Changes};
use crate::stream::groups::{Groups, Keys};
use crate::stream::operator::{Blueprint, Broken, Operator, Out};

/// Where the rows of a chain come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A topic.
    Topic(Name),
    /// A lookup: the side of a join, never rows that flow.
    Lookup(Name),
    /// What a stage gives out.
    Stage(usize),
}

/// Row-wise steps from a source.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) source: Source,
    pub(crate) ops: Vec<Op>,
}

impl Chain {
    /// What stands at some places of its rows, as far as it is computed there, and the times of its windows. Columns of a
    /// topic have names, in `columns`: where they stand depends on columns that nobody asks for.
    pub(crate) fn meanings(&self, places: &[usize], columns: &BTreeMap<Name, Vec<String>>) -> Vec<String> {
        let named = |place: usize| match &self.source {
            Source::Topic(topic) => columns.get(topic)?.get(place).cloned(),
            _ => None,
        };
        let makes = self.ops.iter().rfind(|op| !matches!(op, Op::Filter(_)));
        let last = |place: &usize| match makes {
            None => named(*place).or_else(|| Some(format!("column {place}"))),
            Some(Op::Project(project)) => project.exprs.get(*place).map(|expr| expr.text().to_owned()),
            Some(Op::Select(select)) => select.schema.fields().get(*place).map(|field| field.name().clone()),
            _ => Some(format!("column {place}")),
        };
        let windows = self.ops.iter().filter_map(|op| match op {
            Op::Panes(panes) => panes.schema.fields().get(panes.time).map(|field| format!("time {}", field.name())),
            _ => None,
        });
        places.iter().filter_map(last).chain(windows).collect()
    }
}

/// An operator with state, and what leads to its sides.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) sides: Vec<Chain>,
    pub(crate) operator: Box<dyn Blueprint>,
}

/// What one call gave out.
#[derive(Debug, Default)]
pub struct Step {
    /// Rows with the physical columns of the query's schema, in order.
    pub rows: Vec<RecordBatch>,
    /// Rows of the pushed batch on which an expression failed: they changed no state.
    pub failed: Vec<Failed>,
    /// Rows of the pushed batch that came too late for an operator that needs event time: they changed no state.
    pub late: Vec<u32>,
    /// How many rows each inner lookup join dropped.
    pub dropped: Vec<(Name, u64)>,
    /// Rows of the pushed batch that no case of a fold takes, where they are left out.
    pub unmatched: Vec<u32>,
    /// Derived rows on which an expression failed; the state that they come from stands.
    pub derived: Vec<Derived>,
    /// Whether an advance has stopped on its way: it is to be called again, before more is pushed.
    pub more: bool,
}

/// A row that was derived from state and then failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// A stable word for the fault, as in [`Failed::code`].
    pub code: &'static str,
    /// What failed.
    pub reason: String,
    /// The row, for a person to read: `column=value, …`.
    pub row: String,
}

/// Why stored state cannot be gone on from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored state does not fit the query: {0}")]
struct Unfit(String);

/// A query at work. Not shared: each task has its own.
pub struct Running {
    query: Arc<Query>,
    operators: Vec<Box<dyn Operator>>,
    changes: Changes,
    /// The greatest watermark so far, but for the end of time: a source that ended may begin again.
    watermark: i64,
    /// Whether an operator has stopped on its way there.
    more: bool,
    /// Sources whose rows go on one by one, because they meet again in a step where their order matters.
    interleaved: Vec<Source>,
}

impl Running {
    pub(crate) fn new(query: Arc<Query>) -> Result<Self, Broken> {
        let operators = query.stages().iter().map(|stage| stage.operator.open()).collect::<Result<_, _>>()?;
        let interleaved = query.interleaved();
        Ok(Self { query, operators, changes: Changes::default(), watermark: i64::MIN, more: false, interleaved })
    }

    /// Takes rows of a topic, with the columns of [`millstream_event::Schema::physical`].
    pub fn push(&mut self, topic: &Name, rows: &RecordBatch, lookups: &LookupSet) -> Result<Step, Broken> {
        let mut step = Step::default();
        let query = Arc::clone(&self.query);
        let tables = match query.tables(lookups) {
            Ok(tables) => tables,
            Err(error) => {
                step.failed = (0..rows.num_rows() as u32).map(|row| failed(row, &error)).collect();
                return Ok(step);
            }
        };
        let source = Source::Topic(topic.clone());
        let mut arrived = Vec::new();
        let mut bad = BTreeSet::new();
        for (at, side, chain) in query.chains().filter(|(_, _, chain)| chain.source == source) {
            let parts = isolate(rows.num_rows(), |first, count| {
                let batch = if count == rows.num_rows() { rows.clone() } else { rows.slice(first, count) };
                query.run_chain(chain, batch, &tables)
            });
            for failure in parts.failed {
                if bad.insert(failure.row) {
                    step.failed.push(failure);
                }
            }
            let frames = parts.parts.into_iter().map(|(first, frame)| shifted(frame, first));
            arrived.push((at, side, joined(frames.collect())?));
        }
        step.failed.sort_by_key(|failure| failure.row);
        let mut late = BTreeSet::new();
        let mut dropped = vec![0; query.inner().len()];
        let mut ready = Vec::with_capacity(arrived.len());
        for (at, side, frame) in arrived {
            let Some(frame) = frame else { continue };
            dropped.iter_mut().zip(&frame.dropped).for_each(|(sum, n)| *sum += n);
            let frame = without(frame, |row| bad.contains(&row))?;
            let frame = match query.timed_behind(at, side) {
                true => {
                    late.extend(late_rows(&frame));
                    without(frame, |row| late.contains(&row))?
                }
                false => frame,
            };
            ready.push((at, side, frame));
        }
        if self.interleaved.contains(&source) {
            ready = row_by_row(ready);
        }
        for (at, side, frame) in ready {
            let behind = self.arrive(at, side, frame.batch, &tables, &mut step, &mut dropped)?;
            late.extend(behind.into_iter().filter_map(|row| frame.origin.row(row as usize)));
        }
        step.late = late.into_iter().collect();
        step.dropped = query.inner().iter().cloned().zip(dropped).filter(|(_, n)| *n > 0).collect();
        step.rows = latest(&query, step.rows)?;
        Ok(step)
    }

    /// Whether it holds rows that it gives out when event time goes on, without being pushed more.
    pub fn waits(&self) -> bool {
        self.operators.iter().any(|operator| operator.waits())
    }

    /// What has changed in the state since it was asked the last time.
    pub fn changes(&mut self) -> Option<ChangeRows> {
        self.changes.take()
    }

    /// Takes a change that was told before, in the order of telling; `value` is `None` where the key is gone.
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let unfit = |why: &str| Broken(Unfit(why.to_owned()).to_string());
        let (stage, key) = key.split_first().ok_or_else(|| unfit("a key is empty"))?;
        let operator = self.operators.get_mut(usize::from(*stage)).ok_or_else(|| unfit("it has more stages"))?;
        operator.restore(key, value)
    }

    /// Brings near what [`Running::restore`] of these keys will need. Of no effect but on its speed.
    pub fn touch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let touched = keys.filter_map(|key| {
            let (stage, key) = key.split_first()?;
            Some(self.operators.get(usize::from(*stage))?.touch(key))
        });
        std::hint::black_box(touched.fold(0, u8::wrapping_add));
    }

    /// How many keyed rows the state has, and about how many bytes they take.
    pub fn size(&self) -> (usize, usize) {
        let sizes = self.operators.iter().map(|operator| operator.size());
        sizes.fold((0, 0), |(rows, bytes), (more, larger)| (rows + more, bytes + larger))
    }

    /// Rows have come to a stage, or to the end. Those among them for which it was too late.
    fn arrive(
        &mut self,
        at: usize,
        side: usize,
        rows: RecordBatch,
        tables: &[Arc<LookupTable>],
        step: &mut Step,
        dropped: &mut [u64],
    ) -> Result<Vec<u32>, Broken> {
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        if at >= self.operators.len() {
            step.rows.push(rows);
            return Ok(Vec::new());
        }
        let (given, late) = self.operate(at, step, |operator, out| operator.push(side, &rows, out))?;
        self.flow(at, given, tables, step, dropped)?;
        Ok(late)
    }

    /// What a stage gave out flows on.
    fn flow(
        &mut self,
        from: usize,
        given: Vec<RecordBatch>,
        tables: &[Arc<LookupTable>],
        step: &mut Step,
        dropped: &mut [u64],
    ) -> Result<(), Broken> {
        let query = Arc::clone(&self.query);
        let source = Source::Stage(from);
        let given = match self.interleaved.contains(&source) {
            true => given.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| batch.slice(row, 1))).collect(),
            false => given,
        };
        for batch in given.into_iter().filter(|batch| batch.num_rows() > 0) {
            for (at, side, chain) in query.chains().filter(|(_, _, chain)| chain.source == source) {
                let parts =
                    isolate(batch.num_rows(), |first, count| query.run_chain(chain, batch.slice(first, count), tables));
                // What failed when it came is not told again when it is taken back.
                for failure in parts.failed.into_iter().filter(|failure| !deleted(&batch, failure.row as usize)) {
                    let row = text_of_row(&batch, failure.row as usize);
                    step.derived.push(Derived { code: failure.code, reason: failure.reason, row });
                }
                let frames = parts.parts.into_iter().map(|(_, frame)| frame);
                if let Some(frame) = joined(frames.collect())? {
                    dropped.iter_mut().zip(&frame.dropped).for_each(|(sum, n)| *sum += n);
                    let rows = frame.batch.clone();
                    for row in self.arrive(at, side, frame.batch, tables, step, dropped)? {
                        let reason = "its window was given out already".to_owned();
                        let row = text_of_row(&rows, row as usize);
                        step.derived.push(Derived { code: "late", reason, row });
                    }
                }
            }
        }
        Ok(())
    }

    fn operate(
        &mut self,
        at: usize,
        step: &mut Step,
        work: impl FnOnce(&mut dyn Operator, &mut Out<'_>) -> Result<(), Broken>,
    ) -> Result<(Vec<RecordBatch>, Vec<u32>), Broken> {
        let Some(operator) = self.operators.get_mut(at) else { return Ok(Default::default()) };
        let changes = self.changes.of_stage(at as u8);
        let mut out = Out { rows: Vec::new(), late: Vec::new(), failed: Vec::new(), changes };
        work(operator.as_mut(), &mut out)?;
        step.derived.append(&mut out.failed);
        Ok((out.rows, out.late))
    }
}

/// Rows that several chains made of the same input, by the input's rows, so that what comes of them does not depend on how
/// the input is cut.
fn row_by_row(ready: Vec<(usize, usize, Frame)>) -> Vec<(usize, usize, Frame)> {
    let mut rows: Vec<(u32, usize, usize, Frame)> = Vec::new();
    for (at, side, frame) in ready {
        for (row, from) in frame.origin.iter().enumerate() {
            let batch = frame.batch.slice(row, 1);
            rows.push((from, at, side, Frame { batch, origin: Origin::Identity(1), dropped: Vec::new() }));
        }
    }
    // The sort is stable: what one chain made of a row stays in order.
    rows.sort_by_key(|(from, at, side, _)| (*from, *at, *side));
    rows.into_iter().map(|(_, at, side, frame)| (at, side, frame)).collect()
}

/// Where a query updates its rows: the last row of each key, which is all that a table keeps.
fn latest(query: &Query, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, Broken> {
    let Some(places) = query.update_key().filter(|_| !rows.is_empty()) else { return Ok(rows) };
    let all = concat_batches(&rows)?;
    let columns: Vec<_> = places.iter().filter_map(|place| all.columns().get(*place).cloned()).collect();
    let types: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
    let keys = Keys::new(&types)?.encode(&columns, all.num_rows())?;
    let groups = Groups::new(&keys, |_| 0);
    let mut last = vec![0_u32; groups.len()];
    for (row, group) in (0_u32..).zip(&groups.of_row) {
        if let Some(last) = last.get_mut(*group) {
            *last = row;
        }
    }
    let columns = take_all(all.columns(), &UInt32Array::from(last))?;
    Ok(vec![RecordBatch::try_new(all.schema(), columns)?])
}

fn deleted(batch: &RecordBatch, row: usize) -> bool {
    let stamps = batch.columns().last().and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    stamps.and_then(|stamps| stamps.values().get(row)).is_some_and(|stamp| Stamp(*stamp).is_deleted())
}

fn failed(row: u32, error: &EvalError) -> Failed {
    Failed { row, code: error.code, reason: error.reason.clone() }
}

fn shifted(frame: Frame, first: u32) -> Frame {
    Frame { origin: frame.origin.shifted(first), ..frame }
}

/// Frames behind each other as one.
fn joined(frames: Vec<Frame>) -> Result<Option<Frame>, Broken> {
    let mut dropped: Vec<u64> = Vec::new();
    for frame in &frames {
        dropped.resize(dropped.len().max(frame.dropped.len()), 0);
        dropped.iter_mut().zip(&frame.dropped).for_each(|(sum, n)| *sum += n);
    }
    if frames.is_empty() {
        return Ok(None);
    }
    // Frames that were emptied on the way have other columns.
    let (batches, origins): (Vec<RecordBatch>, Vec<Origin>) =
        frames.into_iter().filter(|f| f.batch.num_rows() > 0).map(|f| (f.batch, f.origin)).unzip();
    let batch = match batches.first() {
        Some(_) => concat_batches(&batches)?,
        None => RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty())),
    };
    Ok(Some(Frame { batch, origin: Origin::concat(&origins), dropped }))
}

/// The frame without the rows that come from these input rows.
fn without(frame: Frame, out: impl Fn(u32) -> bool) -> Result<Frame, Broken> {
    let kept: Vec<u32> =
        (0_u32..).zip(frame.origin.iter()).filter(|(_, from)| !out(*from)).map(|(row, _)| row).collect();
    if kept.len() == frame.origin.len() {
        return Ok(frame);
    }
    Ok(frame.take(&UInt32Array::from(kept))?)
}

/// The input rows of a frame that are marked late.
fn late_rows(frame: &Frame) -> Vec<u32> {
    let stamps = frame.batch.columns().last().and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    let Some(stamps) = stamps else { return Vec::new() };
    let values = stamps.values().iter();
    if values.clone().fold(0, |all, stamp| all | stamp) & Stamp::LATE == 0 {
        return Vec::new();
    }
    values.zip(frame.origin.iter()).filter(|(stamp, _)| Stamp(**stamp).is_late()).map(|(_, row)| row).collect()
}

/// The longest text of a row.
const ROW_CHARS_MAX: usize = 1000;

/// A row for a person to read.
pub(crate) fn text_of_row(batch: &RecordBatch, row: usize) -> String {
    use arrow_cast::display::array_value_to_string;
    let fields = batch.schema_ref().fields().iter().zip(batch.columns());
    let user = fields.take(batch.num_columns().saturating_sub(1));
    let texts = user
        .map(|(field, column)| format!("{}={}", field.name(), array_value_to_string(column, row).unwrap_or_default()));
    texts.collect::<Vec<_>>().join(", ").chars().take(ROW_CHARS_MAX).collect()
}

impl Query {
    /// Runs a chain on rows of its source, up to the columns that the stage or the output has.
    fn run_chain(&self, chain: &Chain, batch: RecordBatch, tables: &[Arc<LookupTable>]) -> Result<Frame, EvalError> {
        let rows = batch.num_rows();
        let frame = Frame { batch, origin: Origin::Identity(rows), dropped: vec![0; self.inner().len()] };
        let frame = run(&chain.ops, frame, tables)?;
        if std::ptr::eq(chain, self.last()) && frame.batch.num_rows() > 0 { self.finish(frame) } else { Ok(frame) }
    }
}
