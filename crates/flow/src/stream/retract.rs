//! Aggregates over rows that come and are taken back.
//!
//! `count`, `sum` and `avg` of integers and decimals are numbers that rows are added to and taken from, exactly. All other
//! aggregates keep the values themselves, each with how often it is there; `min` and `max` look at one end of these, what
//! is DISTINCT at each once, and the rest is computed anew from all values of a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow_cast::cast;
use arrow_schema::DataType;
use datafusion_expr::EmitTo;
use millstream_event::Stamp;

use crate::stream::aggregates::{Aggregate, accumulator, evaluated};
use crate::stream::changes::Changes;
use crate::stream::groups::{Groups, Keys};
use crate::stream::lists::VALUE;
use crate::stream::operator::Broken;

/// How an aggregate takes rows back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By a number of rows.
    Count,
    /// By a number of rows and a sum, with this many digits behind the point.
    Sum,
    /// By the same.
    Average,
    /// By its values, of which the least counts.
    Least,
    /// By its values, of which the greatest counts.
    Greatest,
    /// By its values, each of which counts once.
    Distinct,
    /// By its values, each of which counts as often as it is there.
    All,
}

struct Slot {
    aggregate: Aggregate,
    kind: Kind,
    /// The type of what is summed up.
    summed: Option<DataType>,
    /// For the bytes of values.
    values: Keys,
}

/// What an aggregate reads.
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    /// Whether its argument is a whole number, as a double.
    pub(crate) whole: bool,
}

/// The values of groups, each with how often it is there.
///
/// In the changelog: the key `1, slot, length of the group key, group key, value` has the number.
#[derive(Debug, Default)]
pub(crate) struct Bags {
    counts: BTreeMap<Box<[u8]>, i64>,
    bytes: usize,
}

/// What a value takes beside its bytes.
const VALUE_OVERHEAD_BYTES: usize = 48;

/// The aggregates of a query.
pub(crate) struct Retracting {
    slots: Vec<Slot>,
    bags: Bags,
}

/// The bytes of a group's state: the number of its rows, then a number and a sum for each aggregate.
const ROWS: usize = 8;
const SLOT: usize = 24;

#[derive(Debug, Clone, Default)]
struct State {
    rows: i64,
    slots: Vec<(i64, i128)>,
}

impl State {
    fn read(bytes: Option<&[u8]>, slots: usize) -> Option<Self> {
        let Some(bytes) = bytes else { return Some(Self { rows: 0, slots: vec![(0, 0); slots] }) };
        let (rows, rest) = bytes.split_first_chunk::<ROWS>()?;
        let slot = |bytes: &[u8]| {
            let (n, sum) = bytes.split_first_chunk::<8>()?;
            Some((i64::from_be_bytes(*n), i128::from_be_bytes(sum.try_into().ok()?)))
        };
        let slots = rest.chunks(SLOT).map(slot).collect::<Option<Vec<_>>>().filter(|read| read.len() == slots)?;
        Some(Self { rows: i64::from_be_bytes(*rows), slots })
    }

    fn bytes(&self) -> Box<[u8]> {
        let slots = self.slots.iter().flat_map(|(n, sum)| n.to_be_bytes().into_iter().chain(sum.to_be_bytes()));
        self.rows.to_be_bytes().into_iter().chain(slots).collect()
    }
}

fn broken() -> Broken {
    Broken("a group's state has another form than this version's".into())
}

impl Retracting {
    /// Prepares aggregates, given what each reads.
    pub(crate) fn new(aggregates: &[Aggregate], arguments: &[Arguments]) -> Result<Self, Broken> {
        let slots = aggregates.iter().zip(arguments).map(|(aggregate, arguments)| Slot::new(aggregate, arguments));
        let slots = slots.collect::<Result<_, _>>()?;
        Ok(Self { slots, bags: Bags::default() })
    }

    /// What decides the form of the states.
    pub(crate) fn signature(&self) -> String {
        let slots = self
            .slots
            .iter()
            .map(|slot| format!("{} {:?} {:?}", slot.aggregate.function.name(), slot.kind, slot.summed));
        format!("retracting {}", slots.collect::<Vec<_>>().join(", "))
    }

