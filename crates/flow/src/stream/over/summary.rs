//! What functions know of rows: added up row by row, block by block, or as it goes.
//!
//! A block has 64 rows, or 64 blocks, and begins at a multiple of its size, so that what is added up, and in which order,
//! depends on the rows alone: floating point results are the same before and after a restart.

use std::collections::VecDeque;

use crate::stream::over::function::What;
use crate::stream::over::history::{History, Layout, Row};

/// Rows added up for one function.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Acc {
    /// How many values were not null.
    pub(crate) count: u64,
    /// The number of the row with the least or greatest bytes.
    pub(crate) at: u64,
    /// The sum, the least or the greatest of whole numbers.
    pub(crate) int: i128,
    /// The same of floating point numbers, or their mean.
    pub(crate) float: f64,
    /// The sum of squared distances from the mean.
    pub(crate) squares: f64,
}

impl Acc {
    /// Adds a row of a history.
    pub(crate) fn add(&mut self, what: &What, column: usize, row: Row<'_>, number: u64, of: (&History, &Layout)) {
        if row.is_null(column) {
            return;
        }
        match what {
            What::SumInt => self.int = self.int.saturating_add(row.wide(column)),
            What::SumFloat => self.float += row.float(column),
            What::ExtremeInt { greatest } => {
                let value = row.wide(column);
                if self.count == 0 || (value > self.int) == *greatest {
                    self.int = value;
                }
            }
            What::ExtremeFloat { greatest } => self.extreme(row.float(column), *greatest),
            What::ExtremeBytes { greatest } => {
                let found = row.bytes(column);
                if self.count == 0 || (found > of.0.row(of.1, self.at).bytes(column)) == *greatest {
                    self.at = number;
                }
            }
            What::Variance { .. } => self.spread(row.float(column)),
            _ => {}
        }
        self.count += 1;
    }

    fn extreme(&mut self, value: f64, greatest: bool) {
        if self.count == 0 || value.total_cmp(&self.float).is_gt() == greatest {
            self.float = value;
        }
    }

    /// Welford's step; the count grows behind it.
    fn spread(&mut self, value: f64) {
        let distance = value - self.float;
        self.float += distance / (self.count + 1) as f64;
        self.squares += distance * (value - self.float);
    }

    /// Adds what was added up of later rows.
    pub(crate) fn merge(&mut self, what: &What, column: usize, later: &Self, of: (&History, &Layout)) {
        if later.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *later;
            return;
        }
        match what {
            What::SumInt => self.int = self.int.saturating_add(later.int),
            What::SumFloat => self.float += later.float,
            What::ExtremeInt { greatest: true } => self.int = self.int.max(later.int),
            What::ExtremeInt { greatest: false } => self.int = self.int.min(later.int),
            What::ExtremeFloat { greatest } => self.extreme(later.float, *greatest),
            What::ExtremeBytes { greatest } => {
                let bytes = |number: u64| of.0.row(of.1, number).bytes(column);
                if (bytes(later.at) > bytes(self.at)) == *greatest {
                    self.at = later.at;
                }
            }
            What::Variance { .. } => {
                // Chan's formula.
                let (own, theirs) = (self.count as f64, later.count as f64);
                let distance = later.float - self.float;
                self.float += distance * theirs / (own + theirs);
                self.squares += later.squares + distance * distance * own * theirs / (own + theirs);
            }
            _ => {}
        }
        self.count += later.count;
    }

    /// As bytes for the changelog.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.int.to_le_bytes());
        out.extend_from_slice(&self.float.to_bits().to_le_bytes());
        out.extend_from_slice(&self.squares.to_bits().to_le_bytes());
    }

    /// From bytes, and what stands behind them.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (count, rest) = bytes.split_first_chunk::<8>()?;
        let (int, rest) = rest.split_first_chunk::<16>()?;
        let (float, rest) = rest.split_first_chunk::<8>()?;
        let (squares, rest) = rest.split_first_chunk::<8>()?;
        let acc = Self {
            count: u64::from_le_bytes(*count),
            at: 0,
            int: i128::from_le_bytes(*int),
            float: f64::from_bits(u64::from_le_bytes(*float)),
            squares: f64::from_bits(u64::from_le_bytes(*squares)),
        };
        Some((acc, rest))
    }
}

/// The size of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Rows64,
    Rows4096,
}

impl Level {
    /// How many rows a block has, or blocks a larger one.
    pub(crate) const SPAN: u64 = 64;

    pub(crate) fn rows(self) -> u64 {
        match self {
            Self::Rows64 => Self::SPAN,
            Self::Rows4096 => Self::SPAN * Self::SPAN,
        }
    }
}

/// Rows of which all are kept, added up.
#[derive(Debug)]
pub(crate) struct Block {
    /// Their least and their greatest time.
    pub(crate) times: (i64, i64),
    /// For each function that adds up.
    pub(crate) accs: Box<[Acc]>,
}

/// The blocks of one level, without a gap.
#[derive(Debug, Default)]
struct Line {
    start: u64,
    blocks: VecDeque<Block>,
}

impl Line {
    fn get(&self, level: Level, number: u64) -> Option<&Block> {
        let at = number.checked_sub(self.start)? / level.rows();
        self.blocks.get(usize::try_from(at).ok()?)
    }

    fn push(&mut self, level: Level, number: u64, block: Block) {
        if self.start + self.blocks.len() as u64 * level.rows() != number || self.blocks.is_empty() {
            self.blocks.clear();
            self.start = number;
        }
        self.blocks.push_back(block);
    }

    fn forget(&mut self, level: Level, before: u64) {
        while self.start < before && self.blocks.pop_front().is_some() {
            self.start += level.rows();
        }
    }
}

/// The blocks of a history; most have none.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Option<Box<(Line, Line)>>);

impl Blocks {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn level(&self, level: Level) -> Option<&Line> {
        let (small, large) = self.0.as_deref()?;
        Some(match level {
            Level::Rows64 => small,
            Level::Rows4096 => large,
        })
    }

    /// The block that begins at a row.
    pub(crate) fn get(&self, level: Level, number: u64) -> Option<&Block> {
        self.level(level)?.get(level, number)
    }

    /// The first row of the first block.
    pub(crate) fn start(&self, level: Level) -> Option<u64> {
        self.level(level).filter(|of| !of.blocks.is_empty()).map(|of| of.start)
    }

    /// Adds the block behind the last.
    pub(crate) fn push(&mut self, level: Level, number: u64, times: (i64, i64), accs: Vec<Acc>) {
        let (small, large) = self.0.get_or_insert_default().as_mut();
        let block = Block { times, accs: accs.into() };
        match level {
            Level::Rows64 => small.push(level, number, block),
            Level::Rows4096 => large.push(level, number, block),
        }
    }

    /// Lets go of blocks with a row before `before`.
    pub(crate) fn forget(&mut self, before: u64) {
        if let Some((small, large)) = self.0.as_deref_mut() {
            small.forget(Level::Rows64, before);
            large.forget(Level::Rows4096, before);
            if small.blocks.is_empty() && large.blocks.is_empty() {
                self.0 = None;
            }
        }
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        let Some((small, large)) = self.0.as_deref() else { return 0 };
        let all = small.blocks.iter().chain(&large.blocks);
        all.map(|block| size_of::<Block>() + block.accs.len() * size_of::<Acc>()).sum()
    }
}
