//! Fuzz targets: functions of any bytes that panic if a property does not hold.
//!
//! Each states what must be true of whatever a stranger sends: an accepted value has one spelling, a verdict agrees with a
//! reading that shares no code with the parser, a token is accepted only if a key of ours signed it. "Does not panic" comes
//! with it. `make fuzz` drives them with libFuzzer; `tests/replay.rs` runs them over the inputs that are kept.
//!
//! Several headers, or a header and a body, are lines of the input.

mod access;
mod bodies;
mod headers;
mod ids;
mod lines;
mod person;
mod proxies;
mod refresh;
mod verifier;

/// A function of any bytes.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 27] = [
    ("verifier_text", verifier::text),
    ("verifier_header", verifier::header),
    ("verifier_claims", verifier::claims),
    ("verifier_jwks", verifier::key_set),
    ("node_text", access::text),
    ("node_header", access::header),
    ("node_claims", access::claims),
    ("both_verifiers", access::both),
    ("refresh_text", refresh::text),
    ("refresh_fields", refresh::fields),
    ("ids", ids::ids),
    ("email", person::email),
    ("display_name", person::display_name),
    ("password", person::password),
    ("user_agent", person::user_agent),
    ("body_register", bodies::register),
    ("body_login", bodies::login),
    ("body_refresh", bodies::refresh),
    ("body_rename", bodies::rename),
    ("body_change_password", bodies::change_password),
    ("body_delete_account", bodies::delete_account),
    ("bearer", headers::bearer),
    ("forwarded", proxies::forwarded),
    ("host", headers::host),
    ("origin", headers::origin),
    ("device", headers::device),
    ("small_headers", headers::small),
];
