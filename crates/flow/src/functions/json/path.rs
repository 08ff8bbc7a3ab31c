//! Walks a path through JSON text without building a tree.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One step of a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    /// A member of an object.
    Key(&'a str),
    /// An element of an array, from 0.
    Place(usize),
}

/// The text of the value that the path leads to.
pub(super) fn walk<'j>(json: &'j str, path: &[Step<'_>]) -> Option<&'j str> {
    let mut at = json.trim();
    for step in path {
        let mut parser = serde_json::Deserializer::from_str(at);
        at = Find(*step).deserialize(&mut parser).ok()??.get();
    }
    if !path.is_empty() {
        return Some(at);
    }
    // Without a path nothing was parsed yet: the text must be JSON as a whole.
    serde_json::from_str::<IgnoredAny>(at).is_ok().then_some(at)
}

/// How many members or elements the value has, if it is an object or array.
pub(super) fn length(json: &str) -> Option<i64> {
    let mut parser = serde_json::Deserializer::from_str(json);
    parser.deserialize_any(Count).ok().flatten()
}

/// Finds one member or element.
struct Find<'a>(Step<'a>);

type Found<'j> = Option<&'j RawValue>;

impl<'j> DeserializeSeed<'j> for Find<'_> {
    type Value = Found<'j>;

    fn deserialize<D: Deserializer<'j>>(self, from: D) -> Result<Found<'j>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for Find<'_> {
    type Value = Found<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or array")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Found<'j>, A::Error> {
        let mut found = None;
        while let Some(hit) = map.next_key_seed(IsKey(self.0))? {
            if hit { found = Some(map.next_value()?) } else { map.next_value::<IgnoredAny>().map(drop)? }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<Found<'j>, A::Error> {
        let mut found = None;
        let mut place = 0;
        loop {
            let hit = matches!(self.0, Step::Place(wanted) if wanted == place);
            if hit {
                found = seq.next_element()?;
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            if hit && found.is_none() {
                return Ok(None);
            }
            place += 1;
        }
    }
}

/// Compares a key without keeping it.
struct IsKey<'a>(Step<'a>);

impl<'j> DeserializeSeed<'j> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'j>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(matches!(self.0, Step::Key(wanted) if wanted == key))
    }
}

struct Count;

impl<'j> Visitor<'j> for Count {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or array")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Option<i64>, A::Error> {
        let mut count = 0;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Some(count))
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<Option<i64>, A::Error> {
        let mut count = 0;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Some(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_through_objects_and_arrays_and_never_fails() {
        let json = r#" {"a": [1, {"b": "x\"y", "n": null}], "t": 1, "t": 2} "#;
        assert_eq!(walk(json, &[Step::Key("a"), Step::Place(1), Step::Key("b")]), Some(r#""x\"y""#));
        assert_eq!(walk(json, &[Step::Key("t")]), Some("2"));
        assert_eq!(walk(json, &[Step::Key("a"), Step::Place(1), Step::Key("n")]), Some("null"));
        for nowhere in [Step::Key("z"), Step::Place(0)] {
            assert_eq!(walk(json, &[nowhere]), None);
        }
        assert_eq!(walk(json, &[Step::Key("a"), Step::Place(9)]), None);
        assert_eq!(walk("{\"a\": 1", &[Step::Key("a")]), None);
        assert_eq!(walk("nonsense", &[]), None);
        assert_eq!(length("[1, [2, 3]]"), Some(2));
        assert_eq!(length("{}"), Some(0));
        assert_eq!(length("7"), None);
    }
}
