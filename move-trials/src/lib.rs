//! Moves under load on real PostgreSQL, with something killed at every step, and a checker that believes nobody.
//!
//! [`Stage`] is a directory and two shards with replicas. [`Load`] writes, deletes and reads through routers, one of
//! them with a map that is never refreshed, and writes down every operation. A [`drill`] moves a range there and back,
//! gives up, or loses a part on the way; in a [`failover`] for good. [`History::check`] then asks the shards what is really there: nothing
//! acknowledged may be missing, nothing may be there twice or uninvited, no read may have shown an older state.
#![warn(missing_docs)]

pub mod drill;
pub mod failover;
mod history;
mod load;
mod operation;
mod stage;
pub mod windows;
mod windows_report;

pub use history::{History, Verdict};
pub use load::{Load, LoadReport, Sample};
pub use stage::{SHARDS, Stage};

/// Anything that stops a trial; it is shown to people only.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
