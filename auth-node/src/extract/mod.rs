//! From HTTP to domain values: parsed once, here; a controller gets only what is valid.
mod bearer;
mod client;
mod consistency;
mod fields;
mod once;

pub use bearer::{Caller, Subject, Visitor};
pub use client::{Client, DEVICE_COOKIE, DEVICE_HEADER, TrustedProxies};
pub use consistency::Consistency;
pub use fields::Fields;
pub use once::IdempotencyKey;
