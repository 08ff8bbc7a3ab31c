//! YAML as a tree that forgets nothing: every node knows its place, scalars keep their exact text and style (so that
//! `1.10` stays `1.10`), mappings keep their order and their duplicate keys.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::source_text::{Pos, Span};
use crate::diagnostic::Diagnostic;

/// The most nodes of a file, aliases expanded.
const NODES_MAX: usize = 200_000;
/// The deepest nesting.
const DEPTH_MAX: usize = 64;

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// A scalar as written; quotes and escapes are undone.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) style: Style,
    /// Whether the text came from outside (`${env:X}`) and must not be shown.
    pub(crate) secret: bool,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Block,
}

impl Node {
    /// Whether the node is empty or says `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.is_null())
    }

    /// What kind of value this is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(s) if s.is_null() => "nothing",
            Value::Scalar(s) if s.style != Style::Plain => "a text",
            Value::Scalar(s) if s.bool().is_some() => "a boolean",
            Value::Scalar(s) if s.text.parse::<f64>().is_ok() => "a number",
            Value::Scalar(_) => "a text",
        }
    }

    fn nodes(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::List(items) => items.iter().map(Node::nodes).sum(),
            Value::Map(entries) => entries.iter().map(|(k, v)| k.nodes() + v.nodes()).sum(),
        }
    }
}

impl Scalar {
    pub(crate) fn is_null(&self) -> bool {
        self.style == Style::Plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match (self.style, self.text.as_str()) {
            (Style::Plain, "true" | "True" | "TRUE") => Some(true),
            (Style::Plain, "false" | "False" | "FALSE") => Some(false),
            _ => None,
        }
    }
}

/// An error and its place, before the file's name is known.
pub(crate) type Problem = Box<(Span, Diagnostic)>;

/// A collection that is being built.
enum Open {
    List(Vec<Node>),
    Map(Vec<(Node, Node)>, Option<Node>),
}

/// Reads the one document of a file.
pub(crate) fn parse(text: &str, file: u16) -> Result<Node, Problem> {
    let mut builder = Builder { file, stack: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None, documents: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| scan_error(&e, text, file))?;
        let pos = |m: &saphyr_parser::Marker| Pos {
            line: u32::try_from(m.line()).unwrap_or(u32::MAX),
            column: u32::try_from(m.col() + 1).unwrap_or(u32::MAX),
        };
        builder.take(event, Span { file, start: pos(&span.start), end: pos(&span.end) })?;
    }
    let start = Pos { line: 1, column: 1 };
    builder.root.ok_or_else(|| {
        Box::new((Span { file, start, end: start }, Diagnostic::error("yaml-empty", "the file has no content")))
    })
}

struct Builder {
    file: u16,
    stack: Vec<(Open, Span, usize)>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Box::new((
                        span,
                        Diagnostic::error("yaml-documents", "a pipeline file holds one YAML document"),
                    )));
                }
            }
            Event::Scalar(text, style, anchor, _tag) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted => Style::SingleQuoted,
                    ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                let value = Value::Scalar(Scalar { text: text.into_owned(), style, secret: false });
                self.finish(Node { span, value }, anchor)?;
            }
            Event::SequenceStart(anchor, _) => self.open(Open::List(Vec::new()), span, anchor)?,
            Event::MappingStart(anchor, _) => self.open(Open::Map(Vec::new(), None), span, anchor)?,
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((open, start, anchor)) = self.stack.pop() {
                    let value = match open {
                        Open::List(items) => Value::List(items),
                        Open::Map(entries, _) => Value::Map(entries),
                    };
                    self.finish(
                        Node { span: Span { file: self.file, start: start.start, end: span.end }, value },
                        anchor,
                    )?;
                }
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let node = known.ok_or_else(|| {
                    let message = "this alias names an anchor that is not complete here";
                    Box::new((span, Diagnostic::error("yaml-alias", message)))
                })?;
                self.finish(Node { span, value: node.value }, 0)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(&mut self, open: Open, span: Span, anchor: usize) -> Result<(), Problem> {
        if self.stack.len() >= DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(Box::new((span, Diagnostic::error("yaml-depth", message))));
        }
        self.stack.push((open, span, anchor));
        Ok(())
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        self.nodes += match &node.value {
            Value::Scalar(_) => 1,
            // Children were counted when they came, except behind an alias.
            _ => node.nodes(),
        };
        if self.nodes > NODES_MAX * 8 {
            let message = format!("the file has more than {NODES_MAX} values");
            return Err(Box::new((node.span, Diagnostic::error("yaml-size", message))));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some((Open::List(items), ..)) => items.push(node),
            Some((Open::Map(entries, key), ..)) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
        Ok(())
    }
}

