//! What a commit consumes must go on where its task was left: the rule that makes a step happen once.

use std::collections::BTreeMap;

use millstream_event::Name;

use crate::{AbortReason, Position, TaskId};

/// The positions after a commit that consumed `(input, from, to)` runs, or why it is refused; `left` is where each input
/// was left. Runs of one input follow each other.
pub(crate) fn positions_after<'a>(
    task: &TaskId,
    consumed: impl Iterator<Item = (&'a Name, Option<&'a Position>, &'a Position)>,
    left: impl Fn(&Name) -> Option<&'a Position>,
) -> Result<BTreeMap<&'a Name, &'a Position>, AbortReason> {
    let mut after: BTreeMap<&Name, &Position> = BTreeMap::new();
    for (input, from, to) in consumed {
        let have = after.get(input).copied().or_else(|| left(input));
        if have != from {
            return Err(AbortReason::Refused(format!(
                "task {task} goes on in `{input}` from {}, not from {}",
                text(have),
                text(from),
            )));
        }
        if let Position::Opaque(bytes) = to
            && bytes.len() > Position::OPAQUE_BYTES_MAX
        {
            return Err(AbortReason::Refused(format!(
                "a position has at most {} bytes, this one has {}",
                Position::OPAQUE_BYTES_MAX,
                bytes.len(),
            )));
        }
        after.insert(input, to);
    }
    Ok(after)
}

fn text(position: Option<&Position>) -> String {
    match position {
        None => "the start".to_owned(),
        Some(Position::Offset(offset)) => format!("offset {offset}"),
        Some(Position::Opaque(bytes)) => format!("a source's position of {} bytes", bytes.len()),
    }
}
