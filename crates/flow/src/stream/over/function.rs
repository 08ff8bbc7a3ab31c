//! The functions of OVER and the frames that they look at.

use std::ops::Range;

use crate::stream::over::history::{History, Kind, Layout};
use crate::stream::over::summary::{Acc, Level};

/// What a function computes of its frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// How many values are not null, or how many rows there are.
    Count,
    SumInt,
    SumFloat,
    ExtremeInt {
        greatest: bool,
    },
    ExtremeFloat {
        greatest: bool,
    },
    ExtremeBytes {
        greatest: bool,
    },
    Variance {
        sample: bool,
        root: bool,
    },
    /// How many different values there are.
    Distinct,
    /// The value of the row so many behind the frame's first, from 0.
    Nth(u64),
    /// The value of the frame's last row.
    Last,
    /// The value of the row so many before, and what is given where there is none.
    Lag {
        offset: u64,
        default: Owned,
    },
}

/// The rows that a function looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Frame {
    /// So many rows before the row to so many before it.
    Rows { from: u64, to: u64 },
    /// Rows whose time is this much before the row's to this much before it.
    Range { from: i64, to: i64 },
    /// All rows so far. `peers`: with all rows of the same time; `before`: without the row itself.
    Running { peers: bool, before: bool },
}

/// How a result is derived from what was added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Plain,
    /// The mean of decimals: the sum is scaled by this before it is divided by the count.
    DecimalMean {
        scale: i128,
    },
    /// The mean of floating point numbers.
    FloatMean,
}

/// A value that is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Owned {
    Null,
    Int(i64),
    Wide(i128),
    Float(f64),
    Bytes(Box<[u8]>),
}

/// A value on its way out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'v> {
    Null,
    Int(i64),
    Wide(i128),
    Float(f64),
    Bytes(&'v [u8]),
}

impl Owned {
    pub(crate) fn get(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Int(value) => Value::Int(*value),
            Self::Wide(value) => Value::Wide(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Bytes(value) => Value::Bytes(value),
        }
    }
}

/// One function of a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Function {
    pub(crate) what: What,
    /// Its argument among the kept columns; none where it counts rows.
    pub(crate) column: Option<usize>,
    pub(crate) frame: Frame,
    pub(crate) finish: Finish,
}

/// A part of a frame: a row, or a block that begins there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    number: u64,
    block: Option<Level>,
}

/// How the values of a kept column stand in a state of its own.
pub(crate) fn value_of<'v>(kind: Kind, raw: &'v [u8]) -> Value<'v> {
    let eight = || raw.first_chunk::<8>().copied().unwrap_or_default();
    match kind {
        Kind::Mark => Value::Null,
        Kind::Int => Value::Int(i64::from_le_bytes(eight())),
        Kind::Float => Value::Float(f64::from_bits(u64::from_le_bytes(eight()))),
        Kind::Wide => Value::Wide(i128::from_le_bytes(raw.first_chunk::<16>().copied().unwrap_or_default())),
        Kind::Bytes => Value::Bytes(raw),
    }
}

/// The value of a row's column.
pub(crate) fn at<'h>(of: (&'h History, &'h Layout), number: u64, column: usize) -> Value<'h> {
    let row = of.0.row(of.1, number);
    let kind = of.1.kinds.get(column).copied().unwrap_or(Kind::Mark);
    if row.is_null(column) { Value::Null } else { value_of(kind, row.raw(column)) }
}

/// The rows of `numbers` with a time in `times`, with blocks where all of theirs are.
pub(crate) fn select(of: (&History, &Layout), numbers: Range<u64>, times: Option<(i64, i64)>, parts: &mut Vec<Part>) {
    parts.clear();
    let (history, layout) = of;
    let within = |(least, greatest): (i64, i64)| times.is_none_or(|(from, to)| from <= least && greatest <= to);
    let outside = |(least, greatest): (i64, i64)| times.is_some_and(|(from, to)| greatest < from || to < least);
    let blocks = history.blocks();
    let mut number = numbers.start;
    'rows: while number < numbers.end {
        if !blocks.is_empty() && number.is_multiple_of(Level::SPAN) {
            for level in [Level::Rows4096, Level::Rows64] {
                let next = number + level.rows();
                let whole = number.is_multiple_of(level.rows()) && next <= numbers.end;
                let Some(block) = blocks.get(level, number).filter(|_| whole) else { continue };
                let inside = within(block.times);
                if inside {
                    parts.push(Part { number, block: Some(level) });
                }
                if inside || outside(block.times) {
                    number = next;
                    continue 'rows;
                }
            }
        }
        let time = history.row(layout, number).time();
        if within((time, time)) {
            parts.push(Part { number, block: None });
        }
        number += 1;
    }
}

