//! From an optimised logical plan to our operators.
//!
//! Rows flow from a topic through chains of row-wise operators and stages with state; lookups hang at the side. What
//! cannot run over a stream is refused here, if the tokens did not show it before.

mod aggregate;
mod interval;
mod join;
mod keep;
pub(crate) mod meet;
mod over;
mod stream_join;
mod table_join;
mod union;
mod unnest;
pub(crate) mod updates;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DFSchemaRef};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Distinct, Expr, JoinType, LogicalPlan, Projection, TableScan};
use millstream_event::Name;

use crate::catalog::Catalog;
use crate::error::SqlError;
use crate::expr::{Compiled, batch_schema, text_of};
use crate::lower::window::Open;
use crate::ops::Op;
use crate::ops::filter::Filter;
use crate::ops::project::{Project, Select};
use crate::sql::context::{Table, TableKind};
use crate::sql::keep::KeepNode;
use crate::stream::{Source, Stage};

/// A plan's operators and where its columns come from.
pub(crate) struct Lowered {
    /// The topic or the stage, or the lookup of a join's side.
    pub(crate) source: Source,
    pub(crate) ops: Vec<Op>,
    pub(crate) schema: DFSchemaRef,
    /// For each output column what it is, unchanged, if so.
    pub(crate) lineage: Vec<Option<Trace>>,
    /// The windows whose start and end its columns have, where nothing has used them yet.
    pub(crate) windows: Option<Open>,
    /// The numbers of the topics that its rows come from.
    pub(crate) topics: Vec<usize>,
    /// Where its rows are updates (a row marked as deleted takes back one that was given out): the places of the columns
    /// that together are the key of what is updated, as far as they are still there.
    pub(crate) updates: Option<Vec<Option<usize>>>,
}

/// What a column is, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    /// A column of a topic, by the topic's number in [`Lowering::topics`], or of a join's lookup.
    Column { table: Option<usize>, place: usize },
    /// The start of the event's window.
    WindowStart,
    /// The end of the event's window.
    WindowEnd,
}

/// Collects what all operators of a query share.
pub(crate) struct Lowering<'a> {
    pub(crate) catalog: &'a Catalog,
    /// The topics that it reads, in the order of the text.
    pub(crate) topics: Vec<Name>,
    /// The columns of a topic by which its rows must come together, where they must.
    pub(crate) keys: BTreeMap<Name, Vec<String>>,
    /// The table topics whose rows flow.
    pub(crate) tables: Vec<Name>,
    /// Whether a table topic is lowered to be held as it is by a join.
    held: bool,
    /// Columns of topics that are equal in the rows that meet, and topics whose rows meet.
    pub(crate) meet: meet::Meet,
    /// The steps with state so far.
    pub(crate) stages: Vec<Stage>,
    /// The lookups in use, in the order of their joins.
    pub(crate) lookups: Vec<Name>,
    /// The lookups of the inner joins.
    pub(crate) inner: Vec<Name>,
    /// The names of common subexpressions and what they stand for, for a person to read.
    pub(crate) common: Vec<(String, String)>,
}

type Result<T> = std::result::Result<T, SqlError>;

/// A fault of DataFusion's within lowering.
pub(crate) fn plan_error(error: &datafusion_common::DataFusionError) -> SqlError {
    let message = error.strip_backtrace();
    if ["InSubquery", "ScalarSubquery", "Exists", "SetComparison"].iter().any(|kind| message.contains(kind)) {
        return SqlError::new("sql-subquery", "a subquery within an expression is not supported")
            .help("join with a lookup instead");
    }
    SqlError::new("sql-plan", message.lines().next().unwrap_or_default().to_owned())
}

fn refused(what: &str, help: &str) -> SqlError {
    SqlError::new("sql-not-yet", what.to_owned()).help(help.to_owned())
}

/// How the optimizer names common subexpressions.
const COMMON: &str = "__common_expr_";

const ROW_WISE: &str = "a query works row by row on one topic and its lookups";

