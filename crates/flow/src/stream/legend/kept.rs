//! Keys that were seen, and rows that are the first of their group.

use std::sync::Arc;

use arrow_schema::{Field, FieldRef};

use crate::stream::dedup::{DedupPlan, Until};
use crate::stream::groups::Keys;
use crate::stream::legend::{KeyColumns, Legend, StateRow, broken, cells, moment, progress};
use crate::stream::operator::Broken;
use crate::stream::table_rows::TableRowsPlan;
use crate::stream::top_n::TopNPlan;
use crate::stream::window_aggregate::time_of;

/// Reads the keys of a deduplication.
pub(crate) struct DedupLegend {
    key: KeyColumns,
    until: Until,
}

impl DedupLegend {
    pub(crate) fn new(plan: &DedupPlan) -> Result<Self, Broken> {
        Ok(Self { key: KeyColumns::of(&plan.schema, plan.width, &plan.key)?, until: plan.until })
    }
}

impl Legend for DedupLegend {
    fn key(&self) -> Vec<String> {
        self.key.names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        if key.is_empty() {
            return progress(value);
        }
        let (window, key) = time_of(key).ok_or_else(broken)?;
        let (first, _) = time_of(value).ok_or_else(broken)?;
        let value = match self.until {
            Until::Window { .. } => vec![moment("until", window)],
            Until::Ttl { ttl, .. } => vec![moment("first_at", first), moment("until", first.saturating_add(ttl))],
            Until::Ever => Vec::new(),
        };
        Ok(StateRow { what: "seen", key: self.key.cells(key)?, value, ..StateRow::default() })
    }
}

/// Reads the rows of a table topic.
pub(crate) struct TableRowsLegend {
    key: KeyColumns,
    fields: Vec<FieldRef>,
    rows: Keys,
}

impl TableRowsLegend {
    pub(crate) fn new(plan: &TableRowsPlan) -> Result<Self, Broken> {
        let key = plan.key_names.iter().zip(&plan.key);
        let key = key.map(|(name, (_, kind))| Arc::new(Field::new(name, kind.clone(), true)) as FieldRef);
        let user = plan.schema.fields().len().saturating_sub(1);
        Ok(Self {
            key: KeyColumns::new(key.collect())?,
            fields: plan.schema.fields().iter().take(user).cloned().collect(),
            rows: Keys::new(&plan.types())?,
        })
    }
}

impl Legend for TableRowsLegend {
    fn key(&self) -> Vec<String> {
        self.key.names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let key = self.key.cells(key)?;
        let mut value = cells(&self.fields, &self.rows.decode([value])?);
        value.retain(|cell| !key.contains(cell));
        Ok(StateRow { what: "table row", key, value, ..StateRow::default() })
    }
}

/// Reads the first rows of groups.
pub(crate) struct TopNLegend {
    key: KeyColumns,
    windows: bool,
    fields: Vec<FieldRef>,
    rows: Keys,
}

impl TopNLegend {
    pub(crate) fn new(plan: &TopNPlan) -> Result<Self, Broken> {
        Ok(Self {
            key: KeyColumns::of(&plan.schema, plan.row.len(), &plan.key)?,
            windows: plan.window.is_some(),
            fields: plan.schema.fields().iter().take(plan.row.len()).cloned().collect(),
            rows: Keys::new(&plan.row_types())?,
        })
    }
}

impl Legend for TopNLegend {
    fn key(&self) -> Vec<String> {
        self.key.names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        if key.is_empty() {
            return progress(value);
        }
        let (end, rest) = time_of(key).ok_or_else(broken)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
        let (key, _) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(broken)?;
        let key = self.key.cells(key)?;
        let mut value = cells(&self.fields, &self.rows.decode([value])?);
        value.retain(|cell| !key.contains(cell));
        if self.windows {
            value.push(moment("until", end));
        }
        Ok(StateRow { what: "row", key, value, ..StateRow::default() })
    }
}
