//! The kept events of one key, in the order in which they came: rows of fixed width behind each other, their longer texts
//! beside them.
//!
//! A row is its time, a bit for each column that is null, and the columns' values. A text of up to seven bytes stands in
//! the row; a longer one in the heap, which is as old as the rows and is let go with them. Rows have numbers that count
//! up; only the oldest are let go of. When nothing is kept the numbers begin at 0 again, so that a key that was forgotten
//! and one that was not look the same.

use crate::stream::over::summary::{Acc, Blocks, Level};

/// How the values of a column are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only whether it is null.
    Mark,
    /// A whole number of 64 bits.
    Int,
    /// One of 128 bits.
    Wide,
    /// A floating point number.
    Float,
    /// Bytes.
    Bytes,
}

impl Kind {
    fn width(self) -> usize {
        match self {
            Self::Mark => 0,
            Self::Int | Self::Float | Self::Bytes => 8,
            Self::Wide => 16,
        }
    }
}

/// Where what stands in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) kinds: Vec<Kind>,
    places: Vec<usize>,
    pub(crate) width: usize,
}

const TIME_BYTES: usize = 8;

impl Layout {
    /// Rows with columns of these kinds.
    pub(crate) fn new(kinds: Vec<Kind>) -> Self {
        let mut width = TIME_BYTES + kinds.len().div_ceil(8);
        let mut places = Vec::with_capacity(kinds.len());
        for kind in &kinds {
            places.push(width);
            width += kind.width();
        }
        Self { kinds, places, width }
    }

    fn place(&self, column: usize) -> usize {
        self.places.get(column).copied().unwrap_or(0)
    }
}

/// The longest text that stands in the row itself.
const INLINE_BYTES_MAX: usize = 7;
/// The last byte of a slot whose text is in the heap.
const IN_HEAP: u8 = 0xff;
/// The longest text that is kept; a longer one is cut.
const TEXT_BYTES_MAX: usize = (1 << 24) - 1;

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

/// One row of a history.
#[derive(Clone, Copy)]
pub(crate) struct Row<'h> {
    bytes: &'h [u8],
    heap: &'h [u8],
    heap_base: u32,
    layout: &'h Layout,
}

impl<'h> Row<'h> {
    pub(crate) fn time(&self) -> i64 {
        i64::from_le_bytes(array(self.bytes, 0))
    }

    pub(crate) fn is_null(&self, column: usize) -> bool {
        self.bytes.get(TIME_BYTES + column / 8).is_some_and(|byte| byte >> (column % 8) & 1 == 1)
    }

    pub(crate) fn int(&self, column: usize) -> i64 {
        i64::from_le_bytes(array(self.bytes, self.layout.place(column)))
    }

    pub(crate) fn wide(&self, column: usize) -> i128 {
        match self.layout.kinds.get(column) {
            Some(Kind::Wide) => i128::from_le_bytes(array(self.bytes, self.layout.place(column))),
            _ => i128::from(self.int(column)),
        }
    }

    pub(crate) fn float(&self, column: usize) -> f64 {
        f64::from_bits(self.int(column) as u64)
    }

    /// The slot of a text, if the text is in it: equal texts have equal slots then.
    pub(crate) fn short(&self, column: usize) -> Option<u64> {
        let slot: [u8; 8] = array(self.bytes, self.layout.place(column));
        let [.., last] = slot;
        (last != IN_HEAP).then_some(u64::from_le_bytes(slot))
    }

