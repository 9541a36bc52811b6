//! The single choke point to the shards: every repository method runs through [`Tx`].
//!
//! It finds the shard, turns away what is too much for it, follows redirects, waits out fences, retries what surely did
//! not happen, and tells "did not happen" from "nobody knows". A connection goes back to its pool only from a finished attempt: a caller that is
//! cancelled drops it, and a dropped one is closed.
use std::sync::Arc;
use std::time::{Duration, Instant};

use auth_core::domain::ReadPosition;
use auth_core::ports::{Freshness, StoreError, trail};
use futures::future::BoxFuture;
use shard_key::Bucket;
use shard_router::{
    Conn, FencePermit, MAX_FENCE_WAIT, MAX_HOPS, Ownership, PoolError, Position, Role, Router, ShardId,
};
use sqlx::PgConnection;

use crate::StoreLimits;
use crate::admission::{Admission, Class};
use crate::attempt::attempt;
use crate::budget::{RetryBudget, jitter};
use crate::errors::{Kind, Step, TxError, decide};
use crate::loads::{LoadLimits, Loads};

const MAX_CONFLICTS: u32 = 3;
const CONFLICT_BACKOFF: Duration = Duration::from_millis(10);

/// The name of a repository method, for metrics and spans, and how early it is shed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    /// `sessions.rotate`
    pub name: &'static str,
    /// `store.sessions.rotate`
    pub span: &'static str,
    /// Shed before all classes above it.
    pub class: Class,
}

/// Names an operation.
macro_rules! op {
    ($name:literal, $class:ident) => {
        $crate::tx::Op {
            name: $name,
            span: concat!("store.", $name),
            class: $crate::admission::Class::$class,
        }
    };
}
pub(crate) use op;

/// How work ends that found its answer. Only a transaction tells the two apart.
pub(crate) enum End<T> {
    /// Commit, then answer.
    Keep(T),
    /// Roll back, and answer all the same: nothing was to be written.
    Undo(T),
    /// As `Keep`, of a read that looked where the primary's log stands; none on a replica.
    Seen(T, Option<Position>),
}

/// The work of one attempt.
pub(crate) type Work<'c, T> = BoxFuture<'c, Result<End<T>, TxError>>;

/// Where and how one method runs.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub bucket: Bucket,
    pub op: Op,
    pub kind: Kind,
}

/// Runs work on the owner of a bucket.
#[derive(Clone)]
pub(crate) struct Tx {
    router: Router,
    budget: Arc<RetryBudget>,
    admission: Arc<Admission>,
    loads: Arc<Loads>,
}

/// What one call has used up so far.
#[derive(Default)]
struct Patience {
    hops: u32,
    conflicts: u32,
    lost: bool,
    fence: Option<(FencePermit, Instant, u32)>,
}

impl Tx {
    pub fn new(router: Router, limits: StoreLimits) -> Self {
        let loads = LoadLimits {
            at_once: limits.session_loads,
            waiting: limits.shard_concurrency,
            wait: limits.session_load_wait,
        };
        Self {
            router,
            budget: Arc::default(),
            admission: Arc::new(Admission::new(limits.shard_concurrency)),
            loads: Arc::new(Loads::new(loads)),
        }
    }

    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Runs `work` on the primary of the bucket's owner. `ctx` is what the work borrows; it may run several times.
    pub async fn run<C, T, F>(&self, call: Call, ctx: &C, work: F) -> Result<T, StoreError>
    where
        C: Sync + ?Sized,
        T: Send,
        F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
    {
        self.metered(call, self.drive(call, None, None, ctx, &work)).await
    }

    /// As [`Self::run`], for reads that stand in for a copy: they take turns ([`Loads`]).
    pub async fn run_load<C, T, F>(&self, call: Call, ctx: &C, work: F) -> Result<T, StoreError>
    where
        C: Sync + ?Sized,
        T: Send,
        F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
    {
        self.metered(call, self.drive(call, None, Some(&self.loads), ctx, &work)).await
    }

