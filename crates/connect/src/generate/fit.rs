//! Whether a topic can take what a world makes.

use arrow_array::{ArrayRef, RecordBatch};

use crate::event::Schema;
use crate::service::ConnectError;

/// A topic whose every column is made by a world, or may be null.
#[derive(Debug)]
pub(crate) struct Fit {
    topic: Schema,
    made: Schema,
}

impl Fit {
    /// Refuses a topic that the made columns do not fit. It may leave columns out, but not rename or retype them.
    pub(crate) fn new(topic: &Schema, made: Schema) -> Result<Self, ConnectError> {
        for column in topic.columns() {
            let there = made.columns().iter().find(|c| c.name == column.name);
            let fault = match there {
                Some(there) if there.kind != column.kind => format!("is {} there and {} here", there.kind, column.kind),
                Some(there) if there.nullable && !column.nullable => "may be null there and not here".to_owned(),
                None if !column.nullable => "is not made by it and may not be null".to_owned(),
                _ => continue,
            };
            return Err(ConnectError::permanent(format!(
                "the topic does not fit what `generate` makes: column `{}` {fault}; it makes: {made}",
                column.name
            )));
        }
        Ok(Self { topic: topic.clone(), made })
    }

    /// The made columns as rows with the topic's columns in the topic's order.
    pub(crate) fn rows(&self, columns: Vec<ArrayRef>) -> Result<RecordBatch, ConnectError> {
        let fault = |e: &dyn std::fmt::Display| ConnectError::permanent(format!("making events: {e}"));
        let all = RecordBatch::try_new(self.made.arrow().clone(), columns).map_err(|e| fault(&e))?;
        self.topic.conform(&all).map_err(|e| fault(&e))
    }
}