/// The column of a tab in a line's indentation.
fn indent_tab(line: &str) -> Option<u32> {
    let at = line.chars().take_while(|c| c.is_whitespace()).position(|c| c == '\t')?;
    u32::try_from(at + 1).ok()
}

fn scan_error(error: &ScanError, text: &str, file: u16) -> Problem {
    let start = Pos {
        line: u32::try_from(error.marker().line()).unwrap_or(u32::MAX),
        column: u32::try_from(error.marker().col() + 1).unwrap_or(u32::MAX),
    };
    // The scanner stops before a line that is indented with a tab, and would blame the one above.
    let behind = text.lines().enumerate().skip(error.marker().line().saturating_sub(1));
    let tab = behind.filter(|(_, l)| !l.trim().is_empty()).take(2).find_map(|(i, l)| Some((i, indent_tab(l)?)));
    if let Some((line, column)) = tab {
        let start = Pos { line: u32::try_from(line + 1).unwrap_or(u32::MAX), column };
        let diagnostic = Diagnostic::error("yaml-syntax", "this is not YAML: this line is indented with a tab");
        return Box::new((
            Span { file, start, end: start },
            diagnostic.note("YAML is indented with spaces, never with tabs"),
        ));
    }
    let mut diagnostic = Diagnostic::error("yaml-syntax", format!("this is not YAML: {}", error.info()));
    let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
    if line.contains("struct<") {
        diagnostic = diagnostic.note("write a struct type in quotes: \"struct<a: int, b: string>\"");
    } else if line.contains('\t') {
        diagnostic = diagnostic.note("YAML is indented with spaces, never with tabs");
    } else if line.matches(": ").count() > 1 {
        diagnostic = diagnostic.note("a text with `: ` in it must stand in quotes");
    }
    Box::new((Span { file, start, end: start }, diagnostic))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = (String, (u32, u32), (u32, u32));

    fn spans(text: &str) -> Vec<Found> {
        fn walk(node: &Node, out: &mut Vec<Found>) {
            match &node.value {
                Value::Scalar(s) => out.push((
                    s.text.clone(),
                    (node.span.start.line, node.span.start.column),
                    (node.span.end.line, node.span.end.column),
                )),
                Value::List(items) => items.iter().for_each(|i| walk(i, out)),
                Value::Map(entries) => entries.iter().for_each(|(k, v)| {
                    walk(k, out);
                    walk(v, out);
                }),
            }
        }
        let mut out = Vec::new();
        walk(&parse(text, 0).unwrap(), &mut out);
        out
    }

    #[test]
    fn scalars_keep_text_place_and_order() {
        let found = spans("a: 1.10   # why\nb: {c: 'x y', d: \"z\"}\na: 2\n");
        let expect = [
            ("a", (1, 1), (1, 2)),
            ("1.10", (1, 4), (1, 8)),
            ("b", (2, 1), (2, 2)),
            ("c", (2, 5), (2, 6)),
            ("x y", (2, 8), (2, 13)),
            ("d", (2, 15), (2, 16)),
            ("z", (2, 18), (2, 21)),
            ("a", (3, 1), (3, 2)),
            ("2", (3, 4), (3, 5)),
        ];
        let expect: Vec<_> = expect.iter().map(|(t, a, b)| ((*t).to_owned(), *a, *b)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_tab_is_blamed_where_it_stands() {
        for (text, place) in [("topics:\n\tt: 1\n", (2, 1)), ("a:\n  b: 1\n  \tc: 2\n", (3, 3))] {
            let (span, diagnostic) = *parse(text, 0).unwrap_err();
            assert_eq!((span.start.line, span.start.column), place, "{text:?}: {diagnostic:?}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..20 {
            let list = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        assert_eq!(parse(&text, 0).unwrap_err().1.code, "yaml-size");
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(parse(&deep, 0).unwrap_err().1.code, "yaml-depth");
    }
}
