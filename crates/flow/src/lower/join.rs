//! Joins with lookups.

use std::sync::Arc;

use datafusion_common::NullEquality;
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{BinaryExpr, Expr, Join, JoinType, LogicalPlan, Operator};
use millstream_event::Name;

use crate::error::SqlError;
use crate::expr::batch_schema;
use crate::lower::{Lowered, Lowering, Result, Trace, column_of, on, window};
use crate::ops::Op;
use crate::ops::lookup_join::{Key, LookupJoin};
use crate::sql::context::{Table, TableKind};
use crate::stream::Source;

/// The tables that a plan reads.
fn tables(plan: &LogicalPlan, found: &mut Vec<(TableKind, String)>) {
    if let LogicalPlan::TableScan(scan) = plan
        && let Some(table) = scan.source.downcast_ref::<Table>()
    {
        found.push((table.kind, scan.table_name.table().to_owned()));
    }
    for input in plan.inputs() {
        tables(input, found);
    }
}

fn topics(plan: &LogicalPlan) -> Vec<String> {
    let mut found = Vec::new();
    tables(plan, &mut found);
    found.into_iter().filter(|(kind, _)| *kind == TableKind::Topic).map(|(_, name)| name).collect()
}

/// Whether both sides of a join have topics.
pub(super) fn of_topics(join: &Join) -> bool {
    !topics(&join.left).is_empty() && !topics(&join.right).is_empty()
}

impl Lowering<'_> {
    /// Lowers a join of any kind; of its rows those that fulfil `conditions` go on.
    pub(super) fn any_join(&mut self, join: &Join, conditions: Vec<Expr>) -> Result<Lowered> {
        match of_topics(join) {
            true => self.stream_join(join, conditions),
            false => self.join(join, conditions),
        }
    }

    /// The side of a join that the topic's rows flow from.
    pub(super) fn row_side<'p>(&self, join: &'p Join) -> Result<&'p LogicalPlan> {
        let (left, right) = (topics(&join.left), topics(&join.right));
        match (left.as_slice(), right.as_slice()) {
            ([_, ..], []) => Ok(&join.left),
            ([], [_, ..]) => Ok(&join.right),
            ([], []) => Err(SqlError::new("sql-join-lookups", "two lookups are joined with each other")
                .help("join each lookup with the topic's rows, one after the other")),
            ([l, ..], [r, ..]) => Err(SqlError::new("sql-two-topics", format!("topics `{l}` and `{r}` are joined"))),
        }
    }

    /// Lowers a join of the topic's rows, first filtered by `early`, with a lookup.
    pub(super) fn join(&mut self, join: &Join, early: Vec<Expr>) -> Result<Lowered> {
        let row_first = std::ptr::eq(self.row_side(join)?, join.left.as_ref());
        let (row_plan, side_plan) = if row_first { (&join.left, &join.right) } else { (&join.right, &join.left) };
        let left = match (join.join_type, row_first) {
            (JoinType::Inner, _) => false,
            (JoinType::Left, true) | (JoinType::Right, false) => true,
            (kind, _) => {
                let (message, help) = refused_kind(kind);
                return Err(SqlError::new("sql-join-kind", message).help(help));
            }
        };
        if join.null_equality != NullEquality::NullEqualsNothing {
            return Err(SqlError::new("sql-join-kind", "a lookup's key is never NULL; join with `=`"));
        }
        let row = window::spread(self.filter(early, row_plan)?)?;
        let side = self.lower(side_plan)?;
        let Source::Lookup(name) = side.source.clone() else {
            return Err(SqlError::new("sql-join-kind", "a lookup is joined as it is: filter it behind the join"));
        };
        let lookup = self.lookup(&name);
        let (keys, rest) = self.keys(join, &row, &side, &name)?;
        let residual = rest.map(|r| self.compile(&r, &join.schema)).transpose()?;
        let side_types = side.schema.fields().iter().map(|f| f.data_type().clone()).collect();
        let width = side.schema.fields().len();
        let (gather, side_ops) = gathered(side, self.width(&name));
        let dropped = (!left).then(|| {
            self.inner.push(name.clone());
            self.inner.len() - 1
        });
        let lineage = row.lineage;
        let lineage = match row_first {
            true => lineage.into_iter().chain(std::iter::repeat_n(None, width)).collect(),
            false => std::iter::repeat_n(None, width).chain(lineage).collect(),
        };
        let op = LookupJoin {
            name: name.to_string(),
            lookup,
            keys,
            left,
            side: self.side_schema(&name, &gather)?,
            gather,
            side_types,
            side_ops,
            row_first,
            residual,
            schema: batch_schema(&join.schema),
            dropped,
        };
        let mut ops = row.ops;
        ops.push(Op::LookupJoin(op));
        Ok(Lowered {
            source: row.source,
            ops,
            schema: Arc::clone(&join.schema),
            lineage,
            windows: None,
            topics: row.topics,
            updates: row.updates,
        })
    }

    fn lookup(&mut self, name: &Name) -> usize {
        self.lookups.iter().position(|l| l == name).unwrap_or_else(|| {
            self.lookups.push(name.clone());
            self.lookups.len() - 1
        })
    }

    fn width(&self, name: &Name) -> usize {
        self.catalog.lookups.get(name).map_or(0, |l| l.schema.columns().len())
    }

    /// The gathered columns and the system column.
    fn side_schema(&self, name: &Name, gather: &[usize]) -> Result<arrow_schema::SchemaRef> {
        let fields = self.catalog.lookups.get(name).map(|l| Arc::clone(l.schema.arrow()));
        let fields =
            fields.ok_or_else(|| SqlError::new("sql-unknown-table", format!("there is no lookup `{name}`")))?;
        let chosen = gather.iter().filter_map(|i| fields.fields().get(*i));
        let system = millstream_event::ColumnType::Timestamp.field(millstream_event::INGESTED_AT, false);
        let all = chosen.map(|f| f.as_ref().clone().with_nullable(true)).chain([system]);
        Ok(Arc::new(arrow_schema::Schema::new(all.collect::<Vec<_>>())))
    }

    /// Splits the join's conditions into one key per key column and the rest.
    fn keys(&self, join: &Join, row: &Lowered, side: &Lowered, name: &Name) -> Result<(Vec<Key>, Option<Expr>)> {
        let pairs = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let filters = join.filter.iter().flat_map(|f| split_conjunction(f).into_iter().cloned());
        let mut conditions: Vec<Expr> = pairs.chain(filters).collect();
        let lookup = self.catalog.lookups.get(name);
        let lookup =
            lookup.ok_or_else(|| SqlError::new("sql-unknown-table", format!("there is no lookup `{name}`")))?;
        let mut keys = Vec::new();
        let mut missing = Vec::new();
        for key in &lookup.key {
            let place = lookup.schema.column(key).map(|(place, _)| place);
            let found = conditions.iter().enumerate().find_map(|(at, c)| Some((at, key_side(c, place?, row, side)?)));
            match found {
                Some((at, expr)) => {
                    conditions.remove(at);
                    let kind = lookup.schema.column(key).map(|(_, c)| c.kind.to_arrow());
                    let kind = kind.unwrap_or(arrow_schema::DataType::Null);
                    keys.push(Key { expr: self.compile(&expr, &row.schema)?, kind });
                }
                None => missing.push(key.as_str()),
            }
        }
        if missing.is_empty() {
            return Ok((keys, conjunction(conditions)));
        }
        let (list, all) = (missing.join("`, `"), lookup.key.join("`, `"));
        let message = format!("the join with lookup `{name}` does not say what `{list}` equals");
        let help = format!(
            "a lookup is joined on its whole key (`{all}`), as in ON {name}.{} = …, so that a row finds at most one",
            missing.first().unwrap_or(&"key")
        );
        Err(SqlError::new("sql-join-key", message).help(help))
    }
}

