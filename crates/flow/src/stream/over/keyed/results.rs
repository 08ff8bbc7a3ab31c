//! The answers.

use crate::stream::over::columns::Results;
use crate::stream::over::function::{Frame, Part, Value, What, at, distinct, fold, result, select};
use crate::stream::over::keyed::{Keyed, Scratch, Use};

impl Keyed {
    /// The results for one row.
    pub(super) fn results(
        &mut self,
        slot: u32,
        number: u64,
        time: i64,
        results: &mut [Results],
        scratch: &mut Scratch,
    ) {
        let Self { entries, layout, functions, uses, frames, keep, .. } = self;
        let Some(entry) = entries.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        let of = (&entry.history, &*layout);
        let kept = entry.history.range(layout);
        let horizon = keep.horizon(entry.history.newest().unwrap_or(time));
        for (frame, parts) in frames.iter().zip(&mut scratch.parts) {
            match *frame {
                Frame::Rows { from, to } => {
                    let start = number.saturating_sub(from).max(kept.start);
                    let end = (number + 1).saturating_sub(to).max(start);
                    select(of, start..end, None, parts);
                }
                // What else happened then may be forgotten; the row itself is there.
                Frame::Range { to: 0, .. } if time < horizon => select(of, number..number + 1, None, parts),
                Frame::Range { from, to } => {
                    let least = time.saturating_sub(from).max(horizon);
                    select(of, kept.clone(), Some((least, time.saturating_sub(to))), parts);
                }
                Frame::Running { .. } => {}
            }
        }
        for ((function, used), out) in functions.iter().zip(uses.iter()).zip(results) {
            let column = function.column.unwrap_or(0);
            match (*used, &function.what) {
                (Use::Held(place), _) => {
                    let Some(held) = entry.held.get_mut(place) else { continue };
                    match function.frame {
                        Frame::Running { peers: false, before } => {
                            if before {
                                out.push(held.value(function, of));
                            }
                            held.add(function, of, number);
                            if !before {
                                out.push(held.value(function, of));
                            }
                        }
                        _ => out.push(held.value(function, of)),
                    }
                }
                (Use::History, What::Lag { offset, default }) => {
                    let found = number.checked_sub(*offset).filter(|number| kept.contains(number));
                    out.push(found.map_or_else(|| default.get(), |number| at(of, number, column)));
                }
                (Use::History, _) => {
                    let peers = matches!(function.frame, Frame::Running { peers: true, .. });
                    let last = if peers { kept.end.saturating_sub(1) } else { number };
                    out.push(at(of, last, column));
                }
                (Use::Frame(frame, place), what) => {
                    let parts = scratch.parts.get(frame).map_or(&[][..], Vec::as_slice);
                    out.push(match what {
                        What::Distinct => Value::Int(distinct(of, column, parts, &mut scratch.distinct) as i64),
                        What::Nth(nth) => nth_of(parts, *nth).map_or(Value::Null, |number| at(of, number, column)),
                        What::Last => {
                            let last = parts.last().map(|part| part.rows().end - 1);
                            last.map_or(Value::Null, |number| at(of, number, column))
                        }
                        _ => result(of, function, &fold(of, function, place, parts)),
                    });
                }
            }
        }
    }

    /// The results over nothing.
    pub(super) fn answer_without_time(&self, results: &mut [Results]) {
        for (function, out) in self.functions.iter().zip(results) {
            out.push(match &function.what {
                What::Count | What::Distinct => Value::Int(0),
                What::Lag { default, .. } => default.get(),
                _ => Value::Null,
            });
        }
    }
}

fn nth_of(parts: &[Part], nth: u64) -> Option<u64> {
    let mut before = 0;
    for rows in parts.iter().map(Part::rows) {
        let length = rows.end - rows.start;
        if nth < before + length {
            return Some(rows.start + nth - before);
        }
        before += length;
    }
    None
}
