//! What DataFusion's SQL planner may see: our tables, functions and types.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, FieldRef, SchemaRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, Result, TableReference};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion_sql::sqlparser::ast;
use millstream_event::ColumnType;

use crate::catalog::Catalog;
use crate::functions;
use crate::sql::as_of;
use crate::sql::time_windows::TimeWindows;

/// What a table of a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// The rows that flow.
    Topic,
    /// Rows found by key.
    Lookup,
}

/// A topic or lookup as the planner sees it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) kind: TableKind,
    pub(crate) schema: SchemaRef,
}

impl TableSource for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Scalar functions by name and alias; built once.
struct Functions {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    windows: HashMap<String, Arc<WindowUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    relations: Vec<Arc<dyn RelationPlanner>>,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut scalar = HashMap::new();
    for function in functions::all() {
        for alias in function.aliases() {
            scalar.insert(alias.clone(), Arc::clone(&function));
        }
        scalar.insert(function.name().to_owned(), function);
    }
    let as_of = as_of::function();
    scalar.insert(as_of.name().to_owned(), as_of);
    let mut aggregates = HashMap::new();
    for function in functions::aggregates() {
        for alias in function.aliases() {
            aggregates.insert(alias.clone(), Arc::clone(&function));
        }
        aggregates.insert(function.name().to_owned(), function);
    }
    let mut windows = HashMap::new();
    for function in functions::windows() {
        for alias in function.aliases() {
            windows.insert(alias.clone(), Arc::clone(&function));
        }
        windows.insert(function.name().to_owned(), function);
    }
    let relations: Vec<Arc<dyn RelationPlanner>> = vec![Arc::new(TimeWindows)];
    Functions { scalar, aggregates, windows, planners: functions::planners(), relations }
});

/// The names of all functions, for suggestions.
pub(crate) fn function_names() -> impl Iterator<Item = &'static str> {
    let called = FUNCTIONS.scalar.keys().chain(FUNCTIONS.aggregates.keys());
    let names = called.chain(FUNCTIONS.windows.keys()).map(String::as_str);
    names.filter(|name| !name.starts_with("__"))
}

/// Whether an aggregate has this name.
pub(crate) fn is_aggregate(name: &str) -> bool {
    FUNCTIONS.aggregates.contains_key(&name.to_lowercase())
}

/// Answers the planner's questions from a catalog.
pub(crate) struct Context<'a> {
    catalog: &'a Catalog,
    options: ConfigOptions,
}

impl<'a> Context<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Self {
        Self { catalog, options: options() }
    }
}

/// The settings under which everything is planned and run.
pub(crate) fn options() -> ConfigOptions {
    let mut options = ConfigOptions::new();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.execution.time_zone = Some("+00:00".to_owned());
    options.optimizer.max_passes = 3;
    options.optimizer.skip_failed_rules = false;
    options
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let table = name.table();
        let bare = matches!(name, TableReference::Bare { .. });
        if bare && let Some(schema) = self.catalog.topics.get(table) {
            return Ok(Arc::new(Table { kind: TableKind::Topic, schema: Arc::clone(schema.arrow()) }));
        }
        if bare && let Some(lookup) = self.catalog.lookups.get(table) {
            return Ok(Arc::new(Table { kind: TableKind::Lookup, schema: Arc::clone(lookup.schema.arrow()) }));
        }
        Err(DataFusionError::Plan(format!("table '{name}' not found")))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &FUNCTIONS.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        FUNCTIONS.scalar.get(name).cloned()
    }

    /// Functions that take a lambda are refused at sight: `->` reads JSON.
    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &FUNCTIONS.relations
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        FUNCTIONS.aggregates.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        FUNCTIONS.windows.get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        FUNCTIONS.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        FUNCTIONS.aggregates.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        FUNCTIONS.windows.keys().cloned().collect()
    }
}

/// SQL type names that mean one of our column types: a timestamp is always microseconds in UTC.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql: &ast::DataType) -> Result<Option<FieldRef>> {
        let micros = |zone: &str| DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
        Ok(match sql {
            ast::DataType::Timestamp(_, _) | ast::DataType::TimestampNtz(_) | ast::DataType::Datetime(_) => {
                Some(Arc::new(Field::new("", micros("+00:00"), true)))
            }
            ast::DataType::JSON | ast::DataType::JSONB => Some(Arc::new(ColumnType::Json.field("", true))),
            ast::DataType::Custom(name, _) if name.to_string().eq_ignore_ascii_case("string") => {
                Some(Arc::new(Field::new("", DataType::Utf8, true)))
            }
            _ => None,
        })
    }
}
