//! Aggregates without a window: for each key that a batch touches, the row that was given out before is taken back, and
//! the new one given out. A row is taken back by itself, marked as deleted, so that a step behind can take it out of what
//! it has computed.
//!
//! State: the key `0, group key` has the stamp of the row that was given out and the aggregates' states; what these keep
//! of single values is in keys that begin with 1 (see [`Lists`] and [`Bags`]).
//!
//! Over rows that only come, states are those of windows. Over rows that are taken back, see [`Retracting`].
//!
//! [`Lists`]: crate::stream::lists::Lists
//! [`Bags`]: crate::stream::retract::Bags

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow_cast::cast;
use arrow_schema::{DataType, SchemaRef};
use arrow_select::concat::concat;
use arrow_select::take::take;
use millstream_event::Stamp;

use crate::ops::batch_of;
use crate::stream::aggregates::{Aggregate, narrowed};
use crate::stream::changes::Changes;
use crate::stream::groups::{Encoded, Groups, Keys};
use crate::stream::kept::{GROUP, Kept};
use crate::stream::legend::{Legend, UpdateLegend};
use crate::stream::lists::VALUE;
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::retract::{Arguments, Retracting};
use crate::stream::row_table::RowTable;
use crate::stream::running::Derived;
use crate::stream::window_aggregate::{time_key, time_of};

/// A planned aggregate without a window.
#[derive(Debug)]
pub(crate) struct UpdateAggregatePlan {
    /// The places and types of the key in the input.
    pub(crate) key: Vec<(usize, DataType)>,
    pub(crate) aggregates: Vec<Aggregate>,
    /// Where rows of the input may be taken back: what each aggregate reads.
    pub(crate) retracting: Option<Vec<Arguments>>,
    /// The columns of the output, the key first, and the system's.
    pub(crate) schema: SchemaRef,
}

impl Blueprint for UpdateAggregatePlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        let types: Vec<DataType> = self.key.iter().map(|(_, kind)| kind.clone()).collect();
        let states = match &self.retracting {
            Some(arguments) => States::Retracting(Retracting::new(&self.aggregates, arguments)?),
            None => States::Growing(Kept::new(&self.aggregates)?),
        };
        let results = self.schema.fields().iter().skip(types.len()).map(|field| field.data_type().clone());
        let results: Vec<DataType> = results.take(self.aggregates.len()).collect();
        Ok(Box::new(UpdateAggregate {
            key: self.key.iter().map(|(place, _)| *place).collect(),
            schema: Arc::clone(&self.schema),
            keys: Keys::new(&types)?,
            results: Keys::new(&results)?,
            states,
            groups: RowTable::default(),
        }))
    }

    fn timed(&self) -> bool {
        false
    }

    fn meanings(&self, _side: usize) -> Vec<usize> {
        self.key.iter().map(|(place, _)| *place).collect()
    }

    fn signature(&self) -> String {
        let types: Vec<&DataType> = self.key.iter().map(|(_, kind)| kind).collect();
        let states = match &self.retracting {
            Some(arguments) => Retracting::new(&self.aggregates, arguments).map(|states| states.signature()),
            None => Kept::new(&self.aggregates).map(|states| states.signature()),
        };
        format!("update {types:?}: {}", states.unwrap_or_default())
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        Ok(Box::new(UpdateLegend::new(self)?))
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = self.aggregates.iter().map(|a| a.function.name()).collect();
        format!("update {} key columns: {}", self.key.len(), names.join(", "))
    }

    fn updates(&self) -> bool {
        true
    }

    fn takes_updates(&self) -> bool {
        self.retracting.is_some()
    }
}

enum States {
    /// Rows only come.
    Growing(Kept),
    /// Rows come and are taken back.
    Retracting(Retracting),
}

struct UpdateAggregate {
    key: Vec<usize>,
    schema: SchemaRef,
    keys: Keys,
    results: Keys,
    states: States,
    /// The stamp and the state of each key.
    groups: RowTable,
}

/// What comes before the state in a row of the table.
const STAMP: usize = 8;

/// The results of some groups.
struct Rows {
    /// The groups, by their numbers in the batch.
    groups: Vec<usize>,
    stamps: Vec<i64>,
    columns: Vec<ArrayRef>,
    /// The columns as bytes, to compare them.
    bytes: Encoded,
}

