//! Whether each server answers, and how far each replica is behind.
//!
//! One [`Breaker`] a server, and two kinds of witness. Every request tells it whether the server answered (never what
//! it said: a unique violation is an answer). And one task a server probes it each 250 ms, so that an outage shows where
//! nobody asks. While the breaker is closed, three failures in a row, of whichever kind, open it. From then on requests
//! are refused without touching the pool, and the task alone makes the trials: at once, then each half second. A trial is
//! what a request would need, a new connection and a commit, so no request is ever the guinea pig, and a breaker that
//! opened for old connections only closes again within milliseconds. So there is one judgement of a server, not two.
//!
//! The probe has a connection of its own (a full pool is not an illness). On a primary it keeps a heartbeat row at most
//! 500 ms old, by which replicas' lag is measured ([`Beats`]).

use crate::beats::{Beat, Beats};
use crate::breaker::{Breaker, BreakerSettings, Change, Pass, Phase};
use crate::directory::sql;
use crate::fitness::Fitness;
use crate::map::ShardId;
use crate::pool::Role;
use crate::server::{connect, within};
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often each server is asked.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A replica further behind than this serves nothing.
pub(crate) const EJECT_LAG: Duration = Duration::from_millis(1000);
/// It comes back after this many probes in a row below [`READMIT_LAG`].
pub(crate) const READMIT_PROBES: u32 = 3;
pub(crate) const READMIT_LAG: Duration = Duration::from_millis(500);
const BREAKER: BreakerSettings =
    BreakerSettings { failures: 3, first_pause: Duration::ZERO, pause: Duration::from_millis(500) };

/// What a server is called in logs and metrics.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) shard: ShardId,
    pub(crate) role: Role,
    /// `host:port`.
    pub(crate) server: String,
}

/// How a replica keeps up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Following {
    /// `None` until known.
    pub(crate) lag: Option<Duration>,
    /// Whether reads go there.
    pub(crate) admitted: bool,
    good: u32,
}

/// Where a server was silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It made no new connection: the old ones may be as good as ever.
    Connecting,
    /// It did not answer on one that it had made: those that are idle may be no better.
    Asking,
}

/// The state of one server, shared with whoever picks servers.
#[derive(Debug)]
pub(crate) struct Health {
    name: Name,
    breaker: Breaker,
    following: Mutex<Following>,
    opened: Notify,
    /// Whether idle connections should go.
    is_stale: AtomicBool,
}

