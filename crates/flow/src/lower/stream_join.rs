//! Joins of two topics: by an interval of time or by windows; with a table topic see `table_join`.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};
use datafusion_common::{Column, DFSchema, NullEquality};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Operator};
use millstream_event::{ColumnType, INGESTED_AT};

use crate::error::SqlError;
use crate::expr::{Compiled, batch_schema};
use crate::lower::interval::{Bound, bound, is_bound};
use crate::lower::{Lowered, Lowering, Result, Trace, column_of, on, plan_error, safe, window};
use crate::ops::Op;
use crate::ops::project::Project;
use crate::sql::as_of;
use crate::stream::{Chain, IntervalJoinPlan, Keys, PairedPlan, Stage, Two};

/// What a join asks for.
pub(super) struct Asked<'p> {
    pub(super) join: &'p Join,
    /// The sides whose rows are given out even if they meet none.
    pub(super) keep: Two<bool>,
    /// What a pair must fulfil.
    pub(super) conditions: Vec<Expr>,
    /// The time as of which a table is joined.
    pub(super) as_of: Option<Expr>,
}

/// One expression of each side that are equal in a pair.
pub(super) type Pair = (Expr, Expr);

impl Lowering<'_> {
    /// Lowers a join of topics; of its rows those that fulfil `behind` go on.
    pub(super) fn stream_join(&mut self, join: &Join, behind: Vec<Expr>) -> Result<Lowered> {
        let keep = match join.join_type {
            JoinType::Inner => Two { left: false, right: false },
            JoinType::Left => Two { left: true, right: false },
            JoinType::Right => Two { left: false, right: true },
            JoinType::Full => Two { left: true, right: true },
            _ => {
                let error = SqlError::new("sql-join-kind", "a semi or anti join of topics is not supported");
                return Err(error.help("JOIN them; of a LEFT JOIN keep the rows WHERE the other's key IS NULL"));
            }
        };
        if !join.on.is_empty() && join.null_equality != NullEquality::NullEqualsNothing {
            return Err(SqlError::new("sql-join-kind", "rows without a key meet none; join with `=`"));
        }
        let pairs = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let filters = join.filter.iter().flat_map(|f| split_conjunction(f).into_iter().cloned());
        let mut conditions: Vec<Expr> = pairs.chain(filters).collect();
        let mut behind = behind;
        if join.join_type == JoinType::Inner {
            conditions.append(&mut behind);
        }
        let as_of = conditions.iter().position(as_of::is_as_of).map(|at| conditions.remove(at));
        let as_of = as_of.as_ref().and_then(as_of::time).cloned();
        let asked = Asked { join, keep, conditions, as_of };
        let joined = match self.table_side(&asked)? {
            Some(table) => self.table_join(asked, table)?,
            None => self.interval_join(asked)?,
        };
        match conjunction(behind) {
            Some(all) => self.filtered(joined, &all),
            None => Ok(joined),
        }
    }

    fn interval_join(&mut self, asked: Asked<'_>) -> Result<Lowered> {
        let Asked { join, keep, mut conditions, .. } = asked;
        let sides = self.sides(join, keep, None, &mut conditions)?;
        self.only_appends(&sides.left)?;
        self.only_appends(&sides.right)?;
        let bound = self.interval(&mut conditions, &sides)?;
        let pairs = pairs(&mut conditions, &sides);
        let (residual, rest) = self.residual(keep, conditions, join)?;
        let trace = |side: usize, place: usize| sides.of(side).lineage.get(place).copied().flatten();
        let times = Two { left: trace(0, bound.places.0), right: trace(1, bound.places.1) };
        let shift = times.map(|trace| self.shift(*trace));
        let moved = shift.right - shift.left;
        let lineage = self.joined_lineage(&sides, keep, Some(times));
        let windows = joined_windows(&sides);
        self.meet_by(&pairs, &sides);
        let topics = joined_topics(&sides);
        let (paired, chains) = self.paired(sides, &pairs, join)?;
        let operator = IntervalJoinPlan {
            paired,
            time: Two { left: bound.places.0, right: bound.places.1 },
            shift,
            least: bound.least.unwrap_or(i64::MIN).saturating_add(moved),
            most: bound.most.unwrap_or(i64::MAX).saturating_add(moved),
            keep,
            residual,
        };
        let source = self.add_stage(Stage { sides: chains, operator: Box::new(operator) })?;
        let lineage = lineage.into_iter().map(|trace| match trace {
            Some(Trace::WindowStart | Trace::WindowEnd) if windows.is_none() => None,
            other => other,
        });
        let schema = Arc::clone(&join.schema);
        let lineage = lineage.collect();
        let joined = Lowered { source, ops: Vec::new(), schema, lineage, windows, topics, updates: None };
        match conjunction(rest) {
            Some(all) => self.filtered(joined, &all),
            None => Ok(joined),
        }
    }

    /// Lowers both sides. What is asked of one side alone is asked before its rows are held.
    /// The rows of the side `table` are held as a table's.
    pub(super) fn sides(
        &mut self,
        join: &Join,
        keep: Two<bool>,
        table: Option<usize>,
        conditions: &mut Vec<Expr>,
    ) -> Result<Two<Lowered>> {
        let mut lower = |plan: &LogicalPlan, side: usize| {
            let kept = *keep.of(side);
            let schema = plan.schema();
            let own =
                |condition: &Expr| on(condition, schema) && (safe(condition, schema) || is_bound(condition, schema));
            let moves = |condition: &Expr| !kept && !condition.column_refs().is_empty() && own(condition);
            let (early, rest): (Vec<Expr>, Vec<Expr>) = std::mem::take(conditions).into_iter().partition(moves);
            *conditions = rest;
            self.held = table == Some(side);
            let lowered = self.filter(early, plan);
            self.held = false;
            window::spread(lowered?)
        };
        Ok(Two { left: lower(&join.left, 0)?, right: lower(&join.right, 1)? })
    }

    /// Takes out of `conditions` what bounds the time between the sides.
    fn interval(&self, conditions: &mut Vec<Expr>, sides: &Two<Lowered>) -> Result<Bound> {
        let times = self.times();
        let trace = |side: usize, place: usize| sides.of(side).lineage.get(place).copied().flatten();
        let is_time = |trace: Option<Trace>| trace.is_some_and(|t| t == Trace::WindowEnd || times.contains(&t));
        let said = |condition: &Expr| {
            let bound = bound(condition, &sides.left.schema, &sides.right.schema)?;
            (is_time(trace(0, bound.places.0)) && is_time(trace(1, bound.places.1))).then_some(bound)
        };
        let mut all: Vec<Bound> = Vec::new();
        for one in conditions.iter().filter_map(said) {
            match all.iter_mut().find(|known| known.places == one.places) {
                Some(known) => {
                    known.least = known.least.max(one.least);
                    known.most = [known.most, one.most].into_iter().flatten().min();
                }
                None => all.push(one),
            }
        }
        // The narrowest holds the fewest rows.
        let width = |bound: &Bound| Some(bound.most?.saturating_sub(bound.least?));
        let Some(best) = all.iter().filter(|b| width(b).is_some()).min_by_key(|b| width(b)).copied() else {
            return Err(self.unbounded(sides, all.first()));
        };
        conditions.retain(|condition| said(condition).is_none_or(|bound| bound.places != best.places));
        Ok(best)
    }

    fn unbounded(&self, sides: &Two<Lowered>, half: Option<&Bound>) -> SqlError {
        let name = |side: usize| {
            let topic = sides.of(side).topics.last().and_then(|table| self.topics.get(*table));
            topic.map_or("", |name| name.as_str()).to_owned()
        };
        let (one, another) = (name(0), name(1));
        let time = |name: &str| {
            let found = self.catalog.event_times.iter().find(|(topic, _)| topic.as_str() == name);
            found.map(|(_, column)| column.name.as_str())
        };
        let missing = [&one, &another].into_iter().find(|name| time(name).is_none());
        let why = match half {
            Some(bound) if bound.least.is_some() => format!(": nothing says how much later `{another}` may be"),
            Some(_) => format!(": nothing says how much earlier `{another}` may be"),
            None => format!(": nothing bounds the time between `{one}` and `{another}`"),
        };
        let error = SqlError::new("sql-unbounded", format!("the join would have to remember every row for ever{why}"));
        let windows = [0, 1].iter().any(|side| sides.of(*side).windows.is_some());
        match missing {
            Some(name) => error.help(format!(
                "declare the event time of `{name}` (topics: {{{name}: {{event_time: {{column: …}}}}}}) and bound it"
            )),
            None if windows => error.help("join by the windows of both, as in ON … AND a.window_start = b.window_start AND a.window_end = b.window_end"),
            None => {
                let (l, r) = (time(&one).unwrap_or_default(), time(&another).unwrap_or_default());
                error.help(format!("bound it, as in ON … AND {another}.{r} BETWEEN {one}.{l} AND {one}.{l} + INTERVAL '10 minutes'; a topic of kind table needs no bound"))
            }
        }
    }

    /// What pairs must fulfil within the operator, and what their rows must fulfil behind it: of an outer join the
    /// condition decides whether there is a pair.
    pub(super) fn residual(
        &self,
        keep: Two<bool>,
        conditions: Vec<Expr>,
        join: &Join,
    ) -> Result<(Option<Compiled>, Vec<Expr>)> {
        if !keep.left && !keep.right {
            return Ok((None, conditions));
        }
        let Some(all) = conjunction(conditions) else { return Ok((None, Vec::new())) };
        let compiled = self.compile(&all, &join.schema)?;
        if compiled.fallible() {
            let message = format!("the condition {} of an outer join can fail", compiled.text());
            return Err(SqlError::new("sql-join-condition", message)
                .help("compute it in a subquery of one side, or guard it, as in CASE WHEN b.n <> 0 THEN … END"));
        }
        Ok((Some(compiled), Vec::new()))
    }

    /// Rows of topics meet where these pairs are equal.
    pub(super) fn meet_by(&mut self, pairs: &[Pair], sides: &Two<Lowered>) {
        let trace = |side: usize, expr: &Expr| {
            let side = sides.of(side);
            side.lineage.get(column_of(widened(expr, &side.schema), &side.schema)?).copied().flatten()
        };
        let traces = pairs.iter().map(|(l, r)| (trace(0, l), trace(1, r)));
        let usable = |(l, r): &(Option<Trace>, Option<Trace>)| match (l, r) {
            (Some(Trace::Column { table: l, place: a }), Some(Trace::Column { table: r, place: b })) => {
                l != r || a == b
            }
            _ => false,
        };
        let mut traces: Vec<(Option<Trace>, Option<Trace>)> = traces.filter(usable).collect();
        // Each column once, so that those of both sides correspond by place.
        let (mut lefts, mut rights) = (Vec::new(), Vec::new());
        traces.retain(|(l, r)| {
            let new = !lefts.contains(l) && !rights.contains(r);
            lefts.push(*l);
            rights.push(*r);
            new
        });
        let (lefts, rights): (Vec<_>, Vec<_>) = traces.iter().copied().unzip();
        self.require(&lefts, &sides.left.topics);
        self.require(&rights, &sides.right.topics);
        self.together(&joined_topics(sides));
        traces.into_iter().for_each(|(l, r)| self.equate(l, r));
    }

    /// What the columns of a join are: those of a side that may be missing are nothing that later steps can build upon,
    /// and of the times only those that bound the join are.
    pub(super) fn joined_lineage(
        &self,
        sides: &Two<Lowered>,
        keep: Two<bool>,
        bounding: Option<Two<Option<Trace>>>,
    ) -> Vec<Option<Trace>> {
        let times = self.times();
        let of = |side: usize, missing: bool| {
            let bounding = bounding.map(|times| *times.of(side));
            let stands = |trace: &Trace| bounding.is_none_or(|own| !times.contains(trace) || own == Some(*trace));
            let lineage = sides.of(side).lineage.clone().into_iter();
            lineage.map(|trace| trace.filter(|trace| !missing && stands(trace))).collect::<Vec<_>>()
        };
        of(0, keep.right).into_iter().chain(of(1, keep.left)).collect()
    }

    /// The rows of both sides and what leads to them, with the keys computed.
    pub(super) fn paired(&self, sides: Two<Lowered>, pairs: &[Pair], join: &Join) -> Result<(PairedPlan, Vec<Chain>)> {
        let types = sides.map(|side| {
            let own = side.schema.fields().iter().map(|field| field.data_type().clone());
            own.chain([ColumnType::Timestamp.to_arrow()]).collect::<Vec<DataType>>()
        });
        let kind = |(l, _): &Pair| l.get_type(&sides.left.schema).map_err(|e| plan_error(&e));
        let key_types = pairs.iter().map(kind).collect::<Result<Vec<_>>>()?;
        let unfit =
            |e: crate::stream::Broken| SqlError::new("sql-join-kind", format!("rows of this type are not joined: {e}"));
        for types in [&types.left, &types.right, &key_types] {
            Keys::new(types).map_err(unfit)?;
        }
        let (left, lefts) = self.with_keys(sides.left, &pairs.iter().map(|(l, _)| l).collect::<Vec<_>>())?;
        let (right, rights) = self.with_keys(sides.right, &pairs.iter().map(|(_, r)| r).collect::<Vec<_>>())?;
        let keys = Two { left: lefts, right: rights };
        Ok((PairedPlan { types, keys, key_types, schema: batch_schema(&join.schema) }, vec![left, right]))
    }

    /// A side with its keys computed behind its columns, and where they are.
    fn with_keys(&self, side: Lowered, keys: &[&Expr]) -> Result<(Chain, Vec<usize>)> {
        let Lowered { source, mut ops, schema, .. } = side;
        let own: Option<Vec<usize>> = keys.iter().map(|key| column_of(key, &schema)).collect();
        if let Some(places) = own {
            return Ok((Chain { source, ops }, places));
        }
        let columns = schema.iter().map(|(table, field)| Expr::Column(Column::new(table.cloned(), field.name())));
        let mut exprs = columns.map(|expr| self.compile(&expr, &schema)).collect::<Result<Vec<_>>>()?;
        let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let mut places = Vec::with_capacity(keys.len());
        for key in keys {
            places.push(exprs.len());
            let kind = key.get_type(&schema).map_err(|e| plan_error(&e))?;
            fields.push(Field::new(format!("key{}", places.len()), kind, true));
            exprs.push(self.compile(key, &schema)?);
        }
        fields.push(ColumnType::Timestamp.field(INGESTED_AT, false));
        ops.push(Op::Project(Project { exprs, schema: Arc::new(Schema::new(fields)) }));
        Ok((Chain { source, ops }, places))
    }
}

