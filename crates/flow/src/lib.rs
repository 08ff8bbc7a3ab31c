//! SQL to vectorized operators; pure: no files, no network, no clock.
//!
//! A query, rule or condition is planned once against the schemas it reads and then runs on batches
//! ([`arrow_array::RecordBatch`] with the columns of [`millstream_event::Schema::physical`]). An expression that fails
//! fails its row, never its batch: what a batch yields is what its rows would yield one by one.
//!
//! # The SQL
//!
//! One SELECT: projection, WHERE, CASE, casts, subqueries in FROM and CTEs that work row by row, UNNEST
//! (in SELECT and `CROSS JOIN UNNEST(t.list) AS u(x)`), inner and left joins with lookups on their whole key, all
//! deterministic scalar functions, JSON access (`->`, `->>`, `?`, `json_get…`).
//!
//! Topics are joined by an interval of their event times or by their windows (inner, left, right, full), and with a table
//! topic on its whole key, as of now or `FOR SYSTEM_TIME AS OF` the event's time (inner, left). UNION ALL merges topics.
//!
//! - Identifiers are taken as written, quoted or not. An unquoted one that names nothing as written, but does in lower
//!   case, is lowered: `CARD_ID` finds `card_id`, `cardId` finds `cardId`.
//! - `0.9` is an exact decimal; where it meets a double it becomes one. Integers and decimals never wrap: overflow,
//!   division by zero and casts that do not fit fail their event. Integer division cuts off.
//! - AND, OR, CASE and coalesce evaluate from left to right and only as far as needed: `b <> 0 AND a / b > 1` holds.
//! - `now()` and `current_date` are the event's time of ingestion; TIMESTAMP is microseconds in UTC.
//! - `f(…) OVER (PARTITION BY k ORDER BY the event time …)` answers each event from what came before it, at once or, with
//!   [`Order::EventTime`], when the watermark has passed it. Frames look back: RANGE by an interval, ROWS, or all. An event
//!   without a time has nothing in its frames and is in nobody's.
//! - A subtraction of timestamps has no column type; cast it, or use `extract` and `date_part`.
//!
//! A *fold* ([`plan_fold`]) is a state machine for each key in such expressions: cases with a condition, new values for
//! the key's state, and rows that are given out; timers by event time.
//!
//! What it is not: it knows nothing of topics' logs, of files that lookups come from, or of dead letters.
//!
//! ```
//! use millstream_event::{Column, Name, Schema};
//! use millstream_flow::{Catalog, plan_query};
//!
//! let columns = vec![Column::parse("id", "string!")?, Column::parse("amount", "decimal(12,2)!")?];
//! let mut catalog = Catalog::default();
//! catalog.topics.insert(Name::new("payments")?, Schema::new(columns)?);
//! let query = plan_query("SELECT id, amount * 2 AS twice FROM payments WHERE amount > 0.5", &catalog)
//!     .map_err(|errors| errors[0].to_string())?;
//! assert_eq!(query.schema().to_string(), "id: string!, twice: decimal(33,2)!");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod catalog;
mod error;
mod expr;
mod fold;
mod functions;
mod isolate;
mod lookup;
mod lower;
mod ops;
mod outcome;
mod predicate;
mod query;
mod routes;
mod rules;
mod sql;
mod stream;

pub use catalog::{Catalog, LookupSchema, Order, TimeColumn};
pub use error::{Span, SqlError};
pub use fold::{
    FOLD_UNMATCHED, Fold, FoldAction, FoldBlock, FoldCase, FoldError, FoldOtherwise, FoldPart, FoldPlace, FoldSpec,
    FoldTimer, Folding, plan_fold,
};
pub use lookup::{LookupError, LookupMerge, LookupSet, LookupTable, MergedLayers};
pub use outcome::{Failed, Origin, Processed, REASON_CHARS_MAX};
pub use predicate::{Predicate, plan_predicate};
pub use query::{Query, plan_query};
pub use routes::{ROUTE_UNMATCHED, RouteCase, RouteMode, RouteOtherwise, RouteTarget, Routed, Routes, plan_routes};
pub use rules::{RULES_MAX, Rules, Verdicts, plan_rules};
pub use sql::relations::relations;
pub use stream::{Broken, ChangeRows, Changes, Derived, Running, StateCell, StateLegend, StateRow, Step};
