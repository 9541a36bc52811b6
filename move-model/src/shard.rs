//! A shard's commits, what its standby has of them, and what is lost when it takes over.
use crate::list::List;
use crate::setup::Setup;
use crate::state::{Change, Entry, Image, Link, Row, Side, State, Stream, Txn};

impl Image {
    /// As replay and apply do it: without asking who owns the bucket.
    fn apply(&mut self, change: Change) {
        match change {
            Change::Operation(operation) => self.operations |= 1 << operation,
            Change::Copy(operations) => self.operations |= operations,
            Change::Clear => self.operations = 0,
            Change::Marker(marker) => self.markers |= 1 << marker,
            Change::Row(row) => self.row = row,
        }
    }

    /// Whether an insert of this finds its row already there.
    fn has(&self, change: Change) -> bool {
        match change {
            Change::Operation(operation) => self.operations & 1 << operation != 0,
            Change::Copy(operations) => self.operations & operations != 0,
            Change::Marker(marker) => self.markers & 1 << marker != 0,
            Change::Clear | Change::Row(_) => false,
        }
    }
}

impl State {
    /// Commits on a primary: visible there, on its way to the standby and into a slot that holds it.
    pub fn commit(&mut self, setup: &Setup, side: Side, change: Change) {
        self.append(setup, side, Entry { change, streamed: false });
    }

    pub fn set_row(&mut self, setup: &Setup, side: Side, row: Row) {
        self.commit(setup, side, Change::Row(row));
    }

    pub(crate) fn append(&mut self, setup: &Setup, side: Side, entry: Entry) {
        let shard = self.shard_mut(side);
        shard.primary.apply(entry.change);
        if setup.can_lose(side) {
            shard.tail.push(entry);
        } else {
            // A standby that is never needed is never behind: nothing is lost by not following it.
            shard.standby = shard.primary;
        }
        let stream = self.stream_mut(side);
        if stream.holds && !matches!(entry.change, Change::Row(_)) {
            stream.queue.push(entry.change);
        }
    }

    /// The standby receives one commit more.
    pub fn ship(&mut self, side: Side) -> bool {
        let shard = self.shard_mut(side);
        let Some(entry) = shard.tail.pop() else { return false };
        shard.standby.apply(entry.change);
        true
    }

    /// The subscriber applies one commit more, or stumbles over it.
    pub fn replicate(&mut self, setup: &Setup, source: Side) -> bool {
        let target = self.shard(source.other()).primary;
        let stream = self.stream_mut(source);
        if stream.link != Link::Live || stream.conflict {
            return false;
        }
        let Some(change) = stream.queue.first() else { return false };
        if target.has(change) {
            stream.conflict = true;
        } else {
            stream.queue.pop();
            self.append(setup, source.other(), Entry { change, streamed: true });
        }
        true
    }

    /// How many streamed commits a failover of `side` would lose.
    pub fn streamed_in_tail(&self, side: Side) -> usize {
        self.shard(side).tail.iter().filter(|entry| entry.streamed).count()
    }

    /// The standby takes over with what it has. Of the streamed commits that it lacks, the publisher was told that the
    /// first `confirmed` are flushed, and does not send them again.
    pub fn fail_over(&mut self, side: Side, confirmed: usize) {
        let shard = self.shard_mut(side);
        let tail = std::mem::take(&mut shard.tail);
        shard.primary = shard.standby;
        shard.timeline += 1;
        self.end_transactions(side);
        let slot = self.stream_mut(side);
        *slot = match slot.link {
            Link::None | Link::Slot => Stream::default(),
            Link::Live | Link::Broken => Stream { link: Link::Broken, id: slot.id, ..Stream::default() },
        };
        self.send_again(side.other(), tail.iter().filter(|entry| entry.streamed).skip(confirmed));
    }

    /// The primary comes back without the streamed commits at its end that nobody flushed. What it committed itself is
    /// flushed, and so is everything before.
    pub fn restart(&mut self, side: Side) {
        let shard = self.shard_mut(side);
        let tail: Vec<Entry> = shard.tail.iter().collect();
        let kept = tail.iter().rposition(|entry| !entry.streamed).map_or(0, |last| last + 1);
        shard.tail = tail[..kept].iter().copied().collect();
        shard.primary = shard.standby;
        tail[..kept].iter().for_each(|entry| shard.primary.apply(entry.change));
        shard.restarts += 1;
        self.end_transactions(side);
        self.send_again(side.other(), tail[kept..].iter().copied());
    }

    /// Sessions on `side` end; whoever waited there does not know what happened.
    fn end_transactions(&mut self, side: Side) {
        for client in &mut self.clients {
            client.txn[side as usize] = Txn::None;
            client.asks = client.asks.filter(|asks| *asks != side);
        }
    }

    fn send_again(&mut self, source: Side, lost: impl Iterator<Item = Entry>) {
        let stream = self.stream_mut(source);
        if stream.link != Link::Live {
            return;
        }
        let lost: List<Change> = lost.map(|entry| entry.change).collect();
        if lost.iter().any(|change| matches!(change, Change::Copy(_))) {
            *stream = Stream { link: Link::Broken, id: stream.id, ..Stream::default() };
        } else {
            stream.queue = lost.iter().chain(stream.queue.iter()).collect();
        }
    }
}
