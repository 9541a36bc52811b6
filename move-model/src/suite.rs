//! The searches: cases that must hold, and negative controls that must not.
use crate::checker::{Limits, Outcome, Set, Until, search};
use crate::model::{Protocol, Step};
use crate::rules::{Milestone, Property};
use crate::setup::{Rule, Setup};

/// A setup under which every property holds.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    pub setup: Setup,
    /// What must be seen on some run.
    pub milestones: &'static [Milestone],
}

/// A rule left out, and what that breaks.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    pub setup: Setup,
    pub breaks: &'static [Property],
}

/// More states than this are not searched.
pub const MOST_STATES: usize = 40_000_000;

const SMALL: Setup = Setup::SMALL;
/// One window there and none back.
const THERE: Setup = Setup { windows: 1, rollback: false, ..SMALL };

/// Cases for every run of the tests.
pub fn small() -> Vec<Case> {
    use Milestone::*;
    let case = |name, setup, milestones| Case { name, setup, milestones };
    vec![
        case(
            "movers die, sleep and overtake; two moves",
            Setup { moves: 2, ..SMALL },
            &[Soaked, RolledBack, Done, Aborted, SecondWindow, ZombieRefused, AcknowledgedByB, SecondMove],
        ),
        case(
            "A fails over",
            Setup { failovers: [1, 0], ..SMALL },
            &[Soaked, RolledBack, Done, FailoverInWindow, FailoverDecided],
        ),
        case(
            "B fails over",
            Setup { failovers: [0, 1], ..THERE },
            &[Soaked, Done, Aborted, FailoverInWindow, FailoverDecided],
        ),
        case("B restarts", Setup { restarts: [0, 1], ..THERE }, &[Soaked, Done, AcknowledgedByB]),
        case(
            "a node with an old map",
            Setup { node: true, ..SMALL },
            &[RolledBack, AcknowledgedByB, NodeAhead],
        ),
        case(
            "transactions outlive connections",
            Setup { lost_connections: true, ..SMALL },
            &[RolledBack, Done],
        ),
        case(
            "A fails over; the fence is looked for on the standby together with the marker",
            Setup { failovers: [1, 0], ..THERE }.without(Rule::FenceOnStandby),
            &[Soaked, Done, FailoverInWindow],
        ),
    ]
}

/// Cases that take minutes and a gigabyte.
pub fn large() -> Vec<Case> {
    use Milestone::*;
    let case = |name, setup, milestones| Case { name, setup, milestones };
    vec![
        case("two writes", Setup { writes: 2, ..SMALL }, &[RolledBack, Done, SecondWindow]),
        case(
            "three windows",
            Setup { moves: 2, windows: 3, ..SMALL },
            &[RolledBack, SecondMove, SecondWindow],
        ),
        case(
            "B fails over, and the way back",
            Setup { failovers: [0, 1], ..SMALL },
            &[RolledBack, FailoverDecided],
        ),
        case("both fail over", Setup { failovers: [1, 1], ..THERE }, &[Soaked, FailoverDecided]),
        case("A fails over, two writes", Setup { writes: 2, failovers: [1, 0], ..THERE }, &[Soaked]),
        case("B fails over, two writes", Setup { writes: 2, failovers: [0, 1], ..THERE }, &[Soaked]),
        case(
            "a node, lost connections, two writes",
            Setup { writes: 2, node: true, lost_connections: true, ..THERE },
            &[Soaked, NodeAhead],
        ),
    ]
}

/// What is left out, and what that must break.
pub fn controls() -> Vec<Control> {
    use Property::*;
    let a_fails = Setup { failovers: [1, 0], ..SMALL };
    let b_fails = Setup { failovers: [0, 1], ..THERE };
    let control = |setup: Setup, rule, breaks| Control { setup: setup.without(rule), breaks };
    vec![
        control(SMALL, Rule::Drain, &[EqualAtDecision, FreshReads, NothingLost]),
        control(SMALL, Rule::MarkerAfterDrain, &[EqualAtDecision, FreshReads, NothingLost]),
        control(SMALL, Rule::Conditions, &[OneActive, EpochsRise, NothingLost]),
        control(a_fails, Rule::SynchronousSource, &[OneActive, FreshReads]),
        control(SMALL, Rule::DecideFirst, &[DecidedActivation, OneActive]),
        control(SMALL, Rule::UndoFirst, &[DecidedUnfence, OneActive]),
        control(SMALL, Rule::ForwardDroppedFirst, &[ExactlyOnce]),
        control(SMALL, Rule::NoStreamAtCleanUp, &[NoStreamedDelete, NothingLost]),
        control(SMALL, Rule::FencedReadsRefused, &[FreshReads]),
        control(SMALL, Rule::ArmBeforeCopy, &[EqualAtDecision, NothingLost]),
        control(SMALL, Rule::ConditionalSubscription, &[ExactlyOnce, NoStreamedDelete, NothingLost]),
        control(SMALL, Rule::BurnBeforeDrop, &[ExactlyOnce]),
        control(SMALL, Rule::MarkerUnderFence, &[ExactlyOnce]),
        control(SMALL, Rule::UndoRaisesEpoch, &[EpochsAgree, NeverStuck]),
        control(b_fails, Rule::MarkerOnTargetStandby, &[DecidedActivation, FreshReads, NothingLost]),
        control(b_fails, Rule::SameTarget, &[EqualAtDecision, NothingLost]),
        control(a_fails, Rule::MarkerOnSourceStandby, &[EqualAtDecision, RollbackKeepsAll]),
        control(SMALL, Rule::StoredPosition, &[RollbackKeepsAll, NothingLost]),
        control(SMALL, Rule::AdvancedSlot, &[ExactlyOnce]),
        control(a_fails, Rule::SynchronousReverse, &[RollbackKeepsAll]),
        control(a_fails, Rule::Terminate, &[NothingLost]),
    ]
}

impl Case {
    /// Searches everything, or up to a first violation.
    pub fn run(&self) -> Outcome<Step> {
        search(&Protocol::new(self.setup), Limits { until: Until::Violated, states: MOST_STATES })
    }

    /// Milestones that were not passed.
    pub fn missed(&self, outcome: &Outcome<Step>) -> Vec<Milestone> {
        let passed = |milestone: &Milestone| {
            let bit = Milestone::ALL.iter().position(|one| one == milestone);
            bit.is_some_and(|bit| outcome.milestones & (1 << bit) != 0)
        };
        self.milestones.iter().copied().filter(|milestone| !passed(milestone)).collect()
    }
}

impl Control {
    /// The rule that is left out.
    pub fn rule(&self) -> String {
        self.setup.without.map_or_else(String::new, |rule| format!("{rule:?}"))
    }

    /// Searches until all that should break has broken.
    pub fn run(&self) -> Outcome<Step> {
        let wanted: Set = self.breaks.iter().fold(0, |set, property| set | 1 << property.number());
        // Only a search of everything knows what is stuck: this bit is never set.
        search(&Protocol::new(self.setup), Limits { until: Until::All(wanted), states: MOST_STATES })
    }
}

/// The shortest way to a violation of `property`.
pub fn way(outcome: &Outcome<Step>, property: Property) -> Option<&[Step]> {
    if property == Property::NeverStuck {
        return outcome.stuck.as_deref();
    }
    let found = outcome.faults.iter().find(|(number, _)| *number == property.number());
    found.map(|(_, way)| way.as_slice())
}
