//! One pool for each server and role, of connections that are either proven idle or closed.
//!
//! A future dropped in the middle of a statement leaves its connection busy. Such a connection must not be
//! handed to the next caller, so only [`Conn::release`] gives one back; everything else closes it. There is
//! no ping on checkout (40 µs each): connections retire by age and by error.
//!
//! Few connections are made at a time: a pool that fills after an outage would otherwise make all of them at once, each
//! slow for the others' sake, and take the time-outs of its own storm for another outage.

use crate::breaker::Pass;
use crate::health::{Health, Silence};
use crate::map::ShardId;
use crate::migrate::Misfit;
use crate::position::Position;
use crate::server::{Address, Login, request_options};
use deadpool::managed::{self, Metrics, Object, QueueMode, RecycleError, RecycleResult, Timeouts};
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections to one server that are made at a time: fewer than the failures that open its breaker.
const CONNECTS_AT_ONCE: usize = 2;

/// What a server is to its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes writes and security decisions.
    Primary,
    /// Serves reads that may be up to 1 s old.
    Replica,
}

impl Role {
    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// No connection, for now. Every variant means "unavailable", never a verdict about a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// All connections stayed busy for the whole checkout limit.
    #[error("no free connection in time")]
    Timeout,
    /// The server's breaker is open: it did not answer of late, and is not asked for now.
    #[error("the server does not answer")]
    Down,
    /// The server cannot be reached or refused us; what it said.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The shard's schema is none that this binary serves; why.
    #[error("shed: {0}")]
    Schema(Misfit),
    /// The map names a shard that the directory's list does not have (yet).
    #[error("shard {0} is not in the directory's list")]
    UnknownShard(ShardId),
}

/// Limits of the pools of a router.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Connections to one server at most.
    pub pool_size: usize,
    /// How long a caller waits for a free connection.
    pub checkout_timeout: Duration,
    /// How long making a new connection may take.
    pub connect_timeout: Duration,
    /// Age at which a connection is replaced, ± a tenth.
    pub max_age: Duration,
}

/// What a caller may tell about a server: whether it answered.
pub(crate) struct Evidence {
    health: Arc<Health>,
    pass: Pass,
}

impl Evidence {
    pub(crate) fn new(health: Arc<Health>, pass: Pass) -> Self {
        Self { health, pass }
    }

    fn answered(self) {
        self.health.answered(self.pass);
    }

    fn failed(self, why: &dyn fmt::Display, silence: Silence) {
        self.health.failed(self.pass, why, silence);
    }
}

/// An exclusive connection. Give it back with [`release`](Self::release) once the server has answered; say
/// [`lost`](Self::lost) if it did not. A plain drop closes it and tells nothing, which is right for a request that was
/// cancelled half-way.
pub struct Conn {
    object: Option<Object<Manager>>,
    role: Role,
    evidence: Option<Evidence>,
    _fallback: Option<OwnedSemaphorePermit>,
}

impl Conn {
    /// Whether this is the primary or a replica.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// How far the replica at the other end had come when it was last asked through this very connection. A restart
    /// would have ended the connection, so it has not gone back since.
    pub(crate) fn replayed(&self) -> Option<Position> {
        self.object.as_ref().and_then(|object| object.replayed)
    }

    /// Remembers what it said.
    pub(crate) fn note_replayed(&mut self, position: Option<Position>) {
        if let Some(object) = self.object.as_mut() {
            object.replayed = position;
        }
    }

    /// Gives the connection back to its pool. Inside a transaction it is closed instead.
    pub fn release(mut self) {
        if let Some(evidence) = self.evidence.take() {
            evidence.answered();
        }
        match self.object.take() {
            Some(object) if object.connection.is_in_transaction() => drop(Object::take(object)),
            // The object's own drop is what returns it.
            object => drop(object),
        }
    }

    /// Closes the connection: the server did not answer, or refused all work for a reason of its own. `why` holds no
    /// value of a user; it is logged if the server counts as down by this.
    pub fn lost(mut self, why: &str) {
        if let Some(evidence) = self.evidence.take() {
            evidence.failed(&why, Silence::Asking);
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

impl Deref for Conn {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.object.as_ref().expect("only release and drop take it").connection
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.object.as_mut().expect("only release and drop take it").connection
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("role", &self.role).finish_non_exhaustive()
    }
}

/// The connections to one server.
#[derive(Clone)]
pub(crate) struct Pool {
    pool: managed::Pool<Manager>,
    shard_label: String,
    role: Role,
}

/// A snapshot of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// Connections allowed.
    pub max_size: usize,
    /// Connections open.
    pub size: usize,
    /// Of these, idle.
    pub idle: usize,
    /// Callers waiting for one.
    pub waiting: usize,
}

impl Pool {
    pub(crate) fn new(
        shard: ShardId,
        role: Role,
        address: &Address,
        login: &Login,
        limits: PoolLimits,
    ) -> Self {
        let manager = Manager {
            options: request_options(address, login),
            limits,
            turns: Semaphore::new(CONNECTS_AT_ONCE),
        };
        // The manager bounds the making of a connection itself.
        let timeouts = Timeouts { wait: Some(limits.checkout_timeout), create: None, recycle: None };
        let pool = managed::Pool::builder(manager)
            .max_size(limits.pool_size)
            .queue_mode(QueueMode::Lifo)
            .timeouts(timeouts)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .expect("a runtime is given, the only thing build() asks for");
        Self { pool, shard_label: shard.to_string(), role }
    }