    pub(crate) fn size(&self) -> (usize, usize) {
        (self.bags.counts.len(), self.bags.bytes)
    }

    pub(crate) fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let count = value.map(|value| value.try_into().map(i64::from_be_bytes)).transpose().map_err(|_| broken())?;
        self.bags.set(key.into(), count.unwrap_or(0));
        Ok(())
    }

    /// Adds rows to their groups, or takes them back. The states after, `None` where no row is left.
    pub(crate) fn apply<'k>(
        &mut self,
        rows: &RecordBatch,
        stamps: &[i64],
        groups: &Groups,
        before: &[Option<&[u8]>],
        key_of: impl Fn(usize) -> &'k [u8],
        changes: &mut Changes,
    ) -> Result<Vec<Option<Box<[u8]>>>, Broken> {
        let signs: Vec<i64> = stamps.iter().map(|stamp| if Stamp(*stamp).is_deleted() { -1 } else { 1 }).collect();
        let states = before.iter().map(|bytes| State::read(*bytes, self.slots.len()).ok_or_else(broken));
        let mut states: Vec<State> = states.collect::<Result<_, _>>()?;
        for (group, sign) in groups.of_row.iter().zip(&signs) {
            if let Some(state) = states.get_mut(*group) {
                state.rows += sign;
            }
        }
        let bags = &mut self.bags;
        for (at, slot) in self.slots.iter().enumerate() {
            let arguments = slot.aggregate.values(rows)?;
            let filter = slot.aggregate.filter(rows)?;
            let counts = |row: usize| {
                let passes = filter.as_ref().is_none_or(|mask| mask.is_valid(row) && mask.value(row));
                let known = slot.kind == Kind::All
                    || arguments.iter().all(|column| column.logical_nulls().is_none_or(|nulls| nulls.is_valid(row)));
                passes && known
            };
            let counted: Vec<bool> = (0..rows.num_rows()).map(counts).collect();
            let each = groups.of_row.iter().zip(&signs).zip(&counted).enumerate().filter(|(_, (_, counts))| **counts);
            if let Kind::Count | Kind::Sum | Kind::Average = slot.kind {
                let numbers = slot.numbers(arguments.first())?;
                for (row, ((group, sign), _)) in each {
                    let own = states.get_mut(*group).and_then(|state| state.slots.get_mut(at));
                    if let Some((n, sum)) = own {
                        *n += sign;
                        let number = numbers.as_ref().and_then(|numbers| numbers.get(row)).copied().unwrap_or(0);
                        *sum = sum.wrapping_add(number.wrapping_mul(i128::from(*sign)));
                    }
                }
                continue;
            }
            let values = slot.values.encode(&arguments, rows.num_rows())?;
            let mut touched: BTreeMap<Box<[u8]>, i64> = BTreeMap::new();
            for (row, ((group, sign), _)) in each {
                let key = [prefix(at, key_of(*group)).as_slice(), values.key(row)].concat();
                *touched.entry(key.into()).or_default() += sign;
            }
            for (key, change) in touched.into_iter().filter(|(_, change)| *change != 0) {
                let count = bags.counts.get(&key).copied().unwrap_or(0) + change;
                match count {
                    0 => changes.delete(&[&VALUE, &key]),
                    count => changes.put(&[&VALUE, &key], &count.to_be_bytes()),
                }
                bags.set(key, count);
            }
        }
        Ok(states.iter().map(|state| (state.rows > 0).then(|| state.bytes())).collect())
    }

    /// The results that a group's state has in itself; `None` where an aggregate keeps its values beside it.
    pub(crate) fn numbers_of(&self, state: &[u8]) -> Result<Vec<Option<ArrayRef>>, Broken> {
        let state = State::read(Some(state), self.slots.len()).ok_or_else(broken)?;
        let result = |(slot, numbers): (&Slot, &(i64, i128))| match slot.kind {
            Kind::Count => Ok(Some(Arc::new(Int64Array::from(vec![numbers.0])) as ArrayRef)),
            Kind::Sum => slot.sums(&[*numbers]).map(Some),
            Kind::Average => slot.averages(&[*numbers]).map(Some),
            _ => Ok(None),
        };
        self.slots.iter().zip(&state.slots).map(result).collect()
    }

    /// The results of groups, given their states and keys.
    pub(crate) fn results(&self, states: &[&[u8]], keys: &[&[u8]]) -> Result<Vec<ArrayRef>, Broken> {
        let read = states.iter().map(|bytes| State::read(Some(bytes), self.slots.len()).ok_or_else(broken));
        let states: Vec<State> = read.collect::<Result<_, _>>()?;
        let slots = self.slots.iter().enumerate();
        slots
            .map(|(at, slot)| {
                let numbers: Vec<(i64, i128)> =
                    states.iter().map(|state| state.slots.get(at).copied().unwrap_or_default()).collect();
                match slot.kind {
                    Kind::Count => Ok(Arc::new(numbers.iter().map(|(n, _)| *n).collect::<Int64Array>()) as ArrayRef),
                    Kind::Sum => slot.sums(&numbers),
                    Kind::Average => slot.averages(&numbers),
                    _ => slot.anew(at, keys, &self.bags),
                }
            })
            .collect()
    }
}

