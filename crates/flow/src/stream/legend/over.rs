//! The events that OVER remembers, and those that wait for their turn.

use arrow_schema::{DataType, FieldRef};

use crate::stream::groups::Keys;
use crate::stream::legend::{KeyColumns, Legend, StateRow, broken, cell, cells, moment, number};
use crate::stream::operator::Broken;
use crate::stream::over::columns::Results;
use crate::stream::over::function::{Value, value_of};
use crate::stream::over::history::{History, Kind, Layout};
use crate::stream::over::{EVENT, NEWEST, OverPlan, RUNNING, WAITS};
use crate::stream::window_aggregate::time_of;

/// Reads histories.
pub(crate) struct OverLegend {
    key: KeyColumns,
    time: String,
    layout: Layout,
    columns: Vec<(FieldRef, Kind)>,
    input: Vec<FieldRef>,
    whole: Keys,
}

impl OverLegend {
    pub(crate) fn new(plan: &OverPlan) -> Result<Self, Broken> {
        let fields = plan.input.fields();
        let user = fields.len().saturating_sub(1);
        let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
        let columns = plan.columns.iter().filter_map(|(place, kind)| Some((fields.get(*place)?.clone(), *kind)));
        Ok(Self {
            key: KeyColumns::of(&plan.input, user, &plan.key)?,
            time: fields.get(plan.time).map(|field| field.name().clone()).unwrap_or_default(),
            layout: Layout::new(plan.columns.iter().map(|(_, kind)| *kind).collect()),
            columns: columns.collect(),
            input: fields.iter().take(user).cloned().collect(),
            whole: Keys::new(&types)?,
        })
    }

    fn event(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let (key, place) = key.split_last_chunk::<8>().ok_or_else(broken)?;
        let mut history = History::default();
        if !history.append_written(&self.layout, value) {
            return Err(broken());
        }
        let row = history.row(&self.layout, 0);
        let mut shown = vec![moment(&self.time, row.time())];
        for (column, (field, kind)) in self.columns.iter().enumerate() {
            let mut result = Results::new(field.data_type(), 1);
            let found = match kind {
                // Of these it is known only whether there was a value.
                Kind::Mark => continue,
                _ if row.is_null(column) => Value::Null,
                kind => value_of(*kind, row.raw(column)),
            };
            result.push(found);
            shown.push(cell(field, &result.finish()?));
        }
        let number = number("number", i64::from_be_bytes(*place));
        shown.insert(0, number);
        Ok(StateRow { what: "event", key: self.key.cells(key)?, value: shown, ..StateRow::default() })
    }

    fn waits(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        time_of(key).ok_or_else(broken)?;
        let names = self.key.names();
        let (key, value) =
            cells(&self.input, &self.whole.decode([value])?).into_iter().partition(|c| names.contains(&c.name));
        let note = Some("waits for its time to come".to_owned());
        Ok(StateRow { what: "event", key, value, note, ..StateRow::default() })
    }
}

impl Legend for OverLegend {
    fn key(&self) -> Vec<String> {
        self.key.names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        match key.split_last().ok_or_else(broken)? {
            (&EVENT, key) => self.event(key, value),
            (&WAITS, key) => self.waits(key, value),
            (&RUNNING, key) => {
                let note = "what frames without a beginning have added up is not shown".to_owned();
                Ok(StateRow { what: "sums", key: self.key.cells(key)?, note: Some(note), ..StateRow::default() })
            }
            (&NEWEST, []) => {
                let newest = i64::from_le_bytes(value.try_into().map_err(|_| broken())?);
                Ok(StateRow { what: "progress", value: vec![moment("newest", newest)], ..StateRow::default() })
            }
            _ => Err(broken()),
        }
    }
}
