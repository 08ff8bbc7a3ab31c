//! The columns of a topic.

use std::fmt;
use std::sync::Arc;

use arrow_schema::{Field, Schema as ArrowSchema, SchemaRef};

use crate::batch::INGESTED_AT;
use crate::column_type::{ColumnType, ParseColumnTypeError, parse_with_null_mark};

/// The column that keeps unknown fields of JSON and CSV events, as a JSON object (see [`Schema::with_extra`]).
pub const EXTRA: &str = "_extra";

/// The most columns a topic may have.
const COLUMNS_MAX: usize = 4096;

/// One named column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    /// The name, as written in JSON and SQL (case matters).
    pub name: String,
    /// The type.
    pub kind: ColumnType,
    /// Whether the value may be missing.
    pub nullable: bool,
}

impl Column {
    /// A column that always has a value (`!` in YAML).
    pub fn required(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind, nullable: false }
    }

    /// A column whose value may be null.
    pub fn nullable(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind, nullable: true }
    }

    /// Reads a column from its name and a type text such as `decimal(12,2)!`.
    pub fn parse(name: impl Into<String>, kind: &str) -> Result<Self, ParseColumnTypeError> {
        let (kind, nullable) = parse_with_null_mark(kind)?;
        Ok(Self { name: name.into(), kind, nullable })
    }

    /// The Arrow field of this column.
    pub fn to_arrow(&self) -> Field {
        self.kind.field(&self.name, self.nullable)
    }

    /// The column that holds an Arrow field's values, or `None` (see [`ColumnType::from_arrow`]).
    pub fn from_arrow(field: &Field) -> Option<Self> {
        let kind = ColumnType::from_arrow(field)?;
        Some(Self { name: field.name().clone(), kind, nullable: field.is_nullable() })
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.name, self.kind, if self.nullable { "" } else { "!" })
    }
}

/// Why a list of columns is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Two columns have one name.
    #[error("two columns are named `{0}`")]
    Duplicate(String),
    /// Column names starting with `__` belong to the system.
    #[error("`{0}` starts with `__`, which is reserved; choose another name")]
    Reserved(String),
    /// More columns than a topic may have.
    #[error("a topic has at most {COLUMNS_MAX} columns, this one has {0}")]
    TooMany(usize),
    /// An empty column name.
    #[error("a column has an empty name")]
    Empty,
}

/// The columns of a topic, in order. Cheap to clone; equal when the columns are.
#[derive(Clone)]
pub struct Schema {
    columns: Arc<[Column]>,
    /// The user's columns only.
    arrow: SchemaRef,
    /// The user's columns, then the system's: what a [`crate::Batch`] carries.
    physical: SchemaRef,
}

impl Schema {
    /// Checks the columns and makes a schema of them.
    pub fn new(columns: Vec<Column>) -> Result<Self, SchemaError> {
        if columns.len() > COLUMNS_MAX {
            return Err(SchemaError::TooMany(columns.len()));
        }
        let mut seen = std::collections::HashSet::new();
        for column in &columns {
            if column.name.is_empty() {
                return Err(SchemaError::Empty);
            }
            if column.name.starts_with("__") {
                return Err(SchemaError::Reserved(column.name.clone()));
            }
            if !seen.insert(column.name.as_str()) {
                return Err(SchemaError::Duplicate(column.name.clone()));
            }
        }
        let fields: Vec<Field> = columns.iter().map(Column::to_arrow).collect();
        let arrow = Arc::new(ArrowSchema::new(fields.clone()));
        let system = [ColumnType::Timestamp.field(INGESTED_AT, false)];
        let physical = Arc::new(ArrowSchema::new(fields.into_iter().chain(system).collect::<Vec<_>>()));
        Ok(Self { columns: columns.into(), arrow, physical })
    }

    /// The columns in order, without the system's.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The place of a column and the column.
    pub fn column(&self, name: &str) -> Option<(usize, &Column)> {
        self.columns.iter().enumerate().find(|(_, c)| c.name == name)
    }

    /// The user's columns as an Arrow schema: what SQL sees.
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// The Arrow schema of a [`crate::Batch`]: the user's columns, then the system's.
    pub fn physical(&self) -> &SchemaRef {
        &self.physical
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.columns, &other.columns) || self.columns == other.columns
    }
}

impl Eq for Schema {}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, column) in self.columns.iter().enumerate() {
            write!(f, "{}{column}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({self})")
    }
}

impl serde::Serialize for Schema {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let mut list = to.serialize_seq(Some(self.columns.len()))?;
        for column in self.columns.iter() {
            let mark = if column.nullable { "" } else { "!" };
            list.serialize_element(&(&column.name, format!("{}{mark}", column.kind)))?;
        }
        list.end()
    }
}

impl<'de> serde::Deserialize<'de> for Schema {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let list = Vec::<(String, String)>::deserialize(from)?;
        let columns = list.into_iter().map(|(name, kind)| Column::parse(name, &kind).map_err(D::Error::custom));
        Self::new(columns.collect::<Result<_, _>>()?).map_err(D::Error::custom)
    }
}
