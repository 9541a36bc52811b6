//! Every call of the public listener, in the order in which a newcomer meets them. Beside `routes.rs`: a route without
//! its entry here fails `tests/it/coverage.rs`.
use std::time::Duration;

use serde_json::{Value, json};

use super::operation::Operation;
use super::schemas::{email, name, new_password, object, password, reference};
use crate::problem::Problem;

const LIMITED: Problem = Problem::RateLimited(Duration::ZERO);
const FAULTY: Problem = Problem::Validation(Vec::new());
const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery";

pub fn operations() -> Vec<Operation> {
    let all = [signing_in(), sessions(), account(), for_services(), about()].into_iter().flatten();
    all.map(protected).collect()
}

/// What every call of the API can be told because of somebody else: its address is counted, its shard is full.
fn protected(operation: Operation) -> Operation {
    match operation.path() {
        path if path.starts_with("/auth/v1/") => operation.refuses([LIMITED, Problem::Overloaded]),
        "/auth/verify" => operation.refuses([Problem::Overloaded]),
        _ => operation,
    }
}

fn signing_in() -> Vec<Operation> {
    const TAG: &str = "Signing in";
    vec![
        Operation::new("post", "/auth/v1/register", TAG, "register", "Create an account")
            .text("An address belongs to one account. Nobody is signed in by this: log in afterwards.")
            .body(
                vec![("email", email(), true), ("password", new_password(), true), ("name", name(), false)],
                json!({ "email": EMAIL, "password": PASSWORD, "name": "Ada" }),
            )
            .once()
            .changes()
            .counted()
            .answers_json(201, "The account.", object(json!({ "user": user() })), &[])
            .hands_out_position()
            .refuses([Problem::EmailTaken]),
        Operation::new("post", "/auth/v1/login", TAG, "login", "Log in with a password")
            .text(
                "Opens a session. Unknown addresses, wrong passwords and inactive users are one refusal, after the same time. \
                 A browser keeps the device secret as a cookie, other clients send it in `Tessera-Device`.",
            )
            .parameter(device())
            .body(
                vec![("email", email(), true), ("password", password(), true)],
                json!({ "email": EMAIL, "password": PASSWORD }),
            )
            .changes()
            .counted()
            .answers_json(200, "Tokens of a new session.", grant(), &["Tessera-Device", "Set-Cookie"])
            .hands_out_position()
            .refuses([Problem::InvalidCredentials]),
        Operation::new("post", "/auth/v1/refresh", TAG, "refresh", "Exchange a refresh token for new tokens")
            .text(
                "Safe to repeat: the token before the current one gets the same successor for 30 seconds, from the same \
                 device, three times. A token used later or by somebody else ends the session.",
            )
            .parameter(device())
            .body(
                vec![("refresh_token", json!({ "type": "string" }), true)],
                json!({ "refresh_token": "tsr_…" }),
            )
            .changes()
            .answers_json(200, "The next tokens of the session.", grant(), &[])
            .hands_out_position()
            .refuses([Problem::InvalidRefreshToken]),
        Operation::new("post", "/auth/v1/logout", TAG, "logout", "End this session")
            .bearer()
            .changes()
            .answers_nothing(204, "The session is over; also if it was before.", &[])
            .hands_out_position(),
    ]
}

fn sessions() -> Vec<Operation> {
    const TAG: &str = "Sessions";
    let list = json!({ "sessions": { "type": "array", "items": reference("schemas", "Session") } });
    vec![
        Operation::new("get", "/auth/v1/sessions", TAG, "listSessions", "List the live sessions of the user")
            .bearer()
            .parameter(consistency())
            .parameter(read_after())
            .answers_json(200, "At most 100, this one marked.", object(list), &[])
            .hands_out_position()
            .refuses([FAULTY]),
        Operation::new(
            "delete",
            "/auth/v1/sessions",
            TAG,
            "endOtherSessions",
            "End all sessions but this one",
        )
        .bearer()
        .changes()
        .answers_nothing(204, "They are over.", &[])
        .hands_out_position(),
        Operation::new("delete", "/auth/v1/sessions/{id}", TAG, "endSession", "End one session")
            .bearer()
            .changes()
            .parameter(json!({
                "name": "id",
                "in": "path",
                "required": true,
                "schema": { "type": "string", "format": "uuid" },
            }))
            .answers_nothing(204, "It is over.", &[])
            .hands_out_position()
            .refuses([Problem::NotFound]),
    ]
}

