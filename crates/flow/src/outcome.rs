//! What running a batch through a plan yields: rows, where they came from, and the rows that failed.

use arrow_array::{RecordBatch, UInt32Array};
use arrow_select::concat::concat;
use millstream_event::Name;

/// A row that an expression failed on. The row is not in the output; the rows around it are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The row of the input batch.
    pub row: u32,
    /// `overflow`, `division-by-zero`, `cast` or `expression`; `route-target` for a route without a topic,
    /// `route-unmatched` for a row that no case takes.
    pub code: &'static str,
    /// What failed, with the expression's text, at most [`REASON_CHARS_MAX`] characters.
    pub reason: String,
}

/// The longest reason kept for a failed row.
pub const REASON_CHARS_MAX: usize = 400;

/// Which input row each output row came from. Never decreasing.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Output row `i` came from input row `i`; so many rows.
    Identity(usize),
    /// Output row `i` came from input row `rows[i]`.
    Rows(UInt32Array),
}

impl Origin {
    /// The number of output rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Identity(rows) => *rows,
            Self::Rows(rows) => rows.len(),
        }
    }

    /// Whether there is no output row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The input row of output row `i`; `None` behind the last.
    pub fn row(&self, i: usize) -> Option<u32> {
        match self {
            Self::Identity(rows) => u32::try_from(i).ok().filter(|_| i < *rows),
            Self::Rows(rows) => rows.values().get(i).copied(),
        }
    }

    /// The input rows in output order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len()).filter_map(|i| self.row(i))
    }

    /// The origin after keeping the output rows `kept`.
    pub(crate) fn take(&self, kept: &UInt32Array) -> Self {
        match self {
            Self::Identity(_) => Self::Rows(kept.clone()),
            Self::Rows(rows) => {
                let rows = rows.values();
                Self::Rows(kept.values().iter().filter_map(|i| rows.get(*i as usize).copied()).collect())
            }
        }
    }

    /// The origin when the input was a slice that starts at row `first`.
    pub(crate) fn shifted(self, first: u32) -> Self {
        if first == 0 {
            return self;
        }
        match self {
            Self::Identity(rows) => Self::Rows((first..).take(rows).collect()),
            Self::Rows(rows) => Self::Rows(rows.values().iter().map(|r| r + first).collect()),
        }
    }

    /// One origin behind another.
    pub(crate) fn concat(parts: &[Self]) -> Self {
        if let [one] = parts {
            return one.clone();
        }
        Self::Rows(parts.iter().flat_map(Self::iter).collect())
    }
}

/// What a batch became.
#[derive(Debug, Clone)]
pub struct Processed {
    /// The output, with the columns of [`millstream_event::Schema::physical`] of the query's schema.
    pub rows: RecordBatch,
    /// Which input row each output row came from.
    pub origin: Origin,
    /// The input rows that failed, in order.
    pub failed: Vec<Failed>,
    /// How many rows each inner lookup join dropped, in the order of the joins.
    pub dropped: Vec<(Name, u64)>,
}

/// Puts batches of one schema behind each other.
pub(crate) fn concat_batches(parts: &[RecordBatch]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let Some(first) = parts.first() else {
        return Err(arrow_schema::ArrowError::InvalidArgumentError("no batch to concatenate".into()));
    };
    if parts.len() == 1 {
        return Ok(first.clone());
    }
    let columns = (0..first.num_columns()).map(|i| {
        let arrays: Vec<&dyn arrow_array::Array> = parts.iter().map(|p| p.column(i).as_ref()).collect();
        concat(&arrays)
    });
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(parts.iter().map(|p| p.num_rows()).sum()));
    RecordBatch::try_new_with_options(first.schema(), columns.collect::<Result<_, _>>()?, &options)
}