    pub(crate) fn bytes(&self, column: usize) -> &'h [u8] {
        let place = self.layout.place(column);
        let slot: [u8; 8] = array(self.bytes, place);
        let [.., last] = slot;
        if last != IN_HEAP {
            return self.bytes.get(place..place + usize::from(last)).unwrap_or_default();
        }
        let (start, length) = heap_slot(slot);
        let start = start.wrapping_sub(self.heap_base) as usize;
        self.heap.get(start..start + length).unwrap_or_default()
    }

    /// The value as bytes, for a state of its own.
    pub(crate) fn raw(&self, column: usize) -> &'h [u8] {
        match self.layout.kinds.get(column) {
            Some(Kind::Bytes) => self.bytes(column),
            Some(kind) => {
                let place = self.layout.place(column);
                self.bytes.get(place..place + kind.width()).unwrap_or_default()
            }
            None => &[],
        }
    }

    /// The row on its own: its bytes with places in a heap that begins at 0, then that heap.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.bytes);
        let mut end = 0_u32;
        for (column, _) in self.layout.kinds.iter().enumerate().filter(|(_, kind)| **kind == Kind::Bytes) {
            let place = self.layout.place(column);
            if self.is_null(column) || self.short(column).is_some() {
                continue;
            }
            let text = self.bytes(column);
            if let Some(slot) = out.get_mut(place..place + 8) {
                slot.copy_from_slice(&slot_of(end, text.len()));
            }
            out.extend_from_slice(text);
            end = end.wrapping_add(text.len() as u32);
        }
    }
}

fn slot_of(start: u32, length: usize) -> [u8; 8] {
    ((u64::from(IN_HEAP) << 56) | ((length as u64) << 32) | u64::from(start)).to_le_bytes()
}

fn heap_slot(slot: [u8; 8]) -> (u32, usize) {
    let slot = u64::from_le_bytes(slot);
    (slot as u32, (slot >> 32) as usize & TEXT_BYTES_MAX)
}

/// The kept rows of a key.
#[derive(Debug, Default)]
pub(crate) struct History {
    fixed: Vec<u8>,
    /// How many rows at the front of `fixed` were let go of.
    gone: u32,
    /// The number of the first row that is kept.
    first: u64,
    heap: Vec<u8>,
    heap_gone: u32,
    /// The place that the front of `heap` has in slots.
    heap_base: u32,
    blocks: Blocks,
    /// The greatest time of the rows that are kept, and of those that a later row has met.
    newest: Option<i64>,
}

impl History {
    /// The numbers of the rows that are kept.
    pub(crate) fn range(&self, layout: &Layout) -> std::ops::Range<u64> {
        self.first..self.first + self.len(layout) as u64
    }

    pub(crate) fn len(&self, layout: &Layout) -> usize {
        self.fixed.len() / layout.width - self.gone as usize
    }

    /// The greatest time so far.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.newest
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The last byte of its rows, if there is one.
    pub(crate) fn last_byte(&self) -> u8 {
        self.fixed.last().copied().unwrap_or_default()
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.fixed.capacity() + self.heap.capacity() + self.blocks.bytes()
    }

    /// The row with a number; an empty one where it is not kept.
    pub(crate) fn row<'h>(&'h self, layout: &'h Layout, number: u64) -> Row<'h> {
        let at = (number.wrapping_sub(self.first)) as usize + self.gone as usize;
        let bytes = self.fixed.get(at * layout.width..(at + 1) * layout.width).unwrap_or_default();
        let heap = self.heap.get(self.heap_gone as usize..).unwrap_or_default();
        Row { bytes, heap, heap_base: self.heap_base.wrapping_add(self.heap_gone), layout }
    }

