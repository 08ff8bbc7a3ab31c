//! Columns under headings.

use std::borrow::Cow;

use super::Style;

/// Which side a column keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of cells under headings, as wide as they must be.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    columns: Vec<(Cow<'static, str>, Align)>,
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self::named(columns.iter().map(|(name, align)| (Cow::Borrowed(*name), *align)).collect())
    }

    /// With headings that are data.
    pub(crate) fn named(columns: Vec<(Cow<'static, str>, Align)>) -> Self {
        Self { columns, rows: Vec::new(), indent: 0 }
    }

    pub(crate) fn indent(self, indent: usize) -> Self {
        Self { indent, ..self }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, none of them with trailing spaces. Colours in cells take no width.
    pub(crate) fn lines(&self, style: Style) -> Vec<String> {
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| width(name)).collect();
        for row in &self.rows {
            for (w, cell) in widths.iter_mut().zip(row) {
                *w = (*w).max(width(cell));
            }
        }
        let line = |cells: &mut dyn Iterator<Item = String>| {
            let mut out = " ".repeat(self.indent);
            for (i, ((cell, w), (_, align))) in cells.zip(&widths).zip(&self.columns).enumerate() {
                if i > 0 {
                    out.push_str("  ");
                }
                let pad = " ".repeat(w.saturating_sub(width(&cell)));
                match align {
                    Align::Left => out.extend([cell, pad]),
                    Align::Right => out.extend([pad, cell]),
                }
            }
            out.truncate(out.trim_end().len());
            out
        };
        let mut lines = Vec::with_capacity(self.rows.len() + 1);
        lines.push(line(&mut self.columns.iter().map(|(name, _)| style.dim(name))));
        lines.extend(self.rows.iter().map(|row| line(&mut row.iter().cloned())));
        lines
    }
}

/// How many characters are seen; escape sequences are not.
pub(crate) fn width(text: &str) -> usize {
    let mut seen = 0;
    let mut escape = false;
    for c in text.chars() {
        match c {
            '\u{1b}' => escape = true,
            'a'..='z' | 'A'..='Z' if escape => escape = false,
            _ if escape => {}
            _ => seen += 1,
        }
    }
    seen
}

/// Cuts a line to so many characters seen; a cut line ends in `…` and with the colours off.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut seen = 0;
    let mut escape = false;
    for c in text.chars() {
        match c {
            '\u{1b}' => escape = true,
            'a'..='z' | 'A'..='Z' if escape => escape = false,
            _ if escape => {}
            _ if seen + 1 >= columns => break,
            _ => seen += 1,
        }
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    if text.contains('\u{1b}') {
        out.push_str("\u{1b}[0m");
    }
    out
}

/// A text on several lines, broken at its spaces, the later ones indented; at most `lines_max`, the last with what fits.
pub(crate) fn wrap(text: &str, columns: usize, lines_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let full = !line.trim().is_empty() && width(&line) + 1 + width(word) > columns;
        if full && lines.len() + 1 < lines_max {
            lines.push(std::mem::replace(&mut line, format!("  {word}")));
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.push(fit(&line, columns));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_broken_at_its_spaces_and_ends_where_there_is_no_more_room() {
        assert_eq!(wrap("a short one", 20, 3), ["a short one"]);
        assert_eq!(wrap("one two three four five", 9, 5), ["one two", "  three", "  four", "  five"]);
        assert_eq!(wrap("one two three four five", 9, 2), ["one two", "  three …"]);
        assert_eq!(wrap("unbreakable", 5, 3), ["unbr…"]);
    }

    #[test]
    fn columns_line_up_whatever_their_colours() {
        let mut table = Table::new(&[("NAME", Align::Left), ("LAG", Align::Right), ("WHY", Align::Left)]);
        table.row(vec![Style::coloured().good("a"), "1,000".into(), "".into()]);
        table.row(vec!["longer".into(), "7".into(), "x".into()]);
        let lines = table.lines(Style::plain());
        assert_eq!(lines[0], "NAME      LAG  WHY");
        assert_eq!(lines[1], "\u{1b}[32ma\u{1b}[0m       1,000");
        assert_eq!(lines[2], "longer      7  x");
    }

    #[test]
    fn a_cut_line_has_the_width_asked_for() {
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("abcdef", 6), "abcdef");
        let cut = fit("\u{1b}[1mabcdef\u{1b}[0m", 3);
        assert_eq!(width(&cut), 3);
        assert!(cut.ends_with("\u{1b}[0m"));
    }
}
