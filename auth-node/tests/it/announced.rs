//! What OpenAPI announces: every answer that a test of this suite gets is held against it.
use reqwest::Method;
use serde_json::Value;

use crate::world::Answer;

/// Headers that come only where they were announced.
const HEADERS: [&str; 7] = [
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "WWW-Authenticate",
    "Tessera-Device",
    "Tessera-Read-After",
    "ETag",
];

const SNAPSHOT: &str = include_str!("../../../docs/openapi.json");

/// The document, to look things up in.
pub struct Announced(Value);

impl Announced {
    pub fn read() -> Self {
        Self(serde_json::from_str(SNAPSHOT).expect("JSON"))
    }

    /// Every `(method, path)`, in lower case.
    pub fn calls(&self) -> Vec<(String, String)> {
        let paths = self.0["paths"].as_object().expect("paths");
        let calls = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("a path item").keys();
            methods.map(move |method| (method.clone(), path.clone()))
        });
        calls.collect()
    }

    /// An answer that was not announced fails the test. Addresses and methods that do not exist were announced as such.
    #[track_caller]
    pub fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap_or_default();
        let Some(operation) = self.operation(method, path) else {
            assert!(matches!(answer.status.as_u16(), 403..=405), "{method} {path}: {}", answer.status);
            return;
        };
        let status = answer.status.as_u16().to_string();
        let response = self.follow(&operation["responses"][&status]);
        assert!(!response.is_null(), "{method} {path} answers {status}, which OpenAPI does not say");
        let kind = answer.header("content-type");
        let kind = kind.split(';').next().unwrap_or_default();
        let announced = kind.is_empty() || !response["content"][kind].is_null();
        assert!(announced, "{method} {path} answers {status} with {kind}, which OpenAPI does not say");
        for name in HEADERS.iter().filter(|name| answer.headers.contains_key(**name)) {
            let known = !response["headers"][name].is_null();
            assert!(known, "{method} {path} answers {status} with {name}, which OpenAPI does not say");
        }
        if kind == "application/problem+json" {
            let pattern = &response["content"][kind]["schema"]["allOf"][1]["properties"]["type"]["pattern"];
            let names = pattern.as_str().unwrap_or_default().trim_start_matches("/problems/(");
            let mut names = names.trim_end_matches(")$").split('|');
            assert!(
                names.any(|name| name == answer.problem()),
                "{method} {path}: {} is not announced",
                answer.problem()
            );
        }
    }

    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let item = self.0["paths"].as_object()?.iter().find(|(template, _)| fits(template, path))?.1;
        item.get(method.as_str().to_lowercase())
    }

    fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(pointer) => {
                self.0.pointer(pointer.trim_start_matches('#')).expect("the reference leads somewhere")
            }
            None => value,
        }
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
}
