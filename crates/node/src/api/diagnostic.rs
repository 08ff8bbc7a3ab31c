//! What is wrong with a pipeline, and where.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The pipeline cannot run.
    Error,
    /// It runs, but probably not as meant.
    Warning,
}

/// A place in a file. Lines and columns count from 1; a column is a character, not a byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file as the user would name it.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The first column.
    pub column: usize,
    /// The column after the last, on the same line.
    pub column_end: usize,
    /// The text of the line, so that it can be shown without the file.
    pub text: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable, for programs and for looking it up.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// Where; absent when it is about no line (a file that cannot be read).
    #[serde(default)]
    pub place: Option<Place>,
    /// What to do, or what may have been meant.
    #[serde(default)]
    pub help: Option<String>,
}

/// All that is wrong, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// Errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
}
