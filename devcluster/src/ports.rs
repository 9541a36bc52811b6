//! Free ports for a cluster of its own: a whole block of them, claimed against every other cluster on the machine.
//!
//! To look whether a port is free and to listen on it later leaves a gap in which another cluster does the same. So
//! whoever listens on the first port of a block owns the others, and keeps listening as long as it may need one.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use rand::RngExt;

use crate::error::{Error, Result};

/// Below the ephemeral ranges of Linux and macOS: no outgoing connection takes one of these meanwhile.
const FIRST: u16 = 20_000;
/// More than the largest cluster needs.
const SIZE: u16 = 360;
const BLOCKS: u16 = 33;
/// The last ones of each block are for servers that a test starts beside the cluster.
const SPARE: u16 = 120;

/// The ports after `first` up to the end of the block, for nobody else while this lives.
#[derive(Debug)]
pub(crate) struct PortBlock {
    first: u16,
    spares_given: AtomicU16,
    _claim: TcpListener,
}

impl PortBlock {
    /// A block in which no port is taken. Where a cluster was left running, or a server of somebody else, we stay away.
    #[expect(clippy::disallowed_methods, reason = "where to begin to look, on a developer's machine")]
    pub(crate) fn claim() -> Result<Self> {
        let start = rand::rng().random_range(0..BLOCKS);
        let blocks = (start..BLOCKS).chain(0..start);
        blocks
            .map(|block| FIRST + block * SIZE)
            .find_map(|first| {
                let claim = listen(first)?;
                let free = (first + 1..first + SIZE).all(|port| listen(port).is_some());
                free.then_some(Self { first, spares_given: AtomicU16::new(0), _claim: claim })
            })
            .ok_or_else(|| Error::new(format!("no {SIZE} free ports in a row on this machine")))
    }

    /// The ports to give out, each once.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        self.first + 1..self.first + SIZE - SPARE
    }

    /// One of the others; none twice.
    pub(crate) fn spare(&self) -> Option<u16> {
        let given = self.spares_given.fetch_add(1, Ordering::Relaxed);
        (given < SPARE).then(|| self.first + SIZE - SPARE + given)
    }
}

/// The ports of the same block after `highest`: for a part that is added to a cluster that has this block.
pub(crate) fn rest_of_block(highest: u16) -> impl Iterator<Item = u16> {
    let block = highest.saturating_sub(FIRST) / SIZE;
    highest + 1..FIRST + (block + 1) * SIZE - SPARE
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn blocks_that_are_claimed_at_once_share_no_port() {
        let claims: Vec<_> = (0..8).map(|_| std::thread::spawn(|| PortBlock::claim().unwrap())).collect();
        let blocks: Vec<PortBlock> = claims.into_iter().map(|claim| claim.join().unwrap()).collect();
        let ports: Vec<u16> = blocks.iter().flat_map(PortBlock::ports).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
    }

    #[test]
    fn a_spare_port_is_given_once_and_to_no_part() {
        let block = PortBlock::claim().unwrap();
        let spares: BTreeSet<u16> = std::iter::from_fn(|| block.spare()).collect();
        assert_eq!(spares.len(), usize::from(SPARE));
        assert!(block.ports().all(|port| !spares.contains(&port)));
        assert!(spares.iter().all(|port| listen(*port).is_some()));
    }

    #[test]
    fn the_rest_of_a_block_ends_with_it() {
        let block = PortBlock::claim().unwrap();
        let ports: Vec<u16> = block.ports().collect();
        assert_eq!(rest_of_block(ports[20]).collect::<Vec<_>>(), ports[21..]);
        assert_eq!(rest_of_block(*ports.last().unwrap()).count(), 0);
    }

    #[test]
    fn a_block_with_a_busy_port_is_left_alone() {
        let block = PortBlock::claim().unwrap();
        let (first, busy) = (block.first, listen(block.ports().last().unwrap()).unwrap());
        drop(block);
        let others: Vec<PortBlock> = std::iter::from_fn(|| PortBlock::claim().ok()).take(5).collect();
        assert!(!others.is_empty() && others.iter().all(|other| other.first != first));
        drop(busy);
    }
}
