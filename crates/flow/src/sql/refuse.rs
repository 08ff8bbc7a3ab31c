//! What a row-wise query cannot say, found in its tokens so that every place is named at once.

use datafusion_sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::SqlError;
use crate::sql::text::{Text, is_keyword, span};
use crate::sql::translate::duplicate;

/// Aggregate functions: they need state, which a row-wise query does not have.
const AGGREGATES: &[&str] = &[
    "any_value",
    "approx_count_distinct",
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "arg_max",
    "arg_min",
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "count_if",
    "covar",
    "covar_pop",
    "covar_samp",
    "first_value",
    "group_concat",
    "grouping",
    "last_value",
    "listagg",
    "max",
    "max_by",
    "mean",
    "median",
    "min",
    "min_by",
    "mode",
    "nth_value",
    "percentile_cont",
    "quantile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "var",
    "var_pop",
    "var_samp",
    "var_population",
    "var_sample",
];

/// Window functions.
const WINDOWS: &[&str] = &["cume_dist", "dense_rank", "lag", "lead", "ntile", "percent_rank", "rank", "row_number"];

/// Windows over time, as table functions.
const TIME_WINDOWS: &[&str] = &["cumulate", "hop", "session", "tumble"];

/// Functions that give another answer each time.
const VOLATILE: &[&str] = &["current_time", "gen_random_uuid", "rand", "random", "uuid", "uuidv4", "uuidv7"];

/// Functions that take another function.
const LAMBDAS: &[&str] = &[
    "any_match",
    "array_any_match",
    "array_filter",
    "array_first",
    "array_transform",
    "list_any_match",
    "list_filter",
    "list_first",
    "list_transform",
];

/// Functions that have nothing to work on here or are left out, and why.
const NOT_OFFERED: &[(&str, &str)] = &[
    ("file_row_index", "a topic has no files; the place in a source's file is not kept"),
    ("input_file_name", "a topic has no files; let the source's events carry the name"),
    ("union_extract", "no column has a union type; keep one column for each kind of value, or a `json` column"),
    ("union_tag", "no column has a union type; keep one column for each kind of value, or a `json` column"),
    ("version", "it tells the build that runs, and another build would compute something else; write a constant"),
];

/// Everything that a query is refused for at sight.
pub(crate) fn query(text: &Text) -> Vec<SqlError> {
    let mut errors = words(text, true);
    let tokens = &text.tokens;
    for (i, token) in tokens.iter().enumerate() {
        let (before, after) = (i.checked_sub(1).and_then(|b| tokens.get(b)), tokens.get(i + 1));
        // `AS limit` and `t.limit` are names.
        if is_keyword(before, Keyword::AS) || before.is_some_and(|t| t.token == Token::Period) {
            continue;
        }
        // `count(DISTINCT x)`, `array_agg(x ORDER BY y)`, `OVER (… ORDER BY y)`.
        let inside = is_keyword(Some(token), Keyword::DISTINCT) || is_keyword(Some(token), Keyword::ORDER);
        if inside && in_call(tokens, i) {
            continue;
        }
        if let Some((what, help)) = clause(token, before, after) {
            let at = match (span(token.span), after.and_then(|t| span(t.span))) {
                (Some(a), Some(b)) if what.split_whitespace().nth(1).is_some_and(|w| TWO.contains(&w)) => {
                    Some(crate::Span { start: a.start, end: b.end })
                }
                (a, _) => a,
            };
            errors.push(SqlError::new("sql-not-yet", format!("{what} in a query over a stream")).at(at).help(help));
        }
    }
    if errors.is_empty() && is_keyword(tokens.first(), Keyword::SELECT) {
        let from = tokens.iter().any(|t| is_keyword(Some(t), Keyword::FROM));
        if !from {
            let error = SqlError::new("sql-no-topic", "the SELECT reads no topic").at(text.whole());
            errors.push(match mistyped_from(tokens) {
                Some(token) => error.at(span(token.span)).help("did you mean FROM?"),
                None => error.help("add FROM and the topic that the service reads"),
            });
        }
    }
    errors.sort_by_key(|e| e.span);
    errors
}

