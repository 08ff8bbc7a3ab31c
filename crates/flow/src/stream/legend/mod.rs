//! State for a person to read: what a row of the changelog says, in named columns.
//!
//! Each operator has a [`Legend`] of its rows, which needs the plan alone: nothing is restored and nothing runs. A row
//! that a legend cannot read in full says so in its `note`; it never guesses.

mod joins;
mod kept;
mod over;
mod updates;
mod values;
mod windows;

use std::fmt;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow_cast::cast;
use arrow_cast::display::array_value_to_string;
use arrow_schema::{DataType, Field, FieldRef, Schema as ArrowSchema};
use millstream_event::json::{Decimals, Encoder};
use millstream_event::{Column, ColumnType, Schema};

use crate::query::Query;
use crate::stream::groups::Keys;
use crate::stream::operator::Broken;
use crate::stream::window_aggregate::time_of;

pub(crate) use joins::{HeldLegend, Sides, TableLegend};
pub(crate) use kept::{DedupLegend, TableRowsLegend, TopNLegend};
pub(crate) use over::OverLegend;
pub(crate) use updates::UpdateLegend;
pub(crate) use windows::{SessionLegend, WindowLegend};

/// A named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCell {
    /// The column.
    pub name: String,
    /// Its value as JSON.
    pub json: String,
}

/// A row of state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateRow {
    /// The step that keeps it: its place in [`StateLegend::steps`].
    pub step: usize,
    /// What it is, in a word or two: `window`, `group`, `left row`.
    pub what: &'static str,
    /// What it is found by.
    pub key: Vec<StateCell>,
    /// What is kept.
    pub value: Vec<StateCell>,
    /// What of it cannot be shown, if anything.
    pub note: Option<String>,
}

/// Reads one operator's rows.
pub(crate) trait Legend: Send + Sync {
    /// The names of the columns by which its rows are found.
    fn key(&self) -> Vec<String>;

    /// A row, without the stage's number in its key.
    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken>;
}

/// Reads the rows of a query's or fold's state.
pub struct StateLegend {
    steps: Vec<(String, Box<dyn Legend>)>,
}

impl fmt::Debug for StateLegend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps()).finish()
    }
}

impl StateLegend {
    /// Of steps, each with a line that says what it does.
    pub(crate) fn new(steps: Vec<(String, Box<dyn Legend>)>) -> Self {
        Self { steps }
    }

    /// The steps with state, a line for each.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|(line, _)| line.as_str())
    }

    /// The names of the columns by which rows are found, each once.
    pub fn key_columns(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.steps.iter().flat_map(|(_, legend)| legend.key()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// What a row of the changelog says.
    pub fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let (step, key) = key.split_first().ok_or_else(|| Broken("a key of the state is empty".into()))?;
        let step = usize::from(*step);
        let (_, legend) =
            self.steps.get(step).ok_or_else(|| Broken("the state has more steps than the query".into()))?;
        Ok(StateRow { step, ..legend.row(key, value)? })
    }
}

impl Query {
    /// Reads the rows of its state.
    pub fn state_legend(&self) -> Result<StateLegend, Broken> {
        let legend = |stage: &crate::stream::Stage| Ok((stage.operator.describe(), stage.operator.legend()?));
        Ok(StateLegend::new(self.stages().iter().map(legend).collect::<Result<_, Broken>>()?))
    }
}

/// An operator whose rows nobody can read.
pub(crate) struct Unread;

impl Legend for Unread {
    fn key(&self) -> Vec<String> {
        Vec::new()
    }

    fn row(&self, _key: &[u8], _value: &[u8]) -> Result<StateRow, Broken> {
        Ok(StateRow { what: "row", note: Some("this step's rows cannot be shown".into()), ..StateRow::default() })
    }
}

/// What reads a row that has another form than this version's.
pub(super) fn broken() -> Broken {
    Broken("a row of the state has another form than this version's".into())
}

