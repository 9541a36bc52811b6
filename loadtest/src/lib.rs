//! Load on a running cluster, over HTTP and nothing else: journeys of virtual users (closed loop, driven by goose) and
//! arrivals on a schedule (open loop, [`open`]). How to read what comes out: `docs/load.md`.
//!
//! It knows the API as any client does and imports no crate of ours.
pub mod api;
#[cfg(feature = "goose")]
pub mod closed;
pub mod histogram;
pub mod journeys;
pub mod machine;
pub mod marks;
pub mod open;
pub mod record;
pub mod report;
pub mod schedule;
pub mod target;
