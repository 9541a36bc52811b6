//! What must hold: the properties, by the names of SHARDING's invariants where they have one, and what must happen
//! on some run for the search to mean anything.
use crate::model::Step;
use crate::setup::{Rule, Setup};
use crate::state::{Act, Decision, Image, Link, Own, Phase, Side, State};

/// A property. Its number is its bit in a [`crate::checker::Set`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Property {
    /// I1: at most one primary has state A, at every instant.
    OneActive,
    /// I2: once ownership is settled, every acknowledged write is on the owner.
    NothingLost,
    /// I2: replication never brings what is already there.
    ExactlyOnce,
    /// I3: epochs never fall: in the map, on a node, on a standby, and on a primary that does not fail over.
    EpochsRise,
    /// When a move has ended, the map and the owner say the same epoch.
    EpochsAgree,
    /// I4: a shard leaves F only by the decision about the epoch that it is fenced with.
    DecidedUnfence,
    /// I5: a shard becomes active only after that decision, and with the marker.
    DecidedActivation,
    /// At the decision both sides hold the same operations, on their standbys, too.
    EqualAtDecision,
    /// I6: whoever serves reads has every acknowledged write.
    FreshReads,
    /// I10: no row is deleted on a shard that a live stream leads away from.
    NoStreamedDelete,
    /// I11: while the way back is open, A has or will receive every acknowledged write.
    RollbackKeepsAll,
    /// From every state, recovery without further faults can settle the move with exactly one active shard.
    NeverStuck,
}

impl Property {
    pub const ALL: [Self; 12] = [
        Self::OneActive,
        Self::NothingLost,
        Self::ExactlyOnce,
        Self::EpochsRise,
        Self::EpochsAgree,
        Self::DecidedUnfence,
        Self::DecidedActivation,
        Self::EqualAtDecision,
        Self::FreshReads,
        Self::NoStreamedDelete,
        Self::RollbackKeepsAll,
        Self::NeverStuck,
    ];

    /// Its bit.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// Of which invariant it is a part, if of one.
    pub fn label(self) -> &'static str {
        match self {
            Self::OneActive => "I1 one active",
            Self::NothingLost => "I2 nothing lost",
            Self::ExactlyOnce => "I2 exactly once",
            Self::EpochsRise => "I3 epochs rise",
            Self::EpochsAgree => "I3 epochs agree",
            Self::DecidedUnfence => "I4 decided unfence",
            Self::DecidedActivation => "I5 decided activation",
            Self::EqualAtDecision => "equal at decision",
            Self::FreshReads => "I6 fresh reads",
            Self::NoStreamedDelete => "I10 no streamed delete",
            Self::RollbackKeepsAll => "I11 rollback keeps all",
            Self::NeverStuck => "never stuck",
        }
    }

    /// Whether this step breaks it. [`Self::NeverStuck`] is not about one step.
    pub fn broken(self, setup: &Setup, (before, step, after): (&State, Step, &State)) -> bool {
        match self {
            Self::OneActive => Side::BOTH.iter().all(|side| after.row(*side).own == Own::Active),
            Self::NothingLost => settled(after).is_some_and(|owner| lacks(after, owner)),
            Self::ExactlyOnce => after.streams.iter().any(|stream| stream.conflict),
            Self::EpochsRise => epochs_fall(before, step, after),
            Self::EpochsAgree => epochs_part(after),
            Self::DecidedUnfence => {
                Side::BOTH.iter().any(|side| undecided_unfence(before, step, after, *side))
            }
            Self::DecidedActivation => step.is(Act::Activate) && undecided_activation(before, after),
            Self::EqualAtDecision => step.is(Act::Decide) && decided(before, after) && !equal(after),
            Self::FreshReads => {
                let reads =
                    |own| own == Own::Active || own == Own::Fenced && !setup.keeps(Rule::FencedReadsRefused);
                Side::BOTH.iter().any(|side| reads(after.row(*side).own) && lacks(after, *side))
            }
            Self::NoStreamedDelete => Side::BOTH.iter().any(|side| {
                let deleted = emptied(before, step, after, *side);
                deleted && before.stream(*side).link == Link::Live
            }),
            Self::RollbackKeepsAll => rollback_loses(after),
            Self::NeverStuck => false,
        }
    }
}

/// Where every way of recovery should lead: one active shard, the map and the node agree, nothing is half done.
pub fn resolved(setup: &Setup, state: &State) -> bool {
    let ended = matches!(
        state.directory.phase,
        Phase::None | Phase::Planned | Phase::Soaking | Phase::Aborted | Phase::RolledBack | Phase::Done
    );
    let fine = settled(state).is_some_and(|owner| !lacks(state, owner) && knows(setup, state, owner));
    ended && fine
}

fn knows(setup: &Setup, state: &State, owner: Side) -> bool {
    !setup.node || state.node.owner == owner
}

/// The one active shard, if the other is passive and the map agrees.
fn settled(state: &State) -> Option<Side> {
    let owner = state.directory.owner;
    let active = state.row(owner).own == Own::Active;
    (active && state.row(owner.other()).own.passive()).then_some(owner)
}