/// One value of a column.
pub(crate) fn cell(field: &Field, column: &ArrayRef) -> StateCell {
    let text = || {
        let text = array_value_to_string(column, 0).unwrap_or_default();
        if column.is_empty() || column.is_null(0) { "null".to_owned() } else { quoted(&text) }
    };
    StateCell { name: plain(field.name()), json: json(field, column).unwrap_or_else(text) }
}

/// A column's name as it is written in SQL.
pub(super) fn plain(name: &str) -> String {
    name.replace("count(Int64(1))", "count(*)")
}

/// Values of columns, one each.
pub(super) fn cells<'f>(fields: impl IntoIterator<Item = &'f FieldRef>, columns: &[ArrayRef]) -> Vec<StateCell> {
    fields.into_iter().zip(columns).map(|(field, column)| cell(field, column)).collect()
}

fn json(field: &Field, column: &ArrayRef) -> Option<String> {
    let kind = Column::from_arrow(field).map(|column| column.kind).or_else(|| ColumnType::from_arrow(field))?;
    let schema = Schema::new(vec![Column::nullable("v", kind)]).ok()?;
    let wanted = schema.arrow();
    let column = match wanted.field(0).data_type() {
        kind if kind == column.data_type() => Arc::clone(column),
        kind => cast(column, kind).ok()?,
    };
    let rows = RecordBatch::try_new(Arc::clone(wanted), vec![column]).ok()?;
    let text = Encoder::new(&schema, Decimals::Numbers).encode_row(&rows, 0).ok()?;
    Some(text.strip_prefix("{\"v\":")?.strip_suffix('}')?.to_owned())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A moment, in microseconds since 1970 UTC.
pub(crate) fn moment(name: &str, micros: i64) -> StateCell {
    let zone = Some("+00:00".into());
    let field = Field::new(name, DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, zone), true);
    let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("+00:00"));
    cell(&field, &column)
}

/// Up to where windows were given out.
pub(super) fn progress(value: &[u8]) -> Result<StateRow, Broken> {
    let (time, _) = time_of(value).ok_or_else(broken)?;
    Ok(StateRow { what: "progress", value: vec![moment("given_out_until", time)], ..StateRow::default() })
}

/// A whole number.
pub(super) fn number(name: &str, number: i64) -> StateCell {
    StateCell { name: name.to_owned(), json: number.to_string() }
}

/// A word.
pub(super) fn word(name: &str, word: &str) -> StateCell {
    StateCell { name: name.to_owned(), json: quoted(word) }
}

/// Columns that stand as bytes in a key, with their names.
pub(crate) struct KeyColumns {
    fields: Vec<FieldRef>,
    keys: Keys,
}

impl KeyColumns {
    /// Columns of these names and types.
    pub(crate) fn new(fields: Vec<FieldRef>) -> Result<Self, Broken> {
        let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Self { fields, keys: Keys::new(&types)? })
    }

    /// Columns of `schema` by place, with the types that they have in keys. One that is computed has no name there.
    pub(crate) fn of(schema: &ArrowSchema, width: usize, key: &[(usize, DataType)]) -> Result<Self, Broken> {
        let field = |(number, (place, kind)): (usize, &(usize, DataType))| {
            let known = schema.fields().get(*place).filter(|_| *place < width);
            let name = known.map_or_else(|| format!("key{}", number + 1), |field| field.name().clone());
            let meta = known.map(|field| field.metadata().clone()).unwrap_or_default();
            Arc::new(Field::new(name, kind.clone(), true).with_metadata(meta))
        };
        Self::new(key.iter().enumerate().map(field).collect())
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.fields.iter().map(|field| field.name().clone()).collect()
    }

    /// Their values in a key.
    pub(crate) fn cells(&self, key: &[u8]) -> Result<Vec<StateCell>, Broken> {
        // A row that has no key, because a part of it is NULL, has empty bytes.
        if self.fields.is_empty() || key.is_empty() {
            return Ok(Vec::new());
        }
        Ok(cells(&self.fields, &self.keys.decode([key])?))
    }
}