impl Health {
    /// Primaries are believed up until shown otherwise; replicas must show themselves first.
    pub(crate) fn new(name: Name) -> Self {
        let breaker = match name.role {
            Role::Primary => Breaker::closed(BREAKER),
            Role::Replica => Breaker::open(BREAKER),
        };
        Self {
            name,
            breaker,
            following: Mutex::default(),
            opened: Notify::new(),
            is_stale: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.breaker.phase() == Phase::Closed
    }

    pub(crate) fn following(&self) -> Following {
        *self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave for one request, which then says how it went.
    pub(crate) fn pass(&self) -> Option<Pass> {
        let pass = self.breaker.pass();
        if pass.is_none() {
            let labels =
                [("shard", self.name.shard.to_string()), ("role", self.name.role.label().to_owned())];
            metrics::counter!("tessera_shard_breaker_refused_total", &labels).increment(1);
        }
        pass
    }

    pub(crate) fn answered(&self, pass: Pass) {
        if pass.answered() == Some(Change::Closed) {
            tracing::info!(shard.id = %self.name.shard, server = %self.name.server, "server answers again");
        }
    }

    /// `why` may be what the server said.
    pub(crate) fn failed(&self, pass: Pass, why: &dyn Display, silence: Silence) {
        let was_up = self.is_up();
        if pass.failed(Instant::now()) != Some(Change::Opened) {
            return;
        }
        *self.following.lock().unwrap_or_else(PoisonError::into_inner) = Following::default();
        if was_up {
            tracing::warn!(shard.id = %self.name.shard, server = %self.name.server, error = %why, "server is down");
            self.is_stale.store(silence == Silence::Asking, Ordering::Relaxed);
            self.opened.notify_one();
        }
        self.report();
    }

    /// A probe of a replica measured its lag.
    pub(crate) fn follows(&self, lag: Option<Duration>) {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        following.lag = lag;
        let is_good = lag.is_some_and(|lag| lag < READMIT_LAG);
        following.good = if is_good { following.good.saturating_add(1) } else { 0 };
        if lag.is_none_or(|lag| lag > EJECT_LAG) {
            following.admitted = false;
        } else if following.good >= READMIT_PROBES {
            following.admitted = true;
        }
    }

    fn report(&self) {
        let Name { shard, role, server } = &self.name;
        let shard = shard.to_string();
        let labels =
            [("shard", shard.clone()), ("role", role.label().to_owned()), ("server", server.clone())];
        metrics::gauge!("tessera_shard_breaker_state", &labels).set(f64::from(self.breaker.phase().code()));
        if *role == Role::Replica {
            let following = self.following();
            let lag = following.lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
            let labels = [("shard", shard), ("replica", server.clone())];
            metrics::gauge!("tessera_replica_lag_seconds", &labels).set(lag);
            metrics::gauge!("tessera_replica_admitted", &labels).set(f64::from(u8::from(following.admitted)));
        } else {
            metrics::gauge!("tessera_shard_up", "shard" => shard).set(f64::from(u8::from(self.is_up())));
        }
    }
}

/// A server to watch.
pub(crate) struct Watched {
    pub(crate) options: PgConnectOptions,
    pub(crate) health: Arc<Health>,
    pub(crate) beats: Arc<Beats>,
    pub(crate) fitness: Arc<Fitness>,
}

/// Watches one server until the task is aborted. `drop_idle` is called for each outage in which connections were lost.
pub(crate) async fn watch(watched: Watched, drop_idle: impl Fn() + Send) {
    let mut connection: Option<PgConnection> = None;
    let health = &*watched.health;
    loop {
        let pass = health.breaker.pass().or_else(|| {
            // What requests will have to do: connect anew.
            connection = None;
            health.breaker.trial(Instant::now())
        });
        if let Some(pass) = pass {
            match probe(&watched, connection.take()).await {
                Ok((alive, lag)) => {
                    connection = Some(alive);
                    health.answered(pass);
                    health.follows(lag);
                }
                Err(error) => health.failed(pass, &error, Silence::Asking),
            }
            health.report();
        }
        tokio::select! {
            () = tokio::time::sleep(crate::jitter(PROBE_INTERVAL)) => {}
            () = health.opened.notified() => {
                if health.is_stale.swap(false, Ordering::Relaxed) {
                    drop_idle();
                }
            }
        }
    }
}

async fn probe(
    watched: &Watched,
    connection: Option<PgConnection>,
) -> Result<(PgConnection, Option<Duration>), sqlx::Error> {
    let role = watched.health.name.role;
    let mut connection = match connection {
        Some(connection) => connection,
        None => connect(&watched.options, PROBE_TIMEOUT).await?,
    };
    let mut asked = Instant::now();
    let (beat_at, now, in_recovery, schema) = within(PROBE_TIMEOUT, async {
        if role == Role::Primary {
            sqlx::query(sql::BEAT).execute(&mut connection).await?;
        }
        asked = Instant::now();
        sqlx::query_as::<_, (DateTime<Utc>, DateTime<Utc>, bool, Option<i64>)>(sql::READ_BEAT)
            .fetch_one(&mut connection)
            .await
    })
    .await?;
    if role == Role::Replica {
        return Ok((connection, watched.beats.lag_of(beat_at, Instant::now())));
    }
    if in_recovery {
        return Err(sqlx::Error::Protocol("the server named as primary is in recovery".to_owned()));
    }
    watched.beats.saw(Beat { beat_at, primary_now: now, asked, seen: Instant::now() });
    let shard = watched.health.name.shard;
    within(PROBE_TIMEOUT, watched.fitness.look(shard, &mut connection, schema)).await?;
    watched.fitness.report(shard);
    Ok((connection, None))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn health(role: Role) -> Health {
        Health::new(Name { shard: ShardId::new(1).unwrap(), role, server: "127.0.0.1:1".to_owned() })
    }

    fn trial(health: &Health) -> Pass {
        health.breaker.trial(Instant::now() + MS(10_000)).unwrap()
    }

    #[test]
    fn ejection_is_quick_and_readmission_takes_three() {
        let health = health(Role::Replica);
        health.answered(trial(&health));
        let admitted = |lag| {
            health.follows(Some(MS(lag)));
            health.following().admitted
        };
        assert_eq!([admitted(0), admitted(0), admitted(0)], [false, false, true]);
        assert!(admitted(999), "hysteresis");
        assert!(!admitted(1001));
        assert_eq!([admitted(499), admitted(499), admitted(500), admitted(1)], [false; 4]);
        assert_eq!([admitted(1), admitted(1)], [false, true]);
        health.follows(None);
        assert!(!health.following().admitted);
    }

    #[test]
    fn a_replica_that_went_down_shows_itself_anew() {
        let health = health(Role::Replica);
        assert!(!health.is_up() && health.pass().is_none(), "it has not shown itself at all");
        health.answered(trial(&health));
        for _ in 0..3 {
            health.follows(Some(MS(0)));
        }
        assert!(health.following().admitted);
        for _ in 0..3 {
            health.failed(health.pass().unwrap(), &"no answer", Silence::Asking);
        }
        assert!(!health.following().admitted && health.following().lag.is_none());
        health.answered(trial(&health));
        health.follows(Some(MS(0)));
        assert!(health.is_up() && !health.following().admitted);
    }

    #[test]
    fn one_hiccup_is_no_outage_and_requests_and_probes_count_alike() {
        let health = health(Role::Primary);
        assert!(health.is_up());
        for _ in 0..2 {
            health.failed(health.pass().unwrap(), &"no answer", Silence::Asking);
        }
        health.answered(health.pass().unwrap());
        for n in 0..3 {
            assert!(health.is_up(), "{n}");
            health.failed(health.pass().unwrap(), &"no answer", Silence::Asking);
        }
        assert!(!health.is_up() && health.pass().is_none());
        health.failed(trial(&health), &"no answer", Silence::Asking);
        assert!(!health.is_up());
        health.answered(trial(&health));
        assert!(health.is_up());
    }
}
