//! Checks Tessera access tokens inside a Rust service, without asking Tessera.
//!
//! An access token is a compact JWS ([RFC 7515]) signed with Ed25519 ([RFC 8037]) that carries the JWT profile for
//! access tokens ([RFC 9068]). The issuer publishes its public keys at `/.well-known/jwks.json`; this crate keeps
//! them in memory and fresh, so that [`Verifier::verify`] is one signature check and no network.
//!
//! # A service in four lines
//! ```no_run
//! # async fn service() -> Result<(), Box<dyn std::error::Error>> {
//! use token_verifier::{Verifier, VerifyLayer};
//!
//! let verifier = Verifier::builder("http://127.0.0.1:3002", "http://127.0.0.1:3002").start().await?;
//! let app: axum::Router = axum::Router::new()
//!     .route("/orders", axum::routing::get(|claims: axum::Extension<token_verifier::Claims>| async move {
//!         format!("hello {}", claims.sub)
//!     }))
//!     .layer(VerifyLayer::new(verifier));
//! # Ok(()) }
//! ```
//! `examples/orders.rs` is the whole of it. Without tower, call [`Verifier::verify_or_fetch`] and map the error:
//!
//! | error | means | answer |
//! |---|---|---|
//! | [`VerifyError::Invalid`] | the token is bad, now and for every other verifier | 401, `WWW-Authenticate: Bearer error="invalid_token"` |
//! | [`VerifyError::CannotDecide`] | *we* lack the keys to tell | 503, `Retry-After` |
//!
//! Keep the two apart. A client that is told 401 throws its token away and logs in again; when the cause was an
//! outage of ours, that turns the outage into a storm of logins.
//!
//! # What is checked
//! * **Shape**: at most 8 KiB, three non-empty segments, canonical base64url without padding.
//! * **Header**: an object without duplicate members; `alg` equal to the algorithm *of the key*; `typ` exactly
//!   `at+jwt`; `kid` a string of 1 to 128 bytes; `crit`, `b64`, `zip` and every way of bringing one's own key
//!   (`jwk`, `jku`, `x5u`, `x5c`, `x5t`, `x5t#S256`) refused. Other members are ignored, as RFC 7515 section 4 asks, so that the
//!   issuer can add one without breaking the verifiers that are already deployed.
//!   RFC 9068 section 4 also allows `application/at+jwt`, and media types know no case; Tessera never writes either, so neither is taken.
//! * **Signature**: `verify_strict`, which refuses what plain Ed25519 leaves open: small-order points and
//!   signatures with a second valid form.
//! * **Claims**: exact types (a date is a JSON integer, never a string or a float), `iss` byte for byte, `aud`
//!   containing ours, `exp`, `iat` and `nbf` with a leeway of 30 s, and a lifetime of at most an hour.
//!
//! # How keys stay fresh
//! [`VerifierBuilder::start`] fetches the keys and refreshes them in the background as `Cache-Control: max-age`
//! says. A token with an unknown `kid` causes one more fetch, shared by everybody who waits for it, and then none for
//! 30 s: strangers with invented key ids cannot make us hammer the issuer. If the issuer cannot be reached the
//! last good keys serve on for up to 24 h. A bad key in a set is dropped and the others stay; a set without one
//! good key is refused and the last good one stays.
//!
//! # What it does not do
//! It does not know about sessions that ended after the token was issued: an access token lives for at most
//! 300 s + 30 s leeway, and that is the bound. It takes no other algorithm than Ed25519, and no ID tokens.
//!
//! # Features
//! `https` turns on TLS (reqwest's rustls) for fetching the keys. It is off by default; an issuer with an `https`
//! URL needs it, and [`VerifierBuilder::build`] says so. Plain `http` is taken for loopback hosts only, unless
//! [`VerifierBuilder::allow_plain_http`] is called.
//!
//! [RFC 7515]: https://www.rfc-editor.org/rfc/rfc7515
//! [RFC 8037]: https://www.rfc-editor.org/rfc/rfc8037
//! [RFC 9068]: https://www.rfc-editor.org/rfc/rfc9068
#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod base64url;
mod builder;
mod cache;
mod claims;
mod clock;
mod error;
mod header;
mod json;
mod jwk;
mod layer;
mod source;
mod verifier;

pub use builder::{BuildError, VerifierBuilder};
pub use cache::KeyStatus;
pub use claims::Claims;
pub use clock::{Clock, SystemClock};
pub use error::{CannotDecide, InvalidToken, VerifyError};
pub use layer::{VerifyLayer, VerifyService};
pub use source::{FetchError, FetchFuture, Fetched, JwksSource};
pub use verifier::Verifier;
