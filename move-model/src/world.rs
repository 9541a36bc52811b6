//! What happens besides the movers: clients, replication, failovers, a node that learns.
use crate::setup::{Rule, Setup};
use crate::state::{Change, Link, Node, Own, Side, State, Txn};

/// A step of a client with one of its writes. Any client may ask any shard, whatever its map says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientAct {
    /// The statement passes the gate. If the operation was done before, only the acknowledgement is wanted.
    Begin,
    Commit,
    Acknowledge,
    /// The transaction is ended from outside, or its answer is lost: the client knows nothing.
    Terminate,
    /// The client goes away, the transaction stays.
    LoseConnection,
}

impl ClientAct {
    pub const ALL: [Self; 5] =
        [Self::Begin, Self::Commit, Self::Acknowledge, Self::Terminate, Self::LoseConnection];
}

impl State {
    /// Whether the step was possible.
    pub fn client(&mut self, setup: &Setup, (write, side): (usize, Side), act: ClientAct) -> bool {
        match act {
            ClientAct::Begin => self.begin(setup, write, side),
            ClientAct::Commit => self.commit_transaction(setup, write, side),
            ClientAct::Acknowledge => self.acknowledge(write, side),
            ClientAct::Terminate => self.terminate(setup, write, side),
            ClientAct::LoseConnection => setup.lost_connections && self.lose_connection(write, side),
        }
    }

    fn begin(&mut self, setup: &Setup, write: usize, side: Side) -> bool {
        let elsewhere = setup.node && self.node.owner != side;
        let image = self.shard(side).primary;
        let client = &mut self.clients[write];
        let busy = client.asks.is_some() || client.txn[side as usize] != Txn::None;
        if client.acknowledged || busy || elsewhere || image.row.own != Own::Active {
            return false;
        }
        let done = image.operations & 1 << write != 0;
        client.asks = Some(side);
        client.txn[side as usize] = if done { Txn::Committing } else { Txn::Open };
        true
    }

    fn commit_transaction(&mut self, setup: &Setup, write: usize, side: Side) -> bool {
        if self.clients[write].txn[side as usize] != Txn::Open {
            return false;
        }
        let waits = self.clients[write].asks == Some(side);
        let done = self.shard(side).primary.operations & 1 << write != 0;
        let client = &mut self.clients[write];
        client.txn[side as usize] = if waits && !done { Txn::Committing } else { Txn::None };
        if done {
            // The key of the operation is taken: it rolls back.
            client.asks = client.asks.filter(|asks| *asks != side);
        } else {
            self.commit(setup, side, Change::Operation(write as u8));
        }
        true
    }

    fn acknowledge(&mut self, write: usize, side: Side) -> bool {
        let received = self.shard(side).standby.operations & 1 << write != 0;
        let client = &mut self.clients[write];
        if client.txn[side as usize] != Txn::Committing || client.asks != Some(side) || !received {
            return false;
        }
        client.acknowledged = true;
        client.asks = None;
        client.txn[side as usize] = Txn::None;
        true
    }

    fn terminate(&mut self, setup: &Setup, write: usize, side: Side) -> bool {
        let client = &mut self.clients[write];
        let txn = std::mem::take(&mut client.txn[side as usize]);
        let waits = client.asks == Some(side);
        client.asks = client.asks.filter(|asks| *asks != side);
        client.acknowledged |= waits && txn == Txn::Committing && !setup.keeps(Rule::Terminate);
        txn != Txn::None
    }

    fn lose_connection(&mut self, write: usize, side: Side) -> bool {
        let client = &mut self.clients[write];
        // Whoever only waits for a standby has nothing left to do.
        if client.asks != Some(side) || client.txn[side as usize] != Txn::Open {
            return false;
        }
        client.asks = None;
        true
    }

    /// The node fetches the map.
    pub fn poll(&mut self) -> bool {
        let newer = self.directory.epoch > self.node.epoch;
        if newer {
            self.node = Node { owner: self.directory.owner, epoch: self.directory.epoch };
        }
        newer
    }

    /// The shard that the node asks redirects it. Only a newer hint counts.
    pub fn redirect(&mut self) -> bool {
        let row = self.row(self.node.owner);
        let newer = row.own == Own::Moved && row.epoch > self.node.epoch;
        if newer {
            self.node = Node { owner: self.node.owner.other(), epoch: row.epoch };
        }
        newer
    }

    /// What a failover of `side` may do: the numbers of streamed commits that are lost and not sent again.
    pub fn failovers(&self, setup: &Setup, side: Side) -> std::ops::RangeInclusive<usize> {
        if self.shard(side).timeline >= setup.failovers[side as usize] {
            #[expect(clippy::reversed_empty_ranges, reason = "no failover is left")]
            return 1..=0;
        }
        let tells_too_much = side == Side::B || !setup.keeps(Rule::SynchronousReverse);
        let inbound = self.stream(side.other()).link == Link::Live;
        0..=if inbound && tells_too_much { self.streamed_in_tail(side) } else { 0 }
    }

    /// Whether a restart of `side` would lose anything that termination of its transactions would not.
    pub fn restart_loses(&self, setup: &Setup, side: Side) -> bool {
        let shard = self.shard(side);
        let unflushed = shard.tail.iter().next_back().is_some_and(|entry| entry.streamed);
        shard.restarts < setup.restarts[side as usize] && unflushed
    }
}
