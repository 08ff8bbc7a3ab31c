//! Ids such as `C00042`, fast enough for made-up events.

use arrow_array::builder::StringBuilder;

/// Appends the text of an id, e.g. `C00042`.
pub(crate) fn number(letter: u8, value: u64, width: usize, out: &mut Vec<u8>) {
    out.push(letter);
    digits(value, width, out);
}

/// Appends decimal digits, with zeros in front up to `width`.
pub(crate) fn digits(mut value: u64, width: usize, out: &mut Vec<u8>) {
    let mut text = [b'0'; 20];
    let mut used = 0;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 && used >= width {
            break;
        }
    }
    out.extend_from_slice(text.get(20 - used..).unwrap_or_default());
}

/// A column of ids with one letter and a fixed least width.
#[derive(Debug)]
pub(crate) struct Ids {
    letter: u8,
    width: usize,
    text: Vec<u8>,
    column: StringBuilder,
}

impl Ids {
    pub(crate) fn new(letter: u8, width: usize) -> Self {
        Self { letter, width, text: Vec::new(), column: StringBuilder::new() }
    }

    pub(crate) fn push(&mut self, value: u64) {
        self.text.clear();
        number(self.letter, value, self.width, &mut self.text);
        // A letter and digits are always UTF-8.
        self.column.append_value(std::str::from_utf8(&self.text).unwrap_or_default());
    }

    pub(crate) fn push_null(&mut self) {
        self.column.append_null();
    }

    pub(crate) fn finish(&mut self) -> arrow_array::StringArray {
        self.column.finish()
    }
}