impl Operator for UpdateAggregate {
    fn push(&mut self, _side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let columns: Vec<ArrayRef> = self.key.iter().filter_map(|i| rows.columns().get(*i).cloned()).collect();
        let keys = self.keys.encode(&columns, rows.num_rows())?;
        let groups = Groups::new(&keys, |_| 0);
        let key_of = |group: usize| keys.key(groups.first.get(group).copied().unwrap_or(0));
        let stamps = stamps(rows)?;
        let mut latest = vec![i64::MIN; groups.len()];
        for (stamp, group) in stamps.iter().zip(&groups.of_row) {
            if let Some(latest) = latest.get_mut(*group) {
                *latest = (*latest).max(Stamp(*stamp).micros());
            }
        }
        let mut before: Vec<Option<(i64, Box<[u8]>)>> = Vec::with_capacity(groups.len());
        for group in 0..groups.len() {
            let known = self.groups.get(key_of(group)).and_then(time_of);
            before.push(known.map(|(stamp, state)| (stamp, state.into())));
        }
        let kept = before.iter().enumerate().filter_map(|(group, b)| b.as_ref().map(|(s, b)| (group, *s, b.as_ref())));
        let old = self.results_of(kept.collect(), key_of, None)?;
        let states: Vec<Option<&[u8]>> = before.iter().map(|b| b.as_ref().map(|(_, state)| state.as_ref())).collect();
        let after = match &mut self.states {
            States::Growing(kept) => {
                let name = |group: usize| key_of(group).to_vec();
                grown(kept, rows, &groups, &name, &states, out.changes)?
            }
            States::Retracting(retracting) => retracting.apply(rows, stamps, &groups, &states, key_of, out.changes)?,
        };
        let now = after.iter().enumerate().filter_map(|(group, state)| {
            let last = before.get(group).and_then(Option::as_ref).map_or(i64::MIN, |(stamp, _)| *stamp);
            Some((group, latest.get(group).copied()?.max(last), state.as_deref()?))
        });
        let now: Vec<(usize, i64, &[u8])> = now.collect();
        let new = self.results_of(now.clone(), key_of, Some(&mut out.failed))?;
        let (changed, same) = self.changed(&old, &new);
        for (group, stamp, state) in now {
            // A row that stays as it was keeps its stamp, as it is out there.
            let own = before.get(group).and_then(Option::as_ref).filter(|_| same.contains(&group));
            let stamp = own.map_or(stamp, |(stamp, _)| *stamp);
            let value = [time_key(stamp).as_slice(), state].concat();
            self.groups.put(key_of(group), &value);
            out.changes.put(&[&GROUP, key_of(group)], &value);
        }
        for group in (0..groups.len()).filter(|group| after.get(*group).is_some_and(Option::is_none)) {
            if self.groups.remove(key_of(group)) {
                out.changes.delete(&[&GROUP, key_of(group)]);
            }
        }
        out.rows.extend(self.batch(&old, &new, &changed, key_of)?);
        Ok(())
    }

    fn advance(&mut self, _watermark: i64, _out: &mut Out<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let broken = || Broken("a group's state has another form than this version's".into());
        let (kind, key) = key.split_first_chunk::<1>().ok_or_else(broken)?;
        match (*kind, value, &mut self.states) {
            (GROUP, Some(value), _) if value.len() >= STAMP => self.groups.put(key, value),
            (GROUP, None, _) => {
                self.groups.remove(key);
            }
            (VALUE, value, States::Retracting(retracting)) => retracting.restore(key, value)?,
            (VALUE, value, States::Growing(kept)) if kept.has_lists() => kept.restore_value(key, value)?,
            _ => return Err(broken()),
        }
        Ok(())
    }

    fn size(&self) -> (usize, usize) {
        let (values, bytes) = match &self.states {
            States::Growing(kept) => kept.size(),
            States::Retracting(retracting) => retracting.size(),
        };
        (self.groups.len() + values, self.groups.bytes() + bytes)
    }
}

/// The states after rows that only come.
fn grown(
    kept: &mut Kept,
    rows: &RecordBatch,
    groups: &Groups,
    name: &dyn Fn(usize) -> Vec<u8>,
    before: &[Option<&[u8]>],
    changes: &mut Changes,
) -> Result<Vec<Option<Box<[u8]>>>, Broken> {
    let mut after = vec![None; groups.len()];
    let state = |group: usize| before.get(group).copied().flatten();
    let put = |group: usize, state: &[u8]| {
        if let Some(after) = after.get_mut(group) {
            *after = Some(state.into());
        }
    };
    kept.update(rows, groups, name, state, put, changes)?;
    Ok(after)
}

fn stamps(rows: &RecordBatch) -> Result<&[i64], Broken> {
    let system = rows.columns().last().and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    Ok(system.ok_or_else(|| Broken("rows have no stamp".into()))?.values())
}