    /// Adds a row: its bytes of the fixed width, and for each text column that is not null its bytes.
    pub(crate) fn append<'b>(&mut self, layout: &Layout, row: &[u8], text: impl Fn(usize) -> Option<&'b [u8]>) {
        let at = self.fixed.len();
        reserve(&mut self.fixed, layout.width, layout.width * 4);
        self.fixed.extend_from_slice(row);
        self.fixed.resize(at + layout.width, 0);
        for (column, _) in layout.kinds.iter().enumerate().filter(|(_, kind)| **kind == Kind::Bytes) {
            let Some(text) = text(column) else { continue };
            let text = text.get(..text.len().min(TEXT_BYTES_MAX)).unwrap_or_default();
            let mut slot = [0; 8];
            if text.len() <= INLINE_BYTES_MAX {
                slot.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
                slot = (u64::from_le_bytes(slot) | (text.len() as u64) << 56).to_le_bytes();
            } else {
                slot = slot_of(self.heap_base.wrapping_add(self.heap.len() as u32), text.len());
                reserve(&mut self.heap, text.len(), 64);
                self.heap.extend_from_slice(text);
            }
            let place = at + layout.place(column);
            if let Some(to) = self.fixed.get_mut(place..place + 8) {
                to.copy_from_slice(&slot);
            }
        }
        let time = i64::from_le_bytes(array(row, 0));
        self.newest = Some(self.newest.map_or(time, |newest| newest.max(time)));
    }

    /// Adds a row that [`Row::write`] wrote; whether it is one.
    pub(crate) fn append_written(&mut self, layout: &Layout, written: &[u8]) -> bool {
        let Some((row, heap)) = written.split_at_checked(layout.width) else { return false };
        let whole = Row { bytes: row, heap, heap_base: 0, layout };
        self.append(layout, row, |column| (!whole.is_null(column)).then(|| whole.bytes(column)));
        true
    }

    /// Summarises blocks of rows that are whole now; `fold` adds up the rows of a range, `merge` the blocks of a level.
    pub(crate) fn summarise(
        &mut self,
        layout: &Layout,
        fold: impl Fn(&Self, std::ops::Range<u64>, &mut Vec<Acc>) -> (i64, i64),
        merge: impl Fn(&Self, Level, std::ops::Range<u64>, &mut Vec<Acc>) -> (i64, i64),
    ) {
        let end = self.range(layout).end;
        if !end.is_multiple_of(Level::SPAN) {
            return;
        }
        let mut blocks = std::mem::take(&mut self.blocks);
        let start = end - Level::SPAN;
        if start >= self.first {
            let mut accs = Vec::new();
            let times = fold(self, start..end, &mut accs);
            blocks.push(Level::Rows64, start, times, accs);
        }
        self.blocks = blocks;
        let wide = Level::Rows4096.rows();
        if end.is_multiple_of(wide) && self.blocks.start(Level::Rows64).is_some_and(|from| from + wide <= end) {
            let mut accs = Vec::new();
            let times = merge(self, Level::Rows64, end - wide..end, &mut accs);
            self.blocks.push(Level::Rows4096, end - wide, times, accs);
        }
    }

    /// Begins behind a row of this number: for what is restored.
    pub(crate) fn begin(&mut self, number: u64) {
        self.first = number;
    }

    /// Lets go of the rows before a number.
    pub(crate) fn forget(&mut self, layout: &Layout, before: u64) {
        let kept = self.range(layout);
        if before <= kept.start {
            return;
        }
        if before >= kept.end {
            *self = Self::default();
            return;
        }
        for number in kept.start..before {
            let row = self.row(layout, number);
            let texts = layout.kinds.iter().enumerate().filter(|(_, kind)| **kind == Kind::Bytes);
            let own = texts.filter(|(column, _)| !row.is_null(*column) && row.short(*column).is_none());
            let own: usize = own.map(|(column, _)| row.bytes(column).len()).sum();
            self.heap_gone += own as u32;
            self.gone += 1;
            self.first += 1;
        }
        self.blocks.forget(self.first);
        let front = self.gone as usize * layout.width;
        if front * 2 >= self.fixed.len() {
            self.fixed.drain(..front);
            self.gone = 0;
            shrink(&mut self.fixed);
        }
        if self.heap_gone as usize * 2 >= self.heap.len() && self.heap_gone > 0 {
            self.heap.drain(..self.heap_gone as usize);
            self.heap_base = self.heap_base.wrapping_add(self.heap_gone);
            self.heap_gone = 0;
            shrink(&mut self.heap);
        }
    }
}

/// Room for more, a quarter at a time: there are many histories, and most are short.
fn reserve(bytes: &mut Vec<u8>, more: usize, least: usize) {
    if bytes.capacity() - bytes.len() < more {
        bytes.reserve_exact(more.max(least).max(bytes.len() / 4));
    }
}

/// Gives memory back where most of it is free.
fn shrink(bytes: &mut Vec<u8>) {
    const WORTH_BYTES: usize = 4096;
    if bytes.capacity() > WORTH_BYTES && bytes.len() * 4 < bytes.capacity() {
        bytes.shrink_to(bytes.len() * 2);
    }
}
