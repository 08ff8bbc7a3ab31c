//! Windows over time: rows get their pane first, and are copied into the windows only where something needs these.

use arrow_schema::DataType;
use datafusion_expr::{Expr, Extension};

use crate::error::SqlError;
use crate::expr::batch_schema;
use crate::lower::{Lowered, Lowering, Result, Trace, refused};
use crate::ops::Op;
use crate::ops::windows::{Panes, Spread};
use crate::sql::time_windows::{Kind, WindowNode};
use crate::stream::Windows;

/// The most windows that a row is copied into.
const COPIES_MAX: i64 = 500;

/// The windows that rows were put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) kind: Kind,
    /// Whether the rows were copied into their windows; before that `window_start` and `window_end` are the pane's.
    pub(crate) spread: bool,
}

impl Lowering<'_> {
    pub(super) fn window(&mut self, node: &Extension) -> Result<Lowered> {
        let Some(node) = node.node.as_any().downcast_ref::<WindowNode>() else {
            return Err(refused("this cannot run over a stream", "leave it out"));
        };
        let input = self.lower(&node.input)?;
        if input.windows.is_some() {
            return Err(refused(
                "a window over a window is not supported",
                "let two services do it, one behind the other",
            ));
        }
        self.only_appends(&input)?;
        let place = input.schema.maybe_index_of_column(&node.time);
        let place =
            place.ok_or_else(|| SqlError::new("sql-window-time", format!("there is no column {}", node.time)))?;
        let plus_us = self.is_event_time(&input, place, &node.time.name)?;
        let kind = input.schema.field(place).data_type();
        if !matches!(kind, DataType::Timestamp(..)) {
            let message =
                format!("`{}` is no timestamp but a date, and a window needs the time of day", node.time.name);
            let error = SqlError::new("sql-window-time", message);
            return Err(error.help("let a service before compute a timestamp from it, and declare that as event_time"));
        }
        let mut input = input;
        let mut lineage = std::mem::take(&mut input.lineage);
        lineage.extend([Some(Trace::WindowStart), Some(Trace::WindowEnd)]);
        let mut ops = std::mem::take(&mut input.ops);
        ops.push(Op::Panes(Panes { kind: node.kind, time: place, plus_us, schema: batch_schema(&node.schema) }));
        let open = Open { kind: node.kind, spread: matches!(node.kind, Kind::Fixed(Windows::Tumble { .. })) };
        Ok(Lowered { ops, schema: node.schema.clone(), lineage, windows: Some(open), ..input })
    }

    /// Refuses a column that is not the event time of the topic. What is added to its value, in microseconds.
    pub(super) fn is_event_time(&self, input: &Lowered, place: usize, name: &str) -> Result<i64> {
        let traced = match input.lineage.get(place) {
            Some(Some(Trace::Column { table: Some(table), place })) => Some((*table, *place)),
            _ => None,
        };
        if matches!(input.lineage.get(place), Some(Some(Trace::WindowStart | Trace::WindowEnd))) {
            return Err(refused(
                "a window over what a window gives out is not supported yet",
                "let a second service read it",
            ));
        }
        // A column that is computed is named as one of the first topic.
        let table = traced.map(|(table, _)| table).or(input.topics.first().copied());
        let Some(topic) = table.and_then(|table| self.topics.get(table)) else {
            return Err(SqlError::new("sql-window-time", format!("`{name}` is not the event time of a topic")));
        };
        let Some(time) = self.catalog.event_times.get(topic) else {
            let message = format!("topic `{topic}` has no event time, which a window needs");
            let help = format!("declare it: topics: {{{topic}: {{event_time: {{column: {name}}}}}}}");
            return Err(SqlError::new("sql-window-time", message).help(help));
        };
        let column =
            self.catalog.topics.get(topic).and_then(|schema| schema.column(&time.name)).map(|(place, _)| place);
        if column.is_some() && traced.map(|(_, place)| place) == column {
            return Ok(time.plus_us);
        }
        if traced.is_none() && *name == time.name {
            let message = format!("`{name}` is not in every row the event time of its topic, unchanged");
            let error = SqlError::new("sql-window-time", message);
            return Err(error.help("give the window the event time as the topic has it"));
        }
        let message = format!("`{name}` is not the event time of topic `{topic}`, which is `{}`", time.name);
        Err(SqlError::new("sql-window-time", message).help(format!("give the window `{}`", time.name)))
    }

    /// Rows as they are given out: nothing is left open.
    pub(crate) fn settled(&self, input: Lowered) -> Result<Lowered> {
        spread(input)
    }
}

/// Rows whose windows are used by expressions are copied into them.
pub(super) fn used_by(input: Lowered, exprs: &[Expr]) -> Result<Lowered> {
    let Some(open) = input.windows.filter(|open| !open.spread || matches!(open.kind, Kind::Session { .. })) else {
        return Ok(input);
    };
    let is_window = |place: Option<usize>| {
        let trace = place.and_then(|place| input.lineage.get(place).copied().flatten());
        matches!(trace, Some(Trace::WindowStart | Trace::WindowEnd))
    };
    let mut columns = exprs.iter().flat_map(|expr| expr.column_refs());
    if !columns.any(|column| is_window(input.schema.maybe_index_of_column(column))) {
        return Ok(input);
    }
    match open.kind {
        Kind::Fixed(_) => spread(input),
        Kind::Session { .. } => session_is_not_known(),
    }
}

fn session_is_not_known<T>() -> Result<T> {
    let error = SqlError::new("sql-session", "where a session begins and ends is not known before it is over");
    Err(error.help("group by window_start and window_end, and use them behind the GROUP BY"))
}

/// Copies rows into their windows, if that was not done.
pub(crate) fn spread(mut input: Lowered) -> Result<Lowered> {
    let Some(open) = &mut input.windows else { return Ok(input) };
    let Kind::Fixed(windows) = open.kind else { return session_is_not_known() };
    if !std::mem::replace(&mut open.spread, true) {
        let copies = windows.size() / windows.step();
        if copies > COPIES_MAX {
            let message = format!("each row would be copied into {copies} windows; {COPIES_MAX} are the most");
            let error = SqlError::new("sql-window-copies", message);
            return Err(error.help("GROUP BY the windows, which copies no rows, or let them begin less often"));
        }
        let place = |trace| input.lineage.iter().position(|l| *l == Some(trace));
        let (start, end) = (place(Trace::WindowStart), place(Trace::WindowEnd));
        input.ops.push(Op::Spread(Spread { windows, start, end }));
    }
    Ok(input)
}
