//! A model of the move of a bucket from shard A to shard B, searched exhaustively.
//!
//! `docs/moves-model.md` has the states, the conditions and what the search found. This is the specification that the
//! mover in `shard-router` follows; it shares no code with it.
//!
//! **Modelled.** One bucket. Two shards, each a primary with one standby: what a standby has not received is lost when
//! it takes over. The record of the move and the map in the directory. Two mover processes that may die before any
//! step, or sleep there while others carry on, and any number of successors that know only the record. Clients whose
//! transactions pass the gate, commit later, wait for the standby, lose their connection, and try again under the same
//! operation id. Logical replication in commit order: initial copy, marker, a subscriber that crashes with what it had
//! not flushed, a slot that dies with its publisher, a publisher that was told too much. The reverse stream, the
//! rollback, the clean-up. A node with an old map.
//!
//! **Not modelled.** Time: deadlines and leases appear as "anybody may undo an open window at any moment", the ages of
//! heartbeats and of replica reads not at all. An isolated old primary that still answers. A directory that loses
//! commits, or a shard restored from a backup. More than one bucket, table or standby; the phases of a table's copy;
//! updates (an operation is an insert under its id). The comparison of the copies: here it is a property that there
//! is nothing to find. PostgreSQL 17's slots that survive a failover. That a subscription is made or dropped is one
//! step, and durable.
//!
//! Where the model is unsure it lets more happen than can: clients ask any shard at any time, which is every old map
//! at once; a fence is seen before it is durable; a transaction may be terminated at any step.
//!
//! Begin with [`suite`], which says what is searched; [`Rule`] lists what the controls leave out.

pub mod checker;
mod list;
mod model;
mod mover;
mod rules;
mod script;
mod setup;
mod shard;
mod state;
pub mod suite;
mod world;

pub use model::{Protocol, Step};
pub use rules::{Milestone, Property};
pub use setup::{Rule, Setup};
