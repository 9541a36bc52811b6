//! JSON bodies, field by field: every field at fault is named at once, no value is ever repeated.
use std::fmt;

use auth_core::domain::{DisplayName, Email, Password};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::{BadBody, FieldError};

/// The members of a JSON object. Take what you know, then [`Fields::finish`]: what is left is refused.
pub struct Fields {
    members: Vec<(String, Value)>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Reads a body: UTF-8, one object, no name twice, at most 64 names.
    ///
    /// # Errors
    /// [`BadBody::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BadBody> {
        let text = std::str::from_utf8(bytes).map_err(|_| BadBody::Malformed("The body is not UTF-8."))?;
        let members = serde_json::from_str::<Members>(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                BadBody::Malformed("The body must be one JSON object without repeated names.")
            }
            _ => BadBody::Malformed("The body is not JSON."),
        })?;
        Ok(Self { members: members.0, errors: Vec::new() })
    }

    /// A new or presented e-mail address.
    pub fn email(&mut self, field: &str) -> Option<Email> {
        let raw = self.string(field)?;
        self.keep(field, Email::parse(&raw))
    }

    /// A password to set.
    pub fn new_password(&mut self, field: &str) -> Option<Password> {
        let raw = zeroize::Zeroizing::new(self.string(field)?);
        self.keep(field, Password::parse(&raw))
    }

    /// A password offered as proof.
    pub fn password(&mut self, field: &str) -> Option<Password> {
        let raw = zeroize::Zeroizing::new(self.string(field)?);
        self.keep(field, Password::presented(&raw))
    }

    /// A display name that may be left out or null.
    pub fn optional_name(&mut self, field: &str) -> Option<DisplayName> {
        match self.take(field)? {
            Value::Null => None,
            Value::String(raw) => self.keep(field, DisplayName::parse(&raw)),
            _ => self.refuse(field, "must be a string or null"),
        }
    }

    /// A display name that must be there; null clears it.
    pub fn name_or_null(&mut self, field: &str) -> Option<Option<DisplayName>> {
        match self.take(field) {
            None => self.refuse(field, "is required"),
            Some(Value::Null) => Some(None),
            Some(Value::String(raw)) => self.keep(field, DisplayName::parse(&raw)).map(Some),
            Some(_) => self.refuse(field, "must be a string or null"),
        }
    }

    /// A required string.
    pub fn string(&mut self, field: &str) -> Option<String> {
        match self.take(field) {
            None => self.refuse(field, "is required"),
            Some(Value::String(text)) => Some(text),
            Some(_) => self.refuse(field, "must be a string"),
        }
    }

    /// The parsed values, if no field was at fault and none is left over.
    ///
    /// # Errors
    /// [`BadBody::Fields`].
    pub fn finish<T>(mut self, values: Option<T>) -> Result<T, BadBody> {
        for (name, _) in &self.members {
            // The name comes from the client: shown back, but only a bounded, printable piece of it.
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            self.errors.push(FieldError { field: shown, reason: "is not a known field".to_owned() });
        }
        self.errors.truncate(32);
        match values {
            Some(values) if self.errors.is_empty() => Ok(values),
            _ => Err(BadBody::Fields(self.errors)),
        }
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        let at = self.members.iter().position(|(name, _)| name == field)?;
        Some(self.members.remove(at).1)
    }

    fn keep<T, E: fmt::Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.errors.push(FieldError::new(field, error.to_string()))).ok()
    }

    fn refuse<T>(&mut self, field: &str, reason: &str) -> Option<T> {
        self.errors.push(FieldError::new(field, reason));
        None
    }
}

/// Whether `Content-Type` says JSON, with whatever parameters.
pub fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// A JSON object in order, refusing repeated names (two readers of one document must not see two things).
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.iter().any(|(known, _)| *known == name) || members.len() >= 64 {
                        return Err(serde::de::Error::custom("repeated or too many names"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_malformed() {
        for body in
            [&b"{"[..], b"", b"[]", b"null", b"\"x\"", b"{\"email\":\"\xff\"}", br#"{"a":1,"a":2}"#, b"{} {}"]
        {
            assert!(matches!(Fields::parse(body), Err(BadBody::Malformed(_))), "{body:?}");
        }
        let many = |n| format!("{{{}}}", (0..n).map(|i| format!(r#""{i}":1"#)).collect::<Vec<_>>().join(","));
        assert!(Fields::parse(many(64).as_bytes()).is_ok());
        assert!(Fields::parse(many(65).as_bytes()).is_err());
    }

    #[test]
    fn json_by_its_essence() {
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/jsonp", false),
            ("text/json", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(is_json(&headers), json, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
