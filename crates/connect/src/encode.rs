//! Events to bytes: what file and stdout sinks share.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::decode::Format;
use crate::event::{Column, Schema, csv, ipc, json};
use crate::service::ConnectError;

/// An encoder for the columns it saw last.
pub(crate) struct Encode {
    format: Format,
    known: Option<(SchemaRef, Kind)>,
}

enum Kind {
    Ndjson(json::Encoder),
    Csv(csv::Encoder),
    Arrow(Box<ipc::StreamWriter>),
}

impl Encode {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, known: None }
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
        let schema = user_schema(columns)?;
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
        let done = match &mut self.known {
            Some((_, Kind::Ndjson(encoder))) => encoder.encode(rows, out),
            Some((_, Kind::Csv(encoder))) => encoder.encode(rows, out),
            Some((_, Kind::Arrow(writer))) => {
                return writer.rows(rows, out).map_err(|e| fault(e.to_string(), self.format));
            }
            None => Ok(()),
        };
        done.map_err(|e| fault(e.to_string(), self.format))
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
