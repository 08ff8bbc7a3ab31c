//! The SQL text: its tokens, what is refused at sight, and the parse.
//!
//! Identifiers are taken as written. Only an unquoted one that names nothing in the catalog as written, but does in
//! lower case, is lowered, so that `SELECT CARD_ID` finds `card_id` and `SELECT cardId` finds `cardId`.

use std::collections::HashSet;

use datafusion_sql::sqlparser::ast::{Expr, Query, SetExpr, Statement};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Span as TokenSpan, Token, TokenWithSpan, Tokenizer};

use crate::catalog::Catalog;
use crate::error::{Span, SqlError};
use crate::sql::as_of;
use crate::sql::dialect::Sql;
use crate::sql::refuse;

/// The longest SQL text.
const SQL_BYTES_MAX: usize = 256 * 1024;
/// How deep expressions and subqueries may nest.
const DEPTH_MAX: usize = 64;

/// A tokenized SQL text.
pub(crate) struct Text {
    pub(crate) tokens: Vec<TokenWithSpan>,
}

impl Text {
    /// Splits `sql` into tokens and settles the case of its identifiers.
    pub(crate) fn new(sql: &str, catalog: &Catalog) -> Result<Self, SqlError> {
        if sql.len() > SQL_BYTES_MAX {
            let message = format!("the SQL text has {} bytes; at most {SQL_BYTES_MAX} are allowed", sql.len());
            return Err(SqlError::new("sql-too-long", message));
        }
        let mut tokens = Tokenizer::new(&Sql, sql)
            .tokenize_with_location()
            .map_err(|e| SqlError::new("sql-syntax", lower_first(&e.message)).at(Some(point(e.location))))?;
        tokens.retain(|t| !matches!(t.token, Token::Whitespace(_)));
        while tokens.last().is_some_and(|t| matches!(t.token, Token::SemiColon | Token::EOF)) {
            tokens.pop();
        }
        let names = names(catalog);
        for token in &mut tokens {
            match &mut token.token {
                Token::Word(word) if word.quote_style.is_none() && !names.contains(word.value.as_str()) => {
                    let lower = word.value.to_lowercase();
                    if names.contains(lower.as_str()) {
                        word.value = lower;
                    }
                }
                // The generic dialect reads a lone `?` as a placeholder; ours is the JSON operator.
                Token::Placeholder(mark) if mark == "?" => token.token = Token::Question,
                _ => {}
            }
        }
        Ok(Self { tokens })
    }

    /// Parses the text as one query, or says everything that is refused at sight.
    pub(crate) fn query(&self) -> Result<Statement, Vec<SqlError>> {
        self.not_empty("a SELECT").map_err(|e| vec![e])?;
        let refused = refuse::query(self);
        let parsed = self.parser().parse_statement().map_err(|e| self.syntax(e));
        match parsed {
            _ if !refused.is_empty() => Err(refused),
            Err(error) => Err(vec![error]),
            Ok((_, Some(rest))) => {
                let message = format!("`{}` stands behind the query; write one SELECT only", rest.token);
                Err(vec![SqlError::new("sql-syntax", message).at(span(rest.span))])
            }
            Ok((Statement::Query(mut query), None)) if is_select(&query) => {
                as_of::rewrite(&mut query).map_err(|e| vec![e.at(self.find_keyword(Keyword::SYSTEM_TIME))])?;
                let doubled = refuse::doubled_names(&query);
                if doubled.is_empty() { Ok(Statement::Query(query)) } else { Err(doubled) }
            }
            Ok((statement, None)) => {
                let first = self.tokens.first().map(|t| t.token.to_string()).unwrap_or_default();
                let what = if matches!(statement, Statement::Query(_)) { "this query".to_owned() } else { first };
                let error = SqlError::new("sql-not-a-select", format!("{what} is not a SELECT"));
                Err(vec![error.at(self.tokens.first().and_then(|t| span(t.span))).help("write one SELECT")])
            }
        }
    }

