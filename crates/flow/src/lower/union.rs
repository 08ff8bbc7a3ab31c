//! UNION ALL.

use std::sync::Arc;

use datafusion_expr::Union;

use crate::error::SqlError;
use crate::expr::batch_schema;
use crate::lower::{Lowered, Lowering, Result, Trace, window};
use crate::stream::{Chain, Source, Stage, UnionPlan};

/// UNION without ALL.
pub(super) fn removes_duplicates() -> SqlError {
    let error = SqlError::new("sql-union", "UNION removes duplicates, for which it would have to remember every row");
    error.help("write UNION ALL")
}

impl Lowering<'_> {
    pub(super) fn union(&mut self, union: &Union) -> Result<Lowered> {
        let mut sides = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let side = window::spread(self.lower(input)?)?;
            if let Source::Lookup(name) = &side.source {
                let error =
                    SqlError::new("sql-no-topic", format!("a part of the UNION reads only the lookup `{name}`"));
                return Err(error.help("a part reads a topic; join the lookup with it"));
            }
            sides.push(side);
        }
        let lineage = (0..union.schema.fields().len()).map(|place| self.common(&sides, place)).collect();
        let open = sides.first().and_then(|side| side.windows);
        let windows = open.filter(|open| sides.iter().all(|side| side.windows == Some(*open)));
        let mut topics: Vec<usize> = Vec::new();
        for topic in sides.iter().flat_map(|side| &side.topics) {
            if !topics.contains(topic) {
                topics.push(*topic);
            }
        }
        let schema = Arc::clone(&union.schema);
        let operator = Box::new(UnionPlan { sides: sides.len(), schema: batch_schema(&schema) });
        let sides = sides.into_iter().map(|side| Chain { source: side.source, ops: side.ops }).collect();
        let source = self.add_stage(Stage { sides, operator })?;
        Ok(Lowered { source, ops: Vec::new(), schema, lineage, windows, topics, updates: None })
    }

    /// What a column of all sides is: where each has another topic's column, these correspond.
    fn common(&mut self, sides: &[Lowered], place: usize) -> Option<Trace> {
        let traces: Vec<Trace> =
            sides.iter().map(|s| s.lineage.get(place).copied().flatten()).collect::<Option<_>>()?;
        let first = *traces.first()?;
        if traces.iter().all(|trace| *trace == first) {
            // Windows of several kinds are none that all rows have.
            let window = matches!(first, Trace::WindowStart | Trace::WindowEnd);
            let open = sides.first().and_then(|side| side.windows);
            return Some(first).filter(|_| !window || sides.iter().all(|side| side.windows == open));
        }
        let times = self.times();
        let is_time = |trace: &Trace| times.contains(trace);
        let alike = |a: &Trace, b: &Trace| match (a, b) {
            (Trace::Column { table: a, .. }, Trace::Column { table: b, .. }) => a != b,
            _ => false,
        };
        let fits = |trace: &Trace| is_time(trace) == is_time(&first) && (*trace == first || alike(trace, &first));
        let pairs = || traces.iter().enumerate().flat_map(|(i, a)| traces.iter().skip(i + 1).map(move |b| (a, b)));
        if !traces.iter().all(fits) || !pairs().all(|(a, b)| a == b || alike(a, b)) {
            return None;
        }
        traces.iter().for_each(|trace| self.equate(Some(first), Some(*trace)));
        Some(first)
    }
}
