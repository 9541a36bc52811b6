//! One call of the API, built up in the words that the table uses.
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schemas::reference;
use crate::problem::Problem;

/// Where an address stands: on every answer of a call that is counted for it, and on every 429 of a limit.
const STANDING: [&str; 2] = ["RateLimit", "RateLimit-Policy"];
/// What an answer hands out that a client's later reads must not fall behind.
const POSITION: [&str; 2] = ["Tessera-Read-After", "Set-Cookie"];
/// Host and origin are judged before anything is counted.
const BEFORE_COUNTING: [&str; 2] = ["forbidden", "misdirected"];
/// The problem that says so: `Problem::RateLimited` and `Problem::Limited` are one to a client.
const LIMITED: &str = "rate-limited";

/// A method on a path: what it takes, what it answers.
pub struct Operation {
    method: &'static str,
    path: &'static str,
    about: Map<String, Value>,
    parameters: Vec<Value>,
    answers: Vec<(u16, Value)>,
    problems: Vec<Problem>,
    counted: bool,
    hands_out_position: bool,
}

impl Operation {
    /// A call in the group `tag`, with a stable id for generated clients.
    pub fn new(method: &'static str, path: &'static str, tag: &str, id: &str, summary: &str) -> Self {
        let mut about = Map::new();
        about.insert("tags".into(), json!([tag]));
        about.insert("operationId".into(), id.into());
        about.insert("summary".into(), summary.into());
        Self {
            method,
            path,
            about,
            parameters: Vec::new(),
            answers: Vec::new(),
            // Whoever sends two Host headers or a foreign one, and whoever meets a bug.
            problems: vec![Problem::Malformed(""), Problem::Misdirected, Problem::Internal],
            counted: false,
            hands_out_position: false,
        }
    }

    /// What a reader wants to know beyond the summary.
    pub fn text(mut self, text: &str) -> Self {
        self.about.insert("description".into(), text.into());
        self
    }

    /// Takes an access token.
    pub fn bearer(mut self) -> Self {
        self.about.insert("security".into(), json!([{ "bearer": [] }]));
        self.refuses([Problem::InvalidToken, Problem::Unavailable])
    }

    /// Changes something: a browser must come from an origin of ours.
    pub fn changes(self) -> Self {
        self.refuses([Problem::Forbidden(""), Problem::Unavailable])
    }

    /// Takes one JSON object: `(name, schema, required)`; a name that is not listed is refused.
    pub fn body(mut self, fields: Vec<(&str, Value, bool)>, example: Value) -> Self {
        let required: Vec<&str> =
            fields.iter().filter(|(.., required)| *required).map(|(n, ..)| *n).collect();
        let properties: Map<String, Value> =
            fields.iter().map(|(name, schema, _)| ((*name).to_owned(), schema.clone())).collect();
        let schema = json!({
            "type": "object",
            "required": required,
            "properties": properties,
            "additionalProperties": false,
        });
        let content = json!({ "application/json": { "schema": schema, "example": example } });
        self.about.insert("requestBody".into(), json!({ "required": true, "content": content }));
        self.refuses([
            Problem::PayloadTooLarge,
            Problem::UnsupportedMediaType,
            Problem::Validation(Vec::new()),
        ])
    }

    /// Is counted for the client's address before anything is read; each answer says how many tries are left.
    pub fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    /// Hands out a position to read from, wherever it succeeds or finds that what it was to end is gone.
    pub fn hands_out_position(mut self) -> Self {
        self.hands_out_position = true;
        self
    }