/// What the keys of a group's values begin with.
fn prefix(slot: usize, key: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(key.len() + 6);
    prefix.extend_from_slice(&(slot as u16).to_be_bytes());
    prefix.extend_from_slice(&(key.len() as u32).to_be_bytes());
    prefix.extend_from_slice(key);
    prefix
}

/// The number of the aggregate, the group's key and the value that a key of the changelog names.
pub(crate) fn value_key(key: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let (slot, rest) = key.split_first_chunk::<2>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (group, value) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((usize::from(u16::from_be_bytes(*slot)), group, value))
}

impl Bags {
    fn set(&mut self, key: Box<[u8]>, count: i64) {
        let size = key.len() + VALUE_OVERHEAD_BYTES;
        let before = match count {
            0 => self.counts.remove(&key),
            count => self.counts.insert(key, count),
        };
        match (before, count) {
            (None, 0) => {}
            (None, _) => self.bytes += size,
            (Some(_), 0) => self.bytes -= size,
            (Some(_), _) => {}
        }
    }

    /// The values with this prefix, from the least.
    fn of<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], i64)> {
        let from = (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
        let all = self.counts.range::<[u8], _>(from).take_while(move |(key, _)| key.starts_with(prefix));
        all.map(|(key, count)| (key.get(prefix.len()..).unwrap_or_default(), *count))
    }

    /// The greatest value with this prefix.
    fn last<'a>(&'a self, prefix: &'a [u8]) -> Option<&'a [u8]> {
        // The next prefix: they begin with a number and a length, so some byte is not the greatest one.
        let mut end = prefix.to_vec();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let before = (std::ops::Bound::Included(prefix), std::ops::Bound::Excluded(end.as_slice()));
        let (key, _) = self.counts.range::<[u8], _>(before).next_back()?;
        key.get(prefix.len()..)
    }
}

impl Slot {
    fn new(aggregate: &Aggregate, arguments: &Arguments) -> Result<Self, Broken> {
        let function = &aggregate.function;
        let types = aggregate.types.as_slice();
        let summed = types.first().filter(|_| types.len() == 1).cloned();
        let whole = arguments.whole && matches!(&summed, Some(DataType::Float64));
        let exact = whole || matches!(&summed, Some(DataType::Int64 | DataType::Decimal128(..)));
        let kind = match function.fun().name() {
            "count" if !function.is_distinct() => Kind::Count,
            "min" => Kind::Least,
            "max" => Kind::Greatest,
            "sum" if exact && !function.is_distinct() => Kind::Sum,
            "avg" if exact && !function.is_distinct() => Kind::Average,
            _ if function.is_distinct() => Kind::Distinct,
            _ => Kind::All,
        };
        Ok(Self { aggregate: aggregate.clone(), kind, summed, values: Keys::new(types)? })
    }

