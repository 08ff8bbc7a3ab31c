//! A scanner over one JSON text: strings, numbers, words, and whole values skipped. It checks RFC 8259's grammar,
//! except that the text's UTF-8 and a string's escapes are checked elsewhere.

use super::NESTING_MAX;
use crate::decoded::{Code, Refusal};

/// The inside of a string, between its quotes.
#[derive(Clone, Copy)]
pub(crate) struct Inside<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) escaped: bool,
}

pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The bytes from the start of `text` up to the first quote, backslash or control character; eight at a time, since
/// most strings are too short for a vector search to pay ("Determine if a word has a zero byte", Bit Twiddling Hacks).
#[inline]
pub(crate) fn plain_len(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control;
        if found != 0 {
            // Only the lowest mark is sure to be right: a borrow can mark bytes above it.
            return i * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let special = |b: &u8| *b == b'"' || *b == b'\\' || *b < 0x20;
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Skips `bytes` bytes unread.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or(b"")
    }

    #[inline]
    pub(crate) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Whether only white space is left.
    pub(crate) fn at_end(&mut self) -> bool {
        self.space();
        self.peek().is_none()
    }

    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes `key`, a whole string with its quotes, if it stands here.
    #[inline]
    pub(crate) fn take_key(&mut self, key: &[u8]) -> bool {
        let found = self.rest().starts_with(key);
        if found {
            self.at += key.len();
        }
        found
    }

    /// The colon behind a key, with the space around it.
    #[inline]
    pub(crate) fn colon(&mut self) -> Result<(), Box<Refusal>> {
        self.space();
        if !self.take(b':') {
            return Err(self.syntax("`:` behind a field's name"));
        }
        self.space();
        Ok(())
    }

    /// The comma (true) or the end (false) behind a member of an object or array.
    #[inline]
    pub(crate) fn more(&mut self, end: u8) -> Result<bool, Box<Refusal>> {
        self.space();
        if self.take(b',') {
            self.space();
            return Ok(true);
        }
        if self.take(end) {
            return Ok(false);
        }
        Err(self.syntax(if end == b'}' { "`,` or `}`" } else { "`,` or `]`" }))
    }

    #[inline]
    pub(crate) fn string(&mut self) -> Result<Inside<'a>, Box<Refusal>> {
        if !self.take(b'"') {
            return Err(self.syntax("a string"));
        }
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_len(self.rest());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(_) => return Err(self.syntax("an escaped control character")),
                None => return Err(self.syntax("the end of the string")),
            }
        }
        let text = self.text.get(start..self.at).unwrap_or(b"");
        self.at += 1;
        Ok(Inside { text, escaped })
    }

    /// A number's text.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<&'a [u8], Box<Refusal>> {
        let start = self.at;
        self.take(b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.syntax("a value")),
        }
        if self.take(b'.') && self.digits_needed() {
            return Err(self.syntax("a digit"));
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if !self.take(b'-') {
                self.take(b'+');
            }
            if self.digits_needed() {
                return Err(self.syntax("a digit"));
            }
        }
        Ok(self.text.get(start..self.at).unwrap_or(b""))
    }

    #[inline]
    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes digits; true where there is none.
    #[inline]
    fn digits_needed(&mut self) -> bool {
        let start = self.at;
        self.digits();
        self.at == start
    }

    /// Takes `true`, `false` or `null`.
    #[inline]
    pub(crate) fn word(&mut self, word: &str) -> Result<(), Box<Refusal>> {
        if !self.take_key(word.as_bytes()) {
            return Err(self.syntax("a value"));
        }
        Ok(())
    }

    /// Checks and skips one value, `depth` objects and arrays deep; gives back its text.
    pub(crate) fn skip_value(&mut self, depth: usize) -> Result<&'a [u8], Box<Refusal>> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => {
                let inside = self.string()?;
                // The text is kept as it is, so a wrong escape would surface at whoever reads it later.
                if inside.escaped && super::text::unescape(inside.text, &mut Vec::new()).is_none() {
                    return Err(self.bad_escape());
                }
            }
            Some(b'{') => {
                self.deeper(depth)?;
                self.at += 1;
                self.space();
                let mut more = !self.take(b'}');
                while more {
                    self.skip_key()?;
                    self.colon()?;
                    self.skip_value(depth + 1)?;
                    more = self.more(b'}')?;
                }
            }
            Some(b'[') => {
                self.deeper(depth)?;
                self.at += 1;
                self.space();
                let mut more = !self.take(b']');
                while more {
                    self.skip_value(depth + 1)?;
                    more = self.more(b']')?;
                }
            }
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            _ => {
                self.number()?;
            }
        }
        Ok(self.text.get(start..self.at).unwrap_or(b""))
    }

    fn skip_key(&mut self) -> Result<(), Box<Refusal>> {
        let key = self.string()?;
        if key.escaped && super::text::unescape(key.text, &mut Vec::new()).is_none() {
            return Err(self.bad_escape());
        }
        Ok(())
    }

    /// An error where one more level would be too deep.
    pub(crate) fn deeper(&self, depth: usize) -> Result<(), Box<Refusal>> {
        if depth < NESTING_MAX {
            return Ok(());
        }
        let reason = format!("objects and arrays are nested more than {NESTING_MAX} deep at byte {}", self.at);
        Err(Refusal::new(Code::Nesting, reason))
    }

    #[cold]
    pub(crate) fn bad_escape(&self) -> Box<Refusal> {
        let reason = format!("not JSON: a wrong escape in the string that ends at byte {}", self.at);
        Refusal::new(Code::JsonSyntax, reason)
    }

    #[cold]
    pub(crate) fn syntax(&self, wanted: &str) -> Box<Refusal> {
        let rest = self.rest();
        let found =
            match rest.get(..4).unwrap_or(rest).utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next()) {
                Some(found) if found.is_control() => format!("U+{:04X}", u32::from(found)),
                Some(found) => format!("`{found}`"),
                None => "the end".to_owned(),
            };
        Refusal::new(Code::JsonSyntax, format!("not JSON: {wanted} is expected at byte {}, found {found}", self.at))
    }
}
