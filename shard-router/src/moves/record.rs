//! What is written down about a move: pure types, and which state may follow which.

use crate::map::ShardId;
use chrono::{DateTime, Utc};
use serde::Serialize;
use shard_key::Bucket;
use std::fmt;

/// A move's number in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct MoveId(pub i64);

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Buckets `lo` to `hi`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BucketRange {
    lo: u16,
    hi: u16,
}

impl BucketRange {
    /// `None` if `hi` lies before `lo`.
    #[must_use]
    pub fn new(lo: Bucket, hi: Bucket) -> Option<Self> {
        (lo <= hi).then_some(Self { lo: lo.get(), hi: hi.get() })
    }

    /// One bucket by its number.
    pub(super) fn single(bucket: i32) -> Result<Self, super::MoveError> {
        let bucket = Bucket::try_from(bucket)
            .map_err(|number| super::MoveError::BadRange(format!("there is no bucket {number}")))?;
        Ok(Self { lo: bucket.get(), hi: bucket.get() })
    }

    /// The first bucket.
    #[must_use]
    pub fn lo(self) -> i32 {
        i32::from(self.lo)
    }

    /// The last bucket.
    #[must_use]
    pub fn hi(self) -> i32 {
        i32::from(self.hi)
    }

    /// How many there are; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u64 {
        u64::from(self.hi - self.lo) + 1
    }
}

impl fmt::Display for BucketRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lo, self.hi)
    }
}

macro_rules! states {
    ($($(#[$doc:meta])* $state:ident = $name:literal),* $(,)?) => {
        /// Where a move stands. The picture is in `migrations/directory/0002_moves.sql`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum MoveState { $($(#[$doc])* $state),* }

        impl MoveState {
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$state),*];

            /// As stored.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$state => $name),* }
            }
        }
    };
}

states! {
    /// Written down; nothing exists on the shards.
    Planned = "planned",
    /// The target is being filled and kept up to date.
    Copying = "copying",
    /// The window of the way there: the source is fenced, or about to be. Undecided.
    Fencing = "fencing",
    /// Decided: the range is the target's, whatever the shards say yet.
    Committed = "committed",
    /// The target serves; the source is kept up to date by the reverse stream.
    Soaking = "soaking",
    /// The window of the way back. Undecided.
    Returning = "returning",
    /// Decided: the range is the source's again.
    Returned = "returned",
    /// Everything is back; the target's copy is being deleted.
    Undoing = "undoing",
    /// Ended where it began, after a rollback.
    RolledBack = "rolled_back",
    /// The soak is over; the source's copy is being deleted.
    Cleaning = "cleaning",
    /// Ended at the target.
    Done = "done",
    /// Given up before any decision; the target's copy is being deleted.
    Aborting = "aborting",
    /// Ended where it began.
    Aborted = "aborted",
}

impl MoveState {
    /// The state of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.name() == name)
    }

    /// Nothing is left to do, ever.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Aborted | Self::RolledBack)
    }

    /// A mover should be at work on it; in the other states it waits for an operator.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        !self.has_ended() && !matches!(self, Self::Planned | Self::Soaking)
    }
}

impl fmt::Display for MoveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One row of `directory.move`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Move {
    /// Its number.
    pub id: MoveId,
    /// The buckets.
    pub range: BucketRange,
    /// Who had them when the move was planned.
    pub src: ShardId,
    /// Who is to have them.
    pub dst: ShardId,
    /// Where it stands.
    pub state: MoveState,
    /// Counts fences.
    pub attempt: i32,
    /// Of the owner after the latest decision or fence; none before the first.
    pub epoch: Option<i64>,
    /// Until when the open window may last.
    pub fence_deadline: Option<DateTime<Utc>>,
    /// Position on the new owner from which the reverse stream starts, as text.
    #[serde(skip)]
    pub reverse_from: Option<String>,
    /// The target's timeline when the copy began.
    #[serde(skip)]
    pub dst_timeline: Option<i32>,
    /// The source's timeline when the way back was opened.
    #[serde(skip)]
    pub src_timeline: Option<i32>,
    /// Whether the way back is open.
    pub reversible: bool,
    /// Outcome of the exact comparison, if there was one.
    pub verified: Option<bool>,
    /// An operator wants it to wait before the next fence.
    pub paused: bool,
    /// Rows to copy, counted at the start.
    pub rows_estimated: Option<i64>,
    /// Why it last stopped.
    pub note: Option<String>,
    /// When it was planned.
    pub created_at: DateTime<Utc>,
    /// When its state last changed.
    pub changed_at: DateTime<Utc>,
    /// Since when the target serves.
    pub soaking_since: Option<DateTime<Utc>>,
}

/// A window, there or back: who gives, who takes, and the states that it leads through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Direction {
    pub from: ShardId,
    pub to: ShardId,
    /// Before the window, and again after an undone one.
    pub before: MoveState,
    /// While it is open.
    pub open: MoveState,
    /// After the decision.
    pub decided: MoveState,
}

impl Move {
    /// The way there.
    pub(crate) fn forward(&self) -> Direction {
        Direction {
            from: self.src,
            to: self.dst,
            before: MoveState::Copying,
            open: MoveState::Fencing,
            decided: MoveState::Committed,
        }
    }

    /// The way back.
    pub(crate) fn back(&self) -> Direction {
        Direction {
            from: self.dst,
            to: self.src,
            before: MoveState::Soaking,
            open: MoveState::Returning,
            decided: MoveState::Returned,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_as_the_database_checks_them() {
        let migration = include_str!("../../../migrations/directory/0002_moves.sql");
        for state in MoveState::ALL {
            assert_eq!(MoveState::parse(state.name()), Some(*state));
            assert!(migration.contains(&format!("'{state}'")), "{state}");
        }
        assert_eq!(MoveState::parse("lost"), None);
        assert_eq!(MoveState::ALL.iter().filter(|state| state.has_ended()).count(), 3);
    }

    #[test]
    fn ranges_include_both_ends() {
        let bucket = |n| Bucket::new(n).unwrap();
        let range = BucketRange::new(bucket(5), bucket(8)).unwrap();
        assert_eq!((range.len(), range.to_string().as_str()), (4, "5-8"));
        assert_eq!(BucketRange::new(bucket(5), bucket(5)).unwrap().len(), 1);
        assert_eq!(BucketRange::new(bucket(6), bucket(5)), None);
    }
}
