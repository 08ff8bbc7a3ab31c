//! The first rows of each group in an order: of rows that are equal in it, those that arrived first.
//!
//! Within windows they are given out when the watermark has reached the window's end, once. Without a window each change
//! is given out at once: the row that was at a place, taken back, and the row that is there now.
//!
//! State: the key `end of the window, length of the key, key, order, number among equals` has the row; the end is 0
//! without windows. The empty key has the end of the last window that was given out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow_cast::cast;
use arrow_schema::{DataType, SchemaRef, SortOptions};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use millstream_event::Stamp;

use crate::ops::{batch_of, take_all};
use crate::stream::groups::{Encoded, Groups, Keys};
use crate::stream::legend::{Legend, TopNLegend};
use crate::stream::operator::{Blueprint, Broken, Operator, Out};
use crate::stream::window_aggregate::{time_key, time_of};

/// How many rows are given out in one batch.
const ROWS_PER_BATCH: usize = 8192;

/// A planned selection of first rows.
#[derive(Debug)]
pub(crate) struct TopNPlan {
    /// The place of the time by which a row's window is known, and how many microseconds behind it the window ends.
    /// `None`: there are no windows.
    pub(crate) window: Option<(usize, i64)>,
    /// The places and types of what a group is.
    pub(crate) key: Vec<(usize, DataType)>,
    /// The places, types and directions of the order.
    pub(crate) order: Vec<(usize, DataType, SortOptions)>,
    pub(crate) limit: usize,
    /// The types of the columns of the input that are given out, which are the first.
    pub(crate) row: Vec<DataType>,
    /// Whether the number of the row stands behind them.
    pub(crate) numbered: bool,
    /// The columns of the output and the system's.
    pub(crate) schema: SchemaRef,
}

impl TopNPlan {
    pub(crate) fn row_types(&self) -> Vec<DataType> {
        self.row.iter().cloned().chain(self.schema.fields().last().map(|system| system.data_type().clone())).collect()
    }
}

impl Blueprint for TopNPlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        let types: Vec<DataType> = self.key.iter().map(|(_, kind)| kind.clone()).collect();
        let order: Vec<_> = self.order.iter().map(|(_, kind, options)| (kind.clone(), *options)).collect();
        Ok(Box::new(TopN {
            window: self.window,
            key: self.key.iter().map(|(place, _)| *place).collect(),
            order: self.order.iter().map(|(place, ..)| *place).collect(),
            limit: self.limit,
            width: self.row.len(),
            numbered: self.numbered,
            schema: Arc::clone(&self.schema),
            keys: Keys::new(&types)?,
            orders: Keys::ordered(&order)?,
            rows: Keys::new(&self.row_types())?,
            windows: BTreeMap::new(),
            given: i64::MIN,
            kept: 0,
            bytes: 0,
        }))
    }

    fn timed(&self) -> bool {
        self.window.is_some()
    }

    fn updates(&self) -> bool {
        self.window.is_none()
    }

    fn meanings(&self, _side: usize) -> Vec<usize> {
        let window = self.window.map(|(place, _)| place);
        let key = self.key.iter().map(|(place, _)| *place);
        key.chain(self.order.iter().map(|(place, ..)| *place)).chain(window).collect()
    }

    fn signature(&self) -> String {
        let types: Vec<&DataType> = self.key.iter().map(|(_, kind)| kind).collect();
        let order: Vec<_> =
            self.order.iter().map(|(_, kind, order)| (kind, order.descending, order.nulls_first)).collect();
        let windows = self.window.is_some();
        format!("first {} of {types:?} by {order:?} windows {windows}: {:?}", self.limit, self.row_types())
    }

    fn legend(&self) -> Result<Box<dyn Legend>, Broken> {
        Ok(Box::new(TopNLegend::new(self)?))
    }

    fn describe(&self) -> String {
        let windows = if self.window.is_some() { "its window and " } else { "" };
        format!("keep the first {} in order of {windows}{} key columns", self.limit, self.key.len())
    }
}