    /// The numbers of a column, without their points.
    fn numbers(&self, column: Option<&ArrayRef>) -> Result<Option<Vec<i128>>, Broken> {
        let (Some(column), Kind::Sum | Kind::Average) = (column, self.kind) else { return Ok(None) };
        let numbers = match column.data_type() {
            DataType::Int64 => column.as_primitive::<Int64Type>().iter().map(|n| n.map_or(0, i128::from)).collect(),
            DataType::Decimal128(..) => {
                column.as_primitive::<Decimal128Type>().iter().map(Option::unwrap_or_default).collect()
            }
            // A whole number is the same double when it comes and when it goes.
            DataType::Float64 => {
                column.as_primitive::<Float64Type>().iter().map(|n| n.unwrap_or(0.0) as i128).collect()
            }
            other => return Err(Broken(format!("a sum over {other}"))),
        };
        Ok(Some(numbers))
    }

    fn summed_up(&self, numbers: &[(i64, i128)]) -> Result<ArrayRef, Broken> {
        let scale = match &self.summed {
            Some(DataType::Decimal128(_, scale)) => *scale,
            _ => 0,
        };
        let sums: Decimal128Array = numbers.iter().map(|(n, sum)| (*n > 0).then_some(*sum)).collect();
        Ok(Arc::new(sums.with_precision_and_scale(38, scale)?))
    }

    fn sums(&self, numbers: &[(i64, i128)]) -> Result<ArrayRef, Broken> {
        Ok(cast(&self.summed_up(numbers)?, self.aggregate.function.field().data_type())?)
    }

    /// An integer's average is a double; a decimal's is computed as everywhere.
    fn averages(&self, numbers: &[(i64, i128)]) -> Result<ArrayRef, Broken> {
        if !matches!(&self.summed, Some(DataType::Decimal128(..))) {
            let average = |(n, sum): &(i64, i128)| (*n > 0).then(|| *sum as f64 / *n as f64);
            return Ok(Arc::new(numbers.iter().map(average).collect::<Float64Array>()));
        }
        // A number of 0 would be a value to divide by.
        let count = |(n, _): &(i64, i128)| u64::try_from(*n).ok().filter(|n| *n > 0);
        let counts: ArrayRef = Arc::new(numbers.iter().map(count).collect::<UInt64Array>());
        let sums = self.summed_up(numbers)?;
        let fields = self.aggregate.function.state_fields()?;
        let states = [counts, sums].into_iter().zip(fields).map(|(column, field)| cast(&column, field.data_type()));
        let states = states.collect::<Result<Vec<_>, _>>()?;
        let mut accumulator = accumulator(&self.aggregate)?;
        let of: Vec<usize> = (0..numbers.len()).collect();
        accumulator.merge_batch(&states, &of, numbers.len())?;
        Ok(accumulator.evaluate(EmitTo::All)?)
    }

    /// The results from the values of groups.
    fn anew(&self, at: usize, keys: &[&[u8]], bags: &Bags) -> Result<ArrayRef, Broken> {
        let prefixes: Vec<Vec<u8>> = keys.iter().map(|key| prefix(at, key)).collect();
        let (mut values, mut of): (Vec<&[u8]>, Vec<usize>) = (Vec::new(), Vec::new());
        for (group, prefix) in prefixes.iter().enumerate() {
            match self.kind {
                Kind::Least => values.extend(bags.of(prefix).next().map(|(value, _)| value)),
                Kind::Greatest => values.extend(bags.last(prefix)),
                Kind::Distinct => values.extend(bags.of(prefix).map(|(value, _)| value)),
                _ => values.extend(
                    bags.of(prefix).flat_map(|(value, count)| std::iter::repeat_n(value, count.max(0) as usize)),
                ),
            }
            of.resize(values.len(), group);
        }
        evaluated(&self.aggregate, &self.values.decode(values)?, &of, keys.len())
    }
}
