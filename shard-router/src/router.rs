//! The one handle of this crate: places buckets, hands out connections, keeps itself up to date.

use crate::bulkhead::{Bulkhead, FenceFull, FencePermit};
use crate::config::RouterConfig;
use crate::directory::{BadSection, Directory, DiskError, Snapshot, distrusted_kids};
use crate::map::{BucketMap, Hint, Placement, ShardId};
use crate::migrate::Schema;
use crate::ownership::Ownership;
use crate::poll::{self, Sections};
use crate::pool::{Conn, PoolError, PoolLimits};
use crate::position::Position;
use crate::shards::{self, Reach, ShardStatus, Shards};
use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use serde::Serialize;
use shard_key::Bucket;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Why a router cannot start: it knows of no shards, neither from the directory nor from the disk.
#[derive(Debug, thiserror::Error)]
#[error("no directory to start from: the directory says: {directory}; the copy on disk: {disk}")]
pub struct StartError {
    /// What became of asking the directory.
    pub directory: DirectoryProblem,
    /// What became of reading the copy.
    pub disk: DiskProblem,
}

/// Why the directory gave no topology.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryProblem {
    /// It did not answer.
    #[error("{0}")]
    Unreachable(#[from] sqlx::Error),
    /// It answered with something that cannot be used.
    #[error("{0}")]
    Bad(#[from] BadSection),
}

/// Why the disk gave no topology.
#[derive(Debug, thiserror::Error)]
pub enum DiskProblem {
    /// There is no copy.
    #[error("there is none")]
    Absent,
    /// It is damaged or cannot be read.
    #[error("{0}")]
    Unreadable(#[from] DiskError),
    /// It is whole, and cannot be used.
    #[error("{0}")]
    Bad(#[from] BadSection),
}

/// The state of the directory as seen from here.
#[derive(Clone, Debug, Serialize)]
pub struct DirectoryStatus {
    /// Whether the last poll succeeded.
    pub up: bool,
    /// Version of the topology held.
    pub topology_version: i64,
    /// Version of the keys held.
    pub keys_version: i64,
    /// Time since the last successful poll.
    pub age_ms: u64,
    /// Sections whose newest version is being ignored because it is bad.
    pub quarantined: Vec<&'static str>,
}

/// Everything that this node sees, for `/health/dependencies`.
#[derive(Clone, Debug, Serialize)]
pub struct RouterStatus {
    /// The directory.
    pub directory: DirectoryStatus,
    /// Every shard.
    pub shards: Vec<ShardStatus>,
}

/// Cheap to clone. Its background tasks end when the last clone is dropped, or at [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
    _ends: Arc<EndsTasks>,
}

pub(crate) struct Inner {
    pub(crate) config: RouterConfig,
    pub(crate) directory: Directory,
    pub(crate) map: BucketMap,
    pub(crate) shards: ArcSwap<Shards>,
    pub(crate) pool_size: AtomicUsize,
    pub(crate) sections: Mutex<Sections>,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) last_poll: Mutex<LastPoll>,
    pub(crate) distrusted: ArcSwap<BTreeSet<String>>,
    pub(crate) refresh: Notify,
    bulkhead: Bulkhead,
}

/// How the last poll went, and when one last succeeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastPoll {
    pub(crate) up: bool,
    pub(crate) succeeded_at: Instant,
}

struct EndsTasks {
    ended: watch::Sender<bool>,
    inner: Arc<Inner>,
}

impl EndsTasks {
    fn end(&self) {
        self.ended.send_replace(true);
        shards::retire(&self.inner.shards.load());
    }
}

impl Drop for EndsTasks {
    fn drop(&mut self) {
        self.end();
    }
}

impl Inner {
    pub(crate) fn reach(&self) -> Reach {
        let pool_size = self.pool_size.load(Ordering::Relaxed);
        Reach {
            login: self.config.login.clone(),
            limits: PoolLimits { pool_size, ..self.config.limits() },
            schema: Arc::clone(&self.config.schema),
        }
    }
}

