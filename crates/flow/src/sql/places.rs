//! Where in the SQL text something stands: so that an error points at the words that are meant.

use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Span, SqlError};
use crate::sql::context::is_aggregate;
use crate::sql::text::{Text, is_keyword, span};
use crate::sql::time_windows::table_functions;

impl Text {
    /// The place of the first word `name` that is followed by `(`, if `call`, or of any such word.
    pub(crate) fn find_word(&self, name: &str, call: bool) -> Option<Span> {
        let at = self.tokens.iter().enumerate().position(|(i, token)| match &token.token {
            Token::Word(word) if word.value.eq_ignore_ascii_case(name) => {
                !call || self.tokens.get(i + 1).is_some_and(|t| t.token == Token::LParen)
            }
            _ => false,
        })?;
        self.tokens.get(at).and_then(|t| span(t.span))
    }

    /// The place of the first subquery that is not in FROM or WITH.
    pub(crate) fn find_subquery(&self) -> Option<Span> {
        let at = self.tokens.windows(3).position(|three| {
            let [before, open, select] = three else { return false };
            let relation = [Keyword::FROM, Keyword::JOIN, Keyword::AS].iter().any(|k| is_keyword(Some(before), *k));
            open.token == Token::LParen && is_keyword(Some(select), Keyword::SELECT) && !relation
        })?;
        self.tokens.get(at + 2).and_then(|t| span(t.span))
    }

    /// The place of the last table or table function `name` (of any, without one) in FROM or a join.
    pub(crate) fn find_table(&self, name: Option<&str>, call: bool) -> Option<Span> {
        let at = self.tokens.iter().enumerate().rposition(|(i, token)| {
            let Token::Word(word) = &token.token else { return false };
            let before = i.checked_sub(1).and_then(|b| self.tokens.get(b));
            let listed = before.is_some_and(|t| t.token == Token::Comma)
                || [Keyword::FROM, Keyword::JOIN, Keyword::LATERAL].iter().any(|k| is_keyword(before, *k));
            let called = self.tokens.get(i + 1).is_some_and(|t| t.token == Token::LParen);
            listed && call == called && name.is_none_or(|name| word.value.eq_ignore_ascii_case(name))
        })?;
        self.tokens.get(at).and_then(|t| span(t.span))
    }

    /// The place of the first keyword of a kind.
    pub(crate) fn find_keyword(&self, keyword: Keyword) -> Option<Span> {
        self.tokens.iter().find(|t| is_keyword(Some(t), keyword)).and_then(|t| span(t.span))
    }

    /// The name and place of the last call in FROM or a join that is no table function we know.
    pub(crate) fn unknown_table_function(&self) -> Option<(&str, Option<Span>)> {
        let opens = [Keyword::FROM, Keyword::JOIN, Keyword::LATERAL];
        let unknown = |(at, token): (usize, &TokenWithSpan)| {
            let name = self.called(at)?;
            let before = at.checked_sub(1).and_then(|before| self.tokens.get(before));
            let listed = opens.iter().any(|keyword| is_keyword(before, *keyword));
            let known = table_functions().chain(["unnest"]).any(|known| name.eq_ignore_ascii_case(known));
            (listed && !known).then(|| (name, span(token.span)))
        };
        self.tokens.iter().enumerate().rev().find_map(unknown)
    }

    /// The place of the first word `name` within a window's table function.
    fn find_in_window(&self, name: &str) -> Option<Span> {
        let opens = |at: &usize| {
            let called = self.called(*at);
            called.is_some_and(|called| table_functions().any(|known| called.eq_ignore_ascii_case(known)))
        };
        let at = (0..self.tokens.len()).find(opens)?;
        let is_name =
            |token: &&TokenWithSpan| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(name));
        self.tokens.iter().skip(at + 1).find(is_name).and_then(|token| span(token.span))
    }

    /// The place of the first call of an aggregate.
    fn find_aggregate(&self) -> Option<Span> {
        let at = (0..self.tokens.len()).find(|at| self.called(*at).is_some_and(is_aggregate))?;
        self.tokens.get(at).and_then(|token| span(token.span))
    }

    /// The word at a place, if it is called.
    fn called(&self, at: usize) -> Option<&str> {
        let Token::Word(word) = &self.tokens.get(at)?.token else { return None };
        (self.tokens.get(at + 1)?.token == Token::LParen).then_some(word.value.as_str())
    }

    /// The place of what an error of lowering tells of.
    pub(crate) fn find_fault(&self, error: &SqlError) -> Option<Span> {
        let mut quoted = error.message.split('`').skip(1).step_by(2);
        match error.code {
            "sql-subquery" => self.find_subquery(),
            "sql-join-key" => self.find_table(quoted.next(), false),
            "sql-unbounded" => self.find_table(quoted.last(), false).or_else(|| self.find_keyword(Keyword::JOIN)),
            "sql-table-rows" => self.find_table(quoted.next(), false),
            "sql-join-tables" => self.find_table(quoted.last(), false),
            "sql-as-of" => self.find_keyword(Keyword::SYSTEM_TIME),
            "sql-join-condition" => self.find_keyword(Keyword::ON),
            "sql-union" => self.find_keyword(Keyword::UNION),
            "sql-join-kind" => self.find_keyword(Keyword::JOIN),
            "sql-over" => self.find_keyword(Keyword::OVER),
            "sql-window-time" => {
                let name = quoted.next()?;
                self.find_in_window(name).or_else(|| self.find_word(name, false))
            }
            "sql-updates" => self.find_update(error),
            "sql-no-topic" => self.find_keyword(Keyword::VALUES),
            _ => None,
        }
    }

    /// The place of what would change with every event.
    fn find_update(&self, error: &SqlError) -> Option<Span> {
        let (table, call) = (error.message.split('`').nth(1), error.message.split_once("()"));
        match (table, call) {
            (Some(table), _) => self.find_table(Some(table), false),
            (_, Some((call, _))) => self.find_word(call, true),
            _ if error.message.starts_with("the first rows") => {
                self.find_word("row_number", true).or_else(|| self.find_keyword(Keyword::DISTINCT))
            }
            _ => self.find_keyword(Keyword::GROUP).or_else(|| self.find_aggregate()),
        }
    }
}
