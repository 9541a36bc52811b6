//! From the fence to the activation: what writers wait for. And the way out of it.
use super::{Again, Doing, Next, Outcome, Refused, Wait};
use crate::setup::Rule;
use crate::state::{Change, Decision, Image, Link, Own, Phase, Row, Script, Txn, token};

impl Doing<'_> {
    /// Record: before → open. Allocates the attempt and the epoch.
    pub(super) fn open_window(&mut self) -> Outcome {
        let (before, open) = match self.mover.script {
            Script::Rollback => (Phase::Soaking, Phase::Returning),
            _ => (Phase::Copying, Phase::Fencing),
        };
        if !self.holds(before) || self.state.directory.windows >= self.setup.windows {
            return Refused;
        }
        let directory = &mut self.state.directory;
        directory.phase = open;
        directory.windows += 1;
        directory.attempt += 1;
        directory.allocated = directory.epoch + 1;
        (self.mover.attempt, self.mover.epoch) = (directory.attempt, directory.allocated);
        Next
    }

    pub(super) fn fence(&mut self) -> Outcome {
        let row = self.state.row(self.source());
        if row.own == Own::Fenced && row.epoch == self.mover.epoch {
            return Next;
        }
        let older = row.epoch < self.mover.epoch || !self.keeps(Rule::Conditions);
        if row.own != Own::Active || !older {
            return Refused;
        }
        self.set_row(self.source(), Own::Fenced)
    }

    /// Nobody who passed the gate before the fence is left.
    pub(super) fn drain(&self) -> Outcome {
        let source = self.source() as usize;
        let left = self.state.clients.iter().any(|client| client.txn[source] != Txn::None);
        if left { Wait } else { Next }
    }

    /// A marker that comes late, after the position that the reverse stream starts from, would be sent back.
    pub(super) fn marker(&mut self) -> Outcome {
        let row = self.state.row(self.source());
        let fenced = row.own == Own::Fenced && row.epoch == self.mover.epoch;
        if self.keeps(Rule::MarkerUnderFence) && self.keeps(Rule::Conditions) && !fenced {
            return Refused;
        }
        if self.state.shard(self.source()).primary.markers & 1 << self.mover.epoch == 0 {
            self.state.commit(self.setup, self.source(), Change::Marker(self.mover.epoch));
        }
        Next
    }

    pub(super) fn marker_seen(&self) -> Outcome {
        let bit = 1 << self.mover.epoch;
        let (source, target) = (self.state.shard(self.source()), self.state.shard(self.target()));
        let kept = source.standby.markers & bit != 0 || !self.keeps(Rule::MarkerOnSourceStandby);
        let arrived = if self.keeps(Rule::MarkerOnTargetStandby) { target.standby } else { target.primary };
        let copied_here = self.way_back()
            || target.timeline == self.state.directory.timeline
            || !self.keeps(Rule::SameTarget);
        if kept && arrived.markers & bit != 0 && copied_here { Next } else { Wait }
    }

    /// Record: open → decided, and the map, in one transaction of the directory. What the target commits from here on
    /// the reverse slot holds.
    pub(super) fn decide(&mut self) -> Outcome {
        let (open, decided) = match self.mover.script {
            Script::Rollback => (Phase::Returning, Phase::Returned),
            _ => (Phase::Fencing, Phase::Committed),
        };
        if self.advance(open, decided) == Refused {
            return Refused;
        }
        let (target, epoch) = (self.target(), self.mover.epoch);
        let directory = &mut self.state.directory;
        directory.owner = target;
        directory.epoch = epoch;
        directory.decisions[usize::from(epoch)] = Decision::Committed;
        self.mover.decided = !self.keeps(Rule::StoredPosition);
        let slot = self.state.stream_mut(target);
        slot.holds |= slot.link == Link::Slot;
        Next
    }

    pub(super) fn activate(&mut self) -> Outcome {
        let Image { row, .. } = self.state.shard(self.target()).primary;
        if row.own == Own::Active || row.epoch >= self.mover.epoch && self.keeps(Rule::Conditions) {
            return Next;
        }
        if !self.is_armed(self.target(), self.mover.attempt) {
            return Wait;
        }
        self.set_row(self.target(), Own::Active)
    }

    pub(super) fn mark_moved(&mut self) -> Outcome {
        let row = self.state.row(self.source());
        let mine = row.epoch == self.mover.epoch || !self.keeps(Rule::Conditions);
        if row.own == Own::Fenced && mine {
            return self.set_row(self.source(), Own::Moved);
        }
        if row.own == Own::Moved && row.epoch >= self.mover.epoch { Next } else { Refused }
    }

    /// Record: open → before, and the map's epoch, in one transaction. Whoever finds an open window may do it; who
    /// finds it decided may not.
    pub(super) fn undo(&mut self) -> Outcome {
        let (open, before) = match self.mover.script {
            Script::UndoBack => (Phase::Returning, Phase::Soaking),
            _ => (Phase::Fencing, Phase::Copying),
        };
        if self.advance(open, before) == Refused {
            return Refused;
        }
        let directory = &mut self.state.directory;
        directory.epoch = self.mover.epoch;
        directory.decisions[usize::from(self.mover.epoch)] = Decision::Undone;
        Next
    }

    /// Lifts the fence that an undone attempt set, and raises the epoch where it may yet want to set one.
    pub(super) fn unfence(&mut self) -> Outcome {
        let (side, epoch) = (self.source(), self.mover.epoch);
        let row = self.state.row(side);
        let undone = row.armed <= token(self.mover.id, self.mover.attempt) || !self.keeps(Rule::Conditions);
        let fenced = row.own == Own::Fenced && undone;
        let late = row.own == Own::Active && row.epoch < epoch && self.keeps(Rule::UndoRaisesEpoch);
        if epoch != 0 && (fenced || late) {
            self.state.set_row(self.setup, side, Row { own: Own::Active, epoch, ..row });
        }
        Next
    }

    pub(super) fn unfenced_on_standby(&self) -> Outcome {
        let left = |row: Row| {
            let fenced = row.own == Own::Fenced && row.epoch <= self.mover.epoch;
            fenced || row.epoch < self.mover.epoch && self.keeps(Rule::UndoRaisesEpoch)
        };
        let shard = self.state.shard(self.source());
        if !left(shard.standby.row) {
            Next
        } else if !left(shard.primary.row) {
            Wait
        } else {
            Again(crate::state::Act::Unfence)
        }
    }
}
