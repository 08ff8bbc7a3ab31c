//! Names of topics, services, sources, sinks and lookups.
//!
//! A name becomes a directory, a metric label, a Kafka topic and a SQL identifier, so one narrow alphabet serves all:
//! ASCII letters, digits, `_`, `-` and `.`, not starting with `.` or `-`, at most [`NAME_BYTES_MAX`] bytes. `../x` is
//! therefore not a name.

use std::fmt;
use std::sync::Arc;

/// The longest name accepted, in bytes (Kafka allows 249 for prefix and topic together).
pub const NAME_BYTES_MAX: usize = 120;

/// A checked name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// The text has a character outside the alphabet, or starts with `.` or `-`.
    #[error("`{text}` is not a name: use letters, digits, `_`, `-` and `.`, and start with a letter, a digit or `_`")]
    Character {
        /// The refused text.
        text: String,
    },
}

impl Name {
    /// Checks `text` and makes a name of it.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.';
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !first || !text.bytes().all(inner) {
            return Err(NameError::Character { text: text.chars().take(60).collect() });
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_not_a_name() {
        for bad in ["", "../x", "a/b", ".hidden", "-flag", "ä", "a b", "a\0"] {
            assert!(Name::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["validate.dlq", "a", "A-1_b", "_x"] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        assert!(Name::new("x".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(Name::new("x".repeat(NAME_BYTES_MAX + 1)).is_err());
    }
}
