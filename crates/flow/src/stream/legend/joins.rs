//! The rows that joins keep.

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef};

use crate::stream::groups::Keys;
use crate::stream::held::split_held;
use crate::stream::legend::{KeyColumns, Legend, StateCell, StateRow, broken, cells, moment};
use crate::stream::operator::Broken;
use crate::stream::paired::PairedPlan;
use crate::stream::two::Two;
use crate::stream::window_aggregate::time_of;

/// The rows of a join's two sides.
pub(crate) struct Sides {
    keys: Two<KeyColumns>,
    fields: Two<Vec<FieldRef>>,
    rows: Two<Keys>,
}

impl Sides {
    pub(crate) fn new(plan: &PairedPlan) -> Result<Self, Broken> {
        let user = |side: usize| plan.types.of(side).len().saturating_sub(1);
        let first = |side: usize| if side == 0 { 0 } else { user(0) };
        let fields = |side: usize| -> Vec<FieldRef> {
            plan.schema.fields().iter().skip(first(side)).take(user(side)).map(Arc::clone).collect()
        };
        let keys = |side: usize| {
            let own = arrow_schema::Schema::new(fields(side));
            let places = plan.keys.of(side).iter().copied();
            let key: Vec<(usize, DataType)> = places.zip(plan.key_types.iter().cloned()).collect();
            KeyColumns::of(&own, user(side), &key)
        };
        Ok(Self {
            keys: Two { left: keys(0)?, right: keys(1)? },
            fields: Two { left: fields(0), right: fields(1) },
            rows: plan.types.try_map(|types| Keys::new(types))?,
        })
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.keys.left.names();
        names.extend(self.keys.right.names());
        names
    }

    /// A row's key and its other columns.
    fn row(&self, side: usize, key: &[u8], row: &[u8]) -> Result<(Vec<StateCell>, Vec<StateCell>), Broken> {
        let key = self.keys.of(side).cells(key)?;
        let mut value = cells(self.fields.of(side), &self.rows.of(side).decode([row])?);
        value.retain(|cell| !key.contains(cell));
        Ok((key, value))
    }
}

/// Reads the table of a join as of now.
pub(crate) struct TableLegend {
    pub(crate) sides: Sides,
    pub(crate) table: usize,
}

impl Legend for TableLegend {
    fn key(&self) -> Vec<String> {
        self.sides.keys.of(self.table).names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let (key, value) = self.sides.row(self.table, key, value)?;
        Ok(StateRow { what: "table row", key, value, ..StateRow::default() })
    }
}

/// Reads rows that are held by time.
pub(crate) struct HeldLegend {
    pub(crate) sides: Sides,
    /// The side of the rows whose keys begin with 0 and 1, and what they are called.
    pub(crate) kinds: [(usize, &'static str); 2],
    /// What the flag says when it is set, for each.
    pub(crate) flagged: [&'static str; 2],
}

impl Legend for HeldLegend {
    fn key(&self) -> Vec<String> {
        self.sides.names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let (kind, key) = key.split_first().ok_or_else(broken)?;
        let (time, _) = time_of(key).ok_or_else(broken)?;
        let of = |all: [&'static str; 2]| all.into_iter().nth(usize::from(*kind));
        let (side, what) = self.kinds.into_iter().nth(usize::from(*kind)).ok_or_else(broken)?;
        let (flag, key, row) = split_held(value).ok_or_else(broken)?;
        let (key, mut value) = self.sides.row(side, key, row)?;
        value.insert(0, moment("held_at", time));
        let note = of(self.flagged).filter(|note| flag != 0 && !note.is_empty()).map(str::to_owned);
        Ok(StateRow { what, key, value, note, ..StateRow::default() })
    }
}