/// A row that is kept.
#[derive(Debug, Clone)]
struct Kept {
    /// Its place in the order, then its number among equals.
    order: Arc<[u8]>,
    row: Arc<[u8]>,
    /// Its place in the batch that is being worked on, until its bytes are known.
    fresh: Option<u32>,
}

/// The bytes of the number among equals.
const NUMBER: usize = 4;

impl Kept {
    fn order(&self) -> &[u8] {
        self.order.split_last_chunk::<NUMBER>().map(|(order, _)| order).unwrap_or_default()
    }

    fn number(&self) -> u32 {
        self.order.split_last_chunk::<NUMBER>().map_or(0, |(_, number)| u32::from_be_bytes(*number))
    }
}

/// A group that a batch has changed.
struct Touched {
    end: i64,
    key: Box<[u8]>,
    before: Vec<Kept>,
    now: Vec<Kept>,
}

type Tops = HashMap<Box<[u8]>, Vec<Kept>, FixedState>;

struct TopN {
    window: Option<(usize, i64)>,
    key: Vec<usize>,
    order: Vec<usize>,
    limit: usize,
    width: usize,
    numbered: bool,
    schema: SchemaRef,
    keys: Keys,
    orders: Keys,
    rows: Keys,
    /// By the end of the window, or all under 0.
    windows: BTreeMap<i64, Tops>,
    /// The end of the last window that was given out.
    given: i64,
    kept: usize,
    bytes: usize,
}

/// What a row takes beside its bytes: two boxes, the slot and the allocator's share.
const ROW_OVERHEAD_BYTES: usize = 80;

fn state_key<'k>(window: &'k [u8; 8], length: &'k [u8; 4], key: &'k [u8], order: &'k [u8]) -> [&'k [u8]; 4] {
    [window, length, key, order]
}

fn length_of(key: &[u8]) -> [u8; 4] {
    (key.len() as u32).to_be_bytes()
}

