//! The single-row result is the definition: what a batch yields is what its rows would yield one by one.
//!
//! The whole batch is tried at once. If an expression fails, the batch is split in halves until the rows at fault are
//! alone; the others keep their order.

use crate::expr::EvalError;
use crate::outcome::Failed;

/// What the parts of a batch became, with the first row of each part, and the rows that failed.
pub(crate) struct Parts<T> {
    pub(crate) parts: Vec<(u32, T)>,
    pub(crate) failed: Vec<Failed>,
}

/// Runs `work(first, count)` on rows `0..rows`, split where it fails.
pub(crate) fn isolate<T>(rows: usize, mut work: impl FnMut(usize, usize) -> Result<T, EvalError>) -> Parts<T> {
    let mut output = Parts { parts: Vec::new(), failed: Vec::new() };
    // The stack holds ranges still to do, the next on top; halving bounds it by the logarithm of the rows.
    let mut todo = vec![(0, rows)];
    while let Some((first, count)) = todo.pop() {
        match work(first, count) {
            Ok(part) => output.parts.push((first as u32, part)),
            Err(error) if count <= 1 => {
                output.failed.push(Failed { row: first as u32, code: error.code, reason: error.reason });
            }
            Err(_) => {
                let half = count / 2;
                todo.push((first + half, count - half));
                todo.push((first, half));
            }
        }
    }
    output
}
