//! Whether each server answers, and how far each replica is behind.
//!
//! One task a server, on a connection of its own (a full pool is not an illness). The primary's task keeps a
//! heartbeat row at most 500 ms old. A replica that has the newest heartbeat which is old enough to have
//! arrived is not behind; otherwise its lag is the age of the heartbeat it has, by the primary's clock. So
//! an idle primary does not look like a lagging replica, and two machines' clocks are never compared.

use crate::directory::sql;
use crate::map::ShardId;
use crate::pool::Role;
use crate::server::{connect, within};
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often each server is asked.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A replica further behind than this serves nothing.
pub(crate) const EJECT_LAG: Duration = Duration::from_millis(1000);
/// It comes back after this many probes in a row below [`READMIT_LAG`].
pub(crate) const READMIT_PROBES: u32 = 3;
pub(crate) const READMIT_LAG: Duration = Duration::from_millis(500);
/// Failed probes in a row after which a server counts as down. One may be our own hiccup.
const DOWN_PROBES: u32 = 3;
/// How long a heartbeat may be under way before a replica is expected to have it.
const SETTLE: Duration = Duration::from_millis(200);

/// The primary's heartbeat at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    pub(crate) beat_at: DateTime<Utc>,
    /// The primary's clock when it was read, and ours.
    pub(crate) primary_now: DateTime<Utc>,
    pub(crate) seen: Instant,
}

/// The last two distinct heartbeats of a shard's primary.
#[derive(Debug, Default)]
pub(crate) struct Beats(Mutex<(Option<Beat>, Option<Beat>)>);

impl Beats {
    pub(crate) fn saw(&self, beat: Beat) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.1 {
            Some(latest) if latest.beat_at == beat.beat_at => {}
            latest => *held = (latest, Some(beat)),
        }
    }

    /// How far a replica with this heartbeat is behind, or `None` while nothing is known of the primary.
    pub(crate) fn lag_of(&self, replica_beat_at: DateTime<Utc>, now: Instant) -> Option<Duration> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = |beat: &Beat| now.saturating_duration_since(beat.seen) >= SETTLE;
        let expected = held.1.filter(settled).or(held.0).or(held.1)?;
        if replica_beat_at >= expected.beat_at {
            return Some(Duration::ZERO);
        }
        let age = expected.primary_now - replica_beat_at;
        Some(age.to_std().unwrap_or(Duration::ZERO) + now.saturating_duration_since(expected.seen))
    }
}

/// What is known of one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) up: bool,
    /// Replicas only; `None` until known.
    pub(crate) lag: Option<Duration>,
    /// Replicas only: whether reads go there.
    pub(crate) admitted: bool,
    failures: u32,
    good: u32,
}

/// The state of one server, shared with whoever picks servers.
#[derive(Debug)]
pub(crate) struct Health(Mutex<State>);

impl Health {
    /// Primaries are believed up until shown otherwise; replicas must show themselves first.
    pub(crate) fn new(role: Role) -> Self {
        let up = role == Role::Primary;
        Self(Mutex::new(State { up, lag: None, admitted: false, failures: 0, good: 0 }))
    }

    pub(crate) fn get(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the server just went down.
    pub(crate) fn failed(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        state.good = 0;
        let went_down = state.up && state.failures >= DOWN_PROBES;
        if state.failures >= DOWN_PROBES {
            state.up = false;
            state.admitted = false;
            state.lag = None;
        }
        went_down
    }

    pub(crate) fn answered(&self, lag: Option<Duration>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.up = true;
        state.failures = 0;
        state.lag = lag;
        state.good = if lag.is_some_and(|lag| lag < READMIT_LAG) { state.good.saturating_add(1) } else { 0 };
        if lag.is_none_or(|lag| lag > EJECT_LAG) {
            state.admitted = false;
        } else if state.good >= READMIT_PROBES {
            state.admitted = true;
        }
    }
}

/// A server to watch.
pub(crate) struct Watched {
    pub(crate) shard: ShardId,
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) options: PgConnectOptions,
    pub(crate) health: Arc<Health>,
    pub(crate) beats: Arc<Beats>,
}

