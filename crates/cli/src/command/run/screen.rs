//! A few lines at the bottom of the terminal that are drawn again in place.
//!
//! Only what is drawn is touched: lines before it stay in the scrollback. Each draw is one write, marked as one update
//! for terminals that know the mark, and nothing is erased that is written again, so nothing flickers. The cursor is
//! hidden while the screen lives and comes back when it is dropped, also while a panic unwinds.

use std::io::{self, Write};

use crate::terminal::{fit, width};

/// The live part of standard error.
#[derive(Debug)]
pub(crate) struct Screen {
    /// What is drawn now.
    drawn: Vec<String>,
    /// How wide the terminal was then.
    columns: usize,
}

impl Screen {
    /// Begins below the cursor.
    pub(crate) fn new() -> Self {
        Self { drawn: Vec::new(), columns: 80 }
    }

    /// Draws these lines in place of those before.
    pub(crate) fn draw(&mut self, lines: Vec<String>) -> io::Result<()> {
        let (columns, rows) = size();
        let lines: Vec<String> = lines.into_iter().take(rows.saturating_sub(1)).map(|l| fit(&l, columns)).collect();
        self.write("", lines, columns)
    }

    /// Writes lines that stay, above the live part.
    pub(crate) fn above(&mut self, text: &str) -> io::Result<()> {
        let lines = std::mem::take(&mut self.drawn);
        let up = rows_of(&lines, self.columns, size().0);
        self.drawn = Vec::new();
        let text: String = text.lines().map(|l| format!("{l}\u{1b}[K\r\n")).collect();
        let columns = self.columns;
        let text = format!("{}{text}", move_up(up));
        self.write(&text, lines, columns)
    }

    /// Leaves the last lines where they are and gives the terminal back.
    pub(crate) fn close(self) {
        let mut err = io::stderr().lock();
        // The terminal itself has written `^C` where the cursor stands.
        drop(err.write_all(b"\r\x1b[K"));
    }

    fn write(&mut self, before: &str, lines: Vec<String>, columns: usize) -> io::Result<()> {
        let up = rows_of(&self.drawn, self.columns, columns);
        // ?2026: one update; ?25l: no cursor, which would jump; K and J erase the rest of a line and of the screen.
        let mut text = format!("\u{1b}[?2026h\u{1b}[?25l{before}{}", move_up(up));
        for line in &lines {
            text.push_str(line);
            text.push_str("\u{1b}[K\r\n");
        }
        text.push_str("\u{1b}[J\u{1b}[?2026l");
        self.drawn = lines;
        self.columns = columns;
        let mut err = io::stderr().lock();
        err.write_all(text.as_bytes())?;
        err.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut err = io::stderr().lock();
        // Where the terminal has gone there is no cursor to bring back.
        drop(err.write_all(b"\x1b[?25h").and_then(|()| err.flush()));
    }
}

fn move_up(rows: usize) -> String {
    if rows == 0 { "\r".into() } else { format!("\r\u{1b}[{rows}A") }
}

/// How many rows lines take that were drawn `before` columns wide, on a terminal that is `now` wide: a narrower one has
/// wrapped them.
fn rows_of(lines: &[String], before: usize, now: usize) -> usize {
    if now >= before {
        return lines.len();
    }
    lines.iter().map(|line| width(line).div_ceil(now.max(1)).max(1)).sum()
}

/// Columns and rows of the terminal.
pub(crate) fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrower_terminal_has_wrapped_what_was_drawn() {
        let lines = vec!["a".repeat(80), "b".into(), String::new()];
        assert_eq!(rows_of(&lines, 100, 100), 3);
        assert_eq!(rows_of(&lines, 100, 120), 3);
        assert_eq!(rows_of(&lines, 100, 40), 4);
    }
}
