//! How far a table topic was read, as a task's position.
//!
//! A task reads one partition of its inputs, and all partitions of a lookup's topic; so their offsets are one opaque
//! position under a name of its own.
//!
//! ```text
//! u8 version | u8 length, topic | one varint for each partition: where reading goes on
//! ```

use bytes::Bytes;
use millstream_event::{Name, NameError, Offset};
use millstream_log::Position;

/// The most partitions that a lookup's topic may have: their offsets are one position of at most 3 KiB.
pub const LOOKUP_PARTITIONS_MAX: u32 = 400;

const VERSION: u8 = 1;

/// How far the partitions of a topic were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) topic: Name,
    pub(crate) next: Vec<Offset>,
}

/// The input under which a task's position in a lookup stands. No topic has this name (`__` is reserved).
pub fn lookup_input(lookup: &Name) -> Result<Name, NameError> {
    Name::new(format!("__lookup.{lookup}"))
}

impl Places {
    /// As a position.
    pub(crate) fn position(&self) -> Result<Position, String> {
        let topic = self.topic.as_str().as_bytes();
        let mut bytes = vec![VERSION, u8::try_from(topic.len()).unwrap_or(u8::MAX)];
        bytes.extend_from_slice(topic);
        for offset in &self.next {
            let mut left = offset.0;
            while left >= 0x80 {
                bytes.push(left as u8 | 0x80);
                left >>= 7;
            }
            bytes.push(left as u8);
        }
        if bytes.len() > Position::OPAQUE_BYTES_MAX {
            return Err(format!("topic `{}` has too many partitions to be a lookup ({})", self.topic, self.next.len()));
        }
        Ok(Position::Opaque(bytes.into()))
    }

    /// What a position says; `None` where it says something else.
    pub(crate) fn read(position: &Position) -> Option<Self> {
        let Position::Opaque(bytes) = position else { return None };
        let rest = bytes.strip_prefix(&[VERSION])?;
        let (length, rest) = rest.split_first()?;
        let (topic, rest) = rest.split_at_checked(usize::from(*length))?;
        let topic = Name::new(std::str::from_utf8(topic).ok()?).ok()?;
        Some(Self { topic, next: varints(Bytes::copy_from_slice(rest))? })
    }

    /// Whether nothing that `other` has read is missing.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let read = |(number, next): (usize, &Offset)| self.next.get(number).is_some_and(|here| here >= next);
        self.topic != other.topic || other.next.iter().enumerate().all(read)
    }
}

fn varints(bytes: Bytes) -> Option<Vec<Offset>> {
    let (mut all, mut value, mut shift) = (Vec::new(), 0_u64, 0_u32);
    for byte in bytes {
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        match byte & 0x80 {
            0 => {
                all.push(Offset(std::mem::take(&mut value)));
                shift = 0;
            }
            _ => shift += 7,
        }
    }
    (shift == 0).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(topic: &str, next: &[u64]) -> Places {
        Places { topic: Name::new(topic).unwrap(), next: next.iter().map(|next| Offset(*next)).collect() }
    }

    #[test]
    fn places_come_back_as_they_were() {
        for next in [&[][..], &[0], &[1, 127, 128, 300, 1 << 40, u64::MAX]] {
            let places = places("card_limits", next);
            assert_eq!(Places::read(&places.position().unwrap()), Some(places));
        }
        let most = vec![1 << 42; LOOKUP_PARTITIONS_MAX as usize];
        let longest = "t".repeat(millstream_event::NAME_BYTES_MAX);
        assert!(places(&longest, &most).position().is_ok());
        assert!(places("t", &vec![u64::MAX; 400]).position().is_err());
    }

    #[test]
    fn bytes_that_are_no_places_are_none() {
        let bytes = |bytes: &'static [u8]| Places::read(&Position::Opaque(Bytes::from_static(bytes)));
        for wrong in [&b""[..], b"\x01", b"\x02\x01a", b"\x01\x05ab", b"\x01\x01a\x80", b"\x01\x01/\x01"] {
            assert_eq!(bytes(wrong), None, "{wrong:?}");
        }
        assert_eq!(bytes(b"\x01\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), None);
        assert_eq!(Places::read(&Position::Offset(Offset(1))), None);
    }

    #[test]
    fn what_another_has_read_is_covered_by_who_has_read_as_much_of_each_partition() {
        let one = places("t", &[3, 5]);
        assert!(one.covers(&places("t", &[3, 4])) && one.covers(&places("t", &[3])));
        assert!(!one.covers(&places("t", &[4, 0])) && !one.covers(&places("t", &[0, 0, 1])));
        assert!(one.covers(&places("another", &[9, 9])));
    }
}
