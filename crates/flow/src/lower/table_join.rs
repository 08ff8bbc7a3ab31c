//! Joins of a stream with a table topic on its whole key: as of now, or as of the event's time.

use std::sync::Arc;

use datafusion_expr::utils::conjunction;
use datafusion_expr::{Expr, LogicalPlan};
use millstream_event::Name;

use crate::error::SqlError;
use crate::lower::stream_join::{Asked, Pair, joined_topics, pairs, widened};
use crate::lower::{Lowered, Lowering, Result, Trace, column_of};
use crate::ops::Op;
use crate::ops::project::Select;
use crate::stream::{AsOfJoinPlan, Blueprint, Source, Stage, TableJoinPlan, Two};

/// The table topic that `plan` reads as it is.
fn table_of(plan: &LogicalPlan) -> Option<&str> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan.table_name.table()),
        LogicalPlan::SubqueryAlias(alias) => table_of(&alias.input),
        LogicalPlan::Subquery(subquery) => table_of(&subquery.subquery),
        LogicalPlan::Projection(projection) => {
            let column = |e: &Expr| matches!(bare(e), Expr::Column(_));
            projection.expr.iter().all(column).then(|| table_of(&projection.input)).flatten()
        }
        _ => None,
    }
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}

impl Lowering<'_> {
    fn key_of(&self, plan: &LogicalPlan) -> Option<(Name, Vec<String>)> {
        let name = Name::new(table_of(plan)?).ok()?;
        let key = self.catalog.tables.get(&name)?.clone();
        Some((name, key))
    }

    /// The side that is a table topic, joined as one; `None`: the join is one of streams.
    pub(super) fn table_side(&self, asked: &Asked<'_>) -> Result<Option<usize>> {
        let (left, right) = (self.key_of(&asked.join.left), self.key_of(&asked.join.right));
        let (side, name) = match (left, right) {
            (Some((l, _)), Some((r, _))) => {
                let message = format!("table topics `{l}` and `{r}` are joined with each other");
                let error = SqlError::new("sql-join-tables", message);
                return Err(error.help("join a stream with one after the other, or make one of them a lookup"));
            }
            (Some((name, _)), None) => (0, name),
            (None, Some((name, _))) => (1, name),
            (None, None) if asked.as_of.is_some() => {
                let error = SqlError::new("sql-as-of", "FOR SYSTEM_TIME AS OF needs a topic that is a table, as it is");
                return Err(error.help("declare it, as in topics: {t: {kind: table, key: [k]}}"));
            }
            (None, None) => return Ok(None),
        };
        if *asked.keep.of(side) {
            let message = format!("this join keeps rows of the table topic `{name}` that belong to no event");
            let error = SqlError::new("sql-join-kind", message);
            return Err(error.help("write the stream first, then JOIN or LEFT JOIN and the table"));
        }
        Ok(Some(side))
    }

    pub(super) fn table_join(&mut self, asked: Asked<'_>, table: usize) -> Result<Lowered> {
        let Asked { join, keep, mut conditions, as_of } = asked;
        // The table's rows are held as they are: what is asked of them is asked of the row that is met.
        let held = Two { left: keep.left || table == 0, right: keep.right || table == 1 };
        let mut sides = self.sides(join, held, Some(table), &mut conditions)?;
        let plan = if table == 0 { &join.left } else { &join.right };
        let (name, key) = self.key_of(plan).ok_or_else(|| SqlError::new("sql-join-kind", "the table is no topic"))?;
        let pairs = self.table_pairs(&mut conditions, &sides, table, &name, &key)?;
        let kept = keep.left || keep.right;
        let (residual, rest) = self.residual(keep, conditions, join)?;
        let lineage = self.joined_lineage(&sides, keep, None);
        self.meet_by(&pairs, &sides);
        let topics = joined_topics(&sides);
        let windows = sides.of(1 - table).windows;
        let mut time = None;
        let mut plus = (0, 0);
        if let Some(as_of) = &as_of {
            let plain = |(l, r): &Pair| column_of(if table == 0 { l } else { r }, &sides.of(table).schema).is_some();
            if !pairs.iter().all(plain) {
                let error = SqlError::new("sql-as-of", format!("the key of the table topic `{name}` is cast"));
                return Err(error.help("cast the stream's side of the condition instead"));
            }
            let stream = sides.of(1 - table);
            let place = self.stream_time(as_of, stream)?;
            plus.0 = self.shift(stream.lineage.get(place).copied().flatten());
            plus.1 = self.catalog.event_times.get(&name).map_or(0, |time| time.plus_us);
            time = Some((place, self.table_time(&name, sides.of_mut(table))?));
        }
        // The table's own times say nothing about the rows that meet them.
        let width = sides.left.lineage.len();
        let times = self.times();
        let of_table = |at: usize| (at < width) == (table == 0);
        let lineage = lineage.into_iter().enumerate();
        let lineage = lineage.map(|(at, trace)| trace.filter(|t| !of_table(at) || !times.contains(t))).collect();
        let (paired, chains) = self.paired(sides, &pairs, join)?;
        let name = name.to_string();
        let operator: Box<dyn Blueprint> = match time {
            Some((stream, version)) => {
                let shift =
                    if table == 0 { Two { left: plus.1, right: plus.0 } } else { Two { left: plus.0, right: plus.1 } };
                let time = if table == 0 {
                    Two { left: version, right: stream }
                } else {
                    Two { left: stream, right: version }
                };
                Box::new(AsOfJoinPlan { name, paired, time, shift, table, keep: kept, residual })
            }
            None => Box::new(TableJoinPlan { name, paired, table, keep: kept, residual }),
        };
        let source = self.add_stage(Stage { sides: chains, operator })?;
        let schema = Arc::clone(&join.schema);
        let joined = Lowered { source, ops: Vec::new(), schema, lineage, windows, topics, updates: None };
        match conjunction(rest) {
            Some(all) => self.filtered(joined, &all),
            None => Ok(joined),
        }
    }

    /// One pair for each key column of the table; other equalities stay conditions.
    fn table_pairs(
        &self,
        conditions: &mut Vec<Expr>,
        sides: &Two<Lowered>,
        table: usize,
        name: &Name,
        key: &[String],
    ) -> Result<Vec<Pair>> {
        let mut all = pairs(conditions, sides);
        let schema = self.catalog.topics.get(name);
        let side = sides.of(table);
        let mut chosen = Vec::new();
        for column in key {
            let place = schema.and_then(|schema| schema.column(column)).map(|(place, _)| place);
            let is_key = |(l, r): &Pair| {
                let own = widened(if table == 0 { l } else { r }, &side.schema);
                let trace = column_of(own, &side.schema).and_then(|at| side.lineage.get(at).copied().flatten());
                matches!(trace, Some(Trace::Column { table: Some(_), place: at }) if Some(at) == place)
            };
            match all.iter().position(is_key) {
                Some(at) => chosen.push(all.remove(at)),
                None => {
                    let message = format!("the join with the table topic `{name}` does not say what `{column}` equals");
                    let help = format!(
                        "a table is joined on its whole key (`{}`), as in ON {name}.{column} = …",
                        key.join("`, `")
                    );
                    return Err(SqlError::new("sql-join-key", message).help(help));
                }
            }
        }
        conditions.extend(all.into_iter().map(|(l, r)| l.eq(r)));
        Ok(chosen)
    }

    fn stream_time(&self, as_of: &Expr, stream: &Lowered) -> Result<usize> {
        let place = column_of(as_of, &stream.schema);
        let trace = place.and_then(|place| stream.lineage.get(place).copied().flatten());
        match (place, trace) {
            (Some(place), Some(trace)) if self.times().contains(&trace) => Ok(place),
            _ => {
                let error = SqlError::new("sql-as-of", "AS OF needs the event time of the stream");
                Err(error
                    .help("write FOR SYSTEM_TIME AS OF s.at, where `at` is the event time that topic `s` declares"))
            }
        }
    }

    /// Reads the table's event time behind its columns; gives its place.
    fn table_time(&self, name: &Name, side: &mut Lowered) -> Result<usize> {
        let schema = self.catalog.topics.get(name);
        let time = self.catalog.event_times.get(name).and_then(|time| schema?.column(&time.name));
        let Some((time, _)) = time else {
            let message = format!("the table topic `{name}` has no event time, so that its versions have none");
            let help = format!("declare it: topics: {{{name}: {{event_time: {{column: …}}}}}}, or join as of now");
            return Err(SqlError::new("sql-as-of", message).help(help));
        };
        let place = |trace: &Option<Trace>| match trace {
            Some(Trace::Column { place, .. }) => Some(*place),
            _ => None,
        };
        let places: Option<Vec<usize>> = side.lineage.iter().map(place).collect();
        let (Some(mut places), Source::Topic(_), Some(schema)) = (places, &side.source, schema) else {
            return Err(SqlError::new("sql-as-of", format!("the table topic `{name}` is joined as it is")));
        };
        places.push(time);
        let fields: Vec<arrow_schema::Field> = places
            .iter()
            .filter_map(|place| schema.physical().fields().get(*place))
            .chain(schema.physical().fields().last())
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let at = places.len() - 1;
        side.ops = vec![Op::Select(Select { places, schema: Arc::new(arrow_schema::Schema::new(fields)) })];
        Ok(at)
    }
}
