//! A whole Tessera cluster on one machine, from real PostgreSQL and Redis processes: behind `make up`, and for tests,
//! faults and benches.
//!
//! ```no_run
//! # async fn example() -> devcluster::Result<()> {
//! let cluster = devcluster::ClusterSpec::default().auth_node("target/debug/auth-node").start().await?;
//! cluster.kill("shard-1-primary").await?;
//! cluster.start("shard-1-primary").await?;
//! cluster.stop().await
//! # }
//! ```
//!
//! Every part is a process of its own, known by its id and start time in `cluster.json`, so that another process can
//! kill, pause or stop it ([`control`]) and nothing else is ever hit. A test's cluster lives in a temporary folder on
//! free ports, ends when [`Cluster`] is dropped, and is ended by a guard process if the test itself is killed.
//!
//! What this crate does not know: users, tokens, tables. It runs `auth-node` as an executable with a file, and SQL only
//! to set servers up.

mod account;
mod bootstrap;
mod cluster;
pub mod control;
mod error;
mod grow;
mod guard;
mod home;
mod launch;
mod node;
mod plan;
mod ports;
mod postgres;
mod process;
mod promote;
mod redis;
mod secrets;
mod servers;
mod site;
mod spec;
pub mod state;
pub mod up;

pub use cluster::{Cluster, Node};
pub use error::{Error, Result};
pub use grow::add_shard;
pub use guard::run as run_guard;
pub use home::Home;
pub use plan::{Kind, Part};
pub use process::ProcessId;
pub use promote::{Promotion, promote};
pub use servers::{ServerChoice, Servers};
pub use spec::{ClusterSpec, Override, Ports, Progress};
