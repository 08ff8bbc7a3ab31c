//! Events on their second way: from the rows of `<service>.replay` to a piece of work with the first origins.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use millstream_event::json::Decoder;
use millstream_event::{Name, Schema, Unknown};

use crate::letters::{Letter, Origin};
use crate::piece::{Origins, Piece};
use crate::process::Broken;

/// The rows of the replay topic whose events stand in the topic `topics[input]`, or in the one that it is a copy of, or was
/// one of before: where events are brought together may change while their letters wait. The first input also takes those
/// of topics that the service does not read any more. `aliases`: the names of what copies are of.
pub(crate) fn of_input(
    rows: &RecordBatch,
    topics: &[Name],
    aliases: &BTreeMap<Name, Name>,
    input: usize,
) -> Result<RecordBatch, Broken> {
    let columns = Columns::of(rows).ok_or("the replay topic does not have its columns")?;
    let meant = |topic: &Name| aliases.get(topic).unwrap_or(topic).clone();
    let found = |said: &str| {
        let same = topics.iter().position(|topic| topic.as_str() == said);
        let alike = || topics.iter().position(|topic| meant(topic).as_str() == said);
        let copied = |topic: &Name| said.ends_with(&format!(".repartition.{}", meant(topic)));
        same.or_else(alike).or_else(|| topics.iter().position(copied)).unwrap_or(0)
    };
    let place = |row: usize| found(columns.topic.value(row));
    let mine: BooleanArray = (0..rows.num_rows()).map(|row| Some(place(row) == input)).collect();
    arrow_select::filter::filter_record_batch(rows, &mine).map_err(|e| e.to_string())
}

/// Decodes replayed events. Those that do not fit the service's input any more are refused again.
pub(crate) fn piece(rows: &RecordBatch, schema: &Schema) -> Result<(Piece, Vec<Letter>), Broken> {
    let columns = Columns::of(rows).ok_or("the replay topic does not have its columns")?;
    let mut lines = Vec::new();
    for row in 0..rows.num_rows() {
        lines.extend_from_slice(columns.event(row).as_bytes());
        lines.push(b'\n');
    }
    let mut decoder = Decoder::new(schema, Unknown::Drop);
    let decoded = decoder.decode_lines(&lines).map_err(|e| e.to_string())?;
    let letters = decoded.refused.iter().map(|refused| {
        let row = refused.row as usize;
        Letter {
            code: refused.code.as_str().to_owned(),
            reason: refused.reason.clone(),
            origin: columns.origin(row),
            event: Some(columns.event(row).to_owned()),
            ingested_at: Some(columns.ingested_at(row)),
            ..Letter::default()
        }
    });
    let letters = letters.collect();
    let good = || decoded.source_rows.iter().map(|row| *row as usize);
    let times = TimestampMicrosecondArray::from_iter_values(good().map(|row| columns.ingested_at(row)));
    let times: ArrayRef = Arc::new(times.with_timezone("+00:00"));
    let rows = schema.with_system_column(&decoded.rows, times).map_err(|e| e.to_string())?;
    let origins = good().map(|row| columns.origin(row)).collect::<Option<Vec<_>>>();
    let origins = origins.ok_or("the replay topic names a topic that is no name")?;
    Ok((Piece { rows, origins: Origins::Each(origins), input: 0 }, letters))
}

struct Columns<'a> {
    letter: &'a arrow_array::StringArray,
    topic: &'a arrow_array::StringArray,
    partition: &'a arrow_array::Int32Array,
    offset: &'a arrow_array::Int64Array,
    schema_version: &'a arrow_array::Int32Array,
    attempts: &'a arrow_array::Int32Array,
    event: &'a arrow_array::StringArray,
    ingested_at: &'a TimestampMicrosecondArray,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch) -> Option<Self> {
        let text = |name| rows.column_by_name(name)?.as_string_opt::<i32>();
        let int = |name| rows.column_by_name(name)?.as_primitive_opt::<Int32Type>();
        Some(Self {
            letter: text("letter")?,
            topic: text("topic")?,
            partition: int("partition")?,
            offset: rows.column_by_name("offset")?.as_primitive_opt::<Int64Type>()?,
            schema_version: int("schema_version")?,
            attempts: int("attempts")?,
            event: text("event")?,
            ingested_at: rows.column_by_name("ingested_at")?.as_primitive_opt::<TimestampMicrosecondType>()?,
        })
    }

    fn event(&self, row: usize) -> &'a str {
        if row < self.event.len() { self.event.value(row) } else { "" }
    }

    fn ingested_at(&self, row: usize) -> i64 {
        self.ingested_at.values().get(row).copied().unwrap_or(0)
    }

    fn origin(&self, row: usize) -> Option<Origin> {
        let number = |array: &arrow_array::Int32Array| array.values().get(row).copied().unwrap_or(0).unsigned_abs();
        Some(Origin {
            topic: Name::new((row < self.topic.len()).then(|| self.topic.value(row))?).ok()?,
            partition: number(self.partition),
            offset: self.offset.values().get(row)?.unsigned_abs(),
            schema_version: number(self.schema_version),
            attempts: number(self.attempts),
            replayed_of: Some(self.letter.value(row).to_owned()),
        })
    }
}
