//! Keeps the rows for which a condition is true; NULL is not true.

use arrow_array::BooleanArray;
use arrow_select::filter::filter_record_batch;

use crate::expr::{Compiled, EvalError};
use crate::ops::Frame;

/// A condition that rows must fulfil.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) condition: Compiled,
}

impl Filter {
    pub(crate) fn apply(&self, frame: Frame) -> Result<Frame, EvalError> {
        let mask = self.condition.evaluate_bool(&frame.batch)?;
        keep(frame, &mask)
    }

    pub(crate) fn describe(&self) -> String {
        format!("filter {}", self.condition.text())
    }
}

/// The rows for which `mask` is true.
pub(crate) fn keep(frame: Frame, mask: &BooleanArray) -> Result<Frame, EvalError> {
    let kept = mask.true_count();
    if kept == frame.batch.num_rows() {
        return Ok(frame);
    }
    let batch = filter_record_batch(&frame.batch, mask).map_err(|e| EvalError::internal("filter", &e))?;
    let rows = (0_u32..).zip(mask).filter(|(_, m)| *m == Some(true)).map(|(row, _)| row).collect();
    Ok(Frame { batch, origin: frame.origin.take(&rows), dropped: frame.dropped })
}