    pub(crate) async fn get(
        &self,
        evidence: Evidence,
        fallback: Option<OwnedSemaphorePermit>,
    ) -> Result<Conn, PoolError> {
        let started = Instant::now();
        let outcome = self.pool.get().await;
        metrics::histogram!("tessera_pool_wait_seconds", "shard" => self.shard_label.clone(), "role" => self.role.label())
            .record(started.elapsed().as_secs_f64());
        let why = match outcome {
            Ok(object) => {
                let (object, evidence) = (Some(object), Some(evidence));
                return Ok(Conn { object, role: self.role, evidence, _fallback: fallback });
            }
            // All are busy: that is no fault of the server.
            Err(managed::PoolError::Timeout(_) | managed::PoolError::Backend(NotMade::NoTurn)) => {
                return Err(PoolError::Timeout);
            }
            Err(managed::PoolError::Closed) => {
                return Err(PoolError::Connect("the server left the topology".to_owned()));
            }
            Err(other) => other.to_string(),
        };
        evidence.failed(&why, Silence::Connecting);
        Err(PoolError::Connect(why))
    }

    pub(crate) fn resize(&self, max_size: usize) {
        self.pool.resize(max_size);
    }

    /// Refuses new callers and closes idle connections; those in use close when they come back.
    pub(crate) fn close(&self) {
        self.pool.close();
    }

    /// Closes what is idle: after a fail-over nothing old is worth keeping.
    pub(crate) fn drop_idle(&self) {
        self.pool.retain(|_, _| false);
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let status = self.pool.status();
        PoolStatus {
            max_size: status.max_size,
            size: status.size,
            idle: status.available,
            waiting: status.waiting,
        }
    }
}

/// A pooled connection, when it retires, and how far its replica had come.
#[derive(Debug)]
pub(crate) struct Pooled {
    connection: PgConnection,
    replayed: Option<Position>,
    retires_at: Instant,
}

pub(crate) struct Manager {
    options: PgConnectOptions,
    limits: PoolLimits,
    turns: Semaphore,
}

/// Why there is no new connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotMade {
    #[error("others were being made for too long")]
    NoTurn,
    #[error("timed out")]
    TimedOut,
    #[error(transparent)]
    Refused(#[from] sqlx::Error),
}

impl managed::Manager for Manager {
    type Type = Pooled;
    type Error = NotMade;

    async fn create(&self) -> Result<Pooled, NotMade> {
        let turn = tokio::time::timeout(self.limits.checkout_timeout, self.turns.acquire()).await;
        let _turn = turn.map_err(|_| NotMade::NoTurn)?.map_err(|_| NotMade::NoTurn)?;
        let made = tokio::time::timeout(self.limits.connect_timeout, self.options.connect()).await;
        let connection = made.map_err(|_| NotMade::TimedOut)??;
        let retires_at = Instant::now() + crate::jitter(self.limits.max_age);
        Ok(Pooled { connection, replayed: None, retires_at })
    }

    async fn recycle(&self, pooled: &mut Pooled, _: &Metrics) -> RecycleResult<NotMade> {
        if Instant::now() < pooled.retires_at { Ok(()) } else { Err(RecycleError::message("retired by age")) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::health::Name;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::AsyncReadExt;

    /// A server that takes every connection and never answers; how many it held at most.
    async fn mute() -> (u16, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, most) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let (held, seen) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&most));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                seen.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let held = Arc::clone(&held);
                tokio::spawn(async move {
                    while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
                    held.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        (port, most)
    }

    #[tokio::test]
    async fn a_pool_fills_a_few_connections_at_a_time() {
        let (port, most) = mute().await;
        let (shard, role) = (ShardId::new(1).unwrap(), Role::Primary);
        let limits = PoolLimits {
            pool_size: 16,
            checkout_timeout: Duration::from_millis(100),
            connect_timeout: Duration::from_millis(500),
            max_age: Duration::from_secs(600),
        };
        let login = Login { user: String::new(), password: String::new() };
        let pool = Pool::new(shard, role, &Address::new("127.0.0.1", port, "x"), &login, limits);
        let health = Arc::new(Health::new(Name { shard, role, server: "mute".to_owned() }));
        let calls = (0..16).map(|_| {
            let (pool, pass) = (pool.clone(), health.pass().unwrap());
            let evidence = Evidence::new(Arc::clone(&health), pass);
            tokio::spawn(async move { pool.get(evidence, None).await.unwrap_err() })
        });
        let calls: Vec<_> = calls.collect();
        let (mut busy, mut silent) = (0, 0);
        for call in calls {
            match call.await.unwrap() {
                PoolError::Timeout => busy += 1,
                PoolError::Connect(_) => silent += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!((busy, silent), (14, CONNECTS_AT_ONCE), "the others were told that it is busy");
        assert!(most.load(Ordering::SeqCst) <= CONNECTS_AT_ONCE);
        assert!(health.is_up(), "one wave opens no breaker");
    }
}
