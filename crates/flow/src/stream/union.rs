//! UNION ALL: the rows of several sides, in the order in which they come. No state.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::ops::batch_of;
use crate::stream::operator::{Blueprint, Broken, Operator, Out};

/// A planned UNION ALL.
#[derive(Debug, Clone)]
pub(crate) struct UnionPlan {
    pub(crate) sides: usize,
    /// The columns, which each side has by place, and the system's.
    pub(crate) schema: SchemaRef,
}

impl Blueprint for UnionPlan {
    fn open(&self) -> Result<Box<dyn Operator>, Broken> {
        Ok(Box::new(Union { schema: Arc::clone(&self.schema) }))
    }

    fn timed(&self) -> bool {
        false
    }

    fn signature(&self) -> String {
        "union".to_owned()
    }

    fn describe(&self) -> String {
        format!("union of {}", self.sides)
    }
}

struct Union {
    schema: SchemaRef,
}

impl Operator for Union {
    fn push(&mut self, _side: usize, rows: &RecordBatch, out: &mut Out<'_>) -> Result<(), Broken> {
        out.rows.push(batch_of(&self.schema, rows.columns().to_vec(), rows.num_rows())?);
        Ok(())
    }

    fn advance(&mut self, _watermark: i64, _out: &mut Out<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn restore(&mut self, _key: &[u8], _value: Option<&[u8]>) -> Result<(), Broken> {
        Err(Broken("a union has no state, but some is stored for it".to_owned()))
    }

    fn size(&self) -> (usize, usize) {
        (0, 0)
    }
}
