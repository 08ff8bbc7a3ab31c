//! Where a CSV record and its cells begin and end.

use std::ops::Range;

/// One cell of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    /// Its text in the bytes that were cut, without quotes around it.
    pub(super) place: Range<usize>,
    pub(super) quoted: bool,
    /// Whether it has doubled quotes.
    pub(super) doubled: bool,
}

/// How a record ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Before its line end (first) and behind it (second).
    At(usize, usize),
    /// Not within these bytes.
    Open,
    /// Its quotes are wrong.
    Broken,
}

/// Cuts the record that starts at `start` into cells.
pub(super) fn cut(bytes: &[u8], start: usize, delimiter: u8, last: bool, cells: &mut Vec<Cell>) -> Ending {
    cells.clear();
    let mut at = start;
    loop {
        let (cell, end) = if bytes.get(at) == Some(&b'"') {
            match quoted(bytes, at + 1) {
                Some(cell) => {
                    let end = cell.place.end + 1;
                    (cell, end)
                }
                None => return Ending::Open,
            }
        } else {
            let rest = bytes.get(at..).unwrap_or(b"");
            let len = memchr::memchr2(delimiter, b'\n', rest).unwrap_or(rest.len());
            // A CR belongs to the line end, if one follows.
            let cr = rest.get(..len).is_some_and(|text| text.ends_with(b"\r")) && rest.get(len) != Some(&delimiter);
            let end = at + len - usize::from(cr);
            (Cell { place: at..end, quoted: false, doubled: false }, end)
        };
        cells.push(cell);
        let rest = bytes.get(end..).unwrap_or(b"");
        match rest {
            [byte, ..] if *byte == delimiter => at = end + 1,
            [b'\n', ..] => return Ending::At(end, end + 1),
            [b'\r', b'\n', ..] => return Ending::At(end, end + 2),
            [] | [b'\r'] => return if last { Ending::At(end, bytes.len()) } else { Ending::Open },
            _ => return Ending::Broken,
        }
    }
}

fn quoted(bytes: &[u8], start: usize) -> Option<Cell> {
    let mut at = start;
    let mut doubled = false;
    loop {
        at += memchr::memchr(b'"', bytes.get(at..)?)?;
        if bytes.get(at + 1) != Some(&b'"') {
            return Some(Cell { place: start..at, quoted: true, doubled });
        }
        doubled = true;
        at += 2;
    }
}
