//! From YAML nodes to settings, collecting every error instead of stopping at the first.
//!
//! Each reading function answers `None` after it has reported why; its caller goes on with the other keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_service::event::Name;

use super::files::Files;
use super::outside::Secrets;
use super::scalars;
use super::source_text::{SourceTexts, Span, Spanned};
use super::yaml::{Node, Scalar, Value};
use crate::diagnostic::{Diagnostic, Diagnostics, did_you_mean};

/// Keys that belong to the language but to a later version, with what to do meanwhile.
pub(crate) type Later = &'static [(&'static str, &'static str)];

/// The context of reading one configuration.
pub(crate) struct Decoder<'a> {
    pub(crate) sources: SourceTexts,
    pub(crate) found: Diagnostics,
    pub(crate) files: &'a dyn Files,
    /// The files read for `sql_file`, as written and with their text.
    pub(crate) sql_files: Vec<(String, String)>,
    /// The values that came from outside.
    pub(crate) secrets: Secrets,
}

/// A mapping whose keys were checked against what is allowed.
pub(crate) struct Fields<'n> {
    /// What the mapping describes, for messages, e.g. "service `enrich`".
    pub(crate) what: String,
    span: Span,
    entries: Vec<(&'n str, &'n Node, Span)>,
}

impl<'n> Fields<'n> {
    /// The value of a key, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, ..)| *k == key).map(|(_, node, _)| *node)
    }

    /// The place of a key.
    pub(crate) fn key_span(&self, key: &str) -> Option<Span> {
        self.entries.iter().find(|(k, ..)| *k == key).map(|(.., span)| *span)
    }

    /// The value of a key that must be there.
    pub(crate) fn need(&self, decoder: &mut Decoder<'_>, key: &str) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() {
            let message = format!("{} has no `{key}`", self.what);
            decoder.report(self.head(), Diagnostic::error("key-missing", message));
        }
        found
    }

    /// The start of the mapping, one line at most.
    pub(crate) fn head(&self) -> Span {
        self.span
    }
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(files: &'a dyn Files) -> Self {
        Self {
            sources: SourceTexts::default(),
            found: Diagnostics::default(),
            files,
            sql_files: Vec::new(),
            secrets: Secrets::default(),
        }
    }

    pub(crate) fn report(&mut self, span: Span, diagnostic: Diagnostic) {
        let place = self.sources.place(span);
        self.found.0.push(self.secrets.mask(diagnostic.at(place)));
    }

    fn wrong_type(&mut self, node: &Node, what: &str, expected: &str) {
        let message = format!("{what} must be {expected}, not {}", node.kind());
        self.report(first_line(node.span), Diagnostic::error("wrong-type", message));
    }

    fn bad_value(&mut self, node: &Node, what: &str, why: impl Into<String>) {
        self.report(node.span, Diagnostic::error("bad-value", format!("{what} is not usable")).label(why));
    }

    /// A mapping with known keys. Unknown, duplicate and later keys are reported; the known ones are given.
    pub(crate) fn fields<'n>(
        &mut self,
        node: &'n Node,
        head: Span,
        what: impl Into<String>,
        allowed: &[&str],
        later: Later,
    ) -> Option<Fields<'n>> {
        let what = what.into();
        let entries = self.entries(node, &what)?;
        let mut known = Vec::new();
        for (key, value, span) in entries {
            if allowed.contains(&key) {
                known.push((key, value, span));
            } else if let Some((_, way_out)) = later.iter().find(|(k, _)| *k == key) {
                let message = format!("`{key}` is not in this version yet");
                self.report(span, Diagnostic::error("not-yet", message).label(*way_out));
            } else {
                let message = format!("{what} has no key `{key}`");
                let label = did_you_mean(key, allowed.iter().copied());
                let note = format!("keys: {}", allowed.join(", "));
                self.report(span, Diagnostic::error("unknown-key", message).label_if(label).note(note));
            }
        }
        Some(Fields { what, span: head, entries: known })
    }

    /// All entries of a mapping with free keys; duplicates are reported and left out.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Option<Vec<(&'n str, &'n Node, Span)>> {
        let Value::Map(map) = &node.value else {
            self.wrong_type(node, what, "a mapping");
            return None;
        };
        let mut entries: Vec<(&str, &Node, Span)> = Vec::with_capacity(map.len());
        for (key, value) in map {
            let Value::Scalar(scalar) = &key.value else {
                self.wrong_type(key, &format!("a key of {what}"), "a text");
                continue;
            };
            if let Some((.., first)) = entries.iter().find(|(k, ..)| *k == scalar.text) {
                let first = self.sources.place(*first);
                let message = format!("{what} has `{}` twice", scalar.text);
                let diagnostic = Diagnostic::error("duplicate-key", message).related(first, "first here");
                self.report(key.span, diagnostic);
                continue;
            }
            entries.push((&scalar.text, value, key.span));
        }
        Some(entries)
    }

    /// The items of a list; a single value is a list of one.
    pub(crate) fn items<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            Value::Scalar(s) if !s.is_null() => Some(std::slice::from_ref(node)),
            _ => {
                self.wrong_type(node, what, "a list");
                None
            }
        }
    }

    pub(crate) fn scalar<'n>(&mut self, node: &'n Node, what: &str, expected: &str) -> Option<&'n Scalar> {
        match &node.value {
            Value::Scalar(s) if !s.is_null() => Some(s),
            _ => {
                self.wrong_type(node, what, expected);
                None
            }
        }
    }

    pub(crate) fn text(&mut self, node: &Node, what: &str) -> Option<Spanned<String>> {
        let scalar = self.scalar(node, what, "a text")?;
        Some(Spanned { value: scalar.text.clone(), span: node.span })
    }

    pub(crate) fn name(&mut self, node: &Node, what: &str) -> Option<Spanned<Name>> {
        let scalar = self.scalar(node, what, "a name")?;
        self.name_text(&scalar.text, node.span, what)
    }

    pub(crate) fn name_text(&mut self, text: &str, span: Span, what: &str) -> Option<Spanned<Name>> {
        match Name::new(text) {
            Ok(value) => Some(Spanned { value, span }),
            Err(error) => {
                let message = format!("{what} has a bad name: {error}");
                self.report(span, Diagnostic::error("bad-name", message));
                None
            }
        }
    }

    pub(crate) fn names(&mut self, node: &Node, what: &str) -> Option<Vec<Spanned<Name>>> {
        let items = self.items(node, what)?;
        let names: Vec<_> = items.iter().filter_map(|n| self.name(n, what)).collect();
        (names.len() == items.len()).then_some(names)
    }

    pub(crate) fn texts(&mut self, node: &Node, what: &str) -> Option<Vec<Spanned<String>>> {
        let items = self.items(node, what)?;
        let texts: Vec<_> = items.iter().filter_map(|n| self.text(n, what)).collect();
        (texts.len() == items.len()).then_some(texts)
    }

    pub(crate) fn integer(&mut self, node: &Node, what: &str, min: u64, max: u64) -> Option<Spanned<u64>> {
        let scalar = self.scalar(node, what, "a whole number")?;
        match scalar.text.replace('_', "").parse::<u64>() {
            Ok(value) if (min..=max).contains(&value) => Some(Spanned { value, span: node.span }),
            _ => {
                self.bad_value(node, what, format!("a whole number from {min} to {max}"));
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let found = match &node.value {
            Value::Scalar(s) => s.bool(),
            _ => None,
        };
        if found.is_none() {
            self.wrong_type(node, what, "true or false");
        }
        found
    }

    pub(crate) fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        self.parsed(node, what, "a duration such as `30s`", scalars::duration)
    }

    pub(crate) fn size(&mut self, node: &Node, what: &str) -> Option<u64> {
        self.parsed(node, what, "a size such as `64MiB`", scalars::size)
    }

    /// A scalar read by a function that says what is wrong with it. A value from outside is not repeated.
    pub(crate) fn parsed<T>(
        &mut self,
        node: &Node,
        what: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let scalar = self.scalar(node, what, expected)?;
        match read(&scalar.text) {
            Ok(value) => Some(value),
            Err(_) if scalar.secret => {
                self.bad_value(node, what, format!("must be {expected}"));
                None
            }
            Err(why) => {
                self.bad_value(node, what, why);
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, node: &Node, what: &str, choices: &[(&str, T)]) -> Option<T> {
        let scalar = self.scalar(node, what, "a word")?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == scalar.text) {
            return Some(*value);
        }
        let words: Vec<&str> = choices.iter().map(|(w, _)| *w).collect();
        let said = if scalar.secret { "this".to_owned() } else { format!("`{}`", scalar.text) };
        let message = format!("{what} cannot be {said}");
        let label = did_you_mean(&scalar.text, words.iter().copied());
        let note = format!("one of: {}", words.join(", "));
        self.report(node.span, Diagnostic::error("bad-value", message).label_if(label).note(note));
        None
    }

    /// A path, relative to the pipeline file.
    pub(crate) fn path(&mut self, node: &Node, what: &str) -> Option<Spanned<PathBuf>> {
        let text = self.text(node, what)?;
        if text.value.contains('\0') {
            self.bad_value(node, what, "a path has no NUL character");
            return None;
        }
        let path = self.files.resolve(Path::new(&text.value));
        Some(Spanned { value: path, span: text.span })
    }
}

/// The part of a span on its first line.
pub(crate) fn first_line(span: Span) -> Span {
    if span.end.line == span.start.line {
        return span;
    }
    let mut end = span.start;
    end.line += 1;
    Span { end, ..span }
}
