//! DataFusion's errors in our words, with the place in the SQL text.

use datafusion_common::{Column, DataFusionError, Diagnostic, SchemaError};

use crate::catalog::Catalog;
use crate::error::{Span, SqlError, nearest};
use crate::sql::context::function_names;
use crate::sql::text::{Text, lower_first};
use crate::sql::time_windows::table_functions;

/// The longest message kept of DataFusion's.
const MESSAGE_CHARS_MAX: usize = 500;

/// All faults that an error of the planner tells of.
pub(crate) fn translate(error: &DataFusionError, text: &Text, catalog: &Catalog) -> Vec<SqlError> {
    let mut errors: Vec<SqlError> = error.iter().map(|e| one(e, text, catalog)).collect();
    errors.dedup();
    errors
}

fn one(error: &DataFusionError, text: &Text, catalog: &Catalog) -> SqlError {
    let span = error.diagnostic().and_then(span);
    let root = bare(error);
    if let DataFusionError::SchemaError(fault, _) = root {
        return schema_error(fault, span, text);
    }
    let message = root.message();
    let message = message.split("\n\nbacktrace").next().unwrap_or_default().trim();
    table(message, span, text, catalog)
        .or_else(|| function(message, span, text))
        .unwrap_or_else(|| other(message, span, text))
}

/// The error without what is wrapped around it.
fn bare(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => bare(inner),
        DataFusionError::Shared(inner) => bare(inner),
        DataFusionError::Collection(all) => all.first().map_or(error, bare),
        _ => error,
    }
}

fn span(diagnostic: &Diagnostic) -> Option<Span> {
    let span = diagnostic.span.filter(|s| s.start.line > 0)?;
    let place = |l: datafusion_common::Location| (l.line as usize, l.column as usize);
    Some(Span { start: place(span.start), end: place(span.end) })
}

fn schema_error(error: &SchemaError, span: Option<Span>, text: &Text) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let found = || text.find_word(&field.name, false);
            let error = SqlError::new("sql-unknown-column", format!("there is no column `{}`", field.flat_name()));
            help_column(error.at(span.or_else(found)), field, valid_fields)
        }
        SchemaError::AmbiguousReference { field } => {
            let found = || text.find_word(&field.name, false);
            SqlError::new("sql-ambiguous-column", format!("`{}` names columns of several tables", field.name))
                .at(span.or_else(found))
                .help(format!("say which, as in `t.{}`", field.name))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            duplicate(name).at(span)
        }
    }
}

/// Two output columns of one name.
pub(crate) fn duplicate(name: &str) -> SqlError {
    SqlError::new("sql-duplicate-column", format!("two output columns are named `{name}`"))
        .help(format!("rename one, as in `… AS other_{}`", name.rsplit('.').next().unwrap_or(name)))
}

fn help_column(error: SqlError, field: &Column, valid: &[Column]) -> SqlError {
    let same_case = valid.iter().find(|c| c.name.eq_ignore_ascii_case(&field.name) && c.name != field.name);
    if let Some(column) = same_case {
        return error.help(format!("did you mean `{0}`? Case matters: write {0} or \"{0}\"", column.name));
    }
    // A known column behind an unknown table: the table is the fault.
    let relation = field.relation.as_ref().map(|r| r.table());
    let tables = valid.iter().filter_map(|c| c.relation.as_ref()).map(|r| r.table());
    if let Some(table) = relation
        && !valid.iter().any(|c| c.relation.as_ref().is_some_and(|r| r.table() == table))
        && let Some(near) = nearest(table, tables)
    {
        return error.help(format!("did you mean `{near}.{}`?", field.name));
    }
    match nearest(&field.name, valid.iter().map(|c| c.name.as_str())) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => {
            let mut names: Vec<&str> = valid.iter().map(|c| c.name.as_str()).collect();
            names.dedup();
            let more = if names.len() > 12 { ", …" } else { "" };
            names.truncate(12);
            error.help(format!("the columns are {}{more}", names.join(", ")))
        }
    }
}