impl Router {
    /// Reads the directory, or the copy on disk while it is down, and starts the background tasks.
    ///
    /// # Errors
    /// Neither gave a topology that can be used; says what was wrong with each.
    pub async fn start(config: RouterConfig) -> Result<Self, StartError> {
        let timeout = Duration::from_millis(config.directory_timeout_ms);
        let directory = Directory::new(config.directory.clone(), config.login.clone(), timeout);
        let boot = poll::boot(&directory, &config.state_dir).await?;
        let inner = Arc::new(Inner {
            pool_size: AtomicUsize::new(config.pool_size),
            config,
            directory,
            map: boot.map,
            shards: ArcSwap::default(),
            snapshot: watch::Sender::new(Arc::new(boot.snapshot)),
            sections: Mutex::new(boot.sections),
            last_poll: Mutex::new(LastPoll { up: boot.directory_up, succeeded_at: Instant::now() }),
            distrusted: ArcSwap::default(),
            refresh: Notify::new(),
            bulkhead: Bulkhead::default(),
        });
        poll::follow_topology(&inner);
        let (ended, watching) = watch::channel(false);
        tokio::spawn(poll::until(watching.clone(), poll::poll_forever(Arc::clone(&inner), boot.connection)));
        tokio::spawn(poll::until(watching, poll::read_distrusted_forever(Arc::clone(&inner))));
        let ends = Arc::new(EndsTasks { ended, inner: Arc::clone(&inner) });
        Ok(Self { inner, _ends: ends })
    }

    /// Ends the background tasks and closes the pools, whoever still holds a clone.
    pub fn shutdown(&self) {
        self._ends.end();
    }

    /// The owner of a bucket, as far as this node knows.
    #[must_use]
    pub fn place(&self, bucket: Bucket) -> Placement {
        self.inner.map.place(bucket)
    }

    /// Takes a shard's word about one bucket if it is newer than the map, and polls soon. Says whether it was.
    pub fn hint(&self, bucket: Bucket, hint: Hint) -> bool {
        let taken = self.inner.map.apply_hint(bucket, hint);
        self.refresh_soon();
        taken
    }

    /// Learns from any refusal, and counts it: follows a hint, or polls soon if there is none. A fence says
    /// nothing about the map, so it changes nothing here. Says whether the map has changed: if not, only time helps.
    pub fn redirected(&self, bucket: Bucket, ownership: Ownership) -> bool {
        let (reason, news) = match ownership {
            Ownership::Active => return false,
            Ownership::Fenced => ("fenced", false),
            Ownership::Elsewhere(Some(hint)) => {
                let news = self.hint(bucket, hint);
                (if news { "moved" } else { "behind" }, news)
            }
            Ownership::Elsewhere(None) => {
                self.refresh_soon();
                ("unknown", false)
            }
        };
        metrics::counter!("tessera_redirects_total", "reason" => reason).increment(1);
        news
    }

    /// Advances the next poll. Many calls make one poll.
    pub fn refresh_soon(&self) {
        self.inner.refresh.notify_one();
    }

    /// A connection to the shard's primary: writes and security decisions.
    ///
    /// # Errors
    /// Unavailable, for now.
    pub async fn primary(&self, shard: ShardId) -> Result<Conn, PoolError> {
        let found = self.shard(shard)?;
        found.primary().await
    }

    /// As [`primary`](Self::primary), whatever the shard's schema is.
    pub(crate) async fn primary_unjudged(&self, shard: ShardId) -> Result<Conn, PoolError> {
        let found = self.shard(shard)?;
        found.primary_unjudged().await
    }

    /// Which schemas we serve.
    pub(crate) fn schema(&self) -> &Schema {
        &self.inner.config.schema
    }

    /// Whether no shard's schema is one that this binary serves: other nodes may do better. One shard alone is shed,
    /// because no other node of this release could serve it either.
    #[must_use]
    pub fn serves_nothing(&self) -> bool {
        let shards = self.inner.shards.load();
        !shards.is_empty() && shards.values().all(|shard| shard.misfit().is_some())
    }