fn lacks(state: &State, side: Side) -> bool {
    state.acknowledged() & !state.shard(side).primary.operations != 0
}

fn epochs_fall(before: &State, step: Step, after: &State) -> bool {
    let shards = Side::BOTH.iter().any(|side| {
        let (old, new) = (before.shard(*side), after.shard(*side));
        let kept = !step.loses(*side) && new.primary.row.epoch < old.primary.row.epoch;
        kept || new.standby.row.epoch < old.standby.row.epoch
    });
    shards || after.directory.epoch < before.directory.epoch || after.node.epoch < before.node.epoch
}

fn epochs_part(state: &State) -> bool {
    let directory = &state.directory;
    let ended = matches!(directory.phase, Phase::Aborted | Phase::RolledBack | Phase::Done);
    ended && settled(state).is_some_and(|owner| state.row(owner).epoch != directory.epoch)
}

fn undecided_unfence(before: &State, step: Step, after: &State, side: Side) -> bool {
    let (old, new) = (before.row(side), after.row(side));
    if old.own != Own::Fenced || new.own == Own::Fenced || step.loses(side) {
        return false;
    }
    let wanted = if new.own == Own::Active { Decision::Undone } else { Decision::Committed };
    after.directory.decisions[usize::from(old.epoch)] != wanted
}

fn undecided_activation(before: &State, after: &State) -> bool {
    Side::BOTH.iter().any(|side| {
        let Image { row, markers, .. } = after.shard(*side).primary;
        let became = before.row(*side).own != Own::Active && row.own == Own::Active;
        let decided = after.directory.decisions[usize::from(row.epoch)] == Decision::Committed;
        became && !(decided && markers & 1 << row.epoch != 0)
    })
}

fn decided(before: &State, after: &State) -> bool {
    before.directory.phase != after.directory.phase
}

fn equal(state: &State) -> bool {
    let operations = |side| {
        let shard = state.shard(side);
        [shard.primary.operations, shard.standby.operations]
    };
    let (a, b) = (operations(Side::A), operations(Side::B));
    a == b && a[0] == a[1]
}

/// A mover deleted what was there.
fn emptied(before: &State, step: Step, after: &State, side: Side) -> bool {
    let deleting = step.is(Act::Delete) || step.is(Act::Empty);
    deleting && before.shard(side).primary.operations != 0 && after.shard(side).primary.operations == 0
}

fn rollback_loses(state: &State) -> bool {
    let stream = state.stream(Side::B);
    let open = state.directory.phase == Phase::Soaking && state.directory.reversible;
    if !open || stream.link != Link::Live {
        return false;
    }
    let coming = stream.queue.iter().fold(0, |bits, change| match change {
        crate::state::Change::Operation(operation) => bits | 1 << operation,
        _ => bits,
    });
    state.acknowledged() & !(state.shard(Side::A).primary.operations | coming) != 0
}

/// What a search must have seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Milestone {
    Soaked,
    RolledBack,
    Done,
    Aborted,
    /// A window was undone and a later one decided.
    SecondWindow,
    /// A mover that was overtaken was refused.
    ZombieRefused,
    /// A write was acknowledged by B.
    AcknowledgedByB,
    /// A primary failed over while a window was open.
    FailoverInWindow,
    /// A primary failed over between decision and activation.
    FailoverDecided,
    /// The node knows the new owner, and the new owner does not know yet.
    NodeAhead,
    /// A move was done again after one that ended where it began.
    SecondMove,
}

impl Milestone {
    pub const ALL: [Self; 11] = [
        Self::Soaked,
        Self::RolledBack,
        Self::Done,
        Self::Aborted,
        Self::SecondWindow,
        Self::ZombieRefused,
        Self::AcknowledgedByB,
        Self::FailoverInWindow,
        Self::FailoverDecided,
        Self::NodeAhead,
        Self::SecondMove,
    ];

    /// Whether this step passes it.
    pub fn passed(self, step: Step, after: &State) -> bool {
        let directory = &after.directory;
        match self {
            Self::Soaked => directory.phase == Phase::Soaking && directory.reversible,
            Self::RolledBack => directory.phase == Phase::RolledBack,
            Self::Done => directory.phase == Phase::Done,
            Self::Aborted => directory.phase == Phase::Aborted,
            Self::SecondWindow => directory.phase == Phase::Committed && directory.attempt > 2,
            Self::ZombieRefused => matches!(step, Step::Refused { .. }),
            Self::AcknowledgedByB => {
                matches!(step, Step::Client { side: Side::B, act: crate::world::ClientAct::Acknowledge, .. })
            }
            Self::FailoverInWindow => {
                matches!(step, Step::FailOver { .. })
                    && matches!(directory.phase, Phase::Fencing | Phase::Returning)
            }
            Self::FailoverDecided => {
                matches!(step, Step::FailOver { .. })
                    && matches!(directory.phase, Phase::Committed | Phase::Returned)
            }
            Self::NodeAhead => {
                let row = after.row(after.node.owner);
                row.own.passive() && row.epoch < after.node.epoch
            }
            Self::SecondMove => directory.id == 2 && directory.phase == Phase::Soaking,
        }
    }
}