    /// Takes a parameter, as OpenAPI writes it.
    pub fn parameter(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// May be repeated safely.
    pub fn once(self) -> Self {
        self.parameter(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Repeated with the same body within 24 hours, the call does its work once.",
            "schema": { "type": "string", "pattern": "^[!-~]{1,255}$" },
            "example": "0b9f6a52-5f0e-4e0b-9f0c-3c1a8f2d7a11",
        }))
        .refuses([
            Problem::IdempotencyMismatch,
            Problem::IdempotencyRunning,
            Problem::Validation(Vec::new()),
        ])
    }

    /// Answers with a JSON body of this schema.
    pub fn answers_json(self, status: u16, text: &str, schema: Value, headers: &[&str]) -> Self {
        let content = json!({ "application/json": { "schema": schema } });
        self.answer(status, text, headers, Some(content))
    }

    /// Answers without a body.
    pub fn answers_nothing(self, status: u16, text: &str, headers: &[&str]) -> Self {
        self.answer(status, text, headers, None)
    }

    /// Answers with text of another kind.
    pub fn answers(self, status: u16, text: &str, kinds: &[&str], headers: &[&str]) -> Self {
        let content: Map<String, Value> =
            kinds.iter().map(|k| ((*k).to_owned(), json!({ "schema": { "type": "string" } }))).collect();
        self.answer(status, text, headers, Some(content.into()))
    }

    /// Answers with the given content.
    pub fn answer(mut self, status: u16, text: &str, headers: &[&str], content: Option<Value>) -> Self {
        let mut answer = described(text, headers);
        if let Some(content) = content {
            answer["content"] = content;
        }
        self.answers.push((status, answer));
        self
    }

    /// May refuse in these ways.
    pub fn refuses<const N: usize>(mut self, problems: [Problem; N]) -> Self {
        self.problems.extend(problems);
        self
    }

    /// Never looks at who is asked: every `Host` will do.
    pub fn any_host(mut self) -> Self {
        self.problems.retain(|problem| !matches!(problem, Problem::Misdirected | Problem::Malformed(_)));
        self
    }

    pub fn method(&self) -> &'static str {
        self.method
    }

    pub fn path(&self) -> &'static str {
        self.path
    }

    /// The Operation Object. Its refusals go to `shared`, under their names: most calls have them in common.
    pub fn into_value(mut self, shared: &mut BTreeMap<String, Value>) -> Value {
        if !self.parameters.is_empty() {
            self.about.insert("parameters".into(), self.parameters.into());
        }
        let mut answers: BTreeMap<u16, Value> = self.answers.into_iter().collect();
        if self.counted {
            answers.values_mut().for_each(|answer| add_headers(answer, &STANDING));
        }
        if self.hands_out_position {
            let successes = answers.range_mut(200..300);
            successes.for_each(|(_, answer)| add_headers(answer, &POSITION));
        }
        for (status, named) in by_status(&self.problems) {
            let mut name = named.keys().copied().collect::<Vec<_>>().join("_");
            let mut answer = refusal(&named);
            let after_counting = !named.keys().any(|name| BEFORE_COUNTING.contains(name));
            if self.counted && after_counting && !named.contains_key(LIMITED) {
                name += "_counted";
                add_headers(&mut answer, &STANDING);
            }
            if self.hands_out_position && status == 404 {
                name += "_position";
                add_headers(&mut answer, &POSITION);
            }
            answers.insert(status, reference("responses", &name));
            shared.entry(name).or_insert(answer);
        }
        let answers: Map<String, Value> = answers.into_iter().map(|(s, a)| (s.to_string(), a)).collect();
        self.about.insert("responses".into(), answers.into());
        self.about.into()
    }
}

fn described(text: &str, headers: &[&str]) -> Value {
    let mut answer = json!({ "description": text });
    add_headers(&mut answer, headers);
    answer
}

fn add_headers(answer: &mut Value, headers: &[&str]) {
    for name in headers {
        answer["headers"][*name] = reference("headers", name);
    }
}

fn by_status(problems: &[Problem]) -> BTreeMap<u16, BTreeMap<&str, &Problem>> {
    let mut found: BTreeMap<u16, BTreeMap<&str, &Problem>> = BTreeMap::new();
    for problem in problems {
        let (status, name, _) = problem.parts();
        found.entry(status.as_u16()).or_default().insert(name, problem);
    }
    found
}

/// One answer, naming the problems that come with its status.
fn refusal(named: &BTreeMap<&str, &Problem>) -> Value {
    let lines: Vec<String> =
        named.iter().map(|(name, problem)| format!("`{name}`: {}", problem.parts().2)).collect();
    let mut headers = Vec::new();
    if named.values().any(|problem| problem.retry_after().is_some()) {
        headers.push("Retry-After");
    }
    if named.contains_key(LIMITED) {
        headers.extend(STANDING);
    }
    if named.contains_key("invalid-token") {
        headers.push("WWW-Authenticate");
    }
    let mut answer = described(&lines.join("\n"), &headers);
    let names: Vec<&str> = named.keys().copied().collect();
    let kind = json!({ "type": "string", "pattern": format!("/problems/({})$", names.join("|")) });
    let schema = json!({
        "allOf": [reference("schemas", "Problem"), { "properties": { "type": kind } }],
    });
    answer["content"] = json!({ "application/problem+json": { "schema": schema } });
    answer
}