    /// A connection for reads that may be up to 1 s old: the healthy replica that `sticky` (a user) always
    /// gets, else the primary. [`Conn::role`] says which it became. With `after`, a position of this shard, the replica
    /// has everything up to there, or has it within 20 ms; else it is the primary.
    ///
    /// # Errors
    /// Unavailable, for now.
    pub async fn reader(
        &self,
        shard: ShardId,
        sticky: u64,
        after: Option<Position>,
    ) -> Result<Conn, PoolError> {
        let found = self.shard(shard)?;
        found.reader(sticky, after, &self.inner.config.limits()).await
    }

    fn shard(&self, shard: ShardId) -> Result<Arc<shards::Shard>, PoolError> {
        self.inner.shards.load().get(&shard).cloned().ok_or(PoolError::UnknownShard(shard))
    }

    /// Leave to wait for a fenced bucket; hold it while sleeping, without a connection.
    ///
    /// # Errors
    /// So many wait already that one more would only add to the pile.
    pub fn fence_wait(&self, shard: ShardId, bucket: Bucket) -> Result<FencePermit, FenceFull> {
        self.inner.bulkhead.enter(shard, bucket)
    }

    /// Every shard, ascending.
    #[must_use]
    pub fn shards(&self) -> Vec<ShardId> {
        self.inner.shards.load().keys().copied().collect()
    }

    /// Between which instants the clock of each reachable primary stands at `now`, as its last probe says.
    #[must_use]
    pub fn primary_clocks(&self, now: Instant) -> BTreeMap<ShardId, (DateTime<Utc>, DateTime<Utc>)> {
        let shards = self.inner.shards.load();
        shards.iter().filter_map(|(id, shard)| Some((*id, shard.primary_clock(now)?))).collect()
    }

    /// What this node holds of the directory.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.borrow().clone()
    }

    /// Tells of every new snapshot.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.snapshot.subscribe()
    }

    /// The directory itself, to write signing keys.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// Every key id that any shard was told to distrust; grows only. Read again each 30 s.
    #[must_use]
    pub fn distrusted_kids(&self) -> Arc<BTreeSet<String>> {
        self.inner.distrusted.load_full()
    }

    /// Gives every pool another size, now and for servers to come.
    pub fn resize(&self, pool_size: usize) {
        self.inner.pool_size.store(pool_size, Ordering::Relaxed);
        shards::resize(&self.inner.shards.load(), pool_size);
    }

    /// What this node sees.
    #[must_use]
    pub fn status(&self) -> RouterStatus {
        let last = *self.inner.last_poll.lock().unwrap_or_else(PoisonError::into_inner);
        let sections = self.inner.sections.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = DirectoryStatus {
            up: last.up,
            topology_version: sections.topology.version(),
            keys_version: sections.keys.version(),
            age_ms: u64::try_from(last.succeeded_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            quarantined: sections.quarantined(),
        };
        RouterStatus {
            directory,
            shards: self.inner.shards.load().values().map(|shard| shard.status()).collect(),
        }
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("directory", &self.inner.config.directory).finish_non_exhaustive()
    }
}

/// Reads what each shard distrusts, for [`Router::distrusted_kids`].
pub(crate) async fn read_distrusted(inner: &Inner) {
    let shards = inner.shards.load_full();
    let mut kids = BTreeSet::clone(&inner.distrusted.load());
    let before = kids.len();
    for (id, shard) in shards.iter() {
        let Ok(mut conn) = shard.primary().await else { continue };
        match distrusted_kids(&mut conn).await {
            Ok(found) => {
                conn.release();
                kids.extend(found);
            }
            Err(error) => tracing::warn!(shard.id = %id, %error, "distrusted keys not read"),
        }
    }
    if kids.len() > before {
        inner.distrusted.store(Arc::new(kids));
    }
}