fn table(message: &str, span: Option<Span>, text: &Text, catalog: &Catalog) -> Option<SqlError> {
    let name = message.strip_prefix("table '")?.strip_suffix("' not found")?;
    let error = SqlError::new("sql-unknown-table", format!("there is no topic or lookup `{name}`"));
    let error = error.at(span.or_else(|| text.find_word(name.rsplit('.').next().unwrap_or(name), false)));
    let known = || catalog.topics.keys().chain(catalog.lookups.keys()).map(|n| n.as_str());
    if let Some((_, last)) = name.rsplit_once('.')
        && known().any(|known| known == last)
    {
        return Some(error.help(format!("write `{last}`: topics and lookups are in no schema")));
    }
    Some(match nearest(name, known()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("known are {}", known().collect::<Vec<_>>().join(", "))),
    })
}

fn function(message: &str, span: Option<Span>, text: &Text) -> Option<SqlError> {
    let (_, rest) = message.split_once("Invalid function '")?;
    let (name, _) = rest.split_once('\'')?;
    let known = function_names().any(|known| known == name);
    let what = if known { "without OVER" } else { "" };
    let message = format!("there is no function {name}() {what}");
    let error = SqlError::new("sql-unknown-function", message.trim_end().to_owned());
    let error = error.at(text.find_word(name, true).or(span));
    if known {
        let over = format!("write {name}(…) OVER (PARTITION BY … ORDER BY the event time)");
        return Some(error.help(over));
    }
    Some(match nearest(name, function_names()) {
        Some(near) => error.help(format!("did you mean {near}()?")),
        None => error,
    })
}

fn other(message: &str, span: Option<Span>, text: &Text) -> SqlError {
    // What a function says of its arguments is wrapped twice.
    let message = message.rsplit_once("Error during planning: ").map_or(message, |(_, inner)| inner);
    let message = message.split(". No function matches").next().unwrap_or(message);
    let message = message.split(". Consider aliasing").next().unwrap_or(message);
    if message.contains("unique expression names") {
        return SqlError::new("sql-duplicate-column", "two output columns have the same name")
            .at(span.or_else(|| text.whole()))
            .help("rename one with AS");
    }
    if let Some((_, rest)) = message.split_once("non-boolean predicate") {
        let kind = rest.rsplit_once("returning ").map_or("another type", |(_, kind)| kind);
        return SqlError::new("sql-condition", format!("a condition is true or false, this is of the type {kind}"))
            .at(span.or_else(|| text.find_word("where", false)).or_else(|| text.whole()))
            .help("compare it with something");
    }
    if message.to_lowercase().contains("subquery") {
        return SqlError::new("sql-subquery", "a subquery within an expression is not supported")
            .at(text.find_subquery().or(span).or_else(|| text.whole()))
            .help("join with a lookup instead");
    }
    if message.contains("able Functions are not supported") {
        let (name, place) = text.unknown_table_function().unzip();
        let place = place.flatten().or_else(|| text.find_table(None, true)).or(span).or_else(|| text.whole());
        if let Some((name, near)) = name.and_then(|name| Some((name, nearest(name, table_functions())?))) {
            return SqlError::new("sql-table-function", format!("there is no table function {name}()"))
                .at(place)
                .help(format!("did you mean {near}()?"));
        }
        return SqlError::new("sql-table-function", "a table function has rows that no topic has")
            .at(place)
            .help("a list becomes rows with CROSS JOIN UNNEST(generate_series(1, 3)) AS u(x)");
    }
    if message.starts_with("Dot access not supported") {
        return SqlError::new("sql-field-access", "a field of a computed struct is not reached with a dot")
            .at(span.or_else(|| text.whole()))
            .help("write the field in brackets, as in list[1]['field']");
    }
    let first: String = message.lines().next().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect();
    let called = || {
        let (_, rest) = message.split_once('\'')?;
        text.find_word(rest.split_once('\'')?.0, true)
    };
    let called = || called().or_else(|| text.whole());
    SqlError::new("sql-plan", lower_first(first.trim_end_matches('.'))).at(span.or_else(called))
}
