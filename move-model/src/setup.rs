//! What a search assumes: how much may happen, and which rule of the protocol is left out.

use crate::state::Side;

/// How much of everything. All of it is bounded, so the search ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Different writes that clients want done, each repeated until it is acknowledged. At most `MOST_WRITES`.
    pub writes: u8,
    /// How many moves from A to B may be planned, one after the other.
    pub moves: u8,
    /// How many windows may be opened, there and back together.
    pub windows: u8,
    /// Whether a soaking move may be taken back.
    pub rollback: bool,
    /// How often the standby of A and of B is promoted; what it had not received is gone.
    pub failovers: [u8; 2],
    /// How often the primary of A and of B restarts and loses what replication applied and nobody flushed.
    pub restarts: [u8; 2],
    /// Whether a client may lose its connection while its transaction goes on.
    pub lost_connections: bool,
    /// Whether writes come through a node whose map may be old. Otherwise clients ask any shard at any time, which
    /// is every map at once.
    pub node: bool,
    /// The rule that is left out.
    pub without: Option<Rule>,
}

/// Bound of [`Setup::writes`].
pub const MOST_WRITES: usize = 3;

/// A rule of the protocol that a negative control leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Wait for transactions that passed the gate before the fence.
    Drain,
    /// Write the marker after the drain, not before.
    MarkerAfterDrain,
    /// Every update carries the expected epoch and attempt.
    Conditions,
    /// The fence is on every failover candidate before the drain begins.
    FenceOnStandby,
    /// The source is synchronous at all: fence and marker are on every failover candidate before the decision.
    SynchronousSource,
    /// Activate after the decision.
    DecideFirst,
    /// Lift the fence only after the directory has undone the window.
    UndoFirst,
    /// The forward stream is gone before the reverse one runs.
    ForwardDroppedFirst,
    /// No stream is left when rows are deleted.
    NoStreamAtCleanUp,
    /// A fenced shard refuses security reads.
    FencedReadsRefused,
    /// The target is armed anew between being emptied and being filled: a late deletion finds another number.
    ArmBeforeCopy,
    /// The subscription is made only while the target is armed for this move.
    ConditionalSubscription,
    /// The shard to be emptied is armed for that before its streams are dropped: a late subscription finds it armed.
    BurnBeforeDrop,
    /// The marker is written only under the fence that it is for.
    MarkerUnderFence,
    /// Undoing a window raises the epoch of a source that was not fenced yet, too.
    UndoRaisesEpoch,
    /// The target has the marker on every failover candidate before the decision.
    MarkerOnTargetStandby,
    /// The target has not failed over since the copy began.
    SameTarget,
    /// The source has the marker on every failover candidate before the decision.
    MarkerOnSourceStandby,
    /// The position from which the reverse stream starts is part of the decision.
    StoredPosition,
    /// The reverse slot is advanced to that position.
    AdvancedSlot,
    /// The reverse stream reports as flushed only what the subscriber's standby has.
    SynchronousReverse,
    /// A transaction in the way of the drain is terminated; a cancelled one would be acknowledged without a standby.
    Terminate,
}

impl Rule {
    pub const ALL: [Self; 22] = [
        Self::Drain,
        Self::MarkerAfterDrain,
        Self::Conditions,
        Self::FenceOnStandby,
        Self::SynchronousSource,
        Self::DecideFirst,
        Self::UndoFirst,
        Self::ForwardDroppedFirst,
        Self::NoStreamAtCleanUp,
        Self::FencedReadsRefused,
        Self::ArmBeforeCopy,
        Self::ConditionalSubscription,
        Self::BurnBeforeDrop,
        Self::MarkerUnderFence,
        Self::UndoRaisesEpoch,
        Self::MarkerOnTargetStandby,
        Self::SameTarget,
        Self::MarkerOnSourceStandby,
        Self::StoredPosition,
        Self::AdvancedSlot,
        Self::SynchronousReverse,
        Self::Terminate,
    ];
}

impl Setup {
    /// Whether `rule` is kept.
    pub fn keeps(&self, rule: Rule) -> bool {
        let part = matches!(rule, Rule::FenceOnStandby | Rule::MarkerOnSourceStandby);
        self.without != Some(rule) && !(part && self.without == Some(Rule::SynchronousSource))
    }

    /// The same, without `rule`.
    pub fn without(self, rule: Rule) -> Self {
        Self { without: Some(rule), ..self }
    }

    /// Whether what the primary of `side` committed may be lost, so that its standby is worth following.
    pub fn can_lose(&self, side: Side) -> bool {
        self.failovers[side as usize] > 0 || self.restarts[side as usize] > 0
    }

    /// One write, one move, two windows; no failure but that of movers and transactions.
    pub const SMALL: Self = Self {
        writes: 1,
        moves: 1,
        windows: 2,
        rollback: true,
        failovers: [0, 0],
        restarts: [0, 0],
        lost_connections: false,
        node: false,
        without: None,
    };
}
