//! The directory: the small database that says which shards there are, who owns which bucket and which keys
//! sign. Nodes poll it and keep the last good answer in memory and on disk; no request waits for it.

pub(crate) mod bootstrap;
pub(crate) mod client;
pub(crate) mod disk;
pub(crate) mod held;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod section;
pub(crate) mod sql;

pub use bootstrap::{BootstrapError, Fingerprints, KeyMismatch, NewShard, assign_buckets, register_shards};
pub use client::Directory;
pub(crate) use client::read_fingerprints;
pub use disk::DiskError;
pub use inspect::ShardReport;
pub use keys::{Distrusted, distrusted_kids};
pub use section::{BadSection, KeyRow, Section, ShardRow, Snapshot, Topology, Versioned, check_keys};
