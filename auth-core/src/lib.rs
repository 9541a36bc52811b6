//! The rules of Tessera: what registering, logging in, refreshing and revoking mean.
//!
//! Data flows one way: services → ports → domain. This crate knows no HTTP, no SQL and no Redis; their crates are
//! absent from its Cargo.toml, so it cannot leak them. The state behind the ports is in `auth-store`.
pub mod crypto;
pub mod domain;
pub mod ports;
pub mod services;