impl Operator for TopN {
    fn push(&mut self, _side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        let column = |places: &[usize]| -> Vec<ArrayRef> {
            places.iter().filter_map(|i| rows.columns().get(*i).cloned()).collect()
        };
        let keys = self.keys.encode(&column(&self.key), rows.num_rows())?;
        let orders = self.orders.encode(&column(&self.order), rows.num_rows())?;
        let ends = self.ends(rows)?;
        let end = |row: usize| ends.get(row).copied().flatten();
        let groups = Groups::new(&keys, |row| end(row).unwrap_or(i64::MIN));
        let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); groups.len()];
        for (row, group) in (0_u32..).zip(&groups.of_row) {
            if let Some(rows) = rows_of.get_mut(*group) {
                rows.push(row);
            }
        }
        let mut touched: Vec<Touched> = Vec::new();
        for (first, candidates) in groups.first.iter().zip(&rows_of) {
            // A row without a time is in no window.
            let Some(end) = end(*first) else { continue };
            if self.window.is_some() && end <= self.given {
                out.late.extend(candidates);
                continue;
            }
            let key = keys.key(*first);
            let before = self.windows.get(&end).and_then(|tops| tops.get(key)).map(Vec::as_slice).unwrap_or_default();
            let passes = |row: &u32| {
                before.len() < self.limit || before.last().is_some_and(|l| orders.key(*row as usize) < l.order())
            };
            if candidates.iter().any(passes) {
                let mut now = before.to_vec();
                insert(&mut now, &orders, candidates, self.limit);
                touched.push(Touched { end, key: key.into(), before: before.to_vec(), now });
            }
        }
        self.settle(rows, &mut touched)?;
        if self.window.is_none() {
            self.give_changes(&touched, out)?;
        }
        self.keep(touched, out);
        Ok(())
    }

    fn advance(&mut self, watermark: i64, out: &mut Out<'_>) -> Result<(), Broken> {
        if self.window.is_none() {
            return Ok(());
        }
        while let Some(window) = self.windows.first_entry().filter(|window| *window.key() <= watermark) {
            let (end, tops) = window.remove_entry();
            self.given = end;
            out.changes.put(&[], &time_key(end));
            let mut tops: Vec<(Box<[u8]>, Vec<Kept>)> = tops.into_iter().collect();
            tops.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            let mut rows: Vec<Given<'_>> = Vec::new();
            for (key, kept) in &tops {
                for (kept, number) in kept.iter().zip(1..) {
                    rows.push(Given { row: &kept.row, number, deleted: false });
                    self.kept -= 1;
                    self.bytes -= key.len() + kept.order.len() + kept.row.len() + ROW_OVERHEAD_BYTES;
                    out.changes.delete(&state_key(&time_key(end), &length_of(key), key, &kept.order));
                }
            }
            for rows in rows.chunks(ROWS_PER_BATCH) {
                out.rows.push(self.batch(rows)?);
            }
        }
        Ok(())
    }

    fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        let broken = || Broken("a kept row has another form than this version's".into());
        if key.is_empty() {
            self.given = value.map_or(Some((i64::MIN, [].as_slice())), time_of).ok_or_else(broken)?.0;
            return Ok(());
        }
        let (end, rest) = time_of(key).ok_or_else(broken)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
        let (key, order) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(broken)?;
        let tops = self.windows.entry(end).or_default().entry(key.into()).or_default();
        let place = tops.binary_search_by(|kept| kept.order.as_ref().cmp(order));
        if let Ok(place) = place {
            let old = tops.remove(place);
            self.kept -= 1;
            self.bytes -= key.len() + old.order.len() + old.row.len() + ROW_OVERHEAD_BYTES;
        }
        if let Some(row) = value {
            let (Ok(place) | Err(place)) = place;
            tops.insert(place, Kept { order: order.into(), row: row.into(), fresh: None });
            self.kept += 1;
            self.bytes += key.len() + order.len() + row.len() + ROW_OVERHEAD_BYTES;
        } else if tops.is_empty()
            && let Some(window) = self.windows.get_mut(&end)
        {
            window.remove(key);
            if window.is_empty() {
                self.windows.remove(&end);
            }
        }
        Ok(())
    }

    fn waits(&self) -> bool {
        self.window.is_some() && self.kept > 0
    }

    fn size(&self) -> (usize, usize) {
        (self.kept, self.bytes)
    }
}

/// Puts rows of a batch where they belong.
fn insert(tops: &mut Vec<Kept>, orders: &Encoded, rows: &[u32], limit: usize) {
    for row in rows {
        let order = orders.key(*row as usize);
        if tops.len() >= limit && tops.last().is_some_and(|last| last.order() <= order) {
            continue;
        }
        let place = tops.partition_point(|kept| kept.order() <= order);
        let equal = place.checked_sub(1).and_then(|before| tops.get(before)).filter(|kept| kept.order() == order);
        let number = equal.map_or(0, |kept| kept.number() + 1);
        let order = [order, &number.to_be_bytes()].concat().into();
        tops.insert(place, Kept { order, row: Arc::default(), fresh: Some(*row) });
        tops.truncate(limit);
    }
}

/// What is in one list alone: what has gone, and what has come. Both are in order.
fn differences<'k>(before: &'k [Kept], now: &'k [Kept]) -> (Vec<&'k Kept>, Vec<&'k Kept>) {
    let (mut gone, mut came) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (before.iter().peekable(), now.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => return (gone, came),
            (Some(a), Some(b)) if a.order == b.order => {
                old.next();
                new.next();
            }
            (Some(a), b) if b.is_none_or(|b| a.order < b.order) => gone.extend(old.next()),
            _ => came.extend(new.next()),
        }
    }
}

/// A row to be given out.
struct Given<'r> {
    row: &'r [u8],
    number: i64,
    deleted: bool,
}

