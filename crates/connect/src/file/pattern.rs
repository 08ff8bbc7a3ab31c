//! Which files a source reads: a path or a glob.

use std::path::{Path, PathBuf};

use super::position::NAME_BYTES_MAX;
use crate::service::ConnectError;

/// The most files that one look at a pattern may find.
pub(crate) const FILES_MAX: usize = 1_000_000;

/// A path or a glob, split where its first wildcard's directory begins.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    text: String,
    /// The directory in front of all that varies.
    base: PathBuf,
    glob: bool,
}

impl Pattern {
    /// Reads a path; `*`, `?` and `[…]` make it a glob unless a file of just this name exists.
    pub(crate) fn new(text: &str) -> Result<Self, ConnectError> {
        if text.is_empty() {
            return Err(ConnectError::permanent("the path is empty"));
        }
        let wild = text.find(['*', '?', '[']).filter(|_| !Path::new(text).is_file());
        if wild.is_some() {
            glob::Pattern::new(text)
                .map_err(|e| ConnectError::permanent(format!("`{text}` is no pattern of files: {}", e.msg)))?;
        }
        let fixed = text.get(..wild.unwrap_or(text.len())).unwrap_or(text);
        let base = fixed.rfind('/').map_or(String::new(), |slash| fixed.get(..=slash).unwrap_or("").to_owned());
        Ok(Self { text: text.to_owned(), base: PathBuf::from(base), glob: wild.is_some() })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The path of a name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// The names (behind the fixed part) of all files that match now, in order.
    pub(crate) fn names(&self) -> Result<Vec<String>, ConnectError> {
        let paths: Vec<PathBuf> = if self.glob { self.matches()? } else { vec![PathBuf::from(&self.text)] };
        let mut names = Vec::new();
        for path in paths {
            if !path.is_file() {
                continue;
            }
            let name = path.strip_prefix(&self.base).unwrap_or(&path);
            let Some(name) = name.to_str().filter(|n| n.len() <= NAME_BYTES_MAX) else {
                return Err(ConnectError::permanent(format!(
                    "the name of {} is not UTF-8 or longer than {NAME_BYTES_MAX} bytes; rename the file",
                    path.display()
                )));
            };
            names.push(name.to_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn matches(&self) -> Result<Vec<PathBuf>, ConnectError> {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let paths = glob::glob_with(&self.text, options)
            .map_err(|e| ConnectError::permanent(format!("`{}` is no pattern of files: {}", self.text, e.msg)))?;
        let mut found = Vec::new();
        for path in paths {
            found.push(path.map_err(|e| super::io_error("looking into", e.path(), e.error()))?);
            if found.len() > FILES_MAX {
                return Err(ConnectError::permanent(format!(
                    "`{}` matches more than {FILES_MAX} files; narrow the pattern",
                    self.text
                )));
            }
        }
        Ok(found)
    }
}
