//! SQL inside YAML or in a file of its own, and the way from a place in the SQL to the place in the file.

use super::source_text::{Pos, Span};
use super::yaml::{Scalar, Style};

/// A piece of SQL.
#[derive(Debug, Clone)]
pub struct Sql {
    /// The SQL itself.
    pub text: String,
    /// Where all of it stands (for `sql_file`: the start of the file).
    pub span: Span,
    places: Places,
}

#[derive(Debug, Clone)]
enum Places {
    /// The text is the file.
    Same,
    /// The place of each character of the text that is not a space, as `(character index, place)`.
    Characters(Vec<(u32, Pos)>),
    /// Values from outside moved the characters.
    Unknown,
}

impl Sql {
    /// The content of a file.
    pub(crate) fn file(text: String, file: u16) -> Self {
        let start = Pos { line: 1, column: 1 };
        Self { text, span: Span { file, start, end: Pos { line: 1, column: 2 } }, places: Places::Same }
    }

    /// A scalar in the file `source`.
    pub(crate) fn scalar(scalar: &Scalar, span: Span, source: &str) -> Self {
        let places = if scalar.secret { None } else { align(scalar, span, source) };
        let places = places.map_or(Places::Unknown, Places::Characters);
        Self { text: scalar.text.clone(), span, places }
    }

    /// The span in the file of a part of the SQL, given as lines and columns from 1.
    pub fn locate(&self, start: (u32, u32), end: (u32, u32)) -> Span {
        let pos = |(line, column)| Pos { line, column };
        match &self.places {
            Places::Same => Span { file: self.span.file, start: pos(start), end: pos(end) },
            Places::Unknown => self.span,
            Places::Characters(places) => {
                let (from, to) = (self.index(pos(start)), self.index(pos(end)));
                // A space has no place of its own: the next character's stands for it.
                let at = places.partition_point(|(i, _)| *i < from);
                let Some(found) = places.get(at).or(places.last()).map(|(_, p)| *p) else { return self.span };
                let last = places.get(places.partition_point(|(i, _)| *i < to).saturating_sub(1)).map(|(_, p)| *p);
                let behind = |p: Pos| Pos { column: p.column + 1, ..p };
                let end = last.filter(|l| *l >= found).map_or(behind(found), behind);
                Span { file: self.span.file, start: found, end }
            }
        }
    }

    /// The index of the character at a line and column of the text.
    fn index(&self, pos: Pos) -> u32 {
        let line = usize::try_from(pos.line).unwrap_or(1).max(1);
        let before: usize = self.text.split('\n').take(line - 1).map(|l| l.chars().count() + 1).sum();
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(pos.column.saturating_sub(1))
    }
}

/// Finds every character of the text, spaces apart, in the source. YAML folds and indents, but it never reorders, and
/// changes nothing but spaces, except by the escapes of quoted scalars.
fn align(scalar: &Scalar, span: Span, source: &str) -> Option<Vec<(u32, Pos)>> {
    let mut raw = Raw::new(source, span.start, scalar.style)?;
    let mut places = Vec::with_capacity(scalar.text.len());
    for (index, wanted) in scalar.text.chars().enumerate() {
        if wanted.is_whitespace() {
            continue;
        }
        places.push((u32::try_from(index).ok()?, raw.find(wanted)?));
    }
    Some(places)
}

/// Walks the characters of the source behind a place.
struct Raw<'s> {
    rest: std::iter::Peekable<std::str::Chars<'s>>,
    at: Pos,
    style: Style,
}

impl<'s> Raw<'s> {
    fn new(source: &'s str, start: Pos, style: Style) -> Option<Self> {
        let mut at = Pos { line: start.line, column: 1 };
        let skip = usize::try_from(start.line).ok()?.checked_sub(1)?;
        let byte: usize = source.split_inclusive('\n').take(skip).map(str::len).sum();
        let mut rest = source.get(byte..)?.chars().peekable();
        while at.column < start.column {
            rest.next()?;
            at.column += 1;
        }
        let mut raw = Self { rest, at, style };
        match style {
            Style::Plain => {}
            Style::SingleQuoted | Style::DoubleQuoted => {
                if let Some(quote) = raw.rest.next_if(|c| matches!(c, '\'' | '"')) {
                    raw.passed(quote);
                }
            }
            Style::Block => {
                // The header (`|`, `>-`, a comment) ends with its line; a span may also start behind it.
                if raw.rest.peek().is_some_and(|c| matches!(c, '|' | '>')) {
                    while raw.next().is_some_and(|c| c != '\n') {}
                }
            }
        }
        Some(raw)
    }

    fn passed(&mut self, c: char) {
        if c == '\n' {
            self.at = Pos { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.passed(c);
        Some(c)
    }

    fn find(&mut self, wanted: char) -> Option<Pos> {
        loop {
            let at = self.at;
            let c = self.next()?;
            match (self.style, c) {
                (Style::DoubleQuoted, '\\') => match self.next()? {
                    // Escapes of spaces and line ends make no character that is looked for.
                    't' | 'n' | 'r' | 'v' | 'f' | ' ' | '\t' | '\n' | '\r' | 'N' | '_' | 'L' | 'P' => {}
                    'x' => return self.skip(2).map(|()| at),
                    'u' => return self.skip(4).map(|()| at),
                    'U' => return self.skip(8).map(|()| at),
                    _ => return Some(at),
                },
                (Style::SingleQuoted, '\'') => {
                    self.next()?;
                    return Some(at);
                }
                (_, c) if c == wanted => return Some(at),
                (_, c) if c.is_whitespace() => {}
                _ => return None,
            }
        }
    }

    fn skip(&mut self, n: usize) -> Option<()> {
        (0..n).try_for_each(|_| self.next().map(|_| ()))
    }
}

impl schemars::JsonSchema for Sql {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sql".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{Node, Value, parse};
    use super::*;

    /// The part of the file that the word `oops` of the SQL is mapped to.
    fn check(yaml: &str) {
        let node = parse(yaml, 0).unwrap();
        let Value::Map(entries) = &node.value else { panic!() };
        let (_, Node { span, value: Value::Scalar(scalar) }) = &entries[0] else { panic!() };
        let sql = Sql::scalar(scalar, *span, yaml);
        let (line, text) = sql.text.split('\n').enumerate().find(|(_, l)| l.contains("oops")).unwrap();
        let column = text[..text.find("oops").unwrap()].chars().count() as u32 + 1;
        let line = line as u32 + 1;
        let found = sql.locate((line, column), (line, column + 4));
        let shown = yaml.lines().nth(found.start.line as usize - 1).unwrap();
        let shown: String = shown.chars().skip(found.start.column as usize - 1).take(4).collect();
        assert_eq!(shown, "oops", "in {yaml:?} at {found:?}");
        assert_eq!(found.end.column - found.start.column, 4, "in {yaml:?}");
    }

    #[test]
    fn every_style_of_scalar_leads_back_to_the_file() {
        check("sql: SELECT oops FROM t");
        check("sql:   SELECT a,\n   ä, oops FROM t");
        check("sql: 'SELECT ''x'' || oops FROM t'");
        check("sql: \"SELECT \\\"x\\\", \\u00e4 \\\n   || oops FROM t\"");
        check("sql: |\n  SELECT a\n    , oops\n  FROM t\n");
        check("sql: |2- # why\n    SELECT a\n\n    , oops\n    FROM t\n");
        check("sql: >\n  SELECT a\n  , b, oops\n\n  FROM t\n");
        check("sql: >-\n\n  SELECT oops\n  FROM t\n");
        check("{sql: SELECT ä oops}");
    }
}
