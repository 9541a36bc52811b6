//! The servers of each shard, kept as the topology says: pools, health tasks, choice of replica.

use crate::beats::Beats;
use crate::caught_up::caught_up;
use crate::directory::ShardRow;
use crate::fitness::Fitness;
use crate::health::{Health, Name, Watched, watch};
use crate::map::ShardId;
use crate::migrate::{Misfit, Schema};
use crate::pool::{Conn, Evidence, Pool, PoolError, PoolLimits, PoolStatus, Role};
use crate::position::Position;
use crate::server::{Address, Login, request_options};
use chrono::{DateTime, Utc};
use consistent_hash::{DefaultHash, Node, StaticHashRing};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// Points of each replica on the ring: enough for an even spread over a handful of replicas.
const RING_POINTS: usize = 64;

/// How servers are reached.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) login: Login,
    pub(crate) limits: PoolLimits,
    pub(crate) schema: Arc<Schema>,
}

/// What the probes of one shard share.
#[derive(Clone)]
struct Told {
    beats: Arc<Beats>,
    fitness: Arc<Fitness>,
}

/// One server: its pool and what is known of its health.
pub(crate) struct Server {
    address: Address,
    role: Role,
    pub(crate) pool: Pool,
    health: Arc<Health>,
    task: AbortHandle,
}

impl Server {
    fn start(shard: ShardId, role: Role, address: &Address, reach: &Reach, told: &Told) -> Arc<Self> {
        let pool = Pool::new(shard, role, address, &reach.login, reach.limits);
        let health = Arc::new(Health::new(Name { shard, role, server: address.to_string() }));
        let watched = Watched {
            options: request_options(address, &reach.login),
            health: Arc::clone(&health),
            beats: Arc::clone(&told.beats),
            fitness: Arc::clone(&told.fitness),
        };
        let idle = pool.clone();
        let task = tokio::spawn(watch(watched, move || idle.drop_idle())).abort_handle();
        Arc::new(Self { address: address.clone(), role, pool, health, task })
    }

    /// At once if the breaker is open: waiting for such a server would only collect callers.
    async fn get(&self, fallback: Option<OwnedSemaphorePermit>) -> Result<Conn, PoolError> {
        let pass = self.health.pass().ok_or(PoolError::Down)?;
        let evidence = Evidence::new(Arc::clone(&self.health), pass);
        self.pool.get(evidence, fallback).await
    }

    /// No new callers, no more probes. Connections in use end when they are given back.
    fn retire(&self) {
        self.pool.close();
        self.task.abort();
    }

