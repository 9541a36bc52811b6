//! The order of a mover's steps, and the orders that the negative controls put in its place.
use crate::setup::{Rule, Setup};
use crate::state::{Act, Directory, Mover, Phase, Script, Side, State};

impl Script {
    /// Who has the bucket while the script runs, until the decision.
    pub fn source(self) -> Side {
        match self {
            Self::None | Self::Plan | Self::Forward | Self::Undo | Self::Abort | Self::Hasty => Side::A,
            Self::Rollback | Self::UndoBack | Self::CleanUp => Side::B,
        }
    }

    /// The steps, in order.
    pub fn acts(self, setup: &Setup) -> Vec<Act> {
        match self {
            Self::None => Vec::new(),
            Self::Plan => vec![Act::Plan],
            Self::Forward => [copy(setup), window(setup), settle(setup)].concat(),
            Self::Rollback => {
                let open = vec![Act::Unfence, Act::UnfencedOnStandby];
                let settle = vec![Act::MarkMoved, Act::MovedOnStandby, Act::StartUndoing];
                [open, window(setup), settle, clean_up(setup)].concat()
            }
            Self::Undo | Self::UndoBack => vec![Act::Undo, Act::Unfence, Act::UnfencedOnStandby],
            Self::Abort => [vec![Act::Unfence, Act::UnfencedOnStandby, Act::Abort], clean_up(setup)].concat(),
            Self::CleanUp => {
                [vec![Act::Unfence, Act::UnfencedOnStandby, Act::Clean], clean_up(setup)].concat()
            }
            Self::Hasty => vec![Act::Unfence],
        }
    }
}

fn copy(setup: &Setup) -> Vec<Act> {
    let prepare = vec![Act::ArmToEmpty, Act::Empty, Act::StartCopy];
    let mut fill = vec![Act::Unfence, Act::UnfencedOnStandby];
    if setup.keeps(Rule::ArmBeforeCopy) {
        fill.push(Act::ArmToFill);
    }
    [prepare, fill, vec![Act::Subscribe]].concat()
}

/// What writers wait for, from the second step on.
fn window(setup: &Setup) -> Vec<Act> {
    let mut acts = vec![Act::ArmForWindow, Act::OpenWindow, Act::Fence];
    if setup.keeps(Rule::FenceOnStandby) {
        acts.push(Act::FenceOnStandby);
    }
    acts.extend(match setup.without {
        Some(Rule::Drain) => vec![Act::Marker],
        Some(Rule::MarkerAfterDrain) => vec![Act::Marker, Act::Drain],
        _ => vec![Act::Drain, Act::Marker],
    });
    acts.push(Act::MarkerSeen);
    if setup.keeps(Rule::DecideFirst) {
        acts.extend([Act::Decide, Act::Activate, Act::ActiveOnStandby]);
    } else {
        acts.extend([Act::Activate, Act::ActiveOnStandby, Act::Decide]);
    }
    acts
}

fn settle(setup: &Setup) -> Vec<Act> {
    let streams = match setup.without {
        Some(Rule::ForwardDroppedFirst) => vec![Act::EnableReverse, Act::ReverseMarker, Act::DropForward],
        Some(Rule::NoStreamAtCleanUp) => vec![],
        _ => vec![Act::DropForward, Act::EnableReverse, Act::ReverseMarker],
    };
    [vec![Act::MarkMoved, Act::MovedOnStandby], streams, vec![Act::Soak]].concat()
}

/// The side that is to be emptied is armed first: from then on nothing can be subscribed there any more.
fn clean_up(setup: &Setup) -> Vec<Act> {
    match setup.without {
        Some(Rule::BurnBeforeDrop) => vec![Act::DropStreams, Act::ArmToDelete, Act::Delete, Act::Finish],
        Some(Rule::NoStreamAtCleanUp) => vec![Act::ArmToDelete, Act::Delete, Act::DropStreams, Act::Finish],
        _ => vec![Act::ArmToDelete, Act::DropStreams, Act::Delete, Act::Finish],
    }
}

/// What a process that knows nothing may begin once it has read the directory.
pub fn openings(setup: &Setup, state: &State) -> Vec<(Script, Act)> {
    let Directory { phase, id, windows, reversible, .. } = state.directory;
    let first = clean_up(setup)[0];
    let mut openings = match phase {
        Phase::None | Phase::Aborted | Phase::RolledBack if id < setup.moves => {
            vec![(Script::Plan, Act::Plan)]
        }
        Phase::None | Phase::Aborted | Phase::RolledBack | Phase::Done => vec![],
        Phase::Planned => vec![(Script::Forward, Act::ArmToEmpty), (Script::Abort, Act::Unfence)],
        Phase::Copying => vec![(Script::Forward, Act::Unfence), (Script::Abort, Act::Unfence)],
        Phase::Fencing => vec![(Script::Undo, Act::Undo)],
        Phase::Committed => vec![(Script::Forward, Act::Activate)],
        Phase::Soaking => vec![(Script::CleanUp, Act::Unfence)],
        Phase::Returning => vec![(Script::UndoBack, Act::Undo)],
        Phase::Returned => vec![(Script::Rollback, Act::Activate)],
        Phase::Undoing => vec![(Script::Rollback, first)],
        Phase::Cleaning => vec![(Script::CleanUp, first)],
        Phase::Aborting => vec![(Script::Abort, first)],
    };
    if phase == Phase::Soaking && reversible && setup.rollback && windows < setup.windows {
        openings.push((Script::Rollback, Act::Unfence));
    }
    if phase == Phase::Fencing && !setup.keeps(Rule::UndoFirst) {
        openings.push((Script::Hasty, Act::Unfence));
    }
    openings
}

impl Mover {
    /// A process that has just read the directory.
    pub fn opening(directory: &Directory, (script, step): (Script, Act)) -> Self {
        let Directory { id, attempt, allocated, .. } = *directory;
        Self { script, step, id, attempt, epoch: allocated, decided: false }
    }
}
