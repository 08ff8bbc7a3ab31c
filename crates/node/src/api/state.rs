//! What a service keeps.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Which rows of a service's state to show: the query string of [`super::paths::STATE_ROWS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateQuery {
    /// A JSON object: key columns and their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Only this partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// At most so many rows; 100 where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// What a service keeps, as of its last commits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateAnswer {
    /// The service.
    pub service: String,
    /// Where it keeps its state: `the topic stock.state`.
    pub kept_in: String,
    /// The steps that keep something, a line for each.
    pub steps: Vec<String>,
    /// The columns by which rows are found.
    pub key_columns: Vec<String>,
    /// The rows, by partition and key.
    pub rows: Vec<StateLine>,
    /// Whether there are more.
    pub more: bool,
}

/// One row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateLine {
    /// The partition.
    pub partition: u32,
    /// The step that keeps it, as a place in [`StateAnswer::steps`].
    pub step: usize,
    /// What it is: `window`, `group`, `left row` …
    pub what: String,
    /// What it is found by.
    pub key: Cells,
    /// What is kept.
    pub value: Cells,
    /// Its size in the changelog, in bytes.
    pub bytes: u64,
    /// What of it is not shown, or is to be known.
    pub note: Option<String>,
}

/// Named values in their order, as text: a decimal keeps all its digits.
#[derive(Debug, Clone, Default)]
pub struct Cells(pub Vec<(String, Box<RawValue>)>);

impl Serialize for Cells {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Cells;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cells, A::Error> {
                let mut cells = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    cells.push(entry);
                }
                Ok(Cells(cells))
            }
        }
        from.deserialize_map(Map)
    }
}