fn account() -> Vec<Operation> {
    const TAG: &str = "Account";
    vec![
        Operation::new("get", "/auth/v1/me", TAG, "getMe", "Who am I")
            .bearer()
            .parameter(consistency())
            .parameter(read_after())
            .answers_json(200, "The user.", user(), &[])
            .hands_out_position()
            .refuses([FAULTY]),
        Operation::new("patch", "/auth/v1/me", TAG, "renameMe", "Change the display name")
            .bearer()
            .body(vec![("name", name(), true)], json!({ "name": "Ada Lovelace" }))
            .once()
            .changes()
            .answers_json(200, "The user as changed.", user(), &[])
            .hands_out_position(),
        Operation::new("delete", "/auth/v1/me", TAG, "deleteMe", "Delete the account")
            .text("Ends all sessions. The address can be registered again after a hold of 30 days.")
            .bearer()
            .body(vec![("password", password(), true)], json!({ "password": PASSWORD }))
            .once()
            .changes()
            .answers_nothing(204, "The account is gone.", &[])
            .hands_out_position()
            .refuses([Problem::InvalidCredentials]),
        Operation::new("post", "/auth/v1/me/password", TAG, "changePassword", "Change the password")
            .text("Ends all other sessions.")
            .bearer()
            .body(
                vec![("current", password(), true), ("new", new_password(), true)],
                json!({ "current": PASSWORD, "new": "an even better one" }),
            )
            .once()
            .changes()
            .answers_nothing(204, "It is changed.", &[])
            .hands_out_position()
            .refuses([Problem::InvalidCredentials]),
    ]
}

fn for_services() -> Vec<Operation> {
    const TAG: &str = "For services";
    let jwks = json!({ "application/jwk-set+json": { "schema": reference("schemas", "Jwks") } });
    let who = ["X-Auth-Subject", "X-Auth-Session", "X-Auth-Roles"];
    vec![
        Operation::new("get", "/auth/verify", TAG, "verify", "Forward auth for gateways")
            .text("The session was live on its primary within the last minute. nginx, Traefik, Caddy and Envoy ask here.")
            .bearer()
            .answers_nothing(200, "The caller, in headers.", &who),
        Operation::new("get", "/.well-known/jwks.json", TAG, "getJwks", "The public keys of access tokens")
            .text("RFC 7517. Keys are published long before they sign: keep them, and ask again when they are stale.")
            .parameter(json!({ "name": "If-None-Match", "in": "header", "schema": { "type": "string" } }))
            .answer(200, "The keys.", &["ETag", "Cache-Control"], Some(jwks))
            .answers_nothing(304, "They are those that you have.", &["ETag", "Cache-Control"])
            .refuses([Problem::Unavailable]),
    ]
}

fn about() -> Vec<Operation> {
    const TAG: &str = "About";
    let text =
        |id: &str, values: Value| json!({ "name": id, "in": "path", "required": true, "schema": values });
    vec![
        Operation::new("get", "/health", TAG, "health", "Is this node there?")
            .text("For load balancers. Says nothing about databases. Every `Host` will do.")
            .any_host()
            .answers_json(200, "It is.", object(json!({ "status": { "const": "ok" } })), &[])
            .answers_json(
                503,
                "Send nothing here: it drains, or its clock is far off.",
                object(json!({ "status": { "const": "not ready" } })),
                &[],
            ),
        Operation::new("get", "/openapi.json", TAG, "getOpenapi", "This document").answers_json(
            200,
            "OpenAPI 3.1.",
            json!({ "type": "object" }),
            &[],
        ),
        Operation::new("get", "/docs", TAG, "getDocs", "This document as a page").answers(
            200,
            "A page.",
            &["text/html"],
            &[],
        ),
        Operation::new("get", "/docs/{file}", TAG, "getDocsFile", "What that page loads")
            .parameter(text("file", json!({ "type": "string", "enum": ["docs.css", "docs.js"] })))
            .answers(200, "The file.", &["text/css", "text/javascript"], &[])
            .refuses([Problem::NotFound]),
        Operation::new("get", "/problems/{name}", TAG, "getProblem", "What a problem type means")
            .parameter(text("name", json!({ "type": "string", "enum": crate::problem_page::names() })))
            .answers(200, "A page.", &["text/html"], &[])
            .refuses([Problem::NotFound]),
    ]
}

fn user() -> Value {
    reference("schemas", "User")
}

fn grant() -> Value {
    reference("schemas", "Grant")
}

fn device() -> Value {
    json!({
        "name": "Tessera-Device",
        "in": "header",
        "description": "The device secret of an earlier login; one that we did not give counts as none.",
        "schema": { "type": "string" },
    })
}

fn consistency() -> Value {
    json!({
        "name": "consistency",
        "in": "query",
        "description": "`eventual`: an answer up to a second old will do, so a replica may give it. `strong`: the primary \
            answers. Without it a replica may answer that has everything up to `Tessera-Read-After`, else the primary.",
        "schema": { "type": "string", "enum": ["strong", "eventual"] },
    })
}

fn read_after() -> Value {
    json!({
        "name": "Tessera-Read-After",
        "in": "header",
        "description": "The position of an earlier answer; one that we did not give counts as none.",
        "schema": { "type": "string" },
    })
}
