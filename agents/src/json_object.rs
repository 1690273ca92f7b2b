//! A JSON object, and no other JSON value.
//!
//! serde takes a list for a struct, too, its items for the fields in their order: then a list is
//! refused for its length at best, and taken at worst.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};

/// Reads a `T` from a JSON object, and from nothing else; `what` says in an error what it is.
#[derive(Debug)]
pub struct ObjectSeed<T> {
    what: &'static str,
    kind: PhantomData<T>,
}

impl<T> ObjectSeed<T> {
    /// A seed for what is called so: `an opcode`.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            kind: PhantomData,
        }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for ObjectSeed<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectSeed<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (a JSON object)", self.what)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Reads a `T` from bytes that are one JSON object; `what` says in an error what it is.
///
/// # Errors
/// They are none, or a field of it is missing or wrong.
pub fn from_slice<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<T, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = ObjectSeed::new(what).deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Pair {
        first: u8,
        second: u8,
    }

    #[test]
    fn a_list_is_no_object_however_its_items_are() {
        let pair: Pair = from_slice(br#"{"second": 2, "first": 1, "x": 3}"#, "a pair").unwrap();
        assert_eq!((pair.first, pair.second), (1, 2));
        for other in ["[1, 2]", "[]", "7", "\"x\"", "null"] {
            let error = from_slice::<Pair>(other.as_bytes(), "a pair").unwrap_err();
            let text = error.to_string();
            assert!(text.contains("expected a pair (a JSON object)"), "{text}");
            assert!(!text.contains("elements"), "{text}");
        }
        assert!(from_slice::<Pair>(br#"{"first": 1, "second": 2} x"#, "a pair").is_err());
    }
}
