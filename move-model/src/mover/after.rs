//! After the window: the reverse stream, the soak, and what is left to delete.
use super::{Doing, Next, Outcome, Refused, Wait};
use crate::setup::Rule;
use crate::state::{BURNT, Image, Link, Own, Phase, Script, Side, Stream};

impl Doing<'_> {
    /// By name, and the move is part of the name.
    pub(super) fn drop_stream(&mut self, source: Side) -> Outcome {
        let id = self.mover.id;
        let stream = self.state.stream_mut(source);
        if stream.id == id {
            *stream = Stream::default();
        }
        Next
    }

    pub(super) fn drop_streams(&mut self) -> Outcome {
        self.drop_stream(Side::A);
        self.drop_stream(Side::B)
    }

    /// Advances the slot to the stored position and subscribes A to it.
    pub(super) fn enable_reverse(&mut self) -> Outcome {
        let row = self.state.row(Side::A);
        let mine = row.own == Own::Moved && row.epoch == self.mover.epoch || !self.keeps(Rule::Conditions);
        let skips = !self.keeps(Rule::StoredPosition) && !self.mover.decided;
        let id = self.mover.id;
        let slot = self.state.stream_mut(Side::B);
        if slot.link != Link::Slot || slot.id != id {
            return Next;
        }
        if !mine {
            return Refused;
        }
        slot.link = Link::Live;
        slot.holds = true;
        if skips {
            slot.queue = Default::default();
        }
        Next
    }

    fn reverse_marker_bit(&self) -> u8 {
        16 + self.mover.epoch
    }

    pub(super) fn reverse_marker(&mut self) -> Outcome {
        let Image { row, markers, .. } = self.state.shard(Side::B).primary;
        if self.state.stream(Side::B).link != Link::Live || markers & 1 << self.reverse_marker_bit() != 0 {
            return Next;
        }
        if row.own != Own::Active || row.epoch != self.mover.epoch {
            return Refused;
        }
        self.state.commit(self.setup, Side::B, crate::state::Change::Marker(self.reverse_marker_bit()));
        Next
    }

    /// Record: committed → soaking. A reverse stream that has not brought its marker is not one.
    pub(super) fn soak(&mut self) -> Outcome {
        let live = self.state.stream(Side::B).link == Link::Live;
        let came = self.state.shard(Side::A).primary.markers & 1 << self.reverse_marker_bit() != 0;
        if live && !came {
            return if self.holds(Phase::Committed) { Wait } else { Refused };
        }
        let outcome = self.advance(Phase::Committed, Phase::Soaking);
        if outcome == Next {
            self.state.directory.reversible = live;
        }
        outcome
    }

    pub(super) fn abort(&mut self) -> Outcome {
        match self.advance(Phase::Copying, Phase::Aborting) {
            Refused => self.advance(Phase::Planned, Phase::Aborting),
            done => done,
        }
    }

    /// Where the rows are that nobody owns.
    fn leftover(&self) -> Side {
        if self.mover.script == Script::CleanUp { Side::A } else { Side::B }
    }

    pub(super) fn arm_to_delete(&mut self) -> Outcome {
        self.arm(self.leftover(), BURNT)
    }

    pub(super) fn delete(&mut self) -> Outcome {
        if !self.is_armed(self.leftover(), BURNT) {
            return Refused;
        }
        self.clear(self.leftover())
    }

    pub(super) fn finish(&mut self) -> Outcome {
        match self.mover.script {
            Script::CleanUp => self.advance(Phase::Cleaning, Phase::Done),
            Script::Rollback => self.advance(Phase::Undoing, Phase::RolledBack),
            _ => self.advance(Phase::Aborting, Phase::Aborted),
        }
    }
}
