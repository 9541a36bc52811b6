//! All that a run consists of: two shards with a standby each, two streams between them, the directory, two movers,
//! clients and a node. One bucket.
use crate::list::List;
use crate::setup::MOST_WRITES;

/// A shard. The bucket lives on A when a run begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Side {
    #[default]
    A,
    B,
}

impl Side {
    /// Both, to go through them.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one that this is not.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// `meta.bucket_owner.state`: A, F, I, M.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Own {
    Active,
    Fenced,
    #[default]
    Incoming,
    Moved,
}

impl Own {
    /// Never activated, or given away: what a stream and a clean-up may fill and empty.
    pub fn passive(self) -> bool {
        matches!(self, Self::Incoming | Self::Moved)
    }
}

/// The bucket's row of `meta.bucket_owner`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Row {
    pub own: Own,
    pub epoch: u8,
    /// Which attempt of which move may change a passive shard: rises, see [`token`].
    pub armed: u8,
}

/// `(move_id, attempt)` as one number that rises.
pub fn token(id: u8, attempt: u8) -> u8 {
    id * ATTEMPTS + attempt
}

const ATTEMPTS: u8 = 8;
/// Attempt of who empties the target before the copy: before any window.
pub const EMPTYING: u8 = 0;
/// Attempt of who deletes what is left over: after any window.
pub const BURNT: u8 = ATTEMPTS - 1;

/// What one server has of the bucket: the row, the operations done (a bit each) and the markers (a bit each).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Image {
    pub row: Row,
    pub operations: u8,
    pub markers: u32,
}

/// A commit, as it stands in the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// A client's operation.
    Operation(u8),
    /// The initial copy: these operations.
    Copy(u8),
    /// The deletion of everything in the bucket.
    Clear,
    /// A marker, by its bit.
    Marker(u8),
    /// Ownership. Never streamed.
    Row(Row),
}

/// A commit on a shard: `streamed` if replication brought it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    pub change: Change,
    pub streamed: bool,
}

/// A primary and its standby. `tail` is what the standby has not received yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Shard {
    pub primary: Image,
    pub standby: Image,
    pub tail: List<Entry>,
    /// Counts failovers.
    pub timeline: u8,
    pub restarts: u8,
}

/// Slot and subscription.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Link {
    #[default]
    None,
    /// A slot that nobody reads yet.
    Slot,
    Live,
    /// The slot died with the publisher's failover.
    Broken,
}

/// Logical replication from one shard to the other, in commit order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Stream {
    pub link: Link,
    /// The move that made it; part of its name.
    pub id: u8,
    /// Whether the slot holds what is committed now: false before the position that it will be advanced to.
    pub holds: bool,
    /// The subscriber found a row that is already there, and will find it again for ever.
    pub conflict: bool,
    pub queue: List<Change>,
}

/// `move.state`. `None`: no move was planned yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Phase {
    #[default]
    None,
    Planned,
    Copying,
    Fencing,
    Committed,
    Soaking,
    Returning,
    Returned,
    Undoing,
    Cleaning,
    Aborting,
    Aborted,
    RolledBack,
    Done,
}

/// What became of an allocated epoch. Kept for the properties; the protocol reads [`Phase`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Decision {
    #[default]
    Open,
    Committed,
    Undone,
}

/// The record of the latest move, and the map.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Directory {
    pub phase: Phase,
    /// Counts moves.
    pub id: u8,
    /// Counts windows of this move, from 1.
    pub attempt: u8,
    /// The epoch that the latest window of this move allocated, 0 before the first.
    pub allocated: u8,
    pub owner: Side,
    pub epoch: u8,
    /// B's timeline when the copy began.
    pub timeline: u8,
    /// Whether a marker has come back.
    pub reversible: bool,
    pub windows: u8,
    /// By epoch.
    pub decisions: [Decision; MOST_EPOCHS],
}

/// Bound of all epochs: one for each window, from 2.
pub const MOST_EPOCHS: usize = 8;

/// A process that carries a move on: what it is about to do, and what it believes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mover {
    pub script: Script,
    pub step: Act,
    pub id: u8,
    pub attempt: u8,
    pub epoch: u8,
    /// It decided itself, and so remembers the position that the reverse stream starts from.
    pub decided: bool,
}

/// A purpose: a list of [`Act`]s.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Script {
    #[default]
    None,
    Plan,
    Forward,
    Rollback,
    Undo,
    UndoBack,
    Abort,
    CleanUp,
    /// Only without [`crate::Rule::UndoFirst`].
    Hasty,
}

/// One atomic step of a mover on one database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Act {
    #[default]
    Rest,
    Plan,
    ArmToEmpty,
    Empty,
    StartCopy,
    ArmToFill,
    Subscribe,
    ArmForWindow,
    OpenWindow,
    Fence,
    FenceOnStandby,
    Drain,
    Marker,
    MarkerSeen,
    Decide,
    Activate,
    ActiveOnStandby,
    MarkMoved,
    MovedOnStandby,
    DropForward,
    EnableReverse,
    ReverseMarker,
    Soak,
    Undo,
    Unfence,
    UnfencedOnStandby,
    Abort,
    Clean,
    StartUndoing,
    DropStreams,
    ArmToDelete,
    Delete,
    Finish,
}

/// A transaction of a client on one shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Txn {
    #[default]
    None,
    /// Its last statement passed the gate; it has not committed.
    Open,
    /// Committed on the primary; the acknowledgement waits for the standby.
    Committing,
}

/// One write and who wants it done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Client {
    pub acknowledged: bool,
    /// Where it waits for an answer.
    pub asks: Option<Side>,
    /// By shard. A transaction may outlive its client's connection.
    pub txn: [Txn; 2],
}

/// A node's map entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Node {
    pub owner: Side,
    pub epoch: u8,
}

/// A moment of a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    pub shards: [Shard; 2],
    /// By source.
    pub streams: [Stream; 2],
    pub directory: Directory,
    /// Sorted: movers are alike.
    pub movers: [Mover; 2],
    pub clients: [Client; MOST_WRITES],
    pub node: Node,
}

impl State {
    /// The bucket on A, epoch 1, nobody moving.
    pub fn initial() -> Self {
        let mut state = Self::default();
        let row = Row { own: Own::Active, epoch: 1, armed: 0 };
        state.shards[0].primary.row = row;
        state.shards[0].standby.row = row;
        state.directory.epoch = 1;
        state.node.epoch = 1;
        state
    }

    /// The operations that somebody was told are done.
    pub fn acknowledged(&self) -> u8 {
        let acknowledged = self.clients.iter().enumerate().filter(|(_, client)| client.acknowledged);
        acknowledged.fold(0, |bits, (operation, _)| bits | 1 << operation)
    }

    pub fn shard(&self, side: Side) -> &Shard {
        &self.shards[side as usize]
    }

    pub fn shard_mut(&mut self, side: Side) -> &mut Shard {
        &mut self.shards[side as usize]
    }

    pub fn row(&self, side: Side) -> Row {
        self.shard(side).primary.row
    }

    pub fn stream(&self, source: Side) -> &Stream {
        &self.streams[source as usize]
    }

    pub fn stream_mut(&mut self, source: Side) -> &mut Stream {
        &mut self.streams[source as usize]
    }
}
