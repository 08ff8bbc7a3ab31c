//! Which parts of a file need not be copied again, and where the rest is cut. A pure function.

use millstream_log::backup::{ImageFile, Step};

use crate::manifest::Piece;

/// The most bytes of one object, unless one group of commits alone has more.
pub(crate) const PIECE_BYTES_MAX: u64 = 8 << 20;

/// A file as parts that are there already and parts that are not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    pub(crate) reused: Vec<Piece>,
    /// From one step to another.
    pub(crate) new: Vec<(Step, Step)>,
}

/// Covers a file with parts that are `known`, in order, as far as the log knows them again by their marks.
///
/// A new part takes in known ones before it that are no longer than itself, so that a file that grows in small steps is
/// not left in ever more small objects: their number grows with the logarithm of its length.
pub(crate) fn cover(file: &ImageFile, known: &[Piece]) -> Cover {
    let end = file.end();
    let mut reused: Vec<Piece> = Vec::new();
    let mut at = Step::default();
    for piece in known {
        let step = file.steps.binary_search_by_key(&piece.to, |step| step.to).ok();
        let step = step.and_then(|i| file.steps.get(i)).filter(|step| **step == piece.end());
        if piece.from != at.to || step.is_none() {
            break;
        }
        at = piece.end();
        reused.push(piece.clone());
    }
    if at.to < end.to {
        while let Some(last) = reused.last()
            && last.bytes() <= end.to - at.to
            && end.to - last.from <= PIECE_BYTES_MAX
        {
            reused.pop();
            at = reused.last().map(Piece::end).unwrap_or_default();
        }
    }
    Cover { new: cut(file, at), reused }
}

/// Cuts what is behind `from` into parts of at most [`PIECE_BYTES_MAX`], where steps are close enough.
fn cut(file: &ImageFile, from: Step) -> Vec<(Step, Step)> {
    let mut parts = Vec::new();
    let (mut begin, mut last) = (from, from);
    for step in file.steps.iter().filter(|step| step.to > from.to) {
        if step.to - begin.to > PIECE_BYTES_MAX && last != begin {
            parts.push((begin, last));
            begin = last;
        }
        last = *step;
    }
    if last != begin {
        parts.push((begin, last));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(ends: &[u64]) -> ImageFile {
        let steps = ends.iter().map(|to| Step { to: *to, mark: *to as u32 + 1 }).collect();
        ImageFile { path: "f".into(), steps }
    }

    fn pieces(cover: &Cover) -> Vec<Piece> {
        let new = cover.new.iter().map(|(from, to)| Piece {
            from: from.to,
            to: to.to,
            mark: to.mark,
            crc: 0,
            object: String::new(),
        });
        cover.reused.iter().cloned().chain(new).collect()
    }

    #[test]
    fn a_file_that_grows_in_small_steps_has_few_pieces_and_none_is_copied_often() {
        const STEP: u64 = 4096;
        let (mut known, mut copied, mut most) = (Vec::new(), 0, 0);
        let ends: Vec<u64> = (1..=8192).map(|n| n * STEP).collect();
        for n in 1..=ends.len() {
            let cover = cover(&file(&ends[..n]), &known);
            copied += cover.new.iter().map(|(from, to)| to.to - from.to).sum::<u64>();
            known = pieces(&cover);
            most = most.max(known.len());
            let mut at = 0;
            for piece in &known {
                assert_eq!(piece.from, at);
                at = piece.to;
            }
            assert_eq!(at, n as u64 * STEP);
        }
        assert!(most <= 4 + 12, "{most} pieces of 32 MiB");
        assert!(copied <= 12 * 8192 * STEP, "{copied} bytes copied");
    }

    #[test]
    fn what_the_log_does_not_know_again_is_copied_again() {
        let whole = pieces(&cover(&file(&[10, 20, 30]), &[]));
        assert_eq!(whole.len(), 1);
        assert_eq!(cover(&file(&[10, 20, 30]), &whole), Cover { reused: whole.clone(), new: vec![] });
        // The end was cut off and written anew.
        let mut other = file(&[10, 20, 30, 35]);
        other.steps[2].mark = 77;
        let again = cover(&other, &whole);
        assert_eq!((again.reused.len(), again.new.len()), (0, 1));
        assert_eq!(cover(&file(&[]), &whole), Cover { reused: vec![], new: vec![] });
    }

    #[test]
    fn long_files_are_cut_and_a_long_group_stays_whole() {
        let long = PIECE_BYTES_MAX + 5;
        let cover = cover(&file(&[10, 10 + long, 20 + long, 20 + 2 * long]), &[]);
        let ends: Vec<u64> = cover.new.iter().map(|(_, to)| to.to).collect();
        assert_eq!(ends, [10, 10 + long, 20 + long, 20 + 2 * long]);
    }
}