    /// Parses the text as one expression, or says everything that is refused at sight.
    pub(crate) fn expression(&self) -> Result<Expr, Vec<SqlError>> {
        self.not_empty("a condition").map_err(|e| vec![e])?;
        let refused = refuse::expression(self);
        if !refused.is_empty() {
            return Err(refused);
        }
        let mut parser = self.parser();
        let expr = parser.0.parse_expr().map_err(|e| vec![self.syntax(e)])?;
        let rest = parser.0.peek_token();
        if rest.token != Token::EOF {
            let message = format!("`{}` stands behind the expression", rest.token);
            return Err(vec![SqlError::new("sql-syntax", message).at(span(rest.span))]);
        }
        Ok(expr)
    }

    /// The place of the whole text.
    pub(crate) fn whole(&self) -> Option<Span> {
        let (first, last) = (self.tokens.first()?, self.tokens.last()?);
        Some(Span { start: span(first.span)?.start, end: span(last.span)?.end })
    }

    fn not_empty(&self, what: &str) -> Result<(), SqlError> {
        match self.tokens.is_empty() {
            true => Err(SqlError::new("sql-empty", format!("the SQL text is empty; write {what}"))),
            false => Ok(()),
        }
    }

    fn parser(&self) -> Tokens {
        let parser = Parser::new(&Sql).with_recursion_limit(DEPTH_MAX);
        Tokens(parser.with_tokens_with_locations(self.tokens.clone()))
    }

    fn syntax(&self, error: ParserError) -> SqlError {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => {
                return SqlError::new("sql-too-deep", format!("the SQL text nests deeper than {DEPTH_MAX} levels"));
            }
        };
        let (message, at) = split_location(&message);
        let end = || self.tokens.last().and_then(|t| span(t.span)).map(|s| Span { start: s.end, end: s.end });
        let at = at.map_or_else(end, |at| Some(self.token_span(at)));
        SqlError::new("sql-syntax", lower_first(message)).at(at)
    }

    /// The span of the token that starts at a place.
    fn token_span(&self, at: Location) -> Span {
        let token = self.tokens.iter().find(|t| t.span.start == at);
        token.and_then(|t| span(t.span)).unwrap_or_else(|| point(at))
    }
}

/// A parser over our tokens.
struct Tokens(Parser<'static>);

impl Tokens {
    fn parse_statement(&mut self) -> Result<(Statement, Option<TokenWithSpan>), ParserError> {
        let statement = self.0.parse_statement()?;
        let rest = self.0.peek_token();
        Ok((statement, Some(rest).filter(|t| t.token != Token::EOF)))
    }
}

fn is_select(query: &Query) -> bool {
    match query.body.as_ref() {
        SetExpr::Select(_) => true,
        SetExpr::Query(inner) => is_select(inner),
        SetExpr::SetOperation { .. } => true,
        _ => false,
    }
}

/// Every name of the catalog as written.
fn names(catalog: &Catalog) -> HashSet<&str> {
    let topics = catalog.topics.iter();
    let lookups = catalog.lookups.iter().map(|(name, lookup)| (name, &lookup.schema));
    let mut names = HashSet::new();
    for (name, schema) in topics.chain(lookups) {
        names.insert(name.as_str());
        names.extend(schema.columns().iter().map(|c| c.name.as_str()));
    }
    names
}

/// A token's span in ours; `None` for an empty one.
pub(crate) fn span(span: TokenSpan) -> Option<Span> {
    let place = |l: Location| (l.line as usize, l.column as usize);
    (span.start.line > 0).then(|| Span { start: place(span.start), end: place(span.end) })
}

fn point(at: Location) -> Span {
    let (line, column) = (at.line as usize, at.column as usize);
    Span { start: (line, column), end: (line, column + 1) }
}

/// Whether a token is this unquoted keyword.
pub(crate) fn is_keyword(token: Option<&TokenWithSpan>, keyword: Keyword) -> bool {
    token.is_some_and(|t| matches!(&t.token, Token::Word(w) if w.quote_style.is_none() && w.keyword == keyword))
}

/// Splits "… at Line: 2, Column: 5" into the message and the place.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((text, place)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (message, None) };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (text, Some(Location { line, column })),
        _ => (message, None),
    }
}

pub(crate) fn lower_first(message: &str) -> String {
    // `ORDER BY …` stays as it is.
    if message.chars().nth(1).is_some_and(char::is_uppercase) {
        return message.to_owned();
    }
    let mut chars = message.chars();
    let first = chars.next().map(|c| c.to_lowercase().collect::<String>()).unwrap_or_default();
    first + chars.as_str()
}
