//! JSON objects in which no member stands twice, at any depth.
//!
//! Parsers disagree about `{"sub":1,"sub":2}` (RFC 8259, section 4): whoever signs and whoever checks could read two
//! different tokens. serde finds duplicates among the members that a struct names, but not among those it skips.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Not an object, a duplicate member, or not the shape that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotStrict;

/// Reads one JSON object and nothing after it. `T` decides about unknown members.
pub(super) fn parse_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, NotStrict> {
    // serde would also read a struct from an array of its values.
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(NotStrict);
    }
    serde_json::from_slice::<Unique>(json).map_err(|_| NotStrict)?;
    serde_json::from_slice(json).map_err(|_| NotStrict)
}

/// For members that may be absent but not `null`: use with `default`.
pub(super) fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Any JSON value without duplicate members; keeps nothing of it.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
        while seq.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut seen = HashSet::new();
        while let Some((name, Unique)) = map.next_entry::<String, Unique>()? {
            if !seen.insert(name) {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Shape {
        a: i64,
        #[serde(default, deserialize_with = "present")]
        b: Option<String>,
    }

    fn parse(json: &str) -> Result<Shape, NotStrict> {
        parse_object(json.as_bytes())
    }

    #[test]
    fn objects_are_read() {
        assert_eq!(
            parse(r#" {"a":1,"c":[{"d":null,"e":1.5}],"b":"x"} "#),
            Ok(Shape { a: 1, b: Some("x".into()) })
        );
        assert_eq!(parse(r#"{"a":-1}"#), Ok(Shape { a: -1, b: None }));
    }

    #[test]
    fn everything_loose_is_refused() {
        let loose = [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":1,"c":1,"c":2}"#,
            r#"{"a":1,"c":[{"d":{"e":1,"e":1}}]}"#,
            r#"{"a":1,"b":null}"#,
            r#"{"a":1.0}"#,
            r#"{"a":"1"}"#,
            r#"{"a":9223372036854775808}"#,
            r#"{"a":1}{"#,
            r#"[1,"x"]"#,
            r#"[{"a":1}]"#,
            "{\"a\":1,\"b\":\"\u{1}\"}",
            "",
            "null",
        ];
        for json in loose {
            assert_eq!(parse(json), Err(NotStrict), "{json}");
        }
        assert_eq!(parse_object::<Shape>(b"{\"a\":1,\"b\":\"\xFF\"}"), Err(NotStrict));
        let deep = format!(r#"{{"a":1,"c":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(parse(&deep), Err(NotStrict));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse_object::<Shape>(&bytes);
        }
    }
}
