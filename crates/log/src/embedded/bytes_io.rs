//! Reading and writing little-endian numbers, names and positions: the alphabet of the formats in this directory.

use bytes::Bytes;
use millstream_event::{Name, Offset};

use crate::Position;

/// Bytes that are not what they should be. The text says what does not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage(pub(super) String);

pub(super) fn damage<T>(what: impl Into<String>) -> Result<T, Damage> {
    Err(Damage(what.into()))
}

/// A reader over bytes that may be damaged: nothing here panics or trusts a length.
pub(super) struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&mut self, n: usize) -> Result<&'a [u8], Damage> {
        match self.0.split_at_checked(n) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => damage("a length that points behind its end"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let taken = self.bytes(N)?;
        taken.try_into().map_err(|_| Damage("a number of the wrong size".into()))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Damage> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Damage> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, Damage> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A number of at most 10 bytes, seven bits in each, the lowest first.
    pub(super) fn var(&mut self) -> Result<u64, Damage> {
        let mut n = 0u64;
        for place in 0..10 {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                break;
            }
            n |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        damage("a number longer than any that is written")
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Damage> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Damage("a text that is not UTF-8".into()))
    }

    pub(super) fn name(&mut self) -> Result<Name, Damage> {
        let text = self.text()?;
        Name::new(text).map_err(|e| Damage(e.to_string()))
    }

    pub(super) fn position(&mut self) -> Result<Option<Position>, Damage> {
        Ok(match self.u8()? {
            0 => None,
            1 => Some(Position::Offset(Offset(self.u64()?))),
            2 => {
                let len = self.u32()? as usize;
                Some(Position::Opaque(Bytes::copy_from_slice(self.bytes(len)?)))
            }
            other => return damage(format!("a position of the unknown kind {other}")),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A writer; the counterpart of [`In`].
pub(super) trait Out {
    fn put_u8(&mut self, n: u8);
    fn put_u16(&mut self, n: u16);
    fn put_u32(&mut self, n: u32);
    fn put_u64(&mut self, n: u64);
    fn put_i64(&mut self, n: i64);
    fn put_var(&mut self, n: u64);
    fn put_text(&mut self, text: &str);
    fn put_position(&mut self, position: Option<&Position>);
}

impl Out for Vec<u8> {
    fn put_u8(&mut self, n: u8) {
        self.push(n);
    }

    fn put_u16(&mut self, n: u16) {
        self.extend_from_slice(&n.to_le_bytes());
    }

    fn put_u32(&mut self, n: u32) {
        self.extend_from_slice(&n.to_le_bytes());
    }

    fn put_u64(&mut self, n: u64) {
        self.extend_from_slice(&n.to_le_bytes());
    }

    fn put_i64(&mut self, n: i64) {
        self.extend_from_slice(&n.to_le_bytes());
    }

    fn put_var(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.push(n as u8);
    }

    fn put_text(&mut self, text: &str) {
        self.put_u32(text.len() as u32);
        self.extend_from_slice(text.as_bytes());
    }

    fn put_position(&mut self, position: Option<&Position>) {
        match position {
            None => self.put_u8(0),
            Some(Position::Offset(offset)) => {
                self.put_u8(1);
                self.put_u64(offset.0);
            }
            Some(Position::Opaque(bytes)) => {
                self.put_u8(2);
                self.put_u32(bytes.len() as u32);
                self.extend_from_slice(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_names_read_back() {
        let mut out = Vec::new();
        let opaque = Position::Opaque(Bytes::from_static(b"file 3, byte 17"));
        out.put_text("a.b");
        out.put_position(None);
        out.put_position(Some(&Position::Offset(Offset(u64::MAX))));
        out.put_position(Some(&opaque));
        let mut read = In::new(&out);
        assert_eq!(read.name().unwrap().as_str(), "a.b");
        assert_eq!(read.position().unwrap(), None);
        assert_eq!(read.position().unwrap(), Some(Position::Offset(Offset(u64::MAX))));
        assert_eq!(read.position().unwrap(), Some(opaque));
        assert!(read.is_empty());
        assert!(read.u8().is_err());
    }

    #[test]
    fn short_numbers_take_few_bytes_and_read_back() {
        for (n, len) in [(0, 1), (0x7f, 1), (0x80, 2), (1 << 40, 6), (u64::MAX, 10)] {
            let mut out = Vec::new();
            out.put_var(n);
            assert_eq!((out.len(), In::new(&out).var()), (len, Ok(n)));
        }
        assert!(In::new(&[0xff; 10]).var().is_err());
    }

    #[test]
    fn a_length_behind_the_end_is_damage() {
        let mut out = Vec::new();
        out.put_u32(u32::MAX);
        assert!(In::new(&out).text().is_err());
    }
}
