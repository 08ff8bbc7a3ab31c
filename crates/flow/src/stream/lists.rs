//! Aggregates that need all values of a group: DISTINCT, `array_agg`, `string_agg`, `median`, `percentile_cont`. Each value
//! is a row of the state of its own, so that an event writes as much for the ten-thousandth value as for the first.
//!
//! State: the key `slot, length of the group's name, the group's name, value` for what is DISTINCT; else the number of the
//! value in the order of arrival is in the place of the value, and the value beside it.

use std::collections::BTreeMap;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::DataType;
use hashbrown::{HashMap, HashSet};

use crate::stream::aggregates::{Aggregate, evaluated};
use crate::stream::changes::Changes;
use crate::stream::groups::{Groups, Keys};
use crate::stream::operator::Broken;

/// In front of a value's key in the changelog.
pub(crate) const VALUE: [u8; 1] = [1];

/// What a value takes beside its bytes.
const VALUE_OVERHEAD_BYTES: usize = 48;

/// The slot, the group's name, the value's columns and its number.
type Shown<'k> = (usize, &'k [u8], Vec<ArrayRef>, Option<u64>);

type Hasher = foldhash::fast::FixedState;

/// The aggregates of a query that need all values.
pub(crate) struct Lists {
    slots: Vec<Slot>,
    /// The values of each slot and group, by `slot, length of the name, name`.
    groups: HashMap<Box<[u8]>, Values, Hasher>,
    rows: usize,
    bytes: usize,
}

struct Slot {
    aggregate: Aggregate,
    distinct: bool,
    /// Whether only the number of its values counts.
    counted: bool,
    codec: Keys,
}

/// The values of one group.
enum Values {
    /// Each once.
    Distinct(HashSet<Box<[u8]>, Hasher>),
    /// All, in the order of arrival.
    All(BTreeMap<u64, Box<[u8]>>),
}

/// Whether an aggregate needs all values of a group.
pub(crate) fn needs_all(aggregate: &Aggregate) -> bool {
    let function = &aggregate.function;
    let listed = ["array_agg", "median", "percentile_cont", "string_agg"].contains(&function.fun().name());
    let lists = |fields: Vec<arrow_schema::FieldRef>| fields.iter().any(|f| matches!(f.data_type(), DataType::List(_)));
    listed || function.is_distinct() && function.state_fields().is_ok_and(lists)
}

impl Values {
    fn new(distinct: bool) -> Self {
        if distinct { Self::Distinct(HashSet::default()) } else { Self::All(BTreeMap::new()) }
    }

    fn len(&self) -> usize {
        match self {
            Self::Distinct(values) => values.len(),
            Self::All(values) => values.len(),
        }
    }

    /// The values: in the order of arrival, or in their own.
    fn list(&self) -> Vec<&[u8]> {
        match self {
            Self::Distinct(values) => {
                let mut values: Vec<&[u8]> = values.iter().map(AsRef::as_ref).collect();
                values.sort_unstable();
                values
            }
            Self::All(values) => values.values().map(AsRef::as_ref).collect(),
        }
    }
}

impl Lists {
    /// Prepares aggregates.
    pub(crate) fn new(aggregates: Vec<Aggregate>) -> Result<Self, Broken> {
        let slots = aggregates.into_iter().map(|aggregate| {
            let distinct = aggregate.function.is_distinct();
            let counted = distinct && aggregate.function.fun().name() == "count";
            Ok(Slot { codec: Keys::new(&aggregate.types)?, distinct, counted, aggregate })
        });
        let slots = slots.collect::<Result<_, Broken>>()?;
        Ok(Self { slots, groups: HashMap::default(), rows: 0, bytes: 0 })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What decides the form of the state.
    pub(crate) fn signature(&self) -> String {
        let slots = self.slots.iter().map(|slot| {
            let aggregate = &slot.aggregate;
            format!("{} {:?}", aggregate.function.name(), aggregate.types)
        });
        slots.collect::<Vec<_>>().join(", ")
    }

    /// Adds rows to their groups.
    pub(crate) fn add(
        &mut self,
        rows: &RecordBatch,
        groups: &Groups,
        name: &dyn Fn(usize) -> Vec<u8>,
        changes: &mut Changes,
    ) -> Result<(), Broken> {
        let Self { slots, groups: kept, rows: count, bytes } = self;
        for (at, slot) in slots.iter().enumerate() {
            let arguments = slot.aggregate.values(rows)?;
            let filter = slot.aggregate.filter(rows)?;
            let values = slot.codec.encode(&arguments, rows.num_rows())?;
            let nulls: Vec<_> = arguments.iter().filter_map(|column| column.logical_nulls()).collect();
            let counts = |row: usize| {
                let passes = filter.as_ref().is_none_or(|mask| {
                    use arrow_array::Array;
                    mask.is_valid(row) && mask.value(row)
                });
                passes && (!slot.counted || nulls.iter().all(|nulls| nulls.is_valid(row)))
            };
            for (group, members) in members(groups).into_iter().enumerate() {
                let mut members = members.into_iter().filter(|row| counts(*row)).peekable();
                if members.peek().is_none() {
                    continue;
                }
                let prefix = prefix(at, &name(group));
                let own = kept.entry(prefix.as_slice().into()).or_insert_with(|| Values::new(slot.distinct));
                for row in members {
                    let value = values.key(row);
                    match own {
                        Values::Distinct(known) if known.contains(value) => continue,
                        Values::Distinct(known) => {
                            known.insert(value.into());
                            changes.put(&[&VALUE, &prefix, value], &[]);
                        }
                        Values::All(known) => {
                            let number = known.last_key_value().map_or(0, |(last, _)| last + 1);
                            known.insert(number, value.into());
                            changes.put(&[&VALUE, &prefix, &number.to_be_bytes()], value);
                        }
                    }
                    *count += 1;
                    *bytes += value.len() + VALUE_OVERHEAD_BYTES;
                }
            }
        }
        Ok(())
    }

    /// Lets go of a group.
    pub(crate) fn forget(&mut self, name: &[u8], changes: &mut Changes) {
        for at in 0..self.slots.len() {
            let prefix = prefix(at, name);
            let Some(values) = self.groups.remove(prefix.as_slice()) else { continue };
            match values {
                Values::Distinct(values) => values.iter().for_each(|value| {
                    self.gone(value.len());
                    changes.delete(&[&VALUE, &prefix, value]);
                }),
                Values::All(values) => values.iter().for_each(|(number, value)| {
                    self.gone(value.len());
                    changes.delete(&[&VALUE, &prefix, &number.to_be_bytes()]);
                }),
            }
        }
    }

    fn gone(&mut self, value: usize) {
        self.rows -= 1;
        self.bytes -= value + VALUE_OVERHEAD_BYTES;
    }

    /// Takes a change that was told before, without what stands in front of it.
    pub(crate) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let broken = || Broken("the values of a group have another form than this version's".into());
        let (prefix, slot, rest) = split(key).ok_or_else(broken)?;
        let slot = self.slots.get(slot).ok_or_else(broken)?;
        let own = self.groups.entry(prefix.into()).or_insert_with(|| Values::new(slot.distinct));
        let (before, after) = match (&mut *own, value) {
            (Values::Distinct(known), Some(_)) => {
                (known.replace(rest.into()).map(|before| before.len()), Some(rest.len()))
            }
            (Values::Distinct(known), None) => (known.take(rest).map(|before| before.len()), None),
            (Values::All(known), value) => {
                let number = u64::from_be_bytes(rest.try_into().map_err(|_| broken())?);
                let before = match value {
                    Some(value) => known.insert(number, value.into()),
                    None => known.remove(&number),
                };
                (before.map(|before| before.len()), value.map(<[u8]>::len))
            }
        };
        if own.len() == 0 {
            self.groups.remove(prefix);
        }
        if let Some(before) = before {
            self.gone(before);
        }
        if let Some(after) = after {
            self.rows += 1;
            self.bytes += after + VALUE_OVERHEAD_BYTES;
        }
        Ok(())
    }

