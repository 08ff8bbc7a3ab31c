//! Folds: keyed state machines in SQL expressions.

use schemars::JsonSchema;

use super::super::source_text::{Span, Spanned};
use super::super::sql_text::Sql;

/// Names with an expression for each, in the file's order.
pub type NamedSql = Vec<(Spanned<String>, Sql)>;

/// A state machine for each key: columns that are kept, and what an event does with them.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FoldSettings {
    /// The columns by which events belong together.
    #[schemars(with = "Vec<String>")]
    pub key: Vec<Spanned<String>>,
    /// What is kept for each key, by name: a type, and after `=` an initial value, as in `bigint! = 0`.
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub state: NamedSql,
    /// The cases; the first whose `when` is true takes the event.
    pub cases: Vec<FoldCaseSettings>,
    /// What becomes of events that no case takes: `drop`, `dead_letter`, or `set` and `emit` as in a case.
    pub otherwise: FoldOtherwiseSettings,
    /// What is done at a time that the state names.
    pub timer: Option<FoldTimerSettings>,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

/// One case of a fold.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FoldCaseSettings {
    /// The condition over the event's columns and `state.…`; none is always true.
    pub when: Option<Sql>,
    /// What is done.
    #[schemars(flatten)]
    pub action: FoldActionSettings,
}

/// What a fold does with an event.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FoldActionSettings {
    /// State columns and their new values; `state.…` is the value before.
    #[schemars(with = "std::collections::BTreeMap<String, String>", default)]
    pub set: NamedSql,
    /// A row that is given out, or a list of them: columns and their values; `state.…` is the value after `set`.
    #[schemars(with = "FoldEmit", default)]
    pub emit: Vec<Spanned<NamedSql>>,
    /// Whether the key's state is forgotten then.
    #[schemars(default)]
    pub forget: bool,
    /// All of it.
    #[schemars(skip)]
    pub span: Span,
}

/// A row or several, as they are written.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "it is the form in the JSON Schema only")]
enum FoldEmit {
    Row(std::collections::BTreeMap<String, String>),
    Rows(Vec<std::collections::BTreeMap<String, String>>),
}

/// What becomes of events that no case of a fold takes.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum FoldOtherwiseSettings {
    /// They are left out and counted.
    Drop,
    /// They become dead letters.
    DeadLetter,
    /// This.
    #[schemars(untagged)]
    Do(FoldActionSettings),
}

/// What a fold does at a time that its state names.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FoldTimerSettings {
    /// The state column with the time, a `timestamp`.
    #[schemars(with = "String")]
    pub at: Spanned<String>,
    /// The cases, which see the key's columns and the state.
    pub cases: Vec<FoldCaseSettings>,
}
