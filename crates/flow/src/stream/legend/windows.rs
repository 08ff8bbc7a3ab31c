//! Windows and sessions: their keys, their times, and what their aggregates are by now.

use std::sync::Arc;

use arrow_schema::{Field, FieldRef, SchemaRef};

use crate::stream::kept::{GROUP, Kept};
use crate::stream::legend::values::{following, value_cells};
use crate::stream::legend::{KeyColumns, Legend, StateCell, StateRow, broken, moment, progress};
use crate::stream::lists::VALUE;
use crate::stream::operator::Broken;
use crate::stream::panes::Windows;
use crate::stream::session::SessionPlan;
use crate::stream::window_aggregate::{GroupColumn, WindowAggregatePlan, time_of};

/// The columns of a window's rows.
struct Shape {
    key: KeyColumns,
    start: String,
    end: String,
    aggregates: Kept,
    results: Vec<FieldRef>,
}

impl Shape {
    fn new(
        group: &[GroupColumn],
        key: &[(usize, arrow_schema::DataType)],
        aggregates: Kept,
        schema: &SchemaRef,
        names: (&str, &str),
    ) -> Result<Self, Broken> {
        let field = |column: GroupColumn| {
            let place = group.iter().position(|c| *c == column)?;
            schema.fields().get(place)
        };
        let key_field = |(number, (_, kind)): (usize, &(usize, arrow_schema::DataType))| {
            let known = field(GroupColumn::Key(number));
            let name = known.map_or_else(|| format!("key{}", number + 1), |field| field.name().clone());
            Arc::new(Field::new(name, kind.clone(), true))
        };
        let name = |column, else_: &str| field(column).map_or_else(|| else_.to_owned(), |f| f.name().clone());
        let user = schema.fields().len().saturating_sub(1);
        Ok(Self {
            key: KeyColumns::new(key.iter().enumerate().map(key_field).collect())?,
            start: name(GroupColumn::Start, names.0),
            end: name(GroupColumn::End, names.1),
            aggregates,
            results: schema.fields().iter().take(user).skip(group.len()).cloned().collect(),
        })
    }

    fn names(&self) -> Vec<String> {
        self.key.names().into_iter().chain([self.start.clone(), self.end.clone()]).collect()
    }

    fn found_by(&self, key: &[u8], start: i64, end: i64) -> Result<Vec<StateCell>, Broken> {
        let mut cells = self.key.cells(key)?;
        cells.extend([moment(&self.start, start), moment(&self.end, end)]);
        Ok(cells)
    }

    fn row(&self, what: &'static str, key: &[u8], start: i64, end: i64, state: &[u8]) -> Result<StateRow, Broken> {
        let (value, note) = following(&self.aggregates.shown(state)?, &self.results);
        Ok(StateRow { what, key: self.found_by(key, start, end)?, value, note, ..StateRow::default() })
    }
}

/// Reads the panes of windows.
pub(crate) struct WindowLegend {
    shape: Shape,
    windows: Windows,
    /// Whether a pane is a window of its own.
    whole: bool,
}

impl WindowLegend {
    pub(crate) fn new(plan: &WindowAggregatePlan) -> Result<Self, Broken> {
        let whole = plan.spread || matches!(plan.windows, Windows::Tumble { .. });
        let aggregates = Kept::new(&plan.aggregates)?;
        let shape = if whole {
            Shape::new(&plan.group, &plan.key, aggregates, &plan.schema, ("window_start", "window_end"))?
        } else {
            // A pane has other ends than the windows that it belongs to.
            let group: Vec<GroupColumn> = plan.group.clone();
            let mut shape = Shape::new(&group, &plan.key, aggregates, &plan.schema, ("", ""))?;
            (shape.start, shape.end) = ("pane_start".to_owned(), "pane_end".to_owned());
            shape
        };
        Ok(Self { shape, windows: plan.windows, whole })
    }
}

impl WindowLegend {
    fn start(&self, end: i64) -> i64 {
        if self.whole { self.windows.start(end) } else { end.saturating_sub(self.windows.pane()) }
    }

    fn value(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let kept = self.shape.aggregates.value(key, value)?;
        let (end, key) = time_of(kept.name).ok_or_else(broken)?;
        let value = value_cells(&kept, &self.shape.results);
        Ok(StateRow {
            what: "value",
            key: self.shape.found_by(key, self.start(end), end)?,
            value,
            ..StateRow::default()
        })
    }
}

impl Legend for WindowLegend {
    fn key(&self) -> Vec<String> {
        self.shape.names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        if key.is_empty() {
            return progress(value);
        }
        let key = match (self.shape.aggregates.has_lists(), key.split_first_chunk::<1>()) {
            (false, _) => key,
            (true, Some((&GROUP, key))) => key,
            (true, Some((&VALUE, key))) => return self.value(key, value),
            (true, _) => return Err(broken()),
        };
        let (end, key) = time_of(key).ok_or_else(broken)?;
        let what = if self.whole { "window" } else { "pane" };
        let row = self.shape.row(what, key, self.start(end), end, value)?;
        let part = (!self.whole).then(|| "a part of the windows that hold it".to_owned());
        let note = [part, row.note].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Ok(StateRow { note: (!note.is_empty()).then_some(note), ..row })
    }
}

/// Reads sessions.
pub(crate) struct SessionLegend {
    shape: Shape,
}

impl SessionLegend {
    pub(crate) fn new(plan: &SessionPlan) -> Result<Self, Broken> {
        let aggregates = Kept::whole(&plan.aggregates)?;
        let names = ("window_start", "window_end");
        Ok(Self { shape: Shape::new(&plan.group, &plan.key, aggregates, &plan.schema, names)? })
    }
}

impl Legend for SessionLegend {
    fn key(&self) -> Vec<String> {
        self.shape.names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        if key.is_empty() {
            return progress(value);
        }
        let (key, start) = key.split_last_chunk::<8>().ok_or_else(broken)?;
        let (start, _) = time_of(start).ok_or_else(broken)?;
        let (end, state) = time_of(value).ok_or_else(broken)?;
        self.shape.row("session", key, start, end, state)
    }
}
