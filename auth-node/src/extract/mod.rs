//! From HTTP to domain values: parsed once, here; a controller gets only what is valid. What strangers wrote is read by
//! the pure functions of `auth-input`; this module hands it to them and answers for them.
mod bearer;
mod body;
mod client;
mod consistency;
mod once;

pub use bearer::{Caller, Subject, Visitor};
pub use client::Client;
pub use consistency::Consistency;
pub use once::IdempotencyKey;