/// Whether the token at `at` stands in the parentheses of a call, not of a subquery.
fn in_call(tokens: &[TokenWithSpan], at: usize) -> bool {
    let mut depth = 0_usize;
    for i in (0..at).rev() {
        match tokens.get(i).map(|t| &t.token) {
            Some(Token::RParen) => depth += 1,
            Some(Token::LParen) if depth == 0 => {
                let next = tokens.get(i + 1);
                return !is_keyword(next, Keyword::SELECT) && !is_keyword(next, Keyword::WITH);
            }
            Some(Token::LParen) => depth -= 1,
            _ => {}
        }
    }
    false
}

/// A word behind an expression that is one slip away from FROM.
fn mistyped_from(tokens: &[TokenWithSpan]) -> Option<&TokenWithSpan> {
    let pairs = tokens.iter().zip(tokens.iter().skip(1));
    let behind = pairs.filter(|(before, _)| {
        let first = is_keyword(Some(before), Keyword::SELECT) || is_keyword(Some(before), Keyword::AS);
        !first && matches!(before.token, Token::Word(_) | Token::Number(..) | Token::RParen | Token::Mul)
    });
    let mut words = behind.map(|(_, word)| word);
    words.find(|token| match &token.token {
        Token::Word(word) => {
            word.quote_style.is_none() && strsim::damerau_levenshtein(&word.value.to_lowercase(), "from") == 1
        }
        _ => false,
    })
}

/// The second words of clauses with two.
const TWO: &[&str] = &["BY", "WITH", "UPDATE", "SHARE", "VIEW"];

fn clause(
    token: &TokenWithSpan,
    before: Option<&TokenWithSpan>,
    after: Option<&TokenWithSpan>,
) -> Option<(&'static str, &'static str)> {
    let Token::Word(word) = &token.token else { return None };
    if word.quote_style.is_some() {
        return None;
    }
    let by = is_keyword(after, Keyword::BY);
    let star = before.is_some_and(|t| t.token == Token::Mul);
    let paren = after.is_some_and(|t| t.token == Token::LParen);
    let number = after.is_some_and(|t| matches!(t.token, Token::Number(..)));
    let then = |keyword| is_keyword(after, keyword);
    Some(match word.keyword {
        Keyword::SORT if by => ("SORT BY is not supported", "a stream has no end to sort; leave it out"),
        Keyword::CLUSTER if by => {
            ("CLUSTER BY is not supported", "the `key` of the service's `to` topic parts the rows")
        }
        Keyword::DISTRIBUTE if by => {
            ("DISTRIBUTE BY is not supported", "the `key` of the service's `to` topic parts the rows")
        }
        Keyword::CONNECT if by => ("CONNECT BY is not supported", "a stream has no end to iterate to"),
        Keyword::START if then(Keyword::WITH) => ("START WITH is not supported", "a stream has no end to iterate to"),
        Keyword::LATERAL if then(Keyword::VIEW) => {
            ("LATERAL VIEW is not supported", "write CROSS JOIN UNNEST(t.list) AS u(x)")
        }
        Keyword::FOR if then(Keyword::UPDATE) => {
            ("FOR UPDATE is not supported", "an event never changes; leave it out")
        }
        Keyword::FOR if then(Keyword::SHARE) => ("FOR SHARE is not supported", "an event never changes; leave it out"),
        Keyword::TOP if is_keyword(before, Keyword::SELECT) && (paren || number) => {
            ("TOP is not supported", "a stream has no end; leave it out")
        }
        Keyword::TABLESAMPLE => ("TABLESAMPLE is not supported", "filter on a column, as in WHERE id LIKE '%7'"),
        Keyword::PREWHERE => ("PREWHERE is not supported", "write WHERE"),
        Keyword::INTO if !is_keyword(before, Keyword::INSERT) && !is_keyword(before, Keyword::MERGE) => {
            ("INTO is not supported", "the service's `to` says where the rows go")
        }
        Keyword::MATCH_RECOGNIZE if paren => ("MATCH_RECOGNIZE is not supported", "patterns over events need state"),
        Keyword::PIVOT if paren => {
            ("PIVOT is not supported", "write one aggregate with FILTER (WHERE …) for each column")
        }
        Keyword::UNPIVOT if paren => ("UNPIVOT is not supported", "UNNEST a list of the columns instead"),
        Keyword::ORDER if by => ("ORDER BY is not supported", "a stream has no end to sort; leave it out"),
        Keyword::LIMIT => ("LIMIT is not supported", "a stream has no end; leave it out"),
        Keyword::OFFSET => ("OFFSET is not supported", "a stream has no end; leave it out"),
        Keyword::FETCH => ("FETCH is not supported", "a stream has no end; leave it out"),
        Keyword::INTERSECT => ("INTERSECT is not supported", "join with a lookup instead"),
        Keyword::EXCEPT if !(star && paren) => ("EXCEPT is not supported", "join with a lookup instead"),
        Keyword::MINUS if !paren => ("MINUS is not supported", "join with a lookup instead"),
        Keyword::RECURSIVE => ("WITH RECURSIVE is not supported", "a stream has no end to iterate to"),
        _ => return None,
    })
}

