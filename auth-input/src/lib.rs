//! What strangers write into a request, read strictly: headers, query and body into domain values.
//!
//! Pure functions of bytes. No server, no state, no clock, no verdict about a credential: `auth-node` calls them from its
//! extractors and middleware, and `fuzz` calls the very same with whatever it can think of. What is refused here is refused
//! before anything was looked up.
#![deny(missing_docs)]

mod bearer;
mod cookies;
mod device;
mod fault;
mod fields;
pub mod forms;
mod forwarded;
mod hosts;
mod once;
mod origins;
mod query;
mod request_id;

pub use bearer::bearer;
pub use device::{DEVICE_COOKIE, DEVICE_HEADER, device};
pub use fault::{BadBody, FieldError};
pub use fields::{Fields, is_json};
pub use forwarded::TrustedProxies;
pub use hosts::{BadHost, Hosts};
pub use once::idempotency_key;
pub use origins::Origins;
pub use query::{READ_AFTER_COOKIE, READ_AFTER_HEADER, consistency, read_after};
pub use request_id::request_id;
