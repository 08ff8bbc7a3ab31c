//! The files a configuration was read from, and places in them.

use std::sync::Arc;

use crate::diagnostic::Place;

/// A place between two characters: line and column from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

/// A part of one of the files of [`SourceTexts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which file.
    pub file: u16,
    /// Its first character.
    pub start: Pos,
    /// Behind its last character.
    pub end: Pos,
}

/// A file as read.
#[derive(Debug)]
pub struct SourceText {
    /// How the file is named to the user.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// All files of one configuration; number 0 is the pipeline file.
#[derive(Debug, Clone, Default)]
pub struct SourceTexts(Vec<Arc<SourceText>>);

impl SourceTexts {
    /// Adds a file and gives its number.
    pub(crate) fn add(&mut self, name: String, text: String) -> u16 {
        self.0.push(Arc::new(SourceText { name, text }));
        u16::try_from(self.0.len() - 1).unwrap_or(u16::MAX)
    }

    /// All files.
    pub fn iter(&self) -> impl Iterator<Item = &SourceText> {
        self.0.iter().map(|f| &**f)
    }

    /// One file.
    pub(crate) fn get(&self, file: u16) -> Option<&SourceText> {
        self.0.get(usize::from(file)).map(|f| &**f)
    }

    /// The place of a span, for a diagnostic. A span over several lines is shown on its first one.
    pub fn place(&self, span: Span) -> Place {
        let file = self.get(span.file);
        let line = usize::try_from(span.start.line).unwrap_or(1).max(1);
        let text = file.and_then(|f| f.text.lines().nth(line - 1)).unwrap_or_default().to_owned();
        let rest = u32::try_from(text.trim_end().chars().count()).unwrap_or(u32::MAX) + 1;
        let end = if span.end.line == span.start.line { span.end.column } else { rest };
        Place {
            file: file.map(|f| f.name.clone()).unwrap_or_default(),
            line: span.start.line,
            column: span.start.column,
            width: end.saturating_sub(span.start.column).max(1),
            text,
        }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub span: Span,
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Spanned<T> {
    /// The same place, another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: f(self.value), span: self.span }
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for Spanned<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}