/// Everything that an expression is refused for at sight.
pub(crate) fn expression(text: &Text) -> Vec<SqlError> {
    words(text, false)
}

fn words(text: &Text, query: bool) -> Vec<SqlError> {
    let mut errors = Vec::new();
    for (i, token) in text.tokens.iter().enumerate() {
        let mark = match &token.token {
            Token::Placeholder(mark) => Some(mark.as_str()),
            Token::AtSign => Some("@"),
            _ => None,
        };
        if let Some(mark) = mark {
            let error = SqlError::new("sql-placeholder", format!("`{mark}` stands for a value that nobody gives"));
            errors.push(error.at(span(token.span)).help("write the value itself"));
        }
        let Token::Word(word) = &token.token else { continue };
        if text.tokens.get(i + 1).is_none_or(|t| t.token != Token::LParen) {
            continue;
        }
        let name = word.value.to_lowercase();
        let is = |list: &[&str]| list.contains(&name.as_str());
        let error = if is(AGGREGATES) && !query {
            SqlError::new("sql-aggregate", format!("the aggregate {name}() needs many events, a condition has one"))
                .help("aggregate in the `sql` of a service before")
        } else if is(WINDOWS) && !query {
            SqlError::new(
                "sql-aggregate",
                format!("the window function {name}() needs many events, a condition has one"),
            )
            .help("write it into the `sql` of a service before")
        } else if is(TIME_WINDOWS) && !query {
            SqlError::new("sql-aggregate", format!("{name}() puts many events into a window, a condition has one"))
                .help("write it into FROM in the `sql` of a service")
        } else if is(VOLATILE) {
            SqlError::new("sql-volatile", format!("{name}() gives another answer each time")).help(
                "a replayed event must compute what it computed before: derive the value from the event's columns",
            )
        } else if is(LAMBDAS) {
            SqlError::new("sql-lambda", format!("{name}() takes a lambda, which this SQL does not have"))
                .help("UNNEST the list and work on its elements; `->` reads JSON")
        } else if let Some((_, why)) = NOT_OFFERED.iter().find(|(known, _)| *known == name) {
            SqlError::new("sql-no-function", format!("{name}() is not offered")).help(*why)
        } else {
            continue;
        };
        errors.push(error.at(span(token.span)));
    }
    errors
}

/// Output columns that a SELECT names twice in so many words.
pub(crate) fn doubled_names(query: &Query) -> Vec<SqlError> {
    let select = match query.body.as_ref() {
        SetExpr::Select(select) => select,
        SetExpr::Query(inner) => return doubled_names(inner),
        _ => return Vec::new(),
    };
    let mut seen: Vec<&Ident> = Vec::new();
    let mut errors = Vec::new();
    for name in select.projection.iter().filter_map(output_name) {
        match seen.iter().any(|s| s.value == name.value) {
            true => errors.push(duplicate(&name.value).at(span(name.span))),
            false => seen.push(name),
        }
    }
    errors
}

fn output_name(item: &SelectItem) -> Option<&Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last(),
        _ => None,
    }
}