    fn status(&self) -> ServerStatus {
        let following = self.health.following();
        ServerStatus {
            address: self.address.to_string(),
            role: self.role,
            up: self.health.is_up(),
            admitted: self.role == Role::Primary || following.admitted,
            lag_ms: following.lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
            pool: self.pool.status(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.retire();
    }
}

/// A server, for people and dashboards.
#[derive(Clone, Debug, Serialize)]
pub struct ServerStatus {
    /// `host:port`.
    pub address: String,
    /// What it is to its shard.
    pub role: Role,
    /// Whether its breaker is closed.
    pub up: bool,
    /// Whether it is used: a replica only while it is close behind.
    pub admitted: bool,
    /// Replicas: how far behind, if known.
    pub lag_ms: Option<u64>,
    /// Its connections.
    pub pool: PoolStatus,
}

/// A shard, for people and dashboards.
#[derive(Clone, Debug, Serialize)]
pub struct ShardStatus {
    /// Its number.
    pub shard_id: ShardId,
    /// Its primary.
    pub primary: ServerStatus,
    /// Its replicas.
    pub replicas: Vec<ServerStatus>,
    /// Why it is not used although it answers: its schema is none that this binary serves.
    pub schema_misfit: Option<String>,
}

type Ring = StaticHashRing<'static, String, usize, DefaultHash>;

/// The servers of one shard.
pub(crate) struct Shard {
    id: ShardId,
    pub(crate) primary: Arc<Server>,
    pub(crate) replicas: Vec<Arc<Server>>,
    ring: Ring,
    told: Told,
    /// Reads that the primary takes for its replicas: half its pool, so that losing the replicas does not
    /// drown the writes.
    fallback: Arc<Semaphore>,
}

impl Shard {
    fn start(row: &ShardRow, old: Option<&Self>, reach: &Reach) -> Self {
        let news =
            || Told { beats: Arc::default(), fitness: Arc::new(Fitness::new(Arc::clone(&reach.schema))) };
        let told = old.map_or_else(news, |old| old.told.clone());
        let server = |role, address: &Address| {
            old.into_iter()
                .flat_map(Self::servers)
                .find(|server| server.role == role && server.address == *address)
                .map_or_else(|| Server::start(row.shard_id, role, address, reach, &told), Arc::clone)
        };
        let primary = server(Role::Primary, &row.primary);
        let replicas: Vec<_> = row.replicas.iter().map(|address| server(Role::Replica, address)).collect();
        let nodes: Vec<_> = (0..)
            .zip(&row.replicas)
            .map(|(index, address)| Node::new(address.to_string()).value(index).quantity(RING_POINTS))
            .collect();
        let ring = StaticHashRing::new(DefaultHash, nodes.into_iter());
        let fallback = Arc::new(Semaphore::new((reach.limits.pool_size / 2).max(1)));
        Self { id: row.shard_id, primary, replicas, ring, told, fallback }
    }

    fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }

    pub(crate) async fn primary(&self) -> Result<Conn, PoolError> {
        self.check_schema()?;
        self.primary_unjudged().await
    }

    /// The same whatever its schema is: for whoever looks at that.
    pub(crate) async fn primary_unjudged(&self) -> Result<Conn, PoolError> {
        self.primary.get(None).await
    }

    /// Why its schema keeps us from using it.
    pub(crate) fn misfit(&self) -> Option<Misfit> {
        self.told.fitness.misfit()
    }

    fn check_schema(&self) -> Result<(), PoolError> {
        self.misfit().map_or(Ok(()), |misfit| Err(PoolError::Schema(misfit)))
    }

    /// The admitted replica that `sticky` prefers, if it has come as far as `after`; else the primary.
    pub(crate) async fn reader(
        &self,
        sticky: u64,
        after: Option<Position>,
        limits: &PoolLimits,
    ) -> Result<Conn, PoolError> {
        self.check_schema()?;
        if let Some((replica, conn)) = self.replica(sticky).await {
            let conn = match after {
                Some(after) => caught_up(conn, after).await,
                None => Some(conn),
            };
            if let Some(conn) = conn {
                self.count_reader("replica", replica);
                return Ok(conn);
            }
        }
        if !self.primary.health.is_up() {
            return Err(PoolError::Down);
        }
        let permit = if self.replicas.is_empty() {
            None
        } else {
            let permit = Arc::clone(&self.fallback).acquire_owned();
            Some(
                tokio::time::timeout(limits.checkout_timeout, permit)
                    .await
                    .map_err(|_| PoolError::Timeout)?
                    .map_err(|_| PoolError::Timeout)?,
            )
        };
        self.count_reader("primary", &self.primary);
        self.primary.get(permit).await
    }

    async fn replica(&self, sticky: u64) -> Option<(&Server, Conn)> {
        for node in self.ring.calc_candidates(&sticky) {
            let Some(replica) = self.replicas.get(node.value) else { continue };
            if !replica.health.following().admitted {
                continue;
            }
            if let Ok(conn) = replica.get(None).await {
                return Some((replica, conn));
            }
        }
        None
    }

    fn count_reader(&self, role: &'static str, server: &Server) {
        let labels = [
            ("shard", self.id.to_string()),
            ("role", role.to_owned()),
            ("replica", server.address.to_string()),
        ];
        metrics::counter!("tessera_replica_reads_total", &labels).increment(1);
    }

    /// Between which instants the primary's clock stands, if it answers.
    pub(crate) fn primary_clock(&self, now: Instant) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        self.told.beats.primary_clock(now).filter(|_| self.primary.health.is_up())
    }

    pub(crate) fn status(&self) -> ShardStatus {
        ShardStatus {
            shard_id: self.id,
            primary: self.primary.status(),
            replicas: self.replicas.iter().map(|replica| replica.status()).collect(),
            schema_misfit: self.misfit().map(|misfit| misfit.to_string()),
        }
    }

    pub(crate) fn report(&self) {
        let shard = self.id.to_string();
        for server in self.servers() {
            let status = server.pool.status();
            let states = [
                ("idle", status.idle),
                ("busy", status.size - status.idle.min(status.size)),
                ("waiting", status.waiting),
            ];
            for (state, count) in states {
                let labels = [
                    ("shard", shard.clone()),
                    ("role", server.role.label().to_owned()),
                    ("server", server.address.to_string()),
                    ("state", state.to_owned()),
                ];
                metrics::gauge!("tessera_pool_connections", &labels).set(count as f64);
            }
        }
    }
}

/// Every shard that the topology names.
pub(crate) type Shards = BTreeMap<ShardId, Arc<Shard>>;

/// The servers of a new topology; those that did not change keep their pools and connections.
pub(crate) fn follow(rows: &[ShardRow], old: &Shards, reach: &Reach) -> Shards {
    let start = |row: &ShardRow| Arc::new(Shard::start(row, old.get(&row.shard_id).map(Arc::as_ref), reach));
    let new: Shards = rows.iter().map(|row| (row.shard_id, start(row))).collect();
    for server in old.values().flat_map(|shard| shard.servers()) {
        let kept = new.values().flat_map(|shard| shard.servers()).any(|kept| Arc::ptr_eq(kept, server));
        if !kept {
            tracing::info!(server = %server.address, role = server.role.label(), "server left the topology");
            server.retire();
        }
    }
    new
}

/// Gives every pool another size.
pub(crate) fn resize(shards: &Shards, pool_size: usize) {
    for server in shards.values().flat_map(|shard| shard.servers()) {
        server.pool.resize(pool_size);
    }
}

/// Closes every pool and ends every probe.
pub(crate) fn retire(shards: &Shards) {
    for server in shards.values().flat_map(|shard| shard.servers()) {
        server.retire();
    }
}
