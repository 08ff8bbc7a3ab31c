//! What was asked of the disk, by whom and in which order: the evidence of a test that fails only now and then.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

use super::faults::Op;

/// The most lines kept; the oldest go first.
const LINES_MAX: usize = 4096;

/// What a call is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) path: &'a Path,
    /// The other name of a renaming.
    pub(super) to: Option<&'a Path>,
    pub(super) at: u64,
    pub(super) len: u64,
}

impl<'a> About<'a> {
    /// A call about a name.
    pub(super) fn name(path: &'a Path) -> Self {
        Self { path, to: None, at: 0, len: 0 }
    }
}

#[derive(Debug, Clone)]
enum What {
    Call { op: Op, path: PathBuf, to: Option<PathBuf>, at: u64, len: u64, carried: bool },
    Remark(String),
}

#[derive(Debug, Clone)]
struct Line {
    thread: String,
    what: What,
}

/// The last calls, in order, with remarks of the test between them.
#[derive(Debug, Clone, Default)]
pub struct Record {
    lines: VecDeque<Line>,
    dropped: u64,
}

impl Record {
    /// Notes a call before its outcome is known, but for whether it is carried out.
    pub(super) fn call(&mut self, op: Op, about: About<'_>, carried: bool) {
        let About { path, to, at, len } = about;
        self.add(What::Call { op, path: path.to_owned(), to: to.map(Path::to_owned), at, len, carried });
    }

    /// Notes what the test saw.
    pub(super) fn remark(&mut self, text: String) {
        self.add(What::Remark(text));
    }

    fn add(&mut self, what: What) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.dropped += 1;
        }
        let thread = std::thread::current();
        let thread = thread.name().filter(|name| name.starts_with("log-")).unwrap_or("test").to_owned();
        self.lines.push_back(Line { thread, what });
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Line { thread, what }) in (self.dropped..).zip(&self.lines) {
            match what {
                What::Call { op, path, to, at, len, carried } => {
                    write!(f, "{number:5} {thread:<12} {op:?} {}", path.display())?;
                    if let Some(to) = to {
                        write!(f, " to {}", to.display())?;
                    }
                    writeln!(f, " at {at}, {len} bytes{}", if *carried { "" } else { ", refused" })?;
                }
                What::Remark(text) => writeln!(f, "{number:5} {thread:<12} -- {text}")?,
            }
        }
        Ok(())
    }
}
