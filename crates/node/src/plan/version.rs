//! Definitions as lists of lines, and their hashes: what decides whether a part has changed.

use std::collections::BTreeMap;

/// A part's definition: each line's path and text, e.g. `check.positive` and `amount > 0`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition(pub BTreeMap<String, String>);

impl Definition {
    pub(crate) fn set(&mut self, path: impl Into<String>, text: impl ToString) {
        self.0.insert(path.into(), text.to_string());
    }

    /// A short hash of all lines.
    pub fn version(&self) -> String {
        let mut hash = Fnv::new();
        for (path, text) in &self.0 {
            hash.add(path.as_bytes());
            hash.add(text.as_bytes());
        }
        format!("{:012x}", hash.0 >> 16)
    }

    /// What differs, one line each.
    pub fn differences(&self, new: &Self) -> Vec<String> {
        let paths: std::collections::BTreeSet<&String> = self.0.keys().chain(new.0.keys()).collect();
        let text = |d: &Self, path: &String| d.0.get(path).map(|t| short(t));
        let line = |path: &String| match (text(self, path), text(new, path)) {
            (Some(a), Some(b)) if self.0.get(path) != new.0.get(path) => Some(format!("{path}: {a} -> {b}")),
            (Some(a), None) => Some(format!("{path}: {a} -> (none)")),
            (None, Some(b)) => Some(format!("{path}: (none) -> {b}")),
            _ => None,
        };
        paths.into_iter().filter_map(line).collect()
    }
}

fn short(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line,
    }
}

/// FNV-1a with 64 bits, each text preceded by its length.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
