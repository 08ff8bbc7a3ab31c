//! How the program ends.

use std::process::ExitCode;

/// The exit codes, as documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done as asked.
    Done = 0,
    /// Understood, but it did not work.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The pipeline is wrong (`EX_CONFIG` of sysexits).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
