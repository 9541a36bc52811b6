//! `/openapi.json`: what the public listener takes and answers, written down once, in `table.rs`.
//!
//! Refusals are values of `Problem`, bounds are the constants of the domain, so neither can say something else than the
//! code. That each route stands here is checked by `tests/it/coverage.rs`, that each answer of the end-to-end tests was
//! announced by `tests/it/announced.rs`, and the whole by schemathesis. ADR 7 says why this is not a macro.
mod operation;
mod schemas;
mod table;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use operation::Operation;

/// The document as it is served and as it stands in `docs/openapi.json`: the same for every node of a version.
pub static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut text = serde_json::to_string_pretty(&document()).expect("a value is JSON");
    text.push('\n');
    text
});

const ABOUT: &str = "Accounts, sessions and tokens. Times are RFC 3339, ids are UUIDs. Every refusal is an RFC 9457 \
    problem whose `type` names it. Trouble of ours is 503 with `Retry-After` and never 401: a token is thrown away only \
    on 401. Access tokens are JWTs (RFC 9068, EdDSA) that services check offline with the JWKS.";

fn document() -> Value {
    let (paths, refusals) = paths(table::operations());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tessera",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "This node." }],
        "tags": [
            { "name": "Signing in", "description": "From a password to tokens, and on from there." },
            { "name": "Sessions", "description": "One login on one device; each can be ended from any other." },
            { "name": "Account", "description": "The signed-in user." },
            { "name": "For services", "description": "Who is calling? Offline with the keys, or by asking." },
            { "name": "About", "description": "Health and these pages." },
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The access token of a login or a refresh.",
                },
            },
            "responses": refusals,
            "headers": schemas::headers(),
            "schemas": schemas::schemas(),
        },
    })
}

/// The paths, and the refusals that they share.
fn paths(operations: Vec<Operation>) -> (Map<String, Value>, BTreeMap<String, Value>) {
    let (mut paths, mut refusals) = (Map::new(), BTreeMap::new());
    for operation in operations {
        let path = paths.entry(operation.path()).or_insert_with(|| json!({}));
        let method = operation.method();
        path[method] = operation.into_value(&mut refusals);
    }
    (paths, refusals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_is_what_the_code_says() {
        let kept = include_str!("../../../docs/openapi.json");
        assert!(kept == *DOCUMENT, "docs/openapi.json is old: run `make openapi` and look at the difference");
    }

    #[test]
    fn references_lead_somewhere_and_ids_are_unique() {
        let document = document();
        let references = DOCUMENT.split("\"$ref\": \"#").skip(1).filter_map(|rest| rest.split('"').next());
        for pointer in references {
            assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
        }
        let mut ids: Vec<&str> =
            DOCUMENT.split("\"operationId\": \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}