    /// What a row of the changelog says, without what stands in front of it: the slot, the group's name, the value's
    /// columns and its number.
    pub(crate) fn value<'k>(&self, key: &'k [u8], value: &[u8]) -> Result<Shown<'k>, Broken> {
        let broken = || Broken("the values of a group have another form than this version's".into());
        let (prefix, at, rest) = split(key).ok_or_else(broken)?;
        let slot = self.slots.get(at).ok_or_else(broken)?;
        let name = prefix.get(HEAD_BYTES..).ok_or_else(broken)?;
        if slot.distinct {
            return Ok((at, name, slot.codec.decode([rest])?, None));
        }
        let number = u64::from_be_bytes(rest.try_into().map_err(|_| broken())?);
        Ok((at, name, slot.codec.decode([value])?, Some(number)))
    }

    /// The results of groups, each of which is made of the groups with these names.
    pub(crate) fn results(&self, names: &[Vec<Vec<u8>>]) -> Result<Vec<ArrayRef>, Broken> {
        self.slots.iter().enumerate().map(|(at, slot)| self.result(at, slot, names)).collect()
    }

    fn result(&self, at: usize, slot: &Slot, names: &[Vec<Vec<u8>>]) -> Result<ArrayRef, Broken> {
        let of = |name: &Vec<u8>| self.groups.get(prefix(at, name).as_slice());
        if slot.counted {
            let count = |names: &Vec<Vec<u8>>| match names.as_slice() {
                [one] => of(one).map_or(0, Values::len),
                all => all.iter().filter_map(of).flat_map(Values::list).collect::<HashSet<_, Hasher>>().len(),
            };
            let counts: Int64Array = names.iter().map(|names| Some(count(names) as i64)).collect();
            return Ok(std::sync::Arc::new(counts));
        }
        let (mut values, mut groups) = (Vec::new(), Vec::new());
        for (group, names) in names.iter().enumerate() {
            names.iter().filter_map(of).for_each(|own| values.extend(own.list()));
            groups.resize(values.len(), group);
        }
        evaluated(&slot.aggregate, &slot.codec.decode(values)?, &groups, names.len())
    }

    /// How many values there are, and about how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.rows, self.bytes)
    }
}

/// The rows of each group.
fn members(groups: &Groups) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); groups.len()];
    for (row, group) in groups.of_row.iter().enumerate() {
        if let Some(members) = members.get_mut(*group) {
            members.push(row);
        }
    }
    members
}

/// What the keys of a group's values begin with.
fn prefix(slot: usize, name: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(name.len() + HEAD_BYTES);
    prefix.extend_from_slice(&(slot as u16).to_be_bytes());
    prefix.extend_from_slice(&(name.len() as u32).to_be_bytes());
    prefix.extend_from_slice(name);
    prefix
}

/// The slot and the length of the name.
const HEAD_BYTES: usize = 6;

/// The prefix of a key, its slot, and what stands behind it.
fn split(key: &[u8]) -> Option<(&[u8], usize, &[u8])> {
    let (slot, rest) = key.split_first_chunk::<2>()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    let (prefix, rest) = key.split_at_checked(HEAD_BYTES + u32::from_be_bytes(*length) as usize)?;
    Some((prefix, usize::from(u16::from_be_bytes(*slot)), rest))
}

#[cfg(test)]
#[path = "lists_tests.rs"]
mod tests;