/// Takes the equalities of both sides' values out of `conditions`.
pub(super) fn pairs(conditions: &mut Vec<Expr>, sides: &Two<Lowered>) -> Vec<Pair> {
    let mut found = Vec::new();
    conditions.retain(|condition| match pair(condition, &sides.left.schema, &sides.right.schema) {
        Some(pair) => {
            found.push(pair);
            false
        }
        None => true,
    });
    found
}

fn pair(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Option<Pair> {
    let Expr::BinaryExpr(BinaryExpr { left: one, op: Operator::Eq, right: another }) = condition else { return None };
    let of = |expr: &Expr, schema: &DFSchema| !expr.column_refs().is_empty() && on(expr, schema);
    let (l, r) = match (one.as_ref(), another.as_ref()) {
        (l, r) if of(l, left) && of(r, right) => (l, r),
        (r, l) if of(l, left) && of(r, right) => (l, r),
        _ => return None,
    };
    (l.get_type(left).ok()? == r.get_type(right).ok()?).then(|| (l.clone(), r.clone()))
}

/// The expression without a cast that keeps different integers different.
pub(super) fn widened<'e>(expr: &'e Expr, schema: &DFSchema) -> &'e Expr {
    match expr {
        Expr::Cast(cast) => {
            let narrow = cast.expr.get_type(schema).is_ok_and(|kind| kind == DataType::Int32);
            if narrow && *cast.field.data_type() == DataType::Int64 { &cast.expr } else { expr }
        }
        other => other,
    }
}

/// The topics of both sides.
pub(super) fn joined_topics(sides: &Two<Lowered>) -> Vec<usize> {
    let mut topics = sides.left.topics.clone();
    topics.extend(sides.right.topics.iter().filter(|topic| !sides.left.topics.contains(topic)));
    topics
}

/// The windows that the columns of a join have, if they are of one kind.
pub(super) fn joined_windows(sides: &Two<Lowered>) -> Option<window::Open> {
    match (sides.left.windows, sides.right.windows) {
        (Some(left), Some(right)) => Some(left).filter(|left| *left == right),
        (left, right) => left.or(right),
    }
}
