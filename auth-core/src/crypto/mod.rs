//! Keys, seals, tokens and password hashes.
//!
//! Everything here is a function of its arguments: random bytes and the time are handed in, nothing is read from
//! a database, and no secret can be printed (`Debug` says `[redacted]`, `Display` does not exist). The one part
//! that waits is [`password`], because hashing is bounded by permits.
//!
//! - [`ring`]: key files. - [`seal`]: values encrypted at rest. - [`mac`]: hashing of parts.
//! - [`refresh_token`], [`access_token`]: what clients carry. - [`signing_key`]: what signs the latter.

pub mod access_token;
mod hash_queue;
pub mod mac;
pub mod opened_tokens;
pub mod password;
pub mod password_format;
pub mod refresh_token;
pub mod ring;
pub mod seal;
pub mod signing_key;
mod strict_json;
