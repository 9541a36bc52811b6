//! The shapes that several calls share.
//!
//! JSON Schema counts characters where our bounds count bytes after normalisation. A bound stands here only if it never
//! refuses what the server takes; the exact rule is in the description, and the server's 422 names the field.
use auth_core::domain::{DisplayName, Email, Password};
use serde_json::{Value, json};

pub fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

pub fn schemas() -> Value {
    json!({
        "Grant": grant(),
        "User": object(json!({
            "id": id("The user."),
            "email": { "type": "string", "description": "As it was written when registering." },
            "email_verified": { "type": "boolean" },
            "name": { "type": ["string", "null"] },
            "created_at": time(""),
        })),
        "Session": object(json!({
            "id": id("The session."),
            "current": { "type": "boolean", "description": "Whether it is the one that asks." },
            "ip": { "type": "string", "description": "Where it was last used from." },
            "user_agent": { "type": "string", "description": "What it was last used with." },
            "created_at": time(""),
            "last_seen_at": time("The last login or refresh."),
            "expires_at": time("When it ends if nothing happens."),
        })),
        "Jwks": object(json!({ "keys": { "type": "array", "items": jwk() } })),
        "Problem": problem(),
    })
}

pub fn headers() -> Value {
    json!({
        "Retry-After": header("Seconds to wait before trying again.", &json!({ "type": "string", "pattern": "^[0-9]+$" })),
        "RateLimit": header(
            "How many tries are left, and in how many seconds there are more. Not there while limits of addresses are off.",
            &json!({ "type": "string", "pattern": "^\"[a-z]+\";r=[0-9]+;t=[0-9]+$" }),
        ),
        "RateLimit-Policy": header(
            "How many tries in how many seconds that limit grants.",
            &json!({ "type": "string", "pattern": "^\"[a-z]+\";q=[0-9]+;w=[0-9]+$" }),
        ),
        "WWW-Authenticate": header("RFC 6750; with `invalid-token`.", &json!({ "type": "string" })),
        "Tessera-Device": header(
            "A new device secret, given once. Clients that keep no cookies send it in the same header from then on; \
             it binds the session to them.",
            &json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{22}$" }),
        ),
        "Tessera-Read-After": header(
            "Where this answer stands. Sent along with a later read in the same header, that read sees at least as much, \
             from a replica if one has it.",
            &json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{20}$" }),
        ),
        "Set-Cookie": header(
            "The same for browsers: `__Host-tessera-device`, `__Host-tessera-read-after`.",
            &json!({ "type": "string" }),
        ),
        "X-Auth-Subject": header("The user's id.", &json!({ "type": "string", "format": "uuid" })),
        "X-Auth-Session": header("The session's id.", &json!({ "type": "string", "format": "uuid" })),
        "X-Auth-Roles": header("The token's roles with commas between; left out while there are none.", &json!({ "type": "string" })),
        "ETag": header("Changes with the keys.", &json!({ "type": "string" })),
        "Cache-Control": header("How long the keys may be kept.", &json!({ "type": "string" })),
    })
}

pub fn email() -> Value {
    json!({
        "type": "string",
        "format": "idn-email",
        "maxLength": Email::MAX_BYTES,
        "description": format!("At most {} bytes; Unicode is welcome on both sides of the @.", Email::MAX_BYTES),
    })
}

pub fn new_password() -> Value {
    let (least, most) = (Password::MIN_BYTES, Password::MAX_BYTES);
    json!({
        "type": "string",
        "format": "password",
        "minLength": 1,
        "maxLength": most,
        "description": format!("{least} to {most} bytes of UTF-8 after NFC; any characters."),
    })
}

pub fn password() -> Value {
    json!({ "type": "string", "format": "password", "maxLength": Password::MAX_BYTES })
}

pub fn name() -> Value {
    json!({
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": DisplayName::MAX_BYTES,
        "description": format!("At most {} bytes after trimming, no control characters.", DisplayName::MAX_BYTES),
    })
}

fn grant() -> Value {
    object(json!({
        "access_token": { "type": "string", "description": "A JWT (RFC 9068). Show it in `Authorization: Bearer`." },
        "token_type": { "const": "Bearer" },
        "expires_in": { "type": "integer", "description": "Seconds that the access token lives." },
        "refresh_token": {
            "type": "string",
            "description": "For the next refresh. After an answer that was lost, present the old one again within 30 seconds.",
        },
        "session": object(json!({
            "id": id("The session."),
            "auth_time": time("When the user last showed a credential."),
            "expires_at": time("When the session ends if nothing happens."),
        })),
        "user": reference("schemas", "User"),
    }))
}

fn jwk() -> Value {
    object(json!({
        "kty": { "const": "OKP" },
        "crv": { "const": "Ed25519" },
        "alg": { "const": "EdDSA" },
        "use": { "const": "sig" },
        "kid": { "type": "string" },
        "x": { "type": "string", "pattern": "^[A-Za-z0-9_-]{43}$" },
    }))
}

fn problem() -> Value {
    let field = object(json!({
        "field": { "type": "string" },
        "reason": { "type": "string" },
    }));
    json!({
        "type": "object",
        "description": "RFC 9457. Compare `type`; `title` is for people and may change.",
        "required": ["type", "title", "status"],
        "properties": {
            "type": { "type": "string", "format": "uri" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "With `malformed` and `forbidden`." },
            "trace_id": {
                "type": "string",
                "pattern": "^[0-9a-f]{32}$",
                "description": "Names the trace of this request, if it was traced. Quote it, or `X-Request-Id`, to support.",
            },
            "errors": { "type": "array", "items": field, "description": "With `validation`." },
        },
    })
}

/// An object all of whose members are always there. More may come in time.
pub fn object(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().map(|o| o.keys().collect()).unwrap_or_default();
    json!({ "type": "object", "required": names, "properties": properties })
}

fn id(text: &str) -> Value {
    json!({ "type": "string", "format": "uuid", "description": text })
}

fn time(text: &str) -> Value {
    let mut schema = json!({ "type": "string", "format": "date-time" });
    if !text.is_empty() {
        schema["description"] = text.into();
    }
    schema
}

fn header(text: &str, schema: &Value) -> Value {
    json!({ "description": text, "schema": schema })
}
