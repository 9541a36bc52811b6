//! How many sessions are read from one primary at a time because no copy was to be had.
//!
//! With Redis gone every session check becomes such a read, and there may be a hundred checks for each refresh. They
//! are of one class and could take each connection that comes free; so they get a part of the pool, and refreshes, logins
//! and revocations always find the rest. Who finds no turn waits, in a queue that is bounded in length and time, and is
//! then told "overloaded": nothing was asked, and a session that was not checked is not over.
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use shard_router::ShardId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bounds of session loads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadLimits {
    /// Loads on one shard at a time.
    pub at_once: usize,
    /// Callers that wait for a turn there.
    pub waiting: usize,
    /// How long they wait.
    pub wait: Duration,
}

/// The turns of all shards.
pub(crate) struct Loads {
    limits: LoadLimits,
    shards: RwLock<HashMap<ShardId, Arc<Lane>>>,
}

struct Lane {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counted while it lives, however it ends.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Loads {
    pub fn new(limits: LoadLimits) -> Self {
        Self { limits, shards: RwLock::default() }
    }

    /// Leave to load one session. `None`: too many wait, or it took too long.
    pub async fn turn(&self, shard: ShardId) -> Option<OwnedSemaphorePermit> {
        let lane = self.lane(shard);
        if let Ok(turn) = Arc::clone(&lane.turns).try_acquire_owned() {
            return Some(turn);
        }
        let turn = self.wait(&lane).await;
        if turn.is_none() {
            metrics::counter!("tessera_session_loads_shed_total", "shard" => shard.to_string()).increment(1);
        }
        turn
    }

    async fn wait(&self, lane: &Lane) -> Option<OwnedSemaphorePermit> {
        let count = lane.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&lane.waiting);
        if count >= self.limits.waiting {
            return None;
        }
        tokio::time::timeout(self.limits.wait, Arc::clone(&lane.turns).acquire_owned()).await.ok()?.ok()
    }

    fn lane(&self, shard: ShardId) -> Arc<Lane> {
        if let Some(lane) = self.shards.read().unwrap_or_else(PoisonError::into_inner).get(&shard) {
            return Arc::clone(lane);
        }
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        let lane = shards.entry(shard).or_insert_with(|| {
            let turns = Arc::new(Semaphore::new(self.limits.at_once));
            Arc::new(Lane { turns, waiting: AtomicUsize::new(0) })
        });
        Arc::clone(lane)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn shard(number: i16) -> ShardId {
        ShardId::new(number).unwrap()
    }

    fn loads(wait: Duration) -> Loads {
        Loads::new(LoadLimits { at_once: 2, waiting: 3, wait })
    }

    #[tokio::test]
    async fn turns_and_waiters_are_bounded_a_shard() {
        let loads = loads(Duration::from_secs(3600));
        let one = loads.turn(shard(1)).await.unwrap();
        let two = loads.turn(shard(1)).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(loads.turn(shard(1)))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.as_mut().now_or_never().is_none()), "they wait");
        assert!(loads.turn(shard(1)).now_or_never().unwrap().is_none(), "a fourth does not");
        assert!(loads.turn(shard(2)).await.is_some(), "another shard does not notice");
        drop(one);
        let turn = waiting.remove(0).await;
        assert!(turn.is_some(), "who waited longest");
        // One that gives up leaves the queue.
        drop(waiting.pop());
        let mut fresh = Box::pin(loads.turn(shard(1)));
        assert!(fresh.as_mut().now_or_never().is_none());
        drop((turn, two));
        assert!(waiting.pop().unwrap().await.is_some() && fresh.await.is_some());
        assert_eq!(loads.lane(shard(1)).waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_wait_ends() {
        let loads = loads(Duration::from_millis(1));
        let _turns = (loads.turn(shard(1)).await, loads.turn(shard(1)).await);
        assert!(loads.turn(shard(1)).await.is_none());
        assert_eq!(loads.lane(shard(1)).waiting.load(Ordering::Relaxed), 0);
    }
}