impl<'a> Lowering<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            topics: Vec::new(),
            keys: BTreeMap::new(),
            tables: Vec::new(),
            held: false,
            meet: meet::Meet::default(),
            stages: Vec::new(),
            lookups: Vec::new(),
            inner: Vec::new(),
            common: Vec::new(),
        }
    }

    pub(crate) fn lower(&mut self, plan: &LogicalPlan) -> Result<Lowered> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.lower(&alias.input)?;
                Ok(Lowered { schema: Arc::clone(&alias.schema), ..input })
            }
            LogicalPlan::Subquery(subquery) => self.lower(&subquery.subquery),
            LogicalPlan::Filter(filter) => {
                let conjuncts = split_conjunction(&filter.predicate).into_iter().cloned().collect();
                self.filter(conjuncts, &filter.input)
            }
            LogicalPlan::Projection(projection) => {
                let input = self.lower(&projection.input)?;
                self.project(input, &projection.expr, &projection.schema)
            }
            LogicalPlan::Join(join) => self.any_join(join, Vec::new()),
            LogicalPlan::Unnest(unnest) => {
                let input = self.lower(&unnest.input)?;
                unnest::unnest(input, unnest)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Extension(node) => match node.node.as_any().downcast_ref::<KeepNode>() {
                Some(node) => self.keep(node),
                None => self.window(node),
            },
            LogicalPlan::Window(window) => self.over(window),
            LogicalPlan::Distinct(Distinct::All(input)) if matches!(input.as_ref(), LogicalPlan::Union(_)) => {
                Err(union::removes_duplicates())
            }
            LogicalPlan::Distinct(_) => Err(refused("DISTINCT is not supported yet", ROW_WISE)),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => {
                Err(refused("ORDER BY and LIMIT need an end, which a stream does not have", "leave them out"))
            }
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
                let error = SqlError::new("sql-no-topic", "the query reads rows that no topic has");
                Err(error.help("reference data is a lookup: put the rows into a file and declare it"))
            }
            other => Err(refused(&format!("{} cannot run over a stream", other.display()), ROW_WISE)),
        }
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Lowered> {
        let name = Name::new(scan.table_name.table()).map_err(|e| SqlError::new("sql-unknown-table", e.to_string()))?;
        let kind = scan.source.downcast_ref::<Table>().map(|t| t.kind);
        let kind = kind.ok_or_else(|| SqlError::new("sql-unknown-table", format!("`{name}` is no topic")))?;
        let width = scan.source.schema().fields().len();
        let schema = Arc::clone(&scan.projected_schema);
        let places: Vec<usize> = scan.projection.clone().unwrap_or_else(|| (0..width).collect());
        let (source, table) = match kind {
            TableKind::Topic => {
                let known = self.topics.iter().position(|topic| *topic == name);
                let table = known.unwrap_or_else(|| {
                    self.topics.push(name.clone());
                    self.topics.len() - 1
                });
                (Source::Topic(name), Some(table))
            }
            TableKind::Lookup => (Source::Lookup(name), None),
        };
        let lineage = places.iter().map(|place| Some(Trace::Column { table, place: *place })).collect();
        let topics = table.into_iter().collect();
        let lowered = Lowered { source, ops: Vec::new(), schema, lineage, windows: None, topics, updates: None };
        let lowered = match self.flowing_table(&lowered.source) {
            Some(name) => self.table_rows(name, lowered, places)?,
            None if places.iter().copied().ne(0..width) => {
                let select = Op::Select(Select { places, schema: batch_schema(&lowered.schema) });
                Lowered { ops: vec![select], ..lowered }
            }
            None => lowered,
        };
        scan.filters.iter().try_fold(lowered, |input, filter| self.filtered(input, filter))
    }

    /// Filters `plan`'s rows. Conditions that cannot fail and need only the topic's side go before lookup joins, so
    /// that no row is looked up that is dropped anyway; what can fail stays where its guards are.
    pub(crate) fn filter(&mut self, conjuncts: Vec<Expr>, plan: &LogicalPlan) -> Result<Lowered> {
        // Columns that were only left out behind a join are left out behind the filter as well.
        if let LogicalPlan::Projection(projection) = plan
            && matches!(projection.input.as_ref(), LogicalPlan::Join(_))
            && projection.expr.iter().all(|e| matches!(e, Expr::Column(_)))
        {
            let input = self.filter(conjuncts, &projection.input)?;
            return self.project(input, &projection.expr, &projection.schema);
        }
        // What the optimizer computes once for several conditions is a part of them again: a condition may bound the join.
        if let LogicalPlan::Projection(projection) = plan
            && let LogicalPlan::Join(join) = projection.input.as_ref()
            && join.join_type == JoinType::Inner
            && join::of_topics(join)
        {
            let conjuncts = conjuncts.into_iter().map(|condition| inlined(condition, projection));
            let conjuncts = conjuncts.collect::<Result<_>>()?;
            let input = self.any_join(join, conjuncts)?;
            return self.project(input, &projection.expr, &projection.schema);
        }
        let LogicalPlan::Join(join) = plan else {
            let input = self.lower(plan)?;
            return match datafusion_expr::utils::conjunction(conjuncts) {
                Some(all) => self.filtered(input, &all),
                None => Ok(input),
            };
        };
        if join::of_topics(join) {
            return self.any_join(join, conjuncts);
        }
        let row = self.row_side(join)?.schema();
        let mut early = Vec::new();
        let mut late = Vec::new();
        for condition in conjuncts {
            // Behind a condition that can fail nothing moves: it might be what fails first.
            let moves = late.iter().all(|l| safe(l, plan.schema()))
                && on(&condition, row)
                && (safe(&condition, row) || interval::is_bound(&condition, row));
            if moves { early.push(condition) } else { late.push(condition) }
        }
        let input = self.join(join, early)?;
        match datafusion_expr::utils::conjunction(late) {
            Some(all) => self.filtered(input, &all),
            None => Ok(input),
        }
    }

    fn filtered(&self, input: Lowered, predicate: &Expr) -> Result<Lowered> {
        let mut input = window::used_by(input, std::slice::from_ref(predicate))?;
        let condition = self.compile(predicate, &input.schema)?;
        input.ops.push(Op::Filter(Filter { condition }));
        Ok(input)
    }

    fn project(&mut self, input: Lowered, exprs: &[Expr], schema: &DFSchemaRef) -> Result<Lowered> {
        let computed: Vec<Expr> = exprs.iter().filter(|e| column_of(e, &input.schema).is_none()).cloned().collect();
        let mut input = window::used_by(input, &computed)?;
        let places: Option<Vec<usize>> = exprs.iter().map(|e| column_of(e, &input.schema)).collect();
        let lineage = exprs.iter().map(|e| {
            let place = column_of(e, &input.schema)?;
            input.lineage.get(place).copied().flatten()
        });
        let lineage = lineage.collect();
        let moved = |from: usize| exprs.iter().position(|e| column_of(e, &input.schema) == Some(from));
        let updates = input.updates.as_ref().map(|key| key.iter().map(|place| place.and_then(moved)).collect());
        let batch_schema = batch_schema(schema);
        self.remember(exprs);
        let op = match places {
            Some(places) => Op::Select(Select { places, schema: batch_schema }),
            None => {
                let exprs = exprs.iter().map(|e| self.compile(e, &input.schema)).collect::<Result<_>>()?;
                Op::Project(Project { exprs, schema: batch_schema })
            }
        };
        input.ops.push(op);
        Ok(Lowered { schema: Arc::clone(schema), lineage, updates, ..input })
    }

    /// Compiles `expr`; its text shows what common subexpressions stand for.
    pub(crate) fn compile(&self, expr: &Expr, schema: &DFSchema) -> Result<Compiled> {
        let compiled = Compiled::new(expr, schema).map_err(|e| plan_error(&e))?;
        Ok(compiled.with_text(|text| self.readable(text)))
    }

    /// Rows of a topic with equal values in the columns among `traces` must come together; in all of them where several
    /// steps ask.
    pub(crate) fn require(&mut self, traces: &[Option<Trace>], topics: &[usize]) {
        let traces = &self.alike(traces);
        self.together(topics);
        for table in topics {
            let Some(name) = self.topics.get(*table) else { continue };
            let columns = self.catalog.topics.get(name).map(|schema| schema.columns()).unwrap_or_default();
            let own = traces.iter().filter_map(|trace| match trace {
                Some(Trace::Column { table: Some(of), place }) if of == table => columns.get(*place),
                _ => None,
            });
            let mut own: Vec<String> = own.map(|column| column.name.clone()).collect();
            if let Some(before) = self.keys.get(name) {
                own.retain(|column| before.contains(column));
            }
            own.dedup();
            self.keys.insert(name.clone(), own);
        }
    }

    /// Keeps what common subexpressions stand for.
    fn remember(&mut self, exprs: &[Expr]) {
        for expr in exprs {
            if let Expr::Alias(alias) = expr
                && alias.name.starts_with(COMMON)
                && self.common.iter().all(|(name, _)| *name != alias.name)
            {
                let text = self.readable(&text_of(&alias.expr));
                self.common.push((alias.name.clone(), text));
            }
        }
        // A longer name first: `…_1` is a part of `…_10`.
        self.common.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    }

    fn readable(&self, text: &str) -> String {
        if !text.contains(COMMON) {
            return text.to_owned();
        }
        self.common.iter().fold(text.to_owned(), |text, (name, meaning)| text.replace(name, &format!("({meaning})")))
    }
}

/// Whether `expr` reads only columns of `schema`.
pub(crate) fn on(expr: &Expr, schema: &DFSchema) -> bool {
    expr.column_refs().iter().all(|c| schema.is_column_from_schema(c))
}

/// The condition on what a projection computes as one on what it is computed from.
fn inlined(condition: Expr, projection: &Projection) -> Result<Expr> {
    let inlined = condition.transform(|expr| {
        let computed = match &expr {
            Expr::Column(column) => {
                let place = projection.schema.maybe_index_of_column(column);
                place.and_then(|place| projection.expr.get(place)).map(|e| e.clone().unalias_nested().data)
            }
            _ => None,
        };
        Ok(computed.map_or_else(|| Transformed::no(expr), |e| Transformed::new(e, true, TreeNodeRecursion::Jump)))
    });
    Ok(inlined.map_err(|e| plan_error(&e))?.data)
}

fn safe(expr: &Expr, schema: &DFSchema) -> bool {
    Compiled::new(expr, schema).is_ok_and(|c| !c.fallible())
}

/// The place of the column that `expr` is, if it is no more than that.
fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => column_of(&alias.expr, schema),
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    }
}
