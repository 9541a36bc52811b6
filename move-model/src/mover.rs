//! What each step of a mover does: one conditional update of one database, or a wait.
//!
//! Between two steps of a mover anything may happen, also everything that another mover does. A process that sleeps for
//! an hour between two steps is a zombie; it needs no state of its own here.
mod after;
mod copy;
mod window;

use crate::setup::{Rule, Setup};
use crate::state::{Act, Mover, Own, Phase, Row, Script, Side, State, token};

/// What came of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done, or found done: on to the next step.
    Next,
    /// Not yet.
    Wait,
    /// What an earlier step did was lost in a failover: do it again.
    Again(Act),
    /// Somebody else is ahead: this process is out.
    Refused,
}

use Outcome::{Again, Next, Refused, Wait};

/// One mover at one step. Its updates go to the state, and to the mover what it learns.
pub struct Doing<'s> {
    pub setup: &'s Setup,
    pub state: &'s mut State,
    pub mover: Mover,
}

impl Doing<'_> {
    /// Carries out the step that the mover stands at.
    pub fn act(&mut self) -> Outcome {
        match self.mover.step {
            Act::Rest => Refused,
            Act::Plan => self.plan(),
            Act::ArmToEmpty => self.arm_to_empty(),
            Act::Empty => self.empty(),
            Act::StartCopy => self.start_copy(),
            Act::ArmToFill => self.arm(Side::B, self.mover.attempt),
            Act::Subscribe => self.subscribe(),
            Act::ArmForWindow => self.arm(self.target(), self.mover.attempt + 1),
            Act::OpenWindow => self.open_window(),
            Act::Fence => self.fence(),
            Act::FenceOnStandby => self.row_on_standby(self.source(), Own::Fenced, Act::Fence),
            Act::Drain => self.drain(),
            Act::Marker => self.marker(),
            Act::MarkerSeen => self.marker_seen(),
            Act::Decide => self.decide(),
            Act::Activate => self.activate(),
            Act::ActiveOnStandby => self.row_on_standby(self.target(), Own::Active, Act::Activate),
            Act::MarkMoved => self.mark_moved(),
            Act::MovedOnStandby => self.row_on_standby(self.source(), Own::Moved, Act::MarkMoved),
            Act::DropForward => self.drop_stream(Side::A),
            Act::EnableReverse => self.enable_reverse(),
            Act::ReverseMarker => self.reverse_marker(),
            Act::Soak => self.soak(),
            Act::Undo => self.undo(),
            Act::Unfence => self.unfence(),
            Act::UnfencedOnStandby => self.unfenced_on_standby(),
            Act::Abort => self.abort(),
            Act::Clean => self.advance(Phase::Soaking, Phase::Cleaning),
            Act::StartUndoing => self.advance(Phase::Returned, Phase::Undoing),
            Act::DropStreams => self.drop_streams(),
            Act::ArmToDelete => self.arm_to_delete(),
            Act::Delete => self.delete(),
            Act::Finish => self.finish(),
        }
    }

    fn source(&self) -> Side {
        self.mover.script.source()
    }

    fn target(&self) -> Side {
        self.source().other()
    }

    fn way_back(&self) -> bool {
        matches!(self.mover.script, Script::Rollback | Script::UndoBack)
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.setup.keeps(rule)
    }

    /// The condition of every update of the record: `WHERE move_id = … AND state = … AND attempt = …`.
    fn holds(&self, phase: Phase) -> bool {
        let directory = &self.state.directory;
        let mine = directory.attempt == self.mover.attempt || !self.keeps(Rule::Conditions);
        directory.phase == phase && directory.id == self.mover.id && mine
    }

    fn advance(&mut self, from: Phase, to: Phase) -> Outcome {
        if !self.holds(from) {
            return Refused;
        }
        self.state.directory.phase = to;
        Next
    }

    fn set_row(&mut self, side: Side, own: Own) -> Outcome {
        let row = Row { own, epoch: self.mover.epoch, armed: token(self.mover.id, self.mover.attempt) };
        self.state.set_row(self.setup, side, row);
        Next
    }

    /// Says which attempt alone may change a passive shard. Never goes back, and is on the standby before anything is
    /// built on it.
    fn arm(&mut self, side: Side, attempt: u8) -> Outcome {
        let row = self.state.row(side);
        let armed = token(self.mover.id, attempt);
        if row.own.passive() && row.armed < armed && self.keeps(Rule::Conditions) {
            self.state.set_row(self.setup, side, Row { armed, ..row });
            let received = self.state.shard(side).standby.row.armed == armed;
            return if received { Next } else { Again(self.mover.step) };
        }
        if !self.is_armed(side, attempt) {
            return Refused;
        }
        let received = self.state.shard(side).standby.row.armed >= armed;
        if received || !self.keeps(Rule::Conditions) { Next } else { Wait }
    }

    fn is_armed(&self, side: Side, attempt: u8) -> bool {
        let row = self.state.row(side);
        !self.keeps(Rule::Conditions) || row.own.passive() && row.armed == token(self.mover.id, attempt)
    }

    /// Waits until the standby of `side` has the row that the step before wrote; `act` writes it again if it is lost.
    fn row_on_standby(&self, side: Side, own: Own, act: Act) -> Outcome {
        let done = |row: Row| row.own == own && row.epoch == self.mover.epoch || row.epoch > self.mover.epoch;
        let shard = self.state.shard(side);
        if done(shard.standby.row) {
            Next
        } else if done(shard.primary.row) {
            Wait
        } else {
            Again(act)
        }
    }
}
