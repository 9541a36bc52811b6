//! JSON read strictly. serde_json's own `Value` keeps the last of two equal members without a word, and a derived
//! struct also accepts an array: both would let two readers of one token disagree.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The most members of one object, beside those that we read. Finding duplicates costs the square of it, and a header
/// is read before anybody has proved anything.
const MAX_MEMBERS: usize = 64;

/// A string, borrowed from the input unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Reads the next value of `map` into `slot`; a second one is an error.
pub(crate) fn put<'de, A, T>(slot: &mut Option<T>, map: &mut A) -> Result<(), A::Error>
where
    A: MapAccess<'de>,
    T: Deserialize<'de>,
{
    if slot.is_some() {
        return Err(A::Error::custom("duplicate member"));
    }
    *slot = Some(map.next_value()?);
    Ok(())
}

/// The names of members that are skipped, remembered to notice duplicates. Costs nothing while there are none.
#[derive(Default)]
pub(crate) struct Skipped<'a>(Vec<Cow<'a, str>>);

impl<'a> Skipped<'a> {
    /// Skips the value of `name`.
    pub(crate) fn skip<A: MapAccess<'a>>(&mut self, name: Cow<'a, str>, map: &mut A) -> Result<(), A::Error> {
        if self.0.len() == MAX_MEMBERS || self.0.contains(&name) {
            return Err(A::Error::custom("duplicate member, or too many"));
        }
        self.0.push(name);
        map.next_value::<serde::de::IgnoredAny>().map(drop)
    }
}

/// Any JSON value, with the members of objects in order and duplicates kept. For documents read rarely.
#[derive(Debug, PartialEq)]
pub(crate) enum Json {
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
    /// A number, a boolean or null: no member that we read has one.
    Other,
}

impl Json {
    /// The members of an object that has no duplicates and not too many.
    pub(crate) fn object(&self) -> Option<&[(String, Json)]> {
        let Self::Object(members) = self else { return None };
        if members.len() > MAX_MEMBERS {
            return None;
        }
        let unique =
            members.iter().enumerate().all(|(i, (name, _))| members[..i].iter().all(|(n, _)| n != name));
        unique.then_some(members)
    }

    /// The text of a string.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// The value of the member `name`.
pub(crate) fn member<'a>(members: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    members.iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}
