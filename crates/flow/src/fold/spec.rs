//! A fold as it is written, and what can be wrong with it where.

use std::fmt;

use crate::error::SqlError;

/// The code of an event that no case takes, where that is a failure.
pub const FOLD_UNMATCHED: &str = "fold-unmatched";

/// A fold as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldSpec {
    /// The columns by which events belong together.
    pub key: Vec<String>,
    /// State columns by name, each as `TYPE` or `TYPE = INITIAL VALUE`; `!` behind the type: never null.
    pub state: Vec<(String, String)>,
    /// The cases; the first whose condition is true takes the event.
    pub cases: Vec<FoldCase>,
    /// What becomes of events that no case takes.
    pub otherwise: FoldOtherwise,
    /// What is done at a time that the state names.
    pub timer: Option<FoldTimer>,
}

/// One case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldCase {
    /// The condition; NULL does not match, none always does.
    pub when: Option<String>,
    /// What is done.
    pub action: FoldAction,
}

/// What is done with an event or at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldAction {
    /// State columns and their new values.
    pub set: Vec<(String, String)>,
    /// Rows that are given out: columns and their values.
    pub emit: Vec<Vec<(String, String)>>,
    /// Whether the key's state is forgotten then.
    pub forget: bool,
}

/// What becomes of events that no case takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FoldOtherwise {
    /// This.
    Do(FoldAction),
    /// They are left out and counted.
    Drop,
    /// They fail with the code [`FOLD_UNMATCHED`].
    #[default]
    DeadLetter,
}

/// What is done at a time that the state names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldTimer {
    /// The state column with the time.
    pub column: String,
    /// The cases; where none is true, nothing is done.
    pub cases: Vec<FoldCase>,
}

/// A fault of a fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldError {
    /// The text that it is in.
    pub place: FoldPlace,
    /// The fault; its span is within that text.
    pub error: SqlError,
}

/// A text of a fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoldPlace {
    /// The fold as a whole.
    Whole,
    /// A column of the key.
    Key(usize),
    /// The text of a state column.
    State(usize),
    /// The column of the timer.
    Timer,
    /// A case.
    Case(FoldBlock, usize, FoldPart),
}

/// A list of cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoldBlock {
    /// Those for events.
    Cases,
    /// What is done otherwise: one case without a condition.
    Otherwise,
    /// Those of the timer.
    Timer,
}

/// A part of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoldPart {
    /// All of it.
    Whole,
    /// The condition.
    When,
    /// The new value of a state column, by its number in `set`.
    Set(usize),
    /// A row that is given out.
    Row(usize),
    /// A column of such a row.
    Column(usize, usize),
}

impl fmt::Display for FoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.error)
    }
}

impl std::error::Error for FoldError {}

impl fmt::Display for FoldPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("fold"),
            Self::Key(i) => write!(f, "key {}", i + 1),
            Self::State(i) => write!(f, "state {}", i + 1),
            Self::Timer => f.write_str("timer"),
            Self::Case(block, case, part) => {
                match block {
                    FoldBlock::Cases => write!(f, "case {}", case + 1)?,
                    FoldBlock::Otherwise => f.write_str("otherwise")?,
                    FoldBlock::Timer => write!(f, "timer, case {}", case + 1)?,
                }
                match part {
                    FoldPart::Whole => Ok(()),
                    FoldPart::When => f.write_str(", when"),
                    FoldPart::Set(i) => write!(f, ", set {}", i + 1),
                    FoldPart::Row(row) => write!(f, ", emit {}", row + 1),
                    FoldPart::Column(row, column) => write!(f, ", emit {}, column {}", row + 1, column + 1),
                }
            }
        }
    }
}
