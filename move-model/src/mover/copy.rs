//! From the plan to a copy that follows its source.
use super::{Doing, Next, Outcome, Refused};
use crate::setup::Rule;
use crate::state::{Change, EMPTYING, Entry, Link, Phase, Side, Stream};

impl Doing<'_> {
    /// A new record. A range is in one open move at most.
    pub(super) fn plan(&mut self) -> Outcome {
        let directory = &mut self.state.directory;
        let ended = matches!(directory.phase, Phase::None | Phase::Aborted | Phase::RolledBack);
        if !ended || directory.id != self.mover.id {
            return Refused;
        }
        directory.id += 1;
        directory.phase = Phase::Planned;
        directory.attempt = 1;
        directory.allocated = 0;
        directory.reversible = false;
        Next
    }

    pub(super) fn arm_to_empty(&mut self) -> Outcome {
        self.arm(Side::B, EMPTYING)
    }

    /// Deletes what an earlier move left on the target.
    pub(super) fn empty(&mut self) -> Outcome {
        if !self.is_armed(Side::B, EMPTYING) {
            return Refused;
        }
        self.clear(Side::B)
    }

    /// `DELETE` under replica role, so that no trigger asks who owns the bucket: the statement itself has to.
    pub(super) fn clear(&mut self, side: Side) -> Outcome {
        if self.state.shard(side).primary.operations != 0 {
            self.state.commit(self.setup, side, Change::Clear);
        }
        Next
    }

    pub(super) fn start_copy(&mut self) -> Outcome {
        let timeline = self.state.shard(Side::B).timeline;
        let outcome = self.advance(Phase::Planned, Phase::Copying);
        if outcome == Next {
            self.state.directory.timeline = timeline;
        }
        outcome
    }

    /// Slots on both sides, subscription on B, initial copy: one step here.
    pub(super) fn subscribe(&mut self) -> Outcome {
        let attempt = if self.keeps(Rule::ArmBeforeCopy) { self.mover.attempt } else { EMPTYING };
        if self.keeps(Rule::ConditionalSubscription) && !self.is_armed(Side::B, attempt) {
            return Refused;
        }
        if self.state.stream(Side::A).link != Link::None {
            let ours = self.state.stream(Side::A).id == self.mover.id;
            return if ours { Next } else { Refused };
        }
        let id = self.mover.id;
        let holds = !self.keeps(Rule::AdvancedSlot);
        *self.state.stream_mut(Side::A) = Stream { link: Link::Live, id, holds: true, ..Stream::default() };
        *self.state.stream_mut(Side::B) = Stream { link: Link::Slot, id, holds, ..Stream::default() };
        self.initial_copy();
        Next
    }

    fn initial_copy(&mut self) {
        let operations = self.state.shard(Side::A).primary.operations;
        let target = self.state.shard(Side::B).primary.operations;
        if operations & target != 0 {
            self.state.stream_mut(Side::A).conflict = true;
        } else if operations != 0 {
            let entry = Entry { change: Change::Copy(operations), streamed: true };
            self.state.append(self.setup, Side::B, entry);
        }
    }
}
