//! JSON access on `json` and `string` columns, with a path of keys and places (from 0):
//!
//! | function | operator | gives |
//! | --- | --- | --- |
//! | `json_get(j, path…)`, `json_get_json` | `j -> 'key'` | the value as JSON |
//! | `json_as_text(j, path…)` | `j ->> 'key'` | the value as text: a string without quotes |
//! | `json_get_str`, `_int`, `_float`, `_bool` | | the value, if it is of that kind |
//! | `json_length(j, path…)` | | how many elements or members an array or object has |
//! | `json_contains(j, path…)` | `j ? 'key'` | whether the path leads to a value |
//!
//! A path that leads nowhere, a value of another kind and a text that is no JSON give NULL (`json_contains` false):
//! access never fails. Of a key that is named twice the last value counts, as when events are decoded.

mod access;
mod operators;
mod path;

use std::sync::Arc;

use datafusion_expr::ScalarUDF;

pub(crate) use operators::Operators;

/// All JSON functions.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    access::KINDS.iter().map(|kind| Arc::new(ScalarUDF::from(access::Access::new(*kind)))).collect()
}
