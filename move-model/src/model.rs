//! The move as a [`Model`]: from a state, everything that can happen next.
use std::fmt;

use crate::checker::{Model, Set};
use crate::mover::{Doing, Outcome};
use crate::rules::{Milestone, Property, resolved};
use crate::script::openings;
use crate::setup::Setup;
use crate::state::{Act, Mover, Script, Side, State};
use crate::world::ClientAct;

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A process reads the directory and knows what to do.
    Start { mover: Mover },
    /// A mover carries out the step that it stands at.
    Move { mover: Mover },
    /// A mover finds that somebody else is ahead, and ends.
    Refused { mover: Mover },
    /// A mover dies.
    Die { mover: Mover },
    /// A client and one of its writes.
    Client { write: usize, side: Side, act: ClientAct },
    /// The standby receives a commit.
    Ship { side: Side },
    /// The subscriber of the stream from here applies a commit.
    Replicate { source: Side },
    /// The standby takes over. So many streamed commits are lost that the publisher believes flushed.
    FailOver { side: Side, skipped: usize },
    /// The primary restarts without what it had not flushed.
    Restart { side: Side },
    /// The node fetches the map.
    Poll,
    /// A shard tells the node where the bucket went.
    Redirect,
}

impl Step {
    /// Whether a mover did `wanted`.
    pub fn is(self, wanted: Act) -> bool {
        matches!(self, Self::Move { mover } if mover.step == wanted)
    }

    /// Whether the primary of this side lost something.
    pub fn loses(self, lost: Side) -> bool {
        matches!(self, Self::FailOver { side, .. } | Self::Restart { side } if side == lost)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |mover: &Mover| {
            format!("move {} attempt {} epoch {}, {:?}", mover.id, mover.attempt, mover.epoch, mover.script)
        };
        match self {
            Self::Start { mover } => write!(f, "mover reads the record: {} from {:?}", of(mover), mover.step),
            Self::Move { mover } => write!(f, "mover: {:?} ({})", mover.step, of(mover)),
            Self::Refused { mover } => write!(f, "mover is refused at {:?} ({})", mover.step, of(mover)),
            Self::Die { mover } => write!(f, "mover dies before {:?} ({})", mover.step, of(mover)),
            Self::Client { write, side, act } => write!(f, "client of write {write} on {side:?}: {act:?}"),
            Self::Ship { side } => write!(f, "standby of {side:?} receives a commit"),
            Self::Replicate { source } => write!(f, "{:?} applies a commit of {source:?}", source.other()),
            Self::FailOver { side, skipped: 0 } => write!(f, "{side:?} FAILS OVER"),
            Self::FailOver { side, skipped } => {
                write!(f, "{side:?} FAILS OVER; {skipped} applied commits are lost and not sent again")
            }
            Self::Restart { side } => write!(f, "{side:?} RESTARTS without what it had not flushed"),
            Self::Poll => f.write_str("node polls the directory"),
            Self::Redirect => f.write_str("node is redirected"),
        }
    }
}

/// The protocol under one [`Setup`].
pub struct Protocol {
    setup: Setup,
    scripts: Vec<(Script, Vec<Act>)>,
}

type Found = Vec<(Step, State)>;

impl Protocol {
    /// Prepares the scripts.
    pub fn new(setup: Setup) -> Self {
        let scripts = [
            Script::Plan,
            Script::Forward,
            Script::Rollback,
            Script::Undo,
            Script::UndoBack,
            Script::Abort,
            Script::CleanUp,
            Script::Hasty,
        ];
        Self { scripts: scripts.map(|script| (script, script.acts(&setup))).to_vec(), setup }
    }

    /// The step after this one in its script; a rested mover at the end.
    fn advanced(&self, mover: Mover) -> Mover {
        let acts = self.scripts.iter().find(|(script, _)| *script == mover.script).map(|(_, acts)| acts);
        let next = acts.and_then(|acts| acts.iter().skip_while(|act| **act != mover.step).nth(1)).copied();
        next.map_or(Mover::default(), |step| Mover { step, ..mover })
    }

