//! JSON bodies, field by field: every field at fault is named at once, no value is ever repeated.
use std::fmt;

use auth_core::domain::{DisplayName, Email, Password};
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use http_body_util::BodyExt;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::app::App;
use crate::problem::{FieldError, Problem};

/// The members of a JSON object. Take what you know, then [`Fields::finish`]: what is left is refused.
pub struct Fields {
    members: Vec<(String, Value)>,
    errors: Vec<FieldError>,
}

impl FromRequest<App> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if !is_json(&request) {
            return Err(Problem::UnsupportedMediaType);
        }
        let bytes = read(request.into_body(), app.body_max_bytes).await?;
        Self::parse(&bytes)
    }
}

impl Fields {
    fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(bytes).map_err(|_| Problem::Malformed("The body is not UTF-8."))?;
        let members = serde_json::from_str::<Members>(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                Problem::Malformed("The body must be one JSON object without repeated names.")
            }
            _ => Problem::Malformed("The body is not JSON."),
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
    pub fn finish<T>(mut self, values: Option<T>) -> Result<T, Problem> {
        for (name, _) in &self.members {
            // The name comes from the client: shown back, but only a bounded, printable piece of it.
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            self.errors.push(FieldError { field: shown, reason: "is not a known field".to_owned() });
        }
        self.errors.truncate(32);
        match values {
            Some(values) if self.errors.is_empty() => Ok(values),
            _ => Err(Problem::Validation(self.errors)),
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

/// What a client may go on sending after its body is too large, until it is cut off.
const DISCARDED_BYTES: usize = 2 << 20;

/// The whole body. One that is too large is read to its end and thrown away: closing on a client that still sends would
/// reset the connection, and with it the answer.
async fn read(mut body: Body, max_bytes: usize) -> Result<Vec<u8>, Problem> {
    let (mut kept, mut seen) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        // A client that broke off reads no answer; any will do.
        let frame = frame.map_err(|_| Problem::Malformed("The body ended early."))?;
        let Some(data) = frame.data_ref() else { continue };
        seen += data.len();
        if seen <= max_bytes {
            kept.extend_from_slice(data);
        } else if seen > DISCARDED_BYTES {
            break;
        }
    }
    if seen > max_bytes { Err(Problem::PayloadTooLarge) } else { Ok(kept) }
}

fn is_json(request: &Request) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
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

    fn login(body: &[u8]) -> Result<(), Problem> {
        let mut fields = Fields::parse(body)?;
        let email = fields.email("email");
        let password = fields.password("password");
        fields.finish(email.zip(password)).map(|_| ())
    }

    fn at_fault(body: &str) -> Vec<String> {
        match login(body.as_bytes()) {
            Err(Problem::Validation(errors)) => errors.into_iter().map(|e| e.field).collect(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_body_without_end_is_left() {
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&sent);
        let endless = futures::stream::repeat_with(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::io::Error>(vec![b' '; 1 << 10])
        });
        assert_eq!(read(Body::from_stream(endless), 65_536).await, Err(Problem::PayloadTooLarge));
        assert_eq!(sent.load(std::sync::atomic::Ordering::Relaxed), (DISCARDED_BYTES >> 10) + 1);
        assert_eq!(read(Body::from(vec![b' '; 65_536]), 65_536).await.map(|body| body.len()), Ok(65_536));
    }

    #[test]
    fn every_field_at_fault_is_named() {
        assert_eq!(login(br#"{"email":"a@example.com","password":"x"}"#), Ok(()));
        assert_eq!(at_fault("{}"), ["email", "password"]);
        assert_eq!(at_fault(r#"{"email":1,"password":null,"more":true}"#), ["email", "password", "more"]);
        assert_eq!(at_fault(r#"{"email":"a@example.com","password":"x","Email":"b"}"#), ["Email"]);
    }

    #[test]
    fn what_cannot_be_read_is_malformed() {
        for body in
            [&b"{"[..], b"", b"[]", b"null", b"\"x\"", b"{\"email\":\"\xff\"}", br#"{"a":1,"a":2}"#, b"{} {}"]
        {
            assert!(matches!(login(body), Err(Problem::Malformed(_))), "{body:?}");
        }
    }
}