impl Part {
    /// One row.
    pub(crate) fn row(number: u64) -> Self {
        Self { number, block: None }
    }

    /// A block.
    pub(crate) fn block(number: u64, level: Level) -> Self {
        Self { number, block: Some(level) }
    }

    /// The numbers of its rows.
    pub(crate) fn rows(&self) -> Range<u64> {
        self.number..self.number + self.block.map_or(1, Level::rows)
    }
}

impl What {
    /// Whether it adds rows up, so that blocks of them can be.
    pub(crate) fn adds_up(&self) -> bool {
        !matches!(self, Self::Distinct | Self::Nth(_) | Self::Last | Self::Lag { .. })
    }
}

/// What an aggregate adds up over the parts of a frame; `place` is its number among those that have a place in blocks.
pub(crate) fn fold(of: (&History, &Layout), function: &Function, place: usize, parts: &[Part]) -> Acc {
    let mut acc = Acc::default();
    for part in parts {
        match (part.block, function.column) {
            (None, Some(column)) => {
                acc.add(&function.what, column, of.0.row(of.1, part.number), part.number, of);
            }
            (None, None) => acc.count += 1,
            (Some(level), column) => {
                let block = of.0.blocks().get(level, part.number).and_then(|block| block.accs.get(place));
                if let Some(later) = block {
                    acc.merge(&function.what, column.unwrap_or(0), later, of);
                }
            }
        }
    }
    acc
}

/// The different values of a column in the parts of a frame.
pub(crate) fn distinct(of: (&History, &Layout), column: usize, parts: &[Part], scratch: &mut Vec<u64>) -> u64 {
    scratch.clear();
    let (history, layout) = of;
    let kind = layout.kinds.get(column).copied().unwrap_or(Kind::Mark);
    let rows = || parts.iter().flat_map(Part::rows).map(|number| history.row(layout, number));
    for row in rows().filter(|row| !row.is_null(column)) {
        let slot = match kind {
            Kind::Bytes => row.short(column),
            Kind::Wide => i64::try_from(row.wide(column)).ok().map(|value| value as u64),
            _ => Some(row.int(column) as u64),
        };
        match slot {
            Some(slot) => scratch.push(slot),
            None => {
                let rows = rows().filter(|row| !row.is_null(column));
                return rows
                    .map(|row| row.raw(column))
                    .collect::<hashbrown::HashSet<_, foldhash::fast::FixedState>>()
                    .len() as u64;
            }
        }
    }
    scratch.sort_unstable();
    scratch.dedup();
    scratch.len() as u64
}

/// The result of an aggregate.
pub(crate) fn result<'h>(of: (&'h History, &'h Layout), function: &Function, acc: &Acc) -> Value<'h> {
    let many = i64::try_from(acc.count).unwrap_or(i64::MAX);
    match (&function.what, function.finish) {
        (What::Count, _) => Value::Int(many),
        (What::Variance { sample, root }, _) => {
            let of = if *sample { acc.count.saturating_sub(1) } else { acc.count };
            if of == 0 {
                return Value::Null;
            }
            let variance = acc.squares / of as f64;
            Value::Float(if *root { variance.sqrt() } else { variance })
        }
        _ if acc.count == 0 => Value::Null,
        (What::SumInt, Finish::DecimalMean { scale }) => {
            acc.int.checked_mul(scale).map_or(Value::Null, |sum| Value::Wide(sum / i128::from(acc.count)))
        }
        (What::SumInt | What::ExtremeInt { .. }, _) => Value::Wide(acc.int),
        (What::SumFloat, Finish::FloatMean) => Value::Float(acc.float / acc.count as f64),
        (What::SumFloat | What::ExtremeFloat { .. }, _) => Value::Float(acc.float),
        (What::ExtremeBytes { .. }, _) => Value::Bytes(of.0.row(of.1, acc.at).bytes(function.column.unwrap_or(0))),
        _ => Value::Null,
    }
}