    fn movers(&self, state: &State, found: &mut Found) {
        for (index, mover) in state.movers.into_iter().enumerate() {
            if index > 0 && mover == state.movers[0] {
                continue;
            }
            if mover.script == Script::None {
                let starts = openings(&self.setup, state).into_iter();
                found.extend(starts.map(|opening| {
                    let mover = Mover::opening(&state.directory, opening);
                    (Step::Start { mover }, with_mover(*state, index, mover))
                }));
            } else {
                found.push((Step::Die { mover }, with_mover(*state, index, Mover::default())));
                self.one_mover(state, index, found);
            }
        }
    }

    fn one_mover(&self, state: &State, index: usize, found: &mut Found) {
        let (mover, mut after) = (state.movers[index], *state);
        let mut doing = Doing { setup: &self.setup, state: &mut after, mover };
        let outcome = doing.act();
        let learned = doing.mover;
        let (step, mover) = match outcome {
            Outcome::Wait => return,
            Outcome::Next => (Step::Move { mover }, self.advanced(learned)),
            Outcome::Again(act) => (Step::Move { mover }, Mover { step: act, ..learned }),
            Outcome::Refused => (Step::Refused { mover }, Mover::default()),
        };
        found.push((step, with_mover(after, index, mover)));
    }

    fn clients(&self, state: &State, found: &mut Found) {
        for write in 0..usize::from(self.setup.writes) {
            for side in Side::BOTH {
                for act in ClientAct::ALL {
                    let mut after = *state;
                    if after.client(&self.setup, (write, side), act) {
                        found.push((Step::Client { write, side, act }, after));
                    }
                }
            }
        }
    }

    fn servers(&self, state: &State, found: &mut Found) {
        for side in Side::BOTH {
            let mut after = *state;
            if after.ship(side) {
                found.push((Step::Ship { side }, after));
            }
            let mut after = *state;
            if after.replicate(&self.setup, side) {
                found.push((Step::Replicate { source: side }, after));
            }
            for skipped in state.failovers(&self.setup, side) {
                let mut after = *state;
                after.fail_over(side, skipped);
                found.push((Step::FailOver { side, skipped }, after));
            }
            if state.restart_loses(&self.setup, side) {
                let mut after = *state;
                after.restart(side);
                found.push((Step::Restart { side }, after));
            }
        }
    }

    fn node(&self, state: &State, found: &mut Found) {
        let mut after = *state;
        if self.setup.node && after.poll() {
            found.push((Step::Poll, after));
        }
        let mut after = *state;
        if self.setup.node && after.redirect() {
            found.push((Step::Redirect, after));
        }
    }
}

fn with_mover(mut state: State, index: usize, mover: Mover) -> State {
    state.movers[index] = mover;
    state.movers.sort_unstable();
    state
}

fn bits<T: Copy>(all: &[T], holds: impl Fn(T) -> bool) -> Set {
    all.iter().enumerate().fold(0, |set, (bit, one)| set | Set::from(holds(*one)) << bit)
}

impl Model for Protocol {
    type State = State;
    type Step = Step;

    fn initial(&self) -> State {
        State::initial()
    }

    fn steps(&self, state: &State, found: &mut Found) {
        self.movers(state, found);
        self.clients(state, found);
        self.servers(state, found);
        self.node(state, found);
    }

    fn violated(&self, before: &State, step: Step, after: &State) -> Set {
        bits(&Property::ALL, |property| property.broken(&self.setup, (before, step, after)))
    }

    fn milestones(&self, _: &State, step: Step, after: &State) -> Set {
        bits(&Milestone::ALL, |milestone| milestone.passed(step, after))
    }

    fn resolved(&self, state: &State) -> bool {
        resolved(&self.setup, state)
    }

    fn helps(&self, step: Step) -> bool {
        match step {
            Step::Start { mover } | Step::Move { mover } => {
                // Recovery ends what is open; it begins nothing.
                !matches!(mover.step, Act::Plan | Act::OpenWindow)
            }
            Step::Client { act, .. } => matches!(act, ClientAct::Commit | ClientAct::Terminate),
            Step::FailOver { .. } | Step::Restart { .. } => false,
            _ => true,
        }
    }
}
