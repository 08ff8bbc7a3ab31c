//! Aggregate functions over groups, with their states as rows of bytes.
//!
//! Per batch: the states of the touched groups are merged into fresh accumulators, the batch's rows are added, and the
//! new states are taken out: what is taken out is what has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow_cast::cast;
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use datafusion_common::ScalarValue;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use crate::ops::batch_of;
use crate::stream::groups::{Encoded, Groups, Keys};
use crate::stream::operator::Broken;
use crate::stream::running::{Derived, text_of_row};

/// One aggregate of a query, over columns that are evaluated already.
#[derive(Debug, Clone)]
pub(crate) struct Aggregate {
    pub(crate) function: Arc<AggregateFunctionExpr>,
    /// Only rows for which this is true count.
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
    /// The types of its arguments and of what orders the rows.
    pub(crate) types: Vec<DataType>,
}

/// The aggregates of a query.
pub(crate) struct Aggregates {
    aggregates: Vec<Aggregate>,
    /// The number of state columns of each.
    widths: Vec<usize>,
    states: Keys,
    signature: String,
}

impl Aggregates {
    /// Prepares aggregates.
    pub(crate) fn new(aggregates: &[Aggregate]) -> Result<Self, Broken> {
        let fields = aggregates.iter().map(|a| a.function.state_fields()).collect::<Result<Vec<_>, _>>()?;
        let widths = fields.iter().map(Vec::len).collect();
        let types: Vec<DataType> = fields.iter().flatten().map(|f: &FieldRef| f.data_type().clone()).collect();
        let names: Vec<&str> = aggregates.iter().map(|a| a.function.name()).collect();
        let signature = format!("{} {types:?}", names.join(","));
        Ok(Self { aggregates: aggregates.to_vec(), widths, states: Keys::new(&types)?, signature })
    }

    /// What decides the form of the states.
    pub(crate) fn signature(&self) -> &str {
        &self.signature
    }

    fn accumulators(&self) -> Result<Vec<Box<dyn GroupsAccumulator>>, Broken> {
        self.aggregates.iter().map(accumulator).collect()
    }

    /// Adds a batch's rows to its groups. `state` gives the state of a group before; the states after are given to `put`,
    /// by group.
    pub(crate) fn update<'s>(
        &self,
        rows: &RecordBatch,
        groups: &Groups,
        state: impl Fn(usize) -> Option<&'s [u8]>,
        mut put: impl FnMut(usize, &[u8]),
    ) -> Result<(), Broken> {
        let (known, before): (Vec<usize>, Vec<&[u8]>) =
            (0..groups.len()).filter_map(|group| Some((group, state(group)?))).unzip();
        let after = self.merged(rows, &groups.of_row, groups.len(), &before, &known)?;
        (0..groups.len()).for_each(|group| put(group, after.get(group)));
        Ok(())
    }

    /// The states of groups that begin with other states (`of[i]` is the group of `states[i]`), with rows added. Each
    /// group has a row.
    pub(crate) fn merged(
        &self,
        rows: &RecordBatch,
        of_row: &[usize],
        groups: usize,
        states: &[&[u8]],
        of: &[usize],
    ) -> Result<After, Broken> {
        // An accumulator takes it that all groups up to the number it is told have seen a value, where it is given no
        // NULL. So the groups that have a state come first, and at first it is told of these alone.
        let (places, known) = known_first(of, groups);
        let renumbered = |of: &[usize]| -> Vec<usize> {
            of.iter().map(|group| places.get(*group).copied().unwrap_or(*group)).collect()
        };
        let mut accumulators = self.accumulators()?;
        self.merge(&mut accumulators, states, &renumbered(of), known)?;
        let of_row = renumbered(of_row);
        for (accumulator, aggregate) in accumulators.iter_mut().zip(&self.aggregates) {
            let values = aggregate.values(rows)?;
            let filter = aggregate.filter(rows)?;
            accumulator.update_batch(&values, &of_row, filter.as_ref(), groups)?;
        }
        let mut columns: Vec<ArrayRef> = Vec::new();
        for accumulator in &mut accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(After { states: self.states.encode(&columns, groups)?, places })
    }

    /// The results of groups, given states (one or more for each group: `of[i]` is the group of `states[i]`).
    pub(crate) fn results(&self, states: &[&[u8]], of: &[usize], groups: usize) -> Result<Vec<ArrayRef>, Broken> {
        let mut accumulators = self.accumulators()?;
        self.merge(&mut accumulators, states, of, groups)?;
        accumulators.iter_mut().map(|a| Ok(a.evaluate(EmitTo::All)?)).collect()
    }

    fn merge(
        &self,
        accumulators: &mut [Box<dyn GroupsAccumulator>],
        states: &[&[u8]],
        of: &[usize],
        groups: usize,
    ) -> Result<(), Broken> {
        if states.is_empty() || self.aggregates.is_empty() {
            return Ok(());
        }
        let columns = self.states.decode(states.iter().copied())?;
        let mut rest = columns.as_slice();
        for (accumulator, width) in accumulators.iter_mut().zip(&self.widths) {
            let (own, others) =
                rest.split_at_checked(*width).ok_or_else(|| Broken("a state has too few columns".into()))?;
            accumulator.merge_batch(own, of, groups)?;
            rest = others;
        }
        Ok(())
    }
}

