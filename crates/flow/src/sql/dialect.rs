//! Our SQL: the generic dialect as far as a SELECT goes, with JSON operators that bind like member access.
//!
//! `j ->> 'a' = 'x'` is `(j ->> 'a') = 'x'`, and `j -> 'n' * 2` is `(j -> 'n') * 2`.

use std::any::TypeId;

use datafusion_sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;

/// Between `*` and `::`.
const JSON_PRECEDENCE: u8 = 45;

/// The dialect of every SQL text in a pipeline.
#[derive(Debug)]
pub(crate) struct Sql;

const GENERIC: GenericDialect = GenericDialect {};

/// The choices of the generic dialect that matter within a SELECT.
macro_rules! as_generic {
    ($($method:ident)*) => {
        $(fn $method(&self) -> bool {
            GENERIC.$method()
        })*
    };
}

impl Dialect for Sql {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '"'
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '$'
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            Token::Arrow | Token::LongArrow | Token::Question => Some(Ok(JSON_PRECEDENCE)),
            _ => None,
        }
    }

    /// `JOIN t FOR SYSTEM_TIME AS OF s.at`.
    fn supports_table_versioning(&self) -> bool {
        true
    }

    as_generic! {
        allow_extract_custom
        allow_extract_single_quotes
        support_map_literal_syntax
        supports_array_typedef_with_brackets
        supports_bitwise_shift_operators
        supports_comma_separated_trim
        supports_dictionary_syntax
        supports_extract_comma_syntax
        supports_filter_during_aggregation
        supports_group_by_expr
        supports_left_associative_joins_without_parens
        supports_named_fn_args_with_assignment_operator
        supports_nested_comments
        supports_parens_around_table_factor
        supports_projection_trailing_commas
        supports_select_wildcard_except
        supports_select_wildcard_exclude
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_select_wildcard_replace
        supports_string_escape_constant
        supports_struct_literal
        supports_try_convert
        supports_unicode_string_literal
        supports_values_as_table_factor
        supports_window_function_null_treatment_arg
    }
}
