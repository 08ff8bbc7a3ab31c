//! Windows that are over: their results are given out, and panes that nobody needs any more are let go.
//!
//! A watermark may end many windows at once, and a window is more than its panes: a single event is in sixty windows of an
//! hour that begin every minute. So windows share batches, and a step ends when it has given out [`ROWS_PER_STEP`] rows or
//! [`BYTES_PER_STEP`] bytes; the next one goes on behind the last window given out, which is all that has to be known of
//! where it stopped.

use arrow_array::RecordBatch;

use crate::stream::operator::{Broken, Out};
use crate::stream::window_aggregate::{Row, WindowAggregate, name_of, time_key};

/// How many groups are given out in one batch.
const GROUPS_PER_BATCH: usize = 8192;

/// A step ends behind the windows with which it has given out so many rows.
const ROWS_PER_STEP: usize = 65_536;
/// And so many bytes of rows: the log takes commits of 128 MiB.
const BYTES_PER_STEP: usize = 32 << 20;

/// Groups of windows, and the states from which their results are computed.
#[derive(Default)]
struct Batch<'p> {
    rows: Vec<Row<'p>>,
    states: Vec<&'p [u8]>,
    /// The group of each state.
    of: Vec<usize>,
    /// The pane and the key of each state.
    from: Vec<(i64, &'p [u8])>,
}

impl<'p> Batch<'p> {
    fn is_last(&self, end: i64, key: &[u8]) -> bool {
        self.rows.last().is_some_and(|row| row.end == end && row.key == key)
    }

    /// Adds a state of the last group.
    fn add(&mut self, pane: i64, key: &'p [u8], state: &'p [u8]) {
        self.states.push(state);
        self.of.push(self.rows.len().saturating_sub(1));
        self.from.push((pane, key));
    }
}

/// Whether a step has given out what it may.
fn is_enough(out: &Out<'_>) -> bool {
    let rows: usize = out.rows.iter().map(RecordBatch::num_rows).sum();
    let bytes: usize = out.rows.iter().map(RecordBatch::get_array_memory_size).sum();
    rows + out.failed.len() >= ROWS_PER_STEP || bytes >= BYTES_PER_STEP
}

impl WindowAggregate {
    /// The end of the first window with rows behind the one that ends at `fired`.
    pub(super) fn next_behind(&self, fired: i64) -> Option<i64> {
        let from = fired.saturating_sub(self.windows.size());
        let pane = self.panes.range(from..).map(|(end, _)| *end).find(|end| self.last_end(*end) > fired)?;
        let first = self.first_end(pane);
        Some(if fired == i64::MIN { first } else { first.max(self.windows.next_end(fired)) })
    }

    /// Gives out windows that are over at a watermark: all of them, or as many as a step has rows for.
    pub(super) fn give_out_until(&mut self, watermark: i64, out: &mut Out<'_>) -> Result<(), Broken> {
        while !is_enough(out) {
            let ends = self.next_over(watermark);
            let Some(last) = ends.last().copied() else { break };
            self.give_out(&ends, out)?;
            self.fired = last;
            self.forget(out);
        }
        Ok(())
    }

    /// The ends of the next windows that are over at a watermark, as many as have states for a batch.
    fn next_over(&self, watermark: i64) -> Vec<i64> {
        let (mut ends, mut fired, mut states) = (Vec::new(), self.fired, 0);
        while states < GROUPS_PER_BATCH {
            let Some(end) = self.next_behind(fired).filter(|end| *end <= watermark) else { break };
            states += self.panes_of(end).map(|(_, pane)| pane.len()).sum::<usize>();
            ends.push(end);
            fired = end;
        }
        ends
    }

    /// Gives out the results of windows, by key in each.
    fn give_out(&self, ends: &[i64], out: &mut Out<'_>) -> Result<(), Broken> {
        let mut batch = Batch::default();
        for end in ends {
            let panes = self.panes_of(*end);
            let states = panes.flat_map(|(at, pane)| pane.iter().map(move |(key, state)| (key, at, state)));
            let mut states: Vec<(&[u8], i64, &[u8])> = states.collect();
            // The states of a key are merged in the order of their panes.
            states.sort_unstable_by_key(|(key, pane, _)| (*key, *pane));
            for (key, pane, state) in states {
                if !batch.is_last(*end, key) {
                    if batch.rows.len() >= GROUPS_PER_BATCH {
                        self.results_out(std::mem::take(&mut batch), out)?;
                    }
                    batch.rows.push(Row { end: *end, key, marks: 0 });
                }
                batch.add(pane, key, state);
            }
        }
        self.results_out(batch, out)
    }

    fn results_out(&self, batch: Batch<'_>, out: &mut Out<'_>) -> Result<(), Broken> {
        let Batch { rows, states, of, from } = batch;
        if rows.is_empty() {
            return Ok(());
        }
        let name = |at: usize| from.get(at).map(|(pane, key)| name_of(*pane, key)).unwrap_or_default();
        let results = self.aggregates.results(&states, &of, rows.len(), &name)?;
        out.rows.push(self.batch(&rows, results, &mut out.failed)?);
        Ok(())
    }

    /// Lets go of the panes that no later window and no late event needs.
    pub(super) fn forget(&mut self, out: &mut Out<'_>) {
        let end = self.gone();
        while let Some(pane_end) = self.panes.first_key_value().map(|(end, _)| *end) {
            if self.last_end(pane_end) > end {
                break;
            }
            let Some(pane) = self.panes.remove(&pane_end) else { break };
            for (key, _) in pane.iter() {
                out.changes.delete(&[self.aggregates.group(), &time_key(pane_end), key]);
                if self.aggregates.has_lists() {
                    self.aggregates.forget(&name_of(pane_end, key), out.changes);
                }
            }
        }
    }
}
