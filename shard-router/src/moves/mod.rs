//! Moves of bucket ranges between shards, while their users log in.
//!
//! The order of steps, and why each is where it is, stands in `docs/moves.md`. In one breath: copy by row-filtered
//! logical replication; **fence** the range on its owner; **drain** the transactions that passed the gate before the
//! fence; send a **marker** and see it arrive; **decide** in the directory; **activate** the new owner; stream back
//! for as long as somebody may want to return.
//!
//! What makes it safe is never who runs it, nor when: every statement is conditional on the move's state, attempt
//! and epoch, and the decision in `directory.move` is the only commit point. A [`Mover`] may die anywhere;
//! [`Mover::recover`] by anybody, anywhere, ends the move where it was or where it should be.
//!
//! This module knows no table by name: it moves whatever `meta.protect` was called for.

mod clean;
mod failover;
mod giver;
mod ledger;
mod mover;
mod phases;
mod planner;
mod preflight;
mod progress;
mod record;
mod site;
mod sql;
mod standbys;
mod stream;
mod streamer;
mod verify;
mod window;

pub use mover::{Mover, MoverConfig};
pub use phases::Agreement;
pub use planner::{Proposal, propose};
pub use progress::Progress;
pub use record::{BucketRange, Move, MoveId, MoveState};

use crate::map::ShardId;
use std::fmt;

/// Something durable has happened; told to a [`Watch`] in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is explained by its sentence in `describe`")]
pub enum Step {
    Prepared,
    StreamMade,
    Copied,
    CaughtUp,
    FenceDecided,
    Fenced,
    Drained,
    MarkerArrived,
    SnapshotsPinned,
    Decided,
    Activated,
    SourceMoved,
    ForwardDropped,
    ReverseStarted,
    Verified,
    Soaking,
    Undone,
    CleaningDecided,
    StreamsDropped,
    RowsDeleted,
    Ended,
}

impl Step {
    /// What has happened, for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Prepared => "both shards are fit, the target is empty",
            Self::StreamMade => "the copy streams",
            Self::Copied => "every table is copied",
            Self::CaughtUp => "the target keeps up with the source",
            Self::FenceDecided => "the window opens",
            Self::Fenced => "the source takes no more writes for the range",
            Self::Drained => "every transaction from before the fence has ended",
            Self::MarkerArrived => "everything written has arrived",
            Self::SnapshotsPinned => "both sides are pinned for the comparison",
            Self::Decided => "the directory has decided: this is the commit",
            Self::Activated => "the target answers; the window closes",
            Self::SourceMoved => "the source redirects",
            Self::ForwardDropped => "the stream to the target is gone",
            Self::ReverseStarted => "the way back is open",
            Self::Verified => "every row was compared",
            Self::Soaking => "users are on the target; the way back stays open",
            Self::Undone => "the fence is lifted; nothing has changed hands",
            Self::CleaningDecided => "there is no way back from here",
            Self::StreamsDropped => "no stream is left",
            Self::RowsDeleted => "the rows that nobody owns are deleted",
            Self::Ended => "the move has ended",
        }
    }
}

/// Is told of every step of a move, at once.
pub trait Watch: Send + Sync {
    /// The step has been taken and cannot be untaken by the death of this process. An error ends the mover on the
    /// spot, as if it had been killed: nothing is tidied up.
    ///
    /// # Errors
    /// Whatever should stop the mover.
    fn reached(&self, record: &Move, step: Step) -> Result<(), String>;
}

/// Nobody looks.
impl Watch for () {
    fn reached(&self, _: &Move, _: Step) -> Result<(), String> {
        Ok(())
    }
}

/// Why a move did not go on.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A database cannot be reached, or refused a statement.
    #[error("{place}: {source}")]
    Database {
        /// Which.
        place: Place,
        /// What it said.
        source: sqlx::Error,
    },
    /// The move may not begin, or may not fence: nothing has changed.
    #[error("not ready: {0}")]
    NotReady(String),
    /// Something took longer than it may; what was begun is undone or left for the next attempt.
    #[error("gave up: {0}")]
    GaveUp(String),
    /// Somebody else has changed the move, or runs it now.
    #[error("{0}")]
    Superseded(String),
    /// The verb does not fit the state that the move is in.
    #[error("{0}")]
    WrongState(String),
    /// The range lies differently from what was asked.
    #[error("{0}")]
    BadRange(String),
    /// The [`Watch`] wanted it so.
    #[error("stopped after {0:?}")]
    Stopped(Step),
    /// The copies differ. The range was handed back, or stays where it was.
    #[error("the copies differ: {0}")]
    Differs(String),
}

/// A database that takes part in a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The directory.
    Directory,
    /// A shard's primary.
    Shard(ShardId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("directory"),
            Self::Shard(shard) => write!(f, "shard {shard}"),
        }
    }
}

impl Place {
    /// Names the place that an error came from.
    pub(crate) fn said(self) -> impl Fn(sqlx::Error) -> MoveError {
        move |source| MoveError::Database { place: self, source }
    }
}