impl UpdateAggregate {
    /// The rows of groups: their numbers, stamps and states. A group with a result that has more digits than its type has no
    /// row; that is told to `failed`.
    fn results_of<'k>(
        &self,
        groups: Vec<(usize, i64, &[u8])>,
        key_of: impl Fn(usize) -> &'k [u8],
        mut failed: Option<&mut Vec<Derived>>,
    ) -> Result<Rows, Broken> {
        let states: Vec<&[u8]> = groups.iter().map(|(_, _, state)| *state).collect();
        let columns = match &self.states {
            _ if states.is_empty() => Vec::new(),
            States::Growing(kept) => {
                let of: Vec<usize> = (0..states.len()).collect();
                let name = |at: usize| groups.get(at).map(|(group, ..)| key_of(*group).to_vec()).unwrap_or_default();
                kept.results(&states, &of, states.len(), &name)?
            }
            States::Retracting(retracting) => {
                let keys: Vec<&[u8]> = groups.iter().map(|(group, ..)| key_of(*group)).collect();
                retracting.results(&states, &keys)?
            }
        };
        let fields = self.schema.fields().iter().skip(self.key.len());
        let (columns, wrong) = narrowed(columns, fields)?;
        if !wrong.is_empty() {
            for (at, reason) in &wrong {
                let key = groups.get(*at).map_or(&[][..], |(group, ..)| key_of(*group));
                if let Some(failed) = &mut failed {
                    failed.push(Derived { code: "overflow", reason: reason.clone(), row: self.text_of_key(key)? });
                }
            }
            let fits = groups.into_iter().enumerate().filter(|(at, _)| !wrong.contains_key(at)).map(|(_, group)| group);
            return self.results_of(fits.collect(), key_of, None);
        }
        let bytes = self.results.encode(&columns, states.len())?;
        let (numbers, stamps) = groups.iter().map(|(group, stamp, _)| (*group, *stamp)).unzip();
        Ok(Rows { groups: numbers, stamps, columns, bytes })
    }

    /// A key for a person to read.
    fn text_of_key(&self, key: &[u8]) -> Result<String, Broken> {
        let columns = if self.key.is_empty() { Vec::new() } else { self.keys.decode([key])? };
        let cells = self.schema.fields().iter().zip(&columns).map(|(field, column)| {
            let value = arrow_cast::display::array_value_to_string(column, 0).unwrap_or_default();
            format!("{}={value}", field.name())
        });
        Ok(cells.collect::<Vec<_>>().join(", "))
    }

    /// Which rows are taken back and given out, by their places among all (the old ones first), and which groups stay as
    /// they were.
    fn changed(&self, old: &Rows, new: &Rows) -> (Vec<u32>, std::collections::HashSet<usize>) {
        let mut changed = Vec::new();
        let mut same = std::collections::HashSet::new();
        let (mut left, mut right) = (0, 0);
        loop {
            match (old.groups.get(left), new.groups.get(right)) {
                (None, None) => return (changed, same),
                (Some(a), Some(b)) if a == b => {
                    if old.bytes.key(left) == new.bytes.key(right) {
                        same.insert(*a);
                    } else {
                        changed.push(left as u32);
                        changed.push((old.groups.len() + right) as u32);
                    }
                    left += 1;
                    right += 1;
                }
                (Some(a), b) if b.is_none_or(|b| a < b) => {
                    changed.push(left as u32);
                    left += 1;
                }
                _ => {
                    changed.push((old.groups.len() + right) as u32);
                    right += 1;
                }
            }
        }
    }

    fn batch<'k>(
        &self,
        old: &Rows,
        new: &Rows,
        changed: &[u32],
        key_of: impl Fn(usize) -> &'k [u8],
    ) -> Result<Option<RecordBatch>, Broken> {
        if changed.is_empty() {
            return Ok(None);
        }
        let groups: Vec<usize> = old.groups.iter().chain(&new.groups).copied().collect();
        let of = |place: &u32| groups.get(*place as usize).copied().unwrap_or(0);
        let mut columns = match self.key.is_empty() {
            true => Vec::new(),
            false => self.keys.decode(changed.iter().map(|place| key_of(of(place))))?,
        };
        let places = UInt32Array::from(changed.to_vec());
        for at in 0..old.columns.len().max(new.columns.len()) {
            let both: Vec<&dyn Array> =
                [old, new].iter().filter_map(|rows| rows.columns.get(at).map(AsRef::as_ref)).collect();
            columns.push(take(&concat(&both)?, &places, None)?);
        }
        let stamps =
            old.stamps.iter().map(|stamp| Stamp(*stamp).with(Stamp::DELETED).0).chain(new.stamps.iter().copied());
        let stamps: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(stamps).with_timezone("+00:00"));
        columns.push(take(&stamps, &places, None)?);
        let columns = columns.into_iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
        });
        Ok(Some(batch_of(&self.schema, columns.collect::<Result<_, _>>()?, changed.len())?))
    }
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