impl TopN {
    /// The end of each row's window; 0 without windows.
    fn ends(&self, rows: &RecordBatch) -> Result<Vec<Option<i64>>, Broken> {
        let Some((place, plus)) = self.window else { return Ok(vec![Some(0); rows.num_rows()]) };
        let times = rows.columns().get(place).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(|| Broken("the window's time is no timestamp".into()))?;
        Ok(times.iter().map(|time| time.map(|time| time.saturating_add(plus))).collect())
    }

    /// Takes the bytes of the rows of this batch that are kept.
    fn settle(&self, rows: &RecordBatch, touched: &mut [Touched]) -> Result<(), Broken> {
        let kept = touched.iter_mut().flat_map(|group| group.now.iter_mut());
        let fresh: Vec<&mut Kept> = kept.filter(|kept| kept.fresh.is_some()).collect();
        let places: UInt32Array = fresh.iter().filter_map(|kept| kept.fresh).collect();
        let given = rows.columns().iter().take(self.width).chain(rows.columns().last()).cloned();
        let columns = take_all(&given.collect::<Vec<_>>(), &places)?;
        let encoded = self.rows.encode(&columns, places.len())?;
        for (place, kept) in fresh.into_iter().enumerate() {
            kept.row = encoded.key(place).into();
            kept.fresh = None;
        }
        Ok(())
    }

    /// Keeps what a batch has changed.
    fn keep(&mut self, touched: Vec<Touched>, out: &mut Out<'_>) {
        for Touched { end, key, before, now } in touched {
            let (time, length) = (time_key(end), length_of(&key));
            let (gone, came) = differences(&before, &now);
            for gone in gone {
                self.kept -= 1;
                self.bytes -= key.len() + gone.order.len() + gone.row.len() + ROW_OVERHEAD_BYTES;
                out.changes.delete(&state_key(&time, &length, &key, &gone.order));
            }
            for new in came {
                self.kept += 1;
                self.bytes += key.len() + new.order.len() + new.row.len() + ROW_OVERHEAD_BYTES;
                out.changes.put(&state_key(&time, &length, &key, &new.order), &new.row);
            }
            self.windows.entry(end).or_default().insert(key, now);
        }
    }

    /// Gives out what has changed, place by place.
    fn give_changes(&self, touched: &[Touched], out: &mut Out<'_>) -> Result<(), Broken> {
        let mut rows: Vec<Given<'_>> = Vec::new();
        for Touched { before, now, .. } in touched {
            for (new, (place, number)) in now.iter().zip((0..).zip(1..)) {
                let old = before.get(place);
                if old.is_some_and(|old| old.order == new.order) {
                    continue;
                }
                rows.extend(old.map(|old| Given { row: &old.row, number, deleted: true }));
                rows.push(Given { row: &new.row, number, deleted: false });
            }
        }
        if !rows.is_empty() {
            out.rows.push(self.batch(&rows)?);
        }
        Ok(())
    }

    fn batch(&self, rows: &[Given<'_>]) -> Result<RecordBatch, Broken> {
        let mut columns = self.rows.decode(rows.iter().map(|given| given.row))?;
        let system = columns.pop().ok_or_else(|| Broken("a kept row has no stamp".into()))?;
        let system = system.as_primitive_opt::<TimestampMicrosecondType>();
        let stamps = system.ok_or_else(|| Broken("a kept row's stamp is no timestamp".into()))?.values().iter();
        let marked = |(stamp, given): (&i64, &Given<'_>)| {
            if given.deleted { Stamp(*stamp).with(Stamp::DELETED).0 } else { *stamp }
        };
        let stamps: Vec<i64> = stamps.zip(rows).map(marked).collect();
        if self.numbered {
            columns.push(Arc::new(rows.iter().map(|given| given.number).collect::<Int64Array>()));
        }
        columns.push(Arc::new(TimestampMicrosecondArray::from(stamps).with_timezone("+00:00")));
        let columns = columns.into_iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
        });
        Ok(batch_of(&self.schema, columns.collect::<Result<_, _>>()?, rows.len())?)
    }
}

#[cfg(test)]
#[path = "top_n_tests.rs"]
mod tests;
