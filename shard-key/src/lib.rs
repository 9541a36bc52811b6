//! Where a value lives, decided without asking anybody.
//!
//! 16384 buckets are the unit of placement. This crate holds the two pure functions that lead to one: the
//! bits inside an id ([`UserId`], [`SessionId`]) and a keyed hash of a login identifier ([`RoutingKey`]).
//! Both are **fixed for ever**: changing either orphans every row ever written, which is why their outputs
//! stand frozen in `tests/vectors.rs`.
//!
//! It does not know which shard owns a bucket (that is data: `shard-router`), and it does not normalise
//! identifiers: callers pass the normalised value.
#![deny(missing_docs)]

mod bucket;
mod hash;
mod id;

pub use bucket::Bucket;
pub use hash::{IdentifierKind, LookupHash, LookupKey, RoutingKey, TenantId};
pub use id::{ParseIdError, SessionId, UserId};
