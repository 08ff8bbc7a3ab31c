//! Events to bytes: what file and stdout sinks share.
//!
//! A tombstone of a table topic is a whole row with its last values, and is told from others by `_deleted`: in NDJSON a
//! field of deleted rows alone, in CSV and Arrow a column of tables, because there each row has the same columns.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;

use crate::decode::Format;
use crate::event::{Column, ColumnType, Schema, Stamp, csv, ipc, json};
use crate::service::ConnectError;

/// What says that a row is deleted.
const DELETED: &str = "_deleted";

/// An encoder for the columns it saw last.
pub(crate) struct Encode {
    format: Format,
    /// Whether the rows are a table's, which may be deleted.
    table: bool,
    known: Option<(SchemaRef, Kind)>,
    line: Vec<u8>,
}

enum Kind {
    Ndjson(json::Encoder),
    Csv(csv::Encoder),
    Arrow(Box<ipc::StreamWriter>),
}

impl Encode {
    pub(crate) fn new(format: Format, table: bool) -> Self {
        Self { format, table, known: None, line: Vec::new() }
    }

    /// Whether each row says whether it is deleted.
    fn has_column(&self) -> bool {
        self.table && self.format != Format::Ndjson
    }

    /// Whether rows with these columns differ from those before.
    pub(crate) fn changes(&self, columns: &SchemaRef) -> bool {
        self.known.as_ref().is_some_and(|(known, _)| !(Arc::ptr_eq(known, columns) || known == columns))
    }

    /// Gets ready for rows with these columns.
    pub(crate) fn ready(&mut self, columns: &SchemaRef) -> Result<(), ConnectError> {
        if self.known.is_some() && !self.changes(columns) {
            return Ok(());
        }
        let mut schema = user_schema(columns)?;
        if self.has_column() {
            let marked = schema.columns().iter().cloned().chain([Column::required(DELETED, ColumnType::Bool)]);
            schema = Schema::new(marked.collect()).map_err(|_| taken())?;
        }
        let kind = match self.format {
            Format::Ndjson => Kind::Ndjson(json::Encoder::new(&schema, json::Decimals::default())),
            Format::Csv => Kind::Csv(csv::Encoder::new(&schema)),
            Format::Arrow => {
                let writer = ipc::StreamWriter::new(&schema);
                let fault = |e: ipc::Error| ConnectError::permanent(format!("the columns cannot be written: {e}"));
                Kind::Arrow(Box::new(writer.map_err(fault)?))
            }
        };
        self.known = Some((columns.clone(), kind));
        Ok(())
    }

    /// What stands at the start of a file.
    pub(crate) fn header(&self, out: &mut Vec<u8>) {
        match &self.known {
            Some((_, Kind::Csv(encoder))) => encoder.header(out),
            Some((_, Kind::Arrow(writer))) => out.extend_from_slice(writer.header()),
            Some((_, Kind::Ndjson(_))) | None => {}
        }
    }

    /// Appends all rows. [`Encode::ready`] was called for their columns.
    pub(crate) fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ConnectError> {
        let fault = |what: String, format: Format| {
            ConnectError::permanent(format!("the events cannot be written as {format}: {what}"))
        };
        let marked;
        let rows = match self.has_column() {
            true => {
                marked = with_column(rows).map_err(|e| fault(e.to_string(), self.format))?;
                &marked
            }
            false => rows,
        };
        let done = match &mut self.known {
            Some((_, Kind::Ndjson(encoder))) => match deleted(rows) {
                Some(_) if rows.schema_ref().column_with_name(DELETED).is_some() => return Err(taken()),
                Some(deleted) => {
                    self.line.clear();
                    let done = encoder.encode(rows, &mut self.line);
                    mark_lines(&self.line, &deleted, out);
                    done
                }
                None => encoder.encode(rows, out),
            },
            Some((_, Kind::Csv(encoder))) => encoder.encode(rows, out),
            Some((_, Kind::Arrow(writer))) => {
                return writer.rows(rows, out).map_err(|e| fault(e.to_string(), self.format));
            }
            None => Ok(()),
        };
        done.map_err(|e| fault(e.to_string(), self.format))
    }
}

fn taken() -> ConnectError {
    ConnectError::permanent(format!(
        "a table's deleted rows are written with `{DELETED}`, and the topic has a column of this name: rename it with AS"
    ))
}

/// Which rows are deleted, if any.
fn deleted(rows: &RecordBatch) -> Option<Vec<bool>> {
    let stamps = Schema::ingested_at(rows)?.values();
    let any = stamps.iter().fold(0, |all, stamp| all | stamp);
    Stamp(any).is_deleted().then(|| stamps.iter().map(|stamp| Stamp(*stamp).is_deleted()).collect())
}

/// The user's columns and, behind them, whether the row is deleted.
fn with_column(rows: &RecordBatch) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let marks: BooleanArray = deleted(rows).unwrap_or_else(|| vec![false; rows.num_rows()]).into();
    let user = rows.schema_ref().fields().iter().zip(rows.columns()).filter(|(f, _)| !f.name().starts_with("__"));
    let (mut fields, mut columns): (Vec<_>, Vec<ArrayRef>) = user.map(|(f, c)| (Arc::clone(f), Arc::clone(c))).unzip();
    fields.push(Arc::new(Column::required(DELETED, ColumnType::Bool).to_arrow()));
    columns.push(Arc::new(marks));
    RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), columns)
}

/// The lines, those of deleted rows with the mark at their end.
fn mark_lines(lines: &[u8], deleted: &[bool], out: &mut Vec<u8>) {
    for (line, deleted) in lines.split_inclusive(|byte| *byte == b'\n').zip(deleted) {
        match line.strip_suffix(b"}\n").filter(|_| *deleted) {
            Some(open) => {
                out.extend_from_slice(open);
                let comma = if open == b"{" { "" } else { "," };
                out.extend_from_slice(format!("{comma}\"{DELETED}\":true}}\n").as_bytes());
            }
            None => out.extend_from_slice(line),
        }
    }
}

/// The user's columns of a batch as a schema.
pub(crate) fn user_schema(columns: &SchemaRef) -> Result<Schema, ConnectError> {
    let fault = |what: String| ConnectError::permanent(format!("the events cannot be written: {what}"));
    let user = columns.fields().iter().filter(|f| !f.name().starts_with("__"));
    let columns =
        user.map(|f| Column::from_arrow(f).ok_or_else(|| fault(format!("column `{}` has no type", f.name()))));
    Schema::new(columns.collect::<Result<_, _>>()?).map_err(|e| fault(e.to_string()))
}