/// Why a kind of join is not one with a lookup, and what is instead.
fn refused_kind(kind: JoinType) -> (String, &'static str) {
    match kind {
        JoinType::LeftSemi | JoinType::RightSemi => (
            "a semi join with a lookup is not supported".to_owned(),
            "JOIN it: it finds at most one row for each event",
        ),
        JoinType::LeftAnti | JoinType::RightAnti => (
            "an anti join with a lookup is not supported".to_owned(),
            "LEFT JOIN it and keep the rows WHERE its key IS NULL",
        ),
        kind => (
            format!("a {} join with a lookup has rows that belong to no event", kind.to_string().to_uppercase()),
            "write the topic first, then JOIN or LEFT JOIN and the lookup",
        ),
    }
}

/// The other side of `condition`, if it is the equality of the lookup's column `place` and a value of the row.
fn key_side(condition: &Expr, place: usize, row: &Lowered, side: &Lowered) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
    let is_key = |expr: &Expr| {
        let at = column_of(uncast(expr), &side.schema)?;
        (side.lineage.get(at).copied().flatten() == Some(Trace::Column { table: None, place })).then_some(())
    };
    if is_key(left).is_some() && on(right, &row.schema) {
        return Some(right.as_ref().clone());
    }
    (is_key(right).is_some() && on(left, &row.schema)).then(|| left.as_ref().clone())
}

/// The expression under casts: a key is compared in the row's type, see [`Key`].
fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => uncast(&cast.expr),
        other => other,
    }
}

/// The lookup's columns to gather, and what is left to do on them.
fn gathered(side: Lowered, width: usize) -> (Vec<usize>, Vec<Op>) {
    let simple = side.ops.iter().all(|op| matches!(op, Op::Select(_)));
    let place = |trace: &Option<Trace>| match trace {
        Some(Trace::Column { place, .. }) => Some(*place),
        _ => None,
    };
    let places: Option<Vec<usize>> = side.lineage.iter().map(place).collect();
    match places {
        Some(places) if simple => (places, Vec::new()),
        _ => ((0..width).collect(), side.ops),
    }
}
