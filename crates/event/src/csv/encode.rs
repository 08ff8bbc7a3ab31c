//! Columns to CSV. Texts are quoted where they must be; an empty text is `""`, a null is an empty cell.

use arrow_array::RecordBatch;

use crate::conform::ConformError;
use crate::json::{Cells, Decimals};
use crate::schema::{Column, Schema};

/// Writes rows of one schema as CSV records.
#[derive(Debug, Clone)]
pub struct Encoder {
    columns: Vec<Column>,
    delimiter: u8,
}

impl Encoder {
    /// An encoder for the user's columns of `schema`.
    pub fn new(schema: &Schema) -> Self {
        Self { columns: schema.columns().to_vec(), delimiter: b',' }
    }

    /// Another byte than a comma between cells.
    pub fn with_delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Appends the header line: a file's first.
    pub fn header(&self, out: &mut Vec<u8>) {
        for (i, column) in self.columns.iter().enumerate() {
            if i > 0 {
                out.push(self.delimiter);
            }
            self.cell(column.name.as_bytes(), out);
        }
        out.push(b'\n');
    }

    /// Appends one record per row, without a header. System columns behind the schema's are skipped.
    pub fn encode(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ConformError> {
        let cells = self.columns.iter().enumerate().map(|(i, column)| {
            let array = rows.columns().get(i).ok_or_else(|| ConformError::missing(column))?;
            Cells::new(column, array.as_ref(), Decimals::Numbers)
        });
        let cells = cells.collect::<Result<Vec<_>, _>>()?;
        let mut text = Vec::new();
        for row in 0..rows.num_rows() {
            for (i, cell) in cells.iter().enumerate() {
                if i > 0 {
                    out.push(self.delimiter);
                }
                text.clear();
                if cell.write_plain(row, &mut text) {
                    self.cell(&text, out);
                }
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn cell(&self, text: &[u8], out: &mut Vec<u8>) {
        let special = |b: &u8| matches!(b, b'"' | b'\n' | b'\r') || *b == self.delimiter;
        // Blanks at the ends are kept by quotes: some readers, and ours for names, cut them off.
        let bare = !text.is_empty() && text.trim_ascii().len() == text.len() && !text.iter().any(special);
        if bare {
            out.extend_from_slice(text);
            return;
        }
        out.push(b'"');
        for byte in text {
            if *byte == b'"' {
                out.push(b'"');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
}