    /// Runs a read, on a replica if `freshness` allows it. A replica that is not sure that the bucket is its own, or
    /// fails, hands over to the primary; it never changes the map. A position of another shard than the bucket's owner
    /// says nothing there: the bucket has moved since.
    pub async fn run_read<C, T, F>(
        &self,
        call: Call,
        freshness: Freshness,
        sticky: u64,
        ctx: &C,
        work: F,
    ) -> Result<T, StoreError>
    where
        C: Sync + ?Sized,
        T: Send,
        F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
    {
        let read = async {
            let mut first = None;
            let shard = self.router.place(call.bucket).shard;
            if let Some(after) = on_replica(freshness, shard) {
                match self.router.reader(shard, sticky, after).await {
                    Ok(conn) if conn.role() == Role::Replica => {
                        if let Ok((value, _)) = attempt((shard, conn), call, ctx, &work).await.0 {
                            return Ok(value);
                        }
                    }
                    Ok(conn) => first = Some((shard, conn)),
                    // The primary has as many of its replicas' reads as it may have.
                    Err(PoolError::Timeout) => {
                        return Err(StoreError::Overloaded(format!("shard {shard} has no replica to spare")));
                    }
                    Err(_) => {}
                }
            }
            self.drive(call, first, None, ctx, &work).await
        };
        self.metered(call, read).await
    }