/// Columns with the types of fields, and the rows of results that have more digits than their type, each with why.
pub(crate) fn narrowed<'f>(
    columns: Vec<ArrayRef>,
    fields: impl Iterator<Item = &'f FieldRef>,
) -> Result<(Vec<ArrayRef>, BTreeMap<usize, String>), Broken> {
    let mut wrong: BTreeMap<usize, String> = BTreeMap::new();
    let mut own = Vec::with_capacity(columns.len());
    for (column, field) in columns.into_iter().zip(fields) {
        if column.data_type() == field.data_type() {
            own.push(column);
            continue;
        }
        let narrow = cast(&column, field.data_type())?;
        if matches!(column.data_type(), DataType::Decimal256(..)) && narrow.null_count() > column.null_count() {
            let lost = (0..column.len()).filter(|row| column.is_valid(*row) && narrow.is_null(*row));
            let why = || format!("{} has more digits than {}", field.name(), field.data_type());
            for row in lost {
                wrong.entry(row).or_insert_with(why);
            }
        }
        own.push(narrow);
    }
    Ok((own, wrong))
}

/// A batch with its schema's types, of keys, results and stamps. A row with a result that has more digits than its type is
/// left out, and told.
pub(crate) fn fitted(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
    failed: &mut Vec<Derived>,
) -> Result<RecordBatch, Broken> {
    let (own, wrong) = narrowed(columns, schema.fields().iter())?;
    let batch = batch_of(schema, own, rows)?;
    if wrong.is_empty() {
        return Ok(batch);
    }
    let fits: BooleanArray = (0..rows).map(|row| Some(!wrong.contains_key(&row))).collect();
    let told = wrong.into_iter();
    failed.extend(told.map(|(row, reason)| Derived { code: "overflow", reason, row: text_of_row(&batch, row) }));
    Ok(filter_record_batch(&batch, &fits)?)
}

/// An accumulator without values.
pub(crate) fn accumulator(aggregate: &Aggregate) -> Result<Box<dyn GroupsAccumulator>, Broken> {
    if aggregate.function.groups_accumulator_supported() {
        return Ok(aggregate.function.create_groups_accumulator()?);
    }
    let function = Arc::clone(&aggregate.function);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}

/// The results of groups, given all their values (`of[i]` is the group of a value).
pub(crate) fn evaluated(
    aggregate: &Aggregate,
    values: &[ArrayRef],
    of: &[usize],
    groups: usize,
) -> Result<ArrayRef, Broken> {
    let mut accumulator = accumulator(aggregate)?;
    // A mask that lets all pass: groups without a value are there as well, and must not seem to have one.
    let all = BooleanArray::from(vec![true; of.len()]);
    accumulator.update_batch(values, of, Some(&all), groups)?;
    Ok(accumulator.evaluate(EmitTo::All)?)
}

/// The states of groups after rows were added.
pub(crate) struct After {
    states: Encoded,
    places: Vec<usize>,
}

impl After {
    /// The state of a group.
    pub(crate) fn get(&self, group: usize) -> &[u8] {
        self.states.key(self.places.get(group).copied().unwrap_or(group))
    }
}

/// A place for each group, so that those that are in `of` come first, and how many these are.
fn known_first(of: &[usize], groups: usize) -> (Vec<usize>, usize) {
    let mut places = vec![usize::MAX; groups];
    let mut known = 0;
    for group in of {
        if let Some(place) = places.get_mut(*group).filter(|place| **place == usize::MAX) {
            *place = known;
            known += 1;
        }
    }
    let rest = places.iter_mut().filter(|place| **place == usize::MAX);
    rest.zip(known..).for_each(|(place, next)| *place = next);
    (places, known)
}

impl Aggregate {
    /// Computes it once, so that what can never be computed is known when the query is planned: from a row of NULLs and one
    /// of other values, from the state of these, and, unless rows are taken back, from both.
    pub(crate) fn try_out(&self, schema: &SchemaRef, taken_back: bool) -> Result<(), Broken> {
        for values in [false, true] {
            let column = |field: &FieldRef| {
                let value = ScalarValue::new_default(field.data_type()).ok().filter(|_| values);
                value.and_then(|value| value.to_array().ok()).unwrap_or_else(|| new_null_array(field.data_type(), 1))
            };
            let system = schema.fields().len().saturating_sub(1);
            let stamp = |field: &FieldRef| new_null_array(field.data_type(), 1);
            let columns = schema.fields().iter().enumerate();
            let columns = columns.map(|(at, field)| if at == system { stamp(field) } else { column(field) });
            let relaxed = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
            let relaxed = Arc::new(Schema::new(relaxed.collect::<Vec<_>>()));
            let row = RecordBatch::try_new(relaxed, columns.collect())?;
            if taken_back {
                let mut accumulator = accumulator(self)?;
                accumulator.update_batch(&self.values(&row)?, &[0], self.filter(&row)?.as_ref(), 1)?;
                accumulator.evaluate(EmitTo::All)?;
                continue;
            }
            let all = Aggregates::new(std::slice::from_ref(self))?;
            let first = all.merged(&row, &[0], 1, &[], &[])?;
            let second = all.merged(&row, &[0], 1, &[first.get(0)], &[0])?;
            all.results(&[first.get(0), second.get(0)], &[0, 0], 1)?;
        }
        Ok(())
    }

    /// The arguments' values, then those that order the rows.
    pub(crate) fn values(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, Broken> {
        let order = self.function.order_bys().iter().map(|sort| Arc::clone(&sort.expr));
        let all = self.function.expressions().into_iter().chain(order);
        all.map(|expr| Ok(expr.evaluate(rows)?.into_array(rows.num_rows())?)).collect()
    }

    pub(crate) fn filter(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>, Broken> {
        let Some(filter) = &self.filter else { return Ok(None) };
        let mask = filter.evaluate(rows)?.into_array(rows.num_rows())?;
        Ok(Some(mask.as_boolean_opt().cloned().unwrap_or_else(|| BooleanArray::new_null(rows.num_rows()))))
    }
}