/// Watches one server until the task is aborted. `went_down` is called once for each outage.
pub(crate) async fn watch(watched: Watched, went_down: impl Fn() + Send) {
    let mut connection: Option<PgConnection> = None;
    loop {
        match probe(&watched, connection.take()).await {
            Ok((alive, lag)) => {
                connection = Some(alive);
                if !watched.health.get().up {
                    tracing::info!(shard.id = %watched.shard, server = %watched.name, "server answers again");
                }
                watched.health.answered(lag);
            }
            Err(error) => {
                if watched.health.failed() {
                    tracing::warn!(shard.id = %watched.shard, server = %watched.name, %error, "server is down");
                    went_down();
                }
            }
        }
        report(&watched);
        tokio::time::sleep(crate::jitter(PROBE_INTERVAL)).await;
    }
}

async fn probe(
    watched: &Watched,
    connection: Option<PgConnection>,
) -> Result<(PgConnection, Option<Duration>), sqlx::Error> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => connect(&watched.options, PROBE_TIMEOUT).await?,
    };
    let (beat_at, now, in_recovery) = within(PROBE_TIMEOUT, async {
        if watched.role == Role::Primary {
            sqlx::query(sql::BEAT).execute(&mut connection).await?;
        }
        sqlx::query_as::<_, (DateTime<Utc>, DateTime<Utc>, bool)>(sql::READ_BEAT)
            .fetch_one(&mut connection)
            .await
    })
    .await?;
    if watched.role == Role::Replica {
        return Ok((connection, watched.beats.lag_of(beat_at, Instant::now())));
    }
    if in_recovery {
        return Err(sqlx::Error::Protocol("the server named as primary is in recovery".to_owned()));
    }
    watched.beats.saw(Beat { beat_at, primary_now: now, seen: Instant::now() });
    Ok((connection, None))
}

fn report(watched: &Watched) {
    let state = watched.health.get();
    let shard = watched.shard.to_string();
    match watched.role {
        Role::Primary => {
            metrics::gauge!("tessera_shard_up", "shard" => shard).set(f64::from(u8::from(state.up)));
        }
        Role::Replica => {
            let lag = state.lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
            let labels = [("shard", shard), ("replica", watched.name.clone())];
            metrics::gauge!("tessera_replica_lag_seconds", &labels).set(lag);
            metrics::gauge!("tessera_replica_admitted", &labels).set(f64::from(u8::from(state.admitted)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn beat(at_ms: i64, start: Instant) -> Beat {
        let time = DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
        let seen = start + MS(u64::try_from(at_ms).unwrap_or(0));
        Beat { beat_at: time, primary_now: time, seen }
    }

    #[test]
    fn lag_is_the_age_of_a_beat_that_should_have_been_replaced() {
        let start = Instant::now();
        let (beats, at) = (Beats::default(), |ms| beat(ms, start).beat_at);
        assert_eq!(beats.lag_of(at(0), start), None);
        beats.saw(beat(0, start));
        beats.saw(beat(500, start));
        // The second beat may still be under way.
        assert_eq!(beats.lag_of(at(0), start + MS(600)), Some(MS(0)));
        assert_eq!(beats.lag_of(at(0), start + MS(700)), Some(MS(700)));
        assert_eq!(beats.lag_of(at(500), start + MS(700)), Some(MS(0)));
        // A primary that died makes nobody lag.
        assert_eq!(beats.lag_of(at(500), start + MS(60_000)), Some(MS(0)));
    }

    #[test]
    fn ejection_is_quick_and_readmission_takes_three() {
        let health = Health::new(Role::Replica);
        let admitted = |lag| {
            health.answered(Some(MS(lag)));
            health.get().admitted
        };
        assert_eq!([admitted(0), admitted(0), admitted(0)], [false, false, true]);
        assert!(admitted(999), "hysteresis");
        assert!(!admitted(1001));
        assert_eq!([admitted(499), admitted(499), admitted(500), admitted(1)], [false; 4]);
        assert_eq!([admitted(1), admitted(1)], [false, true]);
        health.answered(None);
        assert!(!health.get().admitted);
    }

    #[test]
    fn one_hiccup_is_no_outage() {
        let health = Health::new(Role::Primary);
        assert!(health.get().up);
        assert_eq!(
            [health.failed(), health.failed(), health.failed(), health.failed()],
            [false, false, true, false]
        );
        assert!(!health.get().up);
        health.answered(None);
        assert!(health.get().up);
    }
}