    async fn metered<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let outcome = work.await;
        metrics::histogram!("tessera_store_seconds", "op" => call.op.name)
            .record(started.elapsed().as_secs_f64());
        if let Err(error) = &outcome {
            let kind = match error {
                StoreError::Unavailable(_) => "unavailable",
                StoreError::Overloaded(_) => "overloaded",
                StoreError::Unknown(_) => "unknown",
                StoreError::Corrupt(_) => "corrupt",
            };
            metrics::counter!("tessera_store_errors_total", "op" => call.op.name, "kind" => kind)
                .increment(1);
        }
        outcome
    }

    async fn drive<C, T, F>(
        &self,
        call: Call,
        mut first: Option<(ShardId, Conn)>,
        turns: Option<&Loads>,
        ctx: &C,
        work: &F,
    ) -> Result<T, StoreError>
    where
        C: Sync + ?Sized,
        T: Send,
        F: for<'c> Fn(&'c C, &'c mut PgConnection) -> Work<'c, T> + Sync,
    {
        self.budget.earn();
        let mut patience = Patience::default();
        loop {
            let shard = self.router.place(call.bucket).shard;
            // Taken for each attempt: who waits for a fence keeps nobody else from a load.
            let turn = match turns {
                Some(turns) => Some(
                    turns
                        .turn(shard)
                        .await
                        .ok_or_else(|| StoreError::Overloaded(format!("too many loads on shard {shard}")))?,
                ),
                None => None,
            };
            let Some(inside) = self.admission.enter(shard, call.op.class) else {
                if let Some((_, conn)) = first {
                    conn.release();
                }
                return Err(StoreError::Overloaded(format!("shard {shard} has enough to do")));
            };
            let conn = match first.take() {
                Some((of, conn)) if of == shard => conn,
                _ => match self.router.primary(shard).await {
                    Ok(conn) => conn,
                    // A hint named a shard that was added since the last poll.
                    Err(PoolError::UnknownShard(_)) => {
                        drop((turn, inside));
                        self.next(call, shard, Step::Refresh, "unknown shard", &mut patience).await?;
                        continue;
                    }
                    Err(error) => return Err(StoreError::Unavailable(error.to_string())),
                },
            };
            let (outcome, committing) = attempt((shard, conn), call, ctx, work).await;
            drop((turn, inside));
            let error = match outcome {
                Ok((value, position)) => {
                    leave_trail(call.kind, shard, position);
                    return Ok(value);
                }
                Err(error) => error,
            };
            let (fault, why) = error.fault();
            let step = decide(call.kind, committing, fault);
            self.next(call, shard, step, &why, &mut patience).await?;
        }
    }

    /// Prepares the next attempt, or says why there is none.
    async fn next(
        &self,
        call: Call,
        shard: ShardId,
        step: Step,
        why: &str,
        patience: &mut Patience,
    ) -> Result<(), StoreError> {
        let unavailable = |why: &str| Err(StoreError::Unavailable(why.to_owned()));
        match step {
            Step::Redirect(hint) => {
                if !self.router.redirected(call.bucket, Ownership::Elsewhere(Some(hint))) {
                    return self.wait_for_owner(call, shard, patience).await;
                }
                count_retry(call, "redirect");
                patience.hops += 1;
                if patience.hops > MAX_HOPS { unavailable("too many redirects") } else { Ok(()) }
            }
            Step::Refresh => {
                self.router.redirected(call.bucket, Ownership::Elsewhere(None));
                self.wait_for_owner(call, shard, patience).await
            }
            Step::Wait => self.wait_for_owner(call, shard, patience).await,
            Step::RetryConflict if patience.conflicts < MAX_CONFLICTS => {
                patience.conflicts += 1;
                count_retry(call, "conflict");
                tokio::time::sleep(jitter(CONFLICT_BACKOFF * patience.conflicts)).await;
                Ok(())
            }
            Step::RetryLost if !patience.lost && self.budget.spend() => {
                patience.lost = true;
                count_retry(call, "lost");
                Ok(())
            }
            Step::RetryConflict | Step::RetryLost | Step::Unavailable => unavailable(why),
            Step::Unknown => Err(StoreError::Unknown(format!("{} on shard {shard}: {why}", call.op.name))),
            Step::Corrupt => Err(StoreError::Corrupt(format!("{} on shard {shard}: {why}", call.op.name))),
        }
    }

    /// The bucket is fenced; or the map is ahead of the shard, between a move's decision and its activation; or the
    /// shard is behind the map. All of these pass in a moment, and none of them is worth a redirect.
    async fn wait_for_owner(
        &self,
        call: Call,
        shard: ShardId,
        patience: &mut Patience,
    ) -> Result<(), StoreError> {
        count_retry(call, "owner");
        if patience.fence.is_none() {
            let permit = self
                .router
                .fence_wait(shard, call.bucket)
                .map_err(|e| StoreError::Unavailable(e.to_string()))?;
            patience.fence = Some((permit, Instant::now(), 0));
        }
        let Some((_, since, waits)) = patience.fence.as_mut() else { return Ok(()) };
        *waits += 1;
        // 1–5 ms at first, then growing: a fence that lasts must not be polled by everybody at full speed.
        let pause = Duration::from_millis(1) + jitter(Duration::from_millis((4 + u64::from(*waits)).min(25)));
        if since.elapsed() + pause > MAX_FENCE_WAIT {
            return Err(StoreError::Unavailable("no shard owns the bucket at the moment".to_owned()));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether a replica of this shard may answer, and what it must have replayed then.
fn on_replica(freshness: Freshness, shard: ShardId) -> Option<Option<Position>> {
    match freshness {
        Freshness::Primary => None,
        Freshness::ReplicaAllowed => Some(None),
        Freshness::After(ReadPosition { shard: of, timeline, lsn }) => {
            let is_ours = i32::from(of) == i32::from(shard.get());
            if !is_ours {
                metrics::counter!("tessera_read_positions_total", "outcome" => "moved").increment(1);
            }
            is_ours.then_some(Some(Position { timeline, lsn }))
        }
    }
}

/// A transaction whose position is not known must not leave its client with an older one: the next read is the primary's.
fn leave_trail(kind: Kind, shard: ShardId, position: Option<Position>) {
    match position {
        Some(Position { timeline, lsn }) => {
            trail::passed(ReadPosition { shard: shard.get().unsigned_abs(), timeline, lsn });
        }
        None if kind == Kind::Transaction => trail::passed(ReadPosition::NOWHERE),
        None => {}
    }
}

fn count_retry(call: Call, reason: &'static str) {
    metrics::counter!("tessera_store_retries_total", "op" => call.op.name, "reason" => reason).increment(1);
}
